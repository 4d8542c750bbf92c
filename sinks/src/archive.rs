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
//! | `archive/seal.rs` | from records to an object: compressed, hashed, named |
//! | `archive/manifests.rs` | the chains of signed entries; pure |
//! | `archive/entering.rs` | making entries, and putting them |
//! | `archive/reopen.rs` | what an earlier run left behind |
//! | `archive/figures.rs` | what it counts |
//!
//! # The life of an object
//!
//! | stage | where it is | what the ledger knows | after a crash |
//! |---|---|---|---|
//! | open | `N.ndjson` in the staging folder | nothing; after a stop in peace how far it reaches | it is thrown away and made anew from the spool; after a stop in peace it goes on |
//! | sealed | `N.object`, durable | its path, hash, Merkle root and `Seq`s | the same bytes are put under the same name |
//! | put | in the archive | in the commit that settles its works, that it is | – |
//!
//! # What it promises
//!
//! * A work is settled only when the object that holds its records is in the archive (L3).
//! * Every due record is in exactly one object, whatever crashed and when: an object is made of whole works, has its
//!   name and hash in the ledger before it is put, and is put as a new object. One that is there already counts only
//!   after its bytes were read back and compared.
//! * Nothing in the archive is overwritten or deleted.
//! * An object keeps the settings that it began with.
//! * Memory and open files do not grow with the number of tenants: records go to files that are opened for each batch,
//!   and what is known of a work that waits is its settlement. What is open is closed early when it comes near to what
//!   may be held.

mod config;
mod entering;
mod figures;
mod manifests;
mod plan;
mod reopen;
mod seal;
mod span;
mod staging;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use archive::{ObjectName, Put, SealedFile, SealedObject, Source, Store, StoreError, Target};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream};
use schemas::{LedgerId, Seq, SinkName};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::config::{ArchiveConfig, Compression, Signing};
use self::{
    figures::Figures,
    manifests::Manifests,
    plan::{Due, Offer, Plan},
    seal::Made,
    staging::{Kind, Staging, StagingError},
    state::State,
};
use crate::{
    blocking::blocking,
    delivery_ledger::{Settlement, WorkId},
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
/// So many objects are sealed in one commit.
const SEAL_AT_ONCE: usize = 64;
/// And no more of their records, so that what is done is soon kept.
const SEAL_BYTES: u64 = 256 << 20;
/// So many objects are put at a time.
const PUT_AT_ONCE: usize = 4;
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
    figures: Figures,
}

/// What the blocking steps work with.
struct Desk {
    staging: Staging,
    plan: Mutex<Plan>,
    /// One at a time writes records.
    writing: Mutex<()>,
    /// One at a time seals.
    sealing: Mutex<()>,
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
    /// The folder is relative, and there is no working directory.
    #[error("cannot resolve the state directory: {0}")]
    Folder(#[from] std::io::Error),
}

impl Desk {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        // Numbers that a panic left half changed are made anew when the sink is opened after it.
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_batch(&self, batch: &Batch) -> Result<(), StagingError> {
        let writings = self.plan().begin(batch, Utc::now());
        for writing in &writings {
            self.staging.append(writing.span, writing.at, batch, &writing.parts)?;
            self.plan().appended(writing, batch);
            self.write_journal(writing.span)?;
        }
        Ok(())
    }

    /// Brings a journal's file up to date.
    fn write_journal(&self, number: u64) -> Result<(), StagingError> {
        let mut plan = self.plan();
        let Some(span) = plan.span_mut(number) else { return Ok(()) };
        let (at, lines) = span.unwritten();
        self.staging.append_works(number, at, lines)?;
        span.journal_written();
        Ok(())
    }

    /// Seals what is due, until that is enough for one commit.
    fn seal(
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
        let made = seal::make(&self.staging, due, cancelled)?;
        Ok(sealed(due, &made, ledger))
    }
}

/// An object could not be sealed.
struct Unsealed {
    span: u64,
    error: StagingError,
}

/// The object's name and what else is to be known of it.
fn sealed(due: &Due, made: &Made, ledger: LedgerId) -> SealedObject {
    let (first_seq, last_seq) = due.whole.seqs.unwrap_or((Seq(0), Seq(0)));
    let name = ObjectName { ledger, first_seq, last_seq, short_hash: made.sha256.short() };
    let format = due.settings.compression.format();
    let time = |millis: i64| DateTime::from_timestamp_millis(millis);
    SealedObject {
        content_type: due.feed.content_type,
        first_seq,
        last_seq,
        records: made.records,
        first_creation_time: due.whole.times.and_then(|(first, _)| time(first)),
        last_creation_time: due.whole.times.and_then(|(_, last)| time(last)),
        merkle_root: made.merkle_root,
        files: vec![SealedFile {
            path: name.hive_path(due.feed, due.began, format),
            format,
            sha256: made.sha256,
            bytes: made.bytes,
            records: made.records,
        }],
    }
}

impl ArchiveSink {
    /// A sink for the archive in this target, which no two sinks may share. `staging` is a folder of this machine that it has for itself: what is open and what
    /// waits to be put. It touches nothing before it is opened.
    ///
    /// # Errors
    ///
    /// When the configuration cannot work.
    pub fn new(
        config: ArchiveConfig,
        target: Target,
        staging: &Path,
        context: SinkContext,
    ) -> Result<Self, ArchiveSinkError> {
        Self::on(Staging::new(std::path::absolute(staging)?), config, target, context)
    }

    fn on(
        staging: Staging,
        config: ArchiveConfig,
        target: Target,
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
        let plan = Mutex::new(Plan::new(&config, BTreeMap::new(), Manifests::default()));
        let desk = Desk { staging, plan, writing: Mutex::default(), sealing: Mutex::default() };
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
            figures: Figures::default(),
        })
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

