//! A shard inside somebody else's event loop.
//!
//! ```text
//! cargo run --release --example host_loop -- 127.0.0.1:7002       then: nc 127.0.0.1 7002
//! cargo run --release --example host_loop -- --demo               a client of its own, and the end
//! ```
//!
//! The host (a game, a database, another runtime) owns the thread and its loop; here the loop is a bare `mio::Poll` with
//! a tick of the host's own. The shard is one more fd in it: when the fd becomes readable or the shard's next deadline
//! has come, the host gives the shard a turn. The shard echoes lines; other threads reach it through its `Handle`.
//! Without `--demo` it runs until it is killed, as the host has not asked for signals.

use corelane::net::{Accepted, Acceptor, TcpListener, TcpStream};
use corelane::{HostedShard, Limits, ShardId, spawn_local};
use futures::{AsyncReadExt, AsyncWriteExt};
use mio::unix::SourceFd;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The host's two reasons to wake up, beside its tick.
const SHARD: mio::Token = mio::Token(0);
const QUIT: mio::Token = mio::Token(1);
/// How often the host does something of its own.
const TICK: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn Error>> {
    let (address, demo) = arguments()?;
    let mut host = mio::Poll::new()?;
    // Kept until the end: a waker that is dropped takes its wake back.
    let quit = Arc::new(mio::Waker::new(host.registry(), QUIT)?);

    let shard = HostedShard::new(Limits::default())?;
    host.registry().register(&mut SourceFd(&shard.as_raw_fd()), SHARD, mio::Interest::READABLE)?;

    // Sockets are made outside as well as inside; waiting for them happens on the shard.
    let listener = TcpListener::from_std(std::net::TcpListener::bind(address)?)?;
    let address = listener.local_addr()?;
    shard.enter(|| drop(spawn_local(accept_all(listener))));
    println!("echo on {address}, in the host's loop");

    let client = demo.then(|| {
        let (handle, quit) = (shard.handle(), quit.clone());
        std::thread::spawn(move || {
            let outcome = corelane::block_on(talk(address, handle));
            // Whatever came of it, the host must end.
            quit.wake().and(outcome)
        })
    });

    let (turns, ticks) = run(&mut host, &shard)?;
    println!("the host gave {turns} turns and ticked {ticks} times");
    if let Some(client) = client {
        client.join().map_err(|_| "the client panicked")??;
    }
    Ok(())
}

/// The host's loop. Returns how many turns the shard got, and how often the host ticked.
fn run(host: &mut mio::Poll, shard: &HostedShard) -> io::Result<(u64, u64)> {
    let mut events = mio::Events::with_capacity(64);
    let mut next_tick = Instant::now() + TICK;
    let (mut turns, mut ticks) = (0, 0);
    loop {
        let more = shard.turn(Duration::ZERO);
        turns += 1;

        let now = Instant::now();
        if now >= next_tick {
            // Here the host would draw a frame, write a checkpoint, and so on.
            ticks += 1;
            next_tick = now + TICK;
        }

        // From here until the next turn other threads wake the shard through its fd.
        let timeout = if more || !shard.prepare_to_wait() {
            Duration::ZERO
        } else {
            let next = shard.next_deadline().map_or(next_tick, |deadline| deadline.min(next_tick));
            next.saturating_duration_since(now)
        };
        match host.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => polled?,
        }
        if events.iter().any(|event| event.token() == QUIT) {
            return Ok((turns, ticks));
        }
    }
}

/// Accepts for as long as the shard is there.
async fn accept_all(listener: TcpListener) {
    let mut acceptor = Acceptor::new(listener);
    loop {
        match acceptor.accept().await {
            Ok(Accepted::Connection(stream, _peer)) => drop(spawn_local(echo(stream))),
            Ok(mishap) => eprintln!("accept: {mishap:?}"),
            Err(error) => return eprintln!("the listener has failed: {error}"),
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.close().await;
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

/// The demo, on a thread of its own: some lines over the socket, and calls through the handle.
async fn talk(address: SocketAddr, handle: corelane::Handle) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    for number in 1..=3 {
        let sent = format!("line {number}\n");
        stream.write_all(sent.as_bytes()).await?;
        let mut heard = vec![0; sent.len()];
        stream.read_exact(&mut heard).await?;
        println!("sent {sent:?}, heard {:?}", String::from_utf8_lossy(&heard));

        let began = Instant::now();
        let squared = handle.submit_to(ShardId::new(0), move || async move {
            // On the host's thread, with a timer of the shard.
            corelane::time::sleep(Duration::from_millis(30)).await;
            number * number
        });
        let squared = squared.await.map_err(io::Error::other)?;
        println!("the shard says that {number} squared is {squared}, after {:?}", began.elapsed());
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
    let standard = SocketAddr::from(([127, 0, 0, 1], if demo { 0 } else { 7002 }));
    Ok((address.unwrap_or(standard), demo))
}
