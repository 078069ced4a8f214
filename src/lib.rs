//! A thread-per-core, shared-nothing async runtime for sharded HTTP servers, and for proxies that embed it.
//!
//! One core, one *shard*: a pinned thread with its own run queue, its own poll, timers and listening sockets. In
//! steady state nothing that a shard touches is written by another core. Crossing is rare, explicit and bounded:
//! [`Handle::submit_to`] and its kin. Sockets, timers and wakers work from any thread, and are cheap at home.
//!
//! ```
//! use corelane::Runtime;
//! let runtime = Runtime::builder().cores("1".parse()?).start()?;
//! let handle = runtime.handle();
//! let shards = handle.block_on(handle.map_reduce(|_shard| async { 1 }, 0, |sum, one| sum + one))?;
//! assert_eq!(shards, handle.shard_count());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The source is laid out in floors, each of which imports only itself and those below; `docs/ARCHITECTURE.md` is the
//! map.

#![cfg_attr(loom, allow(dead_code, unused_imports, unreachable_pub))]

mod id;
mod limits;
#[cfg(all(feature = "server", not(loom)))]
mod listen_addr;
mod mesh;
#[cfg(not(loom))]
mod mode;
#[cfg(all(loom, test))]
mod models;
mod park;
mod reactor;
#[cfg(not(loom))]
mod scoped;
mod stealing;
mod sync;
mod table;
#[cfg(not(loom))]
pub mod task;
#[cfg(loom)]
mod task;
#[cfg(not(loom))]
pub mod time;
#[cfg(loom)]
mod time;
mod wait_queue;

#[cfg_attr(loom, allow(dead_code, reason = "only its counts are modelled"))]
pub mod balance;
#[cfg(not(loom))]
mod blocking;
#[cfg(all(feature = "config", not(loom)))]
#[cfg_attr(
    not(feature = "cli"),
    allow(dead_code, unused_imports, reason = "flags, variables and reloads are the program's")
)]
mod config;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
pub mod http;
#[cfg(not(loom))]
pub mod net;
#[cfg(not(loom))]
mod runtime;
#[cfg(all(feature = "server", not(loom)))]
pub mod server;
#[cfg(all(feature = "files", not(loom)))]
pub mod services;
#[cfg(not(loom))]
mod shard;
#[cfg(all(feature = "signal", not(loom)))]
pub mod signal;
#[cfg(not(loom))]
mod sys;
#[cfg(all(feature = "tls", not(loom)))]
pub mod tls;
#[cfg(not(loom))]
mod topology;
#[cfg(all(feature = "tracing", not(loom)))]
pub mod tracing;

#[cfg(all(feature = "cli", not(loom)))]
#[doc(hidden)]
pub mod cli;

pub use id::{CpuId, ShardId, TaskId};
pub use limits::Limits;
pub use task::{AbortHandle, JoinError, JoinHandle};

#[cfg(all(feature = "config", not(loom)))]
pub use config::{
    Config, ConfigBuilder, ConfigError, CoreConfig, ListenerConfig, LogLevel, RouteConfig,
    ShardConfig, TlsConfig,
};

#[cfg(not(loom))]
pub use {
    blocking::spawn_blocking,
    error::Error,
    mode::{Mode, Pin},
    runtime::*,
    shard::counters::ShardStats,
    topology::{Cores, PlacementError},
};
