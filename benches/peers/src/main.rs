//! Corelane beside other async runtimes: the servers, the operations, and the runner that compares them.
//!
//! `serve` and `ops` are one contender each, in a process of its own; `run` starts them in turn and
//! prints the ratios. README.md describes what is measured and how.

mod cli;
mod ops;
mod os;
mod run;
mod serve;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Box<dyn Error>> {
    match cli.command {
        Command::Serve { contender, options } => serve::run(contender, &options),
        Command::Run(options) => run::run(&options),
        Command::Ops { contender, only, json } => Ok(ops::run(contender, &only, json)?),
    }
}
