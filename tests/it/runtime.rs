//! Starting, stopping, nesting and misusing runtimes.

use super::harness::*;
use super::process;
use corelane::time::{Duration, Instant, sleep};
use corelane::{
    Cores, Handle, HostedShard, Limits, Pin, PlacementError, Runtime, ShardId, Trouble,
};
use proptest::prelude::*;
use std::cell::RefCell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;

/// The text that `f` panics with.
fn panic_text<R>(f: impl FnOnce() -> R) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).map(|_| ()).expect_err("it panics");
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).expect("a text")
}

#[test]
fn block_on_runs_futures_that_borrow() {
    let mut text = String::from("a");
    let borrowed = &mut text;
    let length = corelane::block_on(async {
        borrowed.push('b');
        corelane::yield_now().await;
        borrowed.push('c');
        sleep(Duration::from_millis(1)).await;
        borrowed.len()
    });
    assert_eq!((length, text.as_str()), (3, "abc"));
}

#[test]
fn block_on_hears_wakes_from_other_threads() {
    within_reason(|| {
        for _ in 0..200 {
            let (tell, told) = futures::channel::oneshot::channel();
            let other = thread::spawn(move || tell.send(7).expect("somebody waits"));
            assert_eq!(corelane::block_on(told), Ok(7));
            other.join().expect("no panic");
        }
    });
}

#[test]
fn yield_now_lets_every_ready_task_run_first() {
    let tasks = async {
        let order = std::rc::Rc::new(RefCell::new(Vec::new()));
        for number in 0..5 {
            let order = order.clone();
            drop(corelane::spawn_local(async move {
                order.borrow_mut().push(number);
                corelane::yield_now().await;
                order.borrow_mut().push(number + 10);
            }));
        }
        corelane::yield_now().await;
        let first = order.borrow().clone();
        corelane::yield_now().await;
        (first, order.take())
    };
    // Not awaited by its handle: such a task may run at once, in the place of the one that awaits it.
    let (tell, told) = futures::channel::oneshot::channel();
    let (first, second) = corelane::block_on(async {
        drop(corelane::spawn_local(async move { tell.send(tasks.await) }));
        told.await.expect("told")
    });
    assert_eq!(first, [0, 1, 2, 3, 4]);
    assert_eq!(second, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
    // The future of a block_on is no task, and may find that others have run more than once.
    corelane::block_on(async {
        let task = corelane::spawn_local(async {});
        corelane::yield_now().await;
        assert!(task.is_finished());
    });
}

#[test]
fn a_shard_that_would_block_itself_says_so_instead() {
    const TEXT: &str = "block_on was called inside a Corelane shard";
    within_reason(|| {
        let text = corelane::block_on(async { panic_text(|| corelane::block_on(async {})) });
        assert!(text.starts_with(TEXT), "{text}");
        let runtime = shards(1);
        let inner = runtime.handle().clone();
        let texts = on(runtime.handle(), FIRST, move || {
            [
                panic_text(|| corelane::block_on(async {})),
                panic_text(|| inner.block_on(async {})),
                panic_text(|| HostedShard::new(Limits::default())),
            ]
        });
        assert!(texts.iter().all(|text| text.starts_with(TEXT)), "{texts:?}");
        let text = runtime.block_on(async { panic_text(|| corelane::block_on(async {})) });
        assert!(text.starts_with(TEXT), "{text}");
        let shard = HostedShard::new(Limits::default()).expect("a shard");
        let text = shard.enter(|| panic_text(|| corelane::block_on(async {})));
        assert!(text.starts_with(TEXT), "{text}");
        // Beside a shard it is no problem, and nor is it on the blocking pool.
        assert_eq!(corelane::block_on(async { 1 }), 1);
        let pool = runtime.handle().spawn_blocking(|| corelane::block_on(async { 2 }));
        assert_eq!(wait(pool).expect("no panic"), 2);
    });
}

#[test]
fn what_needs_a_shard_says_so_where_there_is_none() {
    for text in [
        panic_text(|| corelane::spawn_local(async {})),
        panic_text(|| corelane::spawn(async {})),
        panic_text(|| corelane::spawn_blocking(|| ())),
        panic_text(|| wait(corelane::shutdown_requested())),
        panic_text(Handle::current),
    ] {
        assert!(text.contains("was called outside a Corelane shard"), "{text}");
    }
    assert!(Handle::try_current().is_none());
    assert_eq!(ShardId::current(), None);
}

#[test]
fn a_runtime_dropped_on_its_own_shard_says_so_and_hangs_nobody() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle().clone();
        let text = on(&handle, SECOND, move || panic_text(move || drop(runtime)));
        assert!(text.contains("dropped or shut down on one of its own shards"), "{text}");
        eventually("its shards have stopped", || handle.post(FIRST, || ()).is_err());

        let runtime = shards(1);
        let handle = runtime.handle().clone();
        let text = on(&handle, FIRST, move || panic_text(move || runtime.shutdown(Duration::ZERO)));
        assert!(text.contains("dropped or shut down on one of its own shards"), "{text}");
        eventually("its shard has stopped", || handle.post(FIRST, || ()).is_err());
    });
}

