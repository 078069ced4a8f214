//! Connections that are moved to and fro while real clients use them: what they see of it.
//!
//! ```text
//! cargo bench --bench moving -- [SECONDS]
//! ```
//!
//! A server of two shards; ten times a second a random number of connections of a random shard goes to the other. Meanwhile
//! run: wrk, h2load over HTTP/1.1, curl with numbered requests over one connection after the other, and a client of our own
//! that sends numbered requests in bursts and cuts them anywhere. Needs wrk, h2load and curl; exits with 1 if anybody saw an
//! error, or an answer that was lost, doubled or out of order.

use corelane::server::{self, Server};
use corelane::{Cores, Runtime, ShardId};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Asks for so long, and says what it saw.
type Client = fn(SocketAddr, Duration) -> Seen;

/// Time between two moves.
const PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(60);
    let span = Duration::from_secs(seconds);
    let runtime = Runtime::builder().cores(Cores::Count(2)).start().expect("two CPUs");
    let server = Server::builder().listen(SocketAddr::from(([127, 0, 0, 1], 0))).rebalance(true);
    let server = server.start(runtime.handle(), |_shard| service_fn(echo)).expect("a port");
    let address = server.local_addrs()[0];
    let clients: [(&str, Client); 4] =
        [("wrk", wrk), ("h2load --h1", h2load), ("curl", curl), ("bursts", bursts)];
    println!(
        "two shards, moves every {} ms for {seconds} s, every client alone and then all at once",
        PAUSE.as_millis()
    );
    println!("{:<12} {:>12} {:>8} {:>10}", "client", "requests", "errors", "moves");
    let mut errors = 0;
    let moved =
        || runtime.handle().stats().iter().map(|stats| stats.connections_moved).sum::<u64>();
    let mut run = |name: &str, clients: &[Client]| {
        let before = moved();
        let seen = thread::scope(|scope| {
            let clients: Vec<ScopedJoinHandle<'_, Seen>> =
                clients.iter().map(|client| scope.spawn(move || client(address, span))).collect();
            shuffle(&server, span);
            clients
                .into_iter()
                .map(|client| client.join().expect("no panic"))
                .fold(Seen::default(), Seen::and)
        });
        // What was published last may be a moment old.
        thread::sleep(PAUSE);
        println!("{name:<12} {:>12} {:>8} {:>10}", seen.requests, seen.errors, moved() - before);
        errors += seen.errors;
    };
    for (name, client) in clients {
        run(name, &[client]);
    }
    run("all", &clients.map(|(_, client)| client));
    if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a client saw.
#[derive(Clone, Copy, Default)]
struct Seen {
    requests: u64,
    errors: u64,
}

impl Seen {
    fn and(self, other: Seen) -> Seen {
        Seen { requests: self.requests + other.requests, errors: self.errors + other.errors }
    }
}

async fn echo(request: Request<server::Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = format!("{}\n", request.uri().path());
    // A connection whose request was not read to its end is closed after the answer.
    let _ = request.into_body().collect().await;
    Ok(Response::new(Full::from(answer)))
}

/// Numbers that are as good as random ones here.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn shuffle(server: &Server, span: Duration) {
    let (mut numbers, until) = (Numbers(1), Instant::now() + span);
    while Instant::now() < until {
        let from = numbers.below(2) as u16;
        let (from, to) = (ShardId::new(from), ShardId::new(1 - from));
        // An inbox may be full; then it is the next one's turn.
        let _ = server.move_connections(from, to, 1 + numbers.below(20) as usize);
        thread::sleep(PAUSE);
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The first number after a word.
fn number_after(text: &str, word: &str) -> u64 {
    let rest = text.split_once(word).map_or("", |(_, rest)| rest);
    let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The number before a word.
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split_once(word).map_or("", |(before, _)| before);
    before.split_whitespace().next_back().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn wrk(address: SocketAddr, span: Duration) -> Seen {
    let seconds = span.as_secs().to_string();
    let text = output(
        Command::new("wrk")
            .args(["-t1", "-c32", "-d", &seconds])
            .arg(format!("http://{address}/wrk")),
    );
    let socket: u64 = ["connect ", "read ", "write ", "timeout "]
        .iter()
        .map(|kind| number_after(&text, kind))
        .sum();
    let errors = if text.contains("Socket errors") { socket } else { 0 };
    let requests = number_before(&text, " requests in");
    Seen {
        requests,
        errors: errors
            + number_after(&text, "Non-2xx or 3xx responses:")
            + u64::from(requests == 0),
    }
}

fn h2load(address: SocketAddr, span: Duration) -> Seen {
    let seconds = span.as_secs().to_string();
    let mut command = Command::new("h2load");
    let text = output(
        command
            .args(["--h1", "-t1", "-c32", "-D", &seconds])
            .arg(format!("http://{address}/h2load")),
    );
    let requests = number_before(&text, " succeeded");
    let errors = number_before(&text, " failed")
        + number_before(&text, " errored")
        + number_before(&text, " timeout");
    Seen { requests, errors: errors + u64::from(requests == 0) }
}

/// A thousand numbered requests over one connection, again and again.
fn curl(address: SocketAddr, span: Duration) -> Seen {
    let (mut seen, until) = (Seen::default(), Instant::now() + span);
    let expected: String = (1..=1000).map(|number| format!("/{number}\n")).collect();
    while Instant::now() < until {
        let text =
            output(Command::new("curl").args(["-sS", &format!("http://{address}/[1-1000]")]));
        let wrong =
            text.lines().zip(expected.lines()).filter(|(said, wanted)| said != wanted).count();
        seen.requests += 1000;
        seen.errors += (wrong + 1000usize.abs_diff(text.lines().count())) as u64;
    }
    seen
}

/// Eight connections that send up to fifty numbered requests at a time, in pieces of any length, some with a body.
fn bursts(address: SocketAddr, span: Duration) -> Seen {
    let until = Instant::now() + span;
    thread::scope(|scope| {
        let client = |client: u64| {
            scope.spawn(move || {
                burst(address, client, until).unwrap_or(Seen { requests: 0, errors: 1 })
            })
        };
        let clients: Vec<_> = (0..8).map(client).collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("no panic"))
            .fold(Seen::default(), Seen::and)
    })
}

fn burst(address: SocketAddr, client: u64, until: Instant) -> std::io::Result<Seen> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut numbers, mut seen, mut buffer) = (Numbers(client), Seen::default(), Vec::new());
    while Instant::now() < until {
        let count = 1 + numbers.below(50);
        let mut text = String::new();
        for number in seen.requests..seen.requests + count {
            let body =
                "x".repeat(if numbers.below(4) == 0 { numbers.below(3000) as usize } else { 0 });
            let length = body.len();
            text.push_str(&format!(
                "POST /{client}/{number} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}"
            ));
        }
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(1 + numbers.below(4000) as usize));
            stream.write_all(piece)?;
            rest = more;
        }
        for number in seen.requests..seen.requests + count {
            let answer = next_answer(&mut stream, &mut buffer)?;
            seen.errors += u64::from(answer != format!("/{client}/{number}\n"));
        }
        seen.requests += count;
    }
    Ok(seen)
}

/// The body of the next answer; what follows it stays in the buffer.
fn next_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<String> {
    loop {
        let head = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
            let end = head + 4 + number_after(&text, "content-length:") as usize;
            if buffer.len() >= end {
                let body = String::from_utf8_lossy(&buffer[head + 4..end]).into_owned();
                buffer.drain(..end);
                return Ok(body);
            }
        }
        let mut piece = [0; 16 * 1024];
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => buffer.extend_from_slice(&piece[..count]),
        }
    }
}
