//! Sets of tasks: joined as they end, aborted with the set, and from other shards.

use crate::harness::{
    DropSpy, FIRST, SECOND, deliberate, eventually, on, poll_now, poll_once, shards, wait,
    within_reason,
};
use corelane::task::{self, Id, JoinSet, coop};
use corelane::{Runtime, ShardId};
use futures::channel::oneshot;
use std::cell::Cell;
use std::collections::HashSet;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;

/// Tasks that end when they are told to, each with its number.
fn told(set: &mut JoinSet<usize>, count: usize) -> Vec<oneshot::Sender<()>> {
    (0..count)
        .map(|number| {
            let (tell, told) = oneshot::channel();
            set.spawn(async move {
                told.await.expect("told");
                number
            });
            tell
        })
        .collect()
}

#[test]
fn tasks_are_joined_in_the_order_in_which_they_end() {
    corelane::block_on(async {
        let mut set = JoinSet::new();
        let mut tell: Vec<_> = told(&mut set, 5).into_iter().map(Some).collect();
        for number in [3, 0, 4, 1, 2] {
            assert!(poll_now(set.join_next()).await.is_pending());
            tell[number].take().expect("told once").send(()).expect("it listens");
            assert_eq!(set.join_next().await.expect("there are more").expect("it ends"), number);
        }
        assert!(set.is_empty());
        assert!(set.join_next().await.is_none());
    });
}

#[test]
fn who_waits_for_a_set_is_polled_once_per_task_that_ends() {
    corelane::block_on(async {
        let mut set = JoinSet::new();
        let mut tell = told(&mut set, 100);
        let polls = Rc::new(Cell::new(0));
        let counted = polls.clone();
        let waiting = task::spawn_local(async move {
            let mut joining = pin!(set.join_next());
            let joined = poll_fn(|context| {
                counted.set(counted.get() + 1);
                joining.as_mut().poll(context)
            })
            .await;
            joined.expect("there are tasks").expect("it ends")
        });
        for _ in 0..10 {
            task::yield_now().await;
        }
        assert_eq!(polls.get(), 1, "nothing has ended");
        tell.swap_remove(70).send(()).expect("it listens");
        assert_eq!(waiting.await.expect("it ends"), 70);
        assert_eq!(polls.get(), 2);
        drop(tell);
    });
}

#[test]
fn a_task_that_nobody_waits_for_stays_in_the_set_with_its_output() {
    corelane::block_on(async {
        let mut set = JoinSet::new();
        set.spawn(async { 7 });
        assert!(set.try_join_next().is_none(), "trying runs nothing");
        task::yield_now().await;
        assert_eq!(set.len(), 1);
        assert_eq!(set.try_join_next().expect("it has ended").expect("well"), 7);
        assert_eq!(set.len(), 0);
        assert!(set.try_join_next().is_none());
    });
}

#[test]
fn giving_up_waiting_loses_no_output() {
    corelane::block_on(async {
        let mut set = JoinSet::new();
        for number in 0..50_u32 {
            set.spawn(async move {
                for _ in 0..number % 7 {
                    task::yield_now().await;
                }
                number
            });
        }
        let mut sum = 0;
        while !set.is_empty() {
            if let Poll::Ready(Some(joined)) = poll_now(set.join_next()).await {
                sum += joined.expect("it ends");
            }
            task::yield_now().await;
        }
        assert_eq!(sum, 49 * 50 / 2);
    });
}

#[test]
fn numbers_are_used_again_and_nothing_is_mixed_up() {
    corelane::block_on(async {
        let mut set = JoinSet::new();
        let mut running: HashSet<Id> = HashSet::new();
        for round in 0..300_usize {
            let number = round;
            let task = set.spawn(async move {
                for _ in 0..number % 5 {
                    task::yield_now().await;
                }
                (number, task::id())
            });
            assert!(running.insert(task.id()));
            if round % 3 == 2 {
                let (id, (_, own)) = set.join_next_with_id().await.expect("some").expect("well");
                assert_eq!(id, own);
                assert!(running.remove(&id));
            }
        }
        while let Some(joined) = set.join_next_with_id().await {
            assert!(running.remove(&joined.expect("well").0));
        }
        assert!(running.is_empty());
    });
}

