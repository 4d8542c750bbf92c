//! Which spans of time to list next. Pure: state, time and policy in, spans out.
//!
//! Every pass lists the *fresh* span, from a little before the watermark to now, and every few hours also *sweeps* the
//! rest of what the API still keeps. Both are cut into windows of at most 24 hours. L9: the windows and the holes of
//! consecutive passes cover everything from the start on, without a seam.
//!
//! Sources: a request may span at most 24 hours and begin at most 7 days back (Office 365 Management Activity API
//! reference, "List available content"). What is asked for exactly 7 days back is refused by the time that it arrives,
//! hence ten minutes of margin.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use schemas::TimeRange;

use crate::feed_ledger::FeedState;

/// The longest span of one request.
pub const LONGEST_WINDOW: TimeDelta = TimeDelta::hours(24);

/// How far back is ever asked for.
pub const OLDEST: TimeDelta = TimeDelta::minutes(167 * 60 + 50);

/// The smallest overlap: the API's own answers may be this far apart.
const SMALLEST_OVERLAP: TimeDelta = TimeDelta::minutes(5);

/// How a feed is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How far before the watermark every pass begins; at least 5 minutes.
    pub overlap: TimeDelta,
    /// How often the whole retained week is listed again.
    pub sweep_every: TimeDelta,
    /// How far before the moment at which collecting began the first listing of a feed goes back; `None`: as far as the
    /// API does.
    pub start: Option<TimeDelta>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { overlap: TimeDelta::hours(1), sweep_every: TimeDelta::hours(6), start: None }
    }
}

/// What one pass has to do, in this order. Empty spans are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Too old to be listed ever again: to be recorded before anything else.
    pub hole: Option<TimeRange>,
    /// What moves the watermark.
    pub fresh: Option<TimeRange>,
    /// What is listed again for the sake of what was published late.
    pub sweep: Option<TimeRange>,
    /// The fresh span already goes back as far as a sweep would.
    pub fresh_is_sweep: bool,
}

/// Plans a pass. `begun` is when collecting began, by the same clock as `now`: the server's, because a start that is
/// counted back from a local clock that is ahead lies in the future, and nothing would be listed until then.
#[must_use]
pub fn pass(state: FeedState, now: DateTime<Utc>, begun: DateTime<Utc>, policy: &Policy) -> Pass {
    let now = whole_second(now);
    let oldest = oldest_listable(now);
    // The configured start is that of the first listing: a later beginning of the process must not move it, or what was
    // published late before it would never be listed.
    let start = policy.start.map_or(oldest, |back| whole_second(begun - back));
    let start = state.listed_from.map_or(start, |from| start.min(whole_second(from)));
    let from_start = start.max(oldest).min(now);
    let (hole, fresh_from) = match state.watermark {
        None => (None, from_start),
        Some(watermark) => {
            let hole = span(watermark, oldest.min(now));
            let watermark = whole_second(watermark).max(oldest);
            // A watermark ahead of the server's clock (it was set by a wrong one) must not stop the listing.
            let back = watermark.min(now) - policy.overlap.max(SMALLEST_OVERLAP);
            // A configured start that was moved past the watermark must not make the watermark skip anything.
            (hole, back.max(from_start.min(watermark)))
        }
    };
    let due = state.swept_at.is_none_or(|at| now - at >= policy.sweep_every || at > now);
    let fresh_is_sweep = fresh_from <= from_start;
    let sweep = if due && !fresh_is_sweep { span(from_start, fresh_from) } else { None };
    Pass { hole, fresh: span(fresh_from, now), sweep, fresh_is_sweep }
}

/// The next window of a span of which everything before `cursor` is done; `None` at its end. After `halvings` windows
/// that could not be listed to their last page it is as many times halved: a short window has few pages.
#[must_use]
pub fn next_window(cursor: DateTime<Utc>, until: DateTime<Utc>, halvings: u32) -> Option<TimeRange> {
    let longest = TimeDelta::seconds((LONGEST_WINDOW.num_seconds() >> halvings.min(31)).max(60));
    span(cursor, until.min(cursor + longest))
}

