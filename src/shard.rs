//! A shard: one thread's executor, sockets, timers, inbox and counters.
//!
//! Only the thread that made a shard touches it (it is behind an `Rc`). What others may touch is its [`Inbox`] and the
//! counters it publishes, both reached through the [`Fleet`]. The loop is in [`turn`].

pub(crate) mod context;
pub(crate) mod counters;
pub(crate) mod fleet;
pub(crate) mod shared;
pub(crate) mod spin;
pub(crate) mod stop;
pub(crate) mod surroundings;
pub(crate) mod timers;
pub(crate) mod turn;

use crate::id::ShardId;
use crate::limits::Limits;
use crate::mesh::inbox::Inbox;
use crate::park::{Bell, Seat};
use crate::reactor::Reactor;
use crate::reactor::poll::Poll;
use crate::sync::Arc;
use crate::task::home::{Home, add};
use counters::{Counters, PublishedLine};
use fleet::Fleet;
use shared::Shared;
use spin::Spin;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use stop::StopWaiters;
use timers::Timers;

/// See the module.
pub(crate) struct Shard {
    /// None for the thread of a `block_on`, which is a shard for as long as that runs.
    id: Option<ShardId>,
    fleet: Arc<Fleet>,
    home: Home,
    pub(crate) reactor: Reactor,
    pub(crate) timers: Timers,
    /// Where sockets and timers go instead, if the thread is a worker of a pool.
    shared: Option<Arc<Shared>>,
    pub(crate) counters: Counters,
    published: Arc<PublishedLine>,
    limits: Limits,
    spin: Spin,
    /// The time as of the last look at the clock in this turn.
    now: Cell<Instant>,
    /// When the present stretch of work began.
    busy_since: Cell<Instant>,
    /// When it looked at the sockets last.
    looked_at: Cell<Instant>,
    /// Time since then that went into looking at the inbox.
    spun: Cell<Duration>,
    /// Socket operations that the task being polled may still do.
    io_left: Cell<u32>,
    poll_number: Cell<u64>,
    /// Polls between two looks at the clock, by how long polls have been taking.
    clock_stride: Cell<u32>,
    /// The same for calls.
    call_stride: Cell<u32>,
    /// Polls of the last turn, if it left tasks that are ready; else 0.
    backlog: Cell<u32>,
    /// In the last turn a task made itself ready while it was polled.
    yielding: Cell<bool>,
    /// Turns of work since the last look at the sockets.
    turns_since_io: Cell<u32>,
    /// See `block_on`.
    root_woken: Cell<bool>,
    stop_at: Cell<Option<Instant>>,
    /// Who is in a `block_on` has been told that its runtime is to stop.
    asked: Cell<bool>,
    /// It has told the others that it has nothing left to do.
    quiet: Cell<bool>,
    /// None of them has.
    over: Cell<bool>,
    /// How many calls further up this stack run as this shard.
    entered: Cell<u32>,
    pub(crate) stop_waiters: StopWaiters,
    /// Values of `Sharded`, by its number.
    kept: RefCell<HashMap<u64, Rc<dyn Any>>>,
}

/// The parts of a shard that are made before its thread: the poll, and the inbox that others will send to.
pub(crate) struct Seed {
    limits: Limits,
    poll: Poll,
    pub(crate) inbox: Arc<Inbox>,
    shared: Option<Arc<Shared>>,
    pub(crate) seat: Option<Arc<Seat>>,
}

impl Seed {
    /// # Errors
    /// If the operating system has no epoll instance or eventfd for us.
    pub(crate) fn new(limits: &Limits) -> io::Result<Seed> {
        Seed::sharing(limits, None)
    }

    /// Of a worker, whose sockets and timers are `shared`.
    ///
    /// # Errors
    /// As [`Seed::new`].
    pub(crate) fn sharing(limits: &Limits, shared: Option<Arc<Shared>>) -> io::Result<Seed> {
        let poll = Poll::new(limits.events)?;
        let seat = shared.clone().map(|shared| Seat::new(move || shared.reactor.ring()));
        let bell = Bell::new(poll.registry(), seat.clone())?;
        let inbox = Arc::new(Inbox::new(bell, fleet::next_uid(), limits));
        Ok(Seed { limits: limits.clone(), poll, inbox, shared, seat })
    }
}

