//! TCP: listeners, streams, the halves of streams, and sockets that are neither yet.
//!
//! The sockets themselves are [`TcpListener`], [`TcpStream`] and [`TcpSocket`], one module up; what this module makes
//! public is the halves a stream splits into.
//!
//! Nothing here is shared between sockets, and nothing here names a shard: readiness is the reactor's business.
//!
//! [`TcpListener`]: crate::net::TcpListener
//! [`TcpStream`]: crate::net::TcpStream
//! [`TcpSocket`]: crate::net::TcpSocket

pub(super) mod listener;
pub(super) mod socket;
mod split;
pub(super) mod stream;

pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub(crate) use split::{into_split, split};
