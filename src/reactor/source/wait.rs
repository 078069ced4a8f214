//! Waiting for readiness through `&self`: any number of tasks, none of which is forgotten.

use super::{Here, Socket, Source, place_of};
use crate::reactor::interest::{Interest, Ready};
use crate::reactor::slots::{Direction, SlotKey, WaiterId};
use crate::shard::Shard;
use crate::shard::context::with_current;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A `&self` wait for readiness.
pub(super) struct Wait<'a, S: Socket> {
    source: &'a Source<S>,
    interest: Interest,
    /// Where it waits, by direction.
    waiting: [Option<(u64, WaiterId)>; 2],
    /// A thread that is no shard has asked the home.
    watched: bool,
}

const DIRECTIONS: [Direction; 2] = [Direction::Read, Direction::Write];

impl<'a, S: Socket> Wait<'a, S> {
    pub(super) fn new(source: &'a Source<S>, interest: Interest) -> Self {
        Wait { source, interest, waiting: [None, None], watched: false }
    }

    fn wants(&self, direction: Direction) -> bool {
        self.interest.waits_for(direction)
    }

    /// At the slot `key` of `shard`. None: there is no such slot any more.
    fn poll_at(
        &mut self,
        shard: &Shard,
        key: SlotKey,
        context: &Context<'_>,
    ) -> Option<Poll<Ready>> {
        let readiness = shard.reactor.readiness(key)?.only(self.interest.readiness());
        if !readiness.is_empty() {
            return Some(Poll::Ready(Ready::new(readiness)));
        }
        let place = place_of(shard.inbox().uid(), key);
        for (index, direction) in DIRECTIONS.into_iter().enumerate() {
            if self.wants(direction) {
                let known =
                    self.waiting[index].filter(|(there, _)| *there == place).map(|(_, id)| id);
                let id = shard.reactor.wait(key, direction, known, context.waker())?;
                self.waiting[index] = Some((place, id));
            }
        }
        Some(Poll::Pending)
    }
}

impl<S: Socket> Future for Wait<'_, S> {
    type Output = io::Result<Ready>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        loop {
            let source = self.source;
            let here = with_current(|shard| {
                if !shard.charge_io() {
                    context.waker().wake_by_ref();
                    return Some(Poll::Pending);
                }
                match source.here(shard) {
                    Here::Home(key) => self.poll_at(shard, key, context),
                    Here::Unregistered | Here::Away => None,
                }
            });
            match here {
                Some(Some(polled)) => return polled.map(Ok),
                Some(None) if source.move_here()? => {}
                // No shard, or the socket cannot move: the home answers, and then readiness is taken on trust.
                _ if self.watched => {
                    return Poll::Ready(Ok(Ready::new(self.interest.hoped())));
                }
                _ => {
                    for direction in
                        DIRECTIONS.into_iter().filter(|&direction| self.wants(direction))
                    {
                        if let Poll::Ready(Err(error)) = source.watch(context, direction) {
                            return Poll::Ready(Err(error));
                        }
                    }
                    self.watched = true;
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: Socket> Drop for Wait<'_, S> {
    fn drop(&mut self) {
        for (index, direction) in DIRECTIONS.into_iter().enumerate() {
            let Some((place, id)) = self.waiting[index].take() else { continue };
            // Elsewhere the waker stays until the next event, which costs a spurious wake.
            with_current(|shard| {
                if place >> SlotKey::BITS == u64::from(shard.inbox().uid()) {
                    shard.reactor.forget(SlotKey::from_bits(place), direction, id);
                }
            });
        }
    }
}
