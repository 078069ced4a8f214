//! Waiting to hear that a shard is to stop: who waits, and what is left of those who no longer do.

use super::harness::*;
use corelane::{HostedShard, Limits, shutdown_requested};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
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
