//! Whether a new socket is worth reading before it is registered.
//!
//! Plain data of one shard. If the first bytes are there already, as under a heavy load they are, reading at once saves
//! the registration and a wake. If they are not, that read is a system call for nothing. So the reactor goes by how it
//! went lately, and looks now and then whether that still holds.

use std::cell::Cell;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Guess {
    /// Reads of new sockets that found nothing, since the last that did.
    in_vain: Cell<u32>,
    /// Sockets that were registered unread, since the last that was not.
    unread: Cell<u32>,
    /// Every new socket is read.
    always: Cell<bool>,
}

/// So many reads in vain are no accident.
const ENOUGH: u32 = 8;
/// From then on one in so many new sockets is read all the same.
const PROBE_INTERVAL: u32 = 16;

impl Guess {
    /// Whether to read the socket that is new now.
    pub(crate) fn is_worth_reading(&self) -> bool {
        if self.in_vain.get() < ENOUGH || self.always.get() {
            return true;
        }
        let unread = (self.unread.get() + 1) % PROBE_INTERVAL;
        self.unread.set(unread);
        unread == 0
    }

    /// From now on every new socket is read, whatever came of it before.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the server asks for it"))]
    pub(crate) fn read_always(&self) {
        self.always.set(true);
    }

    /// Whether it is so.
    pub(crate) fn reads_always(&self) -> bool {
        self.always.get()
    }

    /// How the read of a new socket went.
    pub(crate) fn learn(&self, found_something: bool) {
        self.in_vain.set(if found_something { 0 } else { self.in_vain.get().saturating_add(1) });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn it_gives_up_probes_and_comes_back() {
        let guess = Guess::default();
        for _ in 0..ENOUGH {
            assert!(guess.is_worth_reading());
            guess.learn(false);
        }
        let read = (0..10 * PROBE_INTERVAL).filter(|_| guess.is_worth_reading()).count();
        assert_eq!(read, 10);
        guess.learn(true);
        assert!((0..ENOUGH).all(|_| guess.is_worth_reading()));
    }
}
