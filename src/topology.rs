//! Where shards go: the wish for cores (`Cores`), and the plan made of it, of what the process may use, and of how
//! the machine is built.
//!
//! Plain data and pure functions. A plan is made once, by the thread that builds a runtime, before any shard exists;
//! no shard comes here. What the machine has is read by `sys::cpus`, which also defines `Topology`.
//!
//! Invariants of a plan: it is never empty, names no CPU twice and none that is not allowed; its order is the order
//! of the shards.
//!
//! It never reads `/sys`, never pins, and never makes do with less than was asked for: what cannot be had is an
//! error that names what can. Advice, which does not stop anything, is a warning beside the plan.

use crate::id::CpuId;
pub(crate) use crate::sys::cpus::{CpuInfo, Topology, Usable};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// The highest CPU number that can be asked for.
const HIGHEST_CPU: usize = crate::sys::affinity::CPU_LIMIT - 1;

/// Which CPUs are to have a shard, one each.
///
/// # In writing
///
/// | text | meaning |
/// |---|---|
/// | `all` | every CPU this process may use, within its CPU quota: [`Cores::All`] |
/// | `physical` | one CPU of each physical core, whatever the quota: [`Cores::Physical`] |
/// | `4` | this many, chosen by the runtime: [`Cores::Count`] |
/// | `0,2` or `0-3,8` | these CPUs, in this order: [`Cores::List`] |
/// | `cpu:1` or `1,` | this one CPU: a bare `1` would be a count |
///
/// ```
/// use corelane::{Cores, CpuId};
///
/// assert_eq!("4".parse(), Ok(Cores::Count(4)));
/// assert_eq!("cpu:1".parse(), Ok(Cores::List(vec![CpuId(1)])));
/// let cores: Cores = "0-2,8".parse()?;
/// assert_eq!(cores, Cores::List(vec![CpuId(0), CpuId(1), CpuId(2), CpuId(8)]));
/// assert_eq!(cores.to_string(), "0-2,8");
///
/// let error = "0-3,2".parse::<Cores>().unwrap_err();
/// assert_eq!(error.to_string(), "CPU 2 is listed twice");
/// # Ok::<(), corelane::PlacementError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// As many as this process may keep busy: the CPUs it is allowed to use or, if its CPU quota is smaller, that
    /// many of them. The default.
    ///
    /// Physical cores come first; what is left of the number goes to their SMT siblings.
    #[default]
    All,
    /// One CPU of each physical core that this process may use, and no SMT siblings. The quota does not matter.
    Physical,
    /// This many of the allowed CPUs, physical cores first, one NUMA node after the other. More than the quota is
    /// granted; more than there are allowed CPUs is an error.
    Count(usize),
    /// These CPUs: shard 0 runs on the first of them.
    List(Vec<CpuId>),
}

impl FromStr for Cores {
    type Err = PlacementError;

    /// Parses the forms in the table above. Spaces around the text and around the items of a list do not matter.
    ///
    /// # Errors
    ///
    /// A [`PlacementError`] that says what is wrong with the text: one of those up to
    /// [`Duplicate`](PlacementError::Duplicate).
    fn from_str(text: &str) -> Result<Self, PlacementError> {
        let text = text.trim();
        match text {
            "" => Err(PlacementError::Empty),
            "all" => Ok(Cores::All),
            "physical" => Ok(Cores::Physical),
            _ if is_number(text) => match text.parse() {
                Ok(0) => Err(PlacementError::ZeroCount),
                Ok(count) => Ok(Cores::Count(count)),
                Err(_) => Err(PlacementError::CountTooLarge(text.to_owned())),
            },
            _ => parse_list(text).map(Cores::List),
        }
    }
}

