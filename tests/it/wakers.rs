//! Wakers that outlive their task, their shard and their runtime, in every order.

use super::harness::*;
use corelane::net::{UdpSocket, UnixStream};
use corelane::{HostedShard, Limits};
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io::Write;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::thread;
use std::time::Duration;

/// The waker of a task on the first shard that never ends.
fn waker_of_a_task(runtime: &corelane::Runtime) -> Waker {
    let (tell, wakers) = mpsc::channel();
    let task = runtime.handle().spawn_on(FIRST, move || {
        poll_fn(move |context| {
            let _ = tell.send(context.waker().clone());
            Poll::<()>::Pending
        })
    });
    drop(task.expect("a shard with room"));
    wakers.recv().expect("polled")
}

fn use_in_every_way(waker: Waker) {
    let another = waker.clone();
    waker.wake_by_ref();
    assert!(waker.will_wake(&another));
    another.wake();
    drop(waker.clone());
    waker.wake();
}

#[test]
fn wakers_do_nothing_after_the_shutdown() {
    within_reason(|| {
        for _ in 0..20 {
            let runtime = shards(1);
            let waker = waker_of_a_task(&runtime);
            drop(runtime);
            use_in_every_way(waker.clone());
            let threads = [0, 1].map(|_| {
                let waker = waker.clone();
                thread::spawn(move || use_in_every_way(waker))
            });
            let [_, _] = threads.map(|thread| thread.join().expect("no panic"));
            // On a shard that is not the task's.
            corelane::block_on(async { use_in_every_way(waker) });
        }
    });
}

/// Uses its waker when it is dropped, which is at the end of the thread.
struct AtThreadEnd(Waker);

impl Drop for AtThreadEnd {
    fn drop(&mut self) {
        use_in_every_way(self.0.clone());
    }
}

thread_local! {
    static AT_THREAD_END: RefCell<Vec<AtThreadEnd>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn wakers_work_in_the_destructors_of_thread_locals() {
    within_reason(|| {
        for runs in [true, false] {
            let runtime = shards(1);
            let waker = waker_of_a_task(&runtime);
            let runtime = runs.then_some(runtime);
            let plain = thread::spawn(move || {
                AT_THREAD_END.with_borrow_mut(|kept| kept.push(AtThreadEnd(waker)));
            });
            plain.join().expect("no panic");
            drop(runtime);
        }
    });
}

/// Uses a waker on a thread that Rust's library did not make, with every signal blocked.
#[allow(unsafe_code)]
fn use_on_a_plain_thread(waker: Waker) {
    extern "C" fn run(waker: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: it was a box, and is given to this thread alone.
        let waker = unsafe { Box::from_raw(waker.cast::<Waker>()) };
        use_in_every_way(*waker);
        std::ptr::null_mut()
    }
    let waker = Box::into_raw(Box::new(waker)).cast();
    // SAFETY: all structures outlive the calls; a thread inherits the mask, which is put back; the thread is joined.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        let mut thread: libc::pthread_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let started = libc::pthread_create(&raw mut thread, std::ptr::null(), run, waker);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        assert_eq!(started, 0);
        assert_eq!(libc::pthread_join(thread, std::ptr::null_mut()), 0);
    }
}

#[test]
fn wakers_work_on_threads_that_rust_did_not_make() {
    within_reason(|| {
        let runtime = shards(1);
        let polls = Arc::new(AtomicUsize::new(0));
        let (tell, wakers) = mpsc::channel();
        let counted = polls.clone();
        let task = runtime.handle().spawn_on(FIRST, move || {
            poll_fn(move |context| {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = tell.send(context.waker().clone());
                Poll::<()>::Pending
            })
        });
        let waker = wakers.recv().expect("polled");
        let before = polls.load(Ordering::SeqCst);
        use_on_a_plain_thread(waker.clone());
        eventually("the task is polled", || polls.load(Ordering::SeqCst) > before);
        drop((task, runtime));
        use_on_a_plain_thread(waker.clone());
        use_on_a_plain_thread(waker);
    });
}

#[test]
fn a_shards_own_thread_may_keep_wakers_to_its_end() {
    within_reason(|| {
        let runtime = shards(2);
        let own = waker_of_a_task(&runtime);
        for shard in [FIRST, SECOND] {
            let own = own.clone();
            on(runtime.handle(), shard, move || {
                AT_THREAD_END.with_borrow_mut(|kept| kept.push(AtThreadEnd(own)));
            });
        }
        assert_eq!(runtime.shutdown(Duration::ZERO).shards_panicked, 0);
    });
}

