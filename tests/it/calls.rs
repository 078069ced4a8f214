//! Calls between shards: nothing is lost, nothing waits for ever, nothing is woken in vain.

use super::harness::*;
use corelane::{Handle, Runtime, ShardId, Sharded, SubmitErrorKind};
use futures::StreamExt;
use futures::channel::mpsc as channel;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Context;
use std::thread;
use std::time::{Duration, Instant};

/// A delay as it comes: mostly none to speak of, sometimes about as long as a shard looks before it parks.
fn some_delay(random: &mut Random) -> Duration {
    match random.below(100) {
        0..50 => Duration::ZERO,
        50..94 => Duration::from_nanos(random.below(3_000)),
        _ => Duration::from_micros(20 + random.below(100)),
    }
}

/// Fails as soon as `progress` stands still while there is something to do.
fn watch(progress: &AtomicU64, end: u64, runtime: &Runtime) {
    let mut last = 0;
    let mut moved = Instant::now();
    while last < end {
        let now = progress.load(Ordering::Relaxed);
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        let stats = runtime.handle().stats();
        assert!(moved.elapsed() < HANGS_AFTER / 2, "stalled at {last} of {end}: {stats:#?}");
        for stats in stats {
            assert!(stats.eventfd_writes <= stats.parks, "{stats:#?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Ping-pong by calls, with random delays on both sides, and no stall.
fn ping_pong_by_calls(runtime: &Runtime, rounds: u64) {
    let handle = runtime.handle().clone();
    let progress = Arc::new(AtomicU64::new(0));
    let counted = progress.clone();
    let mut random = Random::new();
    let task = runtime.handle().spawn_on(FIRST, move || async move {
        for round in 0..rounds {
            let there = some_delay(&mut random);
            let answer = handle.submit_to(SECOND, move || async move {
                spin(there);
                round
            });
            assert_eq!(answer.await.expect("answered"), round);
            counted.store(round + 1, Ordering::Relaxed);
            spin(some_delay(&mut random));
        }
    });
    watch(&progress, rounds, runtime);
    wait(task.expect("a shard with room")).expect("no panic");
}

#[test]
fn two_hundred_thousand_calls_with_random_delays_never_stall() {
    within_reason(|| {
        let runtime = shards(2);
        // On one CPU each waits in vain for the other before it sleeps, so it takes much longer and shows less.
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        ping_pong_by_calls(&runtime, if cpus > 1 { 200_000 } else { 20_000 });
    });
}

#[test]
fn calls_between_shards_that_always_park_never_stall() {
    within_reason(|| {
        let runtime = shards_with(2, limits(|limits| limits.busy_poll = Duration::ZERO));
        ping_pong_by_calls(&runtime, 20_000);
        // Every message found its receiver asleep or on the way there, and woke it with one system call at most.
        let stats = stats_at_rest(runtime.handle(), SECOND);
        assert!(stats.parks > 1_000, "{stats:#?}");
    });
}

#[test]
fn wakes_between_shards_with_random_delays_never_stall() {
    const ROUNDS: u64 = 50_000;
    within_reason(|| {
        for busy_poll in [Duration::from_micros(50), Duration::from_micros(5)] {
            let runtime = shards_with(2, limits(|limits| limits.busy_poll = busy_poll));
            let progress = Arc::new(AtomicU64::new(0));
            let (ping, mut pings) = channel::unbounded::<u64>();
            let (pong, mut pongs) = channel::unbounded::<u64>();
            let mut random = Random::new();
            let echo = runtime.handle().spawn_on(SECOND, move || async move {
                while let Some(number) = pings.next().await {
                    spin(some_delay(&mut random));
                    let _ = pong.unbounded_send(number);
                }
            });
            let counted = progress.clone();
            let mut random = Random::new();
            let task = runtime.handle().spawn_on(FIRST, move || async move {
                for round in 0..ROUNDS {
                    ping.unbounded_send(round).expect("the echo listens");
                    spin(some_delay(&mut random));
                    assert_eq!(pongs.next().await, Some(round));
                    counted.store(round + 1, Ordering::Relaxed);
                }
            });
            watch(&progress, ROUNDS, &runtime);
            wait(task.expect("a shard with room")).expect("no panic");
            wait(echo.expect("a shard with room")).expect("no panic");
        }
    });
}

#[test]
fn a_plain_thread_and_a_shard_wake_each_other_and_never_stall() {
    const ROUNDS: u64 = 20_000;
    within_reason(|| {
        let runtime = shards(1);
        let progress = Arc::new(AtomicU64::new(0));
        let (ping, mut pings) = channel::unbounded::<u64>();
        let (pong, pongs) = mpsc::channel();
        let echo = runtime.handle().spawn_on(FIRST, move || async move {
            while let Some(number) = pings.next().await {
                let _ = pong.send(number);
            }
        });
        let counted = progress.clone();
        let mut random = Random::new();
        let plain = thread::spawn(move || {
            for round in 0..ROUNDS {
                ping.unbounded_send(round).expect("the echo listens");
                assert_eq!(pongs.recv(), Ok(round));
                counted.store(round + 1, Ordering::Relaxed);
                spin(some_delay(&mut random));
            }
        });
        watch(&progress, ROUNDS, &runtime);
        plain.join().expect("no panic");
        wait(echo.expect("a shard with room")).expect("no panic");
    });
}

#[test]
fn wakers_from_several_threads_at_once_lose_no_wake() {
    // Each thread sets its own flag and wakes; the task must see every flag, though it re-parks in between.
    const ROUNDS: usize = 20_000;
    within_reason(|| {
        let runtime = shards_with(1, limits(|limits| limits.busy_poll = Duration::from_micros(2)));
        let flags: Arc<[AtomicBool; 2]> = Arc::default();
        let seen: Arc<[AtomicUsize; 2]> = Arc::default();
        let (tell, wakers) = mpsc::channel();
        let (flags_there, seen_there) = (flags.clone(), seen.clone());
        let task = runtime.handle().spawn_on(FIRST, move || {
            std::future::poll_fn(move |context| {
                let _ = tell.send(context.waker().clone());
                for (flag, seen) in flags_there.iter().zip(seen_there.iter()) {
                    if flag.swap(false, Ordering::Relaxed) {
                        seen.fetch_add(1, Ordering::SeqCst);
                    }
                }
                std::task::Poll::<()>::Pending
            })
        });
        let waker = wakers.recv().expect("polled");
        let threads: Vec<_> = (0..2)
            .map(|which| {
                let (flags, seen, waker) = (flags.clone(), seen.clone(), waker.clone());
                thread::spawn(move || {
                    for round in 0..ROUNDS {
                        flags[which].store(true, Ordering::Relaxed);
                        waker.wake_by_ref();
                        let began = Instant::now();
                        while seen[which].load(Ordering::SeqCst) == round {
                            assert!(began.elapsed() < HANGS_AFTER / 2, "wake {round} was lost");
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no wake is lost"));
        task.expect("a shard with room").abort();
    });
}

#[test]
fn a_flood_from_another_core_leaves_the_shard_its_own_work() {
    const MESSAGES: u64 = 300_000;
    const PER_TURN: usize = 64;
    within_reason(|| {
        let runtime = shards_with(2, limits(|limits| limits.messages_per_turn = PER_TURN));
        let handle = runtime.handle();
        // A task of the flooded shard that is always ready looks how many messages came in since its last poll.
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let local = handle.spawn_on(SECOND, move || async move {
            let (mut most, mut polls, mut timers) = (0, 0u64, 0u64);
            let mut last = local_count();
            let mut timer = Box::pin(corelane::time::sleep(Duration::from_millis(1)));
            while !stop.load(Ordering::Relaxed) {
                corelane::yield_now().await;
                let now = local_count();
                most = most.max(now - last);
                last = now;
                polls += 1;
                if poll_once(&mut timer).is_ready() {
                    timers += 1;
                    timer.set(corelane::time::sleep(Duration::from_millis(1)));
                }
            }
            (most, polls, timers)
        });
        let flooding = handle.clone();
        let flood = handle.spawn_on(FIRST, move || async move {
            let mut full = 0u64;
            for _ in 0..MESSAGES {
                let mut message = (|| add_local_count(1)) as fn();
                while let Err(refused) = flooding.post(SECOND, message) {
                    assert_eq!(refused.kind(), SubmitErrorKind::Full);
                    full += 1;
                    message = refused.into_inner();
                    flooding.room(SECOND).await;
                }
            }
            full
        });
        let full = wait(flood.expect("a shard with room")).expect("no panic");
        eventually("every message has arrived", || on(handle, SECOND, local_count) == MESSAGES);
        over.store(true, Ordering::Relaxed);
        let (most, polls, timers) = wait(local.expect("a shard with room")).expect("no panic");
        println!(
            "{most} messages between two polls at most, {polls} polls, {timers} timers, {full} times full"
        );
        assert!(most <= PER_TURN as u64, "{most} messages between two polls");
        assert!(polls >= MESSAGES / PER_TURN as u64);
        assert!(timers > 0);
    });
}

/// Room for eight, and nobody reads them.
fn fill(handle: &Handle, shard: ShardId) -> usize {
    let mut taken = 0;
    loop {
        match handle.post(shard, || add_local_count(1)) {
            Ok(()) => taken += 1,
            Err(refused) => {
                assert_eq!(refused.kind(), SubmitErrorKind::Full);
                assert_eq!(refused.to_string(), format!("the inbox of {shard} is full"));
                return taken;
            }
        }
    }
}

#[test]
fn a_full_inbox_says_so_and_loses_nothing() {
    within_reason(|| {
        let runtime = shards_with(2, limits(|limits| limits.inbox_capacity = 8));
        let handle = runtime.handle();
        let gate = Gate::close(handle, SECOND);
        assert_eq!(fill(handle, SECOND), 8);
        // Every way in says so, and gives the closure back.
        let (spy, dropped) = DropSpy::new();
        let refused = handle.spawn_on(SECOND, move || async { drop(spy) }).expect_err("full");
        assert_eq!(refused.kind(), SubmitErrorKind::Full);
        let Err(refused) = handle.try_submit_to(SECOND, refused.into_inner()) else {
            panic!("full")
        };
        assert_eq!(refused.kind(), SubmitErrorKind::Full);
        assert!(dropped.not_yet());
        drop(refused.into_inner());
        assert!(dropped.is_dropped());
        // Who waits for room is served, in whatever number.
        let waiting: Vec<_> = (0..50)
            .map(|number| {
                let mut call = handle.submit_to(SECOND, move || async move { number });
                assert!(poll_once(&mut call).is_pending());
                call
            })
            .collect();
        gate.open();
        assert_eq!(
            wait(join_all(waiting))
                .into_iter()
                .map(|answer| answer.expect("answered"))
                .collect::<Vec<_>>(),
            (0..50).collect::<Vec<_>>()
        );
        assert_eq!(on(handle, SECOND, local_count), 8);
    });
}

#[test]
fn waiting_for_room_is_not_busy_waiting() {
    within_reason(|| {
        let runtime = shards_with(2, limits(|limits| limits.inbox_capacity = 8));
        let handle = runtime.handle();
        let gate = Gate::close(handle, SECOND);
        assert_eq!(fill(handle, SECOND), 8);
        let calling = handle.clone();
        let calls = handle.spawn_on(FIRST, move || async move {
            join_all((0..20).map(|number| calling.submit_to(SECOND, move || async move { number })))
                .await
        });
        let calls = calls.expect("a shard with room");
        // The calling shard does nothing while nothing happens: what is counted stays as it is for a while.
        let before = stats_at_rest(handle, FIRST);
        thread::sleep(Duration::from_millis(100));
        let after = stats(handle, FIRST);
        assert!(
            after.polls <= before.polls + 2 && after.turns <= before.turns + 10,
            "{before:#?} {after:#?}"
        );
        gate.open();
        let answers = wait(calls).expect("no panic");
        assert!(answers.into_iter().map(|answer| answer.expect("answered")).eq(0..20));
    });
}

#[test]
fn a_slow_consumer_gets_every_message_once_and_in_order() {
    const COUNT: u64 = 3_000;
    within_reason(|| {
        let runtime = shards_with(2, limits(|limits| limits.inbox_capacity = 8));
        let handle = runtime.handle().clone();
        let (tell, told) = mpsc::channel();
        let calls = runtime.handle().submit_to(FIRST, move || async move {
            for number in 0..COUNT {
                let tell = tell.clone();
                let consume = move || async move {
                    if number.is_multiple_of(10) {
                        spin(Duration::from_micros(100));
                    }
                    tell.send(number).expect("somebody listens");
                };
                // Alternately waits for the answer and does not.
                if number % 3 == 0 {
                    handle.submit_to(SECOND, consume).await.expect("answered");
                } else {
                    let mut consume = consume;
                    while let Err(refused) = handle.spawn_on(SECOND, consume) {
                        consume = refused.into_inner();
                        handle.room(SECOND).await;
                    }
                }
            }
        });
        wait(calls).expect("no panic");
        assert!((0..COUNT).eq((0..COUNT).map(|_| told.recv().expect("nothing is lost"))));
    });
}

/// Calls `path`'s first shard, which calls the next, and so on, each from within the reply to the one before.
fn nested(handle: Handle, path: Vec<ShardId>) -> Pin<Box<dyn Future<Output = u64>>> {
    Box::pin(async move {
        let Some((&next, rest)) = path.split_first() else { return 0 };
        let rest = rest.to_vec();
        let there = handle.clone();
        let inner = handle.submit_to(next, move || nested(there, rest)).await.expect("answered");
        // And once more from the reply.
        let after = handle.submit_to(next, || async { 1 }).await.expect("answered");
        inner + after
    })
}

/// From every shard, many tasks at once send nested calls round in circles.
fn circle(shard_count: usize, capacity: usize, tasks: usize, depth: usize) {
    within_reason(move || {
        let runtime = shards_with(shard_count, limits(|limits| limits.inbox_capacity = capacity));
        let handle = runtime.handle().clone();
        let from = handle.clone();
        let all = handle.broadcast(move |own| async move {
            let tasks: Vec<_> = (0..tasks)
                .map(|task| {
                    let path = (1..=depth)
                        .map(|step| {
                            ShardId::new(
                                ((own.index() + step * (1 + task % 2)) % shard_count) as u16,
                            )
                        })
                        .collect();
                    corelane::spawn_local(nested(from.clone(), path))
                })
                .collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.expect("no panic");
            }
            sum
        });
        // A deadlock would be seen by `within_reason`.
        for sum in wait(all) {
            assert_eq!(sum.expect("no panic"), (tasks * depth) as u64);
        }
    });
}

#[test]
fn two_shards_with_tiny_inboxes_call_each_other() {
    for capacity in 1..=4 {
        circle(2, capacity, 60, 4);
    }
}

#[test]
fn three_shards_with_tiny_inboxes_call_each_other_in_a_circle() {
    for capacity in 1..=4 {
        circle(3, capacity, 40, 7);
    }
}

#[test]
fn two_shards_with_full_inboxes_wait_for_room_in_each_other_and_go_on() {
    within_reason(|| {
        let runtime = shards_with(2, limits(|limits| limits.inbox_capacity = 1));
        let handle = runtime.handle();
        let gates = [FIRST, SECOND].map(|shard| Gate::close(handle, shard));
        // Behind the closed gates each inbox gets a task that wants to call the other shard a hundred times.
        let tasks = [(FIRST, SECOND), (SECOND, FIRST)].map(|(own, other)| {
            let calling = handle.clone();
            let task = handle.spawn_on(own, move || async move {
                join_all(
                    (0..100).map(|number| calling.submit_to(other, move || async move { number })),
                )
                .await
            });
            task.expect("room for one")
        });
        gates.into_iter().for_each(Gate::open);
        for task in tasks {
            let answers = wait(task).expect("no panic");
            assert!(answers.into_iter().map(|answer| answer.expect("answered")).eq(0..100));
        }
    });
}

#[test]
fn a_wait_for_room_that_is_given_up_leaves_nothing() {
    within_reason(|| {
        let runtime = shards_with(1, limits(|limits| limits.inbox_capacity = 2));
        let handle = runtime.handle();
        let gate = Gate::close(handle, FIRST);
        fill(handle, FIRST);
        // Each has a waker of its own, as tasks of other executors do.
        let counts: Vec<_> = (0..1_000)
            .map(|number| {
                let (count, waker) = WakeCount::new();
                let mut context = Context::from_waker(&waker);
                if number % 2 == 0 {
                    let mut call = handle.submit_to(FIRST, || async {});
                    assert!(Pin::new(&mut call).poll(&mut context).is_pending());
                    assert!(Pin::new(&mut call).poll(&mut context).is_pending());
                } else {
                    let mut room = pin!(handle.room(FIRST));
                    assert!(room.as_mut().poll(&mut context).is_pending());
                    assert!(room.as_mut().poll(&mut context).is_pending(), "there is still none");
                }
                count
            })
            .collect();
        assert!(counts.iter().all(|count| Arc::strong_count(count) == 1), "a waker is kept");
        let waiting = handle.submit_to(FIRST, || async { 5 });
        gate.open();
        assert_eq!(wait(waiting).expect("no panic"), 5);
        assert!(counts.iter().all(|count| count.get() == 0), "woken in vain");
    });
}

#[test]
fn a_shard_calls_itself_through_a_tiny_inbox() {
    within_reason(|| {
        let runtime = shards_with(1, limits(|limits| limits.inbox_capacity = 1));
        let handle = runtime.handle().clone();
        let sum = runtime.handle().submit_to(FIRST, move || async move {
            let calls = (0..50).map(|_| nested(handle.clone(), vec![FIRST; 5]));
            join_all(calls).await.into_iter().sum::<u64>()
        });
        assert_eq!(wait(sum).expect("no panic"), 250);
    });
}

#[test]
fn a_call_dropped_before_it_was_sent_never_runs_and_one_dropped_later_runs_to_its_end() {
    within_reason(|| {
        let runtime = shards_with(1, limits(|limits| limits.inbox_capacity = 2));
        let handle = runtime.handle();
        let (spy, dropped) = DropSpy::new();
        drop(handle.submit_to(FIRST, move || async { drop(spy) }));
        assert!(dropped.is_dropped());

        let gate = Gate::close(handle, FIRST);
        let taken = fill(handle, FIRST);
        let (spy, dropped) = DropSpy::new();
        let mut call = handle.submit_to(FIRST, move || async move {
            add_local_count(1000);
            drop(spy);
        });
        assert!(poll_once(&mut call).is_pending());
        drop(call);
        assert_eq!(dropped.on(), thread::current().id());
        gate.open();
        assert_eq!(on(handle, FIRST, local_count), taken as u64);

        let home = thread_of(handle, FIRST);
        let (spy, dropped) = DropSpy::new();
        let gate = Gate::close(handle, FIRST);
        let mut call = handle.submit_to(FIRST, move || async move {
            corelane::yield_now().await;
            add_local_count(1);
            spy
        });
        assert!(poll_once(&mut call).is_pending());
        drop(call);
        gate.open();
        assert_eq!(dropped.on(), home, "its output is dropped where it was made");
        assert_eq!(on(handle, FIRST, local_count), taken as u64 + 1);
    });
}

#[test]
fn who_waits_for_room_or_an_answer_hears_that_the_shard_has_shut_down() {
    within_reason(|| {
        let runtime = shards_with(2, limits(|limits| limits.inbox_capacity = 4));
        let handle = runtime.handle().clone();
        let gate = Gate::close(&handle, SECOND);
        let sent = handle.try_submit_to(SECOND, || async { 1 });
        let sent = sent.unwrap_or_else(|_| panic!("there is room"));
        fill(&handle, SECOND);
        // On a thread, on another shard, under Tokio: all wait.
        let waiting = handle.clone();
        let plain = thread::spawn(move || wait(waiting.submit_to(SECOND, || async { 2 })));
        let room = handle.clone();
        let room = thread::spawn(move || wait(room.room(SECOND)));
        let calling = handle.clone();
        let shard = handle.spawn_on(FIRST, move || async move {
            calling.submit_to(SECOND, || async { 3 }).await.map_err(|error| error.is_closed())
        });
        let stop = thread::spawn(move || runtime.shutdown(Duration::from_millis(20)));
        // The first shard stops at the deadline, with the task or after it.
        let _ = wait(shard.expect("a shard with room"));
        gate.open();
        let _ = plain.join().expect("no hang");
        room.join().expect("no hang");
        let _ = wait(sent);
        stop.join().expect("no hang");
        assert!(wait(handle.submit_to(SECOND, || async { 2 })).expect_err("shut down").is_closed());
    });
}

#[test]
fn any_executor_can_wait_for_a_call() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle().clone();
        let answer = |number: u64| {
            move || async move {
                corelane::time::sleep(Duration::from_millis(number % 3)).await;
                number
            }
        };
        // futures::executor
        assert_eq!(wait(handle.submit_to(SECOND, answer(1))).expect("answered"), 1);
        let task =
            handle.try_submit_to(SECOND, answer(2)).unwrap_or_else(|_| panic!("there is room"));
        assert_eq!(wait(task).expect("answered"), 2);
        assert_eq!(wait(handle.spawn_on(SECOND, answer(3)).expect("room")).expect("no panic"), 3);
        // A shard of another runtime, and a free-standing one.
        let other = shards(1);
        let calling = handle.clone();
        let there = other.handle().submit_to(FIRST, move || async move {
            calling.submit_to(SECOND, answer(4)).await.expect("answered")
        });
        assert_eq!(wait(there).expect("answered"), 4);
        assert_eq!(corelane::block_on(handle.submit_to(FIRST, answer(5))).expect("answered"), 5);
        assert_eq!(runtime.block_on(handle.submit_to(FIRST, answer(6))).expect("answered"), 6);
        // Tokio, with one thread and with several; calls move between its threads.
        let builders = [tokio::runtime::Builder::new_current_thread(), {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2);
            builder
        }];
        for mut builder in builders {
            let tokio = builder.enable_all().build().expect("Tokio");
            let tasks: Vec<_> = (0..200)
                .map(|number| {
                    let handle = handle.clone();
                    let shard = if number % 2 == 0 { FIRST } else { SECOND };
                    tokio.spawn(async move {
                        let call = handle.submit_to(shard, answer(number)).await.expect("answered");
                        let mut task = handle.spawn_on(shard, answer(number));
                        while let Err(refused) = task {
                            handle.room(shard).await;
                            task = handle.spawn_on(shard, refused.into_inner());
                        }
                        tokio::task::yield_now().await;
                        call + task.expect("just made").await.expect("no panic")
                    })
                })
                .collect();
            for (task, number) in tasks.into_iter().zip(0..) {
                assert_eq!(tokio.block_on(task).expect("no panic"), 2 * number);
            }
        }
    });
}

#[test]
fn a_broadcast_answers_in_the_shards_order_and_a_reduction_folds_in_it() {
    within_reason(|| {
        let runtime = shards(3);
        let handle = runtime.handle();
        let answers = wait(handle.broadcast(|shard| async move {
            // The first answers last.
            corelane::time::sleep(Duration::from_millis(10 - 4 * shard.index() as u64)).await;
            assert_eq!(ShardId::current(), Some(shard));
            shard
        }));
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("answered")).collect();
        assert_eq!(answers, [FIRST, SECOND, THIRD]);
        let text = wait(handle.map_reduce(
            |shard| async move { shard.index().to_string() },
            String::new(),
            |text, next| text + &next,
        ));
        assert_eq!(text.expect("answered"), "012");
        let error = handle.map_reduce(
            |shard| async move {
                if shard == SECOND {
                    deliberate()
                }
            },
            0,
            |sum, ()| sum + 1,
        );
        assert!(wait(error).expect_err("one panicked").is_panic());
        let one_panicked = wait(handle.broadcast(|shard| async move {
            if shard == SECOND {
                deliberate();
            }
        }));
        let ok: Vec<bool> = one_panicked.iter().map(Result::is_ok).collect();
        assert_eq!(ok, [true, false, true], "the others have run all the same");
    });
}

#[test]
fn a_shard_that_does_not_exist_is_an_error() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let none = ShardId::new(2);
        let refused = handle.post(none, || ()).expect_err("there are two");
        assert_eq!(refused.kind(), SubmitErrorKind::NoSuchShard);
        assert_eq!(refused.to_string(), "there is no shard 2 in this runtime");
        let error = wait(handle.submit_to(none, || async {})).expect_err("there are two");
        assert!(error.is_no_such_shard() && !error.is_closed() && !error.is_panic());
        assert_eq!(error.to_string(), "there is no shard 2 in this runtime");
        wait(handle.room(none));
    });
}

#[test]
fn posts_of_one_sender_arrive_in_their_order() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let (tell, told) = mpsc::channel();
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let (handle, tell) = (handle.clone(), tell.clone());
                thread::spawn(move || {
                    for number in 0..5_000 {
                        let tell = tell.clone();
                        let mut message =
                            move || tell.send((sender, number)).expect("somebody listens");
                        while let Err(refused) = handle.post(SECOND, message) {
                            message = refused.into_inner();
                            wait(handle.room(SECOND));
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; 2];
        for _ in 0..10_000 {
            let (sender, number) = told.recv_timeout(HANGS_AFTER / 2).expect("nothing is lost");
            assert_eq!(number, next[sender]);
            next[sender] += 1;
        }
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
    });
}

#[test]
fn many_more_calls_than_there_is_room_for_are_all_answered() {
    within_reason(|| {
        let runtime = shards_with(2, limits(|limits| limits.inbox_capacity = 2));
        let handle = runtime.handle().clone();
        let sum = runtime.handle().submit_to(FIRST, move || async move {
            let mut calls: FuturesUnordered<_> = (0..1_000u64)
                .map(|number| handle.submit_to(SECOND, move || async move { number }))
                .collect();
            let mut sum = 0;
            while let Some(answer) = calls.next().await {
                sum += answer.expect("answered");
            }
            sum
        });
        assert_eq!(wait(sum).expect("no panic"), 499_500);
    });
}

#[test]
fn sharded_values_are_made_used_and_dropped_on_their_shards() {
    within_reason(|| {
        let runtime = shards(3);
        let handle = runtime.handle();
        let homes: Vec<_> = handle.shards().map(|shard| thread_of(handle, shard)).collect();
        let (tell, drops) = mpsc::channel();
        struct Value {
            hits: Cell<u32>,
            log: Rc<RefCell<Vec<u32>>>,
            made_on: thread::ThreadId,
            tell: mpsc::Sender<(ShardId, thread::ThreadId)>,
            shard: ShardId,
        }
        impl Drop for Value {
            fn drop(&mut self) {
                let _ = self.tell.send((self.shard, thread::current().id()));
            }
        }
        let values = Sharded::new(handle, move |shard| Value {
            hits: Cell::new(0),
            log: Rc::default(),
            made_on: thread::current().id(),
            tell: tell.clone(),
            shard,
        });
        let values = wait(values).expect("made");
        for shard in handle.shards() {
            let home = homes[shard.index()];
            for hit in 1..=3 {
                let hits = values.on(shard, move |value| {
                    assert_eq!((value.made_on, thread::current().id()), (home, home));
                    value.hits.set(value.hits.get() + 1);
                    value.log.borrow_mut().push(value.hits.get());
                    value.hits.get()
                });
                assert_eq!(wait(hits).expect("answered"), hit);
            }
            let log = values.on_async(shard, |value| async move {
                corelane::yield_now().await;
                value.log.borrow().clone()
            });
            assert_eq!(wait(log).expect("answered"), [1, 2, 3]);
        }
        let local = values.clone();
        assert_eq!(on(handle, SECOND, move || local.local().hits.get()), 3);
        let sum = values.map_reduce(|value| value.hits.get(), 0, |sum, hits| sum + hits);
        assert_eq!(wait(sum).expect("answered"), 9);
        let other = values.clone();
        drop(values);
        handle.shards().for_each(|shard| on(handle, shard, || ()));
        assert!(drops.try_recv().is_err(), "a clone is left");
        drop(other);
        let mut dropped: Vec<_> = (0..3).map(|_| drops.recv().expect("dropped")).collect();
        dropped.sort_by_key(|(shard, _)| *shard);
        assert!(dropped.into_iter().map(|(_, thread)| thread).eq(homes));
    });
}

#[test]
fn sharded_values_die_with_their_runtime_and_on_their_shards() {
    within_reason(|| {
        let runtime = shards(2);
        let homes: Vec<_> =
            runtime.handle().shards().map(|shard| thread_of(runtime.handle(), shard)).collect();
        let (tell, drops) = mpsc::channel();
        struct Tells(mpsc::Sender<thread::ThreadId>);
        impl Drop for Tells {
            fn drop(&mut self) {
                let _ = self.0.send(thread::current().id());
            }
        }
        let values =
            wait(Sharded::new(runtime.handle(), move |_| Tells(tell.clone()))).expect("made");
        let handle = runtime.handle().clone();
        drop(runtime);
        let mut dropped: Vec<_> = drops.iter().take(2).collect();
        dropped.sort_by_key(|thread| homes.iter().position(|home| home == thread));
        assert_eq!(dropped, homes);
        assert!(wait(values.on(FIRST, |_| ())).expect_err("shut down").is_closed());
        drop(values);
        assert!(wait(Sharded::new(&handle, |_| 1)).expect_err("shut down").is_closed());
    });
}

#[test]
fn sharded_values_that_nobody_waits_for_are_dropped() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let live = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let count = live.clone();
            let mut making = Box::pin(Sharded::new(handle, move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                Counted(count)
            }));
            // The shard finds the call and the word that nobody wants it at once.
            let gate = Gate::close(handle, FIRST);
            assert!(poll_once(&mut making).is_pending());
            drop(making);
            gate.open();
        }
        eventually("none is left", || {
            handle.shards().for_each(|shard| on(handle, shard, || ()));
            live.load(Ordering::SeqCst) == 0
        });
    });
}

