//! What a turn gives to whom: messages, tasks, sockets and the clock, each its share.

use crate::harness::*;
use corelane::http::Timer;
use corelane::net::UnixStream;
use corelane::{HostedShard, Limits, Runtime, Trouble};
use futures::{AsyncReadExt, AsyncWriteExt};
use hyper::rt::Timer as _;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

fn hosted() -> HostedShard {
    HostedShard::new(Limits::default()).expect("a shard")
}

/// The first shard calls the second every 10 to 20 us, which is within `busy_poll`. Returns how many conversations over a
/// socket the second had with itself in a second, the slowest, and the stalls that were told.
fn conversations_beside_calls() -> (u64, Duration, Vec<Trouble>) {
    const FOR: Duration = Duration::from_secs(1);
    let told: Arc<Mutex<Vec<Trouble>>> = Arc::default();
    let tell = told.clone();
    let builder = Runtime::builder().on_trouble(move |trouble| tell.lock().unwrap().push(trouble));
    let runtime = start(2, builder).expect("started");
    let handle = runtime.handle();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, there) = (stop.clone(), handle.clone());
    let began = Instant::now();
    let talk = handle
        .spawn_on(FIRST, move || async move {
            // At most so long: if the sockets starve, nothing else ends this.
            while !stopped.load(Ordering::Relaxed) && began.elapsed() < 4 * FOR {
                there.submit_to(SECOND, || async {}).await.expect("answered");
                spin(Duration::from_micros(10));
            }
        })
        .expect("room");
    let conversations = handle
        .spawn_on(SECOND, move || async move {
            let (a, b) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let mut a = UnixStream::from_std(a).expect("a stream");
            let mut b = UnixStream::from_std(b).expect("a stream");
            let (mut count, mut slowest) = (0, Duration::ZERO);
            let began = Instant::now();
            while began.elapsed() < FOR {
                let sent = Instant::now();
                let mut byte = [0];
                // The read comes first and finds nothing, so it takes an event to end it.
                let (read, written) = futures::join!(b.read_exact(&mut byte), async {
                    corelane::yield_now().await;
                    a.write_all(b"x").await
                });
                read.expect("read");
                written.expect("written");
                count += 1;
                slowest = slowest.max(sent.elapsed());
            }
            stop.store(true, Ordering::Relaxed);
            (count, slowest)
        })
        .expect("room");
    let (count, slowest) = wait(conversations).expect("no panic");
    wait(talk).expect("no panic");
    drop(runtime);
    let told = told.lock().unwrap().clone();
    (count, slowest, told)
}

#[test]
fn a_shard_that_is_called_all_the_time_looks_at_its_sockets() {
    within_reason(|| {
        let (count, slowest, _) = conversations_beside_calls();
        // There is to be a look every 250 us: some 4,000 in a second.
        assert!(count > 500, "{count} conversations in a second, the slowest took {slowest:?}");
    });
}

#[test]
fn a_shard_that_is_called_all_the_time_is_no_stall() {
    within_reason(|| {
        let (_, _, told) = conversations_beside_calls();
        assert!(told.is_empty(), "no task holds a shard for longer than 20 us: {told:?}");
    });
}

#[test]
fn time_spent_looking_at_the_inbox_is_not_busy_time() {
    within_reason(|| {
        let runtime = shards(2);
        let there = runtime.handle().clone();
        let began = Instant::now();
        let talk = runtime.handle().spawn_on(FIRST, move || async move {
            while began.elapsed() < Duration::from_millis(500) {
                there.submit_to(SECOND, || async {}).await.expect("answered");
                spin(Duration::from_micros(20));
            }
        });
        wait(talk.expect("room")).expect("no panic");
        let stats = stats_at_rest(runtime.handle(), SECOND);
        let elapsed = began.elapsed().as_nanos() as u64;
        // It answers 20,000 empty calls or so, and looks at its inbox the rest of the time.
        let (busy, spun) = (stats.busy_nanos, stats.spin_nanos);
        assert!(busy + spun <= elapsed + elapsed / 10, "busy {busy}, spun {spun}, of {elapsed}");
    });
}

