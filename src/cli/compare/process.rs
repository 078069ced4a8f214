//! Processes that are measured: started, watched, and ended, whatever happens.
//!
//! A child that is a program of ours ends when its standard input does, so it cannot outlive its parent however that dies. A
//! child that is not runs under `corelane guard`, which does the same for it and for whatever that has started; and if the guard
//! itself is killed, the program is killed by the system, and the rest by the parent: its group at once, all others when the round
//! is over.
//!
//! Each child leads a process group of its own, so Ctrl-C at a terminal reaches the parent alone, which ends the others in order.

use super::run::Stop;
use crate::id::CpuId;
use crate::sys::affinity::AffinityMask;
use crate::sys::process::{cpu_time as process_cpu_time, has_ended, kill_group};
use crate::sys::thread::own_cpu_time;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::ops::{Add, Sub};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The kernel's clock ticks per second, as `/proc` counts them (`USER_HZ`, the same on every architecture of Linux).
const TICKS: u64 = 100;
/// How long each is.
pub(super) const TICK: Duration = Duration::from_millis(1000 / TICKS);

/// CPU time of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl CpuTime {
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for CpuTime {
    type Output = CpuTime;

    fn sub(self, other: CpuTime) -> CpuTime {
        CpuTime {
            user: self.user.saturating_sub(other.user),
            system: self.system.saturating_sub(other.system),
        }
    }
}

impl Add for CpuTime {
    type Output = CpuTime;

    fn add(self, other: CpuTime) -> CpuTime {
        CpuTime { user: self.user + other.user, system: self.system + other.system }
    }
}

/// What a process has used, and the children that it has waited for. None: it is gone.
pub(crate) fn cpu_time(pid: u32) -> Option<(CpuTime, CpuTime)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let time = |ticks: u64| Duration::from_millis(ticks * 1000 / TICKS);
    // proc(5): utime, stime, cutime and cstime are fields 14 to 17; the first after the name is field 3.
    let counted = CpuTime { user: time(ticks(11)?), system: time(ticks(12)?) };
    let waited = CpuTime { user: time(ticks(13)?), system: time(ticks(14)?) };
    Some((exactly(pid, counted), waited))
}

/// What was counted in ticks, to the nanosecond: the sum has a clock, and the ticks say how it is parted.
fn exactly(pid: u32, counted: CpuTime) -> CpuTime {
    let Some(all) = process_cpu_time(pid) else { return counted };
    let share = match counted.total() {
        Duration::ZERO => 1.0,
        total => counted.user.as_secs_f64() / total.as_secs_f64(),
    };
    let user = all.mul_f64(share).min(all);
    CpuTime { user, system: all - user }
}

/// Times that each of its threads was taken off a CPU, or left it. Threads that have ended are not counted.
pub(crate) fn context_switches(pid: u32) -> BTreeMap<u32, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_thread = |status: String| -> u64 {
        status
            .lines()
            .filter(|line| line.contains("ctxt_switches:"))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum()
    };
    let counted = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, of_thread(status)))
    };
    tasks.filter_map(counted).collect()
}

/// The switches between two moments. None: a thread has ended meanwhile, and nobody knows what it had.
pub(crate) fn switches_since(
    after: &BTreeMap<u32, u64>,
    before: &BTreeMap<u32, u64>,
) -> Option<u64> {
    // Fewer than before are another thread's of the same number.
    let lives = |(thread, count): (&u32, &u64)| after.get(thread).is_some_and(|now| now >= count);
    let sum = |all: &BTreeMap<u32, u64>| all.values().sum::<u64>();
    before.iter().all(lives).then(|| sum(after) - sum(before))
}

/// Resident memory of some processes in bytes. What several of them share counts once, as far as the system tells.
pub(crate) fn resident(pids: &[u32]) -> u64 {
    match pids {
        [one] => resident_of(*one),
        several => {
            several.iter().map(|&pid| proportional(pid).unwrap_or_else(|| resident_of(pid))).sum()
        }
    }
}

