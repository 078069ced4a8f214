//! `Sleep`: one timer, which follows whoever polls it.
//!
//! Armed at its first poll on a shard, in that shard's wheel; polled on another shard it moves there. On a thread that
//! is no shard, the shard it was made or armed on is asked to ring.

use super::clock;
use crate::mesh::inbox::Inbox;
use crate::mesh::message::{Alarm, Notice};
use crate::shard::Shard;
use crate::shard::context::{outside, with_current};
use crate::shard::shared::Shared;
use crate::sync::Arc;
use crate::time::wheel::Key;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Some thirty years: stands for "never" where an `Instant` cannot hold the sum.
const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);

/// Unless a task blocks its shard, the turn's cached time is never as old as this, so what is farther ahead of it has
/// not passed. (If one does, the timer is armed and fires at the end of the turn.)
const STALE: Duration = Duration::from_millis(10);

/// `now + duration`, or a time that will not come.
pub(super) fn deadline_after(now: Instant, duration: Duration) -> Instant {
    now.checked_add(duration).unwrap_or_else(|| now + FAR)
}

/// Waits for `duration`.
///
/// Never less, and no more than about a millisecond longer on a shard that is not busy. `Duration::MAX` waits for
/// ever. A duration of zero is over at the first poll.
///
/// # Panics
/// When polled before its time on a thread that is no shard, if there is no shard that could ring: it was neither made
/// nor ever polled on one, or the last such has shut down. That includes a thread that waits for it while that shard
/// shuts down: it is woken, and its poll panics, since nothing else would ever wake it. Once its time has come a poll
/// anywhere finds it over.
///
/// # Cancel safety
/// Dropping it cancels the timer.
///
/// # Examples
/// ```
/// use corelane::time::{Duration, Instant, sleep};
/// corelane::block_on(async {
///     let began = Instant::now();
///     sleep(Duration::from_millis(3)).await;
///     assert!(began.elapsed() >= Duration::from_millis(3));
/// });
/// ```
#[inline]
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(deadline_after(clock::now(), duration))
}

/// Waits until `deadline`. One that has passed is over at the first poll.
///
/// # Panics
/// As [`sleep`].
#[inline]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, home: with_current(|shard| shard.inbox().clone()), timer: Timer::Idle }
}

/// See [`sleep`] and [`sleep_until`]. `Send`, `Sync` and `Unpin`.
#[must_use = "a sleep does nothing unless it is awaited"]
#[derive(Debug)]
pub struct Sleep {
    deadline: Instant,
    /// The shard it was made on, or the one that holds its timer.
    home: Option<Arc<Inbox>>,
    timer: Timer,
}

enum Timer {
    Idle,
    /// In the wheel of the home.
    Armed(Key),
    /// In the wheel that the workers of a pool share.
    Pooled(Arc<Shared>, Key),
    /// The home was asked from outside.
    Asked(Arc<Alarm>),
    Fired,
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Timer::Idle => "Idle",
            Timer::Armed(_) | Timer::Pooled(..) | Timer::Asked(_) => "Armed",
            Timer::Fired => "Fired",
        })
    }
}

impl Sleep {
    /// When it will be over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it is over, as of the last poll.
    pub fn is_elapsed(&self) -> bool {
        matches!(self.timer, Timer::Fired)
    }

