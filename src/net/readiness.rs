//! Waiting for readiness and trying without waiting: the part of the interface that streams and datagram sockets
//! share, and the mapping from an `Interest` to the directions of a `Source`.
//!
//! Readiness is a hint: it may be reported although the next call would block, but never be kept back while the call
//! would succeed. This file keeps no state; the tasks that wait are remembered by the `Source`.

use crate::reactor::Interest;
use crate::reactor::slots::Direction;
use crate::reactor::source::{Socket, Source};
use std::io;

/// Runs `f` once if the source is ready for any part of `interest`.
pub(super) fn try_io<S: Socket, R>(
    source: &Source<S>,
    interest: Interest,
    f: impl FnOnce() -> io::Result<R>,
) -> io::Result<R> {
    let mut f = Some(f);
    let mut outcome = Err(would_block());
    for (direction, wanted) in [Direction::Read, Direction::Write]
        .map(|direction| (direction, interest.waits_for(direction)))
    {
        if wanted && f.is_some() {
            outcome = source
                .try_io(direction, |_| f.take().map_or_else(|| Err(would_block()), |run| run()));
        }
    }
    outcome
}

/// Waits for any part of `interest` and runs `f` until it no longer says `WouldBlock`.
pub(super) async fn async_io<S: Socket, R>(
    source: &Source<S>,
    interest: Interest,
    mut f: impl FnMut() -> io::Result<R>,
) -> io::Result<R> {
    loop {
        source.ready(interest).await?;
        match try_io(source, interest, &mut f) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

/// `readiness_methods! { UdpSocket, poll_recv_ready, poll_send_ready, "example that makes `socket`" }`.
macro_rules! readiness_methods {
    ($Socket:ident, $poll_read_ready:ident, $poll_write_ready:ident, $make:literal) => {
        impl $Socket {
            /// Waits until the socket is ready for one of the operations in `interest`, and says for which.
            ///
            /// The socket may turn out not to be ready after all: an operation tried next can still fail with
            /// [`WouldBlock`](std::io::ErrorKind::WouldBlock). Readiness stays until an operation does. An end of
            /// the stream and an error count as readiness too.
            ///
            /// # Errors
            ///
            /// The reactor's: the socket cannot be registered, or this thread is no shard and the socket has never been
            /// polled on one.
            ///
            /// # Cancel safety
            ///
            /// Nothing is lost when the future is dropped; the readiness will be found by the next one.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// use corelane::net::Interest;
            ///
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let ready = socket.ready(Interest::READABLE | Interest::WRITABLE).await?;
            ///     if ready.is_readable() {
            ///         println!("something has arrived");
            ///     }
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub async fn ready(
                &self,
                interest: crate::reactor::Interest,
            ) -> std::io::Result<crate::reactor::Ready> {
                self.source.ready(interest).await
            }

            /// Waits until the socket can be read, or reading would tell of the end or of an error.
            ///
            /// The same as [`ready(Interest::READABLE)`](Self::ready), with the same promises.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     socket.readable().await
            /// })
            /// # }
            /// ```
            pub async fn readable(&self) -> std::io::Result<()> {
                self.ready(crate::reactor::Interest::READABLE).await.map(drop)
            }

            /// Waits until the socket can be written, or writing would tell of an error.
            ///
            /// The same as [`ready(Interest::WRITABLE)`](Self::ready), with the same promises.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     socket.writable().await
            /// })
            /// # }
            /// ```
            pub async fn writable(&self) -> std::io::Result<()> {
                self.ready(crate::reactor::Interest::WRITABLE).await.map(drop)
            }

            /// Polls for [`readable`](Self::readable).
            ///
            /// Only the last task that polled this direction, with this or another `poll_` method, is woken.
            ///
            /// # Errors
            ///
            /// The reactor's, if the socket cannot be registered.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            #[doc = concat!("    std::future::poll_fn(|cx| socket.", stringify!($poll_read_ready), "(cx)).await")]
            /// })
            /// # }
            /// ```
            pub fn $poll_read_ready(
                &self,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                self.source.poll_ready(cx, crate::reactor::slots::Direction::Read)
            }

            /// Polls for [`writable`](Self::writable).
            ///
            /// Only the last task that polled this direction, with this or another `poll_` method, is woken.
            ///
            /// # Errors
            ///
            /// The reactor's, if the socket cannot be registered.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            #[doc = concat!("    std::future::poll_fn(|cx| socket.", stringify!($poll_write_ready), "(cx)).await")]
            /// })
            /// # }
            /// ```
            pub fn $poll_write_ready(
                &self,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                self.source.poll_ready(cx, crate::reactor::slots::Direction::Write)
            }

            /// Runs `f`, a system call on this socket of the caller's own, if the socket is ready for `interest`.
            ///
            /// When `f` returns [`WouldBlock`](std::io::ErrorKind::WouldBlock), the readiness is taken back, so `f`
            /// must return that error only if the socket said so, and should be one call: what a later call of the
            /// same `f` finds is not seen. It must not call other methods of this socket.
            ///
            /// # Errors
            ///
            /// `WouldBlock` if the socket is not ready; otherwise what `f` returns.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// use corelane::net::Interest;
            /// use std::os::fd::AsFd;
            ///
            /// # fn call_of_my_own(_: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> { Ok(()) }
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     socket.readable().await?;
            ///     socket.try_io(Interest::READABLE, || call_of_my_own(socket.as_fd()))
            /// })
            /// # }
            /// ```
            pub fn try_io<R>(
                &self,
                interest: crate::reactor::Interest,
                f: impl FnOnce() -> std::io::Result<R>,
            ) -> std::io::Result<R> {
                crate::net::readiness::try_io(&self.source, interest, f)
            }

            /// Waits for `interest` and runs `f`, again after every
            /// [`WouldBlock`](std::io::ErrorKind::WouldBlock), until it returns something else.
            ///
            /// What [`try_io`](Self::try_io) asks of `f` holds here too.
            ///
            /// # Errors
            ///
            /// The reactor's, and what `f` returns.
            ///
            /// # Cancel safety
            ///
            /// Dropped while it waits, it has no effect beyond what earlier calls of `f` had.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// use corelane::net::Interest;
            /// use std::os::fd::AsFd;
            ///
            /// # fn call_of_my_own(_: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> { Ok(()) }
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     socket.async_io(Interest::READABLE, || call_of_my_own(socket.as_fd())).await
            /// })
            /// # }
            /// ```
            pub async fn async_io<R>(
                &self,
                interest: crate::reactor::Interest,
                f: impl FnMut() -> std::io::Result<R>,
            ) -> std::io::Result<R> {
                crate::net::readiness::async_io(&self.source, interest, f).await
            }
        }
    };
}

pub(super) use readiness_methods;
