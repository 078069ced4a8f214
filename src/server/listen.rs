//! Binding: every address once per shard, or nothing.

use crate::error::{Error, ErrorKind};
use crate::sys::socket::{ListenOptions, listen, port_is_taken};
use std::net::{SocketAddr, TcpListener};

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
            Ok(true) => return Err(taken(wanted)),
            Err(error) => return Err(cannot_bind(wanted, error)),
        }
        let mut address = wanted;
        for listeners in &mut bound.by_shard {
            let options = ListenOptions { backlog, reuse_port: true, ..ListenOptions::default() };
            let listener =
                listen(address, &options).map_err(|error| cannot_bind(address, error))?;
            // The first socket of port 0 gets a port, which the others share.
            address = listener.local_addr().map_err(|error| cannot_bind(address, error))?;
            listeners.push(listener);
        }
        bound.addresses.push(address);
    }
    Ok(bound)
}

fn taken(address: SocketAddr) -> Error {
    let text = format!(
        "cannot listen on {address}: another program, or another instance of this one, listens there; stop it or choose \
         another port"
    );
    Error::new(ErrorKind::Bind, text)
}

fn cannot_bind(address: SocketAddr, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => taken(address),
        _ => Error::new(ErrorKind::Bind, format!("cannot listen on {address}: {error}"))
            .because(error),
    }
}
