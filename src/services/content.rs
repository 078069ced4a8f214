//! The body of a response of these services.

use super::files::FileBody;
use crate::http::Outgoing;
use crate::sync::Arc;
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
    /// By itself, because it is far larger.
    File(Box<FileBody>),
}

impl Content {
    /// Nothing.
    pub(crate) fn empty() -> Content {
        Content(Inner::Bytes(Bytes::new()))
    }

    /// A file gives what stands in for its parts from now on.
    #[inline]
    pub(crate) fn send_directly(&mut self, outgoing: &Arc<Outgoing>) {
        if let Inner::File(file) = &mut self.0 {
            file.send_directly(outgoing);
        }
    }

    pub(super) fn file(file: FileBody) -> Content {
        Content(Inner::File(Box::new(file)))
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
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Inner::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::File(file) => file.poll_frame(context),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Bytes(bytes) => bytes.is_empty(),
            Inner::File(file) => file.left() == 0,
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::File(file) => SizeHint::with_exact(file.left()),
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
