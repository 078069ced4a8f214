//! A connection that a shard is to serve: one that it has accepted, that another has handed over, or that was moved here
//! between two requests.

use super::event::ConnectionInfo;
use crate::balance::seats::Counted;
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
    /// It was moved here between two requests.
    pub(super) moved: bool,
}

/// What of a connection's life goes with it when it moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    /// When it was accepted.
    pub(super) began: Instant,
    /// What it has asked since then.
    pub(super) requests: u64,
}
