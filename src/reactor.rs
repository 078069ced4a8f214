//! Sockets: who waits for them, and telling those when the kernel says they are ready.
//!
//! A shard's reactor belongs to its thread. [`slots`] holds readiness and waiters, [`poll`] the kernel's side,
//! [`source`] is the socket's side, which finds the reactor of whatever shard polls it. Nothing is borrowed while
//! somebody else's code runs (a waker, or the drop of one): it may come back here.

pub(crate) mod slots;

#[cfg(not(loom))]
mod engine;
#[cfg(not(loom))]
mod gather;
#[cfg(not(loom))]
mod guess;
#[cfg(not(loom))]
pub(crate) mod interest;
#[cfg(not(loom))]
mod outbox;
#[cfg(not(loom))]
pub(crate) mod poll;
#[cfg(not(loom))]
pub(crate) mod shared;
#[cfg(not(loom))]
pub(crate) mod source;

#[cfg(not(loom))]
pub(crate) use engine::Reactor;
#[cfg(not(loom))]
pub use interest::{Interest, Ready};
