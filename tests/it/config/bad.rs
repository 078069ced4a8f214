//! Files that are wrong: each with exactly what is said of it, and nothing bound.

use super::{directory, program, run, text, write};
use std::fmt::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::{Duration, Instant};

/// Set, the expected messages are written anew instead of being compared.
const UPDATE: &str = "CORELANE_TEST_UPDATE";

/// A file that is wrong, and what is said of it.
struct Case {
    name: String,
    file: String,
    said: String,
}

/// `=== name`, the file, `---`, what is said.
fn cases(text: &str) -> Vec<Case> {
    let case = |text: &str| {
        let (name, rest) = text.split_once('\n').expect("a name");
        let (file, said) = rest.split_once("---\n").unwrap_or((rest, ""));
        Case { name: name.into(), file: file.replace("\\0", "\0"), said: said.trim_end().into() }
    };
    text.split("=== ").skip(1).map(case).collect()
}

/// Which CPUs may be used differs from machine to machine.
fn without_cpus(said: &str) -> String {
    let allowed = std::fs::read_to_string("/proc/self/status").expect("a process");
    let allowed = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed = allowed.expect("a list").trim();
    let count = std::thread::available_parallelism().expect("a number");
    said.replace(&format!("({allowed})"), "(ALLOWED)")
        .replace(&format!("only {count} CPU"), "only SOME CPU")
        .replace("SOME CPUs", "SOME CPU")
}

#[test]
fn every_bad_file_has_its_message() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/config/bad.txt");
    let cases = cases(&std::fs::read_to_string(path).expect("the cases"));
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let directory = directory();
    // What the cases name.
    std::fs::create_dir(directory.path().join("site")).expect("made");
    write(&directory, "site/small.html", "<p>small</p>");
    let large = std::fs::File::create(directory.path().join("site/large.bin")).expect("made");
    large.set_len((1 << 20) + 1).expect("made");
    let (mut anew, mut wrong) = (String::new(), String::new());
    for Case { name, file, said } in cases {
        write(&directory, "bad.toml", &file);
        let output = run(&directory, &["check", "bad.toml"]);
        let now = without_cpus(text(&output.stderr).trim_end());
        let now = now.replace(directory.path().to_str().expect("text"), "DIRECTORY");
        let _ = writeln!(anew, "=== {name}\n{}---\n{now}", file.replace('\0', "\\0"));
        let clean = output.stdout.is_empty() && output.status.code() == Some(2);
        if !clean || now != said {
            let _ =
                writeln!(wrong, "=== {name}: {:?}\nexpected\n{said}\nfound\n{now}", output.status);
        }
    }
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(path, anew).expect("written");
        return;
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What `check` and `serve` say of a file, which is the same, and how long it took them.
#[track_caller]
fn refused(directory: &tempfile::TempDir, file: &str) -> String {
    let began = Instant::now();
    let check = run(directory, &["check", file]);
    let serve = run(directory, &["serve", "--config", file]);
    // A generous bound: it is 10 ms on a machine that has nothing else to do.
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!((check.status.code(), serve.status.code()), (Some(2), Some(2)));
    assert_eq!((text(&check.stdout), text(&serve.stdout)), (String::new(), String::new()));
    assert_eq!(text(&check.stderr), text(&serve.stderr));
    text(&check.stderr)
}

