//! Running: scenarios, rounds, contenders.

use super::Options;
use super::bench::{Bench, Fault, Source};
use super::model::{Contender, FORMAT, Machine, Report, Scenario};
use super::places::Places;
use super::scenario;
use super::versions::made_of;
use super::words::{command_line, words};
use crate::sync::{AtomicBool, Ordering};
use crate::sys::process::{Others, kill_descendants};
use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The contenders that this program has, in the order of the tables, and what the tables call them.
pub(super) const OURS: [(&str, &str); 6] = [
    ("thread-per-core", "Corelane, thread per core"),
    ("work-stealing", "Corelane, work stealing"),
    ("tokio", "Tokio, multi-thread"),
    ("tokio-per-core", "Tokio, a runtime per core"),
    ("blocking", "one blocking thread"),
    ("thread-per-connection", "a thread per connection"),
];

/// Whether somebody wants it to end.
#[derive(Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    pub(super) fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Who takes part.
#[derive(Clone, Debug)]
struct Entrant {
    name: String,
    architecture: String,
    source: Source,
}

/// What is to be measured, if it makes sense.
pub(super) struct Plan<'a> {
    options: &'a Options,
    scenarios: Vec<scenario::Scenario>,
    entrants: Vec<Entrant>,
    places: Places,
}

impl Plan<'_> {
    /// What the options ask for.
    ///
    /// # Errors
    /// That makes no sense.
    pub(super) fn of(options: &Options) -> Result<Plan<'_>, String> {
        if let Some(rate) = options.rate
            && rate * options.seconds() < 1.0
        {
            let seconds = options.seconds();
            return Err(format!(
                "--rate {rate}: in a round of {seconds} s nothing would be due; give it a longer --duration"
            ));
        }
        Ok(Plan {
            options,
            scenarios: scenario::chosen(options)?,
            entrants: entrants(options)?,
            places: Places::plan(options)?,
        })
    }
}

/// Runs everything; tells each scenario's table to `show` when it is over. That a contender fails is no error.
pub(super) fn run(plan: Plan, stop: &Stop, show: impl Fn(&str)) -> Report {
    let Plan { options, scenarios, entrants, places } = plan;
    let progress = RefCell::new(Progress::new(scenarios.len(), entrants.len(), options));
    let live = |rate| progress.borrow().live(rate);
    let mut report = Report {
        format: FORMAT,
        command: command_line(std::env::args_os().map(|it| it.to_string_lossy().into_owned())),
        date: now(),
        machine: machine(&places),
        versions: entrants.iter().map(|it| (it.name.clone(), made_of(&it.source))).collect(),
        seconds: options.seconds(),
        rounds: options.rounds(),
        interrupted: false,
        scenarios: Vec::new(),
    };
    let mut others = Others::now();
    for scenario in scenarios {
        let mut result = Scenario {
            connections: scenario.work.connections.count(places.contenders.len()),
            name: scenario.name,
            asks: scenario.asks,
            expects: scenario.expects,
            rate: options.rate,
            payload: scenario.work.payload,
            pipeline: scenario.work.pipeline,
            contenders: entrants.iter().map(Entrant::empty).collect(),
        };
        let bench = Bench { options, work: &scenario.work, stop, places: &places, live: &live };
        'rounds: for number in 0..options.rounds() {
            for index in order(entrants.len(), number as usize) {
                if stop.is_requested() {
                    break 'rounds;
                }
                let contender = &mut result.contenders[index];
                progress.borrow_mut().step(&result.name, &entrants[index].name, number);
                if contender.failure.is_none() {
                    let source = &entrants[index].source;
                    let mut round = alone(&mut others, || bench.round(source, number));
                    // It may have been chance.
                    if let Err(Fault::Instrument(_)) = round
                        && !stop.is_requested()
                    {
                        round = alone(&mut others, || bench.round(source, number));
                    }
                    match round {
                        Ok(round) => {
                            progress.borrow_mut().rate =
                                Some(round.requests as f64 / round.seconds);
                            contender.rounds.push(round);
                        }
                        // That is why it has failed.
                        Err(_) if stop.is_requested() => {}
                        Err(Fault::Contender(failure)) => contender.failure = Some(failure),
                        Err(Fault::Instrument(why)) => {
                            contender.dropped.push(format!("round {}: {why}", number + 1));
                        }
                    }
                }
            }
        }
        progress.borrow().clear();
        let measured = result
            .contenders
            .iter()
            .any(|it| !it.rounds.is_empty() || it.failure.is_some() || !it.dropped.is_empty());
        if measured {
            show(&super::report::table(&result));
            report.scenarios.push(result);
        }
        if stop.is_requested() {
            report.interrupted = true;
            break;
        }
    }
    report
}