#[test]
fn a_turn_of_a_millisecond_does_not_spin_for_half_a_second() {
    let limits = limits(|limits| limits.busy_poll = Duration::from_millis(500));
    let shard = HostedShard::new(limits).expect("a shard");
    shard.handle().post(FIRST, || ()).expect("room");
    let began = Instant::now();
    // It hears something, and so spins; "waits for at most `timeout`" is what is promised.
    shard.turn(Duration::from_millis(1));
    assert!(began.elapsed() < Duration::from_millis(250), "{:?}", began.elapsed());
}

fn yielding(count: u32) -> Rc<Cell<u64>> {
    let polls = Rc::new(Cell::new(0));
    for _ in 0..count {
        let polls = polls.clone();
        drop(corelane::spawn_local(async move {
            loop {
                polls.set(polls.get() + 1);
                corelane::yield_now().await;
            }
        }));
    }
    polls
}

#[test]
fn tasks_have_their_share_of_a_turn_beside_a_flood_of_messages() {
    const TURNS: u64 = 50;
    let shard = hosted();
    let handle = shard.handle();
    let polls = shard.enter(|| yielding(100));
    for _ in 0..TURNS {
        for _ in 0..Limits::default().messages_per_turn {
            // As many as there is room for.
            let _ = handle.post(FIRST, || spin(Duration::from_micros(5)));
        }
        shard.turn(Duration::ZERO);
    }
    // 61 in each turn, if the messages' time were not taken for theirs.
    assert!(polls.get() >= TURNS * 20, "{} polls in {TURNS} turns", polls.get());
}

#[test]
fn a_turn_after_the_hosts_own_wait_has_its_share() {
    let shard = hosted();
    let polls = shard.enter(|| yielding(100));
    let mut fewest = u64::MAX;
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(5));
        let before = polls.get();
        shard.turn(Duration::ZERO);
        fewest = fewest.min(polls.get() - before);
    }
    assert!(fewest >= 16, "{fewest} polls in a turn, of tasks that take a microsecond");
}

#[test]
fn calls_are_not_taken_faster_than_their_tasks_run() {
    let shard = hosted();
    let handle = shard.handle();
    for _ in 0..1_000 {
        // A sender that respects "full".
        while handle.spawn_on(FIRST, || async {}).map(drop).is_ok() {}
        shard.turn(Duration::ZERO);
    }
    let tasks = handle.stats()[0].tasks;
    // The inbox has room for 1,024. Tasks that nobody bounds would be 195 more in each turn.
    assert!(tasks < 10_000, "{tasks} tasks wait on the shard");
}

#[test]
fn hypers_clock_on_a_hosted_shard_is_no_older_than_a_turn() {
    let shard = hosted();
    while shard.turn(Duration::ZERO) {}
    thread::sleep(Duration::from_millis(200));
    // The host has waited in its own loop. This is what a header timeout is counted from.
    let (tell, told) = mpsc::channel();
    shard.handle().post(FIRST, move || tell.send(Timer.now()).expect("heard")).expect("room");
    shard.turn(Duration::ZERO);
    let age = told.recv().expect("it ran").elapsed();
    assert!(age < Duration::from_millis(100), "in a turn: {age:?} old");
    thread::sleep(Duration::from_millis(200));
    let age = shard.enter(|| Timer.now()).elapsed();
    assert!(age < Duration::from_millis(100), "in enter: {age:?} old");
}

#[test]
fn the_hosts_own_wait_is_not_the_shards_busy_time() {
    let shard = hosted();
    while shard.turn(Duration::ZERO) {}
    let before = shard.handle().stats()[0].busy_nanos;
    thread::sleep(Duration::from_millis(300));
    shard.turn(Duration::ZERO);
    let busy = Duration::from_nanos(shard.handle().stats()[0].busy_nanos - before);
    assert!(busy < Duration::from_millis(100), "busy for {busy:?} while the host waited");
}