#[test]
fn a_task_that_owns_its_runtime_does_not_hang_its_end() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle().clone();
        let (spy, dropped) = DropSpy::new();
        let owner = handle.spawn_on(FIRST, move || async move {
            let _spy = spy;
            let _runtime = runtime;
            pending::<()>().await;
        });
        drop(owner);
        on(&handle, FIRST, || ());
        handle.request_shutdown(Duration::ZERO);
        dropped.on();
        eventually("its shard has stopped", || handle.post(FIRST, || ()).is_err());
    });
}

#[test]
fn a_task_that_panics_with_its_runtime_in_hand_ends_it() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle().clone();
        let owner = handle.spawn_on(FIRST, move || async move {
            let _runtime = runtime;
            deliberate();
        });
        let answer: Result<(), _> = wait(owner.expect("a shard with room"));
        assert!(answer.expect_err("it panicked").is_panic());
        eventually("its shard has stopped", || handle.post(FIRST, || ()).is_err());
    });
}

#[test]
fn a_runtime_can_be_dropped_on_a_shard_of_another_one() {
    within_reason(|| {
        let outer = shards(1);
        let (spy, dropped) = DropSpy::new();
        let home = on(outer.handle(), FIRST, move || {
            let inner = shards(1);
            let home = thread_of(inner.handle(), FIRST);
            drop(inner.handle().spawn_on(FIRST, move || async move {
                let _here = spy.stay();
                pending::<()>().await;
            }));
            drop(inner);
            home
        });
        assert_eq!(dropped.on(), home);
        assert_eq!(on(outer.handle(), FIRST, || 3), 3);
    });
}

