//! The end of a runtime, which its shards come to together.
//!
//! A shard that is asked to stop and has nothing left to do cannot leave: another that still has a request at hand may call
//! it. It says that it is quiet, and goes on listening. The end has come when all are quiet and nothing is on its way to
//! any of them. Who finds that out tells the others.
//!
//! A quiet shard sends nothing, and says that it is not quiet any more before it takes something out of its inbox. Both
//! are done under one lock, and so is the look at the inboxes: while somebody looks, none can take anything. The lock is
//! for a runtime that ends; before that nobody comes here.

use crate::sync::{Mutex, lock};

/// See the module.
#[derive(Default)]
pub(crate) struct Ending {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Shards that have nothing to do, or are gone.
    quiet: usize,
    over: bool,
}

/// What a shard hears that is quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// Others are not, or something is on its way.
    NotYet,
    /// It has found out that the end has come: the others are to be told.
    Now,
    /// The end had come.
    Before,
}

impl Ending {
    /// One of `shards` has nothing left to do. `nothing_comes` looks at every inbox.
    pub(crate) fn settle(&self, shards: usize, nothing_comes: impl FnOnce() -> bool) -> Quiet {
        let mut state = lock(&self.state);
        state.quiet += 1;
        if state.over {
            return Quiet::Before;
        }
        state.over = state.quiet == shards && nothing_comes();
        if state.over { Quiet::Now } else { Quiet::NotYet }
    }

    /// One that was quiet is about to look for something to do.
    pub(crate) fn stir(&self) {
        lock(&self.state).quiet -= 1;
    }
}
