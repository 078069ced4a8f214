//! Tasks: where they are dropped, how they end, who hears of it.

use super::harness::*;
use corelane::{Handle, HostedShard, JoinHandle, Limits, Runtime, SubmitErrorKind};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A future that never ends and must not leave its shard.
async fn stay(spy: DropSpy) {
    let _here = spy.stay();
    pending::<()>().await;
}

/// The two ways to a handle on another thread: of a task that was sent there, and of one that was spawned there.
fn handles_of_staying_tasks(handle: &Handle) -> [(JoinHandle<()>, Dropped); 2] {
    let (spy, dropped) = DropSpy::new();
    let sent = handle.spawn_on(SECOND, move || stay(spy)).expect("a shard with room");
    let (spy, local_dropped) = DropSpy::new();
    let local = on(handle, SECOND, move || corelane::spawn_local(stay(spy)));
    // Both have been polled when a later call is answered twice over.
    for _ in 0..2 {
        on(handle, SECOND, || ());
    }
    [(sent, dropped), (local, local_dropped)]
}

#[test]
fn a_task_aborted_elsewhere_is_dropped_on_its_shard() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let home = thread_of(handle, SECOND);
        for by_abort_handle in [false, true] {
            for (task, dropped) in handles_of_staying_tasks(handle) {
                assert!(dropped.not_yet());
                assert!(!task.is_finished());
                if by_abort_handle {
                    task.abort_handle().abort();
                } else {
                    task.abort();
                }
                assert_eq!(dropped.on(), home);
                assert!(wait(task).expect_err("aborted").is_cancelled());
            }
        }
    });
}

#[test]
fn a_task_aborted_from_another_shard_is_dropped_on_its_own() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let home = thread_of(handle, SECOND);
        for (task, dropped) in handles_of_staying_tasks(handle) {
            let joined = handle.submit_to(FIRST, move || async move {
                task.abort();
                task.await
            });
            assert!(wait(joined).expect("a shard").expect_err("aborted").is_cancelled());
            assert_eq!(dropped.on(), home);
        }
    });
}

#[test]
fn a_detached_task_is_dropped_on_its_shard_by_the_shutdown() {
    within_reason(|| {
        for grace in [None, Some(Duration::ZERO), Some(Duration::from_millis(20))] {
            let runtime = shards(2);
            let home = thread_of(runtime.handle(), SECOND);
            let tasks = handles_of_staying_tasks(runtime.handle());
            let dropped = tasks.map(|(task, dropped)| {
                drop(task);
                dropped
            });
            for dropped in &dropped {
                assert!(dropped.not_yet(), "dropping the handle detaches the task");
            }
            match grace {
                None => drop(runtime),
                Some(deadline) => assert_eq!(runtime.shutdown(deadline).tasks_dropped, 2),
            }
            for dropped in &dropped {
                assert_eq!(dropped.on(), home);
            }
        }
    });
}

#[test]
fn the_last_waker_may_die_anywhere_and_the_future_still_dies_at_home() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let home = thread_of(handle, SECOND);
        for ends_first in [true, false] {
            let (tell, wakers) = mpsc::channel::<Waker>();
            let (spy, dropped) = DropSpy::new();
            let polls = Arc::new(AtomicUsize::new(0));
            let counted = polls.clone();
            let task = on(handle, SECOND, move || {
                let here = spy.stay();
                corelane::spawn_local(poll_fn(move |context| {
                    let _here = &here;
                    let _ = tell.send(context.waker().clone());
                    if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                }))
            });
            drop(task);
            let waker = wakers.recv().expect("polled");
            if ends_first {
                waker.wake_by_ref();
                assert_eq!(dropped.on(), home);
                drop(waker);
            } else {
                waker.wake();
                assert_eq!(dropped.on(), home);
            }
            assert_eq!(polls.load(Ordering::SeqCst), 2);
        }
    });
}

#[test]
fn the_output_that_nobody_asks_for_is_dropped_on_the_tasks_shard() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let home = thread_of(handle, SECOND);
        // The handle is dropped here, after the end and before it.
        for after in [true, false] {
            let (spy, dropped) = DropSpy::new();
            let (go, wait_for_go) = futures::channel::oneshot::channel::<()>();
            let task = on(handle, SECOND, move || {
                corelane::spawn_local(async move {
                    let _ = wait_for_go.await;
                    spy
                })
            });
            if after {
                drop(go);
                eventually("the task has ended", || task.is_finished());
                assert!(dropped.not_yet());
                drop(task);
            } else {
                drop(task);
                drop(go);
            }
            assert_eq!(dropped.on(), home);
        }
    });
}

