//! Whether the client of a connection is late: the rules, applied at each look to what is seen of it.
//!
//! A look knows what has changed since the one before and no more, so a time counts from the look that first sees what it is
//! about. Plain data, without a clock of its own.

use super::probe::{End, Probe};
use crate::limits::{ConnectionLimits, PROGRESS_BYTES};
use std::time::{Duration, Instant};

/// Time for a client that was told that the connection ends to close it as well.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the last look at a connection has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    began: Instant,
    stage: Stage,
    since: Instant,
    /// The client takes nothing: since when, and what had been sent then.
    stuck: Option<(Instant, u64)>,
    /// Requests as of when it was last asked whether hyper has read some of another.
    asked: Option<u64>,
    /// A header block of HTTP/2 is open: since when, and which.
    block: Option<(Instant, u32)>,
    /// It was told to end after the request at hand: when, and after how many requests, of those that came in time.
    told: Option<(Instant, u64)>,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its first byte.
    Silent,
    /// The rest of a head, after so many requests.
    Head(u64),
    /// Another request, after so many, and so many bytes: HTTP/2 may have much to send when the service is done with it.
    Idle(u64, u64),
    /// The service, or its client: others see to that.
    Busy,
}

impl Stage {
    fn of(probe: &Probe) -> Stage {
        if probe.is_busy() {
            return Stage::Busy;
        }
        let begun = probe.requests();
        match (begun, probe.has_news()) {
            (0, false) => Stage::Silent,
            (0, true) => Stage::Head(0),
            // Of frames that are no requests there may be any number.
            (_, true) if !probe.is_multiplexed() => Stage::Head(begun),
            _ => Stage::Idle(begun, probe.sent()),
        }
    }
}

impl Seen {
    /// Of a connection that was made at `began`.
    pub(super) fn new(began: Instant, now: Instant) -> Seen {
        Seen {
            began,
            stage: Stage::Silent,
            since: now,
            stuck: None,
            asked: None,
            block: None,
            told: None,
        }
    }

    /// Looks. Some: its time is over.
    pub(super) fn look(
        &mut self,
        probe: &Probe,
        limits: &ConnectionLimits,
        now: Instant,
    ) -> Option<End> {
        let stage = Stage::of(probe);
        if stage != self.stage {
            (self.stage, self.since) = (stage, now);
        }
        if self.is_stuck(probe, limits.write_timeout, now) {
            return Some(End::Reset);
        }
        if probe.is_multiplexed() {
            let age = now.saturating_duration_since(self.began);
            probe.is_in_second(age.as_secs().min(u32::MAX.into()) as u32);
            if self.has_half_a_head(probe, limits.header_timeout, now) {
                return Some(End::Cut);
            }
        }
        if self.stays(stage, probe, now) {
            return Some(End::Cut);
        }
        if self.told.is_none() && is_over(self.began, limits.max_age, now) {
            return self.tell(probe, now);
        }
        let (limit, end) = match stage {
            Stage::Silent => (limits.first_byte_timeout, End::Cut),
            Stage::Head(_) => (limits.header_timeout, End::Cut),
            Stage::Idle(..) if self.told.is_none() => (limits.idle_timeout, End::Gracefully),
            Stage::Idle(..) | Stage::Busy => return None,
        };
        if !is_over(self.since, limit, now) {
            return self.may_have_begun(stage, probe, limits.header_timeout, now);
        }
        if end == End::Gracefully { self.tell(probe, now) } else { Some(end) }
    }

    /// It was told to end, by others.
    pub(super) fn was_told(&mut self, probe: &Probe, now: Instant) {
        if self.told.is_none() {
            self.tell(probe, now);
        }
    }

    fn tell(&mut self, probe: &Probe, now: Instant) -> Option<End> {
        (self.told, self.since) = (Some((now, probe.requests())), now);
        Some(End::Gracefully)
    }

    /// It seems idle. Asked once after each request, since it costs a little.
    fn may_have_begun(
        &mut self,
        stage: Stage,
        probe: &Probe,
        limit: Option<Duration>,
        now: Instant,
    ) -> Option<End> {
        let asks = matches!(stage, Stage::Idle(..))
            && self.asked != Some(probe.requests())
            && is_over(self.since, limit, now)
            && probe.is_between_requests();
        asks.then(|| {
            self.asked = Some(probe.requests());
            End::CutIfBegun
        })
    }

