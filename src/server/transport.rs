//! What hyper reads from and writes to: a stream, with bytes that were read from it before, and the probe that sees bytes pass.
//!
//! The first bytes of a connection that may speak HTTP/2 are looked at before hyper gets them: if they are the beginning of
//! HTTP/2's preface they are held back until it is whole, or until it is not that after all. Every other connection pays a
//! comparison of its first byte.

mod http2;

use super::frames::Frames;
use super::linger::Linger;
use super::probe::{End, Probe};
use crate::http::{self, Io, Stretch, reset_at_close, stands_in};
use hyper::body::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::upgrade::{Parts, Upgraded};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// What a client sends first that speaks HTTP/2 (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that HTTP can be spoken on.
pub(super) trait Stream: Read + Write + Unpin + Send + 'static {
    /// Whether it can send files by itself.
    const SENDS_FILES: bool = false;

    /// When it is closed what was to be sent is forgotten.
    fn reset_at_close(&self);

    /// Reads, and shows what has come before its reader gets it, who gets as many bytes of its front as `take` says.
    fn poll_read_some(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBufCursor<'_>,
        take: impl FnOnce(&[u8]) -> usize,
    ) -> Poll<io::Result<()>>
    where
        Self: Sized,
    {
        http::poll_read_some(self, context, buffer, take)
    }

    /// Writes what goes before a part of a file, which follows at once.
    fn poll_write_before(
        &mut self,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write_vectored(context, bufs)
    }

    /// Writes a part of a file. 0: the file ends there.
    fn poll_send_file(&mut self, _: &mut Context<'_>, _: &Stretch) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl<T: crate::http::Transport + Send + 'static> Stream for Io<T> {
    const SENDS_FILES: bool = true;

    fn reset_at_close(&self) {
        reset_at_close(self.inner());
    }

    fn poll_write_before(
        &mut self,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Io::poll_write_before(self, context, bufs)
    }

    fn poll_send_file(
        &mut self,
        context: &mut Context<'_>,
        part: &Stretch,
    ) -> Poll<io::Result<usize>> {
        Io::poll_send_file(self, context, &*part.file, part.offset, part.length)
    }

    fn poll_read_some(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBufCursor<'_>,
        take: impl FnOnce(&[u8]) -> usize,
    ) -> Poll<io::Result<()>> {
        Io::poll_read_some(self, context, buffer, take)
    }
}

/// See the module.
pub(super) struct Transport<I> {
    io: I,
    /// What was read before and goes to hyper first.
    before: Bytes,
    sight: Sight,
    probe: Arc<Probe>,
    /// It has begun to end.
    linger: Option<Box<Linger>>,
}

/// What is looked at of the bytes that pass.
enum Sight {
    Nothing,
    /// The first bytes may be those of HTTP/2.
    Preface,
    /// All of it is HTTP/2.
    Frames(Box<Frames>),
}

impl<I> Transport<I> {
    /// `before` was read from the stream already. `guesses`: the connection may turn out to speak HTTP/2.
    pub(super) fn new(io: I, before: Bytes, guesses: bool, probe: Arc<Probe>) -> Transport<I> {
        let sight = if guesses { Sight::Preface } else { Sight::Nothing };
        Transport { io, before, sight, probe, linger: None }
    }

    /// The stream, and what was read from it and not used: after this it is nothing but a stream again.
    pub(super) fn into_parts(self) -> (I, Bytes) {
        (self.io, self.before)
    }

    /// Puts back what hyper had read and not used.
    pub(super) fn put_back(&mut self, read: Bytes) {
        self.before = joined(read, &self.before);
    }
}

impl<I: Stream> Transport<I> {
    /// The client takes nothing, and has been given up.
    #[cold]
    fn given_up(&self) -> io::Result<()> {
        if self.probe.end_wanted() != Some(End::Reset) {
            return Ok(());
        }
        self.io.reset_at_close();
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Fails if hyper is to end at once.
    #[inline(always)]
    fn check(&self) -> io::Result<()> {
        if self.probe.wants_attention() { self.given_up() } else { Ok(()) }
    }
}

/// The socket of a server's connection that was upgraded, and what hyper had read from it and not used.
///
/// # Errors
/// It is another kind of socket than was asked for, or none of a [`Server`](super::Server).
///
/// # Examples
/// ```
/// use corelane::{net::TcpStream, server::into_stream};
/// async fn talk(request: hyper::Request<corelane::server::Body>) -> hyper::Result<()> {
///     let upgraded = hyper::upgrade::on(request).await?;
///     if let Ok((stream, read)) = into_stream::<TcpStream>(upgraded) {
///         println!("{:?} has sent {} bytes so far", stream.peer_addr(), read.len());
///     }
///     Ok(())
/// }
/// ```
pub fn into_stream<T>(upgraded: Upgraded) -> Result<(T, Bytes), Upgraded>
where
    T: crate::http::Transport + Send + 'static,
{
    let Parts { io, read_buf, .. } = upgraded.downcast::<Transport<Io<T>>>()?;
    let (io, before) = io.into_parts();
    Ok((io.into_inner(), joined(read_buf, &before)))
}

/// What was read first, and what came then.
pub(super) fn joined(first: Bytes, then: &Bytes) -> Bytes {
    match (first.is_empty(), then.is_empty()) {
        (true, _) => then.clone(),
        (_, true) => first,
        _ => [first, then.clone()].concat().into(),
    }
}

impl<I: Stream> Transport<I> {
    /// Reads until it is clear whether this is the preface of HTTP/2. If it is, hyper gets nothing of it here.
    #[cold]
    fn poll_guess(
        &mut self,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Transport { io, before, .. } = self;
            let rest = &PREFACE[before.len()..];
            let mut is_preface = false;
            let take = |read: &[u8]| {
                let same = read.len().min(rest.len());
                is_preface = same > 0 && read[..same] == rest[..same];
                if !is_preface && before.is_empty() {
                    return read.len();
                }
                *before = joined(std::mem::take(before), &Bytes::copy_from_slice(read));
                0
            };
            ready!(io.poll_read_some(context, &mut buffer, take))?;
            self.probe.has_read();
            if is_preface && self.before.len() < PREFACE.len() {
                continue;
            }
            self.sight = Sight::Nothing;
            if is_preface {
                self.probe.has_preface();
                // The connection is polled at this moment, and looks at the probe when hyper has returned.
                return Poll::Pending;
            }
            return if self.before.is_empty() {
                Poll::Ready(Ok(()))
            } else {
                self.poll_before(buffer)
            };
        }
    }

    fn poll_before(&mut self, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let count = self.before.len().min(buffer.remaining());
        buffer.put_slice(&self.before.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<I: Stream> Read for Transport<I> {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.check()?;
        match this.sight {
            Sight::Nothing => {}
            Sight::Preface => return this.poll_guess(context, buffer),
            Sight::Frames(_) => return this.poll_read_frames(context, buffer),
        }
        if !this.before.is_empty() {
            return this.poll_before(buffer);
        }
        ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
        this.probe.has_read();
        Poll::Ready(Ok(()))
    }
}

impl<I> Transport<I> {
    /// Notes what has become of a write.
    #[inline(always)]
    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(count)) => self.probe.has_written(*count),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.probe.is_blocked(),
        }
        written
    }
}

