//! Encrypted connections of a server: the handshake, and the stream that HTTP is spoken on after it.

use super::arrival::Arrival;
use super::protocol::Speaks;
use super::transport::Stream;
use crate::balance::seats::Counted;
use crate::http::{Transport, reset_at_close};
use crate::tls::{self, Session, Tls};
use hyper::body::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream socket of a server.
pub(super) trait Socket: Transport + AsyncRead + AsyncWrite + Send + 'static {}

impl<T: Transport + AsyncRead + AsyncWrite + Send + 'static> Socket for T {}

/// Whether connections of an address are encrypted, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Security(Option<Tls>);

impl Security {
    pub(super) fn of(tls: Tls) -> Security {
        Security(Some(tls))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// As one shard knows it.
    pub(super) fn here(&self) -> Securing {
        Securing(self.0.as_ref().map(Tls::acceptor))
    }
}

/// What one shard knows of that.
pub(super) struct Securing(Option<tls::Acceptor>);

impl Securing {
    /// That of a connection that comes now.
    #[inline(always)]
    pub(super) fn handshake(&self) -> Option<Handshake> {
        self.0.as_ref().map(|acceptor| Handshake(acceptor.opening()))
    }
}

/// A handshake that is to be made.
pub(super) struct Handshake(tls::Opening);

impl Handshake {
    /// Makes it.
    ///
    /// # Errors
    /// What [`Tls::accept`] says.
    pub(super) async fn run<T: Socket>(
        self,
        arrival: Arrival<T>,
    ) -> io::Result<Arrival<Secured<T>>> {
        let Arrival { stream, read, mut info, limits, counted, past, .. } = arrival;
        let stream = self.0.accept(Rewound { before: read, stream }).await?;
        let session = Session::of(&stream);
        // Over TLS nobody begins with HTTP/2 who has not agreed on it (RFC 9113, 3.2).
        let speaks = if session.alpn() == Some(b"h2") { Speaks::Http2 } else { Speaks::Http1 };
        info.tls = Some(Arc::new(session));
        let stream = Secured { stream, _counted: counted };
        let (read, counted) = (Bytes::new(), None);
        Ok(Arrival { stream, read, info, limits, counted, past, speaks, moved: false })
    }
}

/// An encrypted connection, which counts for as long as it lives.
pub(super) struct Secured<T> {
    stream: tls::Stream<Rewound<T>>,
    _counted: Option<Counted>,
}

impl<T: Socket> Stream for Secured<T> {
    fn reset_at_close(&self) {
        reset_at_close(&self.stream.inner().stream);
    }
}

impl<T: Socket> Read for Secured<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Read::poll_read(Pin::new(&mut self.stream), context, buffer)
    }
}

impl<T: Socket> Write for Secured<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write(Pin::new(&mut self.stream), context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        Write::is_write_vectored(&self.stream)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write_vectored(Pin::new(&mut self.stream), context, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(Pin::new(&mut self.stream), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(Pin::new(&mut self.stream), context)
    }
}

/// A socket that some of what follows was read from already, with the header of a proxy.
struct Rewound<T> {
    before: Bytes,
    stream: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.before.len().min(buffer.remaining());
        buffer.put_slice(&self.before.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
