//! Standard output and standard error that do not work: nobody reads them, they are closed, or the disk is full.

use super::accept::free_port;
use super::client::Client;
use super::program::{Lines, Program, Serve};
use super::{eventually, skipped, system};
use std::fs::{File, OpenOptions};
use std::io::pipe;
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

/// The program serves at this address, also out of files (which it would like to log), and ends when told.
#[track_caller]
fn serves_and_ends(mut program: Program, address: SocketAddr) {
    eventually("it listens", || TcpStream::connect(address).ok());
    let mut first = Client::connect(address);
    first.get().is_hello();
    let crowd: Vec<Client> = (0..100).map(|_| Client::connect(address)).collect();
    for _ in 0..50 {
        first.get().is_hello();
    }
    drop(crowd);
    let mut last = Client::connect(address);
    last.get().is_hello();
    program.signal(libc::SIGTERM);
    let took = program.exits_with(0);
    assert!(took < Duration::from_secs(10), "{took:?}");
    first.is_closed();
    last.is_closed();
}

fn serve(address: SocketAddr) -> Serve {
    Serve::new(&["--listen", &address.to_string()]).open_files(64)
}

fn full() -> Option<File> {
    let full = OpenOptions::new().write(true).open("/dev/full").ok();
    if full.is_none() {
        skipped("there is no /dev/full");
    }
    full
}

#[test]
fn a_standard_error_that_nobody_reads_holds_nothing_up() {
    let address = free_port();
    let (_unread, mut writer) = pipe().expect("a pipe");
    system::fill(&mut writer);
    serves_and_ends(serve(address).stderr(writer).start(), address);
}

#[test]
fn a_standard_output_that_nobody_reads_holds_nothing_up() {
    let address = free_port();
    let (_unread, mut writer) = pipe().expect("a pipe");
    system::fill(&mut writer);
    serves_and_ends(serve(address).stdout(writer).start(), address);
}

#[test]
fn a_pipe_for_both_that_nobody_reads_holds_nothing_up() {
    let address = free_port();
    let (_unread, mut writer) = pipe().expect("a pipe");
    system::fill(&mut writer);
    let errors = writer.try_clone().expect("a descriptor");
    serves_and_ends(serve(address).stdout(writer).stderr(errors).start(), address);
}

#[test]
fn pipes_whose_reader_has_gone_hold_nothing_up() {
    let address = free_port();
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let errors = writer.try_clone().expect("a descriptor");
    serves_and_ends(serve(address).stdout(writer).stderr(errors).start(), address);
}

#[test]
fn closed_standard_output_and_error_hold_nothing_up() {
    let address = free_port();
    let shell = ["sh", "-c", "exec \"$@\" >&- 2>&-", "sh"];
    serves_and_ends(serve(address).under(&shell).stdout(Stdio::null()).start(), address);
}

#[test]
fn a_full_disk_behind_standard_output_and_error_holds_nothing_up() {
    let (Some(out), Some(err)) = (full(), full()) else { return };
    let address = free_port();
    serves_and_ends(serve(address).stdout(out).stderr(err).start(), address);
}

#[test]
fn what_was_said_while_nobody_read_comes_when_somebody_does() {
    let (unread, mut writer) = pipe().expect("a pipe");
    system::fill(&mut writer);
    let mut program = Serve::new(&["--cores", "1", "--drain-seconds", "60"]).stderr(writer).start();
    let mut open = Client::connect(program.address());
    open.get().is_hello();
    open.send("GET / HTTP/1.1\r\n");
    program.signal(libc::SIGTERM);
    eventually("it listens no more", || TcpStream::connect(program.address()).err());
    let said = Lines::read(unread);
    said.wait_for("SIGTERM: draining for at most 60 s");
    drop(open);
    program.exits_with(0);
}

#[test]
fn the_log_may_be_objects_of_json() {
    let mut program = Serve::new(&["--log-format", "json"]).start();
    program.signal(libc::SIGTERM);
    program.exits_with(0);
    let lines = program.err.all();
    assert!(!lines.is_empty());
    for line in &lines {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert!(lines[0].contains("draining for at most 10 s"), "{lines:?}");
}