    /// Sets another deadline; the task that waits need not poll again for it to count, if it waits on this shard.
    #[inline]
    pub fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.deadline = deadline;
        let this = &mut *self;
        if let Timer::Armed(key) = this.timer
            && with_current(|shard| this.is_home(shard) && shard.timers.reset(key, deadline))
                == Some(true)
        {
            return;
        }
        if let Timer::Pooled(shared, key) = &this.timer
            && shared.reset(*key, deadline)
        {
            return;
        }
        self.disarm();
    }

    fn is_home(&self, shard: &Shard) -> bool {
        self.home.as_ref().is_some_and(|home| Arc::ptr_eq(home, shard.inbox()))
    }

    /// By the turn's cached time if that can tell, else by the clock.
    #[inline]
    fn has_passed(&self, shard: &Shard) -> bool {
        let now = shard.now();
        self.deadline <= now || (self.deadline < now + STALE && self.deadline <= clock::now())
    }

    fn disarm(&mut self) {
        match std::mem::replace(&mut self.timer, Timer::Idle) {
            Timer::Idle | Timer::Fired => {}
            Timer::Armed(key) => {
                let removed =
                    with_current(|shard| self.is_home(shard).then(|| shard.timers.remove(key)))
                        .flatten();
                if removed.is_none()
                    && let Some(home) = &self.home
                {
                    home.notify(Notice::CancelTimer(key));
                }
            }
            Timer::Pooled(shared, key) => shared.disarm(key),
            Timer::Asked(alarm) => {
                if let Some(home) = &self.home {
                    home.notify(Notice::CancelAlarm(alarm));
                }
            }
        }
    }

    /// A poll that costs the task nothing of its share.
    pub(super) fn poll_for_free(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let over =
            with_current(|shard| matches!(self.timer, Timer::Idle) && self.has_passed(shard));
        if over == Some(true) {
            self.timer = Timer::Fired;
        }
        Pin::new(self).poll(context)
    }

    /// On a shard. Some: the answer.
    #[inline]
    fn poll_on(&mut self, shard: &Shard, context: &Context<'_>) -> Option<Poll<()>> {
        match &self.timer {
            Timer::Fired => return Some(Poll::Ready(())),
            &Timer::Armed(key) if self.is_home(shard) => {
                if shard.timers.renew(key, context.waker()) {
                    return Some(Poll::Pending);
                }
                self.timer = Timer::Fired;
                return Some(Poll::Ready(()));
            }
            Timer::Pooled(shared, key) => {
                if shared.renew(*key, context.waker()) {
                    return Some(Poll::Pending);
                }
                if self.deadline <= clock::now() {
                    self.timer = Timer::Fired;
                    return Some(Poll::Ready(()));
                }
                // Woken by the end of its pool: armed anew, here.
                self.timer = Timer::Idle;
            }
            Timer::Armed(_) | Timer::Asked(_) => return None,
            Timer::Idle => {}
        }
        if self.has_passed(shard) {
            // A task that sleeps for nothing, again and again, yields like one that always finds bytes.
            if !shard.charge_io() {
                context.waker().wake_by_ref();
                return Some(Poll::Pending);
            }
            self.timer = Timer::Fired;
            return Some(Poll::Ready(()));
        }
        if let Some(shared) = shard.shared() {
            let key = shared.arm(self.deadline, context.waker().clone());
            self.timer = Timer::Pooled(shared.clone(), key);
            // Any worker will do: it says that there was one, when all are gone.
            self.home.get_or_insert_with(|| shard.inbox().clone());
            return Some(Poll::Pending);
        }
        if !self.is_home(shard) {
            self.home = Some(shard.inbox().clone());
        }
        self.timer = Timer::Armed(shard.timers.insert(self.deadline, context.waker().clone()));
        Some(Poll::Pending)
    }

    #[cold]
    fn poll_outside(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if matches!(self.timer, Timer::Fired) || self.deadline <= clock::now() {
            self.disarm();
            self.timer = Timer::Fired;
            return Poll::Ready(());
        }
        if let Timer::Pooled(shared, key) = &self.timer
            && shared.renew(*key, context.waker())
        {
            return Poll::Pending;
        }
        let Some(home) = self.home.clone() else { outside("a timer") };
        let alarm = match &self.timer {
            Timer::Asked(alarm) => alarm.clone(),
            _ => {
                self.disarm();
                let alarm = Alarm::new();
                self.timer = Timer::Asked(alarm.clone());
                // The waker first: the alarm may ring at once.
                let _ = alarm.poll(context);
                home.notify(Notice::Arm { deadline: self.deadline, alarm: alarm.clone() });
                alarm
            }
        };
        if alarm.poll(context).is_pending() {
            return Poll::Pending;
        }
        // Rung before its time: the home has closed, and nobody will ring again. The task that waits belongs to somebody
        // else and must not hang for ever.
        assert!(self.deadline <= clock::now(), "the Corelane shard of this timer has shut down");
        self.timer = Timer::Fired;
        Poll::Ready(())
    }
}

impl Future for Sleep {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match with_current(|shard| self.poll_on(shard, context)) {
            Some(Some(polled)) => polled,
            // Armed elsewhere: disarm there, arm here.
            Some(None) => {
                self.disarm();
                with_current(|shard| self.poll_on(shard, context))
                    .flatten()
                    .unwrap_or(Poll::Pending)
            }
            None => self.poll_outside(context),
        }
    }
}

impl Drop for Sleep {
    #[inline]
    fn drop(&mut self) {
        self.disarm();
    }
}
