//! Corelane: one shard per CPU, each with its own listener, hyper on the runtime's own adapter.

use std::error::Error;
use std::io;
use std::net;

use corelane::http::Io;
use corelane::net::TcpListener;
use corelane::{Cores, CpuId, Runtime, ShardId};
use hyper::server::conn::http1;
use hyper::service::service_fn;

use super::{ACCEPT_PAUSE, Options, announce, hello};
use crate::os;

/// Serves with one shard per thread, pinned by the runtime.
pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let listeners = os::listeners(options.listen, options.threads)?;
    let address = listeners[0].local_addr()?;
    let cores = Cores::List(options.cpus().map(CpuId).collect());
    let runtime = Runtime::builder().cores(cores).start()?;
    let mut acceptors = Vec::new();
    for (shard, listener) in (0..).map(ShardId::new).zip(listeners) {
        let http = options.http();
        let acceptor = runtime.handle().spawn_on(shard, move || accept(listener, http));
        acceptors.push(acceptor.map_err(|error| error.to_string())?);
    }
    announce(address)?;
    for acceptor in acceptors {
        corelane::block_on(acceptor)??;
    }
    Ok(())
}

async fn accept(listener: net::TcpListener, http: http1::Builder) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            corelane::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A connection that is gone already fails at its first read instead.
        let _ = stream.set_nodelay(true);
        corelane::spawn_local(http.serve_connection(Io::new(stream), service_fn(hello)));
    }
}
