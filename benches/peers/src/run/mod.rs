//! The runner: starts every contender in turn, round by round, and prints medians and paired ratios.
//!
//! A round runs each contender once under the same load, in an order that rotates; a ratio is taken
//! within a round, so that a drift of the machine over minutes does not enter it. Every process is
//! started by this one and ends with it.

mod contender;
mod http2;
mod idle;
mod instructions;
mod load;
mod machine;
mod operations;
mod process;
mod report;
mod scratch;
mod syscalls;
mod wrk;

use std::error::Error;
use std::time::Duration;

use clap::ValueEnum;

use self::contender::Contender;
use self::scratch::Scratch;
use crate::{ops, os};

/// Contenders that run only when they are named.
#[cfg(feature = "corelane")]
const NOT_BY_DEFAULT: &[&str] = &["raw-floor", "line"];
#[cfg(not(feature = "corelane"))]
const NOT_BY_DEFAULT: &[&str] = &["raw-floor", "line", "corelane"];

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Keep-alive requests: one thread at 64 and 512 connections, two threads at 1,000.
    Http,
    /// HTTP/2 with 100 streams on each of 32 connections, to the servers that speak it.
    Http2,
    /// Runtime operations against the other runtimes.
    Ops,
    /// User-space instructions per request, under cachegrind.
    Instructions,
    /// System calls per request.
    Syscalls,
    /// 10,000 idle connections: memory and CPU.
    Idle,
    /// A connection per request.
    Churn,
    /// Requests pipelined 16 deep.
    Pipeline,
    /// Two serving threads that share their CPUs with a client thread.
    Contended,
    /// All of them but `http2`, which has servers of its own.
    All,
}

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What to measure.
    #[arg(default_value = "all")]
    target: Target,
    /// Rounds; each contender runs once in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load in each run.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Only these contenders, comma-separated.
    #[arg(long, value_delimiter = ',')]
    contender: Vec<String>,
    /// Another server: NAME=COMMAND, where {addr}, {cpus} and {threads} are filled in.
    #[arg(long, value_name = "NAME=COMMAND")]
    server: Vec<String>,
}

/// What every part of a run needs.
struct Settings {
    rounds: usize,
    load_time: Duration,
    /// The two CPUs in use: the server's or near end's, and the client's or far end's.
    cpus: [usize; 2],
    /// The servers of this run.
    contenders: Vec<Contender>,
    scratch: Scratch,
}

/// Measures what is asked and ends with the line that makes the figures reproducible.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let scratch = Scratch::new()?;
    os::exit_on_signal(130, scratch.remover())?;
    os::raise_file_limit();
    let (servers, runtimes) = choose(options)?;
    let settings = Settings {
        rounds: options.rounds.max(1),
        load_time: Duration::from_secs(options.seconds.max(1)),
        cpus: os::two_cpus()?,
        contenders: servers,
        scratch,
    };
    let all = options.target == Target::All;
    let wants = |target| all || options.target == target;
    for load in load::Load::ALL.iter().filter(|load| wants(load.target)) {
        load::measure(load, &settings);
    }
    // Not of all: its servers are others.
    if options.target == Target::Http2 {
        http2::measure(&settings);
    }
    if wants(Target::Instructions) {
        instructions::measure(&settings);
    }
    if wants(Target::Syscalls) {
        syscalls::measure(&settings);
    }
    if wants(Target::Idle) {
        idle::measure(&settings);
    }
    if wants(Target::Ops) {
        operations::measure(&settings, &runtimes);
    }
    println!("{}", machine::description());
    Ok(())
}

/// The servers and the runtimes a run is about; names that are neither are refused.
fn choose(options: &Options) -> Result<(Vec<Contender>, Vec<ops::Contender>), Box<dyn Error>> {
    let servers = Contender::built_in();
    let runtimes = ops::Contender::value_variants();
    for name in &options.contender {
        let known = servers.iter().any(|server| server.name() == name)
            || runtimes.iter().any(|runtime| runtime.name() == *name);
        if !known {
            return Err(format!("no contender is called {name}").into());
        }
    }
    let of_http2 = |name: &str| http2::SERVERS.contains(&name);
    let wanted = |name: &str| match &options.contender[..] {
        [] if options.target == Target::Http2 => of_http2(name),
        [] => !NOT_BY_DEFAULT.contains(&name) && !of_http2(name),
        names => names.iter().any(|wanted| wanted == name),
    };
    let mut servers: Vec<_> = servers.into_iter().filter(|server| wanted(server.name())).collect();
    for text in &options.server {
        servers.push(Contender::external(text)?);
    }
    let runtimes = runtimes.iter().copied().filter(|runtime| wanted(&runtime.name())).collect();
    Ok((servers, runtimes))
}
