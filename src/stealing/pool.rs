//! What all workers of a pool share, and the way of a task into a queue.

use super::context::with_worker;
use super::idle::Idle;
use super::queue::{Local, Queues};
use crate::id::TaskId;
use crate::mesh::inbox::Inbox;
use crate::shard::fleet::Fleet;
use crate::shard::shared::Shared;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, fence, lock};
use crate::table::Table;
use crate::task::failure::drop_caught;
use crate::task::join::JoinHandle;
use crate::task::stealable::{self, Job, Schedule, Why};
use crate::task::waker::count_panic;
use std::future::Future;
// As in `task::stealable`.
use std::sync::Arc;

/// See the module.
pub(crate) struct Pool {
    pub(super) queues: Queues<Job>,
    pub(super) idle: Idle,
    pub(super) shared: crate::sync::Arc<Shared>,
    inboxes: Box<[crate::sync::Arc<Inbox>]>,
    /// Every task that has not ended. None: the pool has ended.
    tasks: Mutex<Option<Table<Job>>>,
    /// Wakes by threads that are no workers, until a worker counts them as its own.
    foreign_wakes: AtomicU64,
    /// Workers that still run.
    running: AtomicUsize,
    /// The workers are to end when no task is left.
    stopping: AtomicBool,
}

impl Pool {
    /// A pool of as many workers as there are inboxes, and each worker's own end of its queue.
    pub(crate) fn new(
        shared: crate::sync::Arc<Shared>,
        inboxes: Vec<crate::sync::Arc<Inbox>>,
    ) -> (Arc<Pool>, Vec<Local<Job>>) {
        let (queues, locals) = Queues::new(inboxes.len());
        let pool = Pool {
            queues,
            idle: Idle::new(),
            shared,
            running: AtomicUsize::new(inboxes.len()),
            inboxes: inboxes.into(),
            tasks: Mutex::new(Some(Table::new())),
            foreign_wakes: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        };
        (Arc::new(pool), locals)
    }

    /// Spawns a task that any worker may run.
    pub(crate) fn spawn<F>(self: &Arc<Self>, future: F, id: TaskId) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        stealable::spawn(self, future, id)
    }

    /// Workers.
    pub(super) fn len(&self) -> usize {
        self.inboxes.len()
    }

    /// Workers that have not left.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    /// Tasks that have not ended.
    pub(crate) fn live(&self) -> usize {
        self.shared.live.load(Ordering::SeqCst)
    }

    /// Wakes by threads that are no workers since the last call.
    pub(super) fn take_foreign_wakes(&self) -> u64 {
        // Only a look, as a rule: workers ask often.
        match self.foreign_wakes.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.foreign_wakes.swap(0, Ordering::Relaxed),
        }
    }

    /// After a push: wakes a worker that will search, if that is useful.
    pub(super) fn notify(&self) {
        if let Some(worker) = self.idle.notify() {
            self.inboxes[worker].unpark();
        }
    }

    /// Wakes everybody.
    fn wake_all(&self) {
        self.inboxes.iter().for_each(|inbox| inbox.unpark());
    }

    /// The workers are to end when no task is left.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// A worker has ended. The last drops what is left. `fleet` counts it.
    pub(super) fn leave(&self, fleet: &Fleet) {
        if self.running.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // Partner: the fence in `notify`, which stands between a push and the look whether anybody is left.
        fence(Ordering::SeqCst);
        fleet.add_cut(self.live());
        // No worker runs, so each can be claimed.
        let tasks = lock(&self.tasks).take();
        if let Some(mut tasks) = tasks {
            for index in 0..tasks.capacity() {
                if let Some(task) = tasks.remove(index) {
                    task.cancel();
                }
            }
        }
        self.queues.drain().for_each(drop);
        self.shared.close();
    }
}

impl Schedule for Pool {
    fn adopt(&self, job: Job) -> Option<u32> {
        let number = lock(&self.tasks).as_mut().map(|tasks| tasks.insert(job))?;
        self.shared.live.fetch_add(1, Ordering::SeqCst);
        Some(number)
    }

    fn push(&self, job: Job, why: Why) {
        let mut job = Some(job);
        let _ = with_worker(|worker| {
            if std::ptr::eq(&raw const **worker.pool(), self)
                && let Some(job) = job.take()
            {
                worker.push(job, why);
            }
        });
        let Some(job) = job else { return };
        if self.running() == 0 {
            // Nobody would take it out of a queue.
            return job.cancel();
        }
        if why == Why::Woken {
            self.foreign_wakes.fetch_add(1, Ordering::Relaxed);
        }
        self.queues.inject(job);
        self.notify();
        // The fence in `notify` stands between the push and this look.
        if self.running() == 0 {
            self.queues.drain().for_each(|job| job.cancel());
        }
    }

    fn forget(&self, number: u32) {
        let job = lock(&self.tasks).as_mut().and_then(|tasks| tasks.remove(number));
        drop_caught(job);
        let live = self.shared.live.fetch_sub(1, Ordering::SeqCst) - 1;
        if live == 0 && self.stopping.load(Ordering::SeqCst) {
            self.wake_all();
        }
    }

    fn count_panic(&self) {
        count_panic();
    }
}
