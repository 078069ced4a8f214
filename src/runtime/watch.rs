//! A thread that looks at the shards from outside: is one stuck, has its CPU gone?
//!
//! It reads what shards publish anyway (their counters and whether they sleep), so being watched costs a shard
//! nothing. It runs only if somebody wants to be told. It is not pinned, and never touches what a shard owns.
//!
//! A shard that makes no progress may be one whose thread is given no CPU: a quota is used up, the machine is busy, the
//! process was stopped. No task is to blame for that, so before it tells, it asks the system what the thread does.

use crate::id::{CpuId, ShardId};
use crate::runtime::ShardInfo;
use crate::shard::fleet::Fleet;
use crate::sync::{Arc, lock};
use crate::sys::affinity::AffinityMask;
use crate::sys::cpus;
use crate::sys::thread::ThreadNumber;
use crate::time::clock;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Something is wrong with a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// A task has held the shard for longer than the threshold; reported once for each such time. Connections and
    /// timers of that shard wait; other shards are not concerned. A shard whose thread is given no CPU time is not
    /// reported where the system tells the one from the other, as Linux does.
    Stalled {
        /// Which shard.
        shard: ShardId,
        /// For how long so far, at least.
        held: Duration,
    },
    /// The shard's CPU was taken offline, so that its thread runs wherever the system puts it; reported once, about a
    /// second later at most.
    CpuOffline {
        /// Which shard.
        shard: ShardId,
        /// Which CPU.
        cpu: CpuId,
    },
    /// Tasks, or requests in a service, have panicked. The shard goes on.
    Panicked {
        /// Which shard.
        shard: ShardId,
        /// How many since this was reported last.
        count: u64,
    },
}

/// Who is told.
pub(super) type Observer = Arc<dyn Fn(Trouble) + Send + Sync>;

/// How often it is asked which CPUs are online, whatever the threshold of a stall.
const CPU_INTERVAL: Duration = Duration::from_secs(1);

/// The watching thread; it ends when this is dropped, which waits for that, except on the thread itself.
pub(super) struct Watch {
    stop: Arc<Stop>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

/// A shard that is to be watched.
pub(super) struct Watched {
    pub(super) info: ShardInfo,
    /// Its thread, where that is known.
    pub(super) thread: Option<ThreadNumber>,
    /// How long it may go without finishing a turn.
    pub(super) threshold: Duration,
}

/// What is known of one shard.
struct Seen {
    info: ShardInfo,
    threshold: Duration,
    thread: Option<ThreadNumber>,
    /// The CPU time its thread had had when no progress was seen first.
    cpu_time: Option<Duration>,
    /// The published number of turns, and since when at the latest it has been awake with that.
    turns: u64,
    since: Option<Instant>,
    reported: bool,
    offline: bool,
    /// As many have been reported.
    panics: u64,
}

impl Watch {
    /// Starts watching.
    pub(super) fn start(
        fleet: Arc<Fleet>,
        shards: Vec<Watched>,
        observer: Observer,
    ) -> std::io::Result<Watch> {
        let stop = Arc::new(Stop::default());
        let stopping = stop.clone();
        let mut seen: Vec<Seen> = shards.into_iter().map(Seen::new).collect();
        let threshold = seen.iter().map(|seen| seen.threshold).min().unwrap_or(CPU_INTERVAL);
        let mask = AffinityMask::current();
        let body = move || {
            if let Ok(mask) = mask {
                let _ = mask.apply_to_current_thread();
            }
            let mut cpus_at = clock::now();
            while !stopping.wait(until_look(threshold, cpus_at, clock::now())) {
                let now = clock::now();
                seen.iter_mut().for_each(|seen| seen.look(&fleet, now, &observer));
                if now >= cpus_at {
                    cpus_at = now + CPU_INTERVAL;
                    look_at_cpus(&mut seen, &observer);
                }
            }
        };
        let thread = thread::Builder::new().name("corelane-watch".into()).spawn(body)?;
        Ok(Watch { stop, thread: Some(thread) })
    }
}

impl Seen {
    fn new(Watched { info, thread, threshold }: Watched) -> Seen {
        let (turns, since, cpu_time) = (0, None, None);
        let (reported, offline, panics) = (false, false, 0);
        Seen { info, threshold, thread, cpu_time, turns, since, reported, offline, panics }
    }

