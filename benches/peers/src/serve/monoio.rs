//! monoio on its readiness driver, which is the one that is nearest to the other contenders.

use std::error::Error;
use std::io;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use monoio::io::IntoPollIo;
use monoio::net::TcpListener;
use monoio::{LegacyDriver, RuntimeBuilder};
use monoio_compat::hyper::MonoioIo;

use super::{ACCEPT_PAUSE, Options, hello, on_each_cpu};

/// Serves with one pinned runtime per thread.
pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let http = options.http();
    on_each_cpu(options, move |listener| {
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
        runtime.block_on(accept(listener, http.clone()))
    })
}

async fn accept(listener: std::net::TcpListener, http: http1::Builder) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            monoio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A connection that is gone already fails at its first read instead.
        let _ = stream.set_nodelay(true);
        let Ok(stream) = stream.into_poll_io() else { continue };
        monoio::spawn(http.serve_connection(MonoioIo::new(stream), service_fn(hello)));
    }
}
