//! Panics, wherever user code runs: the shard goes on, and the panic is counted.

use super::harness::*;
use super::process;
use corelane::time::{Sleep, sleep};
use corelane::{Handle, JoinHandle, Runtime, ShardId, Sharded};
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

/// Runs `cause` against a shard, and sees whether the shard lives and has counted a panic.
fn survives<R>(cause: impl FnOnce(&Handle, ShardId) -> R + Send + 'static) {
    within_reason(move || {
        let runtime = shards(1);
        let handle = runtime.handle().clone();
        let kept = cause(&handle, FIRST);
        eventually("the panic is counted", || {
            on(&handle, FIRST, || ());
            stats(&handle, FIRST).panics > 0
        });
        shard_works(&handle);
        drop(kept);
        let report = runtime.shutdown(Duration::ZERO);
        assert_eq!(report.shards_panicked, 0);
    });
}

fn shard_works(handle: &Handle) {
    let works = handle.submit_to(FIRST, || async {
        let task = corelane::spawn_local(async { 1 });
        sleep(Duration::from_millis(1)).await;
        task.await.expect("no panic")
    });
    assert_eq!(wait(works).expect("the shard lives"), 1);
}

/// Panics when it is woken or when it is dropped.
struct Explosive {
    when_woken: bool,
}

fn explodes_when_woken() -> Waker {
    Arc::new(Explosive { when_woken: true }).into()
}

fn explodes_when_dropped() -> Waker {
    Arc::new(Explosive { when_woken: false }).into()
}

impl Wake for Explosive {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.when_woken {
            deliberate();
        }
    }
}

impl Drop for Explosive {
    fn drop(&mut self) {
        // Not on top of another panic: that must abort, and is tested elsewhere.
        if !self.when_woken && !thread::panicking() {
            deliberate();
        }
    }
}

/// Panics when dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            deliberate();
        }
    }
}

/// Polls a future once with this waker, which it must keep.
fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) {
    assert!(Pin::new(future).poll(&mut Context::from_waker(waker)).is_pending());
}

/// A timer that will wake this waker soon: as soon as this thread is fast enough to wait for it at all.
fn armed(waker: &Waker, make: impl Fn(Duration) -> Sleep) -> Sleep {
    let mut soon = Duration::from_millis(2);
    loop {
        let mut timer = make(soon);
        if Pin::new(&mut timer).poll(&mut Context::from_waker(waker)).is_pending() {
            return timer;
        }
        soon *= 4;
    }
}

#[test]
fn a_panic_in_a_poll_ends_the_task_and_nothing_else() {
    survives(|handle, shard| {
        let (spy, dropped) = DropSpy::new();
        let task: JoinHandle<()> = on(handle, shard, move || {
            corelane::spawn_local(async move {
                let _here = spy.stay();
                corelane::yield_now().await;
                deliberate()
            })
        });
        let id = task.id();
        let error = wait(task).expect_err("it panicked");
        assert!(error.is_panic() && !error.is_cancelled());
        assert_eq!(error.id(), id);
        assert_eq!(error.to_string(), format!("task {id} panicked with \"deliberate\""));
        assert_eq!(
            *error.into_panic().downcast::<&str>().expect("what it panicked with"),
            "deliberate"
        );
        dropped.on();
    });
}

#[test]
fn one_panic_in_a_hundred_leaves_the_others_alone() {
    within_reason(|| {
        let runtime = shards(1);
        let all = runtime.handle().submit_to(FIRST, || async {
            let task = |number: u32| async move {
                corelane::yield_now().await;
                if number.is_multiple_of(100) {
                    deliberate();
                }
                number
            };
            let tasks: Vec<_> =
                (1..=10_000).map(|number| corelane::spawn_local(task(number))).collect();
            let mut panics = 0;
            for (task, number) in tasks.into_iter().zip(1..) {
                match task.await {
                    Ok(output) => assert_eq!(output, number),
                    Err(error) => panics += u32::from(error.is_panic()),
                }
            }
            panics
        });
        assert_eq!(wait(all).expect("no panic"), 100);
        eventually("the counts say so", || {
            let stats = stats(runtime.handle(), FIRST);
            stats.panics == 100 && stats.tasks == 0
        });
    });
}

#[test]
fn a_panic_while_an_aborted_future_is_dropped_is_contained() {
    survives(|handle, shard| {
        let task = handle.spawn_on(shard, || async {
            let _bomb = Bomb;
            pending::<()>().await;
        });
        let task = task.expect("a shard with room");
        on(handle, shard, || ());
        task.abort();
        assert!(wait(task).expect_err("aborted").is_cancelled());
    });
}

