//! A timer for a thread that is no shard: asked for by a notice, armed and fired by a shard.
//!
//! [`Sleep`] is a copy of what `time::Sleep` does there, with the clock left out: the shard's time passes when it has
//! nothing else to do, and a timer that has fired is taken to be due.

use super::{Omission, Shard, block_on, check, rejected, spawn};
use crate::mesh::inbox::Inbox;
use crate::mesh::message::{Alarm, Notice};
use crate::sync::{Arc, Fault, commit};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Arms a timer at its first poll, and cancels it when it is dropped.
struct Sleep {
    home: Arc<Inbox>,
    alarm: Option<Arc<Alarm>>,
    /// Whether it leaves its waker before it asks, as it should.
    waker_first: bool,
}

impl Sleep {
    fn new(home: &Arc<Inbox>) -> Sleep {
        Sleep { home: home.clone(), alarm: None, waker_first: true }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(alarm) = &self.alarm {
            return alarm.poll(context);
        }
        let alarm = Alarm::new();
        if self.waker_first {
            let _ = alarm.poll(context);
        }
        self.home.notify(Notice::Arm { deadline: Instant::now(), alarm: alarm.clone() });
        let polled = if self.waker_first { alarm.poll(context) } else { Poll::Pending };
        self.alarm = Some(alarm);
        polled
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            self.home.notify(Notice::CancelAlarm(alarm));
        }
    }
}

#[derive(Clone, Copy)]
struct Variant {
    thread: Fault,
    home: Fault,
    omission: Omission,
    waker_first: bool,
}

const CORRECT: Variant = Variant {
    thread: Fault::Nothing,
    home: Fault::Nothing,
    omission: Omission::Nothing,
    waker_first: true,
};

/// A thread sleeps on a shard that may be parked, or about to.
fn sleep_elsewhere(variant: Variant) {
    let shard = Shard::new(1);
    let mut sleep = Sleep::new(shard.inbox());
    sleep.waker_first = variant.waker_first;
    let thread = spawn(variant.thread, move || block_on(sleep));
    commit(variant.home);
    shard.omission.set(variant.omission);
    // To arm, and to cancel when the sleep is dropped.
    shard.run_until(|| shard.notices.get() == 2);
    commit(Fault::Nothing);
    thread.join().expect("the sleeping thread does not panic");
    assert!(shard.timers.borrow().next_tick().is_none(), "a timer was left");
    shard.close();
}

/// Would catch a timer that is asked for while the shard goes to sleep, and one that rings before anybody listens.
#[test]
fn a_timer_armed_elsewhere_against_the_park() {
    check(5, || sleep_elsewhere(CORRECT));
}

/// A thread arms a timer and gives up, while the timer fires; a second one, of another thread, is its neighbour.
fn cancel_against_fire() {
    let shard = Shard::new(1);
    let given_up = {
        let mut sleep = Sleep::new(shard.inbox());
        spawn(Fault::Nothing, move || {
            let _ = pin!(&mut sleep).poll(&mut Context::from_waker(Waker::noop()));
        })
    };
    let kept = {
        let sleep = Sleep::new(shard.inbox());
        spawn(Fault::Nothing, move || block_on(sleep))
    };
    shard.run_until(|| shard.notices.get() == 4);
    given_up.join().expect("does not panic");
    kept.join().expect("does not panic");
    assert!(shard.timers.borrow().next_tick().is_none(), "a timer was left");
    shard.close();
}

/// Would catch a cancel that hits another timer, or leaves one, when the one it means has fired already.
#[test]
fn a_timer_cancelled_elsewhere_against_its_firing() {
    check(2, cancel_against_fire);
}

/// A thread sleeps on a shard that closes.
fn sleep_against_close(thread: Fault, home: Fault, omission: Omission) {
    let shard = Shard::new(1);
    let sleep = Sleep::new(shard.inbox());
    let sleeper = spawn(thread, move || block_on(sleep));
    commit(home);
    shard.turn();
    shard.omission.set(omission);
    shard.close();
    drop(shard);
    commit(Fault::Nothing);
    sleeper.join().expect("the sleeping thread does not panic");
}

/// Would catch a thread that sleeps on although its shard has gone. (What it does when it wakes is its own affair.)
#[test]
fn a_timer_armed_elsewhere_against_the_close() {
    check(None, || sleep_against_close(Fault::Nothing, Fault::Nothing, Omission::Nothing));
}

rejected! {
    /// The timer rings between the notice and the waker, for nobody.
    fn a_sleep_that_asks_before_it_listens() says "deadlock" {
        check(3, || sleep_elsewhere(Variant { waker_first: false, ..CORRECT }));
    }

    /// The notice comes between the look at the inbox and the announcement.
    fn a_home_that_does_not_look_again() says "deadlock" {
        check(3, || sleep_elsewhere(Variant { omission: Omission::SecondLook, ..CORRECT }));
    }

    /// The look for PARKED may come before the notice.
    fn a_thread_without_its_fence() says "deadlock" {
        check(3, || sleep_elsewhere(Variant { thread: Fault::NoFences, ..CORRECT }));
    }

    /// A notice that is pushed after the home has looked for the last time stays there.
    fn a_notice_that_is_not_looked_after() says "deadlock" {
        check(3, || sleep_against_close(Fault::FlagsReadOnce, Fault::Nothing, Omission::Nothing));
    }

    /// What is left in the inbox is not answered.
    fn a_home_that_leaves_its_inbox_open() says "deadlock" {
        check(3, || sleep_against_close(Fault::Nothing, Fault::Nothing, Omission::InboxClose));
    }
}
