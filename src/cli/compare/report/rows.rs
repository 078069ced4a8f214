//! A scenario as rows of text: what the tables of all formats say.
//!
//! Texts are as they come from the report. Whoever writes them escapes them.

use super::statistics::{self, Figures, Saturation};
use super::{
    MISSING, counted, grouped, latency_or_missing, number, number_or_missing, one_line, percent,
};
use crate::cli::compare::model::{Contender, Scenario};
use crate::cli::load::meter::{SATURATED, Shares};
use std::collections::BTreeMap;

/// The columns after the first, "Architecture".
pub(super) const COLUMNS: [&str; 14] = [
    "Req/sec",
    "p50",
    "p75",
    "p90",
    "p99",
    "p99.9",
    "max",
    "Errors",
    "CPU µs/req",
    "user",
    "system",
    "switches/req",
    "RSS MiB",
    "spread",
];

/// Where the errors are in [`COLUMNS`]. A table that is too wide is split after them.
pub(super) const ERRORS: usize = 7;

/// The percentiles of the columns, in ten-thousandths.
const QUANTILES: [u32; 6] = [5_000, 7_500, 9_000, 9_900, 9_990, 10_000];

/// The columns of the second table, for contenders that count what crosses between cores.
pub(super) const CROSSED_COLUMNS: [&str; 3] = ["foreign wakes", "steals", "inbox messages"];

/// Share of a CPU below which the neighbour has not had most of it.
const NEIGHBOUR_MIN: f64 = 0.5;

/// How a row stands beside the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It differs, or is the first, or has no figures.
    None,
    /// The difference is inside the noise of the paired rounds.
    Same,
    TooFew,
}

impl Mark {
    /// The sign before the row.
    pub(super) fn sign(self) -> &'static str {
        match self {
            Mark::None => "",
            Mark::Same => "~",
            Mark::TooFew => "?",
        }
    }

    /// What the sign means.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Mark::None => "",
            Mark::Same => {
                "no difference from the first row: requests/s, p99 and CPU per request are inside \
                 the noise of the paired rounds"
            }
            Mark::TooFew => "too few paired rounds to tell it from the first row",
        }
    }
}

/// One contender.
pub(super) struct Row {
    pub(super) mark: Mark,
    pub(super) label: String,
    pub(super) figures: Figures,
    /// A text for each of [`COLUMNS`]; nothing if there was no round.
    pub(super) cells: Vec<String>,
    /// A text for each of [`CROSSED_COLUMNS`], if the contender tells.
    pub(super) crossed: Option<[String; 3]>,
    pub(super) failure: Option<String>,
    /// Rounds that are missing through no fault of its own, and why.
    pub(super) dropped: Vec<String>,
}

/// A row for each contender, in their order.
pub(super) fn rows(scenario: &Scenario) -> Vec<Row> {
    let labels = labels(scenario);
    let of = |(contender, label): (&Contender, String)| {
        let figures = Figures::of(contender);
        Row {
            mark: mark(scenario, contender),
            label,
            cells: if figures.rounds > 0 { cells(&figures) } else { Vec::new() },
            crossed: figures.crossed.map(|events| events.map(number)),
            failure: contender.failure.as_deref().map(one_line),
            dropped: contender.dropped.iter().map(|why| one_line(why)).collect(),
            figures,
        }
    };
    scenario.contenders.iter().zip(labels).map(of).collect()
}

/// The signs that some row has.
pub(super) fn marks(rows: &[Row]) -> impl Iterator<Item = Mark> {
    let has = |mark: &Mark| rows.iter().any(|row| row.mark == *mark);
    [Mark::Same, Mark::TooFew].into_iter().filter(has)
}

