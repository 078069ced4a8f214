//! `corelane serve` as a child process: starting it, reading what it says, looking at it through /proc.

use super::{NEVER, eventually, system, until};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A `corelane serve` that is about to be started, on a port of the system's choice unless one is given.
pub(crate) struct Serve {
    wrapper: Vec<String>,
    arguments: Vec<String>,
    open_files: Option<u64>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

/// The mode in which programs are started that do not ask for one. Tests of what the other mode does not have, sockets and
/// pins for each shard, are to be skipped then.
const MODE: &str = "CORELANE_TEST_MODE";

impl Serve {
    pub(crate) fn new(flags: &[&str]) -> Serve {
        let mut arguments = vec!["serve"];
        if !flags.contains(&"--listen") {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        let mode = std::env::var(MODE);
        if let Ok(mode) = &mode
            && !flags.contains(&"--mode")
        {
            arguments.extend(["--mode", mode]);
        }
        arguments.extend(flags);
        Serve::with_arguments(&arguments)
    }

    /// The program with exactly these arguments.
    pub(crate) fn with_arguments(arguments: &[&str]) -> Serve {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Serve {
            wrapper: Vec::new(),
            arguments,
            open_files: None,
            stdin: None,
            stdout: None,
            stderr: None,
        }
    }

    /// Started by another program, which puts it in its own place.
    pub(crate) fn under<S: AsRef<str>>(mut self, wrapper: &[S]) -> Serve {
        self.wrapper = wrapper.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// With no more than this many open files.
    pub(crate) fn open_files(mut self, limit: u64) -> Serve {
        self.open_files = Some(limit);
        self
    }

    /// What it reads, instead of nothing.
    #[cfg(feature = "compare")]
    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Serve {
        self.stdin = Some(stdin.into());
        self
    }

    /// Nobody reads its standard output, so `start` does not wait for the port.
    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Serve {
        self.stdout = Some(stdout.into());
        self
    }

    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Serve {
        self.stderr = Some(stderr.into());
        self
    }

    /// Starts it, and waits until it says where it listens.
    #[track_caller]
    pub(crate) fn start(self) -> Program {
        let silent = self.stdout.is_some();
        let mut program = self.spawn();
        if !silent {
            eventually("the program listens", || {
                let ended = program.status();
                if ended.is_some() {
                    program.out.all();
                }
                if program.addresses().is_empty() {
                    assert!(ended.is_none(), "it ended at once: {:?}", program.err.all());
                    return None;
                }
                Some(())
            });
        }
        program
    }

    /// Starts it and waits until it ends by itself.
    #[track_caller]
    pub(crate) fn run_to_its_end(self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let mut program = self.spawn();
        let status = program.wait();
        (status, program.out.all(), program.err.all())
    }

    #[track_caller]
    pub(crate) fn spawn(self) -> Program {
        let program = env!("CARGO_BIN_EXE_corelane");
        let mut words = self.wrapper.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().expect("a word"));
        command.args(words).args(&self.arguments);
        command.stdin(self.stdin.unwrap_or_else(Stdio::null));
        if !self.wrapper.is_empty() {
            // A build with AddressSanitizer could not look for leaks while it is traced.
            command.env("ASAN_OPTIONS", "detect_leaks=0");
        }
        command.stdout(self.stdout.unwrap_or_else(Stdio::piped));
        command.stderr(self.stderr.unwrap_or_else(Stdio::piped));
        system::bind_to_this_thread(&mut command, self.open_files);
        let mut child = command.spawn().expect("started");
        let out = child.stdout.take().map_or_else(Lines::none, Lines::read);
        let err = child.stderr.take().map_or_else(Lines::none, Lines::read);
        Program { child, out, err }
    }
}

/// A running child. It is killed when this is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

impl Program {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it says that it listens, so far.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let lines = self.out.so_far();
        let listening = lines.iter().filter_map(|line| line.strip_prefix("listening on "));
        let addresses = listening.filter_map(|line| line.split_once("://"));
        addresses
            .map(|(_, address)| address)
            .map(|address| address.parse().expect("an address"))
            .collect()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// What it has said on standard error, but for shards that others kept from their CPU: the machine is shared.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut lines = self.err.so_far();
        lines.retain(|line| !line.contains("a task has held it for"));
        lines
    }

    pub(crate) fn signal(&self, signal: i32) {
        system::send_signal(self.pid(), signal);
    }

