//! `corelane load`: a load generator for HTTP/1.1, as much as `corelane compare` needs, and of use alone.
//!
//! It runs on Corelane itself: a shard per thread, a task per connection, nothing shared until the end. In a closed loop each
//! connection sends its next request when the last has been answered, as wrk does. In an open loop (`--rate`) requests are
//! due at fixed times, whatever becomes of those before; a request that had to wait for its connection counts from the time
//! at which it was due, so that a server that stands still cannot hide what it has held up.

mod answer;
mod connection;
mod crowd;
pub(crate) mod meter;
mod tally;

use super::compare::process;
use crate::mode::Pin;
use crate::runtime::Runtime;
use crate::sync::{AtomicU64, Ordering};
use crate::sys::cpus;
use crate::task::JoinHandle;
use crate::time::{sleep_until, timeout_at};
use crate::topology::Cores;
use clap::Args;
use connection::{Schedule, Target, Turnstile};
use crowd::Crowd;
use meter::{Meter, Shares};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tally::Tally;
use tokio::sync::Barrier;

/// The flags of `load`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// What to ask for: `http://127.0.0.1:8080/path`. Only http, and an address instead of a name.
    pub(crate) url: String,

    /// Connections.
    #[arg(long, short, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,

    /// Seconds that are measured.
    #[arg(long, short, default_value_t = 10.0, value_parser = span)]
    pub(crate) duration: f64,

    /// Seconds before that, which are not.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) warmup: f64,

    /// Threads. Default: one per CPU that this process may use.
    #[arg(long, short)]
    pub(crate) threads: Option<usize>,

    /// Requests per second, over all connections, whatever becomes of them. Default: as fast as they are answered.
    #[arg(long, value_parser = per_second, conflicts_with = "skewed")]
    pub(crate) rate: Option<f64>,

    /// Requests that are sent at a time on each connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) pipeline: u32,

    /// A connection for each request.
    #[arg(long)]
    pub(crate) close: bool,

    /// A tenth of the connections sends nine tenths of the requests.
    #[arg(long)]
    pub(crate) skewed: bool,

    /// Bytes that are sent with each request, by POST.
    #[arg(long)]
    pub(crate) upload: Option<usize>,

    /// Further connections, which send one request each and are silent then. They are there before the warm-up begins; it waits
    /// eight seconds for them at most. Those that are not there at the end are errors.
    #[arg(long, default_value_t = 0)]
    pub(crate) idle: u32,

    /// Seconds after which a request is given up.
    #[arg(long, default_value_t = 10.0, value_parser = span)]
    pub(crate) timeout: f64,

    /// Print the result as JSON, after a line that says when the measurement begins.
    #[arg(long)]
    pub(crate) json: bool,

    /// End when standard input ends.
    #[arg(long, hide = true)]
    pub(crate) parent_pipe: bool,
}

/// The line that says that the warm-up is over.
pub(crate) const BEGIN: &str = "measuring";
/// How the lines begin that say how many requests per second there are now, and how often there is one.
pub(crate) const NOW: &str = "now ";
const SAID_EVERY: Duration = Duration::from_millis(500);
/// The line that says that the time is over. The connections stay for a moment.
pub(crate) const END: &str = "measured";
/// How long they stay, so that whoever measures the server finds it as it was.
const LINGER: Duration = Duration::from_millis(200);
/// How long the silent connections may take until they stand: less than `corelane compare` waits for the measurement to begin.
const STANDS_WITHIN: Duration = Duration::from_secs(8);
/// How long what is under way then may still take, if the measured time was no shorter.
const GRACE: Duration = Duration::from_secs(1);

/// A time in seconds that is not nothing.
pub(crate) fn span(text: &str) -> Result<f64, String> {
    within(text, 0.001, 86_400.0)
}

/// A time in seconds.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    within(text, 0.0, 86_400.0)
}

/// A number of requests per second.
pub(crate) fn per_second(text: &str) -> Result<f64, String> {
    within(text, 0.01, 1e8)
}

