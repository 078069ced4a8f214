//! A cache that is plain memory: one `Rc<RefCell<HashMap>>` per shard, behind the HTTP server.
//!
//! ```text
//! cargo run --release --example local_cache -- 127.0.0.1:8080     then: curl http://127.0.0.1:8080/any/path, twice
//! cargo run --release --example local_cache -- --demo             a few requests of its own, and the end
//! ```
//!
//! The first request for a path waits for a slow origin (a sleep stands for it), later ones on the same shard do not.
//! The service is not `Send`, so it needs no lock. The price of sharing nothing: every shard fetches for itself, and a
//! value that must be the same everywhere does not belong into such a cache. Ctrl-C ends it.

use corelane::http::Io;
use corelane::net::TcpStream;
use corelane::server::{self, Server};
use corelane::time::sleep;
use corelane::{Runtime, ShardId, signal::ctrl_c, spawn_local};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response, client};
use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What the origin takes.
const ORIGIN_DELAY: Duration = Duration::from_millis(50);
/// Paths that one shard remembers.
const ENTRIES_MAX: usize = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (address, demo) = arguments()?;
    let runtime = Runtime::builder().start()?;
    let server = Server::builder().listen(address).start(runtime.handle(), |shard| {
        // This runs once on each shard, and what it makes stays there.
        let cache = Cache::default();
        service_fn(move |request: Request<server::Body>| answer(shard, cache.clone(), request))
    })?;
    let address = server.local_addrs()[0];
    println!("listening on http://{address}, {} shards", runtime.handle().shard_count());

    if demo {
        runtime.block_on(ask(address))?;
    } else {
        runtime.block_on(ctrl_c())?;
    }
    runtime.shutdown(Duration::from_secs(5));
    Ok(())
}

/// One shard's cache. A clone is another name for the same memory.
#[derive(Clone, Default)]
struct Cache {
    entries: Rc<RefCell<HashMap<String, Bytes>>>,
}

impl Cache {
    fn get(&self, path: &str) -> Option<Bytes> {
        self.entries.borrow().get(path).cloned()
    }

    fn put(&self, path: String, value: Bytes) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() == ENTRIES_MAX {
            // Crude, and bounded.
            entries.clear();
        }
        entries.insert(path, value);
    }
}

async fn answer(
    shard: ShardId,
    cache: Cache,
    request: Request<server::Body>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    // No borrow of the cache is held across an `await`: another request of this shard may run there.
    let (word, value) = match cache.get(&path) {
        Some(value) => ("cached", value),
        None => {
            let value = fetch(&path).await;
            cache.put(path, value.clone());
            ("fetched", value)
        }
    };
    let mut response = Response::new(Full::new(value));
    if let Ok(text) = format!("{word} by {shard}").parse() {
        response.headers_mut().insert("x-cache", text);
    }
    Ok(response)
}

/// The slow origin.
async fn fetch(path: &str) -> Bytes {
    sleep(ORIGIN_DELAY).await;
    Bytes::from(format!("This is {path}.\n"))
}

/// The demo: the same paths over several connections, which the kernel spreads over the shards.
async fn ask(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    for number in 0..4 {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = client::conn::http1::handshake(Io::new(stream)).await?;
        let connection = spawn_local(connection);
        for path in ["/a", "/b", "/a"] {
            let began = Instant::now();
            let request = Request::get(path)
                .header("host", address.to_string())
                .body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await?;
            let word = response.headers().get("x-cache").cloned().ok_or("no x-cache header")?;
            response.into_body().collect().await?;
            println!("connection {number}: {path} {} in {:?}", word.to_str()?, began.elapsed());
        }
        drop(sender);
        connection.await??;
    }
    Ok(())
}

/// `[ADDRESS:PORT] [--demo]`; the demo chooses a free port unless one is given.
fn arguments() -> Result<(SocketAddr, bool), Box<dyn Error>> {
    let (mut address, mut demo) = (None, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--demo" => demo = true,
            text => address = Some(text.parse().map_err(|error| format!("{text}: {error}"))?),
        }
    }
    let standard = SocketAddr::from(([127, 0, 0, 1], if demo { 0 } else { 8080 }));
    Ok((address.unwrap_or(standard), demo))
}
