//! What is agreed on in a handshake: protocol, version, certificate.

use super::certificates::{Authority, Files};
use super::client::{BOTH, Client, TLS12, TLS13};
use super::site::Site;
use corelane::tls::{Tls, Version};
use rcgen::KeyPair;
use tokio_rustls::rustls::{AlertDescription, Error};

fn one() -> (Authority, Files, Tls) {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let (chain, key) = files.put_issued("a", &authority.issue(&["a.example"]));
    let tls = Tls::builder().certificate(chain, key).build().expect("good files");
    (authority, files, tls)
}

fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[test]
fn of_the_clients_protocols_the_one_is_taken_that_the_server_likes_best() {
    let (authority, _files, tls) = one();
    let site = Site::start(&tls);
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let client = Client::new(&authority).alpn(offered);
        let connection = client.connect(site.first(), "a.example").expect("a handshake");
        let facts = site.outcome().expect("a handshake");
        assert_eq!(facts.alpn.as_deref(), agreed.map(str::as_bytes), "{offered:?}");
        assert_eq!(connection.0.conn.alpn_protocol(), agreed.map(str::as_bytes));
    }
}

#[test]
fn without_a_protocol_in_common_the_client_is_told_so() {
    let (authority, _files, tls) = one();
    let site = Site::start(&tls);
    for versions in [TLS12, TLS13] {
        let client = Client::with(&authority, versions, None).alpn(&["spdy/3"]);
        let error = client.connect(site.first(), "a.example").err().expect("no handshake");
        assert_eq!(alert(&error), Some(AlertDescription::NoApplicationProtocol), "{error}");
        let said = site.outcome().expect_err("no handshake");
        assert!(said.contains("the TLS handshake failed"), "{said}");
    }
}

#[test]
fn a_server_without_protocols_turns_nobody_away() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let (chain, key) = files.put_issued("a", &authority.issue(&["a.example"]));
    let tls = Tls::builder().certificate(chain, key).alpn([""; 0]).build().expect("good files");
    let site = Site::start(&tls);
    let client = Client::new(&authority).alpn(&["spdy/3"]);
    client.ask(site.first(), "a.example").expect("an answer");
    assert_eq!(site.outcome().expect("a handshake").alpn, None);
}

#[test]
fn both_versions_are_spoken_and_a_minimum_holds() {
    let (authority, files, tls) = one();
    let site = Site::start(&tls);
    for (versions, version) in
        [(TLS12, Version::Tls12), (TLS13, Version::Tls13), (BOTH, Version::Tls13)]
    {
        let client = Client::with(&authority, versions, None);
        client.ask(site.first(), "a.example").expect("an answer");
        let facts = site.outcome().expect("a handshake");
        assert_eq!(facts.version, version);
        assert!(facts.cipher_suite.starts_with("TLS"), "{}", facts.cipher_suite);
    }
    let strict = Tls::builder()
        .certificate(files.path("a.pem"), files.path("a.key"))
        .min_version(Version::Tls13)
        .build()
        .expect("good files");
    let site = Site::start(&strict);
    Client::with(&authority, TLS13, None).ask(site.first(), "a.example").expect("an answer");
    site.outcome().expect("a handshake");
    let error = Client::with(&authority, TLS12, None).ask(site.first(), "a.example").unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::ProtocolVersion), "{error}");
    site.outcome().expect_err("no handshake");
}

#[test]
fn the_name_that_a_client_asks_for_picks_the_certificate() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let certificates = [
        &["first.example", "*.w.example"][..],
        &["second.example"],
        &["a.w.example", "third.example"],
    ]
    .map(|names| authority.issue(names));
    let tls = certificates.iter().enumerate().fold(Tls::builder(), |tls, (number, issued)| {
        let (chain, key) = files.put_issued(&number.to_string(), issued);
        tls.certificate(chain, key)
    });
    let site = Site::start(&tls.build().expect("good files"));
    for (name, expected) in [
        ("first.example", 0),
        ("second.example", 1),
        ("SECOND.example", 1),
        ("third.example", 2),
        ("a.w.example", 2),
        ("b.w.example", 0),
    ] {
        let shown = Client::new(&authority).ask(site.first(), name).expect("an answer");
        assert_eq!(&shown, certificates[expected].der(), "{name}");
        let facts = site.outcome().expect("a handshake");
        assert_eq!(facts.server_name, Some(name.to_ascii_lowercase()));
    }
    // What they get is the default, which they refuse.
    for name in ["unknown.example", "a.b.w.example", "w.example"] {
        let error = Client::new(&authority).ask(site.first(), name).unwrap_err();
        assert!(error.to_string().contains("first.example"), "{error}");
        site.outcome().expect_err("the client refuses");
    }
}

#[test]
fn who_asks_for_no_name_gets_the_first_certificate() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let first = authority.issue(&["first.example", "127.0.0.1"]);
    let (chain, key) = files.put_issued("first", &first);
    let (chain2, key2) = files.put_issued("second", &authority.issue(&["second.example"]));
    let tls = Tls::builder().certificate(chain, key).certificate(chain2, key2).build();
    let site = Site::start(&tls.expect("good files"));
    let silent = Client::new(&authority).change(|config| config.enable_sni = false);
    for (client, name) in [(&Client::new(&authority), "127.0.0.1"), (&silent, "first.example")] {
        let shown = client.ask(site.first(), name).expect("an answer");
        assert_eq!(&shown, first.der(), "{name}");
        assert_eq!(site.outcome().expect("a handshake").server_name, None);
    }
}

#[test]
fn of_certificates_with_one_name_the_client_gets_one_that_it_can_verify() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let ecdsa = authority.issue(&["a.example"]);
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let ed25519 = authority.issue_with(&["a.example"], other, |_| ());
    let (chain, key) = files.put_issued("ecdsa", &ecdsa);
    let (chain2, key2) = files.put_issued("ed25519", &ed25519);
    let tls = Tls::builder().certificate(chain, key).certificate(chain2, key2).build();
    let site = Site::start(&tls.expect("good files"));
    // By its name, and as the default.
    for with_name in [true, false] {
        let client = Client::new(&authority);
        let limited = only_ed25519::client(&authority);
        for (client, expected) in [(client, &ecdsa), (limited, &ed25519)] {
            let client = client.change(|config| config.enable_sni = with_name);
            let connection = client.connect(site.first(), "a.example").expect("a handshake");
            assert_eq!(&connection.certificate(), expected.der());
        }
    }
}

/// A client that knows one kind of signature only.
mod only_ed25519 {
    use super::super::certificates::Authority;
    use super::super::client::Client;
    use std::sync::Arc;
    use tokio_rustls::rustls::client::danger::{
        HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
    };
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

    pub(super) fn client(authority: &Authority) -> Client {
        Client::new(authority)
            .change(|config| config.dangerous().set_certificate_verifier(Arc::new(Verifier)))
    }

    /// Trusts every server.
    #[derive(Debug)]
    struct Verifier;

    impl ServerCertVerifier for Verifier {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    }
}
