//! What the operating system says about CPUs: which ones this process may use, how much of them, and how they lie
//! in cores, packages and NUMA nodes.
//!
//! Owns no state: each call reads anew. It is called while a runtime is built, by the thread that builds it, and by
//! no shard. Parsing is apart from reading, and reading takes the root directory, so tests bring their own.
//!
//! Invariants:
//! - `Topology` is in the order of the CPU numbers, which may have holes, and names each CPU once.
//! - Two CPUs have the same `package` and `core` exactly if they are threads of one physical core. What cannot be
//!   found out is one core per CPU, package 0, node 0: that is never an error.
//! - The quota rounds as `std::thread::available_parallelism` does: down, but not below 1.
//!
//! It never decides where a shard goes (`topology.rs` does), never pins, and never looks at the machine's CPU count
//! where the process's own is meant.

use super::affinity::reading_failed;
use crate::id::CpuId;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// One logical CPU and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuInfo {
    pub(crate) cpu: CpuId,
    /// The same for the threads of one physical core, and for nothing else of the same package.
    pub(crate) core: u32,
    pub(crate) package: u32,
    pub(crate) node: u32,
}

/// The machine's CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) cpus: Vec<CpuInfo>,
}

/// What a process may use of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usable {
    pub(crate) topology: Topology,
    /// The CPUs it may run on, in ascending order.
    pub(crate) allowed: Vec<CpuId>,
    /// How many of them its CPU quota lets it keep busy; at least 1.
    pub(crate) count: usize,
}

/// What this process may use of this machine.
pub(crate) fn usable() -> io::Result<Usable> {
    let allowed = allowed()?;
    let count = usable_count(allowed.len());
    Ok(Usable { topology: topology(), allowed, count })
}

/// The CPUs that the calling thread may run on, in ascending order.
pub(crate) fn allowed() -> io::Result<Vec<CpuId>> {
    let ids =
        core_affinity::get_core_ids().ok_or_else(|| reading_failed(io::Error::last_os_error()))?;
    Ok(ids.into_iter().map(|core| CpuId(core.id)).collect())
}

/// How many of so many allowed CPUs the cgroups' quotas let this process keep busy; at least 1.
pub(crate) fn usable_count(allowed: usize) -> usize {
    usable_count_from(Path::new("/"), allowed)
}

/// The topology of this machine, as far as it can be read.
pub(crate) fn topology() -> Topology {
    topology_from(Path::new("/"))
}

/// The topology that `sys/devices/system` under a root directory describes.
pub(crate) fn topology_from(root: &Path) -> Topology {
    let devices = root.join("sys/devices/system");
    let nodes = read_nodes(&devices.join("node"));
    let mut first_of_core = HashMap::new();
    let cpus = numbered_entries(&devices.join("cpu"), "cpu").into_iter().map(|(cpu, directory)| {
        let directory = directory.join("topology");
        let package = read_number(&directory.join("physical_package_id"));
        let siblings = read_cpu_list(&directory.join("core_cpus_list"))
            .or_else(|| read_cpu_list(&directory.join("thread_siblings_list")))
            .filter(|siblings| siblings.contains(&cpu));
        // The list of siblings comes first: some systems number the cores anew in each cluster of a package.
        let core = if let Some(first) = siblings.and_then(|siblings| siblings.into_iter().min()) {
            first
        } else if let Some(core) = read_number(&directory.join("core_id")) {
            *first_of_core.entry((package, core)).or_insert(cpu)
        } else {
            cpu
        };
        let node = nodes.get(&cpu).copied().unwrap_or(0);
        CpuInfo { cpu: CpuId(cpu as usize), core, package: package.unwrap_or(0), node }
    });
    Topology { cpus: cpus.collect() }
}

/// The NUMA node of each CPU that has one.
fn read_nodes(directory: &Path) -> HashMap<u32, u32> {
    let mut nodes = HashMap::new();
    for (node, directory) in numbered_entries(directory, "node") {
        for cpu in read_cpu_list(&directory.join("cpulist")).unwrap_or_default() {
            nodes.insert(cpu, node);
        }
    }
    nodes
}

