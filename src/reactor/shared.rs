//! The reactor of a pool of workers: one epoll instance, which whoever has nothing to do waits for.
//!
//! A socket has a slot of its own that any thread may touch: what it is ready for, as one atomic word, and who waits. The
//! word carries a count of the events so far, so that "would block" clears only the readiness it was answered for, and
//! never an event that came in between.
//!
//! One thread at a time [drives](SharedReactor::drive): it waits for events and takes the wakers they concern. It wakes
//! them when it has let go of the reactor, since a waker can be anybody's code.

use super::interest::Interest;
use super::poll::{readiness_of, register, wait_for};
use super::slots::{Direction, Readiness, SlotKey, Slots};
use crate::mesh::message::Watchers;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, lock};
use mio::unix::SourceFd;
use std::io;
use std::os::fd::RawFd;
use std::task::Waker;
use std::time::Duration;

/// See the module.
pub(crate) struct SharedReactor {
    driver: Mutex<Driver>,
    registry: mio::Registry,
    bell: mio::Waker,
    slots: Mutex<Slots<Arc<SharedSlot>>>,
}

/// What only the thread that drives touches.
pub(crate) struct Driver {
    poll: mio::Poll,
    events: mio::Events,
}

/// One registered socket.
pub(crate) struct SharedSlot {
    key: SlotKey,
    /// Readiness in the low bits, above it the number of events.
    readiness: AtomicU64,
    waiting: [Arc<Watchers>; 2],
    closed: AtomicBool,
}

const READINESS_BITS: u32 = 8;
/// Names no slot.
const BELL: mio::Token = mio::Token(usize::MAX);

impl SharedReactor {
    /// # Errors
    /// If the operating system has no epoll instance or eventfd for us.
    pub(crate) fn new(events: usize) -> io::Result<SharedReactor> {
        let poll = mio::Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let bell = mio::Waker::new(&registry, BELL)?;
        let driver = Driver { poll, events: mio::Events::with_capacity(events) };
        Ok(SharedReactor {
            driver: Mutex::new(driver),
            registry,
            bell,
            slots: Mutex::new(Slots::new(0)),
        })
    }

    /// Makes the wait of the thread that drives return, now or when it next waits.
    pub(crate) fn ring(&self) {
        let _ = self.bell.wake();
    }

    /// The right to drive, if nobody has it.
    pub(crate) fn try_drive(&self) -> Option<MutexGuard<'_, Driver>> {
        self.driver.try_lock().ok()
    }

    /// Waits for events and adds those who wait for them to `woken`, to be woken when the driver is given back.
    pub(crate) fn drive(
        &self,
        driver: &mut Driver,
        timeout: Option<Duration>,
        woken: &mut Vec<Waker>,
    ) {
        let Driver { poll, events } = driver;
        wait_for(poll, events, timeout);
        if events.is_empty() {
            return;
        }
        let mut slots = lock(&self.slots);
        for event in events.iter() {
            if let Some(slot) = slots.get_mut(SlotKey::from_bits(event.token().0 as u64)) {
                slot.report(readiness_of(event), woken);
            }
        }
    }

    /// Registers a socket for both directions. Its present readiness comes as an event.
    pub(crate) fn register(&self, fd: RawFd, assumed: Readiness) -> io::Result<Arc<SharedSlot>> {
        let slot = {
            let mut slots = lock(&self.slots);
            let slot = slots.insert_with(|key| Arc::new(SharedSlot::new(key, assumed)));
            slot.map(Arc::clone)
        };
        let too_many = || io::Error::other("a runtime can register about a million sockets");
        let slot = slot.ok_or_else(too_many)?;
        let token = mio::Token(slot.key.to_bits() as usize);
        if let Err(error) = register(&self.registry, fd, token) {
            self.forget(&slot);
            return Err(error);
        }
        Ok(slot)
    }

    /// From now until they have said "would block", all sockets are read when they are asked.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server asks for it"))]
    pub(crate) fn distrust_readiness(&self) {
        for slot in lock(&self.slots).iter_mut() {
            let readable = u64::from(Readiness::READABLE.to_bits());
            slot.readiness.fetch_or(readable, Ordering::AcqRel);
        }
    }

    /// A socket whose fd is about to be closed.
    pub(crate) fn forget(&self, slot: &SharedSlot) {
        let known = lock(&self.slots).remove(slot.key);
        drop(known);
        // A waker may hold the slot.
        let mut waiting = Vec::new();
        slot.waiting.iter().for_each(|watchers| watchers.take_all(&mut waiting));
    }

    /// A socket whose fd lives on.
    pub(crate) fn deregister(&self, slot: &SharedSlot, fd: RawFd) {
        self.forget(slot);
        // It fails only if the fd is not registered, which is what was wanted.
        let _ = self.registry.deregister(&mut SourceFd(&fd));
    }

    /// The end: nothing is reported any more, and whoever waits is told.
    pub(crate) fn close(&self) {
        let slots: Vec<_> = lock(&self.slots).drain().collect();
        for slot in slots {
            slot.closed.store(true, Ordering::Release);
            slot.waiting.iter().for_each(|watchers| watchers.wake_all());
        }
    }
}

