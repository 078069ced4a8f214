//! The sharded HTTP/1.1 server.
//!
//! Every shard has a listening socket of its own on the same port (`SO_REUSEPORT`), accepts from it, and serves what it
//! accepted; the kernel spreads connections over the sockets, and a [`Policy`](crate::balance::Policy) may have them handed
//! over to another shard before anything is read. A service is made on each shard by a factory, lives
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

// From accept to close; telling the connections of a shard to end; binding, all or nothing; who gets what was accepted.
mod connection;
mod drain;
mod listen;
mod spread;

use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::net::{Accepted, Acceptor, TcpListener, TcpStream};
use crate::runtime::{Handle, Mode, shutdown_requested};
use crate::shard::context::with_current;
use crate::task::failure::JoinError;
use crate::task::join::JoinHandle;
use connection::{Settings, connection};
use drain::Drain;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
pub use listen::Listen;
use listen::Listening;
use spread::{Counted, Part};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
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
    /// The shard ran out of fds or memory and accepts nothing for a while.
    AcceptPaused {
        /// On which shard.
        shard: ShardId,
        /// What is used up.
        error: io::Error,
        /// How long it waits before it tries again.
        pause: Duration,
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
}

type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// Settings of a server that is to be started.
#[derive(Clone)]
#[must_use = "a builder does nothing before start()"]
pub struct Builder {
    listen: Vec<Listen>,
    settings: Settings,
    observer: Observer,
}

impl Default for Builder {
    fn default() -> Self {
        Builder { listen: Vec::new(), settings: Settings::default(), observer: Arc::new(|_| ()) }
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

    /// How long a client may take for the head of a request. Default 30 seconds; `None` for ever.
    pub fn header_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.header_timeout = timeout;
        self
    }

    /// Whether responses are sent from where they are, as a list of slices, instead of being copied into one buffer first.
    /// That serves bodies of a megabyte half as fast again, and costs a small one about 560 instructions. Default false.
    pub fn vectored_writes(mut self, vectored: bool) -> Self {
        self.settings.vectored_writes = vectored;
        self
    }

    /// Is told what happens. It runs on the shards: it must neither block nor panic.
    pub fn on_event(mut self, observer: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Binds every address once per shard and begins to accept, or does nothing of it. `factory` runs once on every
    /// shard and makes the service there; each connection gets a clone of it.
    ///
    /// The server runs until its runtime shuts down, gracefully: see [`Server`].
    ///
    /// # Errors
    /// No address was given, or one cannot be bound; or a shard has shut down; or there are none, as in a
    /// [`block_on`](crate::block_on) outside a runtime.
    pub fn start<F, S, B>(self, handle: &Handle, factory: F) -> Result<Server, Error>
    where
        F: FnOnce(ShardId) -> S + Clone + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.listen.is_empty() {
            return Err(no_address());
        }
        if handle.shard_count() == 0 {
            return Err(Error::new(ErrorKind::Config, NO_SHARDS));
        }
        let listeners = listen::bind_all(&self.listen, handle.shard_count())?;
        let parts = spread::parts(&self.listen, handle)?;
        let mut shards = Vec::new();
        for ((shard, listeners), part) in handle.shards().zip(listeners.by_shard).zip(parts) {
            let (factory, settings, observer) =
                (factory.clone(), self.settings.clone(), self.observer.clone());
            let task = handle.spawn_on(shard, move || {
                serve_shard(listeners, factory(shard), settings, observer, part)
            });
            match task {
                Ok(task) => shards.push(task),
                Err(refused) => {
                    shards.iter().for_each(JoinHandle::abort);
                    return Err(cannot_start(refused));
                }
            }
        }
        Ok(Server { addresses: listeners.addresses, shards })
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
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if handle.mode() == Mode::ThreadPerCore {
            return self.start(handle, move |_shard| service);
        }
        if self.listen.is_empty() {
            return Err(no_address());
        }
        // One socket for all, whichever shards were named.
        let listen: Vec<Listen> =
            self.listen.into_iter().map(|listen| Listen { shards: None, ..listen }).collect();
        let listen::Bound { addresses, by_shard } = listen::bind_all(&listen, 1)?;
        let listeners = by_shard.into_iter().flatten().collect();
        let (settings, observer) = (self.settings, self.observer);
        let serving = handle
            .spawn_on(ShardId::new(0), move || serve_pool(listeners, service, settings, observer));
        match serving {
            Ok(task) => Ok(Server { addresses, shards: vec![task] }),
            Err(refused) => Err(cannot_start(refused)),
        }
    }
}

const NO_SHARDS: &str = "the server has no shards to run on: this handle is that of a block_on without a runtime; start a \
                         Runtime, and use its handle";

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
    addresses: Vec<SocketAddr>,
    shards: Vec<JoinHandle<Result<(), Died>>>,
}

/// Why serving ended before the shutdown.
#[derive(Debug)]
enum Died {
    /// A listener failed for good.
    Listener(SocketAddr, io::Error),
    /// The factory panicked, or the code that accepts.
    Panicked(JoinError),
}

