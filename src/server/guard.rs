//! The service as hyper sees it: every request is looked at before the service is asked, bounded in time while it works, and
//! noted in the probe; a panic costs one answer, not the connection's neighbours.

use super::access_log::{ConnectionLog, Record};
use super::body::{Body, Failure, Fate};
use super::direct::send_directly;
use super::probe::{End, Probe};
use super::strict::{self, Refusal};
use crate::limits::ConnectionLimits;
use crate::shard::context::with_current;
use crate::task::failure::drop_caught;
use crate::task::home::add;
use crate::time::{Sleep, sleep};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// See the module.
pub(super) struct Guarded<S> {
    pub(super) service: S,
    pub(super) probe: Arc<Probe>,
    pub(super) limits: Arc<ConnectionLimits>,
    pub(super) log: Option<Arc<ConnectionLog>>,
}

/// It is never pinned by itself, and hands out no pinned reference to what it holds.
impl<S> Unpin for Guarded<S> {}

impl<S, B> Service<Request<Incoming>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: hyper::body::Body + 'static,
{
    type Response = Response<Answer<B>>;
    type Error = S::Error;
    type Future = Call<S::Future>;

    #[inline]
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Guarded { service, probe, limits, log } = self;
        let has_body = !request.body().is_end_stream();
        let number = probe.begin(has_body);
        let is_last = number >= limits.max_requests;
        if is_last && probe.is_multiplexed() {
            probe.must_end(End::Gracefully);
        }
        let timeout = limits.request_timeout;
        let checked = check(&request, limits);
        let tunnels = probe.is_multiplexed() && *request.method() == Method::CONNECT;
        // The log looks at the request only when it has been moved: the compiler copies one once more that it cannot see
        // the last of, also where nothing is logged.
        let (head, body) = request.into_parts();
        if let Err(refusal) = checked {
            let request = Request::from_parts(head, ());
            let ended = Ended::new(probe, log.as_ref().map(|log| log.begin(&request, probe)));
            let ended = Some(ended.with(Flags { is_last, tunnels: false }));
            let (call, refusal, fate, late) = (None, Some(refusal), None, None);
            return Call { call, refusal, fate, late, ended, timeout };
        }
        let (body, fate) = Body::new(body, has_body, limits, probe);
        let request = Request::from_parts(head, body);
        let ended = Ended::new(probe, log.as_ref().map(|log| log.begin(&request, probe)));
        let ended = ended.with(Flags { is_last, tunnels });
        let call = caught(|| service.call(request));
        let refusal = call.is_none().then_some(PANICKED);
        Call { call, refusal, fate, late: None, ended: Some(ended), timeout }
    }
}

const MANY_FIELDS: Refusal =
    Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields");
const LONG_TARGET: Refusal = Refusal::new(StatusCode::URI_TOO_LONG, "target too long");
const LARGE_BODY: Refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body too large");
const LATE_BODY: Refusal = Refusal::new(StatusCode::REQUEST_TIMEOUT, "body too late");
const BAD_BODY: Refusal = Refusal::new(StatusCode::BAD_REQUEST, "malformed body");
const LATE_ANSWER: Refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no answer in time");
const PANICKED: Refusal = Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "service has panicked");

/// Whether the service is asked.
///
/// # Errors
/// What is answered instead.
#[inline]
fn check(request: &Request<Incoming>, limits: &ConnectionLimits) -> Result<(), Refusal> {
    strict::check(request)?;
    // hyper itself counts only those of HTTP/1.
    if request.headers().len() > limits.header_count as usize {
        return Err(MANY_FIELDS);
    }
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.uri_bytes as usize {
        return Err(LONG_TARGET);
    }
    if request.body().size_hint().lower() > limits.body_bytes {
        return Err(LARGE_BODY);
    }
    Ok(())
}

/// None: it has panicked, which is counted.
fn caught<R>(run: impl FnOnce() -> R) -> Option<R> {
    let outcome = catch_unwind(AssertUnwindSafe(run)).map_err(drop_caught);
    if outcome.is_err() {
        with_current(|shard| add(&shard.counters.panics, 1));
    }
    outcome.ok()
}

pin_project_lite::pin_project! {
    /// A request in the service.
    pub(super) struct Call<F> {
        #[pin]
        call: Option<F>,
        // What is answered if there is no call.
        refusal: Option<Refusal>,
        fate: Option<Arc<Fate>>,
        // Made when the service has no answer at once.
        late: Option<Sleep>,
        ended: Option<Ended>,
        timeout: Option<Duration>,
    }
}

