//! What becomes of sockets and timers of a pool that has ended.

use super::{run, workers};
use crate::harness::*;
use corelane::time::{Duration, Instant, Sleep, sleep, sleep_until};
use futures::AsyncReadExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;

/// A timer that a pool has armed, and whose pool has ended.
fn left_over(wanted: Duration, made_outside: bool) -> Pin<Box<Sleep>> {
    let runtime = workers(2);
    let deadline = Instant::now() + wanted;
    let made = made_outside.then(|| Box::pin(sleep_until(deadline)));
    let timer = on(runtime.handle(), FIRST, move || {
        let mut timer = made.unwrap_or_else(|| Box::pin(sleep_until(deadline)));
        assert!(poll_once(&mut timer).is_pending());
        timer
    });
    drop(runtime);
    timer
}

/// What the panic of `f` says.
fn panic_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it panics");
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().expect("a text")).to_owned(),
    }
}

#[test]
fn a_timer_goes_on_elsewhere_when_its_pool_has_ended() {
    within_reason(|| {
        for made_outside in [false, true] {
            let mut timer = left_over(Duration::from_millis(30), made_outside);
            let deadline = timer.deadline();
            corelane::block_on(timer.as_mut());
            assert!(Instant::now() >= deadline && timer.is_elapsed());
            // In another pool.
            let mut timer = left_over(Duration::from_millis(30), made_outside);
            let deadline = timer.deadline();
            let other = workers(1);
            run(other.handle(), async move { timer.as_mut().await });
            assert!(Instant::now() >= deadline);
        }
    });
}

#[test]
fn a_timer_whose_pool_has_ended_says_so_where_no_shard_is() {
    within_reason(|| {
        for made_outside in [false, true] {
            let mut timer = left_over(Duration::from_secs(3600), made_outside);
            let said = panic_of(|| assert!(poll_once(&mut timer).is_pending()));
            assert!(said.contains("has shut down"), "{said}");
            // Once its time has come, there is nothing to say.
            timer.as_mut().reset(Instant::now());
            assert!(poll_once(&mut timer).is_ready());
        }
    });
}

#[test]
fn who_waits_for_a_timer_or_a_socket_of_a_pool_hears_of_its_end() {
    within_reason(|| {
        let runtime = workers(2);
        let (_ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let (timer, mut stream) = run(runtime.handle(), async move {
            let mut timer = Box::pin(sleep(Duration::from_secs(3600)));
            assert!(poll_once(&mut timer).is_pending());
            let mut stream = corelane::net::UnixStream::from_std(theirs).expect("a stream");
            assert!(poll_now(stream.read(&mut [0])).await.is_pending());
            (timer, stream)
        });
        let (tell, waiting) = mpsc::channel();
        let told = tell.clone();
        let for_timer = thread::spawn(move || {
            panic_of(|| {
                let mut timer = timer;
                wait(std::future::poll_fn(|context| {
                    let polled = timer.as_mut().poll(context);
                    let _ = told.send(());
                    polled
                }));
            })
        });
        let for_socket = thread::spawn(move || {
            let mut buf = [0];
            let mut read = stream.read(&mut buf);
            wait(std::future::poll_fn(|context| {
                let polled = Pin::new(&mut read).poll(context);
                let _ = tell.send(());
                polled
            }))
        });
        for _ in 0..2 {
            waiting.recv_timeout(HANGS_AFTER / 2).expect("they wait");
        }
        drop(runtime);
        let said = for_timer.join().expect("its panic was caught");
        assert!(said.contains("has shut down"), "{said}");
        let error = for_socket.join().expect("no panic").expect_err("nobody watches it");
        assert!(error.to_string().contains("has shut down"), "{error}");
    });
}

/// Whoever looked before the last task ended elsewhere hears of it.
#[test]
fn no_worker_sleeps_through_the_end_of_the_last_task() {
    within_reason(|| {
        let mut random = Random::new();
        for round in 0..1_000 {
            let runtime = workers(2);
            let (first, second) = (random.below(40), random.below(40));
            let task = runtime.handle().spawn_on(FIRST, move || async move {
                for time in [first, second] {
                    drop(corelane::spawn(async move { spin(Duration::from_micros(time)) }));
                }
            });
            drop(task.expect("there is room"));
            let began = Instant::now();
            assert_eq!(runtime.shutdown(HANGS_AFTER).tasks_dropped, 0);
            assert!(began.elapsed() < HANGS_AFTER / 4, "round {round}: a worker slept on");
        }
    });
}
