//! Gathered writes: small writes of one task poll become one send.
//!
//! A pipelined burst makes an HTTP server write one small response after another. Each is copied into the reactor's
//! one gather buffer; when the task's poll is over the lot is sent with one system call. A single response is sent at
//! the same moment as it would be otherwise, give or take the end of the poll. The buffer belongs to one socket at a
//! time, and to none between polls; a second socket that gathers in the same poll sends the first one's bytes.
//!
//! Those of a socket that a pool shares stand in its [outbox](super::outbox) meanwhile, and the buffer's place is the
//! outbox's, so that the end of the poll finds it.
//!
//! Bytes that the kernel does not take go into the slot. They are sent when the socket has room again, before anything
//! written later; until then `flush` waits and the socket does not move to another shard.

use super::engine::{Descriptor, Held, Reactor, Registered, retried};
use super::outbox::{Added, Outbox};
use super::slots::{Direction, Readiness, Slot, SlotKey};
use crate::limits::GATHER_BYTES;
use crate::sync::Arc;
use crate::sys::socket;
use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Poll, Waker};

/// The gather buffer of a shard.
pub(super) struct GatherBuffer {
    /// [`SlotKey::NOWHERE`]: the outbox. [`SlotKey::NOBODY`]: nothing is gathered.
    owner: Cell<SlotKey>,
    bytes: RefCell<Vec<u8>>,
    outbox: RefCell<Option<Arc<Outbox>>>,
}

/// What became of a write that wanted to be gathered.
#[derive(Debug)]
pub(crate) enum Gathered {
    /// Copied; it will be sent at the end of this poll.
    Yes,
    /// There is no room before the peer reads; the task has been registered.
    Wait,
    /// An earlier send failed.
    Failed(io::Error),
    /// The slot is gone.
    Stale,
}

impl GatherBuffer {
    pub(super) fn new() -> GatherBuffer {
        GatherBuffer {
            owner: Cell::new(SlotKey::NOBODY),
            bytes: RefCell::default(),
            outbox: RefCell::default(),
        }
    }

    #[inline(always)]
    pub(super) fn is_owned_by(&self, key: SlotKey) -> bool {
        self.owner.get() == key
    }

    #[inline(always)]
    fn is_in_use(&self) -> bool {
        self.owner.get() != SlotKey::NOBODY
    }
}

impl Reactor {
    /// Adds `bytes` to what will be sent when this task's poll is over, all or nothing.
    #[inline]
    pub(crate) fn gather(&self, key: SlotKey, bytes: &[u8], waker: &Waker) -> Gathered {
        let buffer = &self.gathered;
        if !buffer.is_owned_by(key) {
            if buffer.is_in_use() {
                self.send_gathered();
                if buffer.is_in_use() {
                    // A waker of the first socket has written to a third: these bytes go by themselves.
                    return Gathered::Stale;
                }
            }
            let mut slots = self.slots.borrow_mut();
            match slots.get_mut(key) {
                None => return Gathered::Stale,
                Some(slot) if !slot.socket.holds_bytes() => {
                    slot.socket.descriptor.set_held(Held::Gathered, true);
                }
                Some(_) => {
                    drop(slots);
                    return self.queue_behind(key, bytes, waker);
                }
            }
            buffer.owner.set(key);
        }
        let mut gathered = buffer.bytes.borrow_mut();
        gathered.extend_from_slice(bytes);
        if gathered.len() >= GATHER_BYTES {
            drop(gathered);
            self.send_gathered();
        }
        Gathered::Yes
    }

    /// [`gather`](Self::gather), of a socket that a pool shares.
    pub(super) fn gather_in(&self, outbox: &Arc<Outbox>, bytes: &[u8], waker: &Waker) -> Gathered {
        let buffer = &self.gathered;
        let is_its = |known: &Arc<Outbox>| Arc::ptr_eq(known, outbox);
        if !buffer.outbox.borrow().as_ref().is_some_and(is_its) {
            self.send_gathered();
            if buffer.is_in_use() {
                // A waker has gathered meanwhile.
                return Gathered::Stale;
            }
        }
        let added = outbox.add(bytes, &mut buffer.bytes.borrow_mut());
        match added {
            Added::Failed(error) => return Gathered::Failed(error),
            Added::Full => {
                return match outbox.poll_sent(waker) {
                    Poll::Pending => Gathered::Wait,
                    // There is room again: a write by itself finds it, or what has failed.
                    Poll::Ready(_) => Gathered::Stale,
                };
            }
            Added::Behind => {}
            Added::Yes { full } => {
                buffer.owner.set(SlotKey::NOWHERE);
                buffer.outbox.borrow_mut().get_or_insert_with(|| outbox.clone());
                if full {
                    self.send_gathered();
                }
            }
        }
        Gathered::Yes
    }

    /// The socket of that outbox goes.
    pub(super) fn let_go(&self, outbox: &Arc<Outbox>) {
        let buffer = &self.gathered;
        let is_its = |known: &mut Arc<Outbox>| Arc::ptr_eq(known, outbox);
        let known = buffer.outbox.borrow_mut().take_if(is_its);
        if known.is_some() {
            buffer.owner.set(SlotKey::NOBODY);
        }
    }

