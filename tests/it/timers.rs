//! Time: never early, never lost, and no deadline too large.

use super::harness::*;
use super::process;
use corelane::time::{
    Duration, Instant, MissedTickBehavior, Sleep, interval, interval_at, sleep, sleep_until,
    timeout, timeout_at,
};
use corelane::{HostedShard, Limits};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use proptest::prelude::*;
use std::cell::Cell;
use std::future::{Future, pending, ready};
use std::io::{BufRead, BufReader};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;

/// Durations that are too long for something: for an `Instant`, for milliseconds in 64 bits, for `epoll_wait`.
fn long_times() -> Vec<Duration> {
    vec![
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(u64::MAX / 10),
        Duration::from_millis(u64::MAX),
        Duration::from_millis(1 << 36),
        Duration::from_millis(1 << 36 | 1),
        Duration::from_secs(i64::MAX as u64),
        Duration::from_millis(i32::MAX as u64 + 1),
        Duration::from_secs(86_400 * 365 * 200),
    ]
}

#[test]
fn deadlines_beyond_all_measure_never_come_and_do_no_harm() {
    within_reason(|| {
        corelane::block_on(async {
            let mut timers: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
            for long in long_times() {
                timers.push(Box::pin(sleep(long)));
                timers.push(Box::pin(async move {
                    let _ = timeout(long, pending::<()>()).await;
                }));
                timers.push(Box::pin(async move {
                    let mut interval = interval(long);
                    interval.tick().await;
                    interval.tick().await;
                }));
                timers.push(Box::pin(async move {
                    let mut timer = sleep(Duration::from_secs(100));
                    if let Some(far) = Instant::now().checked_add(long) {
                        Pin::new(&mut timer).reset(far);
                    }
                    timer.await;
                }));
                assert_eq!(timeout(long, ready(3)).await, Ok(3));
            }
            for timer in &mut timers {
                assert!(poll_now(timer).await.is_pending());
            }
            // A shard that waits for these wakes for what is nearer.
            for _ in 0..3 {
                sleep(Duration::from_millis(2)).await;
            }
            for timer in &mut timers {
                assert!(poll_now(timer).await.is_pending());
            }
            drop(timers);
            sleep(Duration::from_millis(1)).await;
        });
    });
}

#[test]
fn a_shard_that_waits_for_a_deadline_beyond_all_measure_alone_can_be_woken() {
    within_reason(|| {
        for long in long_times() {
            let runtime = shards(1);
            let mut task = runtime.handle().spawn_on(FIRST, move || sleep(long)).expect("room");
            for _ in 0..3 {
                on(runtime.handle(), FIRST, || ());
            }
            assert!(poll_once(&mut task).is_pending());
            drop(runtime);
            assert!(wait(task).expect_err("it never comes").is_cancelled());
        }
    });
}

#[test]
fn timers_are_never_early_down_to_a_microsecond() {
    within_reason(|| {
        corelane::block_on(async {
            for micros in (0..1_000).step_by(9).chain([1, 999, 1_000, 1_001, 1_999, 2_000, 3_141]) {
                let duration = Duration::from_micros(micros);
                let began = Instant::now();
                sleep(duration).await;
                let took = began.elapsed();
                assert!(took >= duration, "{took:?} for {duration:?}");
                let deadline = Instant::now() + duration;
                sleep_until(deadline).await;
                assert!(Instant::now() >= deadline);
            }
        });
    });
}

#[test]
fn deadlines_that_have_passed_are_over_at_the_first_poll() {
    corelane::block_on(async {
        let now = Instant::now();
        assert!(poll_now(sleep(Duration::ZERO)).await.is_ready());
        assert!(poll_now(sleep_until(now)).await.is_ready());
        if let Some(past) = now.checked_sub(Duration::from_secs(5)) {
            assert!(poll_now(sleep_until(past)).await.is_ready());
            assert!(timeout_at(past, pending::<()>()).await.is_err());
        }
        let mut timer = sleep(Duration::ZERO);
        assert!(!timer.is_elapsed());
        (&mut timer).await;
        assert!(timer.is_elapsed());
        (&mut timer).await;
    });
}

