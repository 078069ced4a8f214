//! One shard stops accepting, on every address, while the others go on.
//!
//! Nothing is done by halves: whether it may stop at every path and on every address is found out before it stops anywhere.

use super::shared::Closing;
use super::{Server, steer};
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

const ONE_SOCKET: &str =
    "no single shard can stop accepting in work-stealing mode: all accept from one socket";

impl Server {
    /// Has one shard stop accepting, on every address, and waits until it has closed its listening sockets. Its open
    /// connections go on, and so does everything else on that shard; new connections go to the other shards. It cannot be
    /// had back. A shard that accepts nowhere, or no more, is left as it is.
    ///
    /// No connection is lost: at once the kernel gives the shard no new ones (weight 0, whatever the policy). It goes on
    /// accepting until every handshake that had begun by then has ended, takes what is left in its queue, and closes.
    /// That takes about 50 ms, and longer if clients do not end their handshakes: up to about four seconds; then a
    /// client that ends its handshake still later gets a reset (unless `net.ipv4.tcp_migrate_req` is 1). Connections
    /// that cannot be accepted at that moment, because there are no fds, get one too. A shard that is
    /// held up gets no new connections at once, too, and closes when it comes on. On a Unix socket there is nothing to wait
    /// for: what waits there is for the other shards.
    ///
    /// # Errors
    /// It is the last that accepts on some address; or the system refuses to give the connections to others
    /// ([`Event::NotSteered`](super::Event::NotSteered) says when); or the runtime is in work-stealing mode, in which there is one socket for all.
    /// Nothing has been done then.
    ///
    /// # Cancel safety
    /// Dropped after its first poll, it is done all the same.
    pub async fn stop_accepting(&self, shard: ShardId) -> Result<(), Error> {
        if self.weigher.is_none() {
            return Err(Error::new(ErrorKind::Config, ONE_SOCKET));
        }
        let shared = Closing::begin(&self.shared, shard.index())?;
        let seat = self.seats.as_ref().and_then(|seats| seats.get(shard.index()));
        seat.into_iter().for_each(|seat| seat.close());
        let mut stopped = pin!(steer::stop_accepting(&self.groups, &self.group_addrs, shard));
        // If it is refused it is at once: from then on all of it is done, whoever waits.
        let first = poll_fn(|context| Poll::Ready(stopped.as_mut().poll(context))).await;
        if let Poll::Ready(Err(refused)) = first {
            shared.undo();
            seat.into_iter().for_each(|seat| seat.open());
            return Err(refused);
        }
        let closed = shared.close();
        if first.is_pending() {
            stopped.await?;
        }
        closed.await;
        Ok(())
    }
}
