//! The figures in plain words: who won what, by how much, and where work stealing is the better choice.
//!
//! Nobody wins by less than the noise, and nobody wins who failed or had errors. Intervals are those of the paired rounds.
//! Which of two models is the better choice is decided by requests per second and p99; CPU per request decides if these
//! do not.

use super::statistics::{self, Difference, Figures, Metric, PAIRS_MIN, Ratio, Saturation};
use super::table::wrapped;
use super::words::{interval, more_or_less, noun, range, said, topic};
use super::{latency, listed, number, one_line, percent};
use crate::cli::compare::model::{Contender, Report, Scenario};

/// Share of errors from which a contender's figures do not count.
const ERRORS_MAX: f64 = 0.001;

/// Contenders that differ in nothing but the model: who keeps each task on its core, who steals, and whose they are.
const MODELS: [(&str, &str, &str); 2] = [
    ("thread-per-core", "work-stealing", "Corelane's two modes"),
    ("tokio-per-core", "tokio", "Tokio both ways"),
];

/// What it is about, and what is said of it.
pub(super) struct Line {
    pub(super) topic: String,
    pub(super) text: String,
}

/// What is said of one scenario.
pub(super) struct Section {
    pub(super) scenario: String,
    pub(super) lines: Vec<Line>,
}

/// Everything that is said.
pub(super) struct Verdict {
    /// One for each scenario.
    pub(super) sections: Vec<Section>,
    /// Over all scenarios.
    pub(super) summary: Vec<Line>,
}

/// The verdict as a text for the terminal.
pub(crate) fn verdict(report: &Report) -> String {
    let verdict = of(report);
    let mut text = String::from("Verdict\n");
    let mut push = |heading: &str, lines: &[Line]| {
        text.push('\n');
        text.push_str(&wrapped(heading, ""));
        for line in lines {
            text.push_str(&wrapped(&format!("{}: {}", line.topic, line.text), "  "));
        }
    };
    for section in &verdict.sections {
        push(&section.scenario, &section.lines);
    }
    push("Altogether", &verdict.summary);
    text
}

/// What is to be said of a report.
pub(super) fn of(report: &Report) -> Verdict {
    let entries: Vec<Vec<Entry>> = report
        .scenarios
        .iter()
        .map(|scenario| scenario.contenders.iter().map(Entry::of).collect())
        .collect();
    let each = || report.scenarios.iter().zip(&entries);
    let sections = each().map(|(scenario, entries)| Section {
        scenario: one_line(&scenario.name),
        lines: section(entries),
    });
    let mut summary = Vec::new();
    for models in MODELS {
        let duels: Vec<_> = each()
            .filter_map(|(scenario, entries)| Some((scenario, duel(entries, models)?)))
            .collect();
        summary.extend(better_choice(&duels, models));
    }
    summary.extend(caveats(report, &entries));
    Verdict { sections: sections.collect(), summary }
}

/// A contender, its figures, and why they do not count, if they do not.
struct Entry<'a> {
    contender: &'a Contender,
    name: String,
    figures: Figures,
    flaw: Option<String>,
}

