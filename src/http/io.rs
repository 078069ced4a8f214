//! hyper's I/O traits over our stream sockets: the way of every byte of an HTTP connection.
//!
//! Reading goes straight into hyper's uninitialized buffer. A single response is sent as it is written. Those of a
//! pipelined burst are gathered: what hyper writes while its task runs is copied and goes out as one send when the task
//! has nothing more to do, so the burst costs one system call. What is too large to copy is written at once.
//!
//! hyper is told not to make vectored writes unless it was asked to: for responses that fit a buffer its one flat copy
//! costs less than a list of slices, for large ones it costs the copy.

#![allow(unsafe_code)]

#[cfg(feature = "server")]
use crate::balance::seats::Counted;
use crate::limits::GATHER_COPY_MAX;
use crate::net::stream_io::poll_receive;
use crate::net::{TcpStream, UnixStream};
use crate::reactor::slots::Direction;
use crate::reactor::source::Source;
use crate::shard::context::poll_number;
#[cfg(feature = "server")]
use crate::sys::send_file;
use crate::sys::socket;
#[cfg(feature = "server")]
use hyper::rt::ReadBuf;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{self, IoSlice};
#[cfg(feature = "server")]
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A stream socket that hyper can use.
///
/// hyper copies each response into one buffer before it writes, which is cheapest for small ones. A server of large bodies
/// does better with `writev(true)` of hyper's `http1::Builder`: they are then sent from where they are.
///
/// Dropping it closes the socket; bytes that hyper wrote and the kernel has not taken are then lost, as with any
/// socket that is dropped without a shutdown.
#[derive(Debug)]
pub struct Io<S> {
    stream: S,
    bursts: Bursts,
    /// A server's connection counts for as long as its socket is in here, upgraded or not.
    #[cfg(feature = "server")]
    counted: Option<Counted>,
}

/// Whether a connection writes several times in one poll of its task, as it does when the peer pipelines. Then writes are
/// gathered. A poll's first write is sent as it comes unless the poll before had more than one: copying a response that
/// stays alone would cost more than it saves.
#[derive(Debug, Default)]
struct Bursts {
    /// The shard's number of the poll that wrote last.
    poll: u64,
    /// Writes in it so far.
    writes: u32,
    expected: bool,
}

impl Bursts {
    /// A write in this poll. True: gather it.
    #[inline(always)]
    fn write(&mut self, poll: u64) -> bool {
        if poll == self.poll {
            self.writes = self.writes.saturating_add(1);
            return true;
        }
        self.expected = self.writes > 1;
        self.poll = poll;
        self.writes = 1;
        self.expected
    }
}

/// The stream sockets that [`Io`] can wrap. Sealed.
pub trait Transport: sealed::Sealed + Unpin {}
impl Transport for TcpStream {}
impl Transport for UnixStream {}

mod sealed {
    use super::Source;
    use crate::net::stream_io::StreamSocket;

    pub trait Sealed {
        #[allow(private_bounds)]
        type Socket: StreamSocket;
        #[allow(private_interfaces)]
        fn source(&self) -> &Source<Self::Socket>;
    }
}

impl sealed::Sealed for TcpStream {
    type Socket = std::net::TcpStream;
    #[allow(private_interfaces)]
    #[inline(always)]
    fn source(&self) -> &Source<std::net::TcpStream> {
        TcpStream::source(self)
    }
}

impl sealed::Sealed for UnixStream {
    type Socket = std::os::unix::net::UnixStream;
    #[allow(private_interfaces)]
    #[inline(always)]
    fn source(&self) -> &Source<std::os::unix::net::UnixStream> {
        UnixStream::source(self)
    }
}

impl<S: Transport> Io<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Io<S> {
        Io {
            stream,
            bursts: Bursts::default(),
            #[cfg(feature = "server")]
            counted: None,
        }
    }

    /// Wraps the stream of a server's connection.
    #[cfg(feature = "server")]
    pub(crate) fn of_server(stream: S, counted: Option<Counted>) -> Io<S> {
        Io { stream, bursts: Bursts::default(), counted }
    }

    /// It does not count here any more.
    #[cfg(feature = "server")]
    pub(crate) fn take_counted(&mut self) -> Option<Counted> {
        self.counted.take()
    }

    /// The stream.
    pub fn inner(&self) -> &S {
        &self.stream
    }

    /// The stream back, after an upgrade for example. Bytes that were gathered are sent before anything that is
    /// written to it later.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

/// When a stream is closed what was to be sent is forgotten.
#[cfg(feature = "server")]
pub(crate) fn reset_at_close<S: Transport>(stream: &S) {
    socket::reset_at_close(stream.source().get_ref());
}

