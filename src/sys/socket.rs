//! Sockets as Linux offers them: opening, listening, accepting, connecting, sending, options.
//!
//! This file owns the crate's knowledge of `socket2` and of the socket part of `libc`; nothing else names them. The two
//! calls of every request go through `rustix`, which makes them without libc: its wrappers are points of thread
//! cancellation, a quarter of their instructions. It keeps no state and may be called from any thread.
//!
//! Invariants:
//! - every socket it makes or accepts is non-blocking and close-on-exec from birth, without a second system call;
//! - every send carries `MSG_NOSIGNAL`: a host program with the default `SIGPIPE` action gets an error, not a death.
//!
//! It never waits, never retries (except `accept` after a signal), and never closes a descriptor it was lent.

// `socket2` has no `SO_PEERCRED`.
#![allow(unsafe_code)]

use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net as unix;
use std::path::Path;
use std::time::Duration;

/// How many connections the kernel keeps ready for `accept` when nobody says otherwise. It is cut to
/// `net.core.somaxconn`.
pub(crate) const DEFAULT_BACKLOG: u32 = 1024;

/// The most buffers one vectored call may name (`UIO_MAXIOV`).
pub(crate) const MAX_SLICES: usize = 1024;

/// What a listening socket is told before it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListenOptions {
    /// How many connections may wait for `accept`.
    pub(crate) backlog: u32,
    /// `SO_REUSEADDR`: bind although old connections of the port are in `TIME_WAIT`.
    pub(crate) reuse_address: bool,
    /// `SO_REUSEPORT`: several sockets listen on one port and the kernel spreads connections over them.
    pub(crate) reuse_port: bool,
    /// `IPV6_V6ONLY` for an IPv6 address; `None` keeps the system's setting.
    pub(crate) only_v6: Option<bool>,
    /// `TCP_NODELAY` of every connection: on Linux it inherits that of the socket that listens, and so it does the next
    /// three.
    pub(crate) nodelay: bool,
    /// `SO_KEEPALIVE`.
    pub(crate) keepalive: bool,
    /// `SO_RCVBUF` and `SO_SNDBUF` in bytes; `None` lets the system adapt them.
    pub(crate) receive_buffer: Option<u32>,
    pub(crate) send_buffer: Option<u32>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            backlog: DEFAULT_BACKLOG,
            reuse_address: true,
            reuse_port: false,
            only_v6: None,
            nodelay: false,
            keepalive: false,
            receive_buffer: None,
            send_buffer: None,
        }
    }
}

/// The kind of socket `open` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    TcpV4,
    TcpV6,
    UdpV4,
    UdpV6,
    UnixStream,
    UnixDatagram,
}

impl Kind {
    /// The TCP socket that can reach `addr`.
    pub(crate) fn tcp(addr: SocketAddr) -> Kind {
        if addr.is_ipv4() { Kind::TcpV4 } else { Kind::TcpV6 }
    }

    /// The UDP socket that can reach `addr`.
    fn udp(addr: SocketAddr) -> Kind {
        if addr.is_ipv4() { Kind::UdpV4 } else { Kind::UdpV6 }
    }

    fn parts(self) -> (Domain, Type, Option<Protocol>) {
        match self {
            Kind::TcpV4 => (Domain::IPV4, Type::STREAM, Some(Protocol::TCP)),
            Kind::TcpV6 => (Domain::IPV6, Type::STREAM, Some(Protocol::TCP)),
            Kind::UdpV4 => (Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)),
            Kind::UdpV6 => (Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)),
            Kind::UnixStream => (Domain::UNIX, Type::STREAM, None),
            Kind::UnixDatagram => (Domain::UNIX, Type::DGRAM, None),
        }
    }
}

/// Opens an unbound socket.
pub(crate) fn open(kind: Kind) -> io::Result<OwnedFd> {
    let (domain, ty, protocol) = kind.parts();
    Socket::new(domain, ty.nonblocking(), protocol).map(OwnedFd::from)
}

