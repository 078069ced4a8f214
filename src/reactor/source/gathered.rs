//! Writes that are gathered, and what the kernel has not taken of them: the socket's side of `reactor/gather`.

use super::{Here, Socket, Source};
use crate::reactor::engine::{Held, lost};
use crate::reactor::gather::Gathered;
use crate::reactor::slots::{Direction, SlotKey};
use crate::shard::Shard;
use crate::shard::context::with_current;
use std::io;
use std::task::{Context, Poll};

impl<S: Socket> Source<S> {
    /// Adds `bytes` to what is sent at the end of this task's poll. None: not here, write them.
    #[inline]
    pub(crate) fn poll_gather(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        let gathered = with_current(|shard| match self.here(shard) {
            Here::Home(key) => shard.reactor.gather(key, bytes, context.waker()),
            Here::Unregistered | Here::Away => match self.outbox() {
                Some(outbox) => shard.reactor.gather_in(outbox, bytes, context.waker()),
                None => Gathered::Stale,
            },
        });
        match gathered? {
            Gathered::Yes => Some(Poll::Ready(Ok(bytes.len()))),
            Gathered::Wait => Some(Poll::Pending),
            Gathered::Failed(error) => Some(Poll::Ready(Err(error))),
            Gathered::Stale => None,
        }
    }

    /// Ready when nothing is left that the kernel has refused; what was gathered in this poll is on its way.
    #[inline(always)]
    pub(crate) fn poll_unsent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.holds_any(Held::Unsent as u32 | Held::Lost as u32) {
            self.poll_held(context)
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// When something may be left, or be missing.
    #[cold]
    fn poll_held(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(outbox) = self.filled_outbox() {
            return outbox.poll_sent(context.waker());
        }
        self.at_slot(context, |shard, key, context| shard.reactor.poll_unsent(key, context.waker()))
    }

    /// Before anything else is written: what was gathered, or refused by the kernel before, goes as far as the kernel takes
    /// it. False: not all of it.
    pub(crate) fn send_first(&self) -> io::Result<bool> {
        if let Some(outbox) = self.filled_outbox() {
            return match (outbox.send(None), outbox.failure()) {
                (_, Some(error)) => Err(error),
                (sent, None) => Ok(sent),
            };
        }
        let here = with_current(|shard| match self.here(shard) {
            Here::Home(key) if shard.reactor.is_behind(key) => Some(shard.reactor.send_first(key)),
            Here::Home(_) => Some(Ok(true)),
            Here::Unregistered | Here::Away => None,
        });
        here.flatten().unwrap_or_else(|| {
            if self.holds(Held::Lost) { Err(lost()) } else { Ok(!self.is_held()) }
        })
    }

    /// Ready when every byte written has been given to the kernel.
    pub(crate) fn poll_all_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(outbox) = self.filled_outbox() {
            return outbox.poll_sent(context.waker());
        }
        self.at_slot(context, |shard, key, context| {
            shard.reactor.poll_all_sent(key, context.waker())
        })
    }

    /// Ends the sending direction when every byte written has been given to the kernel, which the home sees to.
    pub(crate) fn end_when_sent(&self) {
        // Filled or not: another worker may just have sent the rest.
        if let Some(outbox) = self.outbox() {
            return outbox.end_when_sent();
        }
        let here = with_current(|shard| match self.here(shard) {
            Here::Home(key) => {
                shard.reactor.end_when_sent(key);
                true
            }
            Here::Unregistered | Here::Away => false,
        });
        if here == Some(true) {
            return;
        }
        let key = self.key();
        self.at_home(key.owner(), move |shard| shard.reactor.end_when_sent(key));
    }

    fn at_slot(
        &self,
        context: &mut Context<'_>,
        f: impl FnOnce(&Shard, SlotKey, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let at_home = with_current(|shard| match self.here(shard) {
            Here::Home(key) => Some(f(shard, key, context)),
            Here::Unregistered | Here::Away => None,
        });
        match at_home.flatten() {
            Some(polled) => polled,
            None if self.holds(Held::Lost) => Poll::Ready(Err(lost())),
            None if self.is_held() => self.watch(context, Direction::Write),
            None => Poll::Ready(Ok(())),
        }
    }
}
