//! The HTTP servers that are compared, and all they have in common.
//!
//! Every contender but the raw floor answers through hyper's `serve_connection` with the same
//! settings and the same service function; what differs is the loop that drives it. A server runs
//! until SIGTERM or SIGINT and then exits with 0, so that a profiler can write its file.

mod hyper_floor;
mod monoio;
mod raw_floor;
mod tokio_auto;
mod tokio_multi;
mod tokio_per_core;

#[cfg(not(feature = "corelane"))]
#[path = "absent.rs"]
mod corelane;
#[cfg(feature = "corelane")]
mod corelane;

#[cfg(not(feature = "corelane"))]
#[path = "absent.rs"]
mod corelane_server;
#[cfg(feature = "corelane")]
mod corelane_server;

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Request, Response};

use crate::os;

/// How long an acceptor waits after an error of `accept` that is not the connection's own.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A server that can be started by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    /// This project's runtime.
    Corelane,
    /// Tokio's multi-thread runtime, nothing pinned.
    Tokio,
    /// Tokio's current-thread runtime, one per CPU, pinned, SO_REUSEPORT.
    TokioPerCore,
    /// monoio on its readiness (mio) driver, one runtime per CPU, pinned, SO_REUSEPORT.
    Monoio,
    /// This project's server, of HTTP/1 and HTTP/2.
    CorelaneServer,
    /// hyper-util's server of both versions on Tokio's multi-thread runtime.
    TokioAuto,
    /// The same on Tokio's current-thread runtime, one per CPU, pinned, SO_REUSEPORT.
    TokioPerCoreAuto,
    /// A hand-written epoll loop under hyper: the least that can hold it.
    HyperFloor,
    /// A hand-written epoll loop with a fixed answer and no HTTP library.
    RawFloor,
}

/// How a server is started.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Address to listen on; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Number of serving threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// CPU of the first serving thread, for contenders that pin; the others follow it.
    #[arg(long, default_value_t = 0)]
    first_cpu: usize,
    /// Turn on hyper's `pipeline_flush`.
    #[arg(long)]
    pipeline_flush: bool,
}

impl Options {
    /// The hyper settings of this run: the defaults and no timer.
    fn http(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder.pipeline_flush(self.pipeline_flush);
        builder
    }

    /// The CPUs of the pinned contenders, one per thread.
    fn cpus(&self) -> impl Iterator<Item = usize> {
        self.first_cpu..self.first_cpu + self.threads
    }
}

/// Serves until a signal ends the process.
pub(crate) fn run(contender: Contender, options: &Options) -> Result<(), Box<dyn Error>> {
    if options.threads == 0 {
        return Err("--threads must be at least 1".into());
    }
    os::raise_file_limit();
    os::exit_on_signal(0, || ())?;
    match contender {
        Contender::Corelane => corelane::run(options),
        Contender::Tokio => tokio_multi::run(options),
        Contender::TokioPerCore => tokio_per_core::run(options),
        Contender::Monoio => monoio::run(options),
        Contender::CorelaneServer => corelane_server::run(options),
        Contender::TokioAuto => tokio_auto::run(options),
        Contender::TokioPerCoreAuto => tokio_auto::run_per_core(options),
        Contender::HyperFloor => hyper_floor::run(options),
        Contender::RawFloor => raw_floor::run(options),
    }
}

/// The one service: 13 bytes of text for whatever is asked.
async fn hello<B>(_request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"Hello, World!")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Tells whoever started the server where it is.
fn announce(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    out.flush()
}

/// Runs `serve` on one pinned thread per CPU, each with its own listener on the shared port.
///
/// Returns when a thread fails; otherwise never.
fn on_each_cpu<F>(options: &Options, serve: F) -> Result<(), Box<dyn Error>>
where
    F: Fn(TcpListener) -> io::Result<()> + Clone + Send + 'static,
{
    let listeners = os::listeners(options.listen, options.threads)?;
    let address = listeners[0].local_addr()?;
    let mut threads = Vec::new();
    for (cpu, listener) in options.cpus().zip(listeners) {
        let serve = serve.clone();
        let body = move || {
            if let Err(error) = os::pin(&[cpu]) {
                eprintln!("cannot pin to CPU {cpu}, going on unpinned: {error}");
            }
            serve(listener)
        };
        threads.push(thread::Builder::new().name(format!("cpu-{cpu}")).spawn(body)?);
    }
    announce(address)?;
    for thread in threads {
        thread.join().map_err(|_| "a serving thread panicked")??;
    }
    Ok(())
}
