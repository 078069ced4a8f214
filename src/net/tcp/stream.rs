//! The connected TCP socket.
//!
//! A read is one `recv`, a write one `send` or `sendmsg`; nothing is buffered. Short reads and short writes are
//! remembered as "not ready", so that a keep-alive connection does not ask the kernel a second time.

use crate::net::{
    ToSocketAddrs,
    descriptor::{addresses, descriptor},
    growing::growing_stream,
    lookup,
    options::options,
    readiness::readiness_methods,
    stream_io::stream_methods,
};
use crate::reactor::slots::{Direction, Readiness};
use crate::reactor::source::Source;
use crate::sys::socket::{self, Kind};
use std::io;
use std::net::{self, SocketAddr};
use std::os::fd::OwnedFd;

/// A TCP connection.
///
/// Reading and writing is done through [`futures_io::AsyncRead`] and [`futures_io::AsyncWrite`] (or Tokio's traits,
/// with the feature `tokio`), or with `readable`/`try_read` and `writable`/`try_write`. Closing through the traits ends
/// the sending direction only. Dropping the stream closes it.
///
/// Data that carries the urgent flag is not read; a read may stop short at the place where it was.
///
/// # Examples
///
/// ```no_run
/// use corelane::net::TcpStream;
/// use futures::io::{AsyncReadExt, AsyncWriteExt};
///
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     let mut stream = TcpStream::connect("127.0.0.1:8080").await?;
///     stream.write_all(b"hello").await?;
///     stream.close().await?;
///     let mut answer = Vec::new();
///     stream.read_to_end(&mut answer).await?;
///     Ok(())
/// })
/// # }
/// ```
pub struct TcpStream {
    source: Source<net::TcpStream>,
}

impl TcpStream {
    /// Connects to the first of the addresses that accepts, trying one after the other.
    ///
    /// There is no limit of time except the system's.
    ///
    /// # Errors
    ///
    /// That of the last address tried, as the network gave it, for example
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused); [`InvalidInput`](io::ErrorKind::InvalidInput) if there
    /// is no address.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up and closes the socket; the peer may have seen a connection.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::TcpStream;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let stream = TcpStream::connect("127.0.0.1:8080").await?;
    ///     println!("connected from {}", stream.local_addr()?);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        let mut outcome = Err(lookup::no_address());
        for addr in lookup::resolve(addr).await? {
            outcome = match socket::open(Kind::tcp(addr)) {
                Ok(unconnected) => TcpStream::connect_with(unconnected, addr).await,
                Err(error) => Err(error),
            };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Connects a socket that has its options, and perhaps its local address, already.
    pub(super) async fn connect_with(
        unconnected: OwnedFd,
        addr: SocketAddr,
    ) -> io::Result<TcpStream> {
        socket::start_connect(&unconnected, addr)?;
        let stream = TcpStream::new(net::TcpStream::from(unconnected));
        stream.source.async_io(Direction::Write, socket::connect_outcome).await?;
        stream.source.assume(Readiness::WRITABLE);
        Ok(stream)
    }

    /// What a listener gives: there is room to write, and most likely something to read.
    pub(crate) fn accepted(socket: net::TcpStream) -> TcpStream {
        TcpStream::ready_for(socket, Readiness::READABLE.with(Readiness::WRITABLE))
    }

    /// Reads what has arrived and leaves it there, waiting if there is nothing.
    ///
    /// `Ok(0)` means that the peer has ended its direction, or that `buf` is empty.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken from the socket, whether the future is dropped or not.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::TcpStream;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let stream = TcpStream::connect("127.0.0.1:8080").await?;
    ///     let mut first = [0; 1];
    ///     if stream.peek(&mut first).await? == 1 && first[0] == 0x16 {
    ///         println!("looks like TLS");
    ///     }
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.async_io(Direction::Read, |stream| stream.peek(buf)).await
    }

    /// Whether received data is acknowledged at once (`TCP_QUICKACK`).
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(stream: corelane::net::TcpStream) -> std::io::Result<()> {
    /// println!("{}", stream.quickack()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn quickack(&self) -> io::Result<bool> {
        socket::quickack(self)
    }

    /// Acknowledges received data at once, or lets the acknowledgement wait for data to travel with
    /// (`TCP_QUICKACK`).
    ///
    /// The kernel goes back to its own judgement after a while: set it again after a read where it matters.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(stream: corelane::net::TcpStream) -> std::io::Result<()> {
    /// stream.set_quickack(true)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        socket::set_quickack(self, quickack)
    }
}

descriptor! {
    TcpStream, net::TcpStream, "std::net::TcpStream",
    "let socket = std::net::TcpStream::connect(\"127.0.0.1:8080\")?;"
}

readiness_methods! {
    TcpStream, poll_read_ready, poll_write_ready,
    "let socket = corelane::net::TcpStream::connect(\"127.0.0.1:8080\").await?;"
}

stream_methods! {
    TcpStream, tcp,
    "let socket = corelane::net::TcpStream::connect(\"127.0.0.1:8080\").await?;"
}

growing_stream! {
    TcpStream,
    "let socket = corelane::net::TcpStream::connect(\"127.0.0.1:8080\").await?;"
}

addresses! { TcpStream, SocketAddr: local_addr peer_addr }

options! { TcpStream: take_error nodelay linger ttl }
