//! User code that comes back into the runtime from inside a poll, a drop or a waker, on one thread.
//!
//! Nothing crosses threads here. What loom adds is that it watches the cells in which futures, outputs and joiners lie:
//! an access while another is under way fails, where it would be undefined behaviour that happens to work.

use super::{Drops, Shard, check};
use crate::task::join::{AbortHandle, JoinHandle};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

type Slot<T> = Rc<RefCell<Option<T>>>;

/// Does something when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs `model` with a shard, and expects that nothing is left at the end.
fn alone(model: impl Fn(&Shard) + Sync + Send + 'static) {
    check(1, move || {
        let shard = Shard::new(1);
        model(&shard);
        shard.close_empty();
    });
}

/// Would catch a look at the future's place while the future is being polled.
#[test]
fn a_task_that_drops_its_own_handle_in_its_poll() {
    alone(|shard| {
        let own: Slot<JoinHandle<()>> = Slot::default();
        let slot = own.clone();
        let handle = shard.spawn(poll_fn(move |_| {
            drop(slot.take());
            Poll::Ready(())
        }));
        own.replace(Some(handle));
        while shard.turn() {}
    });
}

/// Would catch the same while the future is being dropped, by a cancel or at the end of the task.
#[test]
fn a_future_that_drops_or_polls_its_own_handle_in_its_drop() {
    for polls in [false, true] {
        for aborts in [false, true] {
            alone(move |shard| {
                let own: Slot<JoinHandle<()>> = Slot::default();
                let slot = own.clone();
                let on_drop = OnDrop(move || {
                    let Some(mut handle) = slot.take() else { return };
                    if polls {
                        assert!(poll_once(&mut handle).is_pending(), "the output is not there yet");
                    }
                });
                let handle = shard.spawn(poll_fn(move |context| {
                    let _on_drop = &on_drop;
                    context.waker().wake_by_ref();
                    if aborts { Poll::Pending } else { Poll::Ready(()) }
                }));
                let abort = handle.abort_handle();
                own.replace(Some(handle));
                if aborts {
                    shard.enter(|| abort.abort());
                }
                while shard.turn() {}
                drop(shard.enter(|| abort));
            });
        }
    }
}

/// Would catch a task that is freed while its own output is dropped, because that held the last reference.
#[test]
fn an_output_that_refers_to_its_own_task() {
    for elsewhere in [false, true] {
        alone(move |shard| {
            let own: Slot<AbortHandle> = Slot::default();
            let slot = own.clone();
            let handle = shard.spawn(poll_fn(move |_| Poll::Ready(slot.take())));
            own.replace(Some(shard.enter(|| handle.abort_handle())));
            while shard.turn() {}
            if elsewhere {
                // Outside of a turn a thread is no home of the task, and asks its home to detach it.
                drop(handle);
            } else {
                shard.enter(|| drop(handle));
            }
            while shard.turn() {}
        });
    }
}

/// Would catch a second poll of a task inside its own, and a task that is polled in place and lost.
#[test]
fn tasks_that_wait_for_each_other_in_place() {
    alone(|shard| {
        let drops = Drops::default();
        let noted = drops.noted();
        let first: Slot<JoinHandle<()>> = Slot::default();
        let slot = first.clone();
        let mut polls = 0;
        // Woken by itself in its first poll, which happens in the place of the task that awaits it.
        let mut second = shard.spawn(poll_fn(move |context| {
            let _noted = &noted;
            polls += 1;
            if let Some(first) = slot.borrow_mut().as_mut() {
                assert!(pin!(first).poll(context).is_pending(), "who awaits is being polled");
            }
            context.waker().wake_by_ref();
            if polls == 2 { Poll::Ready(7) } else { Poll::Pending }
        }));
        let task = shard.spawn(poll_fn(move |context| {
            pin!(&mut second).poll(context).map(|output| {
                assert!(matches!(output, Ok(7)));
            })
        }));
        first.replace(Some(task));
        while shard.turn() {}
        drops.assert_here(1);
        shard.enter(|| drop(first.take()));
    });
}

/// Would catch an output that is looked for before it is there, or kept after it was taken by the waker that announces it.
#[test]
fn a_waker_that_polls_the_handle_it_was_left_by() {
    struct Polls(RefCell<Option<JoinHandle<u8>>>, RefCell<Option<u8>>);
    impl std::task::Wake for Forwards {
        fn wake(self: std::sync::Arc<Self>) {
            WAKES.with_borrow_mut(|wakes| {
                if let Some(polls) = wakes.take() {
                    let handle = polls.0.take();
                    if let Some(mut handle) = handle
                        && let Poll::Ready(Ok(output)) = poll_once(&mut handle)
                    {
                        polls.1.replace(Some(output));
                    }
                }
            });
        }
    }
    /// A waker must be `Send`; what it does is this thread's.
    struct Forwards;
    std::thread_local! {
        static WAKES: RefCell<Option<Rc<Polls>>> = const { RefCell::new(None) };
    }
    alone(|shard| {
        let mut handle = shard.spawn(async { 9 });
        let waker = Waker::from(std::sync::Arc::new(Forwards));
        let polled = shard.enter(|| pin!(&mut handle).poll(&mut Context::from_waker(&waker)));
        assert!(polled.is_pending());
        let polls = Rc::new(Polls(RefCell::new(Some(handle)), RefCell::new(None)));
        WAKES.set(Some(polls.clone()));
        while shard.turn() {}
        assert_eq!(polls.1.take(), Some(9));
    });
}
