//! The sharded HTTP server: HTTP/1.1, and HTTP/2 to clients that begin with it.
//!
//! Every shard has a listening socket of its own on the same port (`SO_REUSEPORT`), accepts from it, and serves what it
//! accepted; the kernel spreads connections over the sockets, and a [`Policy`](crate::balance::Policy) may have them handed
//! over to another shard before anything is read. From a [Unix socket](Listen::unix), or one that was
//! [handed over](Listen::inherited), all shards accept. A service is made on each shard by a factory, lives
//! there, and need be neither `Send` nor `Sync`.
//!
//! ```no_run
//! use corelane::{Runtime, server::Server};
//! use hyper::{Response, service::service_fn};
//! use http_body_util::Full;
//! use hyper::body::Bytes;
//! let runtime = Runtime::builder().start()?;
//! let server = Server::builder()
//!     .listen("127.0.0.1:8080".parse()?)
//!     .start(runtime.handle(), |_shard| {
//!         service_fn(|_request| async { Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("Hello"))) })
//!     })?;
//! println!("listening on http://{}", server.local_addrs()[0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Every connection is held to [`ConnectionLimits`]. No service sees a request that RFC 9110 and RFC 9112 have a server refuse:
//! without a Host, with two, or with another than the target's; with a target in a form that its method does not have; with
//! transfer codings other than `chunked`, or an expectation other than `100-continue`. They are answered with 400, 501 and 417. A
//! service that panics has its request answered with 500, and one that fails with the error of a body that the client sent badly,
//! too slowly or without end, with 400, 408 or 413; if it fails with another error the connection is closed without an answer.

// What each file does stands at its head.
mod accept;
pub(crate) mod access_log;
mod arrival;
mod body;
mod builder;
mod capacity;
#[cfg(feature = "config")]
mod configured;
mod connection;
mod crew;
mod direct;
mod event;
mod frames;
mod guard;
mod late;
mod linger;
mod listen;
mod movable;
mod preliminary;
mod probe;
mod protocol;
mod proxied;
mod rebalance;
mod refusal;
mod roster;
#[cfg(feature = "config")]
mod routes;
#[cfg(feature = "tls")]
mod secure;
#[cfg(not(feature = "tls"))]
#[path = "server/insecure.rs"]
mod secure;
mod serving;
mod shared;
mod spread;
mod steer;
mod stop;
mod streams;
mod strict;
mod terms;
#[cfg(feature = "tower")]
mod tower;
mod transport;

#[cfg(feature = "tower")]
pub use self::tower::{Tower, TowerCall};
use crate::balance;
use crate::balance::seats::Seats;
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
pub use crate::limits::{ConnectionLimits, WhenFull};
pub use crate::listen_addr::ListenAddr;
use crate::runtime::{Handle, SubmitErrorKind};
use crate::task::join::JoinHandle;
use accept::{Died, poll_all_ended};
pub use access_log::{AccessLog, AccessLogBuilder, AccessLogFormat, AccessLogTarget};
pub use body::{Body, BodyError};
pub use builder::Builder;
use crew::Crew;
use event::Observer;
pub use event::{ConnectionInfo, Event, Peer};
pub use listen::Listen;
use refusal::ONE_SOCKET_NO_POLICY;
#[cfg(feature = "config")]
pub use routes::Routes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use steer::Weigher;
use terms::LiveTerms;
pub use transport::into_stream;

/// A running server.
///
/// When its runtime is asked to shut down, each shard empties its accept queues, closes its listening sockets, tells
/// its connections to end after the request at hand, and ends when they have; what is left at the shutdown's deadline
/// is dropped. Dropping the `Server` leaves it running.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<ListenAddr>,
    /// Those of TCP.
    local_addrs: Vec<SocketAddr>,
    terms: Vec<LiveTerms>,
    /// None in a pool.
    seats: Option<Seats>,
    /// The number of its crews, if connections may move.
    moving: Option<u64>,
    handle: Handle,
    /// The sockets of each TCP address, and the shards of each socket that there is once; none in a pool.
    groups: Vec<Arc<steer::Group>>,
    /// Which listeners those are, and their addresses.
    grouped: Vec<usize>,
    group_addrs: Vec<SocketAddr>,
    shared: Vec<Arc<shared::Group>>,
    /// None in a pool.
    weigher: Option<Weigher>,
    shards: Vec<JoinHandle<Result<(), Died>>>,
}

