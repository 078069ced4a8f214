//! The loop of a shard.
//!
//! One turn, in this order, each phase bounded by a limit:
//!
//! - empty the inbox: wakes, then notices, then calls;
//! - poll tasks that are ready, those just woken or called from elsewhere among them: another shard may be spinning
//!   for the answer, and the rest of a turn would come between;
//! - fire timers that are due;
//! - publish the counters;
//! - look at the sockets: wait if there is nothing to do, else only now and then, without waiting;
//! - mark what the sockets are ready for, and wake who waits.
//!
//! Senders that wait for room in another shard's inbox keep their message in their own future and are woken when
//! there is room, so the loop has no queue of unsent messages to care for.

use super::Shard;
use super::context;
use crate::limits::{CLOCK_STRIDE, HANDOVERS_PER_POLL};
use crate::mesh::message::Notice;
use crate::task::failure::drop_caught;
use crate::task::home::add;
use crate::time::clock;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Looks at the sockets are a system call each: with tasks always ready there is one every so many turns...
const TURNS_PER_IO: u32 = 4;
/// ...and at least one in this time.
const IO_INTERVAL: Duration = Duration::from_micros(250);
/// ...or in this, while there are tasks that go on and on, such as that of a client who pipelines without end. Such a task
/// would have the rest of the turn once all others have been polled, and their sockets would wait for it. Half as long as a
/// parked core takes to wake.
const YIELD_INTERVAL: Duration = Duration::from_micros(25);

/// While tasks wait for their turn, calls get one for so many polls.
const CALLS_BESIDE_POLLS: u32 = 4;

/// How often a shard that ends reads its inbox at most, so that senders that do not stop cannot keep it.
const CLOSING_TURNS: u32 = 1000;

impl Shard {
    /// Runs until `Notice::Shutdown` says so and no shard of the runtime has anything left to do, or its time is up.
    pub(crate) fn run(self: &Rc<Self>) {
        context::enter(self, || {
            while !self.is_stopped() {
                self.turn(None);
            }
        });
    }

    /// One turn, which waits for at most `limit` if there is nothing to do. Inside [`context::enter`].
    pub(crate) fn turn(&self, limit: Option<Duration>) {
        self.stir();
        let heard = self.read_inbox();
        self.poll_tasks();
        let now = self.look_at_clock();
        let (fired, more_due) = self.timers.fire(now, self.limits.timers_per_turn);
        add(&self.counters.timers_fired, fired as u64);
        add(&self.counters.turns, 1);
        if heard {
            self.spin.expect();
        }
        self.settle(self.home.live() == 0);
        // A shard that is to stop must not sleep away the time in which the last task has just ended.
        let has_work = more_due || self.has_work() || self.is_stopped();
        if has_work {
            self.look_at_sockets(now);
        } else {
            self.sleep(now, limit);
        }
    }

    /// Whether it was asked to stop and no shard has anything left to do, or no time left.
    pub(crate) fn is_stopped(&self) -> bool {
        match self.stop_at.get() {
            None => false,
            Some(deadline) => self.over.get() || self.now.get() >= deadline,
        }
    }

    /// Before anything is taken out of the inbox.
    #[inline]
    pub(crate) fn stir(&self) {
        if self.quiet.get() {
            self.quiet.set(false);
            self.fleet.stir();
        }
    }

    /// After everything that was ready, if it is to stop. `idle`: no task is left that could send anything.
    #[inline]
    pub(crate) fn settle(&self, idle: bool) {
        if self.stop_at.get().is_some() && idle && !self.has_work() {
            self.say_quiet();
        }
    }

