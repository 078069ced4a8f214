//! Waiting for signals.
//!
//! Nothing is installed before somebody waits: a program that never calls this module keeps its signal handling. A
//! signal that is waited for loses its default action for the rest of the process's life, even when nobody waits any
//! more.
//!
//! ```no_run
//! corelane::block_on(async {
//!     corelane::signal::ctrl_c().await.expect("signals can be waited for");
//!     println!("good bye");
//! });
//! ```

use crate::net::UnixStream;
use std::io;
use std::task::{Context, Poll};

/// Which signal. The constants are Tokio's functions of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SignalKind(i32);

impl SignalKind {
    /// SIGINT: Ctrl-C.
    pub const fn interrupt() -> SignalKind {
        SignalKind(signal_hook::consts::SIGINT)
    }

    /// SIGTERM: the polite request to end.
    pub const fn terminate() -> SignalKind {
        SignalKind(signal_hook::consts::SIGTERM)
    }

    /// SIGHUP.
    pub const fn hangup() -> SignalKind {
        SignalKind(signal_hook::consts::SIGHUP)
    }

    /// SIGQUIT.
    pub const fn quit() -> SignalKind {
        SignalKind(signal_hook::consts::SIGQUIT)
    }

    /// SIGUSR1.
    pub const fn user_defined1() -> SignalKind {
        SignalKind(signal_hook::consts::SIGUSR1)
    }

    /// SIGUSR2.
    pub const fn user_defined2() -> SignalKind {
        SignalKind(signal_hook::consts::SIGUSR2)
    }

    /// Any other, by its number.
    pub const fn from_raw(number: i32) -> SignalKind {
        SignalKind(number)
    }

    /// The number.
    pub const fn as_raw_value(self) -> i32 {
        self.0
    }
}

/// Signals of one kind, as they come. Several that come before the next `recv` may count as one.
#[derive(Debug)]
pub struct Signal {
    pipe: UnixStream,
    registration: signal_hook::SigId,
}

/// Begins to catch signals of this kind.
///
/// # Errors
/// The kind cannot be caught (SIGKILL, SIGSTOP, no such number), or there are no fds for the pipe.
pub fn signal(kind: SignalKind) -> io::Result<Signal> {
    if signal_hook::consts::FORBIDDEN.contains(&kind.0) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("signal {} cannot be caught", kind.0),
        ));
    }
    let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
    let registration = signal_hook::low_level::pipe::register(kind.0, writer)?;
    Ok(Signal { pipe: UnixStream::from_std(reader)?, registration })
}

impl Signal {
    /// Waits for the next. Never `None`; an option because Tokio's is.
    ///
    /// # Panics
    /// On a thread that is no shard, if no shard has polled it before or that one has ended: nobody would wake it.
    ///
    /// # Cancel safety
    /// No signal is lost.
    pub async fn recv(&mut self) -> Option<()> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// [`Signal::recv`] for hand-written futures.
    ///
    /// # Panics
    /// As there.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.poll_caught(context).map(|caught| match caught {
            Ok(()) => Some(()),
            Err(error) => panic!("no signal can be waited for here: {error}"),
        })
    }

    fn poll_caught(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 64];
        let read = futures_io::AsyncRead::poll_read(
            std::pin::Pin::new(&mut self.pipe),
            context,
            &mut bytes,
        );
        read.map(|read| match read? {
            // Nobody but the registration, which lives as long as this, writes to the pipe.
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        })
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.registration);
    }
}

/// Waits for Ctrl-C, once.
///
/// # Errors
/// As [`signal`]; and on a thread that is no shard, where nobody would wake who waits.
pub async fn ctrl_c() -> io::Result<()> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    std::future::poll_fn(|context| interrupts.poll_caught(context)).await
}

/// Where Tokio keeps signals of Unix.
pub mod unix {
    pub use super::{Signal, SignalKind, signal};
}
