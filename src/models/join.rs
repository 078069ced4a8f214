//! Handles of a task on another thread: abort, drop and wait, against the task's end and its home's.
//!
//! A future and an output are dropped at home unless the output was sent to somebody who waits for it. A handle that is
//! polled elsewhere travels home in a notice; whatever becomes of the notice, the waiting side gets an answer.

use super::{Drops, Noted, Omission, Shard, block_on, check, rejected, spawn};
use crate::sync::{Fault, commit};
use crate::task::join::JoinHandle;
use loom::sync::atomic::{AtomicU32, Ordering};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A task that ends at its second poll, with a value whose drop is noted. So is the drop of its future.
fn task(shard: &Shard, future: &Drops, output: &Drops) -> JoinHandle<Noted> {
    let noted = future.noted();
    let mut output = Some(output.noted());
    let mut polls = 0;
    shard.spawn(poll_fn(move |context| {
        let _noted = &noted;
        polls += 1;
        if polls == 2 {
            return Poll::Ready(output.take().expect("ends once"));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }))
}

/// Would catch a future that is dropped twice or elsewhere, and a result that is neither the output nor "cancelled".
#[test]
fn an_abort_from_elsewhere_against_the_end() {
    check(None, || {
        let shard = Shard::new(1);
        let (future, output) = (Drops::default(), Drops::default());
        let mut handle = task(&shard, &future, &output);
        let abort = handle.abort_handle();
        let thread = spawn(Fault::Nothing, move || abort.abort());
        shard.run_until(|| handle.is_finished());
        future.assert_here(1);
        let result =
            shard.enter(|| pin!(&mut handle).poll(&mut Context::from_waker(Waker::noop())));
        match result {
            Poll::Ready(Ok(noted)) => drop(noted),
            Poll::Ready(Err(error)) => assert!(error.is_cancelled()),
            Poll::Pending => panic!("a task that has ended has a result"),
        }
        output.assert_here(1);
        thread.join().expect("an abort does not panic");
        shard.enter(|| drop(handle));
        shard.close_empty();
    });
}

/// Would catch an output that its handle's thread drops, and one that is kept for a handle that is gone.
#[test]
fn a_handle_dropped_elsewhere_against_the_end() {
    check(None, || {
        let shard = Shard::new(1);
        let (future, output) = (Drops::default(), Drops::default());
        let handle = task(&shard, &future, &output);
        let thread = spawn(Fault::Nothing, move || drop(handle));
        shard.run_until(|| shard.home.live() == 0 && shard.home.cells() == 0);
        future.assert_here(1);
        output.assert_here(1);
        thread.join().expect("a drop does not panic");
        shard.close_empty();
    });
}

/// A thread waits for a task whose home goes on until the answer was sent, or closes at once.
fn wait_elsewhere(home: End, waiting: Fault, closing: Fault, omission: Omission) {
    let shard = Shard::new(1);
    let (future, output) = (Drops::default(), Drops::default());
    let written = std::sync::Arc::new(AtomicU32::new(0));
    let handle = {
        let (future, output, written) = (future.noted(), output.noted(), written.clone());
        shard.spawn(async move {
            let _future = future;
            written.store(7, Ordering::Relaxed);
            output
        })
    };
    let thread = spawn(waiting, move || match block_on(handle) {
        Ok(output) => {
            assert_eq!(
                written.load(Ordering::Relaxed),
                7,
                "the output came before what the task wrote"
            );
            drop(output);
        }
        Err(error) => assert!(error.is_cancelled()),
    });
    commit(closing);
    match home {
        End::AfterTheAnswer => shard.run_until(|| shard.notices.get() == 1),
        End::AfterTheTask => drop(shard.turn()),
        End::AtOnce => {}
    }
    shard.omission.set(omission);
    shard.close();
    future.assert_here(1);
    drop(shard);
    commit(Fault::Nothing);
    thread.join().expect("the waiting thread does not panic");
    assert_eq!(output.take().len(), 1, "the output was dropped once");
}

#[derive(Clone, Copy)]
enum End {
    AfterTheAnswer,
    AfterTheTask,
    AtOnce,
}

/// Would catch an answer that does not arrive, or arrives before what the task did.
#[test]
fn a_handle_that_is_waited_for_elsewhere() {
    check(5, || {
        wait_elsewhere(End::AfterTheAnswer, Fault::Nothing, Fault::Nothing, Omission::Nothing)
    });
}

/// Would catch a thread that waits for ever for a task whose home has closed.
#[test]
fn a_handle_that_is_waited_for_elsewhere_while_the_home_closes() {
    check(5, || {
        wait_elsewhere(End::AfterTheTask, Fault::Nothing, Fault::Nothing, Omission::Nothing)
    });
    check(5, || wait_elsewhere(End::AtOnce, Fault::Nothing, Fault::Nothing, Omission::Nothing));
}

/// Would catch an abort that is lost because the handle is on its way.
#[test]
fn an_abort_of_a_handle_that_went_home() {
    check(3, || {
        let shard = Shard::new(1);
        let drops = Drops::default();
        let noted = drops.noted();
        let mut handle = shard.spawn(poll_fn(move |_| {
            let _noted = &noted;
            Poll::<()>::Pending
        }));
        let thread = spawn(Fault::Nothing, move || {
            assert!(pin!(&mut handle).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            handle.abort();
            assert!(block_on(handle).is_err_and(|error| error.is_cancelled()));
        });
        shard.run_until(|| shard.home.live() == 0);
        drops.assert_here(1);
        thread.join().expect("the waiting thread does not panic");
        shard.close_empty();
    });
}

rejected! {
    /// A notice that is pushed after the home has looked for the last time stays there.
    fn a_handle_whose_notice_is_not_looked_after() says "deadlock" {
        check(3, || wait_elsewhere(End::AtOnce, Fault::FlagsReadOnce, Fault::Nothing, Omission::Nothing));
    }

    /// The sender's second look may come before its push.
    fn a_notice_without_a_fence_behind_it() says "deadlock" {
        check(3, || wait_elsewhere(End::AtOnce, Fault::NoFences, Fault::Nothing, Omission::Nothing));
    }

    /// The home's last look may come before its inbox is closed.
    fn an_inbox_that_closes_without_a_fence() says "deadlock" {
        check(3, || wait_elsewhere(End::AtOnce, Fault::Nothing, Fault::NoFences, Omission::Nothing));
    }

    /// What is left in the inbox is not answered.
    fn a_home_that_leaves_its_inbox_open() says "deadlock" {
        check(3, || wait_elsewhere(End::AtOnce, Fault::Nothing, Fault::Nothing, Omission::InboxClose));
    }
}
