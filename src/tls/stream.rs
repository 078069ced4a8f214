//! The encrypted stream, for hyper and for Tokio's I/O traits.
//!
//! Lives where its task lives. Reading copies what rustls has decrypted into the reader's buffer; writing encrypts into rustls'
//! buffer and hands that to the socket at once. What the socket does not take waits in the buffer, which has a bound: then
//! nothing more is taken from the writer.

use super::version::Version;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::{HandshakeKind, ProtocolVersion};
use tokio_rustls::server::TlsStream;

/// An encrypted connection whose handshake is over.
///
/// It implements hyper's [`Read`] and [`Write`] and Tokio's [`AsyncRead`] and [`AsyncWrite`], both with vectored writes: slices
/// are encrypted from where they are.
///
/// - **The end.** Shutting it down sends `close_notify` and then ends the sending direction of the socket. Dropping it closes the
///   socket and sends nothing: the client sees a connection that was cut off.
/// - **Truncation.** A read returns no bytes only after the client's `close_notify`. If the socket ends without one, the read is an
///   [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), after everything that has arrived: somebody may have cut the connection.
///   Many clients do so on purpose when they are done, so between two requests it means nothing.
/// - **Flushing.** A write that is accepted may still lie here; flushing hands everything to the socket.
/// - **Cancel safety.** Bytes are lost in no read, and are sent by no write, whose future is dropped before it is ready.
pub struct Stream<IO> {
    tls: TlsStream<IO>,
}

impl<IO> Stream<IO> {
    pub(super) fn new(tls: TlsStream<IO>) -> Stream<IO> {
        Stream { tls }
    }

    /// The protocol that was agreed on by ALPN (RFC 7301), such as `b"h2"`; `None` if the client named none.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.get_ref().1.alpn_protocol()
    }

    /// The name of the server that the client asked for (SNI, RFC 6066), in lower case; `None` if it did not, as clients do
    /// not that were given an address. No certificate need have it: see [`Tls`](super::Tls).
    pub fn server_name(&self) -> Option<&str> {
        self.tls.get_ref().1.server_name()
    }

    /// The version of the protocol.
    pub fn version(&self) -> Version {
        match self.tls.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => Version::Tls12,
            // No others are spoken, and one of the two has been agreed on.
            _ => Version::Tls13,
        }
    }

    /// The cipher suite as the registry of IANA names it, such as `TLS13_AES_128_GCM_SHA256`.
    pub fn cipher_suite(&self) -> &'static str {
        let suite = self.tls.get_ref().1.negotiated_cipher_suite();
        // There is one when the handshake is over.
        suite.and_then(|suite| suite.suite().as_str()).unwrap_or("unknown")
    }

    /// Whether it goes on with the keys of an earlier session: there was no signature, and a client's certificate was not
    /// verified again.
    pub fn is_resumed(&self) -> bool {
        self.tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The client's certificates in DER, its own first, verified when the session began; none if it gave none.
    pub fn client_certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let certificates = self.tls.get_ref().1.peer_certificates().unwrap_or_default();
        certificates.iter().map(|certificate| certificate.as_ref())
    }

    /// What it runs over. To read from it or to write to it would break the connection.
    pub fn inner(&self) -> &IO {
        self.tls.get_ref().0
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Read for Stream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // What was decrypted is copied straight from where it is: so nothing must be made of hyper's uninitialized memory.
        let bytes = ready!(Pin::new(&mut self.tls).poll_fill_buf(context))?;
        let count = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..count]);
        Pin::new(&mut self.tls).consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Write for Stream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(Pin::new(&mut self.tls).poll_fill_buf(context))?;
        let count = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..count]);
        Pin::new(&mut self.tls).consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write(self, context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write_vectored(self, context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        Write::is_write_vectored(self)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(self, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(self, context)
    }
}

impl<IO: fmt::Debug> fmt::Debug for Stream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("inner", self.inner())
            .field("version", &self.version())
            .field("server_name", &self.server_name())
            .finish_non_exhaustive()
    }
}
