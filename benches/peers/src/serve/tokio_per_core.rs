//! Tokio's current-thread runtime by hand as a thread-per-core server.

use std::error::Error;
use std::io;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::{ACCEPT_PAUSE, Options, hello, on_each_cpu};

/// Serves with one pinned runtime per thread.
pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let http = options.http();
    on_each_cpu(options, move |listener| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, accept(listener, http.clone()))
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
        let connection = http.serve_connection(TokioIo::new(stream), service_fn(hello));
        tokio::task::spawn_local(connection);
    }
}
