//! The thread that looks at a server's shards and has connections move from one that is held up to one that is not.
//!
//! It decides nothing itself (`balance/moves` does) and touches no connection: it reads published counters, and only when a
//! shard is busy asks the shards what their connections did, by one message each. Shards that are idle are not woken.

use super::crew::Crew;
use crate::balance::moves::{Give, Looked, Moves};
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::runtime::Handle;
use crate::sync::{AtomicBool, Ordering};
use crate::time::clock;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long a shard may take to say what its connections did. One that takes longer is held up by a task: it could not give
/// anything away either.
const PATIENCE: Duration = Duration::from_millis(50);
/// Connections that may be moved in a second.
const PER_SECOND: u32 = 1000;
/// A shard that is less busy than this says nothing new.
const QUIET: f64 = 0.02;

/// What the shards of a server whose connections may move have in common.
#[derive(Clone)]
pub(super) struct Moving {
    /// Of the crews.
    pub(super) number: u64,
    /// By shard: whether it has a crew. One whose service could not be made never has.
    crews: Arc<[AtomicBool]>,
    /// By listener: the shards that serve it, in ascending order.
    listeners: Arc<[Vec<usize>]>,
    /// When the last is dropped, with the last crew, the thread ends.
    _alive: Sender<()>,
}

impl Moving {
    /// Starts the thread that balances. `listeners` are the shards that serve each.
    pub(super) fn start(handle: &Handle, listeners: Vec<Vec<usize>>) -> Result<Moving, Error> {
        let number = handle.fleet().next_sharded();
        let (alive, ends) = channel();
        let crews = handle.shards().map(|_| AtomicBool::new(false)).collect();
        let moving = Moving { number, crews, listeners: listeners.into(), _alive: alive };
        let groups = groups(&moving.listeners);
        let balance = Balance::new(handle.clone(), number, moving.crews.clone(), groups);
        match start(balance, ends) {
            Ok(()) => Ok(moving),
            Err(error) => {
                let text = format!("there is no thread to balance connections: {error}");
                Err(Error::new(ErrorKind::Start, text).because(error))
            }
        }
    }

    /// The shard has a crew from now on.
    pub(super) fn has_come(&self, shard: ShardId) {
        self.crews[shard.index()].store(true, Ordering::Relaxed);
    }

    /// Whether a shard, if there is one, has a crew that serves the connections of this listener. What the flag guards is
    /// found on that shard itself, so it orders nothing.
    pub(super) fn serves(&self, shard: ShardId, listener: usize) -> bool {
        let shard = shard.index();
        self.listeners.get(listener).is_some_and(|shards| shards.binary_search(&shard).is_ok())
            && self.crews.get(shard).is_some_and(|here| here.load(Ordering::Relaxed))
    }
}

/// The sets of shards among which connections move: those that serve a listener, each set once.
fn groups(listeners: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> =
        listeners.iter().filter(|shards| shards.len() > 1).cloned().collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Starts the thread. It ends when the other end of `alive` is gone.
///
/// # Errors
/// The system gives no thread.
fn start(mut balance: Balance, alive: Receiver<()>) -> io::Result<()> {
    let body = move || {
        balance.handle.fleet().pool().take_mask_back();
        while alive.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            balance.look();
        }
    };
    thread::Builder::new().name("corelane-moves".into()).spawn(body).map(drop)
}

struct Balance {
    handle: Handle,
    number: u64,
    /// By shard: whether it has a crew.
    crews: Arc<[AtomicBool]>,
    /// The sets of shards among which connections move.
    groups: Vec<(Vec<usize>, Moves)>,
    looked_at: Instant,
    busy: Vec<u64>,
    /// The CPU time of each shard at its last report, and when that was asked for.
    cpu: Vec<Option<(Duration, Instant)>>,
}

