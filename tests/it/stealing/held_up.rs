//! Workers that are held up, leave, or fall asleep at the wrong moment: the others go on.

use super::{run, workers};
use crate::harness::*;
use corelane::time::{Duration, Instant, sleep};
use corelane::{Runtime, spawn};
use futures::AsyncReadExt;
use std::io::Write;
use std::sync::mpsc;

/// A socket of which a task of the pool tells each byte.
fn heard_in(runtime: &corelane::Runtime) -> (std::os::unix::net::UnixStream, mpsc::Receiver<()>) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let (tell, told) = mpsc::channel();
    run(runtime.handle(), async move {
        drop(spawn(async move {
            let mut stream = corelane::net::UnixStream::from_std(theirs).expect("a stream");
            while let Ok(1) = stream.read(&mut [0]).await {
                tell.send(()).expect("somebody listens");
            }
        }));
    });
    (ours, told)
}

/// While one worker is blocked until a socket has been heard of, another has just had something short to do. Whoever of
/// them slept on behalf of both, somebody must look at the sockets.
#[test]
fn sockets_are_looked_at_whichever_worker_is_blocked_when() {
    within_reason(|| {
        let runtime = workers(2);
        let (mut ours, told) = heard_in(&runtime);
        let mut random = Random::new();
        for round in 0..1_500 {
            let (blocked, other) = if round % 2 == 0 { (FIRST, SECOND) } else { (SECOND, FIRST) };
            let (busy, pause) = (random.below(40), random.below(80));
            let short = move || spin(Duration::from_micros(busy));
            runtime.handle().post(other, short).expect("there is room");
            spin(Duration::from_micros(pause));
            let gate = Gate::close(runtime.handle(), blocked);
            ours.write_all(b"x").expect("written");
            told.recv_timeout(HANGS_AFTER / 2).expect("somebody looks at the sockets");
            gate.open();
        }
    });
}

/// The same with a third worker, which is busy as well.
#[test]
fn sockets_are_looked_at_though_all_but_one_are_blocked() {
    within_reason(|| {
        let runtime = workers(3);
        let (mut ours, told) = heard_in(&runtime);
        let all = [FIRST, SECOND, THIRD];
        let mut random = Random::new();
        for round in 0..500 {
            let free = all[round % 3];
            for shard in all {
                let busy = random.below(40);
                let short = move || spin(Duration::from_micros(busy));
                runtime.handle().post(shard, short).expect("there is room");
            }
            spin(Duration::from_micros(random.below(80)));
            let blocked = all.into_iter().filter(|&shard| shard != free);
            let gates: Vec<_> = blocked.map(|shard| Gate::close(runtime.handle(), shard)).collect();
            ours.write_all(b"x").expect("written");
            told.recv_timeout(HANGS_AFTER / 2).expect("somebody looks at the sockets");
            gates.into_iter().for_each(Gate::open);
        }
    });
}

/// Two timers at a time, armed by two workers of which one takes over from the other.
#[test]
fn timers_that_are_armed_while_workers_take_turns_at_the_sockets_fire() {
    within_reason(|| {
        let runtime = workers(2);
        let mut random = Random::new();
        for _ in 0..1_000 {
            let timers = [FIRST, SECOND].map(|shard| {
                let wanted = Duration::from_micros(random.below(1_500));
                let (fired, fires) = mpsc::channel();
                let armed = runtime.handle().spawn_on(shard, move || async move {
                    sleep(wanted).await;
                    fired.send(()).expect("somebody listens");
                });
                drop(armed.expect("there is room"));
                spin(Duration::from_micros(random.below(30)));
                fires
            });
            for fires in timers {
                fires.recv_timeout(HANGS_AFTER / 2).expect("it fires");
            }
        }
    });
}

/// A worker ends, at whatever it is, while another still has tasks that wait for the time and for a third.
#[test]
fn a_worker_that_leaves_holds_nothing_up() {
    within_reason(|| {
        let mut random = Random::new();
        for round in 0..60 {
            let runtime = workers(3);
            let handle = runtime.handle().clone();
            // Two of them cannot leave yet, and one of those is asleep.
            let (open, mut opens) = futures::channel::oneshot::channel::<()>();
            let (ready, waits) = mpsc::channel();
            let asleep = runtime.handle().spawn_on(THIRD, move || async move {
                ready.send(()).expect("somebody listens");
                let _ = (&mut opens).await;
            });
            waits.recv_timeout(HANGS_AFTER / 2).expect("it waits");
            let pause = random.below(50);
            let worker = if round % 2 == 0 { FIRST } else { SECOND };
            let task = runtime.handle().spawn_on(worker, move || async move {
                handle.request_shutdown(HANGS_AFTER);
                drop(spawn(async {}));
                spin(Duration::from_micros(pause));
                corelane::yield_now().await;
                sleep(Duration::from_millis(1)).await;
                // Somebody else must run this: here nothing runs.
                let (tell, told) = mpsc::channel();
                drop(spawn(async move { tell.send(()).expect("somebody listens") }));
                told.recv_timeout(HANGS_AFTER / 4).expect("another worker takes it");
                drop(open);
            });
            wait(task.expect("there is room")).expect("no panic");
            wait(asleep.expect("there is room")).expect("no panic");
            let began = Instant::now();
            assert_eq!(runtime.shutdown(HANGS_AFTER).tasks_dropped, 0);
            assert!(began.elapsed() < HANGS_AFTER / 2, "a worker has waited for nothing");
        }
    });
}