impl fmt::Display for Cores {
    /// The form that parses to the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => f.write_str("all"),
            Cores::Physical => f.write_str("physical"),
            Cores::Count(count) => write!(f, "{count}"),
            Cores::List(cpus) if cpus.len() < 2 => write!(f, "cpu:{}", Ranges(cpus)),
            Cores::List(cpus) => write!(f, "{}", Ranges(cpus)),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_list(text: &str) -> Result<Vec<CpuId>, PlacementError> {
    let items = text.strip_prefix("cpu:").unwrap_or(text);
    let items = items.strip_suffix(',').unwrap_or(items);
    if items.trim().is_empty() {
        return Err(PlacementError::Empty);
    }
    let mut cpus = Vec::new();
    for item in items.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (first.trim(), last.trim());
        if !is_number(first) || !is_number(last) {
            return Err(PlacementError::Syntax(text.to_owned()));
        }
        let (first, last) = (parse_cpu(first)?, parse_cpu(last)?);
        if first > last {
            return Err(PlacementError::Backwards { first: CpuId(first), last: CpuId(last) });
        }
        cpus.extend((first..=last).map(CpuId));
    }
    match first_duplicate(&cpus) {
        Some(cpu) => Err(PlacementError::Duplicate(cpu)),
        None => Ok(cpus),
    }
}

fn parse_cpu(digits: &str) -> Result<usize, PlacementError> {
    let number = digits.parse().ok().filter(|number| *number <= HIGHEST_CPU);
    number.ok_or_else(|| PlacementError::CpuTooLarge(digits.to_owned()))
}

fn first_duplicate(cpus: &[CpuId]) -> Option<CpuId> {
    let mut seen = std::collections::HashSet::new();
    cpus.iter().copied().find(|cpu| !seen.insert(*cpu))
}

/// Why a wish for cores cannot be read or met. The text says what could be instead.
///
/// ```
/// let error = "two".parse::<corelane::Cores>().unwrap_err();
/// assert!(matches!(error, corelane::PlacementError::Syntax(_)));
/// assert!(error.to_string().starts_with("`two` does not name cores"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlacementError {
    /// The text is none of the forms that [`Cores`] has.
    Syntax(String),
    /// The text or the list has no CPU in it.
    Empty,
    /// A count of 0.
    ZeroCount,
    /// A count that no number type holds.
    CountTooLarge(String),
    /// A CPU number higher than any that is supported.
    CpuTooLarge(String),
    /// A range that ends before it starts.
    Backwards {
        /// Where the range starts.
        first: CpuId,
        /// Where it ends.
        last: CpuId,
    },
    /// The list names this CPU more than once.
    Duplicate(CpuId),
    /// The list names a CPU that this process may not use, or that does not exist.
    NotAllowed {
        /// The CPU that was asked for.
        cpu: CpuId,
        /// The CPUs that may be used.
        allowed: Vec<CpuId>,
    },
    /// A count higher than the number of CPUs this process may use.
    TooMany {
        /// The count that was asked for.
        count: usize,
        /// The CPUs that may be used.
        allowed: Vec<CpuId>,
    },
    /// This process may use no CPU at all, as far as can be told.
    NothingAllowed,
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlacementError::Syntax(text) => write!(
                f,
                "`{text}` does not name cores: write all, physical, a count such as 4, \
                 CPU numbers such as 0,2 or 0-3,8, or a single one such as cpu:1"
            ),
            PlacementError::Empty => f.write_str("no CPU is named"),
            PlacementError::ZeroCount => f.write_str("0 cores are too few: at least 1 is needed"),
            PlacementError::CountTooLarge(count) => {
                write!(f, "a count of {count} cores is too large")
            }
            PlacementError::CpuTooLarge(number) => {
                write!(f, "CPU {number} is too large a number: the highest is {HIGHEST_CPU}")
            }
            PlacementError::Backwards { first, last } => {
                write!(f, "the range {0}-{1} runs backwards: write {1}-{0}", first.0, last.0)
            }
            PlacementError::Duplicate(cpu) => write!(f, "{cpu} is listed twice"),
            PlacementError::NotAllowed { cpu, allowed } => {
                write!(f, "{cpu} is not among the CPUs this process may use ({})", Ranges(allowed))
            }
            PlacementError::TooMany { count, allowed } => {
                let (number, plural) = (allowed.len(), if allowed.len() == 1 { "" } else { "s" });
                let ranges = Ranges(allowed);
                write!(
                    f,
                    "{count} cores are wanted, but this process may use only {number} CPU{plural} ({ranges})"
                )
            }
            PlacementError::NothingAllowed => {
                f.write_str("there is no CPU that this process may use")
            }
        }
    }
}

impl std::error::Error for PlacementError {}