#[test]
fn what_is_no_file_is_refused_without_being_opened() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("directory")).expect("made");
    assert_eq!(refused(&directory, "directory"), "directory: cannot be read: it is a directory\n");
    let fifo = std::process::Command::new("mkfifo").arg(path("fifo")).status();
    assert!(fifo.is_ok_and(|status| status.success()));
    assert!(path("fifo").metadata().expect("there").file_type().is_fifo());
    assert_eq!(refused(&directory, "fifo"), "fifo: cannot be read: it is no regular file\n");
    assert_eq!(
        refused(&directory, "/dev/zero"),
        "/dev/zero: cannot be read: it is no regular file\n"
    );
    let missing = "missing: cannot be read: No such file or directory (os error 2)\n";
    assert_eq!(refused(&directory, "missing"), missing);
    std::os::unix::fs::symlink(path("loop"), path("loop")).expect("made");
    assert!(refused(&directory, "loop").starts_with("loop: cannot be read: "));
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    let directory = directory();
    let path = write(&directory, "secret.toml", "");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o0)).expect("changed");
    if std::fs::read(&path).is_err() {
        assert!(refused(&directory, "secret.toml").contains("Permission denied"));
        return;
    }
    // This process may read anything; another user may not.
    let mut child = std::process::Command::new("setpriv");
    child.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    child.arg(env!("CARGO_BIN_EXE_corelane")).args(["check", "secret.toml"]);
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
        .expect("changed");
    match child.current_dir(directory.path()).output() {
        Ok(output) if output.status.code() == Some(2) => {
            assert!(
                text(&output.stderr).contains("secret.toml: cannot be read: Permission denied")
            );
        }
        other => eprintln!("SKIPPED: no other user can run the program here: {other:?}"),
    }
}

#[test]
fn what_is_no_text_is_refused_where_it_stops_being_one() {
    let directory = directory();
    write(&directory, "latin", b"[shard]\n# caf\xe9\n");
    let expected =
        "latin:2:6: this byte is not UTF-8, as TOML must be\n  2 | # caf\u{fffd}\n    |      ^\n";
    assert_eq!(refused(&directory, "latin"), expected);
}

#[test]
fn a_file_that_is_far_too_long_is_not_read_to_its_end() {
    let directory = directory();
    let path = write(&directory, "long.toml", "");
    std::fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(100 << 20))
        .expect("made");
    let expected = "long.toml: has more than 4 MiB, which no configuration needs\n";
    assert_eq!(refused(&directory, "long.toml"), expected);
}

#[test]
fn nesting_without_end_is_refused() {
    let directory = directory();
    write(&directory, "deep.toml", format!("a = {}", "[".repeat(100_000)));
    assert!(refused(&directory, "deep.toml").starts_with("deep.toml:1:"));
    let keys = format!("{}a = 1", "a.".repeat(100_000));
    write(&directory, "keys.toml", keys);
    assert!(refused(&directory, "keys.toml").starts_with("keys.toml:1:"));
}

#[test]
fn thousands_of_errors_are_not_all_shown() {
    let directory = directory();
    let text: String = (0..3000).map(|number| format!("key{number} = 1\n")).collect();
    write(&directory, "many.toml", text);
    let said = refused(&directory, "many.toml");
    assert!(said.ends_with("and 2950 more\n") && said.lines().count() < 300, "{said}");
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    let directory = directory();
    let said = |name: &str, value: &str| {
        let output = program(&directory, &["check"]).env(name, value).output().expect("started");
        (output.status.code(), text(&output.stderr))
    };
    let mode = "CORELANE_RUNTIME_MODE: expected \"thread-per-core\" or \"work-stealing\", found \"fast\"\n";
    assert_eq!(said("CORELANE_RUNTIME_MODE", "fast"), (Some(2), mode.to_owned()));
    let key =
        "CORELANE_SHARD_EVENT: [shard] has no such key\n  = did you mean CORELANE_SHARD_EVENTS?\n";
    assert_eq!(said("CORELANE_SHARD_EVENT", "5"), (Some(2), key.to_owned()));
}

#[test]
fn nothing_is_bound_if_anything_is_wrong() {
    let directory = directory();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let file = format!("[[listener]]\nname = \"a\"\naddress = \"{address}\"\nbacklog = 0\n");
    write(&directory, "bad.toml", file);
    // Were it bound, the port that is taken would be what is said.
    assert!(refused(&directory, "bad.toml").starts_with("bad.toml:4:11: backlog: expected"));
}
