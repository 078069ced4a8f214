//! All scenarios and contenders at a glance: how near each comes to the best of its row.
//!
//! A cell is judged by requests per second, or by p99 where the load was due at a fixed rate, which all of them serve. The
//! colour says nothing that the text does not.

use super::chart;
use super::html::{Styles, escaped};
use super::statistics::{self, Difference, Figures, Metric};
use super::verdict;
use super::{number, one_line, percent};
use crate::cli::compare::model::{Contender, Report, Scenario};

/// How near to the best a cell must come for each colour but the last.
const STEPS: [f64; 4] = [0.98, 0.9, 0.75, 0.5];

/// The table, without its caption; nothing if there is nothing to show.
pub(super) fn matrix(report: &Report, styles: &Styles) -> Option<String> {
    if report.scenarios.is_empty() || styles.names().is_empty() {
        return None;
    }
    let mut html =
        String::from("<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Scenario</th>");
    for name in styles.names() {
        let key = chart::key(styles.style(name));
        html.push_str(&format!(
            "<th scope=\"col\">{key}<span>{}</span></th>",
            escaped(&one_line(name))
        ));
    }
    html.push_str("</tr></thead><tbody>");
    for (index, scenario) in report.scenarios.iter().enumerate() {
        html.push_str(&format!(
            "<tr><th scope=\"row\"><a href=\"#scenario-{index}\">{}</a></th>",
            escaped(&one_line(&scenario.name))
        ));
        let best = Best::of(scenario);
        for name in styles.names() {
            let contender = scenario.contenders.iter().find(|one| one.name == *name);
            html.push_str(&cell(contender, &best));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    Some(html)
}

/// The best of a row, among those whose figures count.
struct Best<'a> {
    /// What cells are judged by.
    metric: Metric,
    contender: Option<&'a Contender>,
    rate: Option<f64>,
    tail: Option<f64>,
}

impl<'a> Best<'a> {
    fn of(scenario: &'a Scenario) -> Best<'a> {
        let metric = if scenario.rate.is_some() { Metric::Tail } else { Metric::Rate };
        let counting: Vec<(&Contender, Figures)> = scenario
            .contenders
            .iter()
            .map(|contender| (contender, Figures::of(contender)))
            .filter(|(contender, figures)| verdict::flaw(contender, figures).is_none())
            .collect();
        let rates = || counting.iter().filter_map(|(one, figures)| Some((figures.rate?, *one)));
        let tails = || counting.iter().filter_map(|(one, figures)| Some((tail(figures)?, *one)));
        let fastest = rates().max_by(|(a, _), (b, _)| a.total_cmp(b));
        let smoothest = tails().min_by(|(a, _), (b, _)| a.total_cmp(b));
        let judged = if metric == Metric::Tail { smoothest } else { fastest };
        Best {
            metric,
            contender: judged.map(|(_, contender)| contender),
            rate: fastest.map(|(rate, _)| rate),
            tail: smoothest.map(|(tail, _)| tail),
        }
    }
}

fn tail(figures: &Figures) -> Option<f64> {
    figures.latencies.quantile(9_900).map(|micros| micros.max(1) as f64)
}

fn cell(contender: Option<&Contender>, best: &Best) -> String {
    let Some(contender) = contender else {
        return "<td class=\"absent\">not asked</td>".to_owned();
    };
    let figures = Figures::of(contender);
    let share = figures.rate.zip(best.rate).filter(|(_, best)| *best > 0.0);
    let share = share.map(|(rate, best)| rate / best);
    let times = tail(&figures).zip(best.tail).map(|(tail, best)| tail / best);
    let flaw = verdict::flaw(contender, &figures);
    let standing = match (&flaw, best.contender) {
        (Some(flaw), _) => flaw.clone(),
        (None, Some(leader)) if std::ptr::eq(leader, contender) => "best".to_owned(),
        (None, Some(leader)) => match statistics::compare(best.metric, contender, leader) {
            Difference::Same(_) => "≈ best".to_owned(),
            _ => String::new(),
        },
        (None, None) => String::new(),
    };
    let nearness = if best.metric == Metric::Tail { times.map(|times| 1.0 / times) } else { share };
    let class = match nearness {
        Some(nearness) if flaw.is_none() => {
            let step = STEPS.iter().position(|least| nearness >= *least);
            format!("near{}", step.unwrap_or(STEPS.len()))
        }
        _ => "flawed".to_owned(),
    };
    let rate = share.map(|share| format!("{} %", percent(share)));
    let tail = times.map(|times| format!("p99 × {}", number(times)));
    let (first, second) = match best.metric {
        Metric::Tail => (tail, rate),
        _ => (rate, tail),
    };
    let mut html = format!("<td class=\"{class}\">");
    for (class, text) in [
        ("first", first.unwrap_or_default()),
        ("second", second.unwrap_or_default()),
        ("standing", standing),
    ] {
        if !text.is_empty() {
            html.push_str(&format!("<span class=\"{class}\">{}</span>", escaped(&text)));
        }
    }
    html.push_str("</td>");
    html
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::sample::{poor, report, sample};
    use super::*;

    #[test]
    fn each_cell_says_in_words_what_its_colour_says() {
        let sample = sample();
        let html = matrix(&sample, &Styles::of(&sample)).expect("a matrix");
        assert_eq!(html.matches("<tr>").count(), 4);
        assert_eq!(html.matches("<td").count(), 3 * 8);
        // Six and two contenders: each scenario lacks some.
        assert_eq!(html.matches("not asked").count(), 2 + 2 + 4);
        assert_eq!(html.matches(">best<").count(), 3);
        for expected in [
            "<td class=\"near0\"><span class=\"first\">100 %</span>",
            "<span class=\"first\">p99 × 1</span>",
            "≈ best",
            "had errors in 0.1 % of its requests",
        ] {
            assert!(html.replace("1.00<", "1<").contains(expected), "{expected}: {html}");
        }
    }

    #[test]
    fn poor_data_give_no_nonsense() {
        assert!(matrix(&report(Vec::new()), &Styles::of(&report(Vec::new()))).is_none());
        for report in poor() {
            let html = matrix(&report, &Styles::of(&report)).unwrap_or_default();
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        }
    }
}
