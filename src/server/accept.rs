//! From a listening socket to tasks that serve: the tasks that accept, on each shard of a server or in a pool.

use super::Body;
use super::arrival::Arrival;
use super::capacity::{Capacity, Door};
use super::connection::{Connection, Stays, connection};
use super::crew::Crew;
use super::event::{ConnectionInfo, Event, Observer, Peer};
use super::listen::{Listening, Sockets};
use super::movable::Movable;
use super::preliminary::{Begun, Preliminaries};
use super::probe::Probe;
use super::protocol::{Anywhere, Http, Settings};
use super::rebalance::Moving;
use super::roster::Roster;
use super::secure::Socket;
use super::shared::{self, Queue};
use super::spread::{Part, Spread};
use super::streams::{Asked, Paced, Pieces};
use super::terms::Terms;
use super::transport::Stream;
use crate::balance::seats::{Counted, Seat};
use crate::http::Executor;
use crate::id::ShardId;
use crate::limits::WhenFull;
use crate::listen_addr::ListenAddr;
use crate::net::{Accepted, Acceptor, Listener, TcpListener, TcpStream, UnixListener, UnixStream};
use crate::runtime::shutdown_requested;
use crate::shard::context::with_current;
use crate::sys::handed::Handed;
use crate::sys::socket::set_send_buffer_size;
use crate::task::failure::JoinError;
use crate::task::join::JoinHandle;
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::service::Service;
use hyper::{Request, Response};
use std::borrow::Borrow;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Why serving ended before the shutdown.
#[derive(Debug)]
pub(super) enum Died {
    /// A listener failed for good.
    Listener(ListenAddr, io::Error),
    /// The factory panicked, or the code that accepts.
    Panicked(JoinError),
}

/// The tasks that accept on a shard, or in a pool. They end with it if it is given up before they have; when one of them
/// dies the others go on.
struct Accepting(Vec<JoinHandle<Result<(), Died>>>);

