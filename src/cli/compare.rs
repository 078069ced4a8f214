//! `corelane compare`: several architectures of an HTTP server, on the same work, one after the other and again.
//!
//! Each contender is a process of its own, and so is the load generator: what one does with memory, CPUs or the scheduler
//! stays with it. In a round every contender runs once, in an order that rotates and turns round from round to round; differences are taken
//! within a round, so that a machine that drifts, drifts for all. What is said at the end is made from the raw figures
//! alone, which `report.json` holds.

mod bench;
pub(crate) mod contender;
mod guard;
pub(crate) mod model;
mod output;
mod places;
pub(crate) mod process;
mod report;
mod run;
mod scenario;
mod versions;
mod words;

use super::{CANNOT_START, load};
use crate::signal::{Signal, SignalKind, signal};
use clap::{Args, Subcommand};
use model::Report;
use output::Output;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll};

/// The exit status of a run that was interrupted.
const INTERRUPTED: u8 = 130;

/// The commands that measure, and those of the processes that they start.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Measure several architectures of an HTTP server on the same work, and say which won.
    ///
    /// Ctrl-C, SIGTERM and SIGHUP end it early: the report says what was measured until then, and the exit status is 130. A second
    /// Ctrl-C ends it at once, without a report.
    Compare(Options),
    /// Send requests to a server and measure how it answers.
    Load(load::Options),
    /// One contender of a comparison.
    #[command(hide = true)]
    Contender(contender::Options),
    /// Runs a program until standard input ends.
    #[command(hide = true)]
    Guard(guard::Guard),
    /// Takes most of one CPU until standard input ends.
    #[command(hide = true)]
    Burn(process::Burn),
}

impl Command {
    /// Does it; returns the exit status.
    pub(super) fn run(&self) -> ExitCode {
        match self {
            Command::Compare(options) => run(options),
            Command::Load(options) => load::run(options),
            Command::Contender(options) => contender::run(options),
            Command::Guard(options) => guard::guard(options),
            Command::Burn(options) => process::burn(options),
        }
    }
}

/// The flags of `compare`.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// Under two minutes: three scenarios, and short rounds.
    #[arg(long)]
    quick: bool,

    /// Only this scenario; may be given several times.
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,

    /// Scenarios of one's own, in a TOML file: see configs/scenario.toml. May be given several times.
    #[arg(long, value_name = "FILE")]
    scenario_file: Vec<PathBuf>,

    /// Only this contender, or one more: NAME, or NAME=http://ADDRESS:PORT for a server that runs already. May be given
    /// several times; the first is what the others are compared with.
    #[arg(long, value_name = "NAME[=URL]")]
    contender: Vec<String>,

    /// One more contender: NAME=COMMAND, in which {addr}, {port} and {threads} are filled in; quotes keep words together. It must answer at / soon after it
    /// has started.
    #[arg(long, value_name = "NAME=COMMAND")]
    command: Vec<String>,

    /// Connections, in every scenario.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    connections: Option<u32>,

    /// Seconds of a round. Default: 3; with --quick 1.5.
    #[arg(long, value_parser = load::span)]
    duration: Option<f64>,

    /// Rounds. Default: 5; with --quick 3.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// CPUs that the contenders run on, and no others: all, a count, or a list, as 0,2-3. The load generator has those that are
    /// left, or all if none is. A server that runs already stays where it is.
    #[arg(long, default_value = "all")]
    cores: crate::topology::Cores,

    /// Whether connections of thread-per-core move, between two requests, from a core that is held up to one that is not
    /// [default: off].
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(crate::config::keys::SWITCHES))]
    rebalance: Option<String>,

    /// Bytes of each answer in the scenarios hello and download, and of each request in upload; 64 MiB at most. The others stay as
    /// they are.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=contender::BYTES_MAX as u64))]
    payload: Option<u64>,

    /// Requests per second that are due, whatever becomes of those before. Default: as many as are answered.
    #[arg(long, value_parser = load::per_second)]
    rate: Option<f64>,

    /// Where the reports go: report.json, report.md, report.html. Default: compare-report; with --from, the page and the text
    /// beside that file, under its name.
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,

    /// Measures nothing, and draws this report.json again.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "quick", "scenario", "scenario_file", "contender", "command", "connections", "duration", "rounds", "payload", "rebalance", "rate"
        ]
    )]
    from: Option<PathBuf>,
}

