//! A connection that can be taken apart between two requests, and put together again on another shard.
//!
//! hyper does not say when a connection is between two requests, but it can be seen from around it: no request is in the
//! service and no response on its way, what was written was flushed, hyper has not begun to close, and the last request had no
//! body that could still be under way. Then hyper's state is nothing but bytes that were read and not used, which [`Parts`]
//! has.
//!
//! The pieces around hyper share a [`Probe`], which never leaves its thread. Only what the transport writes to is atomic, because
//! hyper wants a transport to be `Send`.

use super::arrival::Arrival;
use super::connection::{Graceful, Open, Settings, http1};
use super::crew::Crew;
use super::drain::Drain;
use super::event::ConnectionInfo;
use crate::http::Io;
use crate::id::ShardId;
use crate::net::TcpStream;
use crate::shard::context::with_current;
use crate::sync::{AtomicBool, Ordering};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1::{Parts, UpgradeableConnection};
use hyper::service::Service;
use hyper::{Request, Response};
use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// What is seen of a connection from around hyper.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// Requests that came, and responses that are done with.
    begun: Cell<u64>,
    ended: Cell<u64>,
    /// The last request had a body.
    has_body: Cell<bool>,
    outgoing: Arc<Outgoing>,
    /// The shard it is to go to.
    wanted: Cell<Option<ShardId>>,
}

/// What the transport has been asked to send.
#[derive(Debug, Default)]
struct Outgoing {
    /// Something was written since the last flush.
    unflushed: AtomicBool,
    /// hyper closes the connection: there is no other request, whatever was read.
    closes: AtomicBool,
}

impl Probe {
    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.begun.get()
    }

    /// Has it go to another shard as soon as it is between two requests.
    pub(super) fn send_to(&self, shard: ShardId) {
        self.wanted.set(Some(shard));
    }

    /// Whether it is between two requests. To be asked when hyper has nothing to do.
    fn is_between_requests(&self) -> bool {
        self.begun.get() == self.ended.get()
            && !self.has_body.get()
            && !self.outgoing.unflushed.load(Ordering::Relaxed)
            && !self.outgoing.closes.load(Ordering::Relaxed)
    }
}

/// The socket under hyper, with the bytes that were read before it came here.
pub(super) struct Transport {
    io: Io<TcpStream>,
    before: Bytes,
    outgoing: Arc<Outgoing>,
}

impl Read for Transport {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let count = self.before.len().min(buffer.remaining());
            buffer.put_slice(&self.before.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Transport {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outgoing.unflushed.store(true, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.outgoing.unflushed.store(true, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write_vectored(context, bufs)
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.outgoing.unflushed.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.closes.store(true, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// A service whose requests are counted.
pub(super) struct Counted<S> {
    service: S,
    probe: Rc<Probe>,
}

/// It is never pinned by itself, and hands out no pinned reference to what it holds.
impl<S> Unpin for Counted<S> {}

impl<S, B> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedCall<S::Future>;

    #[inline]
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.probe.begun.set(self.probe.begun.get() + 1);
        self.probe.has_body.set(!request.body().is_end_stream());
        CountedCall { call: self.service.call(request), probe: Some(self.probe.clone()) }
    }
}

pin_project_lite::pin_project! {
    /// A request in the service.
    pub(super) struct CountedCall<F> {
        #[pin]
        call: F,
        probe: Option<Rc<Probe>>,
    }
}

impl<F, B, E> Future for CountedCall<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.call.poll(context))?;
        let ended = Ended(this.probe.take().expect("it is ready once"));
        Poll::Ready(Ok(response.map(|body| CountedBody { body, ended })))
    }
}

/// Counts a response when it is done with.
struct Ended(Rc<Probe>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended.set(self.0.ended.get() + 1);
    }
}