#[test]
fn a_timer_added_while_the_shard_sleeps_on_a_longer_one_fires() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        drop(handle.spawn_on(FIRST, || sleep(Duration::from_secs(3600))));
        for _ in 0..20 {
            // The shard has gone to sleep: it has nothing else to do.
            stats_at_rest(handle, FIRST);
            // From a plain thread, from another shard, and from the plain thread's own executor.
            let began = Instant::now();
            let short = Duration::from_millis(3);
            wait(handle.submit_to(FIRST, move || sleep(short))).expect("no panic");
            assert!(began.elapsed() >= short);
            let began = Instant::now();
            let calling = handle.clone();
            let there = handle.submit_to(SECOND, move || async move {
                calling.submit_to(FIRST, move || sleep(short)).await.expect("no panic");
            });
            wait(there).expect("no panic");
            assert!(began.elapsed() >= short);
            let made_there = on(handle, FIRST, move || sleep(short));
            let began = made_there.deadline() - short;
            wait(made_there);
            assert!(began.elapsed() >= short);
        }
    });
}

#[test]
fn a_shorter_timer_added_by_a_host_moves_its_next_deadline() {
    let shard = HostedShard::new(Limits::default()).expect("a shard");
    assert_eq!(shard.next_deadline(), None);
    let long = shard.enter(|| corelane::spawn_local(sleep(Duration::from_secs(3600))));
    shard.turn(Duration::ZERO);
    let first = shard.next_deadline().expect("a timer is armed");
    let short = shard.enter(|| corelane::spawn_local(sleep(Duration::from_millis(300))));
    shard.turn(Duration::ZERO);
    let second = shard.next_deadline().expect("a timer is armed");
    assert!(second < first && second <= Instant::now() + Duration::from_millis(302));
    eventually("it fires", || {
        shard.turn(Duration::from_millis(1));
        short.is_finished()
    });
    assert!(!long.is_finished());
}

#[test]
fn a_timer_follows_whoever_polls_it() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let short = Duration::from_millis(30);
        for _ in 0..5 {
            // Armed on one shard, awaited on another, with a look from a plain thread in between.
            let mut timer = on(handle, FIRST, move || {
                let mut timer = sleep(short);
                assert!(poll_once(&mut timer).is_pending());
                timer
            });
            let deadline = timer.deadline();
            assert!(poll_once(&mut timer).is_pending() || Instant::now() >= deadline);
            let after = wait(handle.submit_to(SECOND, move || async move {
                timer.await;
                Instant::now()
            }));
            assert!(after.expect("no panic") >= deadline);
            // And one that was armed on a shard and is awaited on a thread, then on a shard that came after it.
            let timer = on(handle, FIRST, move || {
                let mut timer = sleep(short);
                assert!(poll_once(&mut timer).is_pending());
                timer
            });
            let deadline = timer.deadline();
            wait(timer);
            assert!(Instant::now() >= deadline);
        }
        let mut timer = on(handle, FIRST, || {
            let mut timer = sleep(Duration::from_millis(100));
            assert!(poll_once(&mut timer).is_pending());
            timer
        });
        let deadline = timer.deadline();
        assert!(poll_once(&mut timer).is_pending() || Instant::now() >= deadline);
        drop(runtime);
        corelane::block_on(&mut timer);
        assert!(Instant::now() >= deadline, "its shard is gone, but not the timer");
    });
}

#[test]
fn a_timer_under_tokio_rings_through_the_shard_it_was_made_on() {
    within_reason(|| {
        let runtime = shards(1);
        let tokio =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("Tokio");
        let timers: Vec<Sleep> = on(runtime.handle(), FIRST, || {
            (0..50).map(|n| sleep(Duration::from_millis(n))).collect()
        });
        tokio.block_on(async {
            let mut all: FuturesUnordered<_> = timers
                .into_iter()
                .map(|timer| async move {
                    let deadline = timer.deadline();
                    timer.await;
                    assert!(Instant::now() >= deadline);
                })
                .collect();
            while let Some(()) = all.next().await {}
        });
    });
}

#[test]
fn a_timer_polled_where_no_shard_watches_says_so() {
    let outside = std::panic::catch_unwind(|| wait(sleep(Duration::from_secs(100))));
    let payload = outside.expect_err("this thread is no shard");
    let text = payload.downcast_ref::<String>().expect("a text");
    assert!(text.starts_with("a timer was called outside a Corelane shard"), "{text}");
    within_reason(|| {
        let runtime = shards(1);
        let timer = on(runtime.handle(), FIRST, || sleep(Duration::from_secs(100)));
        drop(runtime);
        let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait(timer)));
        assert!(gone.is_err(), "the shard that would ring is gone");
    });
}

