//! Waiting for readiness through `&self`: any number of tasks, none of which is forgotten.

use super::pooled::Pooled;
use super::{Here, Socket, Source};
use crate::mesh::message::Watchers;
use crate::reactor::interest::{Interest, Ready};
use crate::reactor::slots::{Direction, Readiness, SlotKey};
use crate::shard::Shard;
use crate::shard::context::with_current;
use crate::sync::Arc;
use crate::wait_queue::WaiterId;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A `&self` wait for readiness.
pub(super) struct Wait<'a, S: Socket> {
    source: &'a Source<S>,
    interest: Interest,
    /// Where it waits on a shard, by direction.
    waiting: [Option<(SlotKey, WaiterId)>; 2],
    /// Where it waits on a thread that is no shard.
    watching: [Option<(Arc<Watchers>, WaiterId)>; 2],
}

const DIRECTIONS: [Direction; 2] = [Direction::Read, Direction::Write];

impl<'a, S: Socket> Wait<'a, S> {
    pub(super) fn new(source: &'a Source<S>, interest: Interest) -> Self {
        Wait { source, interest, waiting: [None, None], watching: [None, None] }
    }

    fn directions(&self) -> impl Iterator<Item = Direction> + use<S> {
        let interest = self.interest;
        DIRECTIONS.into_iter().filter(move |&direction| interest.waits_for(direction))
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
        for direction in self.directions() {
            let waiting = self.waiting[direction as usize].take();
            let known = waiting.filter(|(there, _)| *there == key).map(|(_, id)| id);
            if known.is_none() {
                self.forget(waiting, direction);
            }
            let id = shard.reactor.wait(key, direction, known, context.waker())?;
            self.waiting[direction as usize] = Some((key, id));
        }
        Some(Poll::Pending)
    }

    /// Gives a place up at a shard, this one or another.
    fn forget(&self, waiting: Option<(SlotKey, WaiterId)>, direction: Direction) {
        let Some((key, id)) = waiting else { return };
        let here = with_current(|shard| {
            let here = key.owner() == shard.uid();
            if here {
                shard.reactor.forget(key, direction, id);
            }
            here
        });
        if here != Some(true) {
            self.source.at_home(key.owner(), move |shard| shard.reactor.forget(key, direction, id));
        }
    }

    /// Registered with a pool, whatever thread this is.
    fn poll_pooled(&mut self, pooled: &Pooled, context: &Context<'_>) -> Poll<io::Result<Ready>> {
        if with_current(Shard::charge_io) == Some(false) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Poll::Ready(ready) = pooled.ready(self.interest) {
            return Poll::Ready(ready);
        }
        for direction in self.directions() {
            let watchers = pooled.waiting(direction);
            let watching = self.watching[direction as usize].take();
            // Those of the home that it had before do not wake any more.
            let mut id =
                watching.filter(|(known, _)| Arc::ptr_eq(known, watchers)).map(|(_, id)| id);
            let _: bool = watchers.wait(&mut id, context.waker().clone());
            self.watching[direction as usize] = id.map(|id| (watchers.clone(), id));
        }
        pooled.ready(self.interest)
    }

    /// On a thread that is no shard, or when the socket cannot move: the home wakes, and what it wakes for is taken on
    /// trust.
    fn poll_outside(&mut self, context: &Context<'_>) -> Poll<io::Result<Ready>> {
        let woken = |watching: &(Arc<Watchers>, WaiterId)| !watching.0.knows(watching.1);
        let woken = |direction| self.watching[direction as usize].as_ref().is_some_and(woken);
        let [readable, writable] = DIRECTIONS.map(woken);
        if readable || writable {
            let mut ready = self.interest.hoped();
            if !readable {
                ready = ready.only(Readiness::WRITABLE);
            }
            if !writable {
                ready = ready.without(Readiness::WRITABLE);
            }
            return Poll::Ready(Ok(Ready::new(ready)));
        }
        for direction in self.directions() {
            let waker = context.waker().clone();
            let mut id = self.watching[direction as usize].as_ref().map(|(_, id)| *id);
            let watchers =
                self.source.join_watchers(direction, |watchers| watchers.wait(&mut id, waker))?;
            self.watching[direction as usize] = id.map(|id| (watchers, id));
        }
        Poll::Pending
    }
}

impl<S: Socket> Future for Wait<'_, S> {
    type Output = io::Result<Ready>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        loop {
            let source = self.source;
            if let Some(pooled) = source.pooled.get() {
                return self.poll_pooled(pooled, context);
            }
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
                _ => return self.poll_outside(context),
            }
        }
    }
}

impl<S: Socket> Drop for Wait<'_, S> {
    fn drop(&mut self) {
        for direction in DIRECTIONS {
            if let Some((watchers, id)) = self.watching[direction as usize].take() {
                watchers.forget(id);
            }
            let waiting = self.waiting[direction as usize].take();
            self.forget(waiting, direction);
        }
    }
}
