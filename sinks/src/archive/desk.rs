//! What the blocking steps of the archive sink work with, and those steps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use archive::{SealedObject, parquet::Understand};
use chrono::Utc;
use schemas::LedgerId;
use tokio_util::sync::CancellationToken;

use super::{
    plan::{Due, Plan},
    seal,
    staging::{Kind, Staging, StagingError},
};
use crate::sink::Batch;

/// So many objects are sealed in one commit.
const SEAL_AT_ONCE: usize = 64;
/// And no more of their records, so that what is done is soon kept.
const SEAL_BYTES: u64 = 256 << 20;

/// What the blocking steps work with.
pub(super) struct Desk {
    pub(super) staging: Staging,
    pub(super) plan: Mutex<Plan>,
    /// What tells what records say.
    pub(super) understand: Arc<dyn Understand>,
    /// One at a time writes records.
    pub(super) writing: Mutex<()>,
    /// One at a time seals.
    pub(super) sealing: Mutex<()>,
}

/// An object could not be sealed.
pub(super) struct Unsealed {
    pub(super) span: u64,
    pub(super) error: StagingError,
}

impl Desk {
    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        // Numbers that a panic left half changed are made anew when the sink is opened after it.
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_batch(&self, batch: &Batch) -> Result<(), StagingError> {
        let writings = self.plan().begin(batch, Utc::now());
        for writing in &writings {
            self.staging.append(writing.span, writing.at, batch, &writing.parts)?;
            self.plan().appended(writing, batch);
            self.write_journal(writing.span)?;
        }
        Ok(())
    }

    /// Brings a journal's file up to date.
    pub(super) fn write_journal(&self, number: u64) -> Result<(), StagingError> {
        let mut plan = self.plan();
        let Some(span) = plan.span_mut(number) else { return Ok(()) };
        let (at, lines) = span.unwritten();
        self.staging.append_works(number, at, lines)?;
        span.journal_written();
        Ok(())
    }

    /// Seals what is due, until that is enough for one commit.
    pub(super) fn seal(
        &self,
        due: Vec<Due>,
        ledger: LedgerId,
        cancelled: &CancellationToken,
    ) -> Result<Vec<(u64, SealedObject)>, Unsealed> {
        let mut sealed = Vec::new();
        let mut bytes = 0;
        for due in due {
            if sealed.len() >= SEAL_AT_ONCE || (bytes > 0 && bytes + due.whole.bytes > SEAL_BYTES) {
                break;
            }
            match self.seal_one(&due, ledger, cancelled) {
                Ok(object) => sealed.push((due.span, object)),
                // What is done is kept first; it is tried again after that.
                Err(_) if !sealed.is_empty() => break,
                Err(error) => return Err(Unsealed { span: due.span, error }),
            }
            bytes += due.whole.bytes;
        }
        let flushed = self.staging.sync_folder();
        flushed.map_err(|error| Unsealed { span: sealed.first().map_or(0, |(span, _)| *span), error })?;
        Ok(sealed)
    }

    fn seal_one(
        &self,
        due: &Due,
        ledger: LedgerId,
        cancelled: &CancellationToken,
    ) -> Result<SealedObject, StagingError> {
        self.write_journal(due.span)?;
        self.staging.sync(due.span, Kind::Works)?;
        seal::make(&self.staging, due, ledger, &*self.understand, cancelled)
    }
}
