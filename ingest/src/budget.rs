//! One tenant's requests: how many a minute, who goes first, and when to pause.
//!
//! The API allows a tenant 2,000 requests a minute as a baseline, shared by all of its content types and by everybody
//! else who reads that tenant (Office 365 Management Activity API reference, "API throttling"). The budget promises:
//!
//! - in no 60 seconds more than the configured number of requests, spread evenly but for a small burst;
//! - listing goes before fetching, because the watermark depends on it and it is a small part of the requests;
//! - throttling pauses the tenant; when it comes twice in a row, or to one answer in ten, it also halves the rate, down
//!   to an eighth, which comes back by a twentieth every 30 quiet seconds;
//! - what the API asked to wait, the whole tenant waits.
//!
//! Time is tokio's, so that tests can pause it.

use std::{
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::{sync::Notify, time::Instant};

use crate::backoff::Backoff;

/// How long the rate stays lowered before it is raised by a step.
const STEP_UP_AFTER: Duration = Duration::from_secs(30);

/// The longest wait that an answer can ask for: more is a mistake of the server or of something on the way.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The pause when throttling does not say how long it lasts.
const UNTOLD_PAUSE: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(60) };

/// For how long answers are counted, to see how many of them are throttling.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Subscriptions and listings: first.
    Listing,
    /// Blobs: after them.
    Fetching,
}

#[derive(Clone)]
struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.start.elapsed().into()
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>;

/// One tenant's request budget.
pub struct Budget {
    limit: NonZeroU32,
    clock: TokioClock,
    state: Mutex<State>,
    /// First come, first served, within each kind.
    listing: tokio::sync::Mutex<()>,
    fetching: tokio::sync::Mutex<()>,
    listing_waits: AtomicUsize,
    listing_served: Notify,
}

struct State {
    limiter: Limiter,
    rate: NonZeroU32,
    changed_at: Instant,
    struck_at: Option<Instant>,
    paused_until: Option<Instant>,
    /// Rounds of throttled answers since the last good one.
    strikes: u32,
    counted_since: Instant,
    answers: u32,
    throttled: u32,
}

impl State {
    fn count(&mut self, throttled: bool) {
        if self.counted_since.elapsed() >= COUNTED_FOR {
            (self.counted_since, self.answers, self.throttled) = (Instant::now(), 0, 0);
        }
        self.answers = self.answers.saturating_add(1);
        self.throttled = self.throttled.saturating_add(u32::from(throttled));
    }

    /// Whether the rate is to blame, rather than chance.
    fn is_too_fast(&self) -> bool {
        self.strikes >= 2 || u64::from(self.throttled) * 10 >= u64::from(self.answers)
    }
}

impl Budget {
    /// A budget of `limit` requests a minute.
    #[must_use]
    pub fn new(limit: NonZeroU32) -> Self {
        let now = Instant::now();
        let clock = TokioClock { start: now };
        let state = State {
            limiter: limiter(limit, &clock),
            rate: limit,
            changed_at: now,
            struck_at: None,
            paused_until: None,
            strikes: 0,
            counted_since: now,
            answers: 0,
            throttled: 0,
        };
        Self {
            limit,
            clock,
            state: Mutex::new(state),
            listing: tokio::sync::Mutex::new(()),
            fetching: tokio::sync::Mutex::new(()),
            listing_waits: AtomicUsize::new(0),
            listing_served: Notify::new(),
        }
    }

    /// Waits for the turn of one request. Dropping the wait gives nothing away.
    pub async fn turn(&self, turn: Turn) {
        match turn {
            Turn::Listing => {
                let _waiting = ListingWaits::begin(self);
                let _place = self.listing.lock().await;
                while let Err(wait) = self.take() {
                    tokio::time::sleep(wait).await;
                }
            }
            Turn::Fetching => {
                let _place = self.fetching.lock().await;
                loop {
                    let served = self.listing_served.notified();
                    tokio::pin!(served);
                    served.as_mut().enable();
                    if self.listing_waits.load(Ordering::SeqCst) > 0 {
                        served.await;
                        continue;
                    }
                    match self.take() {
                        Ok(()) => return,
                        Err(wait) => tokio::time::sleep(wait).await,
                    }
                }
            }
        }
    }

