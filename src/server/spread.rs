//! Spreading accepted connections over the shards of a server, for the policies that choose after `accept`.
//!
//! Each shard of the server has a [`Seat`], and every connection counts there. A shard that hands a connection over counts it for
//! the receiver before it is sent, so that the next to choose knows of it. Who counts first claims: a choice by a load that
//! has changed meanwhile is made anew, so connections that come to several shards at once are spread as evenly as one
//! after the other.
//!
//! What travels is the socket, which no shard has registered yet, in one message without an answer. It waits for nothing: where
//! there is no room, or nobody any more, the shard that has accepted keeps the connection. Connections count with every policy,
//! since it may change.

use super::listen::Listen;
use super::steer::Group;
use crate::balance::Policy;
use crate::balance::choice::{Choice, Lots, in_turn, least, p2c};
use crate::balance::seats::{Bounds, Counted, Seat, Seats};
use crate::error::Error;
use crate::id::ShardId;
use crate::mesh::inbox::Refused;
use crate::mesh::thunk::{Errand, Thunk};
use crate::net::TcpStream;
use crate::runtime::Handle;
use crate::shard::context::with_current;
use crate::sync::{Arc, AtomicUsize, CachePadded, Ordering};
use crate::task::home::add;
use std::rc::Rc;

/// A choice is made anew so often at most because others have chosen meanwhile. Then the shard keeps the connection.
const CLAIMS_MAX: u32 = 8;

/// One listener of one shard: who gets what it accepts.
pub(super) struct Spread {
    /// It has the policy.
    group: Arc<Group>,
    /// Which of the server's addresses.
    listener: u32,
    /// Of the shards that serve this listener.
    seats: Seats,
    /// This shard's among them.
    own: usize,
    /// Whose turn it is, for all shards of the listener. Touched with [`Policy::RoundRobin`] only.
    turn: Arc<CachePadded<AtomicUsize>>,
    lots: Lots,
}

impl Spread {
    /// Hands a connection that was just accepted over, or gives it back: it is to be served here.
    pub(super) fn place(&mut self, stream: TcpStream) -> Option<(TcpStream, Counted)> {
        let (shard, counted) = self.choose();
        if shard == self.own {
            return Some((stream, counted));
        }
        // It cannot fail: nothing has been written, and no shard has registered it.
        let socket = stream.into_std().ok()?;
        let listener = self.listener;
        let Err(HandOver { socket, counted, .. }) = (HandOver { socket, listener, counted }).send()
        else {
            return None;
        };
        drop(counted);
        Some((TcpStream::accepted(socket), Counted::new(&self.seats[self.own])))
    }

    /// The place of the shard that is to have it, where it counts from now on.
    fn choose(&mut self) -> (usize, Counted) {
        let (own, shards, policy) = (self.own, self.seats.len(), self.group.policy());
        let load = |place: usize| self.seats[place].load();
        // A shard that stops keeps what it accepts.
        let claims = if load(own).is_some() { CLAIMS_MAX } else { 0 };
        for _ in 0..claims {
            let choice = match policy {
                Policy::P2c => p2c(own, shards, load, &mut self.lots),
                Policy::Least => least(own, shards, load),
                Policy::RoundRobin => {
                    let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                    let chosen = in_turn(turn, shards, load).map_or(own, |choice| choice.shard);
                    // Whatever the load is: turns must not be lost.
                    return (chosen, Counted::new(&self.seats[chosen]));
                }
                Policy::Hash | Policy::Cpu | Policy::Weighted => break,
            };
            let Some(Choice { shard, load }) = choice else { break };
            if let Some(counted) = Counted::claim(&self.seats[shard], load) {
                return (shard, counted);
            }
        }
        (own, Counted::new(&self.seats[own]))
    }
}

/// A connection on its way to another shard. Dropped on the way, it is closed and counts no more. It fits into a message.
struct HandOver {
    socket: std::net::TcpStream,
    listener: u32,
    counted: Counted,
}

impl HandOver {
    /// # Errors
    /// With itself: there is no room, or the shard is gone.
    fn send(self) -> Result<(), HandOver> {
        let to = self.counted.seat().shard;
        let sent = with_current(|shard| {
            let inbox = shard.fleet().inbox(to).expect("a seat is that of a shard");
            let sent = inbox.call(Thunk::new(self));
            if sent.is_ok() {
                add(&shard.counters.connections_handed_over, 1);
            }
            sent
        });
        match sent.expect("connections are accepted on a shard") {
            Ok(()) => Ok(()),
            Err(Refused::Full(thunk) | Refused::Closed(thunk)) => {
                Err(thunk.into_errand().expect("a refused message is the one that was sent"))
            }
        }
    }
}

/// What serves the connections of one shard, each with the number of its listener, as the shard keeps it. It is kept before the seat is opened, and until the end.
struct Serving(Box<dyn Fn(TcpStream, usize, Counted)>);

impl Errand for HandOver {
    fn run(self) {
        let number = self.counted.seat().number;
        let serving = with_current(|shard| {
            add(&shard.counters.connections_taken_over, 1);
            shard.kept::<Serving>(number)
        });
        // A shard that ends has dropped it, and would drop the connection's task as well.
        if let Some(serving) = serving.flatten() {
            let listener = self.listener as usize;
            (serving.0)(TcpStream::accepted(self.socket), listener, self.counted);
        }
    }
}

/// One shard's part in spreading what a server accepts.
pub(super) struct Part {
    seat: Arc<Seat>,
    pub(super) seats: Seats,
    /// One for each of the shard's listeners, in their order.
    spreads: Vec<Spread>,
}

impl Part {
    /// From now on this shard, which calls it, is given connections, and has them served by `serve`.
    pub(super) fn begin(
        self,
        serve: impl Fn(TcpStream, usize, Counted) + 'static,
    ) -> (Arc<Seat>, Vec<Spread>) {
        let serving = Rc::new(Serving(Box::new(serve)));
        with_current(|shard| shard.keep(self.seat.number, serving));
        self.seat.open();
        (self.seat, self.spreads)
    }
}

/// Each shard's part. `groups` are those of the TCP listeners, in their order.
///
/// # Errors
/// A listener names shards that there are not.
pub(super) fn parts(
    listen: &[Listen],
    groups: &[Arc<Group>],
    handle: &Handle,
    bounds: impl Fn(ShardId) -> Bounds,
) -> Result<Vec<Part>, Error> {
    let number = handle.fleet().next_sharded();
    let seats: Seats =
        handle.shards().map(|shard| Seat::new(shard, number, bounds(shard))).collect();
    let mut parts: Vec<Part> = seats
        .iter()
        .map(|seat| Part { seat: seat.clone(), seats: seats.clone(), spreads: Vec::new() })
        .collect();
    // What there is one socket of has no group: nobody chooses among its shards.
    let tcp = listen.iter().enumerate().filter(|(_, listen)| listen.address.as_tcp().is_some());
    for ((listener, listen), group) in tcp.zip(groups) {
        let members = listen.on(seats.len())?;
        let theirs: Seats = members.iter().map(|&shard| seats[shard].clone()).collect();
        let turn = Arc::default();
        for (own, &shard) in members.iter().enumerate() {
            parts[shard].spreads.push(Spread {
                group: group.clone(),
                listener: listener as u32,
                seats: Arc::clone(&theirs),
                own,
                turn: Arc::clone(&turn),
                lots: Lots::new((listener << 16 | shard) as u64),
            });
        }
    }
    Ok(parts)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_needs_no_box() {
        assert!(size_of::<HandOver>() <= 3 * size_of::<usize>());
    }
}
