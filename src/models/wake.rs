//! Foreign wakes of one task against its polls and the sleep of its home.
//!
//! The task is ready when every waking thread has set its flag, with Relaxed ordering: so the poll that follows a wake
//! must see what was written before that wake, even if the wake was folded into an earlier one. A run ends when the
//! task has ended, and its home sleeps when nothing is in its inbox; a wake that is lost, or that shows less than it
//! should, is a deadlock. Not modelled: limits of a turn.

use super::{Omission, Shard, check, rejected, spawn};
use crate::sync::{Fault, commit};
use crate::task::join::JoinHandle;
use loom::sync::atomic::{AtomicBool, Ordering};
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Flags that loom watches, shared without a count that it would watch too.
type Flags = std::sync::Arc<[AtomicBool]>;

/// A task that hands out `count` wakers at its first poll, and ends once that many flags are set.
fn task_of_flags(shard: &Shard, count: usize) -> (JoinHandle<()>, Flags, Vec<Waker>) {
    let flags: Flags = (0..count).map(|_| AtomicBool::new(false)).collect();
    let wakers = Rc::new(RefCell::new(Vec::new()));
    let task = {
        let (flags, wakers) = (flags.clone(), wakers.clone());
        shard.spawn(poll_fn(move |context| {
            if wakers.borrow().is_empty() {
                wakers.borrow_mut().resize_with(count, || context.waker().clone());
                return Poll::Pending;
            }
            let set = flags.iter().all(|flag| flag.load(Ordering::Relaxed));
            if set { Poll::Ready(()) } else { Poll::Pending }
        }))
    };
    while shard.turn() {}
    let wakers = wakers.replace(vec![Waker::noop().clone()]);
    (task, flags, wakers)
}

#[derive(Clone, Copy)]
struct Variant {
    waker: Fault,
    home: Fault,
    omission: Omission,
}

const CORRECT: Variant =
    Variant { waker: Fault::Nothing, home: Fault::Nothing, omission: Omission::Nothing };

/// How the threads wake.
#[derive(Clone, Copy)]
enum Wakes {
    ByValue,
    ByReference,
}

fn two_wakers(variant: Variant, wakes: [Wakes; 2]) {
    let shard = Shard::new(1);
    let (task, flags, wakers) = task_of_flags(&shard, 2);
    let threads: Vec<_> = std::iter::zip(wakers, wakes)
        .enumerate()
        .map(|(number, (waker, wakes))| {
            let flags = flags.clone();
            spawn(variant.waker, move || {
                flags[number].store(true, Ordering::Relaxed);
                match wakes {
                    Wakes::ByValue => waker.wake(),
                    Wakes::ByReference => waker.wake_by_ref(),
                }
            })
        })
        .collect();
    commit(variant.home);
    shard.omission.set(variant.omission);
    shard.run_until(|| task.is_finished());
    commit(Fault::Nothing);
    for thread in threads {
        thread.join().expect("a waking thread does not panic");
    }
    assert!(shard.inbox().rings() <= shard.parks.get(), "more rings than parks");
    drop(task);
    shard.close_empty();
}

/// Would catch a wake that is swallowed by another thread's, or by the home's going back to sleep in between.
#[test]
fn two_wakers_and_a_task_that_waits_again_in_between() {
    check(4, || two_wakers(CORRECT, [Wakes::ByValue, Wakes::ByValue]));
}

/// Would catch the same for wakes that keep their reference, and that reference's way home while the task ends.
#[test]
fn two_wakers_by_reference() {
    check(3, || two_wakers(CORRECT, [Wakes::ByReference, Wakes::ByReference]));
}

/// A wake that is folded into one whose push is still under way, or whose task is about to be polled, must show the
/// poll what came before it.
fn coalesced_wake(second: Fault, home: Fault) {
    let shard = Shard::new(1);
    let (task, flags, wakers) = task_of_flags(&shard, 1);
    let waker = &wakers[0];
    let first = spawn(Fault::Nothing, {
        let waker = waker.clone();
        move || waker.wake_by_ref()
    });
    let second = spawn(second, {
        let waker = waker.clone();
        move || {
            flags[0].store(true, Ordering::Relaxed);
            waker.wake_by_ref();
        }
    });
    commit(home);
    shard.run_until(|| task.is_finished());
    commit(Fault::Nothing);
    first.join().expect("a waking thread does not panic");
    second.join().expect("a waking thread does not panic");
    drop(shard.enter(|| (task, wakers)));
    shard.close_empty();
}

/// Would catch a wake that does nothing because the task is queued already, and so publishes nothing.
#[test]
fn data_written_before_a_coalesced_wake_is_seen_by_the_poll() {
    check(3, || coalesced_wake(Fault::Nothing, Fault::Nothing));
}

rejected! {
    /// The wake stack is emptied and the task's requests are cleared, each in two steps: what comes in between is lost, a
    /// wake or, as here, a reference.
    fn a_home_that_takes_requests_in_two_steps() says "was not freed" {
        check(3, || two_wakers(Variant { home: Fault::TornUpdates, ..CORRECT }, [Wakes::ByReference; 2]));
    }

    /// A wake that comes between the look at the inbox and the announcement.
    fn a_home_that_does_not_look_again() says "deadlock" {
        check(3, || two_wakers(Variant { omission: Omission::SecondLook, ..CORRECT }, [Wakes::ByValue; 2]));
    }

    /// The look at the wake stack may come before the announcement.
    fn a_home_without_its_fence() says "deadlock" {
        check(3, || two_wakers(Variant { home: Fault::NoFences, ..CORRECT }, [Wakes::ByValue; 2]));
    }

    /// The look for PARKED may come before the push.
    fn wakers_without_their_fence() says "deadlock" {
        check(3, || two_wakers(Variant { waker: Fault::NoFences, ..CORRECT }, [Wakes::ByValue; 2]));
    }

    /// The second wake finds the task queued and leaves its update out.
    fn a_coalesced_wake_that_updates_nothing() says "deadlock" {
        check(3, || coalesced_wake(Fault::IdleUpdatesLeftOut, Fault::Nothing));
    }

    /// The wake's update publishes nothing.
    fn a_wake_that_does_not_release() says "deadlock" {
        check(3, || coalesced_wake(Fault::UnorderedUpdates, Fault::Nothing));
    }

    /// The home's update takes nothing in.
    fn a_home_that_does_not_acquire() says "deadlock" {
        check(3, || coalesced_wake(Fault::Nothing, Fault::UnorderedUpdates));
    }
}