impl Server {
    /// Settings for a new server.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The TCP addresses that it listens on, in the order in which they were given, with the ports that the system chose. With
    /// Unix sockets among them, what is counted in that order (`listener` below, and in [`ConnectionInfo`]) is counted in
    /// [`listen_addrs`](Self::listen_addrs).
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Everything that it listens on, in the order in which it was given, with the ports that the system chose.
    pub fn listen_addrs(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// Where the sockets of a listener are among the groups: those that there is one of for each shard have one.
    fn group_of(&self, listener: usize) -> Option<usize> {
        self.grouped.iter().position(|grouped| *grouped == listener)
    }

    /// Whether connections of an address are encrypted. `listener` is its place in the order in which they were given.
    pub fn is_secure(&self, listener: usize) -> bool {
        self.terms.get(listener).is_some_and(LiveTerms::is_secure)
    }

    /// Changes what connections of an address are held to that come from now on. `listener` is the address's place in the
    /// order in which they were given; of one that there is not nothing changes.
    pub fn set_limits(&self, listener: usize, limits: ConnectionLimits) {
        if let Some(terms) = self.terms.get(listener) {
            terms.set_limits(limits);
        }
    }

    /// How new connections of an address are spread over its shards. None: there is no such address, or it is that of a Unix
    /// socket, or the runtime is in work-stealing mode.
    pub fn policy(&self, listener: usize) -> Option<balance::Policy> {
        self.groups.get(self.group_of(listener)?).map(|group| group.policy())
    }

    /// Spreads connections of an address that come from now on by another policy. Those that are open stay where they are.
    /// `listener` is the address's place in the order in which they were given.
    ///
    /// # Errors
    /// There is no such address, or it is that of a Unix socket; or the runtime is in work-stealing mode; or the policy needs the kernel to run a program,
    /// and the system does not let us, or the port is shared with other processes. Then they are spread as before, or by the
    /// hash if that needs a program too; or there is no thread to weigh shards, and all weigh the same.
    pub fn set_policy(&self, listener: usize, policy: balance::Policy) -> Result<(), Error> {
        let group = self.group_of(listener).and_then(|group| self.groups.get(group));
        let Some((group, weigher)) = group.zip(self.weigher.as_ref()) else {
            let text = match self.addresses.get(listener) {
                _ if self.weigher.is_none() => ONE_SOCKET_NO_POLICY.to_owned(),
                Some(address) => {
                    format!("{address} cannot be balanced by {policy}: {}", listen::ONE_QUEUE)
                }
                None => {
                    format!("there is no listener {listener}: there are {}", self.addresses.len())
                }
            };
            return Err(Error::new(ErrorKind::Config, text));
        };
        let set = group.set_policy(policy).and_then(|()| weigher.run());
        set.map_err(|error| {
            let address = &self.addresses[listener];
            let text = format!("{address}: connections cannot be spread by {policy}: {error}");
            Error::new(ErrorKind::Config, text).because(error)
        })
    }

    /// Has so many connections of a shard, its busiest, go to another as soon as each is between two requests, whatever the
    /// balance. A request, not a command: some may end before, or stay because the other shard does not serve their address or
    /// its inbox is full. Of a server without [`rebalance`](Builder::rebalance) none moves.
    ///
    /// # Errors
    /// The first shard has no room in its inbox or is closed; or there is no such shard.
    pub fn move_connections(
        &self,
        from: ShardId,
        to: ShardId,
        count: usize,
    ) -> Result<(), SubmitErrorKind> {
        if to.index() >= self.handle.shard_count() {
            return Err(SubmitErrorKind::NoSuchShard);
        }
        let Some(number) = self.moving else { return Ok(()) };
        let give = move || {
            if let Some(crew) = Crew::here(number) {
                crew.give(to, count, false);
            }
        };
        self.handle.post(from, give).map_err(|refused| refused.kind())
    }

    /// Waits until every shard has stopped serving: after a shutdown, or early if a listener dies or the factory panics.
    ///
    /// # Errors
    /// The first listener that failed, or the first panic. The other shards go on serving.
    pub async fn stopped(mut self) -> Result<(), Error> {
        std::future::poll_fn(|context| self.poll_stopped(context)).await
    }

    /// [`stopped`](Self::stopped), for those who wait for other things too.
    pub fn poll_stopped(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        poll_all_ended(&mut self.shards, context).map_err(|died| match died {
            Died::Listener(address, error) => {
                let text = format!("the listener of {address} has failed: {error}");
                Error::new(ErrorKind::Bind, text).because(error)
            }
            Died::Panicked(error) => {
                let text = format!("a shard has stopped serving: {error}");
                Error::new(ErrorKind::Start, text).because(error)
            }
        })
    }
}
