//! The shard that this thread is in a turn of.
//!
//! A thread-local that is set for the length of a turn, and nothing else that is global. Free functions such as
//! `spawn_local` and every socket and timer find their shard here.

use super::Shard;
use crate::scoped::{self, Scoped};
use crate::task::waker;

thread_local! {
    static CURRENT: Scoped<Shard> = const { Scoped::unset() };
}

/// Runs `f` with the current shard.
#[inline(always)]
pub(crate) fn with_current<R>(f: impl FnOnce(&Shard) -> R) -> Option<R> {
    scoped::get(&CURRENT, |shard| shard.map(f))
}

/// Tells this poll of a task from the one before and the one after, on this shard; 0 on a thread that is none.
#[inline(always)]
pub(crate) fn poll_number() -> u64 {
    with_current(Shard::poll_number).unwrap_or(0)
}

/// What every function says that needs a shard and finds none.
#[cold]
#[track_caller]
pub(crate) fn outside(what: &str) -> ! {
    panic!(
        "{what} was called outside a Corelane shard: call it from a task of a Runtime, or inside corelane::block_on"
    )
}

/// Makes `shard` the current one, while `f` runs. Nested calls restore the outer shard.
pub(crate) fn enter<R>(shard: &Shard, f: impl FnOnce() -> R) -> R {
    struct Leave<'a>(&'a Shard);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            self.0.entered.set(self.0.entered.get() - 1);
        }
    }
    shard.entered.set(shard.entered.get() + 1);
    let _leave = Leave(shard);
    scoped::set(&CURRENT, shard, || {
        let _home = waker::enter(shard.home());
        f()
    })
}
