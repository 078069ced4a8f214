//! How many of the new connections each shard is to get, so that all are equally busy.
//!
//! Plain data with the time passed in: what was read of the shards goes in, weights come out. One thread owns it, the
//! server's steering thread.
//!
//! - **Even CPU time, not even counts.** A shard that is busier than the mean gets less: at once in proportion, and by a
//!   trim that grows for as long as that does not do. Busy time is as the clock on the wall has it, so a shard whose CPU
//!   somebody else uses counts as busier for the same work.
//! - **No swinging.** The trim grows no faster than connections come and go (by Little's law: those that are open, divided by
//!   those that come in a second): only then is to be seen what the weights have done. Small changes are not passed on.
//! - **Nobody waits for a shard that is stuck.** One that is awake and finishes no turn for [`STALL`] has no weight, and
//!   has its old one again when it has come on for [`RECOVERY`].
//! - **Never nobody.** If all are stuck, those are taken for well that have been for less than half as long as another, since
//!   what they lack may be no more than a CPU for a moment; if there is none, all weigh the same. None that is well weighs
//!   less than a 64th of another.

use std::time::{Duration, Instant};

/// The largest weight; one shard always has it.
pub(crate) const WEIGHT_MAX: u16 = 1000;

/// Looks must not be further apart than this, or a stall is seen late.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(25);

/// A shard that makes no progress for this long is stuck. At most a look later it is known.
const STALL: Duration = Duration::from_millis(50);

/// A shard that was stuck and has made progress at each look of this time is well again.
const RECOVERY: Duration = Duration::from_millis(50);

/// Busy shares are means over about this time.
const SMOOTHING: Duration = Duration::from_millis(200);

/// The shortest time in which the trim may grow by as much as the error is.
const TRIM_TIME_MIN: Duration = Duration::from_millis(800);
/// The longest, with connections that never end.
const TRIM_TIME_MAX: Duration = Duration::from_secs(60);

/// A busy share that does not count: twice as much of next to nothing is no difference.
const IDLE: f64 = 0.03;

/// From here on busy shares say less and less, since there is no more than all of the time...
const SATURATION: f64 = 0.9;

/// If all are less busy than this, an old trim is forgotten, in about so many seconds.
const FORGET_BELOW: f64 = 0.02;
const FORGET_SECONDS: f64 = 5.0;

/// No trim is larger than this, and no weight less than the largest divided by this squared.
const TRIM_MAX: f64 = 8.0;

/// What is read of a shard at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// Turns finished so far.
    pub(crate) turns: u64,
    pub(crate) asleep: bool,
    /// Time so far that was not spent waiting.
    pub(crate) busy: Duration,
    /// Open now.
    pub(crate) connections: u64,
    /// Accepted so far.
    pub(crate) accepts: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Weights {
    shards: Vec<Seen>,
    looked_at: Option<Instant>,
    /// As they were passed on last.
    passed_on: Vec<u16>,
}

/// What is known of one shard.
#[derive(Debug, Default)]
struct Seen {
    /// The last reading with progress, and when that was.
    last: Option<(Reading, Instant)>,
    stuck_since: Option<Instant>,
    /// Since when it has made progress again, if it was stuck.
    well_since: Option<Instant>,
    is_stuck: bool,
    /// Takes no part any more.
    is_gone: bool,
    /// Smoothed: the busy share, and connections accepted in a second.
    share: f64,
    rate: f64,
    /// Logarithms, of the trim and of the weight.
    trim: f64,
    level: f64,
}

impl Weights {
    pub(crate) fn new(shards: usize) -> Weights {
        Weights {
            shards: (0..shards).map(|_| Seen::default()).collect(),
            looked_at: None,
            passed_on: vec![WEIGHT_MAX; shards],
        }
    }

