//! One shard's reactor: registering sockets, caching what they are ready for, waking who waits.

use super::gather::GatherBuffer;
use super::guess::Guess;
use super::poll::{self, Event, interest, readiness_of, register};
use super::slots::{Direction, Readiness, Slot, SlotKey, Slots};
use crate::mesh::message::Watchers;
use crate::sync::Arc;
use crate::sys::socket;
use crate::task::waker::{is_task, wake_counted};
use crate::wait_queue::WaiterId;
use mio::unix::SourceFd;
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::task::{Poll, Waker};
use std::time::Duration;

/// See the module. Only its shard's thread touches it.
pub(crate) struct Reactor {
    poll: poll::Poll,
    pub(super) slots: RefCell<Slots<Slot<Registered>>>,
    pub(super) gathered: GatherBuffer,
    pub(super) guess: Guess,
}

/// The fd of a source, shared by the source and every slot it is registered in: it stays open until the last of these
/// shards has let go, so a slot never names an fd number that means something else by now.
pub(crate) trait Descriptor: Send + Sync {
    fn fd(&self) -> BorrowedFd<'_>;
    /// Tells other threads what a slot holds of what was written.
    fn set_held(&self, held: Held, holds: bool);
}

/// What a slot can hold of what was written to its socket, which therefore stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Bytes that the kernel would not take yet.
    Unsent = 1 << 0,
    /// Bytes that are sent when the present poll is over.
    Gathered = 1 << 1,
    /// Bytes that will never be sent: the shard that held them has ended, or could not send them.
    Lost = 1 << 2,
}

/// What a slot keeps for its socket.
pub(crate) struct Registered {
    /// Keeps `fd` open.
    pub(super) descriptor: Arc<dyn Descriptor>,
    pub(super) fd: RawFd,
    /// Bytes that the kernel has refused so far.
    pub(super) out: Vec<u8>,
    /// The kernel has not taken all of `out`; the descriptor says so to other threads.
    pub(super) refused: bool,
    /// Bytes are missing from what was written: nothing is written any more. The descriptor says so to other threads.
    lost: bool,
    /// Why, for whoever writes or flushes next.
    error: Option<io::Error>,
    /// Of so many departures of the socket it has come back; notices of them are of no interest any more.
    pub(super) came_back: u32,
    /// The sending direction is to end when `out` is empty.
    pub(super) ends: bool,
}

impl Registered {
    /// Whether a write would have to wait for earlier ones, or return their error.
    #[inline(always)]
    pub(super) fn holds_bytes(&self) -> bool {
        !self.out.is_empty() || self.lost
    }

    /// Sending has failed.
    pub(super) fn fail(&mut self, error: io::Error) {
        self.lost = true;
        self.error = Some(error);
        self.descriptor.set_held(Held::Lost, true);
    }

    /// What whoever writes or flushes is told if bytes are missing.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.lost.then(|| self.error.take().unwrap_or_else(lost))
    }

    /// The slot is going, and with it the bytes that it holds. Says so only if it does hold some: the socket may be
    /// registered elsewhere by now, with bytes there.
    fn give_bytes_up(&self) {
        if self.holds_bytes() {
            self.descriptor.set_held(Held::Lost, true);
        }
        if self.refused {
            self.descriptor.set_held(Held::Unsent, false);
        }
        if self.ends {
            // Bytes are missing before it; but whoever has the other half may wait for the peer, and that for an end.
            let _ = socket::shutdown_write(&self.descriptor.fd());
        }
    }

    /// Sets `refused`, here and for other threads.
    pub(super) fn refuse(&mut self, refused: bool) {
        self.refused = refused;
        self.descriptor.set_held(Held::Unsent, refused);
    }
}

/// What a write says on a socket of which bytes are missing. Reading goes on.
pub(super) fn lost() -> io::Error {
    let text = "bytes that were written to this socket before could not be sent";
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
}

