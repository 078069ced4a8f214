//! How many connections a server has at most, and what becomes of those that are too many.
//!
//! They are accepted, or they would wait for nothing and know nothing; a client that is told can go elsewhere. Who has spoken HTTP is
//! answered with 503. Some are given a moment to read it (`linger`).

use super::event::{Event, Observer};
use super::linger::Linger;
use crate::balance::seats::{All, Bounds};
use crate::http::{Io, Transport};
use crate::id::ShardId;
use crate::limits::WhenFull;
use crate::shard::context::with_current;
use crate::sync::{AtomicU32, Ordering};
use crate::sys::files;
use crate::task::home::add;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Capacity {
    /// Of all shards together. None: as descriptors allow.
    pub(super) all: Option<u64>,
    /// Of each shard. None: no bound.
    pub(super) each: Option<u64>,
    /// Of these, instead.
    pub(super) on: Vec<(ShardId, u64)>,
    pub(super) when_full: WhenFull,
}

/// With fewer descriptors nothing is kept back.
const FEW_FILES: u64 = 256;

/// As many as descriptors allow, less some for everything else.
fn most_of_all() -> Option<u64> {
    let files = files::limit().filter(|files| *files >= FEW_FILES)?;
    Some(files - (files / 50).clamp(32, 1024))
}

impl Capacity {
    /// For each shard of a server, which counts them all together.
    pub(super) fn bounds(&self) -> impl Fn(ShardId) -> Bounds + use<> {
        let all = self.all.or_else(most_of_all).map(All::new);
        let (each, on) = (self.each, self.on.clone());
        move |shard| {
            let own = on.iter().rev().find(|(one, _)| *one == shard).map(|(_, most)| *most);
            Bounds { here: own.or(each).unwrap_or(u64::MAX), all: all.clone() }
        }
    }

    /// In a pool, where any worker may have all of them.
    pub(super) fn bounds_of_pool(&self) -> Bounds {
        let all = self.all.or_else(most_of_all);
        Bounds { here: all.unwrap_or(u64::MAX), all: None }
    }
}

/// Turns connections away that are too many.
pub(super) struct Door {
    when_full: WhenFull,
    observer: Observer,
    /// Those that are given time to read the answer.
    reading: AtomicU32,
}

/// So many at once.
const READING_MAX: u32 = 64;

const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

impl Door {
    pub(super) fn new(when_full: WhenFull, observer: &Observer) -> Arc<Door> {
        Arc::new(Door { when_full, observer: observer.clone(), reading: AtomicU32::new(0) })
    }

    /// Turns one away. Some: the rest of it, if it `speaks_http` at once.
    pub(super) fn turn_away<T: Transport + Send + 'static>(
        self: &Arc<Door>,
        stream: T,
        speaks_http: bool,
    ) -> Option<impl Future<Output = ()> + use<T>> {
        with_current(|shard| add(&shard.counters.connections_turned_away, 1));
        let shard = ShardId::current().expect("connections are served on a shard");
        (self.observer)(Event::Full { shard });
        if !speaks_http || self.when_full == WhenFull::Close {
            return None;
        }
        let reads = self.reading.fetch_add(1, Ordering::Relaxed) < READING_MAX;
        let place = Place(self.clone());
        Some(async move {
            let (mut io, mut linger) = (Io::new(stream), Linger::new(FULL.to_vec()));
            poll_fn(|context| match linger.poll(&mut io, context) {
                Poll::Pending if reads => Poll::Pending,
                // Whether it was read in time or not is the client's business.
                Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
            })
            .await;
            drop((io, place));
        })
    }
}

/// Its place among those that are given time.
struct Place(Arc<Door>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::Relaxed);
    }
}
