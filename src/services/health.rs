//! Whether the process serves, and whether it is to be sent requests.

use super::{Content, is_other_method, leave_body_out, plain, refuse_method};
use crate::shard::Shard;
use crate::shard::context::with_current;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::future::{self, ready};

/// Answers 200, as long as the process serves at all. For whoever starts it anew when it does not.
///
/// ```
/// use corelane::{Runtime, server::Server, services::Health};
/// let runtime = Runtime::builder().start()?;
/// let server = Server::builder().listen("127.0.0.1:0".parse()?).start(runtime.handle(), |_shard| Health)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Health;

/// Answers 200, and 503 once the runtime has been asked to shut down, which the program is by SIGTERM. For whoever spreads
/// requests over several servers.
///
/// From that moment on the server also accepts no more, and each connection ends with the answer to the request at hand: so
/// it is the last thing that a connection is told.
///
/// ```
/// use corelane::{Runtime, server::Server, services::Ready};
/// let runtime = Runtime::builder().start()?;
/// let server = Server::builder().listen("127.0.0.1:0".parse()?).start(runtime.handle(), |_shard| Ready)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready;

impl Health {
    pub(crate) fn answer(self, method: &Method) -> Response<Content> {
        if is_other_method(method) {
            return refuse_method();
        }
        state(StatusCode::OK, "alive\n")
    }
}

impl Ready {
    pub(crate) fn answer(self, method: &Method) -> Response<Content> {
        if is_other_method(method) {
            return refuse_method();
        }
        match with_current(Shard::is_asked_to_stop) {
            Some(true) => state(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            _ => state(StatusCode::OK, "ready\n"),
        }
    }
}

/// Nobody is to keep it: it is true at this moment.
fn state(status: StatusCode, text: &'static str) -> Response<Content> {
    let mut response = plain(status, text);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

macro_rules! service {
    ($Service:ident) => {
        impl<B> Service<Request<B>> for $Service {
            type Response = Response<Content>;
            type Error = Infallible;
            type Future = future::Ready<Result<Self::Response, Infallible>>;

            fn call(&self, request: Request<B>) -> Self::Future {
                let mut response = self.answer(request.method());
                if *request.method() == Method::HEAD {
                    leave_body_out(&mut response);
                }
                ready(Ok(response))
            }
        }
    };
}

service!(Health);
service!(Ready);
