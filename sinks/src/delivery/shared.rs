//! What every part of a delivery loop uses.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use schemas::SinkName;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::told::Told;
use crate::{
    batching::{Slice, records},
    delivery_ledger::{DeliveryLedger, LedgerFailure, WorkId},
    health::Health,
    memory::MemoryShare,
    rate::Rate,
    sink::{BoxFuture, DeliverError, Limits, Sink},
};

/// One loop's surroundings.
pub(super) struct Shared {
    pub(super) name: SinkName,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) ledger: Arc<dyn DeliveryLedger>,
    pub(super) rate: Arc<Rate>,
    pub(super) limits: Limits,
    pub(super) health: Arc<Health>,
    /// For what is read for the first time.
    pub(super) ahead: MemoryShare,
    /// For what is read again after a failure.
    pub(super) again: MemoryShare,
    pub(super) stop: CancellationToken,
    /// Nothing more is coming for now.
    pub(super) finish: CancellationToken,
    /// Records that were sent again after an ambiguous outcome, by work. Kept here, so that a batch that is dropped
    /// on its way is counted too.
    pub(super) resent: Mutex<HashMap<WorkId, usize>>,
    pub(super) told: Mutex<Told>,
}

impl Shared {
    /// Waits; whether it was not stopped meanwhile.
    pub(super) async fn pause(&self, wait: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = self.stop.cancelled() => false,
        }
    }

    pub(super) fn note_resent(&self, slices: &[Slice]) {
        let mut resent = self.resent.lock().unwrap_or_else(PoisonError::into_inner);
        for slice in slices {
            *resent.entry(slice.work.id).or_default() += slice.len();
        }
        self.health.count(|counters| counters.resent += records(slices) as u64);
    }

    pub(super) fn take_resent(&self, work: WorkId) -> usize {
        let mut resent = self.resent.lock().unwrap_or_else(PoisonError::into_inner);
        resent.remove(&work).unwrap_or_default()
    }

    /// Tells that deliveries begin to fail. A wait that the destination asked for is no failure.
    pub(super) fn failed(&self, error: &str, asked: bool) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !asked && told.failed(Instant::now()) {
            warn!(sink = %self.name, "deliveries fail and are tried again: {error}");
        }
        self.health.retrying(error, asked);
    }

    /// Tells that deliveries no longer fail.
    pub(super) fn succeeded(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(failed) = told.succeeded(Instant::now()) {
            info!(sink = %self.name, "deliveries succeed again, after {failed:.0?}");
        }
    }

    /// Counts and tells a panic, as a failure whose outcome nobody knows.
    pub(super) fn panicked(&self, text: &str) -> DeliverError {
        error!(sink = %self.name, "panicked: {text}; nothing is acknowledged by that");
        self.health.count(|counters| counters.panics += 1);
        DeliverError::ambiguous(format!("the sink panicked: {text}"))
    }
}

/// Growing pauses with jitter, without end.
#[derive(Debug)]
pub(super) struct Backoff {
    builder: ExponentialBuilder,
    longest: Duration,
    pauses: ExponentialBackoff,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_factor(2.0)
            .with_min_delay(first)
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter();
        Self { builder, longest, pauses: builder.build() }
    }

    pub(super) fn next(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest).min(self.longest)
    }

    pub(super) fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

/// Asks the ledger until it answers: a disk that is full is waited for.
///
/// # Errors
///
/// When waiting cannot help.
pub(super) async fn insist<'a, T>(
    shared: &Shared,
    mut ask: impl FnMut() -> BoxFuture<'a, Result<T, LedgerFailure>>,
) -> Result<T, LedgerFailure> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut last_told: Option<Instant> = None;
    loop {
        match ask().await {
            Ok(answer) => {
                if last_told.is_some() {
                    shared.health.ledger(None);
                }
                return Ok(answer);
            }
            Err(failure) if failure.passing => {
                if last_told.is_none_or(|at| at.elapsed() > Duration::from_secs(30)) {
                    warn!(sink = %shared.name, "waits for the ledger: {failure}");
                    last_told = Some(Instant::now());
                }
                shared.health.ledger(Some(&failure.message));
                tokio::time::sleep(backoff.next()).await;
            }
            Err(failure) => {
                shared.health.ledger(Some(&failure.message));
                return Err(failure);
            }
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}
