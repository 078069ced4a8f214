//! What answers the cases: a service that says what it has seen, or answers as the path asks for.

use corelane::server::{self, ConnectionLimits, Listen, Server};
use corelane::{Mode, Runtime};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::net::SocketAddr;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A server of the kind that serves connections this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// They stay on their shard.
    Stay,
    /// They may go to another.
    Move,
    /// Any worker serves them.
    Pool,
}

pub(super) fn serve(kind: Kind) -> (Runtime, SocketAddr) {
    let mode = if kind == Kind::Pool { Mode::WorkStealing } else { Mode::ThreadPerCore };
    let runtime = Runtime::builder().mode(mode).start().expect("started");
    let builder = Server::builder().rebalance(kind == Kind::Move);
    let mut limits = ConnectionLimits::default();
    // The preface of HTTP/2 is a case of its own.
    limits.http2 = false;
    let listen = Listen::new(SocketAddr::from(([127, 0, 0, 1], 0))).limits(limits);
    let builder = builder.listen_with(listen);
    let server = builder.start_send(runtime.handle(), service_fn(respond)).expect("a port");
    let address = server.local_addrs()[0];
    (runtime, address)
}

/// `METHOD TARGET LENGTH`, when the body has been read; or what the path asks for.
///
/// # Errors
/// The body cannot be read.
async fn respond(mut request: Request<server::Body>) -> Result<Response<Body>, server::BodyError> {
    let path = request.uri().path().to_owned();
    let answer = match (request.method(), path.as_str()) {
        (&Method::CONNECT, _) if request.uri().host() == Some("tunnel.test") => {
            tunnel(&mut request, StatusCode::OK)
        }
        (_, "/upgrade") if request.headers().contains_key(UPGRADE) => {
            tunnel(&mut request, StatusCode::SWITCHING_PROTOCOLS)
        }
        (&Method::CONNECT, _) => empty(StatusCode::METHOD_NOT_ALLOWED),
        (method, _) if !is_known(method) => empty(StatusCode::NOT_IMPLEMENTED),
        // At once, and the request is dropped with its body.
        (_, "/ignore") => text("ignored".to_owned()),
        (_, "/204") => with(StatusCode::NO_CONTENT, None, ten_known()),
        (_, "/204-sized") => with(StatusCode::NO_CONTENT, Some("10"), ten_unknown()),
        (_, "/304") => with(StatusCode::NOT_MODIFIED, None, ten_known()),
        (_, "/304-sized") => with(StatusCode::NOT_MODIFIED, Some("10"), ten_unknown()),
        (_, "/unsized") => with(StatusCode::OK, None, ten_unknown()),
        (_, "/says-less") => with(StatusCode::OK, Some("4"), ten_unknown()),
        (_, "/says-more") => with(StatusCode::OK, Some("20"), ten_unknown()),
        _ => {
            let line = format!("{} {}", request.method(), request.uri());
            let length = request.into_body().collect().await?.to_bytes().len();
            text(format!("{line} {length}"))
        }
    };
    Ok(answer)
}

fn is_known(method: &Method) -> bool {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];
    known.contains(&method.as_str())
}

/// What follows on the connection comes back as it is.
fn tunnel(request: &mut Request<server::Body>, status: StatusCode) -> Response<Body> {
    let upgrade = hyper::upgrade::on(request);
    drop(corelane::spawn(async move {
        // A client that goes away early has seen what it wanted to see.
        if let Ok(upgraded) = upgrade.await {
            let stream = hyper_util::rt::TokioIo::new(upgraded);
            let (mut reader, mut writer) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    }));
    let mut response = empty(status);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, "upgrade".parse().expect("a value"));
        response.headers_mut().insert(UPGRADE, "echo".parse().expect("a value"));
    }
    response
}

fn text(text: String) -> Response<Body> {
    with(StatusCode::OK, None, Full::new(Bytes::from(text)).boxed_unsync())
}

fn empty(status: StatusCode) -> Response<Body> {
    with(status, None, Full::default().boxed_unsync())
}

fn with(status: StatusCode, length: Option<&str>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.parse().expect("a value"));
    }
    response
}

fn ten_known() -> Body {
    Full::new(Bytes::from_static(b"0123456789")).boxed_unsync()
}

/// Ten bytes of which hyper does not know how many they are.
fn ten_unknown() -> Body {
    let pieces = [&b"01234"[..], b"56789"].map(|piece| Ok(Frame::data(Bytes::from_static(piece))));
    StreamBody::new(futures::stream::iter(pieces)).boxed_unsync()
}
