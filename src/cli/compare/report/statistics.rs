//! What the rounds say: medians, percentiles, and whether two contenders differ at all.
//!
//! Plain functions of the data. Rounds are compared in pairs: those with the same number ran one after the other, so what
//! the machine did in the meantime hits both. A difference counts only if an interval of the pairs' ratios leaves out "as
//! much as the other" and if it is large enough to matter. No result is ever NaN or infinite: what cannot be told is `None`
//! or [`Difference::TooFew`].

use crate::cli::compare::model::{Contender, Round};
use crate::cli::load::meter::Shares;
use std::collections::BTreeMap;

/// Pairs of rounds below which nothing is said of a difference.
pub(super) const PAIRS_MIN: usize = 3;

/// Differences below this share do not count, however sure they are.
pub(super) const SHARE_MIN: f64 = 0.02;

/// Two-sided critical values of Student's t at 1 %, for 1 to 30 degrees of freedom.
///
/// 1 % for each of the three [`Metric`]s makes at most 3 % for any of them (Bonferroni): two runs of the same contender
/// are called different less than once in 20 times, with room for noise that is not normal.
const CRITICAL: [f64; 30] = [
    63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012,
    2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845, 2.831, 2.819, 2.807, 2.797, 2.787, 2.779,
    2.771, 2.763, 2.756, 2.750,
];

/// The same of the normal distribution.
const CRITICAL_NORMAL: f64 = 2.576;

/// What contenders are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// Requests per second.
    Rate,
    /// The 99th percentile of the latency, in microseconds.
    Tail,
    /// CPU microseconds per request.
    Cpu,
}

impl Metric {
    /// All of them: [`CRITICAL`] depends on how many there are.
    pub(super) const ALL: [Metric; 3] = [Metric::Rate, Metric::Tail, Metric::Cpu];

    /// The figure of one round, if it has one that is above zero.
    pub(super) fn of(self, round: &Round) -> Option<f64> {
        let value = match self {
            Metric::Rate => rate(round)?,
            Metric::Tail => Latencies::of([round]).quantile(9_900)?.max(1) as f64,
            Metric::Cpu => {
                per_request(round, round.user_micros?.saturating_add(round.system_micros?))?
            }
        };
        (value > 0.0).then_some(value)
    }

    /// Whether a greater figure is the better one.
    pub(super) fn more_is_better(self) -> bool {
        self == Metric::Rate
    }
}

/// How many times as much one contender has as another: the middle of the pairs' ratios and the ends of their interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) middle: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// What the pairs say of one contender beside another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Difference {
    /// Fewer than [`PAIRS_MIN`] pairs have the figure.
    TooFew,
    /// Inside the noise, or too small to matter.
    Same(Ratio),
    Better(Ratio),
    Worse(Ratio),
}

/// Compares one contender with another by one metric.
pub(super) fn compare(metric: Metric, this: &Contender, other: &Contender) -> Difference {
    let logs = log_ratios(metric, this, other);
    if logs.len() < PAIRS_MIN {
        return Difference::TooFew;
    }
    let count = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / count;
    let squares = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>();
    let reach = critical(logs.len() - 1) * (squares / (count - 1.0) / count).sqrt();
    // Bounded: with three pairs that contradict each other the interval may be wider than a number can say.
    let factor = |log: f64| log.clamp(-40.0, 40.0).exp();
    let ratio =
        Ratio { middle: factor(mean), low: factor(mean - reach), high: factor(mean + reach) };
    if mean.abs() <= reach || mean.abs() < (1.0 + SHARE_MIN).ln() {
        Difference::Same(ratio)
    } else if (mean > 0.0) == metric.more_is_better() {
        Difference::Better(ratio)
    } else {
        Difference::Worse(ratio)
    }
}

/// Whether a contender differs from another by any metric; `None` if there are too few pairs to tell.
pub(super) fn differs(this: &Contender, other: &Contender) -> Option<bool> {
    let all = Metric::ALL.map(|metric| compare(metric, this, other));
    if all.iter().all(|difference| *difference == Difference::TooFew) {
        return None;
    }
    Some(all.iter().any(|one| matches!(one, Difference::Better(_) | Difference::Worse(_))))
}

/// The logarithm of the ratio in each pair of rounds that both have the figure.
fn log_ratios(metric: Metric, this: &Contender, other: &Contender) -> Vec<f64> {
    let of = |contender: &Contender| -> BTreeMap<u32, f64> {
        let rounds = contender.rounds.iter();
        rounds.filter_map(|round| Some((round.number, metric.of(round)?.ln()))).collect()
    };
    let others = of(other);
    of(this).iter().filter_map(|(number, log)| Some(log - others.get(number)?)).collect()
}

