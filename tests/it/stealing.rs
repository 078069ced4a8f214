//! Work-stealing mode: tasks that any worker runs, with the sockets and timers that all share.

mod counts;
mod ends;
mod held_up;
mod stress;

use super::harness::*;
use corelane::net::{TcpListener, TcpStream, UdpSocket};
use corelane::time::{Duration, Instant, sleep, timeout};
use corelane::{Handle, JoinHandle, Mode, Runtime, spawn, spawn_local, yield_now};
use futures::{AsyncReadExt, AsyncWriteExt};
use std::collections::HashSet;
use std::future::{Future, pending};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread::{self, ThreadId};

fn workers(count: usize) -> Runtime {
    start(count, Runtime::builder().mode(Mode::WorkStealing)).expect("started")
}

/// Runs a stealable task to its end, from outside.
fn run<F>(handle: &Handle, future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let task =
        handle.submit_to(FIRST, move || async move { spawn(future).await.expect("no panic") });
    wait(task).expect("no panic")
}

#[test]
fn each_task_runs_once_and_both_workers_take_part() {
    within_reason(|| {
        let runtime = workers(2);
        assert_eq!(runtime.handle().mode(), Mode::WorkStealing);
        let runs: Arc<Vec<AtomicUsize>> =
            Arc::new((0..2_000).map(|_| AtomicUsize::new(0)).collect());
        let threads = Arc::new(Mutex::new(HashSet::<ThreadId>::new()));
        let (counts, seen) = (runs.clone(), threads.clone());
        let sum = run(runtime.handle(), async move {
            let tasks: Vec<JoinHandle<usize>> = (0..2_000)
                .map(|number| {
                    let (counts, seen) = (counts.clone(), seen.clone());
                    spawn(async move {
                        counts[number].fetch_add(1, Ordering::Relaxed);
                        spin(Duration::from_micros(20));
                        yield_now().await;
                        seen.lock().expect("unpoisoned").insert(thread::current().id());
                        number
                    })
                })
                .collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.expect("no panic");
            }
            sum
        });
        assert_eq!(sum, 1_999_000);
        assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
        assert_eq!(threads.lock().expect("unpoisoned").len(), 2, "one worker did it all");
        assert!(runtime.handle().stats().iter().map(|stats| stats.steals).sum::<u64>() > 0);
    });
}

/// Blocks a worker, thread and all, and says how long the others took for `tasks` meanwhile.
fn while_a_worker_is_blocked(held_by_wake: bool) {
    within_reason(move || {
        let runtime = workers(2);
        let (done, all_done) = mpsc::channel();
        let (unblock, blocked) = mpsc::channel::<()>();
        drop(runtime.handle().spawn_on(FIRST, move || async move {
            drop(spawn(async move {
                if held_by_wake {
                    // Waits until it is woken, and then has the place of the task that comes next.
                    let (wake, woken) = futures::channel::oneshot::channel::<()>();
                    let (waiting, waits) = futures::channel::oneshot::channel::<()>();
                    let tell = done.clone();
                    let (mut waiting, mut woken) = (Some(waiting), woken);
                    drop(spawn(async move {
                        std::future::poll_fn(|context| {
                            let polled = std::pin::Pin::new(&mut woken).poll(context);
                            if let Some(waiting) = waiting.take() {
                                assert!(polled.is_pending());
                                waiting.send(()).expect("somebody waits");
                            }
                            polled
                        })
                        .await
                        .expect("woken");
                        tell.send(()).expect("somebody listens");
                    }));
                    waits.await.expect("it waits");
                    wake.send(()).expect("it waits");
                } else {
                    for _ in 0..100 {
                        let done = done.clone();
                        drop(spawn(async move { done.send(()).expect("somebody listens") }));
                    }
                }
                // As a task that must not does.
                let _ = blocked.recv_timeout(HANGS_AFTER);
            }));
        }));
        for _ in 0..if held_by_wake { 1 } else { 100 } {
            all_done.recv_timeout(HANGS_AFTER / 2).expect("the other worker takes over");
        }
        drop(unblock);
    });
}

#[test]
fn the_tasks_of_a_blocked_worker_are_run_by_another() {
    while_a_worker_is_blocked(false);
}

#[test]
fn a_task_that_a_blocked_one_has_woken_is_rescued() {
    while_a_worker_is_blocked(true);
}