#[test]
fn an_output_may_be_awaited_on_any_thread() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        for finished in [false, true] {
            let number = move || {
                corelane::spawn_local(async move {
                    if !finished {
                        corelane::time::sleep(Duration::from_millis(2)).await;
                    }
                    7
                })
            };
            let [here, there, home] = std::array::from_fn(|_| {
                let task = on(handle, SECOND, number);
                if finished {
                    eventually("the task has ended", || task.is_finished());
                }
                task
            });
            assert_eq!(wait(here).expect("no panic"), 7);
            let there = handle.submit_to(FIRST, || async { there.await.expect("no panic") });
            assert_eq!(wait(there).expect("a shard"), 7);
            let home = handle.submit_to(SECOND, || async { home.await.expect("no panic") });
            assert_eq!(wait(home).expect("a shard"), 7);
        }
    });
}

#[test]
fn a_handle_polled_here_and_there_gives_its_output_to_whoever_polls_last() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let (go, wait_for_go) = futures::channel::oneshot::channel::<()>();
        let mut task = on(handle, SECOND, move || {
            corelane::spawn_local(async move {
                wait_for_go.await.expect("told");
                "output"
            })
        });
        // At home, elsewhere, on another shard, and at home again.
        for shard in [SECOND, FIRST, SECOND] {
            assert!(poll_once(&mut task).is_pending());
            let moved = handle.submit_to(shard, move || async move {
                assert!(poll_now(&mut task).await.is_pending());
                [task]
            });
            [task] = wait(moved).expect("no panic");
        }
        go.send(()).expect("the task waits");
        assert_eq!(wait(task).expect("no panic"), "output");
    });
}

#[test]
fn a_handle_outlives_its_runtime() {
    within_reason(|| {
        let runtime = shards(2);
        let ended = || {
            let task = on(runtime.handle(), SECOND, || corelane::spawn_local(async { 5 }));
            eventually("the task has ended", || task.is_finished());
            task
        };
        let ended = [ended(), ended()];
        let [(sent, _first), (local, _second)] = handles_of_staying_tasks(runtime.handle());
        let [(polled, _third), (unpolled, _fourth)] = handles_of_staying_tasks(runtime.handle());
        let mut polled = [polled, unpolled];
        for task in &mut polled {
            assert!(poll_once(task).is_pending());
        }
        drop(runtime);
        for task in [sent, local].into_iter().chain(polled) {
            assert!(task.is_finished());
            task.abort();
            task.abort_handle().abort();
            let _ = format!("{task:?}");
            assert!(wait(task).expect_err("its shard is gone").is_cancelled());
        }
        // An output that was not fetched in time is gone with its shard; waiting for it must not hang.
        for task in ended {
            assert!(wait(task).expect_err("its shard is gone").is_cancelled());
        }
    });
}

#[test]
fn an_abort_before_the_closure_arrives_keeps_it_from_running() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle();
        let gate = Gate::close(handle, FIRST);
        let (spy, dropped) = DropSpy::new();
        let task = handle.spawn_on(FIRST, move || {
            let _spy = spy;
            async { unreachable!("it was aborted") }
        });
        let task: JoinHandle<()> = task.expect("a shard with room");
        task.abort();
        gate.open();
        assert!(wait(task).expect_err("aborted").is_cancelled());
        dropped.on();
    });
}

#[test]
fn an_abort_after_the_end_changes_nothing() {
    corelane::block_on(async {
        let task = corelane::spawn_local(async { 3 });
        corelane::yield_now().await;
        assert!(task.is_finished());
        task.abort();
        assert_eq!(task.await.expect("it had ended"), 3);
    });
}

