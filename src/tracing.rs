//! What a runtime and its servers tell, as events of [`tracing`](https://docs.rs/tracing), with fields.
//!
//! ```
//! use corelane::{Runtime, server::Server, tracing};
//! use std::time::Duration;
//! let runtime = Runtime::builder().on_trouble(tracing::troubles()).start()?;
//! tracing::started(&runtime);
//! let server = Server::builder()
//!     .listen("127.0.0.1:0".parse()?)
//!     .on_event(tracing::server_events())
//!     .start(runtime.handle(), |_shard| {
//!         hyper::service::service_fn(|_request| async {
//!             Ok::<_, std::convert::Infallible>(hyper::Response::new("Hello".to_owned()))
//!         })
//!     })?;
//! tracing::ended(&runtime.shutdown(Duration::from_secs(5)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Targets are `corelane::runtime` and `corelane::server`. A shard is told by its number in the field `shard`. There is no span
//! for a request: tower-http's `TraceLayer` makes one, and a span that is entered in a handler's future stays with that.
//!
//! Events are told on the shard, or on the thread that watches the shards. A subscriber that blocks blocks that.

use crate::runtime::{Runtime, ShutdownReport, Trouble};
use crate::server::Event;
use ::tracing::{error, info, warn};

const RUNTIME: &str = "corelane::runtime";
const SERVER: &str = "corelane::server";

/// For [`server::Builder::on_event`](crate::server::Builder::on_event): warnings, an error for a listener that has died, and information about clients
/// that do not come as far as HTTP.
pub fn server_events() -> impl Fn(Event) + Send + Sync + 'static {
    |event| match event {
        Event::AcceptLost { shard, error } => {
            warn!(target: SERVER, shard = shard.index(), %error, "a connection was lost before it was accepted");
        }
        Event::AcceptPaused { shard, error, pause, turned_away } => {
            let (shard, pause_ms) = (shard.index(), pause.as_millis() as u64);
            warn!(target: SERVER, shard, %error, pause_ms, turned_away, "cannot accept connections");
        }
        Event::ListenerDied { shard, address, error } => {
            error!(target: SERVER, shard = shard.index(), %address, %error, "a listener has failed");
        }
        Event::HandshakeFailed { shard, peer, error } => {
            info!(target: SERVER, shard = shard.index(), %peer, %error, "a connection has not come as far as HTTP");
        }
        Event::Full { shard } => {
            warn!(target: SERVER, shard = shard.index(), "there are as many connections as there may be; one was turned away");
        }
        Event::NotSteered { address, error } => {
            warn!(target: SERVER, %address, %error, "connections are spread by the system's hash, because it refuses anything else");
        }
    }
}

/// For [`Builder::on_trouble`](crate::Builder::on_trouble): warnings, and an error for a panic.
pub fn troubles() -> impl Fn(Trouble) + Send + Sync + 'static {
    |trouble| match trouble {
        Trouble::Stalled { shard, held } => {
            let held_ms = held.as_millis() as u64;
            warn!(target: RUNTIME, shard = shard.index(), held_ms, "a task holds its shard");
        }
        Trouble::CpuOffline { shard, cpu } => {
            warn!(target: RUNTIME, shard = shard.index(), cpu = cpu.0, "a CPU has gone offline");
        }
        Trouble::Panicked { shard, count } => {
            error!(target: RUNTIME, shard = shard.index(), count, "tasks or requests have panicked");
        }
    }
}

/// Tells where each shard of a runtime runs, and what may be unwise in that.
pub fn started(runtime: &Runtime) {
    for info in runtime.shards() {
        let (shard, cpu, pinned) = (info.shard.index(), info.cpu.0, info.pinned);
        info!(target: RUNTIME, shard, cpu, pinned, "a shard has started");
    }
    for warning in runtime.warnings() {
        warn!(target: RUNTIME, warning = %warning, "the placement may be unwise");
    }
}

/// Tells what a shutdown came to. It is an error if a shard has panicked, and a warning if tasks were cut off.
pub fn ended(report: &ShutdownReport) {
    let ShutdownReport { tasks_dropped, shards_panicked } = *report;
    match (shards_panicked, tasks_dropped) {
        (0, 0) => info!(target: RUNTIME, tasks_dropped, "the runtime has ended"),
        (0, _) => warn!(target: RUNTIME, tasks_dropped, "the runtime has ended before its tasks"),
        _ => {
            error!(target: RUNTIME, tasks_dropped, shards_panicked, "the runtime has ended, and shards by a panic")
        }
    }
}
