//! Listeners on Unix sockets: who is served, what becomes of the file, and what is refused.

use super::client::{Client, GET};
use super::in_process::{Body, answer, hold, within_reason};
use super::program::Serve;
use super::until;
use corelane::balance::Policy;
use corelane::server::{self, Builder, ConnectionInfo, Listen, ListenAddr, Peer, Server};
use corelane::{Config, Error, Mode, Runtime, ShardId};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// As long as a test needs.
const LONG: Duration = Duration::from_secs(60);

/// A directory, and the path of a socket in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    (directory, path)
}

fn runtime(shards: usize) -> Runtime {
    let cores = shards.to_string().parse().expect("a number of shards");
    Runtime::builder().cores(cores).start().expect("started")
}

/// Says on which shard it is.
fn says_where(
    shard: ShardId,
) -> impl Service<Request<server::Body>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send {
    service_fn(move |_request| async move { Ok::<_, Infallible>(answer(format!("{shard}"))) })
}

fn start(builder: Builder, runtime: &Runtime) -> Result<Server, Error> {
    builder.start(runtime.handle(), says_where)
}

/// Why a server with this listener does not start.
#[track_caller]
fn refused(listen: Listen) -> String {
    let runtime = runtime(1);
    let started = start(Server::builder().listen_with(listen), &runtime);
    started.expect_err("refused").to_string()
}

fn shards() -> usize {
    if super::in_process::has_two_cpus() { 2 } else { 1 }
}

#[test]
fn every_shard_serves_one_socket_and_the_file_goes_with_the_server() {
    within_reason(|| {
        let (_directory, path) = place();
        let runtime = runtime(shards());
        let server = start(Server::builder().listen_with(Listen::unix(&path)), &runtime);
        let server = server.expect("bound");
        assert_eq!(server.listen_addrs(), [ListenAddr::Unix(path.clone())]);
        assert!(server.local_addrs().is_empty());
        assert_eq!(server.listen_addrs()[0].to_string(), format!("unix:{}", path.display()));
        let mut clients: Vec<_> = (0..50).map(|_| Client::connect_unix(&path)).collect();
        for _ in 0..3 {
            for client in &mut clients {
                client.send(GET.repeat(3));
                (0..3).for_each(|_| assert_eq!(client.answer().status, 200));
            }
        }
        let stats = runtime.handle().stats();
        let handed_over: u64 = stats.iter().map(|shard| shard.connections_handed_over).sum();
        assert_eq!(handed_over, 0);
        drop(clients);
        assert_eq!(runtime.shutdown(LONG).tasks_dropped, 0);
        assert!(!path.exists(), "the file is removed");
    });
}

#[test]
fn each_shard_accepts_while_the_others_are_held_up() {
    if shards() < 2 {
        return super::skipped("a Unix socket with two shards: this needs two CPUs");
    }
    within_reason(|| {
        let (_directory, path) = place();
        let runtime = runtime(2);
        let server = start(Server::builder().listen_with(Listen::unix(&path)), &runtime);
        let server = server.expect("bound");
        let held = hold(&runtime);
        let body = |client: &mut Client<UnixStream>| client.get().body;
        for _ in 0..20 {
            assert_eq!(body(&mut Client::connect_unix(&path)), b"shard 1");
        }
        drop(held);
        // One that has stopped accepts no more, and is not woken for nothing; the last may not.
        corelane::block_on(server.stop_accepting(ShardId::new(1))).expect("the other goes on");
        for _ in 0..20 {
            assert_eq!(body(&mut Client::connect_unix(&path)), b"shard 0");
        }
        let last = corelane::block_on(server.stop_accepting(ShardId::new(0))).expect_err("last");
        let expected = format!("shard 0 is the last that accepts on unix:{}", path.display());
        assert!(last.to_string().starts_with(&expected), "{last}");
        assert_eq!(body(&mut Client::connect_unix(&path)), b"shard 0");
        assert!(path.exists());
        assert_eq!(runtime.shutdown(LONG).tasks_dropped, 0);
        assert!(!path.exists());
    });
}

