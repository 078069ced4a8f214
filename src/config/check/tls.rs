//! HTTPS of a listener: whether its files can be read and used, and its certificates are good for now.

use super::Checker;
use crate::config::Secure;
use crate::config::keys;
use crate::config::problem::Problem;
use crate::config::value::Table;
use crate::tls::{self, Tls, Version, Wrong};
use std::path::PathBuf;
use std::time::SystemTime;

impl Checker<'_> {
    /// None: it speaks HTTP, or something is wrong, which was said.
    pub(super) fn tls(&mut self, listener: &Table, http2: bool) -> Option<Secure> {
        let table = listener.table(&keys::TLS)?;
        let before = self.errors.len();
        let mut builder = Tls::builder();
        let Some(certificates) = table.tables(&keys::CERTIFICATES) else {
            let example = "certificate = [{ chain = \"chain.pem\", key = \"key.pem\" }]";
            self.needed(&table, &keys::CERTIFICATES, example);
            return None;
        };
        for certificate in certificates {
            if let Some((chain, key)) = self.certificate(&certificate) {
                builder = builder.certificate(chain, key);
            }
        }
        if let Some(authorities) = table.text(&keys::CLIENT_AUTHORITIES) {
            let required = table.text(&keys::CLIENT_CERTIFICATES).as_deref() != Some("optional");
            builder = builder.client_certificates(authorities, required);
        } else if table.get(&keys::CLIENT_CERTIFICATES).is_some() {
            self.needed(&table, &keys::CLIENT_AUTHORITIES, "client_authorities = \"clients.pem\"");
        }
        if table.text(&keys::MIN_VERSION).as_deref() == Some("1.3") {
            builder = builder.min_version(Version::Tls13);
        }
        if !http2 {
            builder = builder.alpn(["http/1.1"]);
        }
        if self.errors.len() > before {
            return None;
        }
        // The certificates are good, so it is about the authorities.
        let place = table.place(&keys::CLIENT_AUTHORITIES);
        match builder.clone().build() {
            Ok(tls) => Some(Secure { tls, builder }),
            Err(error) => {
                self.wrong(place, error.to_string());
                None
            }
        }
    }

    /// The files of a certificate that can be used.
    fn certificate(&mut self, table: &Table) -> Option<(PathBuf, PathBuf)> {
        for (key, example) in
            [(&keys::CHAIN, "chain = \"chain.pem\""), (&keys::KEY, "key = \"key.pem\"")]
        {
            if table.get(key).is_none() {
                self.needed(table, key, example);
            }
        }
        let file = |key| table.text(key).map(PathBuf::from);
        let (chain, key) = (file(&keys::CHAIN)?, file(&keys::KEY)?);
        let (about, error) = match tls::check(&chain, &key) {
            Ok(certificate) => {
                let now = SystemTime::now();
                let problem = certificate
                    .problem(now)
                    .map(|text| Problem::new(table.place(&keys::CHAIN), text).of(keys::CHAIN.name));
                if now > certificate.not_after() {
                    self.expired.extend(problem);
                } else {
                    self.warnings.extend(problem);
                }
                return Some((chain, key));
            }
            Err(Wrong::Chain(error)) => (&keys::CHAIN, error),
            Err(Wrong::Key(error)) => (&keys::KEY, error),
        };
        self.errors.push(Problem::new(table.place(about), error.to_string()).of(about.name));
        None
    }
}
