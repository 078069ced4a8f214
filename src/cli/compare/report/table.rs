//! A scenario as a table for the terminal, at most [`WIDTH_MAX`] columns wide.

use super::rows::{self, COLUMNS, CROSSED_COLUMNS, ERRORS, Row};
use super::{grouped, one_line};
use crate::cli::compare::model::Scenario;

/// The widest line.
const WIDTH_MAX: usize = 120;

/// The widest name of a contender. Longer ones are cut.
const LABEL_MAX: usize = 36;

/// The widest text in the column of errors. Longer ones stand below the table.
const ERRORS_MAX: usize = 16;

/// A heading, what the scenario asks, a row for each contender, and what must be known to read it.
pub(crate) fn table(scenario: &Scenario) -> String {
    let rows = rows::rows(scenario);
    let mut text = wrapped(&format!("{}: {}", one_line(&scenario.name), rows::load(scenario)), "");
    text.push_str(&wrapped(&one_line(&scenario.asks), "  "));
    text.push('\n');
    if rows.is_empty() {
        text.push_str("  nobody took part\n");
        return text;
    }
    text.push_str(&figures(&rows));
    text.push_str(&crossed(&rows));
    let notes = notes(&rows);
    if !notes.is_empty() {
        text.push('\n');
    }
    notes.iter().for_each(|note| text.push_str(&wrapped(note, "  ")));
    text
}

/// What must be known to read the rows, each with the sign that leads to it.
fn notes(rows: &[Row]) -> Vec<String> {
    let mut notes: Vec<String> =
        rows::marks(rows).map(|mark| format!("{} {}", mark.sign(), mark.meaning())).collect();
    for row in rows.iter().filter(|row| errors_cell(row).ends_with('*')) {
        let kinds = rows::by_kind(&row.figures.errors);
        notes.push(format!("* errors of {}: {kinds}", row.label));
    }
    for row in rows.iter().filter(|row| row.cells.is_empty()) {
        if let Some(failure) = &row.failure {
            notes.push(format!("! {} failed: {failure}", row.label));
        }
    }
    notes.extend(rows::warnings(rows).into_iter().map(|warning| format!("! {warning}")));
    notes
}

/// The table of figures, in two halves if it is too wide.
fn figures(rows: &[Row]) -> String {
    let cells = |row: &Row, from: usize, to: usize| -> Vec<String> {
        let mut cells = row.cells.clone();
        if cells.is_empty() {
            cells = vec![String::new(); COLUMNS.len()];
            let failed = row.failure.is_some();
            cells[0] = if failed { "failed" } else { "missing" }.to_owned();
        } else {
            cells[ERRORS] = errors_cell(row);
        }
        cells[from..to].to_vec()
    };
    let part = |from: usize, to: usize| {
        let lines = rows.iter().map(|row| (row, cells(row, from, to)));
        grid(&COLUMNS[from..to], &lines.collect::<Vec<_>>())
    };
    let whole = part(0, COLUMNS.len());
    if whole.lines().all(|line| line.chars().count() <= WIDTH_MAX) {
        return whole;
    }
    let split = ERRORS + 1;
    format!("{}\n{}", part(0, split), part(split, COLUMNS.len()))
}

/// The table of what crossed between cores, if a contender tells.
fn crossed(rows: &[Row]) -> String {
    let lines: Vec<_> =
        rows.iter().filter_map(|row| Some((row, row.crossed.clone()?.to_vec()))).collect();
    if lines.is_empty() {
        return String::new();
    }
    format!("\n  Between cores, per 1,000 requests\n{}", grid(&CROSSED_COLUMNS, &lines))
}

/// The errors of a row; with a `*` if the kinds stand below.
fn errors_cell(row: &Row) -> String {
    match row.cells.get(ERRORS) {
        Some(cell) if cell.chars().count() <= ERRORS_MAX => cell.clone(),
        Some(_) => format!("{} *", grouped(row.figures.errors_total())),
        None => String::new(),
    }
}

