//! `block_on`: makes the calling thread a shard for as long as one future takes.

use crate::error::{Error, ErrorKind};
use crate::limits::Limits;
use crate::shard::context;
use crate::shard::fleet::Fleet;
use crate::shard::surroundings::Surroundings;
use crate::shard::{Seed, Shard};
use crate::sync::Arc;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Runs a future to its end on the calling thread, which is a shard for that long: sockets, timers and
/// [`spawn_local`](crate::spawn_local) work in it. It belongs to no runtime: there are no other shards to call.
///
/// Tasks spawned in it and not ended are dropped when it returns.
///
/// Each call makes a shard: an epoll instance, an inbox and a number of its own, of which a process has 16,777,216 for
/// all its shards together. It is for the outermost future of a program or a test, not for every small wait.
///
/// # Panics
/// Inside another `block_on` or a shard's task, where blocking would stop everything else on the thread; and if the
/// operating system gives no epoll instance.
///
/// # Examples
/// ```
/// assert_eq!(corelane::block_on(async { 1 + 1 }), 2);
/// ```
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    refuse_nested();
    let limits = Limits::default();
    let pool = crate::blocking::Pool::new(limits.blocking_threads, Surroundings::default());
    let fleet = Fleet::new(limits, Vec::new(), pool, None);
    /// Ends the pool of threads, also when the future panics.
    struct ClosePool(Arc<Fleet>);
    impl Drop for ClosePool {
        fn drop(&mut self) {
            self.0.pool().close();
        }
    }
    let _close = ClosePool(fleet.clone());
    run(fleet, future)
}

#[track_caller]
pub(crate) fn refuse_nested() {
    assert!(
        context::with_current(|_| ()).is_none(),
        "block_on was called inside a Corelane shard, which it would block: await the future instead, or use spawn_blocking"
    );
}

/// Runs `future` on a shard of its own that can call the shards of `fleet`.
#[track_caller]
pub(crate) fn run<F: Future>(fleet: Arc<Fleet>, future: F) -> F::Output {
    match try_run(fleet, future) {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

/// The same, for those who can say that the system gives no epoll instance or eventfd. `future` was not polled then.
pub(crate) fn try_run<F: Future>(fleet: Arc<Fleet>, future: F) -> Result<F::Output, Error> {
    let refused = |error| {
        let text = format!("block_on needs an epoll instance and an eventfd: {error}");
        Error::new(ErrorKind::Start, text).because(error)
    };
    let seed = Seed::new(fleet.limits()).map_err(refused)?;
    let surroundings = fleet.surroundings().clone();
    Ok(surroundings.within(|| run_on(Shard::new(None, seed, fleet, Arc::default()), future)))
}

/// Runs `future` on this shard, and closes it.
fn run_on<F: Future>(shard: Rc<Shard>, future: F) -> F::Output {
    /// Closes the shard also when the future panics.
    struct Close(Rc<Shard>);
    impl Drop for Close {
        fn drop(&mut self) {
            self.0.fleet().lose_guest(self.0.inbox());
            self.0.close();
        }
    }
    if shard.fleet().add_guest(shard.inbox()) {
        shard.be_asked_to_stop();
    }
    let close = Close(shard.clone());
    context::enter(&shard, || {
        let waker = stand_in(&shard);
        // The stand-in's first poll was no wake of the future.
        shard.take_root_wake();
        let mut root = pin!(future);
        loop {
            shard.begin_poll();
            let polled = root.as_mut().poll(&mut Context::from_waker(&waker));
            shard.reactor.send_gathered();
            if let Poll::Ready(output) = polled {
                drop(close);
                return output;
            }
            while !shard.take_root_wake() {
                shard.turn(None);
            }
        }
    })
}

/// The future of a `block_on` need not be `'static`, so it cannot be a task. A small task stands for it: whoever wakes
/// the future wakes that task, which tells the shard.
fn stand_in(shard: &Shard) -> Waker {
    let slot = Rc::new(RefCell::new(None));
    let waker = slot.clone();
    let stand_in = poll_fn(move |context| {
        slot.borrow_mut().get_or_insert_with(|| context.waker().clone());
        context::with_current(Shard::wake_root);
        Poll::<()>::Pending
    });
    drop(crate::task::join::JoinHandle::spawn(shard.home(), stand_in));
    loop {
        shard.turn(Some(Duration::ZERO));
        if let Some(waker) = waker.borrow().as_ref() {
            return Waker::clone(waker);
        }
    }
}
