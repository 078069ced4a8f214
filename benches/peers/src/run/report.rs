//! Medians, paired ratios and the tables they are printed in. Plain data.

use std::collections::BTreeMap;

/// One figure that a table has a column for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) title: &'static str,
    /// Digits behind the point.
    pub(super) digits: usize,
    /// Whether the ratios are of interest too.
    pub(super) compared: bool,
}

/// The figures of one run, in the order of the metrics.
pub(super) type Sample = Vec<f64>;

/// The samples of a measurement: by contender in the order they came, then by round.
#[derive(Debug)]
pub(super) struct Results {
    metrics: Vec<Metric>,
    order: Vec<String>,
    samples: BTreeMap<String, Vec<Option<Sample>>>,
}

impl Results {
    pub(super) fn new(metrics: &[Metric]) -> Results {
        Results { metrics: metrics.to_vec(), order: Vec::new(), samples: BTreeMap::new() }
    }

    /// Notes the sample of a contender in a round; a run that failed has none.
    pub(super) fn add(&mut self, contender: &str, round: usize, sample: Option<Sample>) {
        if !self.samples.contains_key(contender) {
            self.order.push(contender.to_owned());
        }
        let rounds = self.samples.entry(contender.to_owned()).or_default();
        rounds.resize(rounds.len().max(round + 1), None);
        rounds[round] = sample;
    }

    /// Fixes the order of the rows, which rotating rounds leave to chance.
    pub(super) fn sort_like<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let names: Vec<&str> = names.collect();
        self.order.sort_by_key(|name| names.iter().position(|other| other == name));
    }

    /// Prints the medians, then the ratios to each reference that was measured.
    pub(super) fn print(&self, title: &str, references: &[&str]) {
        println!("\n{title}");
        self.medians().print();
        for reference in references.iter().filter(|name| self.samples.contains_key(**name)) {
            println!("ratio to {reference}, paired by round: median (lowest to highest)");
            self.ratios(reference).print();
        }
    }

    fn medians(&self) -> Table {
        let titles = self.metrics.iter().map(|metric| metric.title);
        let mut table = Table::new("contender", titles);
        for name in &self.order {
            let rounds = &self.samples[name];
            let cells = self.metrics.iter().enumerate().map(|(index, metric)| {
                let mut values: Vec<f64> =
                    rounds.iter().flatten().map(|sample| sample[index]).collect();
                median(&mut values)
                    .map_or("-".to_owned(), |value| format!("{value:.*}", metric.digits))
            });
            table.row(name, cells);
        }
        table
    }

    fn ratios(&self, reference: &str) -> Table {
        let compared = || self.metrics.iter().enumerate().filter(|(_, metric)| metric.compared);
        let mut table = Table::new("contender", compared().map(|(_, metric)| metric.title));
        let base = &self.samples[reference];
        for name in self.order.iter().filter(|name| *name != reference) {
            let rounds = &self.samples[name];
            let cells = compared().map(|(index, _)| {
                let pairs = rounds.iter().zip(base);
                let mut ratios: Vec<f64> = pairs
                    .filter_map(|(own, other)| Some(own.as_ref()?[index] / other.as_ref()?[index]))
                    .filter(|ratio| ratio.is_finite())
                    .collect();
                spread(&mut ratios)
            });
            table.row(name, cells);
        }
        table
    }
}

/// The middle value; the mean of the two middle ones of an even number.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// A median with the range it comes from.
pub(super) fn spread(values: &mut [f64]) -> String {
    match (median(values), values) {
        (Some(middle), [low, .., high]) => format!("{middle:.2} ({low:.2} to {high:.2})"),
        (Some(middle), _) => format!("{middle:.2}"),
        (None, _) => "-".to_owned(),
    }
}

/// Rows of text with aligned columns, the first to the left, the others to the right.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<T: Into<String>>(first: &str, others: impl IntoIterator<Item = T>) -> Table {
        let mut table = Table { rows: Vec::new() };
        table.row(first, others);
        table
    }

    pub(super) fn row<T: Into<String>>(&mut self, first: &str, cells: impl IntoIterator<Item = T>) {
        let mut row = vec![first.to_owned()];
        row.extend(cells.into_iter().map(Into::into));
        self.rows.push(row);
    }

    pub(super) fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                line += &match column {
                    0 => format!("  {cell:<width$}"),
                    _ => format!("  {cell:>width$}"),
                };
            }
            println!("{}", line.trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn ratios_pair_the_same_round_and_skip_failed_runs() {
        let metric = Metric { title: "x", digits: 0, compared: true };
        let mut results = Results::new(&[metric]);
        for (round, (own, other)) in [(10.0, 20.0), (30.0, 40.0)].into_iter().enumerate() {
            results.add("a", round, Some(vec![own]));
            results.add("b", round, Some(vec![other]));
        }
        results.add("a", 2, None);
        results.add("b", 2, Some(vec![1.0]));
        let table = results.ratios("b");
        assert_eq!(table.rows[1], ["a", "0.62 (0.50 to 0.75)"]);
    }
}
