//! A child process that never outlives the runner, and what /proc says of it.
//!
//! Three ways out: `Drop` kills and reaps it; the kernel kills it when the runner's main thread is
//! gone, however that ended; and every wait has a limit. Children are started on the main thread
//! only, since it is the starting thread's end that the kernel watches.

#![allow(unsafe_code)]

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::os;

/// Pause between two looks at whether a child has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A started child.
pub(super) struct Process {
    child: Child,
}

/// The path of the program that is running, for children of the same build.
///
/// Through /proc, since its file may be replaced by a newer build while it runs.
pub(super) fn own_program() -> String {
    format!("/proc/{}/exe", process::id())
}

/// CPU time used so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CpuTime {
    pub(super) user_seconds: f64,
    pub(super) system_seconds: f64,
}

impl CpuTime {
    pub(super) fn total_seconds(self) -> f64 {
        self.user_seconds + self.system_seconds
    }

    pub(super) fn since(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            user_seconds: self.user_seconds - earlier.user_seconds,
            system_seconds: self.system_seconds - earlier.system_seconds,
        }
    }
}

impl Process {
    /// Starts a child whose output is dropped; its errors go where the runner's go.
    pub(super) fn start(arguments: &[String], cpus: Option<&[usize]>) -> Result<Process, String> {
        Process::spawn(arguments, cpus, Stdio::null(), Stdio::inherit())
    }

    /// Starts a child that is only heard at its end, through `output`.
    pub(super) fn start_quietly(
        arguments: &[String],
        cpus: Option<&[usize]>,
    ) -> Result<Process, String> {
        Process::spawn(arguments, cpus, Stdio::piped(), Stdio::null())
    }

    fn spawn(
        arguments: &[String],
        cpus: Option<&[usize]>,
        stdout: Stdio,
        stderr: Stdio,
    ) -> Result<Process, String> {
        let (program, rest) = arguments.split_first().ok_or("an empty command")?;
        let cpus = cpus.map(<[usize]>::to_vec);
        let before_exec = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            cpus.as_ref().map_or(Ok(()), |cpus| os::pin(cpus))
        };
        let mut command = Command::new(program);
        command.args(rest).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // SAFETY: between fork and exec it makes two system calls and allocates nothing.
        unsafe { command.pre_exec(before_exec) };
        let child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
        Ok(Process { child })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the child ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for the end; a child that is still there after `limit` is killed.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.kill();
                return Err(format!("process {} took longer than {limit:?}", self.id()));
            }
            thread::sleep(LOOK);
        }
    }

    /// Asks the child to end and waits for it.
    pub(super) fn stop(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus, String> {
        if self.ended().is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, signal).map_err(|error| format!("cannot signal {pid:?}: {error}"))?;
        }
        self.wait(limit)
    }

    /// What a quietly started child printed, once it has ended well.
    ///
    /// For short outputs: what does not fit a pipe would hold the child up until the limit.
    pub(super) fn output(mut self, limit: Duration) -> Result<String, String> {
        let status = self.wait(limit)?;
        let mut text = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut text).map_err(|error| error.to_string())?;
        }
        if status.success() { Ok(text) } else { Err(format!("failed: {status}")) }
    }

    /// CPU time of all its threads, those that ended included.
    pub(super) fn cpu_time(&self) -> Result<CpuTime, String> {
        let path = format!("/proc/{}/stat", self.id());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        parse_stat(&text, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| format!("{path} is not as expected"))
    }

    /// Memory in use, in bytes.
    pub(super) fn resident_bytes(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.id());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        parse_resident(&text).ok_or_else(|| format!("{path} is not as expected"))
    }

    fn kill(&mut self) {
        // Either may fail for a child that has ended already, which is what is wanted.
        let _: io::Result<()> = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The user and system time of a /proc/PID/stat. The name in it may contain anything but is in
/// parentheses.
fn parse_stat(text: &str, ticks_per_second: u64) -> Option<CpuTime> {
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / ticks_per_second as f64);
    Some(CpuTime { user_seconds: seconds()?, system_seconds: seconds()? })
}

fn parse_resident(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_name_with_parentheses_and_spaces() {
        let text = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0 9 1 1";
        let expected = CpuTime { user_seconds: 2.5, system_seconds: 0.5 };
        assert_eq!(parse_stat(text, 100), Some(expected));
    }

    #[test]
    fn resident_memory_is_in_kilobytes() {
        assert_eq!(parse_resident("VmPeak:\t 9 kB\nVmRSS:\t 12 kB\n"), Some(12 * 1024));
    }
}
