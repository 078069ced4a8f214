//! The end of a runtime: who hears of it, what is still run, what is counted as cut off.

use super::harness::*;
use corelane::{Handle, HostedShard, Limits, Mode, Runtime, block_on, shutdown_requested};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;

struct Nothing;

impl Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

fn waiting() -> Waiting {
    Box::pin(shutdown_requested())
}

fn poll(waiting: &mut Waiting, waker: &Waker) -> Poll<()> {
    waiting.as_mut().poll(&mut Context::from_waker(waker))
}

fn hosted() -> HostedShard {
    HostedShard::new(Limits::default()).expect("a shard")
}

#[test]
fn who_no_longer_waits_for_the_shutdown_leaves_no_waker() {
    let shard = hosted();
    let held = Arc::new(Nothing);
    let wakers = || Arc::strong_count(&held) - 1;
    shard.enter(|| {
        for _ in 0..10 {
            let mut waiting = waiting();
            // Each poll by another task than the one before.
            for _ in 0..3 {
                assert!(poll(&mut waiting, &Waker::from(held.clone())).is_pending());
                assert_eq!(wakers(), 1);
            }
            assert!(poll(&mut waiting, Waker::noop()).is_pending());
            assert_eq!(wakers(), 0);
            assert!(poll(&mut waiting, &Waker::from(held.clone())).is_pending());
        }
        assert_eq!(wakers(), 0);
    });
    // Dropped on another thread.
    let mut left = waiting();
    shard.enter(|| assert!(poll(&mut left, &Waker::from(held.clone())).is_pending()));
    thread::spawn(move || drop(left)).join().expect("no panic");
    while shard.turn(Duration::ZERO) {}
    assert_eq!(wakers(), 0);
    // Polled on another shard: that one's shutdown counts from then on.
    let other = hosted();
    let mut moved = waiting();
    shard.enter(|| assert!(poll(&mut moved, &Waker::from(held.clone())).is_pending()));
    let (count, waker) = WakeCount::new();
    other.enter(|| assert!(poll(&mut moved, &waker).is_pending()));
    while shard.turn(Duration::ZERO) {}
    assert_eq!(wakers(), 0);
    other.handle().request_shutdown(Duration::MAX);
    other.turn(Duration::ZERO);
    assert_eq!(count.get(), 1);
    other.enter(|| assert!(poll(&mut moved, &waker).is_ready()));
}

/// A waker whose clone polls such a future in its turn.
#[allow(unsafe_code)]
fn comes_back_when_cloned() -> Waker {
    const VTABLE: RawWakerVTable = RawWakerVTable::new(
        |data| {
            assert!(poll(&mut waiting(), Waker::noop()).is_pending());
            RawWaker::new(data, &VTABLE)
        },
        |_| (),
        |_| (),
        |_| (),
    );
    // SAFETY: there is no data, and each function keeps the contract for none.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) }
}

#[test]
fn a_waker_may_come_back_while_it_is_cloned() {
    let shard = hosted();
    shard.enter(|| {
        let mut waiting = waiting();
        assert!(poll(&mut waiting, &comes_back_when_cloned()).is_pending());
        assert!(poll(&mut waiting, Waker::noop()).is_pending());
        assert!(poll(&mut waiting, &comes_back_when_cloned()).is_pending());
    });
}

const LONG: Duration = Duration::from_secs(3600);

/// Keeps the first shard from its inbox until the sender is dropped.
fn hold(handle: &Handle) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (tell, holds) = mpsc::channel();
    let hold = move || {
        tell.send(()).expect("somebody listens");
        let _ = released.recv();
    };
    handle.post(FIRST, hold).expect("room");
    holds.recv().expect("it runs");
    release
}

#[test]
fn calls_that_were_taken_before_the_shutdown_are_run() {
    within_reason(|| {
        for mode in [Mode::ThreadPerCore, Mode::WorkStealing] {
            let runtime = start(1, Runtime::builder().mode(mode)).expect("started");
            let handle = runtime.handle().clone();
            let release = hold(&handle);
            let call = |number| handle.spawn_on(FIRST, move || async move { number });
            let calls: Vec<_> = (0..1000).map(|number| call(number).expect("room")).collect();
            handle.request_shutdown(LONG);
            drop(release);
            assert_eq!(runtime.shutdown(LONG).tasks_dropped, 0);
            for (number, call) in calls.into_iter().enumerate() {
                assert_eq!(wait(call).expect("it has run"), number, "{mode:?}");
            }
        }
    });
}

#[test]
fn calls_that_a_shutdown_cuts_off_are_counted() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle().clone();
        let release = hold(&handle);
        for _ in 0..1000 {
            drop(handle.spawn_on(FIRST, std::future::pending::<()>).expect("room"));
        }
        handle.request_shutdown(Duration::ZERO);
        drop(release);
        assert_eq!(runtime.shutdown(Duration::ZERO).tasks_dropped, 1000);
    });
}

/// A request that is at hand when the shutdown comes may need the other shard, which has nothing left to do.
#[test]
fn a_shard_without_work_answers_those_that_still_have_some() {
    within_reason(|| {
        for mode in [Mode::ThreadPerCore, Mode::WorkStealing] {
            let runtime = start(2, Runtime::builder().mode(mode)).expect("started");
            let handle = runtime.handle().clone();
            let there = handle.clone();
            let late = handle.spawn_on(FIRST, move || async move {
                shutdown_requested().await;
                let mut sum = 0;
                for round in 0..100 {
                    // There and back: the other has nothing to do in between.
                    let back = there.clone();
                    sum += there
                        .submit_to(SECOND, move || async move {
                            back.submit_to(FIRST, move || async move { round }).await
                        })
                        .await
                        .expect("the other shard is there")
                        .expect("this one too");
                    corelane::time::sleep(Duration::from_millis(1)).await;
                }
                sum
            });
            handle.request_shutdown(LONG);
            assert_eq!(wait(late.expect("room")).expect("no panic"), 4950, "{mode:?}");
            assert_eq!(runtime.shutdown(LONG).tasks_dropped, 0);
        }
    });
}

#[test]
fn a_call_on_its_way_is_run_though_its_sender_has_nothing_left_to_do() {
    within_reason(|| {
        for round in 0..200 {
            let runtime = shards(2);
            let handle = runtime.handle().clone();
            let there = handle.clone();
            let (tell, told) = mpsc::channel();
            let last = handle.spawn_on(FIRST, move || async move {
                shutdown_requested().await;
                there.post(SECOND, move || tell.send(()).expect("heard")).expect("it is there");
            });
            drop(last.expect("room"));
            runtime.shutdown(LONG);
            assert!(told.try_recv().is_ok(), "round {round}: what was posted last has not run");
        }
    });
}

#[test]
fn a_block_on_hears_that_its_runtime_is_to_stop() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle().clone();
        runtime.block_on(async {
            handle.request_shutdown(LONG);
            shutdown_requested().await;
        });
        // One that begins later, too.
        runtime.block_on(shutdown_requested());
        // Without a runtime it is its own.
        block_on(async {
            Handle::current().request_shutdown(LONG);
            shutdown_requested().await;
        });
    });
}
