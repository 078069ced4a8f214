//! What the workers of a pool have in common, where a shard has its own: sockets and timers, and the number of tasks.

use super::timers::Ticks;
use crate::reactor::shared::SharedReactor;
use crate::sync::{AtomicUsize, Mutex, lock};
use crate::task::waker::wake_counted;
use crate::time::wheel::{Key, Wheel};
use std::io;
use std::task::Waker;
use std::time::{Duration, Instant};

/// See the module.
pub(crate) struct Shared {
    pub(crate) reactor: SharedReactor,
    ticks: Ticks,
    timers: Mutex<SharedTimers>,
    /// Tasks that any worker may run and that have not ended.
    pub(crate) live: AtomicUsize,
}

struct SharedTimers {
    wheel: Wheel<Waker>,
    /// The tick until which the thread that drives the reactor sleeps at most; 0 if it does not sleep.
    asleep_until: u64,
}

impl Shared {
    /// # Errors
    /// As [`SharedReactor::new`].
    pub(crate) fn new(events: usize, origin: Instant) -> io::Result<Shared> {
        Ok(Shared {
            reactor: SharedReactor::new(events)?,
            ticks: Ticks::new(origin),
            timers: Mutex::new(SharedTimers { wheel: Wheel::new(0), asleep_until: 0 }),
            live: AtomicUsize::new(0),
        })
    }

    /// Makes a timer; it wakes `waker`.
    pub(crate) fn arm(&self, deadline: Instant, waker: Waker) -> Key {
        let tick = self.ticks.of(deadline);
        let mut timers = lock(&self.timers);
        let key = timers.wheel.insert(tick, waker);
        let too_late = tick < timers.asleep_until;
        drop(timers);
        if too_late {
            self.reactor.ring();
        }
        key
    }

    pub(crate) fn disarm(&self, key: Key) {
        let waker = lock(&self.timers).wheel.remove(key);
        drop(waker);
    }

    /// Makes the timer wake `waker`. False: it has fired.
    pub(crate) fn renew(&self, key: Key, waker: &Waker) -> bool {
        match lock(&self.timers).wheel.get_mut(key) {
            None => return false,
            Some(known) if known.will_wake(waker) => return true,
            Some(_) => {}
        }
        let mut spare = waker.clone();
        let mut timers = lock(&self.timers);
        let waits = timers.wheel.get_mut(key).map(|known| std::mem::swap(known, &mut spare));
        drop(timers);
        drop(spare);
        waits.is_some()
    }

    /// Moves the timer. False: it has fired.
    pub(crate) fn reset(&self, key: Key, deadline: Instant) -> bool {
        let tick = self.ticks.of(deadline);
        let mut timers = lock(&self.timers);
        let waits = timers.wheel.reset(key, tick);
        let too_late = waits && tick < timers.asleep_until;
        drop(timers);
        if too_late {
            self.reactor.ring();
        }
        waits
    }

    /// Adds those whose time has come to `woken`, at most `limit`. Returns how many, and whether there are more.
    pub(crate) fn expire(
        &self,
        now: Instant,
        limit: usize,
        woken: &mut Vec<Waker>,
    ) -> (usize, bool) {
        let before = woken.len();
        let more = lock(&self.timers).wheel.expire(self.ticks.at(now), limit, woken);
        (woken.len() - before, more)
    }

    /// The thread that drives is about to sleep: how long it may. A timer that comes before that rings.
    pub(crate) fn sleep(&self, now: Instant) -> Option<Duration> {
        let mut timers = lock(&self.timers);
        let next = timers.wheel.next_tick();
        timers.asleep_until = next.unwrap_or(u64::MAX);
        drop(timers);
        next.and_then(|tick| self.ticks.until(tick, now))
    }

    /// It is awake.
    pub(crate) fn awake(&self) {
        lock(&self.timers).asleep_until = 0;
    }

    /// The end: whoever waits for a socket or a timer is woken.
    pub(crate) fn close(&self) {
        self.reactor.close();
        let mut wheel = std::mem::replace(&mut lock(&self.timers).wheel, Wheel::new(0));
        let mut rest = Vec::new();
        while wheel.expire(u64::MAX, usize::MAX, &mut rest) {}
        rest.into_iter().for_each(wake_counted);
    }
}
