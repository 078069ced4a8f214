//! Where a server listens, and binding it: every address once for each of its shards, or nothing.

use crate::balance::Policy;
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::sys::socket::{DEFAULT_BACKLOG, ListenOptions, listen, port_is_taken};
use std::net::{IpAddr, SocketAddr, TcpListener};

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
    pub(super) backlog: u32,
    pub(super) balance: Policy,
    pub(super) shards: Option<Vec<ShardId>>,
}

impl Listen {
    /// This address, on every shard. Port 0 lets the system choose one, the same for every shard.
    pub fn new(address: SocketAddr) -> Self {
        Listen { address, backlog: DEFAULT_BACKLOG, balance: Policy::default(), shards: None }
    }

    /// Connections that may wait to be accepted, per shard; cut to the system's `somaxconn`. Default 1024.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
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

/// Sockets that listen, grouped by the shard that will own them.
pub(super) struct Bound {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) by_shard: Vec<Vec<Listening>>,
}

/// One shard's socket of a listened-on address.
pub(super) struct Listening {
    pub(super) socket: TcpListener,
    pub(super) backlog: u32,
}

/// Binds each address once for each of its shards. On error every socket made so far is closed.
pub(super) fn bind_all(wanted: &[Listen], shards: usize) -> Result<Bound, Error> {
    let mut bound =
        Bound { addresses: Vec::new(), by_shard: (0..shards).map(|_| Vec::new()).collect() };
    for wanted in wanted {
        let shards = wanted.on(shards)?;
        let (mut address, backlog) = (wanted.address, wanted.backlog);
        // With SO_REUSEPORT a second instance of a program would silently share the port with the first.
        match port_is_taken(address) {
            Ok(false) => {}
            Ok(true) => return Err(taken(address, &bound.addresses)),
            Err(error) => return Err(cannot_bind(address, error, &bound.addresses)),
        }
        for shard in shards {
            // Small responses must not wait for the peer's acknowledgement.
            let options = ListenOptions {
                backlog,
                reuse_port: true,
                nodelay: true,
                ..ListenOptions::default()
            };
            let failed = |error| cannot_bind(address, error, &bound.addresses);
            let socket = listen(address, &options).map_err(failed)?;
            // The first socket of port 0 gets a port, which the others share.
            address = socket.local_addr().map_err(failed)?;
            bound.by_shard[shard].push(Listening { socket, backlog });
        }
        bound.addresses.push(address);
    }
    Ok(bound)
}

/// `ours` are the addresses that are listened on by now.
fn taken(address: SocketAddr, ours: &[SocketAddr]) -> Error {
    let why = match ours.iter().find(|&&other| overlap(address, other)) {
        Some(&other) if other == address => "it was given twice".to_owned(),
        Some(other) => format!("{other}, which was given too, includes it or is included"),
        None => "another program, or another instance of this one, listens there; stop it or choose another port"
            .to_owned(),
    };
    Error::new(ErrorKind::Bind, format!("cannot listen on {address}: {why}"))
}

/// Whether there are connections that both would be for.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // Unless a socket is told otherwise, that of any IPv6 address takes those of IPv4 too.
    let includes = |all: IpAddr, ip: IpAddr| {
        all == ip || (all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4()))
    };
    one.port() == other.port() && (includes(one.ip(), other.ip()) || includes(other.ip(), one.ip()))
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
