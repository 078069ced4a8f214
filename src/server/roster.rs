//! The connections of a server: to end them when it drains, and to end those whose clients are late.
//!
//! In thread-per-core mode each shard has its own, which no other thread touches; the workers of a pool share one. A task goes
//! round it at intervals and looks at each connection; a request costs no timer and no look at the clock. A connection looks at
//! a flag when it is polled, and is woken when it has to end.

use super::late::Seen;
use super::probe::Probe;
use crate::limits::ConnectionLimits;
use crate::shard::context::with_current;
use crate::sync::{AtomicBool, Mutex, Ordering, lock};
use crate::table::Table;
use crate::task::waker::wake_caught;
use crate::time::{Sleep, clock, sleep};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

/// Longest time between two looks at a connection.
const LOOK: Duration = Duration::from_millis(500);
/// And the shortest: what is to end sooner than that ends as late as this.
const LOOK_SHORTEST: Duration = Duration::from_millis(5);

/// Connections looked at before others have their turn.
const LOOKS_AT_ONCE: u32 = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Roster {
    drains: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    members: Table<Member>,
    /// The shortest time between two looks that any has asked for.
    look_every: Duration,
    /// The task that goes round, while it rests.
    waits: Option<Waker>,
}

#[derive(Debug)]
struct Member {
    /// Of its task.
    waker: Waker,
    probe: Arc<Probe>,
    limits: Arc<ConnectionLimits>,
    seen: Seen,
}

impl Default for Roster {
    fn default() -> Self {
        let state = State { members: Table::new(), look_every: Duration::MAX, waits: None };
        Roster { drains: AtomicBool::new(false), state: Mutex::new(state) }
    }
}

impl Roster {
    /// Whether connections must end.
    #[inline(always)]
    pub(super) fn drains(&self) -> bool {
        self.drains.load(Ordering::Relaxed)
    }

    /// From now on connections must end; wakes them all.
    pub(super) fn drain(&self) {
        // Under the lock: a connection that does not see it has joined before, and is woken.
        let wakers: Vec<Waker> = {
            let mut state = lock(&self.state);
            self.drains.store(true, Ordering::Relaxed);
            let waits = state.waits.take();
            let members = (0..state.members.capacity()).filter_map(|one| state.members.get(one));
            members.map(|member| member.waker.clone()).chain(waits).collect()
        };
        with_current(|shard| {
            shard.reactor.distrust_readiness();
            if let Some(shared) = shard.shared() {
                shared.reactor.distrust_readiness();
            }
        });
        wake(wakers);
    }

    /// A connection that was made at `began`, whose task is to be woken when it must end. Returns the number under which it
    /// leaves.
    pub(super) fn join(
        &self,
        waker: &Waker,
        probe: &Arc<Probe>,
        limits: &Arc<ConnectionLimits>,
        began: Instant,
    ) -> u32 {
        let now = with_current(|shard| shard.now()).unwrap_or_else(clock::now);
        let seen = Seen::new(began, now);
        let (waker, probe, limits) = (waker.clone(), probe.clone(), limits.clone());
        let mut state = lock(&self.state);
        state.look_every = state.look_every.min(look_every(&limits));
        let number = state.members.insert(Member { waker, probe, limits, seen });
        let waits = (state.members.len() == 1).then(|| state.waits.take()).flatten();
        drop(state);
        wake(waits);
        number
    }

    pub(super) fn leave(&self, number: u32) {
        let member = lock(&self.state).members.remove(number);
        drop(member);
    }

    /// Goes round until the server drains: then connections look at themselves.
    pub(super) async fn go_round(self: Arc<Roster>) {
        let mut nap = None;
        while poll_fn(|context| self.poll_rest(&mut nap, context)).await {
            let mut from = 0;
            while let Some(next) = self.look_at_some(from, clock::now()) {
                from = next;
                crate::yield_now().await;
            }
        }
    }

    /// Ready when it is time to look. False: no more.
    fn poll_rest(&self, nap: &mut Option<Sleep>, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = lock(&self.state);
        let before = state.waits.replace(context.waker().clone());
        let (somebody, every) = (state.members.len() > 0, state.look_every);
        drop(state);
        drop(before);
        if self.drains() {
            return Poll::Ready(false);
        }
        if !somebody {
            *nap = None;
            return Poll::Pending;
        }
        ready!(Pin::new(nap.get_or_insert_with(|| sleep(every))).poll(context));
        *nap = None;
        Poll::Ready(true)
    }

    /// A connection looks at itself, which has been told to end.
    pub(super) fn look_at(&self, number: u32, now: Instant) {
        if let Some(member) = lock(&self.state).members.get_mut(number) {
            member.seen.was_told(&member.probe, now);
            member.is_late(now);
        }
    }

    /// Looks at some connections, from a number on. Returns that of the next, if there are more.
    fn look_at_some(&self, from: u32, now: Instant) -> Option<u32> {
        let mut late = Vec::new();
        let mut state = lock(&self.state);
        let end = state.members.capacity().min(from + LOOKS_AT_ONCE);
        for number in from..end {
            let Some(member) = state.members.get_mut(number) else { continue };
            if member.is_late(now) {
                late.push(member.waker.clone());
            }
        }
        let more = end < state.members.capacity();
        drop(state);
        wake(late);
        more.then_some(end)
    }
}

impl Member {
    /// Looks at it. True: it must attend to that.
    fn is_late(&mut self, now: Instant) -> bool {
        let Member { probe, limits, seen, .. } = self;
        seen.look(probe, limits, now).is_some_and(|how| probe.must_end(how))
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        wake_caught(waker);
    }
}

/// Time between two looks at connections with these limits: a quarter of the shortest.
pub(super) fn look_every(limits: &ConnectionLimits) -> Duration {
    let looked_for = [
        limits.first_byte_timeout,
        limits.header_timeout,
        limits.write_timeout,
        limits.idle_timeout,
        limits.max_age,
    ];
    let shortest = looked_for.into_iter().flatten().min().unwrap_or(LOOK * 4);
    (shortest / 4).clamp(LOOK_SHORTEST, LOOK)
}
