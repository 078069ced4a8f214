//! Charts as SVG, drawn in user units that fit a phone: the page scales them.
//!
//! Colours come from the page's style sheet, by class: `s0` to `s7` for the contenders. What colour tells is told by a
//! shape or a text as well.

use super::html::escaped;
use super::statistics::Figures;
use super::{MISSING, grouped, latency, number, percent};

/// How many contenders have a colour and a shape of their own.
pub(super) const STYLES: usize = 8;

/// Width of every chart.
const WIDTH: f64 = 440.0;

/// Height of one bar with its text.
const BAR: f64 = 44.0;

/// Height of the latency chart, and its margins.
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 32.0;

/// Labels on the latency axis at most; beyond, only powers of ten have one.
const TICKS_MAX: usize = 8;

/// The longest name above a bar.
const NAME_MAX: usize = 34;

/// The percentiles of the latency chart: in ten-thousandths, their names, and where they are: each 9 is as wide.
const QUANTILES: [(u32, &str, f64); 6] = [
    (5_000, "p50", 0.301),
    (9_000, "p90", 1.0),
    (9_900, "p99", 2.0),
    (9_990, "p99.9", 3.0),
    (9_999, "p99.99", 4.0),
    (10_000, "max", 4.8),
];

/// One contender of a chart.
pub(super) struct Series {
    pub(super) name: String,
    /// Which colour and shape: below [`STYLES`].
    pub(super) style: usize,
    pub(super) figures: Figures,
}