impl Accepting {
    /// Waits for every task, or for the first that dies.
    async fn ended(mut self) -> Result<(), Died> {
        let ended = std::future::poll_fn(|context| poll_all_ended(&mut self.0, context)).await;
        self.0.clear();
        ended
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

pub(super) fn poll_all_ended(
    tasks: &mut Vec<JoinHandle<Result<(), Died>>>,
    context: &mut Context<'_>,
) -> Poll<Result<(), Died>> {
    let mut index = 0;
    while index < tasks.len() {
        let Poll::Ready(ended) = Pin::new(&mut tasks[index]).poll(context) else {
            index += 1;
            continue;
        };
        drop(tasks.swap_remove(index));
        match ended {
            Ok(Err(died)) => return Poll::Ready(Err(died)),
            Err(error) if error.is_panic() => return Poll::Ready(Err(Died::Panicked(error))),
            // Ended, or cut off by the deadline of a shutdown.
            Ok(Ok(())) | Err(_) => {}
        }
    }
    if tasks.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
}

/// What one shard has of a server.
pub(super) struct Station {
    pub(super) sockets: Sockets,
    /// Of all addresses of the server: connections of any may be handed over to this shard.
    pub(super) terms: Vec<Terms>,
    pub(super) settings: Settings,
    pub(super) when_full: WhenFull,
    /// Set if connections may move.
    pub(super) moving: Option<Moving>,
    pub(super) part: Part,
    pub(super) observer: Observer,
}

/// Serves one shard's listeners until the shutdown.
pub(super) async fn serve_shard<M, S, B>(station: Station, make: M) -> Result<(), Died>
where
    M: Fn(&ConnectionInfo) -> S + 'static,
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Station { sockets, terms, settings, when_full, moving, part, observer } = station;
    let (roster, door) = (Arc::new(Roster::default()), Door::new(when_full, &observer));
    let serving =
        Rc::new(Serving { make, settings, roster: roster.clone(), observer: observer.clone() });
    let crew = moving.map(|moving| {
        let serving = serving.clone();
        Crew::muster(moving, part.seats.clone(), move |arrival: Arrival, crew: &Rc<Crew>| {
            let moves = Movable::new(&arrival, crew);
            drop(crate::spawn_local(serving.connection(arrival.opened(), Executor, moves)));
        })
    });
    let of_tcp = serving.clone();
    let go_on = Rc::new(move |arrival: Arrival| match &crew {
        Some(crew) => crew.take(arrival),
        None => drop(crate::spawn_local(of_tcp.connection(arrival.opened(), Executor, stays))),
    });
    let (of_tcp, of_door) = (serving.clone(), door.clone());
    let serve = Rc::new(move |(arrival, before): (Arrival, Preliminaries)| {
        if arrival.is_too_many() {
            let rest = of_door.turn_away(arrival.stream, before.is_nothing());
            return drop(rest.map(crate::spawn_local));
        }
        if before.is_nothing() {
            return go_on(arrival);
        }
        let (serving, go_on) = (of_tcp.clone(), go_on.clone());
        drop(crate::spawn_local(begin(serving, arrival, before, Executor, move |arrival| {
            go_on(arrival);
        })));
    });
    let handed = serve.clone();
    let take_over = move |stream: TcpStream, listener: usize, counted| {
        // One without a peer has been reset on the way.
        let Ok(peer) = stream.peer_addr() else { return };
        handed(terms[listener].accepted(stream, listener, Peer::Tcp(peer), Some(counted)));
    };
    let (seat, spreads) = part.begin(take_over);
    let accept = |(listener, mut spread): (Listening, Spread)| {
        let serve = serve.clone();
        let number = listener.number;
        let serve = move |stream, peer, terms: &Terms| {
            if let Some((stream, counted)) = spread.place(stream) {
                serve(terms.accepted(stream, number, Peer::Tcp(peer), Some(counted)));
            }
        };
        crate::spawn_local(accept_tcp(listener, serve, observer.clone()))
    };
    let accept_shared = |listener: shared::Listening| {
        let (serving, seat, door) = (serving.clone(), seat.clone(), door.clone());
        let (number, observer) = (listener.number, observer.clone());
        let counted = move || Some(Counted::new(&seat));
        match listener.socket {
            Handed::Tcp(socket) => {
                let serve = move |stream: TcpStream, peer, terms: &Terms| {
                    let new = terms.accepted(stream, number, Peer::Tcp(peer), counted());
                    serving.spawn_local(new, &door);
                };
                let socket = || TcpListener::from_std(socket);
                crate::spawn_local(accept_shared(socket, listener.queue, serve, observer))
            }
            Handed::Unix(socket) => {
                let serve = move |stream: UnixStream, _, terms: &Terms| {
                    let peer = Peer::of_unix(&stream);
                    serving.spawn_local(terms.accepted(stream, number, peer, counted()), &door);
                };
                let socket = || UnixListener::from_std(socket);
                crate::spawn_local(accept_shared(socket, listener.queue, serve, observer))
            }
        }
    };
    let mut tasks: Vec<_> = sockets.tcp.into_iter().zip(spreads).map(accept).collect();
    tasks.extend(sockets.shared.into_iter().map(accept_shared));
    let tasks = Accepting(tasks);
    drop(crate::spawn_local(roster.clone().go_round()));
    // On its own, because the connections must be told even if every listener has died before.
    drop(crate::spawn_local(async move {
        shutdown_requested().await;
        seat.close();
        roster.drain();
    }));
    tasks.ended().await
}

/// What connections of a shard, or of a pool, need.
#[derive(Clone)]
struct Serving<M> {
    make: M,
    settings: Settings,
    roster: Arc<Roster>,
    observer: Observer,
}

/// A connection that stays where it is.
fn stays(_: &Arc<Probe>) -> Stays {
    Stays
}

impl<M> Serving<M> {
    /// The task of a connection that HTTP is spoken on from now on.
    fn connection<I, S, B, E, V>(
        &self,
        arrival: Arrival<I>,
        executor: E,
        moves: impl FnOnce(&Arc<Probe>) -> V,
    ) -> Connection<Http<I, S, E>, V>
    where
        I: Stream,
        M: Fn(&ConnectionInfo) -> S,
        S: Service<Request<Body>, Response = Response<B>> + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        E: Clone + Unpin,
        Paced<E>: Http2ServerConnExec<Asked<S::Future>, Pieces<B>>,
    {
        let service = (self.make)(&arrival.info);
        connection(arrival, service, &self.settings, &self.roster, executor, moves)
    }
}

impl<M> Serving<M> {
    /// Serves a connection here that stays here.
    fn spawn_local<T, S, B>(
        self: &Rc<Self>,
        (arrival, before): (Arrival<T>, Preliminaries),
        door: &Arc<Door>,
    ) where
        T: Socket,
        M: Fn(&ConnectionInfo) -> S + 'static,
        S: Service<Request<Body>, Response = Response<B>> + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if arrival.is_too_many() {
            let rest = door.turn_away(arrival.stream, before.is_nothing());
            return drop(rest.map(crate::spawn_local));
        }
        let serving = self.clone();
        let go_on = move |arrival: Arrival<T>| {
            drop(crate::spawn_local(serving.connection(arrival.opened(), Executor, stays)));
        };
        if before.is_nothing() {
            return go_on(arrival);
        }
        drop(crate::spawn_local(begin(self.clone(), arrival, before, Executor, go_on)));
    }
}

