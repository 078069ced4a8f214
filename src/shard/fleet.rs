//! All shards of one runtime, as any of them and any thread may see them.
//!
//! Made whole before the first shard runs and never changed: inboxes, published counters, limits, the blocking pool.

use super::Shard;
use super::context::with_current;
use super::counters::{PublishedLine, ShardStats};
use super::shared::Shared;
use super::surroundings::Surroundings;
use crate::blocking::Pool;
use crate::id::{ShardId, TaskId};
use crate::limits::Limits;
use crate::mesh::ending::{Ending, Quiet};
use crate::mesh::inbox::Inbox;
use crate::mesh::message::Notice;
use crate::sync::{Arc, AtomicU32, AtomicU64, Mutex, Ordering, lock};
use std::sync::OnceLock;

/// See the module.
pub(crate) struct Fleet {
    limits: Limits,
    members: Box<[Member]>,
    pool: Pool,
    /// What they share, if they are the workers of a pool.
    shared: Option<Arc<Shared>>,
    sharded: AtomicU64,
    /// Tasks dropped by shards that stopped.
    cut: AtomicU64,
    ending: Ending,
    guests: Mutex<Guests>,
    /// The next identity of a task that a thread makes which is no shard.
    tasks: OnceLock<AtomicU64>,
}

/// Threads that are in a `block_on` of this runtime.
#[derive(Default)]
struct Guests {
    inboxes: Vec<Arc<Inbox>>,
    /// The runtime was asked to stop.
    asked: bool,
}

/// What others know of one shard.
pub(crate) struct Member {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) published: Arc<PublishedLine>,
}

impl Fleet {
    pub(crate) fn new(
        limits: Limits,
        members: Vec<Member>,
        pool: Pool,
        shared: Option<Arc<Shared>>,
    ) -> Arc<Fleet> {
        Arc::new(Fleet {
            limits,
            members: members.into_boxed_slice(),
            pool,
            shared,
            sharded: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            ending: Ending::default(),
            guests: Mutex::default(),
            tasks: OnceLock::new(),
        })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn is_pool(&self) -> bool {
        self.shared.is_some()
    }

    /// A number for a new `Sharded`.
    pub(crate) fn next_sharded(&self) -> u64 {
        self.sharded.fetch_add(1, Ordering::Relaxed)
    }

    /// An identity that no other task has. A shard's come from its own store; the shared one is for other threads.
    pub(crate) fn fresh_task(&self) -> TaskId {
        let shared = || {
            let tasks = self.tasks.get_or_init(|| AtomicU64::new(first_task(next_uid())));
            TaskId(tasks.fetch_add(1, Ordering::Relaxed))
        };
        with_current(|shard| shard.home().fresh_id()).unwrap_or_else(shared)
    }

    /// A thread is in a `block_on`, until it [leaves](Self::lose_guest). True: the runtime has been asked to stop.
    pub(crate) fn add_guest(&self, inbox: &Arc<Inbox>) -> bool {
        let mut guests = lock(&self.guests);
        guests.inboxes.push(inbox.clone());
        guests.asked
    }

    pub(crate) fn lose_guest(&self, inbox: &Arc<Inbox>) {
        lock(&self.guests).inboxes.retain(|guest| !Arc::ptr_eq(guest, inbox));
    }

    /// Tells those who wait for it in a `block_on`, which goes on.
    pub(crate) fn ask_guests_to_stop(&self) {
        let mut guests = lock(&self.guests);
        guests.asked = true;
        let inboxes = guests.inboxes.clone();
        drop(guests);
        let tell = || {
            with_current(Shard::be_asked_to_stop);
        };
        inboxes.iter().for_each(|inbox| inbox.notify(Notice::Run(Box::new(tell))));
    }

    /// A shard that is asked to stop has nothing left to do. True: none of them has.
    pub(crate) fn settle(&self) -> bool {
        let nothing_comes = || self.inboxes().all(|inbox| inbox.is_closed() || inbox.is_empty());
        let quiet = self.ending.settle(self.members.len(), nothing_comes);
        if quiet == Quiet::Now {
            // In the inbox, not only a ring: who is about to sleep looks there.
            self.inboxes().for_each(|inbox| inbox.notify(Notice::Run(Box::new(|| ()))));
        }
        quiet != Quiet::NotYet
    }

    /// A shard that has settled looks for something to do.
    pub(crate) fn stir(&self) {
        self.ending.stir();
    }

    /// A shard stops with this many tasks unfinished.
    pub(crate) fn add_cut(&self, tasks: usize) {
        self.cut.fetch_add(tasks as u64, Ordering::Relaxed);
    }

    /// Tasks dropped by shards that stopped.
    pub(crate) fn cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn published(&self, shard: ShardId) -> Arc<PublishedLine> {
        self.members[shard.index()].published.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn inbox(&self, shard: ShardId) -> Option<&Arc<Inbox>> {
        self.members.get(shard.index()).map(|member| &member.inbox)
    }

    pub(crate) fn inboxes(&self) -> impl Iterator<Item = &Arc<Inbox>> {
        self.members.iter().map(|member| &member.inbox)
    }

    /// How many turns a shard has published, and whether it sleeps.
    pub(crate) fn progress(&self, shard: ShardId) -> Option<(u64, bool)> {
        let member = self.members.get(shard.index())?;
        Some((
            member.published.read().turns,
            member.inbox.is_home_asleep() || member.inbox.is_closed(),
        ))
    }

    /// Panics of tasks that a shard has published.
    pub(crate) fn panics(&self, shard: ShardId) -> u64 {
        self.members.get(shard.index()).map_or(0, |member| member.published.read().panics)
    }

    /// What its threads have around them.
    pub(crate) fn surroundings(&self) -> &Surroundings {
        self.pool.surroundings()
    }

    /// The counts of every shard, in order.
    pub(crate) fn stats(&self) -> Vec<ShardStats> {
        let read = |member: &Member| ShardStats {
            eventfd_writes: member.inbox.rings(),
            ..member.published.read()
        };
        let mut all: Vec<_> = self.members.iter().map(read).collect();
        if let Some(shared) = &self.shared {
            // Each is counted by the worker that took it, and taken off by the one that drops it.
            let open = all.iter_mut().map(|stats| std::mem::take(&mut stats.connections));
            let open = open.fold(0, u64::wrapping_add);
            // The counts of different workers may be of different times.
            all[0].connections = u64::try_from(open as i64).unwrap_or(0);
            all[0].tasks += shared.live.load(Ordering::Relaxed) as u64;
        }
        all
    }
}

/// Distinguishes every shard that this process ever makes, of whatever runtime, so that a socket knows whether it is
/// at home. Never 0. It is the one number that runtimes of a process share.
pub(crate) fn next_uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let uid = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(uid < UID_MAX, "a process can make {UID_MAX} shards in its life");
    uid
}

/// Where the identities of the tasks begin that belong to a uid.
pub(super) fn first_task(uid: u32) -> u64 {
    u64::from(uid) << 40
}

/// Uids take 24 bits beside a slot key; the last is that of sockets in a pool.
pub(crate) const UID_MAX: u32 = (1 << 24) - 1;
