//! Where a server listens, and binding it: every address once for each of its shards, or nothing.

use super::steer::{Group, Place};
use crate::balance::Policy;
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::limits::HEADER_TIMEOUT;
use crate::sync::{AtomicU64, Ordering};
use crate::sys::socket::{ListenOptions, listen, overlap, port_is_taken};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// Why a policy by a program and sharing a port do not go together.
const SHARED: &str = "the program would choose among their sockets too, without knowing them";

/// An address to listen on, and how.
///
/// # Examples
/// ```
/// use corelane::{ShardId, balance::Policy, server::Listen};
/// let admin = Listen::new("127.0.0.1:9000".parse()?).shards([ShardId::new(0)]).backlog(16);
/// let public = Listen::new("0.0.0.0:8080".parse()?).balance(Policy::Hash);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it listens nowhere before it is given to a server"]
pub struct Listen {
    pub(super) address: SocketAddr,
    pub(super) options: ListenOptions,
    pub(super) share: bool,
    pub(super) header_timeout: Option<Duration>,
    pub(super) balance: Policy,
    pub(super) shards: Option<Vec<ShardId>>,
}

impl Listen {
    /// This address, on every shard. Port 0 lets the system choose one, the same for every shard.
    pub fn new(address: SocketAddr) -> Self {
        let options = ListenOptions { reuse_port: true, nodelay: true, ..ListenOptions::default() };
        Listen {
            address,
            options,
            share: false,
            header_timeout: Some(HEADER_TIMEOUT),
            balance: Policy::default(),
            shards: None,
        }
    }

