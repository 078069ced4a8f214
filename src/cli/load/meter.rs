//! How busy a thread of the generator is: what it says of itself, from one moment to another.
//!
//! Time counts as busy in which the thread had a CPU, and also that in which it would have run and had none: either way the
//! requests that were due on it waited for the generator. The sum over all threads would hide one that has no time left, so each
//! is measured by itself, and the busiest one counts.

use crate::sys::thread::{own_cpu_time, own_wait_time};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Shares of a thread's time, each 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shares {
    /// It had a CPU, or waited for one.
    pub(crate) busy: f64,
    /// It waited for a CPU that others had. Part of `busy`.
    pub(crate) waited: f64,
}

/// From this share on a thread has nothing left.
pub(crate) const SATURATED: f64 = 0.95;
/// From this share of waiting on it is not the thread that is slow: others have its CPU.
pub(crate) const CROWDED: f64 = 0.1;

impl Shares {
    /// Of so much time.
    fn of(ran: Duration, waited: Duration, time: Duration) -> Shares {
        let share = |part: Duration| (part.as_secs_f64() / time.as_secs_f64().max(1e-9)).min(1.0);
        Shares { busy: share(ran + waited), waited: share(waited) }
    }

    /// Those of whichever thread was busier.
    pub(crate) fn busier(self, other: Shares) -> Shares {
        if other.busy > self.busy { other } else { self }
    }

    /// The thread had nothing left. What it measured is no more than it could do itself.
    pub(crate) fn is_saturated(self) -> bool {
        self.busy >= SATURATED
    }

    /// Others had the CPU for which it waited.
    pub(crate) fn is_crowded(self) -> bool {
        self.waited >= CROWDED
    }
}

/// The calling thread's times at one moment.
pub(super) struct Meter {
    at: Instant,
    ran: Duration,
    waited: Duration,
}

impl Meter {
    pub(super) fn start() -> Meter {
        Meter {
            at: Instant::now(),
            ran: own_cpu_time(),
            waited: own_wait_time().unwrap_or_default(),
        }
    }

    /// What the same thread has done since.
    pub(super) fn stop(&self) -> Shares {
        let now = Meter::start();
        Shares::of(now.ran - self.ran, now.waited.saturating_sub(self.waited), now.at - self.at)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn of(ran: u64, waited: u64) -> Shares {
        Shares::of(
            Duration::from_millis(ran),
            Duration::from_millis(waited),
            Duration::from_millis(1000),
        )
    }

    #[test]
    fn waiting_for_a_cpu_is_being_busy() {
        let alone = of(970, 5);
        assert!(alone.is_saturated() && !alone.is_crowded());
        let crowded = of(480, 500);
        assert!(crowded.is_saturated() && crowded.is_crowded());
        assert!(!of(480, 300).is_saturated());
        assert_eq!(of(900, 900).busy, 1.0);
    }

    #[test]
    fn the_busiest_thread_counts() {
        assert_eq!(of(100, 0).busier(of(960, 0)), of(960, 0));
        assert_eq!(of(500, 480).busier(of(960, 0)), of(500, 480));
    }

    #[test]
    fn a_thread_that_computes_is_busy_and_one_that_waits_is_not() {
        let meter = Meter::start();
        while meter.at.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert!(meter.stop().busy > 0.5, "{:?}", meter.stop());
        let meter = Meter::start();
        let (_keep, never) = std::sync::mpsc::channel::<()>();
        let _ = never.recv_timeout(Duration::from_millis(100));
        assert!(meter.stop().busy < 0.9, "{:?}", meter.stop());
    }
}
