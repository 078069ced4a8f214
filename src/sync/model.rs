//! The model checker's side of the switch: loom's types, made to notice and to commit more mistakes.
//!
//! - Dropping an atomic counts as a write to it, so whoever frees an object must be ordered after everybody who used
//!   it; using it later is caught too, since memory stays where it is for a while after it was freed.
//! - The queues promise what crossbeam's do and no more. An item's receiver sees what its sender did before; looking
//!   whether a queue is empty or full, or finding it so, orders nothing.
//! - A thread of a model can be given a [`Fault`], to show that the model would notice it.
//!
//! Compiled under `--cfg loom` only.

#![allow(unsafe_code)]

use loom::sync::atomic as checked;
use std::alloc::Layout;
use std::cell::{Cell as PlainCell, RefCell};
use std::collections::VecDeque;

pub(crate) use crossbeam_deque::Steal;
pub(crate) use loom::cell::{Cell, UnsafeCell};
pub(crate) use loom::sync::atomic::Ordering;
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};

/// What one thread of a model does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// Its fences do nothing.
    NoFences,
    /// Its updates of a word neither acquire nor release.
    UnorderedUpdates,
    /// Its read-modify-writes are a load and a store.
    TornUpdates,
    /// It leaves out a read-modify-write that would not change the value.
    IdleUpdatesLeftOut,
    /// It believes that a flag which was clear when it first looked has stayed so.
    FlagsReadOnce,
    /// It sets these bits of a word only in its imagination.
    Forgets(u64),
    /// It does not see these bits of a word when it merely looks.
    Overlooks(u64),
}

loom::thread_local! {
    static FAULT: PlainCell<Fault> = PlainCell::new(Fault::Nothing);
    static FLAGS_READ: RefCell<Vec<*const AtomicBool>> = RefCell::new(Vec::new());
}

/// The calling thread commits `fault` from now on.
pub(crate) fn commit(fault: Fault) {
    FAULT.with(|current| current.set(fault));
}

fn fault() -> Fault {
    FAULT.try_with(PlainCell::get).unwrap_or(Fault::Nothing)
}

pub(crate) fn fence(ordering: Ordering) {
    if fault() != Fault::NoFences {
        checked::fence(ordering);
    }
}

/// Frees memory some time later, so that a use after the free reads what was there, and is noticed.
///
/// # Safety
/// As `std::alloc::dealloc`.
pub(crate) unsafe fn dealloc(block: *mut u8, layout: Layout) {
    const KEPT: usize = 256;
    std::thread_local! {
        static FREED: RefCell<VecDeque<(*mut u8, Layout)>> = const { RefCell::new(VecDeque::new()) };
    }
    FREED.with_borrow_mut(|freed| {
        freed.push_back((block, layout));
        if freed.len() > KEPT
            && let Some((block, layout)) = freed.pop_front()
        {
            // SAFETY: by contract, of the call that left it here.
            unsafe { std::alloc::dealloc(block, layout) };
        }
    });
}

/// An atomic whose drop is an access like any other, and whose updates are one step each.
macro_rules! atomic {
    ($(<$param:ident>)? $name:ident: $ty:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name $(<$param>)? {
            value: checked::$name $(<$param>)?,
            /// The value as of the latest update, hidden from loom.
            latest: std::sync::atomic::$name $(<$param>)?,
            dropped: std::sync::atomic::AtomicBool,
        }

        impl $(<$param>)? $name $(<$param>)? {
            #[track_caller]
            pub(crate) fn new(value: $ty) -> Self {
                let latest = std::sync::atomic::$name::new(value);
                Self { value: checked::$name::new(value), latest, dropped: false.into() }
            }

            fn checked(&self) -> &checked::$name $(<$param>)? {
                assert!(!self.dropped.load(Ordering::Relaxed), "used after it was dropped");
                &self.value
            }

            /// Begins with the latest value, and begins again if it has changed when this thread's turn comes. Real
            /// updates begin with a load, which may be of any value; then the first attempt fails. A load would teach
            /// loom nothing, and keep it from seeing that the update may also come before another thread's load.
            #[track_caller]
            pub(crate) fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                mut step: impl FnMut($ty) -> Option<$ty>,
            ) -> Result<$ty, $ty> {
                let mut old = self.latest.load(Ordering::Relaxed);
                loop {
                    let Some(new) = step(old) else { return Err(old) };
                    let updated = match fault() {
                        Fault::IdleUpdatesLeftOut if old == new => Ok(old),
                        Fault::TornUpdates => self.exchange_in_two_steps(old, new),
                        Fault::Forgets(bits) => self.exchange(old, Self::forget(bits, old, new), success, failure),
                        Fault::UnorderedUpdates => self.exchange(old, new, Ordering::Relaxed, Ordering::Relaxed),
                        _ => self.exchange(old, new, success, failure),
                    };
                    match updated {
                        Ok(_) => return updated,
                        Err(actual) => old = actual,
                    }
                }
            }

            #[track_caller]
            fn exchange(&self, old: $ty, new: $ty, success: Ordering, failure: Ordering) -> Result<$ty, $ty> {
                let exchanged = self.checked().compare_exchange(old, new, success, failure);
                if exchanged.is_ok() {
                    self.latest.store(new, Ordering::Relaxed);
                }
                exchanged
            }

            #[track_caller]
            fn exchange_in_two_steps(&self, old: $ty, new: $ty) -> Result<$ty, $ty> {
                let found = self.checked().load(Ordering::Acquire);
                if found != old {
                    return Err(found);
                }
                self.checked().swap(new, Ordering::Release);
                self.latest.store(new, Ordering::Relaxed);
                Ok(old)
            }

            #[track_caller]
            pub(crate) fn swap(&self, value: $ty, order: Ordering) -> $ty {
                let old = if fault() == Fault::TornUpdates {
                    let old = self.checked().load(Ordering::Acquire);
                    self.checked().swap(value, Ordering::Release);
                    old
                } else {
                    self.checked().swap(value, order)
                };
                self.latest.store(value, Ordering::Relaxed);
                old
            }
        }

        impl $(<$param>)? Drop for $name $(<$param>)? {
            #[track_caller]
            fn drop(&mut self) {
                let dropped = std::mem::replace(self.dropped.get_mut(), true);
                assert!(!dropped, "dropped twice");
                if !std::thread::panicking() {
                    self.value.with_mut(|_| ());
                }
            }
        }
    };
}

