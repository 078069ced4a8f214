//! What becomes of new connections when a shard is held up, and when one stops accepting.
//!
//! `cargo bench --bench steering`: two shards, 2,000 new connections a second, each for one request. It prints figures, and
//! judges nothing. The clients run in this process, on the same CPUs.

use corelane::balance::Policy;
use corelane::server::{Listen, Server};
use corelane::{Cores, Runtime, ShardId};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Between two connections: 2,000 in a second.
const INTERVAL: Duration = Duration::from_micros(500);
const BLOCKED: Duration = Duration::from_secs(2);
/// What comes later than this after the beginning of the stall is to go elsewhere.
const NOTICED: Duration = Duration::from_millis(150);
/// Longer than that, and it has waited for the shard that is held up.
const WAITED: Duration = Duration::from_millis(100);
const STALLS: usize = 10;
const CLOSES: usize = 20;

/// One connection.
struct Asked {
    /// When it was due.
    at: Instant,
    took: Duration,
    /// Which shard answered.
    answer: io::Result<usize>,
}

/// Two shards that serve; `/block` holds one up.
fn served(policy: Policy) -> (Runtime, Server, SocketAddr) {
    let runtime = Runtime::builder().cores(Cores::Count(2)).start().expect("two CPUs");
    let any = "127.0.0.1:0".parse().expect("an address");
    let make = |shard: ShardId| {
        service_fn(move |request: Request<_>| async move {
            if request.uri().path() == "/block" {
                thread::sleep(BLOCKED);
            }
            let body = Full::new(Bytes::from(shard.index().to_string()));
            Ok::<_, Infallible>(Response::new(body))
        })
    };
    let listen = Listen::new(any).balance(policy);
    let server = Server::builder().listen_with(listen).start(runtime.handle(), make);
    let server = server.expect("a port");
    let address = server.local_addrs()[0];
    (runtime, server, address)
}

async fn ask(address: SocketAddr, path: &str) -> io::Result<usize> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    // No port is to stay in TIME_WAIT.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut received, mut buf) = (Vec::new(), [0; 512]);
    loop {
        let length = stream.read(&mut buf).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&buf[..length]);
        if let [.., b'\r', b'\n', b'\r', b'\n', digit] = received[..] {
            return Ok(usize::from(digit - b'0'));
        }
    }
}

/// Clients come for so long, each when it is due, whatever became of those before.
fn load(address: SocketAddr, length: Duration) -> thread::JoinHandle<Vec<Asked>> {
    let body = move || {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
        tokio.expect("Tokio").block_on(async {
            let (began, mut tasks) = (Instant::now(), Vec::new());
            let count = (length.as_nanos() / INTERVAL.as_nanos()) as u32;
            for number in 0..count {
                let at = began + INTERVAL * number;
                if at > Instant::now() {
                    tokio::time::sleep_until(at.into()).await;
                }
                tasks.push(tokio::spawn(async move {
                    let start = Instant::now();
                    let answer = ask(address, "/").await;
                    Asked { at: start, took: start.elapsed(), answer }
                }));
            }
            let mut all = Vec::new();
            for task in tasks {
                all.push(task.await.expect("no panic"));
            }
            all
        })
    };
    thread::spawn(body)
}

/// Holds one shard up. Returns when it began, and which one it is.
fn block(address: SocketAddr) -> (Instant, usize) {
    let (tell, told) = mpsc::channel();
    let blocked = thread::spawn(move || {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
        tell.send(Instant::now()).expect("somebody waits");
        tokio.expect("Tokio").block_on(ask(address, "/block")).expect("answered")
    });
    let began = told.recv().expect("it begins");
    (began, blocked.join().expect("no panic"))
}

