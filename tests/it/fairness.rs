//! Nobody owns a core: not a task that wakes itself, not a socket that is always ready, not a shard that hangs.

use super::harness::*;
use corelane::net::{TcpListener, UdpSocket, UnixStream};
use corelane::task::coop;
use corelane::time::{Duration, Instant, sleep};
use corelane::{HostedShard, Limits};
use futures::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{TcpStream as StdTcpStream, UdpSocket as StdUdpSocket};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;

/// Keeps a shard as busy as tasks can: tasks that wake themselves, for as long as `stop` is false.
fn busy(stop: Arc<AtomicBool>) -> Rc<Cell<u64>> {
    let polls = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let (stop, polls) = (stop.clone(), polls.clone());
        drop(corelane::spawn_local(async move {
            while !stop.load(Ordering::Relaxed) {
                polls.set(polls.get() + 1);
                corelane::yield_now().await;
            }
        }));
    }
    polls
}

/// A task that reads from a peer who never stops writing.
fn always_ready(stop: Arc<AtomicBool>, reads: Arc<AtomicU64>) -> thread::JoinHandle<()> {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut stream = UnixStream::from_std(theirs).expect("a stream");
    drop(corelane::spawn_local(async move {
        let mut buf = [0; 16];
        while let Ok(1..) = stream.read(&mut buf).await {
            reads.fetch_add(1, Ordering::Relaxed);
        }
    }));
    thread::spawn(
        move || {
            while !stop.load(Ordering::Relaxed) && ours.write_all(&[0; 4096]).is_ok() {}
        },
    )
}

#[test]
fn busy_tasks_and_always_ready_sockets_starve_neither_sockets_nor_timers() {
    within_reason(|| {
        let runtime = shards(1);
        let handle = runtime.handle();
        let stop = Arc::new(AtomicBool::new(false));
        let reads = Arc::new(AtomicU64::new(0));
        let (stop_there, reads_there) = (stop.clone(), reads.clone());
        let (zeros, address) = wait(handle.submit_to(FIRST, move || async move {
            busy(stop_there.clone());
            let zeros = always_ready(stop_there, reads_there);
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            drop(corelane::spawn_local(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.expect("a peer");
                    drop(corelane::spawn_local(async move {
                        let mut buf = [0; 64];
                        while let Ok(count @ 1..) = stream.read(&mut buf).await {
                            stream.write_all(&buf[..count]).await.expect("written");
                        }
                    }));
                }
            }));
            (zeros, address)
        }))
        .expect("no panic");
        // Timers: one after the other.
        let timers = handle.spawn_on(FIRST, || async {
            for _ in 0..50 {
                sleep(Duration::from_millis(1)).await;
            }
        });
        // Sockets: conversations, one after the other.
        for _ in 0..20 {
            let mut stream = StdTcpStream::connect(address).expect("it listens");
            for _ in 0..10 {
                stream.write_all(b"ping").expect("written");
                stream.read_exact(&mut [0; 4]).expect("echoed");
            }
        }
        // The inbox: calls.
        for _ in 0..100 {
            on(handle, FIRST, || ());
        }
        wait(timers.expect("a shard with room")).expect("no panic");
        assert!(reads.load(Ordering::Relaxed) > 1_000, "the busy socket was served too");
        let stats = stats(handle, FIRST);
        println!("{stats:#?}");
        // The promise in numbers: at most so many polls in a turn, and a look at the sockets every few turns.
        let limits = Limits::default();
        assert!(stats.polls <= (stats.turns + 1) * u64::from(limits.polls_per_turn));
        assert!(stats.io_polls >= stats.turns / 8, "{stats:#?}");
        stop.store(true, Ordering::Relaxed);
        drop(runtime);
        zeros.join().expect("no panic");
    });
}

