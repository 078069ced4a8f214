//! Everything at once, for a moment: whatever is begun comes to an end, once.

use super::{run, workers};
use crate::harness::*;
use corelane::net::{UnixListener, UnixStream};
use corelane::time::{Duration, sleep, timeout};
use corelane::{Handle, JoinHandle, spawn, spawn_local, yield_now};
use futures::{AsyncReadExt, AsyncWriteExt};
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

/// Counts values that live.
#[derive(Clone, Default)]
struct Census(Arc<AtomicUsize>);

struct Citizen(Census);

impl Census {
    fn born(&self) -> Citizen {
        self.0.fetch_add(1, Ordering::SeqCst);
        Citizen(self.clone())
    }

    fn alive(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Citizen {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One piece of work, of a kind that the number says. What it says at its end is the number.
fn work(kind: u64, census: &Census, wakers: &Wakers) -> JoinHandle<u64> {
    let citizen = census.born();
    let wakers = wakers.clone();
    spawn(async move {
        let _citizen = citizen;
        match kind % 8 {
            0 => sleep(Duration::from_micros(kind % 2_000)).await,
            1 => {
                let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
                let peer = spawn(async move {
                    let mut all = Vec::new();
                    theirs.read_to_end(&mut all).await.expect("read");
                    all.len()
                });
                ours.write_all(&vec![7; (kind % 4_000) as usize]).await.expect("written");
                drop(ours);
                assert_eq!(peer.await.expect("no panic"), (kind % 4_000) as usize);
            }
            2 => deliberate(),
            3 => {
                // Aborted while it waits, runs, or has ended.
                let task = spawn(async move {
                    for _ in 0..kind % 5 {
                        yield_now().await;
                    }
                });
                task.abort();
                let _ = task.await;
            }
            4 => {
                // Woken by whoever feels like it, until it has been woken often enough.
                let mut left = 3;
                std::future::poll_fn(move |context| {
                    left -= 1;
                    if left == 0 {
                        return Poll::Ready(());
                    }
                    wakers.lock().expect("unpoisoned").push(context.waker().clone());
                    Poll::Pending
                })
                .await;
            }
            5 => assert!(timeout(Duration::from_micros(300), pending::<()>()).await.is_err()),
            6 => {
                let task = spawn_local(async { 6 });
                assert_eq!(task.await.expect("no panic"), 6);
            }
            _ => {
                let tasks: Vec<_> = (0..kind % 10).map(|_| spawn(yield_now())).collect();
                for task in tasks {
                    task.await.expect("no panic");
                }
            }
        }
        kind
    })
}

type Wakers = Arc<Mutex<Vec<Waker>>>;

/// Calls wakers until it is told to stop, those of tasks that have ended as well.
fn waking(wakers: &Wakers, stop: &Arc<AtomicUsize>) -> thread::JoinHandle<()> {
    let (wakers, stop) = (wakers.clone(), stop.clone());
    thread::spawn(move || {
        let mut old = Vec::new();
        while stop.load(Ordering::SeqCst) == 0 {
            let new = std::mem::take(&mut *wakers.lock().expect("unpoisoned"));
            new.iter().for_each(Waker::wake_by_ref);
            old.extend(new);
            let keep = old.len().saturating_sub(64);
            old.drain(..keep).for_each(Waker::wake);
            thread::yield_now();
        }
    })
}

/// Begins work on every worker, from outside.
fn begin(
    handle: &Handle,
    seed: u64,
    count: u64,
    census: &Census,
    wakers: &Wakers,
) -> Vec<JoinHandle<u64>> {
    let begin = |number: u64| {
        let shard = corelane::ShardId::new((number % 2) as u16);
        let (census, wakers) = (census.clone(), wakers.clone());
        on(handle, shard, move || {
            let kinds =
                (0..count).map(|step| seed.wrapping_mul(31).wrapping_add(number * 7 + step));
            kinds.map(|kind| work(kind, &census, &wakers)).collect::<Vec<_>>()
        })
    };
    (0..4).flat_map(begin).collect()
}

#[test]
fn all_kinds_of_work_come_to_an_end() {
    within_reason(|| {
        let runtime = workers(2);
        let (census, wakers, stop) = (Census::default(), Wakers::default(), Arc::default());
        let waker = waking(&wakers, &stop);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let handle = runtime.handle().clone();
                let (census, wakers) = (census.clone(), wakers.clone());
                thread::spawn(move || {
                    let mut random = Random::new();
                    for _ in 0..40 {
                        let tasks = begin(&handle, random.next() >> 8, 24, &census, &wakers);
                        for task in tasks {
                            match wait(task) {
                                Ok(kind) => assert_ne!(kind % 8, 2),
                                Err(error) => assert!(error.is_panic()),
                            }
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        stop.store(1, Ordering::SeqCst);
        waker.join().expect("no panic");
        assert_eq!(census.alive(), 0, "a future was not dropped");
        eventually("no task is left", || {
            runtime.handle().stats().iter().all(|stats| stats.tasks == 0)
        });
        assert_eq!(runtime.shutdown(HANGS_AFTER).tasks_dropped, 0);
    });
}

#[test]
fn a_pool_that_ends_in_the_middle_of_it_leaves_nothing() {
    within_reason(|| {
        let mut random = Random::new();
        for round in 0..60 {
            let runtime = workers(2);
            let (census, wakers, stop) = (Census::default(), Wakers::default(), Arc::default());
            let waker = waking(&wakers, &stop);
            let handle = runtime.handle().clone();
            let tasks = begin(&handle, random.next() >> 8, 24, &census, &wakers);
            let forever = census.born();
            let forever = on(&handle, FIRST, || {
                spawn(async move {
                    let _forever = forever;
                    pending::<()>().await;
                })
            });
            spin(Duration::from_micros(random.below(1_000)));
            if round % 2 == 0 {
                drop(runtime);
            } else {
                assert!(runtime.shutdown(Duration::from_micros(500)).tasks_dropped > 0);
            }
            assert_eq!(census.alive(), 0, "a future has outlived its pool");
            assert!(wait(forever).expect_err("dropped").is_cancelled());
            for task in tasks {
                // Whatever it is, there is an answer.
                let _ = wait(task);
            }
            stop.store(1, Ordering::SeqCst);
            waker.join().expect("no panic");
            let late = std::mem::take(&mut *wakers.lock().expect("unpoisoned"));
            late.into_iter().for_each(Waker::wake);
        }
    });
}

#[test]
fn connections_come_and_go_while_workers_are_held_up() {
    const CONNECTIONS: usize = 300;
    within_reason(|| {
        let runtime = workers(2);
        let path = std::env::temp_dir().join(format!("corelane-stress-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let server = on(runtime.handle(), FIRST, || {
            spawn(async move {
                let listener = UnixListener::from_std(socket).expect("a listener");
                let mut served = Vec::new();
                for _ in 0..CONNECTIONS {
                    let (mut stream, _) = listener.accept().await.expect("somebody comes");
                    served.push(spawn(async move {
                        let mut bytes = [0; 64];
                        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                            stream.write_all(&bytes[..count]).await.expect("written");
                        }
                    }));
                }
                for task in served {
                    task.await.expect("no panic");
                }
            })
        });
        let stop = Arc::new(AtomicUsize::new(0));
        let hinders: Vec<_> = [FIRST, SECOND]
            .into_iter()
            .map(|shard| {
                let (handle, stop) = (runtime.handle().clone(), stop.clone());
                thread::spawn(move || {
                    let mut random = Random::new();
                    while stop.load(Ordering::SeqCst) == 0 {
                        let busy = Duration::from_micros(random.below(2_000));
                        on(&handle, shard, move || spin(busy));
                        thread::sleep(Duration::from_micros(random.below(500)));
                    }
                })
            })
            .collect();
        let there = path.clone();
        run(runtime.handle(), async move {
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|number| {
                    let path = there.clone();
                    spawn(async move {
                        let mut stream = UnixStream::connect(&path).await.expect("it listens");
                        for round in 0..10 {
                            let sent = [(number + round) as u8; 32];
                            stream.write_all(&sent).await.expect("written");
                            let mut got = [0; 32];
                            stream.read_exact(&mut got).await.expect("echoed");
                            assert_eq!(got, sent);
                        }
                    })
                })
                .collect();
            for client in clients {
                client.await.expect("no panic");
            }
        });
        wait(server).expect("no panic");
        stop.store(1, Ordering::SeqCst);
        hinders.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let _ = std::fs::remove_file(&path);
    });
}
