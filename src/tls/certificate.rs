//! One certificate with its chain and key: read, and checked as far as it can be without a client.

use super::dates::validity;
use super::files::{certificates, private_key, wrong};
use crate::error::Error;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, InconsistentKeys};
use webpki::EndEntityCert;

const SECONDS_PER_DAY: u64 = 86_400;

/// What is known of a certificate that [`Tls`](super::Tls) serves: the first one of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    path: PathBuf,
    names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Certificate {
    /// The file of its chain.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The DNS names in it (`subjectAltName`), wildcards with their star. Without one it is served as the default only.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The first moment at which it is valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// The last moment at which it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Why clients refuse it at this time, in a sentence for a log; `None` if it is valid then.
    pub fn problem(&self, now: SystemTime) -> Option<String> {
        let path = self.path.display();
        if let Ok(since) = now.duration_since(self.not_after)
            && !since.is_zero()
        {
            let days = since.as_secs() / SECONDS_PER_DAY;
            return Some(format!(
                "the certificate {path} expired {} ago: renew it, and reload",
                plural(days)
            ));
        }
        let until = self.not_before.duration_since(now).ok().filter(|until| !until.is_zero())?;
        let days = until.as_secs() / SECONDS_PER_DAY;
        Some(format!(
            "the certificate {path} is not valid before {} from now: is the clock right?",
            plural(days)
        ))
    }
}

fn plural(days: u64) -> String {
    match days {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// Reads a chain and its key.
pub(super) fn load(
    chain_path: &Path,
    key_path: &Path,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Certificate), Error> {
    let chain = certificates(chain_path, "the certificate chain")?;
    let certificate = describe(chain_path, &chain[0])?;
    let key = provider.key_provider.load_private_key(private_key(key_path)?).map_err(|error| {
        wrong(format!(
            "the private key {} cannot be used: {error}; RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384, and Ed25519 can",
            key_path.display()
        ))
        .because(error)
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok((certified, certificate)),
        Err(error) => Err(mismatch(chain_path, key_path, certified, error)),
    }
}

fn describe(path: &Path, certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    let shown = path.display();
    let parsed = EndEntityCert::try_from(certificate).map_err(|error| {
        let help = match error {
            webpki::Error::UnsupportedCertVersion => {
                "; it must be of version 3 (`openssl req -x509` makes one)"
            }
            _ => "",
        };
        wrong(format!("the first certificate of {shown} cannot be understood: {error}{help}"))
            .because(error)
    })?;
    let names = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
    let (not_before, not_after) = validity(certificate).ok_or_else(|| {
        wrong(format!("the first certificate of {shown} does not say how long it is valid"))
    })?;
    Ok(Certificate { path: path.to_owned(), names, not_before, not_after })
}

/// Says what the key belongs to instead, if that can be seen.
fn mismatch(
    chain_path: &Path,
    key_path: &Path,
    certified: CertifiedKey,
    error: rustls::Error,
) -> Error {
    let (chain, key) = (chain_path.display(), key_path.display());
    if error != rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
        return wrong(format!(
            "the certificate {chain} and the private key {key} cannot be used: {error}"
        ))
        .because(error);
    }
    let CertifiedKey { cert, key: signing, .. } = certified;
    let belongs = |number: &usize| {
        let alone = CertifiedKey::new(vec![cert[*number].clone()], signing.clone());
        alone.keys_match().is_ok()
    };
    let text = match (1..cert.len()).find(belongs) {
        Some(number) => format!(
            "the private key {key} belongs to certificate {} of {chain}, and must belong to the first: put the server's own \
             certificate first, then those that issued it",
            number + 1
        ),
        None => format!(
            "the private key {key} does not belong to the certificate {chain}: give the key that the certificate was made \
             with; if both are being replaced, reload when both are"
        ),
    };
    wrong(text).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::time::Duration;
    use tokio_rustls::rustls::crypto::ring::default_provider;

    /// A directory with files of these names and texts.
    fn directory(files: &[(&str, String)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn certificate(names: &[&str], key: &KeyPair) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).unwrap().self_signed(key).unwrap().pem()
    }

    fn load_from(directory: &Path) -> Result<Certificate, Error> {
        let read = load(&directory.join("chain"), &directory.join("key"), &default_provider());
        read.map(|(_, certificate)| certificate)
    }

    #[test]
    fn names_are_those_in_the_certificate_and_addresses_are_not_among_them() {
        let key = KeyPair::generate().unwrap();
        let names = ["A.example", "*.b.example", "127.0.0.1"];
        let files =
            directory(&[("chain", certificate(&names, &key)), ("key", key.serialize_pem())]);
        let certificate = load_from(files.path()).unwrap();
        assert_eq!(certificate.names(), ["a.example", "*.b.example"]);
        assert_eq!(certificate.path(), files.path().join("chain"));
    }

    #[test]
    fn the_key_of_another_certificate_is_refused() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let chain = certificate(&["a.example"], &key);
        let files = directory(&[("chain", chain), ("key", other.serialize_pem())]);
        let error = load_from(files.path()).unwrap_err().to_string();
        assert!(error.contains("/key does not belong to the certificate "), "{error}");
    }

    #[test]
    fn a_chain_in_the_wrong_order_is_told_so() {
        let (key, issuer) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let chain = [certificate(&["ca"], &issuer), certificate(&["a"], &key)].concat();
        let files = directory(&[("chain", chain), ("key", key.serialize_pem())]);
        let error = load_from(files.path()).unwrap_err().to_string();
        assert!(error.contains("belongs to certificate 2 of"), "{error}");
    }

    #[test]
    fn what_is_no_certificate_inside_is_refused() {
        let key = KeyPair::generate().unwrap();
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let files = directory(&[("chain", nonsense.to_owned()), ("key", key.serialize_pem())]);
        let error = load_from(files.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be understood"), "{error}");
        let nonsense = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let chain = certificate(&["a.example"], &key);
        let files = directory(&[("chain", chain), ("key", nonsense.to_owned())]);
        let error = load_from(files.path()).unwrap_err().to_string();
        assert!(error.contains("cannot be used"), "{error}");
    }

    #[test]
    fn a_certificate_says_that_it_has_expired_or_is_not_valid_yet() {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(["a.example".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let chain = parameters.self_signed(&key).unwrap().pem();
        let files = directory(&[("chain", chain), ("key", key.serialize_pem())]);
        let certificate = load_from(files.path()).unwrap();
        let day = Duration::from_secs(SECONDS_PER_DAY);
        let (first, last) = (certificate.not_before(), certificate.not_after());
        assert_eq!(certificate.problem(first), None);
        assert_eq!(certificate.problem(last), None);
        let said = |now| certificate.problem(now).unwrap_or_default();
        assert!(said(last + day).contains("expired 1 day ago"), "{}", said(last + day));
        assert!(said(last + day / 2).contains("less than a day ago"));
        assert!(said(first - 3 * day).contains("not valid before 3 days from now"));
    }
}