impl Entrant {
    fn empty(&self) -> Contender {
        Contender {
            name: self.name.clone(),
            architecture: self.architecture.clone(),
            rounds: Vec::new(),
            failure: None,
            dropped: Vec::new(),
        }
    }
}

/// How long it may take until whatever a round has left behind is gone.
const GONE_WITHIN: Duration = Duration::from_millis(1500);

/// Does it, and ends whatever that has left behind: what has left its group, and its guard was killed. Who was there before is not
/// ours: a shell that becomes this program leaves it its children.
fn alone<T>(others: &mut Others, round: impl FnOnce() -> T) -> T {
    others.look();
    let result = round();
    kill_descendants(others, GONE_WITHIN);
    result
}

/// Who runs when in a round: each is the first in turn, and every second round goes the other way, so that nobody always comes after
/// the same one.
fn order(count: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).map(|step| (step + round / 2) % count).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Who takes part.
fn entrants(options: &Options) -> Result<Vec<Entrant>, String> {
    let own = |&(name, architecture): &(&str, &str)| Entrant {
        name: name.to_owned(),
        architecture: architecture.to_owned(),
        source: Source::Own(name.to_owned()),
    };
    let mut chosen = Vec::new();
    for text in &options.contender {
        // One of ours under two names shows what is noise: tokio, tokio#2.
        let plain = text.split('#').next().unwrap_or(text);
        if let Some((name, url)) = text.split_once('=') {
            name_of_its_own(name)?;
            chosen.push(Entrant {
                name: name.to_owned(),
                architecture: name.to_owned(),
                source: Source::At(address_of(url)?),
            });
        } else if let Some(known) = OURS.iter().find(|(name, _)| *name == plain) {
            let suffix = &text[plain.len()..];
            let architecture =
                format!("{}{}{suffix}", known.1, if suffix.is_empty() { "" } else { " " });
            chosen.push(Entrant {
                name: text.clone(),
                architecture,
                source: Source::Own(plain.to_owned()),
            });
        } else {
            let names: Vec<_> = OURS.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "there is no contender {text}; there are: {}; or NAME=http://ADDRESS:PORT",
                names.join(", ")
            ));
        }
    }
    // Only what runs elsewhere was given: it is one more.
    if chosen.iter().all(|entrant| !matches!(entrant.source, Source::Own(_))) {
        chosen = OURS.iter().map(own).chain(chosen).collect();
    }
    for text in &options.command {
        let (name, command) = text.split_once('=').ok_or_else(|| {
            format!(
                "--command {text}: wanted NAME=COMMAND, as 'mine=./my-server --listen {{addr}}'"
            )
        })?;
        name_of_its_own(name)?;
        let words = words(command).filter(|words| !words.is_empty()).ok_or_else(|| {
            format!("--command {text}: a quote is not closed, or there is nothing to start")
        })?;
        chosen.push(Entrant {
            name: name.to_owned(),
            architecture: name.to_owned(),
            source: Source::Command(words),
        });
    }
    let twice = chosen.iter().enumerate().find(|(index, entrant)| {
        chosen.iter().skip(index + 1).any(|other| other.name == entrant.name)
    });
    match twice {
        Some((_, entrant)) => Err(format!(
            "{name} takes part twice: name the second {name}#2, to see what is noise",
            name = entrant.name
        )),
        None => Ok(chosen),
    }
}

