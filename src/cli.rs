//! The command line: `corelane [serve]`, `check`, `schema`, `reload`, `compare`, `load`.
//!
//! Parses, starts, prints what it did, waits for a signal, and turns the outcome into an exit status:
//! 0 for a clean end, 1 if something failed while it ran, 2 if it could not start, 128 plus the signal's number if a
//! second signal cut the drain short.

mod check;
#[cfg(feature = "compare")]
mod compare;
#[cfg(feature = "compare")]
mod load;
mod log;
mod reload;
mod serve;
mod settings;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A thread-per-core HTTP server: one pinned shard per CPU, nothing shared between them.
#[derive(Parser)]
#[command(name = "corelane", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Options,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a process")]
enum Command {
    /// Serve HTTP; what happens if no command is given.
    Serve(serve::Options),
    /// Check a configuration file, without starting anything.
    Check(check::Options),
    /// Print the JSON schema of a configuration file, for editors.
    Schema,
    /// Have a running server read its configuration file again.
    Reload(reload::Options),
    #[cfg(feature = "compare")]
    #[command(flatten)]
    Measure(compare::Command),
}

/// Exit status if the program could not start.
const CANNOT_START: u8 = 2;

/// The program's `main`.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(command) => run(command),
        None => serve::run(&arguments.serve),
    }
}

fn run(command: &Command) -> ExitCode {
    match command {
        Command::Serve(options) => serve::run(options),
        Command::Check(options) => check::run(options),
        Command::Schema => check::schema(),
        Command::Reload(options) => reload::run(options),
        #[cfg(feature = "compare")]
        Command::Measure(command) => command.run(),
    }
}
