//! The lines of one shard that wait for the writer, and the time of day as its lines say it.

use super::line::{Date, push_padded};
use crate::sync::{CachePadded, lock};
use crate::time::clock;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes that may wait. A line of a head of the default size fits, whatever is escaped in it.
const BYTES_MAX: usize = 256 * 1024;

/// See the module. Its shard writes to it; nobody else but the thread that takes the lines.
#[derive(Default)]
pub(super) struct Lane(CachePadded<Mutex<State>>);

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    count: u64,
    lost: u64,
    stamp: Option<Stamp>,
}

impl Lane {
    /// Adds a line of at most so many bytes, by `write`, or counts it as lost. True: it is the first since the last were taken.
    pub(super) fn add(&self, size: usize, write: impl FnOnce(&mut Vec<u8>, &Stamp)) -> bool {
        let mut state = lock(&self.0);
        let is_first = state.lines.is_empty();
        if state.lines.len() + size > BYTES_MAX {
            state.lost += 1;
            // The writer is to say so, even if there is nothing to write.
            return is_first;
        }
        let stamp = Stamp::at(clock::now(), state.stamp.take());
        write(&mut state.lines, &stamp);
        state.stamp = Some(stamp);
        state.count += 1;
        is_first
    }

    /// Lines that did not fit since the last were taken.
    pub(super) fn lost(&self) -> u64 {
        lock(&self.0).lost
    }

    /// Takes the lines, and leaves this memory for those to come. Returns how many there are, and how many were lost.
    pub(super) fn take(&self, lines: &mut Vec<u8>) -> (u64, u64) {
        let mut state = lock(&self.0);
        std::mem::swap(&mut state.lines, lines);
        (std::mem::take(&mut state.count), std::mem::take(&mut state.lost))
    }
}

/// The time of day. The system is asked for it once a second; between that the clock counts that goes evenly.
pub(super) struct Stamp {
    pub(super) now: Instant,
    second_began: Instant,
    date: Date,
}

impl Stamp {
    fn at(now: Instant, last: Option<Stamp>) -> Stamp {
        let is_same = |stamp: &Stamp| now < stamp.second_began + Duration::from_secs(1);
        if let Some(last) = last.filter(is_same) {
            return Stamp { now, ..last };
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let into = Duration::from_nanos(since.subsec_nanos().into());
        let second_began = now.checked_sub(into).unwrap_or(now);
        Stamp { now, second_began, date: Date::new(since.as_secs()) }
    }

    /// As in `28/Nov/2026:19:00:09 +0000`.
    pub(super) fn push_common(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(self.date.common());
    }

    /// As in `2026-11-28T19:00:09.123Z` (RFC 3339).
    pub(super) fn push_json(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(self.date.rfc_3339());
        line.push(b'.');
        let into = self.now.saturating_duration_since(self.second_began);
        push_padded(line, into.subsec_millis().into(), 3);
        line.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_the_rest_is_kept() {
        let lane = Lane::default();
        let add = |size: usize| lane.add(size, |lines, _| lines.resize(lines.len() + size, b'x'));
        assert!(add(10), "the first is to be told");
        assert!(!add(BYTES_MAX - 10));
        assert!(!add(1));
        let mut lines = Vec::new();
        assert_eq!((lane.take(&mut lines), lines.len()), ((2, 1), BYTES_MAX));
        assert!(add(1));
    }

    #[test]
    fn the_time_of_day_goes_on_between_two_looks() {
        let now = Instant::now();
        let first = Stamp::at(now, None);
        let (began, mut texts) = (first.second_began, [Vec::new(), Vec::new()]);
        first.push_common(&mut texts[0]);
        let later = Stamp::at(began + Duration::from_millis(999), Some(first));
        assert_eq!(later.second_began, began);
        later.push_json(&mut texts[1]);
        assert!(texts[1].ends_with(b".999Z"));
        let next = Stamp::at(began + Duration::from_millis(1000), Some(later));
        assert_ne!(next.second_began, began);
    }
}
