//! Telling every connection of a shard to end after the request at hand.
//!
//! Plain cells of one shard: a connection looks at a flag when it is polled, and is woken once when the flag is set.

use crate::shard::context::with_current;
use crate::table::Table;
use crate::task::waker::wake_caught;
use std::cell::{Cell, RefCell};
use std::task::Waker;

/// The connections of one shard's server.
#[derive(Debug)]
pub(super) struct Drain {
    begun: Cell<bool>,
    connections: RefCell<Table<Waker>>,
}

impl Default for Drain {
    fn default() -> Self {
        Drain { begun: Cell::new(false), connections: RefCell::new(Table::new()) }
    }
}

impl Drain {
    /// Whether connections must end.
    #[inline(always)]
    pub(super) fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// From now on connections must end; wakes them all.
    pub(super) fn begin(&self) {
        self.begun.set(true);
        with_current(|shard| shard.reactor.distrust_readiness());
        let wakers: Vec<Waker> = {
            let connections = self.connections.borrow();
            (0..connections.capacity())
                .filter_map(|index| connections.get(index).cloned())
                .collect()
        };
        for waker in wakers {
            wake_caught(waker);
        }
    }

    /// A connection's task, to be woken by `begin`. Returns the number under which it leaves.
    pub(super) fn join(&self, waker: &Waker) -> u32 {
        self.connections.borrow_mut().insert(waker.clone())
    }

    pub(super) fn leave(&self, number: u32) {
        let waker = self.connections.borrow_mut().remove(number);
        drop(waker);
    }
}
