//! Corelane's own server, which speaks HTTP/1 and HTTP/2, with every limit on.

use std::error::Error;

use corelane::server::Server;
use corelane::{Cores, CpuId, Runtime};
use hyper::service::service_fn;

use super::{Options, announce, hello};

/// Serves with one shard per thread, pinned by the runtime.
pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let cores = Cores::List(options.cpus().map(CpuId).collect());
    let runtime = Runtime::builder().cores(cores).start()?;
    let server = Server::builder().listen(options.listen);
    let server = server.start(runtime.handle(), |_shard| service_fn(hello))?;
    announce(server.local_addrs()[0])?;
    // Until a signal ends the process.
    loop {
        std::thread::park();
    }
}
