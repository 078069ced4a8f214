//! What a server tells: its operator, of what happens; its services, of the connection they are made for.

use crate::id::ShardId;
use crate::listen_addr::ListenAddr;
use crate::net::UnixStream;
use crate::net::unix::UCred;
use std::fmt;
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
        address: ListenAddr,
        /// Why.
        error: io::Error,
    },
    /// There are as many connections as there may be, and one was turned away.
    Full {
        /// On which shard.
        shard: ShardId,
    },
    /// A connection has ended before HTTP was spoken on it: there was no TLS handshake, or none that was agreed on, or no header of
    /// the PROXY protocol, or not in time.
    HandshakeFailed {
        /// On which shard.
        shard: ShardId,
        /// Who has connected: the proxy, if it has said nothing that could be understood.
        peer: Peer,
        /// Why.
        error: io::Error,
    },
    /// The system refuses to spread the connections of an address by the policy that was asked for, for example because a
    /// filter forbids the system call. Its hash goes on doing that, as with [`Policy::Hash`](crate::balance::Policy).
    /// Told once for an address, by a shard or by the thread that looks at them. Unix sockets have no such policies.
    NotSteered {
        /// Which address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// What a service may want to know of the connection it is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Which of the addresses it came to, in the order in which they were given.
    pub listener: usize,
    /// Who connected; behind a [proxy](super::Listen::proxied) that says it, who has connected to that.
    pub peer: Peer,
    /// The proxy that has said so.
    pub proxy: Option<Peer>,
    /// What was agreed on, if the connection is encrypted.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<crate::tls::Session>>,
}

impl ConnectionInfo {
    pub(super) fn new(listener: usize, peer: Peer) -> ConnectionInfo {
        ConnectionInfo {
            listener,
            peer,
            proxy: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// Who has connected. Shown as the address, or as `process 7 of user 1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// By TCP, from this address.
    Tcp(SocketAddr),
    /// By a Unix socket. As a rule it has no address; what the system knows of the process that has connected is here. None: it
    /// does not say.
    Unix(Option<UCred>),
}

impl Peer {
    /// Where it has connected from by TCP.
    pub fn as_tcp(&self) -> Option<SocketAddr> {
        match self {
            Peer::Tcp(address) => Some(*address),
            Peer::Unix(_) => None,
        }
    }

    pub(super) fn of_unix(stream: &UnixStream) -> Peer {
        Peer::Unix(stream.peer_cred().ok())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix(None) => f.write_str("an unknown process"),
            Peer::Unix(Some(cred)) => match cred.pid() {
                Some(process) => write!(f, "process {process} of user {}", cred.uid()),
                None => write!(f, "a process of user {}", cred.uid()),
            },
        }
    }
}

pub(super) type Observer = Arc<dyn Fn(Event) + Send + Sync>;
