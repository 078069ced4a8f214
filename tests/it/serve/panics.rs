//! What happens on a shard stays there: requests cross nothing, a panic ends one connection.

use super::client::{Client, GET};
use super::in_process::{Body, Served, answer, has_two_cpus, within_reason};
use super::{skipped, system, until};
use corelane::server::{self, Server};
use corelane::{Runtime, ShardStats};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Connections over which the load of a test goes, each a thread of its own.
const CONNECTIONS: usize = 16;

fn crossings(stats: &ShardStats) -> [u64; 4] {
    [stats.foreign_wakes, stats.inbox_messages, stats.eventfd_writes, stats.sockets_adopted]
}

#[test]
fn requests_cross_no_shard() {
    if !has_two_cpus() {
        return skipped("shards that requests could cross: there is one CPU");
    }
    within_reason(|| {
        let hits = |_shard| {
            // Neither `Send` nor `Sync`.
            let hits = Rc::new(Cell::new(0));
            service_fn(move |_request| {
                hits.set(hits.get() + 1);
                let text = format!("hit {}", hits.get());
                async move { Ok::<_, Infallible>(answer(text)) }
            })
        };
        let served = Served::by(2, hits);
        let mut clients: Vec<Client> =
            (0..CONNECTIONS).map(|_| Client::connect(served.address)).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.get().status, 200));
        let before: Vec<_> = served.stats().iter().map(crossings).collect();
        let polls = served.sum(|stats| stats.polls);
        thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| (0..500).for_each(|_| assert_eq!(client.get().status, 200)));
            }
        });
        until("the counters show the load", || served.sum(|stats| stats.polls) >= polls + 500);
        let after: Vec<_> = served.stats().iter().map(crossings).collect();
        assert_eq!(after, before);
        assert_eq!(served.sum(|stats| stats.accepts), CONNECTIONS as u64);
    });
}

#[test]
fn a_handler_that_panics_ends_its_connection_and_nothing_else() {
    within_reason(|| {
        let served = Served::by(1, |_shard| {
            let calls = Cell::new(0);
            service_fn(move |_request| {
                calls.set(calls.get() + 1);
                let unlucky = calls.get() % 100 == 0;
                async move {
                    assert!(!unlucky, "one in a hundred");
                    Ok::<_, Infallible>(answer("lucky"))
                }
            })
        });
        let ask = || {
            let mut client = Client::connect(served.address);
            let mut ends = 0;
            for _ in 0..500 {
                match client.try_get() {
                    Ok(answer) if answer.status == 200 => assert_eq!(answer.body, b"lucky"),
                    Ok(answer) => {
                        assert_eq!(
                            (answer.status, answer.header("connection")),
                            (500, Some("close"))
                        );
                        client.is_closed();
                        ends += 1;
                        client = Client::connect(served.address);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            ends
        };
        let ends: u64 = thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|asking| asking.join().expect("no panic")).sum()
        });
        assert_eq!(ends, 8 * 500 / 100);
        until("the panics are counted", || served.sum(|stats| stats.panics) == ends);
        until("the connections are gone", || served.sum(|stats| stats.connections) == 0);
        assert_eq!(Client::connect(served.address).get().status, 200);
    });
}

#[test]
fn a_service_that_panics_before_its_future_is_there_ends_its_connection_and_nothing_else() {
    within_reason(|| {
        let served = Served::by_fn(|request| {
            assert_ne!(request.uri().path(), "/panic", "asked to");
            async { answer("fine") }
        });
        for _ in 0..20 {
            let mut client = Client::connect(served.address);
            client.send("GET /panic HTTP/1.1\r\nhost: test\r\n\r\n");
            assert_eq!(client.answer().status, 500);
            client.is_closed();
            assert_eq!(Client::connect(served.address).get().status, 200);
        }
        until("the connections are gone", || served.sum(|stats| stats.connections) == 0);
    });
}

#[test]
fn a_peer_that_resets_does_not_kill_a_program_with_the_default_sigpipe() {
    const CHILD: &str = "CORELANE_TEST_SERVE_SIGPIPE";
    if std::env::var_os(CHILD).is_some() {
        system::default_sigpipe();
        within_reason(answer_peers_that_have_gone);
        return;
    }
    // Rust programs ignore the signal from their start, so this one is started again and restores it.
    let name = "serve::panics::a_peer_that_resets_does_not_kill_a_program_with_the_default_sigpipe";
    let program = std::env::current_exe().expect("this program");
    let output = std::process::Command::new(program)
        .args([name, "--exact"])
        .env(CHILD, "1")
        .output()
        .expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}

/// The server writes to connections that have been reset: small answers, which are gathered, and large ones.
fn answer_peers_that_have_gone() {
    let runtime =
        Runtime::builder().cores("1".parse().expect("a number")).start().expect("started");
    let (called, calls) = std::sync::mpsc::channel();
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let may_go = std::sync::Arc::new(std::sync::Mutex::new(may_go));
    let server = Server::builder().listen("127.0.0.1:0".parse().expect("an address"));
    let server = server.start(runtime.handle(), move |_shard| {
        service_fn(move |request: hyper::Request<_>| {
            // Holds the shard up until the reset has arrived.
            called.send(()).expect("the test waits");
            may_go.lock().expect("no panic").recv().expect("the test says so");
            let large = request.uri().path() == "/large";
            async move { Ok::<_, Infallible>(answer(vec![b'x'; if large { 1 << 20 } else { 10 }])) }
        })
    });
    let address = server.expect("a port").local_addrs()[0];
    for round in 0..40 {
        let mut client = Client::connect(address);
        client.send(if round % 2 == 0 { GET } else { "GET /large HTTP/1.1\r\nhost: test\r\n\r\n" });
        calls.recv().expect("a call");
        client.reset();
        go.send(()).expect("the handler waits");
    }
    let connections = || runtime.handle().stats()[0].connections;
    until("the connections are gone", || connections() == 0);
    let mut client = Client::connect(address);
    client.send(GET);
    go.send(()).expect("the handler waits");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_factory_that_panics_is_told_to_who_waits_for_the_server() {
    let runtime =
        Runtime::builder().cores("1".parse().expect("a number")).start().expect("started");
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::builder().listen(local).start(runtime.handle(), |_shard| {
        if true {
            panic!("deliberate: no database");
        }
        service_fn(|_request| async { Ok::<_, Infallible>(answer("never")) })
    });
    let stopped = runtime.block_on(server.expect("a port").stopped());
    let text = stopped.expect_err("no shard serves").to_string();
    assert!(text.contains("has stopped serving") && text.contains("no database"), "{text}");
}

#[test]
fn a_service_that_panics_when_it_is_cloned_loses_one_connection() {
    /// Its second clone panics.
    struct Brittle(Arc<AtomicUsize>);
    impl Clone for Brittle {
        fn clone(&self) -> Self {
            assert!(self.0.fetch_add(1, Ordering::Relaxed) != 1, "deliberate");
            Brittle(self.0.clone())
        }
    }
    impl Service<Request<server::Body>> for Brittle {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;
        fn call(&self, _request: Request<server::Body>) -> Self::Future {
            std::future::ready(Ok(answer("Hello, World!")))
        }
    }
    let served = Served::by(1, |_shard| Brittle(Arc::default()));
    Client::connect(served.address).get().is_hello();
    Client::connect(served.address).is_gone();
    Client::connect(served.address).get().is_hello();
    until("its panic is counted", || served.sum(|stats| stats.panics) == 1);
}
