//! Tasks and their handles on one thread, where user code does what it should not: panics in drops and wakers, and
//! comes back into the runtime from there. What threads do to each other is in `models`.

use super::home::Home;
use super::join::JoinHandle;
use super::waker;
use crate::limits::Limits;
use crate::mesh::call::Reply;
use crate::mesh::inbox::Inbox;
use crate::mesh::message::Notice;
use crate::park::Bell;
use crate::sync::Arc;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Wake, Waker};

/// A shard without sockets and timers.
struct Shard {
    home: Home,
    _poll: mio::Poll,
}

impl Shard {
    fn new() -> Shard {
        let poll = mio::Poll::new().unwrap();
        let bell = Bell::new(poll.registry(), None).unwrap();
        Shard {
            home: Home::new(std::sync::Arc::new(Inbox::new(bell, 1, &Limits::default())), 0),
            _poll: poll,
        }
    }

    fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        JoinHandle::spawn(&self.home, future)
    }

    fn inbox(&self) -> Arc<Inbox> {
        self.home.inbox().clone()
    }

    fn turn(&self) {
        let _home = waker::enter(&self.home);
        while self.home.poll_next(0) > 0 {}
        self.home.take_foreign();
        while let Some(notice) = self.inbox().take_notice() {
            if let Notice::Run(run) = notice {
                run();
            }
        }
        while self.home.poll_next(0) > 0 {}
    }

    fn close(&self) {
        let _home = waker::enter(&self.home);
        self.home.cancel_all();
        self.home.inbox().close();
        self.home.close();
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Calls a closure when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: std::sync::Arc<Self>) {
        panic!("a waker's panic");
    }
}

#[test]
fn an_output_that_refers_to_its_own_task_is_dropped_once_when_the_handle_was_dropped_elsewhere() {
    let shard = Shard::new();
    let own = Rc::new(RefCell::new(None));
    let handle = {
        let _home = waker::enter(&shard.home);
        let taken = own.clone();
        let handle = shard.spawn(poll_fn(move |_| Poll::Ready(taken.take())));
        own.replace(Some(handle.abort_handle()));
        handle
    };
    shard.turn();
    // Not in a turn: to the task, this is another thread.
    drop(handle);
    shard.turn();
    let inbox = shard.inbox();
    shard.close();
    drop(shard);
    assert_eq!(
        std::sync::Arc::strong_count(&inbox),
        1,
        "the task was freed, and its inbox with it"
    );
}

#[test]
fn a_handle_polled_away_from_a_home_that_has_closed_says_cancelled() {
    let shard = Shard::new();
    let mut finished = shard.spawn(async { 1 });
    let mut unfinished = shard.spawn(pending::<u8>());
    let mut on_its_way = shard.spawn(pending::<u8>());
    shard.turn();
    assert!(poll_once(&mut on_its_way).is_pending());
    shard.close();
    assert!(matches!(poll_once(&mut finished), Poll::Ready(Err(error)) if error.is_cancelled()));
    assert!(matches!(poll_once(&mut unfinished), Poll::Ready(Err(error)) if error.is_cancelled()));
    assert!(matches!(poll_once(&mut on_its_way), Poll::Ready(Err(error)) if error.is_cancelled()));
}

