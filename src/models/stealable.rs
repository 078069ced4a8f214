//! A task that any worker may run: who wakes it, who runs it, who drops it.
//!
//! The task, its wakers and its handle are the real ones. [`Pool`] is one queue in which workers look until nothing is
//! left; that a sleeping worker is woken is in `stealing`.

use super::{block_on, check, rejected, spawn};
use crate::id::TaskId;
use crate::park::{Bell, Unparker};
use crate::sync::{Fault, SegQueue, UnsafeCell, commit};
use crate::task::stealable::{self, Job, Schedule, Why};
use loom::sync::atomic::{AtomicUsize, Ordering};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

struct Pool {
    queue: SegQueue<Job>,
    unparker: Unparker<Bell>,
    /// Tasks that have not ended, hidden from loom.
    adopted: std::sync::Mutex<Vec<Option<Job>>>,
    forgotten: AtomicUsize,
    /// Keeps every task until the model has ended: loom does not see the order that an `Arc` gives to its last drop.
    kept: std::sync::Mutex<Vec<Job>>,
}

impl Pool {
    fn new() -> Arc<Pool> {
        Arc::new(Pool {
            queue: SegQueue::new(),
            unparker: Unparker::new(Bell::new()),
            adopted: std::sync::Mutex::default(),
            forgotten: AtomicUsize::new(0),
            kept: std::sync::Mutex::default(),
        })
    }

    /// Runs what is in the queue. False: there was nothing.
    fn turn(&self) -> bool {
        let mut busy = false;
        while let Some(job) = self.queue.pop() {
            job.run();
            busy = true;
        }
        busy
    }

    fn is_over(&self) -> bool {
        self.forgotten.load(Ordering::SeqCst) > 0
    }

    /// Works and sleeps until the one task has ended.
    fn run(&self) {
        loop {
            while self.turn() {}
            if self.is_over() {
                return;
            }
            self.unparker.announce();
            if self.queue.is_empty() && !self.is_over() {
                self.unparker.wait();
            }
            self.unparker.awake();
        }
    }

    /// The end of the model: every thread has been joined.
    fn release(&self) {
        let kept = std::mem::take(&mut *self.kept.lock().expect("no panic"));
        drop(kept);
    }

    /// Drops all tasks, as the end of a pool does.
    fn close(&self) {
        let tasks: Vec<Job> =
            self.adopted.lock().expect("no panic").iter_mut().filter_map(Option::take).collect();
        tasks.into_iter().for_each(|task| task.cancel());
        while self.turn() {}
    }
}

impl Schedule for Pool {
    fn adopt(&self, job: Job) -> Option<u32> {
        self.kept.lock().expect("no panic").push(job.clone());
        let mut adopted = self.adopted.lock().expect("no panic");
        adopted.push(Some(job));
        Some(adopted.len() as u32 - 1)
    }

    fn push(&self, job: Job, _why: Why) {
        self.queue.push(job);
        self.unparker.unpark();
    }

    fn forget(&self, number: u32) {
        drop(self.adopted.lock().expect("no panic")[number as usize].take());
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.unparker.unpark();
    }

    fn count_panic(&self) {
        panic!("nothing panics here");
    }
}

/// What the wakers write, each in a place of its own; added to with the weakest ordering, so that what the poll sees of it
/// rests on the wakes only.
struct Data([AtomicUsize; 2]);

/// Two threads write and wake, with wakers that the task has handed out; the task sleeps until it has seen both.
fn two_wakers(waker: Fault, worker: Fault) {
    let pool = Pool::new();
    let data = Arc::new(Data([AtomicUsize::new(0), AtomicUsize::new(0)]));
    let (hand_out, wakers) = mpsc::channel::<Waker>();
    let seen = data.clone();
    // Only one thread at a time may be in the future: loom notices if two are.
    let inside = UnsafeCell::new(0u32);
    let mut handed_out = false;
    let task = stealable::spawn(
        &pool,
        poll_fn(move |context| {
            inside.with_mut(|_| ());
            if !std::mem::replace(&mut handed_out, true) {
                for _ in 0..2 {
                    hand_out.send(context.waker().clone()).expect("somebody listens");
                }
            }
            let all = seen.0.iter().all(|one| one.load(Ordering::Relaxed) == 1);
            if all { Poll::Ready(7) } else { Poll::Pending }
        }),
        TaskId(1),
    );
    pool.turn();
    let threads = [0, 1].map(|index| {
        let (data, its_waker) = (data.clone(), wakers.recv().expect("handed out"));
        spawn(waker, move || {
            data.0[index].fetch_add(1, Ordering::Relaxed);
            its_waker.wake();
        })
    });
    commit(worker);
    pool.run();
    commit(Fault::Nothing);
    assert_eq!(block_on(task).expect("no panic"), 7);
    for thread in threads {
        thread.join().expect("a waker does not panic");
    }
    pool.release();
}

