//! The `archive` sink: objects of raw records, written once, for years.
//!
//! | file | what it holds |
//! |---|---|
//! | `archive.rs` | [`ArchiveSink`]: the sink, its blocking steps off the reactor |
//! | `archive/config.rs` | [`ArchiveConfig`]: the keys of the configuration |
//! | `archive/plan.rs` | which objects there are, what goes into which, what is due; pure |
//! | `archive/span.rs` | one object while it grows, and the journal of its works; pure |
//! | `archive/state.rs` | what the ledger keeps of that |
//! | `archive/staging.rs` | the files on this machine |
//! | `archive/seal.rs` | from records to an object: its files made, hashed, named |
//! | `archive/ndjson.rs`, `archive/twins.rs` | the files of an object: lines, and columns |
//! | `archive/one_thread.rs` | the thread on which columns are made |
//! | `archive/desk.rs` | the blocking steps |
//! | `archive/stepping.rs` | the steps of an object: sealed, put, cleared away |
//! | `archive/manifests.rs` | the chains of signed entries; pure |
//! | `archive/meeting.rs` | whether the chains go on in this target |
//! | `archive/entering.rs` | making entries, and putting them |
//! | `archive/stamping.rs` | time-stamps of the chains' heads, beside all that |
//! | `archive/reopen.rs` | what an earlier run left behind |
//! | `archive/figures.rs` | what it counts |
//! | `archive/report.rs` | what it has, for people |
//!
//! # The life of an object
//!
//! | stage | where it is | what the ledger knows | after a crash |
//! |---|---|---|---|
//! | open | `N.ndjson` in the staging folder | nothing; after a stop in peace how far it reaches | it is thrown away and made anew from the spool; after a stop in peace it goes on |
//! | sealed | `N.object`, `N.1.object`, …, durable | its paths, hashes, Merkle root and `Seq`s | the same bytes are put under the same names |
//! | put | in the archive | in the commit that settles its works, that it is | – |
//!
//! # What it promises
//!
//! * A work is settled only when the object that holds its records is in the archive (L3).
//! * Every due record is in exactly one object, whatever crashed and when: an object is made of whole works, has its
//!   name and hash in the ledger before it is put, and is put as a new object. One that is there already counts only
//!   after its bytes were read back and compared.
//! * Nothing in the archive is overwritten or deleted.
//! * An object keeps the settings that it began with: which files it becomes, and how these are written and named.
//! * Memory and open files do not grow with the number of tenants: records go to files that are opened for each batch,
//!   and what is known of a work that waits is its settlement. What is open is closed early when it comes near to what
//!   may be held. Columns are made of one object of the process at a time.

mod config;
mod desk;
mod entering;
mod figures;
mod manifests;
mod meeting;
mod ndjson;
mod one_thread;
mod plan;
mod reopen;
mod report;
mod seal;
mod span;
mod staging;
mod stamping;
mod state;
mod stepping;
#[cfg(test)]
mod tests;
mod twins;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use archive::{Store, StoreError, Target, parquet::Understand};
use chrono::Utc;
use schemas::{LedgerId, SinkName};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::{
    config::{ArchiveConfig, Compression, Formats, Layout, Parquet, Signing},
    report::{ArchiveReport, ChainReport, NotAState, ObjectStage, StagedObject},
    stamping::{NoTimestamp, TimestampAuthority},
};
use self::{
    desk::Desk,
    entering::Quiet,
    figures::Figures,
    manifests::Manifests,
    one_thread::on_one_thread,
    plan::Plan,
    staging::{Kind, Staging, StagingError},
    stamping::Stamping,
    state::State,
};
use crate::{
    blocking::blocking,
    delivery_ledger::Settlement,
    holding::{Advance, Holding},
    measure::Measure,
    sink::{
        Batch, BoxFuture, DeliverError, Disposition, Durability, Limits, Receipt, Sink, SinkContext,
        Unfinished,
    },
};

