//! Shards in the context of a Tokio runtime: what was made for Tokio runs in their tasks, on their threads, and the end of
//! either runtime is orderly.

use crate::harness::{FIRST, eventually, wait, within_reason};
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use corelane::server::Server;
use corelane::{Mode, Runtime, TokioContext};
use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(3600);

fn start(mode: Mode, name: &str) -> Runtime {
    let builder = Runtime::builder().mode(mode).cores("1".parse().expect("a count"));
    builder.tokio_context(TokioContext::default()).thread_name(name).start().expect("started")
}

fn each(test: impl Fn(Mode) + Send + 'static) {
    within_reason(move || [Mode::ThreadPerCore, Mode::WorkStealing].into_iter().for_each(test));
}

/// Threads of this process by the beginning of their names.
fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|known| known.starts_with(name)).count()
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Asks an origin, and says on which thread.
async fn proxied(State(origin): State<SocketAddr>, Path(word): Path<String>) -> String {
    let before = thread::current().id();
    // A client of its own: its connections must not outlive the request.
    let client = reqwest::Client::builder().timeout(LONG).build().expect("a client");
    let url = format!("http://{origin}/origin/{word}");
    let text = client.get(url).send().await.expect("answered").text().await.expect("a body");
    let same = before == thread::current().id();
    format!("{text} {same} {}", corelane::ShardId::current().is_some())
}

async fn origin(Path(word): Path<String>) -> Json<String> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    Json(word.to_uppercase())
}

#[test]
fn reqwest_asks_from_inside_a_handler() {
    each(|mode| {
        let runtime = start(mode, "ctx-reqwest");
        let origin = Router::new().route("/origin/{word}", get(origin));
        let builder = Server::builder().listen(local());
        let origin = builder.start_tower_send(runtime.handle(), origin).expect("a port");
        let router = Router::new().route("/{word}", get(proxied));
        let router = router.with_state(origin.local_addrs()[0]);
        let builder = Server::builder().listen(local());
        let server = builder.start_tower_send(runtime.handle(), router).expect("a port");
        let address = server.local_addrs()[0];
        // And from a thread in `block_on`, which is in the context too.
        let text = runtime.block_on(async {
            let client = reqwest::Client::new();
            let ask = async |word: &str| {
                let answer = client.get(format!("http://{address}/{word}")).send().await;
                answer.expect("answered").text().await.expect("a body")
            };
            (ask("one").await, ask("two").await)
        });
        assert_eq!(text, ("\"ONE\" true true".to_owned(), "\"TWO\" true true".to_owned()));
        let report = runtime.shutdown(Duration::from_secs(20));
        assert_eq!((report.shards_panicked, threads("ctx-reqwest")), (0, 0));
    });
}

#[test]
fn timers_sockets_and_tasks_of_tokio_work_in_a_task() {
    each(|mode| {
        let runtime = start(mode, "ctx-tasks");
        let task = runtime.handle().spawn_on(FIRST, || async {
            let own = thread::current().id();
            tokio::time::sleep(Duration::from_millis(2)).await;
            let late = tokio::time::timeout(Duration::from_millis(2), std::future::pending::<()>());
            assert!(late.await.is_err());
            let listener = TcpListener::bind(local()).await.expect("a port");
            let address = listener.local_addr().expect("an address");
            // On a thread of Tokio's.
            let echo = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.expect("copied");
                thread::current().id()
            });
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(b"hello").await.expect("written");
            let mut back = [0; 5];
            stream.read_exact(&mut back).await.expect("read");
            assert_eq!((&back, thread::current().id()), (b"hello", own));
            drop(stream);
            assert_ne!(echo.await.expect("echoed"), own);
            tokio::task::spawn_blocking(|| 1).await.expect("it ran")
                + corelane::spawn_blocking(|| {
                    tokio::runtime::Handle::current().block_on(async {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        2
                    })
                })
                .await
                .expect("it ran")
        });
        assert_eq!(wait(task.expect("a shard")).expect("no panic"), 3);
        drop(runtime);
        assert_eq!(threads("ctx-tasks"), 0);
    });
}

