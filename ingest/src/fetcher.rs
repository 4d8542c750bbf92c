//! One tenant's fetcher: claims blobs that are due and streams their bodies into the ledger.
//!
//! A few blobs are fetched at once, each in a task of its own. What fails is due again after a growing wait that the
//! ledger keeps; only AF20050, AF20051 and a passed expiry make a gap. A panic costs one attempt of one blob. When the
//! API does not know several content ids in a row that it listed itself, that content type is halted and probed slowly,
//! because another cloud or tenant is being asked; the others go on (L11).

use std::{
    any::Any,
    collections::VecDeque,
    num::NonZeroUsize,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use futures_util::FutureExt;
use schemas::{ContentType, GapReason, TenantId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Action, ActivityApi, ApiError, body::Body, codes},
    backoff::Backoff,
    collector::Pacing,
    feed_ledger::{BodyError, FeedLedger, FetchLease, Finishing, LedgerFailure, Spooled},
    gates::Gates,
    health::{Condition, TenantHealth, Trouble},
    intake::{FetchError, Parcel, take_body},
    places::{Large, Place, TenantPlaces},
    skew::ServerClock,
};

/// Bytes that are handed over at once. Most bodies are smaller and cost one change of threads.
const FIRST_PARCEL: usize = 256 << 10;

/// The same for what follows in a larger one. It holds three parcels at most: one that fills, one that waits and one that is
/// worked on (L8).
const PARCEL: usize = 64 << 10;

/// How many times as many bodies may wait to be durable as may be on the wire. Bodies that wait together are made
/// durable together, which costs as much as making one durable.
const WAITING: usize = 1;

/// How many large bodies that wait for their turn leave their places under way to others.
const ASIDE: usize = 64;

/// The longest wait for news of blobs that are due.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// How often a throttled fetch is repeated before its blob makes room for others.
const THROTTLED_ATTEMPTS: u32 = 3;

/// How long after its expiry a blob that nobody answers for is still tried. The ledger must not give it up sooner.
pub const BEYOND_EXPIRY: TimeDelta = TimeDelta::hours(24);

/// How long a body that is too large, or a page of something on the way, is left alone.
const NEXT_DAY: TimeDelta = TimeDelta::hours(24);

/// The waits of one blob that fails: from a second to a quarter of an hour.
pub(crate) const RETRY_BLOB: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(900) };

/// Fetches one tenant's blobs.
pub(crate) struct Fetcher {
    pub(crate) tenant: TenantId,
    pub(crate) api: Arc<ActivityApi>,
    pub(crate) ledger: Arc<dyn FeedLedger>,
    pub(crate) clock: Arc<ServerClock>,
    pub(crate) health: Arc<TenantHealth>,
    pub(crate) concurrency: NonZeroUsize,
    /// One permit for each body that may be on the wire.
    pub(crate) wires: Arc<Semaphore>,
    /// What bodies have while they come, among those of all tenants.
    pub(crate) places: TenantPlaces,
    /// Large bodies that wait for their turn.
    pub(crate) aside: AtomicUsize,
    pub(crate) blob_max_bytes: u64,
    pub(crate) pacing: Pacing,
    pub(crate) gates: Gates,
    /// Cancelled when it stops.
    pub(crate) stop: CancellationToken,
}

/// What a task found out that concerns more than its blob.
type Ended = Result<(), LedgerFailure>;

