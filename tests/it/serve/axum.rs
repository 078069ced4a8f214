//! axum's routers, and other services of tower, on shards and on workers: what they extract, stream and refuse is what a client
//! sees.

use super::client::{Answer, Client};
use super::in_process::within_reason;
use super::limits::each;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use corelane::server::{self, ConnectionInfo, ConnectionLimits, Listen, Server};
use corelane::{Mode, Runtime, yield_now};
use futures::StreamExt;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tower::limit::ConcurrencyLimit;
use tower_http::set_header::SetResponseHeaderLayer;

/// A runtime that serves; it ends when this is dropped.
struct Running {
    _runtime: Runtime,
    address: SocketAddr,
}

fn runtime(mode: Mode, shards: usize) -> Runtime {
    let cores = shards.to_string().parse().expect("a count");
    Runtime::builder().mode(mode).cores(cores).start().expect("started")
}

fn listen() -> Listen {
    Listen::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn serve<S>(mode: Mode, service: S) -> Running
where
    S: tower::Service<Request<server::Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let runtime = runtime(mode, 1);
    // Smaller than what axum allows.
    let mut limits = ConnectionLimits::default();
    limits.body_bytes = 1_000_000;
    let server = Server::builder().listen_with(listen().limits(limits));
    let server = server.start_tower_send(runtime.handle(), service).expect("a port");
    Running { address: server.local_addrs()[0], _runtime: runtime }
}

#[derive(serde::Deserialize)]
struct Times {
    times: usize,
}

#[derive(serde::Deserialize, serde::Serialize)]
struct Numbers {
    numbers: Vec<i64>,
}

async fn hello(
    State(word): State<&'static str>,
    Path(name): Path<String>,
    Query(Times { times }): Query<Times>,
    Extension(connection): Extension<ConnectionInfo>,
) -> String {
    yield_now().await;
    format!("{word}, {}{}", format!("{name}! ").repeat(times), connection.peer)
}

async fn reverse(Json(mut numbers): Json<Numbers>) -> Json<Numbers> {
    numbers.numbers.reverse();
    Json(numbers)
}

/// Sends back what comes, while it comes.
async fn shout(body: Body) -> Body {
    Body::from_stream(
        body.into_data_stream().map(|bytes| bytes.map(|bytes| bytes.to_ascii_uppercase())),
    )
}

async fn ticks() -> Sse<impl futures::Stream<Item = Result<Event, Infallible>>> {
    Sse::new(
        futures::stream::iter(0..3).map(|number| Ok(Event::default().data(number.to_string()))),
    )
}

async fn panics() -> &'static str {
    std::panic::resume_unwind(Box::new("deliberate"))
}

fn application() -> Router {
    let name = HeaderName::from_static("x-layer");
    Router::new()
        .route("/hello/{name}", get(hello))
        .route("/reverse", post(reverse).layer(DefaultBodyLimit::max(100)))
        .route("/shout", post(shout))
        .route("/length", post(async |bytes: Bytes| bytes.len().to_string()))
        .route("/ticks", get(ticks))
        .route("/panics", get(panics))
        .layer(SetResponseHeaderLayer::overriding(name, HeaderValue::from_static("passed")))
        .with_state("Hello")
}

