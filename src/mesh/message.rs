//! What one thread can tell a shard, other than "poll this task" and "run this call".
//!
//! A closed list. Each notice stands for an object that already exists and sends a bounded number of them (a socket's
//! slot, a timer, a join handle), which is why notices need no bound of their own and are never refused.

use crate::reactor::slots::{Direction, SlotKey};
use crate::sync::{Arc, Mutex, lock};
use crate::task::waker::wake_counted;
use crate::time::wheel::Key;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// See the module.
pub(crate) enum Notice {
    /// Runs on the shard: join handles and other parts of the runtime that travel.
    Run(Box<dyn FnOnce() + Send>),
    /// A socket has moved to another shard: forget its slot, unless a task here still waits for it.
    MovedAway(SlotKey),
    /// A socket was dropped elsewhere: forget its slot.
    Dropped(SlotKey),
    /// A thread that is no shard waits for a socket registered here.
    Watch { slot: SlotKey, direction: Direction, waker: Waker },
    /// A thread that is no shard waits for a point in time.
    Arm { deadline: Instant, alarm: Arc<Alarm> },
    /// A timer armed here was dropped elsewhere.
    CancelTimer(Key),
    /// The same, for one that was armed from elsewhere.
    CancelAlarm(Arc<Alarm>),
    /// Stop when no task is left, and at this time in any case.
    Shutdown { deadline: Instant },
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
