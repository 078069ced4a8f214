//! Sockets that several shards, runtimes and executors use while there is traffic on them.

use super::harness::*;
use corelane::net::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixStream};
use corelane::{Handle, HostedShard, Limits, ShardStats};
use futures::{AsyncReadExt, AsyncWriteExt};
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::UdpSocket as StdUdpSocket;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

/// Two connected streams: ours, blocking, and one for shards.
fn pair() -> (std::net::TcpStream, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = std::net::TcpStream::connect(listener.local_addr().expect("an address"))
        .expect("it listens");
    let (theirs, _) = listener.accept().expect("a peer");
    ours.set_nodelay(true).expect("set");
    (ours, TcpStream::from_std(theirs).expect("a stream"))
}

/// What both shards have done between two moments.
fn work(before: &[ShardStats], after: &[ShardStats]) -> (u64, u64) {
    let sum = |stats: &[ShardStats]| {
        stats
            .iter()
            .map(|stats| (stats.polls, stats.turns))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    (sum(after).0 - sum(before).0, sum(after).1 - sum(before).1)
}

fn both_at_rest(handle: &Handle) -> Vec<ShardStats> {
    [FIRST, SECOND].map(|shard| stats_at_rest(handle, shard)).to_vec()
}

/// Nobody does anything while nothing happens.
fn nothing_happens(handle: &Handle) {
    let before = both_at_rest(handle);
    thread::sleep(Duration::from_millis(100));
    let (polls, turns) = work(&before, &handle.stats());
    assert!(polls <= 8 && turns <= 20, "{polls} polls in {turns} turns while nothing happens");
}

#[test]
fn halves_that_wait_on_two_shards_do_not_chase_each_other() {
    const ROUNDS: u64 = 500;
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let (mut ours, theirs) = pair();
        let (mut reader, mut writer) = theirs.into_split();
        let written = Arc::new(AtomicU64::new(0));
        let reading = handle.spawn_on(FIRST, move || async move {
            let mut buf = [0; 4];
            for _ in 0..ROUNDS {
                reader.read_exact(&mut buf).await.expect("read");
            }
            reader.read(&mut buf).await.expect("the end")
        });
        let counted = written.clone();
        let writing = handle.spawn_on(SECOND, move || async move {
            // More than the kernel takes: the writer waits, too.
            let block = vec![7; 64 * 1024];
            for _ in 0..100 {
                writer.write_all(&block).await.expect("written");
                counted.fetch_add(1, Ordering::SeqCst);
            }
            writer
        });
        let mut before = 0;
        eventually("the writer waits for its peer to read", || {
            let now = written.load(Ordering::SeqCst);
            let waits = now == before && now > 0;
            before = now;
            waits
        });
        // Both wait now, each on its own shard.
        nothing_happens(handle);
        // Traffic in one direction costs its reader a few polls each time, and the writer next to nothing.
        let quiet = both_at_rest(handle);
        for round in 1..=ROUNDS {
            ours.write_all(b"ping").expect("written");
            if round % 50 == 0 {
                // Lets the reader catch up, so that bursts do not hide behind each other.
                on(handle, FIRST, || ());
            }
        }
        let (polls, _) = work(&quiet, &both_at_rest(handle));
        assert!(polls <= 8 * ROUNDS + 100, "{polls} polls for {ROUNDS} messages");
        nothing_happens(handle);
        // And in the other.
        let mut received = vec![0; 100 * 64 * 1024];
        ours.read_exact(&mut received).expect("read");
        assert!(received.iter().all(|&byte| byte == 7));
        drop(wait(writing.expect("a shard with room")).expect("no panic"));
        drop(ours);
        assert_eq!(wait(reading.expect("a shard with room")).expect("no panic"), 0);
    });
}

