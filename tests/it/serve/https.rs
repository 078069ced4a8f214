//! HTTPS, in both modes: a server of this process, with clients that are rustls and hyper; and the program with its file.

use super::client::GET;
use super::in_process::{Body, answer};
use super::limits::{Failure, each};
use super::program::Serve;
use super::until;
use crate::tls::certificates::{Authority, Files};
use crate::tls::client::{Client, Connection, socket};
use corelane::server::{self, ConnectionInfo, ConnectionLimits, Event, Listen, Server};
use corelane::tls::Tls;
use corelane::{Mode, Runtime};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

const SHORT: Duration = Duration::from_millis(150);
const NAME: &str = "a.example";

/// A server of one shard or worker, and what it tells.
struct Secure {
    runtime: Runtime,
    address: SocketAddr,
    authority: Authority,
    events: mpsc::Receiver<String>,
    _files: Files,
}

fn one(files: &Files, authority: &Authority) -> Tls {
    let (chain, key) = files.put_issued("a", &authority.issue(&[NAME]));
    Tls::builder().certificate(chain, key).build().expect("good files")
}

impl Secure {
    fn start(mode: Mode, limit: impl FnOnce(&mut ConnectionLimits)) -> Secure {
        let (authority, files) = (Authority::new("authority"), Files::new());
        let mut limits = ConnectionLimits::default();
        limit(&mut limits);
        let listen = Listen::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listen = listen.limits(limits).tls(one(&files, &authority));
        let cores = "1".parse().expect("a count");
        let runtime = Runtime::builder().mode(mode).cores(cores).start().expect("started");
        let (tell, events) = mpsc::channel();
        let server = Server::builder().listen_with(listen).on_event(move |event| {
            if let Event::HandshakeFailed { error, .. } = event {
                let _ = tell.send(error.to_string());
            }
        });
        let server = server.start_send_with(runtime.handle(), service).expect("a port");
        assert!(server.is_secure(0));
        Secure { address: server.local_addrs()[0], runtime, authority, events, _files: files }
    }

    fn connect(&self, alpn: &[&str]) -> Connection {
        let client = Client::new(&self.authority).alpn(alpn);
        client.connect(self.address, NAME).expect("a handshake")
    }

    fn connections(&self) -> u64 {
        self.runtime.handle().stats().iter().map(|stats| stats.connections).sum()
    }
}

/// Says what it was asked by, and sends the body back.
fn service(
    connection: &ConnectionInfo,
) -> impl hyper::service::Service<
    Request<server::Body>,
    Response = Response<Body>,
    Error = Failure,
    Future: Send,
> + Send
+ use<> {
    let tls = connection.tls.clone().expect("it is encrypted");
    service_fn(move |request: Request<server::Body>| {
        let name = tls.server_name().unwrap_or("none").to_owned();
        let version = format!("{:?} {} {name}", request.version(), tls.version());
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let mut response = answer(body);
            response.headers_mut().insert("asked", version.parse()?);
            Ok(response)
        }
    })
}

/// An answer as far as it is needed here.
fn read_head(connection: &mut Connection) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.0.read_exact(&mut byte).expect("an answer");
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("a head")
}

#[test]
fn http1_is_spoken_to_who_agrees_on_it_or_on_nothing() {
    each(|mode| {
        let served = Secure::start(mode, |_| ());
        for alpn in [&["http/1.1"][..], &[]] {
            let mut connection = served.connect(alpn);
            for _ in 0..3 {
                connection.0.write_all(GET.as_bytes()).expect("sent");
                let head = read_head(&mut connection);
                assert!(head.contains("asked: HTTP/1.1 TLS 1.3 a.example\r\n"), "{head}");
            }
            until("it is counted", || served.connections() == 1);
            drop(connection);
            until("it is counted no more", || served.connections() == 0);
        }
        // Nobody begins with HTTP/2 who has not agreed on it.
        let mut connection = served.connect(&[]);
        connection.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        let _ = connection.0.read_to_end(&mut answer);
        assert!(answer.is_empty(), "it is refused: {answer:?}");
    });
}

