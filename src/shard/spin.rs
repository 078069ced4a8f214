//! How long a shard looks at its inbox before it parks.
//!
//! Waking a parked core costs tens of microseconds, a cache line a tenth of one, so a shard that talks to another does
//! well to look a little longer. A shard that nobody talks to must not spin at all. So: hearing something, or sending
//! a call, grants the full time; each look in vain halves it, down to nothing.

use std::cell::Cell;
use std::time::Duration;

/// See the module. Plain data of one shard.
#[derive(Debug)]
pub(crate) struct Spin {
    most: Duration,
    allowed: Cell<Duration>,
    /// Messages in the last turn that had any.
    batch: Cell<usize>,
}

/// Below this a spin is not worth its two looks at the clock.
const LEAST: Duration = Duration::from_micros(2);

/// So many messages in one turn are a stream.
const STREAM: usize = 8;
/// Pauses of the processor while a stream gathers: about a microsecond.
const GATHER_PAUSES: u32 = 64;

impl Spin {
    pub(crate) fn new(most: Duration) -> Spin {
        Spin { most, allowed: Cell::new(Duration::ZERO), batch: Cell::new(0) }
    }

    /// Something came from another shard, or will.
    #[inline]
    pub(crate) fn expect(&self) {
        self.allowed.set(self.most);
    }

    /// How long to look now; zero most of the time.
    #[inline]
    pub(crate) fn allowed(&self) -> Duration {
        self.allowed.get()
    }

    /// A turn took this many messages.
    #[inline]
    pub(crate) fn heard(&self, messages: usize) {
        if messages > 0 {
            self.batch.set(messages);
        }
    }

    /// The spin has found something. If messages come in a stream, lets a few more arrive: taking each as it comes
    /// makes the two cores fight for the queue's cache lines, and that costs the stream more than the pause.
    pub(crate) fn let_gather(&self) {
        if self.batch.get() >= STREAM {
            for _ in 0..GATHER_PAUSES {
                std::hint::spin_loop();
            }
        }
    }

    /// Nothing came.
    pub(crate) fn in_vain(&self) {
        let half = self.allowed.get() / 2;
        self.allowed.set(if half < LEAST { Duration::ZERO } else { half });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nobody_talks_nobody_spins() {
        let spin = Spin::new(Duration::from_micros(50));
        assert_eq!(spin.allowed(), Duration::ZERO);
        spin.expect();
        assert_eq!(spin.allowed(), Duration::from_micros(50));
        let looks = std::iter::repeat_with(|| spin.in_vain())
            .take_while(|()| spin.allowed() > Duration::ZERO)
            .count();
        assert!(looks < 6, "{looks} looks in vain");
        let off = Spin::new(Duration::ZERO);
        off.expect();
        assert_eq!(off.allowed(), Duration::ZERO);
    }
}