#[test]
fn a_udp_socket_used_on_two_shards_at_once_is_not_torn_between_them() {
    const PACKETS: u64 = 2_000;
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let socket = Arc::new(
            UdpSocket::from_std(StdUdpSocket::bind("127.0.0.1:0").expect("a port"))
                .expect("a socket"),
        );
        let address = socket.local_addr().expect("an address");
        let received = Arc::new(AtomicU64::new(0));
        let tasks = [FIRST, SECOND].map(|shard| {
            let (socket, received) = (socket.clone(), received.clone());
            let receive = move || async move {
                let mut buf = [0; 16];
                loop {
                    let (length, peer) = socket.recv_from(&mut buf).await.expect("received");
                    received.fetch_add(1, Ordering::SeqCst);
                    socket.send_to(&buf[..length], peer).await.expect("sent");
                }
            };
            let task: corelane::JoinHandle<()> =
                handle.spawn_on(shard, receive).expect("a shard with room");
            task
        });
        let ours = StdUdpSocket::bind("127.0.0.1:0").expect("a port");
        ours.connect(address).expect("connected");
        ours.set_read_timeout(Some(HANGS_AFTER / 2)).expect("set");
        nothing_happens(handle);
        let before = both_at_rest(handle);
        let mut buf = [0; 16];
        for number in 0..PACKETS {
            ours.send(&number.to_le_bytes()).expect("sent");
            assert_eq!(ours.recv(&mut buf).expect("echoed"), 8);
            assert_eq!(buf[..8], number.to_le_bytes());
        }
        let (polls, turns) = work(&before, &both_at_rest(handle));
        println!("{polls} polls in {turns} turns for {PACKETS} packets");
        // Each packet may wake both, and the one who comes too late waits again; then it may have moved.
        assert!(polls <= 8 * PACKETS, "{polls} polls for {PACKETS} packets");
        nothing_happens(handle);
        assert_eq!(received.load(Ordering::SeqCst), PACKETS);
        for task in tasks {
            task.abort();
            assert!(wait(task).expect_err("it never ends").is_cancelled());
        }
    });
}

#[test]
fn a_stream_moves_between_two_runtimes_in_the_middle_of_its_traffic() {
    within_reason(|| {
        let runtimes = [shards(2), shards(1)];
        let (ours, mut theirs) = pair();
        let mut writing = ours.try_clone().expect("cloned");
        let sender = thread::spawn(move || {
            for number in 0..2_000u32 {
                writing.write_all(&number.to_le_bytes()).expect("written");
            }
        });
        let mut next = 0u32;
        for round in 0..200 {
            let (runtime, shard) = match round % 3 {
                0 => (&runtimes[0], FIRST),
                1 => (&runtimes[1], FIRST),
                _ => (&runtimes[0], SECOND),
            };
            let read = runtime.handle().spawn_on(shard, move || async move {
                let mut buf = [0; 4];
                for expected in next..next + 10 {
                    theirs.read_exact(&mut buf).await.expect("read");
                    assert_eq!(u32::from_le_bytes(buf), expected);
                    theirs.write_all(&buf).await.expect("written");
                }
                theirs
            });
            theirs = wait(read.expect("a shard with room")).expect("no panic");
            next += 10;
        }
        sender.join().expect("no panic");
        let mut ours = ours;
        let mut echoed = vec![0; 8_000];
        ours.read_exact(&mut echoed).expect("echoed");
        // One of its homes goes away; the stream does not mind.
        let [first, second] = runtimes;
        drop(first);
        ours.write_all(b"more").expect("written");
        let read = second.handle().spawn_on(FIRST, move || async move {
            let mut buf = [0; 4];
            theirs.read_exact(&mut buf).await.expect("read");
            buf
        });
        assert_eq!(&wait(read.expect("a shard with room")).expect("no panic"), b"more");
    });
}

#[test]
fn a_stream_handed_from_shard_to_shard_with_bytes_in_flight_loses_none() {
    const HOPS: usize = 300;
    within_reason(|| {
        let runtime = shards(3);
        let (mut ours, theirs) = pair();
        // Registered, so that it has a home to leave.
        let registered = runtime.handle().submit_to(FIRST, move || async move {
            theirs.writable().await.expect("writable");
            theirs
        });
        let theirs = wait(registered).expect("no panic");
        let sender = thread::spawn(move || {
            let mut random = Random::new();
            let bytes: Vec<u8> = (0..HOPS * 100).map(|index| index as u8).collect();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let length = (1 + random.below(300) as usize).min(rest.len());
                ours.write_all(&rest[..length]).expect("written");
                rest = &rest[length..];
                if random.below(4) == 0 {
                    spin(Duration::from_micros(random.below(60)));
                }
            }
            ours
        });
        let mut stream = theirs;
        let mut received = Vec::new();
        for hop in 0..HOPS {
            let shard = [FIRST, SECOND, THIRD][hop % 3];
            let read = runtime.handle().spawn_on(shard, move || async move {
                let mut buf = [0; 100];
                stream.read_exact(&mut buf).await.expect("read");
                (stream, buf)
            });
            let (back, buf) = wait(read.expect("a shard with room")).expect("no panic");
            stream = back;
            received.extend_from_slice(&buf);
        }
        assert!(received.iter().enumerate().all(|(index, &byte)| byte == index as u8));
        drop(sender.join().expect("no panic"));
        let moved: u64 = runtime
            .handle()
            .shards()
            .map(|shard| stats_at_rest(runtime.handle(), shard).sockets_adopted)
            .sum();
        assert!(moved > 0, "some of the moves were counted");
    });
}

