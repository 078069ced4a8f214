//! Proofs by numbers, which take minutes: ignored unless asked for.
//!
//! ```text
//! cargo test --release --test it -- --ignored --nocapture ten_million
//! ```
//!
//! `CORELANE_TEST_ROUNDS` sets the number of rounds.

use super::harness::*;
use corelane::{Handle, Runtime, ShardStats};
use futures::StreamExt;
use futures::channel::mpsc as channel;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// No round may take longer, unless the machine gave a shard no CPU for as long.
const LONGEST_GAP: Duration = Duration::from_millis(100);

/// How the shards of a part look for messages before they park, and how its rounds are played.
struct Part {
    busy_poll: Duration,
    /// So many in a hundred of all rounds.
    share: u64,
    /// Who play at the same time: by calls and, every other one, by wakes.
    pairs: u64,
}

const PARTS: [Part; 4] = [
    // A pair alone lets both shards come to rest in each round.
    Part { busy_poll: Duration::from_micros(50), share: 40, pairs: 1 },
    Part { busy_poll: Duration::from_micros(5), share: 30, pairs: 2 },
    Part { busy_poll: Duration::from_micros(50), share: 15, pairs: 8 },
    // Always parks.
    Part { busy_poll: Duration::ZERO, share: 15, pairs: 3 },
];

/// Mostly no delay to speak of; often about as long as a receiver looks before it parks; sometimes much longer.
fn some_delay(random: &mut Random, busy_poll: Duration) -> Duration {
    match random.below(100) {
        0..50 => Duration::ZERO,
        50..90 => Duration::from_nanos(random.below(3_000)),
        90..96 => busy_poll * (50 + random.below(100) as u32) / 100,
        _ => Duration::from_micros(20 + random.below(100)),
    }
}

/// What the machine did to the threads of both shards.
#[derive(Clone)]
struct Machine([String; 2]);

impl Machine {
    fn of(handle: &Handle) -> Machine {
        let number = || fs::read_link("/proc/thread-self").expect("Linux");
        Machine(
            [FIRST, SECOND]
                .map(|shard| format!("/proc/{}/schedstat", on(handle, shard, number).display())),
        )
    }