/// What became of an operation on a registered socket.
pub(crate) enum Attempt<R> {
    /// The system call's result, or Pending: the task has been registered.
    Polled(Poll<io::Result<R>>),
    /// Bytes written earlier must go first.
    Behind,
    /// The socket is not registered here.
    NotHere,
}

/// What an operation on a registered socket should do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Try the system call.
    Try,
    /// It would block; the task has been registered.
    Wait,
    /// The slot is gone.
    Stale,
}

impl Reactor {
    pub(crate) fn new(poll: poll::Poll, uid: u32) -> Reactor {
        Reactor {
            poll,
            slots: RefCell::new(Slots::new(uid)),
            gathered: GatherBuffer::new(),
            guess: Guess::default(),
        }
    }

    /// The epoll fd, for a host that has an event loop of its own.
    pub(crate) fn fd(&self) -> RawFd {
        self.poll.fd()
    }

    /// From now until they have said "would block", every socket here is read when it is asked, and so is one that comes
    /// later: who is about to close them wants to know what has arrived, not what has been reported.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server asks for it"))]
    pub(crate) fn distrust_readiness(&self) {
        self.guess.read_always();
        for slot in self.slots.borrow_mut().iter_mut() {
            slot.readiness = slot.readiness.with(Readiness::READABLE);
        }
    }

    /// What a socket that comes here is taken to be ready for, whatever is known of it.
    fn distrusted(&self) -> Readiness {
        if self.guess.reads_always() { Readiness::READABLE } else { Readiness::default() }
    }

    /// Registers a socket for both directions. Its present readiness comes as an event in a later turn; until then it is
    /// what is assumed.
    pub(crate) fn register(
        &self,
        descriptor: Arc<dyn Descriptor>,
        assumed: Readiness,
    ) -> io::Result<SlotKey> {
        let fd = descriptor.fd().as_raw_fd();
        let registered = Registered {
            descriptor,
            fd,
            out: Vec::new(),
            refused: false,
            lost: false,
            error: None,
            came_back: 0,
            ends: false,
        };
        let mut slot = Slot::new(registered);
        slot.readiness = assumed.with(self.distrusted());
        let inserted = self.slots.borrow_mut().insert(slot);
        let key = inserted
            .map_err(|_| io::Error::other("a shard can register about a million sockets"))?;
        let token = mio::Token(key.to_bits() as usize);
        if let Err(error) = register(self.poll.registry(), fd, token) {
            let slot = self.slots.borrow_mut().remove(key);
            drop(slot);
            return Err(error);
        }
        Ok(key)
    }

