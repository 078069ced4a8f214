//! A shard in somebody else's event loop.

use super::harness::*;
use corelane::time::{Duration, Instant, sleep};
use corelane::{Handle, HostedShard, Limits};
use futures::{AsyncReadExt, AsyncWriteExt};
use hyper::rt::Write as _;
use std::cell::RefCell;
use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until an fd is readable or the time is over. True: it is readable.
#[allow(unsafe_code)]
fn wait_readable(fd: RawFd, timeout: Option<Duration>) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let millis = timeout.map_or(-1, |timeout| timeout.as_millis() as libc::c_int + 1);
    // SAFETY: one entry, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut entry, 1, millis) };
    assert!(ready >= 0, "{}", std::io::Error::last_os_error());
    ready > 0
}

/// A host's loop: the shard has an fd among others, here none. Returns how often it waited.
fn drive(shard: &HostedShard, mut over: impl FnMut() -> bool) -> u64 {
    let began = Instant::now();
    let mut waits = 0;
    while !over() {
        assert!(began.elapsed() < HANGS_AFTER / 2, "the host waits in vain");
        if shard.turn(Duration::ZERO) {
            continue;
        }
        if over() {
            break;
        }
        if shard.prepare_to_wait() {
            waits += 1;
            let left = shard.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
            // At most a while: a wake-up that is lost must not look like one that came.
            if !wait_readable(shard.as_raw_fd(), left) && left.is_none() {
                unreachable!("poll without a timeout");
            }
        }
    }
    waits
}

fn hosted() -> HostedShard {
    HostedShard::new(Limits::default()).expect("a shard")
}

#[test]
fn a_hosted_shard_is_shard_zero_of_a_runtime_of_one() {
    let shard = hosted();
    let handle = shard.handle();
    assert_eq!(handle.shard_count(), 1);
    assert_eq!(shard.enter(corelane::ShardId::current), Some(FIRST));
    assert_eq!(shard.enter(|| Handle::current().shard_count()), 1);
    assert_eq!(corelane::ShardId::current(), None, "only in a turn, or inside enter");
    let _ = format!("{shard:?}");
}

#[test]
fn a_turn_runs_what_is_ready_and_says_whether_there_is_more() {
    let shard = hosted();
    assert!(!shard.turn(Duration::ZERO));
    let task = shard.enter(|| {
        corelane::spawn_local(async {
            for _ in 0..1_000 {
                corelane::yield_now().await;
            }
            5
        })
    });
    let mut turns = 0;
    while shard.turn(Duration::ZERO) {
        turns += 1;
    }
    assert!(turns >= 1_000 / 61, "{turns} turns");
    assert!(task.is_finished());
    let output = shard.enter(|| wait_ready(task));
    assert_eq!(output, 5);
}

/// The output of a task that has ended, at its home.
fn wait_ready<T: 'static>(mut task: corelane::JoinHandle<T>) -> T {
    match poll_once(&mut task) {
        std::task::Poll::Ready(output) => output.expect("no panic"),
        std::task::Poll::Pending => panic!("it has ended"),
    }
}

#[test]
fn timers_of_a_hosted_shard_fire_on_time() {
    within_reason(|| {
        let shard = hosted();
        let began = Instant::now();
        let tasks: Vec<_> = shard.enter(|| {
            (0..50).map(|n| corelane::spawn_local(sleep(Duration::from_millis(n * 3)))).collect()
        });
        let waits = drive(&shard, || tasks.iter().all(|task| task.is_finished()));
        assert!(began.elapsed() >= Duration::from_millis(49 * 3));
        // A few per timer at most: it waits, and does not spin.
        assert!(waits <= 400, "{waits} waits for 50 timers");
    });
}

#[test]
fn other_threads_wake_a_host_through_the_fd() {
    const CALLS: u64 = 2_000;
    within_reason(|| {
        let shard = hosted();
        let handle = shard.handle();
        let answered = Arc::new(AtomicU64::new(0));
        let counted = answered.clone();
        let other = thread::spawn(move || {
            let mut random = Random::new();
            for number in 0..CALLS {
                let answer = handle.submit_to(FIRST, move || async move {
                    corelane::yield_now().await;
                    number
                });
                assert_eq!(wait(answer).expect("answered"), number);
                counted.fetch_add(1, Ordering::SeqCst);
                spin(Duration::from_nanos(random.below(60_000)));
            }
            // The host must hear of the end too.
            let _ = handle.post(FIRST, || ());
        });
        // No timers, no sockets: nothing but the fd can end the wait.
        drive(&shard, || answered.load(Ordering::SeqCst) == CALLS);
        other.join().expect("no panic");
        shard.turn(Duration::ZERO);
        assert!(!shard.turn(Duration::ZERO));
        let stats = shard.handle().stats()[0];
        assert!(stats.eventfd_writes <= stats.parks, "{stats:#?}");
    });
}