/// Would catch a wake that is lost between two wakers and two sleeps, and one whose data the poll does not see.
#[test]
fn two_wakers_and_a_task_that_waits_again() {
    check(3, || two_wakers(Fault::Nothing, Fault::Nothing));
}

/// A task that waits once, and counts how often two threads are in it: never.
struct Waits {
    inside: UnsafeCell<u32>,
    polls: u32,
    until: u32,
    drops: Arc<AtomicUsize>,
}

// SAFETY: one thread at a time is in it, which is what the model is for.
#[allow(unsafe_code)]
unsafe impl Send for Waits {}

impl Future for Waits {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
        self.inside.with_mut(|_| ());
        self.polls += 1;
        if self.polls >= self.until {
            return Poll::Ready(self.polls);
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.inside.with_mut(|_| ());
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

fn waits(until: u32) -> (Waits, Arc<AtomicUsize>) {
    let drops = Arc::new(AtomicUsize::new(0));
    (Waits { inside: UnsafeCell::new(0), polls: 0, until, drops: drops.clone() }, drops)
}

/// Two workers take from one queue what wakes itself while it runs.
fn two_workers(fault: Fault) {
    let pool = Pool::new();
    let (future, drops) = waits(3);
    let task = stealable::spawn(&pool, future, TaskId(1));
    let there = pool.clone();
    let other = spawn(fault, move || {
        there.turn();
    });
    commit(fault);
    pool.run();
    commit(Fault::Nothing);
    other.join().expect("a worker does not panic");
    assert_eq!(block_on(task).expect("no panic"), 3);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    pool.release();
}

/// Would catch a task that two workers poll at once, or one that comes into the queue twice.
#[test]
fn a_task_that_wakes_itself_under_two_workers() {
    check(3, || two_workers(Fault::Nothing));
}

/// A task is cancelled while a worker runs it.
fn abort_against_run(fault: Fault) {
    let pool = Pool::new();
    let (future, drops) = waits(2);
    let task = stealable::spawn(&pool, future, TaskId(1));
    let abort = task.abort_handle();
    let other = spawn(fault, move || abort.abort());
    commit(fault);
    pool.run();
    commit(Fault::Nothing);
    other.join().expect("no panic");
    while pool.turn() {}
    match block_on(task) {
        Ok(polls) => assert_eq!(polls, 2),
        Err(error) => assert!(error.is_cancelled()),
    }
    assert_eq!(drops.load(Ordering::Relaxed), 1, "the future is dropped once");
    pool.release();
}

/// Would catch a future that is dropped twice or never, and a handle that waits for ever.
#[test]
fn an_abort_against_a_run() {
    check(3, || abort_against_run(Fault::Nothing));
}

/// The pool ends while a task is woken elsewhere.
fn end_against_wake(fault: Fault) {
    let pool = Pool::new();
    let drops = Arc::new(AtomicUsize::new(0));
    let (hand_out, wakers) = mpsc::channel::<Waker>();
    let spy = Waits { inside: UnsafeCell::new(0), polls: 0, until: 9, drops: drops.clone() };
    let task = stealable::spawn(
        &pool,
        poll_fn(move |context| {
            spy.inside.with_mut(|_| ());
            let _ = hand_out.send(context.waker().clone());
            Poll::<()>::Pending
        }),
        TaskId(1),
    );
    pool.turn();
    let its_waker = wakers.recv().expect("handed out");
    let other = spawn(fault, move || its_waker.wake());
    commit(fault);
    pool.close();
    commit(Fault::Nothing);
    other.join().expect("no panic");
    // What came too late is in a queue, and does nothing.
    while pool.turn() {}
    assert!(block_on(task).expect_err("cancelled").is_cancelled());
    assert_eq!(drops.load(Ordering::Relaxed), 1, "the future is dropped once");
    pool.release();
}

/// Would catch a task that is polled after the end, or dropped twice.
#[test]
fn the_end_of_the_pool_against_a_wake() {
    check(3, || end_against_wake(Fault::Nothing));
}

rejected! {
    /// The poll that follows the wake may not see what was written before it.
    fn wakers_that_do_not_release() says "deadlock" {
        check(3, || two_wakers(Fault::UnorderedUpdates, Fault::Nothing));
    }

    /// The second of two wakes leaves no trace; what its waker wrote may not be seen.
    fn wakers_that_leave_out_what_is_set() says "deadlock" {
        check(3, || two_wakers(Fault::IdleUpdatesLeftOut, Fault::Nothing));
    }

    /// A wake between the two steps is lost, or the task is in the queue twice.
    fn wakers_in_two_steps() says "panicked" {
        check(3, || two_wakers(Fault::TornUpdates, Fault::TornUpdates));
    }
}
