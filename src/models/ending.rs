//! The end that shards come to together: whatever was on its way has been run, and nobody waits for ever.
//!
//! [`turns`] is a copy of what `shard::turn` and `shard::fleet` do about it. A message says how often it is to be sent on, to
//! the other shard.

use super::{check, rejected, spawn};
use crate::mesh::ending::{Ending, Quiet};
use crate::sync::{Arc, Fault, Mutex, lock};
use loom::sync::Condvar;
use loom::sync::atomic::{AtomicUsize, Ordering};

const SHARDS: usize = 2;

struct Shared {
    ending: Ending,
    inboxes: [Mutex<Vec<Message>>; SHARDS],
    arrived: [Condvar; SHARDS],
    /// Calls that have run.
    ran: AtomicUsize,
    omission: Omission,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Call(usize),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Omission {
    Nothing,
    /// Who settles does not look at the inboxes.
    Inboxes,
    /// Who was quiet takes a message before it says that it is not any more.
    Stir,
    /// Who finds out tells nobody.
    Tell,
}

impl Shared {
    fn send(&self, to: usize, message: Message) {
        lock(&self.inboxes[to]).push(message);
        self.arrived[to].notify_one();
    }

    fn settle(&self) -> bool {
        let looks = self.omission != Omission::Inboxes;
        let is_empty = |inbox: &Mutex<Vec<Message>>| lock(inbox).is_empty();
        let nothing_comes = || !looks || self.inboxes.iter().all(is_empty);
        let quiet = self.ending.settle(SHARDS, nothing_comes);
        if quiet == Quiet::Now && self.omission != Omission::Tell {
            (0..SHARDS).for_each(|shard| self.send(shard, Message::Over));
        }
        quiet != Quiet::NotYet
    }
}

/// The turns of one shard, until the end.
fn turns(shared: &Shared, shard: usize) {
    let mut quiet = false;
    loop {
        let stirs = shared.omission != Omission::Stir;
        if quiet && stirs {
            shared.ending.stir();
        }
        let taken = lock(&shared.inboxes[shard]).pop();
        if quiet && !stirs {
            shared.ending.stir();
        }
        if let Some(Message::Call(times)) = taken {
            shared.ran.fetch_add(1, Ordering::Relaxed);
            if times > 0 {
                shared.send(1 - shard, Message::Call(times - 1));
            }
        }
        quiet = lock(&shared.inboxes[shard]).is_empty();
        if !quiet {
            continue;
        }
        if shared.settle() {
            return;
        }
        let mut inbox = lock(&shared.inboxes[shard]);
        while inbox.is_empty() {
            inbox = shared.arrived[shard].wait(inbox).expect("no panic");
        }
    }
}

/// A call that goes to and fro so many times, while both shards have been asked to stop.
fn ends(times: usize, omission: Omission) {
    let shared = Arc::new(Shared {
        ending: Ending::default(),
        inboxes: Default::default(),
        arrived: [Condvar::new(), Condvar::new()],
        ran: AtomicUsize::new(0),
        omission,
    });
    shared.send(0, Message::Call(times));
    let there = shared.clone();
    let other = spawn(Fault::Nothing, move || turns(&there, 1));
    turns(&shared, 0);
    other.join().expect("no panic");
    let ran = shared.ran.load(Ordering::Relaxed);
    assert_eq!(ran, times + 1, "a call was left behind");
}

#[test]
fn shards_end_together_when_nothing_is_on_its_way() {
    check(3, || ends(2, Omission::Nothing));
}

rejected! {
    fn an_end_without_a_look_at_the_inboxes() says "a call was left behind" {
        check(3, || ends(2, Omission::Inboxes));
    }

    fn an_end_that_a_call_outruns() says "a call was left behind" {
        check(3, || ends(2, Omission::Stir));
    }

    fn an_end_that_is_told_to_nobody() says "deadlock" {
        check(3, || ends(2, Omission::Tell));
    }
}