#[test]
fn a_panic_in_the_waker_of_whoever_waits_elsewhere_is_caught_and_counted() {
    let shard = Shard::new();
    let gate = Rc::new(Cell::new(false));
    let open = gate.clone();
    let mut handle = shard.spawn(poll_fn(move |context| {
        context.waker().wake_by_ref();
        if open.get() { Poll::Ready(7) } else { Poll::Pending }
    }));
    let waker = Waker::from(std::sync::Arc::new(PanickingWaker));
    assert!(pin!(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
    {
        let _home = waker::enter(&shard.home);
        shard.home.poll_next(0);
        while let Some(notice) = shard.home.inbox().take_notice() {
            if let Notice::Run(run) = notice {
                run();
            }
        }
    }
    gate.set(true);
    shard.turn();
    assert_eq!((shard.home.live(), shard.home.counts().panics.get()), (0, 1));
    assert!(matches!(poll_once(&mut handle), Poll::Ready(Ok(7))));
    shard.close();
}

#[test]
fn a_panic_in_the_drop_of_an_output_nobody_asked_for_elsewhere_is_caught() {
    let shard = Shard::new();
    let reply = Reply::new();
    let handle = shard.spawn(async { OnDrop(|| panic!("an output's panic")) });
    {
        let _home = waker::enter(&shard.home);
        handle.send_output_to(reply.clone());
    }
    drop(reply);
    shard.turn();
    assert_eq!((shard.home.live(), shard.home.counts().panics.get()), (0, 1));
    shard.close();
}

#[test]
fn a_task_spawned_by_a_drop_while_its_home_closes_is_cancelled_and_freed() {
    let shard = Rc::new(Shard::new());
    let spawned = Rc::new(RefCell::new(None));
    let dropped = Rc::new(Cell::new(0));
    let handle = {
        let (home, spawned, dropped) = (Rc::downgrade(&shard), spawned.clone(), dropped.clone());
        let spawn_late = move || {
            let shard = home.upgrade().unwrap();
            let count = dropped.clone();
            let on_drop = OnDrop(move || count.set(count.get() + 1));
            spawned.replace(Some(shard.spawn(async move {
                let _on_drop = on_drop;
                pending::<()>().await;
            })));
        };
        shard.spawn(async move { OnDrop(spawn_late) })
    };
    shard.turn();
    let inbox = shard.inbox();
    shard.close();
    let mut late = spawned.take().expect("the output was dropped, which spawned a task");
    assert_eq!(dropped.get(), 1, "its future was dropped");
    assert!(matches!(poll_once(&mut late), Poll::Ready(Err(error)) if error.is_cancelled()));
    drop((handle, late, shard));
    assert_eq!(std::sync::Arc::strong_count(&inbox), 1, "every task was freed");
}

#[test]
fn a_turn_inside_a_task_of_the_same_shard_does_not_poll_that_task_again() {
    let shard = Rc::new(Shard::new());
    let inner = Rc::downgrade(&shard);
    let depth = Rc::new(Cell::new(0));
    let seen = depth.clone();
    let mut task = shard.spawn(poll_fn(move |context| {
        seen.set(seen.get() + 1);
        context.waker().wake_by_ref();
        if seen.get() == 1 {
            inner.upgrade().unwrap().turn();
        }
        Poll::<()>::Pending
    }));
    shard.turn();
    assert_eq!(depth.get(), 1);
    let _home = waker::enter(&shard.home);
    assert!(matches!(poll_once(&mut task), Poll::Ready(Err(error)) if error.is_panic()));
}

#[test]
fn a_waker_that_comes_back_when_it_is_dropped_finds_the_reply_unlocked() {
    struct Curious(Arc<Reply<u8>>);
    impl Wake for Curious {
        fn wake(self: std::sync::Arc<Self>) {}
    }
    impl Drop for Curious {
        fn drop(&mut self) {
            assert!(!self.0.is_finished());
        }
    }
    let reply = Reply::new();
    let curious = Waker::from(std::sync::Arc::new(Curious(reply.clone())));
    assert!(reply.poll(&mut Context::from_waker(&curious)).is_pending());
    drop(curious);
    assert!(reply.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn wakers_of_a_home_that_was_never_closed_are_harmless() {
    // Such a home leaks its inbox, and the inbox the task that was woken last. A leak checker shall find them here.
    static LEAKED: std::sync::Mutex<Option<Arc<Inbox>>> = std::sync::Mutex::new(None);
    let shard = Shard::new();
    let kept = Rc::new(RefCell::new(None));
    let slot = kept.clone();
    let handle = shard.spawn(poll_fn(move |context| {
        slot.replace(Some(context.waker().clone()));
        Poll::<()>::Pending
    }));
    shard.turn();
    let inbox = std::sync::Arc::downgrade(&shard.inbox());
    drop(shard);
    *LEAKED.lock().unwrap() = inbox.upgrade();
    assert!(LEAKED.lock().unwrap().is_some(), "the task still needs it");
    let waker = kept.take().expect("the task was polled");
    waker.wake_by_ref();
    drop((waker, handle));
}

#[test]
fn polls_of_a_turn_inside_a_task_do_not_count_as_that_tasks() {
    let shard = Rc::new(Shard::new());
    let inner = Rc::downgrade(&shard);
    let _outer = shard.spawn(poll_fn(move |_| {
        assert_eq!(inner.upgrade().unwrap().home.poll_next(5), 1);
        Poll::Ready(())
    }));
    let _other = shard.spawn(async {});
    {
        let _home = waker::enter(&shard.home);
        assert_eq!(shard.home.poll_next(0), 1);
    }
    shard.close();
}