#[test]
fn a_panic_while_a_finished_future_is_dropped_does_not_lose_its_output() {
    struct Ends(Bomb);
    impl Future for Ends {
        type Output = u8;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u8> {
            let Ends(_bomb) = &*self;
            Poll::Ready(4)
        }
    }
    survives(|handle, shard| {
        let task = on(handle, shard, || corelane::spawn_local(Ends(Bomb)));
        assert_eq!(wait(task).expect("its output was there"), 4);
    });
}

#[test]
fn a_panic_while_an_unwanted_output_is_dropped_is_contained() {
    survives(|handle, shard| {
        on(handle, shard, || {
            drop(corelane::spawn_local(async {
                corelane::yield_now().await;
                Bomb
            }));
        });
    });
    // It ended before the handle was dropped, elsewhere.
    survives(|handle, shard| {
        let task = on(handle, shard, || corelane::spawn_local(async { Bomb }));
        eventually("the task has ended", || task.is_finished());
        drop(task);
    });
}

#[test]
fn a_panic_while_the_payload_of_a_panic_is_dropped_is_contained() {
    survives(|handle, shard| {
        on(handle, shard, || {
            drop(corelane::spawn_local(async { std::panic::resume_unwind(Box::new(Bomb)) }));
        });
    });
    survives(|handle, shard| {
        handle
            .post(shard, || std::panic::resume_unwind(Box::new(Bomb)))
            .expect("a shard with room");
    });
    // The payload's drop panics with something whose drop panics.
    // (What the last drop throws is leaked, so these take no memory.)
    static LEFT: AtomicU32 = AtomicU32::new(3);
    struct Chain;
    impl Drop for Chain {
        fn drop(&mut self) {
            if LEFT.fetch_sub(1, Ordering::SeqCst) > 0 {
                std::panic::resume_unwind(Box::new(Chain));
            }
            LEFT.store(0, Ordering::SeqCst);
        }
    }
    survives(|handle, shard| {
        on(handle, shard, || {
            drop(corelane::spawn_local(async { std::panic::resume_unwind(Box::new(Chain)) }));
        });
    });
}

#[test]
fn a_panic_in_a_closure_that_was_sent_is_its_senders() {
    survives(|handle, shard| {
        let task = handle.spawn_on(shard, || -> std::future::Ready<()> { deliberate() });
        assert!(wait(task.expect("a shard with room")).expect_err("it panicked").is_panic());
        let call = handle.submit_to(shard, || -> std::future::Ready<()> { deliberate() });
        let error = wait(call).expect_err("it panicked");
        assert!(error.is_panic() && !error.is_closed());
        assert_eq!(
            error.to_string(),
            "the call failed on the other shard: task panicked with \"deliberate\""
        );
        let call = handle.submit_to(shard, || async { deliberate() });
        let answer: Result<(), _> = wait(call);
        assert!(answer.expect_err("it panicked").is_panic());
        handle.post(shard, || deliberate()).expect("a shard with room");
    });
}

#[test]
fn a_panic_on_the_blocking_pool_is_its_callers() {
    within_reason(|| {
        let runtime = shards(1);
        let work = runtime.handle().spawn_blocking(|| deliberate());
        let answer: Result<(), _> = wait(work);
        assert!(answer.expect_err("it panicked").is_panic());
        assert_eq!(wait(runtime.handle().spawn_blocking(|| 3)).expect("the pool goes on"), 3);
    });
}

#[test]
fn a_panic_in_the_waker_of_a_timer_is_contained() {
    survives(|handle, shard| {
        on(handle, shard, || {
            let timer = armed(&explodes_when_woken(), sleep);
            // It must not be dropped before it fires.
            drop(corelane::spawn_local(async move {
                pending::<()>().await;
                drop(timer);
            }));
        });
    });
}

#[test]
fn timers_due_with_one_whose_waker_panics_fire_all_the_same() {
    within_reason(|| {
        let runtime = shards(1);
        let fired = runtime.handle().submit_to(FIRST, || async {
            let due = corelane::time::Instant::now() + Duration::from_millis(200);
            let mut counts = Vec::new();
            let mut timers = Vec::new();
            for number in 0..20 {
                let mut timer = corelane::time::sleep_until(due);
                if number % 5 == 2 {
                    poll_with(&mut timer, &explodes_when_woken());
                } else {
                    let (count, waker) = WakeCount::new();
                    poll_with(&mut timer, &waker);
                    counts.push(count);
                }
                timers.push(timer);
            }
            corelane::time::sleep_until(due + Duration::from_millis(10)).await;
            counts.iter().filter(|count| count.get() == 1).count()
        });
        assert_eq!(wait(fired).expect("the shard lives"), 16);
    });
}

