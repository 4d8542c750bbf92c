//! A ledger in memory. It keeps the invariants that the real one keeps, and panics when it is asked to break one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use ingest::feed_ledger::{
    BodyError, BodyWriter, BoxFuture, FeedLedger, FeedState, FetchLease, Finishing, LedgerFailure,
    ListedPage, Spooled,
};
use schemas::{
    BlobKey, ContentType, FeedKey, GapReason, HoleReason, Seq, SplitError, Splitter, TenantId, TimeRange,
};
use tokio::sync::Notify;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Listed,
    Fetched,
    Gap(GapReason),
    Quarantined,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub created: DateTime<Utc>,
    pub expires: DateTime<Utc>,
    pub state: State,
    pub attempts: u32,
    pub panics: u32,
    pub errors: Vec<String>,
    pub records: u32,
    pub not_before: DateTime<Utc>,
    number: i64,
    leased: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub feeds: HashMap<FeedKey, FeedState>,
    pub blobs: BTreeMap<BlobKey, Row>,
    pub holes: Vec<(FeedKey, TimeRange, HoleReason)>,
    pub windows: Vec<(FeedKey, TimeRange)>,
    seq: u64,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryLedger {
    inner: Mutex<Inner>,
    news: Notify,
    /// So many of the next bodies panic while they are written.
    pub panics: AtomicU32,
    /// The spool is full: nothing is claimed.
    pub full: AtomicBool,
    /// So many of the next bodies cannot be kept, in passing.
    pub(crate) refusals: AtomicU32,
    /// The ledger cannot go on at all.
    pub broken: AtomicBool,
    /// The largest piece that a writer was given.
    pub largest_piece: AtomicU32,
    /// What all writers together take of memory, and what they took at most.
    pub memory: AtomicUsize,
    pub most_memory: AtomicUsize,
}

impl MemoryLedger {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn count(&self, wanted: impl Fn(&State) -> bool) -> usize {
        self.lock().blobs.values().filter(|row| wanted(&row.state)).count()
    }

    pub(crate) fn fetched(&self) -> usize {
        self.count(|state| *state == State::Fetched)
    }

    pub(crate) fn row(&self, content_type: ContentType, content_id: &str) -> Option<Row> {
        let inner = self.lock();
        let found = inner
            .blobs
            .iter()
            .find(|(key, _)| key.feed.content_type == content_type && key.content_id.as_str() == content_id);
        found.map(|(_, row)| row.clone())
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, SeqCst);
        self.news.notify_waiters();
    }

    fn check(&self) -> Result<(), LedgerFailure> {
        if self.broken.load(SeqCst) {
            return Err(LedgerFailure { message: "the disk is gone".to_owned(), passing: false });
        }
        Ok(())
    }

    fn release(&self, blob: &BlobKey) {
        if let Some(row) = self.lock().blobs.get_mut(blob) {
            row.leased = false;
        }
        self.news.notify_waiters();
    }
}

/// Gives the blob back when it is dropped.
struct Claim {
    ledger: Arc<MemoryLedger>,
    blob: BlobKey,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.ledger.release(&self.blob);
    }
}

/// What a writer takes of memory, counted for as long as it lives.
struct Held {
    ledger: Arc<MemoryLedger>,
    bytes: usize,
}

