//! HTTP/2 through hyper's adapters, with a peer that does not do its part of the goodbye.

use super::harness::*;
use corelane::http::{Executor, Io};
use corelane::net::TcpListener;
use corelane::shutdown_requested;
use futures::future::{Either, select};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::pin;
use std::sync::mpsc;
use std::time::Duration;

/// RFC 9113, 3.4: what a client begins with; its settings are the defaults.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// RFC 9113, 6.2 and RFC 7541, appendix A: `GET http://test/` on stream 1, complete.
const HEADERS: &[u8] = b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x84\x01\x04test";
const GOAWAY: u8 = 7;

/// Serves one connection, whose requests are never answered, and says goodbye when the shard is to stop.
async fn serve(listener: TcpListener, asked: mpsc::Sender<()>) {
    let (stream, _) = listener.accept().await.expect("a connection");
    let never = service_fn(move |_: Request<_>| {
        asked.send(()).expect("the test waits");
        std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>()
    });
    let connection = http2::Builder::new(Executor).serve_connection(Io::new(stream), never);
    let mut connection = pin!(connection);
    if let Either::Right(_) = select(connection.as_mut(), pin!(shutdown_requested())).await {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// The types of the frames that come until the end.
fn frames(mut stream: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    // It may end with a reset: what the client has not been read for is lost then, not what it was sent.
    let _ = stream.read_to_end(&mut received);
    let mut types = Vec::new();
    let mut rest = received.as_slice();
    while let [a, b, c, kind, _, _, _, _, _, body @ ..] = rest {
        types.push(*kind);
        rest = &body[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
    }
    types
}

#[test]
fn a_peer_that_does_not_answer_a_goaway_is_bounded_by_the_deadline() {
    within_reason(|| {
        for with_request in [false, true] {
            let runtime = shards(1);
            let handle = runtime.handle();
            let (asked, was_asked) = mpsc::channel();
            let listening = handle.submit_to(FIRST, move || async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                let address = listener.local_addr().expect("asked");
                drop(corelane::spawn_local(serve(listener, asked)));
                address
            });
            let address = wait(listening).expect("the shard runs");
            let mut client = TcpStream::connect(address).expect("it listens");
            client.write_all(PREFACE).expect("sent");
            // The server's settings show that it is there.
            let mut settings = [0; 9];
            client.read_exact(&mut settings).expect("settings");
            let mut rest = vec![0; usize::from(settings[2])];
            client.read_exact(&mut rest).expect("settings");
            if with_request {
                client.write_all(HEADERS).expect("sent");
                was_asked.recv().expect("the request arrives");
            }
            let report = runtime.shutdown(Duration::from_millis(300));
            assert!(report.tasks_dropped >= 1, "{report:?}");
            assert!(frames(client).contains(&GOAWAY), "it was told to go");
        }
    });
}