thread_local! {
    static KEPT: RefCell<Vec<Box<dyn std::any::Any>>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn runtimes_and_hosted_shards_may_be_kept_in_thread_locals() {
    within_reason(|| {
        for first in [true, false] {
            let (spy, dropped) = DropSpy::new();
            let (other_spy, other_dropped) = DropSpy::new();
            let plain = thread::spawn(move || {
                if first {
                    KEPT.with_borrow_mut(Vec::clear);
                }
                let runtime = shards(1);
                drop(runtime.handle().spawn_on(FIRST, move || async move {
                    let _here = spy.stay();
                    pending::<()>().await;
                }));
                let hosted = HostedShard::new(Limits::default()).expect("a shard");
                drop(hosted.enter(|| {
                    corelane::spawn_local(async move {
                        let _here = other_spy.stay();
                        pending::<()>().await;
                    })
                }));
                hosted.turn(Duration::ZERO);
                KEPT.with_borrow_mut(|kept| {
                    kept.push(Box::new(runtime));
                    kept.push(Box::new(hosted));
                });
            });
            plain.join().expect("no panic");
            dropped.on();
            other_dropped.on();
        }
    });
}

#[test]
fn a_shutdown_waits_for_tasks_and_reports_what_it_had_to_drop() {
    within_reason(|| {
        let runtime = shards(2);
        let ended = Arc::new(AtomicUsize::new(0));
        for shard in [FIRST, SECOND] {
            for millis in 0..10 {
                let ended = ended.clone();
                let work = move || async move {
                    sleep(Duration::from_millis(millis * 3)).await;
                    ended.fetch_add(1, Ordering::SeqCst);
                };
                drop(runtime.handle().spawn_on(shard, work).expect("a shard with room"));
            }
        }
        let report = runtime.shutdown(Duration::MAX);
        assert_eq!((report.tasks_dropped, report.shards_panicked), (0, 0));
        assert_eq!(ended.load(Ordering::SeqCst), 20);

        let runtime = shards(2);
        for shard in [FIRST, SECOND] {
            for _ in 0..3 {
                drop(runtime.handle().spawn_on(shard, pending::<()>).expect("a shard with room"));
            }
        }
        // All six have arrived.
        for shard in [FIRST, SECOND] {
            on(runtime.handle(), shard, || ());
        }
        let began = Instant::now();
        let report = runtime.shutdown(Duration::from_millis(50));
        assert_eq!((report.tasks_dropped, report.shards_panicked), (6, 0));
        assert!(began.elapsed() >= Duration::from_millis(50), "they had so much time");
    });
}

#[test]
fn a_guest_that_ends_during_a_shutdown_is_not_in_its_report() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle().clone();
        let (tell, told) = mpsc::channel();
        let (guest_ended, wait_for_guest) = futures::channel::oneshot::channel::<()>();
        // Keeps the shutdown waiting until the guest has ended.
        let stops = handle.spawn_on(FIRST, move || async move {
            corelane::shutdown_requested().await;
            tell.send(()).expect("the guest listens");
            let _ = wait_for_guest.await;
        });
        on(&handle, FIRST, || ());
        let guest = thread::spawn(move || {
            handle.block_on(async {
                drop(corelane::spawn_local(pending::<()>()));
                corelane::yield_now().await;
                told.recv().expect("the shutdown begins");
            });
            drop(guest_ended);
        });
        let report = runtime.shutdown(Duration::MAX);
        assert_eq!((report.tasks_dropped, report.shards_panicked), (0, 0));
        guest.join().expect("no panic");
        wait(stops.expect("a shard with room")).expect("no panic");
    });
}

#[test]
fn a_task_hears_of_the_shutdown_and_may_end_before_its_deadline() {
    within_reason(|| {
        let runtime = shards(2);
        let (tell, told) = mpsc::channel();
        for shard in [FIRST, SECOND] {
            let tell = tell.clone();
            drop(runtime.handle().spawn_on(shard, move || async move {
                // Several may wait, one may wait twice, and late comers hear it at once.
                let other = corelane::spawn_local(corelane::shutdown_requested());
                corelane::shutdown_requested().await;
                other.await.expect("no panic");
                corelane::shutdown_requested().await;
                sleep(Duration::from_millis(5)).await;
                corelane::spawn_local(async {}).await.expect("the shard works to the end");
                let _ = tell.send(shard);
            }));
        }
        on(runtime.handle(), SECOND, || ());
        let report = runtime.shutdown(Duration::MAX);
        assert_eq!(report.tasks_dropped, 0);
        drop(tell);
        assert_eq!(told.iter().count(), 2);
    });
}

#[test]
fn a_shutdown_may_be_asked_for_again_with_less_patience() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle().clone();
        drop(handle.spawn_on(FIRST, pending::<()>).expect("a shard with room"));
        handle.request_shutdown(Duration::MAX);
        assert_eq!(on(&handle, FIRST, || 1), 1, "it still works");
        handle.request_shutdown(Duration::from_secs(1_000));
        let own = handle.clone();
        handle
            .post(FIRST, move || own.request_shutdown(Duration::ZERO))
            .expect("a shard with room");
        assert_eq!(runtime.shutdown(Duration::MAX).tasks_dropped, 1);
    });
}

#[test]
fn a_peer_that_is_gone_is_an_error_for_those_who_still_call_it() {
    within_reason(|| {
        for _ in 0..30 {
            let runtime = shards(2);
            let handle = runtime.handle().clone();
            let (tell, told) = mpsc::channel();
            let calls =
                move |own: ShardId, other: ShardId, handle: Handle, tell: mpsc::Sender<bool>| {
                    move || async move {
                        let _ = own;
                        loop {
                            if let Err(error) = handle.submit_to(other, || async {}).await {
                                let _ = tell.send(error.is_closed());
                                return;
                            }
                        }
                    }
                };
            for (own, other) in [(FIRST, SECOND), (SECOND, FIRST)] {
                drop(handle.spawn_on(own, calls(own, other, handle.clone(), tell.clone())));
            }
            drop(tell);
            on(&handle, FIRST, || ());
            drop(runtime);
            assert!(told.iter().all(|closed| closed), "and nothing else went wrong");
        }
    });
}

