//! The sleep handshake: how a shard goes to sleep without missing a message, and how a sender wakes it with at most
//! one system call per sleep.
//!
//! ```text
//! owner:   state := PARKED; fence; look at every queue again; wait for the bell; state := AWAKE
//! sender:  push to a queue; fence; if state is PARKED and this sender swaps it to AWAKE: ring the bell
//! ```
//!
//! The two fences are partners: either the owner's second look sees the push, or the sender sees PARKED. Whoever
//! swaps PARKED to AWAKE rings, so a burst of pushes rings once, and a running owner is never rung. The bell is an
//! eventfd in the owner's poll; a ring that arrives late costs one spurious wake-up and nothing else.
//!
//! The owner calls `announce` and `awake`; any thread calls `unpark`. This file never touches the queues themselves.

use crate::sync::{AtomicU32, AtomicU64, CachePadded, Ordering, fence};

/// The owner is running, or somebody has already rung for it.
const AWAKE: u32 = 0;
/// The owner sleeps or is about to; the next sender must ring.
const PARKED: u32 = 1;

/// What makes a sleeping owner's wait return. One real implementation, one for the model checker.
pub(crate) trait Ring {
    /// Makes the owner's current or next wait return. Must not block.
    fn ring(&self);
}

/// The shared half of the handshake. It lives in the owner's inbox.
pub(crate) struct Unparker<B> {
    /// Written by the owner at every park: kept off the lines that senders write.
    state: CachePadded<AtomicU32>,
    rings: AtomicU64,
    bell: B,
}

impl<B: Ring> Unparker<B> {
    pub(crate) fn new(bell: B) -> Self {
        Unparker { state: CachePadded::new(AtomicU32::new(AWAKE)), rings: AtomicU64::new(0), bell }
    }

    /// Owner, before it sleeps. Every queue must be looked at once more between this and the wait.
    pub(crate) fn announce(&self) {
        // Release, partner: the swap in `unpark`, after which the bell is rung where the owner sleeps now.
        self.state.store(PARKED, Ordering::Release);
        // Partner: the fence in `unpark`.
        fence(Ordering::SeqCst);
    }

    /// Owner, when it has slept or has found something after all. Forgetting this would cost senders one ring each.
    pub(crate) fn awake(&self) {
        self.state.store(AWAKE, Ordering::Relaxed);
    }

    /// Sender, after its push. The caller holds the inbox alive by a reference of its own: the pushed entry may be
    /// gone by now.
    pub(crate) fn unpark(&self) {
        // Partner: the fence in `announce`.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == PARKED
            && self.state.swap(AWAKE, Ordering::Acquire) == PARKED
        {
            self.rings.fetch_add(1, Ordering::Relaxed);
            self.bell.ring();
        }
    }

    /// Whether the owner sleeps, or did so a moment ago.
    pub(crate) fn is_parked(&self) -> bool {
        self.state.load(Ordering::Relaxed) == PARKED
    }

    /// How often the bell was rung since the start.
    pub(crate) fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }
}

#[cfg(not(loom))]
pub(crate) use eventfd::{Bell, Seat};

#[cfg(not(loom))]
mod eventfd {
    use crate::sync::{Arc, AtomicBool, Ordering};
    use std::io;

    /// An eventfd registered with the owner's `mio::Poll`, edge-triggered: it need not be read to ring again.
    pub(crate) struct Bell {
        own: mio::Waker,
        seat: Option<Arc<Seat>>,
    }

    /// Where a worker of a pool sleeps: in a poll of its own, or in the one that all share.
    pub(crate) struct Seat {
        in_shared: AtomicBool,
        ring_shared: Box<dyn Fn() + Send + Sync>,
    }

    /// The token under which a shard's own bell is registered; as a slot key it names no slot.
    const BELL: mio::Token = mio::Token(usize::MAX);

    impl Bell {
        pub(crate) fn new(registry: &mio::Registry, seat: Option<Arc<Seat>>) -> io::Result<Bell> {
            Ok(Bell { own: mio::Waker::new(registry, BELL)?, seat })
        }
    }

    impl Seat {
        pub(crate) fn new(ring_shared: impl Fn() + Send + Sync + 'static) -> Arc<Seat> {
            let ring_shared = Box::new(ring_shared);
            Arc::new(Seat { in_shared: AtomicBool::new(false), ring_shared })
        }

        /// The owner, before it announces its sleep.
        pub(crate) fn take(&self, shared: bool) {
            // Relaxed: the announcement releases it.
            self.in_shared.store(shared, Ordering::Relaxed);
        }
    }

    impl super::Ring for Bell {
        fn ring(&self) {
            if let Some(seat) = &self.seat
                && seat.in_shared.load(Ordering::Relaxed)
            {
                return (seat.ring_shared)();
            }
            // An eventfd whose reader holds it open can fail to be written only when its counter is full, which mio
            // resets. There is nothing a sender could do about any other failure.
            let _ = self.own.wake();
        }
    }
}

#[cfg(loom)]
pub(crate) use model::Bell;

#[cfg(loom)]
mod model {
    use loom::sync::{Condvar, Mutex};

    /// A bell that remembers one ring, like an eventfd.
    pub(crate) struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Bell {
        pub(crate) fn new() -> Bell {
            Bell { rung: Mutex::new(false), changed: Condvar::new() }
        }
        pub(crate) fn wait(&self) {
            let mut rung = crate::sync::lock(&self.rung);
            while !*rung {
                rung = self.changed.wait(rung).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            *rung = false;
        }
    }

    impl super::Ring for Bell {
        fn ring(&self) {
            *crate::sync::lock(&self.rung) = true;
            self.changed.notify_one();
        }
    }
}

#[cfg(loom)]
impl Unparker<Bell> {
    /// The model's stand-in for `epoll_wait`.
    pub(crate) fn wait(&self) {
        self.bell.wait();
    }
}
