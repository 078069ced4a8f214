//! A worker's loop.
//!
//! One turn, each phase bounded as a shard's is:
//!
//! - run tasks that are ready: the worker's own, now and then those for everybody;
//! - empty the inbox, poll local tasks, fire timers of other threads, as a shard does;
//! - with work at hand: look at the shared sockets and timers now and then, without waiting;
//! - without: search; then sleep, on behalf of all workers if nobody else does.

use super::context;
use super::pool::Pool;
use super::queue::{Local, Seen};
use crate::park::Seat;
use crate::shard::Shard;
use crate::shard::context::enter as enter_shard;
use crate::shard::turn::stride_after;
use crate::task::home::add;
use crate::task::stealable::{Job, Why};
use crate::task::waker::wake_counted;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// Tasks between two looks at those for everybody. A prime, so that it falls in with no period of the tasks.
const INJECTED_STRIDE: u32 = 61;

/// While somebody works and others sleep, one of them wakes this often, to see whether the one that works is held up. One that
/// works looks as often whether another is.
const GUARD_INTERVAL: Duration = Duration::from_millis(10);

/// See the module. Only its own thread touches it.
pub(crate) struct Worker {
    shard: Rc<Shard>,
    pool: Arc<Pool>,
    local: Local<Job>,
    index: usize,
    seat: crate::sync::Arc<Seat>,
    /// Whether it is the one worker that searches.
    searcher: Cell<bool>,
    /// It has had nothing to do since it worked last.
    rested: Cell<bool>,
    /// A task runs: it keeps this worker busy.
    running: Cell<bool>,
    until_injected: Cell<u32>,
    random: Cell<u32>,
    woken: RefCell<Vec<Waker>>,
    seen: RefCell<Seen>,
    /// When it last looked whether another is held up.
    looked_around: Cell<Instant>,
}

impl Worker {
    pub(crate) fn new(
        shard: Rc<Shard>,
        pool: Arc<Pool>,
        local: Local<Job>,
        seat: crate::sync::Arc<Seat>,
    ) -> Worker {
        let index = local.index();
        let now = shard.now();
        Worker {
            shard,
            pool,
            local,
            index,
            seat,
            searcher: Cell::new(false),
            rested: Cell::new(true),
            running: Cell::new(false),
            until_injected: Cell::new(INJECTED_STRIDE),
            random: Cell::new(index as u32 * 2 + 1),
            woken: RefCell::new(Vec::new()),
            seen: RefCell::new(Seen::default()),
            looked_around: Cell::new(now),
        }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Runs until it was asked to stop and no task is left, or its time is up.
    pub(crate) fn run(&self) {
        enter_shard(&self.shard, || {
            context::enter(self, || {
                while !self.is_stopped() {
                    self.turn();
                }
            });
        });
    }

    /// The end: local tasks are dropped, and by the last worker, all others.
    pub(crate) fn close(&self) {
        // However the loop ended: others may rely on its search, or that it guards or drives. One looks in its place.
        if self.searcher.replace(false) {
            self.pool.idle.found();
        }
        self.pool.notify();
        self.shard.close();
        enter_shard(&self.shard, || {
            context::enter(self, || self.pool.leave(self.shard.fleet()));
            // What destructors have written.
            self.shard.reactor.send_gathered();
        });
    }

    fn is_stopped(&self) -> bool {
        if self.shard.stopping().is_none() {
            return false;
        }
        self.pool.stop();
        self.shard.is_stopped()
    }

    fn is_done(&self) -> bool {
        self.shard.home().live() == 0 && self.pool.live() == 0
    }

    /// Spawns a task that any worker may run.
    pub(crate) fn spawn<F>(&self, future: F) -> crate::task::join::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let home = self.shard.home();
        add(&home.counts().spawned, 1);
        self.pool.spawn(future, home.fresh_id())
    }

