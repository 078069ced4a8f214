//! The body of a response of these services.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of a response.
#[derive(Debug)]
pub struct Content(Inner);

#[derive(Debug)]
enum Inner {
    /// What is left of it.
    Bytes(Bytes),
}

impl Content {
    /// Nothing.
    pub(crate) fn empty() -> Content {
        Content(Inner::Bytes(Bytes::new()))
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Content {
        Content(Inner::Bytes(bytes))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    #[inline]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Inner::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Bytes(bytes) => bytes.is_empty(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A response of some words.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<Content> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()).into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
