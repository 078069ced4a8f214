//! Sockets that are gone: their events reach nobody, their descriptors nobody else.

use super::client::Client;
use super::in_process::{SHARD, Served, answer, hold, within_reason};
use super::program::inherited_files;
use super::until;
use corelane::net::{TcpListener, TcpStream};
use corelane::{AbortHandle, Runtime};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Messages are of this length.
const LENGTH: usize = 8;

/// Closes every connection but the one it came on.
const CLOSE_OTHERS: &[u8; LENGTH] = b"close!!!";

/// What a shard's echo server knows.
#[derive(Default)]
struct Echo {
    tasks: RefCell<HashMap<u64, AbortHandle>>,
    descriptors: RefCell<HashMap<i32, u64>>,
    reused: Arc<AtomicUsize>,
}

/// A runtime of one shard that echoes messages, and how often a connection got a descriptor that another had before.
fn echo_server() -> (Runtime, SocketAddr, Arc<AtomicUsize>) {
    let runtime =
        Runtime::builder().cores("1".parse().expect("a number")).start().expect("started");
    let reused = Arc::new(AtomicUsize::new(0));
    let counter = reused.clone();
    let (tell, address) = mpsc::channel();
    let accept = move || async move {
        let echo = Rc::new(Echo { reused: counter, ..Echo::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        tell.send(listener.local_addr().expect("an address")).expect("the test waits");
        for number in 0.. {
            let (stream, _) = listener.accept().await.expect("a connection");
            if echo.descriptors.borrow_mut().insert(stream.as_raw_fd(), number).is_some() {
                echo.reused.fetch_add(1, Ordering::Relaxed);
            }
            let task = corelane::spawn_local(serve(stream, number, echo.clone()));
            echo.tasks.borrow_mut().insert(number, task.abort_handle());
        }
    };
    drop(runtime.handle().spawn_on(SHARD, accept).expect("a shard"));
    let address = address.recv().expect("a port");
    (runtime, address, reused)
}

async fn serve(mut stream: TcpStream, number: u64, echo: Rc<Echo>) {
    let mut message = [0; LENGTH];
    while stream.read_exact(&mut message).await.is_ok() {
        if message == *CLOSE_OTHERS {
            let others: Vec<_> =
                echo.tasks.borrow_mut().extract_if(|&other, _| other != number).collect();
            others.iter().for_each(|(_, task)| task.abort());
        }
        if stream.write_all(&message).await.is_err() {
            return;
        }
    }
}

fn name(number: usize) -> [u8; LENGTH] {
    (number as u64).to_be_bytes()
}

#[test]
fn events_of_closed_connections_reach_no_other() {
    const OLD: usize = 60;
    const NEW: usize = 60;
    within_reason(|| {
        let (runtime, address, reused) = echo_server();
        let mut clients: Vec<Client> = Vec::new();
        let mut number = 0;
        let mut come = |count: usize, clients: &mut Vec<Client>| {
            for _ in 0..count {
                let mut client = Client::connect(address);
                client.send(name(number));
                clients.push(client);
                number += 1;
            }
            number - count..number
        };
        for round in 0..20 {
            clients.clear();
            for (client, number) in come(OLD, &mut clients).enumerate() {
                assert_eq!(clients[client].read_exactly(LENGTH).expect("an echo"), name(number));
            }
            let held = hold(&runtime);
            for (index, client) in clients.iter_mut().enumerate() {
                client.send(if index == round { *CLOSE_OTHERS } else { name(index) });
            }
            let mut newcomers = Vec::new();
            let numbers = come(NEW, &mut newcomers);
            drop(held);
            assert_eq!(clients[round].read_exactly(LENGTH).expect("an echo"), CLOSE_OTHERS);
            for (index, client) in
                clients.iter_mut().enumerate().filter(|(index, _)| *index != round)
            {
                // Echoed before the end, or not.
                if let Ok(echo) = client.read_exactly(LENGTH) {
                    assert_eq!(echo, name(index));
                    client.is_gone();
                }
            }
            for (client, number) in newcomers.iter_mut().zip(numbers) {
                assert_eq!(client.read_exactly(LENGTH).expect("an echo"), name(number));
                client.send(name(number + 1));
                assert_eq!(client.read_exactly(LENGTH).expect("an echo"), name(number + 1));
            }
        }
        assert!(reused.load(Ordering::Relaxed) > NEW, "no descriptor was used twice");
    });
}

/// Kills the child with the test.
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn events_of_a_socket_that_lives_on_in_another_process_reach_nobody() {
    within_reason(|| {
        let runtime =
            Runtime::builder().cores("1".parse().expect("a number")).start().expect("started");
        let stats = || runtime.handle().stats()[0];
        let (tell, address) = mpsc::channel();
        let keepers = Arc::new(Mutex::new(Vec::new()));
        let kept = keepers.clone();
        // The first connections are given to another process and closed here; the others are echoed.
        let accept = move || async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(listener.local_addr().expect("an address")).expect("the test waits");
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                if number >= 5 {
                    drop(corelane::spawn_local(serve(stream, number, Rc::default())));
                    continue;
                }
                // Registered with the poll, and known to be readable.
                stream.read_exact(&mut [0; LENGTH]).await.expect("a message");
                stream.write_all(b"gone").await.expect("written");
                let copy = stream.as_fd().try_clone_to_owned().expect("a descriptor");
                let child = Command::new("sleep")
                    .arg("600")
                    .stdin(Stdio::from(copy))
                    .stdout(Stdio::null())
                    .spawn();
                kept.lock().expect("no panic").push(Keeper(child.expect("started")));
            }
        };
        drop(runtime.handle().spawn_on(SHARD, accept).expect("a shard"));
        let address = address.recv().expect("a port");
        let ghosts: Vec<Client> = (0..5)
            .map(|_| {
                let mut client = Client::connect(address);
                client.send(name(0));
                assert_eq!(client.read_exactly(4).expect("a word"), b"gone");
                client
            })
            .collect();
        until("other processes have the sockets", || {
            keepers.lock().expect("no panic").len() == ghosts.len()
        });
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
        let mut ghosts = ghosts;
        for round in 0..50 {
            ghosts.iter_mut().for_each(|ghost| ghost.send(name(7)));
            for (number, client) in clients.iter_mut().enumerate() {
                client.send(name(number + round));
                assert_eq!(client.read_exactly(LENGTH).expect("an echo"), name(number + round));
            }
        }
        // Bytes that nobody reads are not announced again and again.
        let (before, began) = (stats().turns, Instant::now());
        std::thread::sleep(Duration::from_millis(200));
        let turns = stats().turns - before;
        assert!(turns < 50, "{turns} turns in {:?} of silence", began.elapsed());
        keepers.lock().expect("no panic").clear();
        ghosts.iter_mut().for_each(Client::is_gone);
    });
}

#[test]
fn a_program_that_a_handler_starts_inherits_no_socket() {
    within_reason(|| {
        let served = Served::by_fn(|_request| async {
            let list = || Command::new("ls").arg("/proc/self/fd").stdin(Stdio::null()).output();
            let output = corelane::spawn_blocking(list).await.expect("no panic").expect("started");
            answer(output.stdout)
        });
        let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(served.address)).collect();
        let inherited = inherited_files();
        for client in &mut clients {
            let listed = client.get().body;
            let mut files: Vec<u32> =
                String::from_utf8_lossy(&listed).lines().flat_map(str::parse).collect();
            files.retain(|file| !inherited.contains(file));
            // The directory itself.
            assert_eq!(files.len(), 1, "{files:?}");
        }
    });
}
