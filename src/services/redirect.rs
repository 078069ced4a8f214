//! Sends clients elsewhere.

use super::target::{Ask, STATUSES, Template};
use super::{Content, Head, host, plain};
use crate::error::{Error, ErrorKind};
use hyper::header::{HeaderValue, LOCATION};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

/// Sends clients elsewhere, whatever their method (RFC 9110, 15.4).
///
/// The target is a text in which `{host}` stands for the request's host without a port, `{path}` for its path, `{rest}` for its
/// path without the slash at the beginning (in a `[[route]]` for what the `*` stands for), and `{query}` for its query with the
/// question mark, or for nothing. It begins with `http://`, `https://`, or one slash. No request can lead to a host that the
/// text does not name, other than its own. A request without a host, if that is wanted, and one whose target would not
/// be one, get 400.
///
/// ```
/// use corelane::services::Redirect;
/// let secure = Redirect::new("https://{host}{path}{query}", 308)?;
/// let moved = Redirect::new("/archive/{rest}", 301)?;
/// let error = Redirect::new("//example.org/", 301).unwrap_err();
/// assert!(error.to_string().contains("begins with http://, https:// or one slash"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Redirect {
    target: Arc<Template>,
    status: StatusCode,
}

impl Redirect {
    /// With this target, and the status 301, 302, 303, 307 or 308. The last two have the client repeat its method and body.
    ///
    /// # Errors
    /// The target is none, or the status is another.
    pub fn new(target: &str, status: u16) -> Result<Redirect, Error> {
        let wrong = |why: String| Error::new(ErrorKind::Config, format!("a redirect: {why}"));
        let template = Template::parse(target).map_err(wrong)?;
        if !STATUSES.contains(&status.into()) {
            return Err(wrong(format!("its status is one of {STATUSES:?}, and not {status}")));
        }
        Ok(Redirect::of(template, status))
    }

    /// Of what was checked.
    pub(crate) fn of(template: Template, status: u16) -> Redirect {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
        Redirect { target: Arc::new(template), status }
    }

    /// `rest`: see [`Redirect`].
    pub(crate) fn answer(&self, head: Head<'_>, rest: &str) -> Response<Content> {
        let host = if self.target.wants_host() { host(head) } else { None };
        let uri = head.uri;
        let ask = Ask { host: host.as_deref(), path: uri.path(), rest, query: uri.query() };
        let location = self.target.fill(&ask).and_then(|text| HeaderValue::try_from(text).ok());
        let Some(location) = location else {
            return plain(StatusCode::BAD_REQUEST, "This leads nowhere.\n");
        };
        let mut response = Response::new(Content::empty());
        *response.status_mut() = self.status;
        response.headers_mut().insert(LOCATION, location);
        response
    }
}

impl<B> Service<Request<B>> for Redirect {
    type Response = Response<Content>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        ready(Ok(self.answer(Head::of(&request), path.strip_prefix('/').unwrap_or(path))))
    }
}
