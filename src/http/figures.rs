//! Figures that cost something to get: those of the ledger, and when certificates end.
//!
//! They are read by one at a time, away from the reactor, and kept for a few seconds, so that several scrapers cost
//! no more than one.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use ledger::Status;
use tokio::{sync::Mutex, time::Instant};

use crate::pipeline::{Pipeline, RunningTenant};

/// For how long the ledger's figures are good.
const STATUS_FOR: Duration = Duration::from_secs(5);
/// For how long certificates are not read again.
const CERTIFICATES_FOR: Duration = Duration::from_secs(300);
/// How long a scrape waits for the ledger's figures.
const PATIENCE: Duration = Duration::from_secs(5);

/// The figures, as they were read last.
#[derive(Default)]
pub(super) struct Figures {
    status: Kept<Option<Status>>,
    certificates: Kept<Ends>,
}

/// When certificates end.
#[derive(Default)]
pub(super) struct Ends {
    /// Those of tenants that log in with one, by name.
    pub(super) tenants: BTreeMap<String, DateTime<Utc>>,
    /// Those of sinks that show one to their destination, by name.
    pub(super) sinks: BTreeMap<String, DateTime<Utc>>,
}

/// The figures for one answer.
pub(super) struct Snapshot {
    /// How things stand in the ledger; `None` when it cannot be read.
    pub(super) status: Arc<Option<Status>>,
    /// When certificates end.
    pub(super) certificates: Arc<Ends>,
}

impl Figures {
    /// The figures, not older than a few seconds, and not from before the configuration was `applied`.
    pub(super) async fn snapshot(&self, pipeline: &Pipeline, applied: DateTime<Utc>) -> Snapshot {
        let status = self.status.get(applied, STATUS_FOR, || read_status(pipeline)).await;
        let certificates = self.certificates.get(applied, CERTIFICATES_FOR, || read_ends(pipeline)).await;
        Snapshot { status, certificates }
    }
}

/// Something that is kept for a while after it was read.
struct Kept<T>(Mutex<Option<Reading<T>>>);

struct Reading<T> {
    at: Instant,
    /// When the configuration was applied under which it was read.
    under: DateTime<Utc>,
    value: Arc<T>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Kept<T> {
    /// What is kept, or what is read now: whoever comes meanwhile waits for the one who reads.
    async fn get<F: Future<Output = T>>(
        &self,
        applied: DateTime<Utc>,
        good_for: Duration,
        read: impl FnOnce() -> F,
    ) -> Arc<T> {
        let mut kept = self.0.lock().await;
        let good = kept.as_ref().filter(|kept| kept.at.elapsed() < good_for && kept.under == applied);
        if let Some(Reading { value, .. }) = good {
            return Arc::clone(value);
        }
        let value = Arc::new(read().await);
        *kept = Some(Reading { at: Instant::now(), under: applied, value: Arc::clone(&value) });
        value
    }
}

async fn read_status(pipeline: &Pipeline) -> Option<Status> {
    let ledger = pipeline.ledger().clone();
    let read = tokio::task::spawn_blocking(move || ledger.inspector().status());
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(Ok(status))) => return Some(status),
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the figures of the ledger cannot be read"),
        Ok(Err(error)) => tracing::error!(%error, "reading the figures of the ledger ended badly"),
        Err(_) => tracing::warn!("the figures of the ledger were not read in time"),
    }
    None
}

async fn read_ends(pipeline: &Pipeline) -> Ends {
    let mut ends = Ends::default();
    for tenant in pipeline.tenants() {
        let RunningTenant::Collected { health, tokens, .. } = tenant else { continue };
        // One that cannot be read fails the next login, which says so.
        if let Ok(Some(end)) = tokens.certificate_ends().await {
            ends.tenants.insert(health.name.clone(), end);
        }
    }
    for sink in pipeline.sinks() {
        // As above: the next connection fails, and says so.
        if let Some(path) = &sink.client_certificate
            && let Some(end) = read_end(path).await
        {
            ends.sinks.insert(sink.name.to_string(), end);
        }
    }
    ends
}

async fn read_end(path: &Path) -> Option<DateTime<Utc>> {
    let pem = tokio::fs::read(path).await.ok()?;
    entra::certificate::first_ends(&pem).ok()
}
