//! Between shards: one inbox each, and the calls that go through it.
//!
//! - [`inbox`]: the three ways in (wakes, notices, calls), their bounds, and the end
//! - [`message`]: what a notice can say
//! - [`thunk`]: a closure that travels
//! - [`call`]: the reply that comes back
//! - [`ending`]: how all shards of a runtime come to their end together

pub(crate) mod call;
pub(crate) mod ending;
pub(crate) mod inbox;
pub(crate) mod message;
pub(crate) mod thunk;
