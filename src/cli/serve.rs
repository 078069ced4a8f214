//! `corelane serve`: the sharded HTTP server with its embedded default service.

use super::CANNOT_START;
use super::log::{Log, OncePerSecond};
use crate::error::Error;
use crate::runtime::block_on::try_run;
use crate::runtime::{Handle, Mode, Pin, Runtime, ShutdownReport, Trouble};
use crate::server::{Event, Server};
use crate::signal::{Signal, SignalKind, signal};
use crate::sys::errno::{self, Errno};
use crate::task::JoinHandle;
use crate::topology::Cores;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The flags of `serve`.
#[derive(clap::Args, Clone)]
pub(super) struct Options {
    /// Address and port to listen on, as 127.0.0.1:8080 or [::1]:8080; may be given several times. Port 0 lets the
    /// system choose.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080", value_parser = super::address::parse)]
    listen: Vec<SocketAddr>,

    /// CPUs that get a shard: all, physical, a count (4), or a list (0,1 or 0-3,8 or cpu:1).
    #[arg(long, value_name = "CPUS", default_value = "all")]
    cores: Cores,

    /// How tasks are scheduled: each connection stays on its core, or any core serves any connection.
    #[arg(long, value_enum, default_value_t = ModeOption::ThreadPerCore)]
    mode: ModeOption,

    /// Whether shards must be pinned to their CPUs [default: best-effort; off with work-stealing].
    #[arg(long, value_enum)]
    pin: Option<PinOption>,