impl<I: Stream> Transport<I> {
    /// Writes what goes before the first part of a file, or that part. `at`: where the first slice is that stands in for one.
    fn poll_write_files(
        &mut self,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        at: usize,
    ) -> Poll<io::Result<usize>> {
        if at > 0 {
            return self.io.poll_write_before(context, &bufs[..at]);
        }
        let Some(outgoing) = self.probe.outgoing() else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        let part = outgoing.next(bufs)?;
        let sent = ready!(self.io.poll_send_file(context, &part))?;
        if sent == 0 {
            let text = "a file has become shorter while it was sent";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        outgoing.sent(sent);
        Poll::Ready(Ok(sent))
    }
}

impl<I: Stream> Write for Transport<I> {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if let Sight::Frames(_) = self.sight {
            return self.poll_write_frames(context, &[IoSlice::new(bytes)]);
        }
        if self.probe.outgoing().is_some() && stands_in(bytes) {
            return self.poll_write_vectored(context, &[IoSlice::new(bytes)]);
        }
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if let Sight::Frames(_) = self.sight {
            return self.poll_write_frames(context, bufs);
        }
        if self.probe.outgoing().is_some()
            && let Some(at) = bufs.iter().position(|buf| stands_in(buf))
        {
            let written = self.poll_write_files(context, bufs, at);
            return self.note(written);
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(context, bufs);
        self.note(written)
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        match Pin::new(&mut self.io).poll_flush(context) {
            Poll::Ready(Ok(())) => self.probe.has_flushed(),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                self.probe.is_blocked();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.probe.closes();
        if self.probe.may_still_hear() {
            return self.poll_linger(context);
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
