//! `corelane guard`: runs a program that is not ours, and ends it and whatever it has started when standard input ends.
//!
//! The guard adopts what the program starts and lets go, so nothing gets away by losing its parent. The program itself is
//! started by way of this one (`--parent`), which asks the system to be killed with the guard and then becomes the program: so it
//! does not outlive a guard that was killed. What it has started is then left to whoever started the guard.

use crate::sys::process::{Others, adopt_descendants, die_with_parent, kill_descendants, set_name};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long the end of the program and of its descendants may take: the system cannot kill at once what waits for a disk. Less
/// than whoever started the guard waits for it.
const ENDS_WITHIN: Duration = Duration::from_millis(1500);

/// The flags of `guard`: a program to run until standard input ends.
#[derive(clap::Args)]
pub(crate) struct Guard {
    /// Become the program, and be killed when this process, the parent, ends.
    #[arg(long, value_name = "PROCESS")]
    parent: Option<u32>,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// Runs the program until it ends, or standard input does; returns the exit status.
pub(crate) fn guard(options: &Guard) -> ExitCode {
    let result = match options.parent {
        Some(parent) => Err(become_program(parent, &options.command)),
        None => watch(&options.command),
    };
    result.unwrap_or_else(|error| {
        let program = options.command.first().map_or("", String::as_str);
        let _ = writeln!(io::stderr(), "corelane: {program} cannot be started: {error}");
        ExitCode::from(2)
    })
}

/// Returns only if it fails.
fn become_program(parent: u32, command: &[String]) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    match die_with_parent(parent) {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}

fn watch(command: &[String]) -> io::Result<ExitCode> {
    // Whoever kills every corelane by its name leaves this one, which sees to the rest.
    let _ = set_name(c"compare-guard");
    adopt_descendants()?;
    // The thread that starts the program must live as long as this process: the program ends with it.
    let mut child = Command::new(std::env::current_exe()?)
        .args(["guard", "--parent", &std::process::id().to_string(), "--"])
        .args(command)
        .stdin(Stdio::null())
        .spawn()?;
    let (tell, over) = mpsc::channel();
    let wait = move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = tell.send(());
    };
    let waiting = thread::Builder::new().name("parent".into()).spawn(wait);
    let status = loop {
        match child.try_wait() {
            Ok(None) if waiting.is_err() => break ExitCode::from(2),
            Ok(None) if over.recv_timeout(Duration::from_millis(20)).is_err() => {}
            Ok(Some(status)) => break ExitCode::from(status.code().unwrap_or(1) as u8),
            _ => break ExitCode::SUCCESS,
        }
    };
    kill_descendants(&mut Others::default(), ENDS_WITHIN);
    Ok(status)
}
