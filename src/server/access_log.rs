//! A line for each request, written by a thread of its own.
//!
//! - [`line`]: what a line says in each format, and how whatever a client has sent is escaped
//! - [`record`]: what is kept of a request until its answer has been sent
//! - [`lane`]: lines of one shard that wait for the writer
//!
//! A shard appends to a buffer of its own, behind a lock that only the writer takes besides, ten times a second and for as long as
//! two pointers take to change places. The writer alone waits for the file. While it waits, buffers fill up; what does not fit any more is dropped
//! and counted. No request waits for anything.

mod lane;
mod line;
mod record;

use super::Builder;
use crate::id::ShardId;
use crate::sync::{AtomicU32, AtomicU64, Ordering, lock};
use crate::sys::files;
use crate::time::clock;
use lane::Lane;
#[cfg(feature = "cli")]
pub(crate) use line::rfc_3339;
pub(super) use record::{ConnectionLog, Logging, Record};
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How a line of an access log is written.
///
/// Times are in UTC, and are those at which the answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLogFormat {
    /// The Common Log Format: `127.0.0.1 - - [28/Nov/2026:19:00:09 +0000] "GET / HTTP/1.1" 200 13`.
    Common,
    /// The same with Referer and User-Agent, `-` where there is none, as most tools expect it.
    #[default]
    Combined,
    /// An object with `time`, `peer`, `method`, `target`, `version`, `host`, `referer`, `user_agent`, `request_id`, `status`, `bytes`,
    /// `duration_us`, `shard` and `cut`. What a request does not have is left out. `request_id` is the field `X-Request-Id` of the
    /// request, or else of the response.
    Json,
}

impl AccessLogFormat {
    const ALL: [AccessLogFormat; 3] =
        [AccessLogFormat::Common, AccessLogFormat::Combined, AccessLogFormat::Json];

    fn from_number(number: u32) -> AccessLogFormat {
        Self::ALL[number as usize % Self::ALL.len()]
    }
}

/// Where an access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLogTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, which is appended to, and made if there is none.
    File(PathBuf),
}

impl AccessLogTarget {
    /// `-` is standard output and `stderr` standard error; anything else is the path of a file.
    pub fn from_path(path: &str) -> AccessLogTarget {
        match path {
            "-" => AccessLogTarget::Stdout,
            "stderr" => AccessLogTarget::Stderr,
            path => AccessLogTarget::File(path.into()),
        }
    }

    fn open(&self) -> io::Result<Output> {
        Ok(match self {
            AccessLogTarget::Stdout => Box::new(io::stdout()),
            AccessLogTarget::Stderr => Box::new(io::stderr()),
            AccessLogTarget::File(path) => Box::new(files::open_to_append(path)?),
        })
    }
}

/// As it is written: see [`from_path`](AccessLogTarget::from_path).
impl fmt::Display for AccessLogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessLogTarget::Stdout => f.write_str("-"),
            AccessLogTarget::Stderr => f.write_str("stderr"),
            AccessLogTarget::File(path) => path.display().fmt(f),
        }
    }
}

type Output = Box<dyn Write + Send>;
type Report = Box<dyn Fn(u64, Option<&io::Error>) + Send>;

/// The writer lets lines gather for this long.
const GATHER: Duration = Duration::from_millis(100);
/// Dropped lines are told of this often at most.
const REPORT: Duration = Duration::from_secs(10);
/// Shards that have a lane of their own; more share them.
const LANES: usize = 1024;

