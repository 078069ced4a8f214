//! The thread that changes the weights of shards: it looks at them, asks [`Weights`], and has programs attached.
//!
//! It touches nothing of a shard but what that publishes, and the groups' duplicates under their lock.

use super::super::{Event, Observer};
use super::Group;
use crate::balance::weights::{LOOK_INTERVAL, Reading, WEIGHT_MAX, Weights};
use crate::id::ShardId;
use crate::runtime::Handle;
use crate::shard::counters::ShardStats;
use crate::sync::{Mutex, lock};
use crate::time::clock;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Has the thread run while there is something for it to do.
#[derive(Clone)]
pub(in crate::server) struct Weigher(Arc<Common>);

impl fmt::Debug for Weigher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weigher").field("runs", &self.0.runs).finish_non_exhaustive()
    }
}

/// What the thread and the server have in common.
struct Common {
    groups: Vec<(Arc<Group>, SocketAddr)>,
    handle: Handle,
    observer: Observer,
    runs: Mutex<bool>,
}

impl Weigher {
    pub(in crate::server) fn new(
        groups: &[Arc<Group>],
        addresses: &[SocketAddr],
        handle: &Handle,
        observer: &Observer,
    ) -> Weigher {
        let groups = groups.iter().cloned().zip(addresses.iter().copied()).collect();
        let (handle, observer) = (handle.clone(), observer.clone());
        Weigher(Arc::new(Common { groups, handle, observer, runs: Mutex::new(false) }))
    }

    /// Starts the thread, if some address wants it and it does not run.
    ///
    /// # Errors
    /// There is no thread.
    pub(in crate::server) fn run(&self) -> io::Result<()> {
        let common = self.0.clone();
        let mut runs = lock(&self.0.runs);
        if *runs || !common.is_wanted() {
            return Ok(());
        }
        let weights = Weights::new(common.handle.shard_count());
        let mut steering = Steering { common, weights };
        thread::Builder::new().name("corelane-steer".into()).spawn(move || steering.run())?;
        *runs = true;
        Ok(())
    }
}

impl Common {
    fn is_wanted(&self) -> bool {
        self.groups.iter().any(|(group, _)| group.shards().is_some())
    }

    /// Whether the thread is to end. Then it does: whoever wants it from now on starts another.
    fn is_over(&self) -> bool {
        let mut runs = lock(&self.runs);
        *runs = self.is_wanted();
        !*runs
    }
}

/// What the thread has.
struct Steering {
    common: Arc<Common>,
    weights: Weights,
}

impl Steering {
    fn run(&mut self) {
        let common = self.common.clone();
        common.handle.fleet().pool().take_mask_back();
        for (group, _) in &common.groups {
            lock(&group.state).thread = Some(thread::current());
        }
        let shards = common.handle.shard_count();
        // All are equal until there is something to be seen.
        self.pass_on(&vec![WEIGHT_MAX; shards]);
        while !common.is_over() {
            let mut here = vec![false; shards];
            let groups = common.groups.iter().filter_map(|(group, _)| group.shards());
            groups.flatten().for_each(|shard| here[shard] = true);
            let readings = self.read(&here);
            if let Some(weights) = self.weights.look(clock::now(), &readings) {
                let weights = weights.to_vec();
                self.pass_on(&weights);
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
    }

    fn read(&self, here: &[bool]) -> Vec<Option<Reading>> {
        let handle = &self.common.handle;
        let all = handle.shards().zip(handle.stats()).zip(here);
        let read = |((shard, stats), here): ((ShardId, ShardStats), &bool)| {
            // After the counts: one that falls asleep in between has published them.
            let (_, asleep) = handle.fleet().progress(shard).filter(|_| *here)?;
            Some(Reading {
                turns: stats.turns,
                asleep,
                busy: Duration::from_nanos(stats.busy_nanos),
                connections: stats.connections,
                accepts: stats.accepts,
            })
        };
        all.map(read).collect()
    }

    fn pass_on(&self, weights: &[u16]) {
        for (group, address) in &self.common.groups {
            if let Err(error) = group.weigh(weights) {
                (self.common.observer)(Event::NotSteered { address: *address, error });
            }
        }
    }
}
