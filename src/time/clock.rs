//! The one place below the binary that reads the clock.
//!
//! The loop reads it a few times a turn. A timer reads it when it is made, because a deadline reckoned from the
//! turn's cached time would be early by as much as that is old.

use std::time::Instant;

/// Monotonic time; steps of the wall clock do not touch it.
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}