#[test]
fn workers_of_a_pool_serve_it_too() {
    within_reason(|| {
        let (_directory, path) = place();
        let builder = Runtime::builder().mode(Mode::WorkStealing);
        let runtime = builder.start().expect("started");
        let server = Server::builder().listen_with(Listen::unix(&path).mode(0o600));
        let server = server.start_send(runtime.handle(), says_where(ShardId::new(7)));
        let server = server.expect("bound");
        assert_eq!(server.listen_addrs().len(), 1);
        let mut clients: Vec<_> = (0..50).map(|_| Client::connect_unix(&path)).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.get().body, b"shard 7"));
        assert_eq!(runtime.shutdown(LONG).tasks_dropped, 0);
        clients.iter_mut().for_each(Client::is_closed);
        assert!(!path.exists());
    });
}

#[test]
fn a_service_knows_the_listener_and_the_process_that_has_connected() {
    let (_directory, path) = place();
    let runtime = runtime(1);
    let local: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let server = Server::builder().listen(local).listen_with(Listen::unix(&path)).listen(local);
    let server = server.start_with(runtime.handle(), |_shard| {
        |connection: &ConnectionInfo| {
            let who = match connection.peer {
                Peer::Unix(Some(cred)) => format!("{:?}", cred.pid()),
                other => format!("{}", other.as_tcp().is_some()),
            };
            let text = format!("{} {who}", connection.listener);
            service_fn(move |_request| {
                let text = text.clone();
                async { Ok::<_, Infallible>(answer(text)) }
            })
        }
    });
    let server = server.expect("bound");
    let body = Client::connect_unix(&path).get().body;
    assert_eq!(body, format!("1 {:?}", Some(std::process::id())).as_bytes());
    for (index, number) in [(0, 0), (1, 2)] {
        let address = server.local_addrs()[index];
        assert_eq!(Client::connect(address).get().body, format!("{number} true").as_bytes());
        assert_eq!(server.listen_addrs()[number].as_tcp(), Some(address));
        assert_eq!(server.policy(number), Some(Policy::Hash));
        server.set_policy(number, Policy::Least).expect("nothing to refuse");
        assert_eq!(server.policy(number), Some(Policy::Least));
    }
    assert_eq!(server.policy(1), None);
    let error = server.set_policy(1, Policy::Least).expect_err("one socket").to_string();
    assert!(error.contains("cannot be balanced by least: its shards accept from one"), "{error}");
    let error = server.set_policy(3, Policy::Least).expect_err("none").to_string();
    assert_eq!(error, "there is no listener 3: there are 3");
}

#[test]
fn requests_that_have_arrived_before_the_end_are_answered() {
    within_reason(|| {
        for _ in 0..20 {
            let (_directory, path) = place();
            let runtime = runtime(1);
            let server = start(Server::builder().listen_with(Listen::unix(&path)), &runtime);
            server.expect("bound");
            let mut known = Client::connect_unix(&path);
            assert_eq!(known.get().status, 200);
            // Nothing of this is seen before the order to end.
            let held = hold(&runtime);
            let mut new: Vec<_> = (0..20).map(|_| Client::connect_unix(&path)).collect();
            let mut silent = Client::connect_unix(&path);
            known.send(GET);
            new.iter_mut().for_each(|client| client.send(GET));
            runtime.handle().request_shutdown(LONG);
            drop(held);
            for client in new.iter_mut().chain([&mut known]) {
                assert_eq!(client.answer().status, 200);
                client.is_closed();
            }
            silent.is_closed();
            assert_eq!(runtime.shutdown(LONG).tasks_dropped, 0);
            assert!(!path.exists());
        }
    });
}

#[test]
fn connections_stay_where_others_move() {
    if shards() < 2 {
        return super::skipped("moves with a Unix socket: this needs two CPUs");
    }
    within_reason(|| {
        let (_directory, path) = place();
        let runtime = runtime(2);
        let local: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let builder = Server::builder().listen_with(Listen::unix(&path)).listen(local);
        let server = start(builder.rebalance(true), &runtime).expect("bound");
        let mut stays: Vec<_> = (0..10).map(|_| Client::connect_unix(&path)).collect();
        let places: Vec<Vec<u8>> = stays.iter_mut().map(|client| client.get().body).collect();
        let mut goes = Client::connect(server.local_addrs()[0]);
        let from = goes.get().body;
        let (from, to) = if from == b"shard 0" { (0, 1) } else { (1, 0) };
        let (from, to) = (ShardId::new(from), ShardId::new(to));
        // Asked again and again: the other shard may not have begun yet.
        until("it has moved", || {
            server.move_connections(from, to, 100).expect("asked");
            goes.get().body == format!("{to}").as_bytes()
        });
        for (client, place) in stays.iter_mut().zip(places) {
            assert_eq!(client.get().body, place);
        }
    });
}

