//! A value that many threads read all the time, and that is replaced as a whole now and then.
//!
//! The value is behind a lock, beside a number that counts replacements. Each reader keeps the value that it knows and its
//! number, and looks at the number only, which no core writes in steady state. The number changes after the value: a reader
//! that sees the new number finds the new value, or a newer one. The other way round it might keep the old value for ever.

use super::{Arc, AtomicU64, Mutex, Ordering, lock};
use std::cell::{Cell, Ref, RefCell};

/// What is read. See the module.
#[derive(Debug)]
pub(crate) struct Live<T> {
    /// How often the value was replaced.
    version: AtomicU64,
    value: Mutex<Arc<T>>,
}

impl<T> Live<T> {
    pub(crate) fn new(value: T) -> Live<T> {
        Live { version: AtomicU64::new(0), value: Mutex::new(Arc::new(value)) }
    }

    /// From now on every reader gets this.
    pub(crate) fn replace(&self, value: T) {
        let value = Arc::new(value);
        let before = std::mem::replace(&mut *lock(&self.value), value);
        self.version.fetch_add(1, Ordering::Release);
        drop(before);
    }
}

/// A reader: the value that one thread knows.
#[derive(Debug)]
pub(crate) struct Known<T> {
    live: Arc<Live<T>>,
    version: Cell<u64>,
    value: RefCell<Arc<T>>,
}

impl<T> Known<T> {
    pub(crate) fn new(live: Arc<Live<T>>) -> Known<T> {
        // Before the value: one that is newer than its number is only looked at once too often.
        let version = Cell::new(live.version.load(Ordering::Acquire));
        let value = RefCell::new(lock(&live.value).clone());
        Known { live, version, value }
    }

    /// The value that holds now.
    #[inline]
    pub(crate) fn get(&self) -> Ref<'_, Arc<T>> {
        let version = self.live.version.load(Ordering::Acquire);
        if version != self.version.get() {
            self.renew(version);
        }
        self.value.borrow()
    }

    #[cold]
    fn renew(&self, version: u64) {
        self.version.set(version);
        let value = lock(&self.live.value).clone();
        drop(self.value.replace(value));
    }
}
