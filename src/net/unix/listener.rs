//! The listening Unix socket.
//!
//! Accepting is one `accept4` per connection. The file of the address is the caller's: nothing here makes room for it
//! or removes it.

use crate::net::{
    UnixStream,
    descriptor::{addresses, descriptor},
    options::options,
    unix::SocketAddr,
};
use crate::reactor::slots::Direction;
use crate::reactor::source::Source;
use crate::sys::socket::{self, Kind};
use std::io;
use std::os::unix::net;
use std::path::Path;
use std::task::{Context, Poll};

/// A Unix socket that accepts connections.
///
/// Several tasks may accept from one listener at once; each connection goes to one of them, and none of the tasks is
/// forgotten.
///
/// # Examples
///
/// ```no_run
/// use corelane::net::UnixListener;
///
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     let listener = UnixListener::bind("/run/example")?;
///     loop {
///         let (stream, _) = listener.accept().await?;
///         corelane::spawn_local(async move { drop(stream) });
///     }
/// })
/// # }
/// ```
pub struct UnixListener {
    source: Source<net::UnixListener>,
}

impl UnixListener {
    /// Binds to a path, or to an abstract name if the path begins with a zero byte, and listens.
    ///
    /// # Errors
    ///
    /// The operating system's; [`AddrInUse`](io::ErrorKind::AddrInUse) also if the file of an earlier listener is
    /// still there.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UnixListener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let listener = UnixListener::bind("\0example")?;
    /// # drop(listener);
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&socket::unix_path_address(path.as_ref())?.into())
    }

    /// Binds to an address and listens.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UnixListener;
    /// use std::os::linux::net::SocketAddrExt;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let addr = std::os::unix::net::SocketAddr::from_abstract_name("example")?;
    /// let listener = UnixListener::bind_addr(&addr.into())?;
    /// # drop(listener);
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<UnixListener> {
        let unbound = socket::open(Kind::UnixStream)?;
        socket::bind_unix(&unbound, &socket_addr.0)?;
        socket::start_listening(&unbound, socket::DEFAULT_BACKLOG)?;
        Ok(UnixListener::new(net::UnixListener::from(unbound)))
    }

    /// Accepts a connection.
    ///
    /// # Errors
    ///
    /// The operating system's, for example when the process is out of descriptors; the listener stays usable.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost when the future is dropped.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UnixListener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let listener = UnixListener::bind("/run/example")?;
    ///     let (_stream, peer) = listener.accept().await?;
    ///     println!("{peer:?}");
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (stream, peer) = self.source.async_io(Direction::Read, socket::accept_unix).await?;
        Ok((UnixStream::accepted(stream), peer.into()))
    }

    /// Polls for [`accept`](Self::accept).
    ///
    /// Only the last task that polled is woken.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, SocketAddr)>> {
        self.source
            .poll_io(cx, Direction::Read, socket::accept_unix)
            .map_ok(|(stream, peer)| (UnixStream::accepted(stream), peer.into()))
    }

    /// Takes a connection that is already in the queue. It asks the kernel even if readiness says that there is none.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none; else as [`accept`](Self::accept).
    pub fn try_accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (stream, peer) = socket::accept_unix(self.source.get_ref())?;
        Ok((UnixStream::accepted(stream), peer.into()))
    }
}

descriptor! {
    UnixListener, net::UnixListener, "std::os::unix::net::UnixListener",
    "let socket = std::os::unix::net::UnixListener::bind(\"/run/example\")?;"
}

addresses! { UnixListener, SocketAddr: local_addr }

options! { UnixListener: take_error }
