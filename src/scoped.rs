//! A thread-local reference that is set while a closure runs.
//!
//! Reading it is one load and a test for null: no destructor, no borrow count. It is what makes "the current shard"
//! cheap enough to be asked for at every socket operation.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;
use std::thread::LocalKey;

/// The contents of such a thread-local. Only the functions here touch the pointer.
pub(crate) struct Scoped<T>(Cell<*const T>);

impl<T: 'static> Scoped<T> {
    pub(crate) const fn unset() -> Self {
        Scoped(Cell::new(ptr::null()))
    }
}

/// Runs `f` while `key` refers to `value`. Calls nest: the outer reference is restored, also by a panic.
pub(crate) fn set<T: 'static, R>(
    key: &'static LocalKey<Scoped<T>>,
    value: &T,
    f: impl FnOnce() -> R,
) -> R {
    struct Restore<T: 'static>(&'static LocalKey<Scoped<T>>, *const T);
    impl<T: 'static> Drop for Restore<T> {
        fn drop(&mut self) {
            self.0.with(|scoped| scoped.0.set(self.1));
        }
    }
    let outer = key.with(|scoped| scoped.0.replace(ptr::from_ref(value)));
    let _restore = Restore(key, outer);
    f()
}

/// Runs `f` with what the innermost `set` of this thread refers to.
#[inline(always)]
pub(crate) fn get<T: 'static, R>(
    key: &'static LocalKey<Scoped<T>>,
    f: impl FnOnce(Option<&T>) -> R,
) -> R {
    let pointer = key.with(|scoped| scoped.0.get());
    // SAFETY: the pointer is null or was stored by `set`, which borrows the value until it has restored the one before.
    // It is this thread's own, and `f` runs within that call: whatever `f` does, the `set` above it has not returned.
    f(unsafe { pointer.as_ref() })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    thread_local! { static NUMBER: Scoped<i32> = const { Scoped::unset() } }

    fn number() -> Option<i32> {
        get(&NUMBER, |number| number.copied())
    }

    #[test]
    fn calls_nest_and_a_panic_restores() {
        assert_eq!(number(), None);
        set(&NUMBER, &1, || {
            assert_eq!(number(), Some(1));
            let panicked =
                std::panic::catch_unwind(|| set(&NUMBER, &2, || panic!("{:?}", number())));
            assert!(panicked.is_err());
            assert_eq!(number(), Some(1));
        });
        assert_eq!(number(), None);
    }
}
