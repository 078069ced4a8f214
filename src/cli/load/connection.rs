//! One connection that asks again and again.

use super::Options;
use super::answer::Reader;
use super::tally::{Shared, Trouble};
use crate::net::TcpStream;
use crate::time::{sleep, sleep_until, timeout};
use futures_io::AsyncWrite;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// After a connection that could not be had, before the next is tried.
pub(super) const PAUSE: Duration = Duration::from_millis(10);
/// A connection on which nothing was asked for so long may be closed by the server without being to blame. One that was in use
/// just now may not: what was asked on it is lost.
const RESTED: Duration = Duration::from_millis(100);
/// By how much a timer may ring late on a thread that has time: a step of the wheel, one of `epoll_wait`, and as much again until
/// the kernel runs the thread. What is more is the thread's lack of time.
const TIMER_LATE: Duration = Duration::from_millis(4);

/// Where to ask, and what.
#[derive(Clone)]
pub(super) struct Target {
    address: SocketAddr,
    /// As many requests as are sent at a time.
    request: Arc<[u8]>,
    /// How many that are.
    batch: u32,
    /// Each has a connection of its own.
    closes: bool,
    timeout: Duration,
}

impl Target {
    pub(super) fn of(address: SocketAddr, path: &str, options: &Options) -> Target {
        let mut one = Vec::new();
        let method = if options.upload.is_some() { "POST" } else { "GET" };
        let _ = write!(one, "{method} {path} HTTP/1.1\r\nHost: {address}\r\n");
        if options.close {
            one.extend_from_slice(b"Connection: close\r\n");
        }
        if let Some(length) = options.upload {
            let _ = write!(one, "Content-Length: {length}\r\n\r\n");
            one.resize(one.len() + length, b'x');
        } else {
            one.extend_from_slice(b"\r\n");
        }
        let batch = if options.close { 1 } else { options.pipeline };
        Target {
            address,
            request: one.repeat(batch as usize).into(),
            batch,
            closes: options.close,
            timeout: Duration::from_secs_f64(options.timeout),
        }
    }

    /// The last `count` requests of those that are sent at a time.
    fn requests(&self, count: u32) -> &[u8] {
        let one = self.request.len() / self.batch as usize;
        &self.request[self.request.len() - one * count as usize..]
    }

    pub(super) async fn connect(&self) -> Result<Link, Trouble> {
        let connected = timeout(self.timeout, TcpStream::connect(self.address)).await;
        let stream = connected.map_err(|_| Trouble::Timeout)?.map_err(|_| Trouble::Connect)?;
        stream.set_nodelay(true).map_err(|_| Trouble::Connect)?;
        Ok(Link { stream, reader: Reader::new(), answered: None })
    }
}

/// An open connection.
pub(super) struct Link {
    pub(super) stream: TcpStream,
    reader: Reader,
    /// When the last answer was whole, if there was one.
    answered: Option<Instant>,
}

impl Link {
    /// Sends `count` requests and reads the answers; tells each to `answered`. True: the connection can be used again. False: it
    /// cannot, and there may be fewer answers than requests.
    pub(super) async fn ask(
        &mut self,
        target: &Target,
        count: u32,
        mut answered: impl FnMut(u16),
    ) -> Result<bool, Trouble> {
        self.reader.nothing_more(&self.stream)?;
        let sent = timeout(target.timeout, self.send(target.requests(count))).await;
        sent.map_err(|_| Trouble::Timeout)??;
        for _ in 0..count {
            let answer = timeout(target.timeout, self.reader.answer(&mut self.stream)).await;
            let answer = answer.map_err(|_| Trouble::Timeout)??;
            answered(answer.status);
            if answer.closes {
                return Ok(false);
            }
        }
        // Answers to nothing: those to what is asked next would be told from these by nobody.
        self.reader.nothing_more(&self.stream)?;
        self.answered = Some(Instant::now());
        Ok(true)
    }

