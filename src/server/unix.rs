//! Listeners on Unix sockets: one socket for each path, which every shard of the listener accepts from by a descriptor of its
//! own.
//!
//! The kernel has one queue, and tells every shard of a new connection; the first that looks has it, which is mostly one that
//! has nothing else to do. So nothing chooses among shards, and nothing is handed over.
//!
//! A [`Group`] knows which shards accept. It has the file, and a descriptor that nobody accepts by, so that the file is removed
//! before the socket is closed: who finds the file finds somebody who listens. Both go when the last shard leaves. Its lock is
//! taken when a shard begins, stops or leaves, never for a connection.

use super::listen::{Listen, LiveLimits};
use crate::error::{Error, ErrorKind};
use crate::id::ShardId;
use crate::limits::ConnectionLimits;
use crate::listen_addr::ListenAddr;
use crate::runtime::shutdown_requested;
use crate::sync::live::Known;
use crate::sync::{Mutex, lock};
use crate::sys::socket_file::{Refused, SocketFile, listen_at};
use crate::task::waker::wake_counted;
use std::future::{Future, poll_fn};
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The shards that accept at one path. See the module.
#[derive(Debug)]
pub(super) struct Group {
    address: ListenAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Removed before the socket is closed. None: no shard is left.
    open: Option<(SocketFile, UnixListener)>,
    members: Vec<Member>,
    /// Who waits for a member to leave.
    waiting: Vec<Waker>,
}

#[derive(Debug)]
struct Member {
    shard: usize,
    /// It has been asked to stop, or stops by itself.
    closing: bool,
    /// It may stop now.
    closes: bool,
    waker: Option<Waker>,
}

/// A shard's place at a path. Whoever has it closes the socket before it drops this.
#[derive(Debug)]
pub(super) struct Place {
    group: Arc<Group>,
    shard: usize,
}

/// One shard's descriptor of the socket at a path.
pub(super) struct Listening {
    pub(super) socket: UnixListener,
    pub(super) backlog: u32,
    /// Of each connection: on a Unix socket it does not inherit that of the socket that listens.
    pub(super) send_buffer: Option<u32>,
    pub(super) limits: Known<ConnectionLimits>,
    /// Which of the addresses, in the order in which they were given.
    pub(super) number: usize,
    /// After `socket`, which is to be closed first.
    pub(super) place: Place,
}