/// What must be known to read the rows: contenders that stopped, a load generator that was at its limit.
pub(super) fn warnings(rows: &[Row]) -> Vec<String> {
    let mut all = Vec::new();
    for row in rows.iter().filter(|row| !row.cells.is_empty()) {
        let label = &row.label;
        if let Some(failure) = &row.failure {
            let rounds = counted(row.figures.rounds as u64, "round");
            all.push(format!("{label} stopped after {rounds}: {failure}"));
        }
    }
    for row in rows {
        let label = &row.label;
        if !row.dropped.is_empty() {
            let dropped = row.dropped.join("; ");
            all.push(format!(
                "what measures {label} failed twice, and the round is dropped: {dropped}"
            ));
        }
        if let Some(had) = row.figures.neighbour.filter(|had| *had < NEIGHBOUR_MIN) {
            all.push(format!(
                "the neighbour had only {} % of its CPU beside {label}: others wanted it too",
                percent(had)
            ));
        }
    }
    all.extend([Saturation::Alone, Saturation::Crowded].into_iter().filter_map(|why| {
        let limited: Vec<&Row> =
            rows.iter().filter(|row| row.figures.saturation() == Some(why)).collect();
        (!limited.is_empty()).then(|| saturated(why, &limited))
    }));
    all
}

/// That the load generator had nothing left with these contenders, and why.
fn saturated(why: Saturation, rows: &[&Row]) -> String {
    let labels: Vec<&str> = rows.iter().map(|row| row.label.as_str()).collect();
    let labels = labels.join("; ");
    let most = |share: fn(&Shares) -> f64| {
        percent(rows.iter().map(|row| share(&row.figures.generator)).fold(0.0, f64::max))
    };
    let (busy, waited) = (most(|shares| shares.busy), most(|shares| shares.waited));
    let limit = percent(SATURATED);
    match why {
        Saturation::Alone => format!(
            "the load generator was saturated, and is itself the limit (a thread of it was busy for up to {busy} % of its \
             time; the limit is {limit} %): the figures of {labels} are a lower bound"
        ),
        Saturation::Crowded => format!(
            "the load generator was saturated, as it and the server wanted the same CPUs (a thread of it ran or waited for a \
             CPU for up to {busy} % of its time, and waited for up to {waited} %; the limit is {limit} %): the figures of {labels} \
             are those of server and generator together"
        ),
    }
}

/// Errors by kind: "812 timeout, 3 read".
pub(super) fn by_kind(errors: &BTreeMap<String, u64>) -> String {
    let kinds =
        errors.iter().map(|(kind, count)| format!("{} {}", grouped(*count), one_line(kind)));
    kinds.collect::<Vec<_>>().join(", ")
}

/// The load in words: "256 connections, 31,000 requests/s due".
pub(super) fn load(scenario: &Scenario) -> String {
    let mut text = counted(u64::from(scenario.connections), "connection");
    if let Some(rate) = scenario.rate {
        text.push_str(&format!(", {} requests/s due", number(rate)));
    }
    if scenario.payload > 0 {
        text.push_str(&format!(", {} each", super::bytes(scenario.payload)));
    }
    text
}

/// What the table calls the contenders: the architecture, with the name if another has the same.
fn labels(scenario: &Scenario) -> Vec<String> {
    let shown = |contender: &Contender| match one_line(&contender.architecture) {
        architecture if architecture.is_empty() => one_line(&contender.name),
        architecture => architecture,
    };
    let all: Vec<String> = scenario.contenders.iter().map(shown).collect();
    let unique = |label: &String| all.iter().filter(|other| *other == label).count() == 1;
    let each = scenario.contenders.iter().zip(&all);
    each.map(|(contender, label)| match one_line(&contender.name) {
        name if unique(label) || name == *label => label.clone(),
        name => format!("{label} ({name})"),
    })
    .collect()
}

fn mark(scenario: &Scenario, contender: &Contender) -> Mark {
    match scenario.contenders.first() {
        Some(first) if !std::ptr::eq(first, contender) && !contender.rounds.is_empty() => {
            match statistics::differs(contender, first) {
                Some(true) => Mark::None,
                Some(false) => Mark::Same,
                None => Mark::TooFew,
            }
        }
        _ => Mark::None,
    }
}

fn cells(figures: &Figures) -> Vec<String> {
    let mut cells = vec![number_or_missing(figures.rate)];
    cells.extend(
        QUANTILES.iter().map(|share| latency_or_missing(figures.latencies.quantile(*share))),
    );
    cells.push(if figures.errors.is_empty() { "0".into() } else { by_kind(&figures.errors) });
    cells.extend(
        [figures.cpu(), figures.user, figures.system, figures.switches].map(number_or_missing),
    );
    cells.push(number_or_missing(figures.rss_bytes.map(|bytes| bytes / f64::from(1 << 20))));
    cells.push(spread(figures).unwrap_or_else(|| MISSING.to_owned()));
    cells
}