impl Balance {
    fn new(
        handle: Handle,
        number: u64,
        crews: Arc<[AtomicBool]>,
        groups: Vec<Vec<usize>>,
    ) -> Balance {
        let busy: Vec<u64> = handle.stats().iter().map(|shard| shard.busy_nanos).collect();
        let cpu = vec![None; busy.len()];
        let each = PER_SECOND / groups.len().max(1) as u32;
        let groups = groups.into_iter().map(|shards| (shards, Moves::new(each))).collect();
        Balance { handle, number, crews, groups, looked_at: clock::now(), busy, cpu }
    }

    fn look(&mut self) {
        let now = clock::now();
        let elapsed = now.duration_since(std::mem::replace(&mut self.looked_at, now));
        let nanos: Vec<u64> = self.handle.stats().iter().map(|shard| shard.busy_nanos).collect();
        let share = |(now, before): (&u64, &u64)| {
            (now.saturating_sub(*before) as f64 / elapsed.as_nanos() as f64).min(1.0)
        };
        let busy: Vec<f64> = nanos.iter().zip(&self.busy).map(share).collect();
        self.busy = nanos;
        // One without a crew would look idle.
        let has_crew = |shard: &usize| self.crews[*shard].load(Ordering::Relaxed);
        let is_ready = |(group, _): &(Vec<usize>, Moves)| group.iter().all(has_crew);
        let ready: Vec<bool> = self.groups.iter().map(is_ready).collect();
        // Reports are of the time since the last, so they are asked for even if they are not needed yet.
        let groups = self.groups.iter().zip(&ready).filter(|(_, ready)| **ready);
        let mut asked: Vec<usize> = groups.flat_map(|((group, _), _)| group.clone()).collect();
        asked.retain(|&shard| busy[shard] >= QUIET);
        asked.sort_unstable();
        asked.dedup();
        if asked.is_empty() {
            return;
        }
        let Some(shards) = self.ask(&asked, &busy, elapsed) else { return };
        let mut gives = Vec::new();
        for ((group, moves), _) in self.groups.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            let looked: Vec<Looked> = group.iter().map(|&shard| shards[shard]).collect();
            let give = moves.look(&looked, now);
            gives.extend(give.map(|Give { from, to, count }| (group[from], group[to], count)));
        }
        gives.into_iter().for_each(|(from, to, count)| self.have_given(from, to, count));
    }

    /// What the shards did, those asked for in full. None: one of them does not answer.
    fn ask(&mut self, asked: &[usize], busy: &[f64], elapsed: Duration) -> Option<Vec<Looked>> {
        let (tell, answers) = channel();
        for &index in asked {
            let (number, tell) = (self.number, tell.clone());
            let report = move || {
                let report = Crew::here(number).map(|crew| crew.report());
                let _ = tell.send((index, report.unwrap_or_default()));
            };
            self.handle.post(ShardId::new(index as u16), report).ok()?;
        }
        let mut shards: Vec<Looked> =
            busy.iter().map(|busy| Looked { busy: *busy, ..Looked::default() }).collect();
        for _ in asked {
            let (index, report) = answers.recv_timeout(PATIENCE).ok()?;
            let looked = &mut shards[index];
            let cpu = self.cpu[index].replace((report.cpu, self.looked_at));
            if let Some((before, at)) = cpu.filter(|(_, at)| *at + 2 * LOOK > self.looked_at) {
                let had = report.cpu.saturating_sub(before).as_secs_f64();
                let of = self.looked_at.duration_since(at).as_secs_f64();
                looked.robbed = (looked.busy - had / of.max(1e-3)).max(0.0);
            }
            looked.rate = report.requests / elapsed.as_secs_f64();
            if report.squares > 0.0 {
                looked.hot = report.requests * report.requests / report.squares;
            }
        }
        Some(shards)
    }

    fn have_given(&self, from: usize, to: usize, count: usize) {
        let (number, to) = (self.number, ShardId::new(to as u16));
        let give = move || {
            if let Some(crew) = Crew::here(number) {
                crew.give(to, count, true);
            }
        };
        // One whose inbox is full has other troubles.
        let _ = self.handle.post(ShardId::new(from as u16), give);
    }
}
