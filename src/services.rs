//! Services that come with the crate: what a `[[route]]` of the program can do, for programs of your own.
//!
//! Each is a hyper `Service` for requests with any body, is cheap to clone, and may be shared by all shards: nothing in it is
//! written by a request. Its responses have a [`Content`] as body.
//!
//! - [`Files`]: the files below a directory
//! - [`Redirect`]: sends clients elsewhere
//! - [`Health`] and [`Ready`]: whether the process serves, and whether it is to be sent requests
//!
//! ```
//! use corelane::{Runtime, server::Server, services::Redirect};
//! let secure = Redirect::new("https://{host}{path}{query}", 308)?;
//! let runtime = Runtime::builder().start()?;
//! let server = Server::builder().listen("127.0.0.1:0".parse()?).start(runtime.handle(), move |_shard| secure)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod content;
mod files;
mod health;
mod redirect;
pub(crate) mod target;
pub(crate) mod types;

pub use crate::sys::directory::Symlinks;
pub use content::Content;
pub(crate) use content::plain;
pub use files::{Answering, Files};
pub use health::{Health, Ready};
pub use redirect::Redirect;

use hyper::body::Body as _;
use hyper::header::{ALLOW, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};

/// What is looked at of a request.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
}

impl<'a> Head<'a> {
    #[inline]
    pub(crate) fn of<B>(request: &'a Request<B>) -> Head<'a> {
        Head { method: request.method(), uri: request.uri(), headers: request.headers() }
    }
}

/// Whether a request gets something else than what it asks for, because of its method.
#[inline]
pub(crate) fn is_other_method(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// What requests get that are neither `GET` nor `HEAD`.
#[cold]
pub(crate) fn refuse_method() -> Response<Content> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// The answer to a `HEAD`: with the length of a body that it does not have. hyper leaves the body out by itself in HTTP/1 only.
#[cold]
pub(crate) fn leave_body_out(response: &mut Response<Content>) {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        *response.body_mut() = Content::empty();
    }
}

/// The host that a request is for, in lower case, without its port.
pub(crate) fn host(head: Head<'_>) -> Option<String> {
    let written = match head.uri.host() {
        Some(host) => host,
        None => {
            let field = head.headers.get(HOST)?.to_str().ok()?;
            let port = field.rfind(':').filter(|colon| !field[*colon..].contains(']'));
            &field[..port.unwrap_or(field.len())]
        }
    };
    Some(written.to_ascii_lowercase())
}
