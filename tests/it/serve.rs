//! `corelane serve` as its users meet it: a process with real sockets, signals and shortages; and, where a process
//! cannot be looked into, the same server inside this one.
//!
//! Nothing here waits for a time to pass, except where that time is what is measured: a condition is looked at again
//! and again until it holds or a generous while is over. Child processes die with the test that started them. A test
//! that needs a tool or a privilege which is not there says so on standard error, past the test harness.

pub(crate) mod accept;
mod access_log;
#[cfg(feature = "tower")]
mod axum;
mod bodies;
mod cases;
pub(crate) mod client;
mod drain;
mod endings;
mod floods;
mod full;
mod handed;
mod http2;
mod https;
mod in_process;
mod injected;
mod limits;
mod machine;
mod moving;
mod panics;
mod pipelines;
pub(crate) mod program;
mod proxied;
mod reuse;
mod shutdown;
mod start;
mod stdio;
mod storm;
pub(crate) mod strace;
mod system;
mod unix;
mod upgrade;

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

/// How long something may take before it counts as never happening. It measures nothing.
const NEVER: Duration = Duration::from_secs(30);

/// Looks until there is something to be seen.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < NEVER, "it never came true: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// [`eventually`] for a condition.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}

/// Says why a test does not run, where it is heard even if the test harness keeps what tests print.
pub(crate) fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}
