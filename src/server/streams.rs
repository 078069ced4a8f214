//! The streams of an HTTP/2 connection: answers are handed to hyper in pieces, and a stream whose client leaves it without a
//! window is reset, alone.
//!
//! hyper makes a task of each stream, and waits in it for a window before it takes the next piece of the answer. What a stream
//! has given and not been asked for more is noted in its [`Pace`], by the body in the task, and looked at around the task. To
//! drop what hyper has made of a stream is to reset it (RFC 9113, 5.4.2); what of it was not sent goes with it.

use super::Body;
use super::guard::{Answer, Call, Guarded};
use super::probe::Probe;
use crate::limits::HTTP2_PIECE_BYTES;
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering, lock};
use crate::time::{Sleep, sleep};
use hyper::body::{Buf, Bytes, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// How a stream gets on. Only its own task touches it.
#[derive(Debug)]
struct Pace {
    /// Pieces that it has given.
    given: AtomicU32,
    /// It was not asked for more since the last.
    waits: AtomicBool,
    probe: Arc<Probe>,
}

impl Pace {
    fn give(&self) {
        self.given.store(self.given().wrapping_add(1), Ordering::Relaxed);
        self.waits.store(true, Ordering::Relaxed);
        self.probe.offer();
    }

    /// It is asked for more, or never again.
    fn is_asked(&self) {
        if self.waits.load(Ordering::Relaxed) {
            self.waits.store(false, Ordering::Relaxed);
            self.probe.unoffer();
        }
    }

    fn given(&self) -> u32 {
        self.given.load(Ordering::Relaxed)
    }

    fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }
}

/// The stream that the service was asked on, and the thread it was asked on, until hyper makes a task of it: at once, and there.
/// A task of a tunnel may be made on another thread meanwhile.
#[derive(Debug, Default)]
struct Latest(Mutex<Option<(ThreadId, Arc<Pace>)>>);

impl Latest {
    fn put(&self, pace: Arc<Pace>) {
        *lock(&self.0) = Some((thread::current().id(), pace));
    }

    fn take(&self) -> Option<Arc<Pace>> {
        let here = thread::current().id();
        lock(&self.0).take_if(|(thread, _)| *thread == here).map(|(_, pace)| pace)
    }
}

/// The service of an HTTP/2 connection, whose executor is a [`Paced`].
pub(super) struct Streams<S> {
    guarded: Guarded<S>,
    latest: Arc<Latest>,
}

/// hyper's executor for the streams of an HTTP/2 connection.
#[derive(Clone, Debug)]
pub(super) struct Paced<E> {
    executor: E,
    latest: Arc<Latest>,
    timeout: Option<Duration>,
}

/// The service and the executor of an HTTP/2 connection.
pub(super) fn streams<S, E>(guarded: Guarded<S>, executor: E) -> (Streams<S>, Paced<E>) {
    let (latest, timeout) = (Arc::new(Latest::default()), guarded.limits.write_timeout);
    (Streams { guarded, latest: latest.clone() }, Paced { executor, latest, timeout })
}

impl<S> Unpin for Streams<S> {}

impl<S, B> Service<Request<Incoming>> for Streams<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: hyper::body::Body + 'static,
{
    type Response = Response<Pieces<B>>;
    type Error = S::Error;
    type Future = Asked<S::Future>;

    #[inline(never)]
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let probe = self.guarded.probe.clone();
        let pace =
            Arc::new(Pace { given: AtomicU32::new(0), waits: AtomicBool::new(false), probe });
        let call = self.guarded.call(request);
        self.latest.put(pace.clone());
        Asked { call, pace }
    }
}

pin_project_lite::pin_project! {
    /// A request in the service.
    pub(super) struct Asked<F> {
        #[pin]
        call: Call<F>,
        pace: Arc<Pace>,
    }
}

impl<F, B, E> Future for Asked<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: hyper::body::Body + 'static,
{
    type Output = Result<Response<Pieces<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.call.poll(context))?;
        let pace = this.pace.clone();
        Poll::Ready(Ok(response.map(|answer| Pieces { answer, rest: None, pace })))
    }
}

pin_project_lite::pin_project! {
    /// An answer, in pieces of at most [`HTTP2_PIECE_BYTES`].
    pub(super) struct Pieces<B: hyper::body::Body> {
        #[pin]
        answer: Answer<B>,
        // What the service has given and hyper has not.
        rest: Option<B::Data>,
        pace: Arc<Pace>,
    }

    impl<B: hyper::body::Body> PinnedDrop for Pieces<B> {
        fn drop(this: Pin<&mut Self>) {
            this.pace.is_asked();
        }
    }
}

impl<B: hyper::body::Body> hyper::body::Body for Pieces<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        this.pace.is_asked();
        let mut data = match this.rest.take() {
            Some(rest) => rest,
            None => match ready!(this.answer.poll_frame(context)?) {
                None => return Poll::Ready(None),
                Some(frame) => match frame.into_data() {
                    Ok(data) => data,
                    Err(other) => {
                        return Poll::Ready(Some(Ok(other.map_data(|_| Bytes::new()))));
                    }
                },
            },
        };
        let piece = data.copy_to_bytes(data.remaining().min(HTTP2_PIECE_BYTES));
        *this.rest = data.has_remaining().then_some(data);
        this.pace.give();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.answer.is_end_stream()
    }

    /// Of a body that has given nothing yet, which is when it is asked for.
    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}

impl<E, F> hyper::rt::Executor<F> for Paced<E>
where
    E: hyper::rt::Executor<Stream<F>>,
{
    fn execute(&self, future: F) {
        // What comes without a request belongs to a tunnel.
        let pace = self.latest.take().zip(self.timeout);
        self.executor.execute(Stream { future: Some(future), pace, wait: None });
    }
}

pin_project_lite::pin_project! {
    /// The task of a stream.
    pub(super) struct Stream<F> {
        // None: it was reset.
        #[pin]
        future: Option<F>,
        pace: Option<(Arc<Pace>, Duration)>,
        // Since it waits to be asked for more: until when it may, and the pieces that it had given by then.
        wait: Option<(Sleep, u32)>,
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        if future.poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some((pace, timeout)) = this.pace else { return Poll::Pending };
        loop {
            if !pace.waits() {
                // A wait that goes on costs less than one that begins anew for every piece.
                return Poll::Pending;
            }
            let (over, given) = this.wait.get_or_insert_with(|| (sleep(*timeout), pace.given()));
            ready!(Pin::new(over).poll(context));
            // If the client takes nothing at all that is not this stream's fault, and others see to it.
            if *given == pace.given() && !pace.probe.is_stuck() {
                this.future.set(None);
                return Poll::Ready(());
            }
            *this.wait = None;
        }
    }
}
