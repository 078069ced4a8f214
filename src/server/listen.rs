//! Binding: every address once per shard, or nothing.

use crate::error::{Error, ErrorKind};
use crate::sys::socket::{ListenOptions, listen, port_is_taken};
use std::net::{IpAddr, SocketAddr, TcpListener};

/// Sockets that listen, grouped by the shard that will own them.
pub(super) struct Bound {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) by_shard: Vec<Vec<TcpListener>>,
}

/// Binds each address `shards` times. On error every socket made so far is closed.
pub(super) fn bind_all(
    addresses: &[SocketAddr],
    shards: usize,
    backlog: u32,
) -> Result<Bound, Error> {
    let mut bound =
        Bound { addresses: Vec::new(), by_shard: (0..shards).map(|_| Vec::new()).collect() };
    for &wanted in addresses {
        // With SO_REUSEPORT a second instance of a program would silently share the port with the first.
        match port_is_taken(wanted) {
            Ok(false) => {}
            Ok(true) => return Err(taken(wanted, &bound.addresses)),
            Err(error) => return Err(cannot_bind(wanted, error, &bound.addresses)),
        }
        let mut address = wanted;
        for listeners in &mut bound.by_shard {
            // Small responses must not wait for the peer's acknowledgement.
            let options = ListenOptions {
                backlog,
                reuse_port: true,
                nodelay: true,
                ..ListenOptions::default()
            };
            let failed = |error| cannot_bind(address, error, &bound.addresses);
            let listener = listen(address, &options).map_err(failed)?;
            // The first socket of port 0 gets a port, which the others share.
            address = listener.local_addr().map_err(failed)?;
            listeners.push(listener);
        }
        bound.addresses.push(address);
    }
    Ok(bound)
}

/// `ours` are the addresses that are listened on by now.
fn taken(address: SocketAddr, ours: &[SocketAddr]) -> Error {
    let why = match ours.iter().find(|&&other| overlap(address, other)) {
        Some(&other) if other == address => "it was given twice".to_owned(),
        Some(other) => format!("{other}, which was given too, includes it or is included"),
        None => "another program, or another instance of this one, listens there; stop it or choose another port"
            .to_owned(),
    };
    Error::new(ErrorKind::Bind, format!("cannot listen on {address}: {why}"))
}

/// Whether there are connections that both would be for.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // Unless a socket is told otherwise, that of any IPv6 address takes those of IPv4 too.
    let includes = |all: IpAddr, ip: IpAddr| {
        all == ip || (all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4()))
    };
    one.port() == other.port() && (includes(one.ip(), other.ip()) || includes(other.ip(), one.ip()))
}

fn cannot_bind(address: SocketAddr, error: std::io::Error, ours: &[SocketAddr]) -> Error {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => taken(address, ours),
        _ => Error::new(ErrorKind::Bind, format!("cannot listen on {address}: {error}"))
            .because(error),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn connections_send_small_responses_at_once() {
        let any = "127.0.0.1:0".parse().expect("an address");
        let bound = bind_all(&[any], 1, 16).expect("a port");
        let _client = std::net::TcpStream::connect(bound.addresses[0]).expect("it listens");
        let (accepted, _) = bound.by_shard[0][0].accept().expect("it has come");
        assert!(accepted.nodelay().expect("asked"));
    }
}
