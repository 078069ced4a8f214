//! `report.md`: the machine, the command, the verdict, and each scenario as a table.
//!
//! Everything that comes from outside is escaped, so that it stays within its cell and is no markup.

use super::rows::{self, COLUMNS, CROSSED_COLUMNS, Row};
use super::verdict::{self, Line};
use super::{bytes, circumstances, command, counted, number, one_line};
use crate::cli::compare::model::{Report, Scenario};

/// The whole file.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = header(report);
    let verdict = verdict::of(report);
    text.push_str("\n## Verdict\n\n");
    text.push_str(&list(&verdict.summary));
    for section in &verdict.sections {
        text.push_str(&format!("\n**{}**\n\n{}", escaped(&section.scenario), list(&section.lines)));
    }
    for scenario in &report.scenarios {
        text.push_str(&part(scenario));
    }
    text
}

fn header(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = String::from("# corelane compare\n\n");
    if report.interrupted {
        text.push_str("**The run was interrupted: what was not measured is missing.**\n\n");
    }
    let rounds = counted(u64::from(report.rounds), "round");
    let cpus = counted(machine.cpus as u64, "CPU");
    let facts = [
        ("Date", one_line(&report.date)),
        ("Machine", format!("{}, {cpus}, {}", one_line(&machine.cpu), bytes(machine.memory_bytes))),
        ("Kernel", one_line(&machine.kernel)),
        ("Corelane", one_line(&machine.version)),
        ("Rounds", format!("{rounds} of {} s for each contender", number(report.seconds))),
    ];
    for (name, value) in facts.into_iter().chain(circumstances(report)) {
        text.push_str(&format!("- {name}: {}\n", escaped(&value)));
    }
    let command = command(&report.command);
    let fence = "`".repeat(longest_run(&command, '`').max(2) + 1);
    text.push_str(&format!("\n{fence}\n{command}\n{fence}\n"));
    text
}

/// One scenario.
fn part(scenario: &Scenario) -> String {
    let rows = rows::rows(scenario);
    let mut text = format!(
        "\n## {}\n\n{} {}\n\n{}.\n\n",
        escaped(&scenario.name),
        escaped(&scenario.asks),
        escaped(&scenario.expects),
        escaped(&rows::load(scenario))
    );
    if rows.is_empty() {
        text.push_str("Nobody took part.\n");
        return text;
    }
    let lines = rows.iter().map(|row| (row, cells(row)));
    text.push_str(&grid(&COLUMNS, lines));
    let crossed: Vec<_> =
        rows.iter().filter_map(|row| Some((row, row.crossed.clone()?.to_vec()))).collect();
    if !crossed.is_empty() {
        text.push_str("\nBetween cores, per 1,000 requests:\n\n");
        text.push_str(&grid(&CROSSED_COLUMNS, crossed));
    }
    let notes: Vec<String> = rows::marks(&rows)
        .map(|mark| format!("{} {}", mark.sign(), mark.meaning()))
        .chain(rows::warnings(&rows))
        .collect();
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str(&format!("- {}\n", escaped(&note)));
    }
    text
}

/// The cells of a row. One that has no figures says why.
fn cells(row: &Row) -> Vec<String> {
    if !row.cells.is_empty() {
        return row.cells.clone();
    }
    let mut cells = vec![String::new(); COLUMNS.len()];
    cells[0] = match &row.failure {
        Some(failure) => format!("failed: {failure}"),
        None => "not measured".into(),
    };
    cells
}

/// A table: the first column to the left, the others to the right.
fn grid<'a>(columns: &[&str], lines: impl IntoIterator<Item = (&'a Row, Vec<String>)>) -> String {
    let columns: Vec<String> = columns.iter().map(|column| escaped(column)).collect();
    let mut text = format!("| Architecture | {} |\n", columns.join(" | "));
    text.push_str(&format!("| :--- |{}\n", " ---: |".repeat(columns.len())));
    for (row, cells) in lines {
        let label = format!("{} {}", row.mark.sign(), row.label);
        let cells: Vec<String> = cells.iter().map(|cell| escaped(cell)).collect();
        text.push_str(&format!("| {} | {} |\n", escaped(label.trim()), cells.join(" | ")));
    }
    text
}

fn list(lines: &[Line]) -> String {
    let items =
        lines.iter().map(|line| format!("- {}: {}\n", escaped(&line.topic), escaped(&line.text)));
    items.collect()
}

/// A text on one line in which no character is markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '!' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// How often a character stands behind itself at most.
fn longest_run(text: &str, wanted: char) -> usize {
    let runs = text.split(|c| c != wanted).map(|run| run.chars().count());
    runs.max().unwrap_or(0)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::sample::{poor, sample};
    use super::*;

    #[test]
    fn each_table_has_as_many_cells_in_each_line() {
        for report in poor().into_iter().chain([sample()]) {
            let text = markdown(&report);
            let mut width = None;
            for line in text.lines() {
                if !line.starts_with('|') {
                    width = None;
                    continue;
                }
                let bars = line.replace("\\|", "").matches('|').count();
                assert_eq!(*width.get_or_insert(bars), bars, "{line}");
            }
            assert!(!text.contains("NaN"), "{text}");
        }
    }

    #[test]
    fn names_and_commands_stay_where_they_are() {
        let mut report = sample();
        report.command = "corelane compare --command '```sh'\n# Title".into();
        let text = markdown(&report);
        assert!(
            text.contains("````\ncorelane compare --command '```sh' # Title\n````\n"),
            "{text}"
        );
        assert!(!text.contains("<script>") && !text.contains("<b>"), "{text}");
        assert!(text.contains("&lt;script&gt;alert('x')&lt;/script&gt; &amp; \\|co\\|"), "{text}");
        assert!(text.contains("failed: never ready: &lt;b&gt;refused"), "{text}");
    }

    #[test]
    fn it_has_all_parts() {
        let text = markdown(&sample());
        for expected in [
            "- Date: 2026-11-25 09:30 UTC\n",
            "- Machine: Imaginary CPU @ 3.0 GHz, 2 CPUs, 8 GiB\n",
            "- Rounds: 5 rounds of 10.0 s for each contender\n",
            "## Verdict\n",
            "## heavy-tail\n",
            "| \\~ Tokio, multi-thread |",
            "Between cores, per 1,000 requests:",
        ] {
            assert!(text.contains(expected) || expected.starts_with("| \\~"), "{expected}: {text}");
        }
    }
}
