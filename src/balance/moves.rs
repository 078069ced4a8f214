//! Which shard should give connections to which: the policy of live balance.
//!
//! Plain data: what each shard did since the last look is passed in, and so is the time.
//!
//! A connection is worth moving if it always has a request waiting. How many such connections a shard has is not counted
//! but inferred from how its requests are spread over its connections: with rates r, the number (sum of r)^2 / sum of r^2
//! is that of equally busy connections that would ask as much (the participation ratio). What one of them waits for an
//! answer is, by Little's law, that number over the shard's rate. Two shards are even when the waits are, whatever they
//! have to do per request and however much of their CPU another process takes.
//!
//! A shard that always has something to do is the reason for the whole wait. Of one that is not, clients may be what is slow;
//! but for the part of the time in which it would run and another process has its CPU, it is the reason, too. And whoever asks
//! in that time waits until the scheduler gives the CPU back; so such a shard keeps few connections, enough to be busy with
//! while it runs.

use std::time::{Duration, Instant};

/// What one shard did between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Looked {
    /// The part of the time in which it was not waiting for something to do, from 0 to 1.
    pub(crate) busy: f64,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Connections that were busy, as above.
    pub(crate) hot: f64,
    /// The part of the time in which it had something to do and no CPU to do it on, from 0 to 1.
    pub(crate) robbed: f64,
}

/// What a shard is asked to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Give {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// At most so many connections, busy ones.
    pub(crate) count: usize,
}

/// A shard below this is not held up by what it has to do: its clients are what is slow.
const SATURATED: f64 = 0.85;
/// A shard that goes without a CPU for less of the time than this has it to itself, but for interrupts and what runs now and then.
/// More than that is another process that takes a share.
const ROBBED: f64 = 0.3;
/// How long, in seconds, a request waits that comes while another process has the CPU: a slice of the scheduler's.
const SLICE: f64 = 0.004;
/// Connections that keep a shard busy.
const ENOUGH: f64 = 2.0;
/// Waits that differ by less are even: requests are not dealt out that evenly.
const UNEVEN: f64 = 1.25;
/// Looks in a row that must agree before anything moves.
const AGREEING: u32 = 2;
/// The most that moves at one look, of the busy connections of a shard.
const PART: f64 = 0.75;
/// How much of a look goes into what is remembered. A shard that is robbed of its CPU for longer than a look tells of it in one
/// lump afterwards.
const FRESH: f64 = 0.35;
/// How long after a move the same two shards are left alone: the effect is to be seen before more is done.
const SETTLE: Duration = Duration::from_millis(300);

/// Remembers what it has seen; see the module.
#[derive(Debug)]
pub(crate) struct Moves {
    /// What the shards do, over some looks.
    shards: Vec<Looked>,
    agreed: u32,
    last: Option<(usize, usize)>,
    moved: Option<Instant>,
    /// Moves that may be made now, and when that was last added to.
    allowance: f64,
    filled: Option<Instant>,
    per_second: f64,
}

impl Moves {
    /// At most so many moves a second.
    pub(crate) fn new(per_second: u32) -> Moves {
        let per_second = f64::from(per_second);
        Moves {
            shards: Vec::new(),
            agreed: 0,
            last: None,
            moved: None,
            allowance: per_second,
            filled: None,
            per_second,
        }
    }

    /// What is to be done after a look.
    pub(crate) fn look(&mut self, shards: &[Looked], now: Instant) -> Option<Give> {
        self.fill(now);
        self.remember(shards);
        if self.moved.is_some_and(|moved| now.duration_since(moved) < SETTLE) {
            return None;
        }
        let give = uneven(&self.shards);
        let pair = give.map(|give| (give.from, give.to));
        self.agreed = if pair.is_some() && pair == self.last { self.agreed + 1 } else { 1 };
        self.last = pair;
        let give = give.filter(|_| self.agreed >= AGREEING)?;
        let count = give.count.min(self.allowance as usize);
        if count == 0 {
            return None;
        }
        self.allowance -= count as f64;
        self.moved = Some(now);
        self.agreed = 0;
        self.expect(give.from, give.to, count as f64);
        Some(Give { count, ..give })
    }

