//! What connections are held to in time and size, in both modes, with clients that are late or want too much.

use super::client::Client;
use super::in_process::{Body, answer, whole, within_reason};
use super::{NEVER, until};
use corelane::server::{self, ConnectionLimits, Listen, Server};
use corelane::{Mode, Runtime};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::future::{Future, pending};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What is short here.
const SHORT: Duration = Duration::from_millis(150);
/// Short too, but long enough that a client that does its part is in time on a busy machine.
const ENOUGH: Duration = Duration::from_secs(1);

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A server of one shard or worker.
pub(super) struct Limited {
    pub(super) runtime: Runtime,
    pub(super) address: SocketAddr,
}

impl Limited {
    pub(super) fn start<F, Fut>(
        mode: Mode,
        limit: impl FnOnce(&mut ConnectionLimits),
        function: F,
    ) -> Limited
    where
        F: Fn(Request<server::Body>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<Response<Body>, Failure>> + Send + 'static,
    {
        let cores = "1".parse().expect("a count");
        let runtime = Runtime::builder().mode(mode).cores(cores).start().expect("started");
        let mut limits = ConnectionLimits::default();
        limit(&mut limits);
        let listen = Listen::new(SocketAddr::from(([127, 0, 0, 1], 0))).limits(limits);
        let server = Server::builder().listen_with(listen);
        let server = server.start_send(runtime.handle(), service_fn(function)).expect("a port");
        Limited { address: server.local_addrs()[0], runtime }
    }

    fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    fn connections(&self) -> u64 {
        self.runtime.handle().stats().iter().map(|stats| stats.connections).sum()
    }
}

async fn hello(_request: Request<server::Body>) -> Result<Response<Body>, Failure> {
    Ok(answer("Hello, World!"))
}

/// How many bytes came.
async fn length(request: Request<server::Body>) -> Result<Response<Body>, Failure> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(answer(body.len().to_string()))
}

/// In both modes.
pub(super) fn each(test: impl Fn(Mode) + Copy + Send + 'static) {
    within_reason(move || [Mode::ThreadPerCore, Mode::WorkStealing].into_iter().for_each(test));
}

#[test]
fn who_says_nothing_is_closed_without_a_word() {
    each(|mode| {
        let served = Limited::start(mode, |limits| limits.first_byte_timeout = Some(SHORT), hello);
        let began = Instant::now();
        let mut silent = served.connect();
        silent.is_closed();
        assert!(began.elapsed() >= SHORT);
        served.connect().get().is_hello();
    });
}