impl<'a> Entry<'a> {
    fn of(contender: &'a Contender) -> Entry<'a> {
        let figures = Figures::of(contender);
        let flaw = flaw(contender, &figures);
        Entry { contender, name: one_line(&contender.name), figures, flaw }
    }

    /// The figure of a metric, in words.
    fn figure(&self, metric: Metric) -> Option<String> {
        match metric {
            Metric::Rate => self.figures.rate.map(number),
            Metric::Tail => self.figures.latencies.quantile(9_900).map(latency),
            Metric::Cpu => self.figures.cpu().map(|micros| format!("{} µs", number(micros))),
        }
    }

    /// What contenders are ordered by: the mean of the logarithms, as differences are.
    fn level(&self, metric: Metric) -> Option<f64> {
        let rounds = self.contender.rounds.iter();
        let logs: Vec<f64> = rounds.filter_map(|round| Some(metric.of(round)?.ln())).collect();
        (!logs.is_empty()).then(|| logs.iter().sum::<f64>() / logs.len() as f64)
    }
}

/// Why a contender's figures do not count: what it did, as "failed".
pub(super) fn flaw(contender: &Contender, figures: &Figures) -> Option<String> {
    if contender.failure.is_some() {
        Some("failed".to_owned())
    } else if figures.rounds == 0 {
        Some("was not measured".to_owned())
    } else if figures.requests == 0 {
        Some("answered nothing".to_owned())
    } else if figures.error_share() > ERRORS_MAX {
        Some(format!("had errors in {} % of its requests", percent(figures.error_share())))
    } else {
        None
    }
}

/// What is said of one scenario.
fn section(entries: &[Entry]) -> Vec<Line> {
    let line = |topic: &str, text: String| Line { topic: topic.to_owned(), text };
    let fit: Vec<&Entry> = entries.iter().filter(|entry| entry.flaw.is_none()).collect();
    let mut lines = Vec::new();
    match &fit[..] {
        [] => lines.push(line("Result", "no contender has figures that count".into())),
        [only] => lines.push(line(
            "Result",
            format!("only {} has figures that count: there is nothing to compare", only.name),
        )),
        several => lines.extend(
            Metric::ALL
                .into_iter()
                .filter_map(|metric| Some(line(topic(metric), ranking(metric, several)?))),
        ),
    }
    let flawed: Vec<String> = entries
        .iter()
        .filter_map(|entry| Some(format!("{} {}", entry.name, entry.flaw.as_ref()?)))
        .collect();
    if !flawed.is_empty() {
        lines.push(line("Not counted", flawed.join("; ")));
    }
    for models in MODELS {
        if let Some(duel) = duel(entries, models) {
            lines.push(line(models.2, duel.text));
        }
    }
    lines
}

/// Who wins by one metric. Nothing, if nobody has the figure.
fn ranking(metric: Metric, entries: &[&Entry]) -> Option<String> {
    let mut ranked: Vec<(f64, &Entry)> =
        entries.iter().filter_map(|entry| Some((entry.level(metric)?, *entry))).collect();
    ranked.sort_by(
        |(a, _), (b, _)| {
            if metric.more_is_better() { b.total_cmp(a) } else { a.total_cmp(b) }
        },
    );
    // The medians are of all rounds that each has, the comparison of those that both have. Whoever is beaten there does not lead.
    for _ in 1..ranked.len() {
        let leader = ranked[0].1.contender;
        let beats = |(_, other): &(f64, &Entry)| {
            matches!(statistics::compare(metric, leader, other.contender), Difference::Worse(_))
        };
        let Some(better) = ranked.iter().position(beats) else { break };
        ranked[..=better].rotate_right(1);
    }
    let ((_, leader), others) = ranked.split_first()?;
    let figure = leader.figure(metric)?;
    let (mut ties, mut beaten, mut untold) = (vec![leader.name.as_str()], None, Vec::new());
    for (_, other) in others {
        match statistics::compare(metric, leader.contender, other.contender) {
            Difference::TooFew => untold.push(other.name.as_str()),
            Difference::Better(ratio) if beaten.is_none() => beaten = Some((ratio, *other)),
            Difference::Better(_) => {}
            Difference::Same(_) | Difference::Worse(_) => ties.push(&other.name),
        }
    }
    let beats = |(ratio, other): (Ratio, &Entry)| {
        format!("{} than {} ({})", more_or_less(metric, ratio), other.name, interval(ratio))
            .replace(" times as many than", " times as many as")
    };
    let mut text = match (ties.len(), beaten) {
        (1, None) if untold.is_empty() => {
            return Some(format!("only {} tells: {figure}", leader.name));
        }
        (1, None) => {
            return Some(format!(
                "too few rounds to tell (at least {PAIRS_MIN} that both have are needed); {} has {figure}",
                leader.name
            ));
        }
        (1, Some(next)) => format!("{} wins with {figure}: {}", leader.name, beats(next)),
        (_, None) => format!("no difference between {} ({figure})", listed(&ties)),
        (_, Some(next)) => format!(
            "no difference between {}; {} has {figure}: {}",
            listed(&ties),
            leader.name,
            beats(next)
        ),
    };
    if !untold.is_empty() {
        text.push_str(&format!("; too few rounds of {} to tell", listed(&untold)));
    }
    Some(text)
}

/// How the two models of one pair of contenders stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Stealing,
    PerCore,
    Same,
    /// Each is better in something that matters.
    Both,
    Unknown,
}

