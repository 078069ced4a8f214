//! How many files this process may have open.

use rustix::process::{Resource, getrlimit};
#[cfg(feature = "compare")]
use rustix::process::{Rlimit, setrlimit};

/// Raises the limit as far as it may be raised, for this process and those that it starts. A limit that stays is no error:
/// who needs more will be told when it does.
#[cfg(feature = "compare")]
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Files that this process may have open; none if that is not bounded.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