#[test]
fn a_listener_shared_by_two_shards_accepts_every_connection_once() {
    const EACH: usize = 60;
    within_reason(|| {
        let runtime = shards(2);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let listener = Arc::new(TcpListener::from_std(listener).expect("a listener"));
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicU64::new(0));
        for shard in [FIRST, SECOND] {
            let (listener, accepted) = (listener.clone(), accepted.clone());
            drop(runtime.handle().spawn_on(shard, move || async move {
                loop {
                    let (mut stream, _) = listener.accept().await.expect("a peer");
                    accepted.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(b"x").await.expect("written");
                }
            }));
        }
        let clients = [0, 1].map(|_| {
            thread::spawn(move || {
                for _ in 0..EACH {
                    let mut client = std::net::TcpStream::connect(address).expect("it listens");
                    client.read_exact(&mut [0]).expect("greeted");
                }
            })
        });
        clients.into_iter().for_each(|client| client.join().expect("no panic"));
        assert_eq!(accepted.load(Ordering::SeqCst), 2 * EACH as u64);
        nothing_happens(runtime.handle());
    });
}

#[test]
fn tokio_reads_and_writes_a_stream_that_a_shard_watches() {
    within_reason(|| {
        let runtime = shards(1);
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        // Registered with the shard, which has no other part in it.
        let registered = runtime.handle().submit_to(FIRST, move || async move {
            let stream = UnixStream::from_std(theirs).expect("a stream");
            stream.writable().await.expect("writable");
            stream
        });
        let stream = wait(registered).expect("no panic");
        let client = thread::spawn(move || {
            let mut sum = 0usize;
            for _ in 0..100 {
                ours.write_all(&[5; 1000]).expect("written");
                let mut buf = [0; 1000];
                ours.read_exact(&mut buf).expect("echoed");
                sum += buf.iter().map(|&byte| usize::from(byte)).sum::<usize>();
            }
            sum
        });
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("Tokio");
        let echo = tokio.spawn(async move {
            let mut stream = stream;
            let mut buf = [0; 1000];
            for _ in 0..100 {
                stream.read_exact(&mut buf).await.expect("read");
                tokio::task::yield_now().await;
                stream.write_all(&buf).await.expect("written");
            }
            stream
        });
        let stream = tokio.block_on(echo).expect("no panic");
        assert_eq!(client.join().expect("no panic"), 500_000);
        // Home again.
        let end = runtime.handle().submit_to(FIRST, move || async move {
            let mut stream = stream;
            stream.read(&mut [0]).await.expect("the end")
        });
        assert_eq!(wait(end).expect("no panic"), 0);
    });
}

#[test]
fn a_wait_given_up_elsewhere_leaves_nothing_that_grows() {
    // A task of another executor polls a silent socket again and again, as one in a `select!` does.
    within_reason(|| {
        let runtime = shards(1);
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let mut stream = wait(runtime.handle().submit_to(FIRST, move || async move {
            let stream = UnixStream::from_std(theirs).expect("a stream");
            stream.writable().await.expect("writable");
            stream
        }))
        .expect("no panic");
        let (count, waker) = WakeCount::new();
        let mut context = Context::from_waker(&waker);
        for _ in 0..10_000 {
            let polled =
                futures::AsyncRead::poll_read(Pin::new(&mut stream), &mut context, &mut [0; 8]);
            assert!(polled.is_pending());
        }
        stats_at_rest(runtime.handle(), FIRST);
        ours.write_all(b"x").expect("written");
        eventually("it is woken", || count.get() > 0);
        stats_at_rest(runtime.handle(), FIRST);
        // Not once for each of its polls.
        assert!(count.get() <= 100, "woken {} times for one byte", count.get());
    });
}