#[test]
fn two_runtimes_in_one_process_know_nothing_of_each_other() {
    within_reason(|| {
        let (first, second) = (shards(2), shards(2));
        let there = second.handle().clone();
        let both = first.handle().submit_to(SECOND, move || async move {
            assert_eq!(ShardId::current(), Some(SECOND));
            let inner = there.submit_to(FIRST, || async { ShardId::current() }).await;
            assert_eq!(Handle::current().shard_count(), 2);
            (inner.expect("answered"), ShardId::current())
        });
        assert_eq!(wait(both).expect("no panic"), (Some(FIRST), Some(SECOND)));
        assert_ne!(thread_of(first.handle(), FIRST), thread_of(second.handle(), FIRST));
        // One stops in the middle of the other's work.
        let there = second.handle().clone();
        let calls = first.handle().spawn_on(FIRST, move || async move {
            let mut answers = 0;
            while there.submit_to(SECOND, || async {}).await.is_ok() {
                answers += 1;
            }
            answers
        });
        on(first.handle(), FIRST, || ());
        eventually("calls go through", || stats(second.handle(), SECOND).tasks_spawned > 10);
        drop(second);
        assert!(wait(calls.expect("a shard with room")).expect("no panic") > 0);
        assert_eq!(on(first.handle(), SECOND, || 4), 4);
    });
}

#[test]
fn a_runtimes_block_on_is_a_shard_that_can_call_the_others() {
    within_reason(|| {
        let runtime = shards(2);
        let sum = runtime.block_on(async {
            let handle = Handle::current();
            assert_eq!(handle.shard_count(), 2);
            assert_eq!(ShardId::current(), None, "it is none of the runtime's own");
            let local = corelane::spawn_local(async {
                sleep(Duration::from_millis(1)).await;
                1
            });
            let there = handle.submit_to(SECOND, || async { 2 }).await.expect("answered");
            let pool = corelane::spawn_blocking(|| 3).await.expect("no panic");
            local.await.expect("no panic") + there + pool
        });
        assert_eq!(sum, 6);
        // On several threads at once.
        let threads = [0, 1, 2].map(|number| {
            let handle = runtime.handle().clone();
            thread::spawn(move || {
                handle.block_on(async {
                    let there = Handle::current().submit_to(FIRST, move || async move { number });
                    there.await.expect("answered")
                })
            })
        });
        assert_eq!(threads.map(|thread| thread.join().expect("no panic")), [0, 1, 2]);
    });
}

#[test]
fn a_free_standing_block_on_has_no_shards_to_call() {
    corelane::block_on(async {
        let handle = Handle::current();
        assert_eq!(handle.shard_count(), 0);
        assert!(handle.post(FIRST, || ()).is_err());
        assert!(handle.submit_to(FIRST, || async {}).await.expect_err("none").is_no_such_shard());
        assert!(handle.broadcast(|_| async {}).await.is_empty());
        assert_eq!(handle.map_reduce(|_| async {}, 5, |sum, ()| sum + 1).await.expect("none"), 5);
    });
}