/// # Errors
/// It is the name of one of ours, of which the verdict says more than of others.
fn name_of_its_own(name: &str) -> Result<(), String> {
    let plain = name.split('#').next().unwrap_or(name);
    if plain.is_empty() {
        return Err("a contender needs a name before the =".into());
    }
    if OURS.iter().any(|(known, _)| *known == plain) {
        return Err(format!(
            "{name} is the name of a contender of this program: call yours something else"
        ));
    }
    Ok(())
}

/// The address in `http://ADDRESS:PORT`.
fn address_of(url: &str) -> Result<SocketAddr, String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !path.is_empty() {
        return Err(format!("{url}: the path is the scenario's: leave /{path} out"));
    }
    authority
        .parse()
        .map_err(|_| format!("{url}: wanted http://ADDRESS:PORT, as http://127.0.0.1:8080"))
}

/// What has been done, and what is left, on standard error.
struct Progress {
    terminal: bool,
    /// What one step takes, by what is planned.
    step: Duration,
    left: u64,
    /// Requests per second of the last round.
    rate: Option<f64>,
    /// What is being done.
    text: String,
}

impl Progress {
    fn new(scenarios: usize, entrants: usize, options: &Options) -> Progress {
        let seconds = options.seconds() + options.warmup() + 0.2;
        Progress {
            terminal: std::io::stderr().is_terminal(),
            step: Duration::from_secs_f64(seconds),
            left: (scenarios as u64 * entrants as u64).saturating_mul(options.rounds().into()),
            rate: None,
            text: String::new(),
        }
    }

    fn step(&mut self, scenario: &str, contender: &str, round: u32) {
        let left = self.step.as_secs_f64() * self.left as f64;
        let left = Duration::from_secs_f64(left.min(1e9));
        self.left = self.left.saturating_sub(1);
        self.text = format!(
            "{scenario}, round {}: {contender}; about {}:{:02} left",
            round + 1,
            left.as_secs() / 60,
            left.as_secs() % 60,
        );
        let last =
            self.rate.map_or(String::new(), |rate| format!("; the last: {rate:.0} requests/s"));
        if self.terminal {
            self.draw(&last);
        } else {
            let _ = writeln!(std::io::stderr(), "{}{last}", self.text);
        }
    }

    /// What comes of the round that goes on, on a terminal.
    fn live(&self, rate: f64) {
        if self.terminal {
            self.draw(&format!("; now {rate:.0} requests/s"));
        }
    }

    fn draw(&self, rate: &str) {
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "\r\x1b[K{}{rate}", self.text).and_then(|()| out.flush());
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn machine(places: &Places) -> Machine {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let value =
            |line: &str| line.strip_prefix(name)?.split_once(':').map(|it| it.1.trim().to_owned());
        text.lines().find_map(value).unwrap_or_default()
    };
    let kilobytes = field(&read("/proc/meminfo"), "MemTotal");
    let kilobytes =
        kilobytes.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
    let mut machine = Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        cpus: places.allowed,
        memory_bytes: kilobytes.unwrap_or(0) * 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Machine::default()
    };
    places.note(&mut machine);
    machine
}

/// The time in UTC, as `2026-11-25 09:30 UTC`.
fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = date(seconds / 86_400);
    let minutes = seconds / 60 % (24 * 60);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// Year, month and day of so many days after 1970-01-01, in the Gregorian calendar.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_782, (2026, 11, 25)),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn every_order_has_its_turn() {
        let orders = |count: usize, rounds: usize| -> Vec<Vec<usize>> {
            (0..rounds).map(|round| order(count, round)).collect()
        };
        assert_eq!(orders(2, 4), [[0, 1], [1, 0], [1, 0], [0, 1]]);
        let mut three = orders(3, 6);
        assert_eq!(three[..2], [[0, 1, 2], [2, 1, 0]]);
        three.sort();
        three.dedup();
        assert_eq!(three.len(), 6);
    }

    #[test]
    fn addresses_are_read() {
        let wanted: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        for text in ["http://127.0.0.1:80", "http://127.0.0.1:80/", "127.0.0.1:80"] {
            assert_eq!(address_of(text), Ok(wanted));
        }
        assert!(address_of("http://localhost").is_err());
    }
}