    /// Takes one request out of the budget, or says how long there is none.
    fn take(&self) -> Result<(), Duration> {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(until) = state.paused_until {
            if until > now {
                return Err(until - now);
            }
            state.paused_until = None;
        }
        // A millisecond is the timer's step: waking up before the cell is free would be a busy loop.
        let until_free = |not_until: governor::NotUntil<Nanos>| not_until.wait_time_from(self.clock.now());
        state.limiter.check().map_err(|not| until_free(not).max(Duration::from_millis(1)))
    }

    /// An answer was no throttling: after a quiet while the rate is raised by a step.
    pub fn answered(&self) {
        let mut state = self.lock();
        state.count(false);
        state.strikes = 0;
        if state.rate < self.limit && state.changed_at.elapsed() >= STEP_UP_AFTER {
            let raised = state.rate.saturating_add(self.step()).min(self.limit);
            self.set_rate(&mut state, raised);
        }
    }

    /// An answer to a request sent at `sent_at` was throttling: pauses the tenant, and lowers the rate if it is to
    /// blame, once for all requests that were under way together. Returns how long the pause is.
    pub fn throttled(&self, sent_at: Instant, retry_after: Option<Duration>) -> Duration {
        let mut state = self.lock();
        let now = Instant::now();
        state.count(true);
        if state.struck_at.is_none_or(|at| sent_at >= at) {
            state.struck_at = Some(now);
            state.strikes = state.strikes.saturating_add(1);
            if state.is_too_fast() {
                let lowered = (state.rate.get() / 2).max(self.limit.get() / 8);
                self.set_rate(&mut state, NonZeroU32::new(lowered).unwrap_or(NonZeroU32::MIN));
            }
        }
        let wait = retry_after.unwrap_or_else(|| UNTOLD_PAUSE.after(state.strikes));
        Self::pause_until(&mut state, wait)
    }

    /// Pauses the tenant without blaming its rate: an outage said when it would be over.
    pub fn pause(&self, wait: Duration) {
        Self::pause_until(&mut self.lock(), wait);
    }

    fn pause_until(state: &mut State, wait: Duration) -> Duration {
        let now = Instant::now();
        let until = now + wait.min(LONGEST_PAUSE);
        let until = state.paused_until.map_or(until, |earlier| earlier.max(until));
        state.paused_until = Some(until);
        until - now
    }

    /// Requests a minute at present.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.lock().rate.get()
    }

    /// How much longer the API asked the tenant to wait.
    #[must_use]
    pub fn paused_for(&self) -> Option<Duration> {
        let until = self.lock().paused_until?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    fn step(&self) -> u32 {
        (self.limit.get() / 20).max(1)
    }

    fn set_rate(&self, state: &mut State, rate: NonZeroU32) {
        state.changed_at = Instant::now();
        state.rate = rate;
        state.limiter = limiter(rate, &self.clock);
        // A new limiter begins with a full burst; it was spent under the old rate.
        let _ = state.limiter.check_n(burst(rate));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("limit", &self.limit)
            .field("rate", &self.rate())
            .finish_non_exhaustive()
    }
}

/// Counts a waiting listing, also when its wait is dropped.
struct ListingWaits<'a>(&'a Budget);

impl<'a> ListingWaits<'a> {
    fn begin(budget: &'a Budget) -> Self {
        budget.listing_waits.fetch_add(1, Ordering::SeqCst);
        Self(budget)
    }
}

impl Drop for ListingWaits<'_> {
    fn drop(&mut self) {
        if self.0.listing_waits.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.listing_served.notify_waiters();
        }
    }
}

fn burst(rate: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(rate.get() / 20).unwrap_or(NonZeroU32::MIN)
}

