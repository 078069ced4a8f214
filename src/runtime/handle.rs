//! What any thread may do with a runtime.

use super::block_on::{refuse_nested, run};
use crate::id::ShardId;
use crate::mesh::message::Notice;
use crate::mode::Mode;
use crate::shard::context::{outside, with_current};
use crate::shard::counters::ShardStats;
use crate::shard::fleet::Fleet;
use crate::sync::Arc;
use crate::task::join::JoinHandle;
use crate::time::clock;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// Reaches a runtime's shards from anywhere. Cheap to clone; `Send` and `Sync`. It does not keep the runtime running:
/// after a shutdown its calls say that the shards are closed.
#[derive(Clone)]
pub struct Handle {
    fleet: Arc<Fleet>,
}

impl Handle {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Handle {
        Handle { fleet }
    }

    pub(crate) fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// The runtime that this shard belongs to. Inside a free-standing [`block_on`](crate::block_on) it has no shards.
    ///
    /// # Panics
    /// Outside a shard.
    #[track_caller]
    pub fn current() -> Handle {
        Handle::try_current().unwrap_or_else(|| outside("Handle::current"))
    }

    /// [`Handle::current`], or none outside a shard.
    pub fn try_current() -> Option<Handle> {
        with_current(|shard| Handle::new(shard.fleet().clone()))
    }

    /// How the runtime schedules tasks.
    pub fn mode(&self) -> Mode {
        if self.fleet.is_pool() { Mode::WorkStealing } else { Mode::ThreadPerCore }
    }

    /// The number of shards.
    pub fn shard_count(&self) -> usize {
        self.fleet.len()
    }

    /// Every shard.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.fleet.len() as u16).map(ShardId::new)
    }

    /// What each shard has done so far, as of its last look at its sockets, in the shards' order.
    pub fn stats(&self) -> Vec<ShardStats> {
        self.fleet.stats()
    }

    /// Runs a future to its end on the calling thread, which becomes a shard of its own for that long: sockets, timers
    /// and `spawn_local` work in it, and [`Handle::current`] is this runtime. Tasks spawned in it are dropped at its end.
    ///
    /// That is so in work-stealing mode as well: the thread is no worker, and what is spawned in it stays on it. A socket or
    /// timer that a worker has polled before works in it, and is still looked after by the workers.
    ///
    /// # Panics
    /// As [`block_on`](crate::block_on).
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        refuse_nested();
        run(self.fleet.clone(), future)
    }

    /// [`spawn_blocking`](crate::spawn_blocking), from any thread.
    pub fn spawn_blocking<F, R>(&self, work: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.fleet.pool().spawn(self.fleet.fresh_task(), work)
    }

    /// Asks every shard to stop: all together, when no task is left on any of them and every call that was taken has run,
    /// and after `deadline` in any case. Until then they go on taking calls: of requests that are still at hand, for
    /// example. Returns immediately; [`Runtime::shutdown`](crate::Runtime::shutdown) waits. Tasks learn of it by
    /// [`shutdown_requested`](crate::shutdown_requested), the future of a [`block_on`](Self::block_on) too.
    pub fn request_shutdown(&self, deadline: Duration) {
        let now = clock::now();
        let deadline = now.checked_add(deadline).unwrap_or(now + Duration::from_secs(86_400 * 365));
        for inbox in self.fleet.inboxes() {
            inbox.notify(Notice::Shutdown { deadline });
        }
        self.fleet.ask_guests_to_stop();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("shards", &self.fleet.len()).finish()
    }
}

/// The shard that this thread is in a turn of, if it is one of a runtime.
pub(crate) fn current_shard() -> Option<ShardId> {
    with_current(|shard| shard.id()).flatten()
}

impl ShardId {
    /// The shard that this code runs on; none outside a runtime's shards.
    pub fn current() -> Option<ShardId> {
        current_shard()
    }
}
