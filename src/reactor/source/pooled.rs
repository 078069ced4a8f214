//! A socket that is registered with the reactor of a pool: any thread can use it, and none is its home.

use super::moves::Registration;
use super::{Socket, Source, assumed, charge};
use crate::mesh::message::Watchers;
use crate::reactor::engine::{Held, retried};
use crate::reactor::interest::{Interest, Ready};
use crate::reactor::outbox::Outbox;
use crate::reactor::shared::{Look, SharedSlot};
use crate::reactor::slots::{Direction, Readiness};
use crate::shard::context::with_current;
use crate::shard::shared::Shared;
use crate::sync::{Arc, Ordering};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

/// Its place in a pool.
pub(super) struct Pooled {
    shared: Arc<Shared>,
    slot: Arc<SharedSlot>,
    /// Made when bytes are gathered first.
    outbox: OnceLock<Arc<Outbox>>,
}

/// The place of a socket that is registered with a pool: no shard has this uid.
const IN_POOL: u64 = u64::MAX;

impl<S: Socket> Source<S> {
    /// Registers with the pool of the worker that polls. The shards it has been registered with let go, unless somebody
    /// waits there. `homes` are locked by the caller, which has seen that no shard holds bytes of the socket; from here on
    /// none will: only the shard where a socket is registered gathers, for whoever has the socket to himself meanwhile.
    pub(super) fn join_pool(
        &self,
        shared: &Arc<Shared>,
        homes: &mut [Registration],
    ) -> io::Result<()> {
        if self.pooled.get().is_none() {
            let assumed = assumed(self.place.load(Ordering::Relaxed)).unwrap_or_default();
            let fd = self.shared.socket.as_fd().as_raw_fd();
            let slot = shared.reactor.register(fd, assumed)?;
            // Nobody else sets it: the homes are locked.
            let _ =
                self.pooled.set(Pooled { shared: shared.clone(), slot, outbox: OnceLock::new() });
            self.place.store(IN_POOL, Ordering::Relaxed);
        }
        homes.iter_mut().for_each(Registration::leave);
        Ok(())
    }
}

impl<S: Socket> Source<S> {
    /// Whether a pool has the socket, as far as its one word says: `pooled` is set before.
    #[inline(always)]
    pub(super) fn is_in_pool(&self) -> bool {
        self.place.load(Ordering::Relaxed) == IN_POOL
    }

    /// An operation on a socket of a pool. A function of its own, so that those of shards pay nothing for it.
    #[inline(never)]
    pub(super) fn poll_pooled<R>(
        &self,
        pooled: &Pooled,
        context: &mut Context<'_>,
        direction: Direction,
        mut call: impl FnMut(&S) -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        ready!(charge(context));
        if direction == Direction::Write
            && let Some(outbox) = self.filled_outbox()
        {
            ready!(outbox.poll_sent(context.waker()))?;
        }
        pooled.poll_io(context, direction, || call(&self.shared.socket), &drained)
    }

    /// Where bytes are gathered, once a pool shares the socket.
    pub(super) fn outbox(&self) -> Option<&Arc<Outbox>> {
        let pooled = self.pooled.get()?;
        let make = || {
            let lost = self.holds(Held::Lost);
            Arc::new(Outbox::new(self.shared.clone(), pooled.slot.clone(), lost))
        };
        Some(pooled.outbox.get_or_init(make))
    }

    /// The same, if it holds bytes, or if some are missing.
    pub(super) fn filled_outbox(&self) -> Option<&Arc<Outbox>> {
        let holds = self.pooled.get().is_some() && self.shared.held.load(Ordering::Acquire) != 0;
        holds.then(|| self.outbox())?
    }
}

impl Pooled {
    /// See `Source::poll_io`. `drained` says of a result that the kernel has no more for now.
    pub(super) fn poll_io<R>(
        &self,
        context: &Context<'_>,
        direction: Direction,
        mut call: impl FnMut() -> io::Result<R>,
        drained: &impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        loop {
            let Some(look) = self.slot.poll(direction, context.waker()) else {
                return self.pending();
            };
            match retried(&mut call) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.slot.clear(look, Readiness::over(direction));
                }
                Ok(result) => {
                    // A read stops where urgent data is, though more may be behind it.
                    let stopped = direction == Direction::Read
                        && look.readiness().intersects(Readiness::PRIORITY);
                    if drained(&result) && !stopped {
                        self.slot.clear(look, Readiness::transient(direction));
                    }
                    return Poll::Ready(Ok(result));
                }
                failed => return Poll::Ready(failed),
            }
        }
    }

    /// See `Source::poll_ready`.
    pub(super) fn poll_ready(
        &self,
        context: &Context<'_>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        match self.slot.poll(direction, context.waker()) {
            Some(_) => Poll::Ready(Ok(())),
            None => self.pending(),
        }
    }

    /// See `Source::try_io`.
    pub(super) fn try_io<R>(
        &self,
        direction: Direction,
        call: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        let look = self.slot.look();
        if !look.readiness().intersects(Readiness::of(direction)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = call();
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::WouldBlock
        {
            self.slot.clear(look, Readiness::over(direction));
        }
        result
    }

    /// Somebody waits, unless nothing will ever come.
    fn pending<R>(&self) -> Poll<io::Result<R>> {
        if self.slot.is_closed() { Poll::Ready(Err(closed())) } else { Poll::Pending }
    }

    /// What satisfies `interest` now, or an error if nothing ever will.
    pub(super) fn ready(&self, interest: Interest) -> Poll<io::Result<Ready>> {
        let ready = Look::for_interest(self.slot.look(), interest);
        if ready.is_empty() { self.pending() } else { Poll::Ready(Ok(Ready::new(ready))) }
    }

    /// Those who wait for one direction.
    pub(super) fn waiting(&self, direction: Direction) -> &Arc<Watchers> {
        self.slot.waiting(direction)
    }

    /// The socket is closed, or if `open`, lives on elsewhere.
    pub(super) fn leave(&self, fd: RawFd, open: bool) {
        if let Some(outbox) = self.outbox.get() {
            outbox.give_up();
            with_current(|shard| shard.reactor.let_go(outbox));
        }
        if open {
            self.shared.reactor.deregister(&self.slot, fd);
        } else {
            self.shared.reactor.forget(&self.slot);
        }
    }
}

fn closed() -> io::Error {
    io::Error::other(
        "the runtime that watches this socket has shut down: take it out with into_std, and make a new one",
    )
}