    /// Behind bytes that the kernel has refused.
    #[cold]
    fn queue_behind(&self, key: SlotKey, bytes: &[u8], waker: &Waker) -> Gathered {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return Gathered::Stale };
        if let Some(error) = slot.socket.failure() {
            return Gathered::Failed(error);
        }
        if slot.socket.out.len() + bytes.len() <= GATHER_BYTES {
            slot.socket.out.extend_from_slice(bytes);
            return Gathered::Yes;
        }
        drop(slots);
        if self.remember(key, Direction::Write, waker) { Gathered::Wait } else { Gathered::Stale }
    }

    /// Ready when the kernel has taken every byte but those gathered in this poll.
    pub(crate) fn poll_unsent(&self, key: SlotKey, waker: &Waker) -> Poll<io::Result<()>> {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return Poll::Ready(Ok(())) };
        if let Some(error) = slot.socket.failure() {
            return Poll::Ready(Err(error));
        }
        if slot.socket.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        drop(slots);
        if self.remember(key, Direction::Write, waker) {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    /// Ready when the kernel has taken every byte.
    pub(crate) fn poll_all_sent(&self, key: SlotKey, waker: &Waker) -> Poll<io::Result<()>> {
        self.send_gathered_of(key);
        self.send_rest(key);
        self.poll_unsent(key, waker)
    }

    /// Before anything else is written: sends what the slot holds. False: the kernel does not take all of it now.
    #[cold]
    pub(crate) fn send_first(&self, key: SlotKey) -> io::Result<bool> {
        self.send_gathered_of(key);
        self.send_rest(key);
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return Ok(true) };
        match slot.socket.failure() {
            Some(error) => Err(error),
            None => Ok(slot.socket.out.is_empty()),
        }
    }

    /// Ends the sending direction when the kernel has taken every byte.
    pub(crate) fn end_when_sent(&self, key: SlotKey) {
        self.send_gathered_of(key);
        if let Some(slot) = self.slots.borrow_mut().get_mut(key) {
            if slot.socket.out.is_empty() {
                let _ = socket::shutdown_write(&slot.socket.descriptor.fd());
            } else {
                slot.socket.ends = true;
            }
        }
    }

    /// Whether the slot holds bytes, or an error, that come before the next write.
    #[inline]
    pub(crate) fn is_behind(&self, key: SlotKey) -> bool {
        self.gathered.is_owned_by(key)
            || self.slots.borrow_mut().get_mut(key).is_some_and(|slot| slot.socket.holds_bytes())
    }

    /// At the end of a task's poll: sends what it has gathered.
    #[inline]
    pub(crate) fn send_gathered(&self) {
        if self.gathered.is_in_use() {
            self.send_buffer(self.gathered.owner.replace(SlotKey::NOBODY));
        }
    }

    /// The same, if it is this socket's.
    pub(super) fn send_gathered_of(&self, key: SlotKey) {
        if self.gathered.is_owned_by(key) {
            self.send_gathered();
        }
    }

    fn send_buffer(&self, key: SlotKey) {
        if let Some(outbox) = self.gathered.outbox.take() {
            let mut spare = self.gathered.bytes.take();
            outbox.send(Some(&mut spare));
            let mut bytes = self.gathered.bytes.borrow_mut();
            // A waker may have gathered meanwhile.
            if bytes.capacity() == 0 {
                *bytes = spare;
            }
            return;
        }
        let mut bytes = self.gathered.bytes.borrow_mut();
        let mut slots = self.slots.borrow_mut();
        let mut failed = false;
        if let Some(slot) = slots.get_mut(key) {
            slot.socket.descriptor.set_held(Held::Gathered, false);
            match send_once(&*slot.socket.descriptor, &bytes) {
                Ok(sent) if sent == bytes.len() => {}
                Ok(sent) => {
                    slot.socket.out.extend_from_slice(&bytes[sent..]);
                    slot.socket.refuse(true);
                    slot.readiness = slot.readiness.without(Readiness::of(Direction::Write));
                }
                Err(error) => {
                    slot.socket.fail(error);
                    slot.readiness = slot.readiness.with(Readiness::ERROR);
                    failed = true;
                }
            }
        }
        drop(slots);
        bytes.clear();
        drop(bytes);
        if failed {
            // Whoever waits must come and see it.
            self.wake_waiters(key, false);
        }
    }

    /// Sends what the kernel has refused before, as far as it takes it now.
    #[inline]
    pub(super) fn send_rest(&self, key: SlotKey) {
        let rest = |slot: &mut Slot<Registered>| !slot.socket.out.is_empty();
        if self.slots.borrow_mut().get_mut(key).is_some_and(rest) {
            self.send_refused(key);
        }
    }

    /// There is something that the kernel has refused.
    #[cold]
    fn send_refused(&self, key: SlotKey) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return };
        let registered = &mut slot.socket;
        match send_once(&*registered.descriptor, &registered.out) {
            Ok(sent) if sent < registered.out.len() => {
                registered.out.drain(..sent);
                slot.readiness = slot.readiness.without(Readiness::of(Direction::Write));
                return;
            }
            Ok(_) => {}
            Err(error) => {
                registered.fail(error);
                slot.readiness = slot.readiness.with(Readiness::ERROR);
            }
        }
        let registered = &mut slot.socket;
        registered.out = Vec::new();
        registered.refuse(false);
        if std::mem::take(&mut registered.ends) {
            // Nobody is left to tell.
            let _ = socket::shutdown_write(&registered.descriptor.fd());
        }
        drop(slots);
        self.wake_waiters(key, false);
    }
}

/// One send; what the kernel does not take counts as nothing.
pub(super) fn send_once(descriptor: &dyn Descriptor, bytes: &[u8]) -> io::Result<usize> {
    match retried(|| socket::send(&descriptor.fd(), bytes)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
