//! The timer wheel: values kept by the tick at which they are due, as plain data.
//!
//! Owns its entries and nothing else. One thread at a time touches it, through `&mut self`: a shard's own loop, or
//! whichever worker drives a shared wheel. Insert, remove and reset take constant time. An entry moves at most once
//! per level before it fires: once for most timeouts, not at all for the shortest.
//!
//! A tick is a `u64` counted from an origin that belongs to the owner (in Corelane a tick is a millisecond). Each of
//! the eight levels reads one byte of it, so the levels span every `u64`: there is no horizon, and `u64::MAX` is a
//! tick like any other. An entry lies at the level of the highest byte in which its tick differs from `now`, in the
//! slot which that byte names. A *place* is level and slot in one number.
//!
//! The entries are one slab. A place lists the numbers of its entries in a stack of cache-line chunks, not by links
//! from entry to entry: at a million timers every step along such links waits for memory (about 150 ns on the
//! machine it was measured on), whereas the entries named by one chunk are fetched side by side (about 15 ns each).
//!
//! Invariants:
//! - An entry's place starts at or before its tick, and places start in the order of their numbers. So the first
//!   occupied place is the next to be looked at, and nothing outside it is due before it ends.
//! - Nothing but `expire` moves `now`, and never back.
//! - `draining` is the one place that has started and was not finished for want of budget. Nothing is put into it
//!   meanwhile, except what is due already into one of level 0.
//! - The bit of a place is set exactly while it holds an entry. Every chunk but the top one of a place holds one.
//!
//! It never reads a clock, never wakes or drops a value (fired ones go to the caller), never walks empty ticks, and
//! never panics for any tick or key.

/// Bits of the tick that one level reads.
const BITS: u32 = 8;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = (u64::BITS / BITS) as usize;
const PLACES: usize = LEVELS * SLOTS;

/// Numbers of entries in one chunk: with the rest of the chunk they fill one cache line.
const CELLS: usize = 13;

/// No entry, no chunk, no cell.
const NIL: u32 = u32::MAX;

/// Entries that one call of `expire` moves to a lower level at most, which takes less than a millisecond.
const MOVES_PER_EXPIRE: usize = if cfg!(test) { 5 } else { 16_384 };

/// Names an entry of a wheel. It goes stale when the entry fires or is removed, and the wheel knows it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

/// Hierarchical timing wheel. The head of this file describes it.
pub(crate) struct Wheel<T> {
    /// The tick that places are seen from.
    now: u64,
    /// The latest `now` of any `expire`; ahead of the other one only after a call that stopped early.
    asked: u64,
    entries: Vec<Entry<T>>,
    /// A stack of numbers, and not links through the entries: the next one to use is known without waiting for memory.
    vacant: Vec<u32>,
    chunks: Vec<Chunk>,
    /// First of the vacant chunks, which are linked by `below`.
    vacant_chunk: u32,
    /// For each place the cell that is filled next, `NIL` for a place without chunks.
    tops: Box<[u32]>,
    occupied: Occupied,
    draining: Option<usize>,
}

/// Half a cache line with a `Waker`, and never across two.
#[repr(align(32))]
struct Entry<T> {
    /// `None` in a vacant entry.
    value: Option<T>,
    tick: u64,
    /// The cell that holds this entry's number: chunk and position, see `cell`.
    cell: u32,
    /// That of the key which names this entry or, while it is vacant, of the next such key.
    generation: u32,
}

impl<T> Entry<T> {
    fn vacate(&mut self) -> Option<T> {
        // 0 is left out, so that the bits of a key are never 0.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.value.take()
    }
}

/// A piece of one place's stack.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Chunk {
    /// Numbers of entries, `NIL` where one was removed.
    cells: [u32; CELLS],
    below: u32,
    above: u32,
    place: u16,
    /// How many cells hold an entry.
    live: u16,
}

/// A cell as one number. `position` may be `CELLS`, which says that the chunk is full.
const fn cell(chunk: u32, position: usize) -> u32 {
    chunk << 4 | position as u32
}

const fn chunk_of(cell: u32) -> u32 {
    cell >> 4
}

const fn position_of(cell: u32) -> usize {
    (cell & 15) as usize
}

impl<T> Wheel<T> {
    /// An empty wheel that stands at tick `now`.
    pub(crate) fn new(now: u64) -> Self {
        Wheel {
            now,
            asked: now,
            entries: Vec::new(),
            vacant: Vec::new(),
            chunks: Vec::new(),
            vacant_chunk: NIL,
            tops: vec![NIL; PLACES].into_boxed_slice(),
            occupied: Occupied::new(),
            draining: None,
        }
    }

