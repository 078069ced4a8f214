//! From a draft to a configuration: whether everything that was given makes sense together.
//!
//! Goes on after what is wrong, so that everything is said at once. What the machine has is passed in.

mod listeners;
mod routes;
mod tls;

use super::draft::Draft;
use super::keys::{self, Key};
use super::problem::{Place, Problem, closest};
use super::value::{Name, Table};
use super::{AccessLog, Config, Core, Listener, LogLevel, Shard};
use crate::id::CpuId;
use crate::limits::{Limits, WhenFull};
use crate::mode::{Mode, Pin};
use crate::sys::cpus::Usable;
use crate::topology::{Cores, Placement, Ranges};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::PathBuf;

/// The configuration, as far as there is one, and what is wrong or unwise.
pub(crate) struct Checked {
    /// Of use only if nothing is wrong.
    pub(crate) config: Config,
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
    pub(crate) expired: Vec<Problem>,
}

/// Checks a draft. Without `usable`, whether the CPUs can be had is not asked.
pub(crate) fn check(draft: &Draft, usable: Option<&Usable>) -> Checked {
    let mut checker =
        Checker { draft, errors: Vec::new(), warnings: Vec::new(), expired: Vec::new() };
    let config = checker.config(usable);
    let Checker { errors, warnings, expired, .. } = checker;
    Checked { config, errors, warnings, expired }
}

struct Checker<'a> {
    draft: &'a Draft,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    expired: Vec<Problem>,
}

