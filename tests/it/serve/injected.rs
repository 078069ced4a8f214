//! System calls that fail where only the kernel decides, one thread and one shard at a time.

use super::accept::free_port;
use super::client::Client;
use super::program::{Program, Serve};
use super::strace::Injection;
use super::{skipped, until};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A server of one shard under this plan.
fn serve(injection: &Injection, flags: &[&str]) -> Program {
    let flags = [&["--cores", "1"], flags].concat();
    Serve::new(&flags).under(&injection.wrapper()).start()
}

#[track_caller]
fn asks_ten_times(program: &Program) -> Vec<Client> {
    let ask = |_| {
        let mut client = Client::connect(program.address());
        client.get().is_hello();
        client
    };
    (0..10).map(ask).collect()
}

#[test]
fn a_shortage_of_the_system_makes_accepting_pause() {
    for error in ["ENFILE", "ENOBUFS", "ENOMEM"] {
        // In the middle of the load four calls in a row fail.
        let Some(injection) = Injection::new("accept4", error, "5..8") else { return };
        let program = serve(&injection, &[]);
        asks_ten_times(&program);
        program.err.wait_for("cannot accept connections");
        let failed = injection.injected();
        assert_eq!(failed.len(), 4, "{error}: {failed:?}");
        // 5 ms, and twice as long each time; a clock of whole milliseconds may be half of one early.
        for (pair, pause) in failed.windows(2).zip([0.004, 0.009, 0.019]) {
            let gap = pair[1].time - pair[0].time;
            assert!(gap >= pause, "{error}: after {gap} s instead of {pause} s");
        }
        assert_eq!(
            program.err.times_of("cannot accept connections").len(),
            1,
            "{:?}",
            program.complaints()
        );
    }
}

#[test]
fn an_error_of_one_connection_does_not_make_accepting_pause() {
    for error in ["ECONNABORTED", "EPROTO", "EPERM", "EINTR"] {
        // Every third call fails.
        let Some(injection) = Injection::new("accept4", error, "2+3") else { return };
        let program = serve(&injection, &[]);
        asks_ten_times(&program);
        let record = injection.record();
        let shortest = |gaps: &mut dyn Iterator<Item = f64>| gaps.fold(f64::MAX, f64::min);
        let mut gaps = record
            .windows(2)
            .filter(|pair| pair[0].was_injected())
            .map(|pair| pair[1].time - pair[0].time);
        let gap = shortest(&mut gaps);
        assert!(injection.injected().len() >= 4, "{error}: {record:?}");
        assert!(gap < 0.004, "{error}: tried again after {gap} s");
        let said = program.complaints();
        assert!(said.len() <= 2, "{error}: {said:?}");
        assert!(
            said.iter().all(|line| line.contains("was lost before it was accepted")),
            "{error}: {said:?}"
        );
    }
}

/// Connects again and again until the program has ended, which it must with 1.
#[track_caller]
fn ends_when_somebody_comes(program: &mut Program, address: SocketAddr) {
    let mut connections = Vec::new();
    let began = Instant::now();
    until("it ends", || {
        connections.extend(TcpStream::connect(address));
        program.status().is_some()
    });
    let took = began.elapsed();
    assert_eq!(program.wait().code(), Some(1), "{:?}", program.err.all());
    assert!(took < Duration::from_secs(20), "{took:?}: {:?}", program.err.all());
}

#[test]
fn a_listener_that_has_failed_for_good_ends_the_program() {
    for error in ["EINVAL", "EBADF"] {
        let Some(injection) = Injection::new("accept4", error, "6+") else { return };
        let mut program = serve(&injection, &["--drain-seconds", "60"]);
        let mut idle = Client::connect(program.address());
        idle.get().is_hello();
        let address = program.address();
        ends_when_somebody_comes(&mut program, address);
        idle.is_closed();
        let text = format!("the listener of {address} has failed");
        let said = program.err.times_of(&text).len();
        assert!((1..=2).contains(&said), "{error}: {:?}", program.complaints());
        // No loop: it is tried no more than once again.
        let failed = injection.injected();
        assert!((1..=2).contains(&failed.len()), "{error}: {failed:?}");
    }
}

#[test]
fn any_one_of_several_listeners_that_fails_ends_the_program() {
    // Whichever calls accept when: early, before anybody has come, or for one who comes to either.
    for (when, index) in [("1", 0), ("2", 0), ("3", 0), ("3", 1), ("5", 0), ("5", 1)] {
        let Some(injection) = Injection::new("accept4", "EINVAL", when) else { return };
        let listen = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
        let mut program = serve(&injection, &[&listen[..], &["--drain-seconds", "60"]].concat());
        let address = program.addresses()[index];
        ends_when_somebody_comes(&mut program, address);
        assert_eq!(injection.injected().len(), 1);
        assert!(!program.err.times_of("has failed: Invalid argument").is_empty());
    }
}

#[test]
fn a_wait_that_a_signal_interrupts_is_taken_up_again() {
    let Some(injection) = Injection::new("?epoll_wait,?epoll_pwait", "EINTR", "2+2") else {
        return;
    };
    let program = serve(&injection, &[]);
    asks_ten_times(&program);
    until("waits were interrupted", || injection.injected().len() > 5);
    asks_ten_times(&program);
    assert!(program.complaints().is_empty(), "{:?}", program.complaints());
}

