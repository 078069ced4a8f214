//! One shard's receiving end: the only thing of a shard that other threads write to.
//!
//! Three ways in, each bounded by something that can be named:
//!
//! - *wakes*: a stack of tasks, each at most once, so no longer than the tasks that live;
//! - *notices*: from sockets, timers and join handles, a few from each, see [`super::message`];
//! - *calls*: a queue of fixed capacity. Full is an answer, not a wait: the closure comes back to its sender.
//!
//! A sender that wants to wait for room leaves a waker. The home empties its inbox in every turn whatever its tasks
//! are waiting for, and nothing in here waits for another shard, so two shards with full inboxes that call each other
//! go on.
//!
//! After `close` every way in refuses. What was pushed meanwhile is dropped by the sender that pushed it or by the
//! home, whoever sees it last; a call that is dropped answers its reply.

use super::message::Notice;
use super::thunk::Thunk;
use crate::limits::Limits;
use crate::park::{Bell, Unparker};
use crate::sync::{
    Arc, ArrayQueue, AtomicBool, CachePadded, Mutex, Ordering, SegQueue, fence, lock,
};
use crate::task::failure::drop_caught;
use crate::task::waker::{WakeStack, wake_counted};
use crate::wait_queue::{WaitQueue, WaiterId};
use std::task::Waker;

/// See the module.
pub(crate) struct Inbox {
    /// Written by whoever wakes a task here: on a line of its own.
    pub(crate) wakes: CachePadded<WakeStack>,
    calls: ArrayQueue<Thunk>,
    notices: SegQueue<Notice>,
    room: CachePadded<Room>,
    closed: AtomicBool,
    unparker: Unparker<Bell>,
    /// Identity of the shard among all that this process ever made; see `reactor::source`.
    uid: u32,
}

/// Senders that wait for room in `calls`.
struct Room {
    anybody: AtomicBool,
    queue: Mutex<WaitQueue>,
}

/// A wait for room in an inbox. Dropped, it gives its place up.
pub(crate) struct RoomWait {
    inbox: Arc<Inbox>,
    id: Option<WaiterId>,
}

/// Why a call was not taken. The closure comes back.
#[derive(Debug)]
#[must_use]
pub(crate) enum Refused<F> {
    Full(F),
    Closed(F),
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("uid", &self.uid)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl Inbox {
    pub(crate) fn new(bell: Bell, uid: u32, limits: &Limits) -> Inbox {
        Inbox {
            wakes: CachePadded::new(WakeStack::new()),
            calls: ArrayQueue::new(limits.inbox_capacity),
            notices: SegQueue::new(),
            room: CachePadded::new(Room {
                anybody: AtomicBool::new(false),
                queue: Mutex::new(WaitQueue::default()),
            }),
            closed: AtomicBool::new(false),
            unparker: Unparker::new(bell),
            uid,
        }
    }

    #[inline(always)]
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    // Senders, on any thread. They hold the inbox by a reference of their own.

    /// Rings if the home sleeps. After every push.
    pub(crate) fn unpark(&self) {
        self.unparker.unpark();
    }

    /// How often the home was rung, each time one system call.
    pub(crate) fn rings(&self) -> u64 {
        self.unparker.rings()
    }

    /// Whether the home sleeps.
    pub(crate) fn is_home_asleep(&self) -> bool {
        self.unparker.is_parked()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Leaves a call. It runs on the home, in a coming turn.
    ///
    /// # Errors
    /// With the call, if there is no room or the home is closing.
    pub(crate) fn call(&self, thunk: Thunk) -> Result<(), Refused<Thunk>> {
        if self.is_closed() {
            return Err(Refused::Closed(thunk));
        }
        self.calls.push(thunk).map_err(Refused::Full)?;
        self.unpark();
        // The fence in `unpark` stands between the push and this look; partner: the fence in `close`.
        if self.is_closed() {
            self.drop_calls();
        }
        Ok(())
    }

    /// Leaves a notice. A closed inbox drops it.
    pub(crate) fn notify(&self, notice: Notice) {
        if self.is_closed() {
            return refuse(notice);
        }
        self.notices.push(notice);
        self.unpark();
        // As in `call`.
        if self.is_closed() {
            self.drop_notices();
        }
    }

    // The home.

    pub(crate) fn is_empty(&self) -> bool {
        self.wakes.is_empty() && self.calls.is_empty() && self.notices.is_empty()
    }

    pub(crate) fn unparker(&self) -> &Unparker<Bell> {
        &self.unparker
    }

    #[inline]
    pub(crate) fn take_call(&self) -> Option<Thunk> {
        self.calls.pop()
    }

    #[inline]
    pub(crate) fn take_notice(&self) -> Option<Notice> {
        if self.notices.is_empty() { None } else { self.notices.pop() }
    }

    /// After calls were taken: lets those who wait for room try again.
    pub(crate) fn made_room(&self) {
        // Partner: the fence in `RoomWait::register`.
        fence(Ordering::SeqCst);
        if self.room.anybody.load(Ordering::Relaxed) {
            let woken = {
                let mut queue = lock(&self.room.queue);
                self.room.anybody.store(false, Ordering::Relaxed);
                queue.take_all()
            };
            woken.for_each(wake_counted);
        }
    }

    /// Refuses everything from now on, and drops what has come. The wake stack is closed by the task home.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Partner: the fence in `unpark`, which every sender passes between its push and its second look.
        fence(Ordering::SeqCst);
        self.drop_calls();
        self.drop_notices();
        self.made_room();
    }

    fn drop_calls(&self) {
        while let Some(thunk) = self.calls.pop() {
            drop_caught(thunk);
        }
    }

    fn drop_notices(&self) {
        while let Some(notice) = self.notices.pop() {
            refuse(notice);
        }
    }
}

impl RoomWait {
    pub(crate) fn new(inbox: Arc<Inbox>) -> RoomWait {
        RoomWait { inbox, id: None }
    }

    /// `waker` is woken the next time that there is room, or that the inbox closes. Try again after this.
    pub(crate) fn register(&mut self, waker: &Waker) {
        let room = &self.inbox.room;
        let new = waker.clone();
        let mut queue = lock(&room.queue);
        let (id, spare) = queue.wait(self.id, new);
        room.anybody.store(true, Ordering::Relaxed);
        drop(queue);
        drop(spare);
        self.id = Some(id);
        // Partner: the fence in `made_room`. Either the sender's next try finds the room, or the home finds the waker.
        fence(Ordering::SeqCst);
        if self.inbox.is_closed() {
            // Nobody else would let it go.
            self.inbox.made_room();
        }
    }

    /// Whether a call would be taken now.
    pub(crate) fn is_over(&self) -> bool {
        self.inbox.is_closed() || !self.inbox.calls.is_full()
    }
}

impl Drop for RoomWait {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = lock(&self.inbox.room.queue).forget(id);
            drop(waker);
        }
    }
}

/// Drops a notice that its home will not read. Whoever waits for something in return is told to look again.
fn refuse(notice: Notice) {
    match notice {
        Notice::Arm { alarm, .. } => alarm.ring(),
        Notice::Watch { watchers, .. } => watchers.wake_all(),
        other => drop(drop_caught(other)),
    }
}
