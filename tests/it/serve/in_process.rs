//! The server inside this process, where a test can give it a service of its own and look at its counters.

use super::NEVER;
use corelane::server::{self, Builder, Server};
use corelane::{Runtime, ShardId, ShardStats};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Bytes;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

/// The first shard.
pub(super) const SHARD: ShardId = ShardId::new(0);

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body of one piece.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

pub(super) fn answer(bytes: impl Into<Bytes>) -> Response<Body> {
    Response::new(whole(bytes))
}

/// A runtime that serves.
pub(super) struct Served {
    pub(super) runtime: Runtime,
    pub(super) address: SocketAddr,
}

impl Served {
    /// On `shards` shards, by a service that `make` makes on each of them.
    pub(super) fn by<F, S>(shards: usize, make: F) -> Served
    where
        F: FnOnce(ShardId) -> S + Clone + Send + 'static,
        S: Service<Request<server::Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + 'static,
    {
        Served::with(Server::builder(), shards, make)
    }

    /// The same, of this server.
    pub(super) fn with<F, S>(server: Builder, shards: usize, make: F) -> Served
    where
        F: FnOnce(ShardId) -> S + Clone + Send + 'static,
        S: Service<Request<server::Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + 'static,
    {
        let cores = shards.to_string().parse().expect("a number of shards");
        let runtime = Runtime::builder().cores(cores).start().expect("started");
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = server.listen(local).start(runtime.handle(), make).expect("a port");
        Served { address: server.local_addrs()[0], runtime }
    }

    /// On one shard, by this function.
    pub(super) fn by_fn<F, Fut>(function: F) -> Served
    where
        F: Fn(Request<server::Body>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Response<Body>> + 'static,
    {
        let infallible = move |request| {
            let answered = function(request);
            async move { Ok::<_, Infallible>(answered.await) }
        };
        Served::by(1, move |_shard| service_fn(infallible))
    }

    pub(super) fn stats(&self) -> Vec<ShardStats> {
        self.runtime.handle().stats()
    }

    /// The sum of a counter over the shards.
    pub(super) fn sum(&self, counter: impl Fn(&ShardStats) -> u64) -> u64 {
        self.stats().iter().map(counter).sum()
    }
}

/// Holds the shard up until the guard is dropped, so that everything that happens meanwhile is found at once.
pub(super) fn hold(runtime: &Runtime) -> mpsc::Sender<()> {
    let (go, may_go) = mpsc::channel();
    let (held, is_held) = mpsc::channel();
    let block = move || async move {
        held.send(()).expect("the test waits");
        // Ends when the sender is dropped.
        let _ = may_go.recv();
    };
    drop(runtime.handle().spawn_on(SHARD, block).expect("a shard"));
    is_held.recv().expect("a running shard");
    go
}

/// Whether there are two CPUs for two shards.
pub(super) fn has_two_cpus() -> bool {
    thread::available_parallelism().expect("a number of CPUs").get() > 1
}

/// Runs `test` on a thread of its own and fails if it does not come to an end: a shard that hangs takes the test along.
pub(super) fn within_reason(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        // Nobody listens any more if the test has been given up.
        let _ = done.send(());
    });
    match ended.recv_timeout(NEVER * 2) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        // Done, or panicked.
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

#[test]
fn a_server_without_shards_says_so() {
    let refused = corelane::block_on(async {
        let builder = Server::builder().listen("127.0.0.1:0".parse().expect("an address"));
        let service = service_fn(|_request| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
        });
        builder.start(&corelane::Handle::current(), move |_shard| service)
    });
    let error = refused.expect_err("nobody would serve");
    assert!(error.is_config() && error.to_string().contains("no shards"), "{error}");
}
