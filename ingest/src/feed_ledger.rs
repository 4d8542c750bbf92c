//! What the lister and the fetcher need of the ledger.
//!
//! The ledger crate is joined to this in the binary, so that neither crate knows the other; the tests here use a
//! ledger in memory.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use chrono::{DateTime, Utc};
use schemas::{BlobKey, FeedKey, GapReason, HoleReason, SplitError, TenantId, TimeRange};
pub use schemas::{CompletedWindow, FeedState, LedgerFailure, ListedPage, Spooled};

/// A boxed future, because the ledger is used as a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One fetcher's turn at one blob. Dropping it makes the blob due again.
pub struct FetchLease {
    /// The ledger's own number of the blob.
    pub row: i64,
    /// Which blob.
    pub blob: BlobKey,
    /// When the API made it available.
    pub created: DateTime<Utc>,
    /// When the API forgets it.
    pub expires: DateTime<Utc>,
    /// How often it was tried before.
    pub attempts: u32,
    /// Releases the claim when dropped.
    pub claim: Box<dyn Send + Sync>,
}

impl fmt::Debug for FetchLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchLease")
            .field("blob", &self.blob)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is no whole array of records: fetch it again.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// The same broken body came often enough: the blob is quarantined, with its bytes among the dead letters.
    #[error("quarantined, because the same broken body came {times} times: {cause}")]
    Quarantined {
        /// How often it came.
        times: u32,
        /// What is wrong with it.
        cause: SplitError,
    },
    /// Nobody wants it any more: while it was fetched, the sinks that it was for were forgotten, or it was quarantined.
    #[error("nobody wants it any more")]
    Unwanted,
    /// The ledger could not keep it.
    #[error(transparent)]
    Ledger(#[from] LedgerFailure),
}

/// Resolves when a body's duplicates are decided and it is durable (L2), together with others that came meanwhile. To
/// be awaited anywhere.
pub type Finishing = BoxFuture<'static, Result<Spooled, BodyError>>;

/// Takes the inflated bytes of one body. Every method may block: call it off the reactor.
pub trait BodyWriter: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// When the body is broken or cannot be kept. It can then only be dropped, or ended to record a broken body.
    fn write(&mut self, bytes: &[u8]) -> Result<(), BodyError>;

    /// Bytes of memory that it takes.
    fn memory(&self) -> usize;

    /// Ends the body. Not calling it leaves no trace; after it, the body counts whether or not anybody waits.
    ///
    /// # Errors
    ///
    /// When the body is cut or cannot be kept.
    fn finish(self: Box<Self>) -> Result<Finishing, BodyError>;
}

/// What the lister and the fetcher need of the ledger.
pub trait FeedLedger: Send + Sync + 'static {
    /// Where the feed's listing stands.
    fn feed_state(&self, feed: FeedKey) -> BoxFuture<'_, Result<FeedState, LedgerFailure>>;

    /// Records a page and, with its last one, the window, in one commit (L1). Returns how many blobs were new.
    fn record_page(&self, page: ListedPage) -> BoxFuture<'_, Result<usize, LedgerFailure>>;

    /// Takes note that the API says that the feed has no subscription.
    fn unsubscribed(&self, feed: FeedKey) -> BoxFuture<'_, Result<(), LedgerFailure>>;

    /// Takes note that its subscription is about to be asked to start: another process, too, must leave it alone for a while.
    fn starting(&self, feed: FeedKey, at: DateTime<Utc>) -> BoxFuture<'_, Result<(), LedgerFailure>>;

    /// Takes note that it has one again, and records what was lost meanwhile as a hole that moves the watermark to its
    /// end, in one commit (L9).
    fn subscribed_again(
        &self,
        feed: FeedKey,
        lost: Option<TimeRange>,
    ) -> BoxFuture<'_, Result<(), LedgerFailure>>;

    /// Records that a listing of this span named content without an id, as far as that is not known of it: every pass lists
    /// it again. The watermark stays. Of what is `timeless` all that is known is the window. Returns whether there is a new
    /// hole.
    fn record_nameless(
        &self,
        feed: FeedKey,
        span: TimeRange,
        timeless: bool,
    ) -> BoxFuture<'_, Result<bool, LedgerFailure>>;

    /// Records a hole and moves the watermark to its end, in one commit (L9).
    fn record_hole(
        &self,
        feed: FeedKey,
        span: TimeRange,
        reason: HoleReason,
    ) -> BoxFuture<'_, Result<(), LedgerFailure>>;

    /// Blobs of the tenant that are due to be fetched, at most `want`, those that matter most first: fresh ones and
    /// those closest to their expiry. Each is leased: nobody else gets it meanwhile. Empty while the spool is full.
    fn claim_fetches(
        &self,
        tenant: TenantId,
        want: usize,
    ) -> BoxFuture<'_, Result<Vec<FetchLease>, LedgerFailure>>;

    /// Resolves when [`FeedLedger::claim_fetches`] may have something (new blobs, room in the spool, a wait that
    /// ended), at the latest after `at_most`.
    fn fetches_may_be_due(&self, tenant: TenantId, at_most: Duration) -> BoxFuture<'_, ()>;

    /// Begins to take a blob's body. `now` is the API's time, from which its records are remembered, so that their
    /// repetitions are noticed.
    fn body_writer(&self, lease: &FetchLease, now: DateTime<Utc>) -> Box<dyn BodyWriter>;

    /// Records a failed attempt: the blob is due again at `not_before`.
    fn fetch_failed(
        &self,
        lease: FetchLease,
        not_before: DateTime<Utc>,
        error: String,
    ) -> BoxFuture<'_, Result<(), LedgerFailure>>;

    /// Counts a panic while the blob was fetched; the third one, over restarts, quarantines it (L11). Returns whether it
    /// did.
    fn panicked<'a>(
        &'a self,
        lease: &'a FetchLease,
        message: String,
    ) -> BoxFuture<'a, Result<bool, LedgerFailure>>;

    /// Records that the blob can no longer be had. Returns whether that is a gap: it is none when the body was only
    /// fetched again, and all of its records were settled or given up meanwhile.
    fn gap(&self, lease: FetchLease, reason: GapReason) -> BoxFuture<'_, Result<bool, LedgerFailure>>;
}
