//! The one switch between the real world and the loom model checker.
//!
//! Everything that crosses threads is built from the names in this file, so a model sees every access. The rest of
//! the crate names neither `std::sync::atomic` nor `crossbeam_queue`. Under `--cfg loom` the same names come from
//! `sync/model.rs`: loom's types, and small models of what crossbeam promises.

#[cfg(any(feature = "server", all(loom, test)))]
pub(crate) mod live;
#[cfg(loom)]
mod model;

#[cfg(not(loom))]
mod real {
    pub(crate) use crossbeam_deque::{Injector, Steal, Stealer, Worker};
    pub(crate) use crossbeam_queue::{ArrayQueue, SegQueue};
    pub(crate) use std::alloc::dealloc;
    pub(crate) use std::cell::Cell;
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

    /// `std::cell::UnsafeCell` with loom's interface.
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

pub(crate) use crossbeam_utils::CachePadded;
#[cfg(loom)]
pub(crate) use model::*;
#[cfg(not(loom))]
pub(crate) use real::*;

/// A thread-local cell, in the one spelling that both worlds understand.
#[cfg(not(loom))]
macro_rules! thread_cell {
    ($(#[$doc:meta])* static $name:ident: Cell<$ty:ty> = $init:expr) => {
        std::thread_local! { $(#[$doc])* static $name: $crate::sync::Cell<$ty> = const { $crate::sync::Cell::new($init) } }
    };
}
#[cfg(loom)]
macro_rules! thread_cell {
    ($(#[$doc:meta])* static $name:ident: Cell<$ty:ty> = $init:expr) => {
        loom::thread_local! { $(#[$doc])* static $name: $crate::sync::Cell<$ty> = $crate::sync::Cell::new($init) }
    };
}
pub(crate) use thread_cell;

/// Locks a mutex; a panic of another holder does not matter to data that is replaced whole.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
