//! Configuration as its users meet it: files that are wrong and what is said of them, files that are right and what they
//! come to, the environment and flags, and a server that is told to read its file again.

mod bad;
mod live;
mod right;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The program with these arguments, in a directory of its own, with no configuration from outside.
fn program(directory: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(directory.path()).stdin(Stdio::null());
    command
}

fn is_ours(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CORELANE_") && !name.starts_with("CORELANE_TEST_")
}

fn run(directory: &tempfile::TempDir, arguments: &[&str]) -> Output {
    program(directory, arguments).output().expect("started")
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A file of this name with this content.
fn write(directory: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, content).expect("written");
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