    /// How many values wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    /// Whether no value waits.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps `value` until `tick`. A tick at or before `now` is due at the next `expire`.
    pub(crate) fn insert(&mut self, tick: u64, value: T) -> Key {
        let place = self.place(tick);
        let Some(index) = self.vacant.pop() else {
            let index = self.entries.len() as u32;
            let cell = self.put(place, index);
            self.entries.push(Entry { value: Some(value), tick, cell, generation: 1 });
            return Key { index, generation: 1 };
        };
        let cell = self.put(place, index);
        let entry = &mut self.entries[index as usize];
        // What is forgotten is `None`, which the compiler cannot know: this leaves the test and the drop out.
        std::mem::forget(entry.value.replace(value));
        entry.tick = tick;
        entry.cell = cell;
        Key { index, generation: entry.generation }
    }

    /// Takes a value back; `None` if it has fired or was removed.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.live(key)?;
        let cell = entry.cell;
        let value = entry.vacate();
        self.vacant.push(key.index);
        self.take_out(cell);
        value
    }

    /// The value, to be changed where it is; `None` if it has fired or was removed.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.live(key)?.value.as_mut()
    }

    /// Changes the tick of an entry; false if it has fired or was removed.
    ///
    /// Putting it off only writes the new tick: the entry moves when its old place comes due. So a timeout that is
    /// put off with every request costs one write each time, and one look in each of its periods.
    pub(crate) fn reset(&mut self, key: Key, tick: u64) -> bool {
        let Some(entry) = self.live(key) else { return false };
        let sooner = tick < entry.tick;
        entry.tick = tick;
        if sooner {
            self.bring_forward(key.index, tick);
        }
        true
    }

    /// A tick at which to call `expire` next, `None` if nothing waits.
    ///
    /// It is never later than the first due tick (past ones count as `now`). It is that tick exactly if that lies in
    /// the same 256 ticks as `now` and its entry was not put off; farther away it may be as early as the slot's start.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        match self.draining {
            Some(place) if self.occupied.contains(place) => Some(self.now),
            _ => self.occupied.first().map(|place| self.span(place).0),
        }
    }

    /// Moves on to tick `now` and appends at most `limit` of the values due by then to `fired`.
    ///
    /// True if it stopped early, at `limit` with more values due or at its own bound on moves: call it again soon.
    /// A `now` before that of an earlier call counts as that one. The values come in no promised order; no promise is
    /// made either about which of them wait when more are due than `limit`.
    pub(crate) fn expire(&mut self, now: u64, limit: usize, fired: &mut Vec<T>) -> bool {
        let now = now.max(self.asked);
        self.asked = now;
        let mut budget = Budget { fires: limit, moves: MOVES_PER_EXPIRE };
        while let Some(place) = self.draining.or_else(|| self.occupied.first()) {
            if self.draining.is_none() {
                let (start, end) = self.span(place);
                if start > now {
                    break;
                }
                // All other places start after `end`, so nothing is skipped.
                self.now = end.min(now);
                self.draining = Some(place);
            }
            if !self.drain(place, now, &mut budget, fired) {
                return true;
            }
            self.draining = None;
        }
        self.now = now;
        false
    }

    /// Empties a place: what is due by `now` fires, the rest moves on. False if the budget ended before.
    fn drain(&mut self, place: usize, now: u64, budget: &mut Budget, fired: &mut Vec<T>) -> bool {
        let mut top = self.tops[place];
        let Some(mut chunk) = self.chunks.get(chunk_of(top) as usize).copied() else { return true };
        loop {
            // Both reads go out before any of their results is needed, so the waits for memory overlap.
            let ticks = chunk
                .cells
                .map(|index| self.entries.get(index as usize).map_or(0, |entry| entry.tick));
            let below = self.chunks.get(chunk.below as usize).copied();
            for position in (0..position_of(top)).rev() {
                let (index, tick) = (chunk.cells[position], ticks[position]);
                if index == NIL {
                    continue;
                }
                if !budget.spend(tick <= now) {
                    chunk.above = NIL;
                    self.tops[place] = cell(chunk_of(top), position + 1);
                    self.chunks[chunk_of(top) as usize] = chunk;
                    return false;
                }
                chunk.live -= 1;
                if tick <= now {
                    fired.extend(self.release(index));
                } else {
                    self.entries[index as usize].cell = self.put(self.place(tick), index);
                }
            }
            self.release_chunk(chunk_of(top));
            let Some(below) = below else { break };
            top = cell(chunk.below, CELLS);
            chunk = below;
        }
        self.tops[place] = NIL;
        self.occupied.clear(place);
        true
    }

    /// Moves an entry whose tick has become an earlier one, unless its place is looked at in time anyway.
    fn bring_forward(&mut self, index: u32, tick: u64) {
        let old = self.entries[index as usize].cell;
        let old_place = usize::from(self.chunks[chunk_of(old) as usize].place);
        let place = self.place(tick);
        if place < old_place {
            self.take_out(old);
            self.entries[index as usize].cell = self.put(place, index);
        }
    }

    /// The place for a tick, seen from `now`.
    fn place(&self, tick: u64) -> usize {
        let tick = tick.max(self.now);
        let level = ((tick ^ self.now) | 1).ilog2() / BITS;
        let slot = (tick >> (level * BITS)) as usize % SLOTS;
        level as usize * SLOTS + slot
    }

    /// First and last tick of a place, seen from `now`.
    fn span(&self, place: usize) -> (u64, u64) {
        let shift = (place / SLOTS) as u32 * BITS;
        let slot_mask = SLOTS as u64 - 1;
        let start = ((self.now >> shift) & !slot_mask | (place as u64 & slot_mask)) << shift;
        (start, start | ((1 << shift) - 1))
    }

    fn live(&mut self, key: Key) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(key.index as usize)?;
        (entry.generation == key.generation && entry.value.is_some()).then_some(entry)
    }

    /// Vacates an entry that is in no place, and gives its value out.
    fn release(&mut self, index: u32) -> Option<T> {
        self.vacant.push(index);
        self.entries[index as usize].vacate()
    }

    /// Lists an entry in a place. The caller writes the cell into the entry.
    #[inline]
    fn put(&mut self, place: usize, index: u32) -> u32 {
        let mut cell = self.tops[place];
        if position_of(cell) >= CELLS {
            cell = self.add_chunk(place, cell);
        }
        if position_of(cell) == 0 {
            self.occupied.set(place);
        }
        self.tops[place] = cell + 1;
        let chunk = &mut self.chunks[chunk_of(cell) as usize];
        chunk.cells[position_of(cell)] = index;
        chunk.live += 1;
        cell
    }

    /// Takes an entry off the list of its place.
    #[inline]
    fn take_out(&mut self, cell: u32) {
        let chunk = &mut self.chunks[chunk_of(cell) as usize];
        chunk.cells[position_of(cell)] = NIL;
        chunk.live -= 1;
        if chunk.live == 0 {
            self.empty_chunk(chunk_of(cell));
        }
    }

    /// Puts a chunk on top of the full one (or of nothing), and returns its first cell.
    fn add_chunk(&mut self, place: usize, top: u32) -> u32 {
        let below = if top == NIL { NIL } else { chunk_of(top) };
        let chunk = Chunk { cells: [NIL; CELLS], below, above: NIL, place: place as u16, live: 0 };
        let number = self.vacant_chunk;
        let number = if let Some(vacant) = self.chunks.get_mut(number as usize) {
            self.vacant_chunk = vacant.below;
            *vacant = chunk;
            number
        } else {
            assert!(self.chunks.len() < chunk_of(NIL) as usize, "too many timers");
            self.chunks.push(chunk);
            self.chunks.len() as u32 - 1
        };
        if let Some(below) = self.chunks.get_mut(below as usize) {
            below.above = number;
        }
        cell(number, 0)
    }

    /// Deals with a chunk whose last entry was removed: the top one of a place is kept and filled anew.
    fn empty_chunk(&mut self, number: u32) {
        let Chunk { below, above, place, .. } = self.chunks[number as usize];
        let place = usize::from(place);
        if above == NIL {
            self.tops[place] = cell(number, 0);
            if below == NIL {
                self.occupied.clear(place);
            }
            return;
        }
        self.chunks[above as usize].below = below;
        if below != NIL {
            self.chunks[below as usize].above = above;
        } else if self.chunks[above as usize].live == 0 {
            self.occupied.clear(place);
        }
        self.release_chunk(number);
    }

    fn release_chunk(&mut self, number: u32) {
        self.chunks[number as usize].below = self.vacant_chunk;
        self.vacant_chunk = number;
    }
}

