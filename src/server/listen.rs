//! Where a server listens, and binding it: every address once for each of its shards, a path once for all, or nothing.

use super::steer::{Group, Place};
use super::unix;
use crate::balance::Policy;
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::limits::ConnectionLimits;
use crate::listen_addr::{ListenAddr, unfit_path};
use crate::sync::live::{Known, Live};
use crate::sys::socket::{ListenOptions, listen, overlap, port_is_taken};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

/// Why a policy by a program and sharing a port do not go together.
const SHARED: &str = "the program would choose among their sockets too, without knowing them";

/// Why no policy goes with a Unix socket.
pub(super) const ONE_QUEUE: &str =
    "its shards accept from one socket, and the first that looks has the connection";

/// An address to listen on, and how.
///
/// # Examples
/// ```
/// use corelane::{ShardId, balance::Policy, server::Listen};
/// let admin = Listen::new("127.0.0.1:9000".parse()?).shards([ShardId::new(0)]).backlog(16);
/// let public = Listen::new("0.0.0.0:8080".parse()?).balance(Policy::Hash);
/// let proxy = Listen::unix("/run/app.sock").mode(0o660);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it listens nowhere before it is given to a server"]
pub struct Listen {
    pub(super) address: ListenAddr,
    pub(super) options: ListenOptions,
    pub(super) share: bool,
    pub(super) limits: ConnectionLimits,
    pub(super) balance: Policy,
    pub(super) shards: Option<Vec<ShardId>>,
    pub(super) mode: Option<u32>,
    /// A setting that was given, and that sockets of this kind do not have.
    foreign: Option<&'static str>,
}

impl Listen {
    /// This address, on every shard. Port 0 lets the system choose one, the same for every shard.
    pub fn new(address: SocketAddr) -> Self {
        Listen::at(address.into())
    }

