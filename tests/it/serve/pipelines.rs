//! Clients that do not wait for an answer before the next request.

use super::client::Client;
use super::in_process::{Served, answer, within_reason};
use super::program::{Program, Serve};
use super::{NEVER, skipped, until};
use crate::process;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The request with this number to the built-in service, and the status it answers with.
fn request(number: usize) -> (&'static str, u16) {
    match number * number % 11 % 3 {
        0 => ("GET / HTTP/1.1\r\nhost: test\r\n\r\n", 200),
        1 => ("GET /nothing HTTP/1.1\r\nhost: test\r\n\r\n", 404),
        _ => ("DELETE / HTTP/1.1\r\nhost: test\r\n\r\n", 405),
    }
}

#[test]
fn a_thousand_requests_in_one_segment_are_answered_in_order() {
    let program = Serve::new(&["--cores", "1"]).start();
    let mut client = Client::connect(program.address());
    for _ in 0..5 {
        client.send((0..1000).map(|number| request(number).0).collect::<String>());
        for number in 0..1000 {
            assert_eq!(client.answer().status, request(number).1, "{number}");
        }
    }
}

#[test]
fn answers_keep_their_order_when_handlers_take_their_time() {
    within_reason(|| {
        let served = Served::by_fn(|request| async move {
            let number = request.uri().path()[1..].to_owned();
            for _ in 0..number.parse::<usize>().expect("a number") % 5 {
                corelane::yield_now().await;
            }
            answer(number)
        });
        let mut client = Client::connect(served.address);
        let requests: String =
            (0..1000).map(|number| format!("GET /{number} HTTP/1.1\r\nhost: t\r\n\r\n")).collect();
        client.send(requests);
        for number in 0..1000 {
            assert_eq!(client.answer().body, number.to_string().as_bytes());
        }
    });
}

#[test]
fn requests_that_arrive_byte_by_byte_are_answered() {
    let program = Serve::new(&["--cores", "1"]).start();
    let mut client = Client::connect(program.address());
    let requests: String = (0..20).map(|number| request(number).0).collect();
    for byte in requests.as_bytes().chunks(1) {
        client.send(byte);
    }
    for number in 0..20 {
        assert_eq!(client.answer().status, request(number).1, "{number}");
    }
}

#[test]
fn a_client_that_pipelines_without_end_does_not_starve_the_others() {
    let program = Serve::new(&["--cores", "1"]).start();
    let flood = Client::connect(program.address());
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let requests = request(0).0.repeat(500);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = flood.stream();
            while !stop.load(Ordering::Relaxed) {
                stream.write_all(requests.as_bytes()).expect("sent");
            }
            stream.shutdown(Shutdown::Write).expect("open");
        });
        scope.spawn(|| {
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match flood.stream().read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => answered.fetch_add(count, Ordering::Relaxed),
                    // The server may end a connection whose other side has said that it ends.
                    Err(error) if stop.load(Ordering::Relaxed) => return drop(error),
                    Err(error) => panic!("{error}"),
                };
            }
        });
        // Whatever happens in here, the threads must end.
        let others = thread::Builder::new().spawn_scoped(scope, || {
            until("the flood has begun", || answered.load(Ordering::Relaxed) > 0);
            let mut slowest = Duration::ZERO;
            let mut client = Client::connect(program.address());
            for number in 0..200 {
                let asked = Instant::now();
                if number % 10 == 0 {
                    client = Client::connect(program.address());
                }
                client.get().is_hello();
                slowest = slowest.max(asked.elapsed());
            }
            let before = answered.load(Ordering::Relaxed);
            until("the flood goes on", || answered.load(Ordering::Relaxed) > before);
            slowest
        });
        let slowest = others.expect("a thread").join();
        stop.store(true, Ordering::Relaxed);
        let slowest = slowest.expect("no panic");
        assert!(slowest < Duration::from_secs(10), "somebody waited for {slowest:?}");
    });
}

fn resident_kib(program: &Program) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", program.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_client_that_does_not_read_is_not_read_either_and_misses_nothing_later() {
    // More than all the buffers of the kernel could hold.
    const TOO_MUCH: usize = 64 << 20;
    let program = Serve::new(&["--cores", "1"]).start();
    let mut client = Client::connect(program.address());
    let mut other = Client::connect(program.address());
    other.get().is_hello();
    let before = resident_kib(&program);

    const BLOCK: usize = 3300;
    let block: String = (0..BLOCK).map(|number| request(number).0).collect();
    let (mut blocks, mut sent_of_block) = (0, 0);
    let stream = client.stream().try_clone().expect("a descriptor");
    stream.set_nonblocking(true).expect("set");
    let mut progress = Instant::now();
    while progress.elapsed() < Duration::from_millis(300) {
        match (&stream).write(&block.as_bytes()[sent_of_block..]) {
            Ok(count) => {
                (sent_of_block, progress) = (sent_of_block + count, Instant::now());
                if sent_of_block == block.len() {
                    (blocks, sent_of_block) = (blocks + 1, 0);
                }
                assert!(blocks * block.len() < TOO_MUCH, "the server reads on and on");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    for _ in 0..20 {
        other.get().is_hello();
    }
    if process::is_sanitized() {
        skipped("how much memory the connection has: AddressSanitizer keeps what was freed");
    } else {
        let grown = resident_kib(&program).saturating_sub(before);
        assert!(grown < 8 * 1024, "one connection has {grown} KiB");
    }

    stream.set_nonblocking(false).expect("set");
    thread::scope(|scope| {
        let rest = &block.as_bytes()[sent_of_block..];
        scope.spawn(|| (&stream).write_all(rest).expect("sent"));
        let began = Instant::now();
        for number in 0..(blocks + 1) * BLOCK {
            assert_eq!(client.answer().status, request(number % BLOCK).1, "{number}");
            assert!(began.elapsed() < NEVER, "{number} answers");
        }
    });
    client.get().is_hello();
}