#[test]
fn a_turn_polls_no_more_tasks_than_its_limit() {
    for limit in [1, 7, 61] {
        let shard =
            HostedShard::new(limits(|limits| limits.polls_per_turn = limit)).expect("a shard");
        let polls = shard.enter(|| busy(Arc::default()));
        let mut before = 0;
        for _ in 0..100 {
            assert!(shard.turn(Duration::ZERO), "the tasks are always ready");
            let now = polls.get();
            assert!(now - before <= u64::from(limit) && now > before);
            before = now;
        }
    }
}

#[test]
fn a_turn_of_long_polls_ends_when_its_time_is_up() {
    let limits = limits(|limits| limits.turn_time = Duration::from_millis(1));
    let shard = HostedShard::new(limits).expect("a shard");
    let polls = Rc::new(Cell::new(0));
    shard.enter(|| {
        for _ in 0..50 {
            let polls = polls.clone();
            drop(corelane::spawn_local(async move {
                loop {
                    polls.set(polls.get() + 1);
                    spin(Duration::from_millis(2));
                    corelane::yield_now().await;
                }
            }));
        }
    });
    // The first turn learns that polls are long; from then on one is all that the time allows.
    shard.turn(Duration::ZERO);
    for _ in 0..5 {
        let before = polls.get();
        shard.turn(Duration::ZERO);
        assert!(
            polls.get() - before <= 2,
            "{} polls of 2 ms in a turn of 1 ms",
            polls.get() - before
        );
    }
}

#[test]
fn a_socket_that_is_always_ready_yields_after_its_budget() {
    const BYTES: u32 = 20_000;
    within_reason(|| {
        let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        // Enough to read one byte at a time for a while.
        ours.write_all(&[0; BYTES as usize]).expect("written");
        let most = most_before_others(|count| async move {
            let mut stream = UnixStream::from_std(theirs).expect("a stream");
            while count.get() < BYTES {
                stream.read_exact(&mut [0]).await.expect("there");
                count.set(count.get() + 1);
            }
        });
        assert!((1..=SHARE).contains(&most), "{most} reads in one poll");
    });
}

/// The share of a task, where these tests look at it.
const SHARE: u32 = 16;

/// How often `work`, as a task of a shard where every poll has its [`SHARE`], counts before others are polled, at most.
fn most_before_others<F>(work: impl FnOnce(Rc<Cell<u32>>) -> F) -> u32
where
    F: Future<Output = ()> + 'static,
{
    let shard = HostedShard::new(limits(|limits| limits.io_per_poll = SHARE)).expect("a shard");
    let count = Rc::new(Cell::new(0));
    let most = Rc::new(Cell::new(0));
    let (counted, found) = (count.clone(), most.clone());
    let (task, other) = shard.enter(|| {
        let task = corelane::spawn_local(work(count));
        let other = corelane::spawn_local(async move {
            let mut last = 0;
            loop {
                found.set(found.get().max(counted.get() - last));
                last = counted.get();
                corelane::yield_now().await;
            }
        });
        (task, other)
    });
    while !task.is_finished() {
        shard.turn(Duration::ZERO);
    }
    other.abort();
    shard.turn(Duration::ZERO);
    most.get()
}

#[test]
fn sockets_that_are_registered_nowhere_yield_after_their_share() {
    const DATAGRAMS: u32 = 150;
    within_reason(|| {
        let bind = || StdUdpSocket::bind("127.0.0.1:0").expect("a port");
        let (ours, theirs) = (bind(), bind());
        let to = ours.local_addr().expect("an address");
        let sent = most_before_others(|count| async move {
            let socket = UdpSocket::from_std(theirs).expect("a socket");
            while count.get() < DATAGRAMS {
                socket.send_to(b"x", to).await.expect("sent");
                count.set(count.get() + 1);
            }
        });
        assert!((1..=SHARE).contains(&sent), "{sent} datagrams sent in one poll");
        let received = most_before_others(|count| async move {
            let socket = UdpSocket::from_std(ours).expect("a socket");
            while count.get() < DATAGRAMS {
                socket.recv(&mut [0; 4]).await.expect("it is there");
                count.set(count.get() + 1);
            }
        });
        assert!((1..=SHARE).contains(&received), "{received} datagrams received in one poll");
    });
}