    /// Bytes are missing from what was written to the socket; the next write is to return this.
    pub(super) fn fail(&self, key: SlotKey, error: io::Error) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(key)
            && !slot.socket.lost
        {
            slot.socket.fail(error);
        }
    }

    /// Whether an operation is worth trying; if not, the task of `waker` is woken when it is.
    #[inline]
    pub(crate) fn gate(&self, key: SlotKey, direction: Direction, waker: &Waker) -> Gate {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return Gate::Stale };
        if slot.readiness.intersects(Readiness::of(direction)) {
            return Gate::Try;
        }
        let known = slot.waiters(direction).wait_again(waker);
        drop(slots);
        if known || self.remember(key, direction, waker) { Gate::Wait } else { Gate::Stale }
    }

    /// Registers a task that has not polled last time. False: the slot is gone.
    #[cold]
    pub(super) fn remember(&self, key: SlotKey, direction: Direction, waker: &Waker) -> bool {
        let new = waker.clone();
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return false };
        let old = slot.waiters(direction).set_polling(new);
        let ready = slot.readiness.intersects(Readiness::of(direction));
        drop(slots);
        drop(old);
        if ready {
            // The clone has turned the shard.
            waker.wake_by_ref();
        }
        true
    }

    /// One system call, if the socket may be ready for it and the task has a share left (`may_try`); if not, the task of
    /// `waker` is woken later. `key` may be another shard's, or nobody's. `drained` says of a result that the kernel has
    /// no more for now. The slots are borrowed all the while: `call` runs no code of users.
    #[inline(always)]
    pub(crate) fn attempt<R>(
        &self,
        key: SlotKey,
        direction: Direction,
        waker: &Waker,
        may_try: impl FnOnce() -> bool,
        call: impl FnMut() -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> Attempt<R> {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return Attempt::NotHere };
        if direction == Direction::Write
            && (slot.socket.holds_bytes() || self.gathered.is_owned_by(key))
        {
            return Attempt::Behind;
        }
        if slot.readiness.intersects(Readiness::of(direction)) {
            if !may_try() {
                drop(slots);
                waker.wake_by_ref();
                return Attempt::Polled(Poll::Pending);
            }
            match retried(call) {
                Ok(result) => {
                    // A read stops where urgent data is, though more may be behind it.
                    let stopped = direction == Direction::Read
                        && slot.readiness.intersects(Readiness::PRIORITY);
                    if drained(&result) && !stopped {
                        // What the peer has closed stays ready.
                        slot.readiness = slot.readiness.without(Readiness::transient(direction));
                    }
                    return Attempt::Polled(Poll::Ready(Ok(result)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    slot.readiness = slot.readiness.without(Readiness::over(direction));
                }
                Err(error) => return Attempt::Polled(Poll::Ready(Err(error))),
            }
        }
        let known = slot.waiters(direction).wait_again(waker);
        drop(slots);
        if known || self.remember(key, direction, waker) {
            Attempt::Polled(Poll::Pending)
        } else {
            Attempt::NotHere
        }
    }

    /// The kernel has said "would block".
    pub(crate) fn clear_all(&self, key: SlotKey, direction: Direction) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(key) {
            slot.readiness = slot.readiness.without(Readiness::over(direction));
        }
    }

    /// What the socket is known to be ready for.
    pub(crate) fn readiness(&self, key: SlotKey) -> Option<Readiness> {
        self.slots.borrow_mut().get_mut(key).map(|slot| slot.readiness)
    }

    /// Registers a `&self` future that waits, or renews its waker.
    pub(crate) fn wait(
        &self,
        key: SlotKey,
        direction: Direction,
        id: Option<WaiterId>,
        waker: &Waker,
    ) -> Option<WaiterId> {
        let new = waker.clone();
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(key)?;
        let (id, old) = slot.waiters(direction).queue.wait(id, new);
        let ready = slot.readiness.intersects(Readiness::of(direction));
        drop(slots);
        drop(old);
        if ready {
            // The clone has turned the shard.
            waker.wake_by_ref();
        }
        Some(id)
    }

    /// A `&self` future is gone.
    pub(crate) fn forget(&self, key: SlotKey, direction: Direction, id: WaiterId) {
        let old = self
            .slots
            .borrow_mut()
            .get_mut(key)
            .and_then(|slot| slot.waiters(direction).queue.forget(id));
        drop(old);
    }

    /// The socket has left this shard: for another, where it is registered by now (`moved`; then tasks that still
    /// wait here keep the slot until they have been woken, and nothing happens if it has come back meanwhile), or for good.
    pub(crate) fn release(&self, key: SlotKey, moved: Option<u32>) {
        self.send_gathered_of(key);
        {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(key) else { return };
            if moved.is_some_and(|time| time <= slot.socket.came_back) {
                return;
            }
            if moved.is_some() && (slot.is_waited_for() || !slot.socket.out.is_empty()) {
                slot.leaving = true;
                return;
            }
        }
        self.deregister(key);
    }

    /// The socket is back, at a slot that it had left to those who still waited there, or that has not heard of it yet.
    /// `left` is how often it has left. False: the slot is gone.
    pub(super) fn take_back(&self, key: SlotKey, fd: RawFd, left: u32) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key).filter(|slot| slot.socket.fd == fd) else {
            return false;
        };
        slot.leaving = false;
        slot.socket.came_back = left;
        slot.readiness = slot.readiness.with(self.distrusted());
        true
    }

    /// Forgets the slot and tells the kernel, because the fd may live on.
    pub(crate) fn deregister(&self, key: SlotKey) {
        let slot = self.slots.borrow_mut().remove(key);
        if let Some(slot) = slot {
            let fd = slot.socket.fd;
            // It fails only if the fd is not registered, which is what was wanted.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
            slot.socket.give_bytes_up();
            wake_all(slot);
        }
    }

    /// The socket is taken out of the runtime: what it holds is sent as far as the kernel takes it.
    pub(crate) fn send_and_deregister(&self, key: SlotKey) {
        self.send_gathered_of(key);
        self.send_rest(key);
        self.deregister(key);
    }

    /// Forgets the slot of a socket whose fd is about to be closed here, which tells the kernel enough. If somebody
    /// has duplicated the fd, events may still come; their key finds nothing.
    pub(crate) fn forget_slot(&self, key: SlotKey) {
        self.send_gathered_of(key);
        self.send_rest(key);
        let slot = self.slots.borrow_mut().remove(key);
        // Nobody waits for a socket that is being dropped; but a key can come again after a million others.
        slot.into_iter().for_each(wake_all);
    }

    /// Threads that are no shard wait. They have no view of the cached readiness, so the kernel is asked anew: changing an
    /// edge-triggered registration reports what is ready now.
    pub(crate) fn watch(&self, key: SlotKey, direction: Direction, watchers: Arc<Watchers>) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else {
            drop(slots);
            return watchers.wake_all();
        };
        slot.readiness = slot.readiness.without(Readiness::of(direction));
        slot.waiters(direction).queue.wait(None, Waker::from(watchers));
        let fd = slot.socket.fd;
        let token = mio::Token(key.to_bits() as usize);
        let armed = self.poll.registry().reregister(&mut SourceFd(&fd), token, interest());
        drop(slots);
        if armed.is_err() {
            self.wake_waiters(key, true);
        }
    }

    /// Looks at the sockets, waiting up to `timeout` for the first event, and wakes who waits for what happened.
    pub(crate) fn poll(&self, timeout: Option<Duration>) {
        self.poll.wait(timeout, |token, event| self.dispatch(SlotKey::from_bits(token), event));
    }

    fn dispatch(&self, key: SlotKey, event: &Event) {
        let more = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(key) else { return };
            slot.readiness = slot.readiness.with(readiness_of(event));
            slot.wake_tasks(is_task);
            slot.is_waited_for() || slot.leaving || slot.socket.refused
        };
        if more {
            self.attend(key);
        }
    }

    /// There is more to a slot that has become ready than the task that polls: others wait, it is leaving, or holds bytes.
    #[inline(never)]
    fn attend(&self, key: SlotKey) {
        self.send_rest(key);
        self.wake_waiters(key, false);
    }

    /// Wakes those in a slot that its readiness concerns, one by one: each may come back here.
    pub(super) fn wake_waiters(&self, key: SlotKey, all: bool) {
        loop {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(key) else { return };
            let waiter = slot.take_waiter(all);
            let left = slot.leaving && !slot.is_waited_for() && slot.socket.out.is_empty();
            drop(slots);
            match waiter {
                Some(waker) => wake_counted(waker),
                None if left => return self.deregister(key),
                None => return,
            }
        }
    }

    /// Drops every slot, after waking those who wait: the end of the shard. Sockets that live on elsewhere register
    /// anew where they are polled.
    pub(crate) fn clear_slots(&self) {
        let all: Vec<_> = self.slots.borrow_mut().drain().collect();
        for slot in all {
            let fd = slot.socket.fd;
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
            slot.socket.give_bytes_up();
            wake_all(slot);
        }
    }
}

/// Whoever waits in a slot that is gone comes back and registers anew.
fn wake_all(mut slot: Slot<Registered>) {
    while let Some(waker) = slot.take_waiter(true) {
        wake_counted(waker);
    }
}

/// A system call, again if a signal came in between.
#[inline(always)]
pub(super) fn retried<R>(mut call: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
