//! A socket, as the facilities hold it: an fd whose readiness follows the shard that polls it.
//!
//! Where it is registered is one atomic word: the shard's uid and its slot. On that shard an operation costs a look at
//! the slot and the system call. On another shard the socket moves: it is registered there (which reports its present
//! readiness, so nothing is lost) and the old home is told to let go, unless tasks still wait there, in which case the
//! socket stays registered with both until they have been woken. On a thread that is no shard the system call is tried
//! and the home is asked to wake the waiting task.
//!
//! A source that has never had to wait is registered nowhere. One that a worker of a pool polls is registered with the
//! reactor that all workers share, and stays so: from there any thread can be woken.

mod gathered;
mod moves;
mod outside;
mod pooled;
mod wait;

use super::engine::{Attempt, Descriptor, Gate, Held, retried};
use super::interest::{Interest, Ready};
use super::slots::{Direction, Readiness, SlotKey};
use crate::mesh::message::Watchers;
use crate::shard::Shard;
use crate::shard::context::with_current;
use crate::sync::{Arc, AtomicU32, AtomicU64, Mutex, Ordering};
use moves::Registrations;
use pooled::Pooled;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use wait::Wait;

/// See the module. `Send` and `Sync` when the socket is.
pub(crate) struct Source<S: Socket> {
    shared: Arc<Shared<S>>,
    /// The key of its slot where it was registered last, by which also the shard is known. Without a shard: nowhere, and the
    /// bits say what it is assumed to be ready for when it is registered first.
    place: AtomicU64,
    /// Locked to move, never for an operation at home.
    homes: Mutex<Homes>,
    /// Where it is registered instead, once a worker of a pool has polled it.
    pooled: OnceLock<Pooled>,
}

#[derive(Default)]
struct Homes {
    /// Every registration, at most one per shard.
    at: Registrations,
    /// Who waits on threads that are no shard, by direction.
    watchers: [Option<Arc<Watchers>>; 2],
}

/// What can be a source: any of the standard library's sockets.
pub(crate) trait Socket: AsFd + From<OwnedFd> + Send + Sync + 'static {}
impl<S: AsFd + From<OwnedFd> + Send + Sync + 'static> Socket for S {}

struct Shared<S> {
    socket: S,
    /// What a slot holds that must go before anything else is written: bits of [`Held`].
    held: AtomicU32,
}

impl<S: Socket> Descriptor for Shared<S> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn set_held(&self, held: Held, holds: bool) {
        if holds {
            self.held.fetch_or(held as u32, Ordering::AcqRel);
        } else {
            self.held.fetch_and(!(held as u32), Ordering::AcqRel);
        }
    }
}