impl Shard {
    /// The shard of the calling thread, from here on.
    pub(crate) fn new(
        id: Option<ShardId>,
        seed: Seed,
        fleet: Arc<Fleet>,
        published: Arc<PublishedLine>,
    ) -> Rc<Shard> {
        let now = crate::time::clock::now();
        let Seed { limits, poll, inbox, shared, .. } = seed;
        let uid = inbox.uid();
        Rc::new(Shard {
            id,
            home: Home::new(inbox, fleet::first_task(uid)),
            reactor: Reactor::new(poll, uid),
            timers: Timers::new(now),
            shared,
            counters: Counters::default(),
            published,
            spin: Spin::new(limits.busy_poll),
            now: Cell::new(now),
            busy_since: Cell::new(now),
            looked_at: Cell::new(now),
            spun: Cell::default(),
            io_left: Cell::new(limits.io_per_poll),
            poll_number: Cell::new(1),
            clock_stride: Cell::new(crate::limits::CLOCK_STRIDE),
            call_stride: Cell::new(crate::limits::CLOCK_STRIDE),
            backlog: Cell::new(0),
            yielding: Cell::new(false),
            turns_since_io: Cell::new(0),
            root_woken: Cell::new(false),
            stop_at: Cell::new(None),
            asked: Cell::new(false),
            quiet: Cell::new(false),
            over: Cell::new(false),
            entered: Cell::new(0),
            stop_waiters: StopWaiters::new(),
            kept: RefCell::new(HashMap::new()),
            limits,
            fleet,
        })
    }

    pub(crate) fn id(&self) -> Option<ShardId> {
        self.id
    }

    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    #[inline(always)]
    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        self.home.inbox()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// See `Inbox::uid`.
    pub(crate) fn uid(&self) -> u32 {
        self.inbox().uid()
    }

    /// See the field.
    pub(crate) fn shared(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref()
    }

    /// The time at this turn's last look at the clock. Behind the true time by no more than a turn.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// One socket operation of the task that is being polled. False: it has had its share and must yield.
    #[inline(always)]
    pub(crate) fn charge_io(&self) -> bool {
        let left = self.io_left.get();
        if left == 0 {
            return false;
        }
        self.io_left.set(left - 1);
        true
    }

    /// How many socket operations the task being polled may still do.
    pub(crate) fn io_left(&self) -> u32 {
        self.io_left.get()
    }

    /// See `task::coop`.
    pub(crate) fn set_io_left(&self, operations: u32) {
        self.io_left.set(operations);
    }

    /// Keeps a value for the life of the shard, or until it is forgotten. See `Sharded`.
    pub(crate) fn keep(&self, number: u64, value: Rc<dyn Any>) {
        self.kept.borrow_mut().insert(number, value);
    }

    pub(crate) fn kept<T: 'static>(&self, number: u64) -> Option<Rc<T>> {
        let value = self.kept.borrow().get(&number).cloned();
        value.and_then(|value| value.downcast().ok())
    }

    /// Gives the value to the caller, who drops it when nothing is borrowed.
    pub(crate) fn forget(&self, number: u64) -> Option<Rc<dyn Any>> {
        self.kept.borrow_mut().remove(&number)
    }

    /// The future of a `block_on` on this thread was woken.
    pub(crate) fn wake_root(&self) {
        self.root_woken.set(true);
    }

    pub(crate) fn take_root_wake(&self) -> bool {
        self.root_woken.take()
    }

    /// Whether there is something to do now.
    pub(crate) fn has_work(&self) -> bool {
        self.home.has_ready() || self.root_woken.get() || !self.inbox().is_empty()
    }

    /// When the next timer is due, or the shard must stop.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let now = self.now();
        if self.is_stopped() {
            return Some(now);
        }
        let timer = self.timers.next(now).and_then(|wait| now.checked_add(wait));
        [timer, self.stop_at.get()].into_iter().flatten().min()
    }

    /// Announces sleep on behalf of a host that waits in its own loop. False: there is something to do.
    pub(crate) fn announce(&self) -> bool {
        // Before the announcement, as in `turn`.
        add(&self.counters.parks, 1);
        self.publish();
        let unparker = self.inbox().unparker();
        unparker.announce();
        if self.has_work() || self.is_stopped() {
            unparker.awake();
            return false;
        }
        true
    }

    /// A new poll begins, with its full share.
    #[inline(always)]
    pub(crate) fn begin_poll(&self) {
        self.io_left.set(self.limits.io_per_poll);
        self.poll_number.set(self.poll_number.get() + 1);
    }

    /// Of the poll that runs; never 0, and never the same again.
    #[inline(always)]
    pub(crate) fn poll_number(&self) -> u64 {
        self.poll_number.get()
    }

    /// Whether code further up this stack runs as this shard, also if another has been entered since.
    pub(crate) fn is_entered(&self) -> bool {
        self.entered.get() > 0
    }

    /// A call was sent, so an answer may come soon.
    pub(crate) fn expect_answer(&self) {
        self.spin.expect();
    }

    /// Whether it, or the runtime whose guest it is, was asked to stop.
    pub(crate) fn is_asked_to_stop(&self) -> bool {
        self.stop_at.get().is_some() || self.asked.get()
    }

    /// The runtime whose guest it is was asked to stop.
    pub(crate) fn be_asked_to_stop(&self) {
        self.asked.set(true);
        self.stop_waiters.wake_all();
    }

    /// When the shard was asked to stop, the latest time at which it will.
    pub(crate) fn stopping(&self) -> Option<Instant> {
        self.stop_at.get()
    }
}