atomic!(AtomicU32: u32);
atomic!(AtomicU64: u64);
atomic!(<T> AtomicPtr: *mut T);

impl AtomicU32 {
    fn forget(_bits: u64, _old: u32, new: u32) -> u32 {
        new
    }

    #[track_caller]
    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.checked().load(order)
    }

    /// An update to loom, which does not know otherwise that a store which overwrites another thread's update comes
    /// after it, though what that update read was this thread's. So stores order a little more here than they do: they
    /// carry on the release sequence that they should end.
    #[track_caller]
    pub(crate) fn store(&self, value: u32, order: Ordering) {
        self.checked().swap(value, order);
    }
}

impl AtomicU64 {
    fn forget(bits: u64, old: u64, new: u64) -> u64 {
        new & (old | !bits)
    }

    #[track_caller]
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        let value = self.checked().load(order);
        if let Fault::Overlooks(bits) = fault() { value & !bits } else { value }
    }

    #[track_caller]
    pub(crate) fn fetch_add(&self, amount: u64, order: Ordering) -> u64 {
        if fault() == Fault::TornUpdates {
            return self.update(order, |value| value.wrapping_add(amount));
        }
        let old = self.checked().fetch_add(amount, order);
        self.latest.store(old.wrapping_add(amount), Ordering::Relaxed);
        old
    }

    #[track_caller]
    fn update(&self, order: Ordering, step: impl Fn(u64) -> u64) -> u64 {
        let updated = self.fetch_update(order, Ordering::Relaxed, |value| Some(step(value)));
        updated.unwrap_or_else(|value| value)
    }
}

#[cfg(test)]
impl AtomicU64 {
    #[track_caller]
    pub(crate) fn fetch_sub(&self, amount: u64, order: Ordering) -> u64 {
        self.update(order, |value| value.wrapping_sub(amount))
    }

    #[track_caller]
    pub(crate) fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.update(order, |value| value | bits)
    }

    #[track_caller]
    pub(crate) fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        self.update(order, |value| value & bits)
    }

    #[track_caller]
    pub(crate) fn compare_exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        match fault() {
            Fault::TornUpdates => self.exchange_in_two_steps(old, new),
            _ => self.exchange(old, new, success, failure),
        }
    }
}

impl<T> AtomicPtr<T> {
    fn forget(_bits: u64, _old: *mut T, new: *mut T) -> *mut T {
        new
    }

    #[track_caller]
    pub(crate) fn load(&self, order: Ordering) -> *mut T {
        self.checked().load(order)
    }

    #[track_caller]
    pub(crate) fn store(&self, value: *mut T, order: Ordering) {
        self.checked().store(value, order);
        self.latest.store(value, Ordering::Relaxed);
    }
}

/// A number to loom, whose own flags do not notice their end.
#[derive(Debug)]
pub(crate) struct AtomicBool(AtomicU32);

impl AtomicBool {
    #[track_caller]
    pub(crate) fn new(value: bool) -> Self {
        AtomicBool(AtomicU32::new(value.into()))
    }

    #[track_caller]
    pub(crate) fn load(&self, order: Ordering) -> bool {
        if fault() != Fault::FlagsReadOnce {
            return self.0.load(order) != 0;
        }
        let this = std::ptr::from_ref(self);
        let known = FLAGS_READ.with(|known| known.borrow().contains(&this));
        if known {
            return false;
        }
        let value = self.0.load(order) != 0;
        FLAGS_READ.with(|known| known.borrow_mut().push(this));
        value
    }

