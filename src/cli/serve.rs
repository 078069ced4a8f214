//! `corelane serve`: the sharded HTTP server, as a configuration says or without one.

use super::CANNOT_START;
use super::log::{Log, OncePerSecond};
use super::reload::{PidFile, Running};
use super::settings::Given;
use crate::config::{Config, ConfigError, LogLevel, keys};
use crate::error::Error;
use crate::listen_addr::ListenAddr;
use crate::mode::Pin;
use crate::runtime::block_on::try_run;
use crate::runtime::{Handle, Runtime, ShutdownReport, Trouble};
use crate::server::{self, AccessLog, Event, Server};
use crate::signal::{Signal, SignalKind, signal};
use crate::sys::errno::{self, Errno};
use crate::task::JoinHandle;
use crate::topology::Cores;
use clap::builder::PossibleValuesParser;
use std::future::poll_fn;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The flags of `serve`.
#[derive(clap::Args, Clone)]
pub(super) struct Options {
    /// Configuration file. SIGHUP has it read again.
    #[arg(long, value_name = "FILE", env = "CORELANE_CONFIG")]
    pub(super) config: Option<PathBuf>,

    #[command(flatten)]
    pub(super) flags: Flags,
}

/// The flags that take the place of what a file or the environment says.
#[derive(clap::Args, Clone)]
pub(super) struct Flags {
    /// Address and port to listen on, as 127.0.0.1:8080 or [::1]:8080, a Unix socket, as unix:/run/app.sock, or one that a
    /// service manager hands over, as inherited:NAME; may be given several times. Port 0 lets the system choose [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH|inherited:NAME", value_parser = crate::config::address::parse_listen)]
    pub(super) listen: Vec<ListenAddr>,

    /// CPUs that get a shard: all, physical, a count (4), or a list (0,1 or 0-3,8 or cpu:1) [default: all].
    #[arg(long, value_name = "CPUS")]
    pub(super) cores: Option<Cores>,

    /// How tasks are scheduled: each connection stays on its core, or any core serves any connection [default:
    /// thread-per-core].
    #[arg(long, value_parser = PossibleValuesParser::new(keys::MODES))]
    pub(super) mode: Option<String>,

    /// Whether shards must be pinned to their CPUs [default: best-effort; off with work-stealing].
    #[arg(long, value_parser = PossibleValuesParser::new(keys::PINS))]
    pub(super) pin: Option<String>,

    /// Whether connections move, between two requests, from a core that is held up to one that is not [default: off].
    #[arg(long, value_parser = PossibleValuesParser::new(keys::SWITCHES))]
    pub(super) rebalance: Option<String>,

    /// How the program's own log is written, on standard error [default: text].
    #[arg(long, value_parser = PossibleValuesParser::new(keys::LOG_FORMATS))]
    pub(super) log_format: Option<String>,

    /// HTTPS: a PEM file with the certificate and those who issued it; --key has its key.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(super) certificate: Option<PathBuf>,

    /// HTTPS: a PEM file with the private key of --certificate.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(super) key: Option<PathBuf>,

    /// Seconds that open requests get to finish after a signal [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=3600))]
    pub(super) drain_seconds: Option<u32>,
}

/// Serves until a signal; returns the exit status.
pub(super) fn run(options: &Options) -> ExitCode {
    match prepare(options).and_then(|prepared| prepared.serve(options)) {
        Ok(code) => code,
        Err(error) => {
            let advice =
                if is_file_limit(&*error) { "; raise the limit with ulimit -n" } else { "" };
            // What is wrong in a file begins with that file's name, as editors look for it.
            let is_of_file = options.config.is_some() && error.is::<ConfigError>();
            let program = if is_of_file { "" } else { "corelane: " };
            let _ = writeln!(std::io::stderr(), "{program}{error}{advice}");
            ExitCode::from(CANNOT_START)
        }
    }
}

/// Whether the process has too many files open, by the causes of the error.
fn is_file_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| errno::of(error).is_some_and(Errno::is_file_limit))
}

