//! The terms on which connections of an address are served: what they are held to, and what comes before HTTP.
//!
//! One address has one set, which can be changed while it is listened on; each shard knows it by a reader of its own.

use super::arrival::{Arrival, Past};
use super::event::{ConnectionInfo, Peer};
use super::listen::Listen;
use super::preliminary::Preliminaries;
use super::protocol::Speaks;
use super::secure::{Securing, Security};
use crate::balance::seats::Counted;
use crate::limits::ConnectionLimits;
use crate::sync::live::{Known, Live};
use crate::time::clock;
use hyper::body::Bytes;
use std::sync::Arc;

/// What all shards share.
#[derive(Clone, Debug)]
pub(super) struct LiveTerms {
    limits: Arc<Live<ConnectionLimits>>,
    security: Security,
    proxied: bool,
}

impl LiveTerms {
    pub(super) fn new(listen: &Listen) -> LiveTerms {
        let limits = Arc::new(Live::new(listen.limits.clone()));
        LiveTerms { limits, security: listen.security.clone(), proxied: listen.proxied }
    }

    /// For connections that come from now on.
    pub(super) fn set_limits(&self, limits: ConnectionLimits) {
        self.limits.replace(limits);
    }

    /// Whether a connection is encrypted.
    pub(super) fn is_secure(&self) -> bool {
        self.security.is_on()
    }

    /// As one shard knows them.
    pub(super) fn here(&self) -> Terms {
        let LiveTerms { limits, security, proxied } = self;
        let (limits, securing) = (Known::new(limits.clone()), security.here());
        Terms { limits, securing, proxied: *proxied }
    }
}

/// What one shard knows. See the module.
pub(super) struct Terms {
    limits: Known<ConnectionLimits>,
    securing: Securing,
    proxied: bool,
}

impl Terms {
    /// A connection that nothing has been read from yet, and what comes before HTTP on it.
    pub(super) fn accepted<T>(
        &self,
        stream: T,
        listener: usize,
        peer: Peer,
        counted: Option<Counted>,
    ) -> (Arrival<T>, Preliminaries) {
        let (info, read) = (ConnectionInfo::new(listener, peer), Bytes::new());
        let limits = self.limits.get().clone();
        let speaks = if limits.http2 { Speaks::Either } else { Speaks::Http1 };
        let past = Past { began: clock::now(), requests: 0 };
        let preliminaries =
            Preliminaries { proxied: self.proxied, handshake: self.securing.handshake() };
        (Arrival { stream, read, info, limits, counted, past, speaks, moved: false }, preliminaries)
    }
}
