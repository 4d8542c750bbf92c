//! What is going on in one tenant, for status, metrics and `/readyz`. Written by the lister and the fetcher, read by
//! anybody at any time; nothing here decides anything.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::{ContentType, FeedKey, TenantId};

use crate::{
    api::{ApiError, Call},
    budget::Budget,
    grants::Grants,
    skew::ServerClock,
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }
}

/// How something is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It has not done anything yet.
    Starting,
    /// All is well.
    Ok,
    /// The subscription was just started; its first content can take 12 hours (Office 365 Management Activity API
    /// reference, "Start a subscription").
    WaitingForFirstContent,
    /// It fails, and is tried again soon.
    Failing(Trouble),
    /// It fails until somebody changes something; it is tried again now and then.
    Halted(Trouble),
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The error.
    pub error: String,
    /// What to do about it; empty when waiting is all.
    pub advice: String,
}

impl Trouble {
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), advice: String::new() }
    }
}

impl From<&ApiError> for Trouble {
    fn from(error: &ApiError) -> Self {
        Self { error: error.to_string(), advice: error.advice() }
    }
}

impl Condition {
    /// Whether it fails or is halted.
    #[must_use]
    pub const fn is_trouble(&self) -> bool {
        matches!(self, Self::Failing(_) | Self::Halted(_))
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::WaitingForFirstContent => 1,
            Self::Starting => 2,
            Self::Failing(_) => 3,
            Self::Halted(_) => 4,
        }
    }
}

/// How something is doing, and since when. All times are local.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How it is doing.
    pub condition: Condition,
    /// Since when it does so.
    pub since: DateTime<Utc>,
    /// When it last went well.
    pub last_success: Option<DateTime<Utc>>,
    /// The last error, and when it was.
    pub last_error: Option<(DateTime<Utc>, Trouble)>,
}

/// A [`Status`] that changes.
#[derive(Debug)]
pub struct StatusCell(Mutex<Status>);

impl Default for StatusCell {
    fn default() -> Self {
        let since = Utc::now();
        Self(Mutex::new(Status {
            condition: Condition::Starting,
            since,
            last_success: None,
            last_error: None,
        }))
    }
}

impl StatusCell {
    /// The status now.
    #[must_use]
    pub fn get(&self) -> Status {
        self.lock().clone()
    }

    /// Sets the condition, and says whether its kind changed.
    pub(crate) fn set(&self, condition: Condition) -> bool {
        let now = Utc::now();
        let mut status = self.lock();
        match &condition {
            Condition::Failing(trouble) | Condition::Halted(trouble) => {
                status.last_error = Some((now, trouble.clone()));
            }
            Condition::Ok | Condition::WaitingForFirstContent => status.last_success = Some(now),
            Condition::Starting => {}
        }
        let changed = status.condition.rank() != condition.rank();
        if changed {
            status.since = now;
        }
        status.condition = condition;
        changed
    }

    /// Keeps an error without a change of the condition.
    pub(crate) fn note(&self, trouble: Trouble) {
        self.lock().last_error = Some((Utc::now(), trouble));
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests of one tenant.
#[derive(Debug, Default)]
pub struct Requests {
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    /// Answers that asked for fewer requests.
    pub throttled: Counter,
    /// What was waited for that reason, in milliseconds.
    pub throttled_ms: Counter,
}

impl Requests {
    pub(crate) fn count(&self, call: Call, outcome: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((call.as_str(), outcome)).or_default() += 1;
    }

    pub(crate) fn throttled(&self, pause: Duration) {
        self.throttled.add(1);
        self.throttled_ms.add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    }

    /// How many requests of each kind ended how: (call, outcome, number).
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((call, outcome), number)| (*call, *outcome, *number)).collect()
    }

    /// How many requests of one kind there were.
    #[must_use]
    pub fn of(&self, call: Call) -> u64 {
        self.counts().iter().filter(|(name, _, _)| *name == call.as_str()).map(|(_, _, n)| n).sum()
    }
}

/// One feed.
#[derive(Debug)]
pub struct FeedHealth {
    /// Which feed.
    pub feed: FeedKey,
    /// How listing is doing.
    pub listing: StatusCell,
    /// How fetching its blobs is doing.
    pub fetching: StatusCell,
    /// Complete passes.
    pub passes: Counter,
    /// Complete sweeps.
    pub sweeps: Counter,
    /// Pages read.
    pub pages: Counter,
    /// Blobs named by pages, known ones included.
    pub listed: Counter,
    /// Blobs that the ledger did not know.
    pub new_blobs: Counter,
    /// Entries of pages that name no blob.
    pub unusable: Counter,
    /// Holes recorded.
    pub holes: Counter,
    /// Starts of the subscription.
    pub starts: Counter,
    /// Panics of its lister.
    pub panics: Counter,
    last_new: Mutex<Option<DateTime<Utc>>>,
}

impl FeedHealth {
    pub(crate) fn new(feed: FeedKey) -> Self {
        Self {
            feed,
            listing: StatusCell::default(),
            fetching: StatusCell::default(),
            passes: Counter::default(),
            sweeps: Counter::default(),
            pages: Counter::default(),
            listed: Counter::default(),
            new_blobs: Counter::default(),
            unusable: Counter::default(),
            holes: Counter::default(),
            starts: Counter::default(),
            panics: Counter::default(),
            last_new: Mutex::new(None),
        }
    }

