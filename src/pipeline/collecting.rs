//! Joins the ledger to what the lister and the fetcher need of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ingest::feed_ledger::{
    BodyError, BodyWriter, BoxFuture, FeedLedger, FeedState, FetchLease, Finishing, LedgerFailure, ListedPage,
};
use ledger::{Ledger, WorkId};
use schemas::{FeedKey, GapReason, HoleReason, TenantId, TimeRange};

use super::failure;

/// The ledger as `ingest` sees it.
#[derive(Debug, Clone)]
pub(crate) struct Collecting {
    ledger: Ledger,
}

impl Collecting {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }
}

impl FeedLedger for Collecting {
    fn feed_state(&self, feed: FeedKey) -> BoxFuture<'_, Result<FeedState, LedgerFailure>> {
        Box::pin(async move { self.ledger.feed_state(feed).await.map_err(failure) })
    }

    fn record_page(&self, page: ListedPage) -> BoxFuture<'_, Result<usize, LedgerFailure>> {
        Box::pin(async move { self.ledger.record_page(page).await.map_err(failure) })
    }

    fn unsubscribed(&self, feed: FeedKey) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        Box::pin(async move { self.ledger.unsubscribed(feed).await.map_err(failure) })
    }

    fn starting(&self, feed: FeedKey, at: DateTime<Utc>) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        Box::pin(async move { self.ledger.starting(feed, at).await.map_err(failure) })
    }

    fn subscribed_again(
        &self,
        feed: FeedKey,
        lost: Option<TimeRange>,
    ) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        Box::pin(async move { self.ledger.subscribed_again(feed, lost).await.map_err(failure) })
    }

    fn record_nameless(
        &self,
        feed: FeedKey,
        span: TimeRange,
        timeless: bool,
    ) -> BoxFuture<'_, Result<bool, LedgerFailure>> {
        Box::pin(async move { self.ledger.record_nameless(feed, span, timeless).await.map_err(failure) })
    }

    fn record_hole(
        &self,
        feed: FeedKey,
        span: TimeRange,
        reason: HoleReason,
    ) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        Box::pin(async move { self.ledger.record_hole(feed, span, reason).await.map_err(failure) })
    }

    fn claim_fetches(
        &self,
        tenant: TenantId,
        want: usize,
    ) -> BoxFuture<'_, Result<Vec<FetchLease>, LedgerFailure>> {
        Box::pin(async move {
            let leases = self.ledger.claim_fetches(tenant, want).await.map_err(failure)?;
            let lease = |lease: ledger::FetchLease| FetchLease {
                row: lease.work.0,
                blob: lease.blob,
                created: lease.created,
                expires: lease.expires,
                attempts: lease.attempts,
                claim: Box::new(lease.claim),
            };
            Ok(leases.into_iter().map(lease).collect())
        })
    }

    fn fetches_may_be_due(&self, tenant: TenantId, at_most: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.ledger.fetches_may_be_due(tenant, at_most))
    }

    fn body_writer(&self, lease: &FetchLease, now: DateTime<Utc>) -> Box<dyn BodyWriter> {
        Box::new(Body(self.ledger.body_writer(WorkId(lease.row), now)))
    }

    fn fetch_failed(
        &self,
        lease: FetchLease,
        not_before: DateTime<Utc>,
        error: String,
    ) -> BoxFuture<'_, Result<(), LedgerFailure>> {
        Box::pin(async move {
            // The whole lease has to live until the answer: it is what allows the change.
            let FetchLease { row, claim, .. } = lease;
            let recorded = self.ledger.fetch_failed(WorkId(row), not_before, error).await;
            drop(claim);
            recorded.map_err(failure)
        })
    }

    fn panicked<'a>(
        &'a self,
        lease: &'a FetchLease,
        message: String,
    ) -> BoxFuture<'a, Result<bool, LedgerFailure>> {
        Box::pin(async move { self.ledger.panicked(WorkId(lease.row), message).await.map_err(failure) })
    }

    fn gap(&self, lease: FetchLease, reason: GapReason) -> BoxFuture<'_, Result<bool, LedgerFailure>> {
        Box::pin(async move {
            let FetchLease { row, claim, .. } = lease;
            let recorded = self.ledger.gap(WorkId(row), reason).await;
            drop(claim);
            recorded.map(|gap| gap.is_some()).map_err(failure)
        })
    }
}

/// A body on its way into the ledger.
struct Body(ledger::BodyWriter);

impl BodyWriter for Body {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        self.0.write(bytes).map_err(body_error)
    }

    fn memory(&self) -> usize {
        self.0.memory()
    }

    fn finish(self: Box<Self>) -> Result<Finishing, BodyError> {
        let finishing = self.0.finish().map_err(body_error)?;
        Ok(Box::pin(async { finishing.await.map_err(body_error) }))
    }
}

fn body_error(error: ledger::BodyError) -> BodyError {
    match error {
        ledger::BodyError::Split(cause) => BodyError::Split(cause),
        ledger::BodyError::Quarantined { times, cause } => BodyError::Quarantined { times, cause },
        ledger::BodyError::Unwanted => BodyError::Unwanted,
        ledger::BodyError::Ledger(error) => BodyError::Ledger(failure(error)),
    }
}