#[test]
fn foreign_wakes_of_a_task_reach_a_host_that_waits() {
    within_reason(|| {
        let shard = hosted();
        let (ping, mut pings) = futures::channel::mpsc::unbounded::<u32>();
        let (pong, pongs) = std::sync::mpsc::channel();
        let task = shard.enter(|| {
            corelane::spawn_local(async move {
                use futures::StreamExt;
                while let Some(number) = pings.next().await {
                    let _ = pong.send(number);
                }
            })
        });
        let other = thread::spawn(move || {
            for number in 0..2_000 {
                ping.unbounded_send(number).expect("the task listens");
                assert_eq!(pongs.recv(), Ok(number));
            }
        });
        drive(&shard, || task.is_finished());
        other.join().expect("no panic");
    });
}

#[test]
fn sockets_of_a_hosted_shard_make_the_fd_readable() {
    within_reason(|| {
        let shard = hosted();
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let echo = shard.enter(|| {
            let mut stream = corelane::net::UnixStream::from_std(theirs).expect("a stream");
            corelane::spawn_local(async move {
                let mut buf = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut buf).await {
                    stream.write_all(&buf[..count]).await.expect("written");
                }
            })
        });
        let other = thread::spawn(move || {
            for _ in 0..500 {
                ours.write_all(b"ping").expect("written");
                ours.read_exact(&mut [0; 4]).expect("echoed");
            }
        });
        drive(&shard, || echo.is_finished());
        other.join().expect("no panic");
    });
}

#[test]
fn a_waker_of_the_host_may_turn_the_shard_that_wakes_it() {
    thread_local! {
        static SHARD: RefCell<Option<Rc<HostedShard>>> = const { RefCell::new(None) };
    }
    struct Turns;
    impl Wake for Turns {
        fn wake(self: Arc<Self>) {
            if let Some(shard) = SHARD.with_borrow(Clone::clone) {
                shard.turn(Duration::ZERO);
            }
        }
    }
    within_reason(|| {
        let shard = Rc::new(hosted());
        SHARD.set(Some(shard.clone()));
        let waker = Waker::from(Arc::new(Turns));
        let mut context = Context::from_waker(&waker);
        let mut peers = Vec::new();
        let mut reads: Vec<_> = (0..10)
            .map(|_| {
                let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
                peers.push(ours);
                let mut stream =
                    shard.enter(|| corelane::net::UnixStream::from_std(theirs).expect("a stream"));
                Box::pin(async move {
                    let mut buf = [0; 8];
                    stream.read(&mut buf).await.expect("read")
                })
            })
            .collect();
        let mut poll_all = || {
            reads.retain_mut(|read| shard.enter(|| read.as_mut().poll(&mut context)).is_pending());
            reads.len()
        };
        assert_eq!(poll_all(), 10);
        peers.iter_mut().for_each(|peer| peer.write_all(b"x").expect("written"));
        while poll_all() > 0 {
            shard.turn(Duration::from_millis(1));
        }
        assert_eq!(shard.handle().stats()[0].panics, 0);
        SHARD.take();
    });
}

#[test]
fn a_host_that_found_something_after_all_does_not_wait() {
    let shard = hosted();
    while shard.turn(Duration::ZERO) {}
    shard.handle().post(FIRST, || ()).expect("room");
    assert!(!shard.prepare_to_wait(), "a message is there");
    while shard.turn(Duration::ZERO) {}
    assert!(shard.prepare_to_wait());
    shard.handle().post(FIRST, || ()).expect("room");
    assert!(wait_readable(shard.as_raw_fd(), Some(Duration::from_secs(30))), "the bell has rung");
    shard.turn(Duration::ZERO);
    // Something ready on the shard itself.
    let task = shard.enter(|| corelane::spawn_local(async {}));
    assert!(!shard.prepare_to_wait());
    shard.turn(Duration::ZERO);
    assert!(task.is_finished());
}