/// The entries `<prefix><number>` of a directory in the order of their numbers; none if it cannot be read.
fn numbered_entries(directory: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let numbered = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let number = parse_number(entry.file_name().to_str()?.strip_prefix(prefix)?)?;
        Some((number, entry.path()))
    });
    let mut entries: Vec<_> = numbered.collect();
    entries.sort_unstable();
    entries.dedup_by_key(|(number, _)| *number);
    entries
}

fn read_number(path: &Path) -> Option<u32> {
    parse_number(fs::read_to_string(path).ok()?.trim())
}

/// The CPUs that are online now; none if the system does not say.
pub(crate) fn online() -> Option<Vec<CpuId>> {
    let cpus = read_cpu_list(Path::new("/sys/devices/system/cpu/online"))?;
    Some(cpus.into_iter().map(|cpu| CpuId(cpu as usize)).collect())
}

fn read_cpu_list(path: &Path) -> Option<Vec<u32>> {
    parse_cpu_list(&fs::read_to_string(path).ok()?)
}

/// Digits and nothing else. The -1 that stands for "unknown" is not a number.
fn parse_number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A list as the kernel writes it, such as `0-3,8`; the empty one is a list too.
fn parse_cpu_list(text: &str) -> Option<Vec<u32>> {
    // More than any kernel can have, and few enough that a wrong file does no harm.
    const MOST: u32 = 65_536;
    let mut cpus = Vec::new();
    for item in text.trim().split(',').filter(|item| !item.is_empty()) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (parse_number(first)?, parse_number(last)?);
        if first > last || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

fn usable_count_from(root: &Path, allowed: usize) -> usize {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let quota = Groups::parse(&groups).quota(&root.join("sys/fs/cgroup"));
    quota.map_or(allowed, |quota| allowed.min(quota)).max(1)
}

/// Where this process stands in the cgroup hierarchies that can limit its CPU time.
#[derive(Debug, Default, PartialEq, Eq)]
struct Groups<'a> {
    /// Path in the one hierarchy of version 2.
    unified: Option<&'a str>,
    /// Controllers, as the mount is named, and path in the hierarchy of version 1 that has `cpu`.
    cpu: Option<(&'a str, &'a str)>,
}

impl<'a> Groups<'a> {
    /// Of the text of `/proc/self/cgroup`: lines of `id:controllers:path`.
    fn parse(text: &'a str) -> Self {
        let mut groups = Groups::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if controllers.is_empty() {
                groups.unified = Some(path);
            } else if controllers.split(',').any(|controller| controller == "cpu") {
                groups.cpu = Some((controllers, path));
            }
        }
        groups
    }

    /// The smallest quota in whole CPUs, which may be 0, of these groups and of those that they lie in.
    fn quota(&self, mount: &Path) -> Option<usize> {
        let unified = self.unified.and_then(|group| {
            smallest(mount, group, |directory| {
                parse_cpu_max(&fs::read_to_string(directory.join("cpu.max")).ok()?)
            })
        });
        let cpu = self.cpu.and_then(|(controllers, group)| {
            let quota = |directory: &Path| {
                let quota = fs::read_to_string(directory.join("cpu.cfs_quota_us")).ok()?;
                let period = fs::read_to_string(directory.join("cpu.cfs_period_us")).ok()?;
                whole_cpus(&quota, &period)
            };
            let mounts = [controllers, "cpu"].map(|name| smallest(&mount.join(name), group, quota));
            mounts.into_iter().flatten().min()
        });
        unified.into_iter().chain(cpu).min()
    }
}

/// The smallest quota on the way from a group up to the mount. A directory that is not there counts for nothing: in
/// a container the path may be the host's, and the container's own limits are then those at the mount itself.
fn smallest(mount: &Path, group: &str, quota: impl Fn(&Path) -> Option<usize>) -> Option<usize> {
    let mut group: Vec<_> =
        Path::new(group).components().filter(|part| *part != Component::RootDir).collect();
    if !group.iter().all(|part| matches!(part, Component::Normal(_))) {
        // A group outside of the container's own tree is written with `..`.
        group.clear();
    }
    let directory = mount.join(group.iter().collect::<PathBuf>());
    directory.ancestors().take(group.len() + 1).filter_map(quota).min()
}

