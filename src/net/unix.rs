//! Unix sockets: listeners, streams, datagrams, and what is particular to their addresses.
//!
//! The sockets themselves are [`UnixListener`], [`UnixStream`], [`UnixDatagram`] and [`UnixSocket`], one module up;
//! what this module makes public is the halves a stream splits into, [`SocketAddr`], [`UCred`] and [`pipe`]s.
//!
//! A path that begins with a zero byte is a name in Linux's abstract namespace, wherever a path is taken: it leaves
//! no file behind. A socket bound to a real path does, and does not remove it when it is dropped.
//!
//! [`UnixListener`]: crate::net::UnixListener
//! [`UnixStream`]: crate::net::UnixStream
//! [`UnixDatagram`]: crate::net::UnixDatagram
//! [`UnixSocket`]: crate::net::UnixSocket

pub(super) mod datagram;
pub(super) mod listener;
pub mod pipe;
pub(super) mod socket;
mod split;
pub(super) mod stream;
mod ucred;

pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub(crate) use split::{into_split, split};
pub use ucred::{UCred, gid_t, pid_t, uid_t};

use std::fmt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net;
use std::path::Path;

/// The address of a Unix socket: a path, an abstract name, or none.
///
/// # Examples
///
/// ```
/// use corelane::net::unix::SocketAddr;
///
/// # fn main() -> std::io::Result<()> {
/// let addr = SocketAddr::from(std::os::unix::net::SocketAddr::from_pathname("/run/example")?);
/// assert_eq!(addr.as_pathname(), Some("/run/example".as_ref()));
/// assert!(!addr.is_unnamed());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SocketAddr(net::SocketAddr);

impl SocketAddr {
    /// Whether there is no address, as at the connecting end of a stream.
    pub fn is_unnamed(&self) -> bool {
        self.0.is_unnamed()
    }

    /// The path, if that is what the address is.
    pub fn as_pathname(&self) -> Option<&Path> {
        self.0.as_pathname()
    }

    /// The name in the abstract namespace, without its leading zero byte, if that is what the address is.
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        self.0.as_abstract_name()
    }
}

impl fmt::Debug for SocketAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<net::SocketAddr> for SocketAddr {
    fn from(addr: net::SocketAddr) -> Self {
        SocketAddr(addr)
    }
}

impl From<SocketAddr> for net::SocketAddr {
    fn from(addr: SocketAddr) -> Self {
        addr.0
    }
}
