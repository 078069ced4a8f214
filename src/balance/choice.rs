//! Which shard is to have a connection that one of them has just accepted: the deciders of the policies that choose then.
//!
//! Plain functions of plain data. Loads come as a function of a shard's place in the list, and only those that are
//! needed are asked for: each may be a cache line of another core. A shard without a load takes no connections now. Nothing
//! here counts, sends or waits.

/// Where a connection is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Choice {
    /// Place in the list. That of the shard which accepts: it keeps the connection.
    pub(crate) shard: usize,
    /// The load by which it was chosen.
    pub(crate) load: u64,
}

/// Loads up to which a difference of one counts as clear; each as many again asks for one more.
const CLEAR_PER_LOAD: u64 = 32;

/// How much lower than `own` a load must be for a hand-over. A connection fewer is enough where there are few; where there
/// are many, evening out the last three in a hundred would send every third connection across.
fn margin(own: u64) -> u64 {
    1 + own / CLEAR_PER_LOAD
}

/// Compares `own`, the shard that accepts, with two others that are drawn by lot, and chooses the lower of the two if it is
/// lower by a margin. None: `own` takes no connections.
pub(crate) fn p2c(
    own: usize,
    shards: usize,
    load: impl Fn(usize) -> Option<u64>,
    lots: &mut Lots,
) -> Option<Choice> {
    let mine = Choice { shard: own, load: load(own)? };
    let others = lots.two_below(shards - 1).into_iter().flatten();
    // The list without `own`.
    let others = others.map(|place| place + usize::from(place >= own));
    let other = others.filter_map(|shard| Some(Choice { shard, load: load(shard)? }));
    let lower = other.min_by_key(|other| other.load);
    Some(lower.filter(|lower| lower.load + margin(mine.load) <= mine.load).unwrap_or(mine))
}

/// The shard with the lowest load; `own` if there is none lower. None: `own` takes no connections.
pub(crate) fn least(
    own: usize,
    shards: usize,
    load: impl Fn(usize) -> Option<u64>,
) -> Option<Choice> {
    let mut least = Choice { shard: own, load: load(own)? };
    // Each begins with its neighbour, so that not all of them send to the same one.
    for shard in (1..shards).map(|ahead| (own + ahead) % shards) {
        if let Some(load) = load(shard).filter(|&load| load < least.load) {
            least = Choice { shard, load };
        }
    }
    Some(least)
}

/// The shard whose turn it is, or the next that takes connections. None: there is none.
pub(crate) fn in_turn(
    turn: usize,
    shards: usize,
    load: impl Fn(usize) -> Option<u64>,
) -> Option<Choice> {
    (0..shards)
        .map(|ahead| turn.wrapping_add(ahead) % shards)
        .find_map(|shard| Some(Choice { shard, load: load(shard)? }))
}

/// Numbers to draw lots by. Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Lots(u64);