#[test]
fn waits_elsewhere_are_woken_by_what_they_wait_for_or_forgotten_when_they_are_given_up() {
    within_reason(|| {
        let runtime = shards(1);
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let stream = wait(runtime.handle().submit_to(FIRST, move || async move {
            let stream = UnixStream::from_std(theirs).expect("a stream");
            stream.writable().await.expect("writable");
            stream
        }))
        .expect("no panic");
        let mut kept = pin!(stream.readable());
        let (kept_count, kept_waker) = WakeCount::new();
        let mut kept_context = Context::from_waker(&kept_waker);
        assert!(kept.as_mut().poll(&mut kept_context).is_pending());
        // Each with a waker of its own, as tasks of other executors have.
        for _ in 0..1_000 {
            let (count, waker) = WakeCount::new();
            let mut context = Context::from_waker(&waker);
            let mut wait = Box::pin(stream.readable());
            assert!(wait.as_mut().poll(&mut context).is_pending());
            drop((wait, waker));
            assert_eq!(Arc::strong_count(&count), 1, "a waker is kept");
        }
        stats_at_rest(runtime.handle(), FIRST);
        assert!(kept.as_mut().poll(&mut kept_context).is_pending(), "nothing has come");
        assert_eq!(kept_count.get(), 0);
        // The other direction wakes those who wait for it, and them alone.
        let mut writable = pin!(stream.writable());
        let (count, waker) = WakeCount::new();
        assert!(writable.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        eventually("it can be written to", || count.get() == 1);
        stats_at_rest(runtime.handle(), FIRST);
        assert_eq!(kept_count.get(), 0);
        ours.write_all(b"x").expect("written");
        eventually("it is woken", || kept_count.get() == 1);
        assert!(kept.as_mut().poll(&mut kept_context).is_ready());
    });
}

/// A home that a socket has left may still be told of its end, when another socket has its place there.
#[test]
fn the_end_of_a_socket_that_moved_away_does_not_touch_the_one_in_its_place() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let (_ours, theirs) = pair();
        let moved = handle.submit_to(FIRST, move || async move {
            theirs.writable().await.expect("writable");
            theirs
        });
        let moved = wait(moved).expect("no panic");
        let moved = handle.submit_to(SECOND, move || async move {
            moved.writable().await.expect("writable");
            moved
        });
        let moved = wait(moved).expect("no panic");
        // Its place is free when the shard has heard of it, and then taken at once.
        stats_at_rest(handle, FIRST);
        let (mut ours, mut theirs) = pair();
        let (waiting, waits) = mpsc::channel();
        let read = handle.spawn_on(FIRST, move || async move {
            let mut buf = [0; 8];
            let mut read = theirs.read(&mut buf);
            let mut polls = 0;
            poll_fn(|context| {
                polls += 1;
                let polled = Pin::new(&mut read).poll(context);
                if polled.is_pending() {
                    waiting.send(()).expect("somebody listens");
                }
                polled.map(|count| (polls, count.expect("read")))
            })
            .await
        });
        let read = read.expect("room");
        waits.recv().expect("it waits");
        on(handle, SECOND, move || drop(moved));
        stats_at_rest(handle, FIRST);
        ours.write_all(b"hello").expect("written");
        assert_eq!(wait(read).expect("no panic"), (2, 5), "polled twice, five bytes");
    });
}

