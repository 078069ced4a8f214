//! One connection: from accept to close, on one shard, as one task.

use super::drain::Drain;
use super::spread::Counted;
use crate::http::{Io, Timer};
use crate::net::TcpStream;
use crate::shard::context::with_current;
use crate::task::home::add;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What the connections of a server are held to.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) header_timeout: Option<Duration>,
    pub(super) vectored_writes: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { header_timeout: Some(Duration::from_secs(30)), vectored_writes: false }
    }
}

/// The task of a new connection.
pub(super) fn connection<S, B>(
    stream: TcpStream,
    service: S,
    settings: &Settings,
    drain: &Arc<Drain>,
    counted: Option<Counted>,
) -> Connection<http1::UpgradeableConnection<Io<TcpStream>, S>>
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut http = http1::Builder::new();
    http.timer(Timer).header_read_timeout(settings.header_timeout).writev(settings.vectored_writes);
    let http = http.serve_connection(Io::new(stream), service).with_upgrades();
    Connection { http, open: Open::new(drain.clone(), counted), told: false }
}

pin_project_lite::pin_project! {
    /// hyper's connection, which ends early when the shard drains.
    pub(super) struct Connection<C> {
        #[pin]
        http: C,
        open: Open,
        told: bool,
    }
}

/// A connection that can be asked to end after the request at hand.
pub(super) trait Graceful: Future {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<S, B> Graceful for http1::UpgradeableConnection<Io<TcpStream>, S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Io<TcpStream>: Send + 'static,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        http1::UpgradeableConnection::graceful_shutdown(self);
    }
}

impl<C: Graceful> Future for Connection<C> {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        this.open.join(context);
        // An error is the peer's doing: a reset, a timeout, something that is not HTTP, which hyper has answered.
        if this.http.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // After the poll: a request that is already in the socket is answered before the connection ends.
        if this.open.drain.has_begun() && !std::mem::replace(this.told, true) {
            this.http.as_mut().graceful_shutdown();
            return this.http.poll(context).map(drop);
        }
        Poll::Pending
    }
}

/// An open connection, counted and known to the drain.
struct Open {
    drain: Arc<Drain>,
    number: Option<u32>,
    _counted: Option<Counted>,
}

impl Open {
    fn new(drain: Arc<Drain>, counted: Option<Counted>) -> Open {
        with_current(|shard| add(&shard.counters.connections, 1));
        Open { drain, number: None, _counted: counted }
    }

    #[inline(always)]
    fn join(&mut self, context: &Context<'_>) {
        if self.number.is_none() {
            self.number = Some(self.drain.join(context.waker()));
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        with_current(|shard| add(&shard.counters.connections, u64::MAX));
        if let Some(number) = self.number {
            self.drain.leave(number);
        }
    }
}
