//! Sockets between shards: they follow whoever polls them, and nobody who waits is forgotten.

use super::{shards, tcp_pair, two_shards, within_reason};
use corelane::net::{TcpListener, TcpSocket, TcpStream, UdpSocket, UnixStream};
use corelane::{Handle, ShardId};
use futures::io::{AsyncReadExt, AsyncWriteExt};
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

const FIRST: ShardId = ShardId::new(0);
const SECOND: ShardId = ShardId::new(1);

/// Runs `body` as a task of the first of two shards.
fn run<F: Future<Output = ()> + 'static>(body: impl FnOnce(Handle) -> F + Send + 'static) {
    within_reason(move || {
        let Some(runtime) = two_shards() else {
            return eprintln!("SKIPPED: there are not two CPUs for two shards");
        };
        let handle = runtime.handle().clone();
        let task = runtime.handle().spawn_on(FIRST, move || body(handle)).expect("a shard");
        runtime.block_on(task).expect("no panic");
    });
}

/// Sends one byte each way.
async fn ping(a: &mut TcpStream, b: &mut TcpStream) {
    a.write_all(b"x").await.expect("written");
    assert_eq!(b.read(&mut [0; 8]).await.expect("read"), 1);
    b.write_all(b"y").await.expect("written");
    assert_eq!(a.read(&mut [0; 8]).await.expect("read"), 1);
}

#[test]
fn a_connection_moves_to_and_fro_in_the_middle_of_a_conversation() {
    run(|handle| async move {
        let (mut a, mut b) = tcp_pair().await;
        for _ in 0..50 {
            ping(&mut a, &mut b).await;
            (a, b) = handle
                .submit_to(SECOND, move || async move {
                    ping(&mut a, &mut b).await;
                    (a, b)
                })
                .await
                .expect("no panic");
        }
    });
}

#[test]
fn bytes_that_arrive_while_a_connection_moves_are_found() {
    run(|handle| async move {
        for _ in 0..50 {
            let (mut a, mut b) = tcp_pair().await;
            // Registered here, so that it has a home to leave.
            ping(&mut a, &mut b).await;
            let reading = handle
                .spawn_on(SECOND, move || async move {
                    let mut received = Vec::new();
                    b.read_to_end(&mut received).await.expect("read");
                    received
                })
                .expect("a shard with room");
            a.write_all(b"on the way").await.expect("written");
            drop(a);
            assert_eq!(reading.await.expect("no panic"), b"on the way");
        }
    });
}

#[test]
fn the_halves_of_a_connection_work_on_two_shards() {
    const SIZE: usize = 1 << 20;
    run(|handle| async move {
        let (a, mut b) = tcp_pair().await;
        let (mut reader, mut writer) = a.into_split();
        let writing = handle
            .spawn_on(SECOND, move || async move {
                writer.write_all(&vec![4; SIZE]).await.expect("written");
                writer
            })
            .expect("a shard with room");
        let echo = corelane::spawn_local(async move {
            let mut buf = vec![0; 10_000];
            for _ in 0..SIZE / 10_000 {
                b.read_exact(&mut buf).await.expect("read");
                b.write_all(&buf).await.expect("written");
            }
            b
        });
        let mut received = vec![0; SIZE / 10_000 * 10_000];
        reader.read_exact(&mut received).await.expect("read");
        assert!(received.iter().all(|&byte| byte == 4));
        let _b = echo.await.expect("no panic");
        let writer = writing.await.expect("no panic");
        reader.reunite(writer).expect("of one stream");
    });
}

#[test]
fn tasks_of_two_shards_that_wait_for_one_socket_are_all_served() {
    run(|handle| async move {
        for _ in 0..20 {
            let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
            let tasks: Vec<_> = [FIRST, SECOND, FIRST, SECOND]
                .into_iter()
                .map(|shard| {
                    let socket = socket.clone();
                    let wait = move || async move {
                        let mut buf = [0; 8];
                        socket.recv(&mut buf).await.expect("received");
                        buf[0]
                    };
                    handle.spawn_on(shard, wait).expect("a shard with room")
                })
                .collect();
            let sender = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
            let addr = socket.local_addr().expect("an address");
            for number in 0..4 {
                sender.send_to(&[number], addr).await.expect("sent");
                corelane::yield_now().await;
            }
            let mut received = Vec::new();
            for task in tasks {
                received.push(task.await.expect("no panic"));
            }
            received.sort_unstable();
            assert_eq!(received, [0, 1, 2, 3]);
        }
    });
}