#[test]
fn dropping_a_set_aborts_its_tasks() {
    corelane::block_on(async {
        let mut set = JoinSet::new();
        let spies: Vec<_> = (0..3)
            .map(|_| {
                let (spy, dropped) = DropSpy::new();
                set.spawn_local(async move {
                    let _spy = spy.stay();
                    pending::<()>().await
                });
                dropped
            })
            .collect();
        task::yield_now().await;
        assert!(spies.iter().all(|spy| spy.not_yet()));
        drop(set);
        task::yield_now().await;
        assert!(spies.iter().all(|spy| spy.is_dropped()));
    });
}

#[test]
fn detached_tasks_run_on() {
    corelane::block_on(async {
        let mut set = JoinSet::new();
        let done = Rc::new(Cell::new(0));
        for yields in 0..3 {
            let done = done.clone();
            set.spawn_local(async move {
                for _ in 0..yields {
                    task::yield_now().await;
                }
                done.set(done.get() + 1);
            });
        }
        task::yield_now().await;
        set.detach_all();
        assert!(set.is_empty() && set.try_join_next().is_none());
        drop(set);
        while done.get() < 3 {
            task::yield_now().await;
        }
    });
}

#[test]
fn aborted_tasks_are_joined_with_an_error_that_names_them() {
    corelane::block_on(async {
        let mut set = JoinSet::new();
        set.spawn(async { 1 });
        task::yield_now().await;
        let one = set.spawn(pending());
        let other = set.spawn(pending());
        other.abort();
        let first = set.join_next_with_id().await.expect("some").expect("it had ended");
        assert_eq!(first.1, 1);
        let error = set.join_next().await.expect("some").expect_err("aborted");
        assert!(error.is_cancelled());
        assert_eq!(error.id(), other.id());
        set.abort_all();
        assert_eq!(set.len(), 1, "it stays until it is joined");
        let error = set.join_next_with_id().await.expect("some").expect_err("aborted");
        assert_eq!(error.id(), one.id());
        assert!(one.is_finished());
    });
}

#[test]
fn a_shutdown_waits_until_every_future_is_dropped() {
    corelane::block_on(async {
        let mut set = JoinSet::new();
        let (spy, dropped) = DropSpy::new();
        set.spawn(async {});
        set.spawn_local(async move {
            let _spy = spy.stay();
            pending().await
        });
        task::yield_now().await;
        set.shutdown().await;
        assert!(set.is_empty());
        assert!(dropped.is_dropped());
    });
}

#[test]
fn joining_all_gives_every_output_or_the_panic() {
    let outputs = corelane::block_on(async {
        (0..20).map(|number| async move { number }).collect::<JoinSet<_>>().join_all().await
    });
    assert_eq!(outputs.into_iter().collect::<HashSet<_>>(), (0..20).collect());
    let (spy, dropped) = DropSpy::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        corelane::block_on(async {
            let mut set = JoinSet::new();
            set.spawn_local(async move {
                let _spy = spy.stay();
                pending::<()>().await
            });
            set.spawn(async { deliberate() });
            set.join_all().await
        })
    }));
    let payload = panicked.expect_err("one of them panicked");
    assert_eq!(*payload.downcast::<&str>().expect("its payload"), "deliberate");
    assert!(dropped.is_dropped(), "the others are aborted");
}

#[test]
fn a_set_has_tasks_on_every_shard_and_moves() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        // Made on one shard, with tasks of that one, of the other and of the blocking pool.
        let there = handle.clone();
        let mut set = on(handle, FIRST, move || {
            let mut set = JoinSet::new();
            for _ in 0..20 {
                set.spawn(async {
                    task::yield_now().await;
                    ShardId::current()
                });
                let elsewhere = there.spawn_on(SECOND, || async {
                    let own = Rc::new(ShardId::current());
                    task::yield_now().await;
                    *own
                });
                set.insert(elsewhere.expect("there is room"));
                set.spawn_blocking(ShardId::current);
            }
            set
        });
        set.spawn_blocking_on(ShardId::current, handle);
        // Waited for by a thread that is no shard, and on the other shard.
        let mut seen = Vec::new();
        for _ in 0..30 {
            seen.push(wait(set.join_next()).expect("some").expect("it ends"));
        }
        let (send, rest) = mpsc::channel();
        on(handle, SECOND, move || {
            corelane::spawn(async move {
                while let Some(joined) = set.join_next().await {
                    send.send(joined.expect("it ends")).expect("somebody listens");
                }
            })
        });
        seen.extend(rest);
        let count = |wanted| seen.iter().filter(|shard| **shard == wanted).count();
        assert_eq!((count(Some(FIRST)), count(Some(SECOND)), count(None)), (20, 20, 21));
    });
}