/// Binds and listens.
pub(crate) fn listen(addr: SocketAddr, options: &ListenOptions) -> io::Result<net::TcpListener> {
    let socket = open(Kind::tcp(addr))?;
    if options.reuse_address {
        set_reuseaddr(&socket, true)?;
    }
    if options.reuse_port {
        set_reuseport(&socket, true)?;
    }
    if let (SocketAddr::V6(_), Some(only_v6)) = (addr, options.only_v6) {
        SockRef::from(&socket).set_only_v6(only_v6)?;
    }
    if options.nodelay {
        SockRef::from(&socket).set_tcp_nodelay(true)?;
    }
    if options.keepalive {
        set_keepalive(&socket, true)?;
    }
    // Before it listens: the window that a connection can have is settled in its handshake.
    if let Some(bytes) = options.receive_buffer {
        SockRef::from(&socket).set_recv_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.send_buffer {
        SockRef::from(&socket).set_send_buffer_size(bytes as usize)?;
    }
    bind(&socket, addr)?;
    start_listening(&socket, options.backlog)?;
    Ok(net::TcpListener::from(socket))
}

/// Whether another socket listens on this address, also one that would let us share the port.
///
/// With `share` only one that will not share it counts. `SO_REUSEPORT` lets a second instance of a program bind the port of the first and take half of its connections
/// without a word. A bind without that option finds the first instance. Port 0 is never taken. What holds at the
/// moment of the call may have changed a moment later: this finds a mistake, it does not reserve the port.
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server probes its port"))]
pub(crate) fn port_is_taken(
    addr: SocketAddr,
    share: bool,
    only_v6: Option<bool>,
) -> io::Result<bool> {
    if addr.port() == 0 {
        return Ok(false);
    }
    let probe = open(Kind::tcp(addr))?;
    set_reuseaddr(&probe, true)?;
    if share {
        set_reuseport(&probe, true)?;
    }
    if let (SocketAddr::V6(_), Some(only_v6)) = (addr, only_v6) {
        SockRef::from(&probe).set_only_v6(only_v6)?;
    }
    match bind(&probe, addr) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether there are connections that both of two sockets would be for. With each address stands whether the socket was
/// told to be for IPv6 only; none: as the system is set, which is taken to be "no".
#[cfg_attr(
    not(feature = "server"),
    allow(dead_code, reason = "the server says why a port is taken")
)]
pub(crate) fn overlap(one: (SocketAddr, Option<bool>), other: (SocketAddr, Option<bool>)) -> bool {
    let plain = |(address, only_v6): (SocketAddr, Option<bool>)| {
        (SocketAddr::new(address.ip().to_canonical(), address.port()), only_v6)
    };
    let (one, other) = (plain(one), plain(other));
    let includes = |(all, only_v6): (SocketAddr, Option<bool>),
                    (one, _): (SocketAddr, Option<bool>)| {
        let both_families = all.is_ipv6() && only_v6 != Some(true);
        let family = all.is_ipv6() == one.is_ipv6() || both_families;
        all.ip() == one.ip() || (all.ip().is_unspecified() && family)
    };
    one.0.port() == other.0.port() && (includes(one, other) || includes(other, one))
}

/// Binds to an internet address.
pub(crate) fn bind(socket: &impl AsFd, addr: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).bind(&addr.into())
}

/// Binds to a Unix address.
pub(crate) fn bind_unix(socket: &impl AsFd, addr: &unix::SocketAddr) -> io::Result<()> {
    SockRef::from(socket).bind(&unix_address(addr)?)
}

