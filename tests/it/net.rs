//! Sockets of every kind, with a real kernel on the other side.
//!
//! Nothing here sleeps: an order that matters is made by the exchange of bytes, or by what loopback guarantees (what
//! has been sent has arrived). A test that hangs fails after a generous while.

mod gathered;
mod gathered_in_pool;
mod lookup;
mod pipe;
mod ready;
mod shards;
mod sigpipe;
mod tcp;
mod tcp_options;
#[cfg(feature = "tokio")]
mod tokio_traits;
mod udp;
mod unix;

use corelane::net::{TcpListener, TcpStream, UnixStream};
use corelane::{Mode, Runtime};
use std::future::Future;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// How long a test may take before it counts as hanging. It measures nothing.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// Runs `body` in `corelane::block_on`, on a shard of a runtime and on a worker of a pool, and fails if it does not come to
/// an end.
fn run<F: Future<Output = ()> + 'static>(body: impl Fn() -> F + Send + Sync + 'static) {
    within_reason(move || {
        corelane::block_on(body());
        let body = Arc::new(body);
        let pool = Runtime::builder().mode(Mode::WorkStealing).start().expect("started");
        for runtime in [two_shards().unwrap_or_else(|| shards("1")), pool] {
            let last = runtime.handle().shards().last().expect("a shard");
            let body = body.clone();
            let task = runtime.handle().spawn_on(last, move || body()).expect("a shard with room");
            runtime.block_on(task).expect("no panic");
        }
    });
}

/// A runtime with two shards; nothing where there are not two CPUs.
fn two_shards() -> Option<Runtime> {
    let cpus = thread::available_parallelism().expect("a number of CPUs").get();
    (cpus > 1).then(|| shards("2"))
}

fn shards(count: &str) -> Runtime {
    let cores = count.parse().expect("a number of cores");
    Runtime::builder().cores(cores).start().expect("started")
}

/// Runs `test` on a thread of its own and fails if it does not come to an end.
fn within_reason(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        // Nobody listens any more if the test has been given up.
        let _ = done.send(());
    });
    match ended.recv_timeout(HANGS_AFTER) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        // Done, or panicked.
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Two connected TCP streams: who connected, and who accepted.
async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let connecting = TcpStream::connect(listener.local_addr().expect("an address"));
    let (connected, accepted) = futures::join!(connecting, listener.accept());
    (connected.expect("it listens"), accepted.expect("somebody comes").0)
}

/// Writes until the kernel takes no more, and says how much it took.
async fn fill(try_write: impl Fn(&[u8]) -> io::Result<usize>) -> usize {
    let mut written = 0;
    loop {
        match try_write(&[7; 16 * 1024]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return written,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads exactly `expected` bytes, trying whenever the stream says that it can be read.
async fn drain(stream: &UnixOrTcp<'_>, expected: usize) {
    let mut left = expected;
    let mut buf = vec![0; 64 * 1024];
    while left > 0 {
        stream.readable().await.expect("readable");
        match stream.try_read(&mut buf) {
            Ok(0) => panic!("the end, {left} bytes too early"),
            Ok(n) => left -= n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A stream of either kind.
enum UnixOrTcp<'a> {
    Unix(&'a UnixStream),
    Tcp(&'a TcpStream),
}

impl UnixOrTcp<'_> {
    async fn readable(&self) -> io::Result<()> {
        match self {
            UnixOrTcp::Unix(stream) => stream.readable().await,
            UnixOrTcp::Tcp(stream) => stream.readable().await,
        }
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            UnixOrTcp::Unix(stream) => stream.try_read(buf),
            UnixOrTcp::Tcp(stream) => stream.try_read(buf),
        }
    }
}
