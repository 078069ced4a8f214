//! `corelane compare` and `corelane load`, as processes.

mod contenders;
mod faults;
mod load;
mod output;
mod page;
mod places;

use super::harness::HANGS_AFTER;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The program with these arguments.
fn corelane(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A child that ends with the test, also if that fails.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it to its end.
fn run(arguments: &[&str]) -> Output {
    corelane(arguments).output().expect("started")
}

/// The CPUs that this process may use.
fn cpus() -> Vec<usize> {
    let all = core_affinity::get_core_ids().expect("a mask");
    all.into_iter().map(|core| core.id).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server that does as `serve` says with each connection, on threads that end with the test's process.
fn made_up(serve: impl Fn(std::net::TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads one request's head. False: there is no more.
fn read_head(stream: &mut std::net::TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// Answers every request with these bytes.
fn answers(bytes: &'static [u8]) -> impl Fn(std::net::TcpStream) + Clone + Send + 'static {
    move |mut stream| {
        while read_head(&mut stream) && stream.write_all(bytes).is_ok() {}
    }
}

/// Waits until a process is gone.
fn is_gone(pid: u32) -> bool {
    let until = Instant::now() + HANGS_AFTER / 4;
    while Instant::now() < until {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.is_empty() || status.contains("State:\tZ") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}