#[test]
fn a_sharded_value_is_not_to_be_had_outside_its_runtime() {
    let runtime = shards(1);
    let values = wait(Sharded::new(runtime.handle(), |_| 5)).expect("made");
    let outside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| values.local()));
    assert!(outside.is_err(), "this thread is no shard");
    let other = shards(1);
    // A value of that runtime's own, made first there as this one was here.
    let own = wait(Sharded::new(other.handle(), |_| 6)).expect("made");
    let theirs = values.clone();
    let call = other.handle().submit_to(FIRST, move || async move { *theirs.local() });
    assert!(wait(call).expect_err("another runtime").is_panic());
    assert_eq!(wait(own.on(FIRST, |value| *value)).expect("its own"), 6);
}

#[test]
fn counts_of_system_calls_never_exceed_those_of_sleeps() {
    within_reason(|| {
        let runtime = shards_with(1, limits(|limits| limits.busy_poll = Duration::ZERO));
        let handle = runtime.handle();
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (handle, stop) = (handle.clone(), stop.clone());
                let mut random = Random::new();
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let _ = handle.post(FIRST, || ());
                        spin(some_delay(&mut random));
                    }
                })
            })
            .collect();
        let mut parks = 0;
        eventually("it has slept often", || {
            for _ in 0..1_000 {
                let stats = stats(handle, FIRST);
                assert!(stats.eventfd_writes <= stats.parks, "{stats:#?}");
                parks = stats.parks;
            }
            parks > 20_000
        });
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        let stats = stats_at_rest(handle, FIRST);
        assert!(stats.eventfd_writes <= stats.parks, "{stats:#?}");
    });
}