/// A log with a line for each request, for [`Builder::access_log`](super::Builder::access_log). Clones are the same log; several
/// servers may write to one.
///
/// A line is made when the answer has been handed to the system, or the connection is gone. Then it says how much of the body
/// was handed over, and that it was cut: the last word of the line is ` cut`, in JSON `"cut":true`. A request that got no answer at all
/// has `-` for its status, in JSON none. What HTTP/2 keeps back because a client gives no window for it counts as handed
/// over. What cannot be read as the head of a request has no line: no request came of it.
///
/// Whatever a client sends is escaped, so that none can end a line, or a field, early: in the other formats than JSON as `\"`, `\\` and
/// `\x0a`, which also stands for each byte that is not ASCII.
///
/// Lines go to the file by a thread that ends with the last clone, and what is not written when the process ends is lost:
/// [`flush`](Self::flush) waits for it.
///
/// # Examples
/// ```
/// use corelane::server::{AccessLog, AccessLogFormat, AccessLogTarget, Server};
/// use std::time::Duration;
/// let log = AccessLog::builder(AccessLogTarget::Stderr)
///     .format(AccessLogFormat::Json)
///     .on_dropped(|lines, error| eprintln!("{lines} lines of the access log were dropped: {error:?}"))
///     .start()?;
/// let server = Server::builder().access_log(&log);
/// assert!(log.flush(Duration::from_secs(1)));
/// assert_eq!(log.dropped(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AccessLog(Arc<Owner>);

/// Ends the writer when nobody can add a line any more.
struct Owner(Arc<Shared>);

struct Shared {
    /// Each made by the shard that first has a line.
    lanes: Box<[OnceLock<Lane>]>,
    format: AtomicU32,
    dropped: AtomicU64,
    orders: Mutex<Orders>,
    changed: Condvar,
}

/// What the writer is to do.
#[derive(Default)]
struct Orders {
    /// Some lane has lines.
    lines: bool,
    output: Option<Output>,
    flushes: Vec<mpsc::Sender<()>>,
    ends: bool,
}

impl Orders {
    fn are_urgent(&self) -> bool {
        self.ends || self.output.is_some() || !self.flushes.is_empty()
    }
}

/// Settings of an access log that is to be started.
#[must_use = "a builder does nothing before start()"]
pub struct AccessLogBuilder {
    target: AccessLogTarget,
    format: AccessLogFormat,
    report: Report,
}

impl AccessLogBuilder {
    /// Default: [`AccessLogFormat::Combined`].
    pub fn format(mut self, format: AccessLogFormat) -> Self {
        self.format = format;
        self
    }

    /// Is told how many lines were dropped since it was told last, every ten seconds at most and at the end: because they came faster
    /// than they could be written, or for the error that is given. It runs on the thread that writes.
    pub fn on_dropped(mut self, report: impl Fn(u64, Option<&io::Error>) + Send + 'static) -> Self {
        self.report = Box::new(report);
        self
    }

    /// Opens the file and starts the thread.
    ///
    /// # Errors
    /// The file cannot be opened for writing, or the system gives no thread.
    pub fn start(self) -> io::Result<AccessLog> {
        let output = self.target.open()?;
        let shared = Arc::new(Shared {
            lanes: (0..LANES).map(|_| OnceLock::new()).collect(),
            format: AtomicU32::new(self.format as u32),
            dropped: AtomicU64::new(0),
            orders: Mutex::default(),
            changed: Condvar::new(),
        });
        let (theirs, report) = (shared.clone(), self.report);
        let writer = Writer { output, report, untold: 0, error: None, told: None };
        thread::Builder::new().name("corelane-access".into()).spawn(move || writer.run(&theirs))?;
        Ok(AccessLog(Arc::new(Owner(shared))))
    }
}

impl fmt::Debug for AccessLogBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("AccessLogBuilder");
        debug.field("target", &self.target).field("format", &self.format).finish_non_exhaustive()
    }
}

impl AccessLog {
    /// Settings of a log that goes there.
    pub fn builder(target: AccessLogTarget) -> AccessLogBuilder {
        AccessLogBuilder { target, format: AccessLogFormat::default(), report: Box::new(|_, _| ()) }
    }

    /// Opens this, and writes there from now on what has not been written yet. With the path of a file that was renamed meanwhile
    /// it begins a new one.
    ///
    /// # Errors
    /// It cannot be opened for writing. Then lines go where they went before.
    pub fn reopen(&self, target: &AccessLogTarget) -> io::Result<()> {
        let output = target.open()?;
        self.shared().order(|orders| orders.output = Some(output));
        Ok(())
    }