#[test]
fn sockets_and_timers_go_on_while_a_worker_is_blocked() {
    within_reason(|| {
        let runtime = workers(2);
        let (listening, address) = mpsc::channel();
        drop(runtime.handle().spawn_on(FIRST, move || async move {
            drop(spawn(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                listening.send(listener.local_addr().expect("an address")).expect("told");
                loop {
                    let (stream, _) = listener.accept().await.expect("a peer");
                    drop(spawn(echo(stream)));
                }
            }));
        }));
        let address = address.recv().expect("it listens");
        let mut client = std::net::TcpStream::connect(address).expect("it listens");
        let mut ping = || {
            client.write_all(b"ping").expect("written");
            client.read_exact(&mut [0; 4]).expect("echoed");
        };
        ping();
        for shard in [FIRST, SECOND] {
            let gate = Gate::close(runtime.handle(), shard);
            let other = if shard == FIRST { SECOND } else { FIRST };
            for _ in 0..20 {
                ping();
                wait(runtime.handle().submit_to(other, || sleep(Duration::from_millis(2))))
                    .expect("no panic");
            }
            gate.open();
        }
    });
}

async fn echo(mut stream: TcpStream) {
    let mut buf = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buf).await {
        stream.write_all(&buf[..count]).await.expect("written");
    }
}

