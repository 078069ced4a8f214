//! Metrics and differences in words.

use super::statistics::{Metric, Ratio};
use super::{number, percent};

/// A metric at the beginning of a line.
pub(super) fn topic(metric: Metric) -> &'static str {
    match metric {
        Metric::Rate => "Requests/s",
        Metric::Tail => "p99",
        Metric::Cpu => "CPU per request",
    }
}

/// A metric within a sentence.
pub(super) fn noun(metric: Metric) -> &'static str {
    match metric {
        Metric::Rate => "requests/s",
        Metric::Tail => "p99",
        Metric::Cpu => "CPU per request",
    }
}

/// A difference with its metric: "12 % more requests/s", "p99 30 % lower".
pub(super) fn said(metric: Metric, ratio: Ratio) -> String {
    match metric {
        Metric::Rate => format!("{} requests/s", more_or_less(metric, ratio)),
        Metric::Tail | Metric::Cpu => {
            format!("{} {}", noun(metric), more_or_less(metric, ratio))
        }
    }
}

/// A difference in words: "12 % more", "30 % lower", "2.50 times as many".
pub(super) fn more_or_less(metric: Metric, ratio: Ratio) -> String {
    let (more, less, times) = match metric {
        Metric::Rate => ("more", "fewer", "many"),
        Metric::Tail | Metric::Cpu => ("higher", "lower", "high"),
    };
    match ratio.middle {
        middle if middle >= 2.0 => format!("{} times as {times}", number(middle)),
        middle if middle >= 1.0 => format!("{} % {more}", percent(middle - 1.0)),
        middle => format!("{} % {less}", percent(1.0 - middle)),
    }
}

/// The interval of a difference, in the same words.
pub(super) fn interval(ratio: Ratio) -> String {
    let Ratio { middle, low, high } = ratio;
    if middle >= 2.0 {
        format!("{} to {} times", number(low), number(high))
    } else if middle >= 1.0 {
        format!("{} % to {} %", percent(low - 1.0), percent(high - 1.0))
    } else {
        format!("{} % to {} %", percent(1.0 - high), percent(1.0 - low))
    }
}

/// The interval of what is no difference, with signs: "-1 % to +2 %".
pub(super) fn range(ratio: Ratio) -> String {
    let signed = |factor: f64| match percent(factor - 1.0) {
        text if text.starts_with('-') || text == "0" => text,
        text => format!("+{text}"),
    };
    format!("{} % to {} %", signed(ratio.low), signed(ratio.high))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn ratio(low: f64, middle: f64, high: f64) -> Ratio {
        Ratio { middle, low, high }
    }

    #[test]
    fn differences_are_per_cent_or_times() {
        let more = ratio(1.09, 1.12, 1.15);
        assert_eq!(said(Metric::Rate, more), "12 % more requests/s");
        assert_eq!(said(Metric::Cpu, more), "CPU per request 12 % higher");
        assert_eq!(interval(more), "9 % to 15 %");
        let less = ratio(0.1, 0.25, 0.4);
        assert_eq!(said(Metric::Rate, less), "75 % fewer requests/s");
        assert_eq!(said(Metric::Tail, less), "p99 75 % lower");
        assert_eq!(interval(less), "60 % to 90 %");
        let many = ratio(1.5, 2.5, 4.0);
        assert_eq!(said(Metric::Rate, many), "2.50 times as many requests/s");
        assert_eq!(said(Metric::Tail, many), "p99 2.50 times as high");
        assert_eq!(interval(many), "1.50 to 4.00 times");
    }

    #[test]
    fn what_is_no_difference_has_signs() {
        assert_eq!(range(ratio(0.98, 1.0, 1.01)), "-2 % to +1 %");
        assert_eq!(range(ratio(1.0, 1.0, 1.0)), "0 % to 0 %");
    }
}
