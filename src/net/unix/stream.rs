//! The connected Unix stream.
//!
//! A read is one `recv`, a write one `send` or `sendmsg`; nothing is buffered, and descriptors a peer sends along are
//! not received. A short read does not mean that the socket is empty here, so readiness stays until the kernel says
//! `WouldBlock`.

use crate::net::{
    descriptor::{addresses, descriptor},
    growing::growing_stream,
    options::options,
    readiness::readiness_methods,
    stream_io::stream_methods,
    unix::{SocketAddr, UCred},
};
use crate::reactor::slots::Readiness;
use crate::reactor::source::Source;
use crate::sys::socket::{self, Kind};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::path::Path;

/// A connection between two Unix sockets.
///
/// Reading and writing is done through [`futures_io::AsyncRead`] and [`futures_io::AsyncWrite`] (or Tokio's traits,
/// with the feature `tokio`), or with `readable`/`try_read` and `writable`/`try_write`. Closing through the traits ends
/// the sending direction only. Dropping the stream closes it.
///
/// # Examples
///
/// ```no_run
/// use corelane::net::UnixStream;
/// use futures::io::{AsyncReadExt, AsyncWriteExt};
///
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     let mut stream = UnixStream::connect("/run/example").await?;
///     stream.write_all(b"hello").await?;
///     stream.close().await?;
///     let mut answer = Vec::new();
///     stream.read_to_end(&mut answer).await?;
///     Ok(())
/// })
/// # }
/// ```
pub struct UnixStream {
    source: Source<net::UnixStream>,
}

impl UnixStream {
    /// Connects with the listener at a path, or at an abstract name if the path begins with a zero byte.
    ///
    /// # Errors
    ///
    /// The operating system's. A listener whose queue is full refuses at once with
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): the kernel offers nothing to wait for.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UnixStream;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let stream = UnixStream::connect("/run/example").await?;
    ///     println!("{:?}", stream.peer_cred()?);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&socket::unix_path_address(path.as_ref())?.into()).await
    }

    /// Connects with the listener at an address.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UnixStream;
    /// use std::os::linux::net::SocketAddrExt;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let addr = std::os::unix::net::SocketAddr::from_abstract_name("example")?;
    ///     let stream = UnixStream::connect_addr(&addr.into()).await?;
    ///     # drop(stream);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn connect_addr(socket_addr: &SocketAddr) -> io::Result<UnixStream> {
        UnixStream::connect_with(socket::open(Kind::UnixStream)?, socket_addr)
    }

    /// Connects a socket that may be bound already. A Unix connect ends at once, one way or the other.
    pub(super) fn connect_with(unconnected: OwnedFd, addr: &SocketAddr) -> io::Result<UnixStream> {
        socket::start_connect_unix(&unconnected, &addr.0)?;
        Ok(UnixStream::ready_for(net::UnixStream::from(unconnected), Readiness::WRITABLE))
    }

    /// What a listener gives: there is room to write, and most likely something to read.
    pub(super) fn accepted(socket: net::UnixStream) -> UnixStream {
        UnixStream::ready_for(socket, Readiness::READABLE.with(Readiness::WRITABLE))
    }

    /// Two streams connected with each other, without an address.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UnixStream;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let (a, b) = UnixStream::pair()?;
    ///     a.writable().await?;
    ///     a.try_write(b"hello")?;
    ///     b.readable().await
    /// })
    /// # }
    /// ```
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (a, b) = socket::unix_pair(Kind::UnixStream)?;
        let half = |fd: OwnedFd| UnixStream::ready_for(fd.into(), Readiness::WRITABLE);
        Ok((half(a), half(b)))
    }

    /// Who the peer is: see [`UCred`].
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(stream: corelane::net::UnixStream) -> std::io::Result<()> {
    /// println!("user {}", stream.peer_cred()?.uid());
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_cred(&self) -> io::Result<UCred> {
        socket::peer_credentials(self).map(UCred::new)
    }
}

descriptor! {
    UnixStream, net::UnixStream, "std::os::unix::net::UnixStream",
    "let socket = std::os::unix::net::UnixStream::connect(\"/run/example\")?;"
}

addresses! { UnixStream, SocketAddr: local_addr peer_addr }

readiness_methods! {
    UnixStream, poll_read_ready, poll_write_ready,
    "let socket = corelane::net::UnixStream::connect(\"/run/example\").await?;"
}

stream_methods! {
    UnixStream, unix,
    "let socket = corelane::net::UnixStream::connect(\"/run/example\").await?;"
}

growing_stream! {
    UnixStream,
    "let socket = corelane::net::UnixStream::connect(\"/run/example\").await?;"
}

options! { UnixStream: take_error }