#[test]
fn half_a_head_is_answered_with_408_however_slowly_it_goes_on() {
    each(|mode| {
        let served = Limited::start(mode, |limits| limits.header_timeout = Some(SHORT), hello);
        let mut stuck = served.connect();
        stuck.send("GET / HTTP/1.1\r\nhost: te");
        let answer = stuck.answer();
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        stuck.is_closed();

        let slow = served.connect();
        let mut stream = slow.stream().try_clone().expect("a descriptor");
        let ends = thread::spawn(move || {
            let bytes = std::iter::repeat_n(&b"GET / HTTP/1.1\r\nx-much: "[..], 1);
            let bytes = bytes.chain(std::iter::repeat(&b"y"[..]));
            for bytes in bytes {
                if stream.write_all(bytes).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        let mut slow = slow;
        assert_eq!(slow.answer().status, 408);
        slow.is_gone();
        ends.join().expect("no panic");
        // The head of a later request too.
        let mut later = served.connect();
        later.get().is_hello();
        later.send("G");
        assert_eq!(later.answer().status, 408);
        later.is_closed();
    });
}

#[test]
fn an_idle_connection_is_closed_and_one_that_asks_is_not() {
    each(|mode| {
        let served = Limited::start(mode, |limits| limits.idle_timeout = Some(ENOUGH), hello);
        let mut idle = served.connect();
        idle.get().is_hello();
        let mut asks = served.connect();
        let began = Instant::now();
        while began.elapsed() < ENOUGH * 5 / 2 {
            asks.get().is_hello();
            thread::sleep(Duration::from_millis(5));
        }
        idle.is_closed();
        until("only one is left", || served.connections() == 1);
    });
}

#[test]
fn a_body_that_does_not_come_is_answered_with_408() {
    each(|mode| {
        let served = Limited::start(mode, |limits| limits.body_timeout = Some(SHORT), length);
        for head in
            ["content-length: 10\r\n\r\n12345", "transfer-encoding: chunked\r\n\r\n5\r\n12345\r\n"]
        {
            let mut late = served.connect();
            late.send(format!("POST / HTTP/1.1\r\nhost: t\r\n{head}"));
            let answer = late.answer();
            assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
            late.is_gone();
        }
    });
}

#[test]
fn a_body_that_comes_too_slowly_is_late_and_one_that_comes_steadily_is_not() {
    // For twice the time.
    const PIECES: usize = 100;
    each(|mode| {
        let served = Limited::start(mode, |limits| limits.body_timeout = Some(ENOUGH), length);
        for (piece, status) in [(10, 408), (4096, 200)] {
            let mut client = served.connect();
            let total = piece * PIECES;
            client.send(format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {total}\r\n\r\n"));
            let mut stream = client.stream().try_clone().expect("a descriptor");
            let sends = thread::spawn(move || {
                // Until it is refused.
                (0..PIECES).all(|_| {
                    thread::sleep(ENOUGH / 50);
                    stream.write_all(&vec![b'x'; piece]).is_ok()
                })
            });
            assert_eq!(client.answer().status, status, "pieces of {piece}");
            sends.join().expect("no panic");
        }
    });
}

#[test]
fn the_service_hears_why_a_body_has_failed_and_may_answer_itself() {
    async fn tell(request: Request<server::Body>) -> Result<Response<Body>, Failure> {
        let error = request.into_body().collect().await.expect_err("it fails");
        let text = format!("{} {} {error}", error.is_late(), error.is_too_large());
        let mut response = answer(text);
        *response.status_mut() = hyper::StatusCode::IM_A_TEAPOT;
        Ok(response)
    }
    each(|mode| {
        let limit = |limits: &mut ConnectionLimits| {
            limits.body_timeout = Some(SHORT);
            limits.body_bytes = 10;
        };
        let served = Limited::start(mode, limit, tell);
        let told = |body: &str| {
            let mut client = served.connect();
            client.send(format!(
                "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{body}"
            ));
            let answer = client.answer();
            assert_eq!(answer.status, 418);
            String::from_utf8(answer.body).expect("text")
        };
        assert_eq!(told("2\r\nxx\r\n"), "true false the request's body does not come in time");
        assert_eq!(
            told("b\r\n01234567890\r\n"),
            "false true the request's body is larger than it may be"
        );
    });
}

#[test]
fn a_body_that_is_too_large_is_answered_with_413() {
    each(|mode| {
        let served = Limited::start(mode, |limits| limits.body_bytes = 1000, length);
        let mut fits = served.connect();
        fits.send(format!(
            "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1000\r\n\r\n{}",
            "x".repeat(1000)
        ));
        assert_eq!(fits.answer().body, b"1000");
        let mut said = served.connect();
        said.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1001\r\n\r\n");
        let answer = said.answer();
        assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
        said.is_closed();
        let mut found = served.connect();
        found.send(format!(
            "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n",
            "x".repeat(1001)
        ));
        assert_eq!(found.answer().status, 413);
        found.is_gone();
    });
}

#[test]
fn a_service_that_takes_too_long_is_dropped_and_the_answer_is_503() {
    static DROPPED: AtomicBool = AtomicBool::new(false);
    struct Drops;
    impl Drop for Drops {
        fn drop(&mut self) {
            DROPPED.store(true, Ordering::Release);
        }
    }
    each(|mode| {
        let served = Limited::start(
            mode,
            |limits| limits.request_timeout = Some(SHORT),
            |_| async {
                let _held = Drops;
                pending().await
            },
        );
        let mut client = served.connect();
        let answer = client.get();
        assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
        client.is_closed();
        assert!(DROPPED.swap(false, Ordering::Acquire), "its future lives on");
    });
}

#[test]
fn who_does_not_take_an_answer_is_reset_and_who_takes_it_slowly_gets_it() {
    const LARGE: usize = 8 << 20;
    each(|mode| {
        let large = |_| async { Ok(Response::new(whole(vec![b'x'; LARGE]))) };
        let served = Limited::start(mode, |limits| limits.write_timeout = Some(ENOUGH), large);
        let mut never = Client::with_receive_buffer(served.address, 16 << 10);
        never.send(super::client::GET);
        until("it is served", || served.connections() == 1);
        until("it is given up", || served.connections() == 0);
        let mut rest = Vec::new();
        let error = never.stream().read_to_end(&mut rest).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

        let mut slow = Client::with_receive_buffer(served.address, 64 << 10);
        slow.send(super::client::GET);
        let (mut read, mut buffer) = (0, vec![0; 256 << 10]);
        while read < LARGE {
            thread::sleep(Duration::from_millis(5));
            read += slow.stream().read(&mut buffer).expect("it goes on");
        }
    });
}

#[test]
fn the_last_request_of_a_connection_is_answered_with_a_goodbye() {
    each(|mode| {
        let served = Limited::start(mode, |limits| limits.max_requests = 3, hello);
        let mut client = served.connect();
        for last in [false, false, true] {
            let answer = client.get();
            answer.is_hello();
            assert_eq!(answer.header("connection"), last.then_some("close"));
        }
        client.is_closed();
        let served = Limited::start(mode, |limits| limits.max_age = Some(SHORT), hello);
        let mut old = served.connect();
        old.get().is_hello();
        old.is_closed();
    });
}

#[test]
fn heads_that_are_too_long_are_refused() {
    each(|mode| {
        let limit = |limits: &mut ConnectionLimits| {
            limits.header_bytes = 2048;
            limits.header_count = 10;
            limits.uri_bytes = 100;
        };
        let served = Limited::start(mode, limit, hello);
        let cases = [
            (format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "x".repeat(99)), 200),
            (format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "x".repeat(100)), 414),
            (format!("GET / HTTP/1.1\r\nhost: t\r\n{}\r\n", "a: b\r\n".repeat(9)), 200),
            (format!("GET / HTTP/1.1\r\nhost: t\r\n{}\r\n", "a: b\r\n".repeat(10)), 431),
            (format!("GET / HTTP/1.1\r\nhost: t\r\na: {}\r\n\r\n", "x".repeat(1900)), 200),
            (format!("GET / HTTP/1.1\r\nhost: t\r\na: {}\r\n\r\n", "x".repeat(2048)), 431),
        ];
        for (request, status) in cases {
            let mut client = served.connect();
            client.send(&request);
            assert_eq!(client.answer().status, status, "{} bytes", request.len());
            if status != 200 {
                client.is_gone();
            }
        }
    });
}

#[test]
fn who_has_shut_down_its_half_is_answered() {
    each(|mode| {
        let later = |_| async {
            corelane::time::sleep(Duration::from_millis(20)).await;
            Ok(answer("Hello, World!"))
        };
        let served = Limited::start(mode, |_| {}, later);
        let mut client = served.connect();
        client.send(super::client::GET);
        client.stream().shutdown(std::net::Shutdown::Write).expect("open");
        client.answer().is_hello();
        client.is_closed();
    });
}

#[test]
fn a_shutdown_does_not_wait_for_who_looks_at_connections() {
    each(|mode| {
        let served = Limited::start(mode, |_| {}, hello);
        let mut client = served.connect();
        client.get().is_hello();
        let began = Instant::now();
        assert_eq!(served.runtime.shutdown(NEVER).tasks_dropped, 0);
        assert!(began.elapsed() < NEVER / 2);
        client.is_closed();
    });
}
