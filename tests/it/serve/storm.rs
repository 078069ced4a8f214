//! Many connections: at once, and one after the other.

use super::client::Client;
use super::program::{Program, Serve};
use super::{NEVER, skipped, system, until};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

/// Connects, asks once, reads to the end. False: it took too long.
async fn ask_once(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
        stream.write_all(REQUEST).await.expect("sent");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.expect("an orderly end");
        assert!(
            received.ends_with(b"\r\n\r\nHello, World!"),
            "{}",
            String::from_utf8_lossy(&received)
        );
    };
    tokio::time::timeout(NEVER, ask).await.is_ok()
}

#[test]
fn thousands_of_connections_at_once_are_served_beside_one_that_was_there() {
    const CROWD: usize = 10_000;
    if !system::may_open_files(CROWD as u64 + 500) {
        return skipped("10,000 connections: too few files may be open");
    }
    let program = Serve::new(&[]).open_files(CROWD as u64 + 500).start();
    let address = program.address();
    let mut first = Client::connect(address);
    first.get().is_hello();
    let over = AtomicBool::new(false);
    let (answers, slowest) = thread::scope(|scope| {
        let first = scope.spawn(|| {
            let (mut answers, mut slowest) = (0, std::time::Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                first.get().is_hello();
                slowest = slowest.max(asked.elapsed());
                answers += 1;
            }
            (answers, slowest)
        });
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let asked = runtime.block_on(async {
            let asking: Vec<_> = (0..CROWD).map(|_| tokio::spawn(ask_once(address))).collect();
            futures::future::join_all(asking).await
        });
        over.store(true, Ordering::Relaxed);
        // Panics of the crowd's come out here.
        let completed =
            asked.into_iter().filter(|asked| *asked.as_ref().expect("no panic")).count();
        assert_eq!(completed, CROWD);
        first.join().expect("no panic")
    });
    assert!(answers > 5, "only {answers} answers meanwhile, the slowest after {slowest:?}");
    drop(first);
    Client::connect(address).get().is_hello();
    assert!(program.complaints().is_empty(), "{:?}", program.complaints());
}

/// Opens and closes connections in every way there is.
fn come_and_go(program: &Program, count: usize) {
    const AT_A_TIME: usize = 4;
    let next = AtomicUsize::new(0);
    let address = program.address();
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let mut client = Client::connect(address);
            match number / 2 % 4 {
                // Silent.
                0 => {}
                // In the middle of a head.
                1 => client.send("GET / HT"),
                // Without reading the answer.
                2 => client.send(REQUEST),
                _ => client.get().is_hello(),
            }
            if number.is_multiple_of(2) {
                client.reset();
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(work);
        }
    });
}

#[test]
fn connections_that_come_and_go_leave_no_file_open() {
    let mut program = Serve::new(&[]).start();
    come_and_go(&program, 100);
    let baseline = program.open_files_at_rest();
    come_and_go(&program, 100_000);
    until("every file is closed", || program.open_files() == baseline);
    Client::connect(program.address()).get().is_hello();
    program.signal(libc::SIGTERM);
    program.exits_with(0);
}
