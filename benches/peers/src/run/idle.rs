//! What idle connections cost: memory for each, and CPU for all of them.
//!
//! Every connection is kept alive after one request. They come from several loopback addresses, so
//! that no address runs out of ports.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::Settings;
use super::contender::{Contender, Placement};
use super::report::Table;
use crate::os;

const CONNECTIONS: usize = 10_000;

/// Connections from each address.
const PER_ADDRESS: usize = 2_500;

/// Files the runner needs besides its connections.
const OTHER_FILES: u64 = 100;

/// How long the idle server is watched.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// Time between the last answer and the first look.
const SETTLE: Duration = Duration::from_millis(500);

/// An answer may take this long, and all of them this long.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const OPEN_LIMIT: Duration = Duration::from_secs(60);

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const ANSWER_END: &[u8] = b"Hello, World!";

/// Measures every contender and prints the figures.
pub(super) fn measure(settings: &Settings) {
    let limit = os::raise_file_limit().saturating_sub(OTHER_FILES);
    let count = CONNECTIONS.min(usize::try_from(limit).unwrap_or(CONNECTIONS));
    println!("\n{count} idle keep-alive connections after one request each, one server thread");
    let mut table = Table::new("contender", ["bytes/connection", "idle CPU %"]);
    for contender in &settings.contenders {
        match once(contender, count, settings) {
            Ok((bytes, percent)) => {
                table.row(contender.name(), [format!("{bytes:.0}"), format!("{percent:.2}")]);
            }
            Err(error) => eprintln!("{}: {error}", contender.name()),
        }
    }
    table.print();
}

/// Bytes per connection, and percent of one CPU.
fn once(contender: &Contender, count: usize, settings: &Settings) -> Result<(f64, f64), String> {
    let placement = Placement { cpus: &settings.cpus[..1], confined: true };
    let server = contender.start(placement, &[])?;
    let empty = server.process.resident_bytes()?;
    let connections = open(server.address, count)?;
    thread::sleep(SETTLE);
    let full = server.process.resident_bytes()?;
    let before = server.process.cpu_time()?;
    thread::sleep(IDLE_TIME);
    let used = server.process.cpu_time()?.since(before);
    drop(connections);
    let bytes = full.saturating_sub(empty) as f64 / count as f64;
    Ok((bytes, used.total_seconds() / IDLE_TIME.as_secs_f64() * 100.0))
}

fn open(server: SocketAddr, count: usize) -> Result<Vec<TcpStream>, String> {
    let deadline = Instant::now() + OPEN_LIMIT;
    let mut connections = Vec::with_capacity(count);
    for index in 0..count {
        let last_byte = 2 + (index / PER_ADDRESS) as u8;
        let stream = connect(server, Ipv4Addr::new(127, 0, 0, last_byte))
            .and_then(|mut stream| ask_once(&mut stream).map(|()| stream))
            .map_err(|error| format!("connection {index}: {error}"))?;
        connections.push(stream);
        if Instant::now() > deadline {
            return Err(format!("only {index} connections in {OPEN_LIMIT:?}"));
        }
    }
    Ok(connections)
}

fn connect(server: SocketAddr, source: Ipv4Addr) -> std::io::Result<TcpStream> {
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    rustix::net::connect(&socket, &server)?;
    // Closed by reset: ten thousand sockets in TIME_WAIT would be in the next contender's way.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(stream)
}

fn ask_once(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(REQUEST)?;
    let mut answer = Vec::with_capacity(1024);
    let mut piece = [0; 1024];
    while !answer.ends_with(ANSWER_END) {
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    Ok(())
}
