//! Contenders that die, refuse, answer garbage or never become ready; interruptions; ends of processes.

use super::{answers, corelane, is_gone, made_up, run, text};
use crate::serve::program::Serve;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

/// Flags of a run that takes little time.
const SHORT: [&str; 6] = ["--duration", "0.3", "--rounds", "2", "--scenario", "few"];

fn compare(out: &Path, flags: &[&str]) -> std::process::Output {
    let out = out.to_str().expect("a path");
    run(&[&["compare", "--out", out], &SHORT[..], flags].concat())
}

fn report(out: &Path) -> serde_json::Value {
    let text = fs::read_to_string(out.join("report.json")).expect("a report");
    serde_json::from_str(&text).expect("JSON")
}

/// What a contender's failure says, and how many rounds it has.
fn contender<'a>(report: &'a serde_json::Value, name: &str) -> (&'a serde_json::Value, usize) {
    let all = report["scenarios"][0]["contenders"].as_array().expect("contenders");
    let found = all.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    (&found["failure"], found["rounds"].as_array().expect("rounds").len())
}

#[test]
fn a_contender_that_fails_gets_a_row_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let garbage = made_up(answers(b"SSH-2.0-nothing of the kind\r\n\r\n"));
    let refuses = made_up(answers(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"));
    let output = compare(
        directory.path(),
        &[
            "--contender",
            "thread-per-core",
            "--contender",
            &format!("garbage=http://{garbage}"),
            "--contender",
            &format!("refuses=http://{refuses}"),
            "--contender",
            "work-stealing",
            "--command",
            "dies=false",
            "--command",
            "missing=/no/such/program",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = report(directory.path());
    for name in ["thread-per-core", "work-stealing"] {
        assert_eq!(contender(&report, name), (&serde_json::Value::Null, 2));
    }
    for (name, says) in [
        ("garbage", "not HTTP"),
        ("refuses", "no request"),
        ("dies", "ended before"),
        ("missing", "ended before"),
    ] {
        let (failure, rounds) = contender(&report, name);
        assert_eq!(rounds, 0);
        assert!(failure.as_str().is_some_and(|it| it.contains(says)), "{name}: {failure}");
    }
    for name in ["report.html", "report.md"] {
        let text = fs::read_to_string(directory.path().join(name)).expect("written");
        assert!(text.contains("not HTTP"), "{name} does not say why");
    }
}

#[test]
fn a_server_that_runs_already_takes_part() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Serve::new(&[]).start();
    let output = compare(
        directory.path(),
        &["--contender", "tokio", "--contender", &format!("mine=http://{}", server.address())],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(contender(&report(directory.path()), "mine").1, 2);
    // Drawn again it is the same.
    let again = tempfile::tempdir().expect("a directory");
    let (from, out) = (directory.path().join("report.json"), again.path());
    let output = run(&[
        "compare",
        "--from",
        from.to_str().expect("a path"),
        "--out",
        out.to_str().expect("a path"),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for name in ["report.json", "report.md", "report.html"] {
        let read = |directory: &Path| fs::read_to_string(directory.join(name)).expect("written");
        assert_eq!(read(directory.path()), read(out), "{name}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("other.json");
    fs::write(&file, "{}").expect("written");
    for (flags, says) in [
        (&["--scenario", "nothing"][..], "there are: hello"),
        (&["--contender", "nobody"], "there are: thread-per-core"),
        (&["--contender", "x=http://nowhere"], "ADDRESS:PORT"),
        (&["--command", "nothing"], "NAME=COMMAND"),
        (&["--cores", "4000"], "4000"),
        (&["--from", "/no/such/file"], "cannot be read"),
        (&["--from", file.to_str().expect("a path")], "no report of this program"),
    ] {
        let output = compare(directory.path(), flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{flags:?}: {}", text(&output.stderr));
    }
}

/// The processes below `pid`, and it.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        next += 1;
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    all
}

/// Starts a long run, waits until its children are there, ends it by `signal`, and returns its status.
fn ended_by(signal: rustix::process::Signal, out: &Path) -> std::process::ExitStatus {
    let out = out.to_str().expect("a path");
    let flags = [
        "compare",
        "--out",
        out,
        "--duration",
        "0.2",
        "--rounds",
        "1000",
        "--scenario",
        "few",
        "--contender",
        "thread-per-core",
        "--contender",
        "tokio",
        "--command",
        "x=sleep 1000",
    ];
    let mut child = corelane(&flags).spawn().expect("started");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    // When the second round of the first begins, both have been measured.
    let told = lines.map_while(Result::ok).any(|line| line.contains("round 3: thread-per-core"));
    assert!(told, "it ended before");
    let mut family = family(child.id());
    while family.len() < 3 {
        std::thread::sleep(Duration::from_millis(1));
        family = self::family(child.id());
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a process");
    rustix::process::kill_process(pid, signal).expect("sent");
    let status = child.wait().expect("it ends");
    assert!(family.into_iter().all(is_gone), "a child is left");
    status
}

#[test]
fn ctrl_c_ends_the_children_and_writes_what_was_measured() {
    let directory = tempfile::tempdir().expect("a directory");
    let status = ended_by(rustix::process::Signal::INT, directory.path());
    assert_eq!(status.code(), Some(130));
    let report = report(directory.path());
    assert_eq!(report["interrupted"], true);
    assert!(contender(&report, "tokio").1 >= 1);
}

#[test]
fn no_child_outlives_its_parent() {
    let directory = tempfile::tempdir().expect("a directory");
    let status = ended_by(rustix::process::Signal::KILL, directory.path());
    assert_eq!(status.code(), None);
}
