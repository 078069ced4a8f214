//! The sharded HTTP server: HTTP/1.1, and HTTP/2 to clients that begin with it.
//!
//! Every shard has a listening socket of its own on the same port (`SO_REUSEPORT`), accepts from it, and serves what it
//! accepted; the kernel spreads connections over the sockets, and a [`Policy`](crate::balance::Policy) may have them handed
//! over to another shard before anything is read. On a [Unix socket](Listen::unix) all shards accept from one. A service is made on each shard by a factory, lives
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
mod arrival;
mod body;
#[cfg(feature = "config")]
mod configured;
mod connection;
mod crew;
mod event;
mod frames;
mod guard;
mod late;
mod linger;
mod listen;
mod movable;
mod probe;
mod protocol;
mod rebalance;
mod roster;
#[cfg(feature = "config")]
mod routes;
mod spread;
mod steer;
mod stop;
mod streams;
mod strict;
mod transport;
mod unix;

use crate::balance;
use crate::balance::seats::Seats;
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
pub use crate::limits::ConnectionLimits;
pub use crate::listen_addr::ListenAddr;
use crate::mode::Mode;
use crate::runtime::{Handle, SubmitErrorKind};
use crate::sync::live::Known;
use crate::task::join::JoinHandle;
use accept::{Died, Station, poll_all_ended, serve_pool, serve_shard};
pub use body::{Body, BodyError};
use crew::Crew;
use event::Observer;
pub use event::{ConnectionInfo, Event, Peer};
use hyper::service::Service;
use hyper::{Request, Response};
pub use listen::Listen;
use listen::LiveLimits;
use protocol::Settings;
use rebalance::Moving;
#[cfg(feature = "config")]
pub use routes::Routes;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use steer::Weigher;
pub use transport::into_stream;

/// Settings of a server that is to be started.
#[derive(Clone)]
#[must_use = "a builder does nothing before start()"]
pub struct Builder {
    listen: Vec<Listen>,
    settings: Settings,
    rebalance: bool,
    observer: Observer,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            listen: Vec::new(),
            settings: Settings::default(),
            rebalance: false,
            observer: Arc::new(|_| ()),
        }
    }
}

impl Builder {
    /// Adds an address to listen on, as [`Listen::new`] says. Port 0 lets the system choose one, the same for every shard.
    pub fn listen(self, address: SocketAddr) -> Self {
        self.listen_with(Listen::new(address))
    }

    /// Adds an address to listen on, and how.
    pub fn listen_with(mut self, listen: Listen) -> Self {
        self.listen.push(listen);
        self
    }

    /// Whether responses are sent from where they are, as a list of slices, instead of being copied into one buffer first.
    /// That serves bodies of a megabyte half as fast again, and costs a small one about 560 instructions. Default false.
    pub fn vectored_writes(mut self, vectored: bool) -> Self {
        self.settings.vectored_writes = vectored;
        self
    }

    /// Whether connections move from a shard that is held up to one that is not, between two requests. Default false. In
    /// work-stealing mode it means nothing.
    ///
    /// A thread of its own looks at the shards ten times a second. Where one is busy and its clients wait clearly longer than
    /// those of another, some of its busiest connections are taken apart as soon as nothing of them is under way, and go
    /// on on the other shard, with a service that is made there. They go only to shards that serve their address.
    /// Connections whose last request had a body stay until one without has followed; those that were upgraded or speak HTTP/2
    /// stay for good.
    pub fn rebalance(mut self, rebalance: bool) -> Self {
        self.rebalance = rebalance;
        self
    }