    /// It was told to go and does not: hyper has asked an HTTP/2 client whether it knows, which may never say so, and may ask on.
    fn stays(&mut self, stage: Stage, probe: &Probe, now: Instant) -> bool {
        let Some((told, requests)) = &mut self.told else { return false };
        if !is_over(*told, Some(FAREWELL), now) {
            *requests = probe.requests();
            return false;
        }
        let is_idle = stage != Stage::Busy && is_over(self.since, Some(FAREWELL), now);
        is_idle || probe.requests() != *requests
    }

    /// A head has begun on some stream, and its end does not come; no other stream can have anything until then.
    fn has_half_a_head(&mut self, probe: &Probe, limit: Option<Duration>, now: Instant) -> bool {
        let number = probe.open_block();
        match self.block {
            _ if number == 0 => self.block = None,
            Some((since, before)) if number == before => return is_over(since, limit, now),
            _ => self.block = Some((now, number)),
        }
        false
    }

    fn is_stuck(&mut self, probe: &Probe, limit: Option<Duration>, now: Instant) -> bool {
        if !probe.is_stuck() {
            self.stuck = None;
            return false;
        }
        let sent = probe.sent();
        match self.stuck {
            Some((since, before)) if sent < before + PROGRESS_BYTES => is_over(since, limit, now),
            _ => {
                self.stuck = Some((now, sent));
                false
            }
        }
    }
}

