//! Where the reports go.

use super::{corelane, run, text};
use std::fs;

const SHORT: [&str; 9] = [
    "compare",
    "--duration",
    "0.2",
    "--rounds",
    "1",
    "--scenario",
    "few",
    "--contender",
    "thread-per-core",
];

#[test]
fn what_cannot_be_written_is_told_before_anything_is_measured() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("written");
    let taken = directory.path().join("taken");
    fs::create_dir_all(taken.join("report.md")).expect("made");
    for out in [file.join("below"), taken.clone()] {
        let output = run(&[&SHORT[..], &["--out", out.to_str().expect("a path")]].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("no report can be written to"), "{said}");
        assert!(!said.contains("round 1"), "{said}");
    }
    // Nothing is left of the attempt.
    assert!(!taken.join("report.json").exists());
}

#[test]
fn a_report_that_is_drawn_again_lies_beside_its_figures() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let run_here = |flags: &[&str]| {
        let output = corelane(flags).current_dir(directory.path()).output().expect("started");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(run_here(&SHORT).ends_with("report: compare-report/report.html\n"));
    let figures = fs::read(path("compare-report/report.json")).expect("written");
    fs::write(path("monday.json"), &figures).expect("written");
    fs::remove_file(path("compare-report/report.html")).expect("removed");
    assert!(run_here(&["compare", "--from", "monday.json"]).ends_with("report: monday.html\n"));
    assert!(path("monday.md").exists() && path("monday.html").exists());
    assert!(!path("compare-report/report.html").exists(), "another report was written over");
    assert_eq!(fs::read(path("monday.json")).expect("it is there"), figures);
    // It would be lost.
    fs::rename(path("monday.json"), path("monday.html")).expect("renamed");
    let output =
        corelane(&["compare", "--from", "monday.html"]).current_dir(directory.path()).output();
    let output = output.expect("started");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--out"), "{}", text(&output.stderr));
    assert_eq!(fs::read(path("monday.html")).expect("it is there"), figures);
}

/// A shell that is given the line starts the program with the same words.
#[test]
fn the_command_in_the_report_is_the_exact_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("it's  here");
    let odd = ["--out", out.to_str().expect("a path"), "--command", "x=sh -c 'exit  1; # $HOME'"];
    let output = run(&[&SHORT[..], &odd].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = fs::read_to_string(out.join("report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let command = report["command"].as_str().expect("a line");
    let words = format!("printf '%s\\n' {command}");
    let said = std::process::Command::new("sh").args(["-c", &words]).output().expect("started");
    let mut expected = vec![env!("CARGO_BIN_EXE_corelane")];
    expected.extend(SHORT.iter().chain(&odd));
    assert_eq!(text(&said.stdout).lines().collect::<Vec<_>>(), expected);
    let page = fs::read_to_string(out.join("report.md")).expect("written");
    assert!(page.contains(command), "{page}");
}