    /// Is told what happens. It runs on the shards: it must neither block nor panic.
    pub fn on_event(mut self, observer: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Binds every address once per shard, every path once, and begins to accept, or does nothing of it. `factory` runs once on every
    /// shard and makes the service there; each connection gets a clone of it.
    ///
    /// The server runs until its runtime shuts down, gracefully: see [`Server`].
    ///
    /// # Errors
    /// No address was given, or one cannot be bound, or was told what sockets of its kind do not have; or a shard has shut down; or there are none, as in a
    /// [`block_on`](crate::block_on) outside a runtime.
    pub fn start<F, S, B>(self, handle: &Handle, factory: F) -> Result<Server, Error>
    where
        F: FnOnce(ShardId) -> S + Clone + Send + 'static,
        S: Service<Request<Body>, Response = Response<B>> + Clone + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.start_with(handle, |shard| {
            let service = factory(shard);
            move |_: &ConnectionInfo| service.clone()
        })
    }

    /// [`start`](Self::start) with a service for each connection: `factory` runs once on every shard, and what it returns is
    /// called there for each connection that comes.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Examples
    /// ```
    /// use corelane::{Runtime, server::{ConnectionInfo, Server}};
    /// use hyper::{Response, service::service_fn};
    /// let runtime = Runtime::builder().start()?;
    /// let server = Server::builder().listen("127.0.0.1:0".parse()?).start_with(runtime.handle(), |_shard| {
    ///     |connection: &ConnectionInfo| {
    ///         let peer = connection.peer;
    ///         service_fn(move |_request| async move {
    ///             Ok::<_, std::convert::Infallible>(Response::new(format!("You are {peer}.")))
    ///         })
    ///     }
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_with<F, M, S, B>(self, handle: &Handle, factory: F) -> Result<Server, Error>
    where
        F: FnOnce(ShardId) -> M + Clone + Send + 'static,
        M: Fn(&ConnectionInfo) -> S + 'static,
        S: Service<Request<Body>, Response = Response<B>> + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.listen.is_empty() {
            return Err(no_address());
        }
        if handle.shard_count() == 0 {
            return Err(Error::new(ErrorKind::Config, NO_SHARDS));
        }
        let mut bound = listen::bind_all(&self.listen, handle.shard_count())?;
        let weigher = Weigher::new(&bound.groups, &bound.local_addrs, handle, &self.observer);
        weigher.run().map_err(cannot_start)?;
        let parts = spread::parts(&self.listen, &bound.groups, handle)?;
        let seats = parts.first().map(|part| part.seats.clone());
        let moving = if self.rebalance { Some(self.moving(handle)?) } else { None };
        let mut shards = Vec::new();
        let by_shard = std::mem::take(&mut bound.by_shard);
        for ((shard, sockets), part) in handle.shards().zip(by_shard).zip(parts) {
            let station = Station {
                sockets,
                limits: bound.limits.iter().cloned().map(Known::new).collect(),
                settings: self.settings.clone(),
                moving: moving.clone(),
                part,
                observer: self.observer.clone(),
            };
            let factory = factory.clone();
            let task = handle.spawn_on(shard, move || serve_shard(station, factory(shard)));
            match task {
                Ok(task) => shards.push(task),
                Err(refused) => {
                    shards.iter().for_each(JoinHandle::abort);
                    return Err(cannot_start(refused));
                }
            }
        }
        let listen::Bound { addresses, local_addrs, limits, groups, paths, .. } = bound;
        let moving = moving.map(|moving| moving.number);
        Ok(Server {
            addresses,
            local_addrs,
            limits,
            groups,
            paths,
            weigher: Some(weigher),
            seats,
            moving,
            handle: handle.clone(),
            shards,
        })
    }

    fn moving(&self, handle: &Handle) -> Result<Moving, Error> {
        // What comes by a Unix socket stays, as if no shard served it.
        let shards = |listen: &Listen| match listen.address {
            ListenAddr::Tcp(_) => listen.on(handle.shard_count()),
            ListenAddr::Unix(_) => Ok(Vec::new()),
        };
        Moving::start(handle, self.listen.iter().map(shards).collect::<Result<_, _>>()?)
    }

    /// [`start`](Self::start) with a service that may be sent between threads, so that it can be served in either mode:
    /// in thread-per-core mode each shard gets a clone of it; in work-stealing mode there is one listening socket per
    /// address, and any worker may serve any connection.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    ///
    /// # Examples
    /// ```
    /// use corelane::{Mode, Runtime, server::Server};
    /// use hyper::{Response, body::Bytes, service::service_fn};
    /// use http_body_util::Full;
    /// let runtime = Runtime::builder().mode(Mode::WorkStealing).start()?;
    /// let service = service_fn(|_request| async {
    ///     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("Hello")))
    /// });
    /// let server = Server::builder().listen("127.0.0.1:0".parse()?).start_send(runtime.handle(), service)?;
    /// assert_ne!(server.local_addrs()[0].port(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_send<S, B>(self, handle: &Handle, service: S) -> Result<Server, Error>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.start_send_with(handle, move |_: &ConnectionInfo| service.clone())
    }

    /// [`start_send`](Self::start_send) with a service for each connection. In thread-per-core mode each shard gets a clone
    /// of `make`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_send_with<M, S, B>(self, handle: &Handle, make: M) -> Result<Server, Error>
    where
        M: Fn(&ConnectionInfo) -> S + Clone + Send + 'static,
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if handle.mode() == Mode::ThreadPerCore {
            return self.start_with(handle, move |_shard| make);
        }
        if self.listen.is_empty() {
            return Err(no_address());
        }
        let listen: Vec<Listen> = self.listen.into_iter().map(Listen::for_all).collect();
        let listen::Bound { addresses, local_addrs, by_shard, limits, .. } =
            listen::bind_all(&listen, 1)?;
        let sockets = by_shard.into_iter().next().unwrap_or_default();
        let (settings, observer) = (self.settings, self.observer);
        let serving =
            handle.spawn_on(ShardId::new(0), move || serve_pool(sockets, make, settings, observer));
        match serving {
            Ok(task) => {
                let (handle, shards) = (handle.clone(), vec![task]);
                Ok(Server {
                    addresses,
                    local_addrs,
                    limits,
                    groups: Vec::new(),
                    paths: Vec::new(),
                    weigher: None,
                    seats: None,
                    moving: None,
                    handle,
                    shards,
                })
            }
            Err(refused) => Err(cannot_start(refused)),
        }
    }
}