#[test]
fn a_thread_that_waits_for_a_timer_hears_of_the_shards_end() {
    within_reason(|| {
        let runtime = shards(1);
        let mut timer = on(runtime.handle(), FIRST, || sleep(Duration::from_secs(1000)));
        let (woken, waker) = WakeCount::new();
        assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(runtime);
        assert!(woken.get() > 0, "it must not wait for ever");
    });
}

#[test]
fn a_timer_whose_time_has_come_is_over_also_after_its_shards_end() {
    within_reason(|| {
        let runtime = shards(1);
        let (mut polled, fresh) = on(runtime.handle(), FIRST, || {
            let deadline = Instant::now() + Duration::from_millis(100);
            (sleep_until(deadline), sleep_until(deadline))
        });
        // If the machine is slow it is over already, which is no matter.
        let _ = poll_once(&mut polled);
        drop(runtime);
        eventually("their time comes", || Instant::now() >= fresh.deadline());
        wait(polled);
        wait(fresh);
    });
}

#[test]
fn a_timer_dropped_elsewhere_does_not_fire() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle();
        let before = stats_at_rest(handle, FIRST).timers_fired;
        let (counts, timers): (Vec<_>, Vec<_>) = on(handle, FIRST, || {
            (0..100)
                .map(|_| {
                    let (count, waker) = WakeCount::new();
                    let mut timer = sleep(Duration::from_millis(150));
                    assert!(
                        Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending()
                    );
                    (count, timer)
                })
                .unzip()
        });
        let last = timers.last().expect("a hundred").deadline();
        drop(timers);
        on(handle, FIRST, || ());
        if Instant::now() < last - Duration::from_millis(100) {
            wait(handle.submit_to(FIRST, || sleep(Duration::from_millis(200)))).expect("no panic");
            assert_eq!(counts.iter().map(|count| count.get()).sum::<usize>(), 0);
            assert_eq!(stats_at_rest(handle, FIRST).timers_fired - before, 1);
        } else {
            process::skipped("the machine was too busy to drop a timer in time");
        }
    });
}

#[test]
fn a_timer_can_be_set_anew_in_both_directions() {
    within_reason(|| {
        corelane::block_on(async {
            let mut timer = sleep(Duration::from_secs(3600));
            assert!(poll_now(&mut timer).await.is_pending());
            let soon = Instant::now() + Duration::from_millis(5);
            Pin::new(&mut timer).reset(soon);
            (&mut timer).await;
            assert!(Instant::now() >= soon);
            // Again, after it has fired.
            let soon = Instant::now() + Duration::from_millis(50);
            Pin::new(&mut timer).reset(soon);
            assert!(!timer.is_elapsed());
            (&mut timer).await;
            assert!(Instant::now() >= soon);
            // Later, while it is armed; the waker that waits stays the same.
            let mut timer = sleep(Duration::from_millis(150));
            let (woken, waker) = WakeCount::new();
            assert!(Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending());
            let later = Instant::now() + Duration::from_millis(300);
            Pin::new(&mut timer).reset(later);
            while woken.get() == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            assert!(Instant::now() >= later);
        });
    });
}

#[test]
fn a_ready_future_beats_its_deadline_and_a_late_one_is_dropped() {
    within_reason(|| {
        corelane::block_on(async {
            assert_eq!(timeout(Duration::ZERO, ready(1)).await, Ok(1));
            let (spy, dropped) = DropSpy::new();
            let late = timeout(Duration::from_millis(2), async move {
                let _spy = spy;
                pending::<()>().await;
            });
            let error = late.await.expect_err("it never ends");
            assert!(dropped.is_dropped());
            assert_eq!(error.to_string(), "deadline has elapsed");
            assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::TimedOut);
            let nested = timeout(
                Duration::from_secs(100),
                timeout(Duration::from_millis(2), pending::<()>()),
            );
            assert!(nested.await.expect("the outer one has time").is_err());
        });
    });
}

#[test]
fn a_deadline_that_has_passed_ends_a_future_that_uses_up_the_share_of_every_poll() {
    within_reason(|| {
        corelane::block_on(async {
            let busy = async || {
                for _ in 0..1_000_000 {
                    corelane::task::consume_budget().await;
                }
            };
            assert!(timeout(Duration::ZERO, busy()).await.is_err());
            assert!(timeout_at(Instant::now(), busy()).await.is_err());
        });
    });
}

