//! Around every service: requests that `server/strict` refuses are answered here, and the service does not see them.
//!
//! One for each connection, on the connection's thread. A request that passes goes on as it is, and so do its answer and
//! the answer's body; nothing is allocated for either. A refusal has no body, because the service's may be of any type; why
//! it was refused stands in the reason phrase.

use super::strict::{self, Refusal};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::Service;
use hyper::{Request, Response};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// See the module.
pub(super) struct Gate<S> {
    service: S,
}

impl<S> Gate<S> {
    pub(super) fn new(service: S) -> Gate<S> {
        Gate { service }
    }
}

impl<S, B> Service<Request<Incoming>> for Gate<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Passed<B>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Passing<S::Future>;

    #[inline]
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        match strict::check(&request) {
            Ok(()) => Passing::Called { call: self.service.call(request) },
            // The request is dropped: hyper reads a body that is there already, or closes.
            Err(refusal) => Passing::Refused { refusal },
        }
    }
}

pin_project_lite::pin_project! {
    /// A request in the service, or one that does not get there.
    #[project = PassingPinned]
    pub(super) enum Passing<F> {
        Called { #[pin] call: F },
        Refused { refusal: Refusal },
    }
}

impl<F, B, E> Future for Passing<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = Result<Response<Passed<B>>, Box<dyn Error + Send + Sync>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let call = match self.project() {
            PassingPinned::Called { call } => call,
            PassingPinned::Refused { refusal } => return Poll::Ready(Ok(refused(*refusal))),
        };
        Poll::Ready(match ready!(call.poll(context)) {
            Ok(response) => Ok(response.map(|body| Passed { body: Some(body) })),
            Err(error) => failed(error.into()),
        })
    }
}

/// A service that has failed has no answer, and the connection ends. If that is because of the body, it is the client who has to
/// know.
#[cold]
fn failed<B>(
    error: Box<dyn Error + Send + Sync>,
) -> Result<Response<Passed<B>>, Box<dyn Error + Send + Sync>> {
    if strict::is_of_the_body(&*error) { Ok(refused(strict::BAD_BODY)) } else { Err(error) }
}

#[cold]
fn refused<B>(refusal: Refusal) -> Response<Passed<B>> {
    let mut response = Response::new(Passed { body: None });
    *response.status_mut() = refusal.status;
    if refusal.closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let reason = ReasonPhrase::from_static(refusal.reason.as_bytes());
    response.extensions_mut().insert(reason);
    response
}

pin_project_lite::pin_project! {
    /// The body of an answer; none of a refusal.
    pub(super) struct Passed<B> {
        #[pin]
        body: Option<B>,
    }
}

impl<B: Body> Body for Passed<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
