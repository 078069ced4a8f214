//! A connection that a shard is to serve: one that it has accepted, that another has handed over, or that was moved here
//! between two requests.

use super::event::ConnectionInfo;
use crate::balance::seats::Counted;
use crate::net::TcpStream;
use hyper::body::Bytes;
use std::time::Duration;

/// See the module.
pub(super) struct Arrival<T = TcpStream> {
    pub(super) stream: T,
    /// What was read from it on another shard, and not used.
    pub(super) read: Bytes,
    pub(super) info: ConnectionInfo,
    pub(super) header_timeout: Option<Duration>,
    /// It counts among the shard's; none in a pool.
    pub(super) counted: Option<Counted>,
    /// It was moved here between two requests.
    pub(super) moved: bool,
}
