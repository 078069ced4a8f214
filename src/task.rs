//! Tasks: one allocation each, polled and dropped only at home.
//!
//! A task belongs to the shard that spawned it. That shard, its *home*, owns the future, the output and a plain
//! counter of the references made there. Everybody else may touch one atomic word per task ([`state`]): a few request
//! bits and the references that were made or dropped elsewhere. So a task that never leaves home costs no atomic
//! read-modify-write at all, and a `!Send` future is sound whoever holds a waker to it.
//!
//! - [`state`]: the word that may be touched from anywhere, one function per transition
//! - [`cell`]: the allocation; what the home does with it
//! - [`waker`]: `std::task::Waker` over a cell, and the stack of foreign wakes
//! - [`home`]: the run queue and all tasks of one shard, which are [`list`]s through the cells
//! - [`memory`]: that of tasks that have ended
//! - `join`: handles

pub(crate) mod cell;
pub(crate) mod home;
pub(crate) mod join;
mod list;
mod memory;
pub(crate) mod state;
pub(crate) mod waker;

pub use join::{AbortHandle, JoinError, JoinHandle};

#[cfg(all(test, not(loom)))]
mod tests;
