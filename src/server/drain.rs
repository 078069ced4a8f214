//! Telling every connection of a server to end after the request at hand.
//!
//! In thread-per-core mode each shard has its own, which no other thread touches; the workers of a pool share one. A
//! connection looks at a flag when it is polled, and is woken once when the flag is set.

use crate::shard::context::with_current;
use crate::sync::{AtomicBool, Mutex, Ordering, lock};
use crate::table::Table;
use crate::task::waker::wake_caught;
use std::task::Waker;

/// The connections of a server.
#[derive(Debug)]
pub(super) struct Drain {
    begun: AtomicBool,
    connections: Mutex<Table<Waker>>,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { begun: AtomicBool::new(false), connections: Mutex::new(Table::new()) }
    }
}

impl Drain {
    /// Whether connections must end.
    #[inline(always)]
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// From now on connections must end; wakes them all.
    pub(super) fn begin(&self) {
        // Under the lock: a connection that does not see it has joined before, and is woken.
        let wakers: Vec<Waker> = {
            let connections = lock(&self.connections);
            self.begun.store(true, Ordering::Relaxed);
            (0..connections.capacity())
                .filter_map(|index| connections.get(index).cloned())
                .collect()
        };
        with_current(|shard| {
            shard.reactor.distrust_readiness();
            if let Some(shared) = shard.shared() {
                shared.reactor.distrust_readiness();
            }
        });
        for waker in wakers {
            wake_caught(waker);
        }
    }

    /// A connection's task, to be woken by `begin`. Returns the number under which it leaves.
    pub(super) fn join(&self, waker: &Waker) -> u32 {
        lock(&self.connections).insert(waker.clone())
    }

    pub(super) fn leave(&self, number: u32) {
        let waker = lock(&self.connections).remove(number);
        drop(waker);
    }
}