#[test]
fn wakers_fire_while_the_runtime_is_dropped() {
    const THREADS: usize = 2;
    within_reason(|| {
        for round in 0..60 {
            let runtime = shards(1);
            let wakers: Vec<Waker> = (0..8).map(|_| waker_of_a_task(&runtime)).collect();
            let barrier = Arc::new(Barrier::new(THREADS + 1));
            let over = Arc::new(AtomicBool::new(false));
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (wakers, barrier, over) = (wakers.clone(), barrier.clone(), over.clone());
                    thread::spawn(move || {
                        barrier.wait();
                        while !over.load(Ordering::Relaxed) {
                            for waker in &wakers {
                                use_in_every_way(waker.clone());
                            }
                        }
                        wakers.into_iter().for_each(Waker::wake);
                    })
                })
                .collect();
            drop(wakers);
            barrier.wait();
            if round % 2 == 0 {
                drop(runtime);
            } else {
                runtime.shutdown(Duration::from_micros(200));
            }
            over.store(true, Ordering::Relaxed);
            threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        }
    });
}

#[test]
fn handles_are_dropped_aborted_and_awaited_while_the_runtime_is_dropped() {
    within_reason(|| {
        for round in 0..60 {
            let runtime = shards(2);
            let handle = runtime.handle().clone();
            let tasks: Vec<_> = (0..60)
                .map(|number| {
                    on(&handle, if number % 2 == 0 { FIRST } else { SECOND }, move || {
                        corelane::spawn_local(async move {
                            for _ in 0..number {
                                corelane::yield_now().await;
                            }
                            if number % 3 == 0 {
                                std::future::pending::<()>().await;
                            }
                            Box::new(number)
                        })
                    })
                })
                .collect();
            let barrier = Arc::new(Barrier::new(2));
            let at_the_barrier = barrier.clone();
            let other = thread::spawn(move || {
                at_the_barrier.wait();
                let mut answered = 0;
                for (number, task) in tasks.into_iter().enumerate() {
                    match (number + round) % 3 {
                        0 => drop(task),
                        1 => {
                            task.abort();
                            let _ = wait(task);
                        }
                        _ if number % 3 == 0 => drop(task),
                        _ => answered += usize::from(wait(task).is_ok()),
                    }
                }
                answered
            });
            barrier.wait();
            let _ = runtime.shutdown(Duration::from_micros(100 * (round % 5) as u64));
            let _ = other.join().expect("no panic, no hang");
        }
    });
}

#[test]
fn calls_are_sent_while_the_runtime_is_dropped() {
    within_reason(|| {
        for round in 0..60u64 {
            let runtime = shards_with(2, limits(|limits| limits.inbox_capacity = 4));
            let barrier = Arc::new(Barrier::new(3));
            let threads = [FIRST, SECOND].map(|shard| {
                let (handle, barrier) = (runtime.handle().clone(), barrier.clone());
                thread::spawn(move || {
                    barrier.wait();
                    let mut answers = 0u64;
                    loop {
                        let _ = handle.post(shard, || ());
                        let task = handle.spawn_on(shard, || async { Box::new(1) });
                        match wait(handle.submit_to(shard, || async { Box::new(2) })) {
                            Ok(_) => answers += 1,
                            Err(error) => {
                                assert!(error.is_closed(), "{error}");
                                drop(task);
                                return answers;
                            }
                        }
                    }
                })
            });
            barrier.wait();
            spin(Duration::from_micros(50 * (round % 8)));
            drop(runtime);
            let [_, _] = threads.map(|thread| thread.join().expect("no panic, no hang"));
        }
    });
}

/// What can be done with a task's wakers, at home or elsewhere.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Clone(usize),
    Wake(usize),
    WakeByRef(usize),
    Drop(usize),
    Abort,
    DropHandle,
    MayEnd,
    Turn,
    DropShard,
}

fn deed() -> impl Strategy<Value = Deed> {
    let which = 0..4usize;
    prop_oneof![
        4 => which.clone().prop_map(Deed::Clone),
        4 => which.clone().prop_map(Deed::Wake),
        4 => which.clone().prop_map(Deed::WakeByRef),
        4 => which.prop_map(Deed::Drop),
        1 => Just(Deed::Abort),
        1 => Just(Deed::DropHandle),
        1 => Just(Deed::MayEnd),
        4 => Just(Deed::Turn),
        1 => Just(Deed::DropShard),
    ]
}

/// On which side of the fence: in a turn of the shard, on its thread but outside a turn, on another thread.
#[derive(Clone, Copy, Debug)]
enum Side {
    Home,
    Outside,
    Thread,
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![4 => Just(Side::Home), 4 => Just(Side::Outside), 1 => Just(Side::Thread)]
}

