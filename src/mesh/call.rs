//! The reply to a call: where an output waits between the shard that made it and the task that asked.
//!
//! Shared by two threads, behind a mutex that is held for a few instructions and never while user code runs. The
//! output is moved to the asking side; if nobody asks any more it is dropped by whoever lets go last, which is why
//! outputs that cross are `Send`.

use crate::id::TaskId;
use crate::sync::{Arc, Mutex, lock};
use crate::task::failure::JoinError;
use crate::task::join::{AbortHandle, Early};
use crate::task::waker::{count_panic, wake_caught};
use std::task::{Context, Poll, Waker};

/// See the module.
pub(crate) struct Reply<T> {
    /// The task that answers, if there is a join handle that may be asked for it.
    task: Option<TaskId>,
    state: Mutex<State<T>>,
}

struct State<T> {
    outcome: Outcome<T>,
    /// Made when somebody first wants to cancel, or has been told which task to cancel.
    early: Option<Arc<Mutex<Early>>>,
}

enum Outcome<T> {
    Pending(Option<Waker>),
    Done(Result<T, JoinError>),
    Taken,
}

impl<T> Reply<T> {
    /// The reply to a call that cannot be cancelled and is known by no name.
    pub(crate) fn new() -> Arc<Reply<T>> {
        Reply::from_task(None)
    }

    /// The reply that a join handle waits for.
    pub(crate) fn of_task(task: TaskId) -> Arc<Reply<T>> {
        Reply::from_task(Some(task))
    }

    fn from_task(task: Option<TaskId>) -> Arc<Reply<T>> {
        Arc::new(Reply {
            task,
            state: Mutex::new(State { outcome: Outcome::Pending(None), early: None }),
        })
    }

    /// Stores the output and wakes the asking side. Only the first call counts.
    pub(crate) fn complete(&self, result: Result<T, JoinError>) {
        if !self.complete_and_tell(result) {
            count_panic();
        }
    }

    /// [`complete`](Self::complete), and says whether it went without a panic of the waker.
    pub(crate) fn complete_and_tell(&self, result: Result<T, JoinError>) -> bool {
        let result = result.map_err(|error| error.named(self.task));
        let mut state = lock(&self.state);
        let Outcome::Pending(waker) = &mut state.outcome else { return true };
        let waker = waker.take();
        state.outcome = Outcome::Done(result);
        let early = state.early.clone();
        drop(state);
        if let Some(early) = early {
            Early::finish(&early);
        }
        waker.is_none_or(wake_caught)
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        let mut state = lock(&self.state);
        if let Outcome::Pending(waker) = &state.outcome
            && !waker.as_ref().is_some_and(|known| known.will_wake(context.waker()))
        {
            drop(state);
            let waker = context.waker().clone();
            state = lock(&self.state);
            if let Outcome::Pending(known) = &mut state.outcome {
                let known = known.replace(waker);
                drop(state);
                drop(known);
                return Poll::Pending;
            }
        }
        match std::mem::replace(&mut state.outcome, Outcome::Taken) {
            Outcome::Done(result) => Poll::Ready(result),
            Outcome::Taken => {
                drop(state);
                panic!("a future was polled after it had given its output")
            }
            pending @ Outcome::Pending(_) => {
                state.outcome = pending;
                Poll::Pending
            }
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        !matches!(lock(&self.state).outcome, Outcome::Pending(_))
    }

    fn early(&self) -> Arc<Mutex<Early>> {
        let mut state = lock(&self.state);
        let finished = !matches!(state.outcome, Outcome::Pending(_));
        let early = state.early.get_or_insert_with(|| Arc::new(Mutex::new(Early::default())));
        if finished {
            Early::finish(early);
        }
        early.clone()
    }

    /// Has `waker` woken when there is an output. True: there is one already.
    pub(crate) fn watch(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = lock(&self.state);
        let Outcome::Pending(known) = &mut state.outcome else { return true };
        let known = known.replace(waker);
        drop(state);
        drop(known);
        false
    }

    pub(crate) fn abort(&self) {
        self.abort_handle().abort();
    }

    pub(crate) fn abort_handle(&self) -> AbortHandle {
        let task = self.task.expect("only what has a join handle is cancelled");
        AbortHandle::early(self.early(), task)
    }

    /// The task that answers; none if there is no join handle.
    pub(crate) fn task(&self) -> Option<TaskId> {
        self.task
    }

    /// Whether the call was cancelled before it ran.
    pub(crate) fn is_aborted(&self) -> bool {
        let early = lock(&self.state).early.clone();
        early.is_some_and(|early| Early::is_aborted(&early))
    }

    /// Tells which task will answer, so that it can be cancelled.
    pub(crate) fn attach(&self, task: AbortHandle) {
        if Early::arrive(&self.early(), task.clone()) {
            task.abort();
        }
    }
}

/// The answering side's duty: dropped without an answer, it answers that the call never ran.
pub(crate) struct Answer<T>(Option<Arc<Reply<T>>>);

impl<T> Answer<T> {
    pub(crate) fn new(reply: Arc<Reply<T>>) -> Self {
        Answer(Some(reply))
    }

    /// Takes the duty over.
    pub(crate) fn take(mut self) -> Option<Arc<Reply<T>>> {
        self.0.take()
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply.complete(Err(JoinError::never_ran()));
        }
    }
}
