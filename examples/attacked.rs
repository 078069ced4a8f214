//! The server that `tests/http2/run.sh` and `tests/slow/slow.py` attack: services that are slow, large or greedy, and a count of
//! what they do.
//!
//! ```text
//! cargo run --release --example attacked -- 127.0.0.1:8080 thread-per-core
//! ```
//!
//! Further arguments set limits: `write_timeout=1000` and the like, in milliseconds, and `send_buffer` in bytes.

use corelane::server::{self, ConnectionLimits, Listen, Server};
use corelane::{Mode, Runtime, signal::ctrl_c, time::sleep};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Frame, SizeHint};
use hyper::{Request, Response, service::service_fn};
use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

type Failure = Box<dyn Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Calls of `/slow` and `/hold`: that have begun, and whose futures are still there.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);

struct Counted;

impl Counted {
    fn new() -> Counted {
        BEGUN.fetch_add(1, Ordering::Relaxed);
        LIVE.fetch_add(1, Ordering::Relaxed);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes for ever.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 << 10])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn whole(bytes: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(bytes.into()).boxed_unsync())
}

async fn serve(request: Request<server::Body>) -> Result<Response<Body>, Failure> {
    let number = request.uri().query().and_then(|query| query.parse().ok()).unwrap_or(0);
    match request.uri().path() {
        "/slow" => {
            let _counted = Counted::new();
            sleep(Duration::from_millis(number)).await;
            Ok(whole("slow"))
        }
        // With the body unread.
        "/hold" => {
            let _counted = (Counted::new(), request);
            sleep(Duration::from_millis(number)).await;
            Ok(whole("held"))
        }
        "/read" => {
            let body = request.into_body().collect().await?.to_bytes();
            Ok(whole(body.len().to_string()))
        }
        "/large" => Ok(whole(vec![b'x'; number as usize])),
        "/endless" => Ok(Response::new(Endless.boxed_unsync())),
        "/counts" => {
            let [begun, live] = [&BEGUN, &LIVE].map(|count| count.load(Ordering::Relaxed));
            Ok(whole(format!("{begun} {live}")))
        }
        _ => Ok(whole("Hello, World!")),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("ADDRESS MODE [LIMIT=MILLISECONDS]...")?.parse()?;
    let mode = match arguments.next().as_deref() {
        Some("thread-per-core") => Mode::ThreadPerCore,
        Some("work-stealing") => Mode::WorkStealing,
        _ => return Err("the mode is thread-per-core or work-stealing".into()),
    };
    let (mut limits, mut send_buffer) = (ConnectionLimits::default(), None);
    for argument in arguments {
        let (name, value) = argument.split_once('=').ok_or("LIMIT=NUMBER")?;
        let number: u32 = value.parse()?;
        let time = Some(Duration::from_millis(number.into()));
        match name {
            "send_buffer" => send_buffer = Some(number),
            "first_byte_timeout" => limits.first_byte_timeout = time,
            "header_timeout" => limits.header_timeout = time,
            "body_timeout" => limits.body_timeout = time,
            "write_timeout" => limits.write_timeout = time,
            "idle_timeout" => limits.idle_timeout = time,
            _ => return Err(format!("no such limit: {name}").into()),
        }
    }
    let runtime = Runtime::builder().mode(mode).cores("1".parse()?).start()?;
    let mut listen = Listen::new(address).limits(limits);
    if let Some(bytes) = send_buffer {
        listen = listen.send_buffer(bytes);
    }
    let server =
        Server::builder().listen_with(listen).start_send(runtime.handle(), service_fn(serve))?;
    println!("listening on http://{}", server.local_addrs()[0]);
    runtime.block_on(ctrl_c())?;
    runtime.shutdown(Duration::from_secs(1));
    Ok(())
}
