//! Every bound of the runtime, in one place, with its reason.
//!
//! A queue, a batch or a phase without a limit is a way for one client to own a core. [`Limits`] holds those that a
//! user may set per runtime; the constants are the ones nobody has needed to change.

#[cfg(feature = "server")]
mod connection;

#[cfg(feature = "server")]
pub use connection::{ConnectionLimits, WhenFull};
use std::time::Duration;

/// Limits of one shard. The defaults are what the measurements in `docs/PERFORMANCE.md` were made with.
///
/// Each number must be at least 1; what more is asked stands at the field.
/// [`Builder::start`](crate::Builder::start) and [`HostedShard::new`](crate::HostedShard::new) refuse others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Tasks polled in one turn before timers, sockets and inbox get theirs.
    pub polls_per_turn: u32,
    /// Time the polls of one turn may take; whichever of the two comes first ends the phase.
    pub turn_time: Duration,
    /// Socket operations of one task poll before the task is made to yield: a peer that is always ready must not
    /// own the core.
    pub io_per_poll: u32,
    /// Messages from other shards handled in one turn. Half of them may be what sockets, timers and handles say; with 1
    /// that goes first. While tasks wait for their turn, calls get a quarter as many as there are polls; and they get no more
    /// than `turn_time`.
    pub messages_per_turn: usize,
    /// Messages that may wait in a shard's inbox; a sender beyond that is told so. At most 1,048,576: the memory for
    /// them is taken at the start.
    pub inbox_capacity: usize,
    /// Timers fired in one turn, so that a process that was stopped does not wake into one long turn.
    pub timers_per_turn: usize,
    /// Readiness events taken from the kernel at once. At most 1,048,576, for the same reason.
    pub events: usize,
    /// Longest look at the inbox before a shard parks, once other shards have talked to it. Zero switches it off.
    /// At most a second: meanwhile it looks at neither sockets nor timers.
    pub busy_poll: Duration,
    /// Threads of the blocking pool, for the whole runtime.
    pub blocking_threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // Tokio looks at its reactor every 61 polls too; at some 8 us a poll for HTTP that is half a millisecond.
            polls_per_turn: 61,
            turn_time: Duration::from_millis(1),
            io_per_poll: 128,
            messages_per_turn: 256,
            inbox_capacity: 1024,
            timers_per_turn: 1024,
            events: 1024,
            // About what it costs to wake a parked core: spinning longer can lose more than it could save.
            busy_poll: Duration::from_micros(50),
            blocking_threads: 256,
        }
    }
}

/// What a buffer that is made whole at the start may hold.
pub(crate) const RESERVED_MAX: usize = 1 << 20;

/// See [`Limits::busy_poll`].
pub(crate) const BUSY_POLL_MAX: Duration = Duration::from_secs(1);

impl Limits {
    /// Whether a shard can be made with these.
    ///
    /// # Errors
    /// The first that is out of bounds: its name, its value, and what is allowed.
    pub(crate) fn check(&self) -> Result<(), String> {
        let any = usize::MAX;
        let bounds = [
            ("polls_per_turn", self.polls_per_turn as usize, any),
            ("io_per_poll", self.io_per_poll as usize, any),
            ("messages_per_turn", self.messages_per_turn, any),
            ("inbox_capacity", self.inbox_capacity, RESERVED_MAX),
            ("timers_per_turn", self.timers_per_turn, any),
            ("events", self.events, RESERVED_MAX),
            ("blocking_threads", self.blocking_threads, any),
        ];
        for (name, value, most) in bounds {
            match value {
                0 => return Err(format!("{name} is 0, and must be at least 1")),
                _ if value > most => {
                    return Err(format!("{name} is {value}, and must be at most {most}"));
                }
                _ => {}
            }
        }
        if self.busy_poll > BUSY_POLL_MAX {
            let (value, most) = (self.busy_poll, BUSY_POLL_MAX);
            return Err(format!("busy_poll is {value:?}, and must be at most {most:?}"));
        }
        Ok(())
    }
}

/// Bytes that must move in the time of a body or of a write for it to count as progress.
#[cfg(feature = "server")]
pub(crate) const PROGRESS_BYTES: u64 = 4 << 10;

/// Longest header of the PROXY protocol: the addresses, and what proxies add to them.
#[cfg(feature = "server")]
pub(crate) const PROXY_HEADER_BYTES: usize = 4 << 10;

/// Bytes of answers that are kept in HTTP/1 until the client takes them, beyond which nothing more is asked of the service; and as many of
/// what the client has sent.
#[cfg(feature = "server")]
pub(crate) const HTTP1_BUFFER_BYTES: usize = 64 << 10;

/// Bytes of one piece of an answer that HTTP/2 is given: one frame of the size that every peer takes (RFC 9113, 4.2). What the
/// service gives at once is cut into such pieces, so that a stream holds few of them.
#[cfg(feature = "server")]
pub(crate) const HTTP2_PIECE_BYTES: usize = 16 << 10;

/// How long a connection is still read from when it has been ended and its client may be sending, and bytes that are thrown away
/// then: time for the last answer to arrive before the reset that would take it away.
#[cfg(feature = "server")]
pub(crate) const LINGER: Duration = Duration::from_millis(500);
#[cfg(feature = "server")]
pub(crate) const LINGER_BYTES: usize = 16 << 20;

/// A shard that has not finished a turn for this long is worth a word: a turn is meant to last a millisecond.
pub(crate) const STALL_THRESHOLD: Duration = Duration::from_millis(25);

/// Bytes of small writes that one connection may gather before they are sent at once.
pub(crate) const GATHER_BYTES: usize = 64 * 1024;

/// Bytes of a file that a response has in memory. What one stream of HTTP/2 may have waiting is as much.
#[cfg(feature = "server")]
pub(crate) const FILE_PIECE_BYTES: usize = 64 * 1024;

/// A write of at least this size is not worth a copy: it goes to the socket straight away.
pub(crate) const GATHER_COPY_MAX: usize = 16 * 1024;

/// Bytes that one TLS connection may have encrypted and not yet handed to its socket: four records of the largest size,
/// which one system call can send.
#[cfg(feature = "tls")]
pub(crate) const TLS_UNSENT_BYTES: usize = 64 * 1024;

/// Bytes of a file with certificates or a key. All authorities that a browser trusts take a quarter of a megabyte.
#[cfg(feature = "tls")]
pub(crate) const PEM_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Polls between two looks at the clock while polls are short.
pub(crate) const CLOCK_STRIDE: u32 = 16;

/// Tasks that one poll may run in its own place because it awaits them, out of the turn's polls. Enough to spare most
/// awaits a round through the run queue, few enough that a task which spawns and awaits for ever lets others run.
pub(crate) const HANDOVERS_PER_POLL: u32 = 32;