impl Checker<'_> {
    fn wrong(&mut self, place: Place, message: impl Into<String>) {
        self.errors.push(Problem::new(place, message));
    }

    fn config(&mut self, usable: Option<&Usable>) -> Config {
        let draft = self.draft;
        let runtime = &draft.runtime;
        let mode = mode(runtime);
        let cores = runtime.cores(&keys::CORES).unwrap_or_default();
        let blocking_threads = number(runtime, &keys::BLOCKING_THREADS);
        let shard = shard(&draft.shard, None, blocking_threads);
        let mut listeners = self.listeners();
        let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
        let on = self.placement(&cores, usable);
        let core = self.cores(&names, on.as_deref(), usable, blocking_threads);
        match mode {
            Mode::ThreadPerCore => self.served(&listeners, &core, on.as_deref()),
            Mode::WorkStealing => self.not_for_workers(),
        }
        self.file_name(runtime, &keys::PID_FILE);
        let routes = self.routes(&names);
        for listener in &mut listeners {
            listener.limits.send_files =
                routes.iter().any(|route| route.has_files_of(&listener.name));
        }
        Config {
            mode,
            cores,
            pin: runtime.text(&keys::PIN).map(|text| pin(&text)),
            rebalance: runtime.text(&keys::REBALANCE).as_deref() == Some("on"),
            max_connections: runtime.count(&keys::MAX_CONNECTIONS),
            when_full: match runtime.text(&keys::WHEN_FULL).as_deref() {
                Some("close") => WhenFull::Close,
                _ => WhenFull::Answer,
            },
            pid_file: runtime.text(&keys::PID_FILE).map(PathBuf::from),
            log: runtime.text(&keys::LOG).map(|text| log_level(&text)).unwrap_or_default(),
            logs_json: runtime.text(&keys::LOG_FORMAT).as_deref() == Some("json"),
            drain: runtime.time(&keys::DRAIN).unwrap_or_default(),
            shard,
            core,
            listeners,
            routes,
            access_log: self.access_log(),
            warnings: Vec::new(),
            expired: Vec::new(),
        }
    }

    fn access_log(&mut self) -> Option<AccessLog> {
        let table = &self.draft.access_log;
        let Some(path) = table.text(&keys::ACCESS_LOG_PATH) else {
            if *table != Table::default() || table.span.is_some() {
                self.needed(table, &keys::ACCESS_LOG_PATH, "path = \"-\"");
            }
            return None;
        };
        self.file_name(table, &keys::ACCESS_LOG_PATH);
        let format = table.text(&keys::ACCESS_LOG_FORMAT).unwrap_or_default();
        Some(AccessLog { path, format })
    }

    /// The CPUs that get a shard, as far as that can be told.
    fn placement(&mut self, cores: &Cores, usable: Option<&Usable>) -> Option<Vec<CpuId>> {
        let place = self.draft.runtime.place(&keys::CORES);
        match (usable, cores) {
            (Some(usable), _) => match Placement::on(usable, cores) {
                Ok(placement) => {
                    // Who asks for every CPU means siblings too; who asks for some may not know that they are.
                    if matches!(cores, Cores::Count(_) | Cores::List(_)) {
                        let texts = placement
                            .warnings
                            .iter()
                            .map(|warning| Problem::new(place.clone(), warning.to_string()));
                        self.warnings.extend(texts);
                    }
                    Some(placement.cpus)
                }
                Err(error) => {
                    self.errors.push(Problem::new(place, error.to_string()).of(keys::CORES.name));
                    None
                }
            },
            (None, Cores::List(list)) => Some(list.clone()),
            (None, _) => None,
        }
    }

    fn cores(
        &mut self,
        names: &[&str],
        on: Option<&[CpuId]>,
        usable: Option<&Usable>,
        blocking_threads: usize,
    ) -> Vec<Core> {
        let draft = self.draft;
        let mut cores = Vec::new();
        let mut seen = First::default();
        for table in &draft.cores {
            let listeners = table.names(&keys::CORE_LISTENERS);
            let mut named = First::default();
            for name in listeners.iter().flatten() {
                self.known_listener(&keys::CORE_LISTENERS, &name.text, name.place.clone(), names);
                if named.again(name.text.clone(), &name.place).is_some() {
                    self.wrong(name.place.clone(), format!("\"{}\" is named twice", name.text));
                }
            }
            let Some(cpu) = table.cpu(&keys::CPU) else {
                // One that is there but wrong has had its word.
                self.needed(table, &keys::CPU, "cpu = 0");
                continue;
            };
            let place = table.place(&keys::CPU);
            if let Some(first) = seen.again(cpu, &place) {
                self.twice(place, &format!("{cpu} has a [[core]] of its own"), first);
            } else if let Some(on) = on.filter(|on| !on.contains(&cpu)) {
                let allowed = usable.filter(|usable| !usable.allowed.contains(&cpu));
                self.wrong(
                    place,
                    match allowed {
                        Some(usable) => format!(
                            "{cpu} is not among the CPUs this process may use ({})",
                            Ranges(&usable.allowed)
                        ),
                        None => format!("{cpu} gets no shard: those that do are {}", Ranges(on)),
                    },
                );
            }
            let texts = |names: Vec<Name>| names.into_iter().map(|name| name.text).collect();
            cores.push(Core {
                cpu,
                shard: shard(&draft.shard, Some(table), blocking_threads),
                listeners: listeners.map(texts),
            });
        }
        cores
    }

    /// Whether each listener has a core that serves it.
    fn served(&mut self, listeners: &[Listener], cores: &[Core], on: Option<&[CpuId]>) {
        let Some(on) = on else { return };
        let named: HashSet<&String> =
            cores.iter().flat_map(|core| core.listeners.iter().flatten()).collect();
        let serves_the_rest =
            |cpu: &CpuId| cores.iter().all(|core| core.cpu != *cpu || core.listeners.is_none());
        if on.iter().any(serves_the_rest) {
            return;
        }
        for (index, listener) in
            listeners.iter().enumerate().filter(|(_, listener)| !named.contains(&listener.name))
        {
            let place = self
                .draft
                .listeners
                .get(index)
                .map_or(Place::Nowhere, |table| table.place(&keys::NAME));
            let message = format!(
                "no core serves \"{}\": every core says which listeners it serves, and none names this one",
                listener.name
            );
            self.wrong(place, message);
        }
    }

    fn file_name(&mut self, table: &Table, key: &'static Key) {
        if table.text(key).is_some_and(|name| name.is_empty() || name.contains('\0')) {
            let problem = Problem::new(table.place(key), "that is no name of a file");
            self.errors.push(problem.of(key.name));
        }
    }

    /// What means nothing in work-stealing mode.
    fn not_for_workers(&mut self) {
        let draft = self.draft;
        let anything =
            "in work-stealing mode any worker serves any connection, so it means nothing";
        let names = draft.cores.iter().map(|table| (table, &keys::CORE_LISTENERS));
        let bounds = std::iter::once(&draft.shard).chain(&draft.cores);
        let bounds = bounds.map(|table| (table, &keys::SHARD_MAX_CONNECTIONS));
        let policies = draft.listeners.iter().map(|table| (table, &keys::BALANCE));
        let rebalance = std::iter::once((&draft.runtime, &keys::REBALANCE));
        for (table, key) in rebalance.chain(names).chain(bounds).chain(policies) {
            if table.get(key).is_some_and(|set| Some(&set.value) != key.default().as_ref()) {
                self.warnings.push(Problem::new(table.place(key), anything).of(key.name));
            }
        }
    }

    /// Says that a key is missing, unless it is there and was refused.
    fn needed(&mut self, table: &Table, key: &Key, example: &str) {
        if !table.has_refused(key) {
            let message = format!("{} is missing", key.name);
            self.errors.push(
                Problem::new(table.beginning(), message).hint(format!("for example: {example}")),
            );
        }
    }

    fn known_listener(&mut self, key: &'static Key, name: &str, place: Place, names: &[&str]) {
        let unsure = self.draft.listeners.iter().any(|table| table.has_refused(&keys::NAME));
        if !unsure && !names.contains(&name) {
            let hint = match closest(name, names.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("those that there are: {}", names.join(", ")),
            };
            let message = format!("there is no listener \"{name}\"");
            self.errors.push(Problem::new(place, message).hint(hint).of(key.name));
        }
    }

    fn twice(&mut self, place: Place, what: &str, first: Place) {
        let since = match first {
            Place::File(span) => {
                format!(" since line {}", self.draft.source.position(span.start).0)
            }
            _ => String::new(),
        };
        self.wrong(place, format!("{what} already{since}"));
    }
}

