//! What a server tells: its operator, of what happens; its services, of the connection they are made for.

use crate::id::ShardId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Something that an operator may want to know. The shard is the one that found out; in work-stealing mode the same listener
/// is accepted from by any.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection was lost before it could be accepted.
    AcceptLost {
        /// On which shard.
        shard: ShardId,
        /// Why.
        error: io::Error,
    },
    /// The shard ran out of fds or memory and accepts nothing for a while. If it lasts, and it is fds that there are none of,
    /// those who wait are turned away, as [`Accepted::Paused`](crate::net::Accepted) says.
    AcceptPaused {
        /// On which shard.
        shard: ShardId,
        /// What is used up.
        error: io::Error,
        /// How long it waits before it tries again.
        pause: Duration,
        /// Connections that were accepted only to be closed.
        turned_away: usize,
    },
    /// A listening socket has failed for good: the shard accepts nothing from it any more.
    ListenerDied {
        /// On which shard.
        shard: ShardId,
        /// Of which address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The system refuses to spread the connections of an address by the policy that was asked for, for example because a
    /// filter forbids the system call. Its hash goes on doing that, as with [`Policy::Hash`](crate::balance::Policy).
    /// Told once for an address, by a shard or by the thread that looks at them.
    NotSteered {
        /// Which address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// What a service may want to know of the connection it is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Which of the addresses it came to, in the order in which they were given.
    pub listener: usize,
    /// Who connected.
    pub peer: SocketAddr,
}

pub(super) type Observer = Arc<dyn Fn(Event) + Send + Sync>;
