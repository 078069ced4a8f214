//! HTTPS by hand on every shard: `corelane::tls` under hyper. Ctrl-C ends it.
//!
//! ```text
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out chain.pem \
//!     -subj /CN=localhost -addext subjectAltName=DNS:localhost
//! cargo run --release --features tls --example https -- 127.0.0.1:8443 chain.pem key.pem
//! curl --cacert chain.pem https://localhost:8443
//! ```

use corelane::http::Timer;
use corelane::net::{Accepted, Acceptor, TcpListener, TcpSocket, TcpStream};
use corelane::{Runtime, ShardId, signal::ctrl_c, spawn_local, time::timeout, tls};
use hyper::{Response, server::conn::http1, service::service_fn};
use std::{convert::Infallible, error::Error, io, net::SocketAddr, time::Duration};

/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, chain, key] = &arguments[..] else { return Err("ADDRESS CHAIN KEY".into()) };
    let mut address: SocketAddr = address.parse()?;
    let tls = tls::Tls::builder().certificate(chain, key).alpn(["http/1.1"]).build()?;
    let runtime = Runtime::builder().start()?;
    for shard in runtime.handle().shards() {
        let listener = listen(address)?;
        address = listener.local_addr()?; // With port 0 the first gets a port that the others share.
        let tls = tls.clone();
        drop(runtime.handle().spawn_on(shard, move || serve(shard, listener, tls.acceptor()))?);
    }
    println!("listening on https://{address}");
    runtime.block_on(ctrl_c())?;
    runtime.shutdown(Duration::from_secs(1));
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn serve(shard: ShardId, listener: TcpListener, tls: tls::Acceptor) {
    let mut acceptor = Acceptor::new(listener);
    while let Ok(accepted) = acceptor.accept().await {
        let Accepted::Connection(stream, _peer) = accepted else { continue };
        drop(spawn_local(connection(shard, tls.accept(stream))));
    }
}

async fn connection(shard: ShardId, handshake: tls::Accept<TcpStream>) {
    // The client may be silent for too long, or speak no TLS.
    let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, handshake).await else { return };
    let text = format!("Hello from {shard}, by {}.\n", stream.version());
    let service =
        service_fn(move |_| std::future::ready(Ok::<_, Infallible>(Response::new(text.clone()))));
    let _ = http1::Builder::new().timer(Timer).serve_connection(stream, service).await;
}
