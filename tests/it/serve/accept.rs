//! Listening and accepting when something is short: ports, descriptors.

use super::client::Client;
use super::program::{Program, Serve};
use super::{eventually, skipped, system, until};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

/// More than one shard can accept of the first half, even if the other accepts none.
const CROWD: usize = 400;
const CANNOT_ACCEPT: &str = "cannot accept connections";

/// A port that nobody uses, outside the range from which the system takes ports for clients: what connects meanwhile
/// cannot take it.
pub(crate) fn free_port() -> SocketAddr {
    eventually("a free port", || {
        let port = 10_000 + (RandomState::new().hash_one(0) % 20_000) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        TcpListener::bind(address).is_ok().then_some(address)
    })
}

/// A server whose 64 files are taken by a crowd, and the one connection that came before the crowd. None: this process
/// may not open enough files itself.
fn starved(flags: &[&str]) -> Option<(Program, Client, Vec<Client>)> {
    if !system::may_open_files(1000) {
        skipped("a crowd of connections: too few files may be open");
        return None;
    }
    let program = Serve::new(flags).open_files(64).start();
    let mut first = Client::connect(program.address());
    first.get().is_hello();
    let crowd = (0..CROWD).map(|_| Client::connect(program.address())).collect();
    program.err.wait_for(CANNOT_ACCEPT);
    Some((program, first, crowd))
}

#[test]
fn a_server_without_free_files_waits_without_spinning_and_serves_who_is_there() {
    let Some((program, mut first, crowd)) = starved(&[]) else { return };

    let (began, used_before) = (Instant::now(), program.cpu_time());
    thread::sleep(Duration::from_secs(1));
    let (took, used) = (began.elapsed(), program.cpu_time() - used_before);
    assert!(used * 20 <= took, "{used:?} of CPU time in {took:?}");

    for _ in 0..20 {
        first.get().is_hello();
    }
    drop(crowd);
    Client::connect(program.address()).get().is_hello();

    let lines = program.err.times_of(CANNOT_ACCEPT);
    let starved_for = began.elapsed() + Duration::from_secs(1);
    assert!(lines.len() as u64 <= starved_for.as_secs() + 2, "{:?}", program.complaints());
}

#[test]
fn when_files_are_free_again_connections_are_accepted_within_a_second() {
    let Some((program, _first, mut crowd)) = starved(&[]) else { return };
    let mut shortest = Duration::MAX;
    // Another program that keeps the CPUs busy may be to blame once or twice.
    for _ in 0..4 {
        // The second line comes a second later: by now the pauses are as long as they get.
        let lines = program.err.times_of(CANNOT_ACCEPT).len();
        until("it is starved", || program.err.times_of(CANNOT_ACCEPT).len() > lines);
        // Of those who wait a few stay, whose turn comes before that of those who come now.
        crowd.drain(..crowd.len() - 10);
        let freed = Instant::now();
        let mut clients = [(); 8].map(|()| Client::connect(program.address()));
        clients.iter_mut().for_each(|client| client.get().is_hello());
        shortest = shortest.min(freed.elapsed());
        if shortest <= Duration::from_secs(1) {
            return;
        }
        crowd.extend((0..CROWD).map(|_| Client::connect(program.address())));
    }
    panic!("it took {shortest:?} at best");
}

#[test]
fn who_waits_for_long_without_free_files_is_turned_away() {
    let Some((program, mut first, mut crowd)) = starved(&[]) else { return };
    // Those who came first have been accepted, be it by one shard alone; of the others all are told, also those behind who is
    // told first.
    let newest = crowd.len() - 200;
    crowd.drain(newest..).for_each(|mut client| client.is_gone());
    program.err.wait_for("that waited were turned away");
    for _ in 0..20 {
        first.get().is_hello();
    }
    // And again.
    let mut late = Client::connect(program.address());
    late.is_gone();
    drop(crowd);
    Client::connect(program.address()).get().is_hello();
}

#[test]
fn a_server_without_free_files_ends_when_told() {
    let Some((mut program, mut first, mut crowd)) = starved(&["--drain-seconds", "20"]) else {
        return;
    };
    program.signal(libc::SIGTERM);
    let took = program.exits_with(0);
    assert!(took < Duration::from_secs(10), "{took:?}");
    first.is_closed();
    crowd.iter_mut().for_each(Client::is_gone);
}

/// Starts a server on this address, which must be refused for that reason.
#[track_caller]
fn is_refused(address: SocketAddr) {
    let began = Instant::now();
    let (status, out, err) = Serve::new(&["--listen", &address.to_string()]).run_to_its_end();
    let took = began.elapsed();
    assert_eq!((status.code(), out), (Some(2), vec![]));
    assert_eq!(err.len(), 1, "{err:?}");
    assert!(err[0].starts_with(&format!("corelane: cannot listen on {address}: ")), "{err:?}");
    assert!(err[0].contains("another"), "{err:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_second_instance_on_the_same_port_is_refused_and_the_first_serves_on() {
    let program = Serve::new(&[]).start();
    is_refused(program.address());
    for _ in 0..20 {
        Client::connect(program.address()).get().is_hello();
    }
}

#[test]
fn a_port_that_another_program_uses_is_refused() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    is_refused(other.local_addr().expect("an address"));
}

#[test]
fn one_port_that_is_taken_keeps_the_others_from_being_listened_on() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("an address").to_string();
    let free = free_port();
    let (status, out, _) =
        Serve::new(&["--listen", &free.to_string(), "--listen", &taken]).run_to_its_end();
    assert_eq!((status.code(), out), (Some(2), vec![]));
    TcpListener::bind(free).expect("nothing is left behind");
}

#[test]
fn every_file_is_closed_on_exec() {
    let program = Serve::new(&[]).start();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(program.address())).collect();
    for client in &mut clients {
        client.get().is_hello();
    }
    let own = program.own_files();
    assert!(own.len() > clients.len(), "{own:?}");
    assert!(own.iter().all(|file| file.closed_on_exec), "{own:?}");
}

#[test]
fn a_killed_server_can_be_started_again_at_once() {
    let address = free_port().to_string();
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let mut program = Serve::new(&["--listen", &address]).start();
        times.push(began.elapsed());
        // Connections that the kernel has to clean up: one at rest, one in the middle of a request.
        let mut clients = [(); 2].map(|()| Client::connect(program.address()));
        clients.iter_mut().for_each(|client| client.get().is_hello());
        clients[1].send("GET / HTTP/1.1\r\n");
        program.kill();
    }
    times.sort();
    // Most may have waited for a CPU. A port that is not free at once is not free soon either.
    assert!(times[5] < Duration::from_secs(1), "{times:?}");
}
