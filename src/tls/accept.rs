//! The handshake of one connection, as a future; and who begins them.
//!
//! Certificates are chosen when a handshake begins, that is when its future is made: a reload does not touch it any more.

use super::settings::Loaded;
use super::stream::Stream;
use crate::limits::TLS_UNSENT_BYTES;
use crate::sync::live::Known;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, InvalidMessage, ServerConfig};

/// Begins handshakes with what a [`Tls`](super::Tls) has at the time: for the one task of a shard that accepts.
///
/// It knows the certificates, and looks at each handshake whether they were replaced: at a number that no core writes between
/// two reloads. [`Tls::accept`](super::Tls::accept) does the same with a lock that all shards share.
#[derive(Debug)]
pub struct Acceptor {
    known: Known<Loaded>,
}

impl Acceptor {
    pub(super) fn new(known: Known<Loaded>) -> Acceptor {
        Acceptor { known }
    }

    /// As [`Tls::accept`](super::Tls::accept).
    pub fn accept<IO>(&self, io: IO) -> Accept<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        Accept::new(self.known.get().config.clone(), io)
    }
}

/// A handshake: see [`Tls::accept`](super::Tls::accept).
///
/// # Panics
/// If it is polled after it was ready.
#[must_use = "futures do nothing unless they are awaited"]
pub struct Accept<IO> {
    handshake: tokio_rustls::Accept<IO>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Accept<IO> {
    pub(super) fn new(config: Arc<ServerConfig>, io: IO) -> Accept<IO> {
        let bounded = |connection: &mut rustls::ServerConnection| {
            connection.set_buffer_limit(Some(TLS_UNSENT_BYTES));
        };
        Accept { handshake: TlsAcceptor::from(config).accept_with(io, bounded) }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Accept<IO> {
    type Output = io::Result<Stream<IO>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Stream<IO>>> {
        let stream = ready!(Pin::new(&mut self.handshake).poll(context)).map_err(explain)?;
        Poll::Ready(Ok(Stream::new(stream)))
    }
}

impl<IO> fmt::Debug for Accept<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept").finish_non_exhaustive()
    }
}

/// The same error, in words for who reads a log.
fn explain(error: io::Error) -> io::Error {
    let of_rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let text = match of_rustls {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "what came is not TLS; it may be plain HTTP, sent to a port for HTTPS".to_owned()
        }
        Some(error) => error.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the client closed the connection before it was over".to_owned()
        }
        None => error.to_string(),
    };
    io::Error::new(error.kind(), HandshakeError { text, source: error })
}

/// Why a handshake failed.
#[derive(Debug)]
struct HandshakeError {
    text: String,
    source: io::Error,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the TLS handshake failed: {}", self.text)
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
