//! What comes before HTTP on a connection: the header of a proxy, a handshake.
//!
//! Both together have the time of [`ConnectionLimits::handshake_timeout`](crate::limits::ConnectionLimits), and end sooner when the
//! server drains: nobody has asked anything yet.

use super::arrival::Arrival;
use super::event::{Event, Observer};
use super::proxied;
use super::secure::{Handshake, Secured, Socket};
use crate::id::ShardId;
use crate::runtime::shutdown_requested;
use crate::shard::context::with_current;
use crate::task::home::add;
use crate::time::{sleep, timeout};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

/// See the module.
pub(super) struct Preliminaries {
    /// A proxy says who has connected.
    pub(super) proxied: bool,
    pub(super) handshake: Option<Handshake>,
}

/// A connection that HTTP is spoken on from now on.
// It is taken apart at once.
#[allow(clippy::large_enum_variant)]
pub(super) enum Begun<T> {
    Plain(Arrival<T>),
    Secure(Arrival<Secured<T>>),
}

/// Time that is left for what is under way when the server begins to drain.
const LAST_TIME: Duration = Duration::from_secs(1);

impl Preliminaries {
    /// Whether there is anything.
    #[inline]
    pub(super) fn is_nothing(&self) -> bool {
        !self.proxied && self.handshake.is_none()
    }

    /// None: it has failed, which was told, or its time was over.
    pub(super) async fn run<T: Socket>(
        self,
        arrival: Arrival<T>,
        observer: &Observer,
    ) -> Option<Begun<T>> {
        let _present = Present::new();
        let (peer, limit) = (arrival.info.peer, arrival.limits.handshake_timeout);
        let begun = until_drain(self.take(arrival));
        let begun = match limit {
            Some(limit) => timeout(limit, begun).await.unwrap_or_else(|_| Some(Err(late()))),
            None => begun.await,
        };
        begun?
            .map_err(|error| {
                let shard = ShardId::current().expect("connections are served on a shard");
                observer(Event::HandshakeFailed { shard, peer, error });
            })
            .ok()
    }

    async fn take<T: Socket>(self, mut arrival: Arrival<T>) -> io::Result<Begun<T>> {
        if self.proxied {
            arrival = proxied::read(arrival).await?;
        }
        match self.handshake {
            None => Ok(Begun::Plain(arrival)),
            Some(handshake) => handshake.run(arrival).await.map(Begun::Secure),
        }
    }
}

#[cold]
fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it took longer than handshake_timeout")
}

/// None: the server drains, and it was not over soon after.
async fn until_drain<R>(work: impl Future<Output = R>) -> Option<R> {
    let mut work = pin!(work);
    let drained = async {
        shutdown_requested().await;
        sleep(LAST_TIME).await;
    };
    let mut drained = pin!(drained);
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
        std::task::Poll::Pending => drained.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// It counts among the shard's open connections.
pub(super) struct Present(());

impl Present {
    pub(super) fn new() -> Present {
        with_current(|shard| add(&shard.counters.connections, 1));
        Present(())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        with_current(|shard| add(&shard.counters.connections, u64::MAX));
    }
}
