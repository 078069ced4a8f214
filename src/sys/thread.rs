//! What the system knows of a thread of this process: whether it wants a CPU, and how much of one it has had.
//!
//! Owns nothing but a number. Any thread may look at any other; a look takes two reads of /proc, so it is for the rare
//! occasion. Where there is no /proc nothing is known.

use std::fs;
use std::time::Duration;

/// The number by which the system knows a thread.
pub(crate) struct ThreadNumber(u32);

/// What a thread is about, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// It runs, or would if it were given a CPU. Otherwise it waits for something.
    pub(crate) wants_cpu: bool,
    /// The CPU time it has had since it started. That of a running thread may be some milliseconds old.
    pub(crate) cpu_time: Duration,
}

impl ThreadNumber {
    /// That of the calling thread.
    pub(crate) fn current() -> Option<Self> {
        let own = fs::read_link("/proc/thread-self").ok()?;
        own.file_name()?.to_str()?.parse().ok().map(ThreadNumber)
    }

    /// Looks at it. The caller knows that the thread has not ended, or its number may be another's.
    pub(crate) fn look(&self) -> Option<Look> {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/task/{}/{name}", self.0));
        parse(&read("stat").ok()?, &read("schedstat").ok()?)
    }
}

/// The CPU time that the calling thread has had, to the nanosecond.
#[cfg(feature = "server")]
pub(crate) fn own_cpu_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The time for which the calling thread has waited for a CPU that others had, while it would have run. None: this kernel does
/// not count it.
#[cfg(feature = "compare")]
pub(crate) fn own_wait_time() -> Option<Duration> {
    waited(&fs::read_to_string("/proc/thread-self/schedstat").ok()?)
}

/// The second number of a `schedstat`.
#[cfg(feature = "compare")]
fn waited(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

fn parse(stat: &str, schedstat: &str) -> Option<Look> {
    // The name, which may contain anything, ends at the last parenthesis.
    let wants_cpu = stat.rsplit_once(')')?.1.trim_start().starts_with('R');
    let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
    Some(Look { wants_cpu, cpu_time: Duration::from_nanos(nanos) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let look = parse("7 (a ) R b) S 1 7", "1500000 20 3\n").unwrap();
        assert!(!look.wants_cpu);
        assert_eq!(look.cpu_time, Duration::from_micros(1500));
        assert!(parse("7 (x) R 1", "5 0 0").unwrap().wants_cpu);
        for (stat, schedstat) in [("", ""), ("7 (x", "5"), ("7 (x) R", ""), ("7 (x) R", "many 0")] {
            assert!(parse(stat, schedstat).is_none(), "{stat:?} {schedstat:?}");
        }
    }

    #[cfg(feature = "compare")]
    #[test]
    fn the_time_without_a_cpu_is_the_second_number() {
        assert_eq!(waited("1500000 20000 3\n"), Some(Duration::from_micros(20)));
        assert_eq!(["", "5", "5 x 1"].map(waited), [None; 3]);
    }

    #[test]
    fn threads_that_wait_and_threads_that_work_are_told_apart() {
        let (tell, number) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let waiting = std::thread::spawn(move || {
            tell.send(ThreadNumber::current()).unwrap();
            let _ = may_end.recv();
        });
        let (Some(other), Some(own)) = (number.recv().unwrap(), ThreadNumber::current()) else {
            eprintln!("SKIPPED: there is no /proc");
            return;
        };
        let Some(before) = own.look() else {
            eprintln!("SKIPPED: this kernel does not count the time of threads");
            return;
        };
        assert!(before.wants_cpu, "it is running this line");
        let began = Instant::now();
        while own.look().unwrap().cpu_time < before.cpu_time + Duration::from_millis(20) {
            assert!(began.elapsed() < Duration::from_secs(60), "its time is not counted");
        }
        while other.look().unwrap().wants_cpu {
            assert!(began.elapsed() < Duration::from_secs(60), "it never came to wait");
        }
        drop(end);
        waiting.join().unwrap();
    }
}
