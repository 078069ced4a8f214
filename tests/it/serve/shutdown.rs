//! Ending: what a signal leaves time for, what it does not, and the exit status.

use super::client::{Client, GET};
use super::program::{Program, Serve};
use super::{skipped, system, until};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const HALF: &str = "GET / HTTP/1.1\r\nhost: test\r\n";
const OTHER_HALF: &str = "\r\n";

fn clients(program: &Program, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::connect(program.address())).collect()
}

/// Waits until the server has accepted so many connections and read what it was sent.
fn until_read(program: &Program, connections: usize) {
    let local = format!("0100007F:{:04X}", program.address().port());
    // What has been sent on loopback has arrived; a table of the kernel says how much of it has not been read.
    until("everything has been accepted and read", || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let accepted = |row: &[&str]| {
            let (is_listener, is_in_a_queue) = (row[3] == "0A", row[9] == "0");
            row[1] == local && !is_listener && !is_in_a_queue
        };
        let accepted: Vec<_> = rows.filter(|row| accepted(row)).collect();
        accepted.len() >= connections && accepted.iter().all(|row| row[4].ends_with(":00000000"))
    });
}

#[test]
fn a_signal_lets_open_requests_finish_and_closes_the_rest() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        if !system::may_open_files(1000) {
            return skipped("400 connections: too few files may be open");
        }
        let mut program = Serve::new(&["--drain-seconds", "60"]).start();
        let mut idle = clients(&program, 300);
        idle.iter_mut().for_each(|client| client.get().is_hello());
        let mut silent = clients(&program, 30);
        let mut active = clients(&program, 30);
        active.iter_mut().for_each(|client| client.send(HALF));
        until_read(&program, 360);
        // The built-in service answers before it has the body, which counts as part of the request all the same.
        let mut sending = clients(&program, 10);
        for client in &mut sending {
            client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 8\r\n\r\nhalf");
            assert_eq!(client.answer().status, 405);
        }

        program.signal(signal);
        idle.iter_mut().for_each(Client::is_closed);
        silent.iter_mut().for_each(Client::is_closed);
        until("nothing is accepted any more", || TcpStream::connect(program.address()).is_err());
        assert!(program.status().is_none(), "there are open requests");
        let mut announced = 0;
        for client in &mut active {
            client.send(OTHER_HALF);
            let answer = client.answer();
            answer.is_hello();
            announced += usize::from(answer.header("connection") == Some("close"));
            client.is_closed();
        }
        // A request that arrives with the order to end may be answered before its connection hears of it.
        assert!(announced > 0, "no answer says that it is the last one");
        drop(sending);
        let took = program.exits_with(0);
        assert!(took < Duration::from_secs(20), "{took:?}");
        program.err.all();
        assert_eq!(program.complaints().len(), 1, "{:?}", program.complaints());
    }
}

