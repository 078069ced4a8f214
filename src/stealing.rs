//! The work-stealing mode: a pool of workers that share tasks, sockets and timers.
//!
//! The opponent that a thread-per-core runtime has to be measured against, made as well as we can. A worker is a shard, with
//! local tasks, an inbox and counters of its own, and takes part in a pool besides:
//!
//! - [`queue`]: tasks that are ready; each worker has a deque that the others may steal from.
//! - [`idle`]: who sleeps, who searches, who is woken for a new task.
//! - [`pool`]: what all workers share, and the way of a task into a queue.
//! - [`worker`]: the loop.
//!
//! Sockets and timers of all workers are in one [`Shared`](crate::shard::shared::Shared). Whichever worker has nothing to do
//! waits there on behalf of all; the others wait for their own bell.

#[cfg(not(loom))]
pub(crate) mod context;
pub(crate) mod idle;
#[cfg(not(loom))]
pub(crate) mod pool;
pub(crate) mod queue;
#[cfg(not(loom))]
pub(crate) mod worker;
