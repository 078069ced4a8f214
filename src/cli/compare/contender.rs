//! `corelane contender NAME`: one server of one architecture, as a process of its own, for `corelane compare`.
//!
//! Hidden: a part of the measurement, not of the product. All contenders do the same work (`work`) behind listening
//! sockets made in the same way; those that hyper serves share its settings and the service (`service`).
//!
//! The process says `listening on http://ADDRESS` and serves until SIGTERM or SIGINT, which end it at once and with 0: by
//! then whoever measures has stopped, so there is nothing to drain. With `--parent-pipe` the end of standard input ends it
//! likewise. A server that cannot go on ends the process with 1.

mod ours;
mod service;
mod threads;
mod tokio;
mod work;

pub(super) use work::BYTES_MAX;

use crate::cli::CANNOT_START;
use crate::config::address;
use crate::id::CpuId;
use crate::mode::Mode;
use crate::runtime::block_on::block_on;
use crate::signal::{Signal, SignalKind, signal};
use crate::sys::cpus;
use crate::sys::socket::{ListenOptions, listen};
use std::any::Any;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::task::Poll;
use std::time::Duration;

/// How long a loop that accepts waits after an error: most are shortages that pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Why a contender does not start.
type Failure = Box<dyn std::error::Error>;

/// The flags of `contender`.
#[derive(clap::Args, Clone)]
pub(crate) struct Options {
    /// The architecture.
    #[arg(value_enum)]
    name: Name,

    /// Address and port to listen on. Port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0", value_parser = address::parse)]
    listen: SocketAddr,

    /// Threads that serve, each on a CPU of its own if it pins; blocking and thread-per-connection have as many as they have.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,

    /// Answers are large: what can choose sends them from where they are instead of copying them. Tokio's two always do.
    #[arg(long)]
    large_answers: bool,

    /// Connections of thread-per-core move between two requests.
    #[arg(long)]
    rebalance: bool,

    /// End when standard input ends: the parent holds its other end, so this process ends with it, whatever ends that.
    #[arg(long)]
    parent_pipe: bool,
}

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// This project's: pinned shards, nothing shared.
    ThreadPerCore,
    /// This project's: one pool of workers.
    WorkStealing,
    /// Tokio's multi-thread runtime.
    Tokio,
    /// Pinned threads with one of Tokio's current-thread runtimes each.
    TokioPerCore,
    /// One thread that serves one connection after the other.
    Blocking,
    /// A thread for each connection.
    ThreadPerConnection,
}

/// Serves until a signal; returns the exit status only if it could not start.
pub(crate) fn run(options: &Options) -> ExitCode {
    let failed = match serve(options) {
        Ok(never) => match never {},
        Err(failed) => failed,
    };
    let _ = writeln!(io::stderr(), "corelane: {failed}");
    ExitCode::from(CANNOT_START)
}

/// What is never returned.
enum Never {}

fn serve(options: &Options) -> Result<Never, Failure> {
    if options.parent_pipe {
        std::thread::Builder::new().name("contender-parent".into()).spawn(end_with_stdin)?;
    }
    // Before anything listens, so that a signal during the start is not lost.
    let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let (address, _kept) = start(options)?;
    let mut output = io::stdout().lock();
    writeln!(output, "listening on http://{address}").and_then(|()| output.flush())?;
    drop(output);
    block_on(first_of(signals));
    std::process::exit(0)
}

/// Starts the server. What is returned besides the address must be kept.
fn start(options: &Options) -> Result<(SocketAddr, Box<dyn Any>), Failure> {
    let alone = |address| (address, Box::new(()) as Box<dyn Any>);
    match options.name {
        Name::ThreadPerCore => ours::start(options, Mode::ThreadPerCore),
        Name::WorkStealing => ours::start(options, Mode::WorkStealing),
        Name::Tokio => {
            let (address, runtime) = tokio::start_multi_thread(options)?;
            Ok((address, Box::new(runtime)))
        }
        Name::TokioPerCore => tokio::start_per_core(options).map(alone),
        Name::Blocking => threads::start_blocking(options).map(alone),
        Name::ThreadPerConnection => threads::start_per_connection(options).map(alone),
    }
}

async fn first_of(mut signals: [Signal; 2]) {
    poll_fn(|context| {
        let come = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if come { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Reads standard input to its end, and ends the process.
fn end_with_stdin() {
    let mut ignored = [0; 64];
    loop {
        match io::stdin().read(&mut ignored) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => std::process::exit(0),
            Ok(_) => {}
        }
    }
}

/// Runs a thread that must not end while the process serves: its error or panic ends the process.
fn for_good(what: &str, serve: impl FnOnce() -> io::Result<()>) {
    // Nothing is looked at after a panic.
    let why = match catch_unwind(AssertUnwindSafe(serve)) {
        Ok(Ok(())) => "it has ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it has panicked".to_owned(),
    };
    give_up(&format!("{what} does not serve any more: {why}"))
}

/// Ends the process, which has failed.
fn give_up(why: &str) -> ! {
    let _ = writeln!(io::stderr(), "corelane: {why}");
    std::process::exit(1)
}

/// So many non-blocking sockets that listen on one address, set up as those of `server::listen`. The port is chosen once if
/// it is 0; more than one socket share it.
fn listeners(wanted: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let options =
        ListenOptions { reuse_port: count > 1, nodelay: true, ..ListenOptions::default() };
    let mut address = wanted;
    let mut listeners = Vec::new();
    for _ in 0..count {
        let listener = listen(address, &options).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

impl Options {
    fn threads(&self) -> usize {
        self.threads.into()
    }

    /// The CPUs of those that pin, one for each thread: the first that the process may use.
    fn cpus(&self) -> Result<Vec<CpuId>, Failure> {
        Ok(first(&cpus::allowed()?, self.threads())?)
    }
}

/// So many of the allowed CPUs.
fn first(allowed: &[CpuId], count: usize) -> Result<Vec<CpuId>, String> {
    let cpus = allowed.get(..count).ok_or_else(|| {
        let allowed = allowed.len();
        format!("{count} threads want a CPU each, and this process may use {allowed}")
    })?;
    Ok(cpus.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn threads_get_the_first_of_the_allowed_cpus() {
        let cpus = |numbers: &[usize]| numbers.iter().copied().map(CpuId).collect::<Vec<_>>();
        let allowed = cpus(&[0, 2, 3, 7]);
        assert_eq!(first(&allowed, 2), Ok(cpus(&[0, 2])));
        let error = first(&allowed, 5).expect_err("too many");
        assert_eq!(error, "5 threads want a CPU each, and this process may use 4");
    }

    #[test]
    fn names_are_those_of_the_tables() {
        let names: Vec<String> = Name::value_variants()
            .iter()
            .filter_map(|name| name.to_possible_value())
            .map(|value| value.get_name().to_owned())
            .collect();
        // Those that `compare` starts, by the names that it uses.
        assert_eq!(names, crate::cli::compare::run::OURS.map(|(name, _)| name));
    }

    #[test]
    fn several_sockets_share_one_port() {
        let listeners = listeners("127.0.0.1:0".parse().expect("an address"), 3).expect("a port");
        let address = listeners[0].local_addr().expect("bound");
        assert!(listeners.iter().all(|other| other.local_addr().ok() == Some(address)));
    }
}
