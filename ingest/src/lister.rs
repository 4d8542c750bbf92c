//! One feed: keeps its subscription, lists it, and records pages and holes.
//!
//! A pass lists what is [planned](crate::plan), window by window and page by page. Every page is recorded as it comes;
//! the watermark moves in the commit of a window's last page (L1), never past what the server's clock says is now, and
//! never to a blob's time. What cannot be listed any more is recorded as a hole (L9). A failure costs this feed a wait
//! and no other feed anything (L11); a repeated pass is harmless, because the ledger knows what it has.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::{FeedKey, HoleReason, TimeRange};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        Action, ActivityApi, AfCode, ApiError, Call, Refusal,
        listing::Page,
        subscriptions::{Started, Subscription},
        urls::PageUri,
    },
    backoff::Backoff,
    collector::Pacing,
    feed_ledger::{CompletedWindow, FeedLedger, FeedState, LedgerFailure, ListedPage},
    health::{Condition, FeedHealth, TenantHealth, Trouble},
    plan::{self, Policy},
    skew::ServerClock,
};

mod refused;

use refused::is_of_times;

/// How often a page that failed in passing is asked for again before the pass is given up.
const PAGE_ATTEMPTS: u32 = 4;

/// How often a window is begun anew before the pass is given up.
const WINDOW_ATTEMPTS: u32 = 10;

/// More pages than any window can have: the server leads in a circle.
const MOST_PAGES: usize = 100_000;

/// How far the watermark of a feed that cannot be listed may fall behind before its hole is recorded.
const LONGEST_UNRECORDED: TimeDelta = TimeDelta::hours(6);

/// How long the first content of a new subscription can take.
const FIRST_CONTENT: Duration = Duration::from_secs(12 * 3600);

/// Listing may take one request in this many while there are blobs to fetch.
const REQUESTS_PER_LISTING: u64 = 50;

/// The longest that a pass is put off for that.
const LONGEST_PUT_OFF: Duration = Duration::from_secs(900);

/// Lists one feed.
pub(crate) struct Lister {
    pub(crate) feed: FeedKey,
    pub(crate) api: Arc<ActivityApi>,
    pub(crate) ledger: Arc<dyn FeedLedger>,
    pub(crate) clock: Arc<ServerClock>,
    pub(crate) tenant: Arc<TenantHealth>,
    pub(crate) health: Arc<FeedHealth>,
    pub(crate) policy: Policy,
    pub(crate) poll_interval: Duration,
    pub(crate) pacing: Pacing,
    pub(crate) subscription: Subscribed,
    pub(crate) begun: Begun,
}

/// When collecting began. The configured start is counted back from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    at: Instant,
    /// By the server's clock, when that was heard of.
    by_server: Option<DateTime<Utc>>,
}

impl Begun {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), by_server: None }
    }

    /// When it was by the server's clock. It is found out once: later readings of a clock are as far apart as answers take.
    fn by(&mut self, clock: &ServerClock) -> DateTime<Utc> {
        let passed = TimeDelta::from_std(self.at.elapsed()).unwrap_or_default();
        self.by_server = self.by_server.or_else(|| clock.known_now().map(|now| now - passed));
        self.by_server.unwrap_or_else(|| clock.now() - passed)
    }
}

/// What is known of the feed's subscription. It outlives a lister that panicked.
#[derive(Debug, Default)]
pub(crate) struct Subscribed {
    enabled: bool,
    /// Set by a start, until the first blob is listed.
    waiting_since: Option<Instant>,
}