/// The task of a connection that something comes before HTTP on. One that is not encrypted is given away after it.
async fn begin<T, M, S, B, E>(
    serving: impl Borrow<Serving<M>>,
    arrival: Arrival<T>,
    before: Preliminaries,
    executor: E,
    go_on: impl FnOnce(Arrival<T>),
) where
    T: Socket,
    M: Fn(&ConnectionInfo) -> S,
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: Clone + Unpin,
    Paced<E>: Http2ServerConnExec<Asked<S::Future>, Pieces<B>>,
{
    // Taken here, for what is borrowed would have to be shared between the threads of a pool.
    let observer = serving.borrow().observer.clone();
    let connection = match before.run(arrival, &observer).await {
        None => return,
        Some(Begun::Plain(arrival)) => return go_on(arrival),
        Some(Begun::Secure(arrival)) => serving.borrow().connection(arrival, executor, stays),
    };
    drop(serving);
    connection.await;
}

/// Serves all listeners of a pool until the shutdown. Runs on one worker; what it spawns, any worker runs.
pub(super) async fn serve_pool<M, S, B>(
    sockets: Sockets,
    make: M,
    settings: Settings,
    capacity: Capacity,
    observer: Observer,
) -> Result<(), Died>
where
    M: Fn(&ConnectionInfo) -> S + Clone + Send + 'static,
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let roster = Arc::new(Roster::default());
    let serving = Serving { make, settings, roster: roster.clone(), observer: observer.clone() };
    let door = Door::new(capacity.when_full, &observer);
    // One for all workers.
    let seat = Seat::new(ShardId::new(0), 0, capacity.bounds_of_pool());
    let accept = |listener: Listening| {
        let (serving, number) = (serving.clone(), listener.number);
        let (door, seat) = (door.clone(), seat.clone());
        let serve = move |stream, peer, terms: &Terms| {
            let counted = Some(Counted::new(&seat));
            serving.spawn(terms.accepted(stream, number, Peer::Tcp(peer), counted), &door);
        };
        crate::spawn(accept_tcp(listener, serve, observer.clone()))
    };
    let accept_shared = |listener: shared::Listening| {
        let (serving, door, seat) = (serving.clone(), door.clone(), seat.clone());
        let (number, observer) = (listener.number, observer.clone());
        let counted = move || Some(Counted::new(&seat));
        match listener.socket {
            Handed::Tcp(socket) => {
                let serve = move |stream: TcpStream, peer, terms: &Terms| {
                    let new = terms.accepted(stream, number, Peer::Tcp(peer), counted());
                    serving.spawn(new, &door);
                };
                let socket = || TcpListener::from_std(socket);
                crate::spawn(accept_shared(socket, listener.queue, serve, observer))
            }
            Handed::Unix(socket) => {
                let serve = move |stream: UnixStream, _, terms: &Terms| {
                    let peer = Peer::of_unix(&stream);
                    serving.spawn(terms.accepted(stream, number, peer, counted()), &door);
                };
                let socket = || UnixListener::from_std(socket);
                crate::spawn(accept_shared(socket, listener.queue, serve, observer))
            }
        }
    };
    let mut tasks: Vec<_> = sockets.tcp.into_iter().map(accept).collect();
    tasks.extend(sockets.shared.into_iter().map(accept_shared));
    let tasks = Accepting(tasks);
    drop(crate::spawn(roster.clone().go_round()));
    drop(crate::spawn(async move {
        shutdown_requested().await;
        roster.drain();
    }));
    tasks.ended().await
}