#[test]
fn what_is_not_finished_when_the_drain_ends_is_cut_off() {
    let mut program = Serve::new(&["--drain-seconds", "1"]).start();
    let mut silent = clients(&program, 10);
    let mut active = clients(&program, 10);
    active.iter_mut().for_each(|client| client.send(HALF));
    until_read(&program, 20);
    program.signal(libc::SIGTERM);
    silent.iter_mut().for_each(Client::is_closed);
    let took = program.exits_with(0);
    assert!(took > Duration::from_millis(500), "open requests had their second: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    active.iter_mut().for_each(Client::is_gone);
    assert_eq!(
        program.err.times_of("were cut off by the end of the drain").len(),
        1,
        "{:?}",
        program.err.all()
    );
}

#[test]
fn one_connection_that_is_cut_off_is_one() {
    // No task but the connection's is left by then: the accept loops end with the signal.
    let mut program = Serve::new(&["--cores", "1", "--drain-seconds", "1"]).start();
    let mut active = clients(&program, 1);
    active[0].send(HALF);
    until_read(&program, 1);
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    active.iter_mut().for_each(Client::is_gone);
    let said = program.err.all();
    let cut: Vec<_> = said.iter().filter(|line| line.contains("cut off")).collect();
    assert!(
        cut.len() == 1 && cut[0].contains("1 connection or other task was cut off"),
        "{said:?}"
    );
}

#[test]
fn with_no_time_for_a_drain_the_end_is_immediate() {
    let mut program = Serve::new(&["--drain-seconds", "0"]).start();
    let mut active = clients(&program, 10);
    active.iter_mut().for_each(|client| client.send(HALF));
    until_read(&program, 10);
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    active.iter_mut().for_each(Client::is_gone);
}

#[test]
fn a_second_signal_ends_at_once_with_its_number() {
    let pairs = [
        (libc::SIGTERM, libc::SIGTERM),
        (libc::SIGINT, libc::SIGTERM),
        (libc::SIGTERM, libc::SIGINT),
        (libc::SIGINT, libc::SIGINT),
    ];
    for (first, second) in pairs {
        let mut program = Serve::new(&["--drain-seconds", "60"]).start();
        let mut active = Client::connect(program.address());
        active.send(HALF);
        until_read(&program, 1);
        program.signal(first);
        program.err.wait_for("draining for at most 60 s");
        assert!(program.status().is_none(), "a request is open");
        program.signal(second);
        let took = program.exits_with(128 + second);
        assert!(took < Duration::from_secs(10), "{took:?}");
        active.is_gone();
        assert_eq!(
            program.err.times_of("a second signal, ending at once").len(),
            1,
            "{:?}",
            program.err.all()
        );
    }
}

#[test]
fn a_signal_during_the_start_ends_the_program() {
    let began = Instant::now();
    drop(Serve::new(&[]).start());
    let start = began.elapsed();
    let (mut rounds, mut ended_by_itself) = (0, 0);
    // The last rounds come after the start, however long it takes by then.
    while rounds < 30 || ended_by_itself == 0 {
        let mut program = Serve::new(&[]).spawn();
        // No order is wanted here: each round finds the start at another place.
        thread::sleep(start * rounds / 20);
        rounds += 1;
        assert!(rounds < 200, "none of {rounds} starts was over after {:?}", start * rounds / 20);
        program.signal(libc::SIGTERM);
        let status = program.wait();
        match (status.signal(), status.code()) {
            // Before it could catch the signal.
            (Some(libc::SIGTERM), None) => {}
            (None, Some(0)) => ended_by_itself += 1,
            _ => panic!("{status}: {:?}", program.err.all()),
        }
    }
}

#[test]
fn connections_that_nobody_has_accepted_yet_are_answered_when_the_server_ends() {
    // A stopped server accepts nothing; the kernel does it for it. When it goes on it finds both, requests and signal.
    for _ in 0..5 {
        let mut program = Serve::new(&["--cores", "1", "--drain-seconds", "60"]).start();
        Client::connect(program.address()).get().is_hello();
        program.signal(libc::SIGSTOP);
        let mut waiting = clients(&program, 50);
        waiting.iter_mut().for_each(|client| client.send(GET));
        program.signal(libc::SIGTERM);
        program.signal(libc::SIGCONT);
        waiting.iter_mut().for_each(|client| client.answer().is_hello());
        program.exits_with(0);
    }
}

#[test]
fn a_signal_under_load_cuts_no_answer_short() {
    for _ in 0..3 {
        let mut program = Serve::new(&["--drain-seconds", "60"]).start();
        let answers = AtomicUsize::new(0);
        let clients = clients(&program, 16);
        thread::scope(|scope| {
            for mut client in clients {
                let answers = &answers;
                scope.spawn(move || {
                    while let Ok(answer) = client.try_get() {
                        answer.is_hello();
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                    // Closed between two requests, or as one was on its way.
                    client.has_nothing_left();
                });
            }
            until("there is load", || answers.load(Ordering::Relaxed) > 500);
            program.signal(libc::SIGTERM);
        });
        let took = program.exits_with(0);
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