#[test]
fn a_task_that_an_unconstrained_future_waits_for_has_its_share_like_any_other() {
    within_reason(|| {
        let used = most_before_others(|count| async move {
            let task = corelane::spawn_local(async move {
                while count.get() < 10_000 {
                    coop::consume_budget().await;
                    count.set(count.get() + 1);
                }
            });
            coop::unconstrained(task).await.expect("no panic");
        });
        assert!((1..=SHARE).contains(&used), "{used} operations in one poll");
    });
}

#[test]
fn asking_a_socket_that_has_nothing_is_no_operation() {
    within_reason(|| {
        let runtime = shards_with(1, limits(|limits| limits.io_per_poll = 4));
        wait(runtime.handle().submit_to(FIRST, || async {
            let (_open, mut stream) = UnixStream::pair().expect("a pair");
            let mut ask = |context: &mut Context<'_>| {
                assert!(Pin::new(&mut stream).poll_read(context, &mut [0; 8]).is_pending());
            };
            // The first registers it, and is one.
            poll_fn(|context| {
                ask(context);
                Poll::Ready(())
            })
            .await;
            corelane::yield_now().await;
            poll_fn(|context| {
                (0..100).for_each(|_| ask(context));
                assert!(coop::has_budget_remaining());
                Poll::Ready(())
            })
            .await;
        }))
        .expect("no panic");
    });
}

#[test]
fn sleeping_for_nothing_a_million_times_lets_others_run() {
    within_reason(|| {
        let shard = HostedShard::new(Limits::default()).expect("a shard");
        let polls = shard.enter(|| busy(Arc::default()));
        let past = corelane::time::Instant::now();
        let sleeper = shard.enter(|| {
            corelane::spawn_local(async move {
                for number in 0..1_000_000u32 {
                    if number.is_multiple_of(2) {
                        sleep(Duration::ZERO).await;
                    } else {
                        corelane::time::sleep_until(past).await;
                    }
                }
            })
        });
        let mut turns = 0u64;
        while !sleeper.is_finished() {
            shard.turn(Duration::ZERO);
            turns += 1;
        }
        assert!(polls.get() > 1_000_000 / 256, "{} polls of others in {turns} turns", polls.get());
    });
}

#[test]
fn a_hung_shard_does_not_hold_up_the_others() {
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let gate = Gate::close(handle, SECOND);
        // Everything works on the first shard while the second hangs, which it does until this is done.
        let works = handle.submit_to(FIRST, || async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            for _ in 0..100 {
                let connecting = corelane::net::TcpStream::connect(address);
                let (connected, accepted) = futures::join!(connecting, listener.accept());
                let (mut a, mut b) = (connected.expect("it listens"), accepted.expect("a peer").0);
                a.write_all(b"x").await.expect("written");
                b.read_exact(&mut [0]).await.expect("read");
                sleep(Duration::from_millis(1)).await;
                corelane::spawn_local(async {}).await.expect("no panic");
            }
            corelane::spawn_blocking(|| 1).await.expect("no panic")
        });
        assert_eq!(wait(works).expect("no panic"), 1);
        for _ in 0..100 {
            on(handle, FIRST, || ());
        }
        // Those who talk to the hung shard wait, and nobody else does.
        let mut call = handle.submit_to(SECOND, || async { 2 });
        assert!(poll_once(&mut call).is_pending());
        let stats = handle.stats();
        assert_eq!(stats.len(), 2);
        gate.open();
        assert_eq!(wait(call).expect("no panic"), 2);
    });
}

/// So many round trips of an echo on a shard, one by one and in order of their length.
fn round_trips(stream: &mut StdTcpStream, count: usize) -> Vec<Duration> {
    let round_trip = |_| {
        let began = Instant::now();
        stream.write_all(b"ping").expect("written");
        stream.read_exact(&mut [0; 4]).expect("echoed");
        began.elapsed()
    };
    let mut times: Vec<_> = (0..count).map(round_trip).collect();
    times.sort();
    times
}

