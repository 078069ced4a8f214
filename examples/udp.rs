//! A UDP server on every shard, on one port.
//!
//! ```text
//! cargo run --release --example udp -- 127.0.0.1:7001         then: nc -u 127.0.0.1 7001
//! cargo run --release --example udp -- --demo                 some datagrams of its own, and the end
//! ```
//!
//! Each shard has its own socket (`SO_REUSEPORT`), and the kernel chooses one of them by the sender's address and port:
//! datagrams of one sender always come to the same shard, so what a shard remembers of a sender needs no lock. Here it
//! is how many datagrams came; the answer says so. Ctrl-C ends it.

use corelane::net::UdpSocket;
use corelane::time::timeout;
use corelane::{Runtime, ShardId, shutdown_requested, signal::ctrl_c};
use futures::future::{Either, select};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

/// Senders that one shard remembers. Addresses of senders can be invented, so without a bound they would fill memory.
const SENDERS_MAX: usize = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (address, demo) = arguments()?;
    let runtime = Runtime::builder().start()?;
    let handle = runtime.handle().clone();

    let sockets = bind(address, handle.shard_count())?;
    let address = sockets[0].local_addr()?;
    for (shard, socket) in handle.shards().zip(sockets) {
        drop(handle.spawn_on(shard, move || serve(shard, socket))?);
    }
    println!("answering datagrams on {address}, {} shards", handle.shard_count());

    if demo {
        runtime.block_on(ask(address))?;
    } else {
        runtime.block_on(ctrl_c())?;
    }
    runtime.shutdown(Duration::from_secs(1));
    Ok(())
}

/// One socket per shard. With port 0 the first gets a port that the others share.
fn bind(mut address: SocketAddr, shards: usize) -> io::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::new();
    for _ in 0..shards {
        // The option must be set before the bind, so socket2 makes the socket and Corelane takes it over.
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// Answers every datagram, until the shutdown.
async fn serve(shard: ShardId, socket: UdpSocket) {
    let mut senders: HashMap<SocketAddr, u64> = HashMap::new();
    let mut buffer = [0; 2048];
    let mut stop = pin!(shutdown_requested());
    loop {
        let received = match select(stop.as_mut(), pin!(socket.recv_from(&mut buffer))).await {
            Either::Left(_) => return,
            Either::Right((received, _)) => received,
        };
        // An error is that of an earlier datagram whose receiver was not there; the socket is as good as before.
        let Ok((length, sender)) = received else { continue };
        if senders.len() == SENDERS_MAX && !senders.contains_key(&sender) {
            senders.clear();
        }
        let count = senders.entry(sender).or_default();
        *count += 1;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let answer = format!("{shard} heard {:?}, your number {count}", text.trim_end());
        if let Err(error) = socket.send_to(answer.as_bytes(), sender).await {
            eprintln!("{shard}: no answer to {sender}: {error}");
        }
    }
}

/// The demo: a few senders, each on a port of its own, with three datagrams each.
async fn ask(address: SocketAddr) -> io::Result<()> {
    for sender in 0..6 {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        for number in 1..=3 {
            socket.send(format!("datagram {number} of sender {sender}").as_bytes()).await?;
            let mut buffer = [0; 2048];
            // Datagrams may be lost; on the loopback interface a missing answer is a mistake.
            let length = timeout(Duration::from_secs(2), socket.recv(&mut buffer)).await??;
            println!("{}", String::from_utf8_lossy(&buffer[..length]));
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
    let standard = SocketAddr::from(([127, 0, 0, 1], if demo { 0 } else { 7001 }));
    Ok((address.unwrap_or(standard), demo))
}
