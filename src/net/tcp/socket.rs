//! The TCP socket before it is a stream or a listener, for whoever wants to choose its options.
//!
//! It owns a plain descriptor that no reactor knows: nothing here waits, except `connect`, which becomes a
//! `TcpStream` first. All descriptors are non-blocking, also those that come from elsewhere.

use crate::net::{TcpListener, TcpStream, options::options};
use crate::sys::socket::{self, Kind};
use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

/// A TCP socket that is not connected and does not listen yet.
///
/// # Examples
///
/// A listener that shares its port with those of other shards:
///
/// ```no_run
/// use corelane::net::{TcpListener, TcpSocket};
/// use std::net::SocketAddr;
///
/// fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
///     let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
///     socket.set_reuseaddr(true)?;
///     socket.set_reuseport(true)?;
///     socket.bind(addr)?;
///     socket.listen(1024)
/// }
/// ```
#[derive(Debug)]
pub struct TcpSocket {
    descriptor: OwnedFd,
}

impl TcpSocket {
    /// A new socket for IPv4.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let socket = corelane::net::TcpSocket::new_v4()?;
    /// socket.set_reuseaddr(true)?;
    /// assert!(socket.reuseaddr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new_v4() -> io::Result<TcpSocket> {
        Ok(TcpSocket { descriptor: socket::open(Kind::TcpV4)? })
    }

    /// A new socket for IPv6.
    ///
    /// # Errors
    ///
    /// The operating system's, also if it has no IPv6.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let socket = corelane::net::TcpSocket::new_v6()?;
    /// # drop(socket);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new_v6() -> io::Result<TcpSocket> {
        Ok(TcpSocket { descriptor: socket::open(Kind::TcpV6)? })
    }

    /// Takes over a [`std::net::TcpStream`] that is not connected yet, and makes it non-blocking.
    ///
    /// A stream that is connected already belongs into [`TcpStream::from_std`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::TcpSocket;
    ///
    /// fn from_elsewhere(unconnected: std::net::TcpStream) -> TcpSocket {
    ///     TcpSocket::from_std_stream(unconnected)
    /// }
    /// ```
    pub fn from_std_stream(std_stream: net::TcpStream) -> TcpSocket {
        TcpSocket::from(OwnedFd::from(std_stream))
    }

    /// Binds the socket to a local address.
    ///
    /// # Errors
    ///
    /// The operating system's, for example [`AddrInUse`](io::ErrorKind::AddrInUse).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let socket = corelane::net::TcpSocket::new_v4()?;
    /// socket.bind("127.0.0.1:0".parse()?)?;
    /// assert_ne!(socket.local_addr()?.port(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind(&self, addr: SocketAddr) -> io::Result<()> {
        socket::bind(self, addr)
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// The network's, for example [`ConnectionRefused`](io::ErrorKind::ConnectionRefused).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up and closes the socket; the peer may have seen a connection.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::TcpSocket;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// corelane::block_on(async {
    ///     let socket = TcpSocket::new_v4()?;
    ///     socket.set_nodelay(true)?;
    ///     let stream = socket.connect("127.0.0.1:8080".parse()?).await?;
    ///     drop(stream);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn connect(self, addr: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect_with(self.descriptor, addr).await
    }

    /// Listens, with room for `backlog` connections that wait to be accepted.
    ///
    /// The system limits the room silently (`net.core.somaxconn`).
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let socket = corelane::net::TcpSocket::new_v4()?;
    /// socket.bind("127.0.0.1:0".parse()?)?;
    /// let listener = socket.listen(1024)?;
    /// # drop(listener);
    /// # Ok(())
    /// # }
    /// ```
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        socket::start_listening(&self, backlog)?;
        Ok(TcpListener::new(net::TcpListener::from(self.descriptor)))
    }

    /// The local address.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let socket = corelane::net::TcpSocket::new_v4()?;
    /// socket.bind("127.0.0.1:0".parse()?)?;
    /// println!("{}", socket.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self)
    }
}

options! {
    TcpSocket: take_error keepalive reuse buffer_sizes linger nodelay type_of_service device
}

impl From<OwnedFd> for TcpSocket {
    /// Takes over a descriptor, which should be a TCP socket's, and makes it non-blocking.
    fn from(descriptor: OwnedFd) -> TcpSocket {
        // This fails for a descriptor that is no socket only; every later call will say so.
        let _ = socket::set_nonblocking(&descriptor);
        TcpSocket { descriptor }
    }
}

impl From<TcpSocket> for OwnedFd {
    fn from(socket: TcpSocket) -> OwnedFd {
        socket.descriptor
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for TcpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl IntoRawFd for TcpSocket {
    fn into_raw_fd(self) -> RawFd {
        self.descriptor.into_raw_fd()
    }
}