impl Held {
    fn set(&mut self, bytes: usize) {
        let all = self.ledger.memory.fetch_add(bytes, SeqCst) + bytes - self.bytes;
        self.ledger.memory.fetch_sub(self.bytes, SeqCst);
        self.ledger.most_memory.fetch_max(all, SeqCst);
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

struct Writer {
    ledger: Arc<MemoryLedger>,
    blob: BlobKey,
    held: Held,
    splitter: Splitter,
    records: u32,
    bytes: u64,
    broken: Option<SplitError>,
}

impl BodyWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        assert!(self.broken.is_none(), "a body was written after an error");
        if self.ledger.panics.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("a writer that panics");
        }
        self.ledger.largest_piece.fetch_max(bytes.len() as u32, SeqCst);
        self.bytes += bytes.len() as u64;
        let records = &mut self.records;
        let pushed = self.splitter.push(bytes, &mut |_, _| *records += 1).map_err(|error| {
            self.broken = Some(error);
            error.into()
        });
        self.held.set(self.splitter.carried_bytes());
        pushed
    }

    fn memory(&self) -> usize {
        self.held.bytes
    }

    fn finish(self: Box<Self>) -> Result<Finishing, BodyError> {
        if let Some(error) = self.broken {
            return Err(error.into());
        }
        self.splitter.finish()?;
        self.ledger.check()?;
        if self.ledger.refusals.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(LedgerFailure { message: "the disk is full".to_owned(), passing: true }.into());
        }
        let mut inner = self.ledger.lock();
        inner.seq += 1;
        let seq = Seq(inner.seq);
        let row = inner.blobs.get_mut(&self.blob).expect("a body belongs to a listed blob");
        assert_eq!(row.state, State::Listed, "{} was settled before", self.blob);
        row.state = State::Fetched;
        row.records = self.records;
        let spooled = Spooled { seq, records: self.records, duplicates: 0, bytes: self.bytes };
        Ok(ready(Ok(spooled)))
    }
}