#[cfg(feature = "server")]
impl<S: Transport> Io<S> {
    /// Writes what goes before a part of a file, which follows at once.
    pub(crate) fn poll_write_before(
        &mut self,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        let send = |stream: &S::Socket| send_file::send_more(stream, bufs);
        self.stream.source().poll_stream_io(context, Direction::Write, length, send)
    }

    /// Writes a part of a file. 0: the file ends there.
    pub(crate) fn poll_send_file(
        &mut self,
        context: &mut Context<'_>,
        file: &impl AsFd,
        offset: u64,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        let send = |stream: &S::Socket| send_file::send_file(stream, file, offset, count);
        // Less than was asked for may also mean that the file has become shorter, of which nobody would tell.
        self.stream.source().poll_io(context, Direction::Write, send)
    }

    /// Reads, and shows what has come before its reader gets it, who gets as many bytes of its front as `take` says.
    pub(crate) fn poll_read_some(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBufCursor<'_>,
        take: impl FnOnce(&[u8]) -> usize,
    ) -> Poll<io::Result<()>> {
        // SAFETY: `recv_uninit` only ever writes to the bytes, and says how many it wrote.
        let unfilled = unsafe { buffer.as_mut() };
        let wanted = unfilled.len();
        // Not the closure of `poll_read`: called from two places that would be inlined in neither.
        let receive = |stream: &S::Socket| socket::recv_uninit(stream, unfilled);
        let count = ready!(poll_receive(self.stream.source(), context, wanted, receive))?;
        // SAFETY: the kernel has written this many bytes to the front of the unfilled part.
        unsafe {
            let taken = take(buffer.as_mut()[..count].assume_init_ref());
            buffer.advance(taken.min(count));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Transport> Read for Io<S> {
    // hyper reads in two places. Left to itself the compiler puts the whole of hyper's function around it into one of them,
    // and this into neither: thirty instructions more for a request.
    #[inline(always)]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: `recv_uninit` only ever writes to the bytes, and says how many it wrote.
        let unfilled = unsafe { buffer.as_mut() };
        let wanted = unfilled.len();
        let receive = |stream: &S::Socket| socket::recv_uninit(stream, unfilled);
        let count = ready!(poll_receive(self.stream.source(), context, wanted, receive))?;
        // SAFETY: the kernel has written this many bytes to the front of the unfilled part.
        unsafe { buffer.advance(count) };
        Poll::Ready(Ok(()))
    }
}

/// [`Io::poll_read_some`] of any stream.
#[cfg(feature = "server")]
pub(crate) fn poll_read_some(
    stream: &mut (impl Read + Unpin),
    context: &mut Context<'_>,
    buffer: &mut ReadBufCursor<'_>,
    take: impl FnOnce(&[u8]) -> usize,
) -> Poll<io::Result<()>> {
    // SAFETY: only `ReadBuf` writes to it, and it leaves no byte uninitialized that was not.
    let mut read = ReadBuf::uninit(unsafe { buffer.as_mut() });
    ready!(Pin::new(stream).poll_read(context, read.unfilled()))?;
    let taken = take(read.filled()).min(read.filled().len());
    // SAFETY: at least so many bytes at the front of the unfilled part were filled just now.
    unsafe { buffer.advance(taken) };
    Poll::Ready(Ok(()))
}

impl<S: Transport> Write for Io<S> {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Io { stream, bursts, .. } = self.get_mut();
        let source = stream.source();
        if bursts.write(poll_number())
            && bytes.len() < GATHER_COPY_MAX
            && let Some(gathered) = source.poll_gather(context, bytes)
        {
            return gathered;
        }
        let send = |stream: &S::Socket| socket::send(stream, bytes);
        let sent = source.poll_stream_io(context, Direction::Write, bytes.len(), send);
        if !matches!(sent, Poll::Ready(Ok(count)) if count == bytes.len()) {
            // The kernel has no room: gathering the rest would only hide that.
            *bursts = Bursts::default();
        }
        sent
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Io { stream, bursts, .. } = self.get_mut();
        let source = stream.source();
        let bufs = &bufs[..bufs.len().min(socket::MAX_SLICES)];
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if bursts.write(poll_number()) && length < GATHER_COPY_MAX {
            let mut gathered = 0;
            for buf in bufs {
                match source.poll_gather(context, buf) {
                    Some(Poll::Ready(Ok(count))) => gathered += count,
                    Some(refused) if gathered == 0 => return refused,
                    _ => break,
                }
            }
            if gathered > 0 {
                return Poll::Ready(Ok(gathered));
            }
        }
        let send = |stream: &S::Socket| socket::send_vectored(stream, bufs);
        let sent = source.poll_stream_io(context, Direction::Write, length, send);
        if !matches!(sent, Poll::Ready(Ok(count)) if count == length) {
            *bursts = Bursts::default();
        }
        sent
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.source().poll_unsent(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.source().poll_all_sent(context))?;
        Poll::Ready(socket::shutdown_write(self.stream.source().get_ref()))
    }
}