#[test]
fn many_connections_are_echoed_by_tasks_that_wander() {
    const CLIENTS: usize = 40;
    const ROUNDS: usize = 50;
    within_reason(|| {
        let runtime = workers(2);
        let (listening, address) = mpsc::channel();
        drop(runtime.handle().spawn_on(SECOND, move || async move {
            drop(spawn(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                listening.send(listener.local_addr().expect("an address")).expect("told");
                for _ in 0..CLIENTS {
                    let (stream, _) = listener.accept().await.expect("a peer");
                    drop(spawn(echo(stream)));
                }
            }));
        }));
        let address = address.recv().expect("it listens");
        // Half of the clients are tasks of the pool, half are threads.
        let threads: Vec<_> = (0..CLIENTS / 2)
            .map(|number| {
                thread::spawn(move || {
                    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
                    for round in 0..ROUNDS {
                        let sent = [(number + round) as u8; 700];
                        stream.write_all(&sent).expect("written");
                        let mut got = [0; 700];
                        stream.read_exact(&mut got).expect("echoed");
                        assert_eq!(got, sent);
                    }
                })
            })
            .collect();
        run(runtime.handle(), async move {
            let tasks: Vec<_> = (0..CLIENTS / 2)
                .map(|number| {
                    spawn(async move {
                        let mut stream = TcpStream::connect(address).await.expect("it listens");
                        for round in 0..ROUNDS {
                            let sent = [(number + round) as u8; 700];
                            stream.write_all(&sent).await.expect("written");
                            let mut got = [0; 700];
                            stream.read_exact(&mut got).await.expect("echoed");
                            assert_eq!(got, sent);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic");
            }
        });
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
}

#[test]
fn timers_fire_once_and_never_early() {
    within_reason(|| {
        let runtime = workers(2);
        run(runtime.handle(), async {
            let tasks: Vec<_> = (0..500u64)
                .map(|number| {
                    spawn(async move {
                        let (began, wanted) = (Instant::now(), Duration::from_millis(number % 40));
                        sleep(wanted).await;
                        assert!(began.elapsed() >= wanted);
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic");
            }
            assert!(timeout(Duration::from_millis(5), pending::<()>()).await.is_err());
        });
        // A timer that comes before those that a sleeping worker knows of.
        let began = Instant::now();
        run(runtime.handle(), async {
            let late = spawn(sleep(Duration::from_secs(3600)));
            sleep(Duration::from_millis(30)).await;
            spawn(sleep(Duration::from_millis(10))).await.expect("no panic");
            late.abort();
            assert!(late.await.expect_err("aborted").is_cancelled());
        });
        assert!(began.elapsed() < HANGS_AFTER);
    });
}

#[test]
fn a_timer_and_a_socket_of_the_pool_are_polled_elsewhere() {
    within_reason(|| {
        let runtime = workers(2);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let (mut stream, timer) = run(runtime.handle(), async move {
            let mut stream = corelane::net::UnixStream::from_std(theirs).expect("a stream");
            stream.writable().await.expect("writable");
            assert!(timeout(Duration::from_millis(1), stream.read(&mut [0; 8])).await.is_err());
            let mut timer = Box::pin(sleep(Duration::from_millis(50)));
            assert!(poll_once(&mut timer).is_pending());
            (stream, timer)
        });
        let writer = thread::spawn(move || (&ours).write_all(b"hello").expect("written"));
        // A guest shard, then a thread that is no shard at all.
        assert_eq!(wait(stream.read(&mut [0; 8])).expect("read"), 5);
        writer.join().expect("no panic");
        futures::executor::block_on(timer);
        let end = futures::executor::block_on(stream.read(&mut [0; 8]));
        assert_eq!(end.expect("the end"), 0);
        // Without its runtime the socket says so, and can be taken out.
        drop(runtime);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let runtime = workers(1);
        let mut stream = run(runtime.handle(), async move {
            let stream = corelane::net::UnixStream::from_std(theirs).expect("a stream");
            stream.writable().await.expect("writable");
            stream
        });
        drop(runtime);
        let error = wait(stream.read(&mut [0; 8])).expect_err("nobody watches it");
        assert!(error.to_string().contains("has shut down"), "{error}");
        (&ours).write_all(b"still there").expect("written");
        let mut std = stream.into_std().expect("the socket");
        std.set_nonblocking(false).expect("set");
        std.read_exact(&mut [0; 11]).expect("read");
    });
}

#[test]
fn panics_and_aborts_reach_the_handle() {
    within_reason(|| {
        let runtime = workers(2);
        let dropped = Arc::new(AtomicBool::new(false));
        let seen = dropped.clone();
        run(runtime.handle(), async move {
            let error = spawn(async { deliberate() }).await.expect_err("it panics");
            assert!(error.is_panic());
            struct Spy(Arc<AtomicBool>);
            impl Drop for Spy {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::SeqCst);
                }
            }
            let spy = Spy(seen.clone());
            let task = spawn(async move {
                let _spy = spy;
                pending::<()>().await;
            });
            yield_now().await;
            assert!(!task.is_finished());
            let abort = task.abort_handle();
            assert_eq!(abort.id(), task.id());
            abort.abort();
            assert!(task.await.expect_err("aborted").is_cancelled());
            assert!(seen.load(Ordering::SeqCst));
            assert!(abort.is_finished());
            // The identity is known inside.
            let task = spawn(async { corelane::task::id() });
            let id = task.id();
            assert_eq!(task.await.expect("no panic"), id);
        });
        assert!(dropped.load(Ordering::SeqCst));
        eventually("the panic is counted", || {
            runtime.handle().stats().iter().map(|stats| stats.panics).sum::<u64>() == 1
        });
    });
}

#[test]
fn local_tasks_stay_on_their_worker() {
    within_reason(|| {
        let runtime = workers(2);
        for shard in [FIRST, SECOND] {
            let home = thread_of(runtime.handle(), shard);
            let stays = runtime.handle().spawn_on(shard, move || async move {
                let here = std::rc::Rc::new(thread::current().id());
                let task = spawn_local(async move {
                    for _ in 0..200 {
                        sleep(Duration::from_micros(200)).await;
                        assert_eq!(*here, thread::current().id());
                    }
                    *here
                });
                task.await.expect("no panic")
            });
            let busy = runtime.handle().clone();
            assert_eq!(wait(stays.expect("room")).expect("no panic"), home);
            on(&busy, shard, || ());
        }
    });
}

#[test]
fn a_shutdown_waits_for_stealable_tasks_and_its_deadline_drops_the_rest() {
    within_reason(|| {
        let runtime = workers(2);
        let ended = Arc::new(AtomicU64::new(0));
        let count = ended.clone();
        run(runtime.handle(), async move {
            for _ in 0..50 {
                let count = count.clone();
                drop(spawn(async move {
                    corelane::shutdown_requested().await;
                    sleep(Duration::from_millis(5)).await;
                    count.fetch_add(1, Ordering::SeqCst);
                }));
            }
        });
        let report = runtime.shutdown(HANGS_AFTER);
        assert_eq!(ended.load(Ordering::SeqCst), 50);
        assert_eq!(report.tasks_dropped, 0);

        let runtime = workers(2);
        let spies: Vec<_> = (0..20).map(|_| DropSpy::new()).collect();
        let (spies, dropped): (Vec<_>, Vec<_>) = spies.into_iter().unzip();
        let (task, ()) = run(runtime.handle(), async move {
            for spy in spies {
                drop(spawn(async move {
                    let _spy = spy;
                    pending::<()>().await;
                }));
            }
            let task = spawn(pending::<()>());
            (task, ())
        });
        let report = runtime.shutdown(Duration::from_millis(20));
        assert_eq!(report.tasks_dropped, 21);
        assert!(dropped.iter().all(Dropped::is_dropped));
        assert!(wait(task).expect_err("dropped").is_cancelled());
    });
}

#[test]
fn wakes_from_other_threads_and_after_the_end_do_no_harm() {
    within_reason(|| {
        let runtime = workers(2);
        let (send, receive) = mpsc::channel();
        run(runtime.handle(), async move {
            for _ in 0..4 {
                let send = send.clone();
                drop(spawn(std::future::poll_fn(move |context| {
                    let _ = send.send(context.waker().clone());
                    std::task::Poll::<()>::Pending
                })));
            }
        });
        let wakers: Vec<_> = (0..4).map(|_| receive.recv().expect("polled")).collect();
        let barrier = Arc::new(Barrier::new(3));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (wakers, barrier) = (wakers.clone(), barrier.clone());
                thread::spawn(move || {
                    barrier.wait();
                    for _ in 0..10_000 {
                        wakers.iter().for_each(std::task::Waker::wake_by_ref);
                    }
                })
            })
            .collect();
        barrier.wait();
        thread::yield_now();
        drop(runtime);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        wakers.into_iter().for_each(std::task::Waker::wake);
    });
}

#[test]
fn tasks_that_wake_each_other_do_not_starve_the_rest() {
    within_reason(|| {
        let runtime = workers(1);
        run(runtime.handle(), async {
            let (ping, mut pinged) = futures::channel::mpsc::channel::<()>(1);
            let (pong, mut ponged) = futures::channel::mpsc::channel::<()>(1);
            let players = [
                spawn(volley(ping, ponged_of(&mut ponged))),
                spawn(volley(pong, ponged_of(&mut pinged))),
            ];
            for _ in 0..100 {
                spawn(async {}).await.expect("no panic");
            }
            players.iter().for_each(JoinHandle::abort);
        });
    });
}

fn ponged_of(
    channel: &mut futures::channel::mpsc::Receiver<()>,
) -> futures::channel::mpsc::Receiver<()> {
    std::mem::replace(channel, futures::channel::mpsc::channel(0).1)
}

/// Answers for ever.
async fn volley(
    mut to: futures::channel::mpsc::Sender<()>,
    mut from: futures::channel::mpsc::Receiver<()>,
) {
    use futures::{SinkExt, StreamExt};
    loop {
        if to.send(()).await.is_err() || from.next().await.is_none() {
            return;
        }
    }
}

#[test]
fn datagrams_are_received_by_whichever_worker_has_time() {
    within_reason(|| {
        let runtime = workers(2);
        let sum = run(runtime.handle(), async {
            let server = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
            let address = server.local_addr().expect("an address");
            let receivers: Vec<_> = (0..2)
                .map(|_| {
                    let server = server.clone();
                    spawn(async move {
                        let mut sum = 0u64;
                        for _ in 0..50 {
                            let mut buf = [0; 8];
                            let (_, peer) = server.recv_from(&mut buf).await.expect("received");
                            sum += u64::from_le_bytes(buf);
                            server.send_to(&buf, peer).await.expect("sent");
                        }
                        sum
                    })
                })
                .collect();
            let client = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            for number in 0..100u64 {
                client.send_to(&number.to_le_bytes(), address).await.expect("sent");
                client.recv_from(&mut [0; 8]).await.expect("answered");
            }
            let mut sum = 0;
            for receiver in receivers {
                sum += receiver.await.expect("no panic");
            }
            sum
        });
        assert_eq!(sum, 4950);
    });
}

/// An output that nobody takes and whose drop panics is the pool's to survive.
#[test]
fn an_output_whose_drop_panics_holds_nothing_up() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            deliberate();
        }
    }
    within_reason(|| {
        let runtime = workers(2);
        run(runtime.handle(), async {
            for _ in 0..4 {
                drop(spawn(async { Panics }));
            }
        });
        run(runtime.handle(), async { yield_now().await });
        let began = Instant::now();
        let report = runtime.shutdown(HANGS_AFTER);
        assert_eq!(report.tasks_dropped, 0);
        assert!(began.elapsed() < HANGS_AFTER / 2, "it waited for a task that had ended");
    });
}
