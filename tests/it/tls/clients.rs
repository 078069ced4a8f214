//! Client certificates.

use super::certificates::{Authority, Files};
use super::client::{Client, TLS12, TLS13, Versions};
use super::site::Site;
use corelane::tls::Tls;

/// A server that asks for certificates; it, and everything that its clients need.
struct Asking {
    server: Authority,
    clients: Authority,
    site: Site,
    _files: Files,
}

fn asking(required: bool) -> Asking {
    let (server, clients, files) =
        (Authority::new("of servers"), Authority::new("of clients"), Files::new());
    let (chain, key) = files.put_issued("a", &server.issue(&["a.example"]));
    let authorities = files.put("clients.pem", &clients.pem());
    let tls = Tls::builder().certificate(chain, key).client_certificates(authorities, required);
    let site = Site::start(&tls.build().expect("good files"));
    Asking { server, clients, site, _files: files }
}

fn each_version(test: impl Fn(Versions)) {
    [TLS12, TLS13].into_iter().for_each(test);
}

#[test]
fn a_client_with_a_certificate_is_known_by_it() {
    for required in [false, true] {
        let asking = asking(required);
        let own = asking.clients.issue(&["client.example"]);
        each_version(|versions| {
            let client = Client::with(&asking.server, versions, Some(&own));
            client.ask(asking.site.first(), "a.example").expect("an answer");
            let facts = asking.site.outcome().expect("a handshake");
            assert_eq!(facts.client, [own.der().to_vec()]);
            // A session that is resumed knows it as well.
            client.ask(asking.site.first(), "a.example").expect("an answer");
            let facts = asking.site.outcome().expect("a handshake");
            assert!(facts.is_resumed);
            assert_eq!(facts.client, [own.der().to_vec()]);
        });
    }
}

#[test]
fn a_client_without_a_certificate_is_turned_away_only_where_one_is_required() {
    each_version(|versions| {
        let optional = asking(false);
        let client = Client::with(&optional.server, versions, None);
        client.ask(optional.site.first(), "a.example").expect("an answer");
        assert!(optional.site.outcome().expect("a handshake").client.is_empty());

        let required = asking(true);
        let client = Client::with(&required.server, versions, None);
        client.ask(required.site.first(), "a.example").expect_err("a certificate is missing");
        let said = required.site.outcome().expect_err("a certificate is missing");
        assert!(said.contains("no certificate"), "{said}");
    });
}

#[test]
fn a_certificate_of_somebody_else_or_of_another_time_is_turned_away_everywhere() {
    for required in [false, true] {
        let asking = asking(required);
        for (own, expected) in [
            (Authority::new("of clients").issue(&["client.example"]), "BadSignature"),
            (Authority::new("of others").issue(&["client.example"]), "UnknownIssuer"),
            (asking.clients.issue_expired(&["client.example"]), "expired"),
        ] {
            each_version(|versions| {
                let client = Client::with(&asking.server, versions, Some(&own));
                client.ask(asking.site.first(), "a.example").expect_err("it is not good");
                let said = asking.site.outcome().expect_err("it is not good");
                assert!(said.contains(expected), "{expected}: {said}");
            });
        }
    }
}
