//! The server of these tests: two shards, each with a port of its own, that say what became of each handshake.

use crate::harness::{FIRST, HANGS_AFTER, shards};
use corelane::http::{Executor, Timer};
use corelane::net::{TcpListener, TcpStream};
use corelane::time::timeout;
use corelane::tls::{Acceptor, Stream, Tls, Version};
use corelane::{Runtime, ShardId, spawn_local};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// What a shard knows of a connection.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) shard: ShardId,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) server_name: Option<String>,
    pub(super) version: Version,
    pub(super) cipher_suite: &'static str,
    pub(super) is_resumed: bool,
    pub(super) client: Vec<Vec<u8>>,
}

impl Facts {
    fn of<IO>(shard: ShardId, stream: &Stream<IO>) -> Facts {
        Facts {
            shard,
            alpn: stream.alpn().map(<[u8]>::to_vec),
            server_name: stream.server_name().map(str::to_owned),
            version: stream.version(),
            cipher_suite: stream.cipher_suite(),
            is_resumed: stream.is_resumed(),
            client: stream.client_certificates().map(<[u8]>::to_vec).collect(),
        }
    }
}

/// See the module.
pub(super) struct Site {
    outcomes: mpsc::Receiver<Result<Facts, String>>,
    begun: Arc<AtomicUsize>,
    addresses: Vec<SocketAddr>,
    _runtime: Runtime,
}

impl Site {
    /// Serves HTTP.
    pub(super) fn start(tls: &Tls) -> Site {
        Site::with(tls, HANGS_AFTER, http)
    }

    /// A handshake may take `limit`, and then the stream is `serve`'s.
    pub(super) fn with<F, Fut>(tls: &Tls, limit: Duration, serve: F) -> Site
    where
        F: Fn(Stream<TcpStream>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let runtime = shards(2);
        let (tell, outcomes) = mpsc::channel();
        let begun = Arc::new(AtomicUsize::new(0));
        let mut addresses = Vec::new();
        for shard in runtime.handle().shards() {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            addresses.push(listener.local_addr().expect("bound"));
            listener.set_nonblocking(true).expect("a socket");
            let (tls, tell, serve, begun) =
                (tls.clone(), tell.clone(), serve.clone(), begun.clone());
            let accept = move || async move {
                let listener = TcpListener::from_std(listener).expect("a listening socket");
                accept(shard, listener, tls.acceptor(), limit, begun, tell, serve).await;
            };
            drop(runtime.handle().spawn_on(shard, accept).expect("a shard"));
        }
        Site { outcomes, begun, addresses, _runtime: runtime }
    }

    pub(super) fn address(&self, shard: ShardId) -> SocketAddr {
        self.addresses[shard.index()]
    }

    pub(super) fn first(&self) -> SocketAddr {
        self.address(FIRST)
    }

    /// What became of the next handshake that ended.
    #[track_caller]
    pub(super) fn outcome(&self) -> Result<Facts, String> {
        self.outcomes.recv_timeout(HANGS_AFTER / 2).expect("the handshake ends")
    }

    /// Handshakes that have begun.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

async fn accept<F, Fut>(
    shard: ShardId,
    listener: TcpListener,
    tls: Acceptor,
    limit: Duration,
    begun: Arc<AtomicUsize>,
    tell: mpsc::Sender<Result<Facts, String>>,
    serve: F,
) where
    F: Fn(Stream<TcpStream>) -> Fut + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (tell, serve) = (tell.clone(), serve.clone());
        let handshake = timeout(limit, tls.accept(stream));
        begun.fetch_add(1, Ordering::SeqCst);
        drop(spawn_local(async move {
            let stream = match handshake.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    return drop(tell.send(Err(format!("{:?}: {error}", error.kind()))));
                }
                Err(elapsed) => return drop(tell.send(Err(elapsed.to_string()))),
            };
            // Nobody listens when the test is over.
            let _ = tell.send(Ok(Facts::of(shard, &stream)));
            serve(stream).await;
        }));
    }
}

/// Answers a request with its own body, or with `Hello` if it has none.
pub(super) async fn http(stream: Stream<TcpStream>) {
    let service = service_fn(async |request: Request<Incoming>| {
        let body = match request.method().as_str() {
            "GET" => Full::new(Bytes::from("Hello")).map_err(|never| match never {}).boxed_unsync(),
            _ => request.into_body().boxed_unsync(),
        };
        Ok::<Response<UnsyncBoxBody<Bytes, hyper::Error>>, hyper::Error>(Response::new(body))
    });
    // What ends a connection is the client's to see.
    if stream.alpn() == Some(b"h2") {
        let _ = http2::Builder::new(Executor).timer(Timer).serve_connection(stream, service).await;
    } else {
        let _ = http1::Builder::new().timer(Timer).serve_connection(stream, service).await;
    }
}
