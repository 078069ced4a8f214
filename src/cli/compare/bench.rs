//! One round: a contender and a load generator, each a process of its own, and what is read off both.

use super::Options;
use super::model::{Crossed, Round};
use super::places::Places;
use super::process::{self, Running};
use super::run::Stop;
use super::scenario::Work;
use crate::cli::load;
use crate::sys::process::family_of;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a contender may take until it answers, and a generator until it has begun.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may take that is asked for besides, from its first byte to its last.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of such an answer that are read; no more is wanted of whoever sends without end.
const ANSWER_MAX: usize = 64 << 10;
/// How long whoever waits for bytes does not hear that everything is to end.
const STOPS_WITHIN: Duration = Duration::from_millis(50);

/// How a contender is had.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// This program's own, by its name.
    Own(String),
    /// It runs already.
    At(SocketAddr),
    /// A program to be started: its words.
    Command(Vec<String>),
}

/// What stays the same for all rounds of a scenario.
pub(super) struct Bench<'a> {
    pub(super) options: &'a Options,
    pub(super) work: &'a Work,
    /// A round that is under way is given up then.
    pub(super) stop: &'a Stop,
    pub(super) places: &'a Places,
    /// Is told the requests per second, now and then while a round goes on.
    pub(super) live: &'a dyn Fn(f64),
}

/// Why there is no round.
pub(super) enum Fault {
    /// The contender's own.
    Contender(String),
    /// What measures it cannot be started, or has died.
    Instrument(String),
}

/// A contender that answers.
struct Server {
    address: SocketAddr,
    /// None: it is not ours to end, or to measure.
    process: Option<Running>,
}