#[test]
fn limits_out_of_bounds_are_refused_by_name_value_and_bound() {
    type Change = fn(&mut Limits);
    let changes: [(&str, Change); 11] = [
        ("polls_per_turn is 0, and must be at least 1", |limits| limits.polls_per_turn = 0),
        ("io_per_poll is 0, and must be at least 1", |limits| limits.io_per_poll = 0),
        ("messages_per_turn is 0, and must be at least 1", |limits| limits.messages_per_turn = 0),
        ("inbox_capacity is 0, and must be at least 1", |limits| limits.inbox_capacity = 0),
        ("timers_per_turn is 0, and must be at least 1", |limits| limits.timers_per_turn = 0),
        ("events is 0, and must be at least 1", |limits| limits.events = 0),
        ("blocking_threads is 0, and must be at least 1", |limits| limits.blocking_threads = 0),
        ("inbox_capacity is 1048577, and must be at most 1048576", |limits| {
            limits.inbox_capacity = (1 << 20) + 1;
        }),
        ("inbox_capacity is 18446744073709551615, and must be at most 1048576", |limits| {
            limits.inbox_capacity = usize::MAX;
        }),
        ("events is 18446744073709551615, and must be at most 1048576", |limits| {
            limits.events = usize::MAX;
        }),
        ("busy_poll is 2s, and must be at most 1s", |limits| {
            limits.busy_poll = Duration::from_secs(2);
        }),
    ];
    for (text, change) in changes {
        let started = Runtime::builder().cores(Cores::Count(1)).limits(limits(change)).start();
        let hosted = HostedShard::new(limits(change));
        for error in [started.expect_err("refused"), hosted.expect_err("refused")] {
            assert!(
                error.is_config() && !error.is_start() && !error.is_placement() && !error.is_bind()
            );
            assert_eq!(error.to_string(), text);
        }
    }
    let most = limits(|limits| {
        (limits.inbox_capacity, limits.events) = (1 << 20, 1 << 20);
        (limits.polls_per_turn, limits.io_per_poll) = (u32::MAX, u32::MAX);
        (limits.messages_per_turn, limits.timers_per_turn) = (usize::MAX, usize::MAX);
        (limits.turn_time, limits.busy_poll) = (Duration::MAX, Duration::from_secs(1));
        limits.blocking_threads = usize::MAX;
    });
    assert_eq!(on(shards_with(1, most).handle(), FIRST, || 5), 5);
}