#[test]
fn a_panic_in_the_waker_that_awaits_a_task_is_contained() {
    // On the task's shard.
    survives(|handle, shard| {
        on(handle, shard, || {
            let mut task = corelane::spawn_local(corelane::yield_now());
            poll_with(&mut task, &explodes_when_woken());
            // It is not to be dropped before the task ends.
            corelane::spawn_local(async move {
                pending::<()>().await;
                drop(task);
            });
        });
    });
    // On a thread that is none: the shard completes the reply.
    survives(|handle, shard| {
        let (go, told) = futures::channel::oneshot::channel::<()>();
        let mut task = on(handle, shard, move || corelane::spawn_local(told));
        poll_with(&mut task, &explodes_when_woken());
        drop(go);
        task
    });
    survives(|handle, shard| {
        let (go, told) = futures::channel::oneshot::channel::<()>();
        let mut task = handle.spawn_on(shard, move || told).expect("a shard with room");
        poll_with(&mut task, &explodes_when_woken());
        drop(go);
        task
    });
    // The reply to a handle that comes home when the task has ended.
    survives(|handle, shard| {
        let gate = Gate::close(handle, shard);
        let (tell, tasks) = mpsc::channel();
        handle
            .post(shard, move || {
                let _ = tell.send(corelane::spawn_local(async {}));
            })
            .expect("a shard with room");
        gate.open();
        let mut task = tasks.recv().expect("spawned");
        eventually("the task has ended", || task.is_finished());
        let gate = Gate::close(handle, shard);
        poll_with(&mut task, &explodes_when_woken());
        gate.open();
        task
    });
}

#[test]
fn a_panic_in_the_waker_of_a_call_is_contained() {
    survives(|handle, shard| {
        let (go, told) = futures::channel::oneshot::channel::<()>();
        let mut call = handle.submit_to(shard, move || told);
        poll_with(&mut call, &explodes_when_woken());
        drop(go);
        call
    });
    // Its answer is that it panicked.
    survives(|handle, shard| {
        let gate = Gate::close(handle, shard);
        let mut call = handle.submit_to(shard, || -> std::future::Ready<()> { deliberate() });
        poll_with(&mut call, &explodes_when_woken());
        gate.open();
        call
    });
}

#[test]
fn a_panic_in_the_waker_of_somebody_who_waits_for_room_is_contained() {
    within_reason(|| {
        let runtime = shards_with(1, limits(|limits| limits.inbox_capacity = 2));
        let handle = runtime.handle();
        let gate = Gate::close(handle, FIRST);
        while handle.post(FIRST, || ()).is_ok() {}
        let mut call = handle.submit_to(FIRST, || async {});
        poll_with(&mut call, &explodes_when_woken());
        let mut patient = handle.submit_to(FIRST, || async { 5 });
        let (woken, waker) = WakeCount::new();
        poll_with(&mut patient, &waker);
        gate.open();
        eventually("the one who waits beside it is woken", || woken.get() > 0);
        assert_eq!(wait(patient).expect("the shard lives"), 5);
        shard_works(handle);
        assert_eq!(runtime.shutdown(Duration::ZERO).shards_panicked, 0);
    });
}

#[test]
fn a_panic_in_the_waker_of_a_socket_is_contained() {
    survives(|handle, shard| {
        let (theirs, mut ours) = std::os::unix::net::UnixStream::pair().expect("a pair");
        on(handle, shard, move || {
            let mut stream = corelane::net::UnixStream::from_std(theirs).expect("a stream");
            let mut read = Box::pin(async move {
                use futures::AsyncReadExt;
                let _ = stream.read(&mut [0; 8]).await;
            });
            poll_with(&mut read, &explodes_when_woken());
            drop(corelane::spawn_local(async move {
                pending::<()>().await;
                drop(read);
            }));
        });
        std::io::Write::write_all(&mut ours, b"x").expect("written");
        ours
    });
}

#[test]
fn a_panic_in_the_waker_of_a_timer_that_waits_elsewhere_is_contained() {
    survives(|handle, shard| {
        armed(&explodes_when_woken(), |soon| on(handle, shard, move || sleep(soon)))
    });
}