    /// Clears away what a step that is durable now has left.
    async fn confirm(&self) {
        let confirmed = self.desk.plan().confirm();
        let left: Vec<(u64, bool)> = match confirmed {
            None | Some(Offer::Manifests(_)) => return,
            Some(Offer::Sealed(sealed)) => sealed.into_iter().map(|(number, _)| (number, false)).collect(),
            Some(Offer::Put(put)) => put.into_iter().map(|number| (number, true)).collect(),
        };
        let removed = self
            .blocking(move |desk, _| {
                left.into_iter().try_for_each(|(number, all)| match all {
                    true => desk.staging.remove_all(number),
                    false => desk.staging.remove(number, Kind::Records),
                })
            })
            .await;
        if let Err(error) = removed {
            // The next start removes what nobody knows.
            warn!(sink = %self.context.name, "a file that is not needed any more stays: {error}");
        }
    }

    /// Seals what is due.
    async fn seal(&self, due: Vec<Due>) -> Result<Advance, DeliverError> {
        let ledger = self.ledger().await?;
        let sealed = self
            .blocking(move |desk, cancelled| {
                let _turn = desk.sealing.lock().unwrap_or_else(PoisonError::into_inner);
                desk.seal(due, ledger, cancelled)
            })
            .await;
        match sealed {
            Ok(sealed) => {
                self.figures.sealed(sealed.len());
                let state = self.desk.plan().offer(Offer::Sealed(sealed)).encode();
                Ok(Advance { state, arrived: Vec::new(), bytes: 0, reached: false })
            }
            Err(Unsealed { span, error }) if error.is_damage() => {
                // The spool still has its works.
                self.desk.plan().forget(span);
                Err(DeliverError::halt(format!(
                    "{error}; the object is thrown away and made anew from the spool: look for a faulty disk, or for \
                     somebody else who writes to that folder"
                )))
            }
            Err(Unsealed { error, .. }) => Err(error.retried()),
        }
    }

    /// Puts what is sealed.
    async fn put(&self, sealed: Vec<(u64, SealedObject)>) -> Result<Advance, DeliverError> {
        let store = self.store().await?;
        let mut puts = stream::iter(sealed)
            .map(|(number, object)| {
                let (store, staging) = (&store, &self.desk.staging);
                async move {
                    let put = async {
                        for of in &object.files {
                            let file = staging.file(number, Kind::Object);
                            staging.step().map_err(StagingError::retried)?;
                            let put = store.put_new(&of.path, Source::File(&file), &of.sha256).await;
                            staging.step().map_err(StagingError::retried)?;
                            let how: Put = put.map_err(|error| self.refused(&error))?;
                            self.figures.put(of, how);
                        }
                        Ok::<(), DeliverError>(())
                    };
                    (number, put.await)
                }
            })
            .buffer_unordered(PUT_AT_ONCE);
        let (mut put, mut failed) = (Vec::new(), None);
        while let Some((number, result)) = puts.next().await {
            match result {
                Ok(()) => put.push(number),
                // One of several that need a person goes before what can pass.
                Err(error) => {
                    if failed
                        .as_ref()
                        .is_none_or(|before: &DeliverError| before.disposition != Disposition::Halt)
                    {
                        failed = Some(error);
                    }
                }
            }
        }
        drop(puts);
        match failed {
            Some(error) if put.is_empty() => {
                self.figures.failed();
                Err(error)
            }
            Some(error) => {
                // Those that are put are settled first. The others are tried again after that.
                self.figures.failed();
                warn!(sink = %self.context.name, "not every object could be put: {error}");
                self.settled(put).await
            }
            None => self.settled(put).await,
        }
    }

    /// The step that settles the works of objects that are put.
    async fn settled(&self, put: Vec<u64>) -> Result<Advance, DeliverError> {
        let (on_disk, bytes) = {
            let plan = self.desk.plan();
            let on_disk: Vec<_> = put.iter().filter_map(|number| plan.on_disk(*number)).collect();
            let bytes = put.iter().filter_map(|number| plan.span(*number)).map(|span| span.whole.bytes);
            (on_disk, bytes.sum())
        };
        let works = self
            .blocking(move |desk, _| {
                let mut works: Vec<WorkId> = Vec::new();
                for of in &on_disk {
                    works.extend(desk.staging.works(of)?.1.iter().map(span::Entry::work));
                }
                Ok::<_, StagingError>(works)
            })
            .await;
        // The object is in the archive and its works cannot be named: nobody but a person can help.
        let arrived = works.map_err(|error| match error.is_damage() {
            true => DeliverError::halt(format!("{error}; bring that file back: its object is put already")),
            false => error.retried(),
        })?;
        let state = self.desk.plan().offer(Offer::Put(put)).encode();
        Ok(Advance { state, arrived, bytes, reached: true })
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
                    self.finished.store(true, Ordering::Relaxed);
                }
                let entry =
                    self.config.signing.as_ref().and_then(|signing| {
                        self.desk.plan().manifests().until_due(Utc::now(), signing.interval)
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
            self.context.stored(State::decode).await?;
            self.probe_keys().await?;
            self.blocking(|desk, _| desk.staging.probe()).await.map_err(StagingError::retried)?;
            let store = self.make_store().await?;
            store.probe().await.map_err(|error| self.refused(&error))
        })
    }

    fn measures(&self) -> Vec<Measure> {
        let plan = self.desk.plan();
        let mut measures = self.figures.measures(plan.levels(), Utc::now());
        measures.extend(figures::chains(plan.manifests()));
        measures
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if !self.opened.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.keep_open().await {
                warn!(sink = %self.context.name, "what is open is made anew from the spool at the next start: {error}");
            }
        })
    }
}