#[test]
fn a_task_may_abort_itself() {
    corelane::block_on(async {
        let (tell, told) = futures::channel::oneshot::channel::<corelane::AbortHandle>();
        let (spy, dropped) = DropSpy::new();
        let task = corelane::spawn_local(async move {
            let _here = spy.stay();
            told.await.expect("told").abort();
            // It goes on to its next wait, and no further.
            corelane::yield_now().await;
            unreachable!("it was aborted");
        });
        tell.send(task.abort_handle()).expect("the task waits");
        let ended: Result<(), _> = task.await;
        assert!(ended.expect_err("aborted").is_cancelled());
        dropped.on();
    });
}

#[test]
fn a_task_that_ends_in_the_poll_in_which_it_is_aborted_has_ended() {
    corelane::block_on(async {
        let own: Rc<Cell<Option<corelane::AbortHandle>>> = Rc::default();
        let mine = own.clone();
        let task = corelane::spawn_local(async move {
            corelane::yield_now().await;
            mine.take().expect("there by now").abort();
            9
        });
        own.set(Some(task.abort_handle()));
        assert_eq!(task.await.expect("its output was there first"), 9);
    });
}

#[test]
fn tasks_have_identities_of_their_own() {
    let runtime = shards(2);
    let ids: std::collections::HashSet<_> = (0..40)
        .map(|number| {
            let shard = if number % 2 == 0 { FIRST } else { SECOND };
            let task = on(runtime.handle(), shard, || corelane::spawn_local(async {}));
            task.id()
        })
        .collect();
    assert_eq!(ids.len(), 40);
}

/// When dropped, spawns a task that does the same, so many times over.
struct SpawnsWhenDropped {
    left: usize,
    drops: Arc<AtomicUsize>,
}

impl Drop for SpawnsWhenDropped {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        if self.left > 0 {
            let next = SpawnsWhenDropped { left: self.left - 1, drops: self.drops.clone() };
            let task = corelane::spawn_local(async move {
                let _next = next;
                pending::<()>().await;
            });
            assert!(task.is_finished(), "a shard that shuts down drops what is spawned at once");
            drop(task);
        }
    }
}

#[test]
fn what_is_spawned_while_a_shard_shuts_down_is_dropped_once() {
    within_reason(|| {
        for deadline in [Duration::ZERO, Duration::from_millis(5)] {
            let runtime = shards(1);
            let drops = Arc::new(AtomicUsize::new(0));
            for _ in 0..10 {
                let value = SpawnsWhenDropped { left: 20, drops: drops.clone() };
                on(runtime.handle(), FIRST, move || {
                    drop(corelane::spawn_local(async move {
                        let _value = value;
                        pending::<()>().await;
                    }));
                });
            }
            assert_eq!(runtime.shutdown(deadline).shards_panicked, 0);
            assert_eq!(drops.load(Ordering::SeqCst), 10 * 21);
        }
    });
}

#[test]
fn tasks_that_spawn_tasks_for_ever_do_not_hold_up_the_end() {
    fn breed(alive: Arc<()>) {
        drop(corelane::spawn_local(async move {
            corelane::yield_now().await;
            breed(alive.clone());
            breed(alive);
        }));
    }
    /// The same, but few.
    fn succeed(alive: Arc<()>) {
        drop(corelane::spawn_local(async move {
            corelane::yield_now().await;
            succeed(alive.clone());
        }));
    }
    within_reason(|| {
        let alive = Arc::new(());
        let runtime = shards(2);
        for shard in [FIRST, SECOND] {
            let alive = alive.clone();
            on(runtime.handle(), shard, move || succeed(alive));
        }
        eventually("they multiply", || {
            runtime.handle().stats().iter().all(|stats| stats.tasks_spawned > 1000)
        });
        let both = alive.clone();
        on(runtime.handle(), SECOND, move || breed(both));
        assert_eq!(runtime.shutdown(Duration::from_millis(1)).shards_panicked, 0);
        assert_eq!(Arc::strong_count(&alive), 1, "every one of them is gone");
    });
}