#[test]
fn a_thread_name_that_the_system_cannot_have_is_refused() {
    let started = Runtime::builder().cores(Cores::Count(1)).thread_name("a\0b").start();
    let error = started.expect_err("refused");
    assert!(error.is_config());
    assert_eq!(error.to_string(), r#"thread_name is "a\0b", and must not contain a zero byte"#);
}

#[test]
fn limits_of_one_and_no_time_are_slow_and_correct() {
    within_reason(|| {
        let one = limits(|limits| {
            limits.polls_per_turn = 1;
            limits.turn_time = Duration::ZERO;
            limits.io_per_poll = 1;
            limits.messages_per_turn = 1;
            limits.inbox_capacity = 1;
            limits.timers_per_turn = 1;
            limits.events = 1;
            limits.busy_poll = Duration::ZERO;
            limits.blocking_threads = 1;
        });
        let runtime = shards_with(2, one);
        let handle = runtime.handle().clone();
        let works = runtime.handle().submit_to(FIRST, move || async move {
            use futures::{AsyncReadExt, AsyncWriteExt};
            let timers: Vec<_> = (0..20)
                .map(|n| corelane::spawn_local(sleep(Duration::from_millis(n % 4))))
                .collect();
            let (mut a, mut b) = corelane::net::UnixStream::pair().expect("a pair");
            for _ in 0..20 {
                a.write_all(b"12345678").await.expect("written");
                for _ in 0..8 {
                    b.read_exact(&mut [0]).await.expect("read");
                }
                handle.submit_to(SECOND, || async {}).await.expect("answered");
                corelane::spawn_blocking(|| ()).await.expect("no panic");
                corelane::yield_now().await;
            }
            for timer in timers {
                timer.await.expect("no panic");
            }
        });
        wait(works).expect("no panic");
    });
}

#[test]
fn a_shard_that_is_held_up_is_reported_once_for_each_time() {
    within_reason(|| {
        let troubles: Arc<Mutex<Vec<Trouble>>> = Arc::default();
        let told = troubles.clone();
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .stall_threshold(Duration::from_millis(250))
            .on_trouble(move |trouble| told.lock().expect("no panic").push(trouble))
            .start()
            .expect("started");
        for count in 1..=2 {
            let gate = Gate::close(runtime.handle(), FIRST);
            eventually("it is reported", || troubles.lock().expect("no panic").len() >= count);
            // It is still held up, for as long again, and not reported anew.
            thread::sleep(Duration::from_millis(600));
            assert_eq!(troubles.lock().expect("no panic").len(), count);
            gate.open();
            // It goes on, and sleeps: that is no trouble.
            stats_at_rest(runtime.handle(), FIRST);
        }
        thread::sleep(Duration::from_millis(600));
        let troubles = troubles.lock().expect("no panic");
        assert_eq!(troubles.len(), 2, "sleeping is not hanging: {troubles:?}");
        for trouble in troubles.iter() {
            let Trouble::Stalled { shard, held } = trouble else { panic!("{trouble:?}") };
            assert_eq!(*shard, FIRST);
            assert!(*held >= Duration::from_millis(250));
        }
    });
}

#[test]
fn an_observer_that_panics_harms_nobody() {
    within_reason(|| {
        let (tell, told) = mpsc::channel();
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .stall_threshold(Duration::from_millis(1))
            .on_trouble(move |_| {
                let _ = tell.send(());
                deliberate();
            })
            .start()
            .expect("started");
        let gate = Gate::close(runtime.handle(), FIRST);
        told.recv().expect("told");
        gate.open();
        assert_eq!(on(runtime.handle(), FIRST, || 1), 1);
        assert_eq!(runtime.shutdown(Duration::ZERO).shards_panicked, 0);
    });
}

#[test]
fn an_observer_may_shut_its_runtime_down() {
    within_reason(|| {
        let (give, given) = mpsc::channel::<Runtime>();
        let given = Mutex::new(given);
        let (tell, told) = mpsc::channel();
        let observe = move |_| {
            let runtime = given.lock().expect("no panic").recv().expect("the test gives it");
            tell.send(None).expect("the test listens");
            tell.send(Some(runtime.shutdown(Duration::MAX))).expect("the test listens");
        };
        let runtime =
            Runtime::builder().cores(Cores::Count(1)).on_trouble(observe).start().expect("started");
        let handle = runtime.handle().clone();
        let gate = Gate::close(&handle, FIRST);
        give.send(runtime).expect("the observer takes it");
        assert_eq!(told.recv(), Ok(None));
        gate.open();
        let report = told.recv().expect("it does not panic").expect("a report");
        assert_eq!((report.tasks_dropped, report.shards_panicked), (0, 0));
        assert!(told.recv().is_err(), "its thread ends, and the observer with it");
        assert!(handle.post(FIRST, || ()).is_err());
    });
}

#[test]
fn statistics_have_names_and_add_up() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle();
        for _ in 0..10 {
            on(handle, FIRST, || ());
        }
        wait(handle.submit_to(FIRST, || sleep(Duration::from_millis(1)))).expect("no panic");
        eventually("all is counted", || {
            let stats = stats(handle, FIRST);
            stats.tasks_spawned == 11
                && stats.inbox_messages >= 11
                && stats.timers_fired == 1
                && stats.tasks == 0
        });
        let stats = stats(handle, FIRST);
        assert!(stats.polls >= 12 && stats.turns > 0 && stats.io_polls > 0 && stats.busy_nanos > 0);
        let by_name: std::collections::HashMap<_, _> = stats.iter().collect();
        assert_eq!(by_name["tasks_spawned"], stats.tasks_spawned);
        assert_eq!(by_name["eventfd_writes"], stats.eventfd_writes);
        assert_eq!(by_name.len(), stats.iter().count(), "no name twice");
    });
}

#[test]
fn blocking_work_is_bounded_and_waits_its_turn() {
    within_reason(|| {
        const THREADS: usize = 3;
        let runtime = shards_with(1, limits(|limits| limits.blocking_threads = THREADS));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work: Vec<_> = (0..40)
            .map(|number| {
                let (running, most) = (running.clone(), most.clone());
                runtime.handle().spawn_blocking(move || {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    spin(Duration::from_micros(300));
                    running.fetch_sub(1, Ordering::SeqCst);
                    number
                })
            })
            .collect();
        for (task, number) in work.into_iter().zip(0..) {
            assert_eq!(wait(task).expect("no panic"), number);
        }
        assert!((1..=THREADS).contains(&most.load(Ordering::SeqCst)));
    });
}