#[test]
fn http2_is_spoken_to_who_agrees_on_it() {
    each(|mode| {
        let served = Secure::start(mode, |_| ());
        let client = Client::new(&served.authority).alpn(&["h2", "http/1.1"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let stream = tokio::net::TcpStream::connect(served.address).await.expect("connected");
            let name = ServerName::try_from(NAME).expect("a name");
            let stream = TlsConnector::from(client.config).connect(name, stream).await;
            let io = TokioIo::new(stream.expect("a handshake"));
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
            let (mut sender, connection) = handshake.await.expect("settings");
            drop(tokio::spawn(connection));
            for length in [0, 10, 200_000] {
                let body = Full::new(Bytes::from(vec![b'x'; length]));
                let request = Request::post("https://a.example/").version(Version::HTTP_2);
                let response = sender.send_request(request.body(body).expect("one")).await;
                let response = response.expect("an answer");
                assert_eq!(response.headers()["asked"], "HTTP/2.0 TLS 1.3 a.example");
                let body = response.into_body().collect().await.expect("all").to_bytes();
                assert_eq!(body.len(), length);
            }
        });
    });
}

#[test]
fn who_does_not_shake_hands_in_time_is_cut_off_and_holds_up_nobody() {
    each(|mode| {
        let served = Secure::start(mode, |limits| limits.handshake_timeout = Some(SHORT));
        let mut silent = socket(served.address);
        let mut slow = socket(served.address);
        let mut writer = slow.try_clone().expect("a descriptor");
        let dribble = thread::spawn(move || {
            // The beginning of a record, and then a byte at a time.
            let hello = [&[22, 3, 1, 2, 0][..], &[1; 500]].concat();
            hello.iter().all(|byte| {
                thread::sleep(Duration::from_millis(5));
                writer.write_all(&[*byte]).is_ok()
            })
        });
        assert_eq!(silent.read(&mut [0; 10]).unwrap_or(0), 0, "it is closed");
        assert_eq!(slow.read(&mut [0; 10]).unwrap_or(0), 0, "it is closed");
        assert!(!dribble.join().expect("no panic"), "it is cut off before it has sent all");
        for _ in 0..2 {
            let said = served.events.recv_timeout(super::NEVER).expect("an event");
            assert_eq!(said, "it took longer than handshake_timeout");
        }
        let mut connection = served.connect(&[]);
        connection.0.write_all(GET.as_bytes()).expect("sent");
        assert!(read_head(&mut connection).starts_with("HTTP/1.1 200"));
        drop(connection);
        until("all are gone", || served.connections() == 0);
    });
}

#[test]
fn what_is_no_tls_gets_an_alert_and_is_told() {
    each(|mode| {
        let served = Secure::start(mode, |_| ());
        let mut plain = socket(served.address);
        plain.write_all(GET.as_bytes()).expect("sent");
        let mut said = Vec::new();
        let _ = plain.read_to_end(&mut said);
        assert_eq!(said.first(), Some(&21), "an alert: {said:?}");
        let told = served.events.recv_timeout(super::NEVER).expect("an event");
        assert!(told.contains("it may be plain HTTP"), "{told}");
    });
}