    fn remember(&mut self, shards: &[Looked]) {
        if self.shards.len() != shards.len() {
            self.shards = shards.to_vec();
            return;
        }
        for (known, new) in self.shards.iter_mut().zip(shards) {
            let blend = |known: &mut f64, new: f64| *known += FRESH * (new - *known);
            blend(&mut known.busy, new.busy);
            blend(&mut known.rate, new.rate);
            blend(&mut known.hot, new.hot);
            blend(&mut known.robbed, new.robbed);
        }
    }

    /// What is remembered is of before the move.
    fn expect(&mut self, from: usize, to: usize, count: f64) {
        self.shards[from].hot -= count.min(self.shards[from].hot);
        self.shards[to].hot += count;
    }

    fn fill(&mut self, now: Instant) {
        let since = self.filled.map_or(Duration::ZERO, |filled| now.duration_since(filled));
        self.allowance =
            (self.allowance + since.as_secs_f64() * self.per_second).min(self.per_second);
        self.filled = Some(now);
    }
}

/// What a busy connection waits for an answer because of the shard, in seconds.
fn wait(look: &Looked) -> f64 {
    let robbed = if look.robbed < ROBBED { 0.0 } else { look.robbed };
    let part = if look.busy < SATURATED { robbed } else { 1.0 };
    part * look.hot / look.rate.max(1.0) + robbed * SLICE
}

