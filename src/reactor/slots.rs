//! Readiness and waiting tasks of the sockets registered with one shard.
//!
//! Plain data: the shard's own thread is the only user. Each registered socket has a slot; its key carries a
//! generation, so an event or a message about a socket that is gone finds nothing, and so does a key of another
//! reactor, whose number it carries too.
//!
//! Readiness is cached: an edge-triggered event sets it, a system call that would block clears it. Both happen on the
//! same thread, never during each other, so an event cannot be erased by a call that began before it. What a peer
//! has closed stays ready for ever, since the kernel does not say it twice.

use crate::table::Table;
use crate::wait_queue::WaitQueue;
use std::task::Waker;

/// Names a slot, and the socket that had it: from the top, 24 bits for the number of the reactor, 20 for the generation
/// and 20 for the index. One word, so that one comparison says whether a slot is the socket's, here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotKey(u64);

impl SlotKey {
    /// Name no slot, ever: no reactor has their number.
    pub(crate) const NOWHERE: SlotKey = SlotKey(u64::MAX);
    pub(crate) const NOBODY: SlotKey = SlotKey(u64::MAX - 1);
}

const KEY_BITS: u32 = 20;
const KEY_MASK: u32 = (1 << KEY_BITS) - 1;

/// Sockets that one shard can have registered at a time.
pub(crate) const SLOTS_MAX: u32 = KEY_MASK;

/// The way that bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// What a socket is ready for, as one byte of flags.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug, Default)]
pub(crate) struct Readiness(u8);

impl Readiness {
    pub(crate) const NONE: Readiness = Readiness(0);
    pub(crate) const READABLE: Readiness = Readiness(1 << 0);
    pub(crate) const WRITABLE: Readiness = Readiness(1 << 1);
    pub(crate) const READ_CLOSED: Readiness = Readiness(1 << 2);
    pub(crate) const WRITE_CLOSED: Readiness = Readiness(1 << 3);
    pub(crate) const ERROR: Readiness = Readiness(1 << 4);
    pub(crate) const PRIORITY: Readiness = Readiness(1 << 5);

    pub(crate) const fn to_bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Readiness {
        Readiness(bits)
    }

    pub(crate) const fn with(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }

    pub(crate) const fn without(self, other: Readiness) -> Readiness {
        Readiness(self.0 & !other.0)
    }

    pub(crate) const fn intersects(self, other: Readiness) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn only(self, other: Readiness) -> Readiness {
        Readiness(self.0 & other.0)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What an operation in this direction uses up.
    pub(crate) const fn transient(direction: Direction) -> Readiness {
        match direction {
            Direction::Read => Readiness::READABLE,
            Direction::Write => Readiness::WRITABLE,
        }
    }

    /// What is over when an operation in this direction would block, even what seemed to be closed.
    pub(crate) const fn over(direction: Direction) -> Readiness {
        match direction {
            Direction::Read => Readiness::of(direction).with(Readiness::PRIORITY),
            Direction::Write => Readiness::of(direction),
        }
    }

    /// What makes an operation in this direction worth trying.
    pub(crate) const fn of(direction: Direction) -> Readiness {
        match direction {
            Direction::Read => {
                Readiness::READABLE.with(Readiness::READ_CLOSED).with(Readiness::ERROR)
            }
            Direction::Write => {
                Readiness::WRITABLE.with(Readiness::WRITE_CLOSED).with(Readiness::ERROR)
            }
        }
    }
}

/// Tasks that wait for one direction.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// The task that polled last: `poll_*` methods promise no more than that. The common case, free of allocation. It
    /// stays when it has been woken, since the same task will most likely wait again.
    polling: Option<Waker>,
    /// Whether that task waits.
    waiting: bool,
    /// Tasks inside `&self` futures.
    pub(crate) queue: WaitQueue,
}