#[test]
fn an_upgraded_connection_goes_on_encrypted() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let listen = Listen::new(SocketAddr::from(([127, 0, 0, 1], 0))).tls(one(&files, &authority));
    let runtime = Runtime::builder().cores("1".parse().expect("a count")).start().expect("started");
    let server = Server::builder().listen_with(listen).start(runtime.handle(), |_shard| {
        service_fn(|request: Request<server::Body>| async {
            drop(corelane::spawn_local(async {
                let upgraded = hyper::upgrade::on(request).await.expect("upgraded");
                let io = &mut TokioIo::new(upgraded);
                let mut word = [0; 4];
                tokio::io::AsyncReadExt::read_exact(io, &mut word).await.expect("a word");
                tokio::io::AsyncWriteExt::write_all(io, &word).await.expect("sent");
                tokio::io::AsyncWriteExt::shutdown(io).await.expect("closed");
            }));
            let response = Response::builder().status(101).header("upgrade", "echo");
            response.header("connection", "upgrade").body(String::new())
        })
    });
    let address = server.expect("a port").local_addrs()[0];
    let mut connection = Client::new(&authority).connect(address, NAME).expect("a handshake");
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nping";
    connection.0.write_all(request.as_bytes()).expect("sent");
    assert!(read_head(&mut connection).starts_with("HTTP/1.1 101"));
    let mut text = String::new();
    connection.0.read_to_string(&mut text).expect("an orderly end");
    assert_eq!(text, "ping");
}

