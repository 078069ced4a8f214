//! Sessions that go on where they did not begin.

use super::certificates::{Authority, Files};
use super::client::{Client, TLS12, TLS13};
use super::site::Site;
use crate::harness::{FIRST, SECOND};
use corelane::tls::Tls;

fn files() -> (Authority, Files) {
    let (authority, files) = (Authority::new("authority"), Files::new());
    files.put_issued("a", &authority.issue(&["a.example"]));
    (authority, files)
}

fn built(files: &Files) -> Tls {
    let paths = (files.path("a.pem"), files.path("a.key"));
    Tls::builder().certificate(paths.0, paths.1).build().expect("good files")
}

#[test]
fn a_session_is_resumed_on_another_shard_than_it_began_on() {
    let (authority, files) = files();
    let site = Site::start(&built(&files));
    for versions in [TLS12, TLS13] {
        let client = Client::with(&authority, versions, None);
        for (shard, resumed) in [(FIRST, false), (SECOND, true), (FIRST, true), (SECOND, true)] {
            client.ask(site.address(shard), "a.example").expect("an answer");
            let facts = site.outcome().expect("a handshake");
            assert_eq!((facts.shard, facts.is_resumed), (shard, resumed), "{facts:?}");
        }
    }
}

#[test]
fn what_was_built_separately_does_not_resume() {
    let (authority, files) = files();
    let (one, other) = (Site::start(&built(&files)), Site::start(&built(&files)));
    for versions in [TLS12, TLS13] {
        let client = Client::with(&authority, versions, None);
        client.ask(one.first(), "a.example").expect("an answer");
        client.ask(other.first(), "a.example").expect("an answer");
        assert!(!one.outcome().expect("a handshake").is_resumed);
        assert!(!other.outcome().expect("a handshake").is_resumed);
    }
}

#[test]
fn a_reload_keeps_sessions_unless_other_clients_are_trusted() {
    let (authority, files) = files();
    let clients = Authority::new("of clients");
    let authorities = files.put("clients.pem", &clients.pem());
    let tls = Tls::builder()
        .certificate(files.path("a.pem"), files.path("a.key"))
        .client_certificates(authorities, false)
        .build()
        .expect("good files");
    let site = Site::start(&tls);
    let own = clients.issue(&["client.example"]);
    for versions in [TLS12, TLS13] {
        files.put("clients.pem", &clients.pem());
        tls.reload().expect("good files");
        let client = Client::with(&authority, versions, Some(&own));
        let ask = || client.ask(site.first(), "a.example");
        ask().expect("an answer");
        assert!(!site.outcome().expect("a handshake").is_resumed);
        files.put_issued("a", &authority.issue(&["a.example"]));
        tls.reload().expect("good files");
        ask().expect("an answer");
        assert!(site.outcome().expect("a handshake").is_resumed);
        // Whoever issued the client's certificate is not trusted any more.
        files.put("clients.pem", &Authority::new("of others").pem());
        tls.reload().expect("good files");
        ask().expect_err("its certificate is not good any more");
        site.outcome().expect_err("its certificate is not good any more");
    }
}