    /// A Unix socket at this path, on every shard; a relative one begins at the working directory. The path has at most 107
    /// bytes, and no abstract name is taken.
    ///
    /// There is one socket, and each shard accepts from it: the first that looks has the connection, which is mostly one with
    /// little to do. Connections stay where they were accepted: they are handed over by no policy, and moved by no
    /// [`rebalance`](super::Builder::rebalance). What only TCP has is refused when the server starts: `balance` other than
    /// [`Policy::Hash`], `share`, `only_v6`, `nodelay`, `keepalive` and `receive_buffer`, which has no effect on Unix sockets.
    ///
    /// A socket that is there and that nobody listens on is replaced. One that somebody listens on, and a file that is no
    /// socket, are left alone, and the server does not start. The file is removed when the last shard stops accepting, if it is
    /// still the same.
    ///
    /// # Examples
    /// ```
    /// use corelane::{Runtime, server::{Listen, Server}};
    /// use hyper::{Response, service::service_fn};
    /// let path = std::env::temp_dir().join(format!("corelane-{}.sock", std::process::id()));
    /// let runtime = Runtime::builder().cores("1".parse()?).start()?;
    /// let listen = Listen::unix(&path).mode(0o600);
    /// let server = Server::builder().listen_with(listen).start(runtime.handle(), |_shard| {
    ///     service_fn(|_request| async { Ok::<_, std::convert::Infallible>(Response::new(String::new())) })
    /// })?;
    /// assert_eq!(server.listen_addrs()[0].as_unix(), Some(path.as_path()));
    /// runtime.shutdown(std::time::Duration::from_secs(5));
    /// assert!(!path.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Listen::at(ListenAddr::Unix(path.into()))
    }

    fn at(address: ListenAddr) -> Self {
        let options = ListenOptions { reuse_port: true, nodelay: true, ..ListenOptions::default() };
        Listen {
            address,
            options,
            share: false,
            limits: ConnectionLimits::default(),
            balance: Policy::default(),
            shards: None,
            mode: None,
            foreign: None,
        }
    }

    /// A setting of TCP.
    fn of_tcp(&mut self, name: &'static str) {
        if self.address.as_unix().is_some() {
            self.foreign = Some(name);
        }
    }

    /// Who may connect to a Unix socket, as `chmod` has it: `0o660` is its user and group. It holds before anybody can connect.
    /// Default: as the umask of the process says. On an internet address it is refused when the server starts.
    pub fn mode(mut self, mode: u32) -> Self {
        if self.address.as_tcp().is_some() {
            self.foreign = Some("mode");
        }
        self.mode = Some(mode);
        self
    }

    /// Connections that may wait to be accepted, per shard, on a Unix socket of all together; cut to the system's `somaxconn`. Default 1024.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.options.backlog = backlog;
        self
    }

    /// Whether other processes of the same user may listen on the same port too, and get a part of the connections.
    /// Default false: a port that is taken is refused.
    pub fn share(mut self, share: bool) -> Self {
        self.of_tcp("share");
        self.share = share;
        self
    }

    /// Whether an IPv6 address leaves IPv4 connections alone (`IPV6_V6ONLY`). Default: as the system is set.
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.of_tcp("only_v6");
        self.options.only_v6 = Some(only_v6);
        self
    }

    /// Whether small responses are sent at once, without waiting for the peer's acknowledgement (`TCP_NODELAY`). Default
    /// true.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.of_tcp("nodelay");
        self.options.nodelay = nodelay;
        self
    }

    /// Whether the system looks for peers that have vanished (`SO_KEEPALIVE`). Default false.
    pub fn keepalive(mut self, keepalive: bool) -> Self {
        self.of_tcp("keepalive");
        self.options.keepalive = keepalive;
        self
    }

    /// Bytes that the system may hold for one connection until they are read (`SO_RCVBUF`). Default: the system adapts it.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.of_tcp("receive_buffer");
        self.options.receive_buffer = Some(bytes);
        self
    }

    /// Bytes that the system may hold for one connection until the peer takes them (`SO_SNDBUF`). Default: the system
    /// adapts it.
    pub fn send_buffer(mut self, bytes: u32) -> Self {
        self.options.send_buffer = Some(bytes);
        self
    }

    /// What each connection is held to. Default: [`ConnectionLimits::default`].
    pub fn limits(mut self, limits: ConnectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Which of its shards gets a connection, one of those that [serve it](Self::shards). Default: [`Policy::Hash`], the only
    /// one of a [Unix socket](Self::unix). In work-stealing mode it means nothing: any worker serves any connection.
    pub fn balance(mut self, policy: Policy) -> Self {
        self.balance = policy;
        self
    }

    /// Only these shards listen there, and serve what comes. Default: all. In work-stealing mode it means nothing.
    pub fn shards(mut self, shards: impl IntoIterator<Item = ShardId>) -> Self {
        self.shards = Some(shards.into_iter().collect());
        self
    }

    /// The same for all workers of a pool, whichever shards were named.
    pub(super) fn for_all(self) -> Listen {
        // What a Unix socket does not have is refused in either mode.
        let balance =
            if self.address.as_tcp().is_some() { Policy::default() } else { self.balance };
        Listen { shards: None, balance, ..self }
    }

    /// Whether what was asked for goes together.
    fn check(&self) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Config, why));
        let address = &self.address;
        if let Some(name) = self.foreign {
            let whose = if name == "mode" { "Unix sockets" } else { "TCP" };
            return wrong(format!("{address} has no {name}: only {whose} can be told that"));
        }
        if let Some(path) = address.as_unix() {
            if let Some(why) = unfit_path(path) {
                return wrong(format!("cannot listen on {address}: {why}"));
            }
            if self.balance != Policy::Hash {
                let policy = self.balance;
                return wrong(format!("{address} cannot be balanced by {policy}: {ONE_QUEUE}"));
            }
            if let Some(mode) = self.mode.filter(|mode| *mode > 0o777) {
                return wrong(format!("{address} cannot have the mode {mode:o}: 777 is the most"));
            }
        }
        if self.share && self.balance.is_by_kernel_program() {
            let policy = self.balance;
            return wrong(format!(
                "{address} cannot be shared with other processes and balanced by {policy}: {SHARED}"
            ));
        }
        Ok(())
    }

    /// Which of so many shards listen, each once, in ascending order.
    pub(super) fn on(&self, count: usize) -> Result<Vec<usize>, Error> {
        let address = &self.address;
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

/// Limits that can be replaced while connections come.
pub(super) type LiveLimits = Arc<Live<ConnectionLimits>>;

/// Sockets that listen, grouped by the shard that will own them.
pub(super) struct Bound {
    pub(super) addresses: Vec<ListenAddr>,
    /// For each address.
    pub(super) limits: Vec<LiveLimits>,
    pub(super) by_shard: Vec<Sockets>,
    /// Those of TCP, in their order, and one group for each.
    pub(super) local_addrs: Vec<SocketAddr>,
    pub(super) groups: Vec<Arc<Group>>,
    /// One for each path, in their order.
    pub(super) paths: Vec<Arc<unix::Group>>,
}

/// The sockets of one shard.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) tcp: Vec<Listening>,
    pub(super) unix: Vec<unix::Listening>,
}

