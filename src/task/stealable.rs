//! A task that any worker of a pool may run: a future that is `Send`, and a state that says who may touch it.
//!
//! A task of a shard has a home, which spares it nearly every atomic operation (see [`super::cell`]). This one has none:
//!
//! - `SCHEDULED`: it is in a queue, or whoever set the bit is about to put it there. In one queue at most.
//! - `RUNNING`: one worker has taken it out and runs it. It alone has the future.
//! - A wake during a run sets `SCHEDULED` and leaves it at that; the worker sees it after the poll, and puts the task back.
//! - `ABORT`: whoever runs it next drops the future instead.
//! - `ENDED`: the future is gone.
//!
//! The queues hold an `Arc` each, and so does the pool until the task has ended. A future is dropped by the worker that ran
//! it last, or by the pool's end. No lock is held while a future is polled or dropped.

use super::failure::{JoinError, drop_caught};
use super::join::{AbortHandle, JoinHandle};
use crate::id::TaskId;
use crate::mesh::call::{Answer, Reply};
use crate::sync::{AtomicU32, Mutex, Ordering, lock};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
// The standard library's also in a model: the checker's cannot hold a trait object, and wakers are made from this one.
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

const SCHEDULED: u32 = 1 << 0;
const RUNNING: u32 = 1 << 1;
const ABORT: u32 = 1 << 2;
const ENDED: u32 = 1 << 3;

/// Of a task that the pool has not taken note of.
const NO_NUMBER: u32 = u32::MAX;

/// A task in a queue.
pub(crate) type Job = Arc<dyn Stealable>;

/// What a queue knows of a task.
pub(crate) trait Stealable: Send + Sync {
    /// Polls it once, or drops the future if that was asked for. The caller has taken it out of a queue.
    fn run(self: Arc<Self>);
    /// Has the future dropped by the next worker that would poll it.
    fn abort(self: Arc<Self>);
    /// Drops the future here and now, unless it runs: the end of the pool.
    fn cancel(self: Arc<Self>);
    fn is_finished(&self) -> bool;
    fn id(&self) -> TaskId;
}

/// Where tasks go that are ready.
pub(crate) trait Schedule: Send + Sync + 'static {
    /// Takes note of a new task. None: the pool has ended.
    fn adopt(&self, job: Job) -> Option<u32>;
    /// Queues a task that is ready.
    fn push(&self, job: Job, why: Why);
    /// The task called so by `adopt` has ended.
    fn forget(&self, number: u32);
    /// A panic was caught.
    fn count_panic(&self);
}

/// Why a task is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is new.
    Spawned,
    /// Somebody woke it.
    Woken,
    /// It was woken while it ran: it comes after everything else that is ready.
    Yielded,
}

/// The part of a task that any thread may touch.
#[derive(Debug)]
pub(crate) struct State(AtomicU32);

/// What whoever took a task out of a queue does with it.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Begin {
    Poll,
    Cancel,
    /// It has ended.
    Nothing,
}

impl State {
    /// Of a new task, which the caller is about to queue.
    pub(crate) fn new() -> State {
        State(AtomicU32::new(SCHEDULED))
    }

    /// Asks for a poll, and sets `more` besides. True: the caller must queue the task.
    #[must_use]
    fn request(&self, more: u32) -> bool {
        // AcqRel: what the waker has written is seen by the poll, also if another wake came before this one.
        let old = self.update(|old| old | SCHEDULED | more);
        old & (SCHEDULED | RUNNING | ENDED) == 0
    }

    /// Asks for a poll. True: the caller must queue the task.
    #[must_use]
    pub(crate) fn wake(&self) -> bool {
        self.request(0)
    }

    /// The task came out of a queue.
    pub(crate) fn begin(&self) -> Begin {
        let old =
            self.update(|old| if old & ENDED != 0 { old } else { (old & !SCHEDULED) | RUNNING });
        match old {
            old if old & ENDED != 0 => Begin::Nothing,
            old if old & ABORT != 0 => Begin::Cancel,
            _ => Begin::Poll,
        }
    }

    /// The poll is over, and the future waits. True: it was woken meanwhile, and the caller must queue it again.
    #[must_use]
    pub(crate) fn pause(&self) -> bool {
        self.update(|old| old & !RUNNING) & SCHEDULED != 0
    }