fn at(side: Side, shard: Option<&HostedShard>, f: impl FnOnce() + Send) {
    match (side, shard) {
        (Side::Home, Some(shard)) => shard.enter(f),
        (Side::Thread, _) => {
            thread::scope(|scope| scope.spawn(f).join().expect("no panic"));
        }
        _ => f(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Counts what happens to one task. That no memory is lost is seen by the leak checker, if it is there.
    #[test]
    fn a_task_is_polled_for_its_wakes_and_dropped_once(
        deeds in prop::collection::vec((deed(), side()), 0..60),
        shard_first in any::<bool>(),
    ) {
        let mut shard = Some(HostedShard::new(Limits::default()).expect("a shard"));
        let wakers: Rc<RefCell<Vec<Waker>>> = Rc::default();
        let may_end = Rc::new(Cell::new(false));
        let polls = Rc::new(Cell::new(0));
        let (spy, dropped) = DropSpy::new();
        let future = {
            let (wakers, may_end, polls, spy) = (wakers.clone(), may_end.clone(), polls.clone(), spy.stay());
            poll_fn(move |context| {
                let _spy = &spy;
                polls.set(polls.get() + 1);
                wakers.borrow_mut().push(context.waker().clone());
                if may_end.get() { Poll::Ready(()) } else { Poll::Pending }
            })
        };
        let mut task = shard.as_ref().map(|shard| shard.enter(|| corelane::spawn_local(future)));
        let mut wakes = 1;
        for (deed, side) in deeds {
            let take = |index: usize| {
                let mut wakers = wakers.borrow_mut();
                let length = wakers.len();
                if length == 0 { None } else { Some(wakers.swap_remove(index % length)) }
            };
            let give = |waker: Option<Waker>| wakers.borrow_mut().extend(waker);
            let shard_ref = shard.as_ref();
            match deed {
                Deed::Clone(index) => {
                    let waker = take(index);
                    let mut clone = None;
                    at(side, shard_ref, || clone = waker.clone());
                    give(waker);
                    give(clone);
                }
                Deed::Wake(index) => {
                    let waker = take(index);
                    wakes += usize::from(waker.is_some());
                    at(side, shard_ref, || waker.into_iter().for_each(Waker::wake));
                }
                Deed::WakeByRef(index) => {
                    let waker = take(index);
                    wakes += usize::from(waker.is_some());
                    at(side, shard_ref, || waker.iter().for_each(Waker::wake_by_ref));
                    give(waker);
                }
                Deed::Drop(index) => {
                    let waker = take(index);
                    at(side, shard_ref, || drop(waker));
                }
                Deed::Abort => at(side, shard_ref, || task.iter().for_each(|task| task.abort())),
                Deed::DropHandle => {
                    let handle = task.take();
                    at(side, shard_ref, || drop(handle));
                }
                Deed::MayEnd => may_end.set(true),
                Deed::Turn => {
                    if let Some(shard) = &shard {
                        while shard.turn(Duration::ZERO) {}
                    }
                }
                Deed::DropShard => drop(shard.take()),
            }
            prop_assert!(polls.get() <= wakes, "{} polls for {wakes} wakes", polls.get());
        }
        let rest = std::mem::take(&mut *wakers.borrow_mut());
        if shard_first {
            drop(shard);
            drop(rest);
        } else {
            drop(rest);
            drop(shard);
        }
        drop(task);
        prop_assert!(dropped.is_dropped());
        prop_assert!(!dropped.is_dropped(), "it was dropped twice");
        prop_assert!(Rc::strong_count(&polls) == 1);
        // A poll in the last turn may have left another waker.
        let _ = std::mem::take(&mut *wakers.borrow_mut());
    }
}

thread_local! {
    /// What a [`reentrant`] waker does when it is cloned, once.
    static AT_CLONE: Cell<Option<fn()>> = const { Cell::new(None) };
    /// Whether one of them was woken.
    static WOKEN: Cell<bool> = const { Cell::new(false) };
}

/// A waker that comes back into the runtime when it is cloned.
#[allow(unsafe_code)]
fn reentrant() -> Waker {
    fn raw(data: *const ()) -> RawWaker {
        RawWaker::new(data, &VTABLE)
    }
    fn clone(data: *const ()) -> RawWaker {
        if let Some(deed) = AT_CLONE.take() {
            deed();
        }
        raw(data)
    }
    static VTABLE: RawWakerVTable =
        RawWakerVTable::new(clone, |_| WOKEN.set(true), |_| WOKEN.set(true), |_| {});
    // SAFETY: the functions look at no data and touch nothing of another thread's.
    unsafe { Waker::from_raw(raw(std::ptr::null())) }
}

/// Polls a future twice with different wakers; cloning the second of them does it as well, to another such future.
fn clones_while_polling<F: Future + 'static>(make: fn() -> F) {
    fn poll<F: Future>(future: Pin<&mut F>, waker: &Waker) {
        assert!(future.poll(&mut Context::from_waker(waker)).is_pending());
    }
    fn twice<F: Future>(make: fn() -> F, waker: &Waker) {
        let mut future = pin!(make());
        poll(future.as_mut(), Waker::noop());
        poll(future.as_mut(), waker);
    }
    thread_local! { static INNER: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) } }
    INNER.set(Some(Box::new(move || twice(make, Waker::noop()))));
    AT_CLONE.set(Some(|| INNER.with_borrow(|inner| inner.as_ref().expect("set")())));
    twice(make, &reentrant());
    assert!(AT_CLONE.take().is_none(), "the waker was not cloned");
}