#[test]
fn blocking_work_that_has_not_begun_is_dropped_by_an_abort_or_the_shutdown() {
    within_reason(|| {
        let runtime = shards_with(1, limits(|limits| limits.blocking_threads = 1));
        let handle = runtime.handle();
        let (open, wait_for_it) = mpsc::channel::<()>();
        let (tell, began) = mpsc::channel();
        let busy = handle.spawn_blocking(move || {
            tell.send(()).expect("somebody listens");
            let _ = wait_for_it.recv();
            1
        });
        began.recv().expect("it runs");
        let aborted = handle.spawn_blocking(|| unreachable!("it was aborted"));
        let aborted: corelane::JoinHandle<()> = aborted;
        aborted.abort();
        let (spy, dropped) = DropSpy::new();
        let queued = handle.spawn_blocking(move || drop(spy));
        runtime.shutdown(Duration::ZERO);
        dropped.on();
        assert!(wait(queued).expect_err("it never began").is_cancelled());
        drop(open);
        assert_eq!(wait(busy).expect("it is not waited for, but it ends"), 1);
        assert!(wait(aborted).expect_err("aborted").is_cancelled());
    });
}

#[test]
fn a_process_ends_with_a_runtime_left_running() {
    const NAME: &str = "runtime::a_process_ends_with_a_runtime_left_running";
    static LEFT: OnceLock<Runtime> = OnceLock::new();
    let outcome = process::alone(NAME, &[], || {
        let runtime = LEFT.get_or_init(|| shards(1));
        drop(runtime.handle().spawn_on(FIRST, pending::<()>).expect("a shard with room"));
        on(runtime.handle(), FIRST, || ());
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

#[test]
fn errors_of_placement_are_told_apart() {
    let error = Runtime::builder().cores(Cores::List(vec![corelane::CpuId(1_000)])).start();
    let error = error.expect_err("there is no such CPU");
    assert!(error.is_placement() && !error.is_start());
    assert!(error.to_string().contains("CPU 1000"), "{error}");
    let error = Runtime::builder().cores(Cores::Count(100_000)).start().expect_err("too many");
    assert!(error.is_placement(), "{error}");
    assert!(error.to_string().contains("100000"), "{error}");
    let error = Runtime::builder().cores(Cores::List(Vec::new())).pin(Pin::Off).start();
    assert!(error.expect_err("none is too few").is_placement());
    let error = Runtime::builder().cores(Cores::Count(0)).start().expect_err("none is too few");
    assert!(error.is_placement(), "{error}");
}

fn cores() -> impl Strategy<Value = Cores> {
    let list = prop::collection::hash_set(0usize..64, 1..12)
        .prop_map(|cpus| Cores::List(cpus.into_iter().map(corelane::CpuId).collect()));
    prop_oneof![
        Just(Cores::All),
        Just(Cores::Physical),
        (1usize..10_000).prop_map(Cores::Count),
        list,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_cores_are_written_as_is_read_back(cores in cores()) {
        prop_assert_eq!(cores.to_string().parse::<Cores>(), Ok(cores));
    }

    #[test]
    fn no_text_makes_the_parser_of_cores_panic(text in "\\PC{0,20}|[0-9,\\- ]{0,30}|cpu:[0-9,]{0,12}") {
        match text.parse::<Cores>() {
            Ok(Cores::Count(0)) => prop_assert!(false, "no cores"),
            Ok(Cores::List(list)) => {
                let distinct: std::collections::HashSet<_> = list.iter().collect();
                prop_assert!(!list.is_empty() && distinct.len() == list.len());
            }
            Ok(_) => {}
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn errors_in_writing_name_what_is_wrong() {
    assert_eq!("".parse::<Cores>(), Err(PlacementError::Empty));
    assert_eq!("0".parse::<Cores>(), Err(PlacementError::ZeroCount));
    assert!(matches!("-1".parse::<Cores>(), Err(PlacementError::Syntax(_))));
    assert!(matches!("1.5".parse::<Cores>(), Err(PlacementError::Syntax(_))));
    assert!(matches!(
        "99999999999999999999999".parse::<Cores>(),
        Err(PlacementError::CountTooLarge(_))
    ));
    assert!(matches!("0-".parse::<Cores>(), Err(PlacementError::Syntax(_))));
}