/// Latency by percentile: a line for each contender. Nothing, if there are no latencies.
pub(super) fn latencies(all: &[Series]) -> Option<String> {
    let points: Vec<Vec<u64>> = all
        .iter()
        .map(|one| {
            QUANTILES
                .iter()
                .filter_map(|(share, ..)| one.figures.latencies.quantile(*share))
                .collect()
        })
        .collect();
    let lowest = *points.iter().flatten().min()?;
    let highest = *points.iter().flatten().max()?;
    let ticks = ticks(lowest.max(1) as f64, highest.max(1) as f64);
    let (bottom, top) = (ticks.first()?.log10(), ticks.last()?.log10());
    let from_left = |place: f64| {
        let (first, last) = (QUANTILES[0].2, QUANTILES[QUANTILES.len() - 1].2);
        LEFT + 12.0 + (place - first) / (last - first) * (WIDTH - LEFT - RIGHT - 24.0)
    };
    let from_top = |micros: f64| {
        let share = (micros.max(1.0).log10() - bottom) / (top - bottom);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    let mut svg = grid(&ticks, from_left, from_top);
    for (one, values) in all.iter().zip(&points).filter(|(_, values)| !values.is_empty()) {
        let places: Vec<(f64, f64)> = QUANTILES
            .iter()
            .zip(values)
            .map(|((_, _, place), value)| (from_left(*place), from_top(*value as f64)))
            .collect();
        let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        svg.push_str(&format!("<g class=\"s{}\">", one.style));
        svg.push_str(&format!("<polyline class=\"line\" points=\"{}\"/>", line.join(" ")));
        for (((x, y), value), (_, percentile, _)) in places.iter().zip(values).zip(&QUANTILES) {
            let title = format!("{}, {percentile}: {}", one.name, latency(*value));
            svg.push_str(&format!(
                "<g><title>{}</title>{}</g>",
                escaped(&title),
                shape(one.style, *x, *y)
            ));
        }
        svg.push_str("</g>");
    }
    Some(framed("Latency by percentile", HEIGHT, &svg))
}

/// The lines and names of both axes.
fn grid(ticks: &[f64], from_left: impl Fn(f64) -> f64, from_top: impl Fn(f64) -> f64) -> String {
    let mut svg = String::new();
    let is_decade = |tick: f64| tick.log10().fract() == 0.0;
    let all = ticks.len() <= TICKS_MAX;
    for tick in ticks.iter().filter(|tick| all || is_decade(**tick)) {
        let y = from_top(*tick);
        let right = WIDTH - RIGHT;
        let name = match *tick {
            tick if tick < 1e3 => format!("{tick} µs"),
            tick if tick < 1e6 => format!("{} ms", tick / 1e3),
            tick if tick < 1e11 => format!("{} s", tick / 1e6),
            tick => format!("{:.0e} s", tick / 1e6),
        };
        svg.push_str(&format!(
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
             <text class=\"axis end\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            LEFT - 8.0,
            y + 4.0
        ));
    }
    for (_, name, place) in QUANTILES {
        let x = from_left(place);
        let (bottom, below) = (HEIGHT - BOTTOM, HEIGHT - BOTTOM + 20.0);
        svg.push_str(&format!(
            "<line class=\"grid faint\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"axis middle\" x=\"{x:.1}\" y=\"{below}\">{name}</text>"
        ));
    }
    svg
}

/// Requests per second: a bar for each contender, with the range of its rounds.
pub(super) fn throughput(all: &[Series]) -> Option<String> {
    let highest = |one: &Series| one.figures.extremes.map(|(_, highest)| highest);
    let most = all.iter().filter_map(highest).reduce(f64::max).filter(|most| *most > 0.0)?;
    let scale = |rate: f64| rate / most * WIDTH;
    bars("Requests per second", all, |one, top| {
        let rate = one.figures.rate?;
        let (lowest, highest) = one.figures.extremes?;
        let (from, to, middle) = (scale(lowest), scale(highest), top + 7.0);
        let ends = middle - 4.0;
        let path =
            format!("M{from:.1} {middle:.1}H{to:.1}M{from:.1} {ends:.1}v8M{to:.1} {ends:.1}v8");
        let range = format!(
            "<path class=\"range halo\" d=\"{path}\"/><path class=\"range\" d=\"{path}\"/>"
        );
        let bar = rectangle("bar", 0.0, top, scale(rate), 14.0);
        Some((number(rate), format!("{bar}{range}")))
    })
}

/// CPU microseconds per request: user and system time, one behind the other.
pub(super) fn cpu(all: &[Series]) -> Option<String> {
    let most = all.iter().filter_map(|one| one.figures.cpu()).reduce(f64::max)?;
    let scale = |micros: f64| if most > 0.0 { micros / most * WIDTH } else { 0.0 };
    bars("CPU per request", all, |one, top| {
        let (user, system) = (one.figures.user?, one.figures.system?);
        let text = format!("{} µs ({} + {})", number(user + system), number(user), number(system));
        let bar = rectangle("bar", 0.0, top, scale(user), 14.0);
        let rest = rectangle("bar system", scale(user), top, scale(system), 14.0);
        Some((text, format!("{bar}{rest}")))
    })
}

/// Requests by core: a column for each core of each contender that tells. A dashed line is the even share.
pub(super) fn per_core(all: &[Series]) -> Option<String> {
    const COLUMNS: f64 = 56.0;
    const STEP: f64 = COLUMNS + 50.0;
    /// Cores above which the columns have no names: there is no room.
    const NAMED_MAX: usize = 16;
    let telling: Vec<&Series> =
        all.iter().filter(|one| one.figures.per_core.iter().any(|count| *count > 0)).collect();
    if telling.is_empty() {
        return None;
    }
    let mut svg = String::new();
    for (one, row) in telling.iter().zip(0_u32..) {
        let cores = &one.figures.per_core;
        let total: f64 = cores.iter().map(|count| *count as f64).sum();
        let most = cores.iter().max().map_or(1.0, |count| *count as f64);
        let top = f64::from(row) * STEP;
        let even = total / cores.len() as f64;
        let text = format!("busiest: {} % of all", percent(most / total));
        svg.push_str(&format!("<g class=\"s{}\">{}", one.style, heading(one, top, &text)));
        let base = top + 24.0 + COLUMNS;
        let step = WIDTH / cores.len() as f64;
        for (core, count) in cores.iter().enumerate() {
            let height = *count as f64 / most * COLUMNS;
            let x = core as f64 * step;
            let column = rectangle("bar", x + step * 0.08, base - height, step * 0.84, height);
            svg.push_str(&format!(
                "<g><title>core {core}: {} requests, {} %</title>{column}</g>",
                grouped(*count),
                percent(*count as f64 / total)
            ));
            if cores.len() <= NAMED_MAX {
                svg.push_str(&format!(
                    "<text class=\"axis middle\" x=\"{:.1}\" y=\"{:.1}\">{core}</text>",
                    x + step / 2.0,
                    base + 16.0
                ));
            }
        }
        let y = base - even / most * COLUMNS;
        svg.push_str(&format!(
            "<line class=\"even\" x1=\"0\" y1=\"{y:.1}\" x2=\"{WIDTH}\" y2=\"{y:.1}\"/></g>"
        ));
    }
    Some(framed("Requests by core", telling.len() as f64 * STEP, &svg))
}

/// A bar for each contender: `draw` gives the text at the right and what is drawn at the given height.
fn bars(
    title: &str,
    all: &[Series],
    draw: impl Fn(&Series, f64) -> Option<(String, String)>,
) -> Option<String> {
    let mut svg = String::new();
    for (one, row) in all.iter().zip(0_u32..) {
        let top = f64::from(row) * BAR;
        let (text, drawn) =
            draw(one, top + 21.0).unwrap_or_else(|| (MISSING.to_owned(), String::new()));
        let track = rectangle("track", 0.0, top + 21.0, WIDTH, 14.0);
        let heading = heading(one, top, &text);
        svg.push_str(&format!("<g class=\"s{}\">{heading}{track}{drawn}</g>", one.style));
    }
    (!all.is_empty()).then(|| framed(title, all.len() as f64 * BAR, &svg))
}

/// The name of a contender to the left and a text to the right.
fn heading(one: &Series, top: f64, text: &str) -> String {
    let y = top + 14.0;
    let name = if one.name.chars().count() > NAME_MAX {
        let kept: String = one.name.chars().take(NAME_MAX - 1).collect();
        format!("{kept}…")
    } else {
        one.name.clone()
    };
    format!(
        "{}<text class=\"name\" x=\"16\" y=\"{y:.1}\">{}</text>\
         <text class=\"value end\" x=\"{WIDTH}\" y=\"{y:.1}\">{}</text>",
        shape(one.style, 6.0, y - 4.5),
        escaped(&name),
        escaped(text)
    )
}

/// The sign of a contender, for a legend or a table.
pub(super) fn key(style: usize) -> String {
    format!(
        "<svg class=\"key s{style}\" viewBox=\"0 0 26 12\" aria-hidden=\"true\">\
         <path class=\"line\" d=\"M1 6H25\"/>{}</svg>",
        shape(style, 13.0, 6.0)
    )
}

/// A mark in the shape of a contender, around a point.
fn shape(style: usize, x: f64, y: f64) -> String {
    let path = match style % STYLES {
        0 => return format!("<circle class=\"mark\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
        1 => "m-3.7 -3.7h7.4v7.4h-7.4z",
        2 => "m0 -5l4.8 8.4h-9.6z",
        3 => "m0 -5.2l5.2 5.2l-5.2 5.2l-5.2 -5.2z",
        4 => "m0 5l4.8 -8.4h-9.6z",
        5 => "m-1.4 -4.6h2.8v3.2h3.2v2.8h-3.2v3.2h-2.8v-3.2h-3.2v-2.8h3.2z",
        6 => "m-4.9 -2.4h9.8v4.8h-9.8z",
        _ => "m-2.4 -4.9h4.8v9.8h-4.8z",
    };
    format!("<path class=\"mark\" d=\"M{x:.1} {y:.1}{path}\"/>")
}

fn rectangle(class: &str, x: f64, y: f64, width: f64, height: f64) -> String {
    let rounding = if class == "track" { " rx=\"2\"" } else { "" };
    format!(
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"{rounding}/>",
        width.max(0.0),
        height.max(0.0)
    )
}

fn framed(title: &str, height: f64, svg: &str) -> String {
    format!(
        "<svg class=\"drawing\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">{svg}</svg>",
        escaped(title)
    )
}

/// 1, 2, 5, 10 and so on: from the last one that is not above the lowest to the first that is not below the highest.
fn ticks(lowest: f64, highest: f64) -> Vec<f64> {
    let decades =
        (0..=20).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    let all: Vec<f64> = decades.collect();
    let first = all.iter().rposition(|tick| *tick <= lowest).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= highest).unwrap_or(all.len() - 1);
    all[first..=last.max(first + 1).min(all.len() - 1)].to_vec()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::sample::{contender, poor, round, sample};
    use super::*;
    use crate::cli::compare::model::Scenario;
    use proptest::prelude::*;

    fn series(scenario: &Scenario) -> Vec<Series> {
        let contenders = scenario.contenders.iter().enumerate();
        contenders
            .map(|(index, contender)| Series {
                name: contender.name.clone(),
                style: index % STYLES,
                figures: Figures::of(contender),
            })
            .collect()
    }

    #[test]
    fn every_number_in_a_drawing_is_one() {
        for scenario in poor().into_iter().chain([sample()]).flat_map(|report| report.scenarios) {
            let all = series(&scenario);
            for svg in
                [latencies(&all), throughput(&all), cpu(&all), per_core(&all)].iter().flatten()
            {
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn without_data_there_is_no_drawing() {
        let none = [Series { name: "a".into(), style: 0, figures: Figures::default() }];
        for all in [&none[..], &[]] {
            assert!(latencies(all).is_none() && throughput(all).is_none());
            assert!(cpu(all).is_none() && per_core(all).is_none());
        }
    }

    #[test]
    fn each_contender_has_a_line_and_a_bar() {
        let report = sample();
        let all = series(&report.scenarios[0]);
        let drawn = latencies(&all).expect("a drawing");
        assert_eq!(drawn.matches("<polyline").count(), 6);
        let drawn = throughput(&all).expect("a drawing");
        assert_eq!(drawn.matches("class=\"bar\"").count(), 6);
        let drawn = cpu(&all).expect("a drawing");
        assert_eq!(drawn.matches("class=\"bar system\"").count(), 6);
        let drawn = per_core(&all).expect("a drawing");
        assert_eq!(drawn.matches("class=\"bar\"").count(), 4, "two cores of two contenders");
    }

    #[test]
    fn the_longest_bar_is_as_wide_as_the_chart() {
        let it = contender("it", vec![round(0, 100.0, 1_000.0, 10.0)]);
        let all = [Series { name: "it".into(), style: 0, figures: Figures::of(&it) }];
        let drawn = throughput(&all).expect("a drawing");
        assert!(
            drawn.contains("<rect class=\"bar\" x=\"0.0\" y=\"21.0\" width=\"440.0\""),
            "{drawn}"
        );
    }

    proptest! {
        #[test]
        fn ticks_hold_all_values(lowest in 1_u64.., span in 0_u64..) {
            let highest = lowest.saturating_add(span);
            let ticks = ticks(lowest as f64, highest as f64);
            prop_assert!(ticks.len() >= 2);
            prop_assert!(ticks[0] <= lowest as f64 && ticks[ticks.len() - 1] >= highest as f64);
            prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