/// One operation of the task that is polled, which yields if it has had its share.
fn charge(context: &mut Context<'_>) -> Poll<()> {
    if with_current(Shard::charge_io) == Some(false) {
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(())
}

/// The place of a socket that is registered nowhere.
fn nowhere(assumed: Readiness) -> u64 {
    u64::from(assumed.to_bits())
}

/// What `place` assumes; none if it is a registration.
fn assumed(place: u64) -> Option<Readiness> {
    (SlotKey::from_bits(place).owner() == 0).then(|| Readiness::from_bits(place as u8))
}

/// Where an operation finds itself.
enum Here {
    /// On the shard where the socket is registered.
    Home(SlotKey),
    /// On a shard, and the socket is registered nowhere.
    Unregistered,
    /// On a shard, and the socket is registered elsewhere.
    Away,
}

impl<S: Socket> Source<S> {
    /// `socket` must be non-blocking.
    pub(crate) fn new(socket: S) -> Source<S> {
        Source::assuming(socket, Readiness::NONE)
    }

    /// [`Source::new`] of a socket that is taken to be ready until it says "would block", so that nobody waits for the
    /// kernel to report what is known.
    pub(crate) fn assuming(socket: S, ready: Readiness) -> Source<S> {
        Source {
            shared: Arc::new(Shared { socket, held: AtomicU32::new(0) }),
            place: AtomicU64::new(nowhere(ready)),
            homes: Mutex::default(),
            pooled: OnceLock::new(),
        }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.shared.socket
    }

    /// The socket, registered nowhere any more.
    ///
    /// # Errors
    /// If bytes that were written before have not all been taken by the kernel; the socket is closed then, as they would
    /// be missing from what is written to it later. If the fd had to be duplicated, because it is still registered with
    /// another shard, and could not be.
    pub(crate) fn into_inner(mut self) -> io::Result<S> {
        if !self.send_first()? {
            let text = "bytes that were written have not been sent: flush the socket before it is taken out";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        self.leave(true);
        let shared = self.shared.clone();
        drop(self);
        match Arc::try_unwrap(shared) {
            Ok(shared) => Ok(shared.socket),
            Err(shared) => Ok(S::from(shared.socket.as_fd().try_clone_to_owned()?)),
        }
    }

    /// Whether any of these bits of [`Held`] is set.
    #[inline(always)]
    fn holds_any(&self, bits: u32) -> bool {
        self.shared.held.load(Ordering::Acquire) & bits != 0
    }

    fn holds(&self, held: Held) -> bool {
        self.holds_any(held as u32)
    }

    /// A slot holds bytes of this socket.
    fn is_held(&self) -> bool {
        self.holds_any(Held::Unsent as u32 | Held::Gathered as u32)
    }

    /// Where it was registered last. If that is nowhere, the key is of no shard.
    #[inline(always)]
    fn key(&self) -> SlotKey {
        SlotKey::from_bits(self.place.load(Ordering::Relaxed))
    }

    fn here(&self, shard: &Shard) -> Here {
        let key = self.key();
        match key.owner() {
            uid if uid == shard.uid() => Here::Home(key),
            0 => Here::Unregistered,
            _ => Here::Away,
        }
    }

    /// Poll-style operation: one waiting task per direction, the one that polled last. `call` is one system call, which
    /// is tried when the socket may be ready; on "would block" the task is registered. It runs nobody's code but ours.
    #[inline]
    pub(crate) fn poll_io<R>(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
        call: impl FnMut(&S) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.poll_with(context, direction, call, |_| false)
    }

    /// [`Source::poll_io`] for stream sockets: less than `wanted` means that there is no more for now.
    #[inline]
    pub(crate) fn poll_stream_io(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
        wanted: usize,
        call: impl FnMut(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // Zero is the end of the stream, which stays true: only a short count of bytes says "no more for now".
        self.poll_with(context, direction, call, |&count| count > 0 && count < wanted)
    }

    #[inline(always)]
    fn poll_with<R>(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
        mut call: impl FnMut(&S) -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        if self.is_in_pool()
            && let Some(pooled) = self.pooled.get()
        {
            return self.poll_pooled(pooled, context, direction, call, drained);
        }
        match self.attempt(context, direction, &mut call, &drained) {
            Some(Attempt::Polled(polled)) => polled,
            other => self.poll_uncommonly(context, direction, other, call, drained),
        }
    }

    /// The common case: the socket is registered here, and nothing has to go before the operation. The slot that its key
    /// finds says all of that at once. What finds nothing to try is no operation, and takes no share. None: on a thread
    /// that is no shard.
    #[inline(always)]
    fn attempt<R>(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
        call: &mut impl FnMut(&S) -> io::Result<R>,
        drained: &impl Fn(&R) -> bool,
    ) -> Option<Attempt<R>> {
        let waker = context.waker();
        with_current(|shard| {
            let may_try = || shard.charge_io();
            let call = || call(&self.shared.socket);
            shard.reactor.attempt(self.key(), direction, waker, may_try, call, drained)
        })
    }

    /// Every other case. A function of its own, so that the common one pays nothing for it.
    #[inline(never)]
    fn poll_uncommonly<R>(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
        mut attempt: Option<Attempt<R>>,
        mut call: impl FnMut(&S) -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> Poll<io::Result<R>> {
        loop {
            if let Some(pooled) = self.pooled.get() {
                return self.poll_pooled(pooled, context, direction, call, drained);
            }
            ready!(charge(context));
            if let Some(polled) = self.make_way(context, direction, attempt, &mut call) {
                return polled;
            }
            // A closure of its own: called from two places the same one would be inlined in neither.
            let mut call = |socket: &S| call(socket);
            attempt = self.attempt(context, direction, &mut call, &drained);
            if let Some(Attempt::Polled(polled)) = attempt {
                return polled;
            }
        }
    }

    /// When it is not the common case: does what must come first. None: the operation can be attempted again.
    #[cold]
    fn make_way<R>(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
        attempt: Option<Attempt<R>>,
        call: &mut impl FnMut(&S) -> io::Result<R>,
    ) -> Option<Poll<io::Result<R>>> {
        let done = match attempt {
            Some(Attempt::Polled(polled)) => return Some(polled),
            Some(Attempt::Behind) => match self.poll_all_sent(context) {
                Poll::Ready(sent) => sent.map(|()| true),
                Poll::Pending => return Some(Poll::Pending),
            },
            Some(Attempt::NotHere) => {
                if assumed(self.place.load(Ordering::Relaxed)).is_some()
                    && let Some(result) = self.try_unregistered(direction, call)
                {
                    return Some(Poll::Ready(result));
                }
                self.move_here()
            }
            None => Ok(false),
        };
        match done {
            Ok(true) => None,
            Ok(false) => Some(self.poll_outside(context, direction, call)),
            Err(error) => Some(Poll::Ready(Err(error))),
        }
    }

    /// A socket that is registered nowhere may well be ready: many never have to wait. None: it is not.
    fn try_unregistered<R>(
        &self,
        direction: Direction,
        call: &mut impl FnMut(&S) -> io::Result<R>,
    ) -> Option<io::Result<R>> {
        let reads = direction == Direction::Read;
        if !reads || with_current(|shard| shard.reactor.guess.is_worth_reading()) == Some(true) {
            let result = retried(|| call(&self.shared.socket));
            let ready = result
                .as_ref()
                .map_or_else(|error| error.kind() != io::ErrorKind::WouldBlock, |_| true);
            if reads {
                with_current(|shard| shard.reactor.guess.learn(ready));
            }
            if ready {
                return Some(result);
            }
        }
        self.assume_no_more(direction);
        None
    }

    /// Readiness alone.
    pub(crate) fn poll_ready(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        loop {
            let gate = with_current(|shard| {
                if !shard.charge_io() {
                    context.waker().wake_by_ref();
                    return Gate::Wait;
                }
                match self.here(shard) {
                    Here::Home(key) => shard.reactor.gate(key, direction, context.waker()),
                    Here::Unregistered | Here::Away => Gate::Stale,
                }
            });
            match gate {
                Some(Gate::Try) => return Poll::Ready(Ok(())),
                Some(Gate::Wait) => return Poll::Pending,
                stale @ (Some(Gate::Stale) | None) => {
                    if let Some(pooled) = self.pooled.get() {
                        return pooled.poll_ready(context, direction);
                    }
                    if stale.is_none() || !self.move_here()? {
                        return self.poll_ready_outside(context, direction);
                    }
                }
            }
        }
    }

    /// Runs `f` if the socket is not known to be unready; remembers when it says "would block".
    pub(crate) fn try_io<R>(
        &self,
        direction: Direction,
        f: impl FnOnce(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        if direction == Direction::Write && !self.send_first()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if let Some(pooled) = self.pooled.get() {
            return pooled.try_io(direction, || f(&self.shared.socket));
        }
        let key = with_current(|shard| match self.here(shard) {
            Here::Home(key) => Some((key, shard.reactor.readiness(key)?)),
            Here::Unregistered | Here::Away => None,
        })
        .flatten();
        if let Some((_, readiness)) = key
            && !readiness.intersects(Readiness::of(direction))
        {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = f(&self.shared.socket);
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::WouldBlock
        {
            match key {
                Some((key, _)) => {
                    with_current(|shard| shard.reactor.clear_all(key, direction));
                }
                None => self.assume_no_more(direction),
            }
        }
        result
    }

    /// A socket that is registered nowhere said "would block".
    #[cold]
    fn assume_no_more(&self, direction: Direction) {
        let place = self.place.load(Ordering::Relaxed);
        if let Some(assumed) = assumed(place) {
            // It may be registered meanwhile by another half of the socket; then there is nothing to assume any more.
            let new = nowhere(assumed.without(Readiness::of(direction)));
            let _ = self.place.compare_exchange(place, new, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// What has just succeeded will do so again: see [`Source::assuming`].
    pub(crate) fn assume(&self, ready: Readiness) {
        let place = self.place.load(Ordering::Relaxed);
        if assumed(place).is_some() {
            let _ = self.place.compare_exchange(
                place,
                nowhere(ready),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// Waits for readiness. Any number of tasks may wait; none is forgotten. Cancel safe.
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        Wait::new(self, interest).await
    }

    /// Waits until `f` does not say "would block". Any number of tasks may wait. Cancel safe.
    pub(crate) async fn async_io<R>(
        &self,
        direction: Direction,
        mut f: impl FnMut(&S) -> io::Result<R>,
    ) -> io::Result<R> {
        let interest = match direction {
            Direction::Read => Interest::READABLE,
            Direction::Write => Interest::WRITABLE,
        };
        // A socket that is registered nowhere may well be ready: try before asking.
        let mut fresh = assumed(self.place.load(Ordering::Relaxed)).is_some();
        loop {
            if std::mem::take(&mut fresh) {
                poll_fn(charge).await;
            } else {
                self.ready(interest).await?;
            }
            match self.try_io(direction, &mut f) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl<S: Socket> Drop for Source<S> {
    fn drop(&mut self) {
        if assumed(self.place.load(Ordering::Relaxed)).is_none() {
            self.leave(false);
        }
    }
}

impl<S: Socket + fmt::Debug> fmt::Debug for Source<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.socket.fmt(f)
    }
}