#[test]
fn what_a_hosted_shard_does_is_its_busy_time() {
    let shard = HostedShard::new(limits(|limits| limits.polls_per_turn = 1)).expect("a shard");
    let work = Duration::from_millis(1);
    let busy = || {
        while shard.turn(Duration::ZERO) {}
        shard.turn(Duration::ZERO);
        Duration::from_nanos(shard.handle().stats()[0].busy_nanos)
    };
    let before = busy();
    shard.enter(|| {
        drop(corelane::spawn_local(async move {
            for _ in 0..100 {
                spin(work);
                corelane::yield_now().await;
            }
        }));
    });
    let between = busy();
    assert!(between - before >= 100 * work, "in turns: {:?}", between - before);
    for _ in 0..100 {
        shard.enter(|| spin(work));
    }
    let after = busy();
    assert!(after - between >= 100 * work, "in enter: {:?}", after - between);
}

#[test]
fn a_turn_takes_no_more_long_calls_than_it_has_time_for() {
    let shard = hosted();
    let ran = Arc::new(AtomicU64::new(0));
    let call = || {
        let ran = ran.clone();
        let run = move || {
            ran.fetch_add(1, Ordering::Relaxed);
            spin(Duration::from_millis(2));
        };
        shard.handle().post(FIRST, run).expect("room");
    };
    for round in 1..=5 {
        // Short ones first: nobody knows how long the next will be.
        for _ in 0..100 {
            shard.handle().post(FIRST, || ()).expect("room");
        }
        while shard.turn(Duration::ZERO) {}
        (0..20).for_each(|_| call());
        let before = ran.load(Ordering::Relaxed);
        shard.turn(Duration::ZERO);
        let ran_now = ran.load(Ordering::Relaxed) - before;
        assert_eq!(ran_now, 1, "round {round}: each takes twice the time of a turn");
        while shard.turn(Duration::ZERO) {}
    }
}

#[test]
fn a_host_with_work_of_its_own_lets_the_sockets_wait_for_no_more_than_a_turn() {
    let shard = hosted();
    let (a, mut b) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let heard = Rc::new(Cell::new(0));
    let hears = heard.clone();
    shard.enter(|| {
        // Always something to do.
        drop(corelane::spawn_local(async {
            loop {
                corelane::yield_now().await;
            }
        }));
        drop(corelane::spawn_local(async move {
            let mut stream = UnixStream::from_std(a).expect("a stream");
            while stream.read_exact(&mut [0]).await.is_ok() {
                hears.set(hears.get() + 1);
            }
        }));
    });
    for _ in 0..20 {
        shard.turn(Duration::ZERO);
    }
    for round in 1..=10 {
        std::io::Write::write_all(&mut b, b"x").expect("room");
        let mut turns = 0;
        while heard.get() < round {
            // The host's own work.
            thread::sleep(Duration::from_millis(2));
            shard.turn(Duration::ZERO);
            turns += 1;
        }
        // One that looks, and one that polls what was woken.
        assert!(turns <= 2, "round {round}: heard after {turns} turns");
    }
}

/// One task that goes on and on, in polls that are long beside those of others, which come first in the turn.
#[test]
fn a_task_that_yields_for_ever_does_not_keep_the_sockets_waiting() {
    within_reason(|| {
        let shard = hosted();
        let polls = 200;
        let long = shard.handle().spawn_on(FIRST, move || async move {
            for _ in 0..polls {
                // Short ones beside it, so that it is not expected to be long.
                (0..20).for_each(|_| drop(corelane::spawn_local(async {})));
                spin(Duration::from_micros(100));
                corelane::yield_now().await;
            }
        });
        let long = long.expect("room");
        let before = shard.handle().stats()[0].io_polls;
        while !long.is_finished() {
            shard.turn(Duration::ZERO);
        }
        let looks = shard.handle().stats()[0].io_polls - before;
        assert!(looks >= polls / 2, "{looks} looks at the sockets beside {polls} polls");
    });
}
