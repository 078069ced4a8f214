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