#[test]
fn nothing_can_be_sent_to_a_runtime_that_has_shut_down() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle().clone();
        runtime.shutdown(Duration::ZERO);
        let (spy, dropped) = DropSpy::new();
        let refused = handle.spawn_on(FIRST, move || stay(spy)).expect_err("shut down");
        assert_eq!(refused.kind(), SubmitErrorKind::Closed);
        assert_eq!(refused.to_string(), "shard 0 has shut down");
        let closure = refused.into_inner();
        assert!(dropped.not_yet(), "the closure comes back");
        drop(closure);
        assert!(dropped.is_dropped());

        assert_eq!(
            handle.post(SECOND, || ()).expect_err("shut down").kind(),
            SubmitErrorKind::Closed
        );
        let Err(refused) = handle.try_submit_to(SECOND, || async {}) else { panic!("shut down") };
        assert_eq!(refused.kind(), SubmitErrorKind::Closed);
        assert!(wait(handle.submit_to(SECOND, || async {})).expect_err("shut down").is_closed());
        let answers = wait(handle.broadcast(|_| async {}));
        assert!(answers.into_iter().all(|answer| answer.expect_err("shut down").is_closed()));
        assert!(wait(handle.spawn_blocking(|| ())).expect_err("shut down").is_cancelled());
        wait(handle.room(FIRST));
        handle.request_shutdown(Duration::ZERO);
        // The handle can still be asked, and makes a shard of its own for a `block_on`.
        assert_eq!(handle.stats().len(), 2);
        assert_eq!(
            handle.block_on(async { corelane::spawn_local(async { 1 }).await.expect("it runs") }),
            1
        );
    });
}

#[test]
fn ten_thousand_futures_in_one_task_leave_time_for_others() {
    const COUNT: usize = 10_000;
    corelane::block_on(async {
        let others = Rc::new(Cell::new(0u32));
        let counted = others.clone();
        let other = corelane::spawn_local(async move {
            loop {
                counted.set(counted.get() + 1);
                corelane::yield_now().await;
            }
        });
        let mut all: FuturesUnordered<_> = (0..COUNT)
            .map(|number| async move {
                for _ in 0..number % 4 {
                    corelane::yield_now().await;
                }
                number
            })
            .collect();
        let mut sum = 0;
        while let Some(number) = all.next().await {
            sum += number;
        }
        assert_eq!(sum, COUNT * (COUNT - 1) / 2);
        other.abort();
        assert!(others.get() > 100, "only {} polls of the other task", others.get());
    });
}

#[test]
fn ten_thousand_calls_in_one_task_are_all_answered() {
    const COUNT: usize = 10_000;
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle().clone();
        let sum = wait(runtime.handle().submit_to(FIRST, move || async move {
            let mut all: FuturesUnordered<_> = (0..COUNT)
                .map(|number| handle.submit_to(SECOND, move || async move { number }))
                .collect();
            let mut sum = 0;
            while let Some(number) = all.next().await {
                sum += number.expect("answered");
            }
            sum
        }));
        assert_eq!(sum.expect("no panic"), COUNT * (COUNT - 1) / 2);
    });
}

#[test]
fn a_million_wakes_at_home_are_one_poll() {
    let shard = HostedShard::new(Limits::default()).expect("a shard");
    let polls = Rc::new(Cell::new(0));
    let counted = polls.clone();
    let waker: Rc<Cell<Option<Waker>>> = Rc::default();
    let kept = waker.clone();
    let task = shard.enter(|| {
        corelane::spawn_local(poll_fn(move |context| {
            counted.set(counted.get() + 1);
            kept.set(Some(context.waker().clone()));
            Poll::<()>::Pending
        }))
    });
    shard.turn(Duration::ZERO);
    assert_eq!(polls.get(), 1);
    let woken = waker.take().expect("polled");
    shard.enter(|| (0..1_000_000).for_each(|_| woken.wake_by_ref()));
    while shard.turn(Duration::ZERO) {}
    assert_eq!(polls.get(), 2);
    drop(task);
}

#[test]
fn a_million_wakes_from_elsewhere_are_one_poll_and_at_most_one_system_call() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle();
        let (tell, wakers) = mpsc::channel::<Waker>();
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = polls.clone();
        drop(handle.spawn_on(FIRST, move || {
            poll_fn(move |context| {
                let _ = tell.send(context.waker().clone());
                counted.fetch_add(1, Ordering::SeqCst);
                Poll::<()>::Pending
            })
        }));
        let waker = wakers.recv().expect("polled");
        let gate = Gate::close(handle, FIRST);
        let before = stats(handle, FIRST);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let waker = waker.clone();
                std::thread::spawn(move || (0..500_000).for_each(|_| waker.wake_by_ref()))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        gate.open();
        wakers.recv().expect("polled again");
        let after = stats_at_rest(handle, FIRST);
        assert_eq!(polls.load(Ordering::SeqCst), 2, "a million wakes, one more poll");
        assert_eq!(after.foreign_wakes - before.foreign_wakes, 1);
        // The shard was awake all the while: nothing was rung for the wakes. What is left are the calls of this test.
        let rung = after.eventfd_writes - before.eventfd_writes;
        assert!(rung <= 4, "{rung} system calls");
        assert!(after.eventfd_writes <= after.parks, "{after:?}");
    });
}