    /// Whether it has answered, and has not been used for a while since.
    fn is_rested(&self) -> bool {
        self.answered.is_some_and(|at| at.elapsed() >= RESTED)
    }

    async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            let stream = &mut self.stream;
            let sent = poll_fn(|context| Pin::new(&mut *stream).poll_write(context, bytes)).await;
            bytes = &bytes[sent.map_err(|_| Trouble::Write)?..];
        }
        Ok(())
    }
}

/// When requests are due on one connection, in an open loop. Each time is the one before and the interval, whenever the request
/// before was sent.
pub(super) struct Schedule {
    due: Instant,
    interval: Duration,
}

impl Schedule {
    /// Of connection `number`, one of `connections` that send `rate` requests per second together, one after the other.
    pub(super) fn new(began: Instant, rate: f64, number: u32, connections: u32) -> Schedule {
        let interval = Duration::from_secs_f64(f64::from(connections) / rate.max(1e-6));
        Schedule {
            due: began + interval.mul_f64(f64::from(number) / f64::from(connections)),
            interval,
        }
    }

    /// Waits until the next request is due, if it is before `end`. Returns the time from which its latency counts: when it was
    /// due, unless the connection was free by then and it is no later than the timer's resolution makes it; that is not the
    /// server's doing, and longer than what a fast one takes.
    async fn next(&mut self, end: Instant) -> Option<Instant> {
        let due = self.due;
        if due >= end {
            return None;
        }
        self.due += self.interval;
        if due <= Instant::now() {
            return Some(due);
        }
        sleep_until(due).await;
        Some(counts_from(due, Instant::now()))
    }
}

/// From when a request counts that was due at `due`, and for which the timer rang at `now`.
fn counts_from(due: Instant, now: Instant) -> Instant {
    if now.saturating_duration_since(due) <= TIMER_LATE { now } else { due }
}

/// Lets one cold request pass for nine hot ones.
#[derive(Default)]
pub(super) struct Turnstile {
    passed: Cell<u64>,
    permits: Cell<u64>,
    waiting: RefCell<VecDeque<Waker>>,
}

impl Turnstile {
    /// A request of the hot tenth was answered.
    fn turn(&self) {
        self.passed.set(self.passed.get() + 1);
        if self.passed.get().is_multiple_of(9) {
            self.permits.set(self.permits.get() + 1);
            let first = self.waiting.borrow_mut().pop_front();
            if let Some(waker) = first {
                waker.wake();
            }
        }
    }

