//! A task's share of one poll: counting it, spending it, going without.
//!
//! In each poll a task may do [`Limits::io_per_poll`](crate::Limits) socket operations; timers that are over at once
//! count too. Then sockets say "pending" and wake the task, so that one that always finds bytes does not keep others
//! waiting. Tokio calls that a budget. It is the shard's, in a plain cell, and given anew for every poll.

use crate::shard::context::with_current;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Whether the task may still do a socket operation in this poll. Always true outside a shard.
///
/// # Examples
/// ```
/// corelane::block_on(async { assert!(corelane::task::coop::has_budget_remaining()) });
/// ```
pub fn has_budget_remaining() -> bool {
    with_current(|shard| shard.io_left() > 0).unwrap_or(true)
}

/// Counts one operation; yields to the shard's other tasks if the task has had its share of this poll.
///
/// For long computations that wait for nothing: called once per piece of work, it lets others in from time to time.
///
/// # Cancel safety
/// Safe.
///
/// # Examples
/// ```
/// corelane::block_on(async {
///     let mut sum = 0_u64;
///     for number in 0..10_000 {
///         sum += number;
///         corelane::task::consume_budget().await;
///     }
///     assert_eq!(sum, 49_995_000);
/// });
/// ```
pub async fn consume_budget() {
    poll_fn(|context| poll_proceed(context).map(|spent| spent.made_progress())).await;
}

/// Counts one operation for a future of the caller's own, before it is tried.
///
/// If the operation gets nothing done, dropping what this returns gives the count back;
/// [`made_progress`](RestoreOnPending::made_progress) keeps it. Pending means that the share is used up; the task is
/// woken at once.
///
/// # Examples
/// ```
/// use corelane::task::coop::poll_proceed;
/// use std::future::poll_fn;
/// use std::task::{Poll, ready};
/// corelane::block_on(poll_fn(|context| {
///     let spent = ready!(poll_proceed(context));
///     spent.made_progress();
///     Poll::Ready(())
/// }));
/// ```
pub fn poll_proceed(context: &mut Context<'_>) -> Poll<RestoreOnPending> {
    let counted = with_current(|shard| {
        let left = shard.io_left();
        shard.charge_io().then_some(left)
    });
    match counted {
        Some(None) => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        Some(before) => Poll::Ready(RestoreOnPending { before }),
        None => Poll::Ready(RestoreOnPending { before: None }),
    }
}

/// Gives a counted operation back when it is dropped: see [`poll_proceed`].
#[must_use = "dropping it gives the count back"]
#[derive(Debug)]
pub struct RestoreOnPending {
    before: Option<u32>,
}

impl RestoreOnPending {
    /// The operation got something done and counts.
    pub fn made_progress(mut self) {
        self.before = None;
    }
}

impl Drop for RestoreOnPending {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            with_current(|shard| shard.set_io_left(before));
        }
    }
}

pin_project_lite::pin_project! {
    /// See [`cooperative`].
    #[must_use = "a future does nothing unless it is awaited"]
    #[derive(Debug)]
    pub struct Coop<F> {
        #[pin]
        future: F,
    }
}

/// Makes every poll of `future` that gets it done count as an operation, as if it were a socket's.
///
/// # Cancel safety
/// That of `future`.
///
/// # Examples
/// ```
/// use corelane::task::coop::cooperative;
/// assert_eq!(corelane::block_on(cooperative(async { 1 })), 1);
/// ```
pub fn cooperative<F: Future>(future: F) -> Coop<F> {
    Coop { future }
}

impl<F: Future> Future for Coop<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let spent = ready!(poll_proceed(context));
        let output = ready!(self.project().future.poll(context));
        spent.made_progress();
        Poll::Ready(output)
    }
}

pin_project_lite::pin_project! {
    /// See [`unconstrained`].
    #[must_use = "a future does nothing unless it is awaited"]
    #[derive(Debug)]
    pub struct Unconstrained<F> {
        #[pin]
        inner: F,
    }
}

/// Lets `inner` do as many operations in one poll as it likes.
///
/// The other tasks of the shard wait meanwhile. What `inner` does is not counted against the task it runs in.
///
/// # Cancel safety
/// That of `inner`.
///
/// # Examples
/// ```
/// use corelane::task::unconstrained;
/// assert_eq!(corelane::block_on(unconstrained(async { 1 })), 1);
/// ```
pub fn unconstrained<F>(inner: F) -> Unconstrained<F> {
    Unconstrained { inner }
}

impl<F: Future> Future for Unconstrained<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        /// Goes back to what was left also if the future panics.
        struct Restore(Option<(u32, u32)>);
        impl Drop for Restore {
            fn drop(&mut self) {
                if let Some((left, handovers)) = self.0 {
                    with_current(|shard| {
                        shard.set_io_left(left);
                        shard.home().replace_handovers(handovers);
                    });
                }
            }
        }
        let _restore = Restore(with_current(|shard| {
            let left = shard.io_left();
            shard.set_io_left(u32::MAX);
            // A task that is awaited in here is not unconstrained itself, so it does not run in this one's place.
            (left, shard.home().replace_handovers(0))
        }));
        self.project().inner.poll(context)
    }
}