impl Lots {
    /// Other numbers for each seed.
    pub(crate) fn new(seed: u64) -> Lots {
        // Neighbouring seeds begin far apart; zero would stay zero.
        Lots(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64*, of which the upper half is the better one.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((number * limit as u64) >> 32) as usize
    }

    /// Two different numbers below `limit`, or as many as there are.
    fn two_below(&mut self, limit: usize) -> [Option<usize>; 2] {
        match limit {
            0 => [None, None],
            1 => [Some(0), None],
            _ => {
                let first = self.below(limit);
                let second = self.below(limit - 1);
                [Some(first), Some(second + usize::from(second >= first))]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;

    /// Loads of some shards, of which some take no connections, and one of the places.
    fn fleets() -> impl Strategy<Value = (Vec<Option<u64>>, usize)> {
        let load = prop_oneof![4 => (0..200_u64).prop_map(Some), 1 => Just(None)];
        prop::collection::vec(load, 1..12)
            .prop_flat_map(|loads| (0..loads.len()).prop_map(move |own| (loads.clone(), own)))
    }

    proptest! {
        #[test]
        fn who_is_chosen_takes_connections_and_the_load_is_its(
            (loads, own) in fleets(), seed: u64, turn: usize,
        ) {
            let load = |shard: usize| loads[shard];
            let chosen = [
                p2c(own, loads.len(), load, &mut Lots::new(seed)),
                least(own, loads.len(), load),
                in_turn(turn, loads.len(), load),
            ];
            for choice in chosen.into_iter().flatten() {
                prop_assert_eq!(loads[choice.shard], Some(choice.load));
            }
            prop_assert_eq!(chosen[0].is_some(), loads[own].is_some());
            prop_assert_eq!(chosen[1].is_some(), loads[own].is_some());
            prop_assert_eq!(chosen[2].is_some(), loads.iter().any(Option::is_some));
        }

        #[test]
        fn least_is_the_lowest_and_keeps_what_is_equal((loads, own) in fleets()) {
            if let Some(choice) = least(own, loads.len(), |shard| loads[shard]) {
                prop_assert_eq!(loads.iter().flatten().min(), Some(&choice.load));
                prop_assert_eq!(choice.shard == own, loads[own] == Some(choice.load));
            }
        }

        #[test]
        fn p2c_looks_at_two_others_and_takes_the_lower_only_if_it_is_clearly_lower(
            (loads, own) in fleets(), seed: u64,
        ) {
            let asked = RefCell::new(Vec::new());
            let load = |shard: usize| { asked.borrow_mut().push(shard); loads[shard] };
            let choice = p2c(own, loads.len(), load, &mut Lots::new(seed));
            let mut asked = asked.into_inner();
            prop_assert_eq!(asked.remove(0), own);
            if let Some(choice) = choice {
                let mine = loads[own].expect("it was chosen by");
                prop_assert_eq!(asked.len(), (loads.len() - 1).min(2));
                prop_assert!(!asked.contains(&own));
                prop_assert!(asked.len() < 2 || asked[0] != asked[1]);
                let lower = asked.iter().filter_map(|&shard| loads[shard]).min();
                let clearly = lower.is_some_and(|lower| lower + 1 + mine / 32 <= mine);
                prop_assert_eq!(choice.shard != own, clearly);
                prop_assert_eq!(Some(choice.load), if clearly { lower } else { Some(mine) });
            }
        }

        #[test]
        fn turns_go_round(shards in 1..12_usize, rounds in 1..5_usize, first in 0..1000_usize) {
            let mut counts = vec![0; shards];
            for turn in first..first + shards * rounds {
                counts[in_turn(turn, shards, |_| Some(0)).expect("all take connections").shard] += 1;
            }
            prop_assert_eq!(counts, vec![rounds; shards]);
        }

        #[test]
        fn lots_are_below_their_limit_and_differ(seed: u64, limit in 2..100_usize) {
            let mut lots = Lots::new(seed);
            for _ in 0..50 {
                let [first, second] = lots.two_below(limit).map(|lot| lot.expect("two of two"));
                prop_assert!(first < limit && second < limit && first != second);
            }
        }
    }

    /// Shares of the busiest shard, as a multiple of the mean, when `connections` are accepted by shards drawn by lot.
    fn busiest(connections: u64, shards: usize, trials: u64) -> f64 {
        let mut sum = 0.0;
        for trial in 0..trials {
            let (mut kernel, mut lots) = (Lots::new(trial), Lots::new(!trial));
            let mut loads = vec![0_u64; shards];
            for _ in 0..connections {
                let own = kernel.below(shards);
                let choice = p2c(own, shards, |shard| Some(loads[shard]), &mut lots);
                loads[choice.expect("all take connections").shard] += 1;
            }
            let most = *loads.iter().max().expect("a shard");
            sum += most as f64 * shards as f64 / connections as f64;
        }
        sum / trials as f64
    }

    #[test]
    fn p2c_is_even_to_a_few_in_a_hundred() {
        // By chance alone it would be 1.5, 1.3 and 2.0.
        assert!(busiest(16, 4, 1000) < 1.10);
        assert!(busiest(64, 4, 1000) < 1.04);
        assert!(busiest(64, 16, 1000) < 1.30);
    }
}