/// One pair of contenders in one scenario.
struct Duel {
    outcome: Outcome,
    /// The whole sentence.
    text: String,
    /// The reason alone, without intervals.
    reason: String,
}

/// Compares the two models of a pair, if the scenario has both.
fn duel(entries: &[Entry], (per_core, stealing, _): (&str, &str, &str)) -> Option<Duel> {
    let find = |name: &str| entries.iter().find(|entry| entry.contender.name == name);
    let (per_core, stealing) = (find(per_core)?, find(stealing)?);
    let decided = |outcome: Outcome, reason: String| {
        Some(Duel { outcome, text: format!("{}{reason}", wins(outcome)), reason })
    };
    match (&per_core.flaw, &stealing.flaw) {
        (Some(flaw), None) => {
            return decided(Outcome::Stealing, format!("{} {flaw}", per_core.name));
        }
        (None, Some(flaw)) => {
            return decided(Outcome::PerCore, format!("{} {flaw}", stealing.name));
        }
        (Some(_), Some(_)) => {
            return decided(Outcome::Unknown, "neither has figures that count".into());
        }
        (None, None) => {}
    }
    let all = Metric::ALL
        .map(|metric| statistics::compare(metric, stealing.contender, per_core.contender));
    let outcome = outcome(all);
    let (mut reason, mut text) = match outcome {
        Outcome::Unknown => {
            return decided(
                outcome,
                format!("too few rounds to tell (at least {PAIRS_MIN} that both have are needed)"),
            );
        }
        // What is said of stealing, turned round: what is said of the winner.
        Outcome::PerCore => sides(all.map(turned)),
        _ => sides(all),
    };
    if outcome == Outcome::Both {
        reason = format!("work stealing has {reason}");
        text = format!("work stealing has {text}");
    }
    Some(Duel { outcome, text: format!("{}{text}", wins(outcome)), reason })
}

/// How a sentence about an outcome begins.
fn wins(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stealing => "work stealing wins here: ",
        Outcome::PerCore => "thread per core wins here: ",
        Outcome::Both => "it depends on what matters: ",
        Outcome::Same | Outcome::Unknown => "",
    }
}

/// Who is the better choice, from what each metric says of stealing.
fn outcome(all: [Difference; 3]) -> Outcome {
    let judge = |of: &[Difference]| {
        let better = of.iter().any(|one| matches!(one, Difference::Better(_)));
        let worse = of.iter().any(|one| matches!(one, Difference::Worse(_)));
        match (better, worse) {
            (true, true) => Outcome::Both,
            (true, false) => Outcome::Stealing,
            (false, true) => Outcome::PerCore,
            (false, false) if of.contains(&Difference::TooFew) => Outcome::Unknown,
            (false, false) => Outcome::Same,
        }
    };
    match judge(&all[..2]) {
        // A contender that was not started here does not tell its CPU.
        Outcome::Same if all[2] != Difference::TooFew => judge(&all[2..]),
        other => other,
    }
}

/// A difference, seen from the other side.
fn turned(difference: Difference) -> Difference {
    let inverse = |ratio: Ratio| Ratio {
        middle: 1.0 / ratio.middle,
        low: 1.0 / ratio.high,
        high: 1.0 / ratio.low,
    };
    match difference {
        Difference::TooFew => Difference::TooFew,
        Difference::Same(ratio) => Difference::Same(inverse(ratio)),
        Difference::Better(ratio) => Difference::Worse(inverse(ratio)),
        Difference::Worse(ratio) => Difference::Better(inverse(ratio)),
    }
}

