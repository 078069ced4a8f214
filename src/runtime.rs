//! Runtimes: starting shards, reaching them, stopping them.
//!
//! - [`builder`]: all-or-nothing start
//! - [`handle`]: what any thread may do with a running runtime
//! - [`spawn`]: tasks on this shard
//! - [`calls`]: closures on another shard
//! - [`sharded`]: one value per shard
//! - [`block_on`]: a shard for as long as one future takes
//! - [`thread`]: the life of a shard's thread
//! - `tokio_context`: the context of a Tokio runtime around the threads
//! - [`watch`]: stalls, seen from outside
//! - [`host`]: a shard that somebody else's loop drives

pub(crate) mod block_on;
pub(crate) mod builder;
pub(crate) mod calls;
pub(crate) mod handle;
pub(crate) mod host;
pub(crate) mod sharded;
pub(crate) mod spawn;
mod thread;
#[cfg(feature = "tokio-context")]
mod tokio_context;
mod watch;

pub use block_on::block_on;
pub use builder::{Builder, Runtime, ShardInfo, ShutdownReport};
pub use calls::{CallError, SubmitError, SubmitErrorKind};
pub use handle::Handle;
pub use host::HostedShard;
pub use sharded::Sharded;
pub use spawn::{shutdown_requested, spawn, spawn_local, yield_now};
#[cfg(feature = "tokio-context")]
pub use tokio_context::TokioContext;
pub use watch::Trouble;