#[test]
fn cloning_a_waker_may_come_back_into_the_runtime() {
    within_reason(|| {
        corelane::block_on(async {
            clones_while_polling(|| corelane::time::sleep(Duration::from_secs(3600)));
            clones_while_polling(|| async {
                let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
                socket.readable().await
            });
            clones_while_polling(|| async {
                let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
                poll_fn(|cx| socket.poll_recv_ready(cx)).await
            });
        });
        // Room in a full inbox.
        let mut limits = Limits::default();
        limits.inbox_capacity = 1;
        let runtime = HostedShard::new(limits).expect("a shard");
        runtime.handle().post(FIRST, || ()).expect("it is empty");
        thread_local! { static HANDLE: RefCell<Option<corelane::Handle>> = const { RefCell::new(None) } }
        HANDLE.set(Some(runtime.handle()));
        clones_while_polling(|| async {
            let handle = HANDLE.with_borrow(|handle| handle.clone().expect("set"));
            handle.submit_to(FIRST, || async {}).await
        });
    });
}

thread_local! {
    /// What [`turn_while_cloning`] turns.
    static SHARD: RefCell<Option<Rc<HostedShard>>> = const { RefCell::new(None) };
    static PEER: RefCell<Option<std::os::unix::net::UnixStream>> = const { RefCell::new(None) };
}

/// Polls `future` with a waker that does `deed` when it is cloned. True: it is ready, or has been woken.
fn is_told_of(deed: fn(), shard: Rc<HostedShard>, future: Pin<&mut impl Future>) -> bool {
    SHARD.set(Some(shard.clone()));
    AT_CLONE.set(Some(deed));
    WOKEN.set(false);
    let waker = reentrant();
    let polled = shard.enter(|| future.poll(&mut Context::from_waker(&waker)));
    assert!(AT_CLONE.take().is_none(), "the waker was not cloned");
    for _ in 0..20 {
        shard.turn(Duration::ZERO);
    }
    SHARD.take();
    polled.is_ready() || WOKEN.get()
}

/// What happened comes to the shard while a waker is being cloned.
fn turn_while_cloning() {
    let shard = SHARD.with_borrow(|shard| shard.clone().expect("set"));
    for _ in 0..20 {
        shard.turn(Duration::ZERO);
    }
}

#[test]
fn bytes_that_come_while_a_waker_is_cloned_wake_it() {
    within_reason(|| {
        let shard = Rc::new(HostedShard::new(Limits::default()).expect("a shard"));
        let (peer, ours) = std::os::unix::net::UnixStream::pair().expect("a pair");
        PEER.set(Some(peer));
        let stream = UnixStream::from_std(ours).expect("a stream");
        let _ = stream.try_read(&mut [0]).expect_err("nothing is there");
        let write = || {
            PEER.take().expect("set").write_all(b"x").expect("there is room");
            turn_while_cloning();
        };
        assert!(is_told_of(write, shard, pin!(stream.readable())));
    });
}

#[test]
fn a_shutdown_that_is_requested_while_a_waker_is_cloned_wakes_it() {
    within_reason(|| {
        let shard = Rc::new(HostedShard::new(Limits::default()).expect("a shard"));
        // It does not stop while there is a task.
        drop(shard.enter(|| corelane::spawn_local(pending::<()>())));
        let request_shutdown = || {
            let handle = SHARD.with_borrow(|shard| shard.as_ref().expect("set").handle());
            handle.request_shutdown(Duration::MAX);
            turn_while_cloning();
        };
        assert!(is_told_of(request_shutdown, shard, pin!(corelane::shutdown_requested())));
    });
}
