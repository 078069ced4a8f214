//! Responses larger than every buffer on their way, to clients that read late.

use super::client::Client;
use super::in_process::{Body, Served, answer, within_reason};
use super::{eventually, until};
use corelane::server::Server;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Frame, SizeHint};
use hyper::header::CONTENT_LENGTH;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::io::Read;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

const SIZE: usize = 10 << 20;

/// The same bytes for everybody; no part of them looks like another.
fn content() -> Bytes {
    static CONTENT: OnceLock<Bytes> = OnceLock::new();
    let make = || {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes = Vec::with_capacity(SIZE);
        while bytes.len() < SIZE {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        Bytes::from(bytes)
    };
    CONTENT.get_or_init(make).clone()
}

/// The first bytes of the content, in pieces of these sizes, over and over.
struct Pieces {
    rest: Bytes,
    sizes: &'static [usize],
    next: usize,
    /// Says its length at the beginning.
    sized: bool,
    /// Every so many pieces it lets others run first.
    rests_every: usize,
    /// Bytes that hyper has been given.
    given: Arc<AtomicUsize>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            return Poll::Ready(None);
        }
        this.next += 1;
        if this.next.is_multiple_of(this.rests_every) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = this.sizes[this.next % this.sizes.len()].min(this.rest.len());
        this.given.fetch_add(size, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(this.rest.split_to(size)))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized { SizeHint::with_exact(self.rest.len() as u64) } else { SizeHint::default() }
    }
}

/// How a response is made.
#[derive(Clone, Copy, Debug)]
struct Plan {
    size: usize,
    sizes: &'static [usize],
    rests_every: usize,
}

/// Writes below 16 KiB are gathered, up to 64 KiB of them; others go to the socket at once.
const PLANS: &[Plan] = &[
    Plan { size: SIZE, sizes: &[SIZE], rests_every: usize::MAX },
    Plan { size: SIZE, sizes: &[100_000, 1_000_000], rests_every: 3 },
    Plan {
        size: SIZE,
        sizes: &[16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 1],
        rests_every: usize::MAX,
    },
    Plan {
        size: SIZE,
        sizes: &[5, 70_000, 300, 16_384, 8000, 8000, 1, 1, 200_000],
        rests_every: 7,
    },
    Plan { size: SIZE, sizes: &[1000, 4000, 10_000], rests_every: 50 },
    Plan { size: 2 << 20, sizes: &[1, 7, 100, 90], rests_every: 1000 },
];

/// A server of `/PLAN/sized` and `/PLAN/chunked`, and how much it has given of what it answers now. It copies responses into
/// one buffer, or sends them as they are.
fn serve(vectored: bool) -> (Served, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let counter = given.clone();
    let respond = move |request: &Request<_>| {
        let (plan, framing) = request.uri().path()[1..].split_once('/').expect("two parts");
        let plan = PLANS[plan.parse::<usize>().expect("a number")];
        let rest = content().slice(..plan.size);
        let Plan { sizes, rests_every, .. } = plan;
        let pieces = Pieces {
            rest,
            sizes,
            next: 0,
            sized: framing == "sized",
            rests_every,
            given: counter.clone(),
        };
        Response::new(pieces.boxed_unsync())
    };
    let server = Server::builder().vectored_writes(vectored);
    let served = Served::with(server, 1, move |_shard| {
        service_fn(move |request| {
            let response: Response<Body> = respond(&request);
            async { Ok::<_, Infallible>(response) }
        })
    });
    (served, given)
}

/// Sends a request, and waits until the server gives no more, because nobody reads. False: it has given everything.
fn ask(client: &mut Client, request: &str, given: &AtomicUsize, size: usize) -> bool {
    // The response before, if there was one, has been given.
    given.store(0, Ordering::Relaxed);
    client.send(request);
    let (mut last, mut since) = (0, Instant::now());
    eventually("the server has to wait", || {
        let now = given.load(Ordering::Relaxed);
        if now == size {
            return Some(false);
        }
        if now != last || now == 0 {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(30)).then_some(true)
    })
}

