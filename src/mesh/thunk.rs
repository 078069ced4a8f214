//! An errand that travels to another shard, stored in the message itself if it is small.
//!
//! A boxed closure would be allocated by one core and freed by another, at several times the cost of the queue. What is
//! posted may have three words; a call two, beside the place of its answer. A thunk is made on one thread, and called or
//! dropped, once, on any other.

#![allow(unsafe_code)]

use std::any::TypeId;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};
use std::ptr;

/// Words that a closure may take without being boxed: with the vtable, two and a half of these to a cache line.
const WORDS: usize = 3;

type Data = MaybeUninit<[usize; WORDS]>;

/// What travels: a closure with a name, so that one that was refused can be given back.
pub(crate) trait Errand: Send + 'static {
    fn run(self);
}

/// A plain closure as an errand.
pub(crate) struct Closure<F>(pub(crate) F);

impl<F: FnOnce() + Send + 'static> Errand for Closure<F> {
    fn run(self) {
        (self.0)();
    }
}

/// A boxed errand, with room for a small one in place of the box.
pub(crate) struct Thunk {
    data: Data,
    vtable: &'static Vtable,
    /// Not Sync, and Send only by the bound of `new`.
    _errand: PhantomData<*mut ()>,
}

struct Vtable {
    call: unsafe fn(*mut Data),
    drop: unsafe fn(*mut Data),
    type_id: fn() -> TypeId,
}

// SAFETY: `new` takes `Send` errands only, and a thunk owns its errand.
unsafe impl Send for Thunk {}

/// How an errand type `F` is stored.
struct Stored<F>(PhantomData<F>);

impl<F: Errand> Stored<F> {
    const INLINE: bool =
        size_of::<F>() <= size_of::<Data>() && align_of::<F>() <= align_of::<Data>();
    const VTABLE: Vtable = Vtable { call: Self::call, drop: Self::drop, type_id: TypeId::of::<F> };

    fn store(errand: F) -> Data {
        let mut data = Data::uninit();
        // SAFETY: INLINE says that F fits in size and alignment; otherwise a pointer to it does.
        unsafe {
            if Self::INLINE {
                data.as_mut_ptr().cast::<F>().write(errand);
            } else {
                data.as_mut_ptr().cast::<*mut F>().write(Box::into_raw(Box::new(errand)));
            }
        }
        data
    }

    /// Moves the closure out.
    ///
    /// # Safety
    /// `data` was made by `store` of the same type and is not used again.
    unsafe fn take(data: *mut Data) -> F {
        // SAFETY: by contract, what `store` wrote is still there.
        unsafe {
            if Self::INLINE {
                ptr::read(data.cast::<F>())
            } else {
                *Box::from_raw(ptr::read(data.cast::<*mut F>()))
            }
        }
    }

    unsafe fn call(data: *mut Data) {
        // SAFETY: the caller passes the contract of `take` on.
        unsafe { Self::take(data) }.run();
    }

    unsafe fn drop(data: *mut Data) {
        // SAFETY: the caller passes the contract of `take` on.
        drop(unsafe { Self::take(data) });
    }
}

impl Thunk {
    pub(crate) fn new<F: Errand>(errand: F) -> Thunk {
        Thunk { data: Stored::store(errand), vtable: &Stored::<F>::VTABLE, _errand: PhantomData }
    }

    /// The errand back, for the sender whose message was refused.
    pub(crate) fn into_errand<F: Errand>(self) -> Option<F> {
        if (self.vtable.type_id)() != TypeId::of::<F>() {
            return None;
        }
        let mut thunk = ManuallyDrop::new(self);
        // SAFETY: the stored type is F, and ManuallyDrop keeps the data from being used again.
        Some(unsafe { Stored::<F>::take(&raw mut thunk.data) })
    }

    /// Runs the errand.
    pub(crate) fn call(self) {
        let mut thunk = ManuallyDrop::new(self);
        // SAFETY: the vtable belongs to the stored type, and ManuallyDrop keeps the data from being used again.
        unsafe { (thunk.vtable.call)(&raw mut thunk.data) }
    }
}

impl Drop for Thunk {
    fn drop(&mut self) {
        // SAFETY: the vtable belongs to the stored type; the data is not used after a drop.
        unsafe { (self.vtable.drop)(&raw mut self.data) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[repr(align(64))]
    struct Aligned(Arc<AtomicUsize>);

    fn calls_and_drops_once<F: FnOnce() + Send + 'static>(make: impl Fn(Arc<AtomicUsize>) -> F) {
        let count = Arc::new(AtomicUsize::new(0));
        Thunk::new(Closure(make(count.clone()))).call();
        assert_eq!((count.load(Ordering::Relaxed), Arc::strong_count(&count)), (1, 1));
        drop(Thunk::new(Closure(make(count.clone()))));
        assert_eq!((count.load(Ordering::Relaxed), Arc::strong_count(&count)), (1, 1));
    }

    #[test]
    fn small_large_and_overaligned_closures_run_or_drop_exactly_once() {
        calls_and_drops_once(|count| {
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        calls_and_drops_once(|count| {
            let large = [7u8; 100];
            move || {
                count.fetch_add(usize::from(large[99] == 7), Ordering::Relaxed);
            }
        });
        calls_and_drops_once(|count| {
            let aligned = Aligned(count);
            move || {
                assert_eq!(ptr::from_ref(&aligned).addr() % 64, 0);
                aligned.0.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    #[test]
    fn a_refused_errand_comes_back_as_itself() {
        let value = Arc::new(5);
        let make = |value: Arc<i32>| move || assert_eq!(*value, 5);
        fn back<F: FnOnce() + Send + 'static>(closure: F) -> F {
            let Closure(closure) =
                Thunk::new(Closure(closure)).into_errand::<Closure<F>>().expect("same type");
            closure
        }
        back(make(value.clone()))();
        assert!(Thunk::new(Closure(make(value.clone()))).into_errand::<Closure<fn()>>().is_none());
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_closure_of_the_limit_is_stored_inline() {
        fn size_of_closure<F: FnOnce() + Send + 'static>(_: &F) -> bool {
            Stored::<Closure<F>>::INLINE
        }
        let words = [1usize; WORDS];
        let more = [1usize; WORDS + 1];
        assert!(size_of_closure(&move || assert_eq!(words[0], 1)));
        assert!(!size_of_closure(&move || assert_eq!(more[0], 1)));
    }
}