/// The two-sided critical value at 1 %.
fn critical(freedom: usize) -> f64 {
    let z = CRITICAL_NORMAL;
    let beyond = || z + (z.powi(3) + z) / (4.0 * freedom as f64);
    CRITICAL.get(freedom.saturating_sub(1)).copied().unwrap_or_else(beyond)
}

/// Requests per second of one round.
fn rate(round: &Round) -> Option<f64> {
    let timed = round.seconds.is_finite() && round.seconds > 0.0;
    let rate = round.requests as f64 / round.seconds;
    (timed && rate.is_finite()).then_some(rate)
}

/// An amount of one round, for each of its requests.
fn per_request(round: &Round, amount: u64) -> Option<f64> {
    (round.requests > 0).then(|| amount as f64 / round.requests as f64)
}

/// The middle one; between the two middle ones if they are even in number.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

/// The latencies of some rounds together. Nothing is lost: it is the sum of their bins.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies {
    bins: BTreeMap<u64, u64>,
    total: u128,
}

impl Latencies {
    /// Those of some rounds.
    pub(super) fn of<'a>(rounds: impl IntoIterator<Item = &'a Round>) -> Latencies {
        let mut merged = Latencies::default();
        for &(value, count) in rounds.into_iter().flat_map(|round| &round.latencies) {
            if count > 0 {
                let bin = merged.bins.entry(value).or_default();
                *bin = bin.saturating_add(count);
                merged.total += u128::from(count);
            }
        }
        merged
    }

    /// The smallest latency that is not exceeded by a share of the requests, in ten-thousandths: 9,990 for p99.9, and
    /// 10,000 for the greatest.
    pub(super) fn quantile(&self, ten_thousandths: u32) -> Option<u64> {
        let rank = (self.total * u128::from(ten_thousandths)).div_ceil(10_000).max(1);
        let mut seen = 0;
        let mut bins = self.bins.iter();
        let reached = bins.find(|(_, count)| {
            seen += u128::from(**count);
            seen >= rank
        });
        reached.or(self.bins.last_key_value()).map(|(value, _)| *value)
    }
}

/// One contender's figures over all its rounds: medians, but for the latencies and what is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) rounds: usize,
    pub(super) requests: u64,
    pub(super) rate: Option<f64>,
    /// The lowest and the highest rate.
    pub(super) extremes: Option<(f64, f64)>,
    pub(super) latencies: Latencies,
    /// By kind; those that were seen.
    pub(super) errors: BTreeMap<String, u64>,
    /// CPU microseconds per request, if anything is known of them.
    pub(super) user: Option<f64>,
    pub(super) system: Option<f64>,
    pub(super) switches: Option<f64>,
    pub(super) rss_bytes: Option<f64>,
    /// What the generator's busiest thread did with its time, in the round where it was busiest.
    pub(super) generator: Shares,
    /// Share of its CPU that the neighbour had.
    pub(super) neighbour: Option<f64>,
    /// Requests of all rounds by core.
    pub(super) per_core: Vec<u64>,
    /// Foreign wakes, steals and inbox messages per 1,000 requests.
    pub(super) crossed: Option<[f64; 3]>,
}

/// Why the load generator could not go faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saturation {
    /// It is the limit itself: what it measured is a lower bound.
    Alone,
    /// It and the server wanted the same CPUs: what it measured is what both can do together.
    Crowded,
}

impl Figures {
    /// The figures of a contender.
    pub(super) fn of(contender: &Contender) -> Figures {
        let rounds = &contender.rounds;
        let generator = rounds
            .iter()
            .map(|round| Shares { busy: round.generator_busy, waited: round.generator_waited });
        // A program that was not started here tells nothing of its processor time.
        let of_known = |amount: fn(&Round) -> Option<u64>| {
            median(rounds.iter().filter_map(|round| per_request(round, amount(round)?)))
        };
        Figures {
            rounds: rounds.len(),
            requests: rounds.iter().fold(0, |sum, round| sum.saturating_add(round.requests)),
            rate: median(rounds.iter().filter_map(rate)),
            extremes: extremes(rounds),
            latencies: Latencies::of(rounds),
            errors: errors(rounds),
            user: of_known(|round| round.user_micros),
            system: of_known(|round| round.system_micros),
            // Of those rounds alone that can be told it would be the figure of other rounds than the rest.
            switches: of_known(|round| round.context_switches)
                .filter(|_| rounds.iter().all(|round| round.context_switches.is_some())),
            rss_bytes: median(rounds.iter().map(|round| round.rss_bytes as f64))
                .filter(|bytes| *bytes > 0.0),
            generator: generator
                .filter(|shares| shares.busy.is_finite() && shares.waited.is_finite())
                .fold(Shares::default(), Shares::busier),
            neighbour: median(rounds.iter().filter_map(|round| round.neighbour)),
            per_core: per_core(rounds),
            crossed: crossed(rounds),
        }
    }

