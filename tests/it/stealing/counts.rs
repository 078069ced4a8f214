//! What a pool counts.

use super::{run, workers};
use crate::harness::*;
use corelane::{Handle, JoinHandle, Mode, Runtime, spawn, yield_now};
use std::io::{Read, Write};
use std::sync::mpsc;
use std::task::Poll;

fn sum(handle: &Handle, count: impl Fn(&corelane::ShardStats) -> u64) -> u64 {
    handle.stats().iter().map(count).sum()
}

#[test]
fn every_task_that_is_stolen_counts() {
    const TASKS: u64 = 100;
    within_reason(|| {
        let runtime = workers(2);
        let (done, all_done) = mpsc::channel();
        let (unblock, blocked) = mpsc::channel::<()>();
        drop(runtime.handle().spawn_on(FIRST, move || async move {
            drop(spawn(async move {
                for _ in 0..TASKS {
                    let done = done.clone();
                    drop(spawn(async move { done.send(()).expect("somebody listens") }));
                }
                // As a task that must not does: the other worker has to take them all.
                let _ = blocked.recv_timeout(HANGS_AFTER);
            }));
        }));
        for _ in 0..TASKS {
            all_done.recv_timeout(HANGS_AFTER / 2).expect("the other worker takes over");
        }
        drop(unblock);
        // That which spawned them may have been stolen as well.
        let steals = || sum(runtime.handle(), |stats| stats.steals);
        eventually("they are counted", || (TASKS..=TASKS + 1).contains(&steals()));
    });
}

#[test]
fn wakes_by_threads_that_are_no_workers_count() {
    const WAKES: u64 = 50;
    within_reason(|| {
        let runtime = workers(2);
        let (tell, told) = mpsc::channel();
        run(runtime.handle(), async move {
            drop(spawn(std::future::poll_fn(move |context| {
                let _ = tell.send(context.waker().clone());
                Poll::<()>::Pending
            })));
        });
        let wakes = || sum(runtime.handle(), |stats| stats.foreign_wakes);
        let before = wakes();
        for _ in 0..WAKES {
            let waker = told.recv_timeout(HANGS_AFTER / 2).expect("polled");
            // Whichever worker has polled it does something else by now.
            for shard in [FIRST, SECOND] {
                on(runtime.handle(), shard, || ());
            }
            waker.wake();
        }
        eventually("all are counted", || wakes() >= before + WAKES);
    });
}

#[test]
fn no_worker_has_less_than_no_connections() {
    use corelane::server::Server;
    use http_body_util::Full;
    use hyper::{Response, body::Bytes, service::service_fn};
    within_reason(|| {
        let pool = Runtime::builder()
            .mode(Mode::WorkStealing)
            .cores(corelane::Cores::Count(2))
            .start()
            .expect("two CPUs");
        let service = service_fn(|_request| async {
            corelane::yield_now().await;
            Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("x")))
        });
        let server = Server::builder()
            .listen("127.0.0.1:0".parse().expect("an address"))
            .start_send(pool.handle(), service)
            .expect("a port");
        let address = server.local_addrs()[0];
        for round in 0..2_000 {
            let mut client = std::net::TcpStream::connect(address).expect("it listens");
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .expect("sent");
            client.read_to_end(&mut Vec::new()).expect("an answer");
            for stats in pool.handle().stats() {
                assert!(stats.connections < 1 << 32, "round {round}: {}", stats.connections);
            }
        }
    });
}

#[test]
fn tasks_that_any_worker_may_run_are_counted_and_so_are_their_wakes() {
    within_reason(|| {
        let runtime = workers(2);
        let handle = runtime.handle();
        let tasks = run(handle, async {
            (0..10).map(|_| spawn(std::future::pending::<()>())).collect::<Vec<_>>()
        });
        eventually("they are counted", || sum(handle, |stats| stats.tasks) == 10);
        let before = sum(handle, |stats| stats.local_wakes);
        run(handle, async {
            for _ in 0..1000 {
                yield_now().await;
            }
        });
        eventually("wakes are counted", || sum(handle, |stats| stats.local_wakes) >= before + 1000);
        tasks.iter().for_each(JoinHandle::abort);
        eventually("none is left", || sum(handle, |stats| stats.tasks) == 0);
    });
}
