//! hyper-util's server of HTTP/1 and HTTP/2 on Tokio, both ways, with what Corelane's server sets of HTTP/2.

use std::error::Error;
use std::io;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::{ACCEPT_PAUSE, Options, announce, hello, on_each_cpu};
use crate::os;

/// Serves with `options.threads` workers of one runtime.
pub(super) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let listener = os::listeners(options.listen, 1)?.remove(0);
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // Accepted on a worker, so that a new connection's task starts in that worker's own queue.
        let acceptor = tokio::spawn(serve(listener));
        announce(address)?;
        Ok(acceptor.await??)
    })
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let (listener, http) = (TcpListener::from_std(listener)?, http(TokioExecutor::new()));
    loop {
        let (stream, http) = (accept(&listener).await, http.clone());
        tokio::spawn(async move {
            let _ = http.serve_connection(TokioIo::new(stream), service_fn(hello)).await;
        });
    }
}

/// Serves with one pinned runtime per thread.
pub(super) fn run_per_core(options: &Options) -> Result<(), Box<dyn Error>> {
    on_each_cpu(options, move |listener| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let http = http(Local);
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let stream = accept(&listener).await;
                let http = http.clone();
                tokio::task::spawn_local(async move {
                    let _ = http.serve_connection(TokioIo::new(stream), service_fn(hello)).await;
                });
            }
        })
    })
}

/// Streams are tasks of the same thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

fn http<E: Clone>(executor: E) -> auto::Builder<E> {
    let mut http = auto::Builder::new(executor);
    http.http2()
        .max_concurrent_streams(200)
        .max_header_list_size(16 << 10)
        .max_send_buf_size(64 << 10)
        .initial_stream_window_size(512 << 10)
        .initial_connection_window_size(4 << 20);
    http
}

async fn accept(listener: &TcpListener) -> tokio::net::TcpStream {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A connection that is gone already fails at its first read instead.
        let _ = stream.set_nodelay(true);
        return stream;
    }
}