fn post_of(target: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nhost: test\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[track_caller]
fn text(answer: &Answer) -> &str {
    std::str::from_utf8(&answer.body).expect("text")
}

#[test]
fn what_is_extracted_comes_to_the_handler() {
    each(|mode| {
        let running = serve(mode, application());
        let mut client = Client::connect(running.address);
        // Twice on one connection: each request has a service of its own.
        for name in ["Ada", "Bob"] {
            client.send(format!("GET /hello/{name}?times=2 HTTP/1.1\r\nhost: test\r\n\r\n"));
            let answer = client.answer();
            assert_eq!((answer.status, answer.header("x-layer")), (200, Some("passed")));
            let peer = client.stream().local_addr().expect("an address");
            assert_eq!(text(&answer), format!("Hello, {name}! {name}! {peer}"));
        }
        client.send(post_of("/reverse", "application/json", "{\"numbers\":[1,2,3]}"));
        assert_eq!(text(&client.answer()), "{\"numbers\":[3,2,1]}");
    });
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    each(|mode| {
        let running = serve(mode, application());
        let status = |request: String| {
            let mut client = Client::connect(running.address);
            client.send(request);
            client.answer().status
        };
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(status(get("/nothing")), 404);
        assert_eq!(status(get("/reverse")), 405);
        assert_eq!(status(get("/hello/Ada?times=many")), 400);
        assert_eq!(status(post_of("/reverse", "text/plain", "{}")), 415);
        assert_eq!(status(post_of("/reverse", "application/json", "{\"numbers\":")), 400);
        assert_eq!(status(post_of("/reverse", "application/json", "{\"numbers\":\"no\"}")), 422);
        let long = format!("{{\"numbers\":[{}1]}}", "1,".repeat(100));
        assert_eq!(status(post_of("/reverse", "application/json", &long)), 413);
        // A handler that panics, and what the server itself refuses.
        assert_eq!(status(get("/panics")), 500);
        let huge = "POST /length HTTP/1.1\r\nhost: test\r\ncontent-length: 1000001\r\n\r\n";
        assert_eq!(status(huge.to_owned()), 413);
        assert_eq!(status(get("/hello/Ada?times=1")), 200);
    });
}

#[test]
fn a_body_is_streamed_both_ways_while_it_comes() {
    each(|mode| {
        let running = serve(mode, application());
        let mut client = Client::connect(running.address);
        client.send("POST /shout HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
        // Only when one piece has come back, the next is sent.
        for (number, piece) in ["5\r\nhello\r\n", "6\r\nworld!\r\n"].into_iter().enumerate() {
            client.send(piece);
            if number == 0 {
                let head = read_past(&mut client, b"\r\n\r\n");
                assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            }
            let upper = piece.to_ascii_uppercase();
            let back = client.read_exactly(piece.len()).expect("the piece");
            assert_eq!(String::from_utf8(back).expect("text"), upper);
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.read_exactly(5).expect("the end"), b"0\r\n\r\n");
        client.send("GET /ticks HTTP/1.1\r\nhost: test\r\n\r\n");
        let answer = client.answer();
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert_eq!(text(&answer), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    });
}

#[track_caller]
fn read_past(client: &mut Client, end: &[u8]) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.extend(client.read_exactly(1).expect("more"));
    }
    String::from_utf8(read).expect("text")
}

#[test]
fn a_body_that_breaks_off_is_an_error_of_the_handler() {
    each(|mode| {
        let running = serve(mode, application());
        let mut client = Client::connect(running.address);
        client.send(
            "POST /length HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        );
        assert_eq!(client.answer().status, 400);
    });
}

/// It must be asked whether it is ready, by the clone that is called, and is not at first.
struct Careful {
    ready: bool,
    asked: Arc<AtomicUsize>,
}

impl Clone for Careful {
    fn clone(&self) -> Careful {
        Careful { ready: false, asked: self.asked.clone() }
    }
}

impl tower::Service<Request<server::Body>> for Careful {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if std::mem::replace(&mut self.ready, true) {
            return Poll::Ready(Ok(()));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn call(&mut self, _: Request<server::Body>) -> Self::Future {
        let mut response = Response::new(Full::from("called"));
        if !std::mem::replace(&mut self.ready, false) {
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
        }
        ready(Ok(response))
    }
}

#[test]
fn a_service_is_called_when_it_is_ready() {
    each(|mode| {
        let asked = Arc::new(AtomicUsize::new(0));
        let runtime = runtime(mode, 1);
        let server = Server::builder().listen_with(listen());
        let service = Careful { ready: false, asked: asked.clone() };
        let server = server.start_tower_send(runtime.handle(), service).expect("a port");
        let mut client = Client::connect(server.local_addrs()[0]);
        for requests in 1..=3 {
            assert_eq!(client.get().status, 200);
            assert_eq!(asked.load(Ordering::Relaxed), 2 * requests);
        }
    });
}

#[test]
fn requests_of_several_connections_wait_for_their_turn() {
    each(|mode| {
        let inside = Arc::new(AtomicUsize::new(0));
        let busy = async move || {
            let others = inside.fetch_add(1, Ordering::SeqCst);
            for _ in 0..10 {
                yield_now().await;
            }
            inside.fetch_sub(1, Ordering::SeqCst);
            others.to_string()
        };
        // Around the router, whose own readiness says nothing.
        let limited = ConcurrencyLimit::new(Router::new().route("/", get(busy)), 1);
        let running = serve(mode, limited);
        let mut clients: Vec<_> = (0..8).map(|_| Client::connect(running.address)).collect();
        clients.iter_mut().for_each(|client| client.send(super::client::GET));
        for client in &mut clients {
            assert_eq!(text(&client.answer()), "0");
        }
    });
}

/// A service that only its own shard may have, around a router.
#[derive(Clone)]
struct Counting {
    router: Router,
    count: Rc<Cell<u64>>,
}

impl tower::Service<Request<server::Body>> for Counting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = futures::future::LocalBoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        tower::Service::<Request<server::Body>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request<server::Body>) -> Self::Future {
        let (answered, count) = (self.router.call(request), self.count.clone());
        Box::pin(async move {
            let mut response = answered.await?;
            count.set(count.get() + 1);
            response.headers_mut().insert("x-count", count.get().into());
            Ok(response)
        })
    }
}

#[test]
fn each_shard_counts_in_memory_of_its_own() {
    within_reason(|| {
        let runtime =
            runtime(Mode::ThreadPerCore, if super::in_process::has_two_cpus() { 2 } else { 1 });
        let builder = Server::builder().listen_with(listen());
        let server = builder.start_tower(runtime.handle(), |shard| {
            let router = Router::new().route("/", get(async move || shard.to_string()));
            Counting { router, count: Rc::new(Cell::new(0)) }
        });
        let address = server.expect("a port").local_addrs()[0];
        let mut counts = std::collections::HashMap::<String, u64>::new();
        for _ in 0..32 {
            let mut client = Client::connect(address);
            let answer = client.get();
            let count = counts.entry(text(&answer).to_owned()).or_default();
            *count += 1;
            assert_eq!(answer.header("x-count"), Some(count.to_string().as_str()));
        }
        assert_eq!(counts.values().sum::<u64>(), 32);
        assert_eq!(counts.len(), runtime.handle().shard_count());
    });
}