/// What is better, what is worse and what is the same, for the side that the differences tell of: short, and in full.
fn sides(all: [Difference; 3]) -> (String, String) {
    let (mut better, mut worse, mut same) = (Vec::new(), Vec::new(), Vec::new());
    for (metric, difference) in Metric::ALL.into_iter().zip(all) {
        let says =
            |ratio| (said(metric, ratio), format!("{} ({})", said(metric, ratio), interval(ratio)));
        match difference {
            Difference::TooFew => {}
            Difference::Same(ratio) => same.push(format!("{} ({})", noun(metric), range(ratio))),
            Difference::Better(ratio) => better.push(says(ratio)),
            Difference::Worse(ratio) => worse.push(says(ratio)),
        }
    }
    let (better, better_full): (Vec<_>, Vec<_>) = better.into_iter().unzip();
    let (worse, worse_full): (Vec<_>, Vec<_>) = worse.into_iter().unzip();
    let joined = |better: &[String], worse: &[String]| match (listed(better), listed(worse)) {
        (better, worse) if worse.is_empty() => better,
        (better, worse) if better.is_empty() => worse,
        (better, worse) => format!("{better}, but {worse}"),
    };
    let mut full = joined(&better_full, &worse_full);
    if !same.is_empty() {
        let gap = if full.is_empty() { "" } else { "; " };
        full.push_str(&format!("{gap}no difference in {}", listed(&same)));
    }
    (joined(&better, &worse), full)
}

/// Where each of two models is the better choice.
fn better_choice(
    duels: &[(&Scenario, Duel)],
    (per_core, stealing, whose): (&str, &str, &str),
) -> Vec<Line> {
    if duels.is_empty() {
        return Vec::new();
    }
    let of = |wanted: Outcome| -> Vec<String> {
        let fitting = duels.iter().filter(|(_, duel)| duel.outcome == wanted);
        fitting
            .map(|(scenario, duel)| match wanted {
                Outcome::Same | Outcome::Unknown => one_line(&scenario.name),
                _ => format!("{} ({})", one_line(&scenario.name), duel.reason),
            })
            .collect()
    };
    let or_none = |all: Vec<String>| {
        if all.is_empty() { "in no scenario of this run".into() } else { all.join("; ") }
    };
    let line = |topic: String, text: String| Line { topic, text };
    let mut lines = vec![
        line(
            format!("{whose}, where work stealing ({stealing}) is the better choice"),
            or_none(of(Outcome::Stealing)),
        ),
        line(
            format!("{whose}, where thread per core ({per_core}) is the better choice"),
            or_none(of(Outcome::PerCore)),
        ),
    ];
    for (outcome, topic) in [
        (Outcome::Same, "no difference"),
        (Outcome::Both, "it depends on what matters"),
        (Outcome::Unknown, "cannot be told"),
    ] {
        let scenarios = of(outcome);
        if !scenarios.is_empty() {
            lines.push(line(format!("{whose}, {topic}"), scenarios.join("; ")));
        }
    }
    lines
}

/// That the load generator and the contenders had the same CPUs, if they had, and how much of them it took.
fn shared(report: &Report) -> Option<String> {
    let machine = &report.machine;
    let count = machine.generator_cpus.len();
    if !machine.generator_cpus.iter().any(|cpu| machine.contender_cpus.contains(cpu)) {
        return None;
    }
    let contenders = report.scenarios.iter().flat_map(|scenario| &scenario.contenders);
    let shares = contenders.flat_map(|contender| &contender.rounds).filter_map(|round| {
        let time = round.seconds * 1e6 * count as f64;
        (round.generator_micros > 0 && time > 0.0).then(|| round.generator_micros as f64 / time)
    });
    let shares: Vec<f64> = shares.collect();
    let least = shares.iter().copied().reduce(f64::min);
    let took = least.zip(shares.iter().copied().reduce(f64::max)).map(|(least, most)| {
        format!(", of which the generator took {} % to {} %", percent(least), percent(most))
    });
    Some(format!(
        "the load generator and the contenders shared CPUs{}: what it takes is the same for all, so ratios between contenders \
         come out nearer to 1 than they are",
        took.unwrap_or_default()
    ))
}

