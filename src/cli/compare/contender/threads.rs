//! The two servers without a runtime: one thread for everything, and a thread for each connection.
//!
//! Both use the standard library's blocking sockets and the HTTP/1.1 of `http`. A thread belongs to one connection at a time
//! and shares nothing with others but the way to the helper that computes.

mod head;
mod http;

use super::work::{Answer, Work, compute, random};
use super::{ACCEPT_PAUSE, Failure, Options, for_good, listeners};
use crate::sys::socket::is_ready;
use http::{Connection, Incoming};
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// How long a peer may keep a thread waiting: for the head of a request, the next piece of a body, or room for an answer.
/// That of `server::connection`.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the one thread waits for a connection's next request while others wait to be accepted; and how long such a
/// connection may go on with requests that it has sent already.
const TURN: Duration = Duration::from_millis(100);
/// How long and how much is read of what a peer still sends when it has got its last answer.
const LINGER: Duration = Duration::from_millis(100);
const LINGER_BYTES: usize = 1 << 20;
/// The stack of a connection's thread.
const STACK: usize = 128 << 10;
/// Computations that may wait for the helper; then whoever asks waits.
const QUEUE: usize = 1024;

/// What differs between the two.
trait Host {
    /// How long a read may wait before `idle` is asked.
    const WAIT: Duration;

    /// Others wait for this thread.
    fn is_wanted(&self) -> bool;

    /// Has `compute` done, elsewhere if there is such a place.
    fn compute(&self, seed: u64) -> Option<u64>;
}

/// One thread that accepts a connection, serves its requests until it closes, and then accepts the next.
///
/// It serves one connection at a time: the others wait in the socket's queue. So that they come to their turn although
/// clients keep connections alive, the answer to a request says `Connection: close` if another connection waits, and a
/// connection that is idle for 100 ms ends then. With many connections each of them is thus good for one request.
pub(super) fn start_blocking(options: &Options) -> Result<SocketAddr, Failure> {
    let (listener, address) = blocking_listener(options)?;
    let host = Single { listener };
    let serve = move || {
        loop {
            match host.listener.accept() {
                Ok((stream, _peer)) => serve(stream, &host),
                Err(_) => std::thread::sleep(ACCEPT_PAUSE),
            }
        }
    };
    Builder::new().name("contender-block".into()).spawn(|| for_good("the one thread", serve))?;
    Ok(address)
}

/// The one thread.
struct Single {
    listener: TcpListener,
}

impl Host for Single {
    const WAIT: Duration = TURN;

    fn is_wanted(&self) -> bool {
        // An error counts: `accept` will tell.
        is_ready(&self.listener, false).unwrap_or(true)
    }

    fn compute(&self, seed: u64) -> Option<u64> {
        Some(compute(seed))
    }
}

/// A thread for each connection, for as long as that lives; one more accepts, and one computes for all.
pub(super) fn start_per_connection(options: &Options) -> Result<SocketAddr, Failure> {
    let (listener, address) = blocking_listener(options)?;
    let (helper, questions) = sync_channel::<Question>(QUEUE);
    let answer_all = move || {
        for (seed, reply) in questions {
            // Whoever asked waits for this.
            let _ = reply.send(compute(seed));
        }
        Ok(())
    };
    Builder::new().name("contender-help".into()).spawn(|| for_good("the helper", answer_all))?;
    let serve = move || {
        loop {
            let Ok((stream, _peer)) = listener.accept() else {
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            let host = OfMany { helper: helper.clone() };
            let thread = Builder::new().name("contender-conn".into()).stack_size(STACK);
            // Without a thread the connection is closed; there may be one for the next.
            if thread.spawn(move || serve(stream, &host)).is_err() {
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    };
    Builder::new().name("contender-acc".into()).spawn(|| for_good("the acceptor", serve))?;
    Ok(address)
}

/// A seed, and where the result goes.
type Question = (u64, SyncSender<u64>);

/// One of many threads.
struct OfMany {
    helper: SyncSender<Question>,
}

impl Host for OfMany {
    const WAIT: Duration = PATIENCE;

    fn is_wanted(&self) -> bool {
        false
    }

    fn compute(&self, seed: u64) -> Option<u64> {
        let (reply, result) = sync_channel(1);
        self.helper.send((seed, reply)).ok()?;
        result.recv().ok()
    }
}

/// A socket that listens and waits in `accept`, as do those that it accepts in theirs.
fn blocking_listener(options: &Options) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = listeners(options.listen, 1)?.remove(0);
    listener.set_nonblocking(false)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves a connection to its end. An error is the peer's doing, and nobody is left to be told.
fn serve<H: Host>(stream: TcpStream, host: &H) {
    let waits = stream
        .set_read_timeout(Some(H::WAIT))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    let mut connection = Connection::new(&stream, PATIENCE);
    let Ok(has_more) = waits.and_then(|()| serve_requests(&mut connection, host)) else { return };
    // The peer has sent more than was answered, or may be about to.
    if has_more || is_ready(&stream, false).unwrap_or(false) {
        linger(&stream);
    }
}

/// Answers requests until the connection is to end. True: there is more from the peer.
fn serve_requests<H: Host>(connection: &mut Connection<&TcpStream>, host: &H) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        let head = match connection.next_head()? {
            Incoming::Request(head) => head,
            Incoming::Nothing { waited } if waited >= PATIENCE || host.is_wanted() => {
                return Ok(false);
            }
            Incoming::Nothing { .. } => continue,
            Incoming::End => return Ok(false),
            Incoming::Refused(status) => {
                connection.refuse(status)?;
                return Ok(true);
            }
        };
        let length = match connection.read_body(&head)? {
            Ok(length) => length,
            Err(status) => {
                connection.refuse(status)?;
                return Ok(true);
            }
        };
        let keep_alive = head.keep_alive;
        let (is_head, old) = (head.is_head, head.is_old);
        let answer = match head.work {
            Work::Alone(work) => work.answer(),
            Work::Upload => Answer::text(length.to_string()),
            Work::FanOut => Answer::computed(host.compute(random())),
            Work::Stats => Answer::not_found(),
        };
        // Requests that are here already are served as long as the turn lasts.
        let may_end = !connection.has_more() || began.elapsed() > TURN;
        let keep_alive = keep_alive && !(may_end && host.is_wanted());
        connection.answer(&answer, is_head, old, keep_alive)?;
        if !keep_alive {
            connection.flush()?;
            return Ok(connection.has_more());
        }
    }
}

/// Ends a connection whose peer may still be sending: closing it with bytes unread would have the system take back the
/// last answer.
fn linger(mut stream: &TcpStream) {
    let began = Instant::now();
    let prepared =
        stream.shutdown(Shutdown::Write).and_then(|()| stream.set_read_timeout(Some(LINGER)));
    if prepared.is_err() {
        return;
    }
    let (mut buffer, mut read) = ([0; 4096], 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        read += count;
        if read > LINGER_BYTES || began.elapsed() > LINGER {
            return;
        }
    }
}
