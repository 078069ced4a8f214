//! `timeout`: a future with a deadline.

use super::sleep::{Sleep, sleep, sleep_until};
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Where Tokio keeps the error type of a timeout.
pub mod error {
    pub use super::Elapsed;
}

/// Bounds `future`: its output, or [`Elapsed`] if `duration` passes first.
///
/// The future is polled before the deadline is looked at, so one that is ready always gives its output.
///
/// # Errors
/// [`Elapsed`]; the future is then dropped with the `Timeout`.
///
/// # Panics
/// As [`sleep`].
///
/// # Cancel safety
/// That of the inner future.
///
/// # Examples
/// ```
/// use corelane::time::{Duration, timeout};
/// use std::future::pending;
/// corelane::block_on(async {
///     assert!(timeout(Duration::from_millis(2), pending::<()>()).await.is_err());
/// });
/// ```
pub fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Timeout<F::IntoFuture> {
    Timeout { future: future.into_future(), sleep: sleep(duration) }
}

/// As [`timeout`], at a point in time.
///
/// # Errors
/// As [`timeout`].
pub fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Timeout<F::IntoFuture> {
    Timeout { future: future.into_future(), sleep: sleep_until(deadline) }
}

pin_project_lite::pin_project! {
    /// See [`timeout`].
    #[must_use = "a timeout does nothing unless it is awaited"]
    #[derive(Debug)]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        sleep: Sleep,
    }
}

impl<F> Timeout<F> {
    /// The bounded future.
    pub fn get_ref(&self) -> &F {
        &self.future
    }

    /// The bounded future.
    pub fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }

    /// The bounded future, without its deadline.
    pub fn into_inner(self) -> F {
        self.future
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        // Whatever the future has used up of this poll's share, the deadline is looked at.
        this.sleep.poll_for_free(context).map(|()| Err(Elapsed(())))
    }
}

/// The deadline passed before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> Self {
        std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}