    /// Requests that come from now on get lines in this format.
    pub fn set_format(&self, format: AccessLogFormat) {
        self.shared().format.store(format as u32, Ordering::Relaxed);
    }

    fn format(&self) -> AccessLogFormat {
        AccessLogFormat::from_number(self.shared().format.load(Ordering::Relaxed))
    }

    /// Lines that were dropped so far, because they came faster than they could be written or writing failed.
    pub fn dropped(&self) -> u64 {
        let waiting = self.shared().lanes.iter().filter_map(OnceLock::get).map(Lane::lost);
        self.shared().dropped.load(Ordering::Relaxed) + waiting.sum::<u64>()
    }

    /// Waits until the lines so far are written, but no longer than this. False: they are not.
    pub fn flush(&self, timeout: Duration) -> bool {
        let (done, written) = mpsc::channel();
        self.shared().order(|orders| orders.flushes.push(done));
        written.recv_timeout(timeout).is_ok()
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }

    /// Adds a line, by `write`, which is told of the lane's clock; or counts it as dropped.
    fn add(&self, size: usize, write: impl FnOnce(&mut Vec<u8>, &lane::Stamp, Option<ShardId>)) {
        let shard = ShardId::current();
        let shared = self.shared();
        let lane = shared.lanes[shard.map_or(0, ShardId::index) % LANES].get_or_init(Lane::default);
        if lane.add(size, |lines, stamp| write(lines, stamp, shard)) {
            shared.order(|orders| orders.lines = true);
        }
    }
}

impl Builder {
    /// Has a line written for each request. Default: none. Several servers may have one log.
    pub fn access_log(mut self, log: &AccessLog) -> Self {
        self.settings.access_log = Some(log.clone());
        self
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("AccessLog");
        debug.field("format", &self.format()).field("dropped", &self.dropped());
        debug.finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.order(|orders| orders.ends = true);
    }
}

impl Shared {
    fn order(&self, order: impl FnOnce(&mut Orders)) {
        order(&mut lock(&self.orders));
        self.changed.notify_one();
    }

    /// Waits until there is something to do, and lets lines gather.
    fn wait(&self) -> Orders {
        let idle = |orders: &mut Orders| !orders.lines && !orders.are_urgent();
        let orders = self.changed.wait_while(lock(&self.orders), idle);
        let orders = orders.unwrap_or_else(PoisonError::into_inner);
        let gather = |orders: &mut Orders| !orders.are_urgent();
        let waited = self.changed.wait_timeout_while(orders, GATHER, gather);
        let (mut orders, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // Before the lanes are looked at: what is added from now on is said anew.
        std::mem::take(&mut *orders)
    }
}

struct Writer {
    output: Output,
    report: Report,
    /// Lines that were dropped and not told of.
    untold: u64,
    error: Option<io::Error>,
    told: Option<Instant>,
}

impl Writer {
    fn run(mut self, shared: &Shared) {
        let mut lines = Vec::new();
        loop {
            let Orders { output, flushes, ends, .. } = shared.wait();
            for lane in shared.lanes.iter().filter_map(OnceLock::get) {
                lines.clear();
                let (count, mut lost) = lane.take(&mut lines);
                let written = self.output.write_all(&lines).and_then(|()| self.output.flush());
                if let Err(error) = written {
                    // Some of them may have been written.
                    lost += count;
                    self.error = Some(error);
                }
                self.untold += lost;
                shared.dropped.fetch_add(lost, Ordering::Relaxed);
            }
            self.tell(ends);
            if let Some(output) = output {
                self.output = output;
            }
            for done in flushes {
                // Who asked may have given up.
                let _ = done.send(());
            }
            if ends {
                return;
            }
        }
    }

    fn tell(&mut self, at_once: bool) {
        let now = clock::now();
        let is_due = self.told.is_none_or(|told| now.duration_since(told) >= REPORT);
        if self.untold > 0 && (is_due || at_once) {
            (self.report)(std::mem::take(&mut self.untold), self.error.take().as_ref());
            self.told = Some(now);
        }
    }
}