/// What a process has in memory, with its part of what it shares with others.
fn proportional(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn resident_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Ends this process when its standard input ends: when the parent that holds the other end is gone.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn end_with_parent() -> io::Result<()> {
    let wait = || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    };
    thread::Builder::new().name("parent".into()).spawn(wait).map(drop)
}

/// How long it may take until a wait hears that everything is to end.
const STOPS_WITHIN: Duration = Duration::from_millis(50);

/// A child process, which ends with this value, and so does everything in its process group.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Held open for as long as the child is to live.
    _leash: Option<ChildStdin>,
    /// How it has ended. Its group is gone too then.
    status: Option<ExitStatus>,
    name: String,
}

impl Running {
    /// Starts `command`, called `name` in errors, to run on these CPUs only. Its standard output is read line by line.
    ///
    /// # Errors
    /// The program cannot be started there.
    pub(crate) fn start(
        name: &str,
        command: &mut Command,
        cpus: &[CpuId],
    ) -> Result<Running, String> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = spawn_on(cpus, command)
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        let leash = child.stdin.take();
        let (send, lines) = mpsc::sync_channel(LINES_MAX);
        if let Some(out) = child.stdout.take() {
            read_lines(out, send).map_err(|error| format!("no thread to read {name}: {error}"))?;
        }
        Ok(Running { child, lines, _leash: leash, status: None, name: name.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line for which `wanted` has something to say.
    ///
    /// # Errors
    /// It ends before, or says nothing of the kind for so long, or somebody wants everything to end.
    pub(crate) fn line<T>(
        &mut self,
        within: Duration,
        stop: &Stop,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(STOPS_WITHIN)) {
                Ok(line) => {
                    if let Some(found) = wanted(&line) {
                        return Ok(found);
                    }
                }
                Err(_) if stop.is_requested() => return Err("it was interrupted".to_owned()),
                Err(mpsc::RecvTimeoutError::Timeout) if left > STOPS_WITHIN => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "{} was not ready within {} s",
                        self.name,
                        within.as_secs()
                    ));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(match self.ended(Duration::from_secs(1)) {
                        Some(status) => format!("{} has ended: {status}", self.name),
                        None => format!("{} has closed its output", self.name),
                    });
                }
            }
        }
    }

    /// How it ended, if it does so within that time.
    pub(crate) fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + within;
        while self.status.is_none() {
            if has_ended(self.child.id()) {
                // What it has left behind, before its number may be another's.
                kill_group(self.child.id());
                self.status = self.child.wait().ok();
                break;
            }
            if Instant::now() >= until {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // By the end of its input first: a guard has others to end, of which some may have left the group.
        self._leash = None;
        if self.ended(Duration::from_secs(2)).is_none() {
            kill_group(self.child.id());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts a process that may run on these CPUs only, and whatever it starts too: it inherits the mask of the thread that starts
/// it.
fn spawn_on(cpus: &[CpuId], command: &mut Command) -> io::Result<Child> {
    let own = AffinityMask::current()?;
    AffinityMask::of(cpus)?.apply_to_current_thread()?;
    let child = command.spawn();
    own.apply_to_current_thread()?;
    child
}

/// Lines that wait for somebody who reads them. More are lost: nobody has wanted them.
const LINES_MAX: usize = 16;
/// Bytes of a line. The rest of a longer one is lost.
const LINE_MAX: usize = 1 << 20;

/// Reads to the end, also if nobody wants the lines: the program may write what it likes, and as much.
fn read_lines(out: ChildStdout, lines: mpsc::SyncSender<String>) -> io::Result<()> {
    let read = move || {
        let mut out = BufReader::new(out);
        while let Ok(Some(line)) = next_line(&mut out) {
            let _ = lines.try_send(line);
        }
    };
    thread::Builder::new().name("lines".into()).spawn(read).map(drop)
}

/// The next line, without its end. None: there is none.
fn next_line(out: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let piece = match out.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = piece.iter().position(|byte| *byte == b'\n');
        let is_over = end.is_some() || piece.is_empty();
        let kept = &piece[..end.unwrap_or(piece.len())];
        line.extend_from_slice(&kept[..kept.len().min(LINE_MAX - line.len())]);
        let read = end.map_or(piece.len(), |end| end + 1);
        out.consume(read);
        if is_over {
            let is_line = read > 0 || !line.is_empty();
            return Ok(is_line.then(|| String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

/// The flags of `burn`: a neighbour that takes most of one CPU.
#[derive(clap::Args)]
pub(crate) struct Burn {
    /// Per cent of the time in which it computes.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=100))]
    percent: u64,
    /// The CPU.
    #[arg(long)]
    cpu: usize,
}

/// Threads that compute. The scheduler gives each thread of a CPU as much as any other, so one would have half of it beside a
/// server's, and a third beside a server's and a generator's.
const BURNING: u32 = 8;
/// How long one computes until it looks whether it has done enough.
const BURNS_FOR: Duration = Duration::from_millis(1);
/// How far it may be behind: what it did not get before is lost, and not taken later.
const BEHIND_MAX: Duration = Duration::from_millis(50);

/// Computes until standard input ends.
pub(crate) fn burn(options: &Burn) -> ExitCode {
    let cpu = CpuId(options.cpu);
    let share = options.percent as f64 / 100.0 / f64::from(BURNING);
    // The others inherit the mask.
    let prepared = end_with_parent()
        .and_then(|()| crate::sys::affinity::pin_current_thread(cpu))
        .and_then(|()| {
            let each = |_| thread::Builder::new().spawn(move || take(share)).map(drop);
            (1..BURNING).try_for_each(each)
        });
    if let Err(error) = prepared {
        eprintln!("corelane: no neighbour on {cpu}: {error}");
        return ExitCode::from(2);
    }
    println!("burning");
    take(share)
}

/// Takes this share of a CPU, by the CPU time of the calling thread: it does not rest while it has had less.
fn take(share: f64) -> ! {
    let (mut began, mut had) = (Instant::now(), own_cpu_time());
    loop {
        let until = own_cpu_time() + BURNS_FOR;
        while own_cpu_time() < until {
            (0..1000).for_each(|_| std::hint::spin_loop());
        }
        let ran = own_cpu_time().saturating_sub(had);
        let due = began.elapsed().mul_f64(share);
        if ran > due {
            thread::sleep((ran - due).div_f64(share));
        } else if due - ran > BEHIND_MAX {
            (began, had) = (Instant::now(), own_cpu_time());
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_may_be_of_any_bytes() {
        let mut text = b"\xff\n\n".to_vec();
        text.extend(vec![b'x'; LINE_MAX + 10]);
        text.extend(b"\nlast");
        let mut out = BufReader::with_capacity(100, &text[..]);
        let mut next = || next_line(&mut out).expect("readable");
        assert_eq!(next().as_deref(), Some("\u{fffd}"));
        assert_eq!(next().as_deref(), Some(""));
        assert_eq!(next().map(|line| line.len()), Some(LINE_MAX));
        assert_eq!(next().as_deref(), Some("last"));
        assert_eq!(next(), None);
    }

    #[test]
    fn switches_of_a_thread_that_has_ended_are_unknown() {
        let of = |all: &[(u32, u64)]| all.iter().copied().collect::<BTreeMap<_, _>>();
        let before = of(&[(1, 5), (2, 7)]);
        assert_eq!(switches_since(&of(&[(1, 6), (2, 7), (3, 4)]), &before), Some(5));
        assert_eq!(switches_since(&of(&[(1, 6), (3, 4)]), &before), None);
        assert_eq!(switches_since(&of(&[(1, 6), (2, 1)]), &before), None);
    }
}
