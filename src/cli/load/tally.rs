//! What the connections of one thread count.

use super::Outcome;
use super::meter::Shares;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// The longest latency that is told apart: an hour.
const LONGEST: u64 = 3_600_000_000;
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Connect,
    Read,
    Write,
    Timeout,
    /// Answered, with a status that says otherwise.
    Status,
    /// What came is not HTTP.
    Garbage,
    /// Not answered when the round was over, nor in the grace after it.
    Unanswered,
    /// A silent connection that was not there at the end.
    Idle,
}

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Trouble::Connect => "connect",
            Trouble::Read => "read",
            Trouble::Write => "write",
            Trouble::Timeout => "timeout",
            Trouble::Status => "status",
            Trouble::Garbage => "garbage",
            Trouble::Unanswered => "unanswered",
            Trouble::Idle => "idle",
        }
    }
}

/// Counts, of one thread or of several together.
pub(super) struct Tally {
    requests: u64,
    latencies: Histogram<u64>,
    errors: BTreeMap<&'static str, u64>,
    /// Of the busiest thread.
    generator: Shares,
}

impl Default for Tally {
    fn default() -> Self {
        let latencies =
            Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("bounds that a histogram takes");
        Tally { requests: 0, latencies, errors: BTreeMap::new(), generator: Shares::default() }
    }
}

impl Tally {
    fn record(&mut self, latency: Duration) {
        self.latencies.saturating_record((latency.as_nanos() as u64).div_ceil(1000));
    }

    pub(super) fn merge(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.latencies.add(&other.latencies).expect("both have the same bounds");
        for (kind, count) in &other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.generator = self.generator.busier(other.generator);
    }

    pub(super) fn outcome(&self, seconds: f64) -> Outcome {
        let bins = self.latencies.iter_recorded();
        Outcome {
            seconds,
            requests: self.requests,
            latencies: bins
                .map(|bin| (bin.value_iterated_to(), bin.count_since_last_iteration()))
                .collect(),
            errors: self.errors.iter().map(|(&kind, &count)| (kind.to_owned(), count)).collect(),
            generator: self.generator,
        }
    }
}

/// The tally of one thread, while its connections run.
///
/// Requests count that are answered within the span. What is under way when it ends has begun in it and belongs to it: its latency
/// counts, or its error. A server that stands still at the end thus looks no better than it is.
pub(super) struct Shared {
    from: Instant,
    until: Instant,
    tally: RefCell<Tally>,
    /// Requests under way.
    open: Cell<usize>,
    /// Who waits until there are none.
    waiting: RefCell<Option<Waker>>,
}

impl Shared {
    pub(super) fn new(from: Instant, until: Instant) -> Shared {
        Shared {
            from,
            until,
            tally: RefCell::default(),
            open: Cell::default(),
            waiting: RefCell::default(),
        }
    }

    /// Answered at `at`, `latency` after it was sent or due.
    pub(super) fn answered(&self, at: Instant, latency: Duration) {
        if self.from <= at {
            let mut tally = self.tally.borrow_mut();
            // Whatever is answered later is no throughput, and its latency counts all the same.
            tally.requests += u64::from(at < self.until);
            tally.record(latency);
        }
    }

    /// So many requests, sent or due at `since`, have failed. Each counts as an error, and for as long as it has waited: failing
    /// makes no percentile better. But for what is told at once, a refusal or an error's status: as a short latency it would.
    pub(super) fn failed(&self, trouble: Trouble, since: Instant, count: u32) {
        if self.from <= Instant::now() {
            self.add(trouble, count.into());
            if !matches!(trouble, Trouble::Connect | Trouble::Status) {
                self.still_waits(since, count);
            }
        }
    }

    fn add(&self, trouble: Trouble, count: u64) {
        if count > 0 {
            *self.tally.borrow_mut().errors.entry(trouble.name()).or_default() += count;
        }
    }

    /// So many requests, sent or due at `since`, were not answered at all. Each counts as an error, and for as long as it has
    /// waited.
    pub(super) fn unanswered(&self, since: Instant, count: u32) {
        self.add(Trouble::Unanswered, count.into());
        self.still_waits(since, count);
    }

    /// So many requests, sent or due at `since`, have no answer yet: how long they wait for it is their latency.
    pub(super) fn still_waits(&self, since: Instant, count: u32) {
        let age = Instant::now().saturating_duration_since(since);
        (0..count).for_each(|_| self.tally.borrow_mut().record(age));
    }

    /// Answered so far.
    pub(super) fn requests(&self) -> u64 {
        self.tally.borrow().requests
    }

    /// When the time is over.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// A request, or several at a time, is under way from here on.
    pub(super) fn begun(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// It is not any more.
    pub(super) fn ended(&self) {
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
    }

    /// Waits until nothing is under way.
    pub(super) async fn settled(&self) {
        poll_fn(|context| {
            if self.open.get() == 0 {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// So many silent connections are not there at the end.
    pub(super) fn missing(&self, count: u64) {
        self.add(Trouble::Idle, count);
    }

    /// What the thread did with its time.
    pub(super) fn worked(&self, shares: Shares) {
        self.tally.borrow_mut().generator = shares;
    }

    /// The counts; nothing is added any more.
    pub(super) fn close(&self) -> Tally {
        self.tally.take()
    }
}

/// The outcome in words.
pub(super) fn describe(outcome: &Outcome) -> String {
    let mut text = String::new();
    let rate = outcome.requests as f64 / outcome.seconds;
    let _ = writeln!(text, "{:>10} requests in {:.2} s", outcome.requests, outcome.seconds);
    let _ = writeln!(text, "{rate:>10.0} requests/s");
    for (name, quantile) in
        [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)]
    {
        let _ = writeln!(text, "{:>10.3} ms {name}", millis_at(&outcome.latencies, quantile));
    }
    for (kind, count) in &outcome.errors {
        let _ = writeln!(text, "{count:>10} errors: {kind}");
    }
    let Shares { busy, waited } = outcome.generator;
    let (busy, waited) = (busy * 100.0, waited * 100.0);
    let _ = match outcome.generator {
        shares if !shares.is_saturated() => Ok(()),
        shares if shares.is_crowded() => writeln!(
            text,
            "the generator and others wanted the same CPUs: a thread of it was busy for {busy:.0} % of its time, {waited:.0} % of \
             it waiting for a CPU"
        ),
        _ => writeln!(
            text,
            "the generator was the limit: a thread of it was busy for {busy:.0} % of its time; the server may be faster than this"
        ),
    };
    text.trim_end().to_owned()
}

fn millis_at(latencies: &[(u64, u64)], quantile: f64) -> f64 {
    let total: u64 = latencies.iter().map(|(_, count)| count).sum();
    let wanted = ((total as f64 * quantile).ceil() as u64).max(1);
    let mut seen = 0;
    for &(value, count) in latencies {
        seen += count;
        if seen >= wanted {
            return value as f64 / 1000.0;
        }
    }
    0.0
}