    /// User and system time per request.
    pub(super) fn cpu(&self) -> Option<f64> {
        Some(self.user? + self.system?)
    }

    /// Errors of every kind.
    pub(super) fn errors_total(&self) -> u64 {
        self.errors.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Errors among everything that was asked.
    pub(super) fn error_share(&self) -> f64 {
        let errors = self.errors_total() as f64;
        if errors == 0.0 { 0.0 } else { errors / (errors + self.requests as f64) }
    }

    /// What the load generator's limit was, if it had nothing left.
    pub(super) fn saturation(&self) -> Option<Saturation> {
        let shares = Some(self.generator).filter(|shares| shares.is_saturated())?;
        Some(if shares.is_crowded() { Saturation::Crowded } else { Saturation::Alone })
    }
}

fn extremes(rounds: &[Round]) -> Option<(f64, f64)> {
    let rates = || rounds.iter().filter_map(rate);
    Some((rates().reduce(f64::min)?, rates().reduce(f64::max)?))
}

fn errors(rounds: &[Round]) -> BTreeMap<String, u64> {
    let mut sum: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, count) in rounds.iter().flat_map(|round| &round.errors) {
        if *count > 0 {
            let of_kind = sum.entry(kind.clone()).or_default();
            *of_kind = of_kind.saturating_add(*count);
        }
    }
    sum
}

fn per_core(rounds: &[Round]) -> Vec<u64> {
    let cores = rounds.iter().map(|round| round.per_core.len()).max().unwrap_or(0);
    let mut sum = vec![0_u64; cores];
    for round in rounds {
        for (core, requests) in sum.iter_mut().zip(&round.per_core) {
            *core = core.saturating_add(*requests);
        }
    }
    sum
}

