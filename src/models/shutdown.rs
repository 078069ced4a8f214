//! The end of a home, while other threads hold wakers and handles of its tasks.
//!
//! The future is dropped by `cancel_all`, on the home's thread, once; the output, if there is one, by `close`; the memory
//! by whoever lets go last, which may be a thread that has just set QUEUED and finds the stack closed. Every run ends
//! with the home gone and all references given up; the cell's reference to the inbox, which loom counts, must be too.

use super::{Drops, Omission, Shard, check, rejected, spawn};
use crate::sync::Fault;
use crate::task::cell;
use crate::task::join::JoinHandle;
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// What a thread does with its waker while the home closes.
#[derive(Clone, Copy, Debug)]
enum Use {
    Drop,
    Wake,
    WakeByRef,
    CloneAndWake,
    /// What nobody may do: look at the task after a wake has given it away.
    WakeAndTouch,
}

fn use_waker(waker: Waker, how: Use) {
    match how {
        Use::Drop => drop(waker),
        Use::Wake => waker.wake(),
        Use::WakeByRef => waker.wake_by_ref(),
        Use::CloneAndWake => waker.clone().wake(),
        Use::WakeAndTouch => {
            let data = waker.data();
            waker.wake();
            // SAFETY: the memory is still there, though it may have been given away: that is what the model must notice.
            #[allow(unsafe_code)]
            unsafe {
                cell::touch(data);
            }
        }
    }
}

/// A task that hands out `count` wakers and never ends, or ends at its first poll with a value whose drop is noted.
fn task(
    shard: &Shard,
    drops: &Drops,
    count: usize,
    ends: bool,
) -> (JoinHandle<super::Noted>, Vec<Waker>) {
    let wakers = Rc::new(RefCell::new(Vec::new()));
    let handed = wakers.clone();
    let mut noted = Some(drops.noted());
    let task = shard.spawn(poll_fn(move |context| {
        handed.borrow_mut().resize_with(count, || context.waker().clone());
        match &mut noted {
            noted if ends => Poll::Ready(noted.take().expect("polled once")),
            _ => Poll::Pending,
        }
    }));
    while shard.turn() {}
    let wakers = wakers.take();
    (task, wakers)
}

/// Each of `uses` by a thread of its own, while the home closes and goes away.
fn wakers_at_the_end(uses: &'static [Use], ends: bool, fault: Fault, omission: Omission) {
    let shard = Shard::new(1);
    let drops = Drops::default();
    let (handle, wakers) = task(&shard, &drops, uses.len(), ends);
    shard.enter(|| drop(handle));
    if ends {
        drops.assert_here(1);
    }
    let threads: Vec<_> = std::iter::zip(wakers, uses)
        .map(|(waker, &how)| spawn(fault, move || use_waker(waker, how)))
        .collect();
    shard.omission.set(omission);
    shard.close();
    if !ends {
        drops.assert_here(1);
    }
    drop(shard);
    for thread in threads {
        thread.join().expect("a wake does not panic");
    }
}

/// Would catch a use of the task after its home has freed it, a second drop of the future or one on another thread, and
/// memory that is never freed.
#[test]
fn a_wake_while_the_home_closes() {
    for uses in [&[Use::Wake], &[Use::WakeByRef], &[Use::CloneAndWake], &[Use::Drop]] {
        for ends in [false, true] {
            check(None, move || wakers_at_the_end(uses, ends, Fault::Nothing, Omission::Nothing));
        }
    }
}

/// Would catch the same when one thread's push is under way while another gives up the last reference.
#[test]
fn two_wakes_while_the_home_closes() {
    const PAIRS: [&[Use]; 3] =
        [&[Use::Wake, Use::Wake], &[Use::Wake, Use::Drop], &[Use::WakeByRef, Use::Drop]];
    for uses in PAIRS {
        check(5, move || wakers_at_the_end(uses, false, Fault::Nothing, Omission::Nothing));
    }
}

/// Would catch a waker that is not harmless once its home has gone.
#[test]
fn wakers_outlive_the_home() {
    check(5, || {
        let shard = Shard::new(1);
        let drops = Drops::default();
        let (handle, wakers) = task(&shard, &drops, 2, false);
        shard.close();
        drops.assert_here(1);
        drop(shard);
        let threads: Vec<_> = wakers
            .into_iter()
            .map(|waker| {
                spawn(Fault::Nothing, move || {
                    waker.wake_by_ref();
                    let another = waker.clone();
                    waker.wake();
                    drop(another);
                })
            })
            .collect();
        handle.abort();
        drop(handle);
        for thread in threads {
            thread.join().expect("a wake does not panic");
        }
    });
}

/// Would catch an output that is dropped by the thread that drops the handle, or twice, or not at all.
#[test]
fn a_handle_dropped_elsewhere_while_the_home_closes() {
    check(None, || {
        let shard = Shard::new(1);
        let drops = Drops::default();
        let (handle, wakers) = task(&shard, &drops, 1, true);
        let thread = spawn(Fault::Nothing, move || drop(handle));
        shard.close();
        drops.assert_here(1);
        drop(shard);
        drop(wakers);
        thread.join().expect("a drop does not panic");
    });
}

/// The lowest bit of a task's word: in the wake stack, or on the way there.
const QUEUED: u64 = 1;

rejected! {
    /// The home does not know that the task is on its way to it, and frees it.
    fn a_wake_in_flight_that_the_word_does_not_show() says "Causality violation" {
        check(3, || wakers_at_the_end(&[Use::Wake], false, Fault::Forgets(QUEUED), Omission::Nothing));
    }

    /// After the push the task belongs to its home.
    fn a_wake_that_touches_the_task_after_its_push() says "used after it was dropped" {
        check(3, || wakers_at_the_end(&[Use::WakeAndTouch], true, Fault::Nothing, Omission::Nothing));
    }

    /// The last reference's drop does not order what its thread did before the free.
    fn a_last_drop_that_does_not_release() says "Causality violation" {
        check(3, || wakers_at_the_end(&[Use::Drop, Use::Drop], false, Fault::UnorderedUpdates, Omission::Nothing));
    }
}