/// Why a pass ended early.
#[derive(Debug)]
enum Stop {
    Api(ApiError),
    Ledger(LedgerFailure),
    /// The subscription cannot be started again yet.
    StartLater(Duration),
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<LedgerFailure> for Stop {
    fn from(failure: LedgerFailure) -> Self {
        Self::Ledger(failure)
    }
}

/// What a window's listing belongs to.
#[derive(Debug, Clone, Copy)]
struct Leg {
    span: TimeRange,
    moves_watermark: bool,
    ends_sweep: bool,
}

impl Lister {
    /// Lists until it is cancelled, or, when `once`, until the first complete pass. `passed` is called after each.
    ///
    /// # Errors
    ///
    /// When the ledger failed in a way that waiting cannot help.
    pub(crate) async fn run(
        &mut self,
        once: bool,
        passed: &(dyn Fn() + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), LedgerFailure> {
        let mut failures = 0u32;
        loop {
            let before = (self.health.pages.get(), self.health.listed.get());
            // Dropping a pass is harmless: the ledger either has a page or it has not, and it knows that a subscription is
            // missing before that is changed.
            let ended = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                ended = self.try_pass() => ended,
            };
            let wait = match ended {
                Ok(()) => {
                    failures = 0;
                    self.health.passes.add(1);
                    let well = if self.waits_for_first_content(before.1) {
                        Condition::WaitingForFirstContent
                    } else {
                        Condition::Ok
                    };
                    if self.health.listing.set(well) {
                        tracing::info!(tenant = %self.tenant.name, content_type = %self.feed.content_type, "listing");
                    }
                    passed();
                    if once {
                        return Ok(());
                    }
                    let pages = self.health.pages.get() - before.0;
                    tokio::select! {
                        () = cancel.cancelled() => return Ok(()),
                        () = self.until_next_pass(pages) => continue,
                    }
                }
                Err(Stop::Ledger(failure)) if !failure.passing => return Err(failure),
                Err(stop) => {
                    failures = failures.saturating_add(1);
                    self.failed(stop, failures)
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Waits for the time of the next pass. While blobs wait to be fetched, all feeds' listing together keeps to a
    /// fiftieth of the requests.
    async fn until_next_pass(&self, pages: u64) {
        let begun = Instant::now();
        let fetches = || self.tenant.requests.of(Call::Fetch);
        let enough = fetches() + pages * REQUESTS_PER_LISTING * self.tenant.feeds.len() as u64;
        loop {
            tokio::time::sleep(self.poll_interval).await;
            if !self.tenant.fetcher.backlog() || fetches() >= enough || begun.elapsed() >= LONGEST_PUT_OFF {
                return;
            }
        }
    }

    /// Whether a subscription that was just started has nothing to show for it yet. Its first content may be listed
    /// with times long past: until one pass after it was `listed`, every pass goes back as far as a sweep.
    fn waits_for_first_content(&mut self, listed: u64) -> bool {
        if listed > 0 || self.subscription.waiting_since.is_some_and(|since| since.elapsed() >= FIRST_CONTENT)
        {
            self.subscription.waiting_since = None;
        }
        self.subscription.waiting_since.is_some() && self.health.listed.get() == 0
    }

    /// Says what is wrong, and for how long to leave it alone.
    fn failed(&mut self, stop: Stop, failures: u32) -> Duration {
        let retry = self.pacing.retry_listing.after(failures);
        let (condition, wait) = match stop {
            Stop::Ledger(failure) => (Condition::Failing(Trouble::new(failure.message)), retry),
            Stop::StartLater(wait) => {
                // Somebody else may enable it meanwhile. Until then what the start failed by is what is wrong.
                let wait = wait.min(self.pacing.probe).max(retry);
                if self.health.listing.get().condition.is_trouble() {
                    return wait;
                }
                let error =
                    "the subscription is not enabled, and was started less than 15 minutes ago".to_owned();
                let advice = AfCode::SubscriptionDisabled.advice().to_owned();
                (Condition::Failing(Trouble { error, advice }), wait)
            }
            Stop::Api(error) => {
                let trouble = Trouble::from(&error);
                let retry = retry.max(error.retry_after().unwrap_or_default());
                match error.action() {
                    Action::HaltContentType | Action::HaltTenant => {
                        (Condition::Halted(trouble), self.pacing.probe.max(retry))
                    }
                    Action::StartSubscription => {
                        self.subscription.enabled = false;
                        (Condition::Failing(trouble), retry)
                    }
                    _ => (Condition::Failing(trouble), retry),
                }
            }
        };
        let halted = matches!(condition, Condition::Halted(_));
        if let Condition::Failing(trouble) | Condition::Halted(trouble) = &condition {
            let Trouble { error, advice } = trouble;
            if halted {
                tracing::error!(tenant = %self.tenant.name, content_type = %self.feed.content_type, %error, %advice, again_in = %format_args!("{wait:.0?}"), "listing halted");
            } else {
                tracing::warn!(tenant = %self.tenant.name, content_type = %self.feed.content_type, %error, %advice, again_in = %format_args!("{wait:.0?}"), "listing failed");
            }
        }
        self.health.listing.set(condition);
        wait
    }

    async fn try_pass(&mut self) -> Result<(), Stop> {
        let passed = self.pass().await;
        if let Err(Stop::Api(error)) = &passed
            && error.action() == Action::StartSubscription
        {
            let state = self.ledger.feed_state(self.feed).await?;
            // Who started it again meanwhile, if anybody, does not matter: what is between a stop and a start is not kept.
            // Only after a start of our own not every server knows of it at once.
            if self.until_next_start(state).is_none() {
                self.note_unsubscribed(state).await?;
            }
        }
        passed
    }

    async fn pass(&mut self) -> Result<(), Stop> {
        self.ensure_subscription().await?;
        let mut state = self.ledger.feed_state(self.feed).await?;
        if state.unsubscribed {
            self.subscribed_again(&mut state).await?;
            // Whatever can be had of it is listed at once.
            state.swept_at = None;
        }
        if self.subscription.waiting_since.is_some() {
            state.swept_at = None;
        }
        let plan = plan::pass(state, self.clock.now(), self.begun.by(&self.clock), &self.policy);
        if let Some(hole) = plan.hole {
            self.record_hole(hole, HoleReason::TooOld).await?;
            state.watermark = Some(hole.end);
        }
        if let Some(span) = plan.fresh {
            let leg = Leg { span, moves_watermark: true, ends_sweep: plan.fresh_is_sweep };
            self.list(leg, &mut state).await?;
        }
        if let Some(span) = plan.sweep {
            let leg = Leg { span, moves_watermark: false, ends_sweep: true };
            self.list(leg, &mut state).await?;
        }
        Ok(())
    }

    /// Sees to it that the subscription is enabled: it is started only when the API says that it is not.
    async fn ensure_subscription(&mut self) -> Result<(), Stop> {
        if self.subscription.enabled {
            return Ok(());
        }
        let found = self.api.subscriptions().await?.of(self.feed.content_type);
        if found != Subscription::Enabled {
            self.start_subscription(found).await?;
        }
        self.subscription.enabled = true;
        Ok(())
    }

    async fn start_subscription(&mut self, found: Subscription) -> Result<(), Stop> {
        let state = self.ledger.feed_state(self.feed).await?;
        // Durable before it is started: afterwards nobody sees any more that it was not.
        self.note_unsubscribed(state).await?;
        if let Some(wait) = self.until_next_start(state) {
            return Err(Stop::StartLater(wait));
        }
        // Durable as well: another process must not start it soon after.
        self.ledger.starting(self.feed, self.clock.now()).await?;
        self.health.starts.add(1);
        tracing::info!(tenant = %self.tenant.name, content_type = %self.feed.content_type, ?found, "starting the subscription");
        match self.api.start_subscription(self.feed.content_type).await {
            Ok(Started::Before) => {
                if !state.unsubscribed {
                    tracing::info!(feed = %self.feed, "the subscription was enabled all the time");
                    self.ledger.subscribed_again(self.feed, None).await?;
                }
                Ok(())
            }
            Ok(Started::Now) => {
                self.subscription.waiting_since = Some(Instant::now());
                Ok(())
            }
            Err(error) => {
                // Who asks for the account meanwhile has to see it.
                if let Some(lost) = self.lost(state)
                    && lost.length() >= LONGEST_UNRECORDED
                {
                    self.record_hole(lost, HoleReason::SubscriptionDisabled).await?;
                }
                Err(error.into())
            }
        }
    }

    /// How long the subscription must not be started again; `None` when it may be.
    fn until_next_start(&self, state: FeedState) -> Option<Duration> {
        until_next_start(state.started_at?, self.clock.now(), self.pacing.between_starts)
    }

    /// Makes it durable that there is no subscription, of a feed that something was listed of.
    async fn note_unsubscribed(&self, state: FeedState) -> Result<(), LedgerFailure> {
        if state.watermark.is_some() && !state.unsubscribed {
            self.ledger.unsubscribed(self.feed).await?;
        }
        Ok(())
    }

    /// Records what was lost while there was no subscription, once there is one again. Only content that can be listed proves
    /// that: after a stop and a start the service may go on refusing it for long.
    async fn subscribed_again(&self, state: &mut FeedState) -> Result<(), Stop> {
        let now = plan::whole_second(self.clock.now());
        self.page(TimeRange { start: now - TimeDelta::minutes(1), end: now }, None).await?;
        let lost = self.lost(*state);
        self.ledger.subscribed_again(self.feed, lost).await?;
        if let Some(span) = lost {
            self.hole_recorded(span, HoleReason::SubscriptionDisabled);
            state.watermark = Some(span.end);
        }
        Ok(())
    }

    /// The time since the watermark, in which nothing was kept.
    fn lost(&self, state: FeedState) -> Option<TimeRange> {
        let now = plan::whole_second(self.clock.now());
        let start = state.watermark.filter(|watermark| *watermark < now)?;
        Some(TimeRange { start, end: now })
    }

    async fn record_hole(&self, span: TimeRange, reason: HoleReason) -> Result<(), LedgerFailure> {
        self.ledger.record_hole(self.feed, span, reason).await?;
        self.hole_recorded(span, reason);
        Ok(())
    }

    fn hole_recorded(&self, span: TimeRange, reason: HoleReason) {
        self.health.holes.add(1);
        tracing::error!(tenant = %self.tenant.name, content_type = %self.feed.content_type, %span, %reason, "what this time held cannot all be had: recorded as a hole");
    }

    async fn list(&self, leg: Leg, state: &mut FeedState) -> Result<(), Stop> {
        let mut cursor = leg.span.start;
        let mut begun = 0;
        // Pages that lead nowhere are got round by windows with fewer of them.
        let mut halvings = 0u32;
        while let Some(window) = plan::next_window(cursor, leg.span.end, halvings) {
            begun += 1;
            match self.list_window(window, leg, state).await {
                Ok(()) => {
                    cursor = window.end;
                    begun = 0;
                    halvings = halvings.saturating_sub(1);
                }
                Err(Stop::Api(ApiError::WindowTooOld)) => {
                    self.skip_too_old(window, leg, state).await?;
                    cursor = window.end;
                    begun = 0;
                }
                // Times are computed anew when it is sent, by what the refusal said of the server's clock.
                Err(Stop::Api(error))
                    if error.action() == Action::RestartWindow && begun < WINDOW_ATTEMPTS =>
                {
                    let of_times = is_of_times(&error);
                    if matches!(error, ApiError::ForeignPage { .. } | ApiError::PageLoop { .. }) {
                        tracing::error!(tenant = %self.tenant.name, content_type = %self.feed.content_type, %window, %error, advice = error.advice(), "window begun anew");
                    } else {
                        tracing::warn!(tenant = %self.tenant.name, content_type = %self.feed.content_type, %window, %error, "window begun anew");
                    }
                    self.health.listing.note(Trouble::from(&error));
                    halvings += u32::from(!of_times);
                    tokio::time::sleep(self.pacing.retry_page.after(begun)).await;
                }
                Err(Stop::Api(error)) if is_of_times(&error) => {
                    let listable = self.behind_refused(cursor, leg, error).await?;
                    self.skip_refused(TimeRange { start: cursor, end: listable }, leg, state).await?;
                    cursor = listable;
                    begun = 0;
                }
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    /// A window grew too old while it waited. What of it nobody listed before is a hole.
    async fn skip_too_old(&self, span: TimeRange, leg: Leg, state: &mut FeedState) -> Result<(), Stop> {
        let Some(watermark) = state.watermark.filter(|_| leg.moves_watermark) else { return Ok(()) };
        let hole = TimeRange { start: span.start.max(watermark), end: span.end };
        if !hole.is_empty() {
            self.record_hole(hole, HoleReason::TooOld).await?;
            state.watermark = Some(hole.end);
        }
        Ok(())
    }

    /// Lists a window from its first page to its last.
    async fn list_window(&self, wanted: TimeRange, leg: Leg, state: &mut FeedState) -> Result<(), Stop> {
        let mut seen = HashSet::new();
        let mut next: Option<PageUri> = None;
        let mut window = wanted;
        let mut now: Option<DateTime<Utc>> = None;
        loop {
            let Page { blobs, unusable, nameless, next: following, window: asked, server_time } =
                self.page(window, next.as_ref()).await?;
            if next.is_none() {
                if asked.start > wanted.start {
                    self.skip_too_old(TimeRange { start: wanted.start, end: asked.start }, leg, state)
                        .await?;
                }
                window = asked;
                now = server_time;
            }
            if let Some(page) = &following {
                let mut hasher = DefaultHasher::new();
                page.hash(&mut hasher);
                if !seen.insert(hasher.finish()) || seen.len() > MOST_PAGES {
                    return Err(ApiError::PageLoop { pages: seen.len() }.into());
                }
            }
            // Before the page is recorded: the watermark must not pass what is known to be there and cannot be had.
            if let Some(span) = nameless
                && self.ledger.record_nameless(self.feed, span, window.without(&[span]).is_empty()).await?
            {
                self.hole_recorded(span, HoleReason::NamesNoBlob);
            }
            let completes = following.is_none().then(|| completed(window, leg, now));
            let listed = blobs.len();
            let new = self.ledger.record_page(ListedPage { feed: self.feed, blobs, completes }).await?;
            self.health.found(listed, new);
            self.health.unusable.add(unusable as u64);
            if let Some(completed) = completes {
                state.watermark = state.watermark.max(completed.watermark);
                if completed.swept_at.is_some() {
                    self.health.sweeps.add(1);
                }
                return Ok(());
            }
            next = following;
        }
    }

    /// Asks for a page, again when that failed in passing.
    async fn page(&self, window: TimeRange, page: Option<&PageUri>) -> Result<Page, ApiError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.api.list(self.feed.content_type, window, page).await {
                Err(error)
                    if attempt < PAGE_ATTEMPTS
                        && matches!(
                            error.action(),
                            Action::Retry | Action::Throttle | Action::RefreshToken
                        )
                        && !matches!(error, ApiError::TooLarge { .. }) =>
                {
                    tracing::debug!(tenant = %self.tenant.name, content_type = %self.feed.content_type, %error, "page asked for again");
                    self.health.listing.note(Trouble::from(&error));
                    // The budget already waits out a throttling.
                    if error.action() != Action::Throttle {
                        tokio::time::sleep(self.pacing.retry_page.after(attempt)).await;
                    }
                }
                other => return other.map_err(not_of_a_blob),
            }
        }
    }
}

/// Codes that speak of one blob mean nothing in a listing but that it should be asked for again.
fn not_of_a_blob(error: ApiError) -> ApiError {
    match error {
        ApiError::Refused(Refusal { action: Action::Gap(_) | Action::SuspectContentId, .. }) => {
            let ApiError::Refused(refusal) = error else { return error };
            ApiError::Refused(Refusal { action: Action::Retry, ..refusal })
        }
        other => other,
    }
}

/// How long after a start at `started` none must follow. The server's clocks differ a little: what lies as far ahead as one
/// waits is just now; a time beyond that was noted by a clock that was wrong, and must not be waited for.
fn until_next_start(started: DateTime<Utc>, now: DateTime<Utc>, between: Duration) -> Option<Duration> {
    let passed = match (now - started).to_std() {
        Ok(passed) => passed,
        Err(_) if (started - now).to_std().is_ok_and(|ahead| ahead <= between) => Duration::ZERO,
        Err(_) => return None,
    };
    between.checked_sub(passed).filter(|wait| !wait.is_zero())
}

/// What a window's last page completes. Nothing after the server's time at its first page is believed to be complete.
fn completed(window: TimeRange, leg: Leg, now: Option<DateTime<Utc>>) -> CompletedWindow {
    let end = now.map_or(window.end, |now| window.end.min(now));
    let listed = TimeRange { start: window.start, end: end.max(window.start) };
    let last = window.end >= leg.span.end;
    CompletedWindow {
        window: listed,
        watermark: (leg.moves_watermark && !listed.is_empty()).then_some(listed.end),
        swept_at: (leg.ends_sweep && last).then(|| now.unwrap_or(leg.span.end)),
    }
}

/// The waits between passes that fail: from seconds to minutes.
pub(crate) const RETRY_LISTING: Backoff =
    Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        "2026-03-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::hours(hour)
    }

    fn leg(start: i64, end: i64) -> Leg {
        Leg { span: TimeRange { start: at(start), end: at(end) }, moves_watermark: true, ends_sweep: true }
    }

    #[test]
    fn the_watermark_goes_to_the_windows_end_but_never_past_the_servers_time() {
        let window = TimeRange { start: at(0), end: at(24) };
        let done = completed(window, leg(0, 24), Some(at(30)));
        assert_eq!((done.watermark, done.swept_at), (Some(at(24)), Some(at(30))));
        // The local clock ran ahead and the server's was not known when the window was made.
        let done = completed(window, leg(0, 24), Some(at(21)));
        assert_eq!((done.watermark, done.window.end), (Some(at(21)), at(21)));
        let done = completed(window, leg(0, 24), Some(at(-3)));
        assert_eq!((done.watermark, done.window.is_empty()), (None, true));
        let done = completed(window, leg(0, 48), None);
        assert_eq!((done.watermark, done.swept_at), (Some(at(24)), None));
    }

    #[test]
    fn between_two_starts_lies_the_time_that_is_asked_for() {
        let between = Duration::from_secs(900);
        let wait = |seconds| until_next_start(at(5), at(5) + TimeDelta::seconds(seconds), between);
        assert_eq!((wait(0), wait(899)), (Some(between), Some(Duration::from_secs(1))));
        assert_eq!((wait(900), wait(5000)), (None, None));
        assert_eq!((wait(-3), wait(-900)), (Some(between), Some(between)), "another server's clock");
        assert_eq!(wait(-901), None, "a clock that was wrong");
    }

    #[test]
    fn a_sweep_leaves_the_watermark_alone() {
        let window = TimeRange { start: at(0), end: at(24) };
        let sweep = Leg { moves_watermark: false, ..leg(0, 24) };
        assert_eq!(completed(window, sweep, Some(at(50))).watermark, None);
    }
}
