//! How evenly each policy spreads connections over four shards, with real sockets.
//!
//! ```text
//! cargo bench --bench accept_spread                       the table
//! cargo bench --bench accept_spread -- --serve p2c        a server on two shards, to be measured until Ctrl-C
//! ```
//!
//! A figure is the mean over the trials of the busiest shard's connections, as a multiple of what it would have if all had
//! the same; the worst trial is in parentheses. The last column says how many of a hundred connections were handed over.
//! The connections of a trial are opened one after the other, each after the one before was answered, or at once, each by
//! a thread of its own. Where there are fewer than four CPUs, the shards share them.

use corelane::balance::Policy;
use corelane::server::{Listen, Server};
use corelane::{Cores, Pin, Runtime, ShardId, ShardStats};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, body::Bytes};
use std::convert::Infallible;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

#[path = "../tests/it/pretence.rs"]
mod pretence;

const SHARDS: usize = 4;
const TRIALS: u32 = 50;
/// Longer than this nothing takes.
const NEVER: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        Some("--serve") => serve(arguments.next().ok_or("--serve asks for a policy")?.parse()?),
        Some(other) => Err(format!("{other}: what is that? --serve POLICY, or nothing").into()),
        None => table(),
    }
}

fn table() -> Result<(), Box<dyn Error>> {
    println!(
        "{SHARDS} shards, {TRIALS} trials: the busiest shard's multiple of the mean (worst)\n"
    );
    println!(
        "{:12} {:>11} {:>15} {:>15} {:>12}",
        "policy", "connections", "one by one", "at once", "handed over"
    );
    for policy in [Policy::Hash, Policy::P2c, Policy::Least, Policy::RoundRobin] {
        for connections in [16, 64] {
            let served = Served::by(policy)?;
            let one_by_one = served.trials(connections, Served::one_by_one)?;
            let at_once = served.trials(connections, Served::at_once)?;
            let across = served.sum(|stats| stats.connections_handed_over) * 100;
            let across = across / served.sum(|stats| stats.accepts);
            println!(
                "{:12} {connections:11} {one_by_one:>15} {at_once:>15} {across:>10} %",
                policy.name()
            );
        }
    }
    Ok(())
}

/// A server whose answers say which shard has given them.
struct Served {
    runtime: Runtime,
    address: SocketAddr,
}

/// Connections, and the shard of each.
type Opened = Result<Vec<(TcpStream, usize)>, std::io::Error>;

impl Served {
    fn by(policy: Policy) -> Result<Served, Box<dyn Error>> {
        let builder = Runtime::builder().cores(Cores::Count(SHARDS)).pin(Pin::Off);
        let runtime = pretence::of_cpus(SHARDS, || builder.start())?;
        let address = start(&runtime, policy, "127.0.0.1:0".parse()?)?;
        Ok(Served { runtime, address })
    }

    fn trials(
        &self,
        connections: usize,
        open: fn(&Served, usize) -> Opened,
    ) -> Result<String, Box<dyn Error>> {
        let (mut sum, mut worst) = (0.0, 0.0_f64);
        for _ in 0..TRIALS {
            let opened = open(self, connections)?;
            let mut counts = [0_u32; SHARDS];
            opened.iter().for_each(|(_, shard)| counts[*shard] += 1);
            let most = counts.into_iter().max().unwrap_or_default();
            let share = f64::from(most) * SHARDS as f64 / connections as f64;
            (sum, worst) = (sum + share, worst.max(share));
            drop(opened);
            let began = Instant::now();
            while self.sum(|stats| stats.connections) > 0 {
                if began.elapsed() > NEVER {
                    return Err("the connections do not end".into());
                }
                thread::yield_now();
            }
        }
        Ok(format!("{:.3} ({worst:.2})", sum / f64::from(TRIALS)))
    }

    fn one_by_one(&self, connections: usize) -> Opened {
        (0..connections).map(|_| ask(TcpStream::connect(self.address)?)).collect()
    }

    fn at_once(&self, connections: usize) -> Opened {
        let together = Barrier::new(connections);
        let open = || {
            together.wait();
            ask(TcpStream::connect(self.address)?)
        };
        thread::scope(|scope| {
            let opening: Vec<_> = (0..connections).map(|_| scope.spawn(open)).collect();
            opening.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        })
    }

    fn sum(&self, counter: impl Fn(&ShardStats) -> u64) -> u64 {
        self.runtime.handle().stats().iter().map(counter).sum()
    }
}

/// Starts the server, and returns when every shard serves.
fn start(
    runtime: &Runtime,
    policy: Policy,
    address: SocketAddr,
) -> Result<SocketAddr, Box<dyn Error>> {
    let handle = runtime.handle();
    let listen = Listen::new(address).balance(policy);
    let server = Server::builder().listen_with(listen).start(handle, |shard: ShardId| {
        service_fn(move |_request| async move {
            let text = shard.index().to_string();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
        })
    })?;
    // Calls come in order.
    handle.block_on(handle.map_reduce(|_shard| async {}, (), |(), ()| ()))?;
    Ok(server.local_addrs()[0])
}

/// Which shard serves the connection.
fn ask(mut stream: TcpStream) -> Result<(TcpStream, usize), std::io::Error> {
    stream.set_read_timeout(Some(NEVER))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    let mut answer = [0; 1024];
    let mut filled = 0;
    // The body is one digit, since there are few shards.
    loop {
        let received = stream.read(&mut answer[filled..])?;
        if received == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        filled += received;
        let text = &answer[..filled];
        if text[..filled - 1].ends_with(b"\r\n\r\n") {
            return Ok((stream, usize::from(text[filled - 1] - b'0')));
        }
    }
}

fn serve(policy: Policy) -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().start()?;
    let address = start(&runtime, policy, "127.0.0.1:0".parse()?)?;
    println!("listening on http://{address}");
    runtime.block_on(corelane::signal::ctrl_c())?;
    for (shard, stats) in runtime.handle().stats().iter().enumerate() {
        let ShardStats { accepts, connections_handed_over, connections_taken_over, .. } = *stats;
        let (busy, spin) = (stats.busy_nanos / 1_000_000, stats.spin_nanos / 1_000_000);
        println!(
            "shard {shard}: accepts {accepts}, handed over {connections_handed_over}, taken over \
             {connections_taken_over}, rings {}, busy {busy} ms, spun {spin} ms",
            stats.eventfd_writes
        );
    }
    runtime.shutdown(Duration::from_secs(1));
    Ok(())
}
