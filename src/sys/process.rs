//! Families of processes: those that end with their parent, those that are left over, and how all of them are ended.
//!
//! Owns nothing. Numbers of processes are used again by the system, so each call says when the one that it is given is sure to be
//! the one that is meant.

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, getppid, kill_process,
    kill_process_group, set_child_subreaper, set_parent_process_death_signal, wait, waitid,
};
use std::ffi::CStr;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

/// Names the calling thread, and on the main thread the process: 15 bytes of it.
///
/// # Errors
/// What the system says.
pub(crate) fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// From now on whatever descends from this process becomes its child when it loses its parent.
///
/// # Errors
/// What the system says.
pub(crate) fn adopt_descendants() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// From now on this process is killed when its parent ends, also by SIGKILL. That stays so if it becomes another program.
///
/// # Errors
/// What the system says; or that the parent is not `parent`, which has ended then.
pub(crate) fn die_with_parent(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    match getppid() {
        Some(pid) if pid.as_raw_nonzero().get() as u32 == parent => Ok(()),
        _ => Err(io::Error::other("its parent has ended")),
    }
}

/// The CPU time that all threads of a process have had so far, to the nanosecond (clock_getcpuclockid(3)). None: it is gone, or
/// not to be looked at.
#[allow(unsafe_code)]
pub(crate) fn cpu_time(process: u32) -> Option<Duration> {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write to the one place that they are given, which lives on.
    let told = unsafe {
        libc::clock_getcpuclockid(i32::try_from(process).ok()?, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    told.then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
}

/// Sends SIGHUP to a process.
///
/// # Errors
/// What the system says: it is gone, or another user's.
pub(crate) fn hang_up(process: u32) -> io::Result<()> {
    let pid = pid(process).ok_or_else(|| io::Error::other("it is no process number"))?;
    Ok(kill_process(pid, Signal::HUP)?)
}

/// Whether a child has ended. It is not waited for, so its number and its group stay its own.
pub(crate) fn has_ended(child: u32) -> bool {
    let Some(pid) = pid(child) else { return false };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_)))
}

/// Kills every process of a group whose leader is a child that has not been waited for.
pub(crate) fn kill_group(leader: u32) {
    if let Some(pid) = pid(leader) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Processes that are not ours to end: whatever descends from this one by now, from the program that it was before, and whatever
/// that starts.
#[derive(Debug, Default)]
pub(crate) struct Others(Vec<u32>);

impl Others {
    pub(crate) fn now() -> Others {
        Others(family_of(own()))
    }

    /// Adds what they have started, while it can be told whose it is: when they end it is nobody's.
    pub(crate) fn look(&mut self) {
        let parents = parents();
        let started = self.0.iter().flat_map(|&other| descendants(other, &parents, &[]));
        let started: Vec<u32> = started.filter(|pid| !self.0.contains(pid)).collect();
        self.0.extend(started);
        self.0.sort_unstable();
        self.0.dedup();
    }
}

/// Whatever descends from a process: its children, theirs, and so on, as far as they can be seen.
pub(crate) fn family_of(root: u32) -> Vec<u32> {
    descendants(root, &parents(), &[])
}

/// Kills whatever descends from this process, but for others and what descends from them, and waits for what has ended of it, until
/// nothing is left or so much time is over: the system cannot kill at once what waits for a disk. Only for a process that has
/// called `adopt_descendants`, or some would get away, and that waits for no child of its own any more.
pub(crate) fn kill_descendants(others: &mut Others, within: Duration) {
    let mut left = within;
    loop {
        others.look();
        let all = descendants(own(), &parents(), &others.0);
        for pid in all.iter().copied().filter_map(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        if all.is_empty() || left.is_zero() {
            return;
        }
        thread::sleep(LOOKS_EVERY);
        left = left.saturating_sub(LOOKS_EVERY);
    }
}

/// Between two looks whether something is left.
const LOOKS_EVERY: Duration = Duration::from_millis(1);

fn own() -> u32 {
    getpid().as_raw_nonzero().get() as u32
}

fn pid(number: u32) -> Option<Pid> {
    // 0 and 1 would mean others than are meant.
    Pid::from_raw(i32::try_from(number).ok()?).filter(|_| number > 1)
}

/// Every process and its parent, as far as they can be seen.
fn parents() -> Vec<(u32, u32)> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let pair = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parent(&stat)?))
    };
    all.filter_map(number).filter_map(pair).collect()
}

/// The parent that a `stat` names: the second field after the name, which may contain anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Those below `root`, without it and the families of those that are spared.
fn descendants(root: u32, parents: &[(u32, u32)], spared: &[u32]) -> Vec<u32> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(&one) = all.get(next) {
        next += 1;
        let is_wanted = |(pid, parent): &&(u32, u32)| *parent == one && !spared.contains(pid);
        all.extend(parents.iter().filter(is_wanted).map(|(pid, _)| *pid));
    }
    all.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_behind_any_name() {
        assert_eq!(parent("7 (a) b) S 3 7 7"), Some(3));
        assert_eq!(parent("7 (sh"), None);
        let own = std::process::id();
        assert!(parents().contains(&(own, std::os::unix::process::parent_id())));
    }

    #[test]
    fn children_of_children_descend_too() {
        let parents = [(2, 1), (5, 3), (3, 2), (4, 1), (6, 5), (9, 8)];
        assert_eq!(descendants(2, &parents, &[]), [3, 5, 6]);
        assert_eq!(descendants(4, &parents, &[]), [0; 0]);
        assert_eq!(descendants(2, &parents, &[5]), [3]);
    }

    #[test]
    fn a_child_that_has_ended_is_seen_and_can_still_be_waited_for() {
        let mut child = std::process::Command::new("true").spawn().expect("started");
        while !has_ended(child.id()) {
            std::thread::yield_now();
        }
        assert!(child.wait().expect("a child").success());
        assert!(!has_ended(child.id()));
    }
}
