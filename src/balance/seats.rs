//! How many connections each shard of a server has, for those who choose a shard by that.
//!
//! One word for each shard, on cache lines of its own, which any shard may write: the shard counts there what it keeps and what
//! ends, and others what they send to it. It orders nothing: what a connection needs travels with it.

use crate::id::ShardId;
use crate::sync::{Arc, AtomicU64, CachePadded, Ordering};

/// The bit of a seat's word that says that the shard takes no connections from others: it does not serve yet, or it stops.
const CLOSED: u64 = 1 << 63;

/// What the shards of a server know of one of them.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Connections, and [`CLOSED`]. It orders nothing: what a connection needs travels with it.
    word: CachePadded<AtomicU64>,
    pub(crate) shard: ShardId,
    /// The name under which the shard keeps what serves its connections.
    pub(crate) number: u64,
    bounds: Bounds,
}

/// How many connections there may be.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// At one shard.
    pub(crate) here: u64,
    /// At all together. None: as many as there may be at each.
    pub(crate) all: Option<Arc<All>>,
}

impl Bounds {
    #[cfg(test)]
    pub(crate) const NONE: Bounds = Bounds { here: u64::MAX, all: None };
}

/// The connections of all shards together: a word that every connection is counted in twice, when it comes and when it goes. A
/// request never is.
#[derive(Debug)]
pub(crate) struct All {
    most: u64,
    open: CachePadded<AtomicU64>,
}

impl All {
    pub(crate) fn new(most: u64) -> Arc<All> {
        Arc::new(All { most, open: CachePadded::new(AtomicU64::new(0)) })
    }
}

impl Seat {
    /// Of a shard that takes none yet.
    pub(crate) fn new(shard: ShardId, number: u64, bounds: Bounds) -> Arc<Seat> {
        Arc::new(Seat { word: CachePadded::new(AtomicU64::new(CLOSED)), shard, number, bounds })
    }

    /// Connections; none if the shard takes none.
    pub(crate) fn load(&self) -> Option<u64> {
        let word = self.word.load(Ordering::Relaxed);
        (word & CLOSED == 0).then_some(word)
    }

    /// The shard may be given connections.
    pub(crate) fn open(&self) {
        self.word.fetch_and(!CLOSED, Ordering::Relaxed);
    }

    /// The shard keeps what it accepts, and is given no more.
    pub(crate) fn close(&self) {
        self.word.fetch_or(CLOSED, Ordering::Relaxed);
    }
}

/// Those of all shards of a server, in the shards' order.
pub(crate) type Seats = Arc<[Arc<Seat>]>;

/// A connection of a shard, for as long as this lives: wherever it is on its way, or served, or dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Seat>);

impl Counted {
    pub(crate) fn new(seat: &Arc<Seat>) -> Counted {
        seat.word.fetch_add(1, Ordering::Relaxed);
        Counted::everywhere(seat)
    }

    /// It counts at the seat already.
    fn everywhere(seat: &Arc<Seat>) -> Counted {
        if let Some(all) = &seat.bounds.all {
            all.open.fetch_add(1, Ordering::Relaxed);
        }
        Counted(seat.clone())
    }

    /// Whether there are more than there may be, here or at all, with this one. Of several that come at the same moment all may be
    /// told so.
    pub(crate) fn is_too_many(&self) -> bool {
        let Bounds { here, all } = &self.0.bounds;
        let is_full = |all: &Arc<All>| all.open.load(Ordering::Relaxed) > all.most;
        self.0.word.load(Ordering::Relaxed) & !CLOSED > *here || all.as_ref().is_some_and(is_full)
    }

    pub(crate) fn seat(&self) -> &Seat {
        &self.0
    }

    /// Whether it counts at this shard.
    pub(crate) fn is_at(&self, shard: ShardId) -> bool {
        self.0.shard == shard
    }

    /// None: the load is not that any more.
    pub(crate) fn claim(seat: &Arc<Seat>, load: u64) -> Option<Counted> {
        let (now, next) = (Ordering::Relaxed, load + 1);
        let claimed = seat.word.compare_exchange(load, next, now, now).is_ok();
        claimed.then(|| Counted::everywhere(seat))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(all) = &self.0.bounds.all {
            all.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.0.word.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn connections_count_while_they_live_also_where_a_seat_closes() {
        let seat = Seat::new(ShardId::new(0), 0, Bounds::NONE);
        let kept = Counted::new(&seat);
        assert_eq!(seat.load(), None);
        seat.open();
        assert_eq!(seat.load(), Some(1));
        assert!(Counted::claim(&seat, 0).is_none(), "by a load that has changed");
        let claimed = Counted::claim(&seat, 1).expect("by the load that it has");
        assert_eq!(seat.load(), Some(2));
        seat.close();
        assert!(Counted::claim(&seat, 2).is_none(), "it is closed");
        drop((kept, claimed));
        seat.open();
        assert_eq!(seat.load(), Some(0));
    }

    #[test]
    fn who_comes_when_there_are_as_many_as_may_be_is_one_too_many() {
        let all = All::new(3);
        let seat = || Seat::new(ShardId::new(0), 0, Bounds { here: 2, all: Some(all.clone()) });
        let (one, other) = (seat(), seat());
        one.open();
        let first = Counted::new(&one);
        let second = Counted::claim(&one, 1).expect("by the load that it has");
        assert!(!first.is_too_many() && !second.is_too_many());
        assert!(Counted::new(&one).is_too_many(), "here");
        let third = Counted::new(&other);
        assert!(!third.is_too_many());
        let fourth = Counted::new(&other);
        assert!(fourth.is_too_many(), "at all");
        drop(first);
        assert!(!fourth.is_too_many());
        drop((second, third, fourth));
        assert_eq!(all.open.load(Ordering::Relaxed), 0);
    }
}