impl Group {
    /// Binds and listens once, for these shards. `ours` are those of the same server so far.
    pub(super) fn bind(
        wanted: &Listen,
        number: usize,
        shards: &[usize],
        limits: &LiveLimits,
        ours: &[Arc<Group>],
    ) -> Result<(Arc<Group>, Vec<Listening>), Error> {
        let path = wanted.address.as_unix().expect("the address is a path");
        let cannot = |why: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Bind, format!("cannot listen on {}: {why}", wanted.address))
        };
        if ours.iter().any(|other| other.is_at(path)) {
            return Err(cannot(&"it was given twice"));
        }
        let backlog = wanted.options.backlog;
        let (socket, file) =
            listen_at(path, wanted.mode, backlog).map_err(|refused| match refused {
                Refused::System(error) => cannot(&error).because(error),
                refused => cannot(&refused),
            })?;
        let sockets: Result<Vec<_>, _> = shards.iter().map(|_| socket.try_clone()).collect();
        let sockets = sockets.map_err(|error| cannot(&error).because(error))?;
        let member = |&shard: &usize| Member { shard, closing: false, closes: false, waker: None };
        let members = shards.iter().map(member).collect();
        let state = State { open: Some((file, socket)), members, waiting: Vec::new() };
        let group = Arc::new(Group { address: wanted.address.clone(), state: Mutex::new(state) });
        let listening = |(socket, &shard): (UnixListener, &usize)| Listening {
            socket,
            backlog,
            send_buffer: wanted.options.send_buffer,
            limits: Known::new(limits.clone()),
            number,
            place: Place { group: group.clone(), shard },
        };
        let listening = sockets.into_iter().zip(shards).map(listening).collect();
        Ok((group, listening))
    }

    fn is_at(&self, path: &std::path::Path) -> bool {
        lock(&self.state).open.as_ref().is_some_and(|(file, _)| file.is_at(path))
    }

    /// The shard is to stop. False: it does not accept here, or stops already.
    ///
    /// # Errors
    /// It is the last.
    fn begin_close(&self, shard: usize) -> Result<bool, Error> {
        let mut state = lock(&self.state);
        let going = state.members.iter().filter(|member| !member.closing).count();
        let own = state.members.iter_mut().find(|one| one.shard == shard && !one.closing);
        let Some(member) = own else { return Ok(false) };
        if going == 1 {
            let (shard, address) = (ShardId::new(shard as u16), &self.address);
            let text = format!(
                "{shard} is the last that accepts on {address}: to stop that too, shut the runtime down"
            );
            return Err(Error::new(ErrorKind::Config, text));
        }
        member.closing = true;
        Ok(true)
    }

    fn undo_close(&self, shard: usize) {
        let mut state = lock(&self.state);
        let member = state.members.iter_mut().find(|one| one.shard == shard);
        member.into_iter().for_each(|member| member.closing = false);
    }

    fn close(&self, shard: usize) {
        let mut state = lock(&self.state);
        let member = state.members.iter_mut().find(|one| one.shard == shard && one.closing);
        let waker = member.and_then(|member| {
            member.closes = true;
            member.waker.take()
        });
        drop(state);
        waker.into_iter().for_each(wake_counted);
    }

    fn poll_closed(&self, shard: usize, context: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.members.iter().all(|member| member.shard != shard) {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

/// One shard is to stop accepting at every path; none of it is done yet.
pub(super) struct Closing<'a> {
    groups: &'a [Arc<Group>],
    begun: Vec<&'a Group>,
    shard: usize,
}

impl<'a> Closing<'a> {
    /// # Errors
    /// It is the last at some path. Nothing has been done then.
    pub(super) fn begin(groups: &'a [Arc<Group>], shard: usize) -> Result<Closing<'a>, Error> {
        let mut closing = Closing { groups, begun: Vec::new(), shard };
        for group in groups {
            match group.begin_close(shard) {
                Ok(true) => closing.begun.push(group),
                Ok(false) => {}
                Err(last) => {
                    closing.undo();
                    return Err(last);
                }
            }
        }
        Ok(closing)
    }

    /// Nothing has been done.
    pub(super) fn undo(self) {
        self.begun.iter().for_each(|group| group.undo_close(self.shard));
    }

    /// From now on it is done. What is returned waits for it.
    pub(super) fn close(self) -> impl Future<Output = ()> {
        self.begun.iter().for_each(|group| group.close(self.shard));
        poll_fn(move |context| {
            let open = |group: &&Arc<Group>| group.poll_closed(self.shard, context).is_pending();
            if self.groups.iter().filter(open).count() == 0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }
}

impl Place {
    /// Where it is.
    pub(super) fn address(&self) -> &ListenAddr {
        &self.group.address
    }

    /// Ends when the shard is to stop: at a shutdown, or when it was asked to.
    pub(super) async fn until_close(&self) {
        let mut shutdown = pin!(shutdown_requested());
        poll_fn(|context| match shutdown.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.poll_asked(context),
        })
        .await;
    }

    fn poll_asked(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.group.state);
        let Some(member) = state.members.iter_mut().find(|one| one.shard == self.shard) else {
            return Poll::Ready(());
        };
        if member.closes {
            return Poll::Ready(());
        }
        if !member.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            member.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// The shard stops. Of the last one the file is removed, so that nobody comes any more: what has come by now is all that
    /// there is to accept.
    pub(super) fn stop(&self) {
        let mut state = lock(&self.group.state);
        if let Some(member) = state.members.iter_mut().find(|one| one.shard == self.shard) {
            member.closing = true;
        }
        let last = state.members.iter().all(|member| member.closing);
        drop(last.then(|| state.open.take()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.group.state);
        state.members.retain(|member| member.shard != self.shard);
        drop(state.members.is_empty().then(|| state.open.take()));
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(wake_counted);
    }
}
