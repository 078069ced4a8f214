//! Runtime operations of all contenders side by side, each contender in a process of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;

use super::Settings;
use super::process::{Process, own_program};
use super::report::{Table, median, spread};
use crate::ops::{Contender, Operation, Row};

/// One contender's operations may take this long in one round.
const LIMIT: Duration = Duration::from_secs(300);

/// Values by round; a round without one holds None.
type Rounds = Vec<Option<f64>>;

/// All values of a run.
#[derive(Default)]
struct Values {
    median: BTreeMap<(usize, String), Rounds>,
    p99: BTreeMap<(usize, String), Rounds>,
    /// Why something has no value; once each, however often it was tried.
    unavailable: BTreeMap<(usize, String), String>,
}

/// Measures the operations round by round and prints figures and ratios.
pub(super) fn measure(settings: &Settings, contenders: &[Contender]) {
    let mut values = Values::default();
    for round in 0..settings.rounds {
        for index in 0..contenders.len() {
            let contender = contenders[(round + index) % contenders.len()];
            match rows(contender) {
                Ok(rows) => rows.into_iter().for_each(|row| values.add(round, row)),
                Err(error) => eprintln!("{}, round {}: {error}", contender.name(), round + 1),
            }
        }
    }
    let names: Vec<String> = contenders.iter().map(|contender| contender.name()).collect();
    println!("\nruntime operations: medians of {} rounds, ns unless said", settings.rounds);
    values.figures(&names).print();
    let tokio = Contender::Tokio.name();
    if names.contains(&tokio) {
        println!("ratio to {tokio}, paired by round: median (above 1 is better for M/s only)");
        values.ratios(&names, &tokio).print();
    }
    let own = Contender::Corelane.name();
    if names.contains(&own) {
        println!("{own} against the best peer, paired by round: median (lowest to highest)");
        values.against_best(&names, &own).print();
    }
    for ((index, name), reason) in &values.unavailable {
        println!("unavailable: {name} {}: {reason}", title(*index, ""));
    }
}

/// Runs one contender's operations in a process of its own.
fn rows(contender: Contender) -> Result<Vec<Row>, String> {
    let program = own_program();
    let arguments = [&program, "ops", &contender.name(), "--json"].map(str::to_owned);
    let output = Process::start_quietly(&arguments, None)?.output(LIMIT)?;
    output.lines().map(|line| serde_json::from_str(line).map_err(|e| e.to_string())).collect()
}

impl Values {
    fn add(&mut self, round: usize, row: Row) {
        let key = (row.operation as usize, row.contender);
        let note = |rounds: &mut Rounds, value| {
            rounds.resize(rounds.len().max(round + 1), None);
            rounds[round] = value;
        };
        note(self.median.entry(key.clone()).or_default(), row.value);
        if row.p99.is_some() {
            note(self.p99.entry(key.clone()).or_default(), row.p99);
        }
        if let Some(reason) = row.unavailable {
            self.unavailable.insert(key, reason);
        }
    }

    fn figures(&self, names: &[String]) -> Table {
        let mut table = Table::new("operation", names);
        for (index, _) in operations() {
            for (values, suffix) in [(&self.median, ""), (&self.p99, " p99")] {
                let cell = |name: &String| {
                    let rounds = values.get(&(index, name.clone()))?;
                    let mut values: Vec<f64> = rounds.iter().flatten().copied().collect();
                    median(&mut values).map(|value| format!("{value:.*}", digits(value)))
                };
                let cells: Vec<_> = names.iter().map(cell).collect();
                if suffix.is_empty() || cells.iter().any(Option::is_some) {
                    let cells = cells.into_iter().map(|cell| cell.unwrap_or("-".to_owned()));
                    table.row(&title(index, suffix), cells);
                }
            }
        }
        table
    }

    fn ratios(&self, names: &[String], reference: &str) -> Table {
        let names: Vec<_> = names.iter().filter(|name| *name != reference).collect();
        let mut table = Table::new("operation", names.iter().map(|name| name.as_str()));
        for (index, _) in operations() {
            let cells = names.iter().map(|name| {
                let mut ratios = self.paired(index, name, reference);
                median(&mut ratios).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
            });
            table.row(&title(index, ""), cells.collect::<Vec<_>>());
        }
        table
    }

    fn against_best(&self, names: &[String], own: &str) -> Table {
        let mut table = Table::new("operation", ["best peer", "its figure", "own figure", "ratio"]);
        for (index, operation) in operations() {
            let figure = |name: &str| {
                let rounds = self.median.get(&(index, name.to_owned()))?;
                median(&mut rounds.iter().flatten().copied().collect::<Vec<_>>())
            };
            // A bound is no peer.
            let line = Contender::Line.name();
            let peers = names.iter().filter(|name| *name != own && **name != line);
            let mut peers: Vec<_> =
                peers.filter_map(|name| Some((figure(name)?, name.as_str()))).collect();
            peers.sort_by(|one, other| one.0.total_cmp(&other.0));
            let best = if operation == Operation::OneWay { peers.last() } else { peers.first() };
            let Some(&(value, name)) = best else { continue };
            let shown = |value: f64| format!("{value:.*}", digits(value));
            let ratio = spread(&mut self.paired(index, own, name));
            let own_figure = figure(own).map_or("-".to_owned(), shown);
            table.row(&title(index, ""), [name.to_owned(), shown(value), own_figure, ratio]);
        }
        table
    }

    /// The ratios of one contender to another in the rounds that have both.
    fn paired(&self, index: usize, name: &str, reference: &str) -> Vec<f64> {
        let rounds = |name: &str| self.median.get(&(index, name.to_owned())).map(Vec::as_slice);
        let own = rounds(name).unwrap_or_default();
        let base = rounds(reference).unwrap_or_default();
        own.iter().zip(base).filter_map(|(own, base)| Some((*own)? / (*base)?)).collect()
    }
}

fn operations() -> impl Iterator<Item = (usize, Operation)> {
    Operation::value_variants().iter().map(|&operation| (operation as usize, operation))
}

fn title(index: usize, suffix: &str) -> String {
    let operation = Operation::value_variants()[index];
    let unit = if operation == Operation::OneWay { ", M/s" } else { "" };
    format!("{}{suffix}{unit}", operation.name())
}

/// Small figures with one digit behind the point.
fn digits(value: f64) -> usize {
    usize::from(value < 1000.0)
}