#[test]
fn acceptors_of_two_shards_share_one_listener() {
    run(|handle| async move {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        let addr = listener.local_addr().expect("an address");
        let tasks: Vec<_> = [FIRST, SECOND]
            .into_iter()
            .map(|shard| {
                let listener = listener.clone();
                let accept = move || async move {
                    let mut peers = Vec::new();
                    for _ in 0..10 {
                        let (mut stream, peer) = listener.accept().await.expect("a peer");
                        stream.write_all(b"x").await.expect("written");
                        peers.push(peer);
                    }
                    peers
                };
                handle.spawn_on(shard, accept).expect("a shard with room")
            })
            .collect();
        let mut expected = Vec::new();
        for _ in 0..20 {
            let mut client = TcpStream::connect(addr).await.expect("it listens");
            client.read_exact(&mut [0]).await.expect("greeted");
            expected.push(client.local_addr().expect("an address"));
        }
        let mut accepted = Vec::new();
        for task in tasks {
            accepted.extend(task.await.expect("no panic"));
        }
        accepted.sort();
        expected.sort();
        assert_eq!(accepted, expected);
    });
}

fn sharing_listener(addr: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("set");
    socket.bind(addr).expect("bound");
    socket.listen(128).expect("listening")
}

#[test]
fn each_shard_has_a_listener_of_its_own_on_one_port() {
    run(|handle| async move {
        // Made outside the shards that will use them.
        let first = sharing_listener("127.0.0.1:0".parse().expect("an address"));
        let addr = first.local_addr().expect("an address");
        let second = sharing_listener(addr);
        for (shard, listener) in [(FIRST, first), (SECOND, second)] {
            let serve = move || async move {
                loop {
                    let (mut stream, _) = listener.accept().await.expect("a peer");
                    let shard = ShardId::current().expect("a shard").index() as u8;
                    stream.write_all(&[shard]).await.expect("written");
                }
            };
            drop(handle.spawn_on(shard, serve).expect("a shard with room"));
        }
        let mut served = [0; 2];
        for _ in 0..200 {
            let mut client = TcpStream::connect(addr).await.expect("it listens");
            let mut shard = [0];
            client.read_exact(&mut shard).await.expect("greeted");
            served[usize::from(shard[0])] += 1;
        }
        assert!(served.iter().all(|&count| count > 0), "{served:?}");
    });
}

#[test]
fn a_socket_dropped_elsewhere_is_closed() {
    /// Two sockets, the second of which has waited here, so that this shard has a slot for it.
    async fn registered_pair() -> (TcpStream, TcpStream) {
        let (mut a, mut b) = tcp_pair().await;
        assert!(futures::poll!(b.read(&mut [0])).is_pending());
        ping(&mut a, &mut b).await;
        (a, b)
    }
    run(|handle| async move {
        let (mut a, b) = registered_pair().await;
        let task = handle.spawn_on(SECOND, move || async move { drop(b) });
        task.expect("a shard with room").await.expect("no panic");
        assert_eq!(a.read(&mut [0]).await.expect("the end"), 0);

        let (mut a, b) = registered_pair().await;
        corelane::spawn_blocking(move || drop(b)).await.expect("no panic");
        assert_eq!(a.read(&mut [0]).await.expect("the end"), 0);
    });
}

#[test]
fn a_socket_is_taken_out_of_the_runtime_elsewhere() {
    run(|handle| async move {
        let (mut a, mut b) = tcp_pair().await;
        ping(&mut a, &mut b).await;
        let b = corelane::spawn_blocking(move || {
            let mut b = b.into_std().expect("the socket");
            b.set_nonblocking(false).expect("blocking");
            std::io::Write::write_all(&mut b, b"x").expect("written");
            b
        });
        let b = b.await.expect("no panic");
        a.read_exact(&mut [0]).await.expect("read");
        // And into it again, on the other shard.
        let task = handle.spawn_on(SECOND, move || async move {
            let mut b = TcpStream::from_std(b).expect("taken over");
            b.write_all(b"y").await.expect("written");
            b.read(&mut [0]).await.expect("read")
        });
        a.read_exact(&mut [0]).await.expect("read");
        drop(a);
        assert_eq!(task.expect("a shard with room").await.expect("no panic"), 0);
    });
}