impl SharedSlot {
    fn new(key: SlotKey, assumed: Readiness) -> SharedSlot {
        SharedSlot {
            key,
            readiness: AtomicU64::new(u64::from(assumed.to_bits())),
            waiting: Default::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether the reactor is gone, and will report nothing any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// An event, which adds to what is known.
    fn report(&self, ready: Readiness, woken: &mut Vec<Waker>) {
        let step =
            |now: u64| Some((now | u64::from(ready.to_bits())).wrapping_add(1 << READINESS_BITS));
        // AcqRel: who finds the socket ready sees what came before the event.
        let _ = self.readiness.fetch_update(Ordering::AcqRel, Ordering::Relaxed, step);
        // After the update: who registers a waker and then finds the socket not ready is found here.
        let readable = Readiness::of(Direction::Read).with(Readiness::PRIORITY);
        if ready.intersects(readable) {
            self.waiting(Direction::Read).take_all(woken);
        }
        if ready.intersects(Readiness::of(Direction::Write)) {
            self.waiting(Direction::Write).take_all(woken);
        }
    }

    /// What the socket is known to be ready for, and at which event.
    pub(crate) fn look(&self) -> Look {
        Look(self.readiness.load(Ordering::Acquire))
    }

    /// What was seen at `look` is over, unless there has been an event since.
    pub(crate) fn clear(&self, look: Look, over: Readiness) {
        let step = |now: u64| {
            let same = now >> READINESS_BITS == look.0 >> READINESS_BITS;
            same.then_some(now & !u64::from(over.to_bits()))
        };
        let _ = self.readiness.fetch_update(Ordering::AcqRel, Ordering::Relaxed, step);
    }

    /// Those who wait for one direction. Look again after joining them.
    pub(crate) fn waiting(&self, direction: Direction) -> &Arc<Watchers> {
        &self.waiting[direction as usize]
    }

    /// The task of a `poll_*` method: what the socket is ready for, or the task is woken when it is.
    pub(crate) fn poll(&self, direction: Direction, waker: &Waker) -> Option<Look> {
        let ready = |look: &Look| look.readiness().intersects(Readiness::of(direction));
        Some(self.look()).filter(ready).or_else(|| {
            self.waiting(direction).renew(waker);
            Some(self.look()).filter(ready)
        })
    }
}

/// What a slot said at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look(u64);

impl Look {
    pub(crate) fn readiness(self) -> Readiness {
        Readiness::from_bits(self.0 as u8)
    }

    /// What satisfies `interest`.
    pub(crate) fn for_interest(self, interest: Interest) -> Readiness {
        self.readiness().only(interest.readiness())
    }
}