/// Everything but the listeners.
struct Prepared {
    running: Running,
    runtime: Runtime,
    signals: Signals,
    log: Log,
}

/// The signals that end the program, and the one that has it read its file again.
struct Signals {
    end: Vec<(SignalKind, Signal)>,
    reload: Option<Signal>,
}

fn prepare(options: &Options) -> Result<Prepared, Box<dyn std::error::Error>> {
    let given = Given::take(options.config.as_deref())?.with_flags(&options.flags);
    let config = given.check()?;
    let log = Log::start(config.log(), config.logs_json())
        .map_err(|error| format!("cannot start a thread that logs: {error}"))?;
    // Before anything listens, so that a signal during the start is not lost.
    let catch = |kind| signal(kind).map(|signal| (kind, signal));
    let end = vec![catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?];
    let has_access_log = config.access_log().is_some();
    let reload = (options.config.is_some() || has_access_log).then(|| signal(SignalKind::hangup()));
    let reload = reload.transpose()?;
    let runtime = config.runtime().on_trouble(reporter(log.clone())).start()?;
    let running = Running::new(given, config, &log)?;
    Ok(Prepared { running, runtime, signals: Signals { end, reload }, log })
}

/// One line per shard.
fn placement(runtime: &Runtime, config: &Config) -> String {
    let mut lines = String::new();
    for info in runtime.shards() {
        let pinned = match (info.pinned, config.chosen_pin()) {
            (true, _) => "pinned",
            (false, Pin::Off) => "not pinned",
            (false, _) => "not pinned: the system refused",
        };
        lines.push_str(&format!("{} on {}, {pinned}\n", info.shard, info.cpu));
    }
    for warning in config.warnings().iter().chain(config.expired()) {
        lines.push_str(&format!("warning: {warning}\n"));
    }
    lines
}

/// Those lines and one per listener, on standard output.
fn say(mut lines: String, server: &Server, log: &Log) {
    for (number, address) in server.listen_addrs().iter().enumerate() {
        let scheme = match (address.as_tcp(), server.is_secure(number)) {
            (Some(_), false) => "http://",
            (Some(_), true) => "https://",
            (None, _) => "",
        };
        lines.push_str(&format!("listening on {scheme}{address}\n"));
    }
    // Neither a closed standard output nor one that nobody reads is a reason not to serve: a thread of its own may wait.
    let said = lines.clone();
    let write = move || {
        let mut output = std::io::stdout().lock();
        let _ = output.write_all(said.as_bytes()).and_then(|()| output.flush());
    };
    match std::thread::Builder::new().name("corelane-say".into()).spawn(write) {
        Ok(thread) => wait_a_little(&thread),
        Err(error) => {
            log.warning(format!("there is no thread to write to standard output: {error}"));
            lines.lines().for_each(|line| log.info(line));
        }
    }
}

