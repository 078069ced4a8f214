//! From settings to a running server: everything is bound and every shard has its part, or nothing is.

use super::accept::{Station, serve_pool, serve_shard};
use super::body::Body;
use super::capacity::Capacity;
use super::event::{ConnectionInfo, Event, Observer};
use super::listen::{self, Listen};
use super::protocol::Settings;
use super::rebalance::Moving;
use super::refusal::{NO_SHARDS, cannot_start, no_address};
use super::steer::Weigher;
use super::terms::LiveTerms;
use super::{Server, spread};
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::limits::WhenFull;
use crate::listen_addr::ListenAddr;
use crate::mode::Mode;
use crate::runtime::Handle;
use crate::task::join::JoinHandle;
use hyper::service::Service;
use hyper::{Request, Response};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Settings of a server that is to be started.
#[derive(Clone)]
#[must_use = "a builder does nothing before start()"]
pub struct Builder {
    listen: Vec<Listen>,
    pub(super) settings: Settings,
    rebalance: bool,
    capacity: Capacity,
    observer: Observer,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            listen: Vec::new(),
            settings: Settings::default(),
            rebalance: false,
            capacity: Capacity::default(),
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

    /// How many connections there may be, on all shards together. Default: as many as the process may have descriptors, less a
    /// fiftieth for everything else. Those that are too many are [turned away](WhenFull).
    pub fn max_connections(mut self, connections: u64) -> Self {
        self.capacity.all = Some(connections);
        self
    }

    /// How many there may be on each shard. Default: no bound of its own. In work-stealing mode it means nothing.
    pub fn max_connections_per_shard(mut self, connections: u64) -> Self {
        self.capacity.each = Some(connections);
        self
    }

    /// How many there may be on this shard, instead.
    pub fn max_connections_on(mut self, shard: ShardId, connections: u64) -> Self {
        self.capacity.on.push((shard, connections));
        self
    }

    /// What becomes of those that are too many.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.capacity.when_full = when_full;
        self
    }

    /// Is told what happens. It runs on the shards: it must neither block nor panic.
    pub fn on_event(mut self, observer: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Binds every address once per shard, every path once, takes what was handed over, and begins to accept, or does nothing of it. `factory` runs once on every
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
        let weigher = Weigher::new(&bound.groups, &bound.group_addrs, handle, &self.observer);
        weigher.run().map_err(cannot_start)?;
        let parts = spread::parts(&self.listen, &bound.groups, handle, self.capacity.bounds())?;
        let seats = parts.first().map(|part| part.seats.clone());
        let moving = if self.rebalance { Some(self.moving(handle)?) } else { None };
        let mut shards = Vec::new();
        let by_shard = std::mem::take(&mut bound.by_shard);
        for ((shard, sockets), part) in handle.shards().zip(by_shard).zip(parts) {
            let station = Station {
                sockets,
                terms: bound.terms.iter().map(LiveTerms::here).collect(),
                settings: self.settings.clone(),
                when_full: self.capacity.when_full,
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
        let listen::Bound { addresses, group_addrs, terms, groups, grouped, shared, .. } = bound;
        let local_addrs = addresses.iter().filter_map(ListenAddr::as_tcp).collect();
        let moving = moving.map(|moving| moving.number);
        Ok(Server {
            addresses,
            local_addrs,
            terms,
            groups,
            grouped,
            group_addrs,
            shared,
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
            ListenAddr::Unix(_) | ListenAddr::Inherited(_) => Ok(Vec::new()),
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
        let listen: Vec<Listen> = self.listen.iter().cloned().map(Listen::for_all).collect();
        let listen::Bound { addresses, by_shard, terms, .. } = listen::bind_all(&listen, 1)?;
        let sockets = by_shard.into_iter().next().unwrap_or_default();
        let Builder { settings, capacity, observer, .. } = self;
        let serving = handle.spawn_on(ShardId::new(0), move || {
            serve_pool(sockets, make, settings, capacity, observer)
        });
        match serving {
            Ok(task) => {
                let (handle, shards) = (handle.clone(), vec![task]);
                let local_addrs = addresses.iter().filter_map(ListenAddr::as_tcp).collect();
                Ok(Server {
                    addresses,
                    local_addrs,
                    terms,
                    groups: Vec::new(),
                    grouped: Vec::new(),
                    group_addrs: Vec::new(),
                    shared: Vec::new(),
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

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("listen", &self.listen)
            .field("settings", &self.settings)
            .finish()
    }
}
