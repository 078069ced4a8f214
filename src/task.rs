//! Tasks: spawning them, waiting for them, cancelling them.
//!
//! Names and meanings follow Tokio's `task` module; `docs/TOKIO.md` says what differs. A task is one allocation, and it
//! belongs to the shard that spawned it: there it is polled and dropped, whoever holds a waker or a handle.
//!
//! # Examples
//! ```
//! use corelane::task::{self, JoinSet};
//! corelane::block_on(async {
//!     let mut squares = JoinSet::new();
//!     for number in 1..=3 {
//!         squares.spawn(async move { number * number });
//!     }
//!     let blocking = task::spawn_blocking(|| 4 * 4);
//!     let sum: i32 = squares.join_all().await.into_iter().sum();
//!     assert_eq!(sum + blocking.await.unwrap(), 30);
//! });
//! ```

// The inside of a task. Its home owns the future, the output and a plain counter of the references made there.
// Everybody else may touch one atomic word per task: a few request bits and the references that were made or dropped
// elsewhere. So a task that never leaves home costs no atomic read-modify-write at all, and a future that is not `Send`
// is sound whoever holds a waker to it.

/// The allocation; what the home does with it.
pub(crate) mod cell;
/// Errors of tasks.
pub(crate) mod failure;
/// The run queue and all tasks of one shard.
pub(crate) mod home;
/// Handles.
pub(crate) mod join;
/// Lists that link through the cells.
mod list;
/// Memory of tasks that have ended.
mod memory;
/// The word that may be touched from anywhere, one function per transition.
pub(crate) mod state;
/// Tasks without a home, that any worker of a pool may run.
pub(crate) mod stealable;
/// `std::task::Waker` over a cell, and the stack of foreign wakes.
pub(crate) mod waker;

#[cfg(not(loom))]
pub mod coop;
#[cfg(not(loom))]
pub mod join_set;

pub use crate::id::TaskId as Id;
#[cfg(not(loom))]
pub use crate::{
    blocking::spawn_blocking,
    runtime::spawn::{id, spawn, spawn_local, try_id, yield_now},
};
#[cfg(not(loom))]
pub use coop::{Unconstrained, consume_budget, unconstrained};
pub use failure::JoinError;
pub use join::{AbortHandle, JoinHandle};
#[cfg(not(loom))]
pub use join_set::JoinSet;

#[cfg(all(test, not(loom)))]
mod tests;
