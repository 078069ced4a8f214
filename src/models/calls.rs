//! Calls between shards through inboxes of one place: waiting for room, calling each other, and the end.
//!
//! [`Submit`] is a copy of what `Handle::submit_to` does with an inbox. A call here answers when it runs; that its future
//! becomes a task which answers later is in `join`. Not modelled: the limit on messages per turn.

use super::{Omission, Shard, block_on, check, rejected, spawn};
use crate::mesh::call::{Answer, Reply};
use crate::mesh::inbox::{Inbox, Refused, RoomWait};
use crate::mesh::thunk::{Errand, Thunk};
use crate::sync::{Arc, Fault, commit};
use crate::task::failure::JoinError;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A call: answers with its number where it runs.
struct Ask {
    number: u32,
    answer: Answer<u32>,
}

impl Errand for Ask {
    fn run(self) {
        if let Some(reply) = self.answer.take() {
            reply.complete(Ok(self.number));
        }
    }
}

/// Waits for room, then for the answer.
struct Submit {
    inbox: Arc<Inbox>,
    room: RoomWait,
    message: Option<Thunk>,
    reply: Arc<Reply<u32>>,
    /// Whether it tries again after it has left its waker.
    tries_again: bool,
}

impl Submit {
    fn new(inbox: &Arc<Inbox>, number: u32) -> Submit {
        let reply = Reply::new();
        let message = Thunk::new(Ask { number, answer: Answer::new(reply.clone()) });
        let room = RoomWait::new(inbox.clone());
        Submit { inbox: inbox.clone(), room, message: Some(message), reply, tries_again: true }
    }

    fn send(&mut self, mut message: Thunk, context: &Context<'_>) -> Poll<()> {
        for registered in [false, true] {
            message = match self.inbox.call(message) {
                Ok(()) => return Poll::Ready(()),
                // Dropped, the call answers that it never ran.
                Err(Refused::Closed(_)) => return Poll::Ready(()),
                Err(Refused::Full(message)) => message,
            };
            if registered {
                break;
            }
            self.room.register(context.waker());
            if !self.tries_again {
                break;
            }
        }
        self.message = Some(message);
        Poll::Pending
    }
}

impl Future for Submit {
    type Output = Result<u32, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(message) = this.message.take()
            && this.send(message, context).is_pending()
        {
            return Poll::Pending;
        }
        this.reply.poll(context)
    }
}

/// What is wrong with a model of waiting for room.
#[derive(Clone, Copy)]
struct Variant {
    sender: Fault,
    home: Fault,
    omission: Omission,
    tries_again: bool,
}

const CORRECT: Variant = Variant {
    sender: Fault::Nothing,
    home: Fault::Nothing,
    omission: Omission::Nothing,
    tries_again: true,
};

/// Two threads that are no shards send a call each; there is room for one.
fn waiting_for_room(variant: Variant) {
    let shard = Shard::new(1);
    let threads = [1, 2].map(|number| {
        let mut submit = Submit::new(shard.inbox(), number);
        submit.tries_again = variant.tries_again;
        spawn(variant.sender, move || {
            let answer = block_on(submit);
            assert!(matches!(answer, Ok(answer) if answer == number));
        })
    });
    commit(variant.home);
    shard.omission.set(variant.omission);
    shard.run_until(|| shard.calls.get() == 2);
    commit(Fault::Nothing);
    for thread in threads {
        thread.join().expect("a sender does not panic");
    }
    shard.close();
}

/// Would catch a sender that waits although there is room, and a call that is lost between.
#[test]
fn senders_wait_for_room_and_none_is_forgotten() {
    check(3, || waiting_for_room(CORRECT));
}

/// How a task sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// As a task should: its shard goes on.
    Asynchronously,
    /// Its shard stands still until the call is answered.
    StandingStill,
}

/// One of several shards that call each other: its task makes `calls` calls at once to `next`, and the shard goes on
/// until they are answered and it has run as many of another's.
fn caller(shard: &Shard, next: &Arc<Inbox>, calls: usize, waits: Waits) {
    let mut submits: Vec<_> =
        (0..calls).map(|number| Some(Submit::new(next, number as u32))).collect();
    let task = shard.spawn(poll_fn(move |context| {
        for (number, submit) in submits.iter_mut().enumerate() {
            let Some(future) = submit else { continue };
            let polled = match waits {
                Waits::Asynchronously => Pin::new(future).poll(context),
                Waits::StandingStill => Poll::Ready(block_on(future)),
            };
            if let Poll::Ready(answer) = polled {
                assert!(matches!(answer, Ok(answer) if answer == number as u32));
                *submit = None;
            }
        }
        if submits.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    }));
    shard.run_until(|| task.is_finished() && shard.calls.get() == calls);
    shard.enter(|| drop(task));
    shard.close();
}

/// Two shards whose inboxes have one place, each with `calls` calls to the other.
fn mutual_calls(calls: usize, waits: Waits) {
    let (here, there) = (Shard::new(1), Shard::new(1));
    let (to_here, to_there) = (here.inbox().clone(), there.inbox().clone());
    let thread = spawn(Fault::Nothing, move || caller(&there, &to_here, calls, waits));
    caller(&here, &to_there, calls, waits);
    thread.join().expect("a shard does not panic");
}

