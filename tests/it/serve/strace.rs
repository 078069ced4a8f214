//! Faults that only the kernel can make, made by strace: system calls that fail with a chosen error.

use super::skipped;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use tempfile::NamedTempFile;

/// A plan of failing calls, and the record of what happened.
pub(crate) struct Injection {
    record: NamedTempFile,
    calls: String,
    fault: String,
}

/// One system call, as strace saw it.
#[derive(Debug)]
pub(crate) struct Call {
    /// Seconds since the epoch.
    pub(crate) time: f64,
    pub(crate) text: String,
}

impl Call {
    pub(crate) fn was_injected(&self) -> bool {
        self.text.contains("(INJECTED)")
    }
}

impl Injection {
    /// `calls` fail with `error`, in each thread at the times that `when` tells (as strace's `when=`). None, after
    /// saying so: there is no strace that may be used.
    pub(crate) fn new(calls: &str, error: &str, when: &str) -> Option<Injection> {
        Injection::of(calls, &format!("error={error}:when={when}"))
    }

    /// `calls` begin late, by so many microseconds.
    pub(crate) fn delay(calls: &str, micros: u32) -> Option<Injection> {
        Injection::of(calls, &format!("delay_enter={micros}"))
    }

    fn of(calls: &str, fault: &str) -> Option<Injection> {
        static WORKS: OnceLock<bool> = OnceLock::new();
        if !*WORKS.get_or_init(works) {
            skipped("there is no strace, or it may not trace");
            return None;
        }
        let record = NamedTempFile::new().expect("a file");
        Some(Injection { record, calls: calls.to_owned(), fault: format!("{calls}:{fault}") })
    }

    /// What to start the program with. strace runs beside it (-D), so that the program is the test's own child.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let record = self.record.path().to_str().expect("a path in UTF-8");
        let trace = format!("trace={}", self.calls);
        let inject = format!("inject={}", self.fault);
        let words =
            ["strace", "-D", "-f", "-ttt", "-qq", "-o", record, "-e", &trace, "-e", &inject];
        words.map(str::to_owned).to_vec()
    }

    /// The calls so far, but no lines that only say that a call has begun.
    pub(crate) fn record(&self) -> Vec<Call> {
        let text = std::fs::read_to_string(self.record.path()).expect("the record");
        let parse = |line: &str| {
            // PID TIME CALL
            let (_, rest) = line.trim_start().split_once(' ')?;
            let (time, text) = rest.trim_start().split_once(' ')?;
            let complete = text.contains(" = ");
            complete.then(|| Call { time: time.parse().expect("a time"), text: text.to_owned() })
        };
        text.lines().filter_map(parse).collect()
    }

    pub(crate) fn injected(&self) -> Vec<Call> {
        self.record().into_iter().filter(Call::was_injected).collect()
    }
}

fn works() -> bool {
    let mut strace = Command::new("strace");
    strace.args([
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=close:error=EBADF:when=1000",
        "true",
    ]);
    let status = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
