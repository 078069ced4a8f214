//! HTTP/2 on the same port as HTTP/1, by prior knowledge, in both modes: hyper's client over our own sockets, and raw frames.

use super::client::Client;
use super::in_process::{Body, answer};
use super::limits::{Failure, Limited, each};
use super::{NEVER, until};
use corelane::http::{Executor, Io};
use corelane::net::TcpStream;
use corelane::server::{self, ConnectionLimits};
use corelane::{Mode, Runtime, spawn_local};
use futures::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode, Version};
use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

/// RFC 9113, 3.4: what a client begins with; its settings are the defaults.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// RFC 9113, 6.2 and RFC 7541, appendix A: `GET http://test/` on stream 1, complete.
pub(super) const HEADERS: &[u8] = b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x84\x01\x04test";
const SHORT: Duration = Duration::from_millis(150);

/// Says which version it was asked in, and sends the body back.
async fn echo(request: Request<server::Body>) -> Result<Response<Body>, Failure> {
    let version = format!("{:?}", request.version());
    let bytes = request.into_body().collect().await?.to_bytes();
    let mut response = answer(bytes);
    response.headers_mut().insert("version", version.parse().expect("a value"));
    Ok(response)
}

fn start(mode: Mode, limit: impl FnOnce(&mut ConnectionLimits)) -> (Runtime, SocketAddr) {
    let Limited { runtime, address } = Limited::start(mode, limit, echo);
    (runtime, address)
}

fn connections(runtime: &Runtime) -> u64 {
    runtime.handle().stats().iter().map(|stats| stats.connections).sum()
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.expect("connected");
    let (client, connection) = handshake(Executor, Io::new(stream)).await.expect("settings");
    drop(spawn_local(connection));
    client
}

fn request(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post("http://test/").version(Version::HTTP_2);
    request.body(Full::new(body.into())).expect("a request")
}

#[test]
fn both_versions_are_spoken_on_one_port() {
    each(|mode| {
        let (_runtime, address) = start(mode, |_| {});
        corelane::block_on(async {
            let client = connect(address).await;
            let asks = (0..100).map(|number| {
                let mut client = client.clone();
                async move {
                    let body = vec![b'x'; number * 1000];
                    let response = client.send_request(request(body.clone())).await.expect("one");
                    assert_eq!(response.headers()["version"], "HTTP/2.0");
                    assert_eq!(response.into_body().collect().await.expect("all").to_bytes(), body);
                }
            });
            join_all(asks).await;
        });
        let answer = Client::connect(address).get();
        assert_eq!((answer.status, answer.header("version")), (200, Some("HTTP/1.1")));
    });
}

#[test]
fn a_preface_may_come_in_pieces_and_what_only_begins_like_it_is_http1() {
    each(|mode| {
        let (_runtime, address) = start(mode, |_| {});
        for piece in [1, 3, 23, 24, 25] {
            let mut client = Client::connect(address);
            for bytes in [PREFACE, HEADERS].concat().chunks(piece) {
                client.send(bytes);
            }
            // Settings, their acknowledgement, then headers of stream 1.
            let mut frames = Vec::new();
            while !frames.contains(&1) {
                let head = client.read_exactly(9).expect("a frame");
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                client.read_exactly(length as usize).expect("all of it");
                frames.push(head[3]);
            }
            assert_eq!(frames[0], 4, "{frames:?}");
        }
        for text in ["PROPFIND / HTTP/1.1\r\nhost: t\r\n\r\n", "P / HTTP/1.1\r\nhost: t\r\n\r\n"] {
            let mut client = Client::connect(address);
            for byte in text.as_bytes().chunks(1) {
                client.send(byte);
            }
            let answer = client.answer();
            assert_eq!((answer.status, answer.header("version")), (200, Some("HTTP/1.1")));
        }
        let mut wrong = Client::connect(address);
        wrong.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
        assert_eq!(wrong.answer().status, 400);
        wrong.is_gone();
    });
}

#[test]
fn where_it_is_not_spoken_the_preface_is_refused() {
    each(|mode| {
        let (_runtime, address) = start(mode, |limits| limits.http2 = false);
        let mut client = Client::connect(address);
        client.send(PREFACE);
        client.is_gone();
        assert_eq!(Client::connect(address).get().status, 200);
    });
}

#[test]
fn a_body_that_is_late_or_too_large_costs_one_stream() {
    each(|mode| {
        let (_runtime, address) = start(mode, |limits| limits.body_bytes = 1000);
        corelane::block_on(async {
            let mut client = connect(address).await;
            let large = client.send_request(request(vec![b'x'; 1001])).await.expect("an answer");
            assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
            assert!(!large.headers().contains_key("connection"));
            let fits = client.send_request(request(vec![b'x'; 1000])).await.expect("an answer");
            assert_eq!(fits.status(), StatusCode::OK);
        });
    });
}

#[test]
fn an_idle_connection_is_told_to_go_and_closed_if_it_does_not() {
    each(|mode| {
        let (runtime, address) = start(mode, |limits| limits.idle_timeout = Some(SHORT));
        // A client that answers.
        corelane::block_on(async {
            let mut client = connect(address).await;
            let response = client.send_request(request("x")).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            drop(response);
            while client.ready().await.is_ok() {
                corelane::yield_now().await;
            }
        });
        until("it has gone", || connections(&runtime) == 0);
        // And one that does not.
        let mut client = Client::connect(address);
        client.send([PREFACE, HEADERS].concat());
        until("it is served", || connections(&runtime) == 1);
        let mut received = Vec::new();
        let _ = client.stream().read_to_end(&mut received);
        until("it has been cut off", || connections(&runtime) == 0);
    });
}

#[test]
fn the_last_request_is_answered_and_another_is_not_taken() {
    each(|mode| {
        let (runtime, address) = start(mode, |limits| limits.max_requests = 3);
        corelane::block_on(async {
            let mut client = connect(address).await;
            for _ in 0..3 {
                let response = client.send_request(request("x")).await.expect("an answer");
                assert_eq!(response.status(), StatusCode::OK);
            }
            while client.ready().await.is_ok() {
                corelane::yield_now().await;
            }
        });
        until("it has gone", || connections(&runtime) == 0);
    });
}

#[test]
fn a_shutdown_says_goodbye() {
    each(|mode| {
        let (runtime, address) = start(mode, |_| {});
        let (begun, has_begun) = std::sync::mpsc::channel();
        let asks = std::thread::spawn(move || {
            corelane::block_on(async {
                let mut client = connect(address).await;
                let first = client.send_request(request("x")).await.expect("an answer");
                assert_eq!(first.status(), StatusCode::OK);
                begun.send(()).expect("the test waits");
                while client.ready().await.is_ok() {
                    corelane::yield_now().await;
                }
            });
        });
        has_begun.recv().expect("it has");
        assert_eq!(runtime.shutdown(NEVER).tasks_dropped, 0);
        asks.join().expect("no panic");
    });
}
