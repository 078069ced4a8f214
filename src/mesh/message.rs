//! What one thread can tell a shard, other than "poll this task" and "run this call".
//!
//! A closed list. Notices are never refused. What bounds them are the objects that send them, each of which sends a few:
//! a socket one for each shard it leaves and one for all who watch it, a join handle one, and a thread that is no shard
//! two for each timer that it waits for and gives up.

use crate::reactor::slots::{Direction, SlotKey, Waiters};
use crate::sync::{Arc, Mutex, lock};
use crate::task::waker::wake_counted;
use crate::time::wheel::Key;
use crate::wait_queue::WaiterId;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// See the module.
pub(crate) enum Notice {
    /// Runs on the shard: join handles and other parts of the runtime that travel.
    Run(Box<dyn FnOnce() + Send>),
    /// A socket has moved to another shard, for the time that is counted: forget its slot, unless a task here still waits
    /// for it, or it has come back since.
    MovedAway(SlotKey, u32),
    /// A socket was dropped elsewhere: forget its slot.
    Dropped(SlotKey),
    /// Threads that are no shard wait for a socket registered here.
    Watch { slot: SlotKey, direction: Direction, watchers: Arc<Watchers> },
    /// A thread that is no shard waits for a point in time.
    Arm { deadline: Instant, alarm: Arc<Alarm> },
    /// A timer armed here was dropped elsewhere.
    CancelTimer(Key),
    /// The same, for one that was armed from elsewhere.
    CancelAlarm(Arc<Alarm>),
    /// Stop when no task is left, and at this time in any case.
    Shutdown { deadline: Instant },
}

/// Who waits for one direction of a socket on threads that are no shard.
///
/// The socket's slot holds it as one waker, left there by one notice, however many wait. Whoever gives up is forgotten at once.
#[derive(Default)]
pub(crate) struct Watchers {
    state: Mutex<Watching>,
}

#[derive(Default)]
struct Watching {
    waiters: Waiters,
    /// The home wakes all when the socket stirs, or will hear of it: a notice is on its way.
    told: bool,
}

impl Watchers {
    /// The task of a `poll_*` method waits, in place of the one that polled before. True: the home must be told.
    #[must_use]
    pub(crate) fn poll(&self, waker: Waker) -> bool {
        let mut state = lock(&self.state);
        let spare = state.waiters.set_polling(waker);
        let told = std::mem::replace(&mut state.told, true);
        drop(state);
        drop(spare);
        !told
    }

    /// A future waits, or still waits, as `id`. True: the home must be told.
    #[must_use]
    pub(crate) fn wait(&self, id: &mut Option<WaiterId>, waker: Waker) -> bool {
        let mut state = lock(&self.state);
        let (new, spare) = state.waiters.queue.wait(*id, waker);
        *id = Some(new);
        let told = std::mem::replace(&mut state.told, true);
        drop(state);
        drop(spare);
        !told
    }

    /// As [`poll`](Self::poll), for a socket whose home needs no telling.
    pub(crate) fn renew(&self, waker: &Waker) {
        if lock(&self.state).waiters.wait_again(waker) {
            return;
        }
        let _: bool = self.poll(waker.clone());
    }

    /// Whether a future still waits. Otherwise it was woken.
    pub(crate) fn knows(&self, id: WaiterId) -> bool {
        lock(&self.state).waiters.queue.knows(id)
    }

    /// A future gives up.
    pub(crate) fn forget(&self, id: WaiterId) {
        let waker = lock(&self.state).waiters.queue.forget(id);
        drop(waker);
    }

    /// The socket stirs: everybody is to be woken.
    pub(crate) fn take_all(&self, woken: &mut Vec<Waker>) {
        let mut state = lock(&self.state);
        state.told = false;
        woken.extend(std::iter::from_fn(|| state.waiters.take()));
    }

    /// The socket stirs, or its home is gone.
    pub(crate) fn wake_all(&self) {
        let mut woken = Vec::new();
        self.take_all(&mut woken);
        woken.into_iter().for_each(wake_counted);
    }
}

#[cfg(not(loom))]
impl std::task::Wake for Watchers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

/// A timer of a thread that is no shard: armed, fired and freed by the shard that was asked.
pub(crate) struct Alarm {
    state: Mutex<AlarmState>,
}

#[derive(Default)]
struct AlarmState {
    rung: bool,
    waker: Option<Waker>,
    /// Set by the shard once it has armed the timer.
    key: Option<Key>,
}

impl Alarm {
    pub(crate) fn new() -> Arc<Alarm> {
        Arc::new(Alarm { state: Mutex::new(AlarmState::default()) })
    }

    /// The waiting side.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let mut state = lock(&self.state);
        if state.rung {
            return Poll::Ready(());
        }
        let known = state.waker.replace(waker);
        drop(state);
        drop(known);
        Poll::Pending
    }

    /// The shard has armed the timer under `key`.
    pub(crate) fn armed(&self, key: Key) {
        lock(&self.state).key = Some(key);
    }

    /// The timer's key, once.
    pub(crate) fn take_key(&self) -> Option<Key> {
        lock(&self.state).key.take()
    }

    /// The time has come, or the shard is closing.
    pub(crate) fn ring(&self) {
        let mut state = lock(&self.state);
        state.rung = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            wake_counted(waker);
        }
    }
}

#[cfg(not(loom))]
impl std::task::Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}