/// What of a window can be asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listable {
    /// Its beginning, grown too old while it waited for its turn.
    pub too_old: Option<TimeRange>,
    /// The rest.
    pub window: Option<TimeRange>,
}

/// Cuts off what grew too old: to be called when the request is sent, not when it is planned.
#[must_use]
pub fn clamp(window: TimeRange, now: DateTime<Utc>) -> Listable {
    let oldest = oldest_listable(whole_second(now));
    Listable {
        too_old: span(window.start, window.end.min(oldest)),
        window: span(window.start.max(oldest), window.end),
    }
}

/// The oldest instant that is asked for at `now`.
#[must_use]
pub fn oldest_listable(now: DateTime<Utc>) -> DateTime<Utc> {
    now - OLDEST
}

/// Requests count in whole seconds. Rounded down: a start that is too early lists something twice, which is harmless,
/// and an end that is too early is made up for by the next pass.
#[must_use]
pub fn whole_second(time: DateTime<Utc>) -> DateTime<Utc> {
    time.duration_trunc(TimeDelta::seconds(1)).unwrap_or(time)
}

fn span(start: DateTime<Utc>, end: DateTime<Utc>) -> Option<TimeRange> {
    let range = TimeRange { start, end };
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn windows(range: Option<TimeRange>) -> Vec<TimeRange> {
        let Some(range) = range else { return Vec::new() };
        let mut cursor = range.start;
        std::iter::from_fn(|| {
            let window = next_window(cursor, range.end, 0)?;
            cursor = window.end;
            Some(window)
        })
        .collect()
    }

    #[test]
    fn a_new_feed_lists_the_whole_week_once_and_that_is_a_sweep() {
        let now = at("2026-03-08T12:00:00.9Z");
        let pass = pass(FeedState::default(), now, now, &Policy::default());
        assert_eq!((pass.hole, pass.sweep, pass.fresh_is_sweep), (None, None, true));
        let windows = windows(pass.fresh);
        assert_eq!(windows.len(), 7);
        assert_eq!(windows[0].start, at("2026-03-01T12:10:00Z"));
        assert_eq!(windows[6].end, at("2026-03-08T12:00:00Z"));
    }

    #[test]
    fn a_pass_goes_back_by_the_overlap_and_sweeps_when_it_is_time() {
        let now = at("2026-03-08T12:00:00Z");
        let mut state = FeedState {
            watermark: Some(now - TimeDelta::minutes(1)),
            swept_at: Some(now - TimeDelta::hours(5)),
            ..FeedState::default()
        };
        let policy = Policy::default();
        let planned = pass(state, now, now, &policy);
        assert_eq!(planned.fresh.map(|range| range.start), Some(at("2026-03-08T10:59:00Z")));
        assert_eq!(planned.sweep, None);
        for swept_at in [None, Some(now - TimeDelta::hours(6)), Some(now + TimeDelta::hours(1))] {
            state.swept_at = swept_at;
            let planned = pass(state, now, now, &policy);
            let sweep = planned.sweep.unwrap();
            assert_eq!((sweep.start, sweep.end), (now - OLDEST, at("2026-03-08T10:59:00Z")), "{swept_at:?}");
        }
    }

    #[test]
    fn what_is_too_old_to_be_listed_is_a_hole() {
        let now = at("2026-03-20T12:00:00Z");
        let state = FeedState { watermark: Some(at("2026-03-01T00:00:00Z")), ..FeedState::default() };
        let planned = pass(state, now, now, &Policy::default());
        assert_eq!(planned.hole, Some(TimeRange { start: at("2026-03-01T00:00:00Z"), end: now - OLDEST }));
        assert_eq!(planned.fresh, Some(TimeRange { start: now - OLDEST, end: now }));
    }

    #[test]
    fn nothing_before_the_configured_start_is_asked_for() {
        let now = at("2026-03-08T12:00:00Z");
        let start = now - TimeDelta::hours(30);
        let policy = Policy { start: Some(TimeDelta::hours(30)), ..Policy::default() };
        assert_eq!(pass(FeedState::default(), now, now, &policy).fresh, Some(TimeRange { start, end: now }));
        let listed = FeedState { listed_from: Some(start), ..FeedState::default() };
        let state = FeedState { watermark: Some(now), ..listed };
        let sweep = pass(state, now, now, &policy).sweep.unwrap();
        assert_eq!(sweep, TimeRange { start, end: now - TimeDelta::hours(1) });
        let moved = Policy { start: Some(TimeDelta::hours(1)), ..policy };
        // A feed that could not be listed at once begins where it would have begun.
        let later = now + TimeDelta::hours(5);
        assert_eq!(
            pass(FeedState::default(), later, now, &moved).fresh,
            Some(TimeRange { start: now - TimeDelta::hours(1), end: later })
        );
    }

    #[test]
    fn a_restart_does_not_move_the_start() {
        let first = at("2026-03-08T12:00:00Z");
        let policy = Policy { start: Some(TimeDelta::hours(1)), ..Policy::default() };
        let from = first - TimeDelta::hours(1);
        let state = FeedState {
            watermark: Some(first),
            swept_at: Some(first),
            listed_from: Some(from),
            ..FeedState::default()
        };
        // Begun again after three hours: from the watermark less the overlap, although the start would be later.
        let later = first + TimeDelta::hours(3);
        let planned = pass(state, later, later, &policy);
        assert_eq!(planned.fresh, Some(TimeRange { start: first - policy.overlap, end: later }));
        // The sweep goes back to where the feed began.
        let later = first + TimeDelta::hours(7);
        let caught_up = FeedState { watermark: Some(later), ..state };
        let sweep = pass(caught_up, later, later, &policy).sweep;
        assert_eq!(sweep, Some(TimeRange { start: from, end: later - policy.overlap }));
        // An earlier start is one.
        let earlier = Policy { start: Some(TimeDelta::hours(48)), ..policy };
        let sweep = pass(caught_up, later, later, &earlier).sweep.unwrap();
        assert_eq!(sweep.start, later - TimeDelta::hours(48));
        // What the API does not keep any more is not asked for.
        let much_later = first + TimeDelta::days(30);
        let caught_up = FeedState { watermark: Some(much_later), ..state };
        assert_eq!(
            pass(caught_up, much_later, much_later, &policy).sweep.unwrap().start,
            much_later - OLDEST
        );
    }

    #[test]
    fn a_window_that_fails_is_halved_down_to_a_minute() {
        let start = at("2026-03-08T12:00:00Z");
        let length = |halvings| next_window(start, start + TimeDelta::days(7), halvings).unwrap().length();
        assert_eq!(length(0), LONGEST_WINDOW);
        assert_eq!(length(1), TimeDelta::hours(12));
        assert_eq!(length(4), TimeDelta::minutes(90));
        assert_eq!((length(20), length(u32::MAX)), (TimeDelta::minutes(1), TimeDelta::minutes(1)));
        assert_eq!(
            next_window(start, start + TimeDelta::seconds(5), 9).unwrap().length(),
            TimeDelta::seconds(5)
        );
        assert_eq!(next_window(start, start, 0), None);
    }

    #[test]
    fn a_window_that_waited_too_long_is_cut_when_it_is_sent() {
        let now = at("2026-03-08T12:00:00Z");
        let window = TimeRange { start: now - OLDEST, end: now - OLDEST + LONGEST_WINDOW };
        assert_eq!(clamp(window, now), Listable { too_old: None, window: Some(window) });
        let later = now + TimeDelta::hours(2);
        let cut = clamp(window, later);
        assert_eq!(cut.too_old, Some(TimeRange { start: window.start, end: later - OLDEST }));
        assert_eq!(cut.window, Some(TimeRange { start: later - OLDEST, end: window.end }));
        let much_later = now + TimeDelta::hours(30);
        assert_eq!(clamp(window, much_later), Listable { too_old: Some(window), window: None });
    }

    proptest! {
        /// L9: however long it takes between passes and within them, whatever pass and window follows which, the
        /// holes are exactly what no window covers, and nothing is asked for that the API would refuse.
        #[test]
        fn windows_and_holes_cover_everything_without_a_seam(
            start_back in proptest::option::of(0i64..20 * 24 * 60),
            overlap in 0i64..180,
            steps in proptest::collection::vec((0i64..12 * 24 * 3600, 0i64..7 * 3600, any::<bool>()), 1..12),
        ) {
            let begin = at("2026-01-01T00:00:00.25Z");
            let policy = Policy {
                overlap: TimeDelta::minutes(overlap),
                sweep_every: TimeDelta::hours(6),
                start: start_back.map(TimeDelta::minutes),
            };
            let mut now = begin;
            let mut begun = begin;
            let mut state = FeedState::default();
            // Everything from the first window's start up to here was listed or is a hole.
            let mut covered: Option<DateTime<Utc>> = None;
            for (idle, per_window, restarts) in steps {
                now += TimeDelta::seconds(idle);
                if restarts {
                    begun = now;
                }
                let planned = pass(state, now, begun, &policy);
                if let (Some(sweep), Some(from)) = (planned.sweep, state.listed_from) {
                    let oldest = oldest_listable(whole_second(now));
                    prop_assert!(sweep.start <= whole_second(from).max(oldest), "what was published late before {sweep}");
                }
                if let (Some(fresh), Some(from), Some(watermark)) = (planned.fresh, state.listed_from, state.watermark) {
                    let oldest = oldest_listable(whole_second(now));
                    let back = whole_second(watermark).max(oldest) - policy.overlap.max(SMALLEST_OVERLAP);
                    prop_assert!(fresh.start <= back.max(whole_second(from)).max(oldest), "no overlap before {fresh}");
                }
                if let Some(range) = planned.hole {
                    prop_assert_eq!(Some(range.start), covered);
                    prop_assert_eq!(range.end, oldest_listable(whole_second(now)));
                    covered = Some(range.end);
                    state.watermark = covered;
                }
                for window in windows(planned.fresh) {
                    now += TimeDelta::seconds(per_window);
                    let cut = clamp(window, now);
                    // What the lister does with a window that waited too long.
                    if let (Some(range), Some(watermark)) = (cut.too_old, state.watermark)
                        && watermark < range.end
                    {
                        prop_assert!(range.start <= watermark, "a seam before the hole {range}");
                        covered = Some(range.end);
                        state.watermark = covered;
                    }
                    let Some(asked) = cut.window else { continue };
                    prop_assert!(asked.length() <= LONGEST_WINDOW);
                    prop_assert!(asked.start >= oldest_listable(whole_second(now)));
                    prop_assert!(asked.end <= now);
                    prop_assert!(covered.is_none_or(|covered| asked.start <= covered), "a seam before {asked}");
                    covered = covered.max(Some(asked.end));
                    state.watermark = state.watermark.max(Some(asked.end));
                    state.listed_from = Some(state.listed_from.map_or(asked.start, |from| from.min(asked.start)));
                }
                for window in windows(planned.sweep) {
                    prop_assert!(window.length() <= LONGEST_WINDOW);
                    prop_assert!(planned.fresh.is_none_or(|fresh| window.end <= fresh.start));
                    if let Some(asked) = clamp(window, now).window {
                        prop_assert!(asked.start >= oldest_listable(whole_second(now)));
                    }
                }
                if planned.sweep.is_some() || planned.fresh_is_sweep {
                    state.swept_at = Some(now);
                }
                prop_assert_eq!(covered, state.watermark);
            }
        }
    }
}
