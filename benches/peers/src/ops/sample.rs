//! How often an operation is repeated, and what is made of the samples.
//!
//! Plain data: no clock is read here.

use std::time::Duration;

/// Samples taken of one operation; the median is reported.
pub(super) const SAMPLES: usize = 5;

/// Samples of an operation that takes seconds by itself.
pub(super) const LONG_SAMPLES: usize = 3;

/// How long one sample should take.
const SAMPLE_TIME: Duration = Duration::from_millis(250);

/// No operation is repeated more often than this in one sample.
const REPEATS_MAX: u64 = 1 << 28;

/// The figures of one row, in the row's unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) median: f64,
    pub(super) p99: Option<f64>,
}

impl Figures {
    /// The median of several samples.
    pub(super) fn of_samples(samples: &mut [f64]) -> Figures {
        samples.sort_unstable_by(f64::total_cmp);
        Figures { median: percentile(samples, 0.5), p99: None }
    }

    /// The 50th and 99th percentile of single measurements.
    pub(super) fn of_distribution(values: &mut [f64]) -> Figures {
        values.sort_unstable_by(f64::total_cmp);
        Figures { median: percentile(values, 0.5), p99: Some(percentile(values, 0.99)) }
    }
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        length => sorted[((length - 1) as f64 * share).round() as usize],
    }
}

/// Finds the number of repeats that fills a sample.
pub(super) struct Calibration {
    repeats: u64,
}

impl Calibration {
    /// Starts with `repeats`, of which the result will be a multiple.
    pub(super) fn from(repeats: u64) -> Calibration {
        Calibration { repeats }
    }

    pub(super) fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Takes note of how long the current number took. True when that is long enough.
    pub(super) fn enough(&mut self, elapsed: Duration) -> bool {
        if elapsed * 10 >= SAMPLE_TIME * 8 || self.repeats >= REPEATS_MAX {
            return true;
        }
        let wanted = SAMPLE_TIME.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        // Not too far at once: the first, cold attempts mislead.
        self.repeats *= (wanted.ceil() as u64).clamp(2, 20);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_tail_are_taken_from_the_sorted_values() {
        let mut values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let figures = Figures::of_distribution(&mut values);
        assert_eq!((figures.median, figures.p99), (50.0, Some(99.0)));
    }

    #[test]
    fn calibration_ends_near_the_sample_time() {
        let mut calibration = Calibration::from(1000);
        let per_repeat = Duration::from_nanos(40);
        let elapsed = |repeats: u64| per_repeat * u32::try_from(repeats).expect("few repeats");
        let rounds = (0..20).take_while(|_| !calibration.enough(elapsed(calibration.repeats())));
        assert!(rounds.count() < 10);
        assert!(elapsed(calibration.repeats()) < SAMPLE_TIME * 2);
    }
}
