//! The end of a connection whose client may still be sending: its own half is shut down first, and what comes meanwhile is read
//! and thrown away for a moment (RFC 9112, 9.6).
//!
//! A socket that is closed with bytes unread is reset, and a reset may overtake the answer that says why. Part of the
//! connection's task; nothing of what is read here goes anywhere.

use super::transport::Stream;
use crate::limits::{LINGER, LINGER_BYTES};
use crate::time::{Sleep, sleep};
use hyper::rt::ReadBuf;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// See the module.
#[derive(Debug)]
pub(super) struct Linger {
    over: Sleep,
    /// What is to be said before, as far as it has not been sent.
    last_words: Vec<u8>,
    /// The client has been told that nothing more comes.
    is_shut: bool,
    /// Bytes that are still read.
    left: usize,
}

/// Bytes that are thrown away at once.
const PIECE: usize = 4096;

impl Linger {
    pub(super) fn new(last_words: Vec<u8>) -> Box<Linger> {
        let (over, left) = (sleep(LINGER), LINGER_BYTES);
        Box::new(Linger { over, last_words, is_shut: false, left })
    }

    /// Ready when its time is over, whatever could be done until then.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.over).poll(context)
    }

    /// Ready when the connection may be closed.
    pub(super) fn poll(
        &mut self,
        io: &mut impl Stream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poll_over(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        while !self.last_words.is_empty() {
            let sent = ready!(Pin::new(&mut *io).poll_write(context, &self.last_words))?;
            self.last_words.drain(..sent);
        }
        if !self.is_shut {
            ready!(Pin::new(&mut *io).poll_shutdown(context))?;
            self.is_shut = true;
        }
        loop {
            let mut space = [0; PIECE];
            let mut piece = ReadBuf::new(&mut space);
            // Not `poll_read`, which hyper alone is to call: see there.
            ready!(io.poll_read_some(context, &mut piece.unfilled(), <[u8]>::len))?;
            let count = piece.filled().len();
            self.left = self.left.saturating_sub(count);
            if count == 0 || self.left == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
