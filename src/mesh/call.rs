//! The reply to a call: where an output waits between the shard that made it and the task that asked.
//!
//! Shared by two threads, behind a mutex that is held for a few instructions and never while user code runs. The
//! output is moved to the asking side; if nobody asks any more it is dropped by whoever lets go last, which is why
//! outputs that cross are `Send`.

use crate::id::TaskId;
use crate::sync::{Arc, Mutex, lock};
use crate::task::join::Early;
use crate::task::waker::{count_panic, wake_caught};
use crate::task::{AbortHandle, JoinError};
use std::task::{Context, Poll, Waker};

/// See the module.
pub(crate) struct Reply<T> {
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
    pub(crate) fn new() -> Arc<Reply<T>> {
        Arc::new(Reply {
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
        let mut state = lock(&self.state);
        let Outcome::Pending(waker) = &mut state.outcome else { return true };
        let waker = waker.take();
        state.outcome = Outcome::Done(result);
        drop(state);
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
            Outcome::Taken => Poll::Ready(Err(JoinError::never_ran())),
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
        lock(&self.state)
            .early
            .get_or_insert_with(|| Arc::new(Mutex::new(Early::default())))
            .clone()
    }

    pub(crate) fn abort(&self) {
        self.abort_handle().abort();
    }

    pub(crate) fn abort_handle(&self) -> AbortHandle {
        AbortHandle::early(self.early())
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

    pub(crate) fn task_id(&self) -> Option<TaskId> {
        let early = lock(&self.state).early.clone();
        early.and_then(|early| Early::task_id(&early))
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