#[test]
fn tasks_of_a_block_on_are_dropped_at_its_end() {
    let (spy, dropped) = DropSpy::new();
    corelane::block_on(async move {
        drop(corelane::spawn_local(stay(spy)));
        corelane::yield_now().await;
    });
    assert_eq!(dropped.on(), std::thread::current().id());
}

#[test]
fn a_hosted_shard_drops_its_tasks_when_it_is_dropped() {
    let shard = HostedShard::new(Limits::default()).expect("a shard");
    let (spy, dropped) = DropSpy::new();
    let task = shard.enter(|| corelane::spawn_local(stay(spy)));
    shard.turn(Duration::ZERO);
    drop(shard);
    assert_eq!(dropped.on(), std::thread::current().id());
    assert!(wait(task).expect_err("its shard is gone").is_cancelled());
}

#[test]
fn a_task_waits_for_a_task_that_waits_for_it_until_one_is_aborted() {
    corelane::block_on(async {
        let slot: Rc<Cell<Option<JoinHandle<()>>>> = Rc::default();
        let other = slot.clone();
        let first = corelane::spawn_local(async move {
            let second = other.take().expect("set before the first poll");
            second.await.expect_err("aborted");
        });
        let abort = first.abort_handle();
        let second = corelane::spawn_local(async move {
            let _ = first.await;
        });
        let stop = second.abort_handle();
        slot.set(Some(second));
        corelane::yield_now().await;
        stop.abort();
        while !abort.is_finished() {
            corelane::yield_now().await;
        }
    });
}

#[test]
fn a_runtime_can_be_started_and_dropped_again_and_again() {
    for round in 0..50 {
        let runtime: Runtime = shards(1 + round % 2);
        let (spy, dropped) = DropSpy::new();
        drop(runtime.handle().spawn_on(FIRST, move || stay(spy)));
        drop(runtime);
        dropped.on();
    }
}

#[test]
fn a_handle_that_is_polled_while_its_task_s_future_is_dropped_waits_for_the_output() {
    /// Asks for its own output while it is dropped.
    struct Asks(Rc<RefCell<Option<JoinHandle<u32>>>>, bool);
    impl Future for Asks {
        type Output = u32;
        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
            if std::mem::replace(&mut self.1, true) {
                return Poll::Ready(5);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }
    impl Drop for Asks {
        fn drop(&mut self) {
            let mut handle = self.0.borrow_mut();
            let polled = poll_once(handle.as_mut().expect("it is there"));
            assert!(polled.is_pending(), "{polled:?}");
        }
    }
    corelane::block_on(async {
        let handle = Rc::new(RefCell::new(None));
        *handle.borrow_mut() = Some(corelane::spawn_local(Asks(handle.clone(), false)));
        for _ in 0..4 {
            corelane::yield_now().await;
        }
        let handle = handle.take().expect("nobody else takes it");
        assert_eq!(handle.await.expect("it has ended well"), 5);
    });
}

#[test]
fn an_output_that_is_asked_for_elsewhere_while_the_future_is_dropped_arrives() {
    /// Has an output at once, and is dropped until somebody elsewhere has asked for it and the shard has heard of it.
    struct IsAskedFor {
        shard: Rc<HostedShard>,
        being_dropped: mpsc::Sender<()>,
        asked: mpsc::Receiver<()>,
    }
    impl Future for IsAskedFor {
        type Output = u32;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
            Poll::Ready(42)
        }
    }
    impl Drop for IsAskedFor {
        fn drop(&mut self) {
            self.being_dropped.send(()).expect("somebody waits to ask");
            self.asked.recv().expect("it is asked for");
            self.shard.turn(Duration::ZERO);
        }
    }
    within_reason(|| {
        let shard = Rc::new(HostedShard::new(Limits::default()).expect("a shard"));
        let (being_dropped, is_being_dropped) = mpsc::channel();
        let (ask, asked) = mpsc::channel();
        let future = IsAskedFor { shard: shard.clone(), being_dropped, asked };
        let mut task = shard.enter(|| corelane::spawn_local(future));
        let other = std::thread::spawn(move || {
            is_being_dropped.recv().expect("it ends");
            assert!(poll_once(&mut task).is_pending());
            ask.send(()).expect("it waits");
            wait(task)
        });
        eventually("the output arrives", || {
            shard.turn(Duration::ZERO);
            other.is_finished()
        });
        assert_eq!(other.join().expect("no panic").expect("it has ended well"), 42);
    });
}