#[test]
fn a_panic_in_the_waker_of_somebody_who_waits_for_the_shutdown_is_contained() {
    within_reason(|| {
        let runtime = shards(1);
        on(runtime.handle(), FIRST, || {
            let mut waits = Box::pin(corelane::shutdown_requested());
            poll_with(&mut waits, &explodes_when_woken());
            drop(corelane::spawn_local(async move {
                pending::<()>().await;
                drop(waits);
            }));
        });
        assert_eq!(runtime.shutdown(Duration::from_millis(1)).shards_panicked, 0);
    });
}

#[test]
fn a_panic_while_a_waker_is_dropped_is_contained() {
    // The timer is dropped on another thread, so its waker is dropped by the shard.
    survives(|handle, shard| {
        let timer = on(handle, shard, || {
            let mut timer = sleep(Duration::from_secs(1000));
            poll_with(&mut timer, &explodes_when_dropped());
            timer
        });
        drop(timer);
    });
    // The task ends without a wake: whoever waits for it has been told before.
    survives(|handle, shard| {
        let task = on(handle, shard, || {
            let mut task = corelane::spawn_local(pending::<()>());
            poll_with(&mut task, &explodes_when_dropped());
            task
        });
        drop(task);
    });
}

#[test]
fn wakers_that_panic_do_not_disturb_the_end_of_a_shard() {
    within_reason(|| {
        for _ in 0..3 {
            let runtime = shards(1);
            let (spy, dropped) = DropSpy::new();
            let timers = on(runtime.handle(), FIRST, move || {
                drop(corelane::spawn_local(async move {
                    let _here = spy.stay();
                    pending::<()>().await;
                }));
                drop(corelane::spawn_local(async {
                    let _bomb = Bomb;
                    pending::<()>().await;
                }));
                [explodes_when_dropped(), explodes_when_woken(), explodes_when_dropped()].map(
                    |waker| {
                        let mut timer = sleep(Duration::from_secs(1000));
                        poll_with(&mut timer, &waker);
                        timer
                    },
                )
            });
            let mut task = on(runtime.handle(), FIRST, || corelane::spawn_local(pending::<()>()));
            poll_with(&mut task, &explodes_when_woken());
            let mut call = runtime.handle().submit_to(FIRST, || async {
                let _bomb = Bomb;
                pending::<()>().await;
            });
            poll_with(&mut call, &explodes_when_woken());
            on(runtime.handle(), FIRST, || ());
            assert_eq!(runtime.shutdown(Duration::ZERO).shards_panicked, 0);
            dropped.on();
            drop(timers);
            assert!(wait(task).expect_err("dropped").is_cancelled());
            assert!(wait(call).expect_err("dropped").is_closed());
        }
    });
}

#[test]
fn a_panic_while_a_sharded_value_is_made_is_an_error_and_while_it_is_dropped_is_contained() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let made = Sharded::<DropSpy>::new(handle, {
            let (spy, dropped) = DropSpy::new();
            let once = Arc::new(std::sync::Mutex::new(Some((spy, dropped))));
            move |shard| {
                if shard == SECOND {
                    deliberate();
                }
                once.lock().expect("no panic").take().expect("one shard").0
            }
        });
        assert!(wait(made).expect_err("it panicked").is_panic());
        let bombs = wait(Sharded::new(handle, |_| Bomb)).expect("no panic");
        drop(bombs);
        eventually("both panics are counted", || {
            handle.shards().all(|shard| {
                on(handle, shard, || ());
                stats(handle, shard).panics > 0
            })
        });
        let bombs = wait(Sharded::new(handle, |_| Bomb)).expect("no panic");
        assert_eq!(runtime.shutdown(Duration::ZERO).shards_panicked, 0);
        drop(bombs);
    });
}

#[test]
fn a_sharded_value_whose_drop_panics_at_the_end_takes_no_other_with_it() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle();
        let (tell, told) = mpsc::channel();
        let mut kept: Vec<Box<dyn std::any::Any>> = Vec::new();
        for _ in 0..20 {
            kept.push(Box::new(wait(Sharded::new(handle, |_| Bomb)).expect("no panic")));
            let tell = tell.clone();
            let spy = Sharded::new(handle, move |_| {
                let (spy, dropped) = DropSpy::new();
                let _ = tell.send(dropped);
                spy
            });
            kept.push(Box::new(wait(spy).expect("no panic")));
        }
        assert_eq!(runtime.shutdown(Duration::ZERO).shards_panicked, 0);
        drop(tell);
        assert_eq!(told.iter().filter(Dropped::is_dropped).count(), 20);
    });
}