/// Makes a bound socket a listening one.
pub(crate) fn start_listening(socket: &impl AsFd, backlog: u32) -> io::Result<()> {
    SockRef::from(socket).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Opens and binds a UDP socket.
pub(crate) fn bind_udp(addr: SocketAddr) -> io::Result<net::UdpSocket> {
    let socket = open(Kind::udp(addr))?;
    bind(&socket, addr)?;
    Ok(net::UdpSocket::from(socket))
}

/// Two Unix sockets of this kind, connected with each other.
pub(crate) fn unix_pair(kind: Kind) -> io::Result<(OwnedFd, OwnedFd)> {
    let (domain, ty, protocol) = kind.parts();
    let (a, b) = Socket::pair(domain, ty.nonblocking(), protocol)?;
    Ok((a.into(), b.into()))
}

/// Takes one connection from the queue: one system call, which also tells the peer's address.
pub(crate) fn accept(listener: &net::TcpListener) -> io::Result<(net::TcpStream, SocketAddr)> {
    let (socket, peer) = accept_nonblocking(listener)?;
    Ok((net::TcpStream::from(socket), internet_address(&peer)?))
}

/// Takes one connection from the queue of a Unix listener.
pub(crate) fn accept_unix(
    listener: &unix::UnixListener,
) -> io::Result<(unix::UnixStream, unix::SocketAddr)> {
    let (socket, peer) = accept_nonblocking(listener)?;
    Ok((unix::UnixStream::from(socket), std_unix_address(&peer)?))
}

fn accept_nonblocking(listener: &impl AsFd) -> io::Result<(OwnedFd, SockAddr)> {
    let listener = SockRef::from(listener);
    loop {
        match listener.accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) {
            Ok((socket, peer)) => return Ok((socket.into(), peer)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Starts to connect; `Ok` also means that the connection is still being made. `connect_outcome` tells the rest.
pub(crate) fn start_connect(socket: &impl AsFd, addr: SocketAddr) -> io::Result<()> {
    connect_nonblocking(socket, &addr.into())
}

/// Starts to connect to a Unix address. A listener whose queue is full refuses at once with `WouldBlock`.
pub(crate) fn start_connect_unix(socket: &impl AsFd, addr: &unix::SocketAddr) -> io::Result<()> {
    connect_nonblocking(socket, &unix_address(addr)?)
}

fn connect_nonblocking(socket: &impl AsFd, addr: &SockAddr) -> io::Result<()> {
    match SockRef::from(socket).connect(addr) {
        // A signal does not stop a connect that has begun.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
            Ok(())
        }
        outcome => outcome,
    }
}

/// How a connect ended: the error the network gave, or `WouldBlock` while it is still under way.
pub(crate) fn connect_outcome(socket: &impl AsFd) -> io::Result<()> {
    if let Some(error) = take_error(socket)? {
        return Err(error);
    }
    match SockRef::from(socket).peer_addr() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        Err(error) => Err(error),
    }
}

/// Takes and clears the error that waits on the socket (`SO_ERROR`).
pub(crate) fn take_error(socket: &impl AsFd) -> io::Result<Option<io::Error>> {
    SockRef::from(socket).take_error()
}

/// Whether the socket can be read, or written, without waiting; an error or an end counts.
pub(crate) fn is_ready(socket: &impl AsFd, for_writing: bool) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let wanted = if for_writing { PollFlags::OUT } else { PollFlags::IN | PollFlags::RDHUP };
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(socket, wanted)], Some(&at_once))? > 0)
}

/// Ends the sending direction. A connection the peer has already taken away has nothing left to end.
pub(crate) fn shutdown_write(socket: &impl AsFd) -> io::Result<()> {
    match SockRef::from(socket).shutdown(net::Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        outcome => outcome,
    }
}

/// When the socket is closed its peer is to see a broken connection, not an orderly end. Of no effect on Unix sockets.
pub(crate) fn reset_at_close(socket: &impl AsFd) {
    // It fails on what is no connection any more, which needs no reset.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Sends on a connected socket.
#[inline]
pub(crate) fn send(socket: &impl AsFd, buf: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, buf, SendFlags::NOSIGNAL)?)
}

/// Sends several buffers as one, at most `MAX_SLICES` of them.
pub(crate) fn send_vectored(socket: &impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let bufs = &bufs[..bufs.len().min(MAX_SLICES)];
    SockRef::from(socket).send_vectored_with_flags(bufs, libc::MSG_NOSIGNAL)
}

/// Receives into memory that need not be initialized; the first `n` bytes are afterwards, `n` being the result.
#[inline]
pub(crate) fn recv_uninit(socket: &impl AsFd, buf: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    let ((received, _), _) = rustix::net::recv(socket, buf, RecvFlags::empty())?;
    Ok(received.len())
}

/// Who sent the first datagram in the queue, which stays there.
pub(crate) fn peek_sender(socket: &impl AsFd) -> io::Result<SocketAddr> {
    internet_address(&SockRef::from(socket).peek_sender()?)
}

/// The address a socket is bound to.
pub(crate) fn local_addr(socket: &impl AsFd) -> io::Result<SocketAddr> {
    internet_address(&SockRef::from(socket).local_addr()?)
}