pin_project_lite::pin_project! {
    /// A response on its way. hyper drops it when the last of it is in hyper's own buffer.
    pub(super) struct CountedBody<B> {
        #[pin]
        body: B,
        ended: Ended,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().body.poll_frame(context)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is left of a connection that was taken apart: the socket, and what was read from it and not used.
pub(super) struct Between {
    io: Io<TcpStream>,
    read: Bytes,
}

/// A connection that can be taken apart between two requests.
pub(super) trait Divisible: Graceful + Unpin {
    /// None: it was upgraded meanwhile.
    fn take_apart(self) -> Option<Between>;
}

impl<S, B> Divisible for UpgradeableConnection<Transport, Counted<S>>
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn take_apart(self) -> Option<Between> {
        let Parts { io: Transport { io, before, .. }, read_buf, .. } = self.into_parts()?;
        // If it came from another shard, hyper may not have read yet all that came along.
        let read = if before.is_empty() { read_buf } else { [read_buf, before].concat().into() };
        Some(Between { io, read })
    }
}

/// A connection on its way from accept to close, or to another shard.
pub(super) struct Movable<C> {
    /// None when it has gone to another shard.
    http: Option<C>,
    probe: Rc<Probe>,
    info: ConnectionInfo,
    header_timeout: Option<Duration>,
    crew: Rc<Crew>,
    member: u32,
    open: Open,
    told: bool,
}

/// The task of a connection that arrives here.
pub(super) fn movable<S, B>(
    arrival: Arrival,
    service: S,
    settings: &Settings,
    drain: &Arc<Drain>,
    crew: &Rc<Crew>,
) -> Movable<UpgradeableConnection<Transport, Counted<S>>>
where
    S: Service<Request<Incoming>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Arrival { stream, read, info, header_timeout, counted, moved } = arrival;
    let probe = Rc::new(Probe::default());
    let outgoing = probe.outgoing.clone();
    let transport = Transport { io: Io::of_server(stream, counted), before: read, outgoing };
    let service = Counted { service, probe: probe.clone() };
    let http = http1(header_timeout, settings).serve_connection(transport, service).with_upgrades();
    let member = crew.join(probe.clone(), info.listener, moved);
    let (crew, open) = (crew.clone(), Open::new(drain.clone()));
    Movable { http: Some(http), probe, info, header_timeout, crew, member, open, told: false }
}

impl<C: Divisible> Movable<C> {
    /// Between two requests: goes to another shard, unless something that was written has not been sent.
    #[cold]
    fn go(&mut self, to: ShardId, context: &mut Context<'_>) {
        with_current(|shard| shard.reactor.send_gathered());
        let Some(Between { mut io, read }) = self.http.take().and_then(C::take_apart) else {
            return;
        };
        let (counted, stream) = (io.take_counted(), io.into_inner());
        let sent = stream.source().poll_all_sent(context);
        let (info, header_timeout) = (self.info, self.header_timeout);
        let arrival = Arrival { stream, read, info, header_timeout, counted, moved: true };
        match sent {
            Poll::Ready(Ok(())) => self.crew.send(to, arrival),
            // The kernel has no room, or the peer has gone: it goes on here.
            Poll::Pending | Poll::Ready(Err(_)) => self.crew.take(arrival),
        }
    }
}

impl<C: Divisible> Future for Movable<C> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.open.join(context);
        let Some(http) = &mut this.http else { return Poll::Ready(()) };
        // An error is the peer's doing, as in a connection that stays.
        if Pin::new(&mut *http).poll(context).is_ready() {
            return Poll::Ready(());
        }
        // After the poll: a request that is already in the socket is answered before the connection ends.
        if this.open.must_end() {
            if std::mem::replace(&mut this.told, true) {
                return Poll::Pending;
            }
            Pin::new(&mut *http).graceful_shutdown();
            return Pin::new(http).poll(context).map(drop);
        }
        if let Some(to) = this.probe.wanted.get()
            && this.probe.is_between_requests()
        {
            this.go(to, context);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl<C> Drop for Movable<C> {
    fn drop(&mut self) {
        self.crew.leave(self.member);
    }
}
