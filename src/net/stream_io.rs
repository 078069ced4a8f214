//! Reading and writing streams: one implementation for TCP and Unix streams and for the halves of both.
//!
//! Every function is one system call on the shard that polls, or none when the socket is known not to be ready.
//! Buffers are the caller's and are not kept. A stream is written with `MSG_NOSIGNAL` always.

use crate::reactor::slots::Direction;
use crate::reactor::source::{Socket, Source};
use crate::sys::socket;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net;
use std::os::unix::net as unix;
use std::task::{Context, Poll};

/// A connected stream socket of the standard library.
pub(crate) trait StreamSocket: Socket {
    /// Whether a read that fills only a part of its buffer has emptied the socket, so that the next one need not be
    /// tried before the next event.
    const SHORT_READ_EMPTIES: bool;

    /// One `recv`.
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// One `readv`.
    fn receive_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize>;
}

macro_rules! stream_socket {
    ($Std:ty, $short_read_empties:literal) => {
        impl StreamSocket for $Std {
            const SHORT_READ_EMPTIES: bool = $short_read_empties;

            fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
                (&*self).read(buf)
            }

            fn receive_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                (&*self).read_vectored(bufs)
            }
        }
    };
}

stream_socket!(net::TcpStream, true);
// A read stops behind a message that carried descriptors, although more may have arrived.
stream_socket!(unix::UnixStream, false);

/// One read, of which `wanted` bytes can be had at most.
#[inline(always)]
pub(crate) fn poll_receive<S: StreamSocket>(
    source: &Source<S>,
    cx: &mut Context<'_>,
    wanted: usize,
    receive: impl FnMut(&S) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    if S::SHORT_READ_EMPTIES {
        source.poll_stream_io(cx, Direction::Read, wanted, receive)
    } else {
        source.poll_io(cx, Direction::Read, receive)
    }
}

pub(super) fn poll_read<S: StreamSocket>(
    source: &Source<S>,
    cx: &mut Context<'_>,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    poll_receive(source, cx, buf.len(), |socket| socket.receive(buf))
}

