//! The Unix datagram socket.
//!
//! One datagram is one system call. Unlike UDP it is not lost on the way: the kernel refuses it while the receiver's
//! queue is full, and tells of new room as [`UnixDatagram::send_to`] describes.

use crate::net::{
    datagram::datagram_methods,
    descriptor::{addresses, descriptor},
    growing::growing_datagrams,
    options::options,
    readiness::readiness_methods,
    unix::SocketAddr,
};
use crate::reactor::slots::{Direction, Readiness};
use crate::reactor::source::Source;
use crate::sys::socket::{self, Kind};
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::path::Path;
use std::task::{Context, Poll};

/// A Unix datagram socket.
///
/// # Examples
///
/// ```no_run
/// use corelane::net::UnixDatagram;
///
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     let server = UnixDatagram::bind("/run/example")?;
///     let client = UnixDatagram::unbound()?;
///     client.send_to(b"hello", "/run/example").await?;
///     let mut buf = [0; 1500];
///     let (n, sender) = server.recv_from(&mut buf).await?;
///     println!("{n} bytes from {sender:?}");
///     Ok(())
/// })
/// # }
/// ```
pub struct UnixDatagram {
    source: Source<net::UnixDatagram>,
}

impl UnixDatagram {
    /// Binds to a path, or to an abstract name if the path begins with a zero byte.
    ///
    /// # Errors
    ///
    /// The operating system's; [`AddrInUse`](io::ErrorKind::AddrInUse) also if the file of an earlier socket is still
    /// there.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let socket = corelane::net::UnixDatagram::bind("\0example")?;
    /// # drop(socket);
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        let addr = socket::unix_path_address(path.as_ref())?;
        let unbound = socket::open(Kind::UnixDatagram)?;
        socket::bind_unix(&unbound, &addr)?;
        Ok(UnixDatagram::new(unbound.into()))
    }

    /// Two sockets connected with each other, without an address.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UnixDatagram;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let (a, b) = UnixDatagram::pair()?;
    ///     a.send(b"hello").await?;
    ///     b.recv(&mut [0; 5]).await?;
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (a, b) = socket::unix_pair(Kind::UnixDatagram)?;
        let half = |fd: OwnedFd| UnixDatagram::ready_for(fd.into(), Readiness::WRITABLE);
        Ok((half(a), half(b)))
    }

    /// A socket without an address: it can send, but nobody can answer.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UnixDatagram;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let socket = UnixDatagram::unbound()?;
    ///     socket.send_to(b"hello", "/run/example").await?;
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(UnixDatagram::new(socket::open(Kind::UnixDatagram)?.into()))
    }

    /// Connects with the socket at a path, or at an abstract name if the path begins with a zero byte: from then on
    /// datagrams go to it and come from it alone.
    ///
    /// # Errors
    ///
    /// The operating system's, also if there is no such socket.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn main() -> std::io::Result<()> {
    /// let socket = corelane::net::UnixDatagram::unbound()?;
    /// socket.connect("/run/example")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.source.get_ref().connect_addr(&socket::unix_path_address(path.as_ref())?)
    }

    /// Sends a datagram to the socket at a path, or at an abstract name if the path begins with a zero byte, and says
    /// how many bytes it had.
    ///
    /// It waits while the receiver's queue is full. The kernel wakes an unconnected sender only when one of its own
    /// datagrams has been received, so a queue that others keep full can hold it up for ever; a sender that is
    /// [connected](Self::connect) and uses [`send`](Self::send) hears of any room.
    ///
    /// # Errors
    ///
    /// The operating system's, also if there is no such socket.
    ///
    /// # Cancel safety
    ///
    /// The datagram has not been sent if the future is dropped before it is ready.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(socket: corelane::net::UnixDatagram) -> std::io::Result<()> {
    /// socket.send_to(b"hello", "/run/example").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_to<P: AsRef<Path>>(&self, buf: &[u8], target: P) -> io::Result<usize> {
        let target = socket::unix_path_address(target.as_ref())?;
        self.source.async_io(Direction::Write, |socket| socket.send_to_addr(buf, &target)).await
    }

    /// Polls for [`send_to`](Self::send_to).
    ///
    /// Only the last task that polled this direction, with this or another `poll_` method, is woken.
    ///
    /// # Errors
    ///
    /// Those of [`send_to`](Self::send_to).
    pub fn poll_send_to<P: AsRef<Path>>(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        target: P,
    ) -> Poll<io::Result<usize>> {
        let target = socket::unix_path_address(target.as_ref())?;
        self.source.poll_io(cx, Direction::Write, |socket| socket.send_to_addr(buf, &target))
    }

    /// [`send_to`](Self::send_to) without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room or the reactor has not heard of it yet, and those
    /// of [`send_to`](Self::send_to).
    pub fn try_send_to<P: AsRef<Path>>(&self, buf: &[u8], target: P) -> io::Result<usize> {
        let target = socket::unix_path_address(target.as_ref())?;
        self.source.try_io(Direction::Write, |socket| socket.send_to_addr(buf, &target))
    }

    /// Ends receiving, sending or both.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(socket: corelane::net::UnixDatagram) -> std::io::Result<()> {
    /// socket.shutdown(std::net::Shutdown::Write)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.source.get_ref().shutdown(how)
    }
}

descriptor! {
    UnixDatagram, net::UnixDatagram, "std::os::unix::net::UnixDatagram",
    "let socket = std::os::unix::net::UnixDatagram::bind(\"/run/example\")?;"
}

addresses! { UnixDatagram, SocketAddr: local_addr peer_addr }

readiness_methods! {
    UnixDatagram, poll_recv_ready, poll_send_ready,
    "let socket = corelane::net::UnixDatagram::bind(\"/run/example\")?;"
}

datagram_methods! {
    UnixDatagram, SocketAddr,
    "let socket = corelane::net::UnixDatagram::bind(\"/run/example\")?;"
}

growing_datagrams! {
    UnixDatagram, SocketAddr, recv_from_unix,
    "let socket = corelane::net::UnixDatagram::bind(\"/run/example\")?;"
}

options! { UnixDatagram: take_error }