/// A write is for so many bytes, or so long a wait for more.
const BATCH_BYTES: usize = 2 << 20;
const BATCH_RECORDS: usize = 100_000;
const LINGER: Duration = Duration::from_millis(100);
/// Writing to a file takes no time; this is for a disk that hangs.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How long it waits at the end for time-stamps, which are made up for at the next start.
const STAMPS: Duration = Duration::from_secs(10);
/// How long it waits at most before it looks at the clock.
const LOOK: Duration = Duration::from_secs(60);

/// Writes records into the objects of an archive.
pub struct ArchiveSink {
    context: SinkContext,
    config: ArchiveConfig,
    target: Target,
    desk: Arc<Desk>,
    /// Where the objects go, once it was opened.
    store: Mutex<Option<Store>>,
    /// What was held before it was opened, until somebody asks.
    again: Mutex<Vec<Settlement>>,
    /// Whether what this process knows is what the ledger and the disk have.
    opened: AtomicBool,
    /// Something may be due.
    changed: Notify,
    /// Nothing more is coming, and what there is is to be ended.
    finishing: AtomicBool,
    /// Whether that is done.
    finished: AtomicBool,
    quiet: Quiet,
    /// When heads are to be time-stamped.
    stamping: Option<Stamping>,
    figures: Figures,
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveSinkError {
    /// It is never or always due.
    #[error("`{key}` must be more than zero")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// One object has no room.
    #[error(
        "`staging_bytes` must be at least twice `object_bytes`: an object is there twice while it is sealed"
    )]
    NoRoom,
    /// What is archived would be no evidence.
    #[error("neither lines nor a column would hold the records themselves")]
    NoRecords,
    /// The folder is relative, and there is no working directory.
    #[error("cannot resolve the state directory: {0}")]
    Folder(#[from] std::io::Error),
}

impl ArchiveSink {
    /// A sink for the archive in this target, which no two sinks may share. `staging` is a folder of this machine that it
    /// has for itself: what is open and what waits to be put. `understand` fills the columns of Parquet. It touches
    /// nothing before it is opened.
    ///
    /// # Errors
    ///
    /// When the configuration cannot work.
    pub fn new(
        config: ArchiveConfig,
        target: Target,
        staging: &Path,
        understand: Arc<dyn Understand>,
        context: SinkContext,
    ) -> Result<Self, ArchiveSinkError> {
        Self::on(Staging::new(std::path::absolute(staging)?), config, target, understand, context)
    }

    /// It has the heads of its manifests time-stamped there.
    #[must_use]
    pub fn stamped_by(mut self, authority: TimestampAuthority) -> Self {
        self.stamping = Some(Stamping::new(self.context.name.clone(), authority));
        self
    }

    fn on(
        staging: Staging,
        config: ArchiveConfig,
        target: Target,
        understand: Arc<dyn Understand>,
        context: SinkContext,
    ) -> Result<Self, ArchiveSinkError> {
        if config.object_bytes == 0 {
            return Err(ArchiveSinkError::Zero { key: "object_bytes" });
        }
        if config.object_age.is_zero() {
            return Err(ArchiveSinkError::Zero { key: "object_age" });
        }
        if config.staging_bytes / 2 < config.object_bytes {
            return Err(ArchiveSinkError::NoRoom);
        }
        if !config.formats.keep_records() {
            return Err(ArchiveSinkError::NoRecords);
        }
        let plan = Mutex::new(Plan::new(&config, BTreeMap::new(), Manifests::default()));
        let desk = Desk { staging, plan, understand, writing: Mutex::default(), sealing: Mutex::default() };
        Ok(Self {
            context,
            config,
            target,
            desk: Arc::new(desk),
            store: Mutex::default(),
            again: Mutex::default(),
            opened: AtomicBool::new(false),
            changed: Notify::new(),
            finishing: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            quiet: Quiet::default(),
            stamping: None,
            figures: Figures::default(),
        })
    }