const NO_SHARDS: &str = "the server has no shards to run on: this handle is that of a block_on without a runtime; start a \
                         Runtime, and use its handle";

const ONE_SOCKET_NO_POLICY: &str =
    "no policy spreads connections in work-stealing mode: all workers accept from one socket";

fn no_address() -> Error {
    Error::new(ErrorKind::Config, "the server has no address to listen on")
}

fn cannot_start(refused: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Start, format!("the server cannot start: {refused}"))
}

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
    limits: Vec<LiveLimits>,
    /// None in a pool.
    seats: Option<Seats>,
    /// The number of its crews, if connections may move.
    moving: Option<u64>,
    handle: Handle,
    /// The sockets of each TCP address, and the shards of each path; none in a pool.
    groups: Vec<Arc<steer::Group>>,
    paths: Vec<Arc<unix::Group>>,
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

    /// Where the sockets of a TCP listener are among the groups.
    fn group_of(&self, listener: usize) -> Option<usize> {
        self.addresses.get(listener)?.as_tcp()?;
        Some(self.addresses[..listener].iter().filter_map(ListenAddr::as_tcp).count())
    }

    /// Changes what connections of an address are held to that come from now on. `listener` is the address's place in the
    /// order in which they were given; of one that there is not nothing changes.
    pub fn set_limits(&self, listener: usize, limits: ConnectionLimits) {
        if let Some(live) = self.limits.get(listener) {
            live.replace(limits);
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

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("listen", &self.listen)
            .field("settings", &self.settings)
            .finish()
    }
}