impl Bench<'_> {
    /// One round of one contender.
    ///
    /// # Errors
    /// The contender cannot be started, is never ready, answers garbage, or dies; or what measures it fails.
    pub(super) fn round(&self, source: &Source, number: u32) -> Result<Round, Fault> {
        let mut server = self.start(source).map_err(Fault::Contender)?;
        server.wait_until_it_answers(self.stop).map_err(Fault::Contender)?;
        self.measured(&mut server, source, number).map_err(|fault| match (fault, server.ended()) {
            // Then it is no wonder, whoever has noticed it first.
            (_, Some(status)) => {
                Fault::Contender(format!("it ended while it was measured: {status}"))
            }
            (fault, None) => fault,
        })
    }

    /// The part of a round after the contender has answered.
    fn measured(&self, server: &mut Server, source: &Source, number: u32) -> Result<Round, Fault> {
        let instrument = Fault::Instrument;
        let neighbour = self.work.neighbour.then(|| self.neighbour()).transpose();
        let mut neighbour = neighbour.map_err(instrument)?;
        let mut load = self.load(server.address).map_err(instrument)?;
        let warmup = Duration::from_secs_f64(self.options.warmup());
        load.line(warmup + READY_WITHIN, self.stop, |line| (line == load::BEGIN).then_some(()))
            .map_err(instrument)?;
        let own = matches!(source, Source::Own(_));
        // Of a program that is not ours the process is its guard's, and the program is what that has started.
        let pids = || match server.process.as_ref().map(Running::pid) {
            Some(pid) if own => vec![pid],
            Some(guard) => family_of(guard),
            None => Vec::new(),
        };
        // Only ours are known to have such a page.
        let stats = || own.then(|| Stats::of(server.address, self.stop)).flatten();
        let beside = |running: &Running| process::cpu_time(running.pid()).unwrap_or_default().0;
        let began = Instant::now();
        let loaded = beside(&load);
        let disturbed = neighbour.as_ref().map(beside);
        let before = Used::by(&pids());
        let told = stats();
        let span = Duration::from_secs_f64(self.options.seconds());
        // Before the generator closes its connections, and a thread for each ends.
        load.line(span + READY_WITHIN, self.stop, |line| {
            if let Some(rate) = line.strip_prefix(load::NOW).and_then(|it| it.parse().ok()) {
                (self.live)(rate);
            }
            (line == load::END).then_some(())
        })
        .map_err(instrument)?;
        let measured = pids();
        let after = Used::by(&measured);
        let cpu = after.since(&before).filter(|_| !measured.is_empty());
        let switches = process::switches_since(&after.switches, &before.switches)
            .filter(|_| !measured.is_empty());
        let loaded = (beside(&load) - loaded).total();
        let disturbed = neighbour.as_ref().map(beside).zip(disturbed);
        let disturbed = disturbed.map(|(after, before)| (after - before).total());
        let took = began.elapsed();
        let told = stats().zip(told).map(|(after, before)| after.since(&before));
        let rss = process::resident(&measured);
        let outcome: load::Outcome = load
            .line(READY_WITHIN, self.stop, |line| serde_json::from_str(line).ok())
            .map_err(instrument)?;
        if let Some(status) = server.ended() {
            return Err(Fault::Contender(format!("it ended while it was measured: {status}")));
        }
        if let Some(status) = neighbour.as_mut().and_then(|it| it.ended(Duration::ZERO)) {
            return Err(Fault::Instrument(format!("the neighbour has ended: {status}")));
        }
        if outcome.requests == 0 {
            let errors: Vec<_> =
                outcome.errors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            let errors = errors.join(", ");
            return Err(Fault::Contender(format!("it answered no request; errors: {errors}")));
        }
        Ok(Round {
            number,
            seconds: outcome.seconds,
            requests: outcome.requests,
            latencies: outcome.latencies,
            errors: outcome.errors,
            user_micros: cpu.map(|cpu| cpu.user.as_micros() as u64),
            system_micros: cpu.map(|cpu| cpu.system.as_micros() as u64),
            context_switches: switches,
            rss_bytes: rss,
            generator_busy: outcome.generator.busy,
            generator_waited: outcome.generator.waited,
            generator_micros: loaded.as_micros() as u64,
            neighbour: disturbed.map(|had| had.as_secs_f64() / took.as_secs_f64().max(1e-9)),
            per_core: told.as_ref().map(Stats::per_core).unwrap_or_default(),
            crossed: told.as_ref().and_then(Stats::crossed),
        })
    }

    fn start(&self, source: &Source) -> Result<Server, String> {
        match source {
            Source::At(address) => Ok(Server { address: *address, process: None }),
            Source::Own(name) => {
                let mut command = own()?;
                command
                    .args(["contender", name, "--listen", "127.0.0.1:0", "--parent-pipe"])
                    .args(["--threads", &self.threads().to_string()]);
                if self.work.has_large_answers() {
                    command.arg("--large-answers");
                }
                if self.options.rebalance.as_deref() == Some("on") {
                    command.arg("--rebalance");
                }
                let mut process = Running::start(name, &mut command, &self.places.contenders)?;
                let address = process.line(READY_WITHIN, self.stop, |line| {
                    line.strip_prefix("listening on http://")?.parse().ok()
                })?;
                Ok(Server { address, process: Some(process) })
            }
            Source::Command(words) => {
                let address = free_address()?;
                let fill = |word: &String| {
                    word.replace("{addr}", &address.to_string())
                        .replace("{port}", &address.port().to_string())
                        .replace("{threads}", &self.threads().to_string())
                };
                let mut command = own()?;
                command.args(["guard", "--"]).args(words.iter().map(fill));
                let process = Running::start("the guard", &mut command, &self.places.contenders)?;
                Ok(Server { address, process: Some(process) })
            }
        }
    }

    fn neighbour(&self) -> Result<Running, String> {
        let mut command = own()?;
        let cpu = self.places.first();
        command.args(["burn", "--cpu", &cpu.0.to_string()]);
        let mut process = Running::start("the neighbour", &mut command, &[cpu])?;
        process.line(READY_WITHIN, self.stop, |line| (line == "burning").then_some(()))?;
        Ok(process)
    }

    fn load(&self, address: SocketAddr) -> Result<Running, String> {
        let work = self.work;
        let mut command = own()?;
        command
            .args(["load", &format!("http://{address}{}", work.path), "--json", "--parent-pipe"])
            .args(["--threads", &self.places.generator_threads().to_string()])
            .args(["--connections", &work.connections.count(self.threads()).to_string()])
            .args(["--duration", &self.options.seconds().to_string()])
            .args(["--warmup", &self.options.warmup().to_string()])
            .args(["--pipeline", &work.pipeline.to_string()])
            .args(["--idle", &work.idle.to_string()]);
        if work.close {
            command.arg("--close");
        }
        if work.skewed {
            command.arg("--skewed");
        }
        if let Some(bytes) = work.upload {
            command.args(["--upload", &bytes.to_string()]);
        }
        if let Some(rate) = self.options.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        Running::start("the load generator", &mut command, &self.places.generator)
    }

    /// Threads that serve.
    fn threads(&self) -> usize {
        self.places.contenders.len()
    }
}

/// This program.
fn own() -> Result<Command, String> {
    let file = std::env::current_exe().map_err(|error| format!("its own file: {error}"))?;
    Ok(Command::new(file))
}

/// An address that was free a moment ago.
fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map_err(|error| format!("no port: {error}"))
}

