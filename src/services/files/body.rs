//! The body of a response that comes from a file.
//!
//! One piece of the file is in memory at a time, and the next is read when that has been taken. A shard reads what is in the
//! system's memory already; for the disk it asks a thread that may wait. What was announced is what is sent, or the body
//! fails: a file that has become shorter never ends well, of one that has grown the rest is not sent.

use crate::http::Outgoing;
use crate::limits::FILE_PIECE_BYTES;
use crate::sys::directory::{read, read_now};
use crate::task::coop::poll_proceed;
use crate::task::join::JoinHandle;
use hyper::body::{Bytes, Frame};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A part of a body.
#[derive(Debug)]
pub(super) enum Part {
    /// What stands between parts of the file.
    Bytes(Bytes),
    /// These bytes of the file.
    File(Range<u64>),
}

impl Part {
    pub(super) fn length(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File(range) => range.end - range.start,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::services) struct FileBody {
    file: Arc<OwnedFd>,
    /// What is still to be sent.
    parts: VecDeque<Part>,
    /// Bytes of it.
    left: u64,
    /// A piece that a thread reads.
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// Where the last piece was, for the next.
    buffer: Option<Arc<Vec<u8>>>,
    /// Set if the transport sends parts of the file by itself.
    outgoing: Option<Arc<Outgoing>>,
    /// Something of it was not in memory.
    was_cold: bool,
}

/// The least that the system forgets, or reads.
const PAGE: usize = 4 << 10;
/// A part that is shorter is copied: that takes one system call less.
const DIRECT_LEAST: usize = 16 << 10;

impl FileBody {
    pub(super) fn new(file: OwnedFd, parts: VecDeque<Part>) -> FileBody {
        let left = parts.iter().map(Part::length).sum();
        let (reading, buffer, outgoing) = (None, None, None);
        FileBody { file: Arc::new(file), parts, left, reading, buffer, outgoing, was_cold: false }
    }

    /// From now on gives what stands in for parts of the file.
    pub(in crate::services) fn send_directly(&mut self, outgoing: &Arc<Outgoing>) {
        self.outgoing = Some(outgoing.clone());
    }

    /// Bytes that are still to be sent.
    pub(in crate::services) fn left(&self) -> u64 {
        self.left
    }

    pub(in crate::services) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = ready!(self.poll_piece(context));
        if piece.is_err() {
            self.parts.clear();
            self.left = 0;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)).transpose())
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.reading.is_none() {
            let (offset, count) = match self.parts.front_mut() {
                None => return Poll::Ready(Ok(None)),
                Some(Part::Bytes(bytes)) => {
                    let bytes = std::mem::take(bytes);
                    self.parts.pop_front();
                    self.left -= bytes.len() as u64;
                    return Poll::Ready(Ok(Some(bytes)));
                }
                Some(Part::File(range)) => (range.start, piece(range)),
            };
            // Each counts as an operation on the socket: who reads fast must not have the shard.
            ready!(poll_proceed(context)).made_progress();
            let read = match self.outgoing.clone() {
                Some(outgoing) if count >= DIRECT_LEAST => self
                    .is_in_memory(offset, count)
                    .map(|()| outgoing.add(&self.file, offset, count)),
                _ => self.read_now(offset, count),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.was_cold = true;
                    self.reading = Some(self.read_elsewhere(offset, count));
                }
                read => return Poll::Ready(read.and_then(|piece| self.take(piece))),
            }
        }
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let piece = read.map_err(io::Error::other).and_then(|piece| piece);
        Poll::Ready(piece.and_then(|piece| self.take(piece)))
    }

    /// The first bytes of the part at hand.
    fn take(&mut self, piece: Bytes) -> io::Result<Option<Bytes>> {
        let Some(Part::File(range)) = self.parts.front_mut() else { return Err(shorter()) };
        if piece.is_empty() {
            return Err(shorter());
        }
        range.start += piece.len() as u64;
        self.left -= piece.len() as u64;
        if range.start == range.end {
            self.parts.pop_front();
        }
        Ok(Some(piece))
    }

    /// A piece, if it is in the system's memory.
    fn read_now(&mut self, offset: u64, count: usize) -> io::Result<Bytes> {
        if self.left == count as u64 {
            // The last one needs nothing that is used again.
            let mut bytes = vec![0; count];
            let read = read_now(&self.file, &mut bytes, offset)?;
            bytes.truncate(read);
            return Ok(bytes.into());
        }
        let buffer = self.buffer.take().unwrap_or_default();
        // It may still be on its way to the client.
        let mut buffer = Arc::try_unwrap(buffer).unwrap_or_default();
        buffer.resize(FILE_PIECE_BYTES, 0);
        let read = read_now(&self.file, &mut buffer[..count], offset);
        let buffer = Arc::new(buffer);
        self.buffer = Some(buffer.clone());
        read.map(|length| Bytes::from_owner(Filled { buffer, length }))
    }

    /// Whether the shard will not wait if it sends this: its last byte is looked at, and every page once something was missing. What
    /// the system reads and forgets is mostly far longer than a piece; for a hole inside of one the shard waits.
    ///
    /// # Errors
    /// `WouldBlock`: something is not in memory. Or the file is shorter.
    fn is_in_memory(&self, offset: u64, count: usize) -> io::Result<()> {
        let last = offset + count as u64 - 1;
        let pages = if self.was_cold { offset..last } else { 0..0 };
        for at in pages.step_by(PAGE).chain([last]) {
            if read_now(&self.file, &mut [0], at)? == 0 {
                return Err(shorter());
            }
        }
        Ok(())
    }

    fn read_elsewhere(&self, offset: u64, count: usize) -> JoinHandle<io::Result<Bytes>> {
        let file = self.file.clone();
        crate::spawn_blocking(move || {
            let mut bytes = vec![0; count];
            let read = read(&file, &mut bytes, offset)?;
            bytes.truncate(read);
            Ok(bytes.into())
        })
    }
}

/// How much of it is read at once.
fn piece(range: &Range<u64>) -> usize {
    (range.end - range.start).min(FILE_PIECE_BYTES as u64) as usize
}

#[cold]
fn shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter while it was sent")
}

/// The part of a buffer that was read.
struct Filled {
    buffer: Arc<Vec<u8>>,
    length: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}