impl<F, B, E> Future for Call<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: hyper::body::Body + 'static,
{
    type Output = Result<Response<Answer<B>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let refusal = match this.call.as_mut().as_pin_mut() {
            None => this.refusal.expect("one of them is there"),
            Some(mut call) => match caught(|| call.as_mut().poll(context)) {
                Some(Poll::Ready(Ok(response))) => {
                    let mut ended = this.ended.take().expect("it is ready once");
                    if let Some(record) = ended.record() {
                        record.answer(&response);
                    }
                    let Flags { is_last, tunnels } = *ended.flags();
                    if tunnels && response.status().is_success() {
                        ended.probe().open();
                    }
                    let answer = |body| Answer { body: Some(body), ended };
                    let mut response = response.map(answer);
                    if response.body().ended.probe().outgoing().is_some() {
                        response.body_mut().send_directly();
                    }
                    // What is upgraded has no next request.
                    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                        close_after(&mut response);
                    }
                    return Poll::Ready(Ok(response));
                }
                Some(Poll::Ready(Err(error))) => {
                    match this.fate.as_ref().and_then(|fate| fate.get()) {
                        None => return Poll::Ready(Err(error)),
                        Some(Failure::TooLarge) => LARGE_BODY,
                        Some(Failure::Late) => LATE_BODY,
                        Some(Failure::Malformed) => BAD_BODY,
                    }
                }
                Some(Poll::Pending) => {
                    let Some(timeout) = *this.timeout else { return Poll::Pending };
                    ready!(Pin::new(this.late.get_or_insert_with(|| sleep(timeout))).poll(context));
                    LATE_ANSWER
                }
                None => PANICKED,
            },
        };
        // What it holds is let go of now, not when the answer has been sent.
        caught(|| this.call.set(None));
        let mut ended = this.ended.take().expect("it is ready once");
        let is_last = ended.flags().is_last;
        ended.record().into_iter().for_each(|record| record.refuse(refusal.status));
        let mut response = Response::new(Answer { body: None, ended });
        *response.status_mut() = refusal.status;
        let reason = ReasonPhrase::from_static(refusal.reason.as_bytes());
        response.extensions_mut().insert(reason);
        if refusal.closes || is_last {
            close_after(&mut response);
        }
        Poll::Ready(Ok(response))
    }
}

/// The connection ends after this answer. HTTP/2 has no such field (RFC 9113, 8.2.2), and hyper leaves it out there.
#[cold]
fn close_after<B>(response: &mut Response<B>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Counts a request when it is done with, and has it logged.
///
/// Two words, with or without a log, and the flags fit between them: what moves through hyper is to stay small.
enum Ended {
    Plain(Flags, Arc<Probe>),
    Logged(Flags, Box<Record>),
}

#[derive(Clone, Copy, Default)]
struct Flags {
    /// The connection ends after this.
    is_last: bool,
    /// It becomes a tunnel if the service agrees.
    tunnels: bool,
}

impl Ended {
    #[inline(always)]
    fn new(probe: &Arc<Probe>, record: Option<Box<Record>>) -> Ended {
        match record {
            None => Ended::Plain(Flags::default(), probe.clone()),
            Some(record) => Ended::Logged(Flags::default(), record),
        }
    }

    #[inline(always)]
    fn with(mut self, flags: Flags) -> Ended {
        *self.flags() = flags;
        self
    }

    #[inline(always)]
    fn probe(&self) -> &Probe {
        match self {
            Ended::Plain(_, probe) => probe,
            Ended::Logged(_, record) => record.probe(),
        }
    }

    #[inline(always)]
    fn record(&mut self) -> Option<&mut Record> {
        match self {
            Ended::Plain(..) => None,
            Ended::Logged(_, record) => Some(record),
        }
    }

    #[inline(always)]
    fn flags(&mut self) -> &mut Flags {
        match self {
            Ended::Plain(flags, _) | Ended::Logged(flags, _) => flags,
        }
    }
}

impl Drop for Ended {
    #[inline]
    fn drop(&mut self) {
        match self {
            Ended::Plain(_, probe) => probe.end(),
            Ended::Logged(_, record) => record.end(),
        }
    }
}

pin_project_lite::pin_project! {
    /// A response on its way. hyper drops it when the last of it is in hyper's own buffer.
    pub(super) struct Answer<B> {
        // None: it is empty.
        #[pin]
        body: Option<B>,
        ended: Ended,
    }
}

impl<B: 'static> Answer<B> {
    /// Has the transport send the body by itself, if that is a file and the transport can.
    #[cold]
    fn send_directly(&mut self) {
        let Answer { body, ended } = self;
        let probe = ended.probe();
        if let (Some(body), Some(outgoing), false) =
            (body, probe.outgoing(), probe.is_multiplexed())
        {
            send_directly(body, outgoing);
        }
    }
}

impl<B: hyper::body::Body> hyper::body::Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let Some(mut body) = this.body.as_pin_mut() else { return Poll::Ready(None) };
        let frame = body.as_mut().poll_frame(context);
        if let (Some(record), Poll::Ready(given)) = (this.ended.record(), &frame) {
            match given {
                None => record.take(None, &*body),
                Some(Ok(frame)) => record.take(Some(frame), &*body),
                Some(Err(_)) => {}
            }
        }
        frame
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), hyper::body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_leaves_behind_takes_two_words() {
        assert_eq!(size_of::<Option<Ended>>(), 2 * size_of::<usize>());
    }
}
