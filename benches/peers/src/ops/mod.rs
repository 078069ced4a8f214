//! Runtime operations: spawning, yielding, timers, messages between two pinned threads.
//!
//! Each operation runs in a fresh runtime on a fresh thread pinned to the first CPU of this process;
//! the ones between threads have their far end on the second. An operation that a runtime or this
//! machine cannot do becomes a row that says so; it never ends the run.

mod compio;
mod cross;
mod glommio;
mod line;
mod local;
mod monoio;
mod sample;
mod smol;
mod tokio;

#[cfg(not(feature = "corelane"))]
#[path = "absent.rs"]
mod corelane;
#[cfg(feature = "corelane")]
mod corelane;

use std::any::Any;
use std::panic;
use std::thread;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use self::sample::Figures;
use crate::os;

/// A runtime whose operations are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    /// This project's runtime.
    Corelane,
    /// Tokio, current-thread.
    Tokio,
    /// Tokio, multi-thread with one worker (two runtimes for messages).
    TokioMulti,
    /// glommio.
    Glommio,
    /// monoio on its readiness driver.
    Monoio,
    /// monoio on io_uring.
    MonoioUring,
    /// compio.
    Compio,
    /// smol, one `LocalExecutor` per thread.
    Smol,
    /// No runtime: two threads that spin on a cache line each. Measured only when it is named.
    Line,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    /// Spawn a ready task and join it, one at a time.
    SpawnJoin,
    /// Spawn 1,000 ready tasks, then join them all; per task.
    SpawnThousand,
    /// Yield in the only task; per yield.
    YieldOne,
    /// Yield in each of 100 tasks; per yield.
    YieldHundred,
    /// Create a timer, poll it once, drop it.
    TimerCancel,
    /// A million tasks that each sleep 5 to 205 ms, all at once; wall time per timer.
    SleepMillion,
    /// A message to another pinned thread and back, one after the other without a pause.
    RoundTrip,
    /// The same with a pause before each, so that both threads are parked.
    RoundTripParked,
    /// Messages to another pinned thread through a bounded queue of 1,024.
    OneWay,
}

impl Operation {
    fn unit(self) -> &'static str {
        match self {
            Operation::OneWay => "M/s",
            _ => "ns",
        }
    }

    /// The name on the command line and in the tables.
    pub(crate) fn name(self) -> String {
        name_of(self)
    }
}

impl Contender {
    /// The name on the command line and in the tables.
    pub(crate) fn name(self) -> String {
        name_of(self)
    }
}

/// One measured operation of one contender.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) contender: String,
    pub(crate) operation: Operation,
    pub(crate) unit: String,
    /// The median; for round trips the 50th percentile.
    pub(crate) value: Option<f64>,
    /// The 99th percentile, of round trips only.
    pub(crate) p99: Option<f64>,
    /// Why there is no value.
    pub(crate) unavailable: Option<String>,
}

/// Measures the operations of one contender and prints a row for each as it is known.
pub(crate) fn run(contender: Contender, only: &[Operation], json: bool) -> Result<(), String> {
    let cpus = os::two_cpus()?;
    // Some runtimes panic where they cannot run; the row tells, without a trace in between.
    panic::set_hook(Box::new(|_| ()));
    for &operation in Operation::value_variants() {
        if only.is_empty() || only.contains(&operation) {
            print(&row(contender, operation, cpus), json);
        }
    }
    Ok(())
}

/// Measures one operation on a thread of its own and turns a panic into a reason.
fn row(contender: Contender, operation: Operation, cpus: [usize; 2]) -> Row {
    let measure = match contender {
        Contender::Corelane => corelane::measure,
        Contender::Tokio => tokio::current::measure,
        Contender::TokioMulti => tokio::multi::measure,
        Contender::Glommio => glommio::measure,
        Contender::Monoio => monoio::mio::measure,
        Contender::MonoioUring => monoio::uring::measure,
        Contender::Compio => compio::measure,
        Contender::Smol => smol::measure,
        Contender::Line => line::measure,
    };
    let thread = thread::spawn(move || measure(operation, cpus));
    let outcome = thread.join().unwrap_or_else(|payload| Err(panic_text(&*payload)));
    let (figures, unavailable) = match outcome {
        Ok(figures) => (Some(figures), None),
        Err(reason) => (None, Some(reason)),
    };
    Row {
        contender: contender.name(),
        operation,
        unit: operation.unit().to_owned(),
        value: figures.map(|figures: Figures| figures.median),
        p99: figures.and_then(|figures| figures.p99),
        unavailable,
    }
}

fn print(row: &Row, json: bool) {
    if json {
        println!("{}", serde_json::to_string(row).expect("a row has only plain fields"));
        return;
    }
    let name = row.operation.name();
    match (row.value, &row.unavailable) {
        (Some(value), _) => {
            let p99 = row.p99.map(|p99| format!("  p99 {p99:.0}")).unwrap_or_default();
            println!("{:<14} {name:<18} {value:>12.1} {}{p99}", row.contender, row.unit);
        }
        (None, reason) => {
            let reason = reason.as_deref().unwrap_or("no reason given");
            println!("{:<14} {name:<18}  unavailable: {reason}", row.contender);
        }
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("without a text"))
}

fn name_of(value: impl ValueEnum) -> String {
    let value = value.to_possible_value().expect("no variant is skipped");
    value.get_name().to_owned()
}
