//! From a connection that has come to its task: it is turned away, or served, at once or after what comes before HTTP.
//!
//! A shard has one of these, which lives and is used there; in a pool each task that accepts has one.

use super::Body;
use super::arrival::Arrival;
use super::capacity::Door;
use super::connection::{Connection, Stays, connection};
use super::event::{ConnectionInfo, Observer};
use super::preliminary::{Begun, Preliminaries};
use super::probe::Probe;
use super::protocol::{Anywhere, Http, Settings};
use super::roster::Roster;
use super::secure::Socket;
use super::streams::{Asked, Paced, Pieces};
use super::transport::Stream;
use crate::http::Executor;
use crate::limits::WhenFull;
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::service::Service;
use hyper::{Request, Response};
use std::borrow::Borrow;
use std::rc::Rc;
use std::sync::Arc;

/// See the module.
#[derive(Clone)]
pub(super) struct Serving<M> {
    make: M,
    settings: Settings,
    pub(super) roster: Arc<Roster>,
    observer: Observer,
    door: Arc<Door>,
}

/// A connection that stays where it is.
pub(super) fn stays(_: &Arc<Probe>) -> Stays {
    Stays
}

impl<M> Serving<M> {
    pub(super) fn new(
        make: M,
        settings: Settings,
        when_full: WhenFull,
        observer: &Observer,
    ) -> Serving<M> {
        let (roster, door) = (Arc::default(), Door::new(when_full, observer));
        Serving { make, settings, roster, observer: observer.clone(), door }
    }

    /// The task of a connection that HTTP is spoken on from now on.
    pub(super) fn connection<I, S, B, E, V>(
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

    /// Serves a connection here, by `go_on` as soon as HTTP is to be spoken on it, and by itself if it is encrypted.
    pub(super) fn take<T, S, B>(
        self: &Rc<Self>,
        (arrival, before): (Arrival<T>, Preliminaries),
        go_on: impl FnOnce(Arrival<T>) + 'static,
    ) where
        T: Socket,
        M: Fn(&ConnectionInfo) -> S + 'static,
        S: Service<Request<Body>, Response = Response<B>> + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if arrival.is_too_many() {
            let rest = self.door.turn_away(arrival.stream, before.is_nothing());
            return drop(rest.map(crate::spawn_local));
        }
        if before.is_nothing() {
            return go_on(arrival);
        }
        drop(crate::spawn_local(begin(self.clone(), arrival, before, Executor, go_on)));
    }

    /// Serves a connection here that does not move.
    pub(super) fn stay<T, S, B>(self: &Rc<Self>, new: (Arrival<T>, Preliminaries))
    where
        T: Socket,
        M: Fn(&ConnectionInfo) -> S + 'static,
        S: Service<Request<Body>, Response = Response<B>> + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: hyper::body::Body + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let serving = self.clone();
        self.take(new, move |arrival| {
            drop(crate::spawn_local(serving.connection(arrival.opened(), Executor, stays)));
        });
    }

    /// Has any worker of the pool serve a connection.
    pub(super) fn spawn<T, S, B>(&self, (arrival, before): (Arrival<T>, Preliminaries))
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
            let rest = self.door.turn_away(arrival.stream, before.is_nothing());
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
