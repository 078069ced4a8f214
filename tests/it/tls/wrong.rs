//! Clients that do not do what clients do.

use super::certificates::{Authority, Files};
use super::client::{Client, socket};
use super::site::{Site, http};
use corelane::tls::Tls;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;
use tokio_rustls::rustls::StreamOwned;

fn site_with(limit: Duration) -> (Authority, Files, Site) {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let (chain, key) = files.put_issued("a", &authority.issue(&["a.example"]));
    let tls = Tls::builder().certificate(chain, key).build().expect("good files");
    let site = Site::with(&tls, limit, http);
    (authority, files, site)
}

fn site() -> (Authority, Files, Site) {
    site_with(crate::harness::HANGS_AFTER)
}

/// Sends bytes: the server must give up, and what it says must contain `expected`. It serves others then.
#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let (authority, _files, site) = site();
    let mut socket = socket(site.first());
    // The server may have given up in the middle.
    let _ = socket.write_all(bytes);
    let said = site.outcome().expect_err("no handshake");
    assert!(said.contains(expected), "{said}");
    // It ends, in order or not.
    let _ = socket.read_to_end(&mut Vec::new());
    Client::new(&authority).ask(site.first(), "a.example").expect("an answer");
}

#[test]
fn plain_http_is_told_what_it_is() {
    refused(
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "InvalidData: the TLS handshake failed: what came is not TLS; it may be plain HTTP",
    );
}

#[test]
fn garbage_is_refused() {
    refused(&[0xff; 4096], "the TLS handshake failed");
    refused(&[0; 4096], "the TLS handshake failed");
}

#[test]
fn a_record_longer_than_records_can_be_is_refused() {
    let record = [&[22, 3, 1, 0xff, 0xff][..], &[1; 0xffff]].concat();
    refused(&record, "MessageTooLarge");
}

#[test]
fn a_hello_longer_than_hellos_can_be_is_refused() {
    // It says that it has 16 MB, and comes in records of the largest size.
    let mut body = vec![1, 0xff, 0xff, 0xff];
    body.resize(0x4000, 0);
    let record = [&[22, 3, 1, 0x40, 0][..], &body].concat();
    refused(&record.repeat(8), "HandshakePayloadTooLarge");
}

#[test]
fn a_hello_that_comes_byte_by_byte_is_understood() {
    let (authority, _files, site) = site();
    let mut session = Client::new(&authority).session("a.example");
    let mut hello = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut hello).expect("memory");
    }
    let mut socket = socket(site.first());
    for byte in hello {
        socket.write_all(&[byte]).expect("it is read");
    }
    let mut stream = StreamOwned::new(session, socket);
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .expect("a handshake");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.ends_with("Hello"), "{text}");
    site.outcome().expect("a handshake");
}

#[test]
fn a_client_that_says_nothing_is_given_up_by_who_called() {
    let (authority, _files, site) = site_with(Duration::from_millis(300));
    let mut silent = socket(site.first());
    let said = site.outcome().expect_err("no handshake");
    assert!(said.contains("elapsed"), "{said}");
    // Its socket is closed.
    assert_eq!(silent.read(&mut [0; 64]).expect("an end"), 0);
    // So is that of one who stops in the middle.
    let mut hello = Vec::new();
    Client::new(&authority).session("a.example").write_tls(&mut hello).expect("memory");
    let mut half = socket(site.first());
    half.write_all(&hello[..hello.len() / 2]).expect("it is read");
    site.outcome().expect_err("no handshake");
    assert!(!matches!(half.read(&mut [0; 64]), Ok(1..)), "an answer to half a hello");
}

#[test]
fn a_client_that_goes_away_ends_the_handshake() {
    let (_authority, _files, site) = site();
    for bytes in [&b""[..], &[22, 3, 1]] {
        let mut socket = socket(site.first());
        socket.write_all(bytes).expect("it is read");
        socket.shutdown(Shutdown::Write).expect("a socket");
        let said = site.outcome().expect_err("no handshake");
        assert!(said.starts_with("UnexpectedEof: "), "{said}");
        assert!(said.contains("the client closed the connection"), "{said}");
    }
}