    /// The worse of listing and fetching.
    #[must_use]
    pub fn status(&self) -> Status {
        let (listing, fetching) = (self.listing.get(), self.fetching.get());
        // Fetching that has not begun says nothing.
        let fetching_is_worse =
            fetching.condition != Condition::Starting && fetching.condition.rank() > listing.condition.rank();
        if fetching_is_worse { fetching } else { listing }
    }

    /// When a page last named a blob that the ledger did not know.
    #[must_use]
    pub fn last_new_blob(&self) -> Option<DateTime<Utc>> {
        *self.last_new.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn found(&self, listed: usize, new: usize) {
        self.pages.add(1);
        self.listed.add(listed as u64);
        self.new_blobs.add(new as u64);
        if new > 0 {
            *self.last_new.lock().unwrap_or_else(PoisonError::into_inner) = Some(Utc::now());
        }
    }
}

/// One tenant's fetcher.
#[derive(Debug, Default)]
pub struct FetcherHealth {
    /// How it is doing as a whole: tokens, connections, the ledger.
    pub status: StatusCell,
    /// Blobs whose bodies the ledger has taken.
    pub fetched: Counter,
    /// Their records.
    pub records: Counter,
    /// Those of them that were dropped as duplicates.
    pub duplicates: Counter,
    /// Bytes as they came over the network.
    pub wire_bytes: Counter,
    /// Bytes unpacked.
    pub bytes: Counter,
    /// Attempts that failed.
    pub failed: Counter,
    /// Blobs that became gaps.
    pub gaps: Counter,
    /// Bodies that the ledger quarantined.
    pub quarantined: Counter,
    /// Panics while a blob was fetched.
    pub panics: Counter,
    in_flight: AtomicU64,
    backlog: AtomicBool,
}

impl FetcherHealth {
    /// Blobs being fetched now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Whether more blobs were due than could be fetched at once, when it last looked.
    #[must_use]
    pub fn backlog(&self) -> bool {
        self.backlog.load(Relaxed)
    }

    pub(crate) fn set_in_flight(&self, number: usize) {
        self.in_flight.store(number as u64, Relaxed);
    }

    pub(crate) fn set_backlog(&self, backlog: bool) {
        self.backlog.store(backlog, Relaxed);
    }
}

/// One tenant.
#[derive(Debug)]
pub struct TenantHealth {
    /// Its name in the configuration.
    pub name: String,
    /// Which tenant.
    pub tenant: TenantId,
    /// Its feeds, in the configuration's order.
    pub feeds: Vec<Arc<FeedHealth>>,
    /// Its fetcher.
    pub fetcher: FetcherHealth,
    /// Its requests.
    pub requests: Arc<Requests>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) clock: Arc<ServerClock>,
    pub(crate) grants: Arc<Grants>,
}

impl TenantHealth {
    /// One of its feeds.
    #[must_use]
    pub fn feed(&self, content_type: ContentType) -> Option<&Arc<FeedHealth>> {
        self.feeds.iter().find(|feed| feed.feed.content_type == content_type)
    }

    /// The API's time, when it was ever heard of.
    #[must_use]
    pub fn server_time(&self) -> Option<DateTime<Utc>> {
        self.clock.known_now()
    }

    /// How far the API's clock is ahead of the local one (negative: behind).
    #[must_use]
    pub fn skew(&self) -> Option<TimeDelta> {
        self.clock.skew()
    }

    /// Requests a minute that are allowed at present.
    #[must_use]
    pub fn requests_per_minute(&self) -> u32 {
        self.budget.rate()
    }

    /// How much longer the API asked the tenant to wait; not a failure.
    #[must_use]
    pub fn paused_for(&self) -> Option<Duration> {
        self.budget.paused_for()
    }

    /// The permissions that the last token lacks, and since when.
    #[must_use]
    pub fn lacks(&self) -> Option<(DateTime<Utc>, Vec<Trouble>)> {
        self.grants.missing()
    }

    /// Everything that fails or is halted: what it is, and its status.
    #[must_use]
    pub fn troubles(&self) -> Vec<(String, Status)> {
        let feeds = self.feeds.iter().map(|feed| (feed.feed.content_type.to_string(), feed.status()));
        let fetcher = std::iter::once(("fetching".to_owned(), self.fetcher.status.get()));
        feeds.chain(fetcher).filter(|(_, status)| status.condition.is_trouble()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_since_when_and_keeps_its_last_error() {
        let cell = StatusCell::default();
        assert!(cell.set(Condition::Failing(Trouble::new("first"))));
        let since = cell.get().since;
        assert!(!cell.set(Condition::Failing(Trouble::new("second"))));
        assert_eq!(cell.get().since, since, "still failing: since the first");
        assert!(cell.set(Condition::Ok));
        let status = cell.get();
        assert_eq!(status.last_error.map(|(_, trouble)| trouble.error), Some("second".to_owned()));
        assert!(status.last_success.is_some());
    }

    #[test]
    fn a_feed_is_as_well_as_the_worse_of_its_two_halves() {
        let feed = FeedHealth::new(FeedKey {
            tenant: "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap(),
            content_type: ContentType::Exchange,
        });
        feed.listing.set(Condition::Ok);
        assert_eq!(feed.status().condition, Condition::Ok);
        feed.fetching.set(Condition::Halted(Trouble::new("wrong cloud")));
        assert!(matches!(feed.status().condition, Condition::Halted(_)));
        feed.fetching.set(Condition::Ok);
        feed.listing.set(Condition::Failing(Trouble::new("x")));
        assert!(matches!(feed.status().condition, Condition::Failing(_)));
    }
}