#[test]
fn a_turn_with_a_timeout_waits_no_longer_and_ends_early_if_something_comes() {
    within_reason(|| {
        let shard = hosted();
        let began = Instant::now();
        shard.turn(Duration::from_millis(20));
        assert!(
            began.elapsed() >= Duration::from_millis(19),
            "nothing came: {:?}",
            began.elapsed()
        );
        let handle = shard.handle();
        let came = Arc::new(AtomicBool::new(false));
        let tell = came.clone();
        let other = thread::spawn(move || {
            handle.post(FIRST, move || tell.store(true, Ordering::SeqCst)).expect("room");
        });
        // A turn does what there is to do and then waits, so what it did is seen when it has waited.
        while !came.load(Ordering::SeqCst) {
            shard.turn(Duration::from_millis(5));
        }
        other.join().expect("no panic");
        // Now nothing has been left over: a message ends the wait.
        while shard.turn(Duration::ZERO) {}
        let handle = shard.handle();
        let (tell, told) = std::sync::mpsc::channel();
        let parks = handle.stats()[0].parks;
        let other = thread::spawn(move || {
            // When the shard waits, or is about to: a message that comes before is done before it waits.
            eventually("the shard waits", || handle.stats()[0].parks > parks);
            handle.post(FIRST, move || tell.send(()).expect("somebody listens")).expect("room");
        });
        let began = Instant::now();
        shard.turn(HANGS_AFTER);
        assert!(began.elapsed() < HANGS_AFTER / 2, "the message did not end the wait");
        shard.turn(Duration::ZERO);
        told.recv().expect("it came");
        other.join().expect("no panic");
    });
}

#[allow(unsafe_code)]
fn readable_fd(shard: &HostedShard) -> AsyncFd<RawFd> {
    // SAFETY: the shard outlives this test's use of the fd, which is only looked at.
    let fd = unsafe { AsyncFd::register_with_interest(shard.as_raw_fd(), Interest::READABLE) };
    fd.unwrap_or_else(|_| panic!("Tokio takes it"))
}

