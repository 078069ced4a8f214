//! Connections that end while their clients are still sending, or slow: what the client gets to hear, and when it is cut off.

use super::client::{Client, GET};
use super::in_process::answer;
use super::limits::{Failure, Limited, each};
use super::{NEVER, until};
use corelane::server::{self, ConnectionLimits};
use http_body_util::BodyExt;
use hyper::{Request, Response};
use std::future::pending;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(150);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

async fn length(
    request: Request<server::Body>,
) -> Result<Response<super::in_process::Body>, Failure> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(answer(body.len().to_string()))
}

#[test]
fn who_sends_all_of_a_body_that_is_too_large_before_it_reads_hears_why_it_is_refused() {
    const SENT: usize = 3 << 20;
    each(|mode| {
        let served = Limited::start(mode, |limits| limits.body_bytes = 1_000_000, length);
        let heads = [
            (format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {SENT}\r\n\r\n"), 413),
            (
                format!(
                    "POST / HTTP/1.1\r\nhost: t\r\na: {}\r\ncontent-length: {SENT}\r\n\r\n",
                    "x".repeat(20_000)
                ),
                431,
            ),
            (format!("POST / HTTP/1.1\r\ncontent-length: {SENT}\r\n\r\n"), 400),
        ];
        for (head, status) in heads {
            let mut client = Client::connect(served.address);
            client.send(&head);
            let piece = vec![b'x'; 64 << 10];
            for _ in 0..SENT / piece.len() {
                client.send(&piece);
            }
            assert_eq!(client.answer().status, status);
            client.is_closed();
        }
    });
}

#[test]
fn who_sends_for_ever_is_not_read_for_ever() {
    each(|mode| {
        let served = Limited::start(mode, |limits| limits.body_bytes = 1000, length);
        let mut client = Client::connect(served.address);
        client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1000000000000\r\n\r\n");
        let began = Instant::now();
        let piece = vec![b'x'; 64 << 10];
        while std::io::Write::write_all(&mut client.stream(), &piece).is_ok() {
            assert!(began.elapsed() < NEVER, "it is read on and on");
        }
        until("it is gone", || {
            served.runtime.handle().stats().iter().all(|stats| stats.connections == 0)
        });
    });
}

#[test]
fn half_a_head_that_came_with_the_request_before_has_the_time_of_a_head() {
    each(|mode| {
        let limit = |limits: &mut ConnectionLimits| {
            limits.header_timeout = Some(SHORT);
            limits.idle_timeout = Some(LONG);
        };
        let served = Limited::start(mode, limit, length);
        let mut client = Client::connect(served.address);
        client.send(format!("{GET}GET / HT"));
        assert_eq!(client.answer().status, 200);
        assert_eq!(client.answer().status, 408);
        client.is_closed();
    });
}

#[test]
fn an_idle_connection_outlives_the_time_of_a_head_and_asks_on() {
    each(|mode| {
        let limit = |limits: &mut ConnectionLimits| {
            limits.header_timeout = Some(SHORT);
            limits.idle_timeout = Some(LONG);
        };
        let served = Limited::start(mode, limit, length);
        let mut idle = Client::connect(served.address);
        let mut with_half = Client::connect(served.address);
        for round in 0..3 {
            idle.send(GET);
            assert_eq!(idle.answer().status, 200, "round {round}");
            // When this one is cut off, the other has had as much time.
            with_half.send(format!("{GET}GET"));
            assert_eq!(with_half.answer().status, 200);
            assert_eq!(with_half.answer().status, 408);
            with_half = Client::connect(served.address);
        }
        idle.send(format!("{GET}{GET}"));
        assert_eq!((idle.answer().status, idle.answer().status), (200, 200));
    });
}

#[test]
fn limits_hold_while_the_server_drains() {
    each(|mode| {
        let limit = |limits: &mut ConnectionLimits| {
            limits.header_timeout = Some(SHORT);
            limits.write_timeout = Some(SHORT);
        };
        let large = |request: Request<server::Body>| async move {
            match request.uri().path() {
                "/never" => pending().await,
                "/large" => Ok(answer(vec![b'x'; 16 << 20])),
                _ => Ok(answer("Hello, World!")),
            }
        };
        let served = Limited::start(mode, limit, large);
        let mut begun = Client::connect(served.address);
        begun.get().is_hello();
        begun.send("GET / HT");
        let mut stuck = Client::with_receive_buffer(served.address, 16 << 10);
        stuck.send("GET /large HTTP/1.1\r\nhost: t\r\n\r\n");
        // It is being answered.
        stuck.read_exactly(10).expect("the beginning");
        let began = Instant::now();
        assert_eq!(served.runtime.shutdown(NEVER * 2).tasks_dropped, 0);
        assert!(began.elapsed() < NEVER, "the deadline was not what ended it");
        // It may have been cut off before the end had begun.
        begun.is_gone();
    });
}
