//! What a [`Tls`](super::Tls) is made of: the settings that its builder was given, and how rustls' configuration comes of them and
//! of the files.
//!
//! The settings are plain data and never change; the files are read anew at each [`load`](Settings::load).

use super::certificate::{self, Certificate};
use super::files::{certificates, wrong};
use super::names::{ByName, Names};
use super::version::Version;
use crate::error::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    NoClientAuth, NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier,
};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};

/// What `ProtocolName` of RFC 7301 has room for.
const ALPN_NAME_MAX: usize = 255;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) certificates: Vec<Paths>,
    pub(super) clients: Option<Clients>,
    pub(super) min_version: Version,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) provider: Arc<CryptoProvider>,
}

/// The files of a certificate.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

/// Who may be a client.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    pub(super) authorities: PathBuf,
    pub(super) required: bool,
}

/// What new handshakes use until the next reload.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    pub(super) certificates: Vec<Certificate>,
}

/// The key of the session tickets, and who it is for.
#[derive(Debug)]
pub(super) struct Tickets {
    ticketer: Arc<dyn ProducesTickets>,
    /// Clients that these authorities have vouched for may resume. Once there are others, they must come anew: a resumed session
    /// is not verified again.
    authorities: Vec<CertificateDer<'static>>,
}

impl Settings {
    pub(super) fn new() -> Settings {
        Settings {
            certificates: Vec::new(),
            clients: None,
            min_version: Version::Tls12,
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            provider: Arc::new(ring::default_provider()),
        }
    }

    /// Whether they make sense, apart from the files.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.certificates.is_empty() {
            return Err(wrong("TLS needs a certificate: give the files of its chain and its key"));
        }
        if let Some(name) =
            self.alpn.iter().find(|name| name.is_empty() || name.len() > ALPN_NAME_MAX)
        {
            let length = name.len();
            return Err(wrong(format!(
                "an ALPN protocol has 1 to {ALPN_NAME_MAX} bytes, and one of those given has {length}"
            )));
        }
        Ok(())
    }

    /// Reads the files. Tickets stay valid if that is right; whoever replaces `tickets` by those that come back, with what
    /// was loaded, has done all or nothing.
    pub(super) fn load(&self, tickets: Option<&Tickets>) -> Result<(Loaded, Tickets), Error> {
        let mut keys = Vec::new();
        let mut described = Vec::new();
        for Paths { chain, key } in &self.certificates {
            let (key, certificate) = certificate::load(chain, key, &self.provider)?;
            keys.push(Arc::new(key));
            described.push(certificate);
        }
        let authorities = match &self.clients {
            Some(clients) => certificates(&clients.authorities, CLIENT_AUTHORITIES)?,
            None => Vec::new(),
        };
        let verifier = self.verifier(&authorities)?;
        let tickets = match tickets {
            Some(before) if before.authorities == authorities => {
                Tickets { ticketer: before.ticketer.clone(), authorities }
            }
            _ => Tickets { ticketer: new_ticketer()?, authorities },
        };
        let names = Names::new(described.iter().map(Certificate::names));
        let config = self.config(verifier, ByName { names, keys }, &tickets)?;
        Ok((Loaded { config: Arc::new(config), certificates: described }, tickets))
    }

    fn config(
        &self,
        verifier: Arc<dyn ClientCertVerifier>,
        certificates: ByName,
        tickets: &Tickets,
    ) -> Result<ServerConfig, Error> {
        let versions: &[&SupportedProtocolVersion] = match self.min_version {
            Version::Tls12 => &[&version::TLS13, &version::TLS12],
            Version::Tls13 => &[&version::TLS13],
        };
        let config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| wrong(format!("TLS cannot be set up: {error}")).because(error))?;
        let mut config =
            config.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = self.alpn.clone();
        // What a session needs is in its ticket, which any shard can read, so none keeps any.
        config.ticketer = tickets.ticketer.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // Early data can be replayed.
        config.max_early_data_size = 0;
        Ok(config)
    }

    fn verifier(
        &self,
        authorities: &[CertificateDer<'static>],
    ) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let Some(clients) = &self.clients else { return Ok(Arc::new(NoClientAuth)) };
        let path = &clients.authorities;
        let roots = Arc::new(roots(path, authorities)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, self.provider.clone());
        let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
        verifier.build().map(|verifier| verifier as _).map_err(|error| {
            let shown = path.display();
            wrong(format!("{CLIENT_AUTHORITIES} {shown} cannot be used: {error}")).because(error)
        })
    }
}

const CLIENT_AUTHORITIES: &str = "the file of those who issue client certificates";

fn roots(path: &Path, authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for (index, authority) in authorities.iter().enumerate() {
        roots.add(authority.clone()).map_err(|error| {
            let (shown, number) = (path.display(), index + 1);
            wrong(format!(
                "{CLIENT_AUTHORITIES} {shown}: certificate {number} cannot be used: {error}"
            ))
            .because(error)
        })?;
    }
    Ok(roots)
}

fn new_ticketer() -> Result<Arc<dyn ProducesTickets>, Error> {
    ring::Ticketer::new().map_err(|error| {
        let text =
            format!("the system gives no random bytes for the key of the session tickets: {error}");
        Error::new(ErrorKind::Start, text).because(error)
    })
}
