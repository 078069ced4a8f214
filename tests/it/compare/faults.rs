//! Contenders that die, refuse, answer garbage or never become ready; interruptions; ends of processes.

use super::{Ends, answers, corelane, is_gone, made_up, run, text};
use crate::serve::eventually;
use crate::serve::program::Serve;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Flags of a run that takes little time.
const SHORT: [&str; 6] = ["--duration", "0.3", "--rounds", "2", "--scenario", "few"];

fn compare(out: &Path, flags: &[&str]) -> std::process::Output {
    let out = out.to_str().expect("a path");
    run(&[&["compare", "--out", out], &SHORT[..], flags].concat())
}

pub(super) fn report(out: &Path) -> serde_json::Value {
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
    let report = report(directory.path());
    assert_eq!(contender(&report, "mine").1, 2);
    let versions = &report["versions"];
    assert_eq!(versions[1], serde_json::json!(["mine", "unknown"]));
    assert!(versions[0][1].as_str().is_some_and(|it| it.contains("hyper 1.")), "{versions}");
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
        (&["--rate", "0"], "--rate"),
        (&["--payload", "67108865"], "--payload"),
        (&["--command", "x=sh -c 'server"], "a quote is not closed"),
        (&["--contender", "tokio=http://127.0.0.1:1"], "call yours something else"),
        (&["--command", "work-stealing#2=true"], "call yours something else"),
        (&["--contender", "x=http://127.0.0.1:1/some/path"], "leave /some/path out"),
        (&["--rate", "0.1"], "nothing would be due"),
    ] {
        let output = compare(directory.path(), flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{flags:?}: {}", text(&output.stderr));
    }
    for (flags, says) in [
        (&["compare", "--from", "/no/such/file"][..], "cannot be read"),
        (&["compare", "--from", file.to_str().expect("a path")], "no report of this program"),
        // What is not measured again cannot be measured otherwise.
        (&["compare", "--from", "x.json", "--rounds", "9"], "cannot be used with"),
    ] {
        let output = run(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{flags:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_scenario_that_cannot_be_is_refused_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("scenario.toml");
    let name = file.to_str().expect("a path");
    for (more, says) in [
        ("path = '/a b'", "visible ASCII"),
        ("path = \"/\\r\\nX: y\"", "visible ASCII"),
        ("path = '/'\nupload = 9223372036854775807", "upload is 9223372036854775807"),
        ("path = '/'\nidle = 4000000", "idle is 4000000"),
        ("path = '/'\nclose = true\npipeline = 16", "one at a time"),
        ("path = '/'\nname = 'few'", "already"),
        ("path = '/'\nname = ''", "a line of text"),
        ("path = '/'\nname = \"a\\u001b[31mb\"", "a line of text"),
    ] {
        let own = if more.contains("name =") { "" } else { "name = 'mine'\n" };
        fs::write(&file, format!("{own}{more}\n")).expect("written");
        let output = compare(directory.path(), &["--scenario-file", name]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{more}: {told}");
        assert!(told.contains(name) && told.contains(says), "{more}: {told}");
    }
    let output = compare(directory.path(), &["--scenario-file", "/dev/null"]);
    assert!(text(&output.stderr).contains("it is no file"), "{}", text(&output.stderr));
}

/// It neither ends its answer nor is ever silent for long.
#[test]
fn garbage_without_an_end_is_an_error_row_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let endless = made_up(|mut stream| {
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let torrent = made_up(|mut stream| while stream.write_all(&[b'x'; 9000]).is_ok() {});
    let flags = [
        "--contender",
        "tokio",
        "--contender",
        &format!("endless=http://{endless}"),
        "--contender",
        &format!("torrent=http://{torrent}"),
    ];
    let output = compare(directory.path(), &flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = report(directory.path());
    assert_eq!(contender(&report, "tokio"), (&serde_json::Value::Null, 2));
    for name in ["endless", "torrent"] {
        let (failure, rounds) = contender(&report, name);
        assert_eq!(rounds, 0);
        assert!(failure.as_str().is_some_and(|it| it.contains("not HTTP")), "{failure}");
    }
}

/// A line that is no text, and more output than anybody keeps.
#[test]
fn a_program_may_write_what_it_likes() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = env!("CARGO_BIN_EXE_corelane");
    let script = format!(
        r#"printf "\377\n"; head -c 3000000 /dev/zero; yes | head -n 100000; exec {server} contender tokio --listen {{addr}}"#
    );
    let command = format!("x=sh -c 'set -e; {script}'");
    let output = compare(directory.path(), &["--contender", "tokio", "--command", &command]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(contender(&report(directory.path()), "x"), (&serde_json::Value::Null, 2));
}

/// Of a program that is not ours, whatever it has started is measured, and not what has started it.
#[test]
fn a_program_is_measured_with_what_it_has_started() {
    let directory = tempfile::tempdir().expect("a directory");
    let command = program_that_forks();
    let output = compare(directory.path(), &["--contender", "blocking", "--command", &command]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = report(directory.path());
    let contenders = report["scenarios"][0]["contenders"].as_array().expect("contenders");
    let [own, other] = &contenders[..] else { panic!("two: {report}") };
    let figure = |round: &serde_json::Value, name: &str| {
        round[name].as_u64().unwrap_or_else(|| panic!("no {name} in {round}"))
    };
    let size = figure(&own["rounds"][0], "rss_bytes");
    for round in other["rounds"].as_array().expect("rounds") {
        assert!(figure(round, "user_micros") + figure(round, "system_micros") > 0, "{round}");
        assert!(figure(round, "context_switches") > 0, "{round}");
        // A shell is small, and what they share with others counts in part.
        assert!((1..=3 * size).contains(&figure(round, "rss_bytes")), "{size}: {round}");
    }
}

#[test]
fn no_time_is_no_duration() {
    let output = run(&["compare", "--duration", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--duration"), "{}", text(&output.stderr));
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

/// The words with which a process was started; none if it is gone.
fn words(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    text(&line).split_terminator('\0').map(str::to_owned).collect()
}

/// Waits until the family of `pid` has a member whose words have this one among them, and returns all of them and that one.
pub(super) fn family_with(pid: u32, word: &str) -> (Vec<u32>, u32) {
    eventually(&format!("{word} runs"), || {
        let all = family(pid);
        let found = all.iter().copied().find(|&one| words(one).iter().any(|it| it == word))?;
        Some((all, found))
    })
}

pub(super) fn signal(pid: u32, signal: Signal) {
    kill_process(process(pid), signal).expect("sent");
}

fn process(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).expect("a process")
}

/// The contender x as an argument of `compare`: a program that starts a server in a session of its own and waits for it. The server
/// has the word `blocking` on its command line.
fn program_that_forks() -> String {
    let server = env!("CARGO_BIN_EXE_corelane");
    format!("x=sh -c 'setsid {server} contender blocking --listen {{addr}} & wait'")
}

/// A run, and the processes below it at a moment when a program's round is under way.
struct Running {
    child: Ends,
    family: Vec<u32>,
}

/// Starts a run of so many rounds, in a process group of its own, and waits until a program that has started another is
/// measured for the second time.
fn running(out: &Path, rounds: &str) -> Running {
    let command = program_that_forks();
    let out = out.join("report");
    let out = out.to_str().expect("a path");
    let few = ["--duration", "0.5", "--scenario", "few", "--connections", "1", "--rounds", rounds];
    let who = ["--contender", "thread-per-core", "--command", &command];
    let child = corelane(&[&["compare", "--out", out], &few[..], &who].concat())
        .process_group(0)
        .spawn()
        .expect("started");
    let mut child = Ends(child);
    let mut lines = BufReader::new(child.0.stderr.take().expect("piped")).lines();
    let told = lines.by_ref().map_while(Result::ok).any(|line| line.contains("round 2: x"));
    assert!(told, "it ended before");
    // Nobody shall be held up by what is said.
    std::thread::spawn(move || lines.for_each(drop));
    let (family, _) = family_with(child.0.id(), "blocking");
    family_with(child.0.id(), "load");
    Running { child, family }
}

impl Running {
    /// Waits for its end, and until all below it are gone.
    fn ends(mut self) -> Option<i32> {
        let status = self.child.0.wait().expect("it ends");
        assert!(self.family.iter().copied().all(is_gone), "a child is left");
        status.code()
    }
}

/// Nobody has failed, and what was measured is there.
fn was_interrupted(out: &Path) {
    let report = report(&out.join("report"));
    assert_eq!(report["interrupted"], true);
    for name in ["thread-per-core", "x"] {
        let (failure, rounds) = contender(&report, name);
        assert_eq!((failure, rounds >= 1), (&serde_json::Value::Null, true), "{name}");
    }
}

#[test]
fn ctrl_c_ends_the_children_and_writes_what_was_measured() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = running(directory.path(), "1000");
    signal(run.child.0.id(), Signal::INT);
    assert_eq!(run.ends(), Some(130));
    was_interrupted(directory.path());
}

#[test]
fn a_request_to_end_is_as_good_as_ctrl_c() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = running(directory.path(), "1000");
    signal(run.child.0.id(), Signal::TERM);
    assert_eq!(run.ends(), Some(130));
    was_interrupted(directory.path());
}

/// As a terminal sends it: to every process of the group in front.
#[test]
fn ctrl_c_at_a_terminal_makes_no_contender_fail() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = running(directory.path(), "1000");
    kill_process_group(process(run.child.0.id()), Signal::INT).expect("sent");
    assert_eq!(run.ends(), Some(130));
    was_interrupted(directory.path());
}

#[test]
fn no_child_outlives_its_parent() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = running(directory.path(), "1000");
    signal(run.child.0.id(), Signal::KILL);
    assert_eq!(run.ends(), None);
}

#[test]
fn a_guard_that_is_killed_leaves_nobody_and_its_contender_has_failed() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = running(directory.path(), "4");
    let (_, guard) = family_with(run.child.0.id(), "guard");
    signal(guard, Signal::KILL);
    assert_eq!(run.ends(), Some(0));
    let report = report(&directory.path().join("report"));
    assert_eq!(contender(&report, "thread-per-core"), (&serde_json::Value::Null, 4));
    let (failure, rounds) = contender(&report, "x");
    assert!(failure.as_str().is_some_and(|it| it.contains("SIGKILL")), "{failure}");
    assert!(rounds < 4, "{rounds}");
}

/// `guard` with these words, which must end in `sleep 1000`; and the processes below it, once that runs.
fn guarded(command: &[&str]) -> (Ends, Vec<u32>) {
    let words = [&["guard", "--"], command].concat();
    let guard = Ends(corelane(&words).stdin(Stdio::piped()).spawn().expect("started"));
    let family = eventually("it sleeps", || {
        let all = family(guard.0.id());
        all.iter().any(|&one| self::words(one) == ["sleep", "1000"]).then_some(all)
    });
    (guard, family)
}

#[test]
fn a_program_ends_with_a_guard_that_is_killed() {
    let (mut guard, family) = guarded(&["sleep", "1000"]);
    guard.0.kill().expect("sent");
    guard.0.wait().expect("it ends");
    assert!(family.into_iter().all(is_gone), "it is left");
}

/// Also what has left the group and the session, and has lost its parent.
#[test]
fn a_guard_ends_whatever_its_program_has_started() {
    for script in ["setsid sleep 1000 & wait", "(setsid sleep 1000 &); exec tail -f /dev/null"] {
        let (mut guard, family) = guarded(&["sh", "-c", script]);
        drop(guard.0.stdin.take());
        assert!(guard.0.wait().expect("it ends").success());
        assert!(family.into_iter().all(is_gone), "{script}: something is left");
    }
}

/// As `killall -9 corelane` does.
#[test]
fn nobody_outlives_them_all_being_killed_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("a path");
    let server = env!("CARGO_BIN_EXE_corelane");
    // It starts something that leaves its group, and becomes the server.
    let command =
        format!("x=sh -c 'setsid sleep 1002 & exec {server} contender blocking --listen {{addr}}'");
    let flags = [
        "compare",
        "--out",
        out,
        "--scenario",
        "few",
        "--contender",
        "tokio",
        "--command",
        &command,
    ];
    let child = corelane(&[&flags[..], &["--duration", "1"]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("started");
    let mut child = Ends(child);
    let (family, _) = family_with(child.0.id(), "1002");
    family_with(child.0.id(), "load");
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    for pid in family.iter().copied().filter(|&pid| name(pid).trim_end() == "corelane") {
        let _ = kill_process(process(pid), Signal::KILL);
    }
    child.0.wait().expect("it ends");
    eventually("nobody is left", || family.iter().copied().all(is_gone).then_some(()));
}

/// Whether a `sleep` that a shell has started, by `starts`, lives on when it has become `compare` and that has ended. It writes the
/// number of its process to the file `pid` in the directory that stands for {out}.
fn lives_on(starts: &str, seconds: &str) -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("a path");
    let script = format!(
        "{}; exec {} compare --out {out} {} --contender tokio",
        starts.replace("{out}", out),
        env!("CARGO_BIN_EXE_corelane"),
        SHORT.join(" ")
    );
    let status = std::process::Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("started");
    let pid = fs::read_to_string(directory.path().join("pid")).expect("written");
    let pid = pid.trim().parse().expect("a number");
    let lives = self::words(pid) == ["sleep", seconds];
    let _ = kill_process(process(pid), Signal::KILL);
    assert!(status.success());
    lives
}

/// What a shell has started before it became this program is a child of it, and none of its business.
#[test]
fn a_server_that_the_shell_has_started_lives_on() {
    let lives = lives_on("sleep 1000 & echo $! >{out}/pid", "1000");
    assert!(lives, "what it had not started is gone");
}

/// Nor is what that has started, when the one in between ends while something is measured.
#[test]
fn a_server_whose_starter_ends_meanwhile_lives_on() {
    let starts = "{ sh -c 'sleep 1001 & echo $! >{out}/pid; sleep 1' & }";
    assert!(lives_on(starts, "1001"), "what it had not started is gone");
}

#[test]
fn who_is_interrupted_says_nothing_of_rounds_that_will_not_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("a path");
    let mut child = corelane(&[
        "compare",
        "--out",
        out,
        "--rounds",
        "4294967295",
        "--scenario",
        "few",
        "--contender",
        "tokio",
    ])
    .stdout(Stdio::null())
    .stderr(Stdio::piped())
    .spawn()
    .expect("started");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("piped")));
    let first = lines.next().expect("a line").expect("text");
    assert!(first.contains("round 1"), "{first}");
    signal(child.id(), Signal::INT);
    let rest: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(rest.len() < 5, "{} more lines", rest.len());
}

/// Whoever is measured has done nothing wrong then.
#[test]
fn a_generator_that_dies_is_no_failure_of_the_contender() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("a path");
    let flags = ["compare", "--out", out, "--scenario", "few", "--contender", "tokio"];
    // Once is made up for. Twice is a round that is missing.
    for (deaths, rounds) in [(1, 2), (2, 1)] {
        let child = corelane(&[&flags[..], &["--rounds", "2", "--duration", "1"]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let mut child = Ends(child);
        let mut last = 0;
        for _ in 0..deaths {
            last = eventually("another generator runs", || {
                let all = family(child.0.id());
                let is_next = |&pid: &u32| pid != last && words(pid).iter().any(|it| it == "load");
                all.into_iter().find(is_next)
            });
            signal(last, Signal::KILL);
        }
        assert!(child.0.wait().expect("it ends").success());
        let report = report(directory.path());
        assert_eq!(contender(&report, "tokio"), (&serde_json::Value::Null, rounds));
        let dropped = &report["scenarios"][0]["contenders"][0]["dropped"];
        assert_eq!(dropped.as_array().map(Vec::len), Some(2 - rounds), "{dropped}");
        let page = fs::read_to_string(directory.path().join("report.md")).expect("written");
        assert_eq!(page.contains("the round is dropped"), deaths == 2, "{page}");
    }
}

#[test]
fn a_scenario_that_cannot_be_had_at_a_rate_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("skewed.toml");
    fs::write(&file, "name = 'mine'\npath = '/'\nskewed = true\n").expect("written");
    let (file, out) = (file.to_str().expect("a path"), directory.path().to_str().expect("a path"));
    let output = run(&["compare", "--rate", "100", "--scenario-file", file, "--out", out]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--rate makes no sense in mine"), "{said}");
}

/// Also while it waits for a contender that does not end.
#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_str().expect("a path");
    let flags = ["--scenario", "few", "--duration", "100", "--contender", "tokio"];
    let child = corelane(&[&["compare", "--out", out], &flags[..]].concat())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut child = Ends(child);
    family_with(child.0.id(), "load");
    let (_, contender) = family_with(child.0.id(), "contender");
    signal(contender, Signal::STOP);
    let status = eventually("it ends", || {
        let ended = child.0.try_wait().expect("a child");
        if ended.is_none() {
            signal(child.0.id(), Signal::INT);
        }
        ended
    });
    signal(contender, Signal::KILL);
    assert_eq!(status.code(), Some(130));
    let said = std::io::read_to_string(child.0.stdout.take().expect("piped")).expect("read");
    assert!(!said.contains("report:"), "{said}");
}