#[test]
fn tokio_can_host_a_shard() {
    within_reason(|| {
        let tokio =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("Tokio");
        let shard = hosted();
        let handle = shard.handle();
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        tokio.block_on(async {
            let fd = readable_fd(&shard);
            let work = shard.enter(|| {
                let mut stream = corelane::net::UnixStream::from_std(theirs).expect("a stream");
                corelane::spawn_local(async move {
                    let mut buf = [0; 16];
                    for _ in 0..300 {
                        stream.read_exact(&mut buf[..4]).await.expect("read");
                        sleep(Duration::from_millis(1)).await;
                        stream.write_all(&buf[..4]).await.expect("written");
                    }
                })
            });
            let other = thread::spawn(move || {
                for number in 0..300 {
                    ours.write_all(b"ping").expect("written");
                    let answer = handle.submit_to(FIRST, move || async move { number });
                    assert_eq!(wait(answer).expect("answered"), number);
                    ours.read_exact(&mut [0; 4]).expect("echoed");
                }
            });
            loop {
                let more = shard.turn(Duration::ZERO);
                if work.is_finished() {
                    break;
                }
                if more || !shard.prepare_to_wait() {
                    tokio::task::yield_now().await;
                    continue;
                }
                let deadline = shard.next_deadline().map(tokio::time::Instant::from_std);
                let timer = async {
                    match deadline {
                        Some(deadline) => tokio::time::sleep_until(deadline).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    ready = fd.readable() => ready.expect("polled").clear_ready(),
                    () = timer => {}
                }
            }
            other.join().expect("no panic");
        });
    });
}

#[test]
fn a_hosted_shard_hears_of_a_shutdown_and_closes_when_it_is_dropped() {
    let shard = hosted();
    let handle = shard.handle();
    let task = shard.enter(|| corelane::spawn_local(corelane::shutdown_requested()));
    shard.turn(Duration::ZERO);
    assert!(!task.is_finished());
    handle.request_shutdown(Duration::from_secs(100));
    while shard.turn(Duration::ZERO) {}
    assert!(task.is_finished(), "tasks hear of it");
    drop(shard);
    assert!(handle.post(FIRST, || ()).is_err());
    assert!(wait(handle.submit_to(FIRST, || async {})).expect_err("gone").is_closed());
}

#[test]
fn a_hosted_shard_stops_when_its_last_task_has_ended() {
    let shard = hosted();
    let handle = shard.handle();
    let task = shard.enter(|| corelane::spawn_local(corelane::yield_now()));
    handle.request_shutdown(Duration::MAX);
    while shard.turn(Duration::ZERO) {}
    assert!(task.is_finished() && shard.is_stopped());
    assert!(handle.post(FIRST, || ()).is_err(), "it takes no more");
    // A host that has not noticed does not spin: a turn takes its time, and nothing is due.
    assert_eq!(shard.next_deadline(), None);
    assert!(shard.prepare_to_wait());
    let began = Instant::now();
    assert!(!shard.turn(Duration::from_millis(30)));
    assert!(began.elapsed() >= Duration::from_millis(29), "{:?}", began.elapsed());
    assert!(!wait_readable(shard.as_raw_fd(), Some(Duration::ZERO)));
    let late = shard.enter(|| corelane::spawn_local(async {}));
    assert!(!shard.turn(Duration::ZERO));
    assert!(late.is_finished(), "it was cancelled");
}

#[test]
fn a_hosted_shard_stops_at_the_deadline_of_its_shutdown() {
    within_reason(|| {
        const PATIENCE: Duration = Duration::from_millis(30);
        let shard = hosted();
        let (spy, dropped) = DropSpy::new();
        let task = shard.enter(|| {
            corelane::spawn_local(async move {
                let _spy = spy;
                std::future::pending::<()>().await;
            })
        });
        let began = Instant::now();
        shard.handle().request_shutdown(PATIENCE);
        let waits = drive(&shard, || shard.is_stopped());
        assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
        assert!(waits <= 20, "it was waited for, not spun for: {waits} waits");
        assert!(task.is_finished() && dropped.is_dropped());
    });
}

#[test]
fn two_hosted_shards_on_one_thread_take_turns() {
    within_reason(|| {
        let (first, second) = (hosted(), hosted());
        let (there, back) = (second.handle(), first.handle());
        let task = first.enter(|| {
            corelane::spawn_local(async move {
                let mut sum = 0;
                for number in 0..100 {
                    let back = back.clone();
                    let nested = there.submit_to(FIRST, move || async move {
                        back.submit_to(FIRST, move || async move { number })
                            .await
                            .expect("answered")
                    });
                    sum += nested.await.expect("answered");
                }
                sum
            })
        });
        while !task.is_finished() {
            first.turn(Duration::ZERO);
            second.turn(Duration::ZERO);
        }
        assert_eq!(first.enter(|| wait_ready(task)), 4950);
    });
}

#[test]
fn what_is_written_for_hyper_outside_a_task_is_sent() {
    within_reason(|| {
        let shard = hosted();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut peer = std::net::TcpStream::connect(address).expect("connected");
        let (accepted, _) = listener.accept().expect("connected");
        accepted.set_nonblocking(true).expect("set");
        let io = shard.enter(|| {
            corelane::spawn_local(async move {
                let stream = corelane::net::TcpStream::from_std(accepted).expect("a socket");
                // Registered, as a connection is that has waited for its first request.
                stream.writable().await.expect("there is room");
                corelane::http::Io::new(stream)
            })
        });
        let mut io = {
            let mut io = std::pin::pin!(io);
            let mut result = None;
            let mut context = Context::from_waker(Waker::noop());
            drive(&shard, || {
                if result.is_none()
                    && let Poll::Ready(done) = shard.enter(|| io.as_mut().poll(&mut context))
                {
                    result = Some(done.expect("no panic"));
                }
                result.is_some()
            });
            result.expect("it is ready")
        };
        shard.enter(|| {
            let mut context = Context::from_waker(Waker::noop());
            for word in [&b"hello "[..], b"big ", b"world"] {
                let written = std::pin::Pin::new(&mut io).poll_write(&mut context, word);
                assert!(matches!(written, Poll::Ready(Ok(count)) if count == word.len()));
            }
        });
        let mut read = [0; 15];
        peer.read_exact(&mut read).expect("it was sent");
        assert_eq!(&read, b"hello big world");
    });
}

#[test]
fn a_shard_that_is_turned_below_its_own_task_is_not_closed_there_though_another_is_between() {
    let shard = std::rc::Rc::new(HostedShard::new(Limits::default()).expect("a shard"));
    let between = std::rc::Rc::new(HostedShard::new(Limits::default()).expect("a shard"));
    let (inner, outer) = (shard.clone(), between);
    let ended = std::rc::Rc::new(std::cell::Cell::new(false));
    let end = ended.clone();
    drop(shard.enter(|| {
        corelane::spawn_local(async move {
            let kept = String::from("of the future");
            inner.handle().request_shutdown(Duration::ZERO);
            for _ in 0..3 {
                outer.enter(|| inner.turn(Duration::ZERO));
            }
            assert!(!inner.is_stopped());
            end.set(kept == "of the future");
        })
    }));
    for _ in 0..5 {
        shard.turn(Duration::ZERO);
    }
    assert!(shard.is_stopped());
    assert!(ended.get(), "it ran to its end");
}

/// A task that wakes itself and then takes a turn of its shard, in which it would be polled within its own poll.
fn is_refused_a_turn(shard: &Rc<HostedShard>) -> corelane::JoinHandle<()> {
    let inner = shard.clone();
    let mut polls = 0;
    shard.enter(|| {
        corelane::spawn_local(std::future::poll_fn(move |context| {
            polls += 1;
            if polls > 1 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            let turn = std::panic::AssertUnwindSafe(|| inner.turn(Duration::ZERO));
            assert!(std::panic::catch_unwind(turn).is_err(), "it must not be polled in its poll");
            Poll::Pending
        }))
    })
}

#[test]
fn a_task_that_is_refused_a_turn_keeps_its_wake() {
    let shard = Rc::new(hosted());
    let task = is_refused_a_turn(&shard);
    drive(&shard, || task.is_finished());
}

#[test]
fn a_turn_that_is_refused_leaves_the_turn_around_it_its_shares() {
    let shard = Rc::new(hosted());
    // Polls of the turn that is to be refused one.
    shard.enter(|| (0..15).for_each(|_| drop(corelane::spawn_local(async {}))));
    let task = is_refused_a_turn(&shard);
    drive(&shard, || task.is_finished());
    assert!(!shard.turn(Duration::ZERO));
    let polls = shard.handle().stats()[0].polls;
    assert!(polls <= 15 + 3, "{polls} polls of 16 tasks, one of which was polled twice");
}

#[test]
fn a_shard_that_has_finished_below_a_task_does_not_wait_for_its_deadline() {
    let shard = hosted();
    shard.handle().request_shutdown(Duration::from_secs(3600));
    shard.enter(|| {
        shard.turn(Duration::ZERO);
    });
    assert!(!shard.is_stopped() && !shard.prepare_to_wait(), "it has nothing to wait for");
    assert!(shard.next_deadline().is_some_and(|deadline| deadline <= Instant::now()));
    drive(&shard, || shard.is_stopped());
}

/// A waker of the host that writes when a socket is ready, as an executor does that polls where it is woken.
#[test]
fn what_a_waker_has_written_is_sent_before_the_host_waits() {
    struct Answers(std::sync::Mutex<corelane::http::Io<corelane::net::TcpStream>>);
    impl Answers {
        fn poll(self: &Arc<Self>) {
            let waker = Waker::from(self.clone());
            let mut context = Context::from_waker(&waker);
            let mut io = self.0.lock().expect("unpoisoned");
            let mut bytes = [0; 16];
            let mut buffer = hyper::rt::ReadBuf::new(&mut bytes);
            let read = hyper::rt::Read::poll_read(
                std::pin::Pin::new(&mut *io),
                &mut context,
                buffer.unfilled(),
            );
            if read.is_ready() {
                for part in [b"1", b"2", b"3"] {
                    assert!(std::pin::Pin::new(&mut *io).poll_write(&mut context, part).is_ready());
                }
            }
        }
    }
    impl Wake for Answers {
        fn wake(self: Arc<Self>) {
            self.poll();
        }
    }
    let shard = hosted();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut peer =
        std::net::TcpStream::connect(listener.local_addr().expect("asked")).expect("it listens");
    let (ours, _) = listener.accept().expect("it has come");
    let answers = shard.enter(|| {
        let io = corelane::http::Io::new(corelane::net::TcpStream::from_std(ours).expect("one"));
        Arc::new(Answers(std::sync::Mutex::new(io)))
    });
    shard.enter(|| answers.poll());
    while shard.turn(Duration::ZERO) {}
    shard.turn(Duration::ZERO);
    peer.set_read_timeout(Some(HANGS_AFTER / 2)).expect("a socket");
    let (over, handle) = (Arc::new(AtomicBool::new(false)), shard.handle());
    let ends = over.clone();
    let asks = thread::spawn(move || {
        peer.write_all(b"?").expect("sent");
        let mut answer = [0; 3];
        let read = peer.read_exact(&mut answer);
        ends.store(true, Ordering::Relaxed);
        // The host waits for nothing else.
        handle.post(corelane::ShardId::new(0), || ()).expect("room");
        read.map(|()| answer)
    });
    drive(&shard, || over.load(Ordering::Relaxed));
    assert_eq!(&asks.join().expect("no panic").expect("answered"), b"123");
}