    /// Does the blocking work of making columns, which has a thread of its own. It is asked to end when the future is dropped.
    async fn with_columns<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Desk, &CancellationToken) -> T + Send + 'static,
    ) -> T {
        let (desk, cancelled) = (Arc::clone(&self.desk), CancellationToken::new());
        let _cancel = cancelled.clone().drop_guard();
        on_one_thread(move || work(&desk, &cancelled)).await
    }

    /// Does blocking work. It is asked to end when the future is dropped.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Desk, &CancellationToken) -> T + Send + 'static,
    ) -> T {
        let (desk, cancelled) = (Arc::clone(&self.desk), CancellationToken::new());
        let _cancel = cancelled.clone().drop_guard();
        blocking(move || work(&desk, &cancelled)).await
    }

    /// The ledger's id: a part of every object's name.
    async fn ledger(&self) -> Result<LedgerId, DeliverError> {
        let identity = self.context.ledger.identity(&self.context.name).await;
        let identity = identity.map_err(|failure| DeliverError::retry(failure.message))?;
        let identity = identity.ok_or_else(|| DeliverError::retry("the ledger has not met the sink yet"))?;
        let ledger: Result<LedgerId, _> = identity.ledger.parse();
        ledger.map_err(|error| DeliverError::halt(error.to_string()))
    }

    async fn make_store(&self) -> Result<Store, DeliverError> {
        Store::open(&self.target).await.map_err(|error| self.refused(&error))
    }

    async fn store(&self) -> Result<Store, DeliverError> {
        let known = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(store) = known {
            return Ok(store);
        }
        let store = self.make_store().await?;
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
        Ok(store)
    }

    /// What a store's error means to the delivery loop.
    fn refused(&self, error: &StoreError) -> DeliverError {
        if !error.retryable() {
            return DeliverError::halt(error.to_string());
        }
        let after = error.retry_after();
        if after.is_some() {
            self.context.rate.slow_down(after);
        }
        DeliverError {
            disposition: Disposition::Retry { after, ambiguous: false },
            context: error.to_string(),
        }
    }

    /// Makes what is open durable, and says in the ledger how far it reaches.
    async fn keep_open(&self) -> Result<(), DeliverError> {
        let state = self
            .blocking(|desk, _| {
                let _turn = desk.sealing.lock().unwrap_or_else(PoisonError::into_inner);
                let _other = desk.writing.lock().unwrap_or_else(PoisonError::into_inner);
                let open = desk.plan().open();
                let mut kept = Vec::new();
                for number in open {
                    desk.write_journal(number)?;
                    let on_disk = desk.plan().on_disk(number).filter(|on_disk| on_disk.bytes > 0);
                    if let Some(on_disk) = on_disk {
                        desk.staging.sync(number, Kind::Records)?;
                        desk.staging.sync(number, Kind::Works)?;
                        kept.push(on_disk);
                    }
                }
                if kept.is_empty() {
                    return Ok(None);
                }
                desk.staging.sync_folder()?;
                let mut state = desk.plan().state();
                state.open = kept;
                Ok::<_, StagingError>(Some(state))
            })
            .await
            .map_err(StagingError::retried)?;
        let Some(state) = state else { return Ok(()) };
        info!(sink = %self.context.name, "{} objects stay open until the next start", state.open.len());
        self.context.keep(state.encode()).await
    }
}

impl Holding for ArchiveSink {
    fn has_room(&self) -> bool {
        self.desk.plan().has_room()
    }

