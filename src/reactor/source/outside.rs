//! A socket on a thread that is no shard, or one that cannot move just now: the system call is tried here, and the home
//! is asked to wake.

use super::{Socket, Source};
use crate::mesh::message::{Notice, Watchers};
use crate::reactor::engine::lost;
use crate::reactor::engine::{Held, retried};
use crate::reactor::slots::Direction;
use crate::shard::Shard;
use crate::shard::context::with_current;
use crate::sync::{Arc, lock};
use crate::sys::socket;
use std::io;
use std::task::{Context, Poll};

impl<S: Socket> Source<S> {
    /// An operation on a thread that is no shard, or while the socket cannot move.
    #[cold]
    pub(super) fn poll_outside<R>(
        &self,
        context: &mut Context<'_>,
        direction: Direction,
        call: &mut impl FnMut(&S) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        if direction == Direction::Write && self.holds(Held::Lost) {
            return Poll::Ready(Err(lost()));
        }
        if direction == Direction::Write && self.is_held() {
            return self
                .watch(context, direction)
                .map(|ready| Err(ready.err().unwrap_or_else(|| io::ErrorKind::WouldBlock.into())));
        }
        match retried(|| call(&self.shared.socket)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match self.watch(context, direction) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    _ => Poll::Pending,
                }
            }
            result => Poll::Ready(result),
        }
    }

    /// Readiness alone. The kernel is asked, when the home has been told: it knows what has come before.
    pub(super) fn poll_ready_outside(
        &self,
        context: &Context<'_>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        let watched = self.watch(context, direction)?;
        if direction == Direction::Write && self.is_held() {
            // Those bytes go first, and the home sends them.
            return watched.map(Ok);
        }
        match socket::is_ready(&self.shared.socket, direction == Direction::Write) {
            Ok(false) => watched.map(Ok),
            ready => Poll::Ready(ready.map(|_| ())),
        }
    }

    /// Has `run` run by the shard called `uid`, if the socket is registered there.
    pub(super) fn at_home(&self, uid: u32, run: impl FnOnce(&Shard) + Send + 'static) {
        let inbox = {
            let homes = lock(&self.homes);
            let home = homes.at.iter().find(|home| home.inbox.uid() == uid);
            home.map(|home| home.inbox.clone())
        };
        if let Some(inbox) = inbox {
            inbox.notify(Notice::Run(Box::new(move || {
                with_current(run);
            })));
        }
    }

    /// Asks the home to wake the task of a `poll_*` method.
    pub(super) fn watch(
        &self,
        context: &Context<'_>,
        direction: Direction,
    ) -> Poll<io::Result<()>> {
        let waker = context.waker().clone();
        match self.join_watchers(direction, |watchers| watchers.poll(waker)) {
            Ok(_) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Lets `join` add somebody to those who wait on threads that are no shard. If it says so, tells the home: the shard
    /// that the socket was registered with last.
    pub(super) fn join_watchers(
        &self,
        direction: Direction,
        join: impl FnOnce(&Watchers) -> bool,
    ) -> io::Result<Arc<Watchers>> {
        let mut homes = lock(&self.homes);
        let uid = self.key().owner();
        let last = homes.at.iter().find(|home| home.inbox.uid() == uid);
        let Some(home) = last.filter(|home| !home.inbox.is_closed()) else {
            return Err(io::Error::other(
                "no Corelane shard watches this socket: poll it in a task of a Runtime or inside corelane::block_on first",
            ));
        };
        let (inbox, slot) = (home.inbox.clone(), home.key);
        let watchers = homes.watchers[direction as usize].get_or_insert_default().clone();
        drop(homes);
        if join(&watchers) {
            inbox.notify(Notice::Watch { slot, direction, watchers: watchers.clone() });
        }
        Ok(watchers)
    }
}
