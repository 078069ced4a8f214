//! What one shard has of a server whose connections may move: how to serve one that arrives, and those that are there.
//!
//! Kept on the shard under a number that is the same on every shard of the server, so that a message can find it. Nothing in it
//! is touched by another thread.

use super::arrival::Arrival;
use super::probe::Probe;
use super::rebalance::Moving;
use crate::balance::seats::{Counted, Seats};
use crate::id::ShardId;
use crate::runtime::Handle;
use crate::shard::context::with_current;
use crate::sys::thread::own_cpu_time;
use crate::table::Table;
use crate::task::home::add;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Starts the task of a connection.
type Serve = Box<dyn Fn(Arrival, &Rc<Crew>)>;

/// See the module.
pub(super) struct Crew {
    moving: Moving,
    handle: Handle,
    shard: ShardId,
    /// Where connections count.
    seats: Seats,
    serve: Serve,
    members: RefCell<Table<Member>>,
}

/// A connection that is here.
struct Member {
    probe: Arc<Probe>,
    /// It goes only to shards that serve this.
    listener: usize,
    /// Requests as of the last report, and between the last two.
    counted: Cell<u64>,
    lately: Cell<u64>,
    /// Reports since it was moved here.
    reports: Cell<u32>,
}

/// What the connections of a shard asked since the last report.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    pub(super) requests: f64,
    /// Sum of the squares of each connection's requests.
    pub(super) squares: f64,
    /// CPU time that the shard's thread has had so far.
    pub(super) cpu: Duration,
}

/// Reports after which a connection that was moved may be moved again: a cool-down, so that none goes round in circles.
const SETTLED: u32 = 10;

impl Crew {
    /// Keeps a crew on this shard.
    pub(super) fn muster(
        moving: Moving,
        seats: Seats,
        serve: impl Fn(Arrival, &Rc<Crew>) + 'static,
    ) -> Rc<Crew> {
        let crew = Rc::new(Crew {
            moving,
            handle: Handle::current(),
            shard: ShardId::current().expect("a server's shard"),
            seats,
            serve: Box::new(serve),
            members: RefCell::new(Table::new()),
        });
        let kept = crew.clone();
        with_current(|shard| shard.keep(crew.moving.number, kept));
        crew.moving.has_come(crew.shard);
        crew
    }

    /// This shard's crew of that number; none before the server has started here, or after the shard has ended.
    pub(super) fn here(number: u64) -> Option<Rc<Crew>> {
        with_current(|shard| shard.kept(number)).flatten()
    }

    /// Serves a connection here.
    pub(super) fn take(self: &Rc<Crew>, mut arrival: Arrival) {
        if !arrival.counted.as_ref().is_some_and(|counted| counted.is_at(self.shard)) {
            arrival.counted = Some(self.count_at(self.shard));
        }
        (self.serve)(arrival, self);
    }

    /// Sends a connection to another shard, where it counts at once; if that does not serve its listener, has no room for the
    /// message, or is no more, it stays here.
    pub(super) fn send(self: &Rc<Crew>, to: ShardId, arrival: Arrival) {
        if !self.moving.serves(to, arrival.info.listener) {
            return self.take(arrival);
        }
        let (number, counted) = (self.moving.number, Some(self.count_at(to)));
        let arrive = move || {
            let Some(crew) = Crew::here(number) else { return };
            with_current(|shard| add(&shard.counters.connections_arrived, 1));
            crew.take(Arrival { counted, ..arrival });
        };
        let sent = self.handle.post(to, arrive);
        // Also where it comes back: as many arrive as go.
        with_current(|shard| add(&shard.counters.connections_moved, 1));
        if let Err(refused) = sent {
            (refused.into_inner())();
        }
    }

    fn count_at(&self, shard: ShardId) -> Counted {
        Counted::new(&self.seats[shard.index()])
    }

    /// A connection that is here from now on. Returns the number under which it leaves.
    pub(super) fn join(&self, probe: Arc<Probe>, listener: usize, moved: bool) -> u32 {
        let counted = Cell::new(probe.requests());
        let member = Member {
            probe,
            listener,
            counted,
            lately: Cell::new(0),
            reports: Cell::new(if moved { 0 } else { SETTLED }),
        };
        self.members.borrow_mut().insert(member)
    }

    pub(super) fn leave(&self, number: u32) {
        let member = self.members.borrow_mut().remove(number);
        drop(member);
    }

    /// What was asked since the last time.
    pub(super) fn report(&self) -> Report {
        let mut report = Report { cpu: own_cpu_time(), ..Report::default() };
        self.each(|member| {
            let requests = member.probe.requests();
            let lately = requests.wrapping_sub(member.counted.replace(requests));
            member.lately.set(lately);
            member.reports.set(member.reports.get().saturating_add(1));
            report.requests += lately as f64;
            report.squares += (lately * lately) as f64;
        });
        report
    }

    /// Has so many connections go to another shard, the busiest of those that it serves, each as soon as it is between two
    /// requests. Those that were moved lately stay.
    pub(super) fn give(&self, to: ShardId, count: usize, settled_only: bool) {
        let mut busiest = Vec::new();
        self.each(|member| {
            let settled = !settled_only || member.reports.get() >= SETTLED;
            let can = self.moving.serves(to, member.listener) && !member.probe.is_multiplexed();
            if settled && can {
                busiest.push((member.lately.get(), member.probe.clone()));
            }
        });
        busiest.sort_by_key(|(lately, _)| std::cmp::Reverse(*lately));
        busiest.iter().take(count).for_each(|(_, probe)| probe.send_to(to));
    }

    fn each(&self, mut look: impl FnMut(&Member)) {
        let members = self.members.borrow();
        (0..members.capacity()).filter_map(|index| members.get(index)).for_each(&mut look);
    }
}