#[test]
fn a_panic_in_block_on_comes_out_of_it_and_leaves_nothing_behind() {
    let (spy, dropped) = DropSpy::new();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        corelane::block_on(async move {
            drop(corelane::spawn_local(async move {
                let _here = spy.stay();
                pending::<()>().await;
            }));
            corelane::yield_now().await;
            deliberate()
        })
    }));
    let payload = panicked.map(|never: ()| never).expect_err("it panicked");
    assert_eq!(payload.downcast_ref(), Some(&"deliberate"));
    dropped.on();
    assert_eq!(corelane::block_on(async { 2 }), 2);
}

#[test]
fn a_panic_in_a_waker_of_block_on_is_contained() {
    corelane::block_on(async {
        let mut task = corelane::spawn_local(corelane::yield_now());
        poll_with(&mut task, &explodes_when_woken());
        let timer = armed(&explodes_when_woken(), sleep);
        sleep(Duration::from_millis(3)).await;
        assert!(task.is_finished());
        // Polled with another waker, both are still as good as any.
        timer.await;
        task.await.expect("no panic");
    });
}

#[test]
fn a_panic_during_a_panic_aborts_the_process_with_a_message() {
    const NAME: &str = "panics::a_panic_during_a_panic_aborts_the_process_with_a_message";
    struct Worse;
    impl Drop for Worse {
        fn drop(&mut self) {
            panic!("the second panic");
        }
    }
    let outcome = process::alone(NAME, &[], || {
        corelane::block_on(async {
            let task: JoinHandle<()> = corelane::spawn_local(async {
                let _worse = Worse;
                panic!("the first panic");
            });
            let _ = task.await;
        });
    });
    if let Some(outcome) = outcome {
        outcome.aborted();
        for text in ["the first panic", "the second panic", "aborting"] {
            assert!(outcome.stderr.contains(text), "{outcome:#?}");
        }
    }
}

#[test]
fn a_shard_that_dies_answers_those_who_wait_for_it() {
    // Nothing that users can do kills a shard, as far as the tests above know. What its end does is what a shutdown
    // does: calls and handles that wait are answered.
    within_reason(|| {
        let runtime: Runtime = shards(2);
        let handle = runtime.handle().clone();
        let peer = handle.clone();
        let waits = handle.submit_to(FIRST, move || async move {
            peer.submit_to(SECOND, || async {
                poll_fn(|_| Poll::<()>::Pending).await;
            })
            .await
        });
        let waiting = thread::spawn(move || wait(waits));
        eventually("the call has arrived", || {
            on(&handle, SECOND, || ());
            stats(&handle, SECOND).tasks > 0
        });
        drop(runtime);
        match waiting.join().expect("no panic") {
            // The second shard went first, or the first did.
            Ok(Err(error)) | Err(error) => assert!(error.is_closed(), "{error}"),
            Ok(Ok(())) => panic!("it cannot have ended"),
        }
    });
}

/// An output that comes back into the runtime when it is dropped.
struct Spawns(Rc<Cell<bool>>);

impl Drop for Spawns {
    fn drop(&mut self) {
        drop(corelane::spawn_local(async {}));
        self.0.set(true);
    }
}

/// Takes its own join handle with it when it is dropped.
struct WaitsForItself {
    own: Rc<RefCell<Option<JoinHandle<Spawns>>>>,
    spawned: Rc<Cell<bool>>,
}

impl Future for WaitsForItself {
    type Output = Spawns;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Spawns> {
        Poll::Ready(Spawns(self.spawned.clone()))
    }
}

impl Drop for WaitsForItself {
    fn drop(&mut self) {
        let mut own = self.own.take().expect("spawned");
        let polled = Pin::new(&mut own).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(Err(error)) if error.is_cancelled()));
    }
}

#[test]
fn an_output_that_nobody_could_take_may_spawn_when_it_is_dropped() {
    within_reason(|| {
        corelane::block_on(async {
            let (own, spawned) = (Rc::default(), Rc::new(Cell::new(false)));
            let task = WaitsForItself { own: Rc::clone(&own), spawned: spawned.clone() };
            own.replace(Some(corelane::spawn_local(task)));
            while !spawned.get() {
                corelane::yield_now().await;
            }
        });
    });
}

#[test]
fn the_panic_of_a_closure_that_is_called_is_counted() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle();
        let call = handle.submit_to(FIRST, || {
            if true {
                panic!("on purpose");
            }
            async {}
        });
        assert!(wait(call).is_err_and(|error| error.is_panic()));
        eventually("it is counted", || stats(handle, FIRST).panics == 1);
    });
}
