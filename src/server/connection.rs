//! One connection: from accept to close, or to another shard, as one task.

use super::Body;
use super::access_log::{ConnectionLog, Logging};
use super::arrival::{Arrival, Past};
use super::guard::Guarded;
use super::preliminary::Present;
use super::probe::{End, Probe};
use super::protocol::{Http, Settings, Speak, Speaks};
use super::roster::{Roster, look_every};
use super::streams::{Asked, Paced, Pieces};
use super::transport::{Stream, Transport};
use crate::id::ShardId;
use crate::limits::ConnectionLimits;
use crate::shard::context::with_current;
use crate::time::{Sleep, clock, sleep};
use hyper::body::Bytes;
use hyper::rt::Write as _;
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::service::Service;
use hyper::{Request, Response};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// What becomes of a connection that is to go to another shard.
pub(super) trait Moves<I>: Unpin {
    /// It is between two requests, and nothing but a stream and what was read from it.
    fn go(&self, to: ShardId, stream: I, read: Bytes, past: Past, context: &mut Context<'_>);
}

/// It stays where it is.
pub(super) struct Stays;

impl<I> Moves<I> for Stays {
    fn go(&self, _: ShardId, _: I, _: Bytes, _: Past, _: &mut Context<'_>) {}
}

/// The task of a connection. `moves` is made of what is seen of it.
pub(super) fn connection<I, S, B, E, M>(
    arrival: Arrival<I>,
    service: S,
    settings: &Settings,
    roster: &Arc<Roster>,
    executor: E,
    moves: impl FnOnce(&Arc<Probe>) -> M,
) -> Connection<Http<I, S, E>, M>
where
    I: Stream,
    S: Service<Request<Body>, Response = Response<B>> + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: Clone + Unpin,
    Paced<E>: Http2ServerConnExec<Asked<S::Future>, Pieces<B>>,
{
    let Arrival { stream, read, info, limits, past, speaks, .. } = arrival;
    let probe = Probe::of(past.requests, !read.is_empty());
    let probe = Arc::new(probe.sending_files(limits.send_files && I::SENDS_FILES));
    let speaks = speaks.after(&read);
    let transport = Transport::new(stream, read, speaks == Speaks::Either, probe.clone());
    let moves = moves(&probe);
    let log = settings.access_log.as_ref().map(|log| ConnectionLog::new(log, &info.peer));
    let logging = Logging::new(log.as_ref(), &probe);
    let guarded = Guarded { service, probe: probe.clone(), limits: limits.clone(), log };
    let http = Some(Http::new(transport, guarded, settings, executor, speaks));
    let open = Open::new(roster.clone(), limits, past.began);
    Connection { http, logging, probe, open, ends: false, moves }
}

/// hyper's connection, which ends early when the shard drains or the client is late, and may move.
pub(super) struct Connection<H, M> {
    /// None when it is over.
    http: Option<H>,
    /// After that, so that it knows what has become of it.
    logging: Logging,
    probe: Arc<Probe>,
    open: Open,
    /// It was told to end.
    ends: bool,
    moves: M,
}

/// What a client is told whose request has not come in time (RFC 9110, 15.5.9).
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

impl<H, M> Connection<H, M>
where
    H: Speak<Stream: Stream>,
    M: Moves<H::Stream>,
{
    /// Somebody has said something of it. Ready: it is over, here.
    #[cold]
    fn attend(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.logging.settle();
        let Some(http) = &mut self.http else { return Poll::Ready(()) };
        match self.probe.end_wanted() {
            None => {}
            Some(End::Gracefully) => return self.end(context),
            Some(End::Cut) => {
                self.cut(context);
                return Poll::Ready(());
            }
            Some(End::CutIfBegun) => {
                self.probe.need_not_end(End::CutIfBegun);
                // Between the look and now another request may have come.
                if !self.ends && self.probe.is_between_requests() {
                    if http.has_begun() {
                        self.probe.has_read();
                        self.cut(context);
                        return Poll::Ready(());
                    }
                    // It was made anew, and has to be polled once to be woken by what comes.
                    if http.poll(context).is_ready() {
                        return Poll::Ready(());
                    }
                }
                return if self.probe.wants_attention() {
                    self.attend(context)
                } else {
                    Poll::Pending
                };
            }
            // Its transport has refused to go on, or does when it is dropped.
            Some(End::Reset) => return http.poll(context),
        }
        let Some(to) = self.probe.wanted_at() else { return Poll::Pending };
        if self.ends || !self.probe.is_between_requests() {
            return Poll::Pending;
        }
        with_current(|shard| shard.reactor.send_gathered());
        if let Some((stream, read)) = self.http.take().and_then(H::into_stream) {
            let past = Past { began: self.open.began, requests: self.probe.requests() };
            self.moves.go(to, stream, read, past, context);
        }
        Poll::Ready(())
    }

    /// It is to end after the request at hand.
    #[cold]
    fn end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.http {
            Some(http) if !std::mem::replace(&mut self.ends, true) => {
                self.probe.is_told();
                http.end_gracefully();
                http.poll(context)
            }
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        }
    }

