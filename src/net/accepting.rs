//! What an acceptor asks of a listening socket, of whichever kind.

use crate::net::unix::SocketAddr as UnixSocketAddr;
use crate::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use std::future::Future;
use std::io;
use std::net::SocketAddr;

/// The listening sockets that an [`Acceptor`](crate::net::Acceptor) can accept from. Sealed.
pub trait Listener: sealed::Sealed {
    /// A connection.
    type Stream;
    /// Who connected.
    type Addr;

    /// Accepts a connection.
    ///
    /// # Errors
    /// As the listener's own `accept`.
    ///
    /// # Cancel safety
    /// No connection is lost when the future is dropped.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Addr)>> + Send;

    /// Takes a connection that is already in the queue.
    ///
    /// # Errors
    /// As the listener's own `try_accept`.
    fn try_accept(&self) -> io::Result<(Self::Stream, Self::Addr)>;
}

mod sealed {
    use super::{TcpListener, UnixListener};
    use crate::sys::socket::waiting_connections;

    pub trait Sealed {
        /// How many connections are in the queue. None: the kernel does not say.
        fn waiting(&self) -> Option<usize>;

        /// This shard is not told of connections any more, also if the socket lives on in other hands.
        fn leave(self);
    }

    impl Sealed for TcpListener {
        fn waiting(&self) -> Option<usize> {
            waiting_connections(self).ok()
        }

        fn leave(self) {
            drop(self.into_std());
        }
    }

    impl Sealed for UnixListener {
        fn waiting(&self) -> Option<usize> {
            None
        }

        fn leave(self) {
            drop(self.into_std());
        }
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::accept(self).await
    }

    fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        TcpListener::try_accept(self)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Addr = UnixSocketAddr;

    async fn accept(&self) -> io::Result<(UnixStream, UnixSocketAddr)> {
        UnixListener::accept(self).await
    }

    fn try_accept(&self) -> io::Result<(UnixStream, UnixSocketAddr)> {
        UnixListener::try_accept(self)
    }
}