impl Fetcher {
    /// Fetches until it is cancelled; then lets what is under way come to its end for a little while.
    ///
    /// # Errors
    ///
    /// When the ledger failed in a way that waiting cannot help.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), LedgerFailure> {
        let mut running: JoinSet<Ended> = JoinSet::new();
        let mut claimed: VecDeque<FetchLease> = VecDeque::new();
        let ended = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            ended = self.fetch_all(&mut running, &mut claimed) => ended,
        };
        // Leases that were not begun are due again.
        drop(claimed);
        let drained = tokio::time::timeout(self.pacing.grace, async {
            while let Some(joined) = running.join_next().await {
                if let Ok(Err(failure)) = joined {
                    tracing::warn!(tenant = %self.health.name, error = %failure, "while stopping");
                }
            }
        });
        if drained.await.is_err() {
            tracing::info!(tenant = %self.health.name, bodies = running.len(), "bodies under way are dropped; they are fetched again");
        }
        running.shutdown().await;
        self.health.fetcher.set_in_flight(0);
        ended
    }

    async fn fetch_all(
        self: &Arc<Self>,
        running: &mut JoinSet<Ended>,
        claimed: &mut VecDeque<FetchLease>,
    ) -> Result<(), LedgerFailure> {
        loop {
            while let Some(wire) = self.free_wire(running)
                && let Some(lease) = claimed.pop_front()
            {
                let fetcher = Arc::clone(self);
                running.spawn(async move { fetcher.fetch(lease, wire).await });
            }
            self.health.fetcher.set_in_flight(running.len());
            if self.free_wire(running).is_none() {
                tokio::select! {
                    Some(joined) = running.join_next() => end_of(joined)?,
                    wire = self.wires.acquire(), if running.len() < self.most_under_way() => drop(wire),
                }
                continue;
            }
            if let Some(wait) = self.gates.paused() {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    Some(joined) = running.join_next() => end_of(joined)?,
                }
                continue;
            }
            let want = self.concurrency.get() * 2;
            match self.ledger.claim_fetches(self.tenant, want).await {
                Ok(leases) => {
                    self.health.fetcher.set_backlog(leases.len() >= want);
                    self.claimed();
                    claimed.extend(leases);
                }
                Err(failure) if failure.passing => {
                    self.gates.claims(false);
                    self.breathe(Trouble::new(failure.message));
                }
                Err(failure) => return Err(failure),
            }
            if claimed.is_empty() {
                tokio::select! {
                    () = self.ledger.fetches_may_be_due(self.tenant, LONGEST_IDLE) => {}
                    Some(joined) = running.join_next() => end_of(joined)?,
                }
            }
        }
    }

    fn most_under_way(&self) -> usize {
        let aside = self.aside.load(Ordering::Relaxed).min(ASIDE);
        self.concurrency.get().saturating_mul(1 + WAITING) + aside
    }

    /// A permit for one more body, unless there are enough under way.
    fn free_wire(&self, running: &JoinSet<Ended>) -> Option<OwnedSemaphorePermit> {
        if running.len() >= self.most_under_way() {
            return None;
        }
        Arc::clone(&self.wires).try_acquire_owned().ok()
    }

    /// The ledger gives out leases: that is all it takes to be well while nothing is due.
    fn claimed(&self) {
        let recovered = self.gates.claims(true);
        if recovered || self.health.fetcher.status.get().condition == Condition::Starting {
            self.health.fetcher.status.set(Condition::Ok);
        }
    }

    /// One attempt at one blob, and what becomes of it.
    async fn fetch(&self, lease: FetchLease, wire: OwnedSemaphorePermit) -> Ended {
        let content_type = lease.blob.feed.content_type;
        if let Some(wait) = self.gates.held_back(content_type, self.pacing.probe) {
            let wait = wait + self.pacing.retry_blob.after(1);
            let why = format!("{content_type} is halted: {}", codes::AfCode::InvalidContentId.advice());
            return self.try_later(lease, wait, why).await;
        }
        // The lease stays out here: a panic must not make the blob due again at once.
        let attempt = AssertUnwindSafe(self.attempt(&lease, wire)).catch_unwind().await;
        match attempt.unwrap_or_else(|panic| Err(FetchError::Panicked { message: panic_message(&*panic) })) {
            Ok(spooled) => {
                self.went_well(content_type, &spooled);
                Ok(())
            }
            Err(error) => self.failed(lease, error).await,
        }
    }

    /// Fetches a body and waits until it is durable. The wire is free for the next one as soon as all of it came.
    async fn attempt(&self, lease: &FetchLease, wire: OwnedSemaphorePermit) -> Result<Spooled, FetchError> {
        let mut throttled = 0;
        let mut wire = Some(wire);
        let (finishing, place) = loop {
            let large = match wire {
                Some(_) => None,
                None => Some(self.turn_of_a_large_body().await?),
            };
            match self.take(lease, large).await {
                // The next turn comes when the pause is over.
                Err(FetchError::Api(error))
                    if error.action() == Action::Throttle && throttled < THROTTLED_ATTEMPTS =>
                {
                    throttled += 1;
                }
                // It is asked for again beside the wires, so that small bodies need not wait for large ones.
                Err(FetchError::Outgrown) => wire = None,
                taken => break taken?,
            }
        };
        drop(wire);
        let spooled = finishing.await?;
        drop(place);
        Ok(spooled)
    }

    /// Waits until no other large body is being taken in.
    async fn turn_of_a_large_body(&self) -> Result<Large, FetchError> {
        let _aside = Aside::begin(&self.aside);
        let turn = async {
            loop {
                let large = self.places.large().await;
                // Other tenants need not wait for the end of a pause of this one.
                let Some(wait) = self.api.budget.paused_for() else { return large };
                drop(large);
                tokio::time::sleep(wait).await;
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => Err(FetchError::Stopped),
            large = turn => Ok(large),
        }
    }

    /// Asks for a body once and takes it in. What came of the request is known at the body's end: the API may say within it
    /// that there were too many.
    async fn take(&self, lease: &FetchLease, large: Option<Large>) -> Result<(Finishing, Place), FetchError> {
        // What waits for its turn or its answer has nothing to lose; a body that comes may come to its end.
        let (body, sent) = tokio::select! {
            () = self.stop.cancelled() => return Err(FetchError::Stopped),
            answer = self.api.fetch(&lease.blob.content_id) => answer?,
        };
        let mut taken = self.take_in(lease, body, large).await;
        let error = match &mut taken {
            Err(FetchError::Api(error)) => Some(error),
            _ => None,
        };
        self.api.came_to(sent, error);
        taken
    }

    async fn take_in(
        &self,
        lease: &FetchLease,
        mut body: Body,
        large: Option<Large>,
    ) -> Result<(Finishing, Place), FetchError> {
        // Only now, because an answer may be long in coming: until then a body takes no memory.
        let place = match large {
            Some(large) => self.places.for_large(large),
            None => tokio::select! {
                () = self.stop.cancelled() => return Err(FetchError::Stopped),
                place = self.places.ordinary() => place,
            },
        };
        body.begin();
        let (sender, receiver) = mpsc::channel(1);
        // What is there already is sent ahead: the other half of a small body's fetch never waits.
        let parcel = self.parcel(&mut body, FIRST_PARCEL).await?;
        let mut last = parcel.last;
        let mut listening = sender.send(parcel).await.is_ok();
        let writer = self.ledger.body_writer(lease, self.clock.now());
        let (packing, limit) = (body.packing(), self.blob_max_bytes);
        let intake = tokio::task::spawn_blocking(move || take_body(receiver, writer, place, packing, limit));
        // The intake is gone when sending fails: it says why.
        while listening && !last {
            let parcel = self.parcel(&mut body, PARCEL).await?;
            last = parcel.last;
            listening = sender.send(parcel).await.is_ok();
        }
        drop(sender);
        match intake.await {
            Ok(taken) => taken,
            Err(error) if error.is_panic() => {
                Err(FetchError::Panicked { message: panic_message(&*error.into_panic()) })
            }
            Err(_) => Err(FetchError::Abandoned),
        }
    }

    /// The next bytes of a body, about as many as are handed over at once.
    async fn parcel(&self, body: &mut Body, enough: usize) -> Result<Parcel, ApiError> {
        let mut parts = Vec::new();
        let mut bytes = 0;
        while bytes < enough {
            let Some(chunk) = body.chunk().await? else { return Ok(Parcel { parts, last: true }) };
            self.health.fetcher.wire_bytes.add(chunk.len() as u64);
            bytes += chunk.len();
            parts.push(chunk);
        }
        Ok(Parcel { parts, last: false })
    }

    fn went_well(&self, content_type: ContentType, spooled: &Spooled) {
        let health = &self.health.fetcher;
        health.fetched.add(1);
        health.records.add(u64::from(spooled.records));
        health.duplicates.add(u64::from(spooled.duplicates));
        health.bytes.add(spooled.bytes);
        self.reached();
        if let Some(feed) = self.health.feed(content_type)
            && feed.fetching.set(Condition::Ok)
        {
            tracing::info!(tenant = %self.health.name, content_type = %feed.feed.content_type, "fetching");
        }
        self.gates.open(content_type);
    }

    /// The API answers: whatever ails a blob, the fetcher as a whole is well.
    fn reached(&self) {
        self.gates.reached();
        self.health.fetcher.status.set(Condition::Ok);
    }

    async fn failed(&self, lease: FetchLease, error: FetchError) -> Ended {
        let is_none = matches!(
            error,
            FetchError::Stopped | FetchError::Outgrown | FetchError::Body(BodyError::Unwanted)
        );
        if !is_none {
            self.health.fetcher.failed.add(1);
        }
        let feed = lease.blob.feed;
        let retry = self.pacing.retry_blob.after(lease.attempts.saturating_add(1));
        match error {
            FetchError::Api(error) => self.refused(lease, error, retry).await,
            FetchError::Body(BodyError::Ledger(failure)) => {
                tracing::warn!(tenant = %self.health.name, blob = %lease.blob.content_id, error = %failure, "the ledger did not take a body");
                if !failure.passing {
                    return Err(failure);
                }
                // Nothing is wrong with the blob: its lease is dropped, and it is due again when there is room.
                self.breathe(Trouble::new(failure.message));
                Ok(())
            }
            FetchError::Body(BodyError::Quarantined { times, cause }) => {
                self.health.fetcher.quarantined.add(1);
                tracing::error!(tenant = %self.health.name, blob = %lease.blob.content_id, times, %cause, "a blob's body is broken: quarantined, with its bytes");
                Ok(())
            }
            FetchError::Body(BodyError::Unwanted) => {
                tracing::info!(tenant = %self.health.name, blob = %lease.blob.content_id, "a body came that nobody wants any more");
                Ok(())
            }
            FetchError::Body(error @ BodyError::Split(_)) => {
                tracing::warn!(tenant = %self.health.name, blob = %lease.blob.content_id, %error, "a body was broken; it is fetched again");
                self.note(feed.content_type, Trouble::new(error.to_string()));
                self.try_later_or_gap(lease, retry, error.to_string(), false).await
            }
            FetchError::Panicked { message } => {
                self.health.fetcher.panics.add(1);
                match self.ledger.panicked(&lease, message.clone()).await {
                    Ok(true) => {
                        self.health.fetcher.quarantined.add(1);
                        return Ok(());
                    }
                    Err(failure) if !failure.passing => return Err(failure),
                    Ok(false) | Err(_) => {}
                }
                let error = FetchError::Panicked { message }.to_string();
                tracing::error!(tenant = %self.health.name, blob = %lease.blob.content_id, %error, "fetching a blob panicked");
                self.note(feed.content_type, Trouble::new(error.clone()));
                self.try_later(lease, retry, error).await
            }
            // Its lease is dropped, and the blob due again.
            FetchError::Stopped | FetchError::Outgrown => Ok(()),
            FetchError::Abandoned => self.try_later(lease, retry, error.to_string()).await,
        }
    }

    /// What an answer of the API, or none, means for the blob and for the rest.
    async fn refused(&self, lease: FetchLease, error: ApiError, retry: Duration) -> Ended {
        let content_type = lease.blob.feed.content_type;
        let trouble = Trouble::from(&error);
        let message = error.to_string();
        let retry = retry.max(error.retry_after().unwrap_or_default());
        tracing::debug!(tenant = %self.health.name, blob = %lease.blob.content_id, error = %message, attempts = lease.attempts, "fetch failed");
        match error.action() {
            Action::Gap(reason) => {
                self.reached();
                return self.gap(lease, reason, &message).await;
            }
            Action::SuspectContentId => {
                self.suspect(content_type, trouble);
                return self.try_later_or_gap(lease, retry, message, true).await;
            }
            Action::HaltContentType => {
                self.halt(content_type, trouble);
                return self.try_later_or_gap(lease, self.pacing.probe, message, false).await;
            }
            Action::HaltTenant => {
                self.pause_all(self.pacing.probe, Condition::Halted(trouble));
                // The blob has nothing to do with it: its lease is dropped.
                return Ok(());
            }
            _ => {}
        }
        if error.answered() {
            self.reached();
        }
        match error {
            ApiError::TooLarge { .. } => {
                tracing::error!(tenant = %self.health.name, blob = %lease.blob.content_id, error = %message, advice = error.advice(), "a blob is too large");
                self.note(content_type, trouble);
                let day = NEXT_DAY.to_std().unwrap_or(retry);
                self.try_later_or_gap(lease, day, message, true).await
            }
            ApiError::BlobContinues => {
                tracing::error!(tenant = %self.health.name, blob = %lease.blob.content_id, error = %message, advice = error.advice(), "a blob comes in several pages");
                self.reached();
                self.note(content_type, trouble);
                self.try_later_or_gap(lease, retry, message, true).await
            }
            _ if error.answered() => {
                self.note(content_type, trouble);
                self.try_later_or_gap(lease, retry, message, false).await
            }
            _ => {
                // A bare 404 and a damaged body speak of the blob; anything else may be anybody's fault.
                self.note(content_type, trouble.clone());
                self.breathe_if_often(trouble);
                self.try_later_or_gap(lease, retry, message, is_of_the_blob(&error)).await
            }
        }
    }

    async fn gap(&self, lease: FetchLease, reason: GapReason, why: &str) -> Ended {
        let blob = lease.blob.content_id.clone();
        let recorded = self.ledger.gap(lease, reason).await;
        match recorded {
            Ok(true) => {
                self.health.fetcher.gaps.add(1);
                tracing::error!(tenant = %self.health.name, %blob, %reason, why, "a blob can no longer be had: recorded as a gap");
            }
            Ok(false) => {
                tracing::info!(tenant = %self.health.name, %blob, %reason, why, "a blob cannot be fetched again, and need not: its records were delivered or given up meanwhile");
            }
            Err(_) => {}
        }
        or_try_again(recorded.map(drop))
    }

    /// Tries again later, unless the blob has expired by the server's clock. `about_blob`: the API has just said
    /// something about this very blob, so that there is no doubt that it was asked in time.
    async fn try_later_or_gap(
        &self,
        lease: FetchLease,
        wait: Duration,
        why: String,
        about_blob: bool,
    ) -> Ended {
        let grace = if about_blob { TimeDelta::zero() } else { BEYOND_EXPIRY };
        match self.clock.known_now() {
            Some(now) if now >= lease.expires + grace => self.gap(lease, GapReason::ExpiryPassed, &why).await,
            Some(now) if now < lease.expires => {
                // However long the wait, the blob is tried once more before it expires.
                let last_chance = (lease.expires - now).to_std().unwrap_or(wait).mul_f32(0.9);
                self.try_later(lease, wait.min(last_chance).max(self.pacing.retry_blob.first), why).await
            }
            _ => self.try_later(lease, wait, why).await,
        }
    }

    /// The ledger's waits go by the local clock.
    async fn try_later(&self, lease: FetchLease, wait: Duration, why: String) -> Ended {
        let wait = TimeDelta::from_std(wait).unwrap_or(NEXT_DAY);
        or_try_again(self.ledger.fetch_failed(lease, Utc::now() + wait, why).await)
    }

    fn suspect(&self, content_type: ContentType, trouble: Trouble) {
        let halted = self.gates.suspect(content_type);
        self.reached();
        if halted { self.halt(content_type, trouble) } else { self.note(content_type, trouble) }
    }

    fn halt(&self, content_type: ContentType, trouble: Trouble) {
        self.gates.halt(content_type, self.pacing.probe);
        if let Some(feed) = self.health.feed(content_type) {
            let Trouble { error, advice } = trouble.clone();
            if feed.fetching.set(Condition::Halted(trouble)) {
                tracing::error!(tenant = %self.health.name, content_type = %feed.feed.content_type, %error, %advice, "fetching halted");
            }
        }
    }

    fn note(&self, content_type: ContentType, trouble: Trouble) {
        if let Some(feed) = self.health.feed(content_type) {
            feed.fetching.note(trouble);
        }
    }

    /// Counts a failure that may be anybody's, and pauses the fetcher when there are many.
    fn breathe_if_often(&self, trouble: Trouble) {
        if let Some(times) = self.gates.failed() {
            self.pause_all(self.pacing.breath.after(times), Condition::Failing(trouble));
        }
    }

    /// The ledger failed in passing: each further try may fetch a body in vain, so the pauses grow.
    fn breathe(&self, trouble: Trouble) {
        let wait = self.pacing.breath.after(self.gates.ledger_failed());
        self.pause_all(wait, Condition::Failing(trouble));
    }

    fn pause_all(&self, wait: Duration, condition: Condition) {
        self.gates.pause(wait);
        let (Condition::Failing(trouble) | Condition::Halted(trouble)) = &condition else { return };
        let Trouble { error, advice } = trouble.clone();
        if self.health.fetcher.status.set(condition) {
            tracing::error!(tenant = %self.health.name, %error, %advice, again_in = %format_args!("{wait:.0?}"), "fetching is paused");
        }
    }
}