    fn hold(&self, settlement: &Settlement) -> bool {
        let held = self.desk.plan().complete(settlement);
        if held {
            self.finished.store(false, Ordering::Relaxed);
            self.changed.notify_one();
        }
        held
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    fn held(&self) -> Vec<Settlement> {
        std::mem::take(&mut *self.again.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn advance(&self) -> BoxFuture<'_, Result<Advance, DeliverError>> {
        Box::pin(async move {
            self.confirm().await;
            loop {
                let (sealed, due, wait) = {
                    let (mut plan, now) = (self.desk.plan(), Utc::now());
                    (plan.sealed(), plan.due(now), plan.until_due(now))
                };
                if !sealed.is_empty() {
                    return self.put(sealed).await;
                }
                if !due.is_empty() {
                    return self.seal(due).await;
                }
                if !self.desk.plan().manifests().entries().is_empty() {
                    let store = self.store().await?;
                    return self.put_entries(&store).await;
                }
                let finish = self.finishing.load(Ordering::Relaxed) && self.desk.plan().is_empty();
                if let Some(advance) = self.make_entries(finish).await? {
                    return Ok(advance);
                }
                if finish {
                    if let Some(stamping) = &self.stamping {
                        stamping.settle(STAMPS).await;
                    }
                    self.finished.store(true, Ordering::Relaxed);
                }
                let entry = self.config.signing.as_ref().and_then(|signing| {
                    let plan = self.desk.plan();
                    plan.manifests().until_due(Utc::now(), signing.interval, |tenant| self.quiet.of(tenant))
                });
                let wait = wait.into_iter().chain(entry).min();
                let wait = wait.map_or(LOOK, |wait| wait.clamp(Duration::from_millis(10), LOOK));
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        })
    }

    fn flush(&self) {
        self.desk.plan().flush();
        self.finishing.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

impl Sink for ArchiveSink {
    fn name(&self) -> &SinkName {
        &self.context.name
    }

    fn limits(&self) -> Limits {
        Limits {
            max_records: BATCH_RECORDS,
            max_bytes: BATCH_BYTES,
            linger: LINGER,
            in_flight: 1,
            ordered: true,
            timeout: TIMEOUT,
            beside: 0,
            exactly_once: true,
            whole_works: true,
        }
    }

    fn holding(&self) -> Option<&dyn Holding> {
        Some(self)
    }

    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        Box::pin(async move {
            self.reopen().await?;
            self.opened.store(true, Ordering::Relaxed);
            Ok(Vec::new())
        })
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>> {
        Box::pin(async move {
            let coverage = batch.coverage();
            // When this future is dropped, the lines are in the file nevertheless, and known to be.
            self.blocking(move |desk, _| {
                let _turn = desk.writing.lock().unwrap_or_else(PoisonError::into_inner);
                desk.take_batch(&batch)
            })
            .await
            .map_err(StagingError::retried)?;
            self.changed.notify_one();
            Ok(Receipt::confirmed(coverage, Durability::Staged))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>> {
        Box::pin(async move {
            let state = self.context.stored(State::decode).await?;
            self.probe_keys().await?;
            self.blocking(|desk, _| desk.staging.probe()).await.map_err(StagingError::retried)?;
            let store = self.make_store().await?;
            store.probe().await.map_err(|error| self.refused(&error))?;
            match state {
                Some(state) => self.probe_chains(&store, state.manifests).await,
                None => Ok(()),
            }
        })
    }

    fn measures(&self) -> Vec<Measure> {
        let plan = self.desk.plan();
        let mut measures = self.figures.measures(plan.levels(), Utc::now());
        measures.extend(figures::chains(plan.manifests()));
        measures.extend(self.stamping.iter().flat_map(Stamping::measures));
        measures
    }

    fn archive(&self) -> Option<ArchiveReport> {
        // Before that only the ledger knows.
        let opened = self.opened.load(Ordering::Relaxed);
        opened.then(|| ArchiveReport::of_plan(&self.desk.plan()))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(stamping) = &self.stamping {
                stamping.stop();
            }
            if !self.opened.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.keep_open().await {
                warn!(sink = %self.context.name, "what is open is made anew from the spool at the next start: {error}");
            }
        })
    }
}