#[test]
fn a_socket_of_a_shard_works_on_a_thread_that_is_none() {
    run(|_| async move {
        let (mut a, mut b) = UnixStream::pair().expect("a pair");
        // Registered here: the other thread has no reactor.
        a.writable().await.expect("writable");
        b.writable().await.expect("writable");
        let other = corelane::spawn_blocking(move || {
            futures::executor::block_on(async {
                for _ in 0..20 {
                    b.read_exact(&mut [0; 3]).await.expect("read");
                    b.write_all(b"pong").await.expect("written");
                }
                b
            })
        });
        for _ in 0..20 {
            a.write_all(b"pin").await.expect("written");
            a.read_exact(&mut [0; 4]).await.expect("read");
        }
        // It comes home again.
        let mut b = other.await.expect("no panic");
        a.write_all(b"x").await.expect("written");
        assert_eq!(b.read(&mut [0; 8]).await.expect("read"), 1);
    });
}

#[test]
fn waiting_where_no_shard_watches_is_an_error_and_no_hang() {
    within_reason(|| {
        let (mut a, mut b) = UnixStream::pair().expect("a pair");
        let error = futures::executor::block_on(a.read(&mut [0])).expect_err("nobody watches");
        assert_eq!(error.kind(), ErrorKind::Other);
        // What need not wait works.
        futures::executor::block_on(b.write_all(b"x")).expect("written");
        assert_eq!(futures::executor::block_on(a.read(&mut [0])).expect("read"), 1);
    });
}

#[test]
fn a_socket_outlives_the_runtime_it_was_registered_with() {
    within_reason(|| {
        let first = shards("1");
        let pair = first.handle().spawn_on(FIRST, || async {
            let (mut a, mut b) = tcp_pair().await;
            ping(&mut a, &mut b).await;
            (a, b)
        });
        let (mut a, mut b) = first.block_on(pair.expect("a shard with room")).expect("no panic");
        drop(first);
        corelane::block_on(async {
            ping(&mut a, &mut b).await;
            drop(a);
            assert_eq!(b.read(&mut [0]).await.expect("the end"), 0);
        });
    });
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_thread_that_waits_for_a_socket_two_shards_have_had_is_not_woken_for_nothing() {
    within_reason(|| {
        let Some(runtime) = two_shards() else {
            return eprintln!("SKIPPED: there are not two CPUs for two shards");
        };
        let handle = runtime.handle();
        // One that has waited for something here, so that it is registered, and does so no longer.
        async fn known_here(socket: TcpStream) -> TcpStream {
            let _ = socket.try_read(&mut [0]);
            assert!(futures::poll!(pin!(socket.readable())).is_pending());
            socket
        }
        let make = || async {
            let (a, b) = tcp_pair().await;
            (a, known_here(b).await)
        };
        let (mut a, b) = runtime.block_on(handle.submit_to(FIRST, make)).expect("no panic");
        let move_on = move || known_here(b);
        let mut b = runtime.block_on(handle.submit_to(SECOND, move_on)).expect("no panic");

        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut buf = [0; 8];
        {
            let mut reading = pin!(b.read(&mut buf));
            for _ in 0..5 {
                let polled = reading.as_mut().poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending());
                // When both have answered they have read what was sent to them before.
                let both = async { handle.broadcast(|_| async {}).await };
                assert!(runtime.block_on(both).iter().all(Result::is_ok));
            }
            assert_eq!(count.0.load(Ordering::SeqCst), 0, "nothing has come");
        }
        futures::executor::block_on(a.write_all(b"x")).expect("there is room");
        assert_eq!(futures::executor::block_on(b.read(&mut buf)).expect("read"), 1);
    });
}
