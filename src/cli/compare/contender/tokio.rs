//! Tokio in both shapes: one multi-thread runtime, and a current-thread runtime per core as a user would write it by hand.
//!
//! hyper has the same settings as in `server::connection`, and the listening sockets are made in the same way, so that
//! what differs is the scheduler.

use super::service::{Counts, Host, answer};
use super::work::compute;
use super::{ACCEPT_PAUSE, Failure, Options, for_good, listeners};
use crate::id::CpuId;
use crate::sys::affinity::pin_current_thread;
use ::tokio::net::TcpListener;
use ::tokio::runtime::{Builder, Runtime};
use ::tokio::sync::{mpsc, oneshot};
use ::tokio::task::{LocalSet, spawn_local};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::io::{self, Write};
use std::net::{self, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

/// How long a client may take for the head of a request, as in `ConnectionLimits`.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages that may wait for one runtime's thread; then whoever sends waits.
const QUEUE: usize = 1024;

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    http
}

/// Has every connection served by `serve`.
async fn accept_all(
    listener: net::TcpListener,
    serve: impl Fn(::tokio::net::TcpStream),
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => serve(stream),
            Err(_) => ::tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One multi-thread runtime, one listening socket, one loop that accepts.
pub(super) fn start_multi_thread(options: &Options) -> Result<(SocketAddr, Runtime), Failure> {
    let listener = listeners(options.listen, 1)?.remove(0);
    let address = listener.local_addr()?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(options.threads())
        .thread_name("contender-tokio")
        .enable_all()
        .build()?;
    // A process has one.
    static HOST: OnceLock<Pool> = OnceLock::new();
    let host = HOST.get_or_init(|| Pool { counts: Counts::new(options.threads()) });
    let http = http();
    // On a worker, so that a new connection's task starts in that worker's own queue.
    runtime.spawn(accept_all(listener, move |stream| {
        let service = service_fn(move |request| answer(host, request));
        drop(::tokio::spawn(http.serve_connection(TokioIo::new(stream), service)));
    }));
    Ok((address, runtime))
}

/// The workers of the multi-thread runtime.
struct Pool {
    counts: Counts,
}

impl Host for Pool {
    async fn elsewhere(&'static self, seed: u64) -> Option<u64> {
        ::tokio::spawn(async move { compute(seed) }).await.ok()
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }

    fn place(&self) -> usize {
        self.counts.next_place()
    }

    fn stats(&self) -> String {
        threads(&self.counts)
    }
}

fn threads(counts: &Counts) -> String {
    let threads: Vec<String> =
        counts.read().map(|requests| format!(r#"{{"requests":{requests}}}"#)).collect();
    format!(r#"{{"threads":[{}]}}"#, threads.join(","))
}

/// One pinned thread per CPU, each with a runtime and a listening socket of its own.
pub(super) fn start_per_core(options: &Options) -> Result<SocketAddr, Failure> {
    let cpus = options.cpus()?;
    let listeners = listeners(options.listen, cpus.len())?;
    let address = listeners[0].local_addr()?;
    let (inboxes, queues): (Vec<_>, Vec<_>) = cpus.iter().map(|_| mpsc::channel(QUEUE)).unzip();
    let counts = Counts::new(cpus.len());
    // A process has one.
    static HOST: OnceLock<Cores> = OnceLock::new();
    let host = HOST.get_or_init(|| Cores { counts, inboxes });
    for (index, ((cpu, listener), queue)) in cpus.into_iter().zip(listeners).zip(queues).enumerate()
    {
        let serve = move || for_good("a core", || serve_core(host, index, cpu, listener, queue));
        std::thread::Builder::new().name(format!("contender-{index}")).spawn(serve)?;
    }
    Ok(address)
}

fn serve_core(
    host: &'static Cores,
    index: usize,
    cpu: CpuId,
    listener: net::TcpListener,
    queue: mpsc::Receiver<Message>,
) -> io::Result<()> {
    if let Err(error) = pin_current_thread(cpu) {
        let _ = writeln!(io::stderr(), "corelane: not pinned to {cpu}: {error}");
    }
    CORE.set(index);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let http = http();
    LocalSet::new().block_on(&runtime, async {
        drop(spawn_local(answer_messages(queue)));
        let serve = |stream| {
            let service = service_fn(move |request| answer(host, request));
            drop(spawn_local(http.serve_connection(TokioIo::new(stream), service)));
        };
        accept_all(listener, serve).await
    })
}

thread_local! {
    /// Which of the cores this thread is.
    static CORE: Cell<usize> = const { Cell::new(0) };
}

/// A seed, and where the result goes.
type Message = (u64, oneshot::Sender<u64>);

async fn answer_messages(mut queue: mpsc::Receiver<Message>) {
    while let Some((seed, reply)) = queue.recv().await {
        // Whoever asked may have gone.
        let _ = reply.send(compute(seed));
    }
}

/// The threads with a runtime each.
struct Cores {
    counts: Counts,
    inboxes: Vec<mpsc::Sender<Message>>,
}

impl Host for Cores {
    async fn elsewhere(&'static self, seed: u64) -> Option<u64> {
        let next = &self.inboxes[(CORE.get() + 1) % self.inboxes.len()];
        let (reply, result) = oneshot::channel();
        next.send((seed, reply)).await.ok()?;
        result.await.ok()
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }

    fn place(&self) -> usize {
        CORE.get()
    }

    fn stats(&self) -> String {
        threads(&self.counts)
    }
}
