//! Reference counts: wakers cloned, passed on, used and dropped on both sides of a task's home.
//!
//! Counts are biased: the home counts in a plain cell, everybody else in the task's word, and the sum is what matters.
//! Each run ends with all wakers gone and asks whether the memory is free while the home is still open; that it was not
//! freed too early, or twice, is what dropping the atomics in it shows. The scripts are small and many rather than
//! large: every pair of a foreign and a home script is explored by itself.

use super::{Drops, Shard, check, rejected, spawn};
use crate::sync::{Fault, commit};
use crate::task::join::JoinHandle;
use loom::sync::Mutex;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// What a thread does with the wakers it has. It drops those that are left.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A clone.
    More,
    /// A drop.
    Less,
    Wake,
    WakeByRef,
    /// Passes one to the other side, which drops it when it comes by, or uses it if it runs a script of its own.
    Pass,
    /// Home only: a turn.
    Turn,
    /// Home only: the join handle goes.
    Detach,
}
use Step::{Detach, Less, More, Pass, Turn, Wake, WakeByRef};

const FOREIGN: [&[Step]; 8] = [
    &[Less],
    &[Wake],
    &[WakeByRef, Less],
    &[More, Less, Less],
    &[More, Wake, Less],
    &[More, Pass, Less],
    &[More, Pass, Wake],
    &[Pass],
];

const HOME: [&[Step]; 6] = [
    &[Turn, Detach, Turn],
    &[Detach, Turn],
    &[More, Turn, Less, Detach],
    &[More, Pass, Detach, Turn],
    &[Wake, Detach, Turn],
    &[Wake, Turn, Detach, Turn],
];

/// Where wakers are left for the other side.
type Passed = std::sync::Arc<Mutex<Vec<Waker>>>;

struct Side {
    wakers: Vec<Waker>,
    passed: Passed,
}

impl Side {
    fn step(&mut self, step: Step) {
        let Some(waker) = self.wakers.last() else { return };
        match step {
            More => self.wakers.push(waker.clone()),
            WakeByRef => waker.wake_by_ref(),
            Wake => self.wakers.pop().into_iter().for_each(Waker::wake),
            Less => drop(self.wakers.pop()),
            Pass => {
                let waker = self.wakers.pop();
                self.passed.lock().expect("nobody panics with it").extend(waker);
            }
            Turn | Detach => unreachable!("a step of the home"),
        }
    }
}

/// A task that hands out `count` wakers at its first poll and ends at its second, and says where its future is dropped.
fn task(shard: &Shard, drops: &Drops, count: usize) -> (JoinHandle<()>, Vec<Waker>) {
    let wakers = Rc::new(RefCell::new(Vec::new()));
    let handed = wakers.clone();
    let noted = drops.noted();
    let mut polls = 0;
    let task = shard.spawn(poll_fn(move |context| {
        let _noted = &noted;
        polls += 1;
        if polls > 1 {
            return Poll::Ready(());
        }
        handed.borrow_mut().resize_with(count, || context.waker().clone());
        Poll::Pending
    }));
    while shard.turn() {}
    let wakers = wakers.take();
    (task, wakers)
}

/// One script on each side; the home has one waker of its own.
fn scripts(foreign: &'static [Step], home: &'static [Step], fault: Fault, home_fault: Fault) {
    let shard = Shard::new(1);
    let drops = Drops::default();
    let (handle, mut wakers) = task(&shard, &drops, 2);
    let mut handle = Some(handle);
    let passed: Passed = Passed::default();
    let mut here = Side { wakers: wakers.split_off(1), passed: passed.clone() };
    let mut there = Side { wakers, passed: passed.clone() };
    let thread = spawn(fault, move || {
        foreign.iter().for_each(|&step| there.step(step));
        drop(there);
    });
    commit(home_fault);
    for &step in home {
        match step {
            Turn => drop(shard.turn()),
            Detach => shard.enter(|| drop(handle.take())),
            step => shard.enter(|| here.step(step)),
        }
        // What the other side has passed on is used here, by whoever comes first.
        let passed = std::mem::take(&mut *passed.lock().expect("nobody panics with it"));
        shard.enter(|| passed.into_iter().for_each(|waker| waker.wake_by_ref()));
    }
    shard.enter(|| drop((here, handle)));
    thread.join().expect("a script does not panic");
    commit(Fault::Nothing);
    let passed = std::mem::take(&mut *passed.lock().expect("nobody panics with it"));
    shard.enter(|| passed.into_iter().for_each(Waker::wake));
    // Nobody may have woken it; then it ends here.
    if shard.home.live() == 0 {
        while shard.turn() {}
        assert_eq!(shard.home.cells(), 0, "a task that nobody refers to was not freed");
    }
    shard.close();
    drops.assert_here(1);
}

/// Would catch a count that is off by one in either direction, for wakers that are made here and dropped there or the
/// reverse, while the task ends.
#[test]
fn wakers_made_and_dropped_on_both_sides_in_every_order() {
    for foreign in FOREIGN {
        for home in HOME {
            println!("there {foreign:?}, here {home:?}");
            check(None, || scripts(foreign, home, Fault::Nothing, Fault::Nothing));
        }
    }
}

/// Two threads give up the last references at once, in the given ways, to a task that has ended.
fn two_last_references(ways: [Step; 2], fault: Fault, home_fault: Fault) {
    let shard = Shard::new(1);
    let drops = Drops::default();
    let (handle, wakers) = task(&shard, &drops, 2);
    shard.enter(|| wakers[0].wake_by_ref());
    while shard.turn() {}
    shard.enter(|| drop(handle));
    let threads: Vec<_> = std::iter::zip(wakers, ways)
        .map(|(waker, way)| {
            let mut side = Side { wakers: vec![waker], passed: Passed::default() };
            spawn(fault, move || side.step(way))
        })
        .collect();
    commit(home_fault);
    // The home may take the first from its stack while the second goes.
    shard.turn();
    for thread in threads {
        thread.join().expect("a drop does not panic");
    }
    shard.close_empty();
    drops.assert_here(1);
}

/// Would catch a task that is freed twice, or never, when the home adds up between two foreign drops.
#[test]
fn two_threads_that_drop_the_last_references() {
    for ways in [[Less, Less], [Wake, Less], [Wake, Wake]] {
        check(None, move || two_last_references(ways, Fault::Nothing, Fault::Nothing));
    }
}

/// The lowest bit of a task's word: in the wake stack, or on the way there.
const QUEUED: u64 = 1;

rejected! {
    /// A drop pushes the task on its home's stack and does not say so in the word: two threads push the same task.
    fn a_drop_that_forgets_queued() says "panicked" {
        check(3, || two_last_references([Less, Less], Fault::Forgets(QUEUED), Fault::Nothing));
    }

    /// The home frees a task that another thread is about to push.
    fn a_home_that_frees_what_is_queued() says "Causality violation" {
        check(3, || scripts(&[More, Pass, Wake], &[Wake, Turn, Detach, Turn], Fault::Nothing, Fault::Overlooks(QUEUED)));
    }

    /// The thread that drops a reference does not publish what it did to the task before.
    fn a_drop_that_does_not_release() says "Causality violation" {
        check(3, || two_last_references([Less, Less], Fault::UnorderedUpdates, Fault::Nothing));
    }

    /// A count that is read and written in two steps loses references.
    fn counts_in_two_steps() says "panicked" {
        check(3, || two_last_references([Less, Less], Fault::TornUpdates, Fault::TornUpdates));
    }
}
