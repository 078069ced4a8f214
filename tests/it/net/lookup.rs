//! From names to addresses.

use super::run;
use corelane::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket, lookup_host};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

async fn all(host: impl ToSocketAddrs) -> Vec<SocketAddr> {
    lookup_host(host).await.expect("addresses").collect()
}

#[test]
fn every_kind_of_address_means_itself() {
    run(|| async {
        let v4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80);
        let v6 = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 0);
        let (addr4, addr6) = (SocketAddr::V4(v4), SocketAddr::V6(v6));
        assert_eq!(all(v4).await, [addr4]);
        assert_eq!(all(v6).await, [addr6]);
        assert_eq!(all(addr4).await, [addr4]);
        assert_eq!(all((IpAddr::from(Ipv4Addr::LOCALHOST), 80)).await, [addr4]);
        assert_eq!(all((Ipv4Addr::LOCALHOST, 80)).await, [addr4]);
        assert_eq!(all((Ipv6Addr::LOCALHOST, 80)).await, [addr6]);
        assert_eq!(all(&[addr4, addr6][..]).await, [addr4, addr6]);
        assert_eq!(all("127.0.0.1:80").await, [addr4]);
        assert_eq!(all("[::1]:80").await, [addr6]);
        assert_eq!(all(String::from("127.0.0.1:80")).await, [addr4]);
        assert_eq!(all(("127.0.0.1", 80)).await, [addr4]);
        assert_eq!(all((String::from("::1"), 80)).await, [addr6]);
        assert_eq!(all(&&"127.0.0.1:80").await, [addr4]);
    });
}

#[test]
fn a_name_is_asked_of_the_system() {
    run(|| async {
        for found in [all("localhost:80").await, all(("localhost", 80)).await] {
            assert!(!found.is_empty());
            assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
        }
    });
}

#[test]
fn a_host_without_a_port_is_an_error() {
    run(|| async {
        let error = lookup_host("localhost").await.map(drop).expect_err("no port");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn no_address_at_all_is_an_error() {
    run(|| async {
        let none: &[SocketAddr] = &[];
        let errors = [
            TcpStream::connect(none).await.map(drop),
            TcpListener::bind(none).await.map(drop),
            UdpSocket::bind(none).await.map(drop),
        ];
        for error in errors {
            assert_eq!(error.expect_err("no address").kind(), ErrorKind::InvalidInput);
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let error = socket.send_to(b"x", none).await.expect_err("no address");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn binding_and_connecting_take_a_name() {
    run(|| async {
        let listener = TcpListener::bind("localhost:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let name = format!("localhost:{}", addr.port());
        let (connected, accepted) = futures::join!(TcpStream::connect(&name), listener.accept());
        let connected = connected.expect("it listens");
        assert_eq!(connected.local_addr().expect("an address"), accepted.expect("a peer").1);
    });
}