    /// It ends at once. Who has begun to ask is told why, if the system takes it at once.
    fn cut(&mut self, context: &mut Context<'_>) {
        let has_asked = self.probe.has_news() && !self.probe.is_multiplexed();
        let stream = self.http.take().and_then(H::into_stream);
        let Some((mut stream, _)) = stream.filter(|_| has_asked) else { return };
        let mut stream = Pin::new(&mut stream);
        if stream.as_mut().poll_write(context, REQUEST_TIMEOUT).is_ready()
            && stream.as_mut().poll_flush(context).is_ready()
        {
            let _ = stream.poll_shutdown(context);
        }
    }
}

impl<H, M> Future for Connection<H, M>
where
    H: Speak<Stream: Stream>,
    M: Moves<H::Stream>,
{
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.open.join(&this.probe, context);
        let Some(http) = &mut this.http else { return Poll::Ready(()) };
        if http.poll(context).is_ready() {
            return Poll::Ready(());
        }
        if this.probe.wants_attention() && this.probe.take_preface() {
            http.speak_http2();
            if http.poll(context).is_ready() {
                return Poll::Ready(());
            }
        }
        // After the poll: a request that is already in the socket is answered before the connection ends.
        if this.open.roster.drains() {
            if this.end(context).is_ready() {
                return Poll::Ready(());
            }
            this.open.poll_look(context);
        }
        if this.probe.wants_attention() { this.attend(context) } else { Poll::Pending }
    }
}

/// An open connection, counted and in the roster.
struct Open {
    roster: Arc<Roster>,
    limits: Arc<ConnectionLimits>,
    began: Instant,
    number: Option<u32>,
    _present: Present,
    /// Until it looks at itself, while the server drains.
    rest: Option<Box<Sleep>>,
}

impl Open {
    fn new(roster: Arc<Roster>, limits: Arc<ConnectionLimits>, began: Instant) -> Open {
        Open { roster, limits, began, number: None, _present: Present::new(), rest: None }
    }

    #[inline(always)]
    fn join(&mut self, probe: &Arc<Probe>, context: &Context<'_>) {
        if self.number.is_none() {
            let number = self.roster.join(context.waker(), probe, &self.limits, self.began);
            self.number = Some(number);
        }
    }

    /// Whether the client is late. Nobody goes round any more when the server drains: who does would count as one that is
    /// waited for.
    #[cold]
    fn poll_look(&mut self, context: &mut Context<'_>) {
        let Some(number) = self.number else { return };
        let every = look_every(&self.limits);
        let rest = self.rest.get_or_insert_with(|| Box::new(sleep(every)));
        while Pin::new(&mut **rest).poll(context).is_ready() {
            self.roster.look_at(number, clock::now());
            **rest = sleep(every);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.roster.leave(number);
        }
    }
}
