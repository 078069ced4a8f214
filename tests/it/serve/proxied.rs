//! Who stands behind a proxy that says who has connected to it, in both modes.

use super::client::Client;
use super::in_process::{Body, answer};
use super::limits::{Failure, each};
use super::{NEVER, until};
use crate::tls::certificates::{Authority, Files};
use crate::tls::client;
use corelane::server::{self, ConnectionInfo, ConnectionLimits, Event, Listen, Server};
use corelane::tls::Tls;
use corelane::{Mode, Runtime};
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

const V1: &str = "PROXY TCP4 192.0.2.1 192.0.2.2 4660 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x12\x34\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
const SHORT: Duration = Duration::from_millis(150);

struct Proxied {
    runtime: Runtime,
    address: SocketAddr,
    events: mpsc::Receiver<String>,
}

impl Proxied {
    fn start(mode: Mode, change: impl FnOnce(Listen) -> Listen) -> Proxied {
        let listen = change(Listen::new(SocketAddr::from(([127, 0, 0, 1], 0))).proxied(true));
        let cores = "1".parse().expect("a count");
        let runtime = Runtime::builder().mode(mode).cores(cores).start().expect("started");
        let (tell, events) = mpsc::channel();
        let server = Server::builder().rebalance(true).listen_with(listen);
        let server = server.on_event(move |event| {
            if let Event::HandshakeFailed { error, .. } = event {
                let _ = tell.send(error.to_string());
            }
        });
        let server = server.start_send_with(runtime.handle(), service).expect("a port");
        Proxied { address: server.local_addrs()[0], runtime, events }
    }
}

/// Says who it thinks has connected.
fn service(
    connection: &ConnectionInfo,
) -> impl hyper::service::Service<
    Request<server::Body>,
    Response = Response<Body>,
    Error = Failure,
    Future: Send,
> + Send
+ use<> {
    let proxy = connection.proxy.map(|proxy| format!(" by {}", proxy.as_tcp().expect("TCP").ip()));
    let who = match proxy {
        Some(proxy) => format!("{}{proxy}", connection.peer),
        None => "nobody else".to_owned(),
    };
    service_fn(move |_| std::future::ready(Ok::<_, Failure>(answer(who.clone()))))
}

#[test]
fn the_peer_is_who_the_header_says() {
    each(|mode| {
        let served = Proxied::start(mode, |listen| listen);
        let client = "192.0.2.1:4660 by 127.0.0.1";
        for (header, who) in [(V1.as_bytes(), client), (V2, client), (LOCAL, "nobody else")] {
            // In one piece with what follows it, and a byte at a time.
            let mut whole = Client::connect(served.address);
            whole.send([header, GET.as_bytes()].concat());
            assert_eq!(String::from_utf8(whole.answer().body).expect("text"), who);
            assert_eq!(String::from_utf8(whole.get().body).expect("text"), who);
            let mut slow = Client::connect(served.address);
            for byte in header {
                slow.send([*byte]);
            }
            assert_eq!(String::from_utf8(slow.get().body).expect("text"), who);
        }
        until("nobody is counted twice", || {
            served.runtime.handle().stats().iter().map(|stats| stats.connections).sum::<u64>() == 0
        });
    });
}

#[test]
fn without_a_header_nothing_is_served() {
    each(|mode| {
        let late = |limits: &mut ConnectionLimits| limits.handshake_timeout = Some(SHORT);
        let served = Proxied::start(mode, |listen| {
            let mut limits = ConnectionLimits::default();
            late(&mut limits);
            listen.limits(limits)
        });
        let said = || served.events.recv_timeout(NEVER).expect("an event");
        let mut plain = Client::connect(served.address);
        plain.send(GET);
        plain.is_closed();
        assert!(said().ends_with("what came is none"));
        let mut half = Client::connect(served.address);
        half.send(&V1[..20]);
        half.is_closed();
        assert_eq!(said(), "it took longer than handshake_timeout");
        // Longer than any header.
        let mut long = Client::connect(served.address);
        long.send([&V2[..14], &[0xff, 0xff], &[0; 5000]].concat());
        let mut rest = Vec::new();
        let _ = long.stream().read_to_end(&mut rest);
        assert!(rest.is_empty());
        assert!(said().ends_with("it is too long"));
    });
}

#[test]
fn http2_and_tls_follow_a_header_too() {
    each(|mode| {
        let served = Proxied::start(mode, |listen| listen);
        let preface = [V2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"].concat();
        for cut in [V2.len(), V2.len() + 5, preface.len()] {
            let mut client = Client::connect(served.address);
            client.send(&preface[..cut]);
            // What comes in pieces is read in pieces most of the time, and either way it is the same.
            std::thread::yield_now();
            client.send(&preface[cut..]);
            let mut settings = [0; 4];
            client.stream().read_exact(&mut settings).expect("a frame");
            assert_eq!(settings[3], 4, "it is one of SETTINGS: {settings:?}");
        }
        let (authority, files) = (Authority::new("authority"), Files::new());
        let (chain, key) = files.put_issued("a", &authority.issue(&["a.example"]));
        let tls = Tls::builder().certificate(chain, key).build().expect("good files");
        let served = Proxied::start(mode, |listen| listen.tls(tls));
        let mut socket = client::socket(served.address);
        let mut session = client::Client::new(&authority).session("a.example");
        let mut hello = V1.as_bytes().to_vec();
        session.write_tls(&mut hello).expect("a hello");
        socket.write_all(&hello).expect("sent");
        let mut stream = tokio_rustls::rustls::StreamOwned::new(session, socket);
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer and an end");
        assert!(text.ends_with("192.0.2.1:4660 by 127.0.0.1"), "{text}");
    });
}