#[test]
fn ten_thousand_timers_of_one_millisecond_all_fire() {
    within_reason(|| {
        let runtime = shards(1);
        let all = runtime.handle().submit_to(FIRST, || async {
            let due = Instant::now() + Duration::from_millis(100);
            let tasks: Vec<_> =
                (0..10_000).map(|_| corelane::spawn_local(sleep_until(due))).collect();
            for task in tasks {
                task.await.expect("no panic");
            }
            assert!(Instant::now() >= due);
        });
        wait(all).expect("no panic");
        // Fewer, if the machine was so busy that some were over when they were first polled.
        assert!(stats_at_rest(runtime.handle(), FIRST).timers_fired <= 10_000);
    });
}

/// What can be done with a timer.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Make { micros: u64 },
    Poll(usize),
    Reset(usize, u64),
    Drop(usize),
    Turn,
    Wait { micros: u64 },
}

fn deed() -> impl Strategy<Value = Deed> {
    let soon = 0..3_000u64;
    prop_oneof![
        5 => soon.clone().prop_map(|micros| Deed::Make { micros }),
        4 => any::<usize>().prop_map(Deed::Poll),
        3 => (any::<usize>(), soon).prop_map(|(which, micros)| Deed::Reset(which, micros)),
        3 => any::<usize>().prop_map(Deed::Drop),
        4 => Just(Deed::Turn),
        1 => (0..800u64).prop_map(|micros| Deed::Wait { micros }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// In the millisecond in which they fire, and around it: no timer is early, none is lost, none fires after its drop.
    #[test]
    fn timers_made_reset_and_dropped_around_their_deadlines(deeds in prop::collection::vec(deed(), 1..120)) {
        struct Timer { sleep: Sleep, woken: std::sync::Arc<WakeCount>, waker: Waker, waits: bool }
        fn poll(timer: &mut Timer) -> Poll<()> {
            let deadline = timer.sleep.deadline();
            let polled = Pin::new(&mut timer.sleep).poll(&mut Context::from_waker(&timer.waker));
            assert!(polled.is_pending() || Instant::now() >= deadline, "early");
            timer.waits = polled.is_pending();
            polled
        }
        let shard = HostedShard::new(Limits::default()).expect("a shard");
        let mut timers: Vec<Timer> = Vec::new();
        let mut dead = Vec::new();
        for deed in deeds {
            let count = timers.len();
            let at = |index: usize| if count == 0 { None } else { Some(index % count) };
            match deed {
                Deed::Make { micros } => {
                    let (woken, waker) = WakeCount::new();
                    let sleep = sleep(Duration::from_micros(micros));
                    let mut timer = Timer { sleep, woken, waker, waits: false };
                    let _ = shard.enter(|| poll(&mut timer));
                    timers.push(timer);
                }
                Deed::Poll(index) => {
                    if let Some(index) = at(index) {
                        let _ = shard.enter(|| poll(&mut timers[index]));
                    }
                }
                Deed::Reset(index, micros) => {
                    if let Some(index) = at(index) {
                        let deadline = Instant::now() + Duration::from_micros(micros);
                        let timer = &mut timers[index];
                        let _ = shard.enter(|| {
                            Pin::new(&mut timer.sleep).reset(deadline);
                            poll(timer)
                        });
                    }
                }
                Deed::Drop(index) => {
                    if let Some(index) = at(index) {
                        let timer = timers.swap_remove(index);
                        shard.enter(|| drop(timer.sleep));
                        dead.push((timer.woken.get(), timer.woken));
                    }
                }
                Deed::Turn => drop(shard.turn(Duration::ZERO)),
                Deed::Wait { micros } => spin(Duration::from_micros(micros)),
            }
        }
        // Everybody who waits is woken, and then it is over.
        let began = Instant::now();
        while let Some(index) = timers.iter().position(|timer| timer.waits) {
            prop_assert!(began.elapsed() < HANGS_AFTER / 2, "a timer was lost");
            shard.turn(Duration::from_millis(1));
            let timer = &mut timers[index];
            if timer.woken.get() > 0 {
                let _ = shard.enter(|| poll(timer));
            }
        }
        for (before, count) in dead {
            prop_assert_eq!(count.get(), before, "woken after its drop");
        }
    }
}

/// Three ticks late, then on: the times at which the ticks were due, counted in periods from the start.
fn late_ticks(behavior: MissedTickBehavior) -> (Vec<f64>, f64) {
    let period = Duration::from_millis(40);
    corelane::block_on(async move {
        let start = Instant::now();
        let mut interval = interval_at(start, period);
        assert_eq!(interval.missed_tick_behavior(), MissedTickBehavior::Burst);
        interval.set_missed_tick_behavior(behavior);
        assert_eq!(interval.period(), period);
        assert_eq!(interval.tick().await, start);
        // The shard is held up for three periods and a half.
        thread::sleep(period * 7 / 2);
        let mut ticks = Vec::new();
        let mut late = 0.0;
        for number in 0..6 {
            let tick = interval.tick().await;
            assert!(Instant::now() >= tick, "early");
            if number == 0 {
                late = start.elapsed().div_duration_f64(period);
            }
            ticks.push((tick - start).div_duration_f64(period));
        }
        (ticks, late)
    })
}

#[test]
fn missed_ticks_come_in_a_burst() {
    let (ticks, _) = late_ticks(MissedTickBehavior::Burst);
    assert_eq!(ticks, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn missed_ticks_delay_those_after_them() {
    let (ticks, late) = late_ticks(MissedTickBehavior::Delay);
    assert_eq!(ticks[0], 1.0);
    // One period after the late tick, which was taken at `late` or a moment before.
    assert!(ticks[1] <= late + 1.0 && ticks[1] >= 4.5, "{ticks:?} {late}");
    for pair in ticks[1..].windows(2) {
        assert!(pair[1] - pair[0] >= 1.0 - 1e-9, "{ticks:?}");
    }
}

#[test]
fn missed_ticks_are_skipped_and_the_beat_is_kept() {
    let (ticks, late) = late_ticks(MissedTickBehavior::Skip);
    assert_eq!(ticks[0], 1.0);
    assert!(ticks[1] >= late.floor() && ticks[1] <= late + 1.0, "{ticks:?} {late}");
    for tick in &ticks {
        assert!((tick - tick.round()).abs() < 1e-6, "off the beat: {ticks:?}");
    }
    assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn an_interval_ticks_at_once_and_can_be_set_anew() {
    within_reason(|| {
        corelane::block_on(async {
            let period = Duration::from_secs(3600);
            let mut interval = interval(period);
            let first = interval.tick().await;
            assert!(first <= Instant::now());
            assert!(poll_now(interval.tick()).await.is_pending(), "the next is an hour away");
            interval.reset_immediately();
            interval.tick().await;
            interval.reset_after(Duration::from_millis(3));
            let before = Instant::now();
            let tick = interval.tick().await;
            assert!(Instant::now() >= tick && tick <= before + Duration::from_millis(3));
            interval.reset();
            assert!(poll_now(interval.tick()).await.is_pending());
            let soon = Instant::now() + Duration::from_millis(3);
            interval.reset_at(soon);
            assert_eq!(interval.tick().await, soon);
        });
        assert!(std::panic::catch_unwind(|| interval(Duration::ZERO)).is_err());
        assert!(std::panic::catch_unwind(|| interval_at(Instant::now(), Duration::ZERO)).is_err());
    });
}

#[test]
fn a_tick_that_was_not_taken_is_not_lost() {
    within_reason(|| {
        corelane::block_on(async {
            let start = Instant::now();
            let mut interval = interval_at(start, Duration::from_millis(5));
            interval.tick().await;
            // Waits are given up again and again.
            let mut ticks = 0;
            while ticks < 3 {
                if let Ok(tick) = timeout(Duration::from_millis(1), interval.tick()).await {
                    ticks += 1;
                    assert_eq!(tick, start + Duration::from_millis(5) * ticks);
                }
            }
        });
    });
}

#[test]
fn a_process_that_was_stopped_fires_each_late_timer_once() {
    const NAME: &str = "timers::a_process_that_was_stopped_fires_each_late_timer_once";
    const TIMERS: u64 = 100_000;
    const PER_TURN: usize = 1_000;
    if process::is_child(NAME) {
        let runtime = shards_with(1, limits(|limits| limits.timers_per_turn = PER_TURN));
        let fired = runtime.handle().submit_to(FIRST, || async {
            let mut lead = Duration::from_secs(1);
            let fired = loop {
                let (fired, in_time) = arm_timers(TIMERS, lead).await;
                // Once more with more time, until the patience of a slow machine's user ends.
                if in_time || lead > Duration::from_secs(10) {
                    eprintln!("armed {} {}", u8::from(in_time), lead.as_millis());
                    break fired;
                }
                until_fired(&fired, TIMERS).await;
                lead *= 2;
            };
            // Goes on when this process has been stopped and continued: the parent says so.
            let read = corelane::spawn_blocking(|| {
                let _ = std::io::stdin().read_line(&mut String::new());
            });
            read.await.expect("no panic");
            until_fired(&fired, TIMERS).await;
            // If any of them were to fire twice, it would be now.
            sleep(Duration::from_millis(20)).await;
            fired.get()
        });
        assert_eq!(wait(fired).expect("no panic"), TIMERS);
        let stats = stats_at_rest(runtime.handle(), FIRST);
        assert!(stats.turns >= TIMERS / PER_TURN as u64, "not all in one turn: {stats:#?}");
        return;
    }
    let mut command = process::command(NAME, &[]);
    command.stdin(std::process::Stdio::piped());
    let mut child = command.spawn().expect("started");
    let pid = child.id() as libc::pid_t;
    let mut input = child.stdin.take().expect("a pipe");
    let errors = child.stderr.take().expect("a pipe");
    let mut lines = BufReader::new(errors).lines();
    let armed = lines.find_map(|line| line.ok()?.strip_prefix("armed ").map(str::to_owned));
    let armed = armed.expect("it says so before it ends");
    let (in_time, lead) = armed.split_once(' ').expect("two numbers");
    signal(pid, libc::SIGSTOP);
    eventually("the process has stopped", || {
        process::status_field(&format!("/proc/{pid}/status"), "State")
            .is_some_and(|state| state.starts_with('T'))
    });
    // Long enough for every timer to be due. Nothing is synchronised by this: later is as good.
    thread::sleep(Duration::from_millis(lead.parse::<u64>().expect("a number") + 100));
    signal(pid, libc::SIGCONT);
    std::io::Write::write_all(&mut input, b"on\n").expect("written");
    process::finish(child).passed();
    if in_time == "0" {
        process::skipped(
            "the machine was so busy that timers fired before the process was stopped",
        );
    }
}

/// Spawns so many tasks with a timer each, due within 50 ms from `lead` on. Returns how many have fired, and whether all
/// were armed with time to spare.
async fn arm_timers(count: u64, lead: Duration) -> (Rc<Cell<u64>>, bool) {
    let (armed, fired) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let began = Instant::now();
    for number in 0..count {
        let (armed, fired) = (armed.clone(), fired.clone());
        drop(corelane::spawn_local(async move {
            let due = began + lead + Duration::from_millis(number % 50);
            armed.set(armed.get() + 1);
            sleep_until(due).await;
            assert!(Instant::now() >= due);
            fired.set(fired.get() + 1);
        }));
    }
    while armed.get() < count {
        corelane::yield_now().await;
    }
    (fired, began.elapsed() < lead / 2)
}

async fn until_fired(fired: &Cell<u64>, count: u64) {
    while fired.get() < count {
        sleep(Duration::from_millis(1)).await;
    }
}

#[allow(unsafe_code)]
fn signal(pid: libc::pid_t, number: libc::c_int) {
    // SAFETY: a system call without pointers; the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

#[test]
fn signals_do_not_disturb_a_shard_that_waits() {
    // EINTR from epoll_wait: a signal with a handler that does not restart system calls, aimed at the shard's thread.
    const NAME: &str = "timers::signals_do_not_disturb_a_shard_that_waits";
    let outcome = process::alone(NAME, &[], || {
        catch_signals();
        let runtime = shards(1);
        let thread = on(runtime.handle(), FIRST, this_thread);
        let mut timer =
            runtime.handle().spawn_on(FIRST, || sleep(Duration::from_millis(300))).expect("room");
        let began = Instant::now();
        let mut signals = 0;
        while poll_once(&mut timer).is_pending() {
            signal_thread(thread);
            signals += 1;
            thread::sleep(Duration::from_millis(1));
        }
        assert!(began.elapsed() >= Duration::from_millis(290), "not before its time");
        assert!(signals > 5);
        assert_eq!(on(runtime.handle(), FIRST, || 5), 5);
        assert_eq!(runtime.shutdown(Duration::ZERO).shards_panicked, 0);
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

#[allow(unsafe_code)]
fn catch_signals() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing; `action` is a plain structure for which zero is a value, and no SA_RESTART.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
}

#[allow(unsafe_code)]
fn this_thread() -> libc::pthread_t {
    // SAFETY: no arguments.
    unsafe { libc::pthread_self() }
}

#[allow(unsafe_code)]
fn signal_thread(thread: libc::pthread_t) {
    // SAFETY: the shard's thread has not been joined.
    unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
}
