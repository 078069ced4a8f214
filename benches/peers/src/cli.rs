//! The command line.

use clap::{Parser, Subcommand};

use crate::{ops, run, serve};

/// Corelane beside other async runtimes, measured the same way.
#[derive(Debug, Parser)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure contenders side by side and print the ratios.
    Run(run::Options),
    /// Run one HTTP server until SIGTERM.
    Serve {
        /// Which server.
        contender: serve::Contender,
        #[command(flatten)]
        options: serve::Options,
    },
    /// Measure the operations of one runtime.
    Ops {
        /// Which runtime.
        contender: ops::Contender,
        /// Only these operations, comma-separated.
        #[arg(long, value_delimiter = ',')]
        only: Vec<ops::Operation>,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
}
