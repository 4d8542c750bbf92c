//! The pace of a sink: what the configuration allows, and what the destination asks for.

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use crate::sink::Limits;

/// The first pause between batches after a destination asked to slow down.
const FIRST_GAP: Duration = Duration::from_millis(50);
/// The longest pause between batches that a destination can bring about by asking again and again.
const LONGEST_GAP: Duration = Duration::from_secs(10);
/// Under this, the pause is over.
const NO_GAP: Duration = Duration::from_millis(5);

/// How much of an allowance can be saved up, as the time that it is saved in, and therefore the most that goes at once.
/// With more than a second's worth a second could have more than twice what is allowed.
pub const LONGEST_BURST: Duration = Duration::from_secs(1);

/// How fast a sink may send: `events_per_second`, `bytes_per_second` and `burst` of the configuration, and pauses that
/// the destination asked for.
#[derive(Debug)]
pub struct Rate {
    events: Option<Allowance>,
    bytes: Option<Allowance>,
    pause: Mutex<Pause>,
}

#[derive(Debug)]
struct Pause {
    /// Between the starts of two batches.
    gap: Duration,
    /// Nothing starts earlier.
    until: Instant,
}

/// So many a second, of which a burst can be saved up.
#[derive(Debug)]
pub(crate) struct Allowance {
    burst: NonZeroU32,
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>,
    clock: TokioClock,
}

/// Tokio's clock, which tests can pause.
#[derive(Debug, Clone)]
struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Allowance {
    /// With a burst of one second's worth. It has to be made within a runtime, whose clock it uses.
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self::with_burst(per_second, LONGEST_BURST)
    }

    fn with_burst(per_second: NonZeroU32, burst: Duration) -> Self {
        let saved = u128::from(per_second.get()) * burst.min(LONGEST_BURST).as_nanos() / 1_000_000_000;
        let burst = u32::try_from(saved).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let clock = TokioClock { start: Instant::now() };
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { burst, limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock }
    }

    /// Waits until `amount` is allowed. More than a burst is taken in parts.
    pub(crate) async fn take(&self, amount: usize) {
        let mut left = amount;
        while left > 0 {
            let part = left.min(self.burst.get() as usize);
            let Some(count) = u32::try_from(part).ok().and_then(NonZeroU32::new) else { return };
            match self.limiter.check_n(count) {
                Ok(Ok(())) => left -= part,
                Ok(Err(not_yet)) => tokio::time::sleep(not_yet.wait_time_from(self.clock.now())).await,
                Err(_) => unreachable!("a part is never more than the burst"),
            }
        }
    }
}

impl Rate {
    /// A pace with the longest burst; `None` is no limit. It has to be made within a runtime, whose clock it uses.
    #[must_use]
    pub fn new(events_per_second: Option<NonZeroU32>, bytes_per_second: Option<NonZeroU64>) -> Self {
        Self::with_burst(events_per_second, bytes_per_second, LONGEST_BURST)
    }

    /// A pace of which at most `burst`, up to [`LONGEST_BURST`], can be saved up: the shorter it is, the more evenly
    /// records leave. One record always may. It has to be made within a runtime, whose clock it uses.
    #[must_use]
    pub fn with_burst(
        events_per_second: Option<NonZeroU32>,
        bytes_per_second: Option<NonZeroU64>,
        burst: Duration,
    ) -> Self {
        // A limit of more than 4 GiB a second is none that anything here could reach.
        let bytes = bytes_per_second.and_then(|bytes| NonZeroU32::try_from(bytes).ok());
        Self {
            events: events_per_second.map(|events| Allowance::with_burst(events, burst)),
            bytes: bytes.map(|bytes| Allowance::with_burst(bytes, burst)),
            pause: Mutex::new(Pause { gap: Duration::ZERO, until: Instant::now() }),
        }
    }

    /// The limits of a batch, such that none is more than a burst.
    #[must_use]
    pub fn cap(&self, limits: Limits) -> Limits {
        let cap = |limit: usize, allowance: &Option<Allowance>| {
            allowance.as_ref().map_or(limit, |allowance| limit.min(allowance.burst.get() as usize))
        };
        Limits {
            max_records: cap(limits.max_records, &self.events).max(1),
            max_bytes: cap(limits.max_bytes, &self.bytes).max(1),
            ..limits
        }
    }

    /// Waits until a batch of this size may be sent.
    pub async fn turn(&self, records: usize, bytes: usize) {
        loop {
            let start = {
                let mut pause = self.pause();
                let now = Instant::now();
                if pause.until <= now {
                    pause.until = now + pause.gap;
                    None
                } else {
                    Some(pause.until)
                }
            };
            match start {
                Some(start) => tokio::time::sleep_until(start).await,
                None => break,
            }
        }
        if let Some(events) = &self.events {
            events.take(records).await;
        }
        if let Some(allowance) = &self.bytes {
            allowance.take(bytes).await;
        }
    }