#[test]
fn large_responses_arrive_whole_at_a_client_that_reads_late() {
    within_reason(|| {
        for vectored in [false, true] {
            let (served, given) = serve(vectored);
            for (number, plan) in PLANS.iter().enumerate() {
                for framing in ["sized", "chunked"] {
                    let client = Client::with_receive_buffer(served.address, 128 * 1024);
                    read_late(client, number, plan, framing, &given);
                }
            }
            until("the connections are gone", || served.sum(|stats| stats.connections) == 0);
        }
    });
}

/// Asks twice for what the plan says, and each time reads only when the server has to wait.
fn read_late(mut client: Client, number: usize, plan: &Plan, framing: &str, given: &AtomicUsize) {
    for connection in ["keep-alive", "close"] {
        let request = format!(
            "GET /{number}/{framing} HTTP/1.1\r\nhost: t\r\nconnection: {connection}\r\n\r\n"
        );
        let held_up = ask(&mut client, &request, given, plan.size);
        assert!(
            held_up || plan.size < SIZE || plan.sizes == [SIZE],
            "{plan:?}: no buffer is that large"
        );
        let answer = client.answer();
        assert_eq!(answer.header("content-length").is_some(), framing == "sized");
        // Not with assert_eq, whose text would be megabytes.
        assert!(answer.body == content()[..plan.size], "{plan:?} {framing} {connection}");
    }
    client.is_closed();
}

#[test]
fn a_response_that_ends_with_the_connection_arrives_whole() {
    within_reason(|| {
        let (served, given) = serve(false);
        for (number, plan) in PLANS.iter().enumerate() {
            let mut client = Client::with_receive_buffer(served.address, 128 * 1024);
            ask(&mut client, &format!("GET /{number}/chunked HTTP/1.0\r\n\r\n"), &given, plan.size);
            let mut received = Vec::new();
            client.stream().read_to_end(&mut received).expect("an orderly end");
            let body =
                received.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
            assert!(
                received[body..] == content()[..plan.size],
                "{plan:?}: {} bytes",
                received.len() - body
            );
        }
    });
}

#[test]
fn a_response_on_its_way_arrives_whole_though_the_server_ends() {
    within_reason(|| {
        #[allow(clippy::needless_range_loop, reason = "the number is part of the request")]
        for number in 1..PLANS.len() - 1 {
            let (served, given) = serve(false);
            let mut client = Client::with_receive_buffer(served.address, 128 * 1024);
            let request = format!("GET /{number}/chunked HTTP/1.1\r\nhost: t\r\n\r\n");
            assert!(ask(&mut client, &request, &given, SIZE));
            served.runtime.handle().request_shutdown(Duration::from_secs(60));
            until("it listens no more", || std::net::TcpStream::connect(served.address).is_err());
            let answer = client.answer();
            assert!(answer.body == content(), "{:?}", PLANS[number]);
            client.is_closed();
            let report = served.runtime.shutdown(Duration::from_secs(60));
            assert_eq!((report.tasks_dropped, report.shards_panicked), (0, 0));
        }
    });
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_a_response_is_forgotten() {
    within_reason(|| {
        let (served, given) = serve(false);
        for reset in [false, true] {
            for (number, plan) in PLANS.iter().enumerate() {
                let mut client = Client::connect(served.address);
                ask(
                    &mut client,
                    &format!("GET /{number}/chunked HTTP/1.1\r\nhost: t\r\n\r\n"),
                    &given,
                    plan.size,
                );
                if reset {
                    client.reset();
                }
                // Dropped with bytes unread, which resets as well.
            }
        }
        until("the connections are gone", || served.sum(|stats| stats.connections) == 0);
        assert_eq!(served.sum(|stats| stats.panics), 0);
    });
}

#[test]
fn an_answer_too_long_for_its_content_length_does_not_reach_into_the_next() {
    within_reason(|| {
        let served = Served::by_fn(|_request| async {
            let mut response = answer("0123456789");
            response.headers_mut().insert(CONTENT_LENGTH, "4".parse().expect("a value"));
            response
        });
        let mut client = Client::connect(served.address);
        // Whether it is cut or the connection ends is hyper's choice; a second answer must not begin with "456789".
        for _ in 0..3 {
            match client.try_get() {
                Ok(answer) => assert_eq!(answer.body, b"0123"),
                Err(_) => client = Client::connect(served.address),
            }
        }
    });
}