fn is_over(since: Instant, limit: Option<Duration>, now: Instant) -> bool {
    limit.is_some_and(|limit| now.saturating_duration_since(since) >= limit)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A connection, and looks at it at so many seconds.
    struct Looked {
        began: Instant,
        probe: Probe,
        seen: Seen,
        limits: ConnectionLimits,
    }

    impl Looked {
        fn new() -> Looked {
            let began = Instant::now();
            let (probe, limits) = (Probe::default(), ConnectionLimits::default());
            Looked { began, probe, seen: Seen::new(began, began), limits }
        }

        fn look_at(&mut self, second: u64) -> Option<End> {
            let now = self.began + Duration::from_secs(second);
            self.seen.look(&self.probe, &self.limits, now)
        }

        /// It has not begun, if it is asked.
        fn at(&mut self, second: u64) -> Option<End> {
            self.look_at(second).filter(|end| *end != End::CutIfBegun)
        }
    }

    #[test]
    fn who_says_nothing_has_the_time_of_a_first_byte() {
        let mut it = Looked::new();
        assert_eq!([it.at(29), it.at(30)], [None, Some(End::Cut)]);
    }

    #[test]
    fn bytes_do_not_prolong_the_time_of_a_head() {
        let mut it = Looked::new();
        it.probe.has_read();
        assert_eq!(it.at(10), None, "the first look that sees it");
        for second in 11..40 {
            it.probe.has_read();
            assert_eq!(it.at(second), None);
        }
        assert_eq!(it.at(40), Some(End::Cut));
    }

    #[test]
    fn a_request_under_way_has_all_the_time_and_idleness_begins_after_it() {
        let mut it = Looked::new();
        it.probe.has_read();
        it.probe.begin(false);
        assert_eq!(it.at(1000), None);
        it.probe.end();
        assert_eq!([it.at(1001), it.at(1075)], [None, None]);
        // Another request makes it young again, also one that no look has seen.
        it.probe.begin(false);
        it.probe.end();
        assert_eq!([it.at(1076), it.at(1150)], [None, None]);
        // The head of one that does not get on.
        it.probe.has_read();
        assert_eq!([it.at(1151), it.at(1180), it.at(1181)], [None, None, Some(End::Cut)]);
        it.probe.begin(false);
        it.probe.end();
        assert_eq!([it.at(1182), it.at(1256), it.at(1257)], [None, None, Some(End::Gracefully)]);
    }

    #[test]
    fn frames_that_are_no_requests_do_not_keep_a_connection() {
        let mut it = Looked::new();
        it.probe.multiplex();
        it.probe.has_read();
        assert_eq!([it.at(1), it.at(31)], [None, Some(End::Cut)]);
        it.probe.begin(false);
        it.probe.end();
        for second in 32..107 {
            it.probe.has_read();
            assert_eq!(it.at(second), None);
        }
        it.probe.has_read();
        assert_eq!(it.at(107), Some(End::Gracefully));
    }

    #[test]
    fn a_header_block_has_the_time_of_a_head_whatever_else_is_under_way() {
        let mut it = Looked::new();
        it.probe.multiplex();
        it.probe.begin(false);
        for second in 1..40 {
            it.probe.has_open_block(second as u32);
            assert_eq!(it.at(second), None, "each of them is another");
        }
        assert_eq!([it.at(68), it.at(69)], [None, Some(End::Cut)]);
        it.probe.has_open_block(0);
        assert_eq!(it.at(70), None);
    }

    #[test]
    fn who_is_told_by_others_is_held_to_its_limits_too() {
        let mut it = Looked::new();
        it.probe.has_read();
        it.limits.header_timeout = Some(Duration::from_secs(2));
        assert_eq!(it.at(1), None);
        it.seen.was_told(&it.probe, it.began + Duration::from_secs(1));
        assert_eq!([it.at(2), it.at(3)], [None, Some(End::Cut)]);
    }

    #[test]
    fn an_idle_connection_is_asked_once_whether_it_has_begun() {
        let mut it = Looked::new();
        it.probe.has_read();
        it.probe.begin(false);
        it.probe.end();
        assert_eq!([it.look_at(1), it.look_at(30)], [None, None]);
        assert_eq!([it.look_at(31), it.look_at(32)], [Some(End::CutIfBegun), None]);
        assert_eq!(it.look_at(76), Some(End::Gracefully));
    }

    #[test]
    fn what_is_still_to_be_sent_or_read_is_not_idle() {
        let mut it = Looked::new();
        it.probe.begin(true);
        it.probe.end();
        // An answer that the system has not taken.
        it.probe.has_written(10_000);
        assert_eq!([it.at(1), it.at(1000)], [None, None]);
        it.probe.has_read();
        assert_eq!(it.at(2000), None, "half a head behind it is nobody's fault");
        it.probe.has_flushed();
        // A body that the service reads after its answer, or a tunnel.
        it.probe.open();
        assert_eq!(it.at(3000), None);
        it.probe.close();
        it.probe.begin(false);
        it.probe.end();
        assert_eq!([it.at(3001), it.at(3075)], [None, None]);
        // What HTTP/2 sends when it is given a window.
        it.probe.has_written(100);
        it.probe.has_flushed();
        assert_eq!([it.at(3076), it.at(3150), it.at(3151)], [None, None, Some(End::Gracefully)]);
    }

    #[test]
    fn one_that_has_moved_is_idle_and_not_new() {
        let mut it = Looked::new();
        it.probe = Probe::of(7, false);
        assert_eq!([it.at(1), it.at(75), it.at(76)], [None, None, Some(End::Gracefully)]);
        let mut it = Looked::new();
        it.probe = Probe::of(7, true);
        assert_eq!([it.at(1), it.at(30), it.at(31)], [None, None, Some(End::Cut)]);
    }

    #[test]
    fn who_takes_too_little_is_reset_and_who_takes_enough_is_not() {
        let mut it = Looked::new();
        it.probe.begin(false);
        it.probe.has_written(100_000);
        it.probe.is_blocked();
        assert_eq!([it.at(1), it.at(30)], [None, None]);
        it.probe.has_written(4096);
        it.probe.is_blocked();
        assert_eq!([it.at(30), it.at(59)], [None, None]);
        it.probe.has_written(4095);
        it.probe.is_blocked();
        assert_eq!(it.at(60), Some(End::Reset));
        it.probe.has_flushed();
        assert_eq!(it.at(61), None);
        // No stream gets a window: the socket would take it.
        it.probe.offer();
        assert_eq!([it.at(62), it.at(100)], [None, None], "one stream is no reason");
        it.probe.is_starved(true);
        assert_eq!([it.at(101), it.at(130), it.at(131)], [None, None, Some(End::Reset)]);
        it.probe.unoffer();
        assert_eq!(it.at(132), None);
    }

    #[test]
    fn who_was_told_to_go_and_does_not_is_cut_off() {
        let mut it = Looked::new();
        it.probe.multiplex();
        it.probe.begin(false);
        it.probe.end();
        assert_eq!([it.at(1), it.at(76)], [None, Some(End::Gracefully)]);
        assert_eq!([it.at(80), it.at(81)], [None, Some(End::Cut)]);
        // What is under way is not cut off, but who asks on is.
        let mut it = Looked::new();
        it.probe.multiplex();
        it.probe.begin(false);
        assert_eq!([it.at(3600), it.at(3604), it.at(3700)], [Some(End::Gracefully), None, None]);
        it.probe.begin(false);
        assert_eq!(it.at(3701), Some(End::Cut));
    }

    #[test]
    fn age_ends_also_what_is_busy_and_without_limits_nothing_ends() {
        let mut it = Looked::new();
        it.probe.begin(false);
        assert_eq!([it.at(3599), it.at(3600)], [None, Some(End::Gracefully)]);
        let mut it = Looked::new();
        it.limits.max_age = None;
        it.limits.first_byte_timeout = None;
        assert_eq!([it.at(3600), it.at(1 << 30)], [None, None]);
    }
}