/// Of the text of `cpu.max`: quota and period, or `max` and period.
fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cpus(quota, period)
}

/// Quota by period, rounded down. No limit is written `max` or -1.
fn whole_cpus(quota: &str, period: &str) -> Option<usize> {
    let quota: usize = quota.trim().parse().ok()?;
    quota.checked_div(period.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// Files under a temporary root.
    fn fixture(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    /// A `/sys` with one `cpuN/topology` per row of CPU, core id and package, and a list of CPUs per node.
    fn machine(cpus: &[(u32, i32, i32)], nodes: &[(u32, &str)]) -> TempDir {
        let root = fixture(&[]);
        for (cpu, core, package) in cpus {
            let directory = root.path().join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("core_id"), format!("{core}\n")).unwrap();
            fs::write(directory.join("physical_package_id"), format!("{package}\n")).unwrap();
        }
        for (node, list) in nodes {
            let directory = root.path().join(format!("sys/devices/system/node/node{node}"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("cpulist"), format!("{list}\n")).unwrap();
        }
        // What else lies there and must not be taken for a CPU or a node.
        for name in ["cpu/cpufreq", "cpu/cpuidle", "cpu/cpu", "cpu/cpu1x", "node/power"] {
            fs::create_dir_all(root.path().join("sys/devices/system").join(name)).unwrap();
        }
        root
    }

    fn rows(topology: &Topology) -> Vec<(usize, u32, u32, u32)> {
        topology.cpus.iter().map(|info| (info.cpu.0, info.core, info.package, info.node)).collect()
    }

    #[test]
    fn reads_a_single_cpu() {
        let root = machine(&[(0, 0, 0)], &[(0, "0")]);
        assert_eq!(rows(&topology_from(root.path())), [(0, 0, 0, 0)]);
    }

    #[test]
    fn reads_two_sockets_with_the_same_core_ids() {
        let root =
            machine(&[(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)], &[(0, "0,2"), (1, "1,3")]);
        assert_eq!(
            rows(&topology_from(root.path())),
            [(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 0, 0), (3, 3, 1, 1)]
        );
    }

    #[test]
    fn siblings_share_a_core_and_holes_stay_holes() {
        let root = machine(&[(0, 0, 0), (2, 9, 0), (10, 0, 0), (12, 9, 0)], &[]);
        assert_eq!(
            rows(&topology_from(root.path())),
            [(0, 0, 0, 0), (2, 2, 0, 0), (10, 0, 0, 0), (12, 2, 0, 0)]
        );
    }

    #[test]
    fn the_list_of_siblings_is_believed_before_the_core_id() {
        // Two clusters that number their cores anew.
        let root = machine(&[(0, 0, 0), (1, 1, 0), (2, 0, 0), (3, 1, 0)], &[]);
        for cpu in 0..4 {
            let path = root.path().join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
            let name = if cpu % 2 == 0 { "core_cpus_list" } else { "thread_siblings_list" };
            fs::write(path.join(name), format!("{cpu}\n")).unwrap();
        }
        assert_eq!(
            rows(&topology_from(root.path())),
            [(0, 0, 0, 0), (1, 1, 0, 0), (2, 2, 0, 0), (3, 3, 0, 0)]
        );
    }

    #[test]
    fn what_is_unknown_is_one_core_per_cpu() {
        let root = machine(&[(0, -1, -1), (1, -1, -1)], &[]);
        fs::create_dir_all(root.path().join("sys/devices/system/cpu/cpu2")).unwrap();
        assert_eq!(rows(&topology_from(root.path())), [(0, 0, 0, 0), (1, 1, 0, 0), (2, 2, 0, 0)]);
        assert_eq!(topology_from(Path::new("/nonexistent")), Topology::default());
    }

    #[test]
    fn lists_of_the_kernel_are_parsed() {
        assert_eq!(parse_cpu_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_cpu_list("5"), Some(vec![5]));
        assert_eq!(parse_cpu_list("\n"), Some(vec![]));
        for text in ["a", "1-", "-1", "3-1", "0-4294967295", "99999999999", "1,x"] {
            assert_eq!(parse_cpu_list(text), None, "{text}");
        }
    }

    #[test]
    fn quotas_round_down() {
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("400000 100000\n"), Some(4));
        assert_eq!(parse_cpu_max("199999 100000\n"), Some(1));
        assert_eq!(parse_cpu_max("50000 100000\n"), Some(0));
        assert_eq!(parse_cpu_max("50000 0\n"), None);
        assert_eq!(parse_cpu_max(""), None);
        assert_eq!(whole_cpus("-1\n", "100000\n"), None);
        assert_eq!(whole_cpus("250000\n", "100000\n"), Some(2));
    }

    #[test]
    fn the_groups_of_both_versions_are_found() {
        let text = "4:memory:/a\n3:cpu,cpuacct:/b\n2:cpuset:/c\n0::/d:e\n";
        assert_eq!(
            Groups::parse(text),
            Groups { unified: Some("/d:e"), cpu: Some(("cpu,cpuacct", "/b")) }
        );
        assert_eq!(Groups::parse("nonsense\n\n"), Groups::default());
    }

    #[test]
    fn version_2_takes_the_smallest_quota_on_the_way_up() {
        let root = fixture(&[
            ("proc/self/cgroup", "0::/system.slice/a.service\n"),
            ("sys/fs/cgroup/system.slice/a.service/cpu.max", "600000 100000\n"),
            ("sys/fs/cgroup/system.slice/cpu.max", "300000 100000\n"),
            // Outside of the mount: not a limit.
            ("sys/fs/cpu.max", "100000 100000\n"),
        ]);
        assert_eq!(usable_count_from(root.path(), 8), 3);
        assert_eq!(usable_count_from(root.path(), 2), 2);
    }

    #[test]
    fn a_quota_of_half_a_cpu_is_one() {
        let root =
            fixture(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/cpu.max", "50000 100000\n")]);
        assert_eq!(usable_count_from(root.path(), 8), 1);
    }

    #[test]
    fn a_path_of_the_host_falls_back_to_the_mount() {
        for path in ["/docker/0123", "/../../outside"] {
            let group = format!("0::{path}\n");
            let root = fixture(&[
                ("proc/self/cgroup", &group),
                ("sys/fs/cgroup/cpu.max", "200000 100000\n"),
            ]);
            assert_eq!(usable_count_from(root.path(), 8), 2);
        }
    }

    #[test]
    fn version_1_reads_quota_and_period() {
        for mount in ["cpu", "cpu,cpuacct"] {
            let quota = format!("sys/fs/cgroup/{mount}/box/cpu.cfs_quota_us");
            let period = format!("sys/fs/cgroup/{mount}/box/cpu.cfs_period_us");
            let top_quota = format!("sys/fs/cgroup/{mount}/cpu.cfs_quota_us");
            let top_period = format!("sys/fs/cgroup/{mount}/cpu.cfs_period_us");
            let root = fixture(&[
                ("proc/self/cgroup", "3:cpu,cpuacct:/box\n0::/box\n"),
                (&quota, "150000\n"),
                (&period, "50000\n"),
                (&top_quota, "-1\n"),
                (&top_period, "100000\n"),
            ]);
            assert_eq!(usable_count_from(root.path(), 8), 3, "{mount}");
        }
    }

    #[test]
    fn without_cgroups_everything_allowed_is_usable() {
        let root = fixture(&[]);
        assert_eq!(usable_count_from(root.path(), 8), 8);
        assert_eq!(usable_count_from(root.path(), 0), 1);
    }

    #[test]
    fn agrees_with_the_standard_library_here() {
        let allowed = allowed().unwrap();
        assert!(allowed.is_sorted() && !allowed.is_empty());
        let usable = std::thread::available_parallelism().unwrap().get();
        assert_eq!(usable_count(allowed.len()), usable);
    }
}
