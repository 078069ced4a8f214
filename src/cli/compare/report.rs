//! What is made of the figures: a table and a verdict for the terminal, `report.md` and `report.html`.
//!
//! Pure functions of a [`Report`](super::model::Report): they read nothing else and write nowhere. What is missing (no
//! rounds, no requests, a contender that failed) is shown as missing. Names and texts in a report may come from users and
//! from the programs that were measured: each format makes them harmless itself.

mod chart;
mod html;
mod markdown;
mod matrix;
mod rows;
mod statistics;
mod table;
mod verdict;
mod words;

pub(crate) use html::html;
pub(crate) use markdown::markdown;
pub(crate) use table::table;
pub(crate) use verdict::verdict;

use super::model::{Machine, Report};

/// What stands where a figure is missing.
const MISSING: &str = "-";

/// A number with three digits or more: "1.25", "12.5", "1,250".
fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => MISSING.to_owned(),
        0.0 => "0".to_owned(),
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => grouped(value.round() as u64),
    }
}

/// The same, where it may be missing.
fn number_or_missing(value: Option<f64>) -> String {
    value.map_or_else(|| MISSING.to_owned(), number)
}

/// A count with its thousands apart: "1,234,567".
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A latency with its unit: "812 µs", "1.23 ms", "12.3 s".
fn latency(micros: u64) -> String {
    let three_digits = |value: f64| match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    };
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..999_500 => format!("{} ms", three_digits(micros as f64 / 1e3)),
        // More than a day: nobody waited for that.
        100_000_000_000.. => format!("{:.0e} s", micros as f64 / 1e6),
        _ => format!("{} s", three_digits(micros as f64 / 1e6)),
    }
}

/// The same, where it may be missing.
fn latency_or_missing(micros: Option<u64>) -> String {
    micros.map_or_else(|| MISSING.to_owned(), latency)
}

/// A share in per cent, without the sign: "0.4", "12", "99.7".
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let is_whole = (9.95..99.0).contains(&percent.abs()) || percent.abs() >= 100.0;
    let text = if is_whole { format!("{percent:.0}") } else { format!("{percent:.1}") };
    text.trim_end_matches(".0").to_owned()
}

/// Bytes with a unit: "1 MiB", "1.50 GiB", "100 bytes".
fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) if count.is_multiple_of(*size) => format!("{} {unit}", count / size),
        Some((size, unit)) => format!("{} {unit}", number(count as f64 / *size as f64)),
        None => format!("{count} bytes"),
    }
}

/// A count and its noun: "1 round", "3 rounds".
fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// What is to be known of a run beside its machine: which CPUs were whose, and what the contenders are made of.
fn circumstances(report: &Report) -> Vec<(&'static str, String)> {
    let Machine { contender_cpus, generator_cpus, .. } = &report.machine;
    let numbers = |cpus: &[usize]| cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let shares = generator_cpus.iter().any(|cpu| contender_cpus.contains(cpu));
    let generator = if shares { "which are not its own" } else { "its own" };
    let mut facts = Vec::new();
    if !contender_cpus.is_empty() {
        let (contenders, its) = (numbers(contender_cpus), numbers(generator_cpus));
        facts.push((
            "CPUs",
            format!("contenders on {contenders}; the load generator on {its}, {generator}"),
        ));
    }
    if !report.versions.is_empty() {
        // Several are made of the same.
        let mut made: Vec<(&str, Vec<&str>)> = Vec::new();
        for (name, of) in &report.versions {
            match made.iter_mut().find(|(known, _)| known == of) {
                Some((_, names)) => names.push(name),
                None => made.push((of, vec![name])),
            }
        }
        let each = made.iter().map(|(of, names)| format!("{}: {of}", listed(names)));
        facts.push(("Made of", one_line(&each.collect::<Vec<_>>().join("; "))));
    }
    facts
}

/// A text on one line, without what could steer a terminal.
fn one_line(text: &str) -> String {
    let harmless = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(harmless).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A command without what could steer a terminal. Its spaces are part of it.
fn command(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Names in a sentence: "a", "a and b", "a, b and c".
fn listed(names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.split_last() {
        None => String::new(),
        Some((only, [])) => (*only).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// A made-up report, and what it is made of.
#[cfg(all(test, not(loom)))]
mod sample;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let cases = [
            (0.0, "0"),
            (0.004, "0.00"),
            (1.25, "1.25"),
            (9.996, "10.0"),
            (12.34, "12.3"),
            (99.96, "100"),
            (1_234_567.4, "1,234,567"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!([0, 999, 1_000, 12_345].map(grouped), ["0", "999", "1,000", "12,345"]);
    }

    #[test]
    fn latencies_have_units() {
        let cases = [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_000, "1.00 ms"),
            (9_999, "10.0 ms"),
            (99_999, "100 ms"),
            (999_499, "999 ms"),
            (999_500, "1.00 s"),
            (12_345_678, "12.3 s"),
            (u64::MAX, "2e13 s"),
        ];
        for (micros, text) in cases {
            assert_eq!(latency(micros), text);
        }
    }

    #[test]
    fn shares_and_sizes_are_short() {
        let shares = [0.004, 0.05, 0.12, 0.997, 1.0, 3.0].map(percent);
        assert_eq!(shares, ["0.4", "5", "12", "99.7", "100", "300"]);
        assert_eq!([1 << 20, 1_536, 100].map(bytes), ["1 MiB", "1.50 KiB", "100 bytes"]);
        assert_eq!([1, 1_000].map(|count| counted(count, "round")), ["1 round", "1,000 rounds"]);
    }

    #[test]
    fn whose_cpus_and_what_versions_is_said() {
        let mut report = sample::sample();
        assert_eq!(circumstances(&report), []);
        report.machine.contender_cpus = vec![0, 1];
        report.machine.generator_cpus = vec![2];
        let pair = |name: &str, of: &str| (name.to_owned(), of.to_owned());
        report.versions = vec![pair("a", "hyper 1"), pair("mine", "unknown"), pair("b", "hyper 1")];
        let said = circumstances(&report);
        assert_eq!(said[0].1, "contenders on 0, 1; the load generator on 2, its own");
        assert_eq!(said[1].1, "a and b: hyper 1; mine: unknown");
        report.machine.generator_cpus = vec![0, 1];
        assert!(circumstances(&report)[0].1.ends_with("on 0, 1, which are not its own"));
    }

    #[test]
    fn texts_are_made_harmless_and_listed() {
        assert_eq!(one_line(" it\n\u{1b}[31mdied\t "), "it [31mdied");
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        assert_eq!(listed(&[""; 0]), "");
    }
}
