//! What takes a connection to another shard between two requests.
//!
//! hyper does not say when a connection is between two requests, but it can be seen from around it (`probe`): no request is in
//! the service and no response on its way, what was written was flushed, hyper has not begun to close, and the last request had
//! no body that could still be under way. Then hyper's state is nothing but bytes that were read and not used.

use super::arrival::{Arrival, Past};
use super::connection::Moves;
use super::crew::Crew;
use super::event::ConnectionInfo;
use super::probe::Probe;
use crate::http::Io;
use crate::id::ShardId;
use crate::limits::ConnectionLimits;
use crate::net::TcpStream;
use hyper::body::Bytes;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A connection's place in the crew of its shard.
pub(super) struct Movable {
    crew: Rc<Crew>,
    member: u32,
    info: ConnectionInfo,
    limits: Arc<ConnectionLimits>,
}

impl Movable {
    /// One that is seen by this probe, and has just arrived.
    pub(super) fn new(
        arrival: &Arrival,
        crew: &Rc<Crew>,
    ) -> impl FnOnce(&Arc<Probe>) -> Movable + use<> {
        let (crew, limits) = (crew.clone(), arrival.limits.clone());
        let (info, moved) = (arrival.info, arrival.moved);
        move |probe| {
            let member = crew.join(probe.clone(), info.listener, moved);
            Movable { crew, member, info, limits }
        }
    }
}

impl Moves<Io<TcpStream>> for Movable {
    /// Unless something that was written has not been sent.
    fn go(
        &self,
        to: ShardId,
        mut io: Io<TcpStream>,
        read: Bytes,
        past: Past,
        context: &mut Context<'_>,
    ) {
        let (counted, stream) = (io.take_counted(), io.into_inner());
        let sent = stream.source().poll_all_sent(context);
        let (info, limits) = (self.info, self.limits.clone());
        let arrival = Arrival { stream, read, info, limits, counted, past, moved: true };
        match sent {
            Poll::Ready(Ok(())) => self.crew.send(to, arrival),
            // The kernel has no room, or the peer has gone: it goes on here.
            Poll::Pending | Poll::Ready(Err(_)) => self.crew.take(arrival),
        }
    }
}

impl Drop for Movable {
    fn drop(&mut self) {
        self.crew.leave(self.member);
    }
}