    fn look(&mut self, fleet: &Fleet, now: Instant, observer: &Observer) {
        let shard = self.info.shard;
        let panics = fleet.panics(shard);
        if panics > self.panics {
            let count = panics - std::mem::replace(&mut self.panics, panics);
            observer(Trouble::Panicked { shard, count });
        }
        let Some((turns, sleeps)) = fleet.progress(shard) else { return };
        let Some(held) = self.held(turns, sleeps, now) else { return };
        if self.reported {
            return;
        }
        let starved = self.is_starved();
        if held >= self.threshold && !starved {
            self.reported = true;
            observer(Trouble::Stalled { shard, held });
        }
    }

    /// For how long at least it has been held up. None: it has not.
    fn held(&mut self, turns: u64, sleeps: bool, now: Instant) -> Option<Duration> {
        if sleeps || turns != self.turns {
            (self.turns, self.reported, self.cpu_time) = (turns, false, None);
            // One that sleeps is not held up yet, and may not be until just before the next look.
            self.since = (!sleeps).then_some(now);
            return None;
        }
        Some(now.duration_since(*self.since.get_or_insert(now)))
    }

    /// Whether the thread would run, but has hardly been given a CPU since it made progress. Asked at each look, so
    /// that the first one of them tells what it had had by then.
    fn is_starved(&mut self) -> bool {
        let Some(look) = self.thread.as_ref().and_then(ThreadNumber::look) else { return false };
        let had = *self.cpu_time.get_or_insert(look.cpu_time);
        // Looks are at most half a threshold apart, and the system counts in ticks of a few milliseconds.
        look.wants_cpu && look.cpu_time.saturating_sub(had) < self.threshold / 4
    }
}

/// How long to wait for the next look: half a threshold, but not past the look at the CPUs.
fn until_look(threshold: Duration, cpus_at: Instant, now: Instant) -> Duration {
    (threshold / 2).max(Duration::from_millis(1)).min(cpus_at.saturating_duration_since(now))
}

fn look_at_cpus(seen: &mut [Seen], observer: &Observer) {
    let Some(online) = cpus::online() else { return };
    for seen in seen.iter_mut().filter(|seen| seen.info.pinned && !seen.offline) {
        if !online.contains(&seen.info.cpu) {
            seen.offline = true;
            observer(Trouble::CpuOffline { shard: seen.info.shard, cpu: seen.info.cpu });
        }
    }
}

impl Stop {
    /// Waits; true when it is time to end.
    fn wait(&self, interval: Duration) -> bool {
        let stopped = lock(&self.stopped);
        let waited = self.changed.wait_timeout_while(stopped, interval, |stopped| !*stopped);
        *waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *lock(&self.stop.stopped) = true;
        self.stop.changed.notify_all();
        // An observer may end its runtime: its thread cannot wait for itself, and ends when the observer has returned.
        let is_other =
            |thread: &thread::JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(thread) = self.thread.take().filter(is_other) {
            // An observer that panics ends the watching, which must not end the program.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shard_slept_is_not_held_against_its_next_task() {
        let info = ShardInfo { shard: ShardId::new(0), cpu: CpuId(0), pinned: false };
        let mut seen =
            Seen::new(Watched { info, thread: None, threshold: Duration::from_millis(25) });
        let (start, ms) = (Instant::now(), Duration::from_millis);
        assert_eq!(seen.held(5, true, start), None);
        // It has been woken since, who knows when.
        assert_eq!(seen.held(5, false, start + ms(100)), Some(ms(0)));
        assert_eq!(seen.held(5, false, start + ms(200)), Some(ms(100)));
        // It has come on.
        assert_eq!(seen.held(6, false, start + ms(300)), None);
        assert_eq!(seen.held(6, false, start + ms(400)), Some(ms(100)));
    }

    #[test]
    fn the_cpus_are_looked_at_every_second_whatever_the_threshold() {
        let start = Instant::now();
        for threshold in [0, 1, 25, 1_800, 60_000, u64::MAX].map(Duration::from_millis) {
            let (mut now, mut cpus_at, mut looks) = (start, start, 0);
            while now < start + Duration::from_secs(5) {
                let wait = until_look(threshold, cpus_at, now);
                assert!(wait <= (threshold / 2).max(Duration::from_millis(1)));
                now += wait;
                if now >= cpus_at {
                    (cpus_at, looks) = (now + CPU_INTERVAL, looks + 1);
                }
            }
            assert_eq!(looks, 6, "{threshold:?}: one at the start, and one a second");
        }
    }
}