fn within(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else {
        Err(format!("it must be {least} to {most}"))
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Answered within that time, with a status of 200 to 299.
    pub(crate) requests: u64,
    /// In microseconds: value and how often, ascending. Those of requests too that were answered later, or failed, or not
    /// answered at all: these count for as long as they have waited. Not those that were refused a connection, or answered with
    /// another status.
    pub(crate) latencies: Vec<(u64, u64)>,
    /// By kind.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Of its busiest thread.
    pub(crate) generator: Shares,
}

/// Sends and measures; returns the exit status.
pub(crate) fn run(options: &Options) -> ExitCode {
    match measure(options) {
        Ok(outcome) => {
            say(&outcome, options.json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "corelane: {error}");
            ExitCode::from(super::CANNOT_START)
        }
    }
}

/// One run.
///
/// # Errors
/// The URL cannot be used, or the system gives no threads.
fn measure(options: &Options) -> Result<Outcome, Box<dyn std::error::Error>> {
    let target = Target::new(options)?;
    if options.parent_pipe {
        process::end_with_parent()?;
    }
    let cpus = cpus::usable_count(cpus::allowed()?.len());
    let threads = options.threads.unwrap_or(cpus).max(1);
    let runtime = Runtime::builder()
        .cores(Cores::Count(threads))
        .pin(Pin::Off)
        .thread_name("load")
        .start()?;
    let handle = runtime.handle().clone();
    let start = Arc::new(Start {
        all: Barrier::new(threads + 1),
        span: OnceLock::new(),
        so_far: (0..threads).map(|_| AtomicU64::new(0)).collect(),
    });
    let mut parts = Vec::new();
    for (index, shard) in handle.shards().enumerate() {
        let part = Part { index, of: threads };
        let (options, target, start) = (options.clone(), target.clone(), start.clone());
        parts.push(handle.spawn_on(shard, move || drive(part, start, options, target)).map_err(
            |refused| format!("a thread of the load generator takes no work: {refused}"),
        )?);
    }
    runtime.block_on(async {
        let span = start.begins(options).await;
        sleep_until(span.from).await;
        if options.json {
            tell(BEGIN);
        }
        let mut before = 0;
        for moment in span.moments() {
            // The threads tell at the moment; this one has heard them all a little later.
            sleep_until(moment + LINGER / 2).await;
            let answered = start.answered();
            if options.json {
                let rate = (answered - before) as f64 / SAID_EVERY.as_secs_f64();
                tell(&format!("{NOW}{rate:.0}"));
            }
            before = answered;
        }
        sleep_until(span.until).await;
        if options.json {
            tell(END);
        }
    });
    let mut total = Tally::default();
    for part in parts {
        let part = runtime.block_on(part).map_err(|error| error.to_string())?;
        total.merge(&part);
    }
    Ok(total.outcome(options.duration))
}

/// The share of one thread.
#[derive(Clone, Copy)]
struct Part {
    index: usize,
    of: usize,
}

impl Part {
    /// Numbers of the connections that are this thread's.
    fn of(self, connections: u32) -> impl Iterator<Item = u32> {
        (0..connections).skip(self.index).step_by(self.of)
    }
}

/// What is measured.
#[derive(Clone, Copy)]
struct Span {
    began: Instant,
    from: Instant,
    until: Instant,
}

impl Span {
    /// When it is said how far it has come.
    fn moments(self) -> impl Iterator<Item = Instant> {
        (1..)
            .map(move |number| self.from + SAID_EVERY * number)
            .take_while(move |&it| it + LINGER < self.until)
    }
}

/// Where the threads wait for each other, and tell how far they have come.
struct Start {
    all: Barrier,
    span: OnceLock<Span>,
    /// Answers that each has counted, as of half a second ago at most.
    so_far: Vec<AtomicU64>,
}

impl Start {
    /// What all of them have told.
    fn answered(&self) -> u64 {
        self.so_far.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Waits until every thread is here, and the main one. What is measured is the same for all of them.
    async fn begins(&self, options: &Options) -> Span {
        self.all.wait().await;
        *self.span.get_or_init(|| {
            let began = Instant::now();
            let from = began + Duration::from_secs_f64(options.warmup);
            Span { began, from, until: from + Duration::from_secs_f64(options.duration) }
        })
    }
}

/// One thread's connections, from the first to what they have counted.
async fn drive(part: Part, start: Arc<Start>, options: Options, target: Target) -> Tally {
    let (crowd, mut tasks) = Crowd::gather(part.of(options.idle).count() as u64, &target);
    crowd.stands(STANDS_WITHIN).await;
    let span = start.begins(&options).await;
    let tally = Rc::new(tally::Shared::new(span.from, span.until));
    let turnstile = Rc::new(Turnstile::default());
    for (own, number) in part.of(options.connections).enumerate() {
        let schedule = options
            .rate
            .map(|rate| rate / f64::from(options.pipeline))
            .map(|rate| Schedule::new(span.began, rate, number, options.connections));
        // A tenth of each thread's: they let each other pass.
        let hot = !options.skewed || own.is_multiple_of(10);
        let gate = options.skewed.then(|| (turnstile.clone(), hot));
        let (target, tally) = (target.clone(), tally.clone());
        tasks.push(crate::spawn_local(connection::keep_asking(target, tally, schedule, gate)));
    }
    sleep_until(span.from).await;
    let meter = Meter::start();
    for moment in span.moments() {
        sleep_until(moment).await;
        start.so_far[part.index].store(tally.requests(), Ordering::Relaxed);
    }
    sleep_until(span.until).await;
    tally.worked(meter.stop());
    sleep_until(span.until + LINGER).await;
    let grace = GRACE.min(span.until - span.from);
    let _ = timeout_at(span.until + grace, tally.settled()).await;
    tally.missing(crowd.missing());
    // Dropped, each counts the requests that it still owes.
    end(tasks).await;
    tally.close()
}

/// Ends the tasks.
///
/// # Panics
/// One of them has: what it should have counted is not there.
async fn end(tasks: Vec<JoinHandle<()>>) {
    tasks.iter().for_each(JoinHandle::abort);
    for task in tasks {
        if let Err(error) = task.await
            && let Ok(payload) = error.try_into_panic()
        {
            std::panic::resume_unwind(payload);
        }
    }
}

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn say(outcome: &Outcome, json: bool) {
    let mut out = std::io::stdout().lock();
    let text = if json {
        serde_json::to_string(outcome).unwrap_or_default()
    } else {
        tally::describe(outcome)
    };
    let _ = writeln!(out, "{text}");
}

impl Target {
    /// # Errors
    /// What is wrong with the URL, and what is wanted.
    fn new(options: &Options) -> Result<Target, String> {
        let url = &options.url;
        let rest = url.strip_prefix("http://").ok_or_else(|| {
            format!("{url} does not begin with http://, the only scheme that can be asked for")
        })?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let address: SocketAddr = authority.parse().map_err(|_| {
            format!("{authority} is no address with a port, as 127.0.0.1:8080 or [::1]:8080")
        })?;
        Ok(Target::of(address, path, options))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "of a connection")]
    fn a_connection_that_panics_is_not_overlooked() {
        crate::block_on(async {
            let fails = crate::spawn_local(async { panic!("of a connection") });
            let waits = crate::spawn_local(std::future::pending());
            while !fails.is_finished() {
                crate::yield_now().await;
            }
            end(vec![waits, fails]).await;
        });
    }
}