/// Process, user and group of a Unix peer, as they were when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Credentials {
    /// `None` when the kernel names none, as for a process outside this PID namespace.
    pub(crate) pid: Option<i32>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Asks for the peer's credentials (`SO_PEERCRED`).
pub(crate) fn peer_credentials(socket: &impl AsFd) -> io::Result<Credentials> {
    // SAFETY: it is three integers.
    let peer: libc::ucred = unsafe { option(socket, libc::SOL_SOCKET, libc::SO_PEERCRED) }?;
    let pid = (peer.pid != 0).then_some(peer.pid);
    Ok(Credentials { pid, uid: peer.uid, gid: peer.gid })
}

/// Connections that wait to be accepted from a TCP socket that listens. The kernel tells it where it has the unacknowledged
/// segments of other sockets (`TCP_INFO`, `tcpi_unacked`).
pub(crate) fn waiting_connections(socket: &impl AsFd) -> io::Result<usize> {
    // SAFETY: it is integers.
    let info: libc::tcp_info = unsafe { option(socket, libc::IPPROTO_TCP, libc::TCP_INFO) }?;
    Ok(info.tcpi_unacked as usize)
}

/// Reads an option that is a structure. What the kernel does not write is zero.
///
/// # Safety
/// Any bytes make a valid `T`.
unsafe fn option<T>(socket: &impl AsFd, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed. Both pointers lead to live locals, and `length` is the
    // size of `value`, so the kernel writes within it.
    let result =
        unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut length) };
    match result {
        // SAFETY: by contract; every byte has been written.
        0 => Ok(unsafe { value.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The Unix address a path names: with a zero byte first, a name in the abstract namespace.
pub(crate) fn unix_path_address(path: &Path) -> io::Result<unix::SocketAddr> {
    match path.as_os_str().as_bytes() {
        [0, name @ ..] => unix::SocketAddr::from_abstract_name(name),
        _ => unix::SocketAddr::from_pathname(path),
    }
}

fn unix_address(addr: &unix::SocketAddr) -> io::Result<SockAddr> {
    match (addr.as_pathname(), addr.as_abstract_name()) {
        (Some(path), _) => SockAddr::unix(path),
        (None, Some(name)) => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())),
        (None, None) => SockAddr::unix(""),
    }
}

pub(super) fn std_unix_address(addr: &SockAddr) -> io::Result<unix::SocketAddr> {
    let named = match (addr.as_pathname(), addr.as_abstract_namespace()) {
        (Some(path), _) => unix::SocketAddr::from_pathname(path),
        (None, Some(name)) => unix::SocketAddr::from_abstract_name(name),
        (None, None) => unix::SocketAddr::from_pathname(""),
    };
    // The empty path is std's unnamed address. A peer may have a path one byte longer than std can hold; that must
    // not cost us the connection.
    named.or_else(|_| unix::SocketAddr::from_pathname(""))
}

pub(super) fn internet_address(addr: &SockAddr) -> io::Result<SocketAddr> {
    addr.as_socket().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "the address is neither IPv4 nor IPv6")
    })
}

