//! The tasks that accept, on each shard of a server or in a pool.

use super::Body;
use super::arrival::Arrival;
use super::capacity::Capacity;
use super::crew::Crew;
use super::event::{ConnectionInfo, Event, Observer, Peer};
use super::listen::{Listening, Sockets};
use super::movable::Movable;
use super::preliminary::Preliminaries;
use super::protocol::Settings;
use super::rebalance::Moving;
use super::serving::{Serving, stays};
use super::shared::{self, Queue};
use super::spread::{Part, Spread};
use super::terms::Terms;
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
use hyper::service::Service;
use hyper::{Request, Response};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
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
    let serving = Rc::new(Serving::new(make, settings, when_full, &observer));
    let roster = serving.roster.clone();
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
    let of_tcp = serving.clone();
    let serve = Rc::new(move |new: (Arrival, Preliminaries)| {
        let go_on = go_on.clone();
        of_tcp.take(new, move |arrival| go_on(arrival));
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
        let number = listener.number;
        let new = (serving.clone(), seat.clone());
        let tcp = {
            let (serving, seat) = new.clone();
            move |stream: TcpStream, peer, terms: &Terms| {
                let counted = Some(Counted::new(&seat));
                serving.stay(terms.accepted(stream, number, peer, counted));
            }
        };
        let (serving, seat) = new;
        let unix = move |stream: UnixStream, peer, terms: &Terms| {
            let counted = Some(Counted::new(&seat));
            serving.stay(terms.accepted(stream, number, peer, counted));
        };
        crate::spawn_local(accept_handed(listener, tcp, unix, observer.clone()))
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
    let serving = Serving::new(make, settings, capacity.when_full, &observer);
    let roster = serving.roster.clone();
    // One for all workers.
    let seat = Seat::new(ShardId::new(0), 0, capacity.bounds_of_pool());
    let accept = |listener: Listening| {
        let (serving, seat, number) = (serving.clone(), seat.clone(), listener.number);
        let serve = move |stream, peer, terms: &Terms| {
            let counted = Some(Counted::new(&seat));
            serving.spawn(terms.accepted(stream, number, Peer::Tcp(peer), counted));
        };
        crate::spawn(accept_tcp(listener, serve, observer.clone()))
    };
    let accept_shared = |listener: shared::Listening| {
        let number = listener.number;
        let new = (serving.clone(), seat.clone());
        let tcp = {
            let (serving, seat) = new.clone();
            move |stream: TcpStream, peer, terms: &Terms| {
                let counted = Some(Counted::new(&seat));
                serving.spawn(terms.accepted(stream, number, peer, counted));
            }
        };
        let (serving, seat) = new;
        let unix = move |stream: UnixStream, peer, terms: &Terms| {
            let counted = Some(Counted::new(&seat));
            serving.spawn(terms.accepted(stream, number, peer, counted));
        };
        crate::spawn(accept_handed(listener, tcp, unix, observer.clone()))
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

/// What [`accept_tcp`] does, of a socket of either kind that other shards accept from too.
async fn accept_handed(
    shared::Listening { socket, queue, .. }: shared::Listening,
    mut tcp: impl FnMut(TcpStream, Peer, &Terms),
    mut unix: impl FnMut(UnixStream, Peer, &Terms),
    observer: Observer,
) -> Result<(), Died> {
    match socket {
        Handed::Tcp(socket) => {
            let serve = move |stream, peer, terms: &Terms| tcp(stream, Peer::Tcp(peer), terms);
            accept_shared(TcpListener::from_std(socket), queue, serve, observer).await
        }
        Handed::Unix(socket) => {
            let serve = move |stream: UnixStream, _, terms: &Terms| {
                let peer = Peer::of_unix(&stream);
                unix(stream, peer, terms);
            };
            accept_shared(UnixListener::from_std(socket), queue, serve, observer).await
        }
    }
}

/// The same, of one kind.
async fn accept_shared<L: Listener<Stream: AsFd>>(
    listener: io::Result<L>,
    Queue { backlog, send_buffer, terms, place }: Queue,
    mut serve: impl FnMut(L::Stream, L::Addr, &Terms),
    observer: Observer,
) -> Result<(), Died> {
    let address = place.address().clone();
    let listener = listener.map_err(|error| Died::Listener(address.clone(), error))?;
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
