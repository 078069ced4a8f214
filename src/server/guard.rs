//! The service as hyper sees it: every request is looked at before the service is asked, bounded in time while it works, and
//! noted in the probe; a panic costs one answer, not the connection's neighbours.

use super::body::{Body, Fate};
use super::probe::Probe;
use crate::limits::ConnectionLimits;
use crate::shard::context::with_current;
use crate::task::failure::drop_caught;
use crate::task::home::add;
use crate::time::{Sleep, sleep};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode, Version};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// See the module.
pub(super) struct Guarded<S> {
    pub(super) service: S,
    pub(super) probe: Arc<Probe>,
    pub(super) limits: Arc<ConnectionLimits>,
}

/// It is never pinned by itself, and hands out no pinned reference to what it holds.
impl<S> Unpin for Guarded<S> {}

impl<S, B> Service<Request<Incoming>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
{
    type Response = Response<Answer<B>>;
    type Error = S::Error;
    type Future = Call<S::Future>;

    #[inline]
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Guarded { service, probe, limits } = self;
        let number = probe.begin(!request.body().is_end_stream());
        let ended = Ended(probe.clone());
        let is_last = number >= limits.max_requests;
        if let Some(status) = refusal(&request, limits) {
            return Call {
                call: None,
                answer: Some(status),
                fate: None,
                late: None,
                ended: Some(ended),
                is_last,
                limits: limits.clone(),
            };
        }
        let (head, body) = request.into_parts();
        let (body, fate) = Body::new(body, limits);
        let request = Request::from_parts(head, body);
        let call = caught(|| service.call(request));
        let answer = call.is_none().then_some(StatusCode::INTERNAL_SERVER_ERROR);
        Call { call, answer, fate, late: None, ended: Some(ended), is_last, limits: limits.clone() }
    }
}

/// The status for a request that the service is not asked about.
fn refusal(request: &Request<Incoming>, limits: &ConnectionLimits) -> Option<StatusCode> {
    let uri = request.uri();
    let length = uri.path_and_query().map_or(0, |path| path.as_str().len());
    if length > limits.uri_bytes as usize {
        return Some(StatusCode::URI_TOO_LONG);
    }
    (request.body().size_hint().lower() > limits.body_bytes)
        .then_some(StatusCode::PAYLOAD_TOO_LARGE)
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
        answer: Option<StatusCode>,
        fate: Option<Arc<Fate>>,
        // Made when the service has no answer at once.
        late: Option<Sleep>,
        ended: Option<Ended>,
        // The connection ends after this.
        is_last: bool,
        limits: Arc<ConnectionLimits>,
    }
}

impl<F, B, E> Future for Call<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Answer<B>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut answer = |response: Response<Option<B>>, is_last| {
            let ended = this.ended.take().expect("it is ready once");
            let mut response = response.map(|body| Answer { body, offered: false, ended });
            if is_last {
                close_after(&mut response);
            }
            Poll::Ready(Ok(response))
        };
        let status = match this.call.as_mut().as_pin_mut() {
            None => this.answer.expect("one of them is there"),
            Some(mut call) => match caught(|| call.as_mut().poll(context)) {
                Some(Poll::Ready(Ok(response))) => {
                    return answer(response.map(Some), *this.is_last);
                }
                Some(Poll::Ready(Err(error))) => {
                    match this.fate.as_ref().and_then(|fate| fate.status()) {
                        Some(status) => status,
                        None => return Poll::Ready(Err(error)),
                    }
                }
                Some(Poll::Pending) => {
                    let Some(timeout) = this.limits.request_timeout else { return Poll::Pending };
                    ready!(Pin::new(this.late.get_or_insert_with(|| sleep(timeout))).poll(context));
                    StatusCode::SERVICE_UNAVAILABLE
                }
                None => StatusCode::INTERNAL_SERVER_ERROR,
            },
        };
        // What it holds is let go of now, not when the answer has been sent.
        caught(|| this.call.set(None));
        let mut response = Response::new(None);
        *response.status_mut() = status;
        answer(response, true)
    }
}

/// The connection ends after this answer. HTTP/2 has no such field (RFC 9113, 8.2.2): there it ends by itself.
#[cold]
fn close_after<B>(response: &mut Response<B>) {
    if response.version() != Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Counts a request when it is done with.
struct Ended(Arc<Probe>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end();
    }
}

pin_project_lite::pin_project! {
    /// A response on its way. hyper drops it when the last of it is in hyper's own buffer.
    pub(super) struct Answer<B> {
        // None: it is empty.
        #[pin]
        body: Option<B>,
        // It has given something and was not asked for more.
        offered: bool,
        ended: Ended,
    }

    impl<B> PinnedDrop for Answer<B> {
        fn drop(this: Pin<&mut Self>) {
            if this.offered {
                this.ended.0.unoffer();
            }
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
        if std::mem::take(this.offered) {
            this.ended.0.unoffer();
        }
        let Some(body) = this.body.as_pin_mut() else { return Poll::Ready(None) };
        let frame = body.poll_frame(context);
        if matches!(frame, Poll::Ready(Some(Ok(_)))) {
            *this.offered = true;
            this.ended.0.offer();
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
