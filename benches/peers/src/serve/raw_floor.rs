//! The raw floor: an epoll loop that counts request ends and sends a fixed answer.
//!
//! It is no HTTP server. It bounds what the kernel and the load generator leave for one. A request is
//! whatever ends in an empty line; `Connection: close` is honoured; a client that does not take its
//! answers is dropped.

use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use memchr::memmem::{Finder, find};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, sockopt};
use slab::Slab;

use super::{ACCEPT_PAUSE, Options, on_each_cpu};

/// Events taken from the kernel at a time.
const EVENTS: usize = 1024;

/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Answers that fit one `send`; a deeper pipeline gets several.
const ANSWERS: usize = 64;

/// The listener's token; a slab never grows that far.
const LISTENER: u64 = u64::MAX;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\
    date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nHello, World!";

/// The answer to a client that wants the connection closed; the last one.
const LAST_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\
    connection: close\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nHello, World!";

/// Serves with one pinned loop per thread.
pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    on_each_cpu(options, drive)
}

/// One connection: its socket and the beginning of a request that has not ended yet.
struct Connection {
    socket: OwnedFd,
    begun: Vec<u8>,
}

fn drive(listener: TcpListener) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections: Slab<Connection> = Slab::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut buffer = vec![0; READ_BYTES];
    let answers = ANSWER.repeat(ANSWERS);
    let end = Finder::new(b"\r\n\r\n");
    loop {
        match epoll::wait(&poll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            if event.data.u64() == LISTENER {
                accept(&poll, &listener, &mut connections)?;
                continue;
            }
            let token = event.data.u64() as usize;
            let Some(connection) = connections.get_mut(token) else { continue };
            if !answer(connection, &mut buffer, &answers, &end) {
                connections.remove(token);
            }
        }
    }
}

fn accept(
    poll: &OwnedFd,
    listener: &TcpListener,
    connections: &mut Slab<Connection>,
) -> io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    loop {
        let socket = match rustix::net::accept_with(listener, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(_) => {
                std::thread::sleep(ACCEPT_PAUSE);
                return Ok(());
            }
        };
        // A connection that is gone already fails at its first read instead.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let entry = connections.vacant_entry();
        epoll::add(poll, &socket, EventData::new_u64(entry.key() as u64), EventFlags::IN)?;
        entry.insert(Connection { socket, begun: Vec::new() });
    }
}

/// Reads once and answers every request that ended. Level-triggered: what is left comes again.
/// False when the connection is over.
fn answer(
    connection: &mut Connection,
    buffer: &mut [u8],
    answers: &[u8],
    end: &Finder<'_>,
) -> bool {
    let count = match rustix::net::recv(&connection.socket, &mut *buffer, RecvFlags::empty()) {
        Ok((0, _)) => return false,
        Ok((count, _)) => count,
        Err(Errno::AGAIN | Errno::INTR) => return true,
        Err(_) => return false,
    };
    let mut data = &buffer[..count];
    let joined;
    if !connection.begun.is_empty() {
        connection.begun.extend_from_slice(data);
        joined = std::mem::take(&mut connection.begun);
        data = &joined;
    }
    let mut requests = 0;
    let mut tail = data;
    while let Some(at) = end.find(tail) {
        tail = &tail[at + 4..];
        requests += 1;
    }
    connection.begun.extend_from_slice(tail);
    if requests > 0 && find(data, b"Connection: close").is_some() {
        // Whether it arrives is the client's affair: the connection ends here either way.
        let _ = rustix::net::send(&connection.socket, LAST_ANSWER, SendFlags::NOSIGNAL);
        return false;
    }
    while requests > 0 {
        let batch = requests.min(ANSWERS);
        let bytes = &answers[..batch * ANSWER.len()];
        match rustix::net::send(&connection.socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == bytes.len() => requests -= batch,
            _ => return false,
        }
    }
    true
}
