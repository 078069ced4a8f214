//! What stands in the place of `secure` in a build without TLS: there are no handshakes.

use super::arrival::Arrival;
use crate::http::{Io, Transport};
use std::io;

/// A stream socket of a server.
pub(super) trait Socket: Transport + Send + 'static {}

impl<T: Transport + Send + 'static> Socket for T {}

/// Whether connections are encrypted: they are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Security;

impl Security {
    pub(super) fn is_on(&self) -> bool {
        false
    }

    pub(super) fn here(&self) -> Securing {
        Securing
    }
}

/// What one shard knows of that.
pub(super) struct Securing;

impl Securing {
    #[inline(always)]
    pub(super) fn handshake(&self) -> Option<Handshake> {
        None
    }
}

/// There is none.
pub(super) enum Handshake {}

pub(super) type Secured<T> = Io<T>;

impl Handshake {
    pub(super) async fn run<T: Socket>(self, _: Arrival<T>) -> io::Result<Arrival<Secured<T>>> {
        match self {}
    }
}
