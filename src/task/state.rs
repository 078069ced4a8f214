//! The part of a task that any thread may touch: one atomic word.
//!
//! The word holds request bits for the home, and a signed count. References are counted where they are made and
//! dropped: at home in a plain counter, elsewhere in this count. A waker that was cloned at home and dropped on
//! another thread leaves +1 there and -1 here; only the sum says whether anybody is left, and only the home may add
//! it up. Rules that every transition keeps:
//!
//! - `QUEUED` set: the cell is in its home's wake stack, or the thread that set the bit is about to put it there.
//!   The home does not free a cell while it is set.
//! - A foreign drop that takes the count below zero sends the cell home (sets `QUEUED`), so that the home adds up.
//! - The home, when its own counter falls to zero or below, takes the count over. So "home counter zero" and "count
//!   zero" together mean that no reference exists anywhere, and no new one can appear.
//! - When the home goes away it moves its counter into the word and sets `ORPHAN`; from then on the word alone counts,
//!   and whoever takes it to zero frees the memory. Future and output are long gone by then.

use crate::sync::{AtomicU64, Ordering};

/// The cell is in the wake stack of its home, or on its way there.
const QUEUED: u64 = 1 << 0;
/// A foreign thread wants the task polled.
const NOTIFIED: u64 = 1 << 1;
/// A foreign thread wants the task cancelled.
const ABORT: u64 = 1 << 2;
/// A foreign thread dropped the join handle.
const DETACHED: u64 = 1 << 3;
/// The home is gone.
const ORPHAN: u64 = 1 << 4;

const REQUESTS: u64 = NOTIFIED | ABORT | DETACHED;
const COUNT_SHIFT: u32 = 8;
/// One reference. The count is the word shifted right as a signed number.
const ONE: u64 = 1 << COUNT_SHIFT;
/// No program holds this many references; one that leaks them must not wrap round into a free.
const COUNT_MAX: i64 = 1 << 48;

/// What a foreign thread may ask of a task's home.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    Wake,
    Abort,
    Detach,
}

/// What the foreign thread that made a transition must do next.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    /// Nothing; and it may not touch the cell again unless it holds another reference.
    Nothing,
    /// Push the cell on its home's wake stack, and ring. If the stack is closed, call `push_failed`.
    Push,
    /// Free the memory: this was the last reference to an orphan.
    Free,
}

/// What the home finds in the word when it takes a cell out of its wake stack.
#[derive(Debug)]
#[must_use]
pub(crate) struct Requests {
    pub(crate) wake: bool,
    pub(crate) abort: bool,
    pub(crate) detach: bool,
    /// To be added to the home's own counter; zero or negative.
    pub(crate) references: i64,
}

/// The word. See the module's rules. Nothing but the atomic: a transition's `&self` may outlive the memory by a few
/// instructions, when another thread frees it in between.
#[derive(Debug)]
pub(crate) struct Word {
    bits: AtomicU64,
}

fn count(word: u64) -> i64 {
    (word as i64) >> COUNT_SHIFT
}

impl Word {
    pub(crate) fn new() -> Self {
        Word { bits: AtomicU64::new(0) }
    }

    // Transitions of foreign threads. Each caller holds a reference, which the `_and_drop` forms give up.

    /// One more reference.
    #[must_use = "an overflowing count must abort"]
    pub(crate) fn clone_reference(&self) -> bool {
        // Relaxed: the new reference is made from one that exists, as in Arc.
        let old = self.bits.fetch_add(ONE, Ordering::Relaxed);
        count(old) < COUNT_MAX
    }

    /// Asks the home for something; the caller keeps its reference.
    pub(crate) fn request(&self, request: Request) -> Next {
        self.update(|old| match old {
            old if old & ORPHAN != 0 => (old, Next::Nothing),
            old if old & QUEUED != 0 => (old | request.bit(), Next::Nothing),
            old => (old | request.bit() | QUEUED, Next::Push),
        })
    }

    /// Asks for something and gives the caller's reference up, in one step.
    pub(crate) fn request_and_drop(&self, request: Request) -> Next {
        self.update(|old| {
            let new = old.wrapping_sub(ONE);
            match old {
                old if old & ORPHAN != 0 => (new, free_if_last(new)),
                old if old & QUEUED != 0 => (new | request.bit(), Next::Nothing),
                _ => (new | request.bit() | QUEUED, Next::Push),
            }
        })
    }

    /// Gives the caller's reference up.
    pub(crate) fn drop_reference(&self) -> Next {
        self.update(|old| {
            let new = old.wrapping_sub(ONE);
            match old {
                old if old & ORPHAN != 0 => (new, free_if_last(new)),
                // Below zero the home's counter is too high by what was dropped here: it must add up.
                old if old & QUEUED == 0 && count(new) < 0 => (new | QUEUED, Next::Push),
                _ => (new, Next::Nothing),
            }
        })
    }

    /// The stack refused the push because the home is closing or gone. Nobody will look at the requests any more.
    pub(crate) fn push_failed(&self) -> Next {
        self.update(|old| {
            let new = old & !(QUEUED | REQUESTS);
            (new, if old & ORPHAN != 0 { free_if_last(new) } else { Next::Nothing })
        })
    }

    // Transitions of the home.

    /// Takes the requests of a cell that came out of the wake stack, and the references it owes.
    pub(crate) fn take_requests(&self) -> Requests {
        let old = self.update(|old| {
            let kept = old & !(QUEUED | REQUESTS);
            // A positive count stays where its owners will drop it; only what is owed comes home.
            let new = if count(old) < 0 { kept & (ONE - 1) } else { kept };
            (new, old)
        });
        Requests {
            wake: old & NOTIFIED != 0,
            abort: old & ABORT != 0,
            detach: old & DETACHED != 0,
            references: count(old).min(0),
        }
    }

    /// Takes the whole count over, when the home's own counter has fallen to zero or below. Says too whether the cell is
    /// in the wake stack or on its way there, so that it must not be freed now. If no reference is left, nobody can put
    /// it there after this look.
    #[inline]
    pub(crate) fn take_count(&self) -> (i64, bool) {
        // Acquire, partner: the release half of the foreign drops. What they did to the task comes before its end.
        let word = self.bits.load(Ordering::Acquire);
        if count(word) == 0 {
            return (0, word & QUEUED != 0);
        }
        self.update(|old| (old & (ONE - 1), (count(old), old & QUEUED != 0)))
    }

    /// The home goes away with `references` of its own outstanding.
    pub(crate) fn orphan(&self, references: i64) -> Next {
        self.update(|old| {
            let owed = (references as u64).wrapping_shl(COUNT_SHIFT);
            let new = old.wrapping_add(owed) | ORPHAN;
            (new, free_if_last(new))
        })
    }

    /// One atomic step. AcqRel on success: every transition may be the one that hands the task's data on, and a
    /// wake that is folded into an earlier one must still make its writer's data visible to the poll.
    fn update<R>(&self, mut step: impl FnMut(u64) -> (u64, R)) -> R {
        let updated =
            self.bits.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |old| Some(step(old).0));
        let (Ok(old) | Err(old)) = updated;
        step(old).1
    }
}

/// The count of an orphan is the whole truth, except for a push that is still under way.
fn free_if_last(word: u64) -> Next {
    if count(word) == 0 && word & QUEUED == 0 { Next::Free } else { Next::Nothing }
}

impl Request {
    fn bit(self) -> u64 {
        match self {
            Request::Wake => NOTIFIED,
            Request::Abort => ABORT,
            Request::Detach => DETACHED,
        }
    }
}
