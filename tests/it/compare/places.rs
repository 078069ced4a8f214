//! Where the contenders and the load generator run.

use super::faults::{family_with, report, signal};
use super::{Ends, corelane, cpus};
use rustix::process::Signal;
use std::fs;

/// CPUs as the kernel writes them: `0-2,5`.
fn listed(text: &str) -> Vec<usize> {
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let range = |item: &str| match item.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(item)..=number(item),
    };
    text.trim().split(',').flat_map(range).collect()
}

/// The CPUs that each thread of a process may use; nothing if it is gone.
fn of_threads(pid: u32) -> Vec<Vec<usize>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mask = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some(listed(line))
    };
    tasks.filter_map(mask).collect()
}

#[test]
fn contenders_have_the_cpus_that_were_asked_for_and_the_generator_the_others() {
    let all = cpus();
    let Some((last, others)) = all.split_last().filter(|(_, others)| !others.is_empty()) else {
        return eprintln!("SKIPPED: there is only one CPU");
    };
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("a path");
    let cores = format!("cpu:{last}");
    for name in ["tokio", "thread-per-core", "thread-per-connection"] {
        let flags = ["--scenario", "few", "--duration", "1", "--rounds", "100", "--out", out];
        let who = ["compare", "--cores", &cores, "--contender", name];
        let mut run = Ends(corelane(&[&who[..], &flags].concat()).spawn().expect("started"));
        let (_, contender) = family_with(run.0.id(), "contender");
        let (_, load) = family_with(run.0.id(), "load");
        let (served, loaded) = (of_threads(contender), of_threads(load));
        assert!(!served.is_empty() && served.iter().all(|mask| mask == &[*last]), "{served:?}");
        assert!(!loaded.is_empty() && loaded.iter().all(|mask| mask == others), "{loaded:?}");
        signal(run.0.id(), Signal::INT);
        assert_eq!(run.0.wait().expect("it ends").code(), Some(130));
        let report = report(directory.path());
        assert_eq!(report["machine"]["contender_cpus"], serde_json::json!([last]));
        assert_eq!(report["machine"]["generator_cpus"], serde_json::json!(others));
    }
}

#[test]
fn if_no_cpu_is_left_the_generator_has_them_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("a path");
    let all = cpus();
    let cores = format!("{},", all.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
    let flags = ["--scenario", "few", "--duration", "0.2", "--rounds", "1", "--out", out];
    let who = ["compare", "--cores", &cores, "--contender", "tokio"];
    let output = super::run(&[&who[..], &flags].concat());
    assert!(output.status.success(), "{}", super::text(&output.stderr));
    let report = report(directory.path());
    for whose in ["contender_cpus", "generator_cpus"] {
        assert_eq!(report["machine"][whose], serde_json::json!(all), "{whose}");
    }
    let text = fs::read_to_string(directory.path().join("report.md")).expect("written");
    assert!(text.contains("which are not its own"), "{text}");
    assert!(text.contains("tokio: tokio 1."), "{text}");
    assert!(text.contains("shared CPUs, of which the generator took"), "{text}");
}

#[test]
fn what_the_neighbour_had_is_written_down() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("a path");
    let flags = ["--scenario", "neighbour", "--duration", "1", "--rounds", "1", "--out", out];
    let output = super::run(&[&["compare", "--contender", "tokio"], &flags[..]].concat());
    assert!(output.status.success(), "{}", super::text(&output.stderr));
    let round = &report(directory.path())["scenarios"][0]["contenders"][0]["rounds"][0];
    let had = round["neighbour"].as_f64().expect("a share");
    // How much it gets is for whoever else wants the CPU to say.
    assert!(had > 0.0 && had < 1.05, "{had}");
}