impl Server {
    /// Settings for a new server.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens, in the order in which the addresses were given, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until every shard has stopped serving: after a shutdown, or early if a listener dies or the factory panics.
    ///
    /// # Errors
    /// The first listener that failed, or the first panic. The other shards go on serving.
    pub async fn stopped(self) -> Result<(), Error> {
        all_ended(self.shards).await.map_err(|died| match died {
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

/// Waits for every task, or for the first that dies.
async fn all_ended(mut tasks: Vec<JoinHandle<Result<(), Died>>>) -> Result<(), Died> {
    std::future::poll_fn(|context| {
        let mut index = 0;
        while index < tasks.len() {
            match Pin::new(&mut tasks[index]).poll(context) {
                Poll::Ready(Ok(Err(died))) => return Poll::Ready(Err(died)),
                Poll::Ready(Err(error)) if error.is_panic() => {
                    return Poll::Ready(Err(Died::Panicked(error)));
                }
                // Ended, or cut off by the deadline of a shutdown.
                Poll::Ready(_) => drop(tasks.swap_remove(index)),
                Poll::Pending => index += 1,
            }
        }
        if tasks.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// Serves one shard's listeners until the shutdown.
async fn serve_shard<S, B>(
    listeners: Vec<Listening>,
    service: S,
    settings: Settings,
    observer: Observer,
    part: Option<Part>,
) -> Result<(), Died>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let drain = Arc::new(Drain::default());
    let known = drain.clone();
    let serve = Rc::new(move |stream: TcpStream, counted: Option<Counted>| {
        let connection = connection(stream, service.clone(), &settings, &known, counted);
        drop(crate::spawn_local(connection));
    });
    let taken = serve.clone();
    let (seat, spreads) =
        part.map(|part| part.begin(move |stream, counted| taken(stream, Some(counted)))).unzip();
    let mut spreads = spreads.into_iter().flatten();
    let accept = |listener: Listening| {
        let (serve, mut spread) = (serve.clone(), spreads.next());
        let serve = move |stream| match &mut spread {
            None => serve(stream, None),
            Some(spread) => {
                if let Some((stream, counted)) = spread.place(stream) {
                    serve(stream, Some(counted));
                }
            }
        };
        crate::spawn_local(accept_all(listener, serve, observer.clone()))
    };
    let tasks: Vec<_> = listeners.into_iter().map(accept).collect();
    // On its own, because the connections must be told even if every listener has died before.
    drop(crate::spawn_local(async move {
        shutdown_requested().await;
        seat.iter().for_each(|seat| seat.close());
        drain.begin();
    }));
    all_ended(tasks).await
}

/// Serves all listeners of a pool until the shutdown. Runs on one worker; what it spawns, any worker runs.
async fn serve_pool<S, B>(
    listeners: Vec<Listening>,
    service: S,
    settings: Settings,
    observer: Observer,
) -> Result<(), Died>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let drain = Arc::new(Drain::default());
    let accept = |listener: Listening| {
        let (service, drain, settings) = (service.clone(), drain.clone(), settings.clone());
        let serve = move |stream| {
            drop(crate::spawn(connection(stream, service.clone(), &settings, &drain, None)));
        };
        crate::spawn(accept_all(listener, serve, observer.clone()))
    };
    let tasks: Vec<_> = listeners.into_iter().map(accept).collect();
    drop(crate::spawn(async move {
        shutdown_requested().await;
        drain.begin();
    }));
    all_ended(tasks).await
}

/// Accepts from one listener until the shutdown, and has each connection served.
async fn accept_all(
    Listening { socket, backlog }: Listening,
    mut serve: impl FnMut(TcpStream),
    observer: Observer,
) -> Result<(), Died> {
    let died = |error| Died::Listener("0.0.0.0:0".parse().expect("an address"), error);
    let listener = TcpListener::from_std(socket).map_err(died)?;
    let address = listener.local_addr().map_err(died)?;
    let mut acceptor = Acceptor::new(listener);
    // A service whose clone panics loses that connection, not the listener.
    let mut serve = |stream| {
        with_current(|shard| shard.run_caught(|| serve(stream)));
    };
    let mut stop = pin!(shutdown_requested());
    loop {
        let accepted = {
            let mut accept = pin!(acceptor.accept());
            std::future::poll_fn(|context| first(stop.as_mut(), accept.as_mut(), context)).await
        };
        match accepted {
            None => break,
            Some(Ok(Accepted::Connection(stream, _peer))) => serve(stream),
            Some(Ok(Accepted::Lost(error))) => {
                observer(Event::AcceptLost { shard: this_shard(), error });
            }
            Some(Ok(Accepted::Paused(error, pause))) => {
                observer(Event::AcceptPaused { shard: this_shard(), error, pause });
            }
            Some(Err(error)) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                observer(Event::ListenerDied { shard: this_shard(), address, error: copy });
                return Err(Died::Listener(address, error));
            }
        }
    }
    // As many as can have been waiting: those who come meanwhile must not keep it.
    acceptor.drain().take(backlog as usize + 1).for_each(|(stream, _peer)| serve(stream));
    Ok(())
}

/// Where the task that accepts runs just now: in a pool, another worker each time.
fn this_shard() -> ShardId {
    ShardId::current().expect("it accepts on a runtime's shard")
}

/// The second future's output, or none if the first is ready.
fn first<T>(
    stop: Pin<&mut impl Future<Output = ()>>,
    work: Pin<&mut impl Future<Output = T>>,
    context: &mut Context<'_>,
) -> Poll<Option<T>> {
    match stop.poll(context) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => work.poll(context).map(Some),
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