#[test]
fn a_server_that_was_stopped_and_continued_goes_on() {
    let program = Serve::new(&[]).start();
    let mut clients = asks_ten_times(&program);
    for _ in 0..5 {
        program.signal(libc::SIGSTOP);
        let state =
            || std::fs::read_to_string(format!("/proc/{}/stat", program.pid())).expect("a process");
        until("it has stopped", || state().contains(") T "));
        clients.iter_mut().for_each(|client| client.send(super::client::GET));
        clients.push(Client::connect(program.address()));
        program.signal(libc::SIGCONT);
        let (newest, others) = clients.split_last_mut().expect("some");
        others.iter_mut().for_each(|client| client.answer().is_hello());
        newest.get().is_hello();
    }
}

#[test]
fn a_connection_that_cannot_be_watched_is_closed_and_nothing_else() {
    for error in ["ENOSPC", "ENOMEM"] {
        // The shard's own listener comes first; what the main thread needs is less than 20.
        let Some(injection) = Injection::new("epoll_ctl", error, "30..39") else { return };
        let program = serve(&injection, &[]);
        let baseline = program.open_files_at_rest();
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..60 {
            let mut client = Client::connect(program.address());
            // A server that cannot watch a connection may serve what has come already, but then it must close.
            let _ = client.try_get().and_then(|_| client.try_get());
            clients.push(client);
        }
        until("ten could not be watched", || injection.injected().len() == 10);
        clients.retain_mut(|client| client.try_get().is_ok());
        assert_eq!(clients.len(), 50, "{error}");
        clients.iter_mut().for_each(|client| client.get().is_hello());
        until("those that were refused are closed", || {
            program.open_files() == baseline + clients.len()
        });
        drop(clients);
        until("every connection's file is closed", || program.open_files() == baseline);
    }
}

#[test]
fn a_bind_that_fails_for_a_later_shard_leaves_nothing() {
    if std::thread::available_parallelism().expect("a number").get() < 2 {
        return skipped("a second shard: there is one CPU");
    }
    // First the probe, then one per shard.
    for call in ["2", "3"] {
        let Some(injection) = Injection::new("bind", "EADDRINUSE", call) else { return };
        let address = free_port();
        let serve = Serve::new(&["--cores", "2", "--listen", &address.to_string()]);
        let (status, out, err) = serve.under(&injection.wrapper()).run_to_its_end();
        assert_eq!(injection.injected().len(), 1);
        assert_eq!((status.code(), out), (Some(2), vec![]), "{err:?}");
        assert!(
            err.len() == 1 && err[0].contains(&format!("cannot listen on {address}")),
            "{err:?}"
        );
        TcpListener::bind(address).expect("nothing is left behind");
    }
}

#[test]
fn a_start_without_enough_files_is_refused() {
    let mut refused = 0;
    for limit in 4..30 {
        let mut program = Serve::new(&["--cores", "1"]).open_files(limit).spawn();
        until("it listens, or has ended", || {
            !program.addresses().is_empty() || program.status().is_some()
        });
        if !program.addresses().is_empty() {
            program.signal(libc::SIGTERM);
            program.exits_with(0);
            continue;
        }
        let (code, out, err) = (program.wait().code(), program.out.all(), program.err.all());
        assert_eq!((code, out), (Some(2), vec![]), "{limit}: {err:?}");
        assert!(err.len() == 1 && err[0].contains("Too many open files"), "{limit}: {err:?}");
        assert!(err[0].ends_with("raise the limit with ulimit -n"), "{limit}: {err:?}");
        refused += 1;
    }
    assert!((5..20).contains(&refused), "{refused}");
}

#[test]
fn a_thread_that_cannot_be_had_ends_the_start_or_is_done_without() {
    let (mut refused, mut served) = (0, 0);
    for number in 1..=8 {
        // Started by the main thread: those of the shards, and those that help it.
        let when = number.to_string();
        let Some(injection) = Injection::new("?clone3,?clone", "EAGAIN", &when) else { return };
        let address = free_port();
        let serve = Serve::new(&["--cores", "1", "--listen", &address.to_string()]);
        let mut program = serve.under(&injection.wrapper()).spawn();
        until("it listens, or has ended", || {
            TcpStream::connect(address).is_ok() || program.status().is_some()
        });
        if program.status().is_none() {
            Client::connect(address).get().is_hello();
            until("it says where it listens, somewhere", || {
                let said = [program.out.so_far(), program.err.so_far()].concat();
                said.iter().any(|line| line.contains(&format!("listening on http://{address}")))
            });
            program.signal(libc::SIGTERM);
            program.exits_with(0);
            served += 1;
            continue;
        }
        let (code, out, err) = (program.wait().code(), program.out.all(), program.err.all());
        assert_eq!((code, out), (Some(2), vec![]), "{number}: {err:?}");
        assert!(err.len() == 1 && err[0].contains("thread"), "{number}: {err:?}");
        TcpListener::bind(address).expect("nothing is left behind");
        refused += 1;
    }
    assert!(refused >= 2 && served >= 1, "refused {refused} times, served {served} times");
}

#[test]
fn a_crowd_that_takes_every_file_during_the_start_does_not_end_the_program() {
    // What is made after the port is open comes too late.
    let Some(injection) = Injection::delay("epoll_create1", 200_000) else { return };
    let address = free_port();
    let serve = Serve::new(&["--listen", &address.to_string()]).open_files(64);
    let mut program = serve.under(&injection.wrapper()).spawn();
    let mut crowd = Vec::new();
    until("the crowd is there", || {
        crowd.extend(TcpStream::connect(address));
        crowd.len() == 100 || program.status().is_some()
    });
    program.out.wait_for("listening on");
    program.err.wait_for("cannot accept connections");
    crowd.clear();
    Client::connect(address).get().is_hello();
    program.signal(libc::SIGTERM);
    program.exits_with(0);
}
