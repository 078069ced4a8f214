//! A server as the runner knows it: a name and a way to start it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::process::{Process, own_program};
use crate::serve;

/// How long a server may take until it answers; under a profiler it is slow.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Pause between two attempts to reach it.
const RETRY: Duration = Duration::from_millis(20);

/// The ports servers are started on: below the range the system takes for outgoing connections, for
/// an attempt to reach a server from its own port would connect to itself.
const PORT_FIRST: u16 = 20_000;
const PORTS: u16 = 10_000;

/// The contender the others are compared with first.
pub(super) const TOKIO: &str = "tokio";

/// Tokio's server with hyper's setting for pipelining, which only that comparison needs.
pub(super) const TOKIO_FLUSH: &str = "tokio+flush";

/// What the ratios refer to, where it was measured.
pub(super) const REFERENCES: [&str; 4] = [TOKIO, TOKIO_FLUSH, "tokio-per-core", "hyper-floor"];

/// A server that can be started.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    name: String,
    command: Command,
}

#[derive(Clone, Debug)]
enum Command {
    /// `serve NAME` of this program, with further arguments.
    BuiltIn { name: String, extra: Vec<String> },
    /// A shell command with placeholders.
    External(String),
}

/// Where and how large a server is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement<'a> {
    /// One thread for each.
    pub(super) cpus: &'a [usize],
    /// Confine the whole process to them, or leave it to the server.
    pub(super) confined: bool,
}

/// A started server that has answered once.
pub(super) struct Server {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
}

impl Contender {
    /// The servers of this program that are compared by default.
    pub(super) fn built_in() -> Vec<Contender> {
        let variants = serve::Contender::value_variants().iter();
        let names = variants.filter_map(|variant| variant.to_possible_value());
        names.map(|value| Contender::of(value.get_name())).collect()
    }

    fn of(name: &str) -> Contender {
        let command = Command::BuiltIn { name: name.to_owned(), extra: Vec::new() };
        Contender { name: name.to_owned(), command }
    }

    /// Tokio with `pipeline_flush`.
    pub(super) fn tokio_flush() -> Contender {
        let extra = vec!["--pipeline-flush".to_owned()];
        let command = Command::BuiltIn { name: TOKIO.to_owned(), extra };
        Contender { name: TOKIO_FLUSH.to_owned(), command }
    }

    /// A server from `NAME=COMMAND`.
    pub(super) fn external(text: &str) -> Result<Contender, String> {
        match text.split_once('=') {
            Some((name, command)) if !name.is_empty() && command.contains("{addr}") => {
                let command = Command::External(command.to_owned());
                Ok(Contender { name: name.to_owned(), command })
            }
            _ => Err(format!("--server wants NAME=COMMAND with {{addr}} in it, not {text}")),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Starts the server behind `prefix` (a profiler, or nothing) and waits until it answers.
    pub(super) fn start(
        &self,
        placement: Placement<'_>,
        prefix: &[String],
    ) -> Result<Server, String> {
        let address = free_address()?;
        let arguments = self.arguments(address, placement.cpus, prefix)?;
        let confined = placement.confined.then_some(placement.cpus);
        let mut process = Process::start(&arguments, confined)?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if answers(address) {
                return Ok(Server { process, address });
            }
            if let Some(status) = process.ended() {
                return Err(format!("{} ended at once: {status}", self.name));
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not answer on {address}", self.name));
            }
            thread::sleep(RETRY);
        }
    }

    fn arguments(
        &self,
        address: SocketAddr,
        cpus: &[usize],
        prefix: &[String],
    ) -> Result<Vec<String>, String> {
        let first = cpus.first().ok_or("a server needs a CPU")?.to_string();
        let threads = cpus.len().to_string();
        match &self.command {
            Command::BuiltIn { name, extra } => {
                let program = own_program();
                let listen = address.to_string();
                let own = [&program, "serve", name, "--listen", &listen, "--threads", &threads];
                let mut arguments = prefix.to_vec();
                arguments.extend(own.map(str::to_owned));
                arguments.extend(["--first-cpu".to_owned(), first]);
                arguments.extend_from_slice(extra);
                Ok(arguments)
            }
            Command::External(command) => {
                let list: Vec<_> = cpus.iter().map(usize::to_string).collect();
                let command = command
                    .replace("{addr}", &address.to_string())
                    .replace("{cpus}", &list.join(","))
                    .replace("{threads}", &threads);
                // `exec`, so that the process this program holds is the server and not its shell.
                let line = format!("exec {} {command}", prefix.join(" "));
                Ok(vec!["sh".to_owned(), "-c".to_owned(), line])
            }
        }
    }
}

/// A loopback address nobody listens on. Chosen here, since not every server tells its own.
fn free_address() -> Result<SocketAddr, String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..PORTS {
        // Relaxed: only the number matters.
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = (process::id() % u32::from(PORTS)) as u16;
        let port = PORT_FIRST + (start + step % PORTS) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port".to_owned())
}

/// Whether `GET /` is answered as agreed.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let limit = Some(Duration::from_secs(5));
    stream.set_read_timeout(limit).is_ok()
        && stream.write_all(request).is_ok()
        && stream.read_to_end(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
        && answer.ends_with(b"Hello, World!")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_command_gets_its_address_and_cpus() {
        let contender = Contender::external("x=x --listen {addr} --cores {cpus}").expect("valid");
        let address = "127.0.0.1:80".parse().expect("valid");
        let arguments = contender.arguments(address, &[2, 3], &["strace".to_owned()]);
        let line = "exec strace x --listen 127.0.0.1:80 --cores 2,3";
        assert_eq!(arguments, Ok(vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()]));
    }

    #[test]
    fn an_external_command_without_an_address_is_refused() {
        assert!(Contender::external("x=x --listen 80").is_err());
    }
}
