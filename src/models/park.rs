//! The sleep handshake alone: an owner that sleeps again and again, and two senders.
//!
//! The queue is one counter that is added to with Relaxed ordering, the weakest that anything in an inbox could be, so
//! what the owner sees of it rests on the handshake's fences only. Not modelled: a bell that rings late or for
//! nothing, as an eventfd may.

use super::{check, rejected, spawn};
use crate::park::{Bell, Unparker};
use crate::sync::{Arc, Fault, commit};
use loom::sync::atomic::{AtomicU64, Ordering};

const SENDERS: u64 = 2;

struct Shared {
    queue: AtomicU64,
    unparker: Unparker<Bell>,
}

#[derive(Clone, Copy)]
struct Variant {
    sender: Fault,
    owner: Fault,
    second_look: bool,
    awake: bool,
}

const CORRECT: Variant =
    Variant { sender: Fault::Nothing, owner: Fault::Nothing, second_look: true, awake: true };

/// Each sender pushes and unparks; the owner sleeps until it has seen both, and then once more, for nothing.
fn handshake(variant: Variant) {
    let shared =
        Arc::new(Shared { queue: AtomicU64::new(0), unparker: Unparker::new(Bell::new()) });
    let send = |shared: Arc<Shared>| {
        move || {
            shared.queue.fetch_add(1, Ordering::Relaxed);
            shared.unparker.unpark();
        }
    };
    let senders = [(); SENDERS as usize].map(|()| spawn(variant.sender, send(shared.clone())));
    commit(variant.owner);
    let unparker = &shared.unparker;
    let seen = |owner: &Shared| owner.queue.load(Ordering::Relaxed);
    // Announcements are what is counted: a ring may also be for one after which the owner found something and stayed up.
    let mut parks = 0;
    let mut known = 0;
    while known < SENDERS {
        unparker.announce();
        parks += 1;
        if !variant.second_look || seen(&shared) == known {
            unparker.wait();
        }
        if variant.awake {
            unparker.awake();
        }
        known = seen(&shared);
    }
    for sender in senders {
        sender.join().expect("a sender does not panic");
    }
    let rings = unparker.rings();
    assert!(rings <= parks, "{rings} rings for {parks} parks");
    unparker.unpark();
    assert_eq!(unparker.rings(), rings, "rung while awake");
}

/// Would catch a wake that is lost between two senders and two parks, more rings than parks, and a ring for nobody.
#[test]
fn two_senders_and_an_owner_that_sleeps_twice() {
    check(4, || handshake(CORRECT));
}

rejected! {
    /// The owner looks before it announces only.
    fn an_owner_that_does_not_look_again() says "deadlock" {
        check(3, || handshake(Variant { second_look: false, ..CORRECT }));
    }

    /// The owner's look may come before its announcement is seen.
    fn an_owner_without_its_fence() says "deadlock" {
        check(3, || handshake(Variant { owner: Fault::NoFences, ..CORRECT }));
    }

    /// The sender's look may come before its push is seen.
    fn senders_without_their_fence() says "deadlock" {
        check(3, || handshake(Variant { sender: Fault::NoFences, ..CORRECT }));
    }

    /// Two senders both find PARKED and both ring.
    fn senders_that_ring_without_winning_the_swap() says "rings for" {
        check(3, || handshake(Variant { sender: Fault::TornUpdates, ..CORRECT }));
    }

    /// Later senders pay for a ring that nobody needs.
    fn an_owner_that_does_not_go_back_to_awake() says "rung while awake" {
        check(3, || handshake(Variant { awake: false, ..CORRECT }));
    }
}