    /// Whether it has said that it has nothing left to do.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.get()
    }

    /// Other threads' `block_on` has a shard too, which is none of the runtime's.
    #[cold]
    fn say_quiet(&self) {
        if self.id.is_some() && !self.quiet.replace(true) {
            self.over.set(self.fleet.settle());
        }
    }

    /// Reads the clock for everybody who wants it cheaply.
    pub(crate) fn look_at_clock(&self) -> Instant {
        let now = clock::now();
        self.now.set(now);
        now
    }

    pub(crate) fn poll_tasks(&self) {
        let turn_time = self.limits.turn_time;
        let mut left = self.limits.polls_per_turn;
        let mut looked = self.now.get();
        let mut spent = Duration::ZERO;
        let mut until_look = self.clock_stride.get();
        // One that yields takes long: then each round of polls is timed.
        let mut goes_on = false;
        self.home.begin_turn();
        self.yielding.set(false);
        while left > 0 {
            self.begin_poll();
            // Long polls get no others in their place: each is timed.
            let handovers = if until_look > 1 { HANDOVERS_PER_POLL.min(left - 1) } else { 0 };
            let polls = self.home.poll_next(handovers);
            if polls == 0 {
                break;
            }
            self.reactor.send_gathered();
            left -= polls;
            let yields = self.home.has_yielded() && !self.yielding.replace(true);
            let timed = yields || (goes_on && self.home.is_round_over());
            if !timed && until_look > polls {
                until_look -= polls;
                continue;
            }
            let now = self.look_at_clock();
            let took = now.duration_since(looked);
            goes_on |= yields && is_long(took, YIELD_INTERVAL);
            until_look = stride_after(&self.clock_stride, took, turn_time);
            looked = now;
            spent += took;
            if spent >= turn_time || (spent >= YIELD_INTERVAL && self.home.is_round_over()) {
                break;
            }
        }
        let polls = self.limits.polls_per_turn - left;
        self.backlog.set(if self.home.has_ready() { polls } else { 0 });
        add(&self.counters.polls, u64::from(polls));
    }

    /// Takes what came from other threads. True: something did.
    #[inline]
    pub(crate) fn read_inbox(&self) -> bool {
        !self.inbox().is_empty() && self.read_messages()
    }

    fn read_messages(&self) -> bool {
        let woken = self.home.take_foreign();
        let mut messages = 0;
        // Half of what a turn takes is for calls, however many notices there are.
        while messages < self.limits.messages_per_turn.div_ceil(2)
            && let Some(notice) = self.inbox().take_notice()
        {
            messages += 1;
            self.run_caught(|| self.follow(notice));
        }
        let calls = self.take_calls(self.limits.messages_per_turn - messages);
        messages += calls;
        if calls > 0 {
            self.inbox().made_room();
        }
        if messages > 0 {
            self.reactor.send_gathered();
            // This time is not that of the polls that follow. One call has been timed.
            if messages != 1 || calls != 1 {
                self.look_at_clock();
            }
        }
        add(&self.counters.inbox_messages, messages as u64);
        self.spin.heard(messages);
        woken > 0 || messages > 0
    }

    /// Runs up to `most` calls, for as long as a turn may poll. Returns how many.
    fn take_calls(&self, most: usize) -> usize {
        // Each may spawn a task, and the inbox is no bound if they come faster than they are polled.
        let most = match self.backlog.get() {
            0 => most,
            polls => most.min((polls / CALLS_BESIDE_POLLS).max(1) as usize),
        };
        let began = self.now.get();
        let mut looked = began;
        // The first is timed: who knows how long those of this turn are.
        let mut until_look = 1;
        let mut calls = 0;
        while calls < most
            && let Some(thunk) = self.inbox().take_call()
        {
            calls += 1;
            self.begin_poll();
            self.run_caught(|| thunk.call());
            until_look -= 1;
            if until_look == 0 {
                let now = self.look_at_clock();
                let most = self.limits.turn_time;
                until_look = stride_after(&self.call_stride, now.duration_since(looked), most);
                looked = now;
                if now.duration_since(began) >= most {
                    break;
                }
            }
        }
        calls
    }

    /// Runs what came from elsewhere, and survives it.
    pub(crate) fn run_caught(&self, run: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(run)).map_err(drop_caught).is_err() {
            add(&self.counters.panics, 1);
        }
    }

    fn follow(&self, notice: Notice) {
        match notice {
            Notice::Run(run) => run(),
            Notice::MovedAway(slot, time) => self.reactor.release(slot, Some(time)),
            Notice::Dropped(slot) => self.reactor.release(slot, None),
            Notice::Watch { slot, direction, watchers } => {
                self.reactor.watch(slot, direction, watchers);
            }
            Notice::Arm { deadline, alarm } => {
                let key = self.timers.insert(deadline, Waker::from(alarm.clone()));
                alarm.armed(key);
            }
            Notice::CancelTimer(key) => self.timers.remove(key),
            Notice::CancelAlarm(alarm) => {
                if let Some(key) = alarm.take_key() {
                    self.timers.remove(key);
                }
            }
            Notice::Shutdown { deadline } => {
                let sooner = self.stop_at.get().map_or(deadline, |earlier| earlier.min(deadline));
                self.stop_at.set(Some(sooner));
                self.stop_waiters.wake_all();
            }
        }
    }

    /// With work at hand: a look that does not wait, and not in every turn.
    fn look_at_sockets(&self, now: Instant) {
        if self.is_look_due(now) {
            self.wait_for_sockets(now, Some(Duration::ZERO));
        }
    }

    /// Whether it is time to look at the sockets although there is work. Asked once in each turn.
    pub(crate) fn is_look_due(&self, now: Instant) -> bool {
        let turns = self.turns_since_io.get() + 1;
        let waited = now.duration_since(self.looked_at.get());
        self.turns_since_io.set(turns);
        let interval = if self.yielding.get() { YIELD_INTERVAL } else { IO_INTERVAL };
        turns >= TURNS_PER_IO || waited >= interval
    }

    /// Without work: spin a little if other shards talk to this one, then announce sleep, look once more, and wait.
    fn sleep(&self, now: Instant, limit: Option<Duration>) {
        if limit == Some(Duration::ZERO) {
            return self.wait_for_sockets(now, limit);
        }
        let (mut now, mut limit) = (now, limit);
        if !self.spin.allowed().is_zero() {
            let began = now;
            let heard = self.spin_for_messages(now, limit);
            now = self.now.get();
            if heard {
                // Messages that never end let the sockets wait no longer than tasks do.
                if now.duration_since(self.looked_at.get()) >= IO_INTERVAL {
                    self.wait_for_sockets(now, Some(Duration::ZERO));
                }
                return;
            }
            limit = limit.map(|limit| limit.saturating_sub(now.duration_since(began)));
        }
        let timer = self.timers.next(now);
        let stop = self.stop_at.get().map(|deadline| deadline.saturating_duration_since(now));
        let timeout = [limit, timer, stop].into_iter().flatten().min();
        // Before the announcement: as soon as it is made somebody may ring, and rings are never more than parks.
        add(&self.counters.parks, 1);
        self.publish();
        let unparker = self.inbox().unparker();
        unparker.announce();
        if self.inbox().is_empty() {
            self.wait_for_sockets(now, timeout);
        }
        unparker.awake();
    }

    fn spin_for_messages(&self, began: Instant, limit: Option<Duration>) -> bool {
        let most = [Some(self.spin.allowed()), limit, self.timers.next(began)];
        let allowed = most.into_iter().flatten().min().unwrap_or_default();
        let mut heard = false;
        let mut now = began;
        while !heard && now.duration_since(began) < allowed {
            for _ in 0..32 {
                std::hint::spin_loop();
                if !self.inbox().is_empty() {
                    heard = true;
                    break;
                }
            }
            // For the polls of the coming turn too.
            now = self.look_at_clock();
        }
        let spun = now.duration_since(began);
        self.spun.set(self.spun.get() + spun);
        add(&self.counters.spin_nanos, spun.as_nanos() as u64);
        if heard {
            self.spin.let_gather();
        } else {
            self.spin.in_vain();
        }
        heard
    }

    fn wait_for_sockets(&self, now: Instant, timeout: Option<Duration>) {
        // Of code that is no task: calls, notices, wakers.
        self.reactor.send_gathered();
        self.waits(now);
        self.reactor.poll(timeout);
        self.works();
        if timeout == Some(Duration::ZERO) {
            self.publish();
        }
    }

    /// A look at the sockets begins...
    pub(crate) fn waits(&self, now: Instant) {
        self.rests(now);
        add(&self.counters.io_polls, 1);
        self.turns_since_io.set(0);
    }

    /// ...and has ended.
    pub(crate) fn works(&self) {
        let now = self.look_at_clock();
        self.busy_since.set(now);
        self.looked_at.set(now);
    }

    /// A stretch of work ends...
    pub(crate) fn rests(&self, now: Instant) {
        let busy = now.duration_since(self.busy_since.get()).saturating_sub(self.spun.take());
        add(&self.counters.busy_nanos, busy.as_nanos() as u64);
        self.busy_since.set(now);
    }

    /// ...and another begins, without a look at the sockets in between.
    pub(crate) fn resumes(&self) {
        self.busy_since.set(self.look_at_clock());
    }

    /// Copies the counts to where others read them.
    pub(crate) fn publish(&self) {
        let counters = &self.counters;
        let tasks = self.home.counts();
        counters.local_wakes.set(tasks.local_wakes.get());
        counters.foreign_wakes.set(tasks.foreign_wakes.get());
        counters.tasks_spawned.set(tasks.spawned.get());
        counters.tasks.set(self.home.live() as u64);
        counters.panics.set(counters.panics.get() + tasks.panics.take());
        counters.publish(&self.published);
    }

    /// Nobody else is to have a turn any more: destructors may write as much as they like.
    fn no_more_budgets(&self) {
        self.io_left.set(u32::MAX);
    }

    /// The end: every future, socket and timer of the shard is dropped here, and the inbox refuses from now on.
    pub(crate) fn close(self: &Rc<Self>) {
        context::enter(self, || {
            // Whoever asks from now on is told at once, and leaves no waker.
            self.stop_at.set(self.stop_at.get().or(Some(self.now.get())));
            self.stop_waiters.wake_all();
            self.stir();
            let left = self.home.live() as u64;
            let spawned = || self.home.counts().spawned.get();
            let before = spawned();
            self.no_more_budgets();
            self.home.cancel_all();
            // What comes while this goes on is refused by the closed inbox.
            for _ in 0..CLOSING_TURNS {
                if !self.read_inbox() {
                    break;
                }
            }
            self.no_more_budgets();
            // What a guest leaves, the stand-in of its `block_on` at least, is no task of the runtime's shards.
            if self.id.is_some() {
                // Those of calls that come now are cancelled at once.
                self.fleet.add_cut((left + spawned() - before) as usize);
            }
            // Who is gone sends nothing any more.
            self.say_quiet();
            self.home.cancel_all();
            self.inbox().close();
            // One by one: a map whose drop panics loses the rest.
            for value in self.kept.take().into_values() {
                self.run_caught(|| drop(value));
            }
            self.timers.clear();
            self.home.drop_outputs();
            // What destructors have written.
            self.reactor.send_gathered();
            self.reactor.clear_slots();
            self.home.close();
            self.publish();
        });
    }
}

/// How many polls or calls until the clock is read again, if those since the last look took this long and all may take `most`.
/// Long ones are timed one by one, short ones not: a look costs as much as a short one.
pub(crate) fn stride_after(stride: &Cell<u32>, took: Duration, most: Duration) -> u32 {
    stride.set(if is_long(took, most) { 1 } else { (stride.get() * 2).min(CLOCK_STRIDE) });
    stride.get()
}

/// Whether a stretch of work is long for one of which all may take `most`.
fn is_long(took: Duration, most: Duration) -> bool {
    took * 4 > most
}
