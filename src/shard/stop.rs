//! Who waits to hear that the shard is to stop.
//!
//! Each waiting future owns one place in the table from its first poll until it is dropped, so what the table holds is
//! bounded by the futures that exist. Only the shard's thread touches it. Nothing is borrowed while a waker is cloned,
//! woken or dropped: it may come back.

use crate::table::Table;
use crate::task::waker::wake_counted;
use std::cell::RefCell;
use std::task::Waker;

/// See the module.
pub(crate) struct StopWaiters {
    /// None: it has been woken.
    places: RefCell<Table<Option<Waker>>>,
}

impl StopWaiters {
    pub(crate) const fn new() -> StopWaiters {
        StopWaiters { places: RefCell::new(Table::new()) }
    }

    /// Takes a place. It is to be given back by `leave`.
    pub(crate) fn join(&self, waker: &Waker) -> u32 {
        let waker = waker.clone();
        self.places.borrow_mut().insert(Some(waker))
    }

    /// The future in this place is polled by `waker` now.
    pub(crate) fn renew(&self, place: u32, waker: &Waker) {
        let is_known =
            |known: &Option<Waker>| known.as_ref().is_some_and(|known| known.will_wake(waker));
        if self.places.borrow().get(place).is_some_and(is_known) {
            return;
        }
        let mut spare = Some(waker.clone());
        if let Some(known) = self.places.borrow_mut().get_mut(place) {
            std::mem::swap(known, &mut spare);
        }
        drop(spare);
    }

    pub(crate) fn leave(&self, place: u32) {
        let old = self.places.borrow_mut().remove(place);
        drop(old);
    }

    /// Wakes all who wait. They keep their places.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<Waker> =
            self.places.borrow_mut().iter_mut().filter_map(Option::take).collect();
        for waker in wakers {
            wake_counted(waker);
        }
    }
}