pub(super) fn poll_read_vectored<S: StreamSocket>(
    source: &Source<S>,
    cx: &mut Context<'_>,
    bufs: &mut [IoSliceMut<'_>],
) -> Poll<io::Result<usize>> {
    // More than the kernel takes in one call would make a full read look short.
    let count = bufs.len().min(socket::MAX_SLICES);
    let bufs = &mut bufs[..count];
    let wanted = bufs.iter().map(|buf| buf.len()).sum();
    poll_receive(source, cx, wanted, |socket| socket.receive_vectored(bufs))
}

pub(super) fn poll_write<S: StreamSocket>(
    source: &Source<S>,
    cx: &mut Context<'_>,
    buf: &[u8],
) -> Poll<io::Result<usize>> {
    source.poll_stream_io(cx, Direction::Write, buf.len(), |stream| socket::send(stream, buf))
}

pub(super) fn poll_write_vectored<S: StreamSocket>(
    source: &Source<S>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let bufs = &bufs[..bufs.len().min(socket::MAX_SLICES)];
    let wanted = bufs.iter().map(|buf| buf.len()).sum();
    source
        .poll_stream_io(cx, Direction::Write, wanted, |stream| socket::send_vectored(stream, bufs))
}

pub(super) fn try_read<S: StreamSocket>(source: &Source<S>, buf: &mut [u8]) -> io::Result<usize> {
    source.try_io(Direction::Read, |socket| socket.receive(buf))
}

pub(super) fn try_read_vectored<S: StreamSocket>(
    source: &Source<S>,
    bufs: &mut [IoSliceMut<'_>],
) -> io::Result<usize> {
    source.try_io(Direction::Read, |socket| socket.receive_vectored(bufs))
}

pub(super) fn try_write<S: StreamSocket>(source: &Source<S>, buf: &[u8]) -> io::Result<usize> {
    source.try_io(Direction::Write, |stream| socket::send(stream, buf))
}

pub(super) fn try_write_vectored<S: StreamSocket>(
    source: &Source<S>,
    bufs: &[IoSlice<'_>],
) -> io::Result<usize> {
    source.try_io(Direction::Write, |stream| socket::send_vectored(stream, bufs))
}

/// `stream_methods! { TcpStream, tcp, "example that makes `socket`" }`: what TCP and Unix streams have in common
/// beyond readiness. `tcp` is the module of the halves.
macro_rules! stream_methods {
    ($Stream:ident, $halves:ident, $make:literal) => {
        impl $Stream {
            /// Reads what has arrived, without waiting.
            ///
            /// `Ok(0)` means that the peer has ended its direction, or that `buf` is empty.
            ///
            /// # Errors
            ///
            /// [`WouldBlock`](std::io::ErrorKind::WouldBlock) if nothing has arrived or the reactor has not heard of
            /// it yet, and what the operating system says.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// use std::io::ErrorKind;
            ///
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let mut buf = [0; 4096];
            ///     loop {
            ///         socket.readable().await?;
            ///         match socket.try_read(&mut buf) {
            ///             Ok(0) => break Ok(()),
            ///             Ok(n) => println!("{n} bytes"),
            ///             Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            ///             Err(error) => break Err(error),
            ///         }
            ///     }
            /// })
            /// # }
            /// ```
            pub fn try_read(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                crate::net::stream_io::try_read(&self.source, buf)
            }

            /// Reads what has arrived into several buffers in turn, without waiting.
            ///
            /// Otherwise like [`try_read`](Self::try_read). Buffers beyond the 1024th stay empty.
            ///
            /// # Errors
            ///
            /// Those of [`try_read`](Self::try_read).
            ///
            /// # Examples
            ///
            /// ```no_run
            /// use std::io::IoSliceMut;
            ///
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let (mut head, mut body) = ([0; 16], [0; 4096]);
            ///     let mut bufs = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut body)];
            ///     socket.readable().await?;
            ///     println!("{} bytes", socket.try_read_vectored(&mut bufs)?);
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn try_read_vectored(
                &self,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::io::Result<usize> {
                crate::net::stream_io::try_read_vectored(&self.source, bufs)
            }

            /// Writes as much of `buf` as there is room for, without waiting.
            ///
            /// Never raises `SIGPIPE`.
            ///
            /// # Errors
            ///
            /// [`WouldBlock`](std::io::ErrorKind::WouldBlock) if there is no room or the reactor has not heard of it
            /// yet, and what the operating system says.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     socket.writable().await?;
            ///     println!("{} bytes written", socket.try_write(b"hello")?);
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn try_write(&self, buf: &[u8]) -> std::io::Result<usize> {
                crate::net::stream_io::try_write(&self.source, buf)
            }

            /// Writes as much of several buffers in turn as there is room for, without waiting.
            ///
            /// Otherwise like [`try_write`](Self::try_write). Buffers beyond the 1024th are not written.
            ///
            /// # Errors
            ///
            /// Those of [`try_write`](Self::try_write).
            ///
            /// # Examples
            ///
            /// ```no_run
            /// use std::io::IoSlice;
            ///
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     socket.writable().await?;
            ///     socket.try_write_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")])?;
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn try_write_vectored(
                &self,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::io::Result<usize> {
                crate::net::stream_io::try_write_vectored(&self.source, bufs)
            }

            /// Borrows the stream as a half to read and a half to write, for two futures of one task.
            ///
            /// It costs nothing. Halves that two tasks can own come from [`into_split`](Self::into_split).
            ///
            /// `futures::io::AsyncReadExt`, where it is imported, has a `split` of its own that hides this one and takes
            /// a lock for every operation;
            #[doc = concat!("`", stringify!($Stream), "::split(&mut socket)` tells them apart.")]
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    let mut socket = { ", $make, " socket };")]
            ///     let (reader, writer) = socket.split();
            ///     reader.readable().await?;
            ///     writer.try_write(b"seen")?;
            ///     Ok(())
            /// })
            /// # }
            /// ```
            pub fn split(
                &mut self,
            ) -> (crate::net::$halves::ReadHalf<'_>, crate::net::$halves::WriteHalf<'_>) {
                crate::net::$halves::split(self)
            }

            /// Splits the stream into a half to read and a half to write that two tasks can own.
            ///
            /// Dropping the write half ends the sending direction, unless it is
            #[doc = concat!("[forgotten](crate::net::", stringify!($halves), "::OwnedWriteHalf::forget).")]
            /// The socket is closed when both are gone. Two halves that are polled on different shards work, but the
            /// socket's registration moves to and fro; keep them on one shard where speed matters.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # fn main() -> std::io::Result<()> {
            /// corelane::block_on(async {
            #[doc = concat!("    ", $make)]
            ///     let (reader, writer) = socket.into_split();
            ///     let reading = corelane::spawn_local(async move { reader.readable().await });
            ///     writer.writable().await?;
            ///     writer.try_write(b"hello")?;
            ///     drop(writer);
            ///     reading.await.expect("it does not panic")
            /// })
            /// # }
            /// ```
            pub fn into_split(
                self,
            ) -> (crate::net::$halves::OwnedReadHalf, crate::net::$halves::OwnedWriteHalf) {
                crate::net::$halves::into_split(self)
            }

            /// The stream, as the I/O traits of this crate's features ask for it.
            pub(crate) fn stream(&self) -> &Self {
                self
            }

            /// Ends the sending direction.
            pub(crate) fn end_writing(&mut self) -> std::io::Result<()> {
                crate::sys::socket::shutdown_write(self)
            }
        }

        impl AsRef<Self> for $Stream {
            fn as_ref(&self) -> &Self {
                self
            }
        }
    };
}

pub(super) use stream_methods;
