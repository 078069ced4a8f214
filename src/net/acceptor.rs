//! The task that takes connections from a listening socket, whatever goes wrong.
//!
//! Runs on one shard with that shard's own listening socket. Errors come in three kinds. Those of one connection (it was
//! reset in the queue, a firewall refused it) are counted and the next is taken at once. Shortages (no fds, no memory)
//! pause the acceptor: readiness is edge-triggered and nothing announces the end of a shortage, so a timer tries again.
//! Anything else means that the socket is not a listening one any more, and ends the acceptor with that error.
//!
//! Who comes in a shortage of fds waits in the kernel's queue, and is served if it is over soon. When it has lasted for as
//! long as pauses get, those who have waited for a pause are turned away: a descriptor that was kept in reserve for this is
//! given up, and with it they are taken one by one and closed. A client that is told so can go elsewhere; one that waits
//! cannot. What one acceptor gives up another would take for the end of the shortage, and serve a connection with it. So the
//! reserve is the process's, as descriptors are, and in a shortage an acceptor tries only while it has it locked; if somebody
//! else has got the descriptor meanwhile, the next that is free goes into the reserve first.

use crate::net::{Listener, TcpListener, TcpStream};
use crate::shard::context::with_current;
use crate::sync::{Mutex, lock};
use crate::task::home::add;
use crate::time::sleep;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::TryLockError;
use std::time::Duration;

/// The first pause in a shortage; each one in a row is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// The longest pause, and so the time it takes to notice that a shortage is over.
const PAUSE_LONGEST: Duration = Duration::from_millis(500);

/// Connections turned away at once, at most.
const TURNED_AWAY_MAX: usize = 1024;

/// Of all acceptors of this process.
static RESERVE: Mutex<Reserve> = Mutex::new(Reserve { acceptors: 0, file: None });

/// A descriptor to give up when there are none. See the module.
struct Reserve {
    /// Those that count on it.
    acceptors: usize,
    /// Of no use but to be closed.
    file: Option<File>,
}

impl Reserve {
    fn fill(&mut self) {
        if self.file.is_none() && self.acceptors > 0 {
            self.file = File::open("/dev/null").ok();
        }
    }
}

/// What an acceptor has of the reserve.
#[derive(Debug)]
struct Share;

impl Share {
    fn new() -> Share {
        let mut reserve = lock(&RESERVE);
        reserve.acceptors += 1;
        reserve.fill();
        Share
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut reserve = lock(&RESERVE);
        reserve.acceptors -= 1;
        if reserve.acceptors == 0 {
            reserve.file = None;
        }
    }
}

/// Accepts from one listener. While there are acceptors the process keeps a descriptor in reserve: see [`Accepted::Paused`].
#[derive(Debug)]
pub struct Acceptor<L = TcpListener> {
    listener: L,
    pause: Duration,
    /// Who waited when the last attempt failed. Of sockets that do not tell: anybody.
    waited: usize,
    _share: Share,
}

/// What the acceptor has met.
#[derive(Debug)]
#[non_exhaustive]
pub enum Accepted<S = TcpStream, A = SocketAddr> {
    /// A connection.
    Connection(S, A),
    /// A connection was lost before it could be taken; the next will be tried.
    Lost(io::Error),
    /// No fds, memory or the like: nothing is accepted for a while. The first pause is 5 ms long, each in a row twice as
    /// long as the one before, up to half a second. Who comes meanwhile waits in the queue. If it is fds that there are none
    /// of, who has waited for a pause of that last length is turned away; at a Unix socket, where the kernel does not tell how
    /// many wait, everybody.
    Paused {
        /// What there is none of.
        error: io::Error,
        /// How long.
        pause: Duration,
        /// Connections that were accepted only to be closed.
        turned_away: usize,
    },
}

impl<L: Listener> Acceptor<L> {
    /// Accepts from `listener`.
    pub fn new(listener: L) -> Acceptor<L> {
        Acceptor { listener, pause: Duration::ZERO, waited: 0, _share: Share::new() }
    }

    /// The listening socket.
    pub fn listener(&self) -> &L {
        &self.listener
    }

    /// The listening socket back.
    pub fn into_inner(self) -> L {
        self.listener
    }

