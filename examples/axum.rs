//! An axum application on shards: extractors, a tower-http layer, the peer's address, state that is the shard's own, and a stream
//! of events.
//!
//! ```text
//! cargo run --release --features tower,signal --example axum -- 127.0.0.1:8080
//! curl 'http://127.0.0.1:8080/hello/Ada?times=2'
//! curl -H 'content-type: application/json' -d '{"numbers":[1,2,3]}' http://127.0.0.1:8080/sum
//! curl -N http://127.0.0.1:8080/ticks
//! cargo run --release --features tower,signal --example axum -- --demo      a few requests of its own, and the end
//! ```
//!
//! Each shard has a router of its own, so no two cores count references of the same one. axum wants handlers whose futures are
//! `Send`; what a shard has for itself is reached through a `Sharded` value, which is only a name and may go anywhere.
//! Nothing here needs Tokio. Ctrl-C ends it.

use axum::extract::{Path, Query, State};
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use corelane::server::{ConnectionInfo, Server};
use corelane::{Runtime, ShardId, Sharded, signal::ctrl_c, time::interval};
use futures::stream::{self, Stream, StreamExt};
use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::{cell::Cell, convert::Infallible, error::Error, time::Duration};
use tower_http::set_header::SetResponseHeaderLayer;

fn main() -> Result<(), Box<dyn Error>> {
    let (address, demo) = arguments()?;
    let runtime = Runtime::builder().start()?;
    let handle = runtime.handle();
    let served = runtime.block_on(Sharded::new(handle, |_shard| Cell::new(0)))?;
    let server = Server::builder().listen(address).start_tower(handle, move |shard| {
        // This runs once on each shard, and the router that it makes stays there.
        application(App { shard, served })
    })?;
    let address = server.local_addrs()[0];
    println!("listening on http://{address}, {} shards", handle.shard_count());
    if demo {
        ask(address)?
    } else {
        runtime.block_on(ctrl_c())?
    }
    runtime.shutdown(Duration::from_secs(5));
    Ok(())
}

#[derive(Clone)]
struct App {
    shard: ShardId,
    /// Requests of this shard: a plain cell on each, without a lock or an atomic.
    served: Sharded<Cell<u64>>,
}

fn application(app: App) -> Router {
    let by = HeaderValue::from_str(&app.shard.to_string()).expect("words and a number");
    Router::new()
        .route("/hello/{name}", get(hello))
        .route("/sum", post(sum))
        .route("/ticks", get(ticks))
        .layer(SetResponseHeaderLayer::overriding(HeaderName::from_static("x-served-by"), by))
        .with_state(app)
}

#[derive(Deserialize)]
struct Greeting {
    #[serde(default = "once")]
    times: usize,
}

fn once() -> usize {
    1
}

async fn hello(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(greeting): Query<Greeting>,
    Extension(connection): Extension<ConnectionInfo>,
) -> String {
    let number = {
        // An `Rc`: it must be gone before the next `await`.
        let served = app.served.local();
        served.set(served.get() + 1);
        served.get()
    };
    let hello = format!("Hello, {name}! ").repeat(greeting.times.min(10));
    format!("{hello}You are {}; this is request {number} of {}.\n", connection.peer, app.shard)
}

#[derive(Deserialize)]
struct Terms {
    numbers: Vec<f64>,
}

#[derive(Serialize)]
struct Sum {
    sum: f64,
}

async fn sum(Json(terms): Json<Terms>) -> Json<Sum> {
    Json(Sum { sum: terms.numbers.iter().sum() })
}

/// Five events, by the shard's own timer.
async fn ticks() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = stream::unfold(interval(Duration::from_millis(200)), |mut interval| async move {
        interval.tick().await;
        Some((Ok(Event::default().event("tick").data("another 200 ms")), interval))
    });
    Sse::new(ticks.take(5))
}

/// The demo: requests of each kind, by hand.
fn ask(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let json = "POST /sum HTTP/1.1\r\nhost: demo\r\nconnection: close\r\ncontent-type: application/json\r\n\
                content-length: 19\r\n\r\n{\"numbers\":[1,2,3]}";
    let get = |target| format!("GET {target} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n");
    for request in [get("/hello/Ada?times=2"), get("/ticks"), json.to_owned()] {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        println!("{}\n{answer}\n", request.lines().next().unwrap_or_default());
        if !answer.starts_with("HTTP/1.1 200 OK\r\n") {
            return Err("it should have answered 200".into());
        }
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
