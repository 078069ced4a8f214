//! The body of a request, held to its limits.

use super::probe::Probe;
use crate::limits::{ConnectionLimits, PROGRESS_BYTES};
use crate::shard::context::with_current;
use crate::sync::{AtomicU32, Ordering};
use crate::time::{Sleep, clock, sleep};
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The body of a request, as it comes: hyper's, held to [`ConnectionLimits::body_bytes`] and
/// [`body_timeout`](ConnectionLimits::body_timeout).
///
/// Nothing is read before it is polled, and no more than the connection's window beyond that: who polls slowly slows the client
/// down. The time counts only while somebody waits for it. Dropped before its end, HTTP/1 closes the connection after the answer
/// unless the rest is there already; HTTP/2 resets the stream.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    /// None: it was empty from the start.
    bounds: Option<Box<Bounds>>,
}

#[derive(Debug)]
struct Bounds {
    /// Bytes that may still come.
    left: u64,
    timeout: Option<Duration>,
    /// Since somebody waits without enough of it.
    wait: Option<Sleep>,
    /// Bytes in the time of that wait.
    came: u64,
    fate: Arc<Fate>,
    probe: Arc<Probe>,
}

impl Drop for Bounds {
    fn drop(&mut self) {
        self.probe.close();
    }
}

/// A service that waits for a body is there this soon when the time is over.
const PROMPT: Duration = Duration::from_secs(1);

/// Whether a body has failed by fault of the client, and how, for the guard of a service that has no answer of its own then.
#[derive(Debug, Default)]
pub(super) struct Fate(AtomicU32);

/// How a body has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    TooLarge = 1,
    Late = 2,
    Malformed = 3,
}

impl Fate {
    pub(super) fn get(&self) -> Option<Failure> {
        let failures = [Failure::TooLarge, Failure::Late, Failure::Malformed];
        failures.into_iter().find(|failure| *failure as u32 == self.0.load(Ordering::Relaxed))
    }

    fn set(&self, failure: Failure) {
        self.0.store(failure as u32, Ordering::Relaxed);
    }
}

impl Body {
    /// Also tells of its fate, if there can be one.
    pub(super) fn new(
        incoming: Incoming,
        has_body: bool,
        limits: &ConnectionLimits,
        probe: &Arc<Probe>,
    ) -> (Body, Option<Arc<Fate>>) {
        if !has_body {
            return (Body { incoming, bounds: None }, None);
        }
        let fate = Arc::new(Fate::default());
        let bounds = Bounds {
            left: limits.body_bytes,
            timeout: limits.body_timeout,
            wait: None,
            came: 0,
            fate: fate.clone(),
            probe: probe.clone(),
        };
        probe.open();
        (Body { incoming, bounds: Some(Box::new(bounds)) }, Some(fate))
    }

    /// hyper's own body, which is held to nothing.
    pub fn into_inner(self) -> Incoming {
        self.incoming
    }
}

impl Bounds {
    /// Some of it has come.
    fn take(&mut self, bytes: u64) -> Result<(), BodyError> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| self.fail(Failure::TooLarge))?;
        self.came += bytes;
        let Some(over) = self.wait.as_ref().map(Sleep::deadline) else { return Ok(()) };
        let now = with_current(|shard| shard.now()).unwrap_or_else(clock::now);
        if now >= over {
            // Whoever comes long after that has not waited.
            if self.came < PROGRESS_BYTES && now < over + PROMPT {
                return Err(self.fail(Failure::Late));
            }
            self.wait = None;
        }
        Ok(())
    }

    /// Nothing is there. Some: it is late.
    fn wait(&mut self, context: &mut Context<'_>) -> Option<BodyError> {
        let timeout = self.timeout?;
        loop {
            let came = &mut self.came;
            let wait = self.wait.get_or_insert_with(|| {
                *came = 0;
                sleep(timeout)
            });
            if Pin::new(wait).poll(context).is_pending() {
                return None;
            }
            self.wait = None;
            if *came < PROGRESS_BYTES {
                return Some(self.fail(Failure::Late));
            }
        }
    }

    fn fail(&self, failure: Failure) -> BodyError {
        self.fate.set(failure);
        BodyError(if failure == Failure::Late { Kind::Late } else { Kind::TooLarge })
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    #[inline]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Body { incoming, bounds } = &mut *self;
        let Some(bounds) = bounds else { return Poll::Ready(None) };
        if bounds.fate.get().is_some() {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut *incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                if is_malformed(&error) {
                    bounds.fate.set(Failure::Malformed);
                }
                return Poll::Ready(Some(Err(BodyError(Kind::Broken(error)))));
            }
            Poll::Ready(None) => {
                bounds.probe.has_whole_body();
                return Poll::Ready(None);
            }
            Poll::Pending => {
                return bounds
                    .wait(context)
                    .map_or(Poll::Pending, |late| Poll::Ready(Some(Err(late))));
            }
        };
        if incoming.is_end_stream() {
            bounds.probe.has_whole_body();
        }
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        Poll::Ready(Some(bounds.take(bytes).map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Whether it is no valid sequence of chunks, or ended too early (RFC 9112, 7.1 and 8). hyper says it by the kind of what is
/// below; other errors are those of the connection, on which nothing can be answered.
fn is_malformed(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    let below =
        std::error::Error::source(error).and_then(|below| below.downcast_ref::<std::io::Error>());
    below.is_some_and(|below| matches!(below.kind(), InvalidInput | InvalidData | UnexpectedEof))
}

/// Why a request's body does not come to its end.
#[derive(Debug)]
pub struct BodyError(Kind);

#[derive(Debug)]
enum Kind {
    TooLarge,
    Late,
    Broken(hyper::Error),
}

impl BodyError {
    /// It has more bytes than [`ConnectionLimits::body_bytes`].
    pub fn is_too_large(&self) -> bool {
        matches!(self.0, Kind::TooLarge)
    }

    /// It has not come in [`ConnectionLimits::body_timeout`].
    pub fn is_late(&self) -> bool {
        matches!(self.0, Kind::Late)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::TooLarge => f.write_str("the request's body is larger than it may be"),
            Kind::Late => f.write_str("the request's body does not come in time"),
            Kind::Broken(error) => write!(f, "the request's body cannot be read: {error}"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Kind::Broken(error) => Some(error),
            Kind::TooLarge | Kind::Late => None,
        }
    }
}