    /// Queues a task that has become ready on this thread.
    pub(super) fn push(&self, job: Job, why: Why) {
        if why != Why::Spawned {
            add(&self.shard.home().counts().local_wakes, 1);
        }
        let runs = self.running.get();
        let surplus = match why {
            // What a task wakes comes next, without waking anybody: its data is here.
            Why::Woken if runs => self.local.push_last_in(&self.pool.queues, job),
            // The task that spawns keeps this worker busy.
            Why::Spawned => {
                self.local.push(job);
                true
            }
            Why::Woken | Why::Yielded => {
                self.local.push(job);
                self.local.len() > 1
            }
        };
        if surplus {
            self.pool.notify();
        }
    }

    fn turn(&self) {
        self.shard.stir();
        self.run_jobs();
        // What comes later is found before the worker sleeps: nothing runs here of which others do not know.
        if self.shard.has_work() {
            self.begin_work();
            self.shard.read_inbox();
            self.shard.poll_tasks();
        }
        let now = self.shard.look_at_clock();
        let counters = &self.shard.counters;
        let (fired, more) = self.shard.timers.fire(now, self.shard.limits().timers_per_turn);
        add(&counters.timers_fired, fired as u64);
        add(&counters.turns, 1);
        self.shard.settle(self.is_done() && !self.has_work());
        if more || self.has_work() || self.is_stopped() {
            self.begin_work();
            if self.shard.is_look_due(now) {
                self.look(now);
            }
        } else {
            self.search(now);
        }
    }

    fn has_work(&self) -> bool {
        self.local.has_any(&self.pool.queues) || self.shard.has_work()
    }

    fn run_jobs(&self) {
        let limits = self.shard.limits();
        let began = self.shard.now();
        let mut looked = began;
        let stride = Cell::new(1);
        let mut until_look = 1;
        for _ in 0..limits.polls_per_turn {
            let Some(job) = self.next_job() else { break };
            self.run_job(job);
            until_look -= 1;
            if until_look == 0 {
                let now = self.shard.look_at_clock();
                until_look = stride_after(&stride, now.duration_since(looked), limits.turn_time);
                looked = now;
                if now.duration_since(began) >= limits.turn_time {
                    break;
                }
            }
        }
    }

    fn next_job(&self) -> Option<Job> {
        let queues = &self.pool.queues;
        let until_injected = self.until_injected.get() - 1;
        if until_injected > 0 {
            self.until_injected.set(until_injected);
            return self.local.pop(queues).or_else(|| queues.take_injected(&self.local));
        }
        self.until_injected.set(INJECTED_STRIDE);
        queues.take_injected(&self.local).or_else(|| self.local.pop(queues))
    }

    fn run_job(&self, job: Job) {
        self.begin_work();
        self.shard.begin_poll();
        add(&self.shard.counters.polls, 1);
        self.running.set(true);
        self.shard.home().as_guest(job.id(), || job.run());
        self.running.set(false);
        self.shard.reactor.send_gathered();
    }

    /// There is something to do, which may take long. Who pushed while this worker searched has relied on it; and who
    /// sleeps relies on a guard.
    fn begin_work(&self) {
        if !self.rested.replace(false) {
            return;
        }
        let idle = &self.pool.idle;
        let searched = self.searcher.replace(false);
        if searched {
            idle.found();
        }
        if !idle.is_guarded() || (searched && self.pool.queues.has_any()) {
            self.pool.notify();
        }
    }

    /// Nothing to do here: takes a task from elsewhere, or sleeps.
    fn search(&self, now: Instant) {
        self.rested.set(true);
        if self.searcher.get() || self.pool.idle.search() {
            self.searcher.set(true);
            let queues = &self.pool.queues;
            if let Some(job) = queues.take_injected(&self.local) {
                return self.run_job(job);
            }
            if let Some(job) = queues.steal(&self.local, self.random()) {
                // There was nothing before.
                add(&self.shard.counters.steals, 1 + self.local.len() as u64);
                return self.run_job(job);
            }
        }
        self.sleep(now);
    }