/// One line per option: the two functions, the type, and what `socket2` calls them.
macro_rules! options {
    ($($(#[$doc:meta])* $get:ident, $set:ident: $Value:ty = $inner_get:ident, $inner_set:ident;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $get(socket: &impl AsFd) -> io::Result<$Value> {
            SockRef::from(socket).$inner_get()
        }

        $(#[$doc])*
        pub(crate) fn $set(socket: &impl AsFd, value: $Value) -> io::Result<()> {
            SockRef::from(socket).$inner_set(value)
        }
    )*};
}

options! {
    /// `SO_REUSEADDR`.
    reuseaddr, set_reuseaddr: bool = reuse_address, set_reuse_address;
    /// `SO_REUSEPORT`.
    reuseport, set_reuseport: bool = reuse_port, set_reuse_port;
    /// `SO_KEEPALIVE`.
    keepalive, set_keepalive: bool = keepalive, set_keepalive;
    /// `SO_LINGER`.
    linger, set_linger: Option<Duration> = linger, set_linger;
    /// `TCP_NODELAY`.
    nodelay, set_nodelay: bool = tcp_nodelay, set_tcp_nodelay;
    /// `TCP_QUICKACK`.
    quickack, set_quickack: bool = tcp_quickack, set_tcp_quickack;
    /// `SO_BROADCAST`.
    broadcast, set_broadcast: bool = broadcast, set_broadcast;
    /// `IP_MULTICAST_LOOP`.
    multicast_loop_v4, set_multicast_loop_v4: bool = multicast_loop_v4, set_multicast_loop_v4;
    /// `IP_MULTICAST_TTL`.
    multicast_ttl_v4, set_multicast_ttl_v4: u32 = multicast_ttl_v4, set_multicast_ttl_v4;
    /// `IPV6_MULTICAST_LOOP`.
    multicast_loop_v6, set_multicast_loop_v6: bool = multicast_loop_v6, set_multicast_loop_v6;
    /// `IP_TTL`.
    ttl, set_ttl: u32 = ttl_v4, set_ttl_v4;
    /// `IP_TOS`.
    tos_v4, set_tos_v4: u32 = tos_v4, set_tos_v4;
    /// `IPV6_TCLASS`.
    tclass_v6, set_tclass_v6: u32 = tclass_v6, set_tclass_v6;
}

/// `SO_SNDBUF`, in bytes.
pub(crate) fn send_buffer_size(socket: &impl AsFd) -> io::Result<u32> {
    SockRef::from(socket).send_buffer_size().map(from_c_int)
}

/// `SO_SNDBUF`, in bytes.
pub(crate) fn set_send_buffer_size(socket: &impl AsFd, size: u32) -> io::Result<()> {
    SockRef::from(socket).set_send_buffer_size(within_c_int(size))
}

/// `SO_RCVBUF`, in bytes.
pub(crate) fn recv_buffer_size(socket: &impl AsFd) -> io::Result<u32> {
    SockRef::from(socket).recv_buffer_size().map(from_c_int)
}

/// `SO_RCVBUF`, in bytes.
pub(crate) fn set_recv_buffer_size(socket: &impl AsFd, size: u32) -> io::Result<()> {
    SockRef::from(socket).set_recv_buffer_size(within_c_int(size))
}

/// A size that was a positive `int` in the kernel.
fn from_c_int(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// A size as large as asked for, but no larger than the kernel's `int`, which would turn it negative.
fn within_c_int(size: u32) -> usize {
    size.min(i32::MAX as u32) as usize
}

/// `SO_BINDTODEVICE`.
pub(crate) fn device(socket: &impl AsFd) -> io::Result<Option<Vec<u8>>> {
    SockRef::from(socket).device()
}

/// `SO_BINDTODEVICE`; `None` takes the binding away.
pub(crate) fn bind_device(socket: &impl AsFd, interface: Option<&[u8]>) -> io::Result<()> {
    SockRef::from(socket).bind_device(interface)
}

/// Makes a socket from elsewhere non-blocking: a blocking one would stop a whole shard.
pub(crate) fn set_nonblocking(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_nonblocking(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// The open flags of a descriptor, as the kernel tells them.
    fn flags(socket: &impl AsRawFd) -> i32 {
        let path = format!("/proc/self/fdinfo/{}", socket.as_raw_fd());
        let info = std::fs::read_to_string(path).expect("the descriptor is open");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
        i32::from_str_radix(flags.trim(), 8).expect("an octal number")
    }

    #[track_caller]
    fn assert_born_right(socket: &impl AsRawFd) {
        let flags = flags(socket);
        assert_eq!(flags & libc::O_NONBLOCK, libc::O_NONBLOCK, "non-blocking");
        assert_eq!(flags & libc::O_CLOEXEC, libc::O_CLOEXEC, "close-on-exec");
    }

    #[test]
    fn every_socket_is_born_nonblocking_and_close_on_exec() {
        for kind in [Kind::TcpV4, Kind::UdpV4, Kind::UnixStream, Kind::UnixDatagram] {
            assert_born_right(&open(kind).expect("a socket"));
        }
        let listener = listen(ANY_PORT, &ListenOptions::default()).expect("a listener");
        assert_born_right(&listener);
        assert_born_right(&bind_udp(ANY_PORT).expect("a socket"));
        let (a, b) = unix_pair(Kind::UnixStream).expect("a pair");
        assert_born_right(&a);
        assert_born_right(&b);

        let addr = listener.local_addr().expect("an address");
        let client = net::TcpStream::connect(addr).expect("it listens");
        let (accepted, peer) = accept(&listener).expect("a connection waits");
        assert_born_right(&accepted);
        assert_eq!(peer, client.local_addr().expect("an address"));
    }

    #[test]
    fn accepting_from_an_empty_queue_would_block() {
        let listener = listen(ANY_PORT, &ListenOptions::default()).expect("a listener");
        let error = accept(&listener).expect_err("nobody has come");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_port_that_could_be_shared_is_taken() {
        let sharing = ListenOptions { reuse_port: true, ..ListenOptions::default() };
        let first = listen(ANY_PORT, &sharing).expect("a listener");
        let addr = first.local_addr().expect("an address");
        assert!(port_is_taken(addr, false, None).expect("a probe"));
        // The probe is needed because this works.
        let second = listen(addr, &sharing).expect("the port is shared");
        drop((first, second));
        assert!(!port_is_taken(addr, false, None).expect("a probe"), "nobody listens any more");
        assert!(!port_is_taken(ANY_PORT, false, None).expect("a probe"), "port 0 is never taken");
    }

    #[test]
    fn a_port_of_closed_connections_can_be_bound_again() {
        let listener = listen(ANY_PORT, &ListenOptions::default()).expect("a listener");
        let addr = listener.local_addr().expect("an address");
        let mut client = net::TcpStream::connect(addr).expect("it listens");
        let (accepted, _) = accept(&listener).expect("a connection waits");
        // This end closes first, so the port keeps a connection in TIME_WAIT.
        drop((accepted, listener));
        assert_eq!(io::Read::read(&mut client, &mut [0]).expect("the end"), 0);
        drop(client);
        assert!(!port_is_taken(addr, false, None).expect("a probe"));
        listen(addr, &ListenOptions::default()).expect("the port is free");
    }

    #[test]
    fn only_v6_leaves_the_v4_port_free() {
        let v6 = "[::]:0".parse().expect("an address");
        let options = ListenOptions { only_v6: Some(true), ..ListenOptions::default() };
        // A port that the system gives for IPv6 may be somebody else's for IPv4: then another.
        let v4_is_free = || {
            let listener = listen(v6, &options)?;
            let port = listener.local_addr()?.port();
            listen((Ipv4Addr::UNSPECIFIED, port).into(), &ListenOptions::default())
        };
        // A machine without IPv6 has nothing to show here.
        if listen(v6, &options).is_ok() {
            assert!((0..20).any(|_| v4_is_free().is_ok()), "of 20 ports none was free");
        }
    }

    #[test]
    fn more_slices_than_the_kernel_takes_are_cut() {
        let (a, b) = unix_pair(Kind::UnixStream).expect("a pair");
        let slices = vec![IoSlice::new(b"x"); MAX_SLICES + 1];
        assert_eq!(send_vectored(&a, &slices).expect("sent"), MAX_SLICES);
        let mut received = [MaybeUninit::uninit(); MAX_SLICES + 1];
        assert_eq!(recv_uninit(&b, &mut received).expect("received"), MAX_SLICES);
    }

    #[test]
    fn unix_addresses_survive_the_way_there_and_back() {
        for path in ["/run/example", "\0example", ""] {
            let addr = unix_path_address(Path::new(path)).expect("an address");
            let back = std_unix_address(&unix_address(&addr).expect("an address")).expect("back");
            assert_eq!(back.as_pathname(), addr.as_pathname());
            assert_eq!(back.as_abstract_name(), addr.as_abstract_name());
            assert_eq!(back.is_unnamed(), addr.is_unnamed());
        }
    }

    #[test]
    fn a_connect_that_is_refused_says_so() {
        let gone = {
            let listener = listen(ANY_PORT, &ListenOptions::default()).expect("a listener");
            listener.local_addr().expect("an address")
        };
        let socket = open(Kind::tcp(gone)).expect("a socket");
        // Loopback answers before the call returns, or after it.
        let error = start_connect(&socket, gone)
            .and_then(|()| connect_outcome(&socket))
            .expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
