//! The listening TCP socket.
//!
//! Accepting is one `accept4` per connection, which also tells the peer's address and makes the new socket
//! non-blocking. The listener never closes by itself: an error of `accept` is the caller's to judge.

use crate::net::{
    TcpStream, ToSocketAddrs,
    descriptor::{addresses, descriptor},
    lookup,
    options::options,
};
use crate::reactor::slots::Direction;
use crate::reactor::source::Source;
use crate::sys::socket::{self, ListenOptions};
use std::io;
use std::net::{self, SocketAddr};
use std::task::{Context, Poll};

/// A TCP socket that accepts connections.
///
/// Several tasks may accept from one listener at once; each connection goes to one of them, and none of the tasks is
/// forgotten. A listener per shard on one port is made with [`TcpSocket::set_reuseport`](crate::net::TcpSocket).
///
/// # Examples
///
/// ```no_run
/// use corelane::net::TcpListener;
///
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     let listener = TcpListener::bind("127.0.0.1:8080").await?;
///     loop {
///         let (stream, peer) = listener.accept().await?;
///         corelane::spawn_local(async move {
///             println!("{peer} has come");
///             drop(stream);
///         });
///     }
/// })
/// # }
/// ```
pub struct TcpListener {
    source: Source<net::TcpListener>,
}

impl TcpListener {
    /// Binds and listens on the first of the addresses that can be bound.
    ///
    /// Port 0 lets the system choose a port, which [`local_addr`](Self::local_addr) tells. `SO_REUSEADDR` is set, so
    /// a port whose old connections are in `TIME_WAIT` can be bound at once; up to 1024 connections may wait to be
    /// accepted. [`TcpSocket`](crate::net::TcpSocket) leaves such choices to the caller.
    ///
    /// # Errors
    ///
    /// That of the last address tried; [`InvalidInput`](io::ErrorKind::InvalidInput) if there is no address.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::TcpListener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let listener = TcpListener::bind("127.0.0.1:0").await?;
    ///     println!("listening on {}", listener.local_addr()?);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        lookup::first_success(addr, |addr| {
            socket::listen(addr, &ListenOptions::default()).map(TcpListener::new)
        })
        .await
    }

    /// Accepts a connection.
    ///
    /// # Errors
    ///
    /// The operating system's. Most say something about one connection, as
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) does, or about the process, as being out of
    /// descriptors; the listener stays usable.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost when the future is dropped.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::TcpListener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let listener = TcpListener::bind("127.0.0.1:8080").await?;
    ///     let (_stream, peer) = listener.accept().await?;
    ///     println!("{peer}");
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.source.async_io(Direction::Read, socket::accept).await?;
        Ok((TcpStream::accepted(stream), peer))
    }

    /// Polls for [`accept`](Self::accept).
    ///
    /// Only the last task that polled is woken.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::TcpListener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let listener = TcpListener::bind("127.0.0.1:8080").await?;
    ///     let (_stream, peer) = std::future::poll_fn(|cx| listener.poll_accept(cx)).await?;
    ///     println!("{peer}");
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        self.source
            .poll_io(cx, Direction::Read, socket::accept)
            .map_ok(|(stream, peer)| (TcpStream::accepted(stream), peer))
    }

    /// Takes a connection that is already in the queue. It asks the kernel even if readiness says that there is none.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none; else as [`accept`](Self::accept).
    pub fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = socket::accept(self.source.get_ref())?;
        Ok((TcpStream::accepted(stream), peer))
    }
}

descriptor! {
    TcpListener, net::TcpListener, "std::net::TcpListener",
    "let socket = std::net::TcpListener::bind(\"127.0.0.1:8080\")?;"
}

addresses! { TcpListener, SocketAddr: local_addr }

options! { TcpListener: ttl }