#[test]
fn outputs_that_were_asked_for_elsewhere_before_the_end_of_a_shard_arrive() {
    within_reason(|| {
        // More than the shard reads of its inbox in a turn.
        let limits = limits(|limits| limits.messages_per_turn = 16);
        let shard = HostedShard::new(limits).expect("a shard");
        let mut tasks: Vec<JoinHandle<usize>> = shard.enter(|| {
            (0..400).map(|number| corelane::spawn_local(async move { number })).collect()
        });
        while shard.turn(Duration::ZERO) {}
        assert!(tasks.iter().all(JoinHandle::is_finished));
        let ask = move || {
            tasks.iter_mut().for_each(|task| assert!(poll_once(task).is_pending()));
            tasks
        };
        let tasks = std::thread::spawn(ask).join().expect("no panic");
        drop(shard);
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(wait(task).expect("its output was there before the end"), number);
        }
    });
}

/// A runtime with one thread for blocking work, which is held up until the sender is dropped.
fn with_a_busy_pool() -> (Runtime, mpsc::Sender<()>) {
    let runtime = shards_with(1, limits(|limits| limits.blocking_threads = 1));
    let (tell, begun) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    drop(runtime.handle().spawn_blocking(move || {
        tell.send(()).expect("the test waits");
        let _ = gate.recv();
    }));
    begun.recv().expect("it runs");
    (runtime, open)
}

#[test]
fn blocking_work_that_is_aborted_while_it_waits_for_a_thread_is_answered() {
    within_reason(|| {
        let (runtime, open) = with_a_busy_pool();
        let (spy, dropped) = DropSpy::new();
        let task: JoinHandle<()> = runtime.handle().spawn_blocking(move || {
            let _spy = spy;
            unreachable!("it was aborted");
        });
        task.abort();
        let mut set = corelane::task::JoinSet::new();
        for _ in 0..3 {
            set.spawn_blocking_on(|| unreachable!("it was aborted"), runtime.handle());
        }
        let mut shutdown = Box::pin(set.shutdown());
        assert!(poll_once(&mut shutdown).is_pending());
        drop(open);
        assert!(wait(task).expect_err("aborted").is_cancelled());
        dropped.on();
        wait(shutdown);
    });
}

#[test]
fn who_may_abort_a_task_is_told_of_every_end() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle();
        // It has run to its end, on the pool.
        let task = handle.spawn_blocking(|| 1);
        let before = task.abort_handle();
        eventually("it has ended", || task.is_finished());
        let after = task.abort_handle();
        assert!(before.is_finished() && after.is_finished());
        assert_eq!(wait(task).expect("no panic"), 1);
        assert!(before.is_finished());
        // It was aborted before it arrived.
        let gate = Gate::close(handle, FIRST);
        let task = handle.spawn_on(FIRST, || async { 2 }).expect("a shard with room");
        let abort = task.abort_handle();
        abort.abort();
        assert!(!abort.is_finished());
        gate.open();
        assert!(wait(task).expect_err("aborted").is_cancelled());
        assert!(abort.is_finished());
    });
}

/// As one of the standard library's futures, and Tokio's handle.
#[test]
#[should_panic(expected = "polled after it had given its output")]
fn a_handle_that_is_polled_again_panics() {
    corelane::block_on(async {
        let mut task = corelane::spawn_local(async {});
        (&mut task).await.expect("no panic");
        let _ = task.await;
    });
}
