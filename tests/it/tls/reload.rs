//! Certificates that are replaced while clients come.

use super::certificates::{Authority, Files, Issued};
use super::client::{Client, socket};
use super::site::Site;
use crate::harness::{FIRST, SECOND, eventually, within_reason};
use corelane::tls::Tls;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use tokio_rustls::rustls::StreamOwned;

struct Replaced {
    authority: Authority,
    files: Files,
    old: Issued,
    new: Issued,
    tls: Tls,
}

fn replaced() -> Replaced {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let (old, new) = (authority.issue(&["a.example"]), authority.issue(&["a.example"]));
    let (chain, key) = files.put_issued("a", &old);
    let tls = Tls::builder().certificate(chain, key).build().expect("good files");
    Replaced { authority, files, old, new, tls }
}

#[test]
fn a_reload_under_load_fails_no_handshake() {
    within_reason(|| {
        let Replaced { authority, files, old, new, tls } = replaced();
        let site = Site::start(&tls);
        // Full handshakes: a session that is resumed shows the certificate that it began with.
        let client = Client::new(&authority).change(|config| {
            config.resumption = tokio_rustls::rustls::client::Resumption::disabled()
        });
        let (saw_old, saw_new) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for shard in [FIRST, SECOND] {
                let (client, site, over) = (client.clone(), site.address(shard), &over);
                let (saw_old, saw_new, old, new) = (&saw_old, &saw_new, &old, &new);
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        let shown = client.ask(site, "a.example").expect("an answer");
                        assert!(&shown == old.der() || &shown == new.der());
                        let counter = if &shown == old.der() { saw_old } else { saw_new };
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            let seen = |counter: &AtomicUsize, count| counter.load(Ordering::SeqCst) >= count;
            eventually("clients see the old certificate", || seen(&saw_old, 10));
            for round in 1..=4 {
                let (put, counter) =
                    if round % 2 == 1 { (&new, &saw_new) } else { (&old, &saw_old) };
                files.put_issued("a", put);
                let before = counter.load(Ordering::SeqCst);
                tls.reload().expect("good files");
                eventually("clients see what was loaded", || seen(counter, before + 25));
            }
            over.store(true, Ordering::SeqCst);
        });
        let (old, new) = (saw_old.into_inner(), saw_new.into_inner());
        assert!(old + new >= 100, "{old} and {new}");
    });
}

#[test]
fn what_began_before_a_reload_goes_on_with_what_it_had() {
    let Replaced { authority, files, old, new, tls } = replaced();
    let site = Site::start(&tls);
    let client = Client::new(&authority);
    let mut open = client.connect(site.first(), "a.example").expect("a handshake");
    open.keep().expect("an answer");
    // Accepted, and silent so far.
    let begun = socket(site.first());
    eventually("the handshake begins", || site.begun() == 2);
    files.put_issued("a", &new);
    tls.reload().expect("good files");
    open.keep().expect("an answer");
    let mut begun = StreamOwned::new(Client::new(&authority).session("a.example"), begun);
    begun.flush().expect("a handshake");
    while begun.conn.is_handshaking() {
        begun.conn.complete_io(&mut begun.sock).expect("a handshake");
    }
    assert_eq!(&begun.conn.peer_certificates().expect("one")[0], old.der());
    let shown = Client::new(&authority).ask(site.first(), "a.example").expect("an answer");
    assert_eq!(&shown, new.der());
}

#[test]
fn a_reload_that_fails_changes_nothing_and_says_why() {
    let Replaced { authority, files, old, new, tls } = replaced();
    let (chain, key) = files.put_issued("b", &authority.issue(&["b.example"]));
    let both = Tls::builder().certificate(files.path("a.pem"), files.path("a.key"));
    let both = both.certificate(chain, key).build().expect("good files");
    let site = Site::start(&both);
    let ask = || Client::new(&authority).ask(site.first(), "a.example").expect("an answer");
    // The first is good and new, the second is broken: all or nothing.
    files.put_issued("a", &new);
    files.put("b.pem", "nothing");
    let error = both.reload().expect_err("a broken file");
    assert!(error.is_config());
    assert!(error.to_string().contains("b.pem"), "{error}");
    assert_eq!(&ask(), old.der());
    std::fs::remove_file(files.path("b.pem")).expect("it is there");
    let error = both.reload().expect_err("a missing file").to_string();
    assert!(error.contains("b.pem: No such file"), "{error}");
    assert_eq!(&ask(), old.der());
    // A key without its certificate, as between two steps of a renewal.
    files.put_issued("b", &authority.issue(&["b.example"]));
    files.put("a.key", &std::fs::read_to_string(files.path("b.key")).expect("it is there"));
    let error = both.reload().expect_err("a wrong key").to_string();
    assert!(error.contains("does not belong"), "{error}");
    assert_eq!(&ask(), old.der());
    files.put_issued("a", &new);
    both.reload().expect("good files");
    assert_eq!(&ask(), new.der());
    tls.reload().expect("good files");
}

#[test]
fn an_expired_certificate_is_served_and_told_of() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let (chain, key) = files.put_issued("old", &authority.issue_expired(&["old.example"]));
    let (chain2, key2) = files.put_issued("good", &authority.issue(&["good.example"]));
    let tls = Tls::builder().certificate(chain, key).certificate(chain2, key2).build();
    let tls = tls.expect("an expired certificate is no error");
    let now = std::time::SystemTime::now();
    let problems: Vec<_> = tls.certificates().iter().map(|one| one.problem(now)).collect();
    assert!(
        problems[0].as_deref().is_some_and(|text| text.contains("old.pem expired")),
        "{problems:?}"
    );
    assert_eq!(problems[1], None);
    let site = Site::start(&tls);
    Client::new(&authority).ask(site.first(), "good.example").expect("an answer");
    let error =
        Client::new(&authority).ask(site.first(), "old.example").expect_err("it is expired");
    assert!(error.to_string().contains("expired"), "{error}");
}