/// What limits what was said.
fn caveats(report: &Report, entries: &[Vec<Entry>]) -> Vec<Line> {
    let note = |text: String| Line { topic: "Note".to_owned(), text };
    let mut lines = Vec::new();
    if report.scenarios.is_empty() {
        lines.push(note("nothing was measured".into()));
    }
    if report.interrupted {
        lines.push(note("the run was interrupted; what was not measured is missing".into()));
    }
    let saturated = |why: Saturation| -> Option<String> {
        let names: Vec<String> = report
            .scenarios
            .iter()
            .zip(entries)
            .filter(|(_, all)| all.iter().any(|entry| entry.figures.saturation() == Some(why)))
            .map(|(scenario, _)| one_line(&scenario.name))
            .collect();
        (!names.is_empty()).then(|| listed(&names))
    };
    if let Some(names) = saturated(Saturation::Alone) {
        lines.push(note(format!(
            "the load generator was saturated in {names}: differences there may be greater than what was \
             measured, and \"no difference\" may only mean that the generator could not go faster"
        )));
    }
    if let Some(names) = saturated(Saturation::Crowded) {
        lines.push(note(format!(
            "the load generator and the server wanted the same CPUs in {names}: what one of them takes the \
             other lacks, so differences there are those of both together, not of the servers alone"
        )));
    }
    lines.extend(shared(report).map(note));
    lines.push(note(format!(
        "a difference counts if the interval of the paired rounds (99 % for each of {} figures) leaves \
         out zero, and if it is at least {} %",
        Metric::ALL.len(),
        percent(statistics::SHARE_MIN)
    )));
    lines
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::sample::{contender, poor, report, round, sample, scenario};
    use super::*;

    /// Five steady rounds of a mode with the given rate, p99 and CPU.
    fn mode(name: &str, (rate, tail, cpu): (f64, f64, f64)) -> Contender {
        contender(name, (0..5).map(|number| round(number, rate, tail, cpu)).collect())
    }

    /// The text on two modes, the first of them with 100,000 requests/s, 1 ms and 10 µs.
    fn said_of_modes(stealing: (f64, f64, f64)) -> String {
        let per_core = mode("thread-per-core", (100_000.0, 1_000.0, 10.0));
        let both = vec![per_core, mode("work-stealing", stealing)];
        verdict(&report(vec![scenario("it", both)]))
    }

    #[test]
    fn it_says_that_work_stealing_wins() {
        let text = said_of_modes((100_000.0, 400.0, 11.0));
        for expected in [
            "it\n  Requests/s: no difference between thread-per-core and work-stealing (100,000)\n",
            "  p99: work-stealing wins with 400 µs: 60 % lower than thread-per-core (60 % to 60 %)\n",
            "  CPU per request: thread-per-core wins with 10.0 µs: 9.1 % lower than work-stealing",
            "work stealing wins here: p99 60 % lower (60 % to 60 %), but CPU per request 10 % higher",
            "no difference in requests/s (0 % to 0 %)",
            "where work stealing (work-stealing) is the better choice: it (p99 60 % lower, but",
            "where thread per core (thread-per-core) is the better choice: in no scenario of this run\n",
        ] {
            assert!(text.replace("\n    ", " ").contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn it_says_that_thread_per_core_wins() {
        let text = said_of_modes((40_000.0, 1_500.0, 12.0)).replace("\n    ", " ");
        for expected in [
            "Requests/s: thread-per-core wins with 100,000: 2.50 times as many as work-stealing",
            "thread per core wins here: 2.50 times as many requests/s (2.50 to 2.50 times), p99 33 % lower",
            "is the better choice: it (2.50 times as many requests/s, p99 33 % lower and CPU per",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    /// Its median is the better one, of rounds that the other does not have.
    #[test]
    fn who_is_beaten_in_every_pair_does_not_lead() {
        let rates = |name, rates: &[(u32, f64)]| {
            let rounds = rates.iter().map(|&(number, rate)| round(number, rate, 1_000.0, 10.0));
            contender(name, rounds.collect())
        };
        let mine =
            rates("a", &[(0, 100e3), (1, 101e3), (2, 99e3), (3, 70e3), (4, 70e3), (5, 70e3)]);
        let other = rates("b", &[(0, 90e3), (1, 90.5e3), (2, 89.5e3)]);
        let text = verdict(&report(vec![scenario("it", vec![mine, other])])).replace("\n    ", " ");
        assert!(text.contains("Requests/s: a wins with 84,500: 11 % more than b"), "{text}");
    }

    #[test]
    fn it_says_that_there_is_no_difference() {
        let text = said_of_modes((100_900.0, 1_000.0, 10.0)).replace("\n    ", " ");
        for expected in [
            "p99: no difference between thread-per-core and work-stealing",
            "Corelane's two modes: no difference in requests/s (+0.9 % to +0.9 %), p99 (0 % to 0 %)",
            "Corelane's two modes, no difference: it\n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("wins"), "{text}");
    }

    #[test]
    fn cpu_decides_only_if_nothing_else_does() {
        let cheaper = said_of_modes((100_000.0, 1_000.0, 5.0));
        assert!(
            cheaper.contains("work stealing wins here: CPU per request 50 % lower"),
            "{cheaper}"
        );
        let torn = said_of_modes((120_000.0, 2_500.0, 10.0)).replace("\n    ", " ");
        let expected = "it depends on what matters: work stealing has 20 % more requests/s (20 % to 20 %), \
                        but p99 2.50 times as high";
        assert!(torn.contains(expected), "{torn}");
    }

    #[test]
    fn two_rounds_are_too_few() {
        let mut few = sample();
        let rounds = few.scenarios.iter_mut().flat_map(|one| &mut one.contenders);
        rounds.for_each(|contender| contender.rounds.truncate(2));
        let text = verdict(&few);
        assert!(text.contains("too few rounds to tell"), "{text}");
        assert!(!text.contains("wins") && !text.contains("no difference between"), "{text}");
    }

    #[test]
    fn who_failed_or_had_errors_does_not_win() {
        let text = verdict(&sample()).replace("\n    ", " ");
        let expected = "Not counted: blocking had errors in 0.1 % of its requests; thread-per-connection failed";
        assert!(text.contains(expected), "{text}");
        let mut modes = vec![
            mode("thread-per-core", (100_000.0, 1_000.0, 10.0)),
            mode("work-stealing", (90_000.0, 1_000.0, 10.0)),
        ];
        modes[0].rounds[0].errors.insert("timeout".into(), 500_000);
        let text = verdict(&report(vec![scenario("it", modes.clone())]));
        let expected =
            "work stealing wins here: thread-per-core had errors in 9.1 % of its requests";
        assert!(text.contains(expected), "{text}");
        modes[1].failure = Some("died".into());
        let text = verdict(&report(vec![scenario("it", modes)]));
        assert!(text.contains("neither has figures that count"), "{text}");
        assert!(text.contains("Corelane's two modes, cannot be told: it\n"), "{text}");
    }

    #[test]
    fn the_generators_limit_is_no_secret() {
        let text = verdict(&sample());
        assert!(text.contains("the load generator was saturated in few:"), "{text}");
        let text = text.replace("\n    ", " ");
        let crowded = "the load generator and the server wanted the same CPUs in heavy-tail:";
        assert!(text.contains(crowded), "{text}");
    }

    #[test]
    fn who_shares_cpus_is_told_what_that_does() {
        let mut all = sample();
        assert!(!verdict(&all).contains("shared CPUs"));
        (all.machine.contender_cpus, all.machine.generator_cpus) = (vec![0, 1], vec![0, 1]);
        all.scenarios[0].contenders[0].rounds[0].generator_micros = 5_000_000;
        let text = verdict(&all).replace("\n    ", " ");
        let expected = "shared CPUs, of which the generator took 25 % to 25 %: what it takes";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn poor_data_give_words_and_no_nonsense() {
        for report in poor() {
            let text = verdict(&report);
            assert!(text.starts_with("Verdict\n"));
            assert!(!text.contains("NaN") && !text.contains("inf "), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
            assert_eq!(text.contains("interrupted"), report.interrupted);
        }
    }

    #[test]
    fn a_difference_seen_from_the_other_side_is_the_inverse() {
        let ratio = Ratio { middle: 2.0, low: 1.25, high: 4.0 };
        let inverse = Ratio { middle: 0.5, low: 0.25, high: 0.8 };
        assert_eq!(turned(Difference::Better(ratio)), Difference::Worse(inverse));
        assert_eq!(turned(Difference::Worse(inverse)), Difference::Better(ratio));
    }
}