/// One shard's socket of a listened-on address.
pub(super) struct Listening {
    pub(super) socket: TcpListener,
    pub(super) backlog: u32,
    pub(super) limits: Known<ConnectionLimits>,
    /// Which of the addresses, in the order in which they were given.
    pub(super) number: usize,
    /// Its place among the sockets of that address. After `socket`, which is to be closed first.
    pub(super) place: Place,
}

/// Binds each address once for each of its shards, and each path once. On error every socket made so far is closed.
pub(super) fn bind_all(wanted: &[Listen], shards: usize) -> Result<Bound, Error> {
    let mut bound = Bound {
        addresses: Vec::new(),
        limits: Vec::new(),
        by_shard: (0..shards).map(|_| Sockets::default()).collect(),
        local_addrs: Vec::new(),
        groups: Vec::new(),
        paths: Vec::new(),
    };
    for (number, wanted) in wanted.iter().enumerate() {
        wanted.check()?;
        let shards = wanted.on(shards)?;
        let limits = Arc::new(Live::new(wanted.limits.clone()));
        let address = match wanted.address {
            ListenAddr::Tcp(address) => bound.tcp(address, wanted, number, shards, &limits)?.into(),
            ListenAddr::Unix(_) => {
                bound.unix(wanted, number, &shards, &limits)?;
                wanted.address.clone()
            }
        };
        bound.addresses.push(address);
        bound.limits.push(limits);
    }
    Ok(bound)
}

impl Bound {
    /// Returns the address, with the port that the system has chosen if it was to.
    fn tcp(
        &mut self,
        mut address: SocketAddr,
        wanted: &Listen,
        number: usize,
        shards: Vec<usize>,
        limits: &LiveLimits,
    ) -> Result<SocketAddr, Error> {
        // With SO_REUSEPORT a second instance of a program would silently share the port with the first.
        match port_is_taken(address, wanted.share, wanted.options.only_v6) {
            Ok(false) => {}
            Ok(true) => return Err(taken(address, &self.local_addrs)),
            Err(error) => return Err(cannot_bind(address, error, &self.local_addrs)),
        }
        let group = Group::new(wanted.balance, shards.len(), wanted.share);
        for shard in shards {
            let failed = |error| cannot_bind(address, error, &self.local_addrs);
            let socket = listen(address, &wanted.options).map_err(failed)?;
            let place = Group::enter(&group, shard, &socket).map_err(failed)?;
            // The first socket of port 0 gets a port, which the others share.
            address = socket.local_addr().map_err(failed)?;
            let (backlog, limits) = (wanted.options.backlog, Known::new(limits.clone()));
            let listening = Listening { socket, backlog, limits, number, place };
            self.by_shard[shard].tcp.push(listening);
        }
        self.groups.push(group);
        self.local_addrs.push(address);
        Ok(address)
    }

    fn unix(
        &mut self,
        wanted: &Listen,
        number: usize,
        shards: &[usize],
        limits: &LiveLimits,
    ) -> Result<(), Error> {
        let (group, sockets) = unix::Group::bind(wanted, number, shards, limits, &self.paths)?;
        for (&shard, listening) in shards.iter().zip(sockets) {
            self.by_shard[shard].unix.push(listening);
        }
        self.paths.push(group);
        Ok(())
    }
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
        let _client = std::net::TcpStream::connect(bound.local_addrs[0]).expect("it listens");
        let (accepted, _) = bound.by_shard[0].tcp[0].socket.accept().expect("it has come");
        assert!(accepted.nodelay().expect("asked"));
    }

    #[test]
    fn only_the_shards_that_are_named_listen() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let shard = ShardId::new;
        let wanted = [Listen::new(any).shards([shard(2), shard(0), shard(2)]), Listen::new(any)];
        let bound = bind_all(&wanted, 3).expect("two ports");
        let counts: Vec<usize> = bound.by_shard.iter().map(|sockets| sockets.tcp.len()).collect();
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