/// A large body that waits for its turn, counted for as long as this lives.
struct Aside<'a>(&'a AtomicUsize);

impl<'a> Aside<'a> {
    fn begin(aside: &'a AtomicUsize) -> Self {
        aside.fetch_add(1, Ordering::Relaxed);
        Self(aside)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a failure without the API's code still says something about the blob that was asked for.
fn is_of_the_blob(error: &ApiError) -> bool {
    match error {
        ApiError::Refused(refusal) => refusal.status == reqwest::StatusCode::NOT_FOUND,
        ApiError::Damaged { .. } | ApiError::UnusableContentId => true,
        _ => false,
    }
}

/// A lease that the ledger did not settle is due again: that is all that a passing failure costs.
fn or_try_again(settled: Result<(), LedgerFailure>) -> Ended {
    match settled {
        Err(failure) if failure.passing => {
            tracing::warn!(error = %failure, "the ledger did not record a fetch's end");
            Ok(())
        }
        other => other,
    }
}

fn end_of(joined: Result<Ended, tokio::task::JoinError>) -> Ended {
    match joined {
        Ok(ended) => ended,
        Err(error) => {
            // Panics of an attempt are caught within; this one is in the bookkeeping, and its lease is due again.
            tracing::error!(%error, "a fetch task ended badly");
            Ok(())
        }
    }
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