/// The one that looks at the sockets and timers leaves while another sleeps that has a task which waits for them.
#[test]
fn a_timer_fires_though_the_worker_that_has_looked_after_it_leaves() {
    within_reason(|| {
        let mut random = Random::new();
        for round in 0..40 {
            let runtime = workers(2);
            let [stays, leaves] = if round % 2 == 0 { [FIRST, SECOND] } else { [SECOND, FIRST] };
            let (open, opens) = futures::channel::oneshot::channel::<()>();
            let (tell, told) = mpsc::channel();
            let tells = tell.clone();
            let leaving = runtime.handle().spawn_on(leaves, move || async move {
                corelane::shutdown_requested().await;
                tells.send(()).expect("somebody listens");
                let _ = opens.await;
            });
            let staying = runtime.handle().spawn_on(stays, move || async move {
                corelane::shutdown_requested().await;
                tell.send(()).expect("somebody listens");
                for _ in 0..10 {
                    sleep(Duration::from_millis(1)).await;
                }
            });
            runtime.handle().request_shutdown(HANGS_AFTER);
            for _ in 0..2 {
                told.recv_timeout(HANGS_AFTER / 2).expect("they wait");
            }
            spin(Duration::from_micros(random.below(4_000)));
            drop(open);
            let began = Instant::now();
            wait(leaving.expect("there is room")).expect("no panic");
            wait(staying.expect("there is room")).expect("no panic");
            assert!(began.elapsed() < HANGS_AFTER / 2, "nobody looked at the timers");
            assert_eq!(runtime.shutdown(HANGS_AFTER).tasks_dropped, 0);
        }
    });
}

/// A worker whose tasks are slow looks at the clock after each, so that its turns do not get long.
#[test]
fn slow_polls_of_a_worker_are_timed_one_by_one() {
    const TASKS: u64 = 64;
    within_reason(|| {
        let limits = limits(|limits| limits.turn_time = Duration::from_micros(200));
        let builder = Runtime::builder().mode(corelane::Mode::WorkStealing).limits(limits);
        let runtime = start(1, builder).expect("started");
        let before = stats_at_rest(runtime.handle(), FIRST).turns;
        let (tell, told) = mpsc::channel();
        // Nobody waits for one of them: that would be a short poll in between.
        run(runtime.handle(), async move {
            for _ in 0..TASKS {
                let tell = tell.clone();
                drop(spawn(async move {
                    spin(Duration::from_micros(400));
                    tell.send(()).expect("somebody listens");
                }));
            }
        });
        assert_eq!(told.iter().count() as u64, TASKS);
        let turns = stats_at_rest(runtime.handle(), FIRST).turns - before;
        assert!(turns >= TASKS, "{turns} turns for {TASKS} polls that fill a turn each");
    });
}

/// A task that another has woken waits for it, in its worker's last-in slot; the other worker is not idle, but busy.
#[test]
fn a_woken_task_does_not_wait_for_its_worker_while_the_others_are_busy() {
    within_reason(|| {
        let runtime = workers(2);
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let (tell, told) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        drop(runtime.handle().spawn_on(FIRST, move || async move {
            let (wake, woken) = futures::channel::oneshot::channel::<()>();
            let (waiting, waits) = futures::channel::oneshot::channel::<()>();
            drop(spawn(async move {
                while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    spin(Duration::from_micros(50));
                    corelane::yield_now().await;
                }
            }));
            drop(spawn(async move {
                waiting.send(()).expect("somebody waits");
                woken.await.expect("woken");
                tell.send(()).expect("somebody listens");
            }));
            drop(spawn(async move {
                waits.await.expect("it waits");
                wake.send(()).expect("it waits");
                // As a task that must not does.
                let _ = released.recv_timeout(HANGS_AFTER);
            }));
        }));
        let woken = told.recv_timeout(HANGS_AFTER / 4);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        drop(release);
        woken.expect("the other worker takes it");
    });
}
