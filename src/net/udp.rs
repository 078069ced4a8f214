//! The UDP socket.
//!
//! One datagram is one system call. Sending and receiving on a connected socket is in `net/datagram.rs`; this file has
//! addresses, peeking and multicast. A socket is often shared by several tasks of a shard in an `Rc`: every `&self`
//! method here serves all of them.

use crate::net::{
    ToSocketAddrs,
    datagram::datagram_methods,
    descriptor::{addresses, descriptor},
    growing::growing_datagrams,
    lookup,
    options::{accessors, options},
    readiness::readiness_methods,
};
use crate::reactor::slots::Direction;
use crate::reactor::source::Source;
use crate::sys::socket;
use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

/// A UDP socket.
///
/// It sends to and receives from any address with [`send_to`](Self::send_to) and [`recv_from`](Self::recv_from), or
/// exchanges datagrams with one peer after [`connect`](Self::connect). Two tasks use one socket through a reference, an
/// `Rc` or an `Arc`; there is no split.
///
/// # Examples
///
/// ```no_run
/// use corelane::net::UdpSocket;
///
/// # fn main() -> std::io::Result<()> {
/// corelane::block_on(async {
///     let socket = UdpSocket::bind("0.0.0.0:8080").await?;
///     let mut buf = [0; 1500];
///     loop {
///         let (n, sender) = socket.recv_from(&mut buf).await?;
///         socket.send_to(&buf[..n], sender).await?;
///     }
/// })
/// # }
/// ```
pub struct UdpSocket {
    source: Source<net::UdpSocket>,
}

impl UdpSocket {
    /// Binds to the first of the addresses that can be bound.
    ///
    /// # Errors
    ///
    /// That of the last address tried; [`InvalidInput`](io::ErrorKind::InvalidInput) if there is no address.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UdpSocket;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let socket = UdpSocket::bind("127.0.0.1:0").await?;
    ///     println!("{}", socket.local_addr()?);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        lookup::first_success(addr, |addr| socket::bind_udp(addr).map(UdpSocket::new)).await
    }

    /// Connects with the first of the addresses the system can route to: from then on datagrams go to it and come
    /// from it alone.
    ///
    /// Nothing is sent. That nobody listens there is told by a later operation, if at all.
    ///
    /// # Errors
    ///
    /// That of the last address tried; [`InvalidInput`](io::ErrorKind::InvalidInput) if there is no address.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UdpSocket;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let socket = UdpSocket::bind("127.0.0.1:0").await?;
    ///     socket.connect("127.0.0.1:8080").await?;
    ///     socket.send(b"hello").await?;
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        let socket = self.source.get_ref();
        lookup::first_success(addr, |addr| socket.connect(addr)).await
    }

    /// Sends a datagram to an address, and says how many bytes it had.
    ///
    /// If `target` means several addresses, the first is used.
    ///
    /// # Errors
    ///
    /// The operating system's; [`InvalidInput`](io::ErrorKind::InvalidInput) if there is no address.
    ///
    /// # Cancel safety
    ///
    /// The datagram has not been sent if the future is dropped before it is ready.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use corelane::net::UdpSocket;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// corelane::block_on(async {
    ///     let socket = UdpSocket::bind("127.0.0.1:0").await?;
    ///     socket.send_to(b"hello", "127.0.0.1:8080").await?;
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub async fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], target: A) -> io::Result<usize> {
        let target = lookup::resolve(target).await?.next().ok_or_else(lookup::no_address)?;
        self.source.async_io(Direction::Write, |socket| socket.send_to(buf, target)).await
    }

    /// Polls for [`send_to`](Self::send_to).
    ///
    /// Only the last task that polled this direction, with this or another `poll_` method, is woken.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(socket: corelane::net::UdpSocket, target: std::net::SocketAddr) -> std::io::Result<()> {
    /// std::future::poll_fn(|cx| socket.poll_send_to(cx, b"hello", target)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.source.poll_io(cx, Direction::Write, |socket| socket.send_to(buf, target))
    }

    /// Sends a datagram to an address, without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room or the reactor has not heard of it yet, and the
    /// operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(socket: corelane::net::UdpSocket, target: std::net::SocketAddr) -> std::io::Result<()> {
    /// socket.writable().await?;
    /// socket.try_send_to(b"hello", target)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn try_send_to(&self, buf: &[u8], target: SocketAddr) -> io::Result<usize> {
        self.source.try_io(Direction::Write, |socket| socket.send_to(buf, target))
    }

    /// Reads the first datagram in the queue and leaves it there. What does not fit into `buf` is not read.
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
    /// # async fn example(socket: corelane::net::UdpSocket) -> std::io::Result<()> {
    /// let mut first = [0; 1];
    /// socket.peek(&mut first).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.async_io(Direction::Read, |socket| socket.peek(buf)).await
    }

    /// [`peek`](Self::peek) without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing has arrived or the reactor has not heard of it yet, and
    /// the operating system's.
    pub fn try_peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.source.try_io(Direction::Read, |socket| socket.peek(buf))
    }

    /// [`peek`](Self::peek) that says also who sent the datagram.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken from the socket, whether the future is dropped or not.
    pub async fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.source.async_io(Direction::Read, |socket| socket.peek_from(buf)).await
    }

    /// [`peek_from`](Self::peek_from) without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`try_peek`](Self::try_peek).
    pub fn try_peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.source.try_io(Direction::Read, |socket| socket.peek_from(buf))
    }

    /// Who sent the first datagram in the queue, which stays there.
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
    /// # async fn example(socket: corelane::net::UdpSocket) -> std::io::Result<()> {
    /// println!("{}", socket.peek_sender().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn peek_sender(&self) -> io::Result<SocketAddr> {
        self.source.async_io(Direction::Read, socket::peek_sender).await
    }

    /// Polls for [`peek_sender`](Self::peek_sender).
    ///
    /// Only the last task that polled this direction, with this or another `poll_` method, is woken.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn poll_peek_sender(&self, cx: &mut Context<'_>) -> Poll<io::Result<SocketAddr>> {
        self.source.poll_io(cx, Direction::Read, socket::peek_sender)
    }

    /// [`peek_sender`](Self::peek_sender) without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`try_peek`](Self::try_peek).
    pub fn try_peek_sender(&self) -> io::Result<SocketAddr> {
        self.source.try_io(Direction::Read, socket::peek_sender)
    }
}