fn crossed(rounds: &[Round]) -> Option<[f64; 3]> {
    let each: Vec<[f64; 3]> = rounds
        .iter()
        .filter_map(|round| {
            let crossed = round.crossed?;
            let all = [crossed.foreign_wakes, crossed.steals, crossed.inbox_messages];
            (round.requests > 0)
                .then(|| all.map(|events| events as f64 * 1_000.0 / round.requests as f64))
        })
        .collect();
    let of = |index: usize| median(each.iter().map(|events| events[index]));
    Some([of(0)?, of(1)?, of(2)?])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::sample::{Random, contender, round};
    use super::*;
    use proptest::prelude::*;

    fn rounds_of(bins: &[Vec<(u64, u64)>]) -> Vec<Round> {
        let rounds = bins.iter();
        rounds.map(|bins| Round { latencies: bins.clone(), ..Round::default() }).collect()
    }

    proptest! {
        #[test]
        fn merged_percentiles_are_those_of_all_values_sorted(
            bins in prop::collection::vec(prop::collection::vec((0_u64..500, 0_u64..9), 0..12), 0..5),
            wanted in 0_u32..=10_000,
        ) {
            let all: Vec<u64> = bins
                .iter()
                .flatten()
                .flat_map(|(value, count)| std::iter::repeat_n(*value, *count as usize))
                .collect();
            let enough = |value: u64| {
                let below = all.iter().filter(|other| **other <= value).count();
                below * 10_000 >= wanted as usize * all.len()
            };
            let naive = all.iter().copied().filter(|value| enough(*value)).min();
            let merged = Latencies::of(&rounds_of(&bins));
            prop_assert_eq!(merged.total, all.len() as u128);
            prop_assert_eq!(merged.quantile(wanted), naive);
        }

        #[test]
        fn the_median_is_in_the_middle(values in prop::collection::vec(-1e6_f64..1e6, 1..20)) {
            let median = median(values.iter().copied()).expect("there are values");
            let below = values.iter().filter(|value| **value < median).count();
            let above = values.iter().filter(|value| **value > median).count();
            prop_assert!(below <= values.len() / 2 && above <= values.len() / 2);
        }

        #[test]
        fn figures_of_anything_are_finite(
            seconds in prop_oneof![Just(0.0), Just(-1.0), Just(f64::NAN), Just(f64::INFINITY), 0.1_f64..9.0],
            requests in prop_oneof![Just(0_u64), Just(u64::MAX), 1_u64..1_000],
            latencies in prop::collection::vec((any::<u64>(), any::<u64>()), 0..4),
            amount in any::<u64>(),
        ) {
            let rounds = (0..4).map(|number| Round {
                number,
                seconds,
                requests,
                latencies: latencies.clone(),
                user_micros: Some(amount),
                system_micros: Some(amount),
                ..Round::default()
            });
            let it = contender("it", rounds.collect());
            let figures = Figures::of(&it);
            let all = [figures.rate, figures.user, figures.cpu(), figures.switches];
            prop_assert!(all.iter().flatten().all(|figure| figure.is_finite()));
            for metric in Metric::ALL {
                match compare(metric, &it, &it) {
                    Difference::TooFew => {}
                    Difference::Same(ratio) => prop_assert_eq!(ratio.middle, 1.0),
                    other => prop_assert!(false, "it differs from itself: {:?}", other),
                }
            }
        }
    }

    /// Contenders whose rounds scatter by a share around a level, each metric on its own.
    fn noisy(random: &mut Random, count: u32, level: f64, noise: f64) -> Contender {
        let rounds = (0..count).map(|number| {
            let mut scatter = || level * (noise * random.normal()).exp();
            round(number, scatter() * 1_000_000.0, scatter() * 1_000.0, scatter() * 10.0)
        });
        contender("noisy", rounds.collect())
    }

    #[test]
    fn the_same_contender_twice_is_no_difference() {
        let mut random = Random::new(1);
        // Three per cent are usual; fifty are a machine that does something else meanwhile.
        for (rounds, noise) in [(3, 0.03), (5, 0.03), (5, 0.5), (9, 0.03), (40, 0.2)] {
            let mut found = 0;
            for _ in 0..200 {
                let first = noisy(&mut random, rounds, 1.0, noise);
                let second = noisy(&mut random, rounds, 1.0, noise);
                found += u32::from(differs(&first, &second).expect("enough rounds"));
            }
            assert!(found <= 10, "{found} of 200 differ, with {rounds} rounds of noise {noise}");
        }
    }

    #[test]
    fn a_real_difference_is_found() {
        let mut random = Random::new(2);
        let mut found = 0;
        for _ in 0..200 {
            let first = noisy(&mut random, 5, 1.0, 0.02);
            let second = noisy(&mut random, 5, 1.15, 0.02);
            let rate = compare(Metric::Rate, &second, &first);
            let tail = compare(Metric::Tail, &second, &first);
            found += u32::from(
                matches!(rate, Difference::Better(_)) && matches!(tail, Difference::Worse(_)),
            );
        }
        assert!(found >= 190, "{found} of 200");
    }

    #[test]
    fn a_sure_but_tiny_difference_does_not_count() {
        let at = |rate: f64| {
            contender("it", (0..5).map(|number| round(number, rate, 1_000.0, 10.0)).collect())
        };
        let (first, near, far) = (at(1_000_000.0), at(1_015_000.0), at(1_030_000.0));
        assert!(matches!(compare(Metric::Rate, &near, &first), Difference::Same(_)));
        assert!(matches!(compare(Metric::Rate, &far, &first), Difference::Better(_)));
        assert!(matches!(compare(Metric::Rate, &first, &far), Difference::Worse(_)));
    }

    #[test]
    fn only_rounds_of_the_same_number_are_pairs() {
        let of = |numbers: &[u32]| {
            let rounds = numbers
                .iter()
                .map(|number| round(*number, 1_000_000.0 * f64::from(number + 1), 1_000.0, 10.0));
            contender("it", rounds.collect())
        };
        assert_eq!(compare(Metric::Rate, &of(&[0, 1]), &of(&[0, 1])), Difference::TooFew);
        assert_eq!(compare(Metric::Rate, &of(&[0, 1, 2]), &of(&[3, 4, 5])), Difference::TooFew);
        assert_eq!(
            compare(Metric::Rate, &of(&[0, 1, 2, 7]), &of(&[2, 1, 9, 0])),
            Difference::Same(Ratio { middle: 1.0, low: 1.0, high: 1.0 })
        );
        assert_eq!(differs(&of(&[]), &of(&[])), None);
    }

    #[test]
    fn critical_values_fall_without_a_step() {
        let values: Vec<f64> = (1..200).map(critical).collect();
        assert!(values.windows(2).all(|pair| pair[1] < pair[0]), "{values:?}");
    }

    #[test]
    fn errors_and_cores_are_summed_and_rates_are_medians() {
        let mut rounds: Vec<Round> = [90.0, 100.0, 130.0]
            .iter()
            .zip(0..)
            .map(|(rate, number)| round(number, *rate, 1_000.0, 10.0))
            .collect();
        rounds[0].errors.insert("timeout".into(), 3);
        rounds[2].errors.insert("timeout".into(), 4);
        rounds[2].errors.insert("read".into(), 0);
        rounds[0].per_core = vec![1];
        rounds[1].per_core = vec![1, 2];
        rounds[1].generator_busy = 0.95;
        let figures = Figures::of(&contender("it", rounds));
        assert_eq!(figures.rate, Some(100.0));
        assert_eq!(figures.extremes, Some((90.0, 130.0)));
        assert_eq!(figures.errors, BTreeMap::from([("timeout".to_owned(), 7)]));
        assert_eq!(figures.per_core, [2, 2]);
        assert_eq!(figures.saturation(), Some(Saturation::Alone));
        assert_eq!(figures.crossed, None);
    }
}
