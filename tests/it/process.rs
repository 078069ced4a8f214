//! Tests in processes of their own: this program, again, under other circumstances.

use super::harness::HANGS_AFTER;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Set, to the name of a test, in the process that is to be that test.
const CHILD: &str = "CORELANE_TEST_CHILD";

/// What a process came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The test passed there.
    #[track_caller]
    pub(crate) fn passed(&self) {
        assert!(self.status.success() && self.stdout.contains("1 passed"), "{self:#?}");
    }

    /// The process was aborted.
    #[track_caller]
    pub(crate) fn aborted(&self) {
        assert_eq!(self.status.signal(), Some(libc::SIGABRT), "{self:#?}");
    }
}

/// Whether this process is the one that was started for the test `name`.
pub(crate) fn is_child(name: &str) -> bool {
    std::env::var_os(CHILD).is_some_and(|child| child == OsStr::new(name))
}

/// Runs the test `name`, which calls this, once more in a process of its own, there with `body`, and returns what
/// became of it; none in that process. `wrapper` is what stands before it on the command line.
#[track_caller]
pub(crate) fn alone(name: &str, wrapper: &[&str], body: impl FnOnce()) -> Option<Outcome> {
    if is_child(name) {
        body();
        return None;
    }
    let child = command(name, wrapper).spawn().expect("started");
    Some(finish(child))
}

/// The command that runs the test `name` alone, with its output in pipes.
pub(crate) fn command(name: &str, wrapper: &[&str]) -> Command {
    let this = std::env::current_exe().expect("this program");
    let mut command = match wrapper {
        [] => Command::new(&this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&this);
            command
        }
    };
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, name);
    if wrapper.first() == Some(&"strace") {
        // The leak checker cannot trace a process that is being traced.
        command.env("ASAN_OPTIONS", "detect_leaks=0");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for a process, and kills it if it hangs.
#[track_caller]
pub(crate) fn finish(mut child: std::process::Child) -> Outcome {
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = child.stdout.take().map(|pipe| read(Box::new(pipe)));
    let stderr = child.stderr.take().map(|pipe| read(Box::new(pipe)));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if began.elapsed() > HANGS_AFTER {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the process hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |thread: Option<std::thread::JoinHandle<String>>| {
        thread.map(|thread| thread.join().expect("read")).unwrap_or_default()
    };
    Outcome { status, stdout: text(stdout), stderr: text(stderr) }
}

/// A cgroup with a CPU quota, removed when dropped.
pub(crate) struct QuotaGroup(String);

impl QuotaGroup {
    /// Set, to the group's path, in the process that is to join it.
    const PATH: &str = "CORELANE_TEST_GROUP";

    /// So many microseconds in each tenth of a second. None: no such group can be made here.
    pub(crate) fn new(quota: u32) -> Option<QuotaGroup> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("corelane-test-{}-{number}", std::process::id());
        for (root, file, text) in [
            ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", quota.to_string()),
            ("/sys/fs/cgroup", "cpu.max", format!("{quota} 100000")),
        ] {
            let path = format!("{root}/{name}");
            if std::fs::create_dir(&path).is_ok() {
                let group = QuotaGroup(path);
                if std::fs::write(format!("{}/{file}", group.0), text).is_ok() {
                    return Some(group);
                }
            }
        }
        None
    }

    /// Runs a test, which must [join](QuotaGroup::join), in a process of its own.
    #[track_caller]
    pub(crate) fn run(&self, name: &str) -> Outcome {
        let child = command(name, &[]).env(QuotaGroup::PATH, &self.0).spawn();
        finish(child.expect("started"))
    }

    /// Moves this process into the group that its parent has made.
    pub(crate) fn join() {
        let group = std::env::var(QuotaGroup::PATH).expect("set by the parent");
        std::fs::write(format!("{group}/cgroup.procs"), "0").expect("joined");
    }
}

impl Drop for QuotaGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Says loudly that a test did nothing, and why.
pub(crate) fn skipped(reason: &str) {
    // Past the test harness, which shows the output of failed tests only.
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Whether a program can be started.
pub(crate) fn has(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether this program was built with AddressSanitizer, which reserves terabytes.
pub(crate) fn is_sanitized() -> bool {
    status_kib("VmSize").is_some_and(|size| size > 1 << 30)
}

/// A size in `/proc/self/status`, in KiB.
pub(crate) fn status_kib(field: &str) -> Option<u64> {
    status_field("/proc/self/status", field)?.split_whitespace().next()?.parse().ok()
}

/// A field of a `/proc/.../status`.
pub(crate) fn status_field(path: &str, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}