/// The burst comes out of the minute's requests, so that no 60 seconds see more than `rate`.
fn limiter(rate: NonZeroU32, clock: &TokioClock) -> Limiter {
    let burst = burst(rate);
    let steady = NonZeroU32::new(rate.get() + 1 - burst.get()).unwrap_or(NonZeroU32::MIN);
    RateLimiter::direct_with_clock(Quota::per_minute(steady).allow_burst(burst), clock.clone())
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use super::*;

    fn budget(limit: u32) -> Arc<Budget> {
        Arc::new(Budget::new(NonZeroU32::new(limit).unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_sees_more_requests_than_allowed_and_the_rest_is_used() {
        for limit in [1, 2, 7, 60, 2000] {
            let budget = budget(limit);
            let begun = Instant::now();
            let mut recent = VecDeque::new();
            let mut most = 0;
            for _ in 0..limit * 3 {
                budget.turn(Turn::Fetching).await;
                let now = Instant::now();
                recent.push_back(now);
                while recent.front().is_some_and(|at| now - *at >= Duration::from_secs(60)) {
                    recent.pop_front();
                }
                most = most.max(recent.len());
            }
            assert!(most <= limit as usize, "{most} of {limit}");
            assert!(begun.elapsed() < Duration::from_secs(200), "{limit}: {:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn listing_goes_first() {
        let budget = budget(60);
        for _ in 0..3 {
            budget.turn(Turn::Fetching).await;
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for turn in [Turn::Fetching, Turn::Fetching, Turn::Listing, Turn::Fetching, Turn::Listing] {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                budget.turn(turn).await;
                order.lock().unwrap().push(turn);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(order.lock().unwrap()[..2], [Turn::Listing, Turn::Listing]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_gave_up_holds_nobody_up() {
        let budget = budget(60);
        for _ in 0..3 {
            budget.turn(Turn::Fetching).await;
        }
        let listing = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.turn(Turn::Listing).await }
        });
        tokio::task::yield_now().await;
        let fetching = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.turn(Turn::Fetching).await }
        });
        tokio::task::yield_now().await;
        listing.abort();
        tokio::time::timeout(Duration::from_secs(5), fetching).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_api_asks_to_wait_the_whole_tenant_waits() {
        let budget = budget(2000);
        let begun = Instant::now();
        assert_eq!(budget.throttled(begun, Some(Duration::from_secs(40))), Duration::from_secs(40));
        // A shorter wait does not shorten a longer one.
        budget.throttled(begun, Some(Duration::from_secs(1)));
        assert_eq!(budget.paused_for(), Some(Duration::from_secs(40)));
        tokio::join!(budget.turn(Turn::Listing), budget.turn(Turn::Fetching));
        assert!(begun.elapsed() >= Duration::from_secs(40));
        assert_eq!(budget.paused_for(), None);
        assert_eq!(budget.throttled(Instant::now(), Some(Duration::from_secs(999_999))), LONGEST_PAUSE);
        let rate = budget.rate();
        budget.pause(Duration::from_secs(5));
        assert_eq!((budget.rate(), budget.paused_for()), (rate, Some(LONGEST_PAUSE)));
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_the_rate_once_and_it_comes_back_slowly() {
        let budget = budget(2000);
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..8 {
            budget.throttled(sent, Some(Duration::ZERO));
        }
        assert_eq!(budget.rate(), 1000, "eight answers to requests of the same moment are one");
        for _ in 0..10 {
            budget.throttled(Instant::now(), None);
        }
        assert_eq!(budget.rate(), 250);
        budget.answered();
        assert_eq!(budget.rate(), 250);
        let mut steps = 0;
        while budget.rate() < 2000 {
            tokio::time::advance(STEP_UP_AFTER).await;
            budget.answered();
            steps += 1;
        }
        assert_eq!(steps, 18);
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_answer_now_and_then_pauses_and_no_more() {
        let budget = budget(2000);
        for _ in 0..20 {
            for _ in 0..15 {
                tokio::time::advance(Duration::from_millis(30)).await;
                budget.answered();
            }
            let pause = budget.throttled(Instant::now(), None);
            assert!(pause <= Duration::from_secs(1), "{pause:?}");
        }
        assert_eq!(budget.rate(), 2000);
        budget.throttled(Instant::now(), None);
        assert_eq!(budget.rate(), 1000, "twice in a row");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lowered_rate_holds() {
        let budget = budget(2000);
        budget.throttled(Instant::now(), Some(Duration::ZERO));
        let begun = Instant::now();
        for _ in 0..1000 {
            budget.turn(Turn::Fetching).await;
        }
        assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
    }
}
