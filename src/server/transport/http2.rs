//! What a [`Transport`] does once HTTP/2 is spoken on it: every frame is seen, those that ask for nothing are counted, and only
//! what belongs to answers counts as sent.
//!
//! To end a connection that is flooded hyper is shown the end of what the client sends. It then drops all that is under way,
//! sends the rest of the frame at hand and shuts down; the goodbye follows that frame.

use super::{Sight, Stream, Transport};
use crate::server::frames::Frames;
use crate::server::linger::Linger;
use hyper::rt::ReadBufCursor;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

impl<I: Stream> Transport<I> {
    /// HTTP/2 is spoken from the first byte that hyper is given from now on.
    pub(in crate::server) fn see_frames(&mut self, control_frames: u32) {
        self.sight = Sight::Frames(Box::new(Frames::new(control_frames)));
    }

    /// Reads, past the frames.
    #[inline(never)]
    pub(super) fn poll_read_frames(
        &mut self,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Transport { io, before, sight: Sight::Frames(frames), probe, .. } = self else {
            return Poll::Ready(Ok(()));
        };
        if frames.is_over() {
            return Poll::Ready(Ok(()));
        }
        let second = probe.second();
        if before.is_empty() {
            let take = |read: &[u8]| frames.read(read, second);
            ready!(io.poll_read_some(context, &mut buffer, take))?;
            probe.has_read();
        } else {
            let count = before.len().min(buffer.remaining());
            let count = frames.read(&before[..count], second);
            buffer.put_slice(&before.split_to(count));
        }
        probe.has_open_block(frames.open_block());
        probe.is_starved(frames.is_starved());
        if frames.is_over() {
            before.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the first of these that is not empty, or all.
    #[inline(never)]
    pub(super) fn poll_write_frames(
        &mut self,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Transport { io, sight: Sight::Frames(frames), probe, linger, .. } = self else {
            return Poll::Ready(Ok(0));
        };
        let io = Pin::new(io);
        let written = match bufs {
            _ if frames.is_over() => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                let rest = first.map_or(&[][..], |buf| &buf[..frames.of_this_frame(buf)]);
                if rest.is_empty() {
                    // Nobody hears that any more.
                    return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
                }
                let linger = linger.get_or_insert_with(|| Linger::new(frames.goodbye()));
                if linger.poll_over(context).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                io.poll_write(context, rest)
            }
            [only] => io.poll_write(context, only),
            _ => io.poll_write_vectored(context, bufs),
        };
        match written {
            Poll::Ready(Ok(count)) => {
                let (mut left, mut of_answers) = (count, 0);
                for buf in bufs {
                    let here = left.min(buf.len());
                    of_answers += frames.wrote(&buf[..here]);
                    left -= here;
                }
                probe.has_written(of_answers);
                probe.is_starved(frames.is_starved());
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => probe.is_blocked(),
        }
        written
    }

    /// The last of the connection, if its client may still be sending: see `linger`.
    #[cold]
    pub(super) fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Transport { io, sight, linger, .. } = self;
        let last_words = || match &*sight {
            Sight::Frames(frames) if frames.is_over() => frames.goodbye(),
            _ => Vec::new(),
        };
        linger.get_or_insert_with(|| Linger::new(last_words())).poll(io, context)
    }
}