    #[track_caller]
    pub(crate) fn store(&self, value: bool, order: Ordering) {
        self.0.store(value.into(), order);
    }

    #[track_caller]
    pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value.into(), order) != 0
    }
}

/// `crossbeam_queue::ArrayQueue`.
pub(crate) struct ArrayQueue<T> {
    items: Items<T>,
    capacity: u64,
}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        ArrayQueue { items: Items::new(), capacity: capacity as u64 }
    }

    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        self.items.push(item, self.capacity)
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.items.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.len() == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.items.len() == self.capacity
    }
}

/// `crossbeam_queue::SegQueue`.
pub(crate) struct SegQueue<T>(Items<T>);

impl<T> SegQueue<T> {
    pub(crate) fn new() -> Self {
        SegQueue(Items::new())
    }

    pub(crate) fn push(&self, item: T) {
        self.0.push_back(item);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.0.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

/// `crossbeam_deque::Worker`. Which thread takes from it is nothing that the model would care for.
pub(crate) struct Worker<T>(std::sync::Arc<Items<T>>);

/// `crossbeam_deque::Stealer`.
pub(crate) struct Stealer<T>(std::sync::Arc<Items<T>>);

/// `crossbeam_deque::Injector`.
pub(crate) struct Injector<T>(Items<T>);

impl<T> Worker<T> {
    pub(crate) fn new_fifo() -> Self {
        Worker(std::sync::Arc::new(Items::new()))
    }

    pub(crate) fn stealer(&self) -> Stealer<T> {
        Stealer(self.0.clone())
    }

    pub(crate) fn push(&self, item: T) {
        self.0.push_back(item);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.0.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len() as usize
    }
}

impl<T> Stealer<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(crate) fn steal(&self) -> Steal<T> {
        stolen(self.0.pop())
    }

    /// One, and one more for the thief's own deque if there is one.
    pub(crate) fn steal_batch_and_pop(&self, to: &Worker<T>) -> Steal<T> {
        take_two(&self.0, to)
    }
}

impl<T> Injector<T> {
    pub(crate) fn new() -> Self {
        Injector(Items::new())
    }

    pub(crate) fn push(&self, item: T) {
        self.0.push_back(item);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(crate) fn steal(&self) -> Steal<T> {
        stolen(self.0.pop())
    }

    pub(crate) fn steal_batch_and_pop(&self, to: &Worker<T>) -> Steal<T> {
        take_two(&self.0, to)
    }
}

fn take_two<T>(from: &Items<T>, to: &Worker<T>) -> Steal<T> {
    let first = from.pop();
    if first.is_some()
        && let Some(second) = from.pop()
    {
        to.push(second);
    }
    stolen(first)
}

fn stolen<T>(item: Option<T>) -> Steal<T> {
    item.map_or(Steal::Empty, Steal::Success)
}

/// A queue whose order is that of the updates of its length. The list itself is hidden from loom: it is touched right
/// after such an update, before another thread can run.
struct Items<T> {
    len: checked::AtomicU64,
    list: std::sync::Mutex<VecDeque<T>>,
}

/// No queue is as long.
const NEVER: u64 = u64::MAX;

impl<T> Items<T> {
    fn new() -> Self {
        Items { len: checked::AtomicU64::new(0), list: std::sync::Mutex::default() }
    }

    /// Some value that the length has had, if nothing orders this thread after the change.
    fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    fn list(&self) -> std::sync::MutexGuard<'_, VecDeque<T>> {
        self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn push(&self, item: T, capacity: u64) -> Result<(), T> {
        let mut len = self.list().len() as u64;
        loop {
            // Release, partner: the update in `pop`. A full queue is looked at by an update that fails.
            let expected = if len < capacity { len } else { NEVER };
            match self.len.compare_exchange(expected, len + 1, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => {
                    self.list().push_back(item);
                    return Ok(());
                }
                Err(actual) if actual >= capacity => return Err(item),
                Err(actual) => len = actual,
            }
        }
    }

    fn push_back(&self, item: T) {
        let pushed = self.push(item, u64::MAX);
        assert!(pushed.is_ok(), "an unbounded queue is never full");
    }

    fn pop(&self) -> Option<T> {
        let mut len = self.len();
        while len > 0 {
            if fault() == Fault::TornUpdates {
                self.len.store(len - 1, Ordering::Release);
                return Some(self.taken());
            }
            // Acquire, partner: the update in `push`.
            match self.len.compare_exchange(len, len - 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(self.taken()),
                Err(actual) => len = actual,
            }
        }
        None
    }

    fn taken(&self) -> T {
        self.list().pop_front().expect("an item was taken twice")
    }
}
