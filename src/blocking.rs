//! Threads for work that blocks: files, name resolution, long computations.
//!
//! One pool per runtime. Threads are started when work waits and none is idle, up to a limit, and end after a while
//! without work. They are not pinned: a thread inherits the CPU mask of the one that starts it, so each first takes
//! back the mask that the process had when the runtime was made. Shards never wait for the pool.
//!
//! The queue of work that waits for a thread has no bound; docs/ARCHITECTURE.md says why.

use crate::id::TaskId;
use crate::mesh::call::{Answer, Reply};
use crate::shard::context::{outside, with_current};
use crate::shard::surroundings::Surroundings;
use crate::sync::{Arc, lock};
use crate::sys::affinity::AffinityMask;
use crate::task::failure::JoinError;
use crate::task::join::JoinHandle;
use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// An idle thread ends after this long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

thread_local! {
    /// What this thread of a pool is doing.
    static CURRENT: Cell<Option<TaskId>> = const { Cell::new(None) };
}

/// The identity of the closure that runs on this thread of a pool.
pub(crate) fn current() -> Option<TaskId> {
    CURRENT.get()
}

type Job = Box<dyn FnOnce() + Send>;

/// See the module. Cheap to clone; the threads end when the pool is closed.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    work: Condvar,
    threads_max: usize,
    mask: Option<AffinityMask>,
    surroundings: Surroundings,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// A pool without threads yet. They will run with the CPU mask that the calling thread has now.
    pub(crate) fn new(threads_max: usize, surroundings: Surroundings) -> Pool {
        let (state, work, mask) = (Mutex::default(), Condvar::new(), AffinityMask::current().ok());
        Pool(Arc::new(Inner { state, work, threads_max, mask, surroundings }))
    }

    pub(crate) fn surroundings(&self) -> &Surroundings {
        &self.0.surroundings
    }

    /// Runs `work` on one of the threads, or queues it until one is free. `task` is its identity.
    pub(crate) fn spawn<R: Send + 'static>(
        &self,
        task: TaskId,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        let reply = Reply::of_task(task);
        let answer = Answer::new(reply.clone());
        self.submit(Box::new(move || {
            if let Some(reply) = answer.take() {
                if reply.is_aborted() {
                    return reply.complete(Err(JoinError::never_ran()));
                }
                CURRENT.set(Some(task));
                let result = catch_unwind(AssertUnwindSafe(work));
                CURRENT.set(None);
                reply.complete(result.map_err(JoinError::closure_panicked));
            }
        }));
        JoinHandle::remote(reply)
    }

    fn submit(&self, job: Job) {
        let mut state = lock(&self.0.state);
        if state.closed {
            drop(state);
            return drop(job);
        }
        state.jobs.push_back(job);
        if state.idle >= state.jobs.len() || state.threads >= self.0.threads_max {
            drop(state);
            return self.0.work.notify_one();
        }
        state.threads += 1;
        drop(state);
        let pool = self.clone();
        let started =
            std::thread::Builder::new().name("corelane-blocking".into()).spawn(move || {
                pool.surroundings().within(|| pool.run());
            });
        if started.is_err() {
            // Others will get to it; with no thread at all nobody would, so what waits is dropped and says so.
            let mut state = lock(&self.0.state);
            state.threads -= 1;
            let nobody = state.threads == 0;
            let orphaned = if nobody { std::mem::take(&mut state.jobs) } else { VecDeque::new() };
            drop(state);
            drop(orphaned);
        }
    }

    /// Gives the calling thread the mask that the process had when the runtime was made.
    pub(crate) fn take_mask_back(&self) {
        if let Some(mask) = &self.0.mask {
            // Refused only where the mask was changed from outside meanwhile; then the inherited one has to do.
            let _ = mask.apply_to_current_thread();
        }
    }

    /// One thread's life.
    fn run(&self) {
        self.take_mask_back();
        let mut state = lock(&self.0.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                crate::task::failure::drop_caught(catch_unwind(AssertUnwindSafe(job)));
                state = lock(&self.0.state);
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let waited = self.0.work.wait_timeout(state, KEEP_ALIVE);
            let (woken, timeout) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    /// Refuses further work, drops what is queued, lets the threads end after what they are doing. Does not wait.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.0.state);
        state.closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        self.0.work.notify_all();
        drop(jobs);
    }
}

/// Runs `work` on a thread where it may block, and returns a handle to its result.
///
/// The thread belongs to the runtime's blocking pool: it is not pinned to any CPU and is no shard, so `spawn_local`
/// and the like are not available in `work`. At most [`Limits::blocking_threads`](crate::Limits) run at a time; further
/// work waits its turn. Aborting the handle has an effect only before the work begins. At shutdown, work that has not
/// begun is dropped; work that has begun is not waited for.
///
/// Work that waits is never refused, and its queue has no bound: handed over faster than it is done, it takes memory.
/// Await the handles, or bound their number, by a semaphore for example.
///
/// # Panics
/// Outside a shard.
///
/// # Examples
/// ```
/// corelane::block_on(async {
///     let text = corelane::spawn_blocking(|| std::fs::read_to_string("/proc/version")).await;
///     assert!(text.expect("did not panic").is_ok());
/// });
/// ```
#[track_caller]
pub fn spawn_blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    match with_current(|shard| (shard.fleet().pool().clone(), shard.home().fresh_id())) {
        Some((pool, task)) => pool.spawn(task, work),
        None => outside("spawn_blocking"),
    }
}
