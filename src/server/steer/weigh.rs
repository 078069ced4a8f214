//! The thread that changes the weights of shards: it looks at them, asks [`Weights`], and has programs attached.
//!
//! It touches nothing of a shard but what that publishes, and the groups' duplicates under their lock.

use super::super::{Event, Observer};
use super::Group;
use crate::balance::Policy;
use crate::balance::weights::{LOOK_INTERVAL, Reading, WEIGHT_MAX, Weights};
use crate::id::ShardId;
use crate::runtime::Handle;
use crate::shard::counters::ShardStats;
use crate::sync::lock;
use crate::time::clock;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Starts the thread that changes weights, if some address wants that.
///
/// # Errors
/// There is no thread.
pub(in crate::server) fn start(
    groups: &[Arc<Group>],
    addresses: &[SocketAddr],
    handle: &Handle,
    observer: &Observer,
) -> io::Result<()> {
    let pairs = groups.iter().cloned().zip(addresses.iter().copied());
    let groups: Vec<_> = pairs.filter(|(group, _)| group.policy == Policy::Weighted).collect();
    if groups.is_empty() {
        return Ok(());
    }
    let weights = Weights::new(handle.shard_count());
    let mut steering =
        Steering { groups, handle: handle.clone(), observer: observer.clone(), weights };
    thread::Builder::new().name("corelane-steer".into()).spawn(move || steering.run()).map(drop)
}

/// What the thread has.
struct Steering {
    groups: Vec<(Arc<Group>, SocketAddr)>,
    handle: Handle,
    observer: Observer,
    weights: Weights,
}

impl Steering {
    fn run(&mut self) {
        self.handle.fleet().pool().take_mask_back();
        for (group, _) in &self.groups {
            lock(&group.state).thread = Some(thread::current());
        }
        // All are equal until there is something to be seen.
        self.pass_on(&vec![WEIGHT_MAX; self.handle.shard_count()]);
        loop {
            let mut here = vec![false; self.handle.shard_count()];
            self.groups.retain(|(group, _)| {
                let shards = group.shards();
                shards.iter().flatten().for_each(|&shard| here[shard] = true);
                shards.is_some()
            });
            if self.groups.is_empty() {
                return;
            }
            let readings = self.read(&here);
            if let Some(weights) = self.weights.look(clock::now(), &readings) {
                let weights = weights.to_vec();
                self.pass_on(&weights);
            }
            thread::park_timeout(LOOK_INTERVAL);
        }
    }

    fn read(&self, here: &[bool]) -> Vec<Option<Reading>> {
        let all = self.handle.shards().zip(self.handle.stats()).zip(here);
        let read = |((shard, stats), here): ((ShardId, ShardStats), &bool)| {
            // After the counts: one that falls asleep in between has published them.
            let (_, asleep) = self.handle.fleet().progress(shard).filter(|_| *here)?;
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
        for (group, address) in &self.groups {
            if let Err(error) = group.weigh(weights) {
                (self.observer)(Event::NotSteered { address: *address, error });
            }
        }
    }
}