    /// For how long they have been ready to run without a CPU, together, since they started.
    fn kept_waiting(&self) -> Duration {
        let nanos = self.0.iter().map(|file| {
            let text = fs::read_to_string(file).expect("a thread that runs");
            text.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }
}

/// The longest times between the ends of two rounds of one pair.
#[derive(Clone, Copy, Debug, Default)]
struct Gaps {
    longest: Duration,
    /// The longest after what the machine took of it has been taken off.
    longest_of_ours: Duration,
    over_limit: u64,
}

impl Gaps {
    fn worse_of(self, other: Gaps) -> Gaps {
        Gaps {
            longest: self.longest.max(other.longest),
            longest_of_ours: self.longest_of_ours.max(other.longest_of_ours),
            over_limit: self.over_limit + other.over_limit,
        }
    }
}

/// Plays one pair's rounds. `trip` goes to the other shard, stays there for so long, and comes back.
async fn play(
    rounds: u64,
    busy_poll: Duration,
    machine: Machine,
    progress: Arc<AtomicU64>,
    mut trip: impl AsyncFnMut(u64, Duration),
) -> Gaps {
    // Shorter gaps are not looked into: a look takes as long as many rounds.
    const NOTICED: Duration = Duration::from_millis(10);
    const LOOK_EVERY: u64 = 1024;
    let mut random = Random::new();
    let mut gaps = Gaps::default();
    let (mut last, mut kept_waiting) = (Instant::now(), machine.kept_waiting());
    for round in 0..rounds {
        trip(round, some_delay(&mut random, busy_poll)).await;
        spin(some_delay(&mut random, busy_poll));
        progress.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let gap = now - std::mem::replace(&mut last, now);
        gaps.longest = gaps.longest.max(gap);
        if gap > NOTICED || round.is_multiple_of(LOOK_EVERY) {
            let waited = machine.kept_waiting();
            let ours = gap.saturating_sub(waited - std::mem::replace(&mut kept_waiting, waited));
            gaps.longest_of_ours = gaps.longest_of_ours.max(ours);
            gaps.over_limit += u64::from(gap > LONGEST_GAP);
            last = Instant::now();
        } else {
            gaps.longest_of_ours = gaps.longest_of_ours.max(gap);
        }
    }
    gaps
}

async fn play_by_calls(
    handle: Handle,
    rounds: u64,
    busy_poll: Duration,
    machine: Machine,
    progress: Arc<AtomicU64>,
) -> Gaps {
    let trip = async |round, delay| {
        let answer = handle.submit_to(SECOND, move || async move {
            spin(delay);
            round
        });
        assert_eq!(answer.await.expect("answered"), round);
    };
    play(rounds, busy_poll, machine, progress, trip).await
}

async fn play_by_wakes(
    handle: Handle,
    rounds: u64,
    busy_poll: Duration,
    machine: Machine,
    progress: Arc<AtomicU64>,
) -> Gaps {
    let (ping, mut pings) = channel::unbounded::<(u64, Duration)>();
    let (pong, mut pongs) = channel::unbounded::<u64>();
    let echo = handle.spawn_on(SECOND, move || async move {
        while let Some((round, delay)) = pings.next().await {
            spin(delay);
            let _ = pong.unbounded_send(round);
        }
    });
    let trip = async |round, delay| {
        ping.unbounded_send((round, delay)).expect("the echo listens");
        assert_eq!(pongs.next().await, Some(round));
    };
    let gaps = play(rounds, busy_poll, machine, progress, trip).await;
    drop(ping);
    echo.expect("a shard with room").await.expect("no panic");
    gaps
}

/// Plays so many rounds, and fails if they stand still. Returns the gaps and what the shards counted.
fn play_part(part: &Part, rounds: u64) -> (Gaps, Vec<ShardStats>, Duration) {
    let runtime: Runtime = shards_with(2, limits(|limits| limits.busy_poll = part.busy_poll));
    let handle = runtime.handle();
    let machine = Machine::of(handle);
    let progress = Arc::new(AtomicU64::new(0));
    let each = rounds.div_ceil(part.pairs);
    let pairs: Vec<_> = (0..part.pairs)
        .map(|pair| {
            let (calling, machine, progress) = (handle.clone(), machine.clone(), progress.clone());
            let busy_poll = part.busy_poll;
            if pair % 2 == 0 {
                let play = move || play_by_calls(calling, each, busy_poll, machine, progress);
                handle.spawn_on(FIRST, play).expect("a shard with room")
            } else {
                let play = move || play_by_wakes(calling, each, busy_poll, machine, progress);
                handle.spawn_on(FIRST, play).expect("a shard with room")
            }
        })
        .collect();
    let (mut last, mut moved) = (0, Instant::now());
    while pairs.iter().any(|pair| !pair.is_finished()) {
        thread::sleep(Duration::from_millis(50));
        let now = progress.load(Ordering::Relaxed);
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        let stats = handle.stats();
        assert!(moved.elapsed() < HANGS_AFTER / 2, "stalled at {now} of {rounds}: {stats:#?}");
        assert!(stats.iter().all(|shard| shard.eventfd_writes <= shard.parks), "{stats:#?}");
    }
    let gaps = pairs.into_iter().map(|pair| wait(pair).expect("no panic"));
    let gaps = gaps.fold(Gaps::default(), Gaps::worse_of);
    let stats = [FIRST, SECOND].map(|shard| stats_at_rest(handle, shard)).to_vec();
    (gaps, stats, machine.kept_waiting())
}

#[test]
#[ignore = "takes minutes: see the head of the file"]
fn ten_million_ping_pongs_with_random_delays_have_no_gap() {
    let all = std::env::var("CORELANE_TEST_ROUNDS").map_or(10_000_000, |rounds| {
        rounds.parse::<u64>().expect("CORELANE_TEST_ROUNDS is a number")
    });
    let began = Instant::now();
    let mut worst = Gaps::default();
    for part in PARTS {
        let rounds = all * part.share / 100;
        let part_began = Instant::now();
        let (gaps, stats, kept_waiting) = play_part(&part, rounds);
        worst = worst.worse_of(gaps);
        println!(
            "{rounds} rounds, {} at a time, busy_poll {:?}, in {:.1?}: longest gap {:?}, of that \
             not the machine's {:?}; the machine kept the shards waiting for {:.1?}",
            part.pairs,
            part.busy_poll,
            part_began.elapsed(),
            gaps.longest,
            gaps.longest_of_ours,
            kept_waiting,
        );
        for (number, shard) in stats.iter().enumerate() {
            println!(
                "  shard {number}: {} parks, {} eventfd writes, {} messages, {} foreign wakes",
                shard.parks, shard.eventfd_writes, shard.inbox_messages, shard.foreign_wakes
            );
            assert!(shard.eventfd_writes <= shard.parks, "{shard:#?}");
        }
        let parks: u64 = stats.iter().map(|shard| shard.parks).sum();
        assert!(parks > rounds / 1_000, "the shards hardly ever parked: {stats:#?}");
    }
    println!("{all} rounds in {:.0?}: {worst:?}", began.elapsed());
    assert!(worst.longest_of_ours <= LONGEST_GAP, "{worst:?}");
}