/// Would catch a deadlock of two shards that each wait for room at the other.
#[test]
fn two_shards_with_full_inboxes_that_call_each_other() {
    check(2, || mutual_calls(2, Waits::Asynchronously));
}

/// Would catch the same in a circle of three.
#[test]
fn three_shards_that_call_each_other_in_a_circle() {
    check(1, || {
        let shards = [Shard::new(1), Shard::new(1), Shard::new(1)];
        let inboxes = [0, 1, 2].map(|index: usize| shards[index].inbox().clone());
        let [first, second, third] = shards;
        let [to_first, to_second, to_third] = inboxes;
        let threads = [
            spawn(Fault::Nothing, move || caller(&second, &to_third, 2, Waits::Asynchronously)),
            spawn(Fault::Nothing, move || caller(&third, &to_first, 2, Waits::Asynchronously)),
        ];
        caller(&first, &to_second, 2, Waits::Asynchronously);
        for thread in threads {
            thread.join().expect("a shard does not panic");
        }
    });
}

/// A call against the end of its shard. `home_runs`: the shard takes a turn before.
fn call_against_close(home_runs: bool, sender: Fault, home: Fault, omission: Omission) {
    let shard = Shard::new(1);
    let submits = [1, 2].map(|number| Submit::new(shard.inbox(), number));
    let thread = spawn(sender, move || {
        for (number, submit) in std::iter::zip(1.., submits) {
            match block_on(submit) {
                Ok(answer) => assert_eq!(answer, number),
                Err(error) => assert!(error.is_cancelled()),
            }
        }
    });
    commit(home);
    if home_runs {
        shard.turn();
    }
    shard.omission.set(omission);
    shard.close();
    drop(shard);
    commit(Fault::Nothing);
    thread.join().expect("a sender does not panic");
}

/// Would catch a call that is neither run nor refused nor answered, and one that stays in the inbox.
#[test]
fn a_call_against_the_close_of_its_inbox() {
    check(5, || call_against_close(false, Fault::Nothing, Fault::Nothing, Omission::Nothing));
    check(5, || call_against_close(true, Fault::Nothing, Fault::Nothing, Omission::Nothing));
}

/// Two senders, one of which waits for room, while the shard closes.
fn room_against_close(sender: Fault) {
    let shard = Shard::new(1);
    let threads = [1, 2].map(|number| {
        let submit = Submit::new(shard.inbox(), number);
        spawn(sender, move || {
            let answer = block_on(submit);
            assert!(answer.is_err_and(|error| error.is_cancelled()));
        })
    });
    shard.enter(|| {
        shard.inbox().close();
        shard.home.close();
    });
    for thread in threads {
        thread.join().expect("a sender does not panic");
    }
}

/// Would catch a sender that waits for room in an inbox that has closed.
#[test]
fn a_wait_for_room_against_the_close_of_the_inbox() {
    check(4, || room_against_close(Fault::Nothing));
}

rejected! {
    /// Room that is made between the first try and the waker's registration.
    fn a_sender_that_does_not_try_again() says "deadlock" {
        check(2, || waiting_for_room(Variant { tries_again: false, ..CORRECT }));
    }

    /// The second try may come before the waker is seen.
    fn a_sender_without_its_fence() says "deadlock" {
        check(2, || waiting_for_room(Variant { sender: Fault::NoFences, ..CORRECT }));
    }

    /// The look for wakers may come before the room is seen.
    fn a_home_without_its_fence() says "deadlock" {
        check(2, || waiting_for_room(Variant { home: Fault::NoFences, ..CORRECT }));
    }

    /// Nobody is told of the room.
    fn a_home_that_keeps_its_room_to_itself() says "deadlock" {
        check(2, || waiting_for_room(Variant { omission: Omission::MadeRoom, ..CORRECT }));
    }

    /// Both inboxes are full, and both shards wait for room instead of making it.
    fn shards_that_stand_still_until_there_is_room() says "deadlock" {
        check(2, || mutual_calls(2, Waits::StandingStill));
    }

    /// A call that is pushed after the home has looked for the last time stays there.
    fn a_call_that_is_not_looked_after() says "deadlock" {
        check(3, || call_against_close(false, Fault::FlagsReadOnce, Fault::Nothing, Omission::Nothing));
    }

    /// The sender's second look may come before its push.
    fn a_call_without_a_fence_behind_it() says "deadlock" {
        check(3, || call_against_close(false, Fault::NoFences, Fault::Nothing, Omission::Nothing));
    }

    /// The home's last look may come before its inbox is closed.
    fn an_inbox_that_closes_without_a_fence() says "deadlock" {
        check(3, || call_against_close(false, Fault::Nothing, Fault::NoFences, Omission::Nothing));
    }

    /// What is left in the inbox is not answered.
    fn a_home_that_leaves_its_inbox_open() says "deadlock" {
        check(3, || call_against_close(false, Fault::Nothing, Fault::Nothing, Omission::InboxClose));
    }
}
