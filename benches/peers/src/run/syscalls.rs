//! System calls per request, counted by the kernel's tracepoints or, without them, by strace.
//!
//! The counter is attached to a running server before the load starts and detached after it ends, so
//! that every request is in; the few calls that set up 64 connections are in as well.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::Settings;
use super::contender::{Contender, Placement};
use super::process::Process;
use super::report::Table;
use super::wrk::Wrk;

const CONNECTIONS: usize = 64;

/// The calls that get a column, by what they do.
const GROUPS: [(&str, &[&str]); 6] = [
    ("receive", &["read", "readv", "recvfrom", "recvmsg"]),
    ("send", &["write", "writev", "sendto", "sendmsg"]),
    ("epoll_wait", &["epoll_wait", "epoll_pwait", "epoll_pwait2"]),
    ("epoll_ctl", &["epoll_ctl"]),
    ("futex", &["futex"]),
    ("io_uring_enter", &["io_uring_enter"]),
];

/// Tracepoint of all system calls together.
const ALL: &str = "raw_syscalls:sys_enter";

/// Time a counter gets to attach, and to write what it has.
const ATTACH: Duration = Duration::from_secs(1);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Calls by name; `ALL` for their sum.
type Counts = BTreeMap<String, f64>;

/// Counts every contender's system calls and prints them.
pub(super) fn measure(settings: &Settings) {
    println!("\nsystem calls per request: one server thread, wrk -t1 -c{CONNECTIONS}");
    let groups = GROUPS.iter().map(|(title, _)| *title);
    let mut table = Table::new("contender", groups.chain(["other", "all"]));
    for contender in &settings.contenders {
        let counted = per_request(contender, settings, Counter::Perf).or_else(|error| {
            eprintln!("{}: {error}; trying strace", contender.name());
            per_request(contender, settings, Counter::Strace)
        });
        match counted {
            Ok(counts) => table.row(contender.name(), cells(&counts)),
            Err(error) => eprintln!("{}: {error}", contender.name()),
        }
    }
    table.print();
}

fn cells(counts: &Counts) -> Vec<String> {
    let of = |name: &&str| counts.get(*name).copied().unwrap_or(0.0);
    let mut figures: Vec<f64> =
        GROUPS.iter().map(|(_, names)| names.iter().map(of).sum()).collect();
    let all = counts.get(ALL).copied().unwrap_or(0.0);
    let other = all - figures.iter().sum::<f64>();
    figures.extend([other.max(0.0), all]);
    figures.iter().map(|figure| format!("{figure:.3}")).collect()
}

/// What counts.
#[derive(Clone, Copy, Debug)]
enum Counter {
    Perf,
    Strace,
}

impl Counter {
    fn arguments(self, pid: u32, file: &str) -> Vec<String> {
        let pid = pid.to_string();
        match self {
            Counter::Perf => {
                let calls = GROUPS.iter().flat_map(|(_, names)| *names);
                let mut events: Vec<_> =
                    calls.map(|name| format!("syscalls:sys_enter_{name}")).collect();
                events.push(ALL.to_owned());
                let events = events.join(",");
                ["perf", "stat", "-x", ",", "-o", file, "-e", &events, "-p", &pid]
                    .map(str::to_owned)
                    .to_vec()
            }
            Counter::Strace => {
                ["strace", "-f", "-c", "-o", file, "-p", &pid].map(str::to_owned).to_vec()
            }
        }
    }

    fn parse(self, text: &str) -> Counts {
        match self {
            Counter::Perf => parse_perf(text),
            Counter::Strace => parse_strace(text),
        }
    }
}

fn per_request(
    contender: &Contender,
    settings: &Settings,
    counter: Counter,
) -> Result<Counts, String> {
    let placement = Placement { cpus: &settings.cpus[..1], confined: true };
    let server = contender.start(placement, &[])?;
    let path = settings.scratch.file("syscalls.out");
    let file = path.to_str().ok_or("the temporary path is not UTF-8")?;
    let arguments = counter.arguments(server.process.id(), file);
    let mut counting = Process::start_quietly(&arguments, None)?;
    thread::sleep(ATTACH);
    if let Some(status) = counting.ended() {
        return Err(format!("{} cannot attach: {status}", arguments[0]));
    }
    let wrk = Wrk {
        threads: 1,
        connections: CONNECTIONS,
        cpus: Some(&settings.cpus[1..]),
        close: false,
        script: None,
    };
    let report = wrk.run(server.address, settings.load_time)?;
    // A counter ended by a signal says so in its status; its file is what matters.
    counting.stop(Signal::INT, STOP_LIMIT)?;
    let mut counts = counter.parse(&read_and_remove(&path)?);
    if counts.is_empty() {
        return Err(format!("{} has counted nothing", arguments[0]));
    }
    counts.values_mut().for_each(|count| *count /= report.requests);
    Ok(counts)
}

fn read_and_remove(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).and_then(|text| fs::remove_file(path).map(|()| text));
    text.map_err(|error| format!("{}: {error}", path.display()))
}

/// `perf stat -x,`: the count comes first, the event third.
fn parse_perf(text: &str) -> Counts {
    let rows = text.lines().filter_map(|line| {
        let mut fields = line.split(',');
        let count = fields.next()?.parse().ok()?;
        let event = fields.nth(1)?;
        Some((event.trim_start_matches("syscalls:sys_enter_").to_owned(), count))
    });
    rows.collect()
}

/// `strace -c`: share, seconds, microseconds each, calls, errors if any, name.
fn parse_strace(text: &str) -> Counts {
    let rows = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let name = if fields.last() == Some(&"total") { ALL } else { fields.last()? };
        let _share: f64 = fields.first()?.parse().ok()?;
        Some((name.to_owned(), fields.get(3)?.parse().ok()?))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_counts_are_read_and_what_it_could_not_count_is_left_out() {
        let text = "# started on\n\n120,,syscalls:sys_enter_recvfrom,9,100.00,,\n\
                    <not counted>,,syscalls:sys_enter_read,0,0.00,,\n\
                    200,,raw_syscalls:sys_enter,9,100.00,,\n";
        let counts = parse_perf(text);
        assert_eq!(counts.len(), 2);
        assert_eq!((counts["recvfrom"], counts[ALL]), (120.0, 200.0));
    }

    #[test]
    fn strace_counts_are_read_with_and_without_errors() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ------\n\
                     60.00    0.000100           1       100        20 recvfrom\n\
                     40.00    0.000050           1        50           sendto\n\
                    ------ ----------- ----------- --------- --------- ------\n\
                    100.00    0.000150           1       150        20 total\n";
        let counts = parse_strace(text);
        assert_eq!((counts["recvfrom"], counts["sendto"], counts[ALL]), (100.0, 50.0, 150.0));
    }
}