#[test]
fn the_end_of_a_shard_ends_its_tasks_in_a_set_elsewhere() {
    within_reason(|| {
        let runtime = shards(1);
        let mut set = on(runtime.handle(), FIRST, || {
            let mut set = JoinSet::new();
            set.spawn(pending::<()>());
            set.spawn(pending::<()>());
            set
        });
        assert!(poll_once(&mut pin!(set.join_next())).is_pending());
        runtime.shutdown(std::time::Duration::ZERO);
        for _ in 0..2 {
            let error = wait(set.join_next()).expect("some").expect_err("dropped");
            assert!(error.is_cancelled());
        }
        assert!(wait(set.join_next()).is_none());
    });
}

#[test]
fn a_set_dropped_on_another_thread_aborts_at_home() {
    within_reason(|| {
        let runtime: Runtime = shards(1);
        let (spy, dropped) = DropSpy::new();
        let set = on(runtime.handle(), FIRST, move || {
            let mut set = JoinSet::new();
            set.spawn_local(async move {
                let _spy = spy.stay();
                pending::<()>().await
            });
            set
        });
        drop(set);
        eventually("the future is dropped", || dropped.is_dropped());
    });
}

#[test]
fn joining_what_has_ended_leaves_room_for_others() {
    corelane::block_on(async {
        let mut set: JoinSet<()> = (0..10_000).map(|_| async {}).collect();
        while poll_now(coop::unconstrained(task::yield_now())).await.is_ready() {}
        let polls = Rc::new(Cell::new(0));
        let beside = polls.clone();
        let other = task::spawn_local(async move {
            loop {
                beside.set(beside.get() + 1);
                task::yield_now().await;
            }
        });
        while set.join_next().await.is_some() {}
        assert!(polls.get() > 10, "the other task had {} polls", polls.get());
        other.abort();
    });
}

#[test]
fn a_share_is_counted_given_back_and_gone_without() {
    corelane::block_on(async {
        assert!(coop::has_budget_remaining());
        let spend = async |operations: u32| {
            for _ in 0..operations {
                task::consume_budget().await;
            }
        };
        assert!(poll_now(task::unconstrained(spend(100_000))).await.is_ready());
        assert!(coop::has_budget_remaining(), "nothing of it was counted");
        for _ in 0..100_000 {
            // Got nothing done: given back.
            assert!(poll_now(poll_fn(coop::poll_proceed)).await.is_ready());
        }
        assert!(poll_now(spend(100_000)).await.is_pending());
        assert!(!coop::has_budget_remaining());
        assert!(poll_now(coop::cooperative(async {})).await.is_pending());
        task::yield_now().await;
        assert!(poll_now(coop::cooperative(async {})).await.is_ready());
    });
}

#[test]
fn a_task_knows_its_identity() {
    assert!(task::try_id().is_none());
    let runtime = shards(1);
    let elsewhere = runtime.handle().spawn_on(FIRST, || async { task::id() }).expect("room");
    let id = elsewhere.id();
    assert_eq!(wait(elsewhere).expect("it ends"), id);
    corelane::block_on(async {
        assert!(task::try_id().is_none(), "a block_on's own future is no task");
        let outer = task::spawn_local(async {
            let inner = task::spawn_local(async { task::id() });
            let (before, inner_id) = (task::id(), inner.id());
            assert_eq!(inner.await.expect("it ends"), inner_id);
            assert_eq!(task::id(), before, "also after another ran in its place");
            before
        });
        let id = outer.id();
        assert_eq!(outer.abort_handle().id(), id);
        assert_eq!(outer.await.expect("it ends"), id);
        let blocking = task::spawn_blocking(task::id);
        let id = blocking.id();
        assert_eq!(blocking.await.expect("it ends"), id);
        let blocking = task::spawn_blocking(|| deliberate());
        let id = blocking.id();
        assert_eq!(blocking.await.expect_err("it panicked").id(), id);
    });
}
