//! What the thread that watches the shards tells of them, and of what it keeps silent.

use super::harness::*;
use super::process::{self, QuotaGroup};
use corelane::net::TcpListener;
use corelane::{Handle, Runtime, ShardId, Trouble};
use futures::{AsyncReadExt, AsyncWriteExt};
use std::io::{Read, Write};
use std::net::TcpStream as StdTcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// After this a shard counts as stalled. It is the default.
const THRESHOLD: Duration = Duration::from_millis(25);

/// What has been told, and when.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(Instant, Trouble)>>>);

impl Told {
    /// So many shards that are watched.
    fn start(&self, count: usize) -> Runtime {
        let told = self.0.clone();
        let tell = move |trouble| told.lock().expect("no panic").push((Instant::now(), trouble));
        start(count, Runtime::builder().on_trouble(tell)).expect("started")
    }

    /// When stalls of this shard were told, and for how long it had been held by then.
    fn stalls(&self, of: ShardId) -> Vec<(Instant, Duration)> {
        let told = self.0.lock().expect("no panic");
        let stall = |(at, trouble): &(Instant, Trouble)| match trouble {
            Trouble::Stalled { shard, held } if *shard == of => Some((*at, *held)),
            _ => None,
        };
        told.iter().filter_map(stall).collect()
    }
}

/// A client of an echo server on this shard.
fn conversation(handle: &Handle, shard: ShardId) -> StdTcpStream {
    let serve = || async {
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
    let address = wait(handle.submit_to(shard, serve)).expect("no panic");
    StdTcpStream::connect(address).expect("it listens")
}

#[track_caller]
fn says_and_hears(client: &mut StdTcpStream) {
    client.write_all(b"ping").expect("written");
    client.read_exact(&mut [0; 4]).expect("echoed");
}

/// How long after its begin a blocking call on the second shard was told. None: the machine gave that shard no time
/// before the call, so that something else was told first.
fn time_until_told(handle: &Handle, told: &Told, other: &mut StdTcpStream) -> Option<Duration> {
    stats_at_rest(handle, SECOND);
    let before = told.stalls(SECOND).len();
    let (tell, calls) = mpsc::channel();
    let (end, may_end) = mpsc::channel::<()>();
    let blocking = handle.spawn_on(SECOND, move || async move {
        tell.send(Instant::now()).expect("the test listens");
        let _ = may_end.recv();
    });
    let began = calls.recv().expect("it begins");
    eventually("it is told", || told.stalls(SECOND).len() > before);
    // The call goes on, which is not told again; the other shard serves.
    let later = Instant::now() + 4 * THRESHOLD;
    while Instant::now() < later {
        says_and_hears(other);
    }
    let now = told.stalls(SECOND);
    end.send(()).expect("it waits");
    wait(blocking.expect("a shard with room")).expect("no panic");
    let (at, held) = now[before];
    if at < began {
        return None;
    }
    assert_eq!(now.len(), before + 1, "told once");
    assert!(held >= THRESHOLD, "{held:?}");
    Some(at.duration_since(began))
}

#[test]
fn a_blocking_call_is_told_once_and_soon_after_the_threshold() {
    within_reason(|| {
        let told = Told::default();
        let runtime = told.start(2);
        let mut other = conversation(runtime.handle(), FIRST);
        // Another program may keep the watching thread from its CPU, but not each time.
        let times: Vec<_> =
            (0..8).filter_map(|_| time_until_told(runtime.handle(), &told, &mut other)).collect();
        let soonest = times.iter().min().expect("one that was not disturbed");
        assert!(*soonest <= THRESHOLD + Duration::from_millis(50), "{times:?}");
    });
}

#[test]
fn a_cpu_quota_is_no_stall() {
    const NAME: &str = "watched::a_cpu_quota_is_no_stall";
    const PERIODS: u32 = 30;
    if process::is_child(NAME) {
        QuotaGroup::join();
        let told = Told::default();
        let runtime = told.start(2);
        // Busy, though never for longer than a millisecond: the quota is used up in each period.
        let until = Instant::now() + PERIODS * Duration::from_millis(100);
        let busy = [FIRST, SECOND].map(|shard| {
            let busy = runtime.handle().spawn_on(shard, move || async move {
                while Instant::now() < until {
                    spin(Duration::from_micros(200));
                    corelane::yield_now().await;
                }
            });
            busy.expect("a shard with room")
        });
        busy.into_iter().for_each(|busy| wait(busy).expect("no panic"));
        for shard in [FIRST, SECOND] {
            println!("{shard}: {:?}", told.stalls(shard));
        }
        assert!(told.0.lock().expect("no panic").is_empty(), "{:?}", told.0);
        return;
    }
    let Some(group) = QuotaGroup::new(50_000) else {
        return process::skipped("no CPU cgroup can be made here");
    };
    group.run(NAME).passed();
}
