//! A server that has as many connections as it may have, in both modes.

use super::client::{Client, GET};
use super::in_process::{Body, answer};
use super::limits::{Failure, each};
use super::program::Serve;
use super::until;
use corelane::server::{self, Builder, Event, Server, WhenFull};
use corelane::{Mode, Runtime};
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Full {
    runtime: Runtime,
    address: SocketAddr,
    told: Arc<AtomicU64>,
}

async fn hello(_: Request<server::Body>) -> Result<Response<Body>, Failure> {
    Ok(answer("Hello, World!"))
}

impl Full {
    /// One shard or worker.
    fn start(mode: Mode, change: impl FnOnce(Builder) -> Builder) -> Full {
        let cores = "1".parse().expect("a count");
        let runtime = Runtime::builder().mode(mode).cores(cores).start().expect("started");
        let told = Arc::<AtomicU64>::default();
        let tell = told.clone();
        let server = Server::builder().listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let server = change(server).on_event(move |event| {
            if matches!(event, Event::Full { .. }) {
                tell.fetch_add(1, Ordering::SeqCst);
            }
        });
        let server = server.start_send(runtime.handle(), service_fn(hello)).expect("a port");
        Full { address: server.local_addrs()[0], runtime, told }
    }

    fn turned_away(&self) -> u64 {
        self.runtime.handle().stats().iter().map(|stats| stats.connections_turned_away).sum()
    }

    /// A connection that is served.
    #[track_caller]
    fn served(&self) -> Client {
        let mut client = Client::connect(self.address);
        client.get().is_hello();
        client
    }
}

#[test]
fn who_is_one_too_many_is_told_when_to_come_again_and_others_are_served_on() {
    each(|mode| {
        let full = Full::start(mode, |server| server.max_connections(2));
        let mut held = [full.served(), full.served()];
        for number in 1..=3 {
            let mut late = Client::connect(full.address);
            // Also who has sent its request, which is not read before the answer.
            late.send(GET);
            let answer = late.answer();
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
            assert_eq!(answer.header("connection"), Some("close"));
            late.is_closed();
            until("it is counted", || full.turned_away() == number);
            assert_eq!(full.told.load(Ordering::SeqCst), number);
        }
        held.iter_mut().for_each(|client| client.get().is_hello());
        drop(held);
        until("there is room again", || {
            let mut client = Client::connect(full.address);
            client.send(GET);
            client.answer().status == 200
        });
    });
}

#[test]
fn who_is_one_too_many_may_be_closed_without_a_word() {
    each(|mode| {
        let full = Full::start(mode, |server| server.max_connections(1).when_full(WhenFull::Close));
        let mut held = full.served();
        let late = Client::connect(full.address);
        let mut said = Vec::new();
        let _ = late.stream().read_to_end(&mut said);
        assert!(said.is_empty());
        held.get().is_hello();
    });
}

#[test]
fn a_shard_may_have_a_bound_of_its_own() {
    let full = Full::start(Mode::ThreadPerCore, |server| {
        let first = corelane::ShardId::new(0);
        server.max_connections_per_shard(1).max_connections_on(first, 2)
    });
    let _held = [full.served(), full.served()];
    let mut late = Client::connect(full.address);
    late.send(GET);
    assert_eq!(late.answer().status, 503);
}

#[test]
fn a_crowd_never_gets_more_than_there_is_and_leaves_nothing_behind() {
    for mode in ["thread-per-core", "work-stealing"] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("server.toml");
        let text = "[runtime]\nmax_connections = 50\n[shard]\nmax_connections = 40\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n";
        std::fs::write(&path, text).expect("written");
        let path = path.to_str().expect("text");
        let program = Serve::with_arguments(&["serve", "--config", path, "--mode", mode]).start();
        let baseline = program.open_files_at_rest();
        let mut crowd: Vec<Client> = (0..400).map(|_| Client::connect(program.address())).collect();
        let ask = |client: &mut Client| {
            client.send(GET);
            client.try_answer(true).map_or(0, |answer| answer.status)
        };
        let statuses: Vec<u16> = crowd.iter_mut().map(ask).collect();
        let served = statuses.iter().filter(|status| **status == 200).count();
        let refused = statuses.iter().filter(|status| **status == 503).count();
        assert!((1..=50).contains(&served), "{mode}: {served} served");
        assert!(refused > 0, "{mode}: nobody was told: {statuses:?}");
        drop(crowd);
        until("every file is closed", || program.open_files() == baseline);
    }
}
