//! One connection: from accept to close, on one shard, as one task.

use super::arrival::Arrival;
use super::drain::Drain;
use crate::http::{Io, Timer, Transport};
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
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) vectored_writes: bool,
}

/// hyper, as every connection has it.
pub(super) fn http1(header_timeout: Option<Duration>, settings: &Settings) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(Timer).header_read_timeout(header_timeout).writev(settings.vectored_writes);
    // A client that has sent all it has to say may still read (RFC 9112, 9.6).
    http.half_close(true);
    http
}

/// The task of a new connection.
pub(super) fn connection<T, S, B>(
    arrival: Arrival<T>,
    service: S,
    settings: &Settings,
    drain: &Arc<Drain>,
) -> Connection<http1::UpgradeableConnection<Io<T>, S>>
where
    T: Transport + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // What was read elsewhere comes only with connections that move, which are of another kind.
    let Arrival { stream, header_timeout, counted, .. } = arrival;
    let http =
        http1(header_timeout, settings).serve_connection(Io::of_server(stream, counted), service);
    let http = http.with_upgrades();
    Connection { http, open: Open::new(drain.clone()), told: false }
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

impl<I, S, B> Graceful for http1::UpgradeableConnection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
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
        if this.open.must_end() && !std::mem::replace(this.told, true) {
            this.http.as_mut().graceful_shutdown();
            return this.http.poll(context).map(drop);
        }
        Poll::Pending
    }
}

/// An open connection, counted and known to the drain.
pub(super) struct Open {
    drain: Arc<Drain>,
    number: Option<u32>,
}

impl Open {
    pub(super) fn new(drain: Arc<Drain>) -> Open {
        with_current(|shard| add(&shard.counters.connections, 1));
        Open { drain, number: None }
    }

    /// Whether the server drains.
    #[inline(always)]
    pub(super) fn must_end(&self) -> bool {
        self.drain.has_begun()
    }

    #[inline(always)]
    pub(super) fn join(&mut self, context: &Context<'_>) {
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