/// A file of a server with one certificate, beside which it is.
fn file(files: &Files, more: &str) -> String {
    let tls = "tls = { certificate = [{ chain = \"a.pem\", key = \"a.key\" }] }";
    let listener = format!("[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n{tls}\n{more}");
    let path = files.put("server.toml", &format!("[runtime]\ncores = 2\n{listener}"));
    path.to_str().expect("text").to_owned()
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_file_for_https_that_comes_with_the_source_serves_each_site_with_its_certificate() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let sites = ["example.org", "example.net"];
    let issued = sites.map(|site| authority.issue(&[site]));
    for (site, issued) in sites.iter().zip(&issued) {
        files.put_issued(site, issued);
    }
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/https.toml");
    let text = std::fs::read_to_string(shipped).expect("it is there");
    let text = text.replace("0.0.0.0:8443", "127.0.0.1:0").replace("127.0.0.1:8444", "127.0.0.1:0");
    let pid = files.path("pid").display().to_string();
    let path = files.put("https.toml", &text.replace("corelane.pid", &pid));
    let path = path.to_str().expect("text");
    let program = Serve::with_arguments(&["serve", "--config", path]).start();
    for (site, issued) in sites.iter().zip(&issued) {
        let client = Client::new(&authority);
        let mut connection = client.connect(program.address(), site).expect("a handshake");
        assert_eq!(connection.certificate(), *issued.der());
        let request = format!("GET / HTTP/1.1\r\nhost: {site}\r\nconnection: close\r\n\r\n");
        connection.0.write_all(request.as_bytes()).expect("sent");
        let mut text = String::new();
        connection.0.read_to_string(&mut text).expect("an answer and an end");
        assert!(text.ends_with(site), "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_where_it_is_named() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let path = file(&files, "");
    let check = || {
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_corelane"));
        let mut program = program;
        let output = program.args(["check", &path]).output().expect("started");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    files.put_issued("b", &authority.issue(&[NAME]));
    files.put_issued("a", &authority.issue(&[NAME]));
    assert_eq!(check().0, Some(0));
    let (chain, key) = (files.path("a.pem"), files.path("a.key"));
    let other_key = std::fs::read_to_string(files.path("b.key")).expect("a key");
    let chain_text = std::fs::read_to_string(&chain).expect("a chain");
    for (text_of_chain, text_of_key, what) in [
        ("garbage", &other_key[..], "server.toml:6:34: chain: the certificate chain"),
        (&chain_text, "garbage", "server.toml:6:49: key: the private key"),
        (&chain_text, &other_key, "does not belong to the certificate"),
        (&chain_text, &chain_text, "holds a certificate and no private key"),
    ] {
        std::fs::write(&chain, text_of_chain).expect("written");
        std::fs::write(&key, text_of_key).expect("written");
        let (status, said) = check();
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(what), "{what}: {said}");
    }
    std::fs::remove_file(&chain).expect("it is there");
    let made = std::process::Command::new("mkfifo").arg(&chain).status();
    assert!(made.expect("mkfifo is there").success());
    let (status, said) = check();
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("it is no regular file"), "{said}");
    files.put_issued("a", &authority.issue_expired(&[NAME]));
    let (status, said) = check();
    assert_eq!(status, Some(2));
    assert!(
        said.contains("server.toml:6:34: chain: the certificate") && said.contains("expired"),
        "{said}"
    );
}

#[test]
fn certificates_are_reloaded_under_load_without_an_error() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    files.put_issued("a", &authority.issue(&[NAME]));
    let path = file(&files, "");
    let program = Serve::with_arguments(&["serve", "--config", &path]).start();
    let address = program.address();
    assert!(
        program.out.so_far().iter().any(|line| line == &format!("listening on https://{address}"))
    );
    let (stop, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let client = Client::new(&authority);
    thread::scope(|scope| {
        let asking = || {
            let mut kept = client.connect(address, NAME).expect("a handshake");
            while !stop.load(Ordering::Relaxed) {
                let mut one = client.connect(address, NAME).expect("a handshake");
                for connection in [&mut one, &mut kept] {
                    connection.0.write_all(GET.as_bytes()).expect("sent");
                    let head = read_head(connection);
                    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                    connection.0.read_exact(&mut [0; 13]).expect("a body");
                }
                asked.fetch_add(1, Ordering::Relaxed);
            }
        };
        let askers = [scope.spawn(asking), scope.spawn(asking)];
        // Also if something goes wrong: nobody must wait for the askers then.
        let _stop = Stop(&stop);
        for _ in 0..5 {
            let new = authority.issue(&[NAME]);
            files.put_issued("a", &new);
            program.signal(libc::SIGHUP);
            until("new clients get the new certificate", || {
                let fresh = Client::new(&authority);
                let shown = fresh.connect(address, NAME).expect("a handshake").certificate();
                shown == *new.der()
            });
        }
        until("there was load", || {
            askers.iter().any(|one| one.is_finished()) || asked.load(Ordering::Relaxed) > 20
        });
        stop.store(true, Ordering::Relaxed);
        askers.into_iter().for_each(|asker| asker.join().expect("no error"));
    });
}

#[test]
fn a_certificate_that_is_wrong_or_has_expired_changes_nothing() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    let good = authority.issue(&[NAME]);
    files.put_issued("a", &good);
    let path = file(&files, "");
    let program = Serve::with_arguments(&["serve", "--config", &path]).start();
    let said = |what: &str| {
        until(what, || program.err.so_far().iter().any(|line| line.contains(what)));
    };
    files.put_issued("a", &authority.issue_expired(&[NAME]));
    program.signal(libc::SIGHUP);
    said("expired");
    let other = authority.issue(&[NAME]);
    files.put_issued("b", &other);
    files.put("a.key", &std::fs::read_to_string(files.path("b.key")).expect("a key"));
    program.signal(libc::SIGHUP);
    said("does not belong to the certificate");
    said("nothing was changed");
    let connection = Client::new(&authority).connect(program.address(), NAME).expect("good");
    assert_eq!(connection.certificate(), *good.der());
}

#[test]
fn who_is_in_the_middle_of_a_handshake_does_not_hold_up_the_end() {
    let (authority, files) = (Authority::new("authority"), Files::new());
    files.put_issued("a", &authority.issue(&[NAME]));
    let path = file(&files, "");
    let mut program = Serve::with_arguments(&["serve", "--config", &path]).start();
    let mut silent = socket(program.address());
    let mut kept = Client::new(&authority).connect(program.address(), NAME).expect("good");
    kept.0.write_all(GET.as_bytes()).expect("sent");
    read_head(&mut kept);
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    assert_eq!(silent.read(&mut [0; 10]).unwrap_or(0), 0);
    let said = program.err.all();
    assert!(!said.iter().any(|line| line.contains("cut off")), "{said:?}");
}
