//! hyper by hand on every shard: what `corelane::server` does, in the open.
//!
//! ```text
//! cargo run --release --example hello -- 127.0.0.1:8080       then: curl http://127.0.0.1:8080
//! cargo run --release --example hello -- --demo               a few requests of its own, and the end
//! ```
//!
//! A shard accepts from its own socket and hands each connection to hyper through `http::Io`. Neither the service nor
//! the connection is `Send`: the compiler would refuse this program on a runtime that moves tasks between threads.
//! The answer names the shard that gave it.

use corelane::http::{Io, Timer};
use corelane::net::{Accepted, Acceptor, TcpListener, TcpSocket, TcpStream};
use corelane::{Runtime, ShardId, shutdown_requested, signal::ctrl_c, spawn_local};
use futures::future::{Either, select};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Connections that may wait to be accepted, per shard.
const BACKLOG: u32 = 1024;
/// How long a client may take for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let (address, demo) = arguments()?;
    let runtime = Runtime::builder().start()?;
    let handle = runtime.handle().clone();

    let listeners = listen(address, handle.shard_count())?;
    let address = listeners[0].local_addr()?;
    for (shard, listener) in handle.shards().zip(listeners) {
        drop(handle.spawn_on(shard, move || serve(shard, listener))?);
    }
    println!("listening on http://{address}, {} shards", handle.shard_count());

    if demo {
        runtime.block_on(ask(address))?;
    } else {
        runtime.block_on(ctrl_c())?;
    }
    runtime.shutdown(Duration::from_secs(1));
    Ok(())
}

/// One listening socket per shard. With port 0 the first gets a port that the others share.
fn listen(mut address: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for _ in 0..shards {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// One shard's part, until the shutdown.
async fn serve(shard: ShardId, listener: TcpListener) {
    let answered = Rc::new(Cell::new(0));
    let mut acceptor = Acceptor::new(listener);
    let mut stop = pin!(shutdown_requested());
    loop {
        let accepted = match select(stop.as_mut(), pin!(acceptor.accept())).await {
            Either::Left(_) => return,
            Either::Right((accepted, _)) => accepted,
        };
        match accepted {
            Ok(Accepted::Connection(stream, _peer)) => {
                drop(spawn_local(connection(shard, stream, answered.clone())));
            }
            Ok(mishap) => eprintln!("{shard}: accept: {mishap:?}"),
            Err(error) => return eprintln!("{shard}: the listener has failed: {error}"),
        }
    }
}

/// One connection, from accept to close, as one task.
async fn connection(shard: ShardId, stream: TcpStream, answered: Rc<Cell<u64>>) {
    // A small response must not wait for the peer's acknowledgement of the one before.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |_request: Request<Incoming>| {
        answered.set(answered.get() + 1);
        let text = format!("Hello from {shard}, which has answered {} requests.\n", answered.get());
        async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
    });
    let mut http = server::conn::http1::Builder::new();
    // Without a timer hyper's header timeout would do nothing.
    http.timer(Timer).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = http.serve_connection(Io::new(stream), service).await {
        eprintln!("{shard}: {error}");
    }
}

/// The demo: hyper's client over the same adapter, two requests on each of four connections.
async fn ask(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    for number in 0..4 {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = client::conn::http1::handshake(Io::new(stream)).await?;
        let connection = spawn_local(connection);
        for _ in 0..2 {
            let request =
                Request::get("/").header("host", address.to_string()).body(Empty::<Bytes>::new())?;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            print!("connection {number}: {status}: {}", String::from_utf8_lossy(&body));
        }
        // Without its sender the connection ends.
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
