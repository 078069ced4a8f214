//! The Unix socket before it is a listener, a stream or a datagram socket.
//!
//! It owns a plain descriptor that no reactor knows, and remembers of which kind it was made: a call that does not
//! suit the kind is an error of this crate's, before the kernel is asked.

use crate::net::{UnixDatagram, UnixListener, UnixStream};
use crate::sys::socket::{self, Kind};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net;
use std::path::Path;

/// A Unix socket that is not connected and does not listen yet.
///
/// # Examples
///
/// A listener with a short queue:
///
/// ```no_run
/// use corelane::net::UnixSocket;
///
/// # fn main() -> std::io::Result<()> {
/// let socket = UnixSocket::new_stream()?;
/// socket.bind("/run/example")?;
/// let listener = socket.listen(16)?;
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UnixSocket {
    descriptor: OwnedFd,
    kind: Kind,
}

impl UnixSocket {
    /// A new socket for datagrams.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let socket = corelane::net::UnixSocket::new_datagram()?;
    /// socket.bind("\0example")?;
    /// let socket = socket.datagram()?;
    /// # drop(socket);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new_datagram() -> io::Result<UnixSocket> {
        UnixSocket::open(Kind::UnixDatagram)
    }

    /// A new socket for a stream or a listener.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let socket = corelane::net::UnixSocket::new_stream()?;
    /// socket.bind("\0example")?;
    /// let listener = socket.listen(16)?;
    /// # drop(listener);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new_stream() -> io::Result<UnixSocket> {
        UnixSocket::open(Kind::UnixStream)
    }

    fn open(kind: Kind) -> io::Result<UnixSocket> {
        Ok(UnixSocket { descriptor: socket::open(kind)?, kind })
    }

    /// Binds to a path, or to an abstract name if the path begins with a zero byte.
    ///
    /// # Errors
    ///
    /// The operating system's; [`AddrInUse`](io::ErrorKind::AddrInUse) also if the file of an earlier socket is still
    /// there.
    pub fn bind(&self, path: impl AsRef<Path>) -> io::Result<()> {
        socket::bind_unix(self, &socket::unix_path_address(path.as_ref())?)
    }

    /// Listens, with room for `backlog` connections that wait to be accepted.
    ///
    /// # Errors
    ///
    /// The operating system's; an error of kind [`Other`](io::ErrorKind::Other) for a datagram socket.
    pub fn listen(self, backlog: u32) -> io::Result<UnixListener> {
        let descriptor = self.into_kind(Kind::UnixStream, "a datagram socket cannot listen")?;
        socket::start_listening(&descriptor, backlog)?;
        Ok(UnixListener::new(net::UnixListener::from(descriptor)))
    }

    /// Connects with the listener at a path, or at an abstract name if the path begins with a zero byte.
    ///
    /// # Errors
    ///
    /// Those of [`UnixStream::connect`]; an error of kind [`Other`](io::ErrorKind::Other) for a datagram socket, which
    /// [`UnixDatagram::connect`] connects.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UnixSocket;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let socket = UnixSocket::new_stream()?;
    ///     let stream = socket.connect("/run/example").await?;
    ///     # drop(stream);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn connect(self, path: impl AsRef<Path>) -> io::Result<UnixStream> {
        let descriptor = self.into_kind(Kind::UnixStream, "a datagram socket is no stream")?;
        UnixStream::connect_with(descriptor, &socket::unix_path_address(path.as_ref())?.into())
    }

    /// Makes it a datagram socket.
    ///
    /// # Errors
    ///
    /// An error of kind [`Other`](io::ErrorKind::Other) for a stream socket.
    pub fn datagram(self) -> io::Result<UnixDatagram> {
        let descriptor = self.into_kind(Kind::UnixDatagram, "a stream socket has no datagrams")?;
        Ok(UnixDatagram::new(net::UnixDatagram::from(descriptor)))
    }

    fn into_kind(self, kind: Kind, otherwise: &'static str) -> io::Result<OwnedFd> {
        if self.kind == kind { Ok(self.descriptor) } else { Err(io::Error::other(otherwise)) }
    }
}

impl From<UnixSocket> for OwnedFd {
    fn from(socket: UnixSocket) -> OwnedFd {
        socket.descriptor
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for UnixSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl IntoRawFd for UnixSocket {
    fn into_raw_fd(self) -> RawFd {
        self.descriptor.into_raw_fd()
    }
}
