//! Why a server does not start, or does not do what it is told.

use crate::error::{Error, ErrorKind};
use std::fmt;

pub(super) const NO_SHARDS: &str = "the server has no shards to run on: this handle is that of a block_on without a runtime; start a \
                         Runtime, and use its handle";

pub(super) const ONE_SOCKET_NO_POLICY: &str =
    "no policy spreads connections in work-stealing mode: all workers accept from one socket";

pub(super) fn no_address() -> Error {
    Error::new(ErrorKind::Config, "the server has no address to listen on")
}

pub(super) fn cannot_start(refused: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Start, format!("the server cannot start: {refused}"))
}
