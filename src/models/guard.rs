//! While a worker works and another sleeps, one of the sleepers is the guard: whoever is held up is noticed.
//!
//! [`falls_asleep`] and [`begins_to_work`] are copies of what `stealing::worker` does about it. A guard's time passes at
//! once here; nobody else wakes by himself.

use super::{check, rejected, spawn};
use crate::park::{Bell, Ring, Unparker};
use crate::stealing::idle::Idle;
use crate::sync::{Arc, Fault, commit};
use loom::sync::atomic::{AtomicBool, Ordering};

/// The one that sleeps; those after it work.
const SLEEPER: usize = 0;

struct Shared {
    idle: Idle,
    unparkers: Vec<Unparker<Bell>>,
    /// Rung by the guard: each of those who work is held up until then.
    noticed: Vec<Bell>,
    over: AtomicBool,
    variant: Variant,
}

#[derive(Clone, Copy)]
struct Variant {
    /// The one that was woken was the guard; and another works, which has searched and found the only task.
    searcher: bool,
    sleeper: Fault,
    worker: Fault,
    omission: Omission,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Omission {
    Nothing,
    /// The sleeper does not look again whether it is needed as the guard.
    LastLook,
    /// The one that was woken does not see to it that there is a guard.
    Woken,
    /// The searcher does not, since no task is left.
    Searcher,
}

const CORRECT: Variant = Variant {
    searcher: false,
    sleeper: Fault::Nothing,
    worker: Fault::Nothing,
    omission: Omission::Nothing,
};

impl Shared {
    fn workers(&self) -> usize {
        self.unparkers.len()
    }

    fn notify(&self) {
        if let Some(worker) = self.idle.notify() {
            self.unparkers[worker].unpark();
        }
    }
}

/// Sleeps, again and again, until everybody who was held up has been noticed.
fn falls_asleep(shared: &Shared) {
    let (idle, unparker) = (&shared.idle, &shared.unparkers[SLEEPER]);
    let mut searcher = false;
    while !shared.over.load(Ordering::SeqCst) {
        searcher = searcher || idle.search();
        let guards = idle.take_guard(shared.workers());
        idle.sleep(SLEEPER, std::mem::replace(&mut searcher, false));
        unparker.announce();
        let looks = shared.variant.omission != Omission::LastLook;
        let stays = idle.sleeps(SLEEPER)
            && (guards || !looks || idle.needs_no_guard(shared.workers()))
            && !shared.over.load(Ordering::SeqCst);
        if stays && guards {
            shared.over.store(true, Ordering::SeqCst);
            shared.noticed.iter().for_each(Bell::ring);
        } else if stays {
            unparker.wait();
        }
        unparker.awake();
        searcher = idle.wake(SLEEPER);
        if guards {
            idle.leave_guard();
        }
    }
}

/// Works until the guard has noticed it.
fn begins_to_work(shared: &Shared, worker: usize, searched: bool) {
    if searched {
        shared.idle.found();
    }
    let omitted = if searched { Omission::Searcher } else { Omission::Woken };
    if shared.variant.omission != omitted && !shared.idle.is_guarded() {
        shared.notify();
    }
    shared.noticed[worker - 1].wait();
}

/// One falls asleep while another, which has slept, is woken and held up; so is a searcher, if there is one.
fn held_up(variant: Variant) {
    let workers = if variant.searcher { 3 } else { 2 };
    let shared = Arc::new(Shared {
        idle: Idle::new(),
        unparkers: (0..workers).map(|_| Unparker::new(Bell::new())).collect(),
        noticed: (1..workers).map(|_| Bell::new()).collect(),
        over: AtomicBool::new(false),
        variant,
    });
    if variant.searcher {
        assert!(shared.idle.search() && shared.idle.take_guard(workers));
    }
    shared.idle.sleep(1, false);
    let there = shared.clone();
    let woken = spawn(variant.worker, move || {
        let searches = there.idle.wake(1);
        if variant.searcher {
            there.idle.leave_guard();
        }
        begins_to_work(&there, 1, searches);
    });
    let there = shared.clone();
    let searcher =
        variant.searcher.then(|| spawn(variant.worker, move || begins_to_work(&there, 2, true)));
    commit(variant.sleeper);
    falls_asleep(&shared);
    commit(Fault::Nothing);
    for thread in [Some(woken), searcher].into_iter().flatten() {
        thread.join().expect("no thread panics");
    }
}

/// Would catch a worker that falls asleep without a guard, because it took another to be asleep that has just woken.
#[test]
fn one_that_falls_asleep_while_another_wakes_is_its_guard() {
    check(3, || held_up(CORRECT));
}

/// Would catch the same when everybody relies on a searcher which has found something itself.
#[test]
fn a_searcher_that_finds_something_leaves_a_guard() {
    check(2, || held_up(Variant { searcher: true, ..CORRECT }));
}

rejected! {
    /// It took the other to be asleep.
    fn a_sleeper_that_does_not_look_again_for_a_guard() says "deadlock" {
        check(3, || held_up(Variant { omission: Omission::LastLook, ..CORRECT }));
    }

    /// It took the sleeper to be its guard.
    fn a_worker_that_looks_for_no_guard() says "deadlock" {
        check(3, || held_up(Variant { omission: Omission::Woken, ..CORRECT }));
    }

    /// The other relied on it.
    fn a_searcher_that_looks_for_no_guard() says "deadlock" {
        check(2, || held_up(Variant { searcher: true, omission: Omission::Searcher, ..CORRECT }));
    }
}
