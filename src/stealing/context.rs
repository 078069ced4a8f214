//! The worker that this thread is.

use super::worker::Worker;
use crate::scoped::{self, Scoped};

thread_local! {
    static CURRENT: Scoped<Worker> = const { Scoped::unset() };
}

/// Runs `f` with the worker whose code runs, if this thread is one.
#[inline]
pub(crate) fn with_worker<R>(f: impl FnOnce(&Worker) -> R) -> Option<R> {
    scoped::get(&CURRENT, |worker| worker.map(f))
}

/// Makes `worker` the current one, while `f` runs.
pub(super) fn enter<R>(worker: &Worker, f: impl FnOnce() -> R) -> R {
    scoped::set(&CURRENT, worker, f)
}
