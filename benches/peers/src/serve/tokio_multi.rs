//! Tokio's multi-thread runtime: one listener, tasks wherever a worker takes them.

use std::error::Error;
use std::io;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{ACCEPT_PAUSE, Options, announce, hello};
use crate::os;

/// Serves with `options.threads` workers.
pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let listener = os::listeners(options.listen, 1)?.remove(0);
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .enable_all()
        .build()?;
    let http = options.http();
    runtime.block_on(async {
        // Accepted on a worker, so that a new connection's task starts in that worker's own queue.
        let acceptor = tokio::spawn(accept(listener, http));
        announce(address)?;
        Ok(acceptor.await??)
    })
}

async fn accept(listener: std::net::TcpListener, http: http1::Builder) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A connection that is gone already fails at its first read instead.
        let _ = stream.set_nodelay(true);
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(hello)));
    }
}