    /// Takes what was read of each shard; none: it takes no part any more. Returns the weights if they differ enough from
    /// those returned last; in the beginning all are equal.
    pub(crate) fn look(&mut self, now: Instant, readings: &[Option<Reading>]) -> Option<&[u16]> {
        for (seen, reading) in self.shards.iter_mut().zip(readings) {
            seen.is_gone = reading.is_none();
            if let Some(reading) = reading {
                seen.look(now, *reading);
            }
        }
        self.excuse(now);
        let before = self.looked_at.replace(now).unwrap_or(now);
        // A thread that was kept from looking does not know what has happened meanwhile.
        let passed = now.duration_since(before).min(Duration::from_millis(250));
        self.level(passed);
        let weights = self.weights();
        let differ = weights.iter().zip(&self.passed_on).any(|(new, old)| differ(*new, *old));
        differ.then(|| {
            self.passed_on = weights;
            &self.passed_on[..]
        })
    }

    /// If all are stuck, not all of them count as that.
    fn excuse(&mut self, now: Instant) {
        if self.shards.iter().any(Seen::is_live) {
            return;
        }
        let stuck_for = |seen: &Seen| {
            seen.stuck_since.map_or(Duration::ZERO, |since| now.duration_since(since))
        };
        let here = || self.shards.iter().filter(|seen| !seen.is_gone);
        let longest = here().map(stuck_for).max().unwrap_or_default();
        for seen in &mut self.shards {
            seen.is_stuck = seen.is_stuck && stuck_for(seen) * 2 >= longest;
        }
    }

    /// Moves the levels of those that are not stuck.
    fn level(&mut self, passed: Duration) {
        let live = || self.shards.iter().filter(|seen| seen.is_live());
        let count = live().count().max(1) as f64;
        let mean = live().map(|seen| seen.share).sum::<f64>() / count;
        let open = live().map(|seen| seen.open()).sum::<f64>();
        let rate = live().map(|seen| seen.rate).sum::<f64>();
        let stay = open / rate.max(open / TRIM_TIME_MAX.as_secs_f64()).max(f64::MIN_POSITIVE);
        let trim_time = stay.max(TRIM_TIME_MIN.as_secs_f64());
        let step = passed.as_secs_f64() / trim_time;
        let forget = match mean < FORGET_BELOW {
            true => (-passed.as_secs_f64() / FORGET_SECONDS).exp(),
            false => 1.0,
        };
        // Where all are busy all of the time, those with more connections are behind.
        let saturation = ((mean - SATURATION) / (1.0 - SATURATION)).clamp(0.0, 1.0);
        for seen in self.shards.iter_mut().filter(|seen| seen.is_live()) {
            let busier = ((seen.share + IDLE) / (mean + IDLE)).ln();
            let behind = ((seen.open() + 1.0) / (open / count + 1.0)).ln();
            let error = busier + saturation * behind;
            let most = TRIM_MAX.ln();
            seen.trim = ((seen.trim - step * error) * forget).clamp(-most, most);
            seen.level = (seen.trim - error).clamp(-2.0 * most, 2.0 * most);
        }
    }

    fn weights(&self) -> Vec<u16> {
        let none_is_live = !self.shards.iter().any(Seen::is_live);
        let levels = self.shards.iter().filter(|seen| seen.is_live()).map(|seen| seen.level);
        let highest = levels.fold(f64::MIN, f64::max);
        let weight = |seen: &Seen| match seen.is_live() {
            true => {
                let part = (seen.level - highest).exp().max(TRIM_MAX.powi(-2));
                (part * f64::from(WEIGHT_MAX)).round() as u16
            }
            false if none_is_live => WEIGHT_MAX,
            false => 0,
        };
        self.shards.iter().map(weight).collect()
    }
}

impl Seen {
    fn is_live(&self) -> bool {
        !self.is_stuck && !self.is_gone
    }

    /// Connections open when it was read last.
    fn open(&self) -> f64 {
        self.last.map_or(0.0, |(reading, _)| reading.connections as f64)
    }