    /// The destination is overloaded: batches start half as often as before, and none before `after`.
    pub fn slow_down(&self, after: Option<Duration>) {
        let mut pause = self.pause();
        pause.gap = (pause.gap * 2).clamp(FIRST_GAP, LONGEST_GAP);
        let wait = pause.gap.max(after.unwrap_or_default());
        pause.until = pause.until.max(Instant::now() + wait);
    }

    /// The destination said how long it wants to be left alone: no batch starts before, and afterwards all is as it was.
    pub(crate) fn rest(&self, wait: Duration) {
        let mut pause = self.pause();
        pause.until = pause.until.max(Instant::now() + wait);
    }

    /// The destination took a batch: a pause that it asked for wears off.
    pub(crate) fn eased(&self) {
        let mut pause = self.pause();
        pause.gap = pause.gap * 7 / 8;
        if pause.gap < NO_GAP {
            pause.gap = Duration::ZERO;
        }
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(events: u32, bytes: u64) -> Rate {
        Rate::new(NonZeroU32::new(events), NonZeroU64::new(bytes))
    }

    async fn seconds(work: impl Future<Output = ()>) -> f64 {
        let start = Instant::now();
        work.await;
        start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_may_be_saved_up_and_no_more() {
        let rate = rate(100, 0);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let took = seconds(async {
            for _ in 0..11 {
                rate.turn(100, 1).await;
            }
        })
        .await;
        assert!((9.9..10.1).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_count_too_and_a_record_beyond_a_seconds_worth_still_goes() {
        let rate = rate(0, 1000);
        let took = seconds(rate.turn(1, 5_500)).await;
        assert!((4.4..4.7).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_shorter_burst_less_is_saved_up_and_the_pace_is_the_same() {
        let burst = Duration::from_millis(100);
        let rate = Rate::with_burst(NonZeroU32::new(1000), NonZeroU64::new(50_000), burst);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(seconds(rate.turn(100, 1)).await == 0.0, "a burst was saved up");
        let took = seconds(rate.turn(100, 1)).await;
        assert!((0.099..0.102).contains(&took), "and no more: {took}");
        // What is not taken at once is not lost, as long as it is less than a burst.
        let took = seconds(async {
            for _ in 0..200 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                rate.turn(50, 1).await;
            }
        })
        .await;
        assert!((9.9..10.1).contains(&took), "{took}");
        let took = seconds(rate.turn(1, 55_000)).await;
        assert!((0.9..1.1).contains(&took), "a record beyond a burst still goes: {took}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_means_no_wait() {
        let rate = rate(0, 0);
        let took = seconds(async {
            for _ in 0..1000 {
                rate.turn(10_000, 10_000_000).await;
            }
        })
        .await;
        assert!(took == 0.0, "{took}");
    }

    #[tokio::test]
    async fn no_batch_is_more_than_a_burst() {
        let limits = Limits {
            max_records: 500,
            max_bytes: 1 << 20,
            beside: 0,
            linger: Duration::ZERO,
            in_flight: 1,
            ordered: true,
            timeout: Duration::from_secs(1),
            exactly_once: false,
            whole_works: false,
        };
        let capped = rate(5, 1000).cap(limits);
        assert_eq!((capped.max_records, capped.max_bytes), (5, 1000));
        let burst = Duration::from_millis(100);
        let capped = Rate::with_burst(NonZeroU32::new(50), NonZeroU64::new(1000), burst).cap(limits);
        assert_eq!((capped.max_records, capped.max_bytes), (5, 100));
        let capped = Rate::with_burst(NonZeroU32::new(5), NonZeroU64::new(1), burst).cap(limits);
        assert_eq!((capped.max_records, capped.max_bytes), (1, 1), "one record always may go");
        assert_eq!(rate(0, 0).cap(limits), limits);
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_that_asks_for_it_is_given_pauses_that_wear_off() {
        let rate = rate(0, 0);
        rate.slow_down(Some(Duration::from_secs(30)));
        let took = seconds(rate.turn(1, 1)).await;
        assert!((29.9..30.1).contains(&took), "{took}");
        rate.rest(Duration::from_secs(7));
        let took = seconds(rate.turn(1, 1)).await;
        assert!((6.9..7.1).contains(&took), "{took}");
        for _ in 0..20 {
            rate.slow_down(None);
        }
        tokio::time::sleep(LONGEST_GAP).await;
        rate.turn(1, 1).await;
        let took = seconds(rate.turn(1, 1)).await;
        assert!((9.9..10.1).contains(&took), "{took}");
        for _ in 0..100 {
            rate.eased();
        }
        rate.turn(1, 1).await;
        tokio::time::sleep(LONGEST_GAP).await;
        rate.turn(1, 1).await;
        assert!(seconds(rate.turn(1, 1)).await == 0.0);
    }
}