impl Options {
    fn seconds(&self) -> f64 {
        self.duration.unwrap_or(if self.quick { 1.5 } else { 3.0 })
    }

    fn warmup(&self) -> f64 {
        if self.quick { 0.3 } else { 1.0 }
    }

    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }
}

/// Measures, or draws what was measured; returns the exit status.
fn run(options: &Options) -> ExitCode {
    let written = Output::of(options).and_then(|output| {
        let report = match &options.from {
            Some(file) => read(file)?,
            None => measure(options, &output)?,
        };
        if options.from.is_some() {
            for scenario in &report.scenarios {
                show(&report::table(scenario));
            }
        }
        show(&report::verdict(&report));
        // Anew: somebody may have removed the directory meanwhile.
        output.prepare()?;
        output.write(&report)?;
        Ok((output, report.interrupted))
    });
    match written {
        Ok((output, interrupted)) => {
            show(&format!("report: {}", output.page().display()));
            if interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "corelane: {error}");
            ExitCode::from(CANNOT_START)
        }
    }
}

/// A closed standard output is no reason to lose the report.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

fn measure(options: &Options, output: &Output) -> Result<Report, String> {
    let plan = run::Plan::of(options)?;
    // Now, and not when everything has been measured.
    output.prepare()?;
    let stop = interrupted()?;
    crate::sys::process::adopt_descendants()
        .map_err(|error| format!("what contenders leave behind cannot be adopted: {error}"))?;
    // For the contenders and the generator: thousands of connections each.
    crate::sys::files::raise_limit();
    Ok(run::run(plan, &stop, show))
}

/// Says when Ctrl-C has been pressed, or a signal wants it to end; whoever presses Ctrl-C once more does not want to wait. A
/// SIGHUP that is ignored, as under nohup, stays so.
fn interrupted() -> Result<Arc<run::Stop>, String> {
    let stop = Arc::new(run::Stop::default());
    let (tell, ready) = mpsc::channel();
    let there = stop.clone();
    let listen = move || {
        crate::runtime::block_on::block_on(async {
            let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
            if !is_ignored(SignalKind::hangup()) {
                kinds.push(SignalKind::hangup());
            }
            let signals = kinds.into_iter().map(|kind| signal(kind).map(|signal| (kind, signal)));
            let mut signals: Vec<_> = match signals.collect() {
                Ok(signals) => signals,
                Err(error) => {
                    let _ = tell.send(Err(error));
                    return;
                }
            };
            let _ = tell.send(Ok(()));
            loop {
                let caught = |context: &mut Context<'_>| {
                    let came = |(kind, signal): &mut (SignalKind, Signal)| {
                        signal.poll_recv(context).is_ready().then_some(*kind)
                    };
                    signals.iter_mut().find_map(came).map_or(Poll::Pending, Poll::Ready)
                };
                let kind = std::future::poll_fn(caught).await;
                if there.is_requested() && kind == SignalKind::interrupt() {
                    // All children end when this process does.
                    std::process::exit(i32::from(INTERRUPTED));
                }
                there.request();
            }
        });
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(listen)
        .map_err(|error| format!("no thread to listen for Ctrl-C: {error}"))?;
    match ready.recv() {
        Ok(Ok(())) => Ok(stop),
        Ok(Err(error)) => Err(format!("no signal can be waited for: {error}")),
        Err(_) => Err("no signal can be waited for".to_owned()),
    }
}

/// Whether whoever has started this process wants it not to hear of a signal.
fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

fn read(file: &Path) -> Result<Report, String> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| format!("{} is no report of this program: {error}", file.display()))?;
    if report.format != model::FORMAT {
        return Err(format!(
            "{} has format {}, and this version reads format {}",
            file.display(),
            report.format,
            model::FORMAT
        ));
    }
    Ok(report)
}