impl Waiters {
    /// The task of a `poll_*` method waits. False: it is not the one that polled last, see `set_polling`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn wait_again(&mut self, waker: &Waker) -> bool {
        let known = self.polling.as_ref().is_some_and(|known| known.will_wake(waker));
        if known {
            self.waiting = true;
        }
        known
    }

    /// Another task polls. Its waker was cloned before the slots were borrowed, and the one it takes the place of is to
    /// be dropped when they no longer are: either can run anybody's code.
    #[must_use = "drop it outside the borrow"]
    pub(crate) fn set_polling(&mut self, waker: Waker) -> Option<Waker> {
        self.waiting = true;
        self.polling.replace(waker)
    }

    /// Wakes the polling task if `ours` says that its waker runs nobody's code, so that it may be woken during a borrow.
    #[inline]
    fn wake_task(&mut self, ours: impl Fn(&Waker) -> bool) {
        if self.waiting
            && let Some(waker) = &self.polling
            && ours(waker)
        {
            self.waiting = false;
            waker.wake_by_ref();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.waiting && self.queue.is_empty()
    }

    /// Takes one of those who wait; called until there is none.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Waker> {
        if std::mem::take(&mut self.waiting) {
            return self.polling.take();
        }
        self.queue.take()
    }
}

/// One registered socket.
pub(crate) struct Slot<S> {
    pub(crate) readiness: Readiness,
    /// The socket has moved to another shard; the slot goes when nobody waits in it any more.
    pub(crate) leaving: bool,
    pub(crate) read: Waiters,
    pub(crate) write: Waiters,
    /// What the reactor keeps for the socket: the fd itself, and bytes that wait to be sent.
    pub(crate) socket: S,
}

impl<S> Slot<S> {
    pub(crate) fn new(socket: S) -> Slot<S> {
        Slot {
            readiness: Readiness::default(),
            leaving: false,
            read: Waiters::default(),
            write: Waiters::default(),
            socket,
        }
    }

    #[inline]
    pub(crate) fn waiters(&mut self, direction: Direction) -> &mut Waiters {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        !self.read.is_empty() || !self.write.is_empty()
    }

    /// Wakes the polling tasks that the present readiness concerns, as far as `Waiters::wake_task` may.
    #[inline]
    pub(crate) fn wake_tasks(&mut self, ours: impl Fn(&Waker) -> bool) {
        if self.readiness.intersects(Readiness::of(Direction::Read).with(Readiness::PRIORITY)) {
            self.read.wake_task(&ours);
        }
        if self.readiness.intersects(Readiness::of(Direction::Write)) {
            self.write.wake_task(&ours);
        }
    }

    /// Takes a waiter that the present readiness concerns, or everybody in turn if `all`.
    #[inline]
    pub(crate) fn take_waiter(&mut self, all: bool) -> Option<Waker> {
        let readable = Readiness::of(Direction::Read).with(Readiness::PRIORITY);
        if (all || self.readiness.intersects(readable))
            && let Some(waker) = self.read.take()
        {
            return Some(waker);
        }
        if all || self.readiness.intersects(Readiness::of(Direction::Write)) {
            return self.write.take();
        }
        None
    }
}

/// The slots of one reactor.
pub(crate) struct Slots<T> {
    table: Table<Entry<T>>,
    /// The reactor's number.
    owner: u32,
    next_generation: u32,
}

struct Entry<T> {
    key: SlotKey,
    slot: T,
}

impl<T> Slots<T> {
    /// Those of the reactor called `owner`, of 24 bits.
    pub(crate) const fn new(owner: u32) -> Self {
        Slots { table: Table::new(), owner, next_generation: 0 }
    }

    /// Stores a slot, or gives it back if there are too many.
    pub(crate) fn insert(&mut self, slot: T) -> Result<SlotKey, T> {
        let Some(key) = self.fresh_key() else { return Err(slot) };
        self.table.insert(Entry { key, slot });
        Ok(key)
    }

