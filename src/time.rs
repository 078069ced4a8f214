//! Time: sleeping until a deadline, bounding a future, ticking.
//!
//! Names and meanings follow Tokio's `time` module, with [`std::time::Instant`] and [`std::time::Duration`]. Timers
//! have a resolution of a millisecond: they never fire early, and late by up to a millisecond and what the shard is
//! busy with. The wall clock does not matter to them. `Duration::MAX` means "never".
//!
//! # Examples
//! ```
//! use corelane::time::{Duration, sleep, timeout};
//! corelane::block_on(async {
//!     sleep(Duration::from_millis(5)).await;
//!     let answer = timeout(Duration::from_secs(1), async { 42 }).await;
//!     assert_eq!(answer, Ok(42));
//! });
//! ```

pub(crate) mod wheel;

#[cfg(not(loom))]
pub(crate) mod clock;
#[cfg(not(loom))]
mod interval;
#[cfg(not(loom))]
mod sleep;
#[cfg(not(loom))]
mod timeout;

#[cfg(not(loom))]
pub use interval::{Interval, MissedTickBehavior, interval, interval_at};
#[cfg(not(loom))]
pub use sleep::{Sleep, sleep, sleep_until};
pub use std::time::{Duration, Instant};
#[cfg(not(loom))]
pub use timeout::{Elapsed, Timeout, error, timeout, timeout_at};
