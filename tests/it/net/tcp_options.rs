//! Options of TCP sockets, and sockets that are not connected yet.

use super::{run, tcp_pair};
use corelane::net::{TcpListener, TcpSocket, TcpStream};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

#[test]
fn options_of_a_stream_are_read_as_they_were_set() {
    run(|| async {
        let (stream, _peer) = tcp_pair().await;
        for on in [true, false] {
            stream.set_nodelay(on).expect("set");
            assert_eq!(stream.nodelay().expect("read"), on);
            stream.set_quickack(on).expect("set");
            assert_eq!(stream.quickack().expect("read"), on);
        }
        stream.set_ttl(33).expect("set");
        assert_eq!(stream.ttl().expect("read"), 33);
        assert_eq!(stream.linger().expect("read"), None);
        stream.set_linger(Some(Duration::from_secs(2))).expect("set");
        assert_eq!(stream.linger().expect("read"), Some(Duration::from_secs(2)));
        stream.set_zero_linger().expect("set");
        assert_eq!(stream.linger().expect("read"), Some(Duration::ZERO));
        stream.set_linger(None).expect("set");
        assert_eq!(stream.linger().expect("read"), None);
        assert!(stream.take_error().expect("asked").is_none());
    });
}

#[test]
fn options_of_a_socket_are_read_as_they_were_set() {
    let socket = TcpSocket::new_v4().expect("a socket");
    for on in [true, false] {
        socket.set_keepalive(on).expect("set");
        assert_eq!(socket.keepalive().expect("read"), on);
        socket.set_reuseaddr(on).expect("set");
        assert_eq!(socket.reuseaddr().expect("read"), on);
        socket.set_reuseport(on).expect("set");
        assert_eq!(socket.reuseport().expect("read"), on);
        socket.set_nodelay(on).expect("set");
        assert_eq!(socket.nodelay().expect("read"), on);
    }
    socket.set_send_buffer_size(10_000).expect("set");
    assert!(socket.send_buffer_size().expect("read") >= 10_000);
    socket.set_recv_buffer_size(10_000).expect("set");
    assert!(socket.recv_buffer_size().expect("read") >= 10_000);
    socket.set_recv_buffer_size(u32::MAX).expect("cut to what the system allows");
    socket.set_tos_v4(0x10).expect("set");
    assert_eq!(socket.tos_v4().expect("read"), 0x10);
    socket.set_zero_linger().expect("set");
    assert_eq!(socket.linger().expect("read"), Some(Duration::ZERO));
    assert_eq!(socket.device().expect("read"), None);
    assert!(socket.take_error().expect("asked").is_none());
}

#[test]
fn options_survive_connecting_and_listening() {
    run(|| async {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(any_port()).expect("bound");
        let addr = socket.local_addr().expect("an address");
        let listener = socket.listen(16).expect("listening");
        assert_eq!(listener.local_addr().expect("an address"), addr);

        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_nodelay(true).expect("set");
        socket.bind(any_port()).expect("bound");
        let local = socket.local_addr().expect("an address");
        let (connected, accepted) = futures::join!(socket.connect(addr), listener.accept());
        let connected = connected.expect("it listens");
        assert!(connected.nodelay().expect("read"));
        assert_eq!(connected.local_addr().expect("an address"), local);
        assert_eq!(accepted.expect("a peer").1, local);
    });
}

#[test]
fn a_port_is_shared_only_by_those_who_say_so() {
    run(|| async {
        let sharing = || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseport(true).expect("set");
            socket
        };
        let first = sharing();
        first.bind(any_port()).expect("bound");
        let first = first.listen(16).expect("listening");
        let addr = first.local_addr().expect("an address");
        let second = sharing();
        second.bind(addr).expect("shared");
        let _second = second.listen(16).expect("listening");
        let error = TcpListener::bind(addr).await.expect_err("not shared");
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn a_listener_binds_where_old_connections_linger() {
    run(|| async {
        let listener = TcpListener::bind(any_port()).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (client, accepted) = futures::join!(TcpStream::connect(addr), listener.accept());
        let (client, (accepted, _)) = (client.expect("it listens"), accepted.expect("a peer"));
        // This end closes first, so the port keeps a connection in TIME_WAIT.
        drop((accepted, listener));
        client.readable().await.expect("the end");
        assert_eq!(client.try_read(&mut [0]).expect("the end"), 0);
        drop(client);
        TcpListener::bind(addr).await.expect("bound at once");
    });
}

#[test]
fn ipv6_sockets_have_their_own_options() {
    run(|| async {
        // A machine without IPv6 has nothing to show here.
        let Ok(socket) = TcpSocket::new_v6() else { return };
        socket.set_tclass_v6(0x20).expect("set");
        assert_eq!(socket.tclass_v6().expect("read"), 0x20);
        let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
        let addr = listener.local_addr().expect("an address");
        let (connected, accepted) = futures::join!(socket.connect(addr), listener.accept());
        connected.expect("it listens");
        assert!(accepted.expect("a peer").1.is_ipv6());
    });
}

#[test]
fn a_socket_from_elsewhere_does_not_block() {
    run(|| async {
        let listener = TcpListener::bind(any_port()).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        // An unconnected blocking socket, as a foreign library would hand it over.
        let foreign = OwnedFd::from(TcpSocket::new_v4().expect("a socket"));
        let foreign = std::net::TcpStream::from(foreign);
        foreign.set_nonblocking(false).expect("blocking");
        let socket = TcpSocket::from_std_stream(foreign);
        let (connected, accepted) = futures::join!(socket.connect(addr), listener.accept());
        let (connected, _accepted) = (connected.expect("it listens"), accepted.expect("a peer"));
        let error = connected.try_read(&mut [0]).expect_err("nothing has arrived");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let fd = connected.as_raw_fd();
        assert_eq!(connected.as_fd().as_raw_fd(), fd);
        assert_eq!(connected.into_std().expect("the socket").into_raw_fd(), fd);
    });
}