    /// [`insert`](Self::insert), for a slot that knows its key. None: there are too many.
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(SlotKey) -> T) -> Option<&T> {
        let key = self.fresh_key()?;
        let slot = make(key);
        let index = self.table.insert(Entry { key, slot });
        self.table.get(index).map(|entry| &entry.slot)
    }

    /// Of the slot that is used next. One sequence of generations for all: a slot that is reused at once still gets one long
    /// unused. None: every slot is in use.
    fn fresh_key(&mut self) -> Option<SlotKey> {
        if self.table.len() as u32 >= SLOTS_MAX {
            return None;
        }
        let generation = self.next_generation;
        self.next_generation = (generation + 1) & KEY_MASK;
        Some(SlotKey::new(self.owner, generation, self.table.vacant()))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: SlotKey) -> Option<&mut T> {
        let entry = self.table.get_mut(key.index())?;
        if entry.key == key { Some(&mut entry.slot) } else { None }
    }

    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server's end looks at all"))]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.table.iter_mut().map(|entry| &mut entry.slot)
    }

    pub(crate) fn remove(&mut self, key: SlotKey) -> Option<T> {
        self.get_mut(key)?;
        self.table.remove(key.index()).map(|entry| entry.slot)
    }

    /// Takes every slot: the end of the reactor.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        (0..self.table.capacity())
            .filter_map(|index| self.table.remove(index))
            .map(|entry| entry.slot)
    }
}

impl SlotKey {
    const fn new(owner: u32, generation: u32, index: u32) -> SlotKey {
        SlotKey((owner as u64) << (2 * KEY_BITS) | (generation as u64) << KEY_BITS | index as u64)
    }

    /// The number of the reactor.
    #[inline(always)]
    pub(crate) const fn owner(self) -> u32 {
        (self.0 >> (2 * KEY_BITS)) as u32
    }

    #[inline(always)]
    const fn index(self) -> u32 {
        self.0 as u32 & KEY_MASK
    }

    #[inline(always)]
    pub(crate) const fn to_bits(self) -> u64 {
        self.0
    }

    /// Any bits: what no slot has had finds none.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> SlotKey {
        SlotKey(bits)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stale_key_finds_nothing(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..300)) {
            let mut slots = Slots::new(7);
            let mut other = Slots::new(8);
            let mut live = Vec::new();
            let mut dead = Vec::new();
            for (number, (insert, pick)) in steps.into_iter().enumerate() {
                if insert || live.is_empty() {
                    live.push((slots.insert(number).expect("few"), number));
                    let alike = other.insert(number).expect("few");
                    prop_assert!(slots.get_mut(alike).is_none(), "a key of another reactor");
                } else {
                    let (key, value) = live.swap_remove(pick.index(live.len()));
                    prop_assert_eq!(slots.remove(key).expect("live"), value);
                    dead.push(key);
                }
                for (key, value) in &live {
                    prop_assert_eq!(&slots.get_mut(*key).expect("live"), &value);
                    prop_assert_eq!(SlotKey::from_bits(key.to_bits()), *key);
                    prop_assert_eq!(key.owner(), 7);
                }
                prop_assert!(dead.iter().all(|key| slots.get_mut(*key).is_none()));
            }
        }
    }

    #[test]
    fn every_waiter_is_woken_once() {
        let mut slot = Slot::new(());
        let waker = || Waker::noop().clone();
        assert!(!slot.read.wait_again(&waker()), "nobody has polled");
        drop(slot.read.set_polling(waker()));
        assert!(slot.read.wait_again(&waker()));
        let (first, _) = slot.read.queue.wait(None, waker());
        drop(slot.read.queue.wait(None, waker()));
        drop(slot.read.queue.wait(Some(first), waker()));
        drop(slot.write.set_polling(waker()));
        slot.readiness = Readiness::READABLE;
        let woken = std::iter::from_fn(|| slot.take_waiter(false)).count();
        assert_eq!(woken, 3, "one polling task and two futures, not the writer");
        assert!(slot.is_waited_for(), "the writer still waits");
    }
}
