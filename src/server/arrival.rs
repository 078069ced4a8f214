//! A connection that a shard is to serve: one that it has accepted, that another has handed over, or that was moved here
//! between two requests.

use super::event::ConnectionInfo;
use super::protocol::Speaks;
use crate::balance::seats::Counted;
use crate::http::{Io, Transport};
use crate::limits::ConnectionLimits;
use crate::net::TcpStream;
use hyper::body::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// See the module.
pub(super) struct Arrival<T = TcpStream> {
    pub(super) stream: T,
    /// What was read from it on another shard, and not used.
    pub(super) read: Bytes,
    pub(super) info: ConnectionInfo,
    /// Those of its listener when it came.
    pub(super) limits: Arc<ConnectionLimits>,
    /// It counts among the shard's; none in a pool.
    pub(super) counted: Option<Counted>,
    pub(super) past: Past,
    pub(super) speaks: Speaks,
    /// It was moved here between two requests.
    pub(super) moved: bool,
}

impl<T: Transport> Arrival<T> {
    /// Whether there are more than there may be, with this one.
    #[inline]
    pub(super) fn is_too_many(&self) -> bool {
        self.counted.as_ref().is_some_and(Counted::is_too_many)
    }

    /// As hyper wants it.
    pub(super) fn opened(self) -> Arrival<Io<T>> {
        let Arrival { stream, read, info, limits, counted, past, speaks, moved } = self;
        let stream = Io::of_server(stream, counted);
        Arrival { stream, read, info, limits, counted: None, past, speaks, moved }
    }
}

/// What of a connection's life goes with it when it moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    /// When it was accepted.
    pub(super) began: Instant,
    /// What it has asked since then.
    pub(super) requests: u64,
}