#[test]
fn sockets_dropped_on_shards_threads_and_executors_close_their_fds() {
    fn open_fds() -> usize {
        std::fs::read_dir("/proc/self/fd").expect("our own").count()
    }
    const NAME: &str = "sharing::sockets_dropped_on_shards_threads_and_executors_close_their_fds";
    let outcome = super::process::alone(NAME, &[], || {
        let round = || {
            let runtime = shards(2);
            let mut kept = Vec::new();
            for number in 0..60 {
                let (ours, mut theirs) = pair();
                let shard = if number % 2 == 0 { FIRST } else { SECOND };
                let used = runtime.handle().submit_to(shard, move || async move {
                    theirs.write_all(b"x").await.expect("written");
                    theirs.readable().await.expect("readable");
                    theirs
                });
                (&ours).write_all(b"y").expect("written");
                let theirs = wait(used).expect("no panic");
                match number % 5 {
                    0 => drop(theirs),
                    1 => on(runtime.handle(), FIRST, move || drop(theirs)),
                    2 => on(runtime.handle(), SECOND, move || drop(theirs)),
                    3 => drop(theirs.into_std().expect("the socket")),
                    _ => kept.push(theirs),
                }
            }
            drop(runtime);
            drop(kept);
        };
        round();
        let before = open_fds();
        for _ in 0..5 {
            round();
        }
        assert_eq!(open_fds(), before);
    });
    if let Some(outcome) = outcome {
        outcome.passed();
    }
}

#[test]
fn a_socket_torn_between_two_shards_does_not_disturb_another() {
    // Slots are numbered by each shard, so a slot of one shard has the name of another socket's on the other. While a
    // stream's halves pull it to and fro, neither shard may take its slot there for its slot here.
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        // The first socket of each shard: their slots have the same name.
        let (client, victim) = pair();
        client.set_read_timeout(Some(HANGS_AFTER / 4)).expect("set");
        let register = |shard, stream: TcpStream| {
            let registered = handle.submit_to(shard, move || async move {
                stream.writable().await.expect("writable");
                stream
            });
            wait(registered).expect("no panic")
        };
        let mut victim = register(FIRST, victim);
        let (peer, torn) = pair();
        let torn = register(SECOND, torn);
        drop(handle.spawn_on(FIRST, move || async move {
            let mut buf = [0; 64];
            while let Ok(count @ 1..) = victim.read(&mut buf).await {
                victim.write_all(&buf[..count]).await.expect("written");
            }
        }));
        let (mut reader, mut writer) = torn.into_split();
        drop(handle.spawn_on(FIRST, move || async move {
            while let Ok(1..) = reader.read(&mut [0; 8]).await {}
        }));
        drop(handle.spawn_on(SECOND, move || async move {
            let block = vec![7; 4096];
            while writer.write_all(&block).await.is_ok() {}
        }));
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stop = over.clone();
        let peer = thread::spawn(move || {
            let mut peer = peer;
            let mut buf = vec![0; 64 * 1024];
            while !stop.load(Ordering::Relaxed) {
                peer.write_all(b"x").expect("written");
                let _ = peer.read(&mut buf).expect("read");
            }
        });
        let mut client = client;
        for round in 0..20_000u32 {
            client.write_all(&round.to_le_bytes()).expect("written");
            let mut echo = [0; 4];
            client.read_exact(&mut echo).expect("the other socket's shard has forgotten it");
            assert_eq!(u32::from_le_bytes(echo), round);
        }
        over.store(true, Ordering::Relaxed);
        peer.join().expect("no panic");
    });
}

fn hosted() -> HostedShard {
    HostedShard::new(Limits::default()).expect("a shard")
}

fn udp_socket() -> UdpSocket {
    UdpSocket::from_std(StdUdpSocket::bind("127.0.0.1:0").expect("a port")).expect("a socket")
}

/// Waits for a datagram on this shard, for a moment, which registers the socket there.
fn known_to(shard: &HostedShard, socket: &UdpSocket) {
    let _ = socket.try_recv(&mut [0]);
    let mut context = Context::from_waker(Waker::noop());
    shard.enter(|| assert!(pin!(socket.readable()).as_mut().poll(&mut context).is_pending()));
}

fn send_to(socket: &UdpSocket) {
    let to = socket.local_addr().expect("an address");
    StdUdpSocket::bind("127.0.0.1:0").expect("a port").send_to(b"x", to).expect("sent");
}

/// Polls a future on this thread, which is no shard, whenever it is woken, and gives these shards so many turns. Returns
/// how often it was polled, and the output if there is one by then.
fn poll_outside<F: Future>(
    mut future: Pin<&mut F>,
    shards: &[&HostedShard],
    turns: usize,
) -> (usize, Option<F::Output>) {
    let (woken, waker) = WakeCount::new();
    let mut context = Context::from_waker(&waker);
    let (mut polls, mut seen) = (0, None);
    for _ in 0..turns {
        if seen != Some(woken.get()) {
            seen = Some(woken.get());
            polls += 1;
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return (polls, Some(output));
            }
        }
        for shard in shards {
            shard.turn(Duration::ZERO);
        }
    }
    (polls, None)
}

