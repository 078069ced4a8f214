//! A TCP echo server on every shard.
//!
//! ```text
//! cargo run --release --example echo -- 127.0.0.1:7000        then: nc 127.0.0.1 7000
//! cargo run --release --example echo -- --demo                a few clients of its own, and the end
//! ```
//!
//! Every shard has a listening socket of its own on the same port (`SO_REUSEPORT`); the kernel spreads connections over
//! them, and a connection stays on the shard that accepted it. What it prints at the end shows the spread. Ctrl-C ends
//! it: the shards stop accepting, and connections that are still open a second later are closed.

use corelane::net::{Accepted, Acceptor, TcpListener, TcpSocket, TcpStream};
use corelane::{Runtime, shutdown_requested, signal::ctrl_c, spawn_local};
use futures::future::{Either, select};
use futures::{AsyncReadExt, AsyncWriteExt};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

/// Connections that may wait to be accepted, per shard.
const BACKLOG: u32 = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let (address, demo) = arguments()?;
    let runtime = Runtime::builder().start()?;
    let handle = runtime.handle().clone();

    // Bound before any shard accepts: all sockets or none.
    let listeners = listen(address, handle.shard_count())?;
    let address = listeners[0].local_addr()?;
    for (shard, listener) in handle.shards().zip(listeners) {
        drop(handle.spawn_on(shard, move || accept_all(listener))?);
    }
    println!("echo on {address}, {} shards", handle.shard_count());

    if demo {
        runtime.block_on(talk(address))?;
    } else {
        runtime.block_on(ctrl_c())?;
    }

    let report = runtime.shutdown(Duration::from_secs(1));
    for (shard, stats) in handle.shards().zip(handle.stats()) {
        println!("{shard} accepted {} connections", stats.accepts);
    }
    println!("{} connections were cut off", report.tasks_dropped);
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

/// Accepts on this shard until the shutdown.
async fn accept_all(listener: TcpListener) {
    // The acceptor goes on after errors of single connections, and pauses while the process has no fds left.
    let mut acceptor = Acceptor::new(listener);
    let mut stop = pin!(shutdown_requested());
    loop {
        let accepted = match select(stop.as_mut(), pin!(acceptor.accept())).await {
            Either::Left(_) => return,
            Either::Right((accepted, _)) => accepted,
        };
        match accepted {
            Ok(Accepted::Connection(stream, _peer)) => drop(spawn_local(echo(stream))),
            Ok(mishap) => eprintln!("accept: {mishap:?}"),
            Err(error) => return eprintln!("the listener has failed: {error}"),
        }
    }
}

/// Sends back what comes, until the peer has said all it had to say.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.close().await;
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

/// The demo: clients on the main thread, which is a shard of its own for the length of `block_on`.
async fn talk(address: SocketAddr) -> io::Result<()> {
    let clients: Vec<_> = (0..8)
        .map(|number| {
            spawn_local(async move {
                let mut stream = TcpStream::connect(address).await?;
                let sent = format!("hello from client {number}");
                stream.write_all(sent.as_bytes()).await?;
                stream.close().await?;
                let mut heard = String::new();
                stream.read_to_string(&mut heard).await?;
                println!("client {number}: sent {sent:?}, heard {heard:?}");
                if sent == heard { Ok(()) } else { Err(io::Error::other("the echo differs")) }
            })
        })
        .collect();
    for client in clients {
        client.await.map_err(io::Error::other)??;
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
    let standard = SocketAddr::from(([127, 0, 0, 1], if demo { 0 } else { 7000 }));
    Ok((address.unwrap_or(standard), demo))
}