#[test]
fn what_nobody_listens_on_is_replaced_and_the_mode_is_as_wanted() {
    let (_directory, path) = place();
    drop(UnixListener::bind(&path).expect("bound"));
    for mode in [0o600, 0o660, 0o666] {
        let runtime = runtime(1);
        let listen = Listen::unix(&path).mode(mode);
        start(Server::builder().listen_with(listen), &runtime).expect("replaced");
        assert_eq!(fs::symlink_metadata(&path).expect("there").mode() & 0o7777, mode);
        assert_eq!(Client::connect_unix(&path).get().status, 200);
        runtime.shutdown(LONG);
        assert!(!path.exists());
    }
}

#[test]
fn a_file_that_has_taken_its_place_stays() {
    let (_directory, path) = place();
    let runtime = runtime(1);
    start(Server::builder().listen_with(Listen::unix(&path)), &runtime).expect("bound");
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "another's").expect("written");
    runtime.shutdown(LONG);
    assert_eq!(fs::read(&path).expect("there"), b"another's");
}

#[test]
fn what_cannot_be_had_is_refused_and_says_why() {
    let (directory, path) = place();
    let shown = path.display();
    let other = UnixListener::bind(&path).expect("bound");
    let in_use = format!(
        "cannot listen on unix:{shown}: the path is already in use by a running server; stop it or choose another path"
    );
    assert_eq!(refused(Listen::unix(&path)), in_use);
    drop(other);
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "kept").expect("written");
    let no_socket = format!(
        "cannot listen on unix:{shown}: what is there is no socket, so it is not replaced; choose another path"
    );
    assert_eq!(refused(Listen::unix(&path)), no_socket);
    assert_eq!(fs::read(&path).expect("there"), b"kept");
    let none = directory.path().join("none");
    let no_directory = format!(
        "cannot listen on unix:{}: there is no directory {}",
        none.join("s").display(),
        none.display()
    );
    assert_eq!(refused(Listen::unix(none.join("s"))), no_directory);
    let long = format!("/tmp/{}", "x".repeat(103));
    let too_long = "the path of a Unix socket has 107 bytes at most, and this has 108";
    assert_eq!(refused(Listen::unix(&long)), format!("cannot listen on unix:{long}: {too_long}"));
    assert!(refused(Listen::unix("")).ends_with("is wanted, and this is empty"));
    assert!(refused(Listen::unix("\0name")).ends_with("abstract names are not taken"));
}

#[test]
fn a_directory_that_may_not_be_written_to_is_named_with_the_systems_words() {
    let (directory, path) = place();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).expect("changed");
    if fs::write(directory.path().join("x"), "").is_ok() {
        return super::skipped(
            "a directory that may not be written to: this user may write anywhere",
        );
    }
    assert!(refused(Listen::unix(&path)).contains("Permission denied"));
}

#[test]
fn one_path_twice_is_refused_and_nothing_is_left() {
    let (directory, path) = place();
    let runtime = runtime(1);
    let again = directory.path().join(".").join("s");
    let builder =
        Server::builder().listen_with(Listen::unix(&path)).listen_with(Listen::unix(again));
    let error = start(builder, &runtime).expect_err("refused").to_string();
    assert!(error.ends_with("it was given twice"), "{error}");
    assert!(!path.exists());
}

#[test]
fn what_only_tcp_has_is_refused() {
    let unix = || Listen::unix("/nowhere/s");
    for (listen, name) in [
        (unix().share(false), "share"),
        (unix().only_v6(true), "only_v6"),
        (unix().nodelay(true), "nodelay"),
        (unix().keepalive(true), "keepalive"),
        (unix().receive_buffer(4096), "receive_buffer"),
    ] {
        let expected = format!("unix:/nowhere/s has no {name}: only TCP can be told that");
        assert_eq!(refused(listen), expected);
    }
    for policy in Policy::ALL.into_iter().filter(|policy| *policy != Policy::Hash) {
        let expected = format!(
            "unix:/nowhere/s cannot be balanced by {policy}: its shards accept from one socket, and the first that looks \
             has the connection"
        );
        assert_eq!(refused(unix().balance(policy)), expected);
        let runtime = Runtime::builder().mode(Mode::WorkStealing).start().expect("started");
        let server = Server::builder().listen_with(unix().balance(policy));
        let error = server.start_send(runtime.handle(), says_where(ShardId::new(0)));
        assert_eq!(error.expect_err("refused").to_string(), expected);
    }
    let tcp = Listen::new("127.0.0.1:0".parse().expect("an address")).mode(0o600);
    assert_eq!(refused(tcp), "127.0.0.1:0 has no mode: only Unix sockets can be told that");
    let expected = "unix:/nowhere/s cannot have the mode 1777: 777 is the most";
    assert_eq!(refused(unix().mode(0o1777)), expected);
}

