//! Both modes of this project, by the same code: `server::Builder::start_send` with the mode's runtime.
//!
//! The serving threads are the runtime's. One more thread waits for a shard that stops serving, which ends the process.

use super::service::{Counts, Host, answer};
use super::work::compute;
use super::{Failure, Options, give_up};
use crate::id::ShardId;
use crate::mode::Mode;
use crate::runtime::block_on::block_on;
use crate::runtime::{Handle, Runtime};
use crate::server::{ConnectionLimits, Listen, Server};
use crate::topology::Cores;
use hyper::service::service_fn;
use std::any::Any;
use std::net::SocketAddr;
use std::sync::OnceLock;

/// Bytes of a request's head: hyper's own bound, which Tokio's contenders have.
const HEADER_BYTES: u32 = 408 << 10;

/// Starts to serve in this mode. What is returned besides the address keeps the runtime.
pub(super) fn start(options: &Options, mode: Mode) -> Result<(SocketAddr, Box<dyn Any>), Failure> {
    let cores = Cores::List(options.cpus()?);
    let runtime = Runtime::builder().cores(cores).mode(mode).start()?;
    let handle = runtime.handle().clone();
    let counts = Counts::new(handle.shard_count());
    // A process has one.
    static HOST: OnceLock<Shards> = OnceLock::new();
    let host = HOST.get_or_init(|| Shards { handle: handle.clone(), counts });
    let service = service_fn(move |request| answer(host, request));
    let limits = ConnectionLimits { header_bytes: HEADER_BYTES, ..ConnectionLimits::default() };
    let server = Server::builder()
        .listen_with(Listen::new(options.listen).limits(limits))
        .vectored_writes(options.large_answers)
        .rebalance(options.rebalance);
    let server = server.start_send(&handle, service)?;
    let address = server.local_addrs()[0];
    let watch = move || match block_on(server.stopped()) {
        Err(error) => give_up(&error.to_string()),
        Ok(()) => give_up("every shard has stopped serving"),
    };
    std::thread::Builder::new().name("contender-watch".into()).spawn(watch)?;
    Ok((address, Box::new(runtime)))
}

/// The shards of either mode.
struct Shards {
    handle: Handle,
    counts: Counts,
}

impl Host for Shards {
    async fn elsewhere(&'static self, seed: u64) -> Option<u64> {
        match self.handle.mode() {
            Mode::ThreadPerCore => {
                let here = ShardId::current().map_or(0, ShardId::index);
                let next = ShardId::new(((here + 1) % self.handle.shard_count()) as u16);
                self.handle.submit_to(next, move || async move { compute(seed) }).await.ok()
            }
            Mode::WorkStealing => crate::spawn(async move { compute(seed) }).await.ok(),
        }
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }

    fn place(&self) -> usize {
        ShardId::current().map_or(0, ShardId::index)
    }

    /// The counts of a shard are those of its last look at the sockets; the requests are exact, this one included.
    fn stats(&self) -> String {
        let shards = self.handle.stats().into_iter().zip(self.counts.read()).map(|(stats, requests)| {
            format!(
                r#"{{"polls":{},"foreign_wakes":{},"steals":{},"inbox_messages":{},"requests":{requests}}}"#,
                stats.polls, stats.foreign_wakes, stats.steals, stats.inbox_messages,
            )
        });
        format!(r#"{{"shards":[{}]}}"#, shards.collect::<Vec<_>>().join(","))
    }
}