/// What one call of `expire` may still do.
struct Budget {
    fires: usize,
    moves: usize,
}

impl Budget {
    fn spend(&mut self, fire: bool) -> bool {
        let left = if fire { &mut self.fires } else { &mut self.moves };
        let enough = *left > 0;
        *left -= usize::from(enough);
        enough
    }
}

/// Which places hold an entry: one bit each, and one bit for every word of them that is not 0.
struct Occupied {
    summary: u32,
    words: [u64; PLACES / 64],
}

impl Occupied {
    fn new() -> Self {
        Occupied { summary: 0, words: [0; PLACES / 64] }
    }

    fn set(&mut self, place: usize) {
        self.words[place / 64] |= 1 << (place % 64);
        self.summary |= 1 << (place / 64);
    }

    fn clear(&mut self, place: usize) {
        let word = &mut self.words[place / 64];
        *word &= !(1 << (place % 64));
        if *word == 0 {
            self.summary &= !(1 << (place / 64));
        }
    }

    fn contains(&self, place: usize) -> bool {
        self.words[place / 64] >> (place % 64) & 1 == 1
    }

    fn first(&self) -> Option<usize> {
        let word = self.summary.trailing_zeros() as usize;
        let bits = self.words.get(word)?;
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl<T> Wheel<T> {
        /// Checks the invariants that the head of the file claims.
        fn check(&self) {
            let mut listed = 0;
            for place in 0..PLACES {
                let mut live_in_place = 0;
                let (mut above, mut top) = (NIL, self.tops[place]);
                while top != NIL {
                    let number = chunk_of(top);
                    let chunk = &self.chunks[number as usize];
                    let filled = &chunk.cells[..position_of(top)];
                    let live = filled.iter().filter(|&&index| index != NIL).count();
                    assert_eq!(
                        (usize::from(chunk.place), usize::from(chunk.live), chunk.above),
                        (place, live, above)
                    );
                    assert!(live > 0 || above == NIL, "an empty chunk below the top");
                    for (position, &index) in
                        filled.iter().enumerate().filter(|cell| *cell.1 != NIL)
                    {
                        let entry = &self.entries[index as usize];
                        assert!(entry.value.is_some());
                        assert_eq!(entry.cell, cell(number, position));
                        if self.draining != Some(place) {
                            let start = self.span(place).0;
                            assert!(
                                start >= self.now && (start <= entry.tick || start == self.now)
                            );
                        }
                    }
                    live_in_place += live;
                    above = number;
                    top = if chunk.below == NIL { NIL } else { cell(chunk.below, CELLS) };
                }
                assert_eq!(self.occupied.contains(place), live_in_place > 0);
                listed += live_in_place;
            }
            assert_eq!(listed, self.len());
            for (number, word) in self.occupied.words.iter().enumerate() {
                assert_eq!(self.occupied.summary >> number & 1 == 1, *word != 0);
            }
            let mut vacant_chunks = 0;
            let mut next = self.vacant_chunk;
            while next != NIL {
                vacant_chunks += 1;
                next = self.chunks[next as usize].below;
            }
            assert!(self.chunks.len() - vacant_chunks <= self.len() + PLACES, "chunks leak");
        }

        fn expire_all(&mut self, now: u64) -> Vec<T> {
            let mut fired = Vec::new();
            while self.expire(now, usize::MAX, &mut fired) {}
            fired
        }
    }

    #[test]
    fn a_waker_fits_half_a_cache_line() {
        assert_eq!(size_of::<Entry<std::task::Waker>>(), 32);
        assert_eq!(size_of::<Chunk>(), 64);
    }

    #[test]
    fn fires_at_its_tick_and_once() {
        for tick in
            [1, 2, 255, 256, 257, 65_535, 65_536, 1 << 36, (1 << 36) + 1, u64::MAX - 1, u64::MAX]
        {
            let mut wheel = Wheel::new(0);
            let key = wheel.insert(tick, tick);
            assert!(wheel.expire_all(tick - 1).is_empty());
            assert_eq!(wheel.len(), 1);
            assert_eq!(wheel.expire_all(tick), [tick]);
            assert!(wheel.expire_all(u64::MAX).is_empty());
            assert_eq!(wheel.remove(key), None);
            assert!(wheel.is_empty());
            wheel.check();
        }
    }

    #[test]
    fn past_ticks_are_due_at_the_next_expire() {
        let mut wheel = Wheel::new(1000);
        wheel.insert(0, 'a');
        wheel.insert(999, 'b');
        wheel.insert(1000, 'c');
        assert_eq!(wheel.next_tick(), Some(1000));
        let mut fired = wheel.expire_all(1000);
        fired.sort_unstable();
        assert_eq!(fired, ['a', 'b', 'c']);
        assert_eq!(wheel.next_tick(), None);
    }

    #[test]
    fn a_now_that_goes_back_is_ignored() {
        let mut wheel = Wheel::new(0);
        assert!(wheel.expire_all(500).is_empty());
        wheel.insert(400, 'a');
        wheel.insert(501, 'b');
        assert_eq!(wheel.expire_all(3), ['a']);
        assert_eq!(wheel.next_tick(), Some(501));
        assert_eq!(wheel.expire_all(501), ['b']);
    }

    #[test]
    fn stale_and_foreign_keys_are_refused() {
        let mut wheel = Wheel::new(0);
        let old = wheel.insert(10, 'a');
        assert_eq!(wheel.remove(old), Some('a'));
        let new = wheel.insert(10, 'b');
        assert_eq!((new.index, new.generation), (old.index, old.generation + 1));
        let nowhere = Key { index: u32::MAX, generation: u32::MAX };
        let foreign = [old, Key { index: 7, ..new }, nowhere];
        for key in foreign {
            assert_eq!(wheel.remove(key), None);
            assert_eq!(wheel.get_mut(key), None);
            assert!(!wheel.reset(key, 5));
        }
        *wheel.get_mut(new).unwrap() = 'c';
        assert_eq!(wheel.remove(new), Some('c'));
        // The key that the vacant entry would give out next names nothing yet.
        assert_eq!(wheel.remove(Key { generation: new.generation + 1, ..new }), None);
        wheel.check();
    }

    #[test]
    fn generations_wrap_past_zero() {
        let mut wheel = Wheel::new(0);
        let key = wheel.insert(1, ());
        wheel.entries[0].generation = u32::MAX;
        assert!(wheel.remove(Key { generation: u32::MAX, ..key }).is_some());
        assert_eq!(wheel.insert(1, ()).generation, 1);
    }

    #[test]
    fn putting_off_is_lazy_and_bringing_forward_is_not() {
        let mut wheel = Wheel::new(0);
        let key = wheel.insert(300, 'a');
        assert!(wheel.reset(key, 1_000_000));
        assert_eq!(wheel.next_tick(), Some(256), "the old place is still looked at");
        assert!(wheel.expire_all(999_999).is_empty());
        assert!(wheel.reset(key, 1_000_010));
        assert!(wheel.reset(key, 1_000_005));
        assert!(wheel.expire_all(1_000_004).is_empty());
        assert_eq!(wheel.expire_all(1_000_005), ['a']);

        let key = wheel.insert(u64::MAX, 'b');
        assert!(wheel.reset(key, 1_000_006));
        assert_eq!(wheel.next_tick(), Some(1_000_006));
        assert_eq!(wheel.expire_all(1_000_006), ['b']);
        assert!(!wheel.reset(key, 1_000_007));
    }

    #[test]
    fn a_timeout_reset_with_every_request_never_fires() {
        let mut wheel = Wheel::new(0);
        let key = wheel.insert(30_000, 'a');
        let mut looks = 0;
        for now in 1..1_000_000 {
            looks += u32::from(wheel.next_tick() == Some(now));
            assert!(wheel.expire_all(now).is_empty());
            assert!(wheel.reset(key, now + 30_000));
        }
        assert!(looks <= 2 * 1_000_000 / 29_000, "{looks} looks");
        assert_eq!(wheel.expire_all(1_029_999), ['a']);
    }

    #[test]
    fn limit_is_kept_and_what_is_left_can_still_be_cancelled_or_put_off() {
        let mut wheel = Wheel::new(0);
        let keys: Vec<_> = (0..50u32).map(|n| wheel.insert(70_000 + u64::from(n % 3), n)).collect();
        let mut fired = Vec::new();
        assert!(wheel.expire(80_000, 0, &mut fired));
        assert!(fired.is_empty());
        assert!(wheel.expire(80_000, 20, &mut fired));
        assert_eq!(fired.len(), 20);
        wheel.check();
        assert!(wheel.next_tick().unwrap() <= 80_000);
        let left: Vec<u32> = (0..50).filter(|n| !fired.contains(n)).collect();
        assert!(wheel.reset(keys[left[0] as usize], 90_000));
        assert_eq!(wheel.remove(keys[left[1] as usize]), Some(left[1]));
        wheel.insert(80_000, 100);
        wheel.check();
        let rest = wheel.expire_all(80_000);
        assert_eq!(rest.len(), 29);
        assert!(rest.contains(&100) && !rest.contains(&left[0]) && !rest.contains(&left[1]));
        assert_eq!(wheel.expire_all(90_000), [left[0]]);
        // Exactly as many as the limit: nothing is left, and it says so.
        (0..4).for_each(|n| _ = wheel.insert(90_001, n));
        assert!(!wheel.expire(90_001, 4, &mut fired));
    }

    #[test]
    fn removing_the_rest_of_a_place_that_is_being_drained_leaves_nothing_due() {
        let mut wheel = Wheel::new(0);
        let keys: Vec<_> = (0..40).map(|n| wheel.insert(300, n)).collect();
        wheel.insert(400, 40);
        assert!(wheel.expire(300, 7, &mut Vec::new()));
        assert!(keys.into_iter().filter_map(|key| wheel.remove(key)).count() >= 33);
        wheel.check();
        assert_eq!(wheel.next_tick().map(|tick| tick <= 400), Some(true));
        assert!(wheel.expire_all(399).is_empty());
        assert_eq!(wheel.expire_all(400), [40]);
    }

    #[test]
    fn a_jump_of_days_is_not_walked() {
        let mut wheel = Wheel::new(0);
        for n in 0..1000u64 {
            wheel.insert(n * n, n);
        }
        wheel.insert(u64::MAX, 0);
        // By the tick, this would take centuries.
        let mut fired = wheel.expire_all(u64::MAX / 2);
        fired.sort_unstable();
        assert!(fired.into_iter().eq(0..1000));
        assert_eq!(wheel.len(), 1);
        assert_eq!(wheel.expire_all(u64::MAX), [0]);
    }

    #[test]
    fn next_tick_is_exact_within_the_lowest_level() {
        let mut wheel = Wheel::new(1024);
        for tick in [1279, 1100, 1025] {
            wheel.insert(tick, ());
            assert_eq!(wheel.next_tick(), Some(tick));
        }
        wheel.insert(1280, ());
        assert_eq!(wheel.expire_all(1279).len(), 3);
        assert_eq!(wheel.next_tick(), Some(1280));
    }

    #[test]
    fn a_full_place_can_be_emptied_in_any_order() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut wheel = Wheel::new(0);
        for round in 0..100 {
            let mut keys: Vec<_> = (0..60).map(|n| wheel.insert(5000, n)).collect();
            match round {
                0 => {}
                1 => keys.reverse(),
                2 => keys.rotate_left(3 * CELLS),
                3 => keys.rotate_left(2 * CELLS),
                _ => keys.sort_by_cached_key(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random
                }),
            }
            for key in keys {
                assert!(wheel.remove(key).is_some());
                wheel.check();
            }
            assert_eq!(wheel.next_tick(), None);
        }
        assert!(wheel.chunks.len() <= 60 / CELLS + 2, "{} chunks", wheel.chunks.len());
    }

    #[test]
    fn space_is_used_again() {
        let mut wheel = Wheel::new(0);
        for now in 0..200_000u64 {
            let key = wheel.insert(now + 30_000, ());
            let other = wheel.insert(now + 3, ());
            wheel.insert(now + 2, ());
            assert!(wheel.remove(key).is_some());
            assert!(wheel.remove(other).is_some());
            wheel.expire_all(now);
        }
        assert!(wheel.entries.len() < 10);
        assert!(wheel.chunks.len() < 1024, "{} chunks", wheel.chunks.len());
        wheel.check();
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Span),
        Remove(usize),
        Change(usize),
        Reset(usize, Span),
        Expire(Span, usize),
        ExpireAtNextTick,
        /// Fires what is due, after a cancellation of one of the due.
        CancelThenExpire(Span),
        Back(u64),
    }

    /// A tick, relative to `now` or not.
    #[derive(Clone, Debug)]
    enum Span {
        Ahead(u64),
        /// So far from the next multiple of this power of two.
        Boundary(u32, i64),
        Tick(u64),
    }

    impl Span {
        fn tick(&self, now: u64) -> u64 {
            match *self {
                Span::Ahead(ticks) => now.saturating_add(ticks),
                Span::Boundary(bits, off) => {
                    let boundary = ((now >> bits) + 1).saturating_mul(1 << bits);
                    boundary.saturating_add_signed(off)
                }
                Span::Tick(tick) => tick,
            }
        }
    }

    fn span() -> impl Strategy<Value = Span> {
        prop_oneof![
            4 => (0..6u64).prop_map(Span::Ahead),
            4 => (0..600u64).prop_map(Span::Ahead),
            4 => (0..200_000u64).prop_map(Span::Ahead),
            2 => (0..1u64 << 40).prop_map(Span::Ahead),
            3 => (prop_oneof![Just(8u32), Just(16), Just(24), Just(36), Just(56)], -2..3i64)
                .prop_map(|(bits, off)| Span::Boundary(bits, off)),
            1 => Just(Span::Tick(u64::MAX)),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => span().prop_map(Step::Insert),
            1 => any::<u64>().prop_map(|tick| Step::Insert(Span::Tick(tick))),
            4 => any::<usize>().prop_map(Step::Remove),
            1 => any::<usize>().prop_map(Step::Change),
            4 => (any::<usize>(), span()).prop_map(|(n, span)| Step::Reset(n, span)),
            4 => (span(), prop_oneof![0..4usize, Just(usize::MAX)]).prop_map(|(span, limit)| Step::Expire(span, limit)),
            3 => Just(Step::ExpireAtNextTick),
            2 => span().prop_map(Step::CancelThenExpire),
            1 => any::<u64>().prop_map(Step::Back),
        ]
    }

    /// The wheel beside what it should be: a map from the value (never the same twice) to its tick.
    struct Model {
        wheel: Wheel<u32>,
        ticks: BTreeMap<u32, (u64, Key)>,
        stale: Vec<Key>,
        now: u64,
        count: u32,
    }

    impl Model {
        fn new(now: u64) -> Self {
            Model {
                wheel: Wheel::new(now),
                ticks: BTreeMap::new(),
                stale: Vec::new(),
                now,
                count: 0,
            }
        }

        fn pick(&self, n: usize) -> Option<u32> {
            self.ticks.keys().nth(n % self.ticks.len().max(1)).copied()
        }

        fn insert(&mut self, tick: u64) {
            let key = self.wheel.insert(tick, self.count);
            assert!(!self.stale.contains(&key));
            self.ticks.insert(self.count, (tick, key));
            self.count += 1;
        }

        fn remove(&mut self, value: u32) {
            let (_, key) = self.ticks.remove(&value).unwrap();
            assert_eq!(self.wheel.remove(key), Some(value));
            self.stale.push(key);
        }

        fn due(&self) -> usize {
            self.ticks.values().filter(|(tick, _)| *tick <= self.now).count()
        }

        fn expire(&mut self, now: u64, limit: usize) {
            self.now = self.now.max(now);
            let mut fired = Vec::new();
            let more = self.wheel.expire(now, limit, &mut fired);
            assert!(fired.len() <= limit);
            for value in &fired {
                let (tick, key) =
                    self.ticks.remove(value).expect("fired twice or after its removal");
                assert!(tick <= self.now, "fired early");
                self.stale.push(key);
            }
            if !more {
                assert_eq!(self.due(), 0, "forgotten");
            } else if fired.len() == limit {
                // Stopped by either of the bounds; the bound on moves alone may have left nothing due.
                assert!(self.wheel.next_tick().is_none_or(|tick| tick <= self.now));
            }
        }

        fn expire_all(&mut self, now: u64) {
            let most = self.ticks.len() * LEVELS / MOVES_PER_EXPIRE + 2;
            for _ in 0..most {
                self.expire(now, usize::MAX);
            }
            assert_eq!(self.due(), 0, "not done after as many calls as there can be moves");
        }

        fn step(&mut self, step: &Step) {
            match step {
                Step::Insert(span) => self.insert(span.tick(self.now)),
                Step::Remove(n) => {
                    if let Some(value) = self.pick(*n) {
                        self.remove(value);
                    }
                }
                Step::Change(n) => {
                    if let Some(value) = self.pick(*n) {
                        let (tick, key) = self.ticks.remove(&value).unwrap();
                        *self.wheel.get_mut(key).unwrap() = self.count;
                        self.ticks.insert(self.count, (tick, key));
                        self.count += 1;
                    }
                }
                Step::Reset(n, span) => {
                    if let Some(value) = self.pick(*n) {
                        let tick = span.tick(self.now);
                        let (old, key) = self.ticks.get_mut(&value).unwrap();
                        *old = tick;
                        assert!(self.wheel.reset(*key, tick));
                    }
                }
                Step::Expire(span, limit) => self.expire(span.tick(self.now), *limit),
                Step::ExpireAtNextTick => {
                    if let Some(tick) = self.wheel.next_tick() {
                        self.expire_all(tick);
                    }
                }
                Step::CancelThenExpire(span) => {
                    let now = span.tick(self.now);
                    let first = self
                        .ticks
                        .iter()
                        .filter(|(_, (tick, _))| *tick <= now)
                        .map(|(value, _)| *value)
                        .next();
                    if let Some(value) = first {
                        self.remove(value);
                    }
                    self.expire_all(now);
                }
                Step::Back(now) => self.expire(self.now.min(*now), usize::MAX),
            }
        }

        fn check(&mut self) {
            self.wheel.check();
            assert_eq!(self.wheel.len(), self.ticks.len());
            assert_eq!(self.wheel.is_empty(), self.ticks.is_empty());
            let first = self.ticks.values().map(|(tick, _)| *tick).min();
            match (self.wheel.next_tick(), first) {
                (Some(next), Some(first)) => {
                    assert!(next <= first.max(self.now), "next_tick is late")
                }
                (next, first) => assert_eq!((next, first), (None, None)),
            }
            if let Some(key) = self.stale.last() {
                assert_eq!(self.wheel.remove(*key), None);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

        #[test]
        fn behaves_as_a_sorted_map(
            start in prop_oneof![Just(0), any::<u64>(), (0..1000u64).prop_map(|n| u64::MAX - n)],
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let mut model = Model::new(start);
            for step in &steps {
                model.step(step);
                model.check();
            }
            model.expire_all(u64::MAX);
            model.check();
            prop_assert!(model.ticks.is_empty());
        }

        /// A clock that stands still but at `next_tick` reaches every tick exactly, and soon.
        #[test]
        fn following_next_tick_is_never_late(
            start in prop_oneof![Just(0), any::<u64>()],
            spans in prop::collection::vec((span(), prop::option::of(span())), 1..60),
        ) {
            let mut wheel = Wheel::new(start);
            let mut ticks = Vec::new();
            for (number, (span, reset)) in spans.iter().enumerate() {
                let key = wheel.insert(span.tick(start), number);
                let tick = reset.as_ref().unwrap_or(span).tick(start);
                prop_assert!(wheel.reset(key, tick));
                ticks.push(tick.max(start));
            }
            let mut now = start;
            let mut looks = 0;
            while let Some(next) = wheel.next_tick() {
                prop_assert!(next > now || looks == 0 || next == start);
                now = next;
                for number in wheel.expire_all(now) {
                    prop_assert_eq!(ticks[number], now);
                }
                looks += 1;
                prop_assert!(looks <= 2 * LEVELS * spans.len());
            }
            prop_assert!(wheel.is_empty());
        }
    }

    #[test]
    fn a_million_random_operations_agree_with_the_model() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut wheel = Wheel::new(0);
        let mut model: BTreeMap<(u64, u32), Key> = BTreeMap::new();
        let mut values: Vec<Option<(u64, Key)>> = Vec::new();
        let mut now = 0;
        for number in 0..if cfg!(miri) { 2_000 } else { 1_000_000 } {
            match next(10) {
                0..5 => {
                    let span = if next(4) == 0 { 100_000 } else { 64 };
                    let tick = now + next(span);
                    let key = wheel.insert(tick, values.len() as u32);
                    model.insert((tick, values.len() as u32), key);
                    values.push(Some((tick, key)));
                }
                5..8 if !values.is_empty() => {
                    // The recent ones: many of them are due in this very tick.
                    let back = next(values.len().min(64) as u64) as usize;
                    let value = values.len() - 1 - back;
                    if let Some((tick, key)) = values[value].take() {
                        model.remove(&(tick, value as u32));
                        assert_eq!(wheel.remove(key), Some(value as u32));
                    }
                }
                _ => {
                    now += next(3);
                    let mut fired = wheel.expire_all(now);
                    fired.sort_unstable();
                    let later = model.split_off(&(now + 1, 0));
                    let mut due: Vec<u32> = model.keys().map(|(_, value)| *value).collect();
                    due.sort_unstable();
                    assert_eq!(fired, due, "operation {number}");
                    due.iter().for_each(|value| values[*value as usize] = None);
                    model = later;
                }
            }
        }
        wheel.check();
    }
}