    /// Copies the counts to where others read them, with what the pool has counted.
    fn publish(&self) {
        add(&self.shard.home().counts().foreign_wakes, self.pool.take_foreign_wakes());
        self.shard.publish();
    }

    /// xorshift: which worker to steal from first.
    fn random(&self) -> usize {
        let mut random = self.random.get();
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        self.random.set(random);
        random as usize % self.pool.len()
    }

    /// Looks at the shared sockets and timers, without waiting, unless somebody else does.
    fn look(&self, now: Instant) {
        let shared = &self.pool.shared;
        let mut woken = self.woken.take();
        // Of code that is no task: calls, notices, wakers.
        self.shard.reactor.send_gathered();
        self.shard.waits(now);
        if let Some(mut driver) = shared.reactor.try_drive() {
            shared.reactor.drive(&mut driver, Some(Duration::ZERO), &mut woken);
        }
        self.shard.works();
        self.publish();
        self.wake(woken);
        // With nobody asleep there is no guard: each of those who work is one.
        if now.duration_since(self.looked_around.get()) >= GUARD_INTERVAL {
            self.looked_around.set(now);
            self.rescue();
        }
    }

    /// Takes a task that another worker has kept for itself for a while, since it is held up.
    fn rescue(&self) {
        if let Some(job) = self.pool.queues.rescue(&mut self.seen.borrow_mut()) {
            add(&self.shard.counters.steals, 1);
            self.local.push(job);
        }
    }

    fn sleep(&self, now: Instant) {
        self.shard.reactor.send_gathered();
        let pool = &*self.pool;
        let shared = &pool.shared;
        let mut driver = shared.reactor.try_drive();
        // While somebody works, one of those who sleep has an eye on it.
        let guards = pool.idle.take_guard(pool.running());
        let timers = driver.as_ref().and_then(|_| shared.sleep(now));
        let stop = self.shard.stopping().map(|stop| stop.saturating_duration_since(now));
        let timeout = [timers, stop, self.shard.timers.next(now), guards.then_some(GUARD_INTERVAL)];
        let timeout = timeout.into_iter().flatten().min();
        add(&self.shard.counters.parks, 1);
        self.publish();
        self.seat.take(driver.is_some());
        pool.idle.sleep(self.index, self.searcher.replace(false));
        let unparker = self.shard.inbox().unparker();
        unparker.announce();
        let mut woken = self.woken.take();
        let stays = pool.idle.sleeps(self.index)
            && (guards || pool.idle.needs_no_guard(pool.running()))
            && self.shard.inbox().is_empty()
            && (!pool.queues.has_any() || pool.idle.another_searches(self.index))
            && !self.is_stopped()
            // The last task may have ended elsewhere since this worker looked: it has to say that it is quiet.
            && (self.shard.stopping().is_none() || self.shard.is_quiet() || !self.is_done());
        if stays {
            self.shard.waits(now);
            match &mut driver {
                Some(driver) => shared.reactor.drive(driver, timeout, &mut woken),
                None => self.shard.reactor.poll(timeout),
            }
            self.shard.works();
        }
        unparker.awake();
        self.searcher.set(pool.idle.wake(self.index));
        if driver.is_some() {
            // While nobody else can drive: the next has its own time to wake.
            shared.awake();
        }
        drop(driver);
        if guards {
            pool.idle.leave_guard();
            self.rescue();
        }
        self.wake(woken);
    }

    /// Wakes those whose sockets are ready or whose time has come, when nothing is locked.
    fn wake(&self, mut woken: Vec<Waker>) {
        let limit = self.shard.limits().timers_per_turn;
        let (fired, _) = self.pool.shared.expire(self.shard.now(), limit, &mut woken);
        add(&self.shard.counters.timers_fired, fired as u64);
        for waker in woken.drain(..) {
            wake_counted(waker);
        }
        self.woken.replace(woken);
    }
}