/// The ledger as a collector sees it.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub Arc<MemoryLedger>);

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl FeedLedger for Shared {
    fn feed_state(&self, feed: FeedKey) -> BoxFuture<'_, Result<FeedState, LedgerFailure>> {
        let state = self.0.lock().feeds.get(&feed).copied().unwrap_or_default();
        ready(self.0.check().map(|()| state))
    }

    fn record_page(&self, page: ListedPage) -> BoxFuture<'_, Result<usize, LedgerFailure>> {
        if let Err(failure) = self.0.check() {
            return ready(Err(failure));
        }
        let mut new = 0;
        {
            let mut inner = self.0.lock();
            let mut number = inner.blobs.len() as i64;
            for blob in page.blobs {
                let key = BlobKey { feed: page.feed, content_id: blob.content_id };
                inner.blobs.entry(key).or_insert_with(|| {
                    new += 1;
                    number += 1;
                    Row {
                        created: blob.created,
                        expires: blob.expires,
                        state: State::Listed,
                        attempts: 0,
                        panics: 0,
                        errors: Vec::new(),
                        records: 0,
                        not_before: DateTime::UNIX_EPOCH,
                        number,
                        leased: false,
                    }
                });
            }
            if let Some(done) = page.completes {
                assert!(done.window.length() <= chrono::TimeDelta::hours(24), "{}", done.window);
                inner.windows.push((page.feed, done.window));
                let state = inner.feeds.entry(page.feed).or_default();
                if let Some(watermark) = done.watermark {
                    // L9: no seam between what is done and the window that moves the watermark.
                    assert!(
                        state.watermark.is_none_or(|before| done.window.start <= before),
                        "{}",
                        done.window
                    );
                    state.watermark = state.watermark.max(Some(watermark));
                }
                state.swept_at = done.swept_at.or(state.swept_at);
                if !done.window.is_empty() {
                    let from =
                        state.listed_from.map_or(done.window.start, |from| from.min(done.window.start));
                    state.listed_from = Some(from);
                }
            }
        }
        self.0.news.notify_waiters();
        ready(Ok(new))
    }

    fn unsubscribed(&self, feed: FeedKey) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        self.0.lock().feeds.entry(feed).or_default().unsubscribed = true;
        ready(self.0.check())
    }

    fn starting(&self, feed: FeedKey, at: DateTime<Utc>) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        self.0.lock().feeds.entry(feed).or_default().started_at = Some(at);
        ready(self.0.check())
    }

    fn subscribed_again(
        &self,
        feed: FeedKey,
        lost: Option<TimeRange>,
    ) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        self.0.lock().feeds.entry(feed).or_default().unsubscribed = false;
        match lost {
            Some(span) => self.record_hole(feed, span, HoleReason::SubscriptionDisabled),
            None => ready(self.0.check()),
        }
    }

    fn record_nameless(
        &self,
        feed: FeedKey,
        span: TimeRange,
        _timeless: bool,
    ) -> BoxFuture<'_, Result<bool, LedgerFailure>> {
        let mut inner = self.0.lock();
        let known =
            inner.holes.iter().filter(|(of, _, reason)| (*of, *reason) == (feed, HoleReason::NamesNoBlob));
        let known: Vec<_> = known.map(|(_, known, _)| *known).collect();
        let new = span.without(&known);
        inner.holes.extend(new.iter().map(|part| (feed, *part, HoleReason::NamesNoBlob)));
        ready(Ok(!new.is_empty()))
    }

    fn record_hole(
        &self,
        feed: FeedKey,
        span: TimeRange,
        reason: HoleReason,
    ) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        let mut inner = self.0.lock();
        let state = inner.feeds.entry(feed).or_default();
        assert!(
            state.watermark.is_none_or(|watermark| watermark == span.start),
            "a hole begins at the watermark, if there is one: {span}"
        );
        assert!(!span.is_empty());
        state.watermark = Some(span.end);
        inner.holes.push((feed, span, reason));
        ready(Ok(()))
    }

    fn claim_fetches(
        &self,
        tenant: TenantId,
        want: usize,
    ) -> BoxFuture<'_, Result<Vec<FetchLease>, LedgerFailure>> {
        if let Err(failure) = self.0.check() {
            return ready(Err(failure));
        }
        if self.0.full.load(SeqCst) {
            return ready(Ok(Vec::new()));
        }
        let now = Utc::now();
        let mut inner = self.0.lock();
        let due = inner.blobs.iter_mut().filter(|(key, row)| {
            key.feed.tenant == tenant && row.state == State::Listed && !row.leased && row.not_before <= now
        });
        let leases = due
            .take(want)
            .map(|(key, row)| {
                row.leased = true;
                FetchLease {
                    row: row.number,
                    blob: key.clone(),
                    created: row.created,
                    expires: row.expires,
                    attempts: row.attempts,
                    claim: Box::new(Claim { ledger: Arc::clone(&self.0), blob: key.clone() }),
                }
            })
            .collect();
        ready(Ok(leases))
    }

    fn fetches_may_be_due(&self, _tenant: TenantId, at_most: Duration) -> BoxFuture<'_, ()> {
        let news = self.0.news.notified();
        let next = {
            let inner = self.0.lock();
            let waiting = inner.blobs.values().filter(|row| row.state == State::Listed && !row.leased);
            waiting.map(|row| row.not_before).min()
        };
        let wait = next.map_or(at_most, |at| (at - Utc::now()).to_std().unwrap_or_default().min(at_most));
        Box::pin(async move {
            let _ = tokio::time::timeout(wait.max(Duration::from_millis(5)), news).await;
        })
    }

    fn body_writer(&self, lease: &FetchLease, _now: DateTime<Utc>) -> Box<dyn BodyWriter> {
        Box::new(Writer {
            ledger: Arc::clone(&self.0),
            blob: lease.blob.clone(),
            held: Held { ledger: Arc::clone(&self.0), bytes: 0 },
            splitter: Splitter::new(),
            records: 0,
            bytes: 0,
            broken: None,
        })
    }

    fn fetch_failed(
        &self,
        lease: FetchLease,
        not_before: DateTime<Utc>,
        error: String,
    ) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        if let Some(row) = self.0.lock().blobs.get_mut(&lease.blob) {
            assert_eq!(row.state, State::Listed, "{} failed after it was settled", lease.blob);
            row.attempts += 1;
            row.not_before = not_before;
            row.errors.push(error);
        }
        drop(lease);
        ready(Ok(()))
    }

    fn panicked<'a>(
        &'a self,
        lease: &'a FetchLease,
        message: String,
    ) -> BoxFuture<'a, Result<bool, LedgerFailure>> {
        assert_eq!(message, "a writer that panics");
        let mut inner = self.0.lock();
        let row = inner.blobs.get_mut(&lease.blob).expect("a lease is of a listed blob");
        row.panics += 1;
        if row.panics == 3 {
            row.state = State::Quarantined;
        }
        ready(Ok(row.panics == 3))
    }

    fn gap(&self, lease: FetchLease, reason: GapReason) -> BoxFuture<'_, Result<bool, LedgerFailure>> {
        if let Some(row) = self.0.lock().blobs.get_mut(&lease.blob) {
            assert_eq!(row.state, State::Listed, "{} became a gap after it was settled", lease.blob);
            row.state = State::Gap(reason);
        }
        drop(lease);
        ready(Ok(true))
    }
}
