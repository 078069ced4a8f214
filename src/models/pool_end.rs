//! The end of a pool, while other threads wake tasks of it: nothing stays in a queue that nobody empties any more.
//!
//! [`push`] and [`leave`] are copies of what `stealing::pool` does about it; the queues and who sleeps are the real ones.

use super::{check, rejected, spawn};
use crate::stealing::idle::Idle;
use crate::stealing::queue::Queues;
use crate::sync::{Arc, Fault, fence};
use loom::sync::atomic::{AtomicUsize, Ordering};

const WORKERS: usize = 2;

struct Shared {
    queues: Queues<usize>,
    idle: Idle,
    running: AtomicUsize,
    /// How often each task was cancelled, by whoever found that nobody will run it.
    cancelled: [AtomicUsize; 2],
    omission: Omission,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Omission {
    Nothing,
    /// Who pushes does not look again whether anybody is left.
    SecondLook,
    /// The last to leave does not empty the queues.
    Drain,
}

impl Shared {
    fn cancel(&self, task: usize) {
        self.cancelled[task].fetch_add(1, Ordering::Relaxed);
    }
}

/// Wakes a task, on a thread that is no worker.
fn push(shared: &Shared, task: usize) {
    if shared.running.load(Ordering::Acquire) == 0 {
        return shared.cancel(task);
    }
    shared.queues.inject(task);
    // The fence in `notify` stands between the push and the look.
    let _ = shared.idle.notify();
    let looks = shared.omission != Omission::SecondLook;
    if looks && shared.running.load(Ordering::Acquire) == 0 {
        shared.queues.drain().for_each(|task| shared.cancel(task));
    }
}

/// A worker ends.
fn leave(shared: &Shared) {
    if shared.running.fetch_sub(1, Ordering::AcqRel) > 1 {
        return;
    }
    fence(Ordering::SeqCst);
    if shared.omission != Omission::Drain {
        shared.queues.drain().for_each(|task| shared.cancel(task));
    }
}

/// Two workers leave while two threads wake a task each.
fn ends(fault: Fault, omission: Omission) {
    let (queues, _locals) = Queues::new(WORKERS);
    let shared = Arc::new(Shared {
        queues,
        idle: Idle::new(),
        running: AtomicUsize::new(WORKERS),
        cancelled: Default::default(),
        omission,
    });
    let pushers: Vec<_> = (0..2)
        .map(|task| {
            let there = shared.clone();
            spawn(fault, move || push(&there, task))
        })
        .collect();
    let there = shared.clone();
    let other = spawn(fault, move || leave(&there));
    leave(&shared);
    pushers.into_iter().chain([other]).for_each(|thread| thread.join().expect("no panic"));
    let cancelled = shared.cancelled.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(cancelled, [1, 1], "a task was left in a queue, or cancelled twice");
}

#[test]
fn a_pool_that_ends_leaves_no_task_in_a_queue() {
    check(2, || ends(Fault::Nothing, Omission::Nothing));
}

rejected! {
    fn a_push_without_a_second_look() says "a task was left in a queue" {
        check(2, || ends(Fault::Nothing, Omission::SecondLook));
    }

    fn an_end_without_fences() says "a task was left in a queue" {
        check(2, || ends(Fault::NoFences, Omission::Nothing));
    }

    fn a_last_worker_that_empties_nothing() says "a task was left in a queue" {
        check(2, || ends(Fault::Nothing, Omission::Drain));
    }
}