/// Where each of several things was met first.
struct First<T>(HashMap<T, Place>);

impl<T> Default for First<T> {
    fn default() -> Self {
        First(HashMap::new())
    }
}

impl<T: Hash + Eq> First<T> {
    /// Some if it was met before: where.
    fn again(&mut self, thing: T, place: &Place) -> Option<Place> {
        match self.0.entry(thing) {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(place.clone());
                None
            }
        }
    }
}

fn mode(runtime: &Table) -> Mode {
    match runtime.text(&keys::MODE).as_deref() {
        Some("work-stealing") => Mode::WorkStealing,
        _ => Mode::ThreadPerCore,
    }
}

fn pin(text: &str) -> Pin {
    match text {
        "required" => Pin::Required,
        "off" => Pin::Off,
        _ => Pin::BestEffort,
    }
}

fn log_level(text: &str) -> LogLevel {
    match text {
        "error" => LogLevel::Error,
        "warning" => LogLevel::Warning,
        _ => LogLevel::Info,
    }
}

/// A count that has a default. What was refused is 0, and of no use anyway.
fn number(table: &Table, key: &Key) -> usize {
    table.count(key).unwrap_or_default() as usize
}

/// The settings of a shard: those of its core, or else of `[shard]`.
fn shard(all: &Table, core: Option<&Table>, blocking_threads: usize) -> Shard {
    let table = |key: &Key| core.filter(|core| core.get(key).is_some()).unwrap_or(all);
    let count = |key: &Key| number(table(key), key);
    let time = |key: &Key| table(key).time(key).unwrap_or_default();
    Shard {
        limits: Limits {
            polls_per_turn: count(&keys::POLLS_PER_TURN) as u32,
            turn_time: time(&keys::TURN_TIME),
            io_per_poll: count(&keys::IO_PER_POLL) as u32,
            messages_per_turn: count(&keys::MESSAGES_PER_TURN),
            inbox_capacity: count(&keys::INBOX_CAPACITY),
            timers_per_turn: count(&keys::TIMERS_PER_TURN),
            events: count(&keys::EVENTS),
            busy_poll: time(&keys::BUSY_POLL),
            blocking_threads,
        },
        stall_threshold: time(&keys::STALL_THRESHOLD),
        max_connections: table(&keys::SHARD_MAX_CONNECTIONS).count(&keys::SHARD_MAX_CONNECTIONS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::config::problem::warning;
    use crate::sys::cpus::{CpuInfo, Topology};

    /// A machine of rows of CPU, core, package and node, all of which may be used.
    fn machine(rows: &[(usize, u32, u32, u32)]) -> Usable {
        let cpu = |&(cpu, core, package, node): &(usize, u32, u32, u32)| CpuInfo {
            cpu: CpuId(cpu),
            core,
            package,
            node,
        };
        let topology = Topology { cpus: rows.iter().map(cpu).collect() };
        let allowed: Vec<CpuId> = topology.cpus.iter().map(|info| info.cpu).collect();
        Usable { topology, count: allowed.len(), allowed }
    }

    fn checked(text: &str, usable: &Usable) -> (Vec<String>, Vec<String>) {
        let (draft, problems) =
            Draft::from_source(Source { name: "f".into(), text: text.into(), ..Source::default() });
        assert!(problems.is_empty(), "{problems:?}");
        let Checked { errors, warnings, .. } = check(&draft, Some(usable));
        let texts = |problems: &[Problem]| {
            problems.iter().map(|problem| warning(&draft.source, problem)).collect()
        };
        (texts(&errors), texts(&warnings))
    }

    #[test]
    fn two_shards_on_one_core_are_warned_about_where_they_were_asked_for() {
        let smt = machine(&[0, 1, 2, 3].map(|cpu| (cpu, cpu as u32 % 2, 0, 0)));
        let (errors, warnings) = checked("[runtime]\ncores = [0, 2]\n", &smt);
        assert_eq!(errors, [""; 0]);
        let expected = "f:2:9: shards share a physical core on CPUs 0+2\n  2 | cores = [0, 2]\n    |         ^^^^^^";
        assert_eq!(warnings, [expected]);
        for quiet in ["cores = \"physical\"", "cores = 2", "cores = \"all\"", "cores = [0, 3]"] {
            let (errors, warnings) = checked(&format!("[runtime]\n{quiet}\n"), &smt);
            assert_eq!((errors.len(), warnings.len()), (0, 0), "{quiet}");
        }
    }

    #[test]
    fn a_machine_with_holes_in_its_numbers_names_what_it_has() {
        let holes = machine(&[(1, 0, 0, 0), (4, 1, 0, 0), (9, 2, 1, 1)]);
        let (errors, _) = checked("[[core]]\ncpu = 2\n[[core]]\ncpu = 9\n", &holes);
        assert_eq!(
            errors,
            [
                "f:2:7: CPU 2 is not among the CPUs this process may use (1,4,9)\n  2 | cpu = 2\n    |       ^"
            ]
        );
        let (errors, _) = checked("[runtime]\ncores = 2\n[[core]]\ncpu = 9\n", &holes);
        assert_eq!(
            errors,
            ["f:4:7: CPU 9 gets no shard: those that do are 1,4\n  4 | cpu = 9\n    |       ^"]
        );
    }

    #[test]
    fn a_quota_makes_fewer_shards_of_all_and_a_core_of_the_rest_an_error() {
        let quota = Usable { count: 1, ..machine(&[(0, 0, 0, 0), (1, 1, 0, 0)]) };
        let (errors, _) = checked("[[core]]\ncpu = 1\n", &quota);
        assert_eq!(
            errors,
            ["f:2:7: CPU 1 gets no shard: those that do are 0\n  2 | cpu = 1\n    |       ^"]
        );
        assert!(checked("[runtime]\ncores = [0, 1]\n[[core]]\ncpu = 1\n", &quota).0.is_empty());
    }

    #[test]
    fn a_machine_of_two_sockets_fills_one_before_the_other() {
        let sockets =
            machine(&[0, 1, 2, 3].map(|cpu| (cpu, cpu as u32 / 2, cpu as u32 % 2, cpu as u32 % 2)));
        assert!(checked("[runtime]\ncores = 2\n[[core]]\ncpu = 2\n", &sockets).0.is_empty());
        assert_eq!(checked("[runtime]\ncores = 2\n[[core]]\ncpu = 1\n", &sockets).0.len(), 1);
    }
}