#[test]
fn threads_that_tokio_starts_on_a_shard_may_run_on_every_cpu() {
    within_reason(|| {
        let cpus = thread::available_parallelism().expect("a number");
        let runtime = start(Mode::ThreadPerCore, "ctx-cpus");
        let task = runtime.handle().spawn_on(FIRST, || async {
            let seen = tokio::task::spawn_blocking(thread::available_parallelism);
            seen.await.expect("it ran").expect("a number")
        });
        assert_eq!(wait(task.expect("a shard")).expect("no panic"), cpus);
    });
}

/// Starts what never ends by itself, in every way there is, and waits until all of it has begun.
fn never_end(runtime: &Runtime) {
    let (begun, begins) = mpsc::channel::<()>();
    let socket = begun.clone();
    let spawned = begun.clone();
    let later = runtime.handle().spawn_on(FIRST, move || async move {
        begun.send(()).expect("awaited");
        tokio::time::sleep(LONG).await;
    });
    drop(later.expect("a shard"));
    let reader = runtime.handle().spawn_on(FIRST, move || async move {
        let listener = TcpListener::bind(local()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut stream = TcpStream::connect(address).await.expect("connected");
        socket.send(()).expect("awaited");
        let _ = stream.read_u8().await;
    });
    drop(reader.expect("a shard"));
    let task = runtime.handle().spawn_on(FIRST, move || async move {
        let task = tokio::spawn(async move {
            spawned.send(()).expect("awaited");
            tokio::time::sleep(LONG).await;
        });
        let _ = task.await;
    });
    drop(task.expect("a shard"));
    for _ in 0..3 {
        begins.recv_timeout(Duration::from_secs(60)).expect("it begins");
    }
}

#[test]
fn a_shutdown_ends_both_runtimes_whatever_waits() {
    each(|mode| {
        let runtime = start(mode, "ctx-down");
        never_end(&runtime);
        let report = runtime.shutdown(Duration::from_millis(20));
        assert_eq!(report.shards_panicked, 0);
        assert!(report.tasks_dropped >= 3, "{report:?}");
        assert_eq!(threads("ctx-down"), 0);
    });
}

#[test]
fn a_runtime_may_be_dropped_inside_tokio() {
    each(|mode| {
        // Where waiting for a runtime panics if it is done by the thread itself.
        let tokio = tokio::runtime::Runtime::new().expect("a runtime");
        tokio.block_on(async move {
            let runtime = start(mode, "ctx-inside");
            never_end(&runtime);
            drop(runtime);
            assert_eq!(threads("ctx-inside"), 0);
        });
    });
}

#[test]
fn a_runtime_may_be_dropped_by_a_task_of_its_own_tokio() {
    each(|mode| {
        let runtime = start(mode, "ctx-own");
        never_end(&runtime);
        let handle = runtime.handle().clone();
        let tokio = handle.block_on(async { tokio::runtime::Handle::current() });
        let (done, is_done) = mpsc::channel();
        drop(tokio.spawn(async move {
            drop(runtime);
            done.send(()).expect("awaited");
        }));
        is_done.recv_timeout(Duration::from_secs(60)).expect("it does not wait for itself");
        eventually("the threads end", || threads("ctx-own") == 0);
    });
}

#[test]
fn a_runtime_that_was_given_goes_on() {
    each(|mode| {
        let tokio = tokio::runtime::Builder::new_multi_thread();
        let tokio = { tokio }.worker_threads(1).enable_all().build().expect("a runtime");
        let builder = Runtime::builder().mode(mode).cores("1".parse().expect("a count"));
        let runtime = builder.tokio_context(tokio.handle().clone()).start().expect("started");
        never_end(&runtime);
        drop(runtime);
        let slept = tokio.block_on(async {
            tokio::spawn(async { tokio::time::sleep(Duration::from_millis(1)).await }).await
        });
        assert!(slept.is_ok());
    });
}

#[test]
fn no_thread_at_all_is_refused() {
    let builder = Runtime::builder().tokio_context(TokioContext::threads(0));
    let error = builder.start().expect_err("nobody would drive it");
    assert!(error.is_config() && error.to_string().contains("1 to 1024"), "{error}");
}