impl Server {
    /// How it has ended, if it has and is ours to end.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.ended(Duration::ZERO)
    }

    /// # Errors
    /// It ends, does not answer in time, what it answers is not HTTP, or somebody wants everything to end.
    fn wait_until_it_answers(&mut self, stop: &Stop) -> Result<(), String> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.ended() {
                return Err(format!("it ended before it answered: {status}"));
            }
            if stop.is_requested() {
                return Err("it was interrupted".to_owned());
            }
            match get(self.address, "/", stop) {
                Ok(answer) if answer.starts_with("HTTP/1.") => return Ok(()),
                Ok(answer) => {
                    let begin: String = answer.chars().take(40).collect();
                    return Err(format!("what it answers is not HTTP: {begin:?}"));
                }
                Err(error) if Instant::now() > until => {
                    return Err(format!(
                        "it did not answer within {} s: {error}",
                        READY_WITHIN.as_secs()
                    ));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// An answer, on a connection of its own: until that is closed, there is too much of it, its time is over, or everything is to end.
fn get(address: SocketAddr, path: &str, stop: &Stop) -> std::io::Result<String> {
    let until = Instant::now() + ANSWER_WITHIN;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(STOPS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while answer.len() < ANSWER_MAX {
        let error = match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                answer.extend_from_slice(&piece[..count]);
                None
            }
            Err(error) => Some(error),
        };
        let is_over = stop.is_requested() || Instant::now() >= until;
        match error {
            Some(error) if is_over || !may_go_on(&error) => {
                if answer.is_empty() {
                    return Err(error);
                }
                break;
            }
            None if is_over => break,
            _ => {}
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Nothing has come yet, and that is all.
fn may_go_on(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// What a contender's processes have used.
#[derive(Clone, Debug, Default)]
struct Used {
    /// Of each process: what it has used itself, and the children that it has waited for.
    cpu: BTreeMap<u32, (process::CpuTime, process::CpuTime)>,
    /// Of each thread.
    switches: BTreeMap<u32, u64>,
}

impl Used {
    fn by(pids: &[u32]) -> Used {
        let mut all = Used::default();
        for &pid in pids {
            all.cpu.extend(process::cpu_time(pid).map(|used| (pid, used)));
            all.switches.extend(process::context_switches(pid));
        }
        all
    }

    /// What they have used since. None: one has ended, and its parent was not told what it had used.
    fn since(&self, before: &Used) -> Option<process::CpuTime> {
        let sum = |all: &Used| {
            all.cpu
                .values()
                .fold(process::CpuTime::default(), |sum, (own, waited)| sum + *own + *waited)
        };
        let ended = before.cpu.iter().filter(|(pid, _)| !self.cpu.contains_key(pid));
        let gone: Duration = ended.clone().map(|(_, (own, _))| own.total()).sum();
        let waited =
            |all: &Used| -> Duration { all.cpu.values().map(|(_, waited)| waited.total()).sum() };
        let told = waited(self).saturating_sub(waited(before));
        (told + process::TICK * ended.count() as u32 >= gone).then(|| sum(self) - sum(before))
    }
}

/// What a contender tells of itself at `/stats`.
#[derive(Clone, Debug, Default, Deserialize)]
struct Stats {
    #[serde(default)]
    shards: Vec<Told>,
    #[serde(default)]
    threads: Vec<Told>,
}

/// Of one core.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Told {
    #[serde(default)]
    requests: u64,
    #[serde(default)]
    foreign_wakes: u64,
    #[serde(default)]
    steals: u64,
    #[serde(default)]
    inbox_messages: u64,
}

impl Stats {
    /// None: it tells nothing.
    fn of(address: SocketAddr, stop: &Stop) -> Option<Stats> {
        let answer = get(address, "/stats", stop).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| serde_json::from_str(body).ok()).flatten()
    }

    fn since(&self, before: &Stats) -> Stats {
        let each = |after: &[Told], before: &[Told]| {
            let pairs = after.iter().zip(before);
            pairs.map(|(after, before)| after.since(before)).collect()
        };
        Stats {
            shards: each(&self.shards, &before.shards),
            threads: each(&self.threads, &before.threads),
        }
    }

    fn per_core(&self) -> Vec<u64> {
        self.shards.iter().chain(&self.threads).map(|told| told.requests).collect()
    }

    fn crossed(&self) -> Option<Crossed> {
        let sum = |count: fn(&Told) -> u64| self.shards.iter().map(count).sum();
        (!self.shards.is_empty()).then(|| Crossed {
            foreign_wakes: sum(|told| told.foreign_wakes),
            steals: sum(|told| told.steals),
            inbox_messages: sum(|told| told.inbox_messages),
        })
    }
}

impl Told {
    fn since(self, before: &Told) -> Told {
        Told {
            requests: self.requests.saturating_sub(before.requests),
            foreign_wakes: self.foreign_wakes.saturating_sub(before.foreign_wakes),
            steals: self.steals.saturating_sub(before.steals),
            inbox_messages: self.inbox_messages.saturating_sub(before.inbox_messages),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn used(all: &[(u32, u64, u64)]) -> Used {
        let time =
            |millis| process::CpuTime { user: Duration::from_millis(millis), ..Default::default() };
        let cpu = all.iter().map(|&(pid, own, waited)| (pid, (time(own), time(waited)))).collect();
        Used { cpu, switches: BTreeMap::new() }
    }

    #[test]
    fn what_ended_processes_have_used_is_known_if_their_parent_was_told() {
        let total =
            |after: Used, before: Used| after.since(&before).map(|it| it.total().as_millis());
        let before = || used(&[(1, 100, 0), (2, 50, 0)]);
        assert_eq!(total(used(&[(1, 300, 0), (2, 60, 0)]), before()), Some(210));
        // The second has used 30 more until its end, and the first was told; a third is new.
        assert_eq!(total(used(&[(1, 100, 80), (3, 5, 0)]), before()), Some(35));
        assert_eq!(total(used(&[(1, 300, 0)]), before()), None);
        // Nothing is known of nobody; of one that has done nothing, that.
        assert_eq!(total(used(&[(1, 100, 0), (2, 50, 0)]), before()), Some(0));
    }
}