    fn look(&mut self, now: Instant, reading: Reading) {
        let Some((last, at)) = self.last else {
            self.last = Some((reading, now));
            return;
        };
        if !reading.asleep && reading.turns == last.turns {
            self.well_since = None;
            let since = *self.stuck_since.get_or_insert(now);
            self.is_stuck |= now.duration_since(since) >= STALL;
            return;
        }
        // One that sleeps is not stuck yet, and may not be until just before the next look.
        self.stuck_since = (!reading.asleep).then_some(now);
        self.last = Some((reading, now));
        if self.is_stuck {
            // The time in which it was stuck says nothing of what it is to get now.
            let since = *self.well_since.get_or_insert(now);
            self.is_stuck = now.duration_since(since) < RECOVERY;
            return;
        }
        self.well_since = None;
        let passed = now.duration_since(at).as_secs_f64();
        if passed > 0.0 {
            let busy = reading.busy.saturating_sub(last.busy).as_secs_f64() / passed;
            let accepts = reading.accepts.saturating_sub(last.accepts) as f64 / passed;
            let part = 1.0 - (-passed / SMOOTHING.as_secs_f64()).exp();
            self.share += part * (busy.min(1.0) - self.share);
            self.rate += part * (accepts - self.rate);
        }
    }
}

/// Whether a change is worth passing on: by a twentieth of the largest weight, or by a tenth of what it was, or to or from
/// nothing.
fn differ(new: u16, old: u16) -> bool {
    let worth = (WEIGHT_MAX / 20).min(old / 10 + 5);
    (new == 0) != (old == 0) || new.abs_diff(old) > worth
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOOK: Duration = LOOK_INTERVAL;

    /// Shards as a simulation sees them.
    struct Plant {
        weights: Weights,
        now: Instant,
        readings: Vec<Reading>,
        /// As the program has them that is attached.
        attached: Vec<u16>,
        attaches: usize,
    }

    impl Plant {
        fn new(shards: usize) -> Plant {
            Plant {
                weights: Weights::new(shards),
                now: Instant::now(),
                readings: vec![Reading::default(); shards],
                attached: vec![WEIGHT_MAX; shards],
                attaches: 0,
            }
        }

        /// The part of all new connections that this shard gets.
        fn part(&self, shard: usize) -> f64 {
            let total: u32 = self.attached.iter().map(|&weight| u32::from(weight)).sum();
            f64::from(self.attached[shard]) / f64::from(total)
        }

        /// A look later; `stuck` shards have made no progress.
        fn step(&mut self, stuck: &[usize]) {
            self.now += LOOK;
            for (shard, reading) in self.readings.iter_mut().enumerate() {
                if !stuck.contains(&shard) {
                    reading.turns += 1;
                }
            }
            let readings: Vec<_> = self.readings.iter().copied().map(Some).collect();
            if let Some(weights) = self.weights.look(self.now, &readings) {
                self.attached = weights.to_vec();
                self.attaches += 1;
            }
        }

        fn add_busy(&mut self, shard: usize, share: f64) {
            self.readings[shard].busy += LOOK.mul_f64(share.min(1.0));
        }
    }

    /// Two shards with connections that stay this long, of which so many are open; the second needs twice as long for
    /// each. `load` is what the first would be busy with if it had all. Returns how many times as many the first has in
    /// the end, and the least and the most of that in the last third of the time.
    fn with_one_slowed(stay: f64, open: f64, load: f64, seconds: f64) -> (f64, f64, f64, usize) {
        let mut plant = Plant::new(2);
        let mut connections = [open / 2.0; 2];
        let steps = (seconds / LOOK.as_secs_f64()) as usize;
        let (mut least, mut most) = (f64::MAX, 0.0_f64);
        let mut accepted = [0.0; 2];
        let mut attaches = 0;
        for step in 0..steps {
            for shard in 0..2 {
                let come = open / stay * LOOK.as_secs_f64() * plant.part(shard);
                let stays = (-LOOK.as_secs_f64() / stay).exp();
                // Short ones follow at once.
                let target = plant.part(shard) * open;
                connections[shard] = target + (connections[shard] - target) * stays;
                accepted[shard] += come;
                plant.readings[shard].accepts = accepted[shard] as u64;
                plant.readings[shard].connections = connections[shard].round() as u64;
                let slowness = (shard + 1) as f64;
                plant.add_busy(shard, connections[shard] / open * load * slowness);
            }
            plant.step(&[]);
            let ratio = connections[0] / connections[1];
            if step >= steps * 2 / 3 {
                (least, most) = (least.min(ratio), most.max(ratio));
            } else {
                attaches = plant.attaches;
            }
        }
        (connections[0] / connections[1], least, most, plant.attaches - attaches)
    }

    #[test]
    fn a_shard_that_is_half_as_fast_gets_half_as_much() {
        // How long a connection stays, how many are open, how much load: short ones, middling ones, few that are long.
        for (stay, open, seconds) in [(0.002, 4.0, 15.0), (1.0, 100.0, 20.0), (20.0, 24.0, 200.0)] {
            for load in [0.3, 0.7, 1.0] {
                let (ratio, least, most, attaches) = with_one_slowed(stay, open, load, seconds);
                println!("{stay} s, load {load}: {ratio:.2} ({least:.2} to {most:.2}), {attaches}");
                assert!((1.75..=2.3).contains(&ratio), "{stay} s, load {load}: {ratio}");
                assert!(most / least < 1.15, "{stay} s, load {load}: {least} to {most}");
                assert!(attaches <= 10, "{stay} s, load {load}: {attaches} changes");
            }
        }
    }

    #[test]
    fn few_connections_that_never_end_are_spread_by_what_they_cost() {
        // Whole connections, each given by the largest remainder; one costs 4 %, on the second shard 8 %.
        let mut plant = Plant::new(2);
        let mut owed = [0.0; 2];
        for step in 0..800 {
            if step % 40 == 0 && step < 600 {
                for (shard, owed) in owed.iter_mut().enumerate() {
                    *owed += plant.part(shard);
                }
                let next = if owed[0] >= owed[1] { 0 } else { 1 };
                owed[next] -= 1.0;
                plant.readings[next].connections += 1;
                plant.readings[next].accepts += 1;
            }
            for shard in 0..2 {
                let each = 0.04 * (shard + 1) as f64;
                plant.add_busy(shard, plant.readings[shard].connections as f64 * each);
            }
            plant.step(&[]);
        }
        let counts = [0, 1].map(|shard| plant.readings[shard].connections);
        assert!(counts == [10, 5] || counts == [9, 6], "{counts:?}");
    }

    #[test]
    fn a_shard_that_is_stuck_gets_nothing_within_a_tenth_of_a_second_and_then_its_part_again() {
        let mut plant = Plant::new(2);
        let run = |plant: &mut Plant, looks: usize, stuck: &[usize]| {
            for _ in 0..looks {
                // What a stuck shard is busy with is read when it comes on.
                (0..2).for_each(|shard| plant.add_busy(shard, 0.4));
                plant.step(stuck);
            }
        };
        run(&mut plant, 40, &[]);
        assert_eq!(plant.attached, [WEIGHT_MAX; 2]);
        // Once is no stall.
        run(&mut plant, 1, &[1]);
        run(&mut plant, 2, &[]);
        assert_eq!(plant.attached, [WEIGHT_MAX; 2]);
        run(&mut plant, 3, &[1]);
        assert_eq!(plant.attached, [WEIGHT_MAX, 0]);
        run(&mut plant, 77, &[1]);
        assert_eq!(plant.attached, [WEIGHT_MAX, 0]);
        run(&mut plant, 3, &[]);
        assert!(plant.attached[1] > 900, "{:?}", plant.attached);
    }

    #[test]
    fn a_shard_that_sleeps_is_not_stuck() {
        let mut plant = Plant::new(2);
        plant.readings[1].asleep = true;
        (0..20).for_each(|_| plant.step(&[1]));
        assert_eq!(plant.attached, [WEIGHT_MAX; 2]);
    }

    #[test]
    fn if_all_are_stuck_all_weigh_the_same() {
        let mut plant = Plant::new(3);
        (0..10).for_each(|_| plant.step(&[]));
        (0..10).for_each(|_| plant.step(&[0, 1]));
        assert_eq!(plant.attached, [0, 0, WEIGHT_MAX]);
        // What has just begun may be nothing.
        (0..5).for_each(|_| plant.step(&[0, 1, 2]));
        assert_eq!(plant.attached, [0, 0, WEIGHT_MAX]);
        (0..20).for_each(|_| plant.step(&[0, 1, 2]));
        assert_eq!(plant.attached, [WEIGHT_MAX; 3]);
    }

    #[test]
    fn one_that_takes_no_part_any_more_gets_nothing() {
        let mut weights = Weights::new(2);
        let now = Instant::now();
        let here = Some(Reading { asleep: true, ..Reading::default() });
        assert_eq!(weights.look(now, &[here, here]), None);
        assert_eq!(weights.look(now + LOOK, &[here, None]), Some(&[WEIGHT_MAX, 0][..]));
    }

    #[test]
    fn where_all_are_busy_all_of_the_time_connections_tell_who_is_behind() {
        let mut plant = Plant::new(2);
        (plant.readings[0].connections, plant.readings[1].connections) = (10, 500);
        for _ in 0..80 {
            (0..2).for_each(|shard| plant.add_busy(shard, 1.0));
            plant.step(&[]);
        }
        assert!(plant.attached[1] < 500, "{:?}", plant.attached);
    }

    proptest! {
        #[test]
        fn weights_are_bounded_and_never_all_nothing(
            looks in prop::collection::vec(
                (prop::collection::vec((any::<bool>(), any::<bool>(), any::<u32>(), any::<u16>(), any::<u16>()), 5), 0u64..5000),
                1..60,
            ),
        ) {
            let mut weights = Weights::new(5);
            let (mut now, mut readings) = (Instant::now(), [Reading::default(); 5]);
            for (shards, passed) in looks {
                now += Duration::from_millis(passed);
                for (reading, (progress, asleep, busy, connections, accepts)) in readings.iter_mut().zip(shards) {
                    reading.turns += u64::from(progress);
                    reading.asleep = asleep;
                    reading.busy += Duration::from_nanos(u64::from(busy));
                    reading.connections = u64::from(connections);
                    reading.accepts += u64::from(accepts);
                }
                let given = weights.look(now, &readings.map(Some)).map(<[u16]>::to_vec);
                for weights in given.iter().chain([&weights.weights()]) {
                    prop_assert!(weights.contains(&WEIGHT_MAX));
                    prop_assert!(weights.iter().all(|&weight| weight <= WEIGHT_MAX));
                    prop_assert!(weights.iter().all(|&weight| weight == 0 || weight >= 15));
                }
            }
        }

        #[test]
        fn even_load_keeps_about_even_weights(
            load in 0.0f64..1.0,
            noise in prop::collection::vec(prop::collection::vec(-0.1f64..0.1, 4), 200),
        ) {
            let mut plant = Plant::new(4);
            for noise in noise {
                for (shard, noise) in noise.into_iter().enumerate() {
                    plant.add_busy(shard, load * (1.0 + noise));
                    plant.readings[shard].connections = 50;
                    plant.readings[shard].accepts += 25;
                }
                plant.step(&[]);
            }
            prop_assert!(plant.attached.iter().all(|&weight| weight > 800), "{:?}", plant.attached);
        }
    }
}