/// Multicast.
impl UdpSocket {
    /// Joins an IPv4 multicast group on the interface that has the address `interface`; 0.0.0.0 lets the system choose.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(socket: corelane::net::UdpSocket) -> std::io::Result<()> {
    /// socket.join_multicast_v4([224, 0, 0, 123].into(), std::net::Ipv4Addr::UNSPECIFIED)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_multicast_v4(&self, multiaddr: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.source.get_ref().join_multicast_v4(&multiaddr, &interface)
    }

    /// Leaves an IPv4 multicast group.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn leave_multicast_v4(&self, multiaddr: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.source.get_ref().leave_multicast_v4(&multiaddr, &interface)
    }

    /// Joins an IPv6 multicast group on the interface with this index; 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// The operating system's.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn example(socket: corelane::net::UdpSocket) -> std::io::Result<()> {
    /// socket.join_multicast_v6(&"ff02::123".parse().expect("an address"), 0)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn join_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.source.get_ref().join_multicast_v6(multiaddr, interface)
    }

    /// Leaves an IPv6 multicast group.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn leave_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.source.get_ref().leave_multicast_v6(multiaddr, interface)
    }
}

descriptor! {
    UdpSocket, net::UdpSocket, "std::net::UdpSocket",
    "let socket = std::net::UdpSocket::bind(\"127.0.0.1:8080\")?;"
}

addresses! { UdpSocket, SocketAddr: local_addr peer_addr }

readiness_methods! {
    UdpSocket, poll_recv_ready, poll_send_ready,
    "let socket = corelane::net::UdpSocket::bind(\"127.0.0.1:8080\").await?;"
}

datagram_methods! {
    UdpSocket, SocketAddr,
    "let socket = corelane::net::UdpSocket::bind(\"127.0.0.1:8080\").await?;"
}

growing_datagrams! {
    UdpSocket, SocketAddr, recv_from,
    "let socket = corelane::net::UdpSocket::bind(\"127.0.0.1:8080\").await?;"
}

options! { UdpSocket: take_error ttl type_of_service device }

accessors! { UdpSocket:
    /// Whether datagrams may be sent to a broadcast address (`SO_BROADCAST`).
    broadcast,
    /// Lets datagrams be sent to a broadcast address, or does not (`SO_BROADCAST`).
    set_broadcast(true): bool;
    /// Whether this host receives the IPv4 multicast datagrams it sends (`IP_MULTICAST_LOOP`).
    multicast_loop_v4,
    /// Lets this host receive the IPv4 multicast datagrams it sends, or does not (`IP_MULTICAST_LOOP`).
    set_multicast_loop_v4(true): bool;
    /// How many routers an IPv4 multicast datagram may pass (`IP_MULTICAST_TTL`).
    multicast_ttl_v4,
    /// Sets how many routers an IPv4 multicast datagram may pass (`IP_MULTICAST_TTL`).
    set_multicast_ttl_v4(1): u32;
    /// Whether this host receives the IPv6 multicast datagrams it sends (`IPV6_MULTICAST_LOOP`).
    multicast_loop_v6,
    /// Lets this host receive the IPv6 multicast datagrams it sends, or does not (`IPV6_MULTICAST_LOOP`).
    set_multicast_loop_v6(true): bool;
}