/// Which shard runs where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The CPU of each shard, in the order of the shards.
    pub(crate) cpus: Vec<CpuId>,
    pub(crate) warnings: Vec<PlacementWarning>,
}

impl Placement {
    /// Chooses the CPUs, within the quota if all are wanted.
    pub(crate) fn on(usable: &Usable, want: &Cores) -> Result<Placement, PlacementError> {
        let Usable { topology, allowed, count } = usable;
        match want {
            Cores::All => Placement::plan(topology, allowed, &Cores::Count(*count)),
            chosen => Placement::plan(topology, allowed, chosen),
        }
    }

    /// Chooses the CPUs, whatever the quota.
    pub(crate) fn plan(
        topology: &Topology,
        allowed: &[CpuId],
        want: &Cores,
    ) -> Result<Placement, PlacementError> {
        let machine = Machine::new(topology, allowed);
        if machine.allowed.is_empty() {
            return Err(PlacementError::NothingAllowed);
        }
        let cpus = match want {
            Cores::All => machine.in_order().collect(),
            Cores::Physical => machine.in_order().take(machine.physical_count()).collect(),
            Cores::Count(count) => machine.count(*count)?,
            Cores::List(list) => machine.list(list)?,
        };
        let shared = machine.shared_cores(&cpus);
        let warnings = if shared.is_empty() {
            Vec::new()
        } else {
            vec![PlacementWarning::SharedCores(shared)]
        };
        Ok(Placement { cpus, warnings })
    }
}

/// What may be unwise in a plan that is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlacementWarning {
    /// Each of these groups is the threads of one physical core, and every one of them has a shard.
    SharedCores(Vec<Vec<CpuId>>),
}

impl fmt::Display for PlacementWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Groups that are named before the rest is only counted.
        const NAMED: usize = 4;
        match self {
            PlacementWarning::SharedCores(groups) => {
                f.write_str("shards share a physical core on CPUs ")?;
                for (number, group) in groups.iter().take(NAMED).enumerate() {
                    f.write_str(if number == 0 { "" } else { ", " })?;
                    let group: Vec<String> = group.iter().map(|cpu| cpu.0.to_string()).collect();
                    f.write_str(&group.join("+"))?;
                }
                match groups.len().saturating_sub(NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and on {more} more cores"),
                }
            }
        }
    }
}

/// The allowed CPUs, each with where it lies.
struct Machine {
    /// In the order in which they are to be used: one per physical core first, then their siblings; within that,
    /// node by node.
    order: Vec<CpuInfo>,
    /// In ascending order.
    allowed: Vec<CpuId>,
}

impl Machine {
    fn new(topology: &Topology, allowed: &[CpuId]) -> Self {
        let mut allowed = allowed.to_vec();
        allowed.sort_unstable();
        allowed.dedup();
        let known: HashMap<CpuId, CpuInfo> =
            topology.cpus.iter().map(|info| (info.cpu, *info)).collect();
        let unknown = |cpu: CpuId| CpuInfo { cpu, core: cpu.0 as u32, package: 0, node: 0 };
        let mut threads = HashMap::new();
        let mut ranked: Vec<(u32, CpuInfo)> = Vec::with_capacity(allowed.len());
        for cpu in &allowed {
            let info = known.get(cpu).copied().unwrap_or_else(|| unknown(*cpu));
            let rank = threads.entry((info.package, info.core)).or_insert(0);
            ranked.push((*rank, info));
            *rank += 1;
        }
        ranked.sort_by_key(|(rank, info)| (*rank, info.node, info.package, info.cpu));
        Machine { order: ranked.into_iter().map(|(_, info)| info).collect(), allowed }
    }

    fn in_order(&self) -> impl Iterator<Item = CpuId> {
        self.order.iter().map(|info| info.cpu)
    }

    fn physical_count(&self) -> usize {
        let cores: std::collections::HashSet<_> =
            self.order.iter().map(|info| (info.package, info.core)).collect();
        cores.len()
    }

    fn count(&self, count: usize) -> Result<Vec<CpuId>, PlacementError> {
        if count == 0 {
            return Err(PlacementError::ZeroCount);
        }
        if count > self.allowed.len() {
            return Err(PlacementError::TooMany { count, allowed: self.allowed.clone() });
        }
        Ok(self.in_order().take(count).collect())
    }

