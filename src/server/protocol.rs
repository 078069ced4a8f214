//! hyper's connection, in the version of HTTP that the client speaks: HTTP/1 until the first bytes are those of HTTP/2.

use super::Body;
use super::access_log::AccessLog;
use super::guard::Guarded;
use super::streams::{Asked, Paced, Pieces, Streams, streams};
use super::transport::{PREFACE, Stream, Transport};
use crate::http::Timer;
use crate::limits::{ConnectionLimits, HTTP1_BUFFER_BYTES};
use hyper::body::{Bytes, Incoming};
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::server::conn::http1::{self, Parts, UpgradeableConnection};
use hyper::server::conn::http2;
use hyper::service::{HttpService, Service};
use hyper::{Request, Response};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What a server's connections have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) vectored_writes: bool,
    pub(super) access_log: Option<AccessLog>,
}

/// What a client may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    /// Agreed on before.
    Http2,
    /// Its first bytes tell.
    Either,
}

impl Speaks {
    /// What is known once these bytes have come.
    pub(super) fn after(self, read: &[u8]) -> Speaks {
        let same = read.len().min(PREFACE.len());
        match self {
            Speaks::Either if read[..same] != PREFACE[..same] => Speaks::Http1,
            Speaks::Either if same == PREFACE.len() => Speaks::Http2,
            speaks => speaks,
        }
    }
}

/// hyper's executor in a pool: any worker runs what it is given, such as a stream of HTTP/2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anywhere;

impl<F> hyper::rt::Executor<F> for Anywhere
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(crate::spawn(future));
    }
}

/// Bytes of requests' bodies that may be there and not read: of one stream of HTTP/2, and of all of a connection. One that is
/// not read leaves room for the others.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Bytes of answers that one stream of HTTP/2 may hold until they are sent.
const STREAM_SEND_BUFFER: usize = 64 << 10;

fn http1(limits: &ConnectionLimits, vectored_writes: bool) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(Timer)
        // Others look whether the client is late: see `late`.
        .header_read_timeout(None)
        // Who has sent a request and shut down its own half is answered.
        .half_close(true)
        .max_headers(limits.header_count as usize)
        .max_header_size(limits.header_bytes as usize)
        // A head has to fit as well.
        .max_buf_size(HTTP1_BUFFER_BYTES.max(2 * limits.header_bytes as usize))
        .writev(vectored_writes);
    http
}

fn http2<E: Clone>(limits: &ConnectionLimits, executor: &E) -> http2::Builder<E> {
    let mut http = http2::Builder::new(executor.clone());
    http.timer(Timer)
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(limits.header_bytes)
        .max_send_buf_size(STREAM_SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    http
}

/// A connection that HTTP is spoken on.
pub(super) trait Speak: Unpin {
    /// The stream under it.
    type Stream;

    /// Ready when it is over. An error is the peer's doing: a reset, something that is not HTTP, which hyper has answered.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Has it end after the request at hand.
    fn end_gracefully(&mut self);

    /// The client has begun as HTTP/2 does: that is spoken from now on.
    fn speak_http2(&mut self);

    /// Whether something was read and not used. It begins anew with that, which it may only between two requests.
    fn has_begun(&mut self) -> bool;

    /// The stream, and what was read from it and not used. None: it was upgraded, or speaks HTTP/2.
    fn into_stream(self) -> Option<(Self::Stream, Bytes)>;
}

/// See the module.
pub(super) struct Http<I, S, E>
where
    Guarded<S>: HttpService<Incoming>,
    Streams<S>: HttpService<Incoming>,
{
    version: Version<I, S, E>,
    executor: E,
    vectored: bool,
}

// Nearly every connection is of the large kind.
#[allow(clippy::large_enum_variant)]
enum Version<I, S, E>
where
    Guarded<S>: HttpService<Incoming>,
    Streams<S>: HttpService<Incoming>,
{
    One(UpgradeableConnection<Transport<I>, Guarded<S>>),
    // By itself, because it is far larger, and rare.
    Two(Box<http2::Connection<Transport<I>, Streams<S>, Paced<E>>>),
    /// It was upgraded.
    Gone,
}

impl<I, S, B, E> Http<I, S, E>
where
    I: Stream,
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: Clone + Unpin,
    Paced<E>: Http2ServerConnExec<Asked<S::Future>, Pieces<B>>,
{
    /// Begins with HTTP/1, unless HTTP/2 was agreed on.
    pub(super) fn new(
        transport: Transport<I>,
        service: Guarded<S>,
        settings: &Settings,
        executor: E,
        speaks: Speaks,
    ) -> Self {
        // What stands in for a file must not be copied.
        let vectored = settings.vectored_writes || service.probe.outgoing().is_some();
        let version = match speaks {
            Speaks::Http1 | Speaks::Either => Version::one(transport, service, vectored),
            Speaks::Http2 => Version::two(transport, service, executor.clone()),
        };
        Http { version, executor, vectored }
    }
}

impl<I, S, B, E> Version<I, S, E>
where
    I: Stream,
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: Clone + Unpin,
    Paced<E>: Http2ServerConnExec<Asked<S::Future>, Pieces<B>>,
{
    fn one(transport: Transport<I>, service: Guarded<S>, vectored: bool) -> Self {
        let http = http1(&service.limits, vectored).serve_connection(transport, service);
        Version::One(http.with_upgrades())
    }

    fn two(mut transport: Transport<I>, service: Guarded<S>, executor: E) -> Self {
        service.probe.multiplex();
        transport.see_frames(service.limits.http2_control_frames);
        let limits = service.limits.clone();
        let (service, executor) = streams(service, executor);
        let http = http2(&limits, &executor);
        Version::Two(Box::new(http.serve_connection(transport, service)))
    }
}

impl<I, S, B, E> Speak for Http<I, S, E>
where
    I: Stream,
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: Clone + Unpin,
    Paced<E>: Http2ServerConnExec<Asked<S::Future>, Pieces<B>>,
{
    type Stream = I;

    #[inline]
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.version {
            Version::One(http) => Pin::new(http).poll(context).map(drop),
            Version::Two(http) => Pin::new(http).poll(context).map(drop),
            Version::Gone => Poll::Ready(()),
        }
    }

    fn end_gracefully(&mut self) {
        match &mut self.version {
            Version::One(http) => Pin::new(http).graceful_shutdown(),
            Version::Two(http) => Pin::new(&mut **http).graceful_shutdown(),
            Version::Gone => {}
        }
    }

    fn speak_http2(&mut self) {
        let version = std::mem::replace(&mut self.version, Version::Gone);
        let Version::One(http) = version else {
            self.version = version;
            return;
        };
        let Some(Parts { mut io, read_buf, service, .. }) = http.into_parts() else { return };
        io.put_back(read_buf);
        self.version = Version::two(io, service, self.executor.clone());
    }

    fn has_begun(&mut self) -> bool {
        let version = std::mem::replace(&mut self.version, Version::Gone);
        let Version::One(http) = version else {
            self.version = version;
            return false;
        };
        let Some(Parts { mut io, read_buf, service, .. }) = http.into_parts() else { return false };
        let has_begun = !read_buf.is_empty();
        io.put_back(read_buf);
        self.version = Version::one(io, service, self.vectored);
        has_begun
    }

    fn into_stream(self) -> Option<(I, Bytes)> {
        let Version::One(http) = self.version else { return None };
        let Parts { mut io, read_buf, .. } = http.into_parts()?;
        io.put_back(read_buf);
        Some(io.into_parts())
    }
}