/// Gives the lines the time to be written before anything else is, unless nobody reads them.
fn wait_a_little(writer: &std::thread::JoinHandle<()>) {
    let until = Instant::now() + Duration::from_millis(500);
    while !writer.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Logs what the server tells, at most a line a second of each kind.
fn observer(log: Log) -> impl Fn(Event) + Send + Sync {
    let limits = Mutex::new([(); 7].map(|()| OncePerSecond::new()));
    move |event| {
        let (kind, level, text) = match event {
            Event::AcceptLost { shard, error } => {
                let text =
                    format!("{shard}: a connection was lost before it was accepted: {error}");
                (0, LogLevel::Warning, text)
            }
            Event::AcceptPaused { shard, error, pause, turned_away } => {
                let pause = pause.as_millis();
                // A kind of its own: it is not to be held back behind pauses in which nobody was.
                let (kind, waiting) = match turned_away {
                    0 => (1, String::new()),
                    count => (4, format!("; {count} that waited were turned away")),
                };
                let text = format!(
                    "{shard}: cannot accept connections: {error}{waiting}; trying again in {pause} ms"
                );
                (kind, LogLevel::Warning, text)
            }
            Event::ListenerDied { shard, address, error } => {
                let text = format!("{shard}: the listener of {address} has failed: {error}");
                (2, LogLevel::Error, text)
            }
            Event::HandshakeFailed { shard, peer, error } => {
                let text = format!("{shard}: {peer} has not come as far as HTTP: {error}");
                (5, LogLevel::Info, text)
            }
            Event::Full { shard } => {
                let text = format!(
                    "{shard}: there are as many connections as there may be; one was turned away"
                );
                (6, LogLevel::Warning, text)
            }
            Event::NotSteered { address, error } => {
                let text = format!(
                    "{address}: connections are spread by the system's hash, because it refuses anything else: {error}"
                );
                (3, LogLevel::Warning, text)
            }
        };
        let mut limits = crate::sync::lock(&limits);
        match limits[kind].pass(Instant::now()) {
            Some(0) => log.line(level, text),
            Some(held_back) => log.line(level, format!("{text} ({held_back} more like this)")),
            None => {}
        }
    }
}

/// Logs what the watch tells, at most a line a second of each kind.
fn reporter(log: Log) -> impl Fn(Trouble) + Send + Sync {
    let stalls = Mutex::new(OncePerSecond::new());
    let panics = Mutex::new(OncePerSecond::new());
    move |trouble| match trouble {
        Trouble::Panicked { shard, count } => {
            if crate::sync::lock(&panics).pass(Instant::now()).is_some() {
                log.error(format!("{shard}: {count} tasks or requests have panicked just now"));
            }
        }
        Trouble::Stalled { shard, held } => {
            if let Some(held_back) = crate::sync::lock(&stalls).pass(Instant::now()) {
                let more = if held_back > 0 {
                    format!(" ({held_back} more like this)")
                } else {
                    String::new()
                };
                log.warning(format!(
                    "{shard}: a task has held it for {} ms; its connections wait{more}",
                    held.as_millis()
                ));
            }
        }
        Trouble::CpuOffline { shard, cpu } => {
            log.warning(format!(
                "{shard}: {cpu} has gone offline; it serves on, on whatever CPU the system chooses"
            ));
        }
    }
}

/// Why serving ended.
enum Ended {
    Signal(SignalKind),
    Failed(Error),
}

impl Prepared {
    fn serve(self, options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
        let Prepared { mut running, runtime, mut signals, log } = self;
        let handle = runtime.handle().clone();
        let (stop, mut shutdown) = prepare_shutdown(&handle)?;
        // Outside, because after an error it must not be dropped where the future is.
        let mut runtime = Some(runtime);
        // Its poll is made before anybody can connect and take the last fds.
        try_run(handle.fleet().clone(), async {
            let here = runtime.as_ref().expect("taken below only");
            // First: if it cannot be written, nothing is to have listened.
            let pid_file = running.config().pid_file.as_deref().map(PidFile::create).transpose()?;
            let server = running.config().server(here).on_event(observer(log.clone()));
            let server = running.access_log().into_iter().fold(server, server::Builder::access_log);
            let mut server = server.start_routes(&handle, running.routes())?;
            say(placement(here, running.config()), &server, &log);
            let ended = loop {
                match next(&mut server, &mut signals).await {
                    Next::Reload => running.reload(options, &server, &log),
                    Next::End(ended) => break ended,
                }
            };
            let drain = running.config().drain();
            if let Ended::Signal(kind) = &ended {
                log.info(format!(
                    "{}: draining for at most {} s",
                    name(*kind),
                    drain.as_secs_f32()
                ));
            }
            let runtime = runtime.take().expect("taken here only");
            stop.send((runtime, drain)).expect("the thread waits for this");
            let report = poll_fn(|context| {
                if let Poll::Ready(kind) = poll_signals(&mut signals.end, context) {
                    return Poll::Ready(Err(kind));
                }
                std::pin::Pin::new(&mut shutdown).poll(context).map(Ok)
            })
            .await;
            drop(pid_file);
            running.access_log().into_iter().for_each(|access_log| write_out(access_log, &log));
            let code = status(ended, report.map(|report| report.ok().flatten()), &log);
            log.flush();
            if let Err(code) = code {
                // Nothing may hold this up: not even shards that do not answer.
                std::process::exit(code);
            }
            Ok(code.unwrap_or(ExitCode::FAILURE))
        })?
    }
}

/// Waits for the last lines of the access log, for a short while.
fn write_out(access_log: &AccessLog, log: &Log) {
    let is_written = access_log.flush(Duration::from_secs(1));
    let dropped = access_log.dropped();
    if dropped > 0 {
        log.warning(format!("{dropped} lines of the access log were dropped in all"));
    }
    if !is_written {
        log.warning("the last lines of the access log could not be written in time");
    }
}

/// Takes a runtime that is to be shut down, and how long it gets.
type Stop = mpsc::Sender<(Runtime, Duration)>;

/// The shutdown waits for the shards, so it has a thread of its own while the main one listens for signals. It is had
/// before anything listens: when it is needed the system may have none to give.
fn prepare_shutdown(handle: &Handle) -> Result<(Stop, JoinHandle<Option<ShutdownReport>>), String> {
    let (stop, stopping) = mpsc::channel();
    let (tell, waits) = mpsc::channel();
    let shutdown = handle.spawn_blocking(move || {
        let _ = tell.send(());
        // None: the server has not come to listen.
        stopping.recv().ok().map(|(runtime, drain): (Runtime, Duration)| runtime.shutdown(drain))
    });
    waits.recv().map_err(|_| "the operating system gave no thread for the shutdown")?;
    Ok((stop, shutdown))
}

/// What is to be done next.
enum Next {
    Reload,
    End(Ended),
}

/// Waits for a signal, or for the server to fail.
async fn next(server: &mut Server, signals: &mut Signals) -> Next {
    poll_fn(|context| {
        if let Poll::Ready(Err(error)) = server.poll_stopped(context) {
            return Poll::Ready(Next::End(Ended::Failed(error)));
        }
        if let Poll::Ready(kind) = poll_signals(&mut signals.end, context) {
            return Poll::Ready(Next::End(Ended::Signal(kind)));
        }
        match signals.reload.as_mut().map(|signal| signal.poll_recv(context)) {
            Some(Poll::Ready(_)) => Poll::Ready(Next::Reload),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    })
    .await
}

/// The exit status; `Err` if the process must end at once.
fn status(
    ended: Ended,
    report: Result<Option<ShutdownReport>, SignalKind>,
    log: &Log,
) -> Result<ExitCode, i32> {
    let report = match report {
        Ok(report) => report,
        Err(kind) => {
            log.warning(format!("{}: a second signal, ending at once", name(kind)));
            return Err(128 + kind.as_raw_value());
        }
    };
    match report.map_or(0, |report| report.tasks_dropped) {
        0 => {}
        1 => {
            log.warning("1 connection or other task was cut off by the end of the drain".to_owned())
        }
        count => log.warning(format!(
            "{count} connections and other tasks were cut off by the end of the drain"
        )),
    }
    match ended {
        Ended::Failed(error) => {
            log.error(error.to_string());
            Ok(ExitCode::FAILURE)
        }
        Ended::Signal(_) if report.is_none_or(|report| report.shards_panicked > 0) => {
            log.error("a shard had ended by a panic in the runtime itself");
            Ok(ExitCode::FAILURE)
        }
        Ended::Signal(_) => Ok(ExitCode::SUCCESS),
    }
}

fn poll_signals(
    signals: &mut [(SignalKind, Signal)],
    context: &mut Context<'_>,
) -> Poll<SignalKind> {
    for (kind, signal) in signals {
        if signal.poll_recv(context).is_ready() {
            return Poll::Ready(*kind);
        }
    }
    Poll::Pending
}

fn name(kind: SignalKind) -> &'static str {
    if kind == SignalKind::interrupt() { "SIGINT" } else { "SIGTERM" }
}