/// The file of a configuration with a listener at this path, and more about it.
fn file(path: &Path, more: &str) -> String {
    format!("[[listener]]\nname = \"a\"\npath = \"{}\"\n{more}\n", path.display())
}

#[test]
fn routes_of_a_configuration_are_served_in_both_modes() {
    within_reason(|| {
        for mode in ["thread-per-core", "work-stealing"] {
            let (_directory, path) = place();
            let text = format!(
                "[runtime]\nmode = \"{mode}\"\n{}\n[[route]]\nlistener = \"a\"\npath = \"/\"\nrespond = {{ body = \"here\" }}\n",
                file(&path, "mode = \"0600\"\nsend_buffer = 20000\nbacklog = 7")
            );
            let config = Config::from_toml_str(&text).expect("right");
            let runtime = config.runtime().start().expect("started");
            let server = config.server(&runtime);
            let server = server.start_routes(runtime.handle(), &config.routes()).expect("bound");
            assert_eq!(fs::symlink_metadata(&path).expect("there").mode() & 0o777, 0o600);
            assert_eq!(Client::connect_unix(&path).get().body, b"here");
            // Who says nothing is told to go when its time is over, and the next has the new time.
            let mut limits = server::ConnectionLimits::default();
            limits.first_byte_timeout = Some(Duration::from_millis(50));
            server.set_limits(0, limits);
            Client::connect_unix(&path).is_gone();
            assert_eq!(runtime.shutdown(LONG).tasks_dropped, 0);
            assert!(!path.exists());
        }
    });
}

#[test]
fn the_program_listens_where_a_flag_says() {
    let (directory, path) = place();
    let address = format!("unix:{}", path.display());
    let flags = ["--listen", &address, "--listen", "127.0.0.1:0", "--cores", "1"];
    let mut program = Serve::new(&flags).start();
    assert!(program.out.so_far().contains(&format!("listening on {address}")));
    Client::connect_unix(&path).get().is_hello();
    Client::connect(program.address()).get().is_hello();
    let (status, _, said) = Serve::new(&["--listen", &address]).run_to_its_end();
    assert_eq!(status.code(), Some(2));
    let in_use = format!("corelane: cannot listen on {address}: the path is already in use");
    assert!(said.iter().any(|line| line.starts_with(&in_use)), "{said:?}");
    // It was not removed by the one that was refused.
    Client::connect_unix(&path).get().is_hello();
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    assert!(!path.exists());
    drop(directory);
}

#[test]
fn after_a_kill_the_path_can_be_had_again() {
    let (_directory, path) = place();
    let address = format!("unix:{}", path.display());
    let flags = ["--listen", &address, "--listen", "127.0.0.1:0", "--cores", "1"];
    let mut killed = Serve::new(&flags).start();
    Client::connect_unix(&path).get().is_hello();
    killed.kill();
    assert!(path.exists(), "nobody could remove it");
    let mut program = Serve::new(&flags).start();
    Client::connect_unix(&path).get().is_hello();
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    assert!(!path.exists());
}

#[test]
fn what_connections_are_held_to_changes_while_it_runs() {
    let (directory, path) = place();
    let toml = directory.path().join("server.toml");
    let write = |more: &str| fs::write(&toml, file(&path, more)).expect("written");
    write("first_byte_timeout = \"1h\"");
    let arguments = ["serve", "--config", toml.to_str().expect("text")];
    let mut program = Serve::with_arguments(&arguments).spawn();
    program.out.wait_for("listening on unix:");
    let mut patient = Client::connect_unix(&path);
    patient.get().is_hello();
    write("first_byte_timeout = \"50ms\"");
    program.signal(libc::SIGHUP);
    program.err.wait_for("read again");
    Client::connect_unix(&path).is_gone();
    patient.get().is_hello();
    // What cannot hold changes nothing.
    write("balance = \"least\"");
    program.signal(libc::SIGHUP);
    program.err.wait_for("nothing was changed");
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    assert!(!path.exists());
}