/// Aligned columns below their names: the labels to the left, the rest to the right.
fn grid(columns: &[&str], lines: &[(&Row, Vec<String>)]) -> String {
    const FIRST: &str = "Architecture";
    let length = |text: &str| text.chars().count();
    let labels: Vec<String> = lines.iter().map(|(row, _)| cut(&row.label, LABEL_MAX)).collect();
    let first = labels.iter().map(|label| length(label)).fold(length(FIRST), usize::max);
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            lines.iter().map(|(_, cells)| length(&cells[index])).fold(length(column), usize::max)
        })
        .collect();
    let mut text = String::new();
    let mut push = |sign: &str, label: &str, cells: &[&str]| {
        let mut line = format!("{sign:1} {label:first$}");
        for (cell, width) in cells.iter().zip(&widths) {
            line.push_str(&format!("  {cell:>width$}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    push("", FIRST, columns);
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    push("", &"-".repeat(first), &rules);
    for ((row, cells), label) in lines.iter().zip(&labels) {
        push(row.mark.sign(), label, &cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

/// A text of at most so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 1).collect();
    format!("{}…", kept.trim_end())
}

/// Lines of at most [`WIDTH_MAX`] columns, each after an indent, the later ones after a deeper one.
pub(super) fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    let mut width = 0;
    // A number stays with its sign.
    let text = text.replace(" %", "\u{a0}%");
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        // A word that is longer than a line is cut: nobody reads it, and it must not break the table.
        let word = cut(word, WIDTH_MAX - indent.len() - 2);
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH_MAX {
            lines.push_str(&line);
            lines.push('\n');
            line = format!("{indent}  {word}");
            width = indent.len() + 2 + length;
        } else {
            let gap = if width > 0 { " " } else { indent };
            line.push_str(gap);
            line.push_str(&word);
            width += gap.len() + length;
        }
    }
    if width > 0 {
        lines.push_str(&line);
        lines.push('\n');
    }
    lines.replace('\u{a0}', " ")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::sample::{contender, poor, round, sample, scenario};
    use super::*;

    #[test]
    fn no_line_is_too_wide() {
        let mut reports = poor();
        reports.push(sample());
        let mut long = sample();
        for scenario in &mut long.scenarios {
            scenario.asks = "why ".repeat(99);
            for contender in &mut scenario.contenders {
                contender.architecture = "Ö".repeat(200);
                contender.failure = Some("no ".repeat(99) + &"x".repeat(300));
            }
        }
        reports.push(long);
        for scenario in reports.iter().flat_map(|report| &report.scenarios) {
            let text = table(scenario);
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH_MAX, "{line}");
                assert_eq!(line.trim_end(), line);
            }
            assert!(!text.contains("NaN") && !text.contains("inf "), "{text}");
        }
    }

    #[test]
    fn it_has_the_columns_and_says_what_failed() {
        let report = sample();
        let text = report.scenarios.iter().map(table).collect::<Vec<_>>().join("\n");
        for expected in COLUMNS.iter().chain(&CROSSED_COLUMNS) {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        for expected in [
            "~ work stealing",
            "\n  * errors of one thread, blocking: 3 read, 812 timeout\n",
            "815 *",
            "never ready: <b>refused</b> `for 5 s`\n",
            "  ! thread per connection stopped after 2 rounds",
            "  ! the load generator was saturated, and is itself the limit (a thread of it was busy for up to 97 % of",
            "  ! the load generator was saturated, as it and the server wanted the same CPUs",
            "Between cores, per 1,000 requests",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rounds = |rate: f64| (0..3).map(|number| round(number, rate, 900.0, 10.0)).collect();
        let it = scenario("it", vec![contender("a", rounds(5.0)), contender("béé", rounds(1e6))]);
        let text = figures(&rows::rows(&it));
        let first = text.split("\n\n").next().expect("a table");
        let ends: Vec<_> = first.lines().map(|line| line.chars().count()).collect();
        assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn texts_are_wrapped_with_an_indent() {
        let text = wrapped(&"word ".repeat(40), "  ");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("  word") && lines[1].starts_with("    word"));
        assert_eq!(wrapped("  ", ""), "");
        assert_eq!(wrapped(&format!("{} 5 %", "x".repeat(117)), "").lines().nth(1), Some("  5 %"));
    }
}