    /// Connections that may wait to be accepted, per shard; cut to the system's `somaxconn`. Default 1024.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.options.backlog = backlog;
        self
    }

    /// Whether other processes of the same user may listen on the same port too, and get a part of the connections.
    /// Default false: a port that is taken is refused.
    pub fn share(mut self, share: bool) -> Self {
        self.share = share;
        self
    }

    /// Whether an IPv6 address leaves IPv4 connections alone (`IPV6_V6ONLY`). Default: as the system is set.
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.options.only_v6 = Some(only_v6);
        self
    }

    /// Whether small responses are sent at once, without waiting for the peer's acknowledgement (`TCP_NODELAY`). Default
    /// true.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.options.nodelay = nodelay;
        self
    }

    /// Whether the system looks for peers that have vanished (`SO_KEEPALIVE`). Default false.
    pub fn keepalive(mut self, keepalive: bool) -> Self {
        self.options.keepalive = keepalive;
        self
    }

    /// Bytes that the system may hold for one connection until they are read (`SO_RCVBUF`). Default: the system adapts it.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.options.receive_buffer = Some(bytes);
        self
    }

    /// Bytes that the system may hold for one connection until the peer takes them (`SO_SNDBUF`). Default: the system
    /// adapts it.
    pub fn send_buffer(mut self, bytes: u32) -> Self {
        self.options.send_buffer = Some(bytes);
        self
    }

    /// How long a client may take for the head of a request. Default 30 seconds; `None` for ever.
    pub fn header_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Which of its shards gets a connection, one of those that [serve it](Self::shards). Default: [`Policy::Hash`]. In work-stealing mode it means nothing: any worker
    /// serves any connection.
    pub fn balance(mut self, policy: Policy) -> Self {
        self.balance = policy;
        self
    }

    /// Only these shards listen there, and serve what comes. Default: all. In work-stealing mode it means nothing.
    pub fn shards(mut self, shards: impl IntoIterator<Item = ShardId>) -> Self {
        self.shards = Some(shards.into_iter().collect());
        self
    }

    /// Whether what was asked for goes together.
    fn check(&self) -> Result<(), Error> {
        if self.share && self.balance.is_by_kernel_program() {
            let (address, policy) = (self.address, self.balance);
            let text = format!(
                "{address} cannot be shared with other processes and balanced by {policy}: {SHARED}"
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        Ok(())
    }

    /// Which of so many shards listen, each once, in ascending order.
    pub(super) fn on(&self, count: usize) -> Result<Vec<usize>, Error> {
        let address = self.address;
        let Some(shards) = &self.shards else { return Ok((0..count).collect()) };
        let mut shards: Vec<usize> = shards.iter().map(|shard| shard.index()).collect();
        shards.sort_unstable();
        shards.dedup();
        let wrong = |text| Err(Error::new(ErrorKind::Config, text));
        match shards.last() {
            None => {
                wrong(format!("no shard is to listen on {address}: name one, or none to have all"))
            }
            Some(&last) if last >= count => wrong(format!(
                "shard {last} is to listen on {address}, and there are only {count} shards, from 0"
            )),
            Some(_) => Ok(shards),
        }
    }
}

/// A timeout that can be changed while connections come. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct LiveTimeout(Arc<AtomicU64>);

impl LiveTimeout {
    /// Nanoseconds that mean "for ever".
    const NONE: u64 = u64::MAX;

    fn new(timeout: Option<Duration>) -> LiveTimeout {
        let live = LiveTimeout(Arc::new(AtomicU64::new(0)));
        live.set(timeout);
        live
    }

    pub(super) fn set(&self, timeout: Option<Duration>) {
        let nanos =
            timeout.map_or(Self::NONE, |time| u64::try_from(time.as_nanos()).unwrap_or(Self::NONE));
        self.0.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<Duration> {
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos != Self::NONE).then(|| Duration::from_nanos(nanos))
    }
}

/// Sockets that listen, grouped by the shard that will own them.
pub(super) struct Bound {
    pub(super) addresses: Vec<SocketAddr>,
    /// For each address.
    pub(super) header_timeouts: Vec<LiveTimeout>,
    pub(super) by_shard: Vec<Vec<Listening>>,
    /// One for each address.
    pub(super) groups: Vec<Arc<Group>>,
}

/// One shard's socket of a listened-on address.
pub(super) struct Listening {
    pub(super) socket: TcpListener,
    pub(super) backlog: u32,
    pub(super) header_timeout: LiveTimeout,
    /// Which of the addresses, in the order in which they were given.
    pub(super) number: usize,
    /// Its place among the sockets of that address. After `socket`, which is to be closed first.
    pub(super) place: Place,
}

/// Binds each address once for each of its shards. On error every socket made so far is closed.
pub(super) fn bind_all(wanted: &[Listen], shards: usize) -> Result<Bound, Error> {
    let mut bound = Bound {
        addresses: Vec::new(),
        header_timeouts: Vec::new(),
        groups: Vec::new(),
        by_shard: (0..shards).map(|_| Vec::new()).collect(),
    };
    for (number, wanted) in wanted.iter().enumerate() {
        wanted.check()?;
        let shards = wanted.on(shards)?;
        let (mut address, only_v6) = (wanted.address, wanted.options.only_v6);
        // With SO_REUSEPORT a second instance of a program would silently share the port with the first.
        match port_is_taken(address, wanted.share, only_v6) {
            Ok(false) => {}
            Ok(true) => return Err(taken(address, &bound.addresses)),
            Err(error) => return Err(cannot_bind(address, error, &bound.addresses)),
        }
        let header_timeout = LiveTimeout::new(wanted.header_timeout);
        let group = Group::new(wanted.balance, shards.len(), wanted.share);
        for shard in shards {
            let failed = |error| cannot_bind(address, error, &bound.addresses);
            let socket = listen(address, &wanted.options).map_err(failed)?;
            let place = Group::enter(&group, shard, &socket).map_err(failed)?;
            // The first socket of port 0 gets a port, which the others share.
            address = socket.local_addr().map_err(failed)?;
            let (backlog, header_timeout) = (wanted.options.backlog, header_timeout.clone());
            let listening = Listening { socket, backlog, header_timeout, number, place };
            bound.by_shard[shard].push(listening);
        }
        bound.groups.push(group);
        bound.addresses.push(address);
        bound.header_timeouts.push(header_timeout);
    }
    Ok(bound)
}

/// `ours` are the addresses that are listened on by now.
fn taken(address: SocketAddr, ours: &[SocketAddr]) -> Error {
    let why = match ours.iter().find(|&&other| overlap((address, None), (other, None))) {
        Some(&other) if other == address => "it was given twice".to_owned(),
        Some(other) => format!("{other}, which was given too, includes it or is included"),
        None => "another program, or another instance of this one, listens there; stop it or choose another port"
            .to_owned(),
    };
    Error::new(ErrorKind::Bind, format!("cannot listen on {address}: {why}"))
}

fn cannot_bind(address: SocketAddr, error: std::io::Error, ours: &[SocketAddr]) -> Error {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => taken(address, ours),
        _ => Error::new(ErrorKind::Bind, format!("cannot listen on {address}: {error}"))
            .because(error),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn connections_send_small_responses_at_once() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let bound = bind_all(&[Listen::new(any)], 1).expect("a port");
        let _client = std::net::TcpStream::connect(bound.addresses[0]).expect("it listens");
        let (accepted, _) = bound.by_shard[0][0].socket.accept().expect("it has come");
        assert!(accepted.nodelay().expect("asked"));
    }

    #[test]
    fn only_the_shards_that_are_named_listen() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let shard = ShardId::new;
        let wanted = [Listen::new(any).shards([shard(2), shard(0), shard(2)]), Listen::new(any)];
        let bound = bind_all(&wanted, 3).expect("two ports");
        let counts: Vec<usize> = bound.by_shard.iter().map(Vec::len).collect();
        assert_eq!(counts, [2, 1, 2]);
        let text = |wanted: Listen| bind_all(&[wanted], 3).err().expect("refused").to_string();
        assert_eq!(
            text(Listen::new(any).shards([shard(3)])),
            "shard 3 is to listen on 127.0.0.1:0, and there are only 3 shards, from 0"
        );
        assert_eq!(
            text(Listen::new(any).shards([])),
            "no shard is to listen on 127.0.0.1:0: name one, or none to have all"
        );
    }
}