#[test]
fn a_flood_of_messages_leaves_a_shard_time_for_its_sockets() {
    const ROUND_TRIPS: usize = 500;
    within_reason(|| {
        let runtime = shards(2);
        let handle = runtime.handle();
        let listen = || async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            drop(corelane::spawn_local(async move {
                let (mut stream, _) = listener.accept().await.expect("a peer");
                let mut buf = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut buf).await {
                    stream.write_all(&buf[..count]).await.expect("written");
                }
            }));
            address
        };
        let address = wait(handle.submit_to(SECOND, listen)).expect("no panic");
        let mut client = StdTcpStream::connect(address).expect("it listens");
        client.set_nodelay(true).expect("set");
        client.set_read_timeout(Some(HANGS_AFTER / 4)).expect("set");
        let alone = round_trips(&mut client, ROUND_TRIPS);

        // More messages than the shard can take, for as long as it takes the client to do it again.
        let message = || {
            add_local_count(1);
            spin(Duration::from_micros(5));
        };
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, flooding) = (stop.clone(), handle.clone());
        let flood = handle.spawn_on(FIRST, move || async move {
            let mut sent = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                match flooding.post(SECOND, message) {
                    Ok(()) => sent += 1,
                    Err(_) => flooding.room(SECOND).await,
                }
            }
            sent
        });
        eventually("the flood has come", || on(handle, SECOND, local_count) > 10_000);
        let (before, counted) = (stats(handle, SECOND), on(handle, SECOND, local_count));
        let mut flooded = round_trips(&mut client, ROUND_TRIPS);
        // A machine that has other things to do may not have let the flood run meanwhile.
        while on(handle, SECOND, local_count) == counted {
            flooded = round_trips(&mut client, ROUND_TRIPS);
        }
        let (after, arrived) = (stats(handle, SECOND), on(handle, SECOND, local_count) - counted);
        stop.store(true, Ordering::Relaxed);
        let sent = wait(flood.expect("a shard with room")).expect("no panic");
        eventually("none is lost", || on(handle, SECOND, local_count) == sent);

        let (median, last) = (ROUND_TRIPS / 2, ROUND_TRIPS * 99 / 100);
        println!(
            "round trips alone: median {:?}, 99 % {:?}; beside {arrived} messages: {:?}, {:?}",
            alone[median], alone[last], flooded[median], flooded[last]
        );
        assert!(arrived > 0, "it was no flood");
        let turns = after.turns - before.turns + 2;
        let messages = after.inbox_messages - before.inbox_messages;
        let limit = Limits::default().messages_per_turn as u64;
        assert!(messages <= turns * limit, "{messages} messages in {turns} turns");
        // A shard that emptied its inbox first would never come to this; how long it takes depends on the machine.
        assert!(flooded[median] < Duration::from_secs(1), "{:?}", flooded[median]);
    });
}

#[test]
fn two_tasks_that_wake_each_other_do_not_starve_a_third() {
    let shard = HostedShard::new(Limits::default()).expect("a shard");
    let third = Rc::new(Cell::new(0));
    let counted = third.clone();
    shard.enter(move || {
        let (ping, pong) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
        for (own, other) in [(ping.clone(), pong.clone()), (pong, ping)] {
            drop(corelane::spawn_local(std::future::poll_fn(move |context| {
                own.set(Some(context.waker().clone()));
                if let Some(other) = other.take() {
                    std::task::Waker::wake(other);
                }
                std::task::Poll::<()>::Pending
            })));
        }
        drop(corelane::spawn_local(async move {
            loop {
                counted.set(counted.get() + 1);
                corelane::yield_now().await;
            }
        }));
    });
    for _ in 0..100 {
        shard.turn(Duration::ZERO);
    }
    assert!(third.get() >= 100, "{} polls of the third task", third.get());
}
