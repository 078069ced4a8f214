//! TCP, UDP and Unix sockets.
//!
//! Names and signatures are Tokio's wherever the meaning is the same. What is particular to this crate:
//!
//! - A socket follows whoever polls it. It may be made on one shard, moved to another and used there, or be used from
//!   a thread of the work-stealing mode; it registers with the reactor of the shard that first has to wait for it and
//!   moves when another shard does. Using it at home is cheap, moving it is correct, and two shards that take turns
//!   with one socket pay for a move each time.
//! - Making a socket registers nothing, so it can be done outside a runtime. Waiting for one cannot: it needs a shard.
//! - [`from_std`](TcpStream::from_std) makes the socket non-blocking. Tokio leaves that to the caller.
//! - Methods with `&self` may be used by several tasks at once: none of them is forgotten. The exceptions are the
//!   `poll_` methods and the `AsyncRead` and `AsyncWrite` traits, which remember the last task per direction.
//!
//! Streams and their halves implement [`futures_io::AsyncRead`] and [`futures_io::AsyncWrite`], and with the feature
//! `tokio` also `tokio::io::AsyncRead` and `tokio::io::AsyncWrite`. Methods that take a `tokio::io::ReadBuf` exist
//! with that feature only.
//!
//! This module keeps no state of its own: the descriptor and its readiness are a `Source` of the reactor, the system
//! calls are in `sys::socket`.

mod accepting;
mod acceptor;
mod datagram;
mod descriptor;
mod futures_traits;
mod growing;
mod halves;
mod lookup;
mod options;
mod readiness;
pub(crate) mod stream_io;
pub mod tcp;
#[cfg(feature = "tokio")]
mod tokio_traits;
mod udp;
pub mod unix;

pub use crate::reactor::{Interest, Ready};
pub use accepting::Listener;
pub use acceptor::{Accepted, Acceptor};
pub use lookup::{ToSocketAddrs, lookup_host};
pub use tcp::{listener::TcpListener, socket::TcpSocket, stream::TcpStream};
pub use udp::UdpSocket;
pub use unix::datagram::UnixDatagram;
pub use unix::listener::UnixListener;
pub use unix::socket::UnixSocket;
pub use unix::stream::UnixStream;