    /// How it has ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Waits for its end, and for the last lines that it has written.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let said = self.err.clone();
        let began = Instant::now();
        loop {
            if let Some(status) = self.status() {
                self.out.all();
                self.err.all();
                return status;
            }
            assert!(began.elapsed() < NEVER, "it does not end; it has said {:?}", said.so_far());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end, which must be `exit(code)`, and returns how long that took.
    #[track_caller]
    pub(crate) fn exits_with(&mut self, code: i32) -> Duration {
        let began = Instant::now();
        let status = self.wait();
        let took = began.elapsed();
        assert_eq!(status.code(), Some(code), "signal {:?}, {:?}", status.signal(), self.err.all());
        took
    }

    /// Kills it and waits for it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid()))
    }

    /// Its open files, without those that it got from this process.
    pub(crate) fn own_files(&self) -> Vec<File> {
        let inherited: Vec<u32> = inherited_files();
        let mut files = files_of(&self.pid().to_string());
        files.retain(|file| !inherited.contains(&file.number));
        files
    }

    /// How many files it has open.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(self.proc("fd")).expect("a process").count()
    }

    /// The same, when it has not changed for a while: the start, for one, goes on after the program listens.
    #[track_caller]
    pub(crate) fn open_files_at_rest(&self) -> usize {
        let (mut files, mut since) = (self.open_files(), Instant::now());
        until("the number of open files does not change", || {
            let now = self.open_files();
            if now != files {
                (files, since) = (now, Instant::now());
            }
            since.elapsed() > Duration::from_millis(100)
        });
        files
    }

    /// CPU time it has used so far, in user and kernel mode.
    pub(crate) fn cpu_time(&self) -> Duration {
        let text = fs::read_to_string(self.proc("stat")).expect("a process");
        // The name, which may contain anything, ends at the last parenthesis; after it comes field 3.
        let fields: Vec<&str> =
            text.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks: u32 =
            fields[11..13].iter().map(|field| field.parse::<u32>().expect("a number")).sum();
        system::clock_tick() * ticks
    }

    /// Name and allowed CPUs of each thread.
    pub(crate) fn threads(&self) -> Vec<(String, String)> {
        let listed = fs::read_dir(self.proc("task")).expect("a process");
        let status = |entry: std::io::Result<fs::DirEntry>| {
            let text = fs::read_to_string(entry.ok()?.path().join("status")).ok()?;
            let field = |name| text.lines().find_map(|line: &str| line.strip_prefix(name));
            Some((
                field("Name:")?.trim().to_owned(),
                field("Cpus_allowed_list:")?.trim().to_owned(),
            ))
        };
        listed.filter_map(status).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An open file of a process.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) number: u32,
    pub(crate) closed_on_exec: bool,
}

/// The open files of this process that its children get.
pub(crate) fn inherited_files() -> Vec<u32> {
    let files = files_of("self").into_iter();
    [0, 1, 2]
        .into_iter()
        .chain(files.filter(|file| !file.closed_on_exec).map(|file| file.number))
        .collect()
}

fn files_of(process: &str) -> Vec<File> {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let directory = PathBuf::from(format!("/proc/{process}/fdinfo"));
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        // None if it has been closed since it was listed.
        let text = fs::read_to_string(entry.path()).ok()?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).expect("an octal number");
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some(File { number, closed_on_exec: flags & CLOSE_ON_EXEC != 0 })
    };
    fs::read_dir(directory).expect("a process").filter_map(file).collect()
}

/// Lines that a child writes, each with the time at which it came.
#[derive(Clone)]
pub(crate) struct Lines {
    read: Arc<Mutex<Output>>,
}

#[derive(Default)]
struct Output {
    lines: Vec<(Instant, String)>,
    ended: bool,
}

impl Lines {
    fn none() -> Lines {
        Lines { read: Arc::new(Mutex::new(Output { ended: true, ..Output::default() })) }
    }

    pub(crate) fn read(from: impl Read + Send + 'static) -> Lines {
        let lines = Lines { read: Arc::default() };
        let read = lines.read.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                read.lock().expect("no panic").lines.push((Instant::now(), line));
            }
            read.lock().expect("no panic").ended = true;
        });
        lines
    }

    pub(crate) fn so_far(&self) -> Vec<String> {
        self.read.lock().expect("no panic").lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// All of them, when the child is gone.
    #[track_caller]
    pub(crate) fn all(&self) -> Vec<String> {
        eventually("the end of the output", || {
            self.read.lock().expect("no panic").ended.then_some(())
        });
        self.so_far()
    }

    /// When lines with this text in them came.
    pub(crate) fn times_of(&self, text: &str) -> Vec<Instant> {
        let read = self.read.lock().expect("no panic");
        read.lines.iter().filter(|(_, line)| line.contains(text)).map(|(time, _)| *time).collect()
    }

    /// Waits for a line with this text in it.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let found = || self.so_far().into_iter().find(|line| line.contains(text));
        eventually(&format!("a line with {text:?}"), found)
    }
}
