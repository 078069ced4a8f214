//! Why a task gave no output: it was cancelled, or it panicked. And dropping what may panic once more.

use crate::id::TaskId;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a task gave no output.
pub struct JoinError {
    /// Boxed, so that the results of tasks that end well stay small.
    inner: Box<Failure>,
}

struct Failure {
    task: Option<TaskId>,
    cause: Cause,
}

enum Cause {
    Cancelled,
    /// In a mutex so that the error is `Sync`, as `Error` implementors expect.
    Panicked(std::sync::Mutex<Box<dyn Any + Send + 'static>>),
}

impl JoinError {
    #[cold]
    fn new(task: Option<TaskId>, cause: Cause) -> Self {
        JoinError { inner: Box::new(Failure { task, cause }) }
    }

    pub(crate) fn cancelled(task: TaskId) -> Self {
        Self::new(Some(task), Cause::Cancelled)
    }

    /// The task never ran: its message was dropped with the shard's inbox.
    pub(crate) fn never_ran() -> Self {
        Self::new(None, Cause::Cancelled)
    }

    pub(crate) fn panicked(task: TaskId, payload: Box<dyn Any + Send>) -> Self {
        Self::new(Some(task), Cause::Panicked(std::sync::Mutex::new(payload)))
    }

    /// A closure panicked outside any task: on the blocking pool, or before it made its future.
    pub(crate) fn closure_panicked(payload: Box<dyn Any + Send>) -> Self {
        Self::new(None, Cause::Panicked(std::sync::Mutex::new(payload)))
    }

    /// The task was aborted, or its shard shut down before it ended.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.inner.cause, Cause::Cancelled)
    }

    /// The task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self.inner.cause, Cause::Panicked(_))
    }

    /// What the task panicked with.
    ///
    /// # Panics
    /// If the task did not panic.
    ///
    /// # Examples
    /// ```
    /// corelane::block_on(async {
    ///     let task = corelane::task::spawn(async { panic!("of no use") });
    ///     let error = task.await.expect_err("it panicked");
    ///     assert_eq!(*error.into_panic().downcast::<&str>().expect("a text"), "of no use");
    /// });
    /// ```
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send + 'static> {
        self.try_into_panic().expect("into_panic on a task that was cancelled")
    }

    /// What the task panicked with, or the error back.
    ///
    /// # Errors
    /// If the task did not panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send + 'static>, JoinError> {
        match *self.inner {
            Failure { cause: Cause::Panicked(payload), .. } => {
                Ok(payload.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
            }
            failure => Err(JoinError { inner: Box::new(failure) }),
        }
    }

    /// Which task: what [`JoinHandle::id`](super::join::JoinHandle::id) said.
    pub fn id(&self) -> TaskId {
        self.inner.task.expect("what a join handle waits for has an identity")
    }

    /// Says which task it was, if that is not known yet.
    #[must_use]
    pub(crate) fn named(mut self, task: Option<TaskId>) -> Self {
        self.inner.task = self.inner.task.or(task);
        self
    }

    fn message(&self) -> Option<String> {
        let Cause::Panicked(payload) = &self.inner.cause else { return None };
        let payload = payload.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inner.task {
            Some(task) => write!(f, "task {task} ")?,
            None => write!(f, "task ")?,
        }
        match (&self.inner.cause, self.message()) {
            (Cause::Cancelled, _) => write!(f, "was cancelled"),
            (Cause::Panicked(_), Some(message)) => write!(f, "panicked with {message:?}"),
            (Cause::Panicked(_), None) => write!(f, "panicked"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for std::io::Error {
    fn from(error: JoinError) -> Self {
        std::io::Error::other(error)
    }
}

/// Drops a value that may panic while it is dropped, and the panic's payload too.
pub(crate) fn drop_caught<T>(value: T) -> bool {
    match catch_unwind(AssertUnwindSafe(|| drop(value))) {
        Ok(()) => true,
        Err(payload) => {
            forget_panic(payload);
            false
        }
    }
}

/// Drops a panic's payload; if that panics as well, what it threw is leaked.
pub(super) fn forget_panic(payload: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(another);
    }
}