fn percentile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * part) as usize).copied().unwrap_or_default()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// One shard is held up again and again.
fn stalls(policy: Policy) {
    let (mut shares, mut ratios, mut errors, mut notices) = (Vec::new(), Vec::new(), 0, Vec::new());
    for round in 0..STALLS {
        let (runtime, _server, address) = served(policy);
        let clients = load(address, Duration::from_millis(4500));
        thread::sleep(Duration::from_millis(1500));
        let (began, stuck) = block(address);
        let asked = clients.join().expect("no panic");
        errors += asked.iter().filter(|asked| asked.answer.is_err()).count();
        let is_late = |asked: &&Asked| asked.at > began + NOTICED && asked.at < began + BLOCKED;
        let late: Vec<_> = asked.iter().filter(is_late).collect();
        let waits =
            |asked: &&Asked| asked.took > WAITED && asked.answer.as_ref().ok() == Some(&stuck);
        let waited = late.iter().copied().filter(|asked| waits(asked)).count();
        let share = 100.0 * waited as f64 / late.len() as f64;
        let during = asked.iter().filter(|asked| asked.at > began && asked.at < began + BLOCKED);
        let last = during.filter(waits).map(|asked| asked.at - began).max().unwrap_or_default();
        // The others' latency, before and during.
        let others = |asked: &&Asked| asked.answer.as_ref().ok() == Some(&(1 - stuck));
        let warm = began - Duration::from_millis(1000);
        let before =
            asked.iter().filter(others).filter(|asked| asked.at > warm && asked.at < began);
        let mut before: Vec<_> = before.map(|asked| asked.took).collect();
        let during = late.iter().copied().filter(others).map(|asked| asked.took);
        let mut during: Vec<_> = during.collect();
        let (base, then) = (percentile(&mut before, 0.99), percentile(&mut during, 0.99));
        println!(
            "  {policy} stall {round}: after {NOTICED:?} {waited} of {} connections wait for it ({share:.2} %), the last \
             of all came after {} ms; p99 of the other {} us, before {} us",
            late.len(),
            last.as_millis(),
            then.as_micros(),
            base.as_micros(),
        );
        shares.push(share);
        notices.push(last.as_secs_f64() * 1e3);
        ratios.push(then.as_secs_f64() / base.as_secs_f64());
        drop(runtime);
    }
    println!(
        "{policy}: {STALLS} stalls of {BLOCKED:?}: median {:.2} % (worst {:.2} %) of later connections wait; the last \
         that waits comes after {:.0} ms (worst {:.0}); the other shard's p99 is {:.2} times that before (worst {:.2}); \
         {errors} errors",
        median(shares.clone()),
        shares.iter().copied().fold(0.0, f64::max),
        median(notices.clone()),
        notices.iter().copied().fold(0.0, f64::max),
        median(ratios.clone()),
        ratios.iter().copied().fold(0.0, f64::max),
    );
}

/// One shard stops accepting, again and again.
fn closes(policy: Policy) {
    let (mut lost, mut count, mut times, mut clean) = (0, 0, Vec::new(), 0);
    for round in 0..CLOSES {
        let (runtime, server, address) = served(policy);
        let clients = load(address, Duration::from_millis(1000));
        thread::sleep(Duration::from_millis(400));
        let shard = ShardId::new((round % 2) as u16);
        let began = Instant::now();
        corelane::block_on(server.stop_accepting(shard)).expect("the other is left");
        let took = began.elapsed();
        let asked = clients.join().expect("no panic");
        let errors: Vec<_> = asked.iter().filter_map(|asked| asked.answer.as_ref().err()).collect();
        if let Some(error) = errors.first() {
            println!("  {policy} close {round}: {} lost, the first: {error}", errors.len());
        }
        let late = |asked: &&Asked| asked.at > began + took;
        let wrong = asked
            .iter()
            .filter(late)
            .filter(|asked| asked.answer.as_ref().is_ok_and(|answer| *answer == shard.index()));
        assert_eq!(wrong.count(), 0, "it accepts no more");
        clean += usize::from(errors.is_empty());
        lost += errors.len();
        count += asked.len();
        times.push(took.as_secs_f64() * 1e3);
        drop(runtime);
    }
    println!(
        "{policy}: {clean} of {CLOSES} closes without a loss; {lost} of {count} connections lost; a close takes {:.0} ms \
         (median; worst {:.0})",
        median(times.clone()),
        times.iter().copied().fold(0.0, f64::max),
    );
}

fn main() -> ExitCode {
    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        eprintln!("SKIPPED: two shards need two CPUs");
        return ExitCode::SUCCESS;
    }
    for policy in [Policy::Hash, Policy::Weighted] {
        stalls(policy);
    }
    for policy in [Policy::Hash, Policy::Weighted, Policy::Cpu] {
        closes(policy);
    }
    ExitCode::SUCCESS
}