    /// Waits for the turn of a cold request.
    async fn pass(&self) {
        poll_fn(|context| {
            if self.permits.get() > 0 {
                self.permits.set(self.permits.get() - 1);
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push_back(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Connects, asks, and connects again when that is necessary, until the time is over; then it keeps what it has, for ever. `gate`
/// says whether the connection is one of the hot ones.
pub(super) async fn keep_asking(
    target: Target,
    tally: Rc<Shared>,
    mut schedule: Option<Schedule>,
    gate: Option<(Rc<Turnstile>, bool)>,
) {
    let mut link = None;
    loop {
        if let Some((turnstile, false)) = &gate {
            turnstile.pass().await;
        }
        let due = match &mut schedule {
            Some(schedule) => schedule.next(tally.until()).await,
            None => Some(Instant::now()).filter(|now| *now < tally.until()),
        };
        let Some(since) = due else { break };
        let behind = schedule.as_ref().map(|it| (it.due, it.interval));
        let owed = Owed::new(since, target.batch, behind, &tally);
        let outcome = ask_once(&mut link, &target, &owed).await;
        if let Err(trouble) = outcome {
            owed.failed(trouble);
        }
        if outcome == Err(Trouble::Connect) {
            // Still under way: what becomes due meanwhile counts, whenever this ends.
            sleep(PAUSE).await;
        }
        owed.paid();
        if let Some((turnstile, true)) = &gate {
            turnstile.turn();
        }
    }
    // Whoever measures the server finds it as it was.
    std::future::pending::<()>().await;
    drop(link);
}

/// Asks until all that is owed is answered: what the server leaves when it closes a connection goes on a new one, and the time
/// that this takes counts. `link` is the connection that can be used again, before and after.
async fn ask_once(
    link: &mut Option<Link>,
    target: &Target,
    owed: &Owed<'_>,
) -> Result<(), Trouble> {
    let mut known = link.take();
    loop {
        let mut open = match known.take() {
            Some(open) => open,
            None => target.connect().await?,
        };
        let rested = open.is_rested();
        let left = owed.left.get();
        match open.ask(target, left, |status| owed.answered(status)).await {
            Ok(true) => {
                if !target.closes {
                    *link = Some(open);
                }
                return Ok(());
            }
            // It has said that it closes the connection after this answer; it was the last, or there are some behind it.
            Ok(false) if owed.left.get() == 0 => return Ok(()),
            Ok(false) => {}
            // The server has closed a connection that was silent, as it may (RFC 9112, 9.3.1).
            Err(Trouble::Read | Trouble::Write)
                if rested && owed.left.get() == left && open.reader.is_empty() => {}
            Err(trouble) => return Err(trouble),
        }
    }
}

/// Requests that are under way. If this is dropped before they are answered, at the end, they are errors and count for as long as
/// they have waited; so do those that became due behind them, which are no errors: they were never sent.
struct Owed<'a> {
    since: Instant,
    /// How many are left.
    left: Cell<u32>,
    /// How many are due at a time.
    batch: u32,
    /// When the next are due on this connection, and from time to time after that.
    behind: Option<(Instant, Duration)>,
    tally: &'a Shared,
}

impl<'a> Owed<'a> {
    fn new(
        since: Instant,
        batch: u32,
        behind: Option<(Instant, Duration)>,
        tally: &'a Shared,
    ) -> Owed<'a> {
        tally.begun();
        Owed { since, left: Cell::new(batch), batch, behind, tally }
    }

    fn answered(&self, status: u16) {
        self.left.set(self.left.get() - 1);
        let now = Instant::now();
        match status {
            200..300 => self.tally.answered(now, now.saturating_duration_since(self.since)),
            _ => self.tally.failed(Trouble::Status, self.since, 1),
        }
    }

    /// Those that are left will not be answered; or all are, and then something was wrong with the answers.
    fn failed(&self, trouble: Trouble) {
        self.tally.failed(trouble, self.since, self.left.replace(0).max(1));
    }

    /// They are answered, or have failed.
    fn paid(mut self) {
        self.left.set(0);
        self.behind = None;
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        self.tally.ended();
        self.tally.unanswered(self.since, self.left.get());
        let Some((mut due, interval)) = self.behind else { return };
        while due < self.tally.until() {
            self.tally.still_waits(due, self.batch);
            due += interval;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_counted_from_the_first_time_on() {
        let began = Instant::now();
        let mut schedule = Schedule::new(began, 100.0, 3, 10);
        let interval = Duration::from_millis(100);
        assert_eq!((schedule.due, schedule.interval), (began + 3 * interval / 10, interval));
        crate::runtime::block_on::block_on(async {
            let end = began + 5 * interval;
            for _ in 0..3 {
                schedule.next(end).await.expect("it is due");
            }
            // However late the timer was.
            assert_eq!(schedule.due, began + 3 * interval + 3 * interval / 10);
            assert_eq!(schedule.next(began).await, None);
        });
    }

    #[test]
    fn only_the_timers_own_lateness_does_not_count() {
        let due = Instant::now();
        let a_little = due + Duration::from_millis(1);
        assert_eq!(counts_from(due, a_little), a_little);
        assert_eq!(counts_from(due, due + Duration::from_millis(5)), due);
    }
}