    /// Claims the task from wherever it is, to drop its future. False: it has ended, or runs, and then whoever runs it is
    /// asked to queue it again.
    #[must_use]
    fn claim(&self) -> bool {
        let claimed = |old| match old & (RUNNING | ENDED) {
            0 => old | RUNNING,
            _ => old | ABORT | SCHEDULED,
        };
        self.update(claimed) & (RUNNING | ENDED) == 0
    }

    /// The future is gone.
    pub(crate) fn finish(&self) {
        self.update(|old| (old | ENDED) & !RUNNING);
    }

    fn is_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) & ENDED != 0
    }

    fn update(&self, mut step: impl FnMut(u32) -> u32) -> u32 {
        let updated =
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(step(old)));
        let (Ok(old) | Err(old)) = updated;
        old
    }
}

struct Task<F: Future, P> {
    state: State,
    id: TaskId,
    /// Its number in the pool, before it is queued for the first time.
    number: AtomicU32,
    pool: Arc<P>,
    /// Taken by whoever runs the task; locked for no longer than that takes.
    work: Mutex<Option<Work<F>>>,
}

struct Work<F: Future> {
    future: Pin<Box<F>>,
    answer: Answer<F::Output>,
}

/// Makes a task of `pool` that is ready.
pub(crate) fn spawn<F, P>(pool: &Arc<P>, future: F, id: TaskId) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    P: Schedule,
{
    let reply = Reply::of_task(id);
    let work = Work { future: Box::pin(future), answer: Answer::new(reply.clone()) };
    let task = Arc::new(Task {
        state: State::new(),
        id,
        number: AtomicU32::new(NO_NUMBER),
        pool: pool.clone(),
        work: Mutex::new(Some(work)),
    });
    reply.attach(AbortHandle::stealable(task.clone()));
    match pool.adopt(task.clone()) {
        Some(number) => {
            // Relaxed: the queue hands it on.
            task.number.store(number, Ordering::Relaxed);
            pool.push(task, Why::Spawned);
        }
        None => task.cancel(),
    }
    JoinHandle::remote(reply)
}

impl<F, P> Task<F, P>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    P: Schedule,
{
    fn take_work(&self) -> Option<Work<F>> {
        lock(&self.work).take()
    }

    /// Drops the future, says so, and answers.
    fn end(&self, work: Work<F>, result: Result<F::Output, JoinError>) {
        let Work { future, answer } = work;
        if !drop_caught(future) {
            self.pool.count_panic();
        }
        self.state.finish();
        if let Some(reply) = answer.take() {
            reply.complete(result);
            // If the handle is gone, so is the output here, whatever its drop does.
            if !drop_caught(reply) {
                self.pool.count_panic();
            }
        }
        match self.number.load(Ordering::Relaxed) {
            NO_NUMBER => {}
            number => self.pool.forget(number),
        }
    }
}

impl<F, P> Stealable for Task<F, P>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    P: Schedule,
{
    fn run(self: Arc<Self>) {
        let begin = self.state.begin();
        if begin == Begin::Nothing {
            return;
        }
        let Some(mut work) = self.take_work() else { return };
        if begin == Begin::Cancel {
            return self.end(work, Err(JoinError::cancelled(self.id)));
        }
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| work.future.as_mut().poll(&mut context)));
        match polled {
            Ok(Poll::Pending) => {
                *lock(&self.work) = Some(work);
                if self.state.pause() {
                    let pool = self.pool.clone();
                    pool.push(self, Why::Yielded);
                }
            }
            Ok(Poll::Ready(output)) => self.end(work, Ok(output)),
            Err(payload) => {
                self.pool.count_panic();
                self.end(work, Err(JoinError::panicked(self.id, payload)));
            }
        }
    }

    fn abort(self: Arc<Self>) {
        if self.state.request(ABORT) {
            let pool = self.pool.clone();
            pool.push(self, Why::Woken);
        }
    }

    fn cancel(self: Arc<Self>) {
        if self.state.claim()
            && let Some(work) = self.take_work()
        {
            self.end(work, Err(JoinError::cancelled(self.id)));
        }
    }

    fn is_finished(&self) -> bool {
        self.state.is_ended()
    }

    fn id(&self) -> TaskId {
        self.id
    }
}

impl<F, P> Wake for Task<F, P>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    P: Schedule,
{
    fn wake(self: Arc<Self>) {
        if self.state.wake() {
            let pool = self.pool.clone();
            pool.push(self, Why::Woken);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.wake() {
            self.pool.push(self.clone(), Why::Woken);
        }
    }
}