    /// The next connection or mishap. After [`Accepted::Paused`] the pause is waited for in the next call.
    ///
    /// # Errors
    /// The socket does not listen any more, so nothing will ever come of it.
    ///
    /// # Cancel safety
    /// Safe: no connection is lost. A pause begins anew.
    pub async fn accept(&mut self) -> io::Result<Accepted<L::Stream, L::Addr>> {
        while !self.pause.is_zero() {
            sleep(self.pause).await;
            if let Some(accepted) = self.retry() {
                return accepted;
            }
        }
        let accepted = self.listener.accept().await;
        self.judge(accepted, None)
    }

    /// In a shortage. None: another acceptor tries at this moment, or nobody waits here any more.
    fn retry(&mut self) -> Option<io::Result<Accepted<L::Stream, L::Addr>>> {
        let mut reserve = match RESERVE.try_lock() {
            Ok(reserve) => reserve,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        reserve.fill();
        match self.listener.try_accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.pause = Duration::ZERO;
                None
            }
            accepted => Some(self.judge(accepted, Some(&mut reserve))),
        }
    }

    /// What comes of an attempt, which in a shortage has the reserve.
    fn judge(
        &mut self,
        accepted: io::Result<(L::Stream, L::Addr)>,
        reserve: Option<&mut Reserve>,
    ) -> io::Result<Accepted<L::Stream, L::Addr>> {
        let error = match accepted {
            Ok((stream, peer)) => {
                self.pause = Duration::ZERO;
                with_current(|shard| add(&shard.counters.accepts, 1));
                return Ok(Accepted::Connection(stream, peer));
            }
            Err(error) => error,
        };
        match severity(&error) {
            Severity::Connection => {
                with_current(|shard| add(&shard.counters.accept_errors, 1));
                Ok(Accepted::Lost(error))
            }
            Severity::Shortage => {
                with_current(|shard| add(&shard.counters.accept_errors, 1));
                let lasts = self.pause == PAUSE_LONGEST && is_of_fds(&error);
                let reserve = reserve.filter(|_| lasts);
                let turned_away = reserve.map_or(0, |reserve| self.turn_away(reserve));
                self.waited = self.listener.waiting().unwrap_or(usize::MAX);
                self.pause = (self.pause * 2).clamp(PAUSE_FIRST, PAUSE_LONGEST);
                Ok(Accepted::Paused { error, pause: self.pause, turned_away })
            }
            Severity::Listener => Err(error),
        }
    }

    /// Closes those who have waited, with the one descriptor that is kept for it. Returns how many there were.
    fn turn_away(&mut self, reserve: &mut Reserve) -> usize {
        reserve.file = None;
        // Each is closed before the next is taken.
        let count = self.drain().take(self.waited.min(TURNED_AWAY_MAX)).map(drop).count();
        reserve.fill();
        count
    }

    /// Takes what is in the queue without waiting: before the listener is closed, so that no connection that the kernel
    /// has already accepted is reset.
    pub fn drain(&self) -> impl Iterator<Item = (L::Stream, L::Addr)> + '_ {
        std::iter::from_fn(|| {
            loop {
                match self.listener.try_accept() {
                    Err(error) if severity(&error) == Severity::Connection => {}
                    accepted => {
                        let accepted = accepted.ok()?;
                        with_current(|shard| add(&shard.counters.accepts, 1));
                        return Some(accepted);
                    }
                }
            }
        })
    }
}

/// Whether the error is that this process, or the system, has too many files open.
fn is_of_fds(error: &io::Error) -> bool {
    crate::sys::errno::of(error).is_some_and(|errno| errno.is_file_limit())
}

/// How far an accept error reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Connection,
    Shortage,
    Listener,
}

/// accept(2), "Error handling": Linux passes pending network errors of the new socket on, to be treated like EAGAIN.
fn severity(error: &io::Error) -> Severity {
    match crate::sys::errno::of(error) {
        Some(name) if name.is_connection() => Severity::Connection,
        Some(name) if name.is_shortage() => Severity::Shortage,
        _ => Severity::Listener,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let of = |errno| severity(&io::Error::from_raw_os_error(errno));
        // Numbers of Linux on every architecture Rust has std for: EMFILE, ENFILE, ENOMEM; EPROTO and the like differ.
        assert_eq!([24, 23, 12].map(of), [Severity::Shortage; 3]);
        assert_eq!([1, 4].map(of), [Severity::Connection; 2], "EPERM, EINTR");
        assert_eq!([22, 9].map(of), [Severity::Listener; 2], "EINVAL, EBADF");
        assert_eq!(severity(&io::Error::other("not from the system")), Severity::Listener);
    }
}