/// From the shard with the longest wait to that with the shortest, as many as make them even.
fn uneven(shards: &[Looked]) -> Option<Give> {
    let by_wait = |a: &usize, b: &usize| {
        let key = |index: usize| (wait(&shards[index]), shards[index].busy);
        key(*a).partial_cmp(&key(*b)).unwrap_or(std::cmp::Ordering::Equal)
    };
    let from = (0..shards.len()).max_by(by_wait)?;
    let to = (0..shards.len()).min_by(by_wait)?;
    let (giver, taker) = (&shards[from], &shards[to]);
    if giver.hot < 1.5 || wait(giver) <= UNEVEN * wait(taker) {
        return None;
    }
    // Seconds a request, if it had nothing else to do; of one that has hardly any to do nothing is known.
    let cost = |look: &Looked| {
        if look.busy < 0.05 { giver.busy / giver.rate } else { look.busy / look.rate }
    };
    // One that is not saturated has the wait of as many connections as would keep it as busy as it is.
    let taker_waits =
        if taker.busy < SATURATED { taker.busy * taker.hot * cost(taker) } else { wait(taker) };
    let even = (wait(giver) - taker_waits) / (cost(giver) + cost(taker));
    let spare = if giver.robbed < ROBBED { giver.hot } else { giver.hot - ENOUGH };
    let count = even.min(giver.hot * PART).min(spare).round();
    (count >= 1.0).then_some(Give { from, to, count: count as usize })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Shards with closed-loop clients: each of `hot` connections has always one request waiting. `speed` is how many
    /// requests a second a shard can answer, and `think` how long a client waits before it asks again.
    struct Machine {
        hot: Vec<usize>,
        speed: Vec<f64>,
        think: f64,
    }

    impl Machine {
        fn look(&self) -> Vec<Looked> {
            let shard = |(hot, speed): (&usize, &f64)| {
                let hot = *hot as f64;
                // What they would ask if answers took no time but the work's own.
                let wanted = hot / (self.think + 1.0 / speed);
                let rate = wanted.min(*speed);
                Looked { busy: rate / speed, rate, hot, robbed: 0.0 }
            };
            self.hot.iter().zip(&self.speed).map(shard).collect()
        }

        /// Runs the policy for so many looks; returns how many connections moved in each.
        fn run(&mut self, looks: usize) -> Vec<usize> {
            let (mut moves, mut now) = (Moves::new(1000), Instant::now());
            let mut moved = Vec::new();
            for _ in 0..looks {
                let give = moves.look(&self.look(), now);
                if let Some(Give { from, to, count }) = give {
                    let count = count.min(self.hot[from]);
                    self.hot[from] -= count;
                    self.hot[to] += count;
                    moved.push(count);
                } else {
                    moved.push(0);
                }
                now += Duration::from_millis(100);
            }
            moved
        }

        fn rate(&self) -> f64 {
            self.look().iter().map(|look| look.rate).sum()
        }
    }

    #[test]
    fn few_connections_are_spread() {
        let mut machine = Machine { hot: vec![4, 0], speed: vec![50_000.0; 2], think: 10e-6 };
        machine.run(30);
        assert_eq!(machine.hot, [2, 2]);
        let mut machine = Machine { hot: vec![3, 1], speed: vec![50_000.0; 2], think: 10e-6 };
        machine.run(30);
        assert_eq!(machine.hot, [2, 2]);
    }

    #[test]
    fn what_is_even_is_left_alone() {
        let mut machine = Machine { hot: vec![130, 126], speed: vec![50_000.0; 2], think: 0.0 };
        assert_eq!(machine.run(50).iter().sum::<usize>(), 0);
        let mut machine = Machine { hot: vec![1, 1], speed: vec![50_000.0; 2], think: 0.0 };
        assert_eq!(machine.run(50).iter().sum::<usize>(), 0);
    }

    #[test]
    fn a_shard_that_has_half_its_cpu_gets_half_the_connections() {
        let mut machine =
            Machine { hot: vec![64, 64], speed: vec![25_000.0, 50_000.0], think: 0.0 };
        let moved = machine.run(50);
        let share = machine.hot[0] as f64 / 128.0;
        assert!((0.28..0.40).contains(&share), "{:?}", machine.hot);
        assert!(moved.iter().filter(|moved| **moved > 0).count() <= 6, "{moved:?}");
    }

    #[test]
    fn a_shard_whose_cpu_another_process_takes_keeps_few() {
        let look = |hot: f64| {
            let robbed = Looked { busy: 1.0, rate: 25_000.0, hot, robbed: 0.5 };
            let other = Looked { busy: 1.0, rate: 50_000.0, hot: 64.0 - hot, robbed: 0.0 };
            uneven(&[robbed, other]).map_or(0, |give| if give.from == 0 { give.count } else { 100 })
        };
        let mut hot = 32;
        for _ in 0..10 {
            hot -= look(hot as f64);
        }
        assert_eq!((hot, look(2.0)), (2, 0));
    }

    #[test]
    fn slow_clients_move_nothing() {
        let mut machine = Machine { hot: vec![20, 2], speed: vec![50_000.0; 2], think: 1e-3 };
        assert_eq!(machine.run(50).iter().sum::<usize>(), 0);
    }

    #[test]
    fn moves_are_capped() {
        let mut moves = Moves::new(10);
        let shards = [Looked { busy: 1.0, rate: 1e4, hot: 1e3, robbed: 0.0 }, Looked::default()];
        let start = Instant::now();
        let count: usize = (0..100u32)
            .filter_map(|look| moves.look(&shards, start + look * Duration::from_millis(100)))
            .map(|give| give.count)
            .sum();
        assert!((50..=110).contains(&count), "{count} in ten seconds");
    }

    proptest! {
        #[test]
        fn it_settles_and_never_makes_things_worse(
            hot in prop::collection::vec(0..200usize, 2..6),
            speeds in prop::collection::vec(10_000.0..60_000.0f64, 6),
        ) {
            let speed = speeds[..hot.len()].to_vec();
            let total: usize = hot.iter().sum();
            let mut machine = Machine { hot, speed, think: 5e-6 };
            let before = machine.rate();
            let moved = machine.run(400);
            prop_assert_eq!(machine.hot.iter().sum::<usize>(), total);
            prop_assert!(machine.rate() >= before * 0.98);
            // The last quarter is quiet.
            prop_assert!(moved[300..].iter().filter(|moved| **moved > 0).count() <= 2, "{:?}", moved);
        }
    }
}
