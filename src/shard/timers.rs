//! The shard's timers: the wheel, and the way between `Instant` and its ticks.

use crate::task::waker::wake_counted;
use crate::time::wheel::{Key, Wheel};
use std::cell::RefCell;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Ticks of a millisecond since an origin.
pub(super) struct Ticks {
    origin: Instant,
}

impl Ticks {
    pub(super) fn new(origin: Instant) -> Ticks {
        Ticks { origin }
    }

    /// The first tick at which `deadline` has passed: rounded up, so that nothing fires early.
    #[inline]
    pub(super) fn of(&self, deadline: Instant) -> u64 {
        let since = deadline.saturating_duration_since(self.origin);
        since
            .as_secs()
            .saturating_mul(1000)
            .saturating_add(u64::from(since.subsec_nanos().div_ceil(1_000_000)))
    }

    /// The last tick that has begun by `now`.
    pub(super) fn at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_millis() as u64
    }

    /// From `now` until `tick`. None: beyond what an `Instant` can say.
    pub(super) fn until(&self, tick: u64, now: Instant) -> Option<Duration> {
        let due = self.origin.checked_add(Duration::from_millis(tick))?;
        Some(due.saturating_duration_since(now))
    }
}

/// One shard's timers. Only its thread touches them.
pub(crate) struct Timers {
    ticks: Ticks,
    wheel: RefCell<Wheel<Waker>>,
    fired: RefCell<Vec<Waker>>,
}

impl Timers {
    pub(crate) fn new(origin: Instant) -> Timers {
        Timers {
            ticks: Ticks::new(origin),
            wheel: RefCell::new(Wheel::new(0)),
            fired: RefCell::new(Vec::new()),
        }
    }

    #[inline]
    pub(crate) fn insert(&self, deadline: Instant, waker: Waker) -> Key {
        self.wheel.borrow_mut().insert(self.ticks.of(deadline), waker)
    }

    #[inline]
    pub(crate) fn remove(&self, key: Key) {
        let waker = self.wheel.borrow_mut().remove(key);
        drop(waker);
    }

    /// Makes the timer wake `waker`. False: it has fired.
    #[inline]
    pub(crate) fn renew(&self, key: Key, waker: &Waker) -> bool {
        match self.wheel.borrow_mut().get_mut(key) {
            None => return false,
            Some(known) if known.will_wake(waker) => return true,
            Some(_) => {}
        }
        // Outside the borrow: a clone, or a drop, can run anybody's code.
        let mut spare = waker.clone();
        let mut wheel = self.wheel.borrow_mut();
        let waits = wheel.get_mut(key).map(|known| std::mem::swap(known, &mut spare)).is_some();
        drop(wheel);
        drop(spare);
        waits
    }

    /// Moves the timer. False: it has fired, or was never there.
    pub(crate) fn reset(&self, key: Key, deadline: Instant) -> bool {
        let tick = self.ticks.of(deadline);
        self.wheel.borrow_mut().reset(key, tick)
    }

    /// Wakes those whose time has come, at most `limit`. Returns how many, and whether there are more.
    pub(crate) fn fire(&self, now: Instant, limit: usize) -> (usize, bool) {
        // Also when there are none: the wheel must know the time to place the next one well.
        let (fired, more) = {
            let mut fired = self.fired.borrow_mut();
            let more = self.wheel.borrow_mut().expire(self.ticks.at(now), limit, &mut fired);
            if fired.is_empty() {
                return (0, more);
            }
            (std::mem::take(&mut *fired), more)
        };
        (self.wake(fired), more)
    }

    /// Wakes all of these. Nothing is borrowed meanwhile: each may come back here.
    #[inline(never)]
    fn wake(&self, mut fired: Vec<Waker>) -> usize {
        let count = fired.len();
        for waker in fired.drain(..) {
            wake_counted(waker);
        }
        self.fired.replace(fired);
        count
    }

    /// How long until `fire` should be called again; never longer than until the next timer.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        let tick = self.wheel.borrow().next_tick()?;
        self.ticks.until(tick, now)
    }

    /// The end of the shard. Whoever waits is woken: tasks of this shard have ended, but a thread that is no shard would
    /// wait for ever.
    pub(crate) fn clear(&self) {
        let mut wheel = self.wheel.replace(Wheel::new(0));
        let mut rest = Vec::new();
        while wheel.expire(u64::MAX, usize::MAX, &mut rest) {}
        for waker in rest {
            wake_counted(waker);
        }
    }
}