impl<M> Serving<M> {
    /// Has any worker of the pool serve a connection.
    fn spawn<T, S, B>(&self, (arrival, before): (Arrival<T>, Preliminaries), door: &Arc<Door>)
    where
        T: Socket,
        M: Fn(&ConnectionInfo) -> S + Clone + Send + 'static,
        S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if arrival.is_too_many() {
            let rest = door.turn_away(arrival.stream, before.is_nothing());
            return drop(rest.map(crate::spawn));
        }
        if before.is_nothing() {
            drop(crate::spawn(self.connection(arrival.opened(), Anywhere, stays)));
            return;
        }
        let serving = self.clone();
        let go_on = move |arrival: Arrival<T>| {
            drop(crate::spawn(serving.connection(arrival.opened(), Anywhere, stays)));
        };
        drop(crate::spawn(begin(self.clone(), arrival, before, Anywhere, go_on)));
    }
}

/// Accepts from one TCP listener until the shutdown, and has each connection served.
async fn accept_tcp(
    Listening { socket, backlog, terms, place, .. }: Listening,
    mut serve: impl FnMut(TcpStream, SocketAddr, &Terms),
    observer: Observer,
) -> Result<(), Died> {
    let died = |error| Died::Listener(NO_ADDRESS.into(), error);
    let listener = TcpListener::from_std(socket).map_err(died)?;
    let address = listener.local_addr().map_err(died)?;
    let mut acceptor = Acceptor::new(listener);
    let mut serve = move |stream, peer| caught(|| serve(stream, peer, &terms));
    if let Err(error) = place.arrive() {
        observer(Event::NotSteered { address, error });
    }
    let stop = place.until_close();
    accept_until(stop, &mut acceptor, &mut serve, &address.into(), &observer).await?;
    // As many as can have been waiting: those who come meanwhile must not keep it.
    acceptor.drain().take(backlog as usize + 1).for_each(|(stream, peer)| serve(stream, peer));
    Ok(())
}

/// What [`accept_tcp`] does, of a socket that other shards accept from too.
async fn accept_shared<L: Listener<Stream: AsFd>>(
    listener: impl FnOnce() -> io::Result<L>,
    Queue { backlog, send_buffer, terms, place }: Queue,
    mut serve: impl FnMut(L::Stream, L::Addr, &Terms),
    observer: Observer,
) -> Result<(), Died> {
    let address = place.address().clone();
    let listener = listener().map_err(|error| Died::Listener(address.clone(), error))?;
    let mut acceptor = Acceptor::new(listener);
    let mut serve = move |stream: L::Stream, peer| {
        if let Some(bytes) = send_buffer {
            // One that is closed already needs none.
            let _ = set_send_buffer_size(&stream, bytes);
        }
        caught(|| serve(stream, peer, &terms));
    };
    accept_until(place.until_close(), &mut acceptor, &mut serve, &address, &observer).await?;
    place.stop();
    acceptor.drain().take(backlog as usize + 1).for_each(|(stream, peer)| serve(stream, peer));
    // The socket lives on in the others' hands, and would go on waking this shard.
    acceptor.into_inner().leave();
    Ok(())
}

/// Where a listener is that cannot say it.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A service that cannot be made for a panic loses that connection, not the listener.
fn caught(serve: impl FnOnce()) {
    with_current(|shard| shard.run_caught(serve));
}

/// Accepts until `stop` says so.
async fn accept_until<L: Listener>(
    stop: impl Future<Output = ()>,
    acceptor: &mut Acceptor<L>,
    serve: &mut impl FnMut(L::Stream, L::Addr),
    address: &ListenAddr,
    observer: &Observer,
) -> Result<(), Died> {
    let mut stop = pin!(stop);
    loop {
        let accepted = {
            let mut accept = pin!(acceptor.accept());
            std::future::poll_fn(|context| first(stop.as_mut(), accept.as_mut(), context)).await
        };
        match accepted {
            None => return Ok(()),
            Some(Ok(Accepted::Connection(stream, peer))) => serve(stream, peer),
            Some(Ok(Accepted::Lost(error))) => {
                observer(Event::AcceptLost { shard: this_shard(), error });
            }
            Some(Ok(Accepted::Paused { error, pause, turned_away })) => {
                observer(Event::AcceptPaused { shard: this_shard(), error, pause, turned_away });
            }
            Some(Err(error)) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                let (shard, address) = (this_shard(), address.clone());
                observer(Event::ListenerDied { shard, address: address.clone(), error: copy });
                return Err(Died::Listener(address, error));
            }
        }
    }
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