    /// Seconds that open requests get to finish after a signal.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    drain_seconds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ModeOption {
    ThreadPerCore,
    WorkStealing,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PinOption {
    Required,
    BestEffort,
    Off,
}

/// Serves until a signal; returns the exit status.
pub(super) fn run(options: &Options) -> ExitCode {
    match prepare(options).and_then(|prepared| prepared.serve(options)) {
        Ok(code) => code,
        Err(error) => {
            let advice =
                if is_file_limit(&*error) { "; raise the limit with ulimit -n" } else { "" };
            let _ = writeln!(std::io::stderr(), "corelane: {error}{advice}");
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
    runtime: Runtime,
    pin: Pin,
    signals: Vec<(SignalKind, Signal)>,
    log: Log,
}

fn prepare(options: &Options) -> Result<Prepared, Box<dyn std::error::Error>> {
    let log = Log::start().map_err(|error| format!("cannot start a thread that logs: {error}"))?;
    // Before anything listens, so that a signal during the start is not lost.
    let catch = |kind| signal(kind).map(|signal| (kind, signal));
    let signals = vec![catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?];
    let mode = match options.mode {
        ModeOption::ThreadPerCore => Mode::ThreadPerCore,
        ModeOption::WorkStealing => Mode::WorkStealing,
    };
    let pin = match (options.pin, mode) {
        (Some(PinOption::Required), _) => Pin::Required,
        (Some(PinOption::Off), _) | (None, Mode::WorkStealing) => Pin::Off,
        (Some(PinOption::BestEffort) | None, _) => Pin::BestEffort,
    };
    let runtime = Runtime::builder()
        .cores(options.cores.clone())
        .mode(mode)
        .pin(pin)
        .on_trouble(reporter(log.clone()))
        .start()?;
    Ok(Prepared { runtime, pin, signals, log })
}

fn listen(handle: &Handle, options: &Options, log: &Log) -> Result<Server, Error> {
    let builder =
        options.listen.iter().fold(Server::builder(), |builder, &address| builder.listen(address));
    builder.on_event(observer(log.clone())).start_send(handle, Hello)
}

/// One line per shard.
fn placement(runtime: &Runtime, pin: Pin) -> String {
    let mut lines = String::new();
    for info in runtime.shards() {
        let pinned = match (info.pinned, pin) {
            (true, _) => "pinned",
            (false, Pin::Off) => "not pinned",
            (false, _) => "not pinned: the system refused",
        };
        lines.push_str(&format!("{} on {}, {pinned}\n", info.shard, info.cpu));
    }
    for warning in runtime.warnings() {
        lines.push_str(&format!("warning: {warning}\n"));
    }
    lines
}

/// Those lines and one per listener, on standard output.
fn say(mut lines: String, server: &Server, log: &Log) {
    for address in server.local_addrs() {
        lines.push_str(&format!("listening on http://{address}\n"));
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
            log.line(format!("there is no thread to write to standard output: {error}"));
            lines.lines().for_each(|line| log.line(line));
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
    let limits = Mutex::new([(); 4].map(|()| OncePerSecond::new()));
    move |event| {
        let (kind, text) = match event {
            Event::AcceptLost { shard, error } => {
                (0, format!("{shard}: a connection was lost before it was accepted: {error}"))
            }
            Event::AcceptPaused { shard, error, pause } => {
                let pause = pause.as_millis();
                (
                    1,
                    format!(
                        "{shard}: cannot accept connections: {error}; trying again in {pause} ms"
                    ),
                )
            }
            Event::ListenerDied { shard, address, error } => {
                (2, format!("{shard}: the listener of {address} has failed: {error}"))
            }
            Event::NotSteered { address, error } => (
                3,
                format!(
                    "{address}: connections are spread by the system's hash, because it refuses anything else: {error}"
                ),
            ),
        };
        let mut limits = crate::sync::lock(&limits);
        match limits[kind].pass(Instant::now()) {
            Some(0) => log.line(text),
            Some(held_back) => log.line(format!("{text} ({held_back} more like this)")),
            None => {}
        }
    }
}

/// Logs what the watch tells, at most a line a second of each kind.
fn reporter(log: Log) -> impl Fn(Trouble) + Send + Sync {
    let stalls = Mutex::new(OncePerSecond::new());
    move |trouble| match trouble {
        Trouble::Stalled { shard, held } => {
            if let Some(held_back) = crate::sync::lock(&stalls).pass(Instant::now()) {
                let more = if held_back > 0 {
                    format!(" ({held_back} more like this)")
                } else {
                    String::new()
                };
                log.line(format!(
                    "{shard}: a task has held it for {} ms; its connections wait{more}",
                    held.as_millis()
                ));
            }
        }
        Trouble::CpuOffline { shard, cpu } => {
            log.line(format!(
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
        let Prepared { runtime, pin, mut signals, log } = self;
        let drain = Duration::from_secs(u64::from(options.drain_seconds));
        let placement = placement(&runtime, pin);
        let handle = runtime.handle().clone();
        let (stop, mut shutdown) = prepare_shutdown(&handle, drain)?;
        // Outside, because after an error it must not be dropped where the future is.
        let mut runtime = Some(runtime);
        // Its poll is made before anybody can connect and take the last fds.
        try_run(handle.fleet().clone(), async {
            let server = listen(&handle, options, &log)?;
            say(placement, &server, &log);
            let ended = ended(server, &mut signals).await;
            if let Ended::Signal(kind) = &ended {
                log.line(format!("{}: draining for at most {} s", name(*kind), drain.as_secs()));
            }
            let runtime = runtime.take().expect("taken here only");
            stop.send(runtime).expect("the thread waits for this");
            let report = poll_fn(|context| {
                if let Poll::Ready(kind) = poll_signals(&mut signals, context) {
                    return Poll::Ready(Err(kind));
                }
                std::pin::Pin::new(&mut shutdown).poll(context).map(Ok)
            })
            .await;
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

/// The shutdown waits for the shards, so it has a thread of its own while the main one listens for signals. It is had
/// before anything listens: when it is needed the system may have none to give.
fn prepare_shutdown(
    handle: &Handle,
    drain: Duration,
) -> Result<(mpsc::Sender<Runtime>, JoinHandle<Option<ShutdownReport>>), String> {
    let (stop, stopping) = mpsc::channel::<Runtime>();
    let (tell, waits) = mpsc::channel();
    let shutdown = handle.spawn_blocking(move || {
        let _ = tell.send(());
        // None: the server has not come to listen.
        stopping.recv().ok().map(|runtime| runtime.shutdown(drain))
    });
    waits.recv().map_err(|_| "the operating system gave no thread for the shutdown")?;
    Ok((stop, shutdown))
}

/// Waits for a signal, or for the server to fail.
async fn ended(server: Server, signals: &mut [(SignalKind, Signal)]) -> Ended {
    let mut failed = std::pin::pin!(async {
        match server.stopped().await {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    });
    poll_fn(|context| {
        if let Poll::Ready(error) = failed.as_mut().poll(context) {
            return Poll::Ready(Ended::Failed(error));
        }
        poll_signals(signals, context).map(Ended::Signal)
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
            log.line(format!("{}: a second signal, ending at once", name(kind)));
            return Err(128 + kind.as_raw_value());
        }
    };
    match report.map_or(0, |report| report.tasks_dropped) {
        0 => {}
        1 => log.line("1 connection or other task was cut off by the end of the drain".to_owned()),
        count => log.line(format!(
            "{count} connections and other tasks were cut off by the end of the drain"
        )),
    }
    match ended {
        Ended::Failed(error) => {
            log.line(error.to_string());
            Ok(ExitCode::FAILURE)
        }
        Ended::Signal(_) if report.is_none_or(|report| report.shards_panicked > 0) => {
            log.line("a shard had ended by a panic in the runtime itself");
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

/// The embedded default: `GET /` answers `Hello, World!`.
#[derive(Clone, Copy)]
struct Hello;

impl Service<Request<Incoming>> for Hello {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (status, text) = match (request.uri().path(), request.method()) {
            ("/", &Method::GET | &Method::HEAD) => (StatusCode::OK, "Hello, World!"),
            ("/", _) => (StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD.\n"),
            _ => (StatusCode::NOT_FOUND, "Nothing here. Try /\n"),
        };
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response
                .headers_mut()
                .insert(hyper::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        ready(Ok(response))
    }
}
