//! hyper's executor: a task on this shard.

use crate::shard::context::{outside, with_current};
use crate::task::join::JoinHandle;
use std::future::Future;

/// Spawns what hyper wants to run beside a connection (HTTP/2 streams, upgraded bodies) on the same shard. Futures
/// need not be `Send`.
///
/// # Panics
/// `execute` panics outside a shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        match with_current(|shard| JoinHandle::spawn(shard.home(), future)) {
            Some(task) => drop(task),
            None => outside("hyper's executor"),
        }
    }
}