/// The lowest and the highest rate in per cent of the median.
fn spread(figures: &Figures) -> Option<String> {
    let rate = figures.rate.filter(|rate| *rate > 0.0)?;
    let (lowest, highest) = figures.extremes?;
    Some(format!("{:.0}..{:.0} %", lowest / rate * 100.0, highest / rate * 100.0))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::sample::{contender, poor, round, sample, scenario};
    use super::*;

    #[test]
    fn each_row_has_a_text_for_each_column_or_none() {
        for report in std::iter::once(sample()).chain(poor()) {
            for row in report.scenarios.iter().flat_map(rows) {
                assert!(row.cells.is_empty() || row.cells.len() == COLUMNS.len());
                let texts = row.cells.iter().chain(row.crossed.iter().flatten());
                for text in texts {
                    assert!(!text.is_empty() && !text.contains("NaN") && !text.contains("inf"));
                }
            }
        }
    }

    #[test]
    fn rows_like_the_first_are_marked() {
        let rounds = |count: u32, rate: f64| {
            (0..count).map(|number| round(number, rate, 1_000.0, 10.0)).collect()
        };
        let scenario = scenario(
            "it",
            vec![
                contender("first", rounds(5, 1_000.0)),
                contender("like it", rounds(5, 1_001.0)),
                contender("faster", rounds(5, 1_100.0)),
                contender("stopped", rounds(2, 1_000.0)),
                contender("never began", Vec::new()),
            ],
        );
        let rows = rows(&scenario);
        let marks: Vec<Mark> = rows.iter().map(|row| row.mark).collect();
        assert_eq!(marks, [Mark::None, Mark::Same, Mark::None, Mark::TooFew, Mark::None]);
        assert_eq!(super::marks(&rows).count(), 2);
    }

    #[test]
    fn contenders_of_one_architecture_are_told_apart() {
        let mut twice =
            scenario("it", vec![contender("tokio", Vec::new()), contender("again", Vec::new())]);
        assert_eq!(labels(&twice), ["Tokio, multi-thread", "again"]);
        twice.contenders[1].architecture = twice.contenders[0].architecture.clone();
        assert_eq!(labels(&twice), ["Tokio, multi-thread (tokio)", "Tokio, multi-thread (again)"]);
        twice.contenders[1].architecture.clear();
        assert_eq!(labels(&twice), ["Tokio, multi-thread", "again"]);
    }

    #[test]
    fn what_limits_the_figures_is_said() {
        let report = sample();
        let of = |index: usize| warnings(&rows(&report.scenarios[index]));
        assert!(of(0).is_empty());
        let stopped =
            "thread per connection stopped after 2 rounds: thread-per-connection died: signal 9";
        let crowded = &of(1)[1];
        assert_eq!(of(1), [stopped, crowded]);
        assert!(crowded.contains("wanted the same CPUs"), "{crowded}");
        assert!(crowded.contains("up to 99 % of its time, and waited for up to 40 %"), "{crowded}");
        assert_eq!(of(2).len(), 1);
        assert!(of(2)[0].contains("busy for up to 97 %"), "{:?}", of(2));
        assert!(of(2)[0].ends_with("the figures of thread per core are a lower bound"));
    }

    #[test]
    fn what_measures_may_fail_too() {
        let mut round = round(0, 1_000.0, 1_000.0, 10.0);
        round.neighbour = Some(0.4);
        let mut scenario = scenario("it", vec![contender("a", vec![round])]);
        scenario.contenders[0].dropped = vec!["round 2: it has ended".into()];
        let said = warnings(&rows(&scenario));
        assert!(said[0].ends_with("the round is dropped: round 2: it has ended"), "{said:?}");
        assert!(said[1].contains("only 40 % of its CPU beside a"), "{said:?}");
        assert_eq!(said.len(), 2);
    }

    #[test]
    fn the_load_is_said_in_words() {
        let report = sample();
        assert_eq!(load(&report.scenarios[0]), "256 connections");
        assert_eq!(load(&report.scenarios[1]), "256 connections, 31,000 requests/s due");
        assert_eq!(load(&report.scenarios[2]), "256 connections, 1 MiB each");
    }
}