    fn list(&self, list: &[CpuId]) -> Result<Vec<CpuId>, PlacementError> {
        if list.is_empty() {
            return Err(PlacementError::Empty);
        }
        if let Some(cpu) = list.iter().find(|cpu| self.allowed.binary_search(cpu).is_err()) {
            return Err(PlacementError::NotAllowed { cpu: *cpu, allowed: self.allowed.clone() });
        }
        match first_duplicate(list) {
            Some(cpu) => Err(PlacementError::Duplicate(cpu)),
            None => Ok(list.to_vec()),
        }
    }

    /// The groups of chosen CPUs that are threads of one core.
    fn shared_cores(&self, chosen: &[CpuId]) -> Vec<Vec<CpuId>> {
        let mut of_core: HashMap<_, Vec<CpuId>> = HashMap::new();
        for info in self.order.iter().filter(|info| chosen.contains(&info.cpu)) {
            of_core.entry((info.package, info.core)).or_default().push(info.cpu);
        }
        let mut shared: Vec<_> = of_core.into_values().filter(|group| group.len() > 1).collect();
        shared.sort_unstable();
        shared
    }
}

/// Writes CPU numbers as `0-3,8`, in the order they have.
pub(crate) struct Ranges<'a>(pub(crate) &'a [CpuId]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|before, after| before.0.checked_add(1) == Some(after.0));
        for (number, run) in runs.enumerate() {
            f.write_str(if number == 0 { "" } else { "," })?;
            match run {
                [first, .., last] => write!(f, "{}-{}", first.0, last.0)?,
                run => run.iter().try_for_each(|cpu| write!(f, "{}", cpu.0))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<CpuId> {
        numbers.into_iter().map(CpuId).collect()
    }

    /// A machine of rows of CPU, core, package and node.
    fn machine(rows: &[(usize, u32, u32, u32)]) -> Topology {
        let cpus = rows.iter().map(|&(cpu, core, package, node)| CpuInfo {
            cpu: CpuId(cpu),
            core,
            package,
            node,
        });
        Topology { cpus: cpus.collect() }
    }

    /// Four cores of two threads each, numbered as Linux does it on most machines: the siblings of 0-3 are 4-7.
    fn with_smt() -> Topology {
        machine(&[0, 1, 2, 3, 4, 5, 6, 7].map(|cpu| (cpu, cpu as u32 % 4, 0, 0)))
    }

    /// Two sockets of two cores of two threads each; the CPUs go round the sockets.
    fn two_sockets() -> Topology {
        machine(
            &[0, 1, 2, 3, 4, 5, 6, 7]
                .map(|cpu| (cpu, (cpu as u32 % 4) / 2, cpu as u32 % 2, cpu as u32 % 2)),
        )
    }

    fn plan(
        topology: &Topology,
        allowed: impl IntoIterator<Item = usize>,
        want: &str,
    ) -> Placement {
        let allowed = ids(allowed);
        Placement::plan(topology, &allowed, &want.parse().unwrap()).unwrap()
    }

    fn refusal(allowed: impl IntoIterator<Item = usize>, want: &Cores) -> String {
        let allowed = ids(allowed);
        Placement::plan(&Topology::default(), &allowed, want).unwrap_err().to_string()
    }

    #[test]
    fn physical_cores_come_first_and_siblings_last() {
        assert_eq!(plan(&with_smt(), 0..8, "all").cpus, ids(0..8));
        assert_eq!(plan(&with_smt(), 0..8, "physical").cpus, ids(0..4));
        // Neighbours are siblings.
        let topology = machine(&[0, 1, 2, 3, 4, 5].map(|cpu| (cpu, cpu as u32 / 2, 0, 0)));
        assert_eq!(plan(&topology, 0..6, "all").cpus, ids([0, 2, 4, 1, 3, 5]));
        assert_eq!(plan(&topology, 0..6, "4").cpus, ids([0, 2, 4, 1]));
        assert_eq!(plan(&topology, 0..6, "physical").cpus, ids([0, 2, 4]));
    }

    #[test]
    fn a_node_is_filled_before_the_next_one() {
        assert_eq!(plan(&two_sockets(), 0..8, "all").cpus, ids([0, 2, 1, 3, 4, 6, 5, 7]));
        assert_eq!(plan(&two_sockets(), 0..8, "2").cpus, ids([0, 2]));
        assert_eq!(plan(&two_sockets(), 0..8, "physical").cpus, ids([0, 2, 1, 3]));
    }

    #[test]
    fn only_allowed_cpus_count() {
        // Of the first core only the second thread is allowed: it is that core's first.
        assert_eq!(plan(&with_smt(), [4, 1, 5, 7], "all").cpus, ids([1, 4, 7, 5]));
        assert_eq!(plan(&with_smt(), [4, 1, 5, 7], "physical").cpus, ids([1, 4, 7]));
        assert_eq!(plan(&with_smt(), [3], "all").cpus, ids([3]));
    }

    #[test]
    fn an_unknown_topology_is_one_core_per_cpu() {
        let unknown = Topology::default();
        assert_eq!(plan(&unknown, [9, 2, 70], "all").cpus, ids([2, 9, 70]));
        assert_eq!(plan(&unknown, [9, 2, 70], "physical").cpus, ids([2, 9, 70]));
        assert!(plan(&unknown, [9, 2, 70], "all").warnings.is_empty());
    }

    #[test]
    fn a_list_is_taken_in_its_order() {
        assert_eq!(plan(&with_smt(), 0..8, "3,0-1").cpus, ids([3, 0, 1]));
        assert_eq!(plan(&with_smt(), 0..8, "cpu:5").cpus, ids([5]));
    }

    #[test]
    fn shards_on_siblings_are_warned_about() {
        assert!(plan(&with_smt(), 0..8, "4").warnings.is_empty());
        assert!(plan(&with_smt(), 0..8, "physical").warnings.is_empty());
        let warnings = plan(&with_smt(), 0..8, "5,0,1").warnings;
        assert_eq!(warnings, [PlacementWarning::SharedCores(vec![ids([1, 5])])]);
        assert_eq!(warnings[0].to_string(), "shards share a physical core on CPUs 1+5");
        let topology =
            machine(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map(|cpu| (cpu, cpu as u32 / 2, 0, 0)));
        let text = plan(&topology, 0..12, "all").warnings[0].to_string();
        assert_eq!(
            text,
            "shards share a physical core on CPUs 0+1, 2+3, 4+5, 6+7 and on 2 more cores"
        );
    }

    #[test]
    fn what_is_not_allowed_is_refused_with_what_is() {
        let list = |cpus: &[usize]| Cores::List(ids(cpus.iter().copied()));
        let no_5 = "CPU 5 is not among the CPUs this process may use (0-1)";
        assert_eq!(refusal(0..2, &list(&[0, 5])), no_5);
        let no_1 = "CPU 1 is not among the CPUs this process may use (0,2-4,9)";
        assert_eq!(refusal([9, 4, 3, 2, 0], &list(&[1])), no_1);
        let four = "4 cores are wanted, but this process may use only 2 CPUs (0-1)";
        assert_eq!(refusal(0..2, &Cores::Count(4)), four);
        let two = "2 cores are wanted, but this process may use only 1 CPU (7)";
        assert_eq!(refusal([7], &Cores::Count(2)), two);
        assert_eq!(refusal(0..2, &Cores::Count(0)), "0 cores are too few: at least 1 is needed");
        assert_eq!(refusal(0..2, &list(&[])), "no CPU is named");
        assert_eq!(refusal(0..2, &list(&[1, 1])), "CPU 1 is listed twice");
        assert_eq!(refusal([], &Cores::All), "there is no CPU that this process may use");
    }

    #[test]
    fn every_form_is_parsed() {
        let list = |cpus: &[usize]| Cores::List(ids(cpus.iter().copied()));
        let forms = [
            ("all", Cores::All),
            (" physical ", Cores::Physical),
            ("4", Cores::Count(4)),
            ("004", Cores::Count(4)),
            ("0,1", list(&[0, 1])),
            ("1,0", list(&[1, 0])),
            ("0-3,8", list(&[0, 1, 2, 3, 8])),
            (" 8 , 0 - 1 ", list(&[8, 0, 1])),
            ("1,", list(&[1])),
            ("cpu:1", list(&[1])),
            ("cpu:2-3", list(&[2, 3])),
            ("5-5", list(&[5])),
            ("1023,", list(&[1023])),
        ];
        for (text, cores) in forms {
            assert_eq!(text.parse(), Ok(cores), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_text_is_said() {
        let syntax = |text: &str| {
            format!(
                "`{text}` does not name cores: write all, physical, a count such as 4, \
                 CPU numbers such as 0,2 or 0-3,8, or a single one such as cpu:1"
            )
        };
        for text in [
            "two", "ALL", "-1", "+1", "1.5", "0x2", "0,,1", ",1", "1-", "1-2-3", "0-3;8",
            "cpu:all", "cpu1",
        ] {
            assert_eq!(text.parse::<Cores>().unwrap_err().to_string(), syntax(text));
        }
        let texts = [
            ("", "no CPU is named"),
            ("  ", "no CPU is named"),
            (",", "no CPU is named"),
            ("cpu:", "no CPU is named"),
            ("0", "0 cores are too few: at least 1 is needed"),
            ("99999999999999999999", "a count of 99999999999999999999 cores is too large"),
            ("1024,", "CPU 1024 is too large a number: the highest is 1023"),
            (
                "0-99999999999999999999",
                "CPU 99999999999999999999 is too large a number: the highest is 1023",
            ),
            ("3-1", "the range 3-1 runs backwards: write 1-3"),
            ("1,2,1", "CPU 1 is listed twice"),
            ("0-3,2", "CPU 2 is listed twice"),
        ];
        for (text, message) in texts {
            assert_eq!(text.parse::<Cores>().unwrap_err().to_string(), message, "{text}");
        }
    }

    #[test]
    fn cores_are_written_as_they_are_parsed() {
        let list = |cpus: &[usize]| Cores::List(ids(cpus.iter().copied())).to_string();
        assert_eq!(Cores::default().to_string(), "all");
        assert_eq!(list(&[1]), "cpu:1");
        assert_eq!(list(&[0, 1]), "0-1");
        assert_eq!(list(&[3, 2, 1, 4, 5, 9]), "3,2,1,4-5,9");
        assert_eq!(list(&[]), "cpu:");
    }

    fn cores() -> impl Strategy<Value = Cores> {
        prop_oneof![
            Just(Cores::All),
            Just(Cores::Physical),
            (1..usize::MAX).prop_map(Cores::Count),
            prop::collection::hash_set(0..40usize, 1..20).prop_map(|cpus| Cores::List(ids(cpus))),
        ]
    }

    fn any_topology() -> impl Strategy<Value = Topology> {
        let row = (0..40usize, 0..8u32, 0..2u32, 0..3u32);
        prop::collection::vec(row, 0..40).prop_map(|rows| machine(&rows))
    }

    proptest! {
        #[test]
        fn display_and_parse_agree(cores in cores()) {
            prop_assert_eq!(cores.to_string().parse(), Ok(cores));
        }

        #[test]
        fn parsing_never_panics(text in "[-0-9a-z,: ]{0,12}|.{0,12}") {
            _ = text.parse::<Cores>();
        }

        #[test]
        fn a_plan_keeps_its_promises(
            topology in any_topology(),
            allowed in prop::collection::vec(0..40usize, 0..40),
            want in prop_oneof![cores(), (0..40usize).prop_map(Cores::Count)],
        ) {
            let allowed = ids(allowed);
            let Ok(placement) = Placement::plan(&topology, &allowed, &want) else { return Ok(()) };
            prop_assert!(!placement.cpus.is_empty());
            prop_assert!(placement.cpus.iter().all(|cpu| allowed.contains(cpu)));
            prop_assert_eq!(first_duplicate(&placement.cpus), None);
            match want {
                Cores::All => prop_assert!(allowed.iter().all(|cpu| placement.cpus.contains(cpu))),
                Cores::Physical => prop_assert!(placement.warnings.is_empty()),
                Cores::Count(count) => prop_assert_eq!(placement.cpus.len(), count),
                Cores::List(list) => prop_assert_eq!(placement.cpus, list),
            }
        }
    }
}
