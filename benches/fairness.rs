//! What a client that pipelines without end does to the others on its shard.
//!
//! `cargo bench --bench fairness`: one shard on one CPU, the clients on the others. Sixteen connections send a request at a time,
//! at a fixed rate or as fast as they are answered; in every other run another connection sends requests without waiting for
//! answers, as many as the server takes. It prints the others' p99 without and with it, medians of seven runs each, in turn,
//! and the ratio. It judges nothing.

use corelane::Runtime;
use corelane::server::Server;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: u32 = 16;
const RUNS: usize = 7;
const LENGTH: Duration = Duration::from_secs(2);
/// Before that nothing counts.
const WARM_UP: Duration = Duration::from_millis(300);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n";

fn main() -> Result<(), Box<dyn Error>> {
    let cpus = core_affinity::get_core_ids().ok_or("which CPUs there are cannot be found out")?;
    let (server_cpu, client_cpus) = cpus.split_first().ok_or("no CPU")?;
    if client_cpus.is_empty() {
        return Err("two CPUs are needed: one for the shard, the others for the clients".into());
    }
    let cores = format!("cpu:{}", server_cpu.id).parse()?;
    let runtime = Runtime::builder().cores(cores).start()?;
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let hello = |_shard| {
        service_fn(|_request: Request<_>| async {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"Hello, World!"))))
        })
    };
    let server = Server::builder().listen(local).start(runtime.handle(), hello)?;
    let address = server.local_addrs()[0];
    let client_cpu = client_cpus[0];
    println!("{CONNECTIONS} connections beside one that pipelines without end\n");
    println!(
        "{:>22} {:>12} {:>12} {:>7}",
        "load of the others", "p99 without", "p99 with", "ratio"
    );
    for (name, pace) in [
        ("2,000 requests/s", Some(Duration::from_millis(8))),
        ("8,000 requests/s", Some(Duration::from_millis(2))),
        ("as fast as answered", None),
    ] {
        let (mut without, mut with, mut taken) = (Vec::new(), Vec::new(), 0);
        for _ in 0..RUNS {
            without.push(run(address, client_cpu, pace, false)?.0);
            let (p99, bytes) = run(address, client_cpu, pace, true)?;
            with.push(p99);
            taken += bytes;
        }
        let ratios = with.iter().zip(&without).map(|(with, without)| with / without).collect();
        println!(
            "{name:>22} {:>9.0} us {:>9.0} us {:>7.2}   ({} MB of answers to the one)",
            median(without),
            median(with),
            median(ratios),
            taken / 1_000_000,
        );
    }
    Ok(())
}

/// The p99 of the others in microseconds, and how many bytes the one was answered.
fn run(
    address: SocketAddr,
    cpu: core_affinity::CoreId,
    pace: Option<Duration>,
    pipelines: bool,
) -> io::Result<(f64, u64)> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let one = pipelines.then(|| {
            scope.spawn(|| {
                core_affinity::set_for_current(cpu);
                pipeline(address, &over)
            })
        });
        let others: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                scope.spawn(move || {
                    core_affinity::set_for_current(cpu);
                    ask(address, pace, number)
                })
            })
            .collect();
        let mut times = Vec::new();
        for other in others {
            times.extend(other.join().expect("no panic")?);
        }
        over.store(true, Ordering::Relaxed);
        let taken = one.map(|one| one.join().expect("no panic")).transpose()?.unwrap_or_default();
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        Ok((p99.as_secs_f64() * 1e6, taken))
    })
}

/// Asks for one thing at a time, and says how long each took.
fn ask(address: SocketAddr, pace: Option<Duration>, number: u32) -> io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let (mut buffer, mut times) = ([0; 512], Vec::new());
    let began = Instant::now();
    let mut due = began + pace.unwrap_or_default() * number / CONNECTIONS;
    loop {
        if let Some(pace) = pace {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            due += pace;
        }
        // Not when it was due: a sleep that ends late is the clients' own.
        let start = Instant::now();
        stream.write_all(REQUEST)?;
        let mut received = 0;
        while !buffer[..received].ends_with(b"Hello, World!") {
            match stream.read(&mut buffer[received..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => received += count,
            }
        }
        if began.elapsed() > WARM_UP + LENGTH {
            return Ok(times);
        }
        if began.elapsed() > WARM_UP {
            times.push(start.elapsed());
        }
    }
}

/// Sends requests without waiting, until it is over.
fn pipeline(address: SocketAddr, over: &AtomicBool) -> io::Result<u64> {
    // On Linux of this thread only: on the clients' CPU the others come first, whatever it costs to send and to read so much.
    rustix::process::setpriority_process(None, 19)?;
    let stream = TcpStream::connect(address)?;
    let (mut reads, mut writes) = (&stream, &stream);
    thread::scope(|scope| {
        let answers = scope.spawn(move || {
            let (mut buffer, mut taken) = (vec![0; 1 << 18], 0);
            while let Ok(count @ 1..) = reads.read(&mut buffer) {
                taken += count as u64;
            }
            taken
        });
        let requests = REQUEST.repeat(1000);
        while !over.load(Ordering::Relaxed) {
            writes.write_all(&requests)?;
        }
        stream.shutdown(Shutdown::Both)?;
        Ok(answers.join().expect("no panic"))
    })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