#[test]
fn a_thread_that_waits_for_a_socket_which_came_back_at_once_is_not_woken_for_nothing() {
    let (first, second) = (hosted(), hosted());
    let socket = udp_socket();
    known_to(&first, &socket);
    first.turn(Duration::ZERO);
    // The first shard is told that it has left, and has it again before it hears of that.
    known_to(&second, &socket);
    second.turn(Duration::ZERO);
    known_to(&first, &socket);
    for _ in 0..3 {
        first.turn(Duration::ZERO);
        second.turn(Duration::ZERO);
    }
    let mut buf = [0; 8];
    let mut received = pin!(socket.recv(&mut buf));
    let shards = [&first, &second];
    let (polls, output) = poll_outside(received.as_mut(), &shards, 500);
    assert!(output.is_none() && polls <= 5, "{polls} polls while nothing comes");
    send_to(&socket);
    let (_, output) = poll_outside(received, &shards, 500);
    assert_eq!(output.expect("it has come").expect("received"), 1);
}

#[test]
fn a_thread_can_wait_for_readiness_alone() {
    let shard = hosted();
    let socket = udp_socket();
    known_to(&shard, &socket);
    let ready = || poll_fn(|context| socket.poll_recv_ready(context));
    let (polls, output) = poll_outside(pin!(ready()), &[&shard], 500);
    assert!(output.is_none() && polls <= 5, "{polls} polls while nothing comes");
    // One that waits while it comes, and one that asks when it is there.
    let mut waits = pin!(ready());
    assert!(poll_outside(waits.as_mut(), &[&shard], 1).1.is_none());
    send_to(&socket);
    for ready in [waits, pin!(ready())] {
        let (polls, output) = poll_outside(ready, &[&shard], 500);
        output.expect("a datagram is there").expect("asked");
        assert!(polls <= 5, "{polls} polls");
    }
}

#[test]
fn a_wait_that_goes_from_shard_to_shard_leaves_no_waker_behind() {
    let (first, second) = (hosted(), hosted());
    let socket = udp_socket();
    known_to(&first, &socket);
    let (count, waker) = WakeCount::new();
    let mut context = Context::from_waker(&waker);
    let mut wait = Box::pin(socket.readable());
    for _ in 0..1_000 {
        for shard in [&first, &second] {
            assert!(shard.enter(|| wait.as_mut().poll(&mut context)).is_pending());
            shard.turn(Duration::ZERO);
        }
    }
    let held = Arc::strong_count(&count);
    assert!(held <= 5, "{held} wakers of one wait");
    drop(wait);
    first.turn(Duration::ZERO);
    second.turn(Duration::ZERO);
    assert_eq!(Arc::strong_count(&count), 2, "the count and the waker of this test");
}

#[test]
fn a_slot_whose_number_comes_round_is_not_taken_for_that_of_another_socket() {
    /// So many sockets later a shard gives a slot the same name again.
    const GENERATIONS: usize = 1 << 20;
    within_reason(|| {
        let (first, second) = (hosted(), hosted());
        let moved = udp_socket();
        known_to(&first, &moved);
        known_to(&second, &moved);
        // Its slot is free when the shard has heard of it.
        first.turn(Duration::ZERO);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 1..GENERATIONS {
            // Each as if in a poll of its own, or there would be no share left to wait with.
            first.enter(|| {
                let other = UnixDatagram::unbound().expect("a socket");
                assert!(pin!(other.readable()).poll(&mut context).is_pending());
            });
        }
        let victim = udp_socket();
        let (count, waker) = WakeCount::new();
        let _ = victim.try_recv(&mut [0]);
        let polled = first.enter(|| victim.poll_recv_ready(&mut Context::from_waker(&waker)));
        assert!(polled.is_pending());
        // The other comes back for a moment.
        known_to(&first, &moved);
        first.enter(|| drop(moved));
        let before = count.get();
        send_to(&victim);
        eventually("who waits for a datagram is woken", || {
            first.turn(Duration::ZERO);
            count.get() > before
        });
    });
}
