//! Tasks that wait for the same thing, in the order in which they came, each of which may give up.
//!
//! Plain data. A waker is cloned before whatever guards the queue is locked or borrowed, and those that come out are
//! dropped or woken when it no longer is: either can run anybody's code.

use std::collections::VecDeque;
use std::task::Waker;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    /// In the order of their numbers.
    waiting: VecDeque<(u64, Waker)>,
    next: u64,
}

/// Names one who waits within its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaiterId(u64);

impl WaitQueue {
    /// Joins at the end; or, under the `id` of one who still waits, renews the waker. The old one comes back.
    pub(crate) fn wait(&mut self, id: Option<WaiterId>, waker: Waker) -> (WaiterId, Option<Waker>) {
        if let Some(id) = id
            && let Some(position) = self.position(id)
        {
            return (id, Some(std::mem::replace(&mut self.waiting[position].1, waker)));
        }
        let id = self.next;
        self.next += 1;
        self.waiting.push_back((id, waker));
        (WaiterId(id), None)
    }

    /// Whether the one called `id` waits: it was neither taken nor forgotten.
    pub(crate) fn knows(&self, id: WaiterId) -> bool {
        self.position(id).is_some()
    }

    /// One gives up.
    #[must_use = "drop it outside the borrow"]
    pub(crate) fn forget(&mut self, id: WaiterId) -> Option<Waker> {
        let position = self.position(id)?;
        let (_, waker) = self.waiting.remove(position)?;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(waker)
    }

    /// Takes the first.
    pub(crate) fn take(&mut self) -> Option<Waker> {
        self.waiting.pop_front().map(|(_, waker)| waker)
    }

    /// Takes everybody.
    #[must_use = "wake them outside the borrow"]
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, waker)| waker)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn position(&self, WaiterId(id): WaiterId) -> Option<usize> {
        self.waiting.binary_search_by_key(&id, |(id, _)| *id).ok()
    }
}
