//! The `file` sink: one record a line, exactly once, also for whoever tails the file.
//!
//! | file | what it holds |
//! |---|---|
//! | `file.rs` | [`FileSink`]: the sink, its blocking steps off the reactor |
//! | `file/config.rs` | [`FileConfig`]: the keys of the configuration |
//! | `file/plan.rs` | what comes next and what the ledger has to keep before; pure |
//! | `file/state.rs` | the layout of that in the ledger |
//! | `file/locate.rs` | what is on disk against what the ledger says |
//! | `file/writer.rs` | append, fsync, rotate, in an order that any crash can be made good |
//! | `file/line.rs` | whether a line is the due record, in any rendering |
//! | `file/closed.rs` | names, compression and number of closed files |
//! | `file/disk.rs` | what is asked of the file system |
//!
//! # Layout
//!
//! The live file is `mailtrail.ndjson`. Closed files are `mailtrail-<UTC time>-<n>.ndjson`, where `n` grows with every file,
//! also beyond those that it finds there, and `.gz` or `.zst` behind it when they are compressed.
//!
//! # What it promises
//!
//! * Every due record is in the files exactly once, in the order of delivery, whatever crashed and when, also when the
//!   view, the filter or the rotation changed meanwhile.
//! * A line that was once whole stays: whoever tails the file sees each line once and none that is taken back. (When
//!   the machine loses power, what was not fsynced may be gone; it is written again in the same place.)
//! * Rotation happens between blobs, by rename. A live file is never cut to begin anew.
//! * What it did not write is not touched: a file that the ledger does not know is refused, links are not followed, and
//!   only closed files of its own name are compressed or deleted.
//!
//! # How
//!
//! Before a batch is appended, the ledger has where it begins and which positions of which works are in it, in the
//! commit that settles the batch before. After a crash these works come first, rendered at just these positions; each
//! line behind the beginning is compared with the record that is due there, and the rest is appended.

mod closed;
mod config;
mod disk;
mod line;
mod locate;
mod plan;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::Utc;
use futures_util::future::OptionFuture;
use schemas::SinkName;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use self::config::{BadFileName, BadMode, Compression, FileConfig, FileName, Mode};
use self::{
    closed::{forms, last_number, tidy},
    disk::{Access, Disk, RealDisk},
    plan::{Plan, live_path},
    state::State,
    writer::Writer,
};
use crate::{
    blocking::blocking,
    delivery_ledger::WorkId,
    positions::Positions,
    sink::{Batch, BoxFuture, DeliverError, Durability, Limits, Receipt, Sink, SinkContext, Unfinished},
    turn::{NotNow, Turn},
};

/// One write and one fsync are for so many bytes, or so long a wait for more.
const BATCH_BYTES: usize = 2 << 20;
const BATCH_RECORDS: usize = 100_000;
const LINGER: Duration = Duration::from_millis(100);
/// An fsync of a slow disk takes its time; this is for one that hangs.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How often an idle sink looks whether the live file is old enough.
const UPKEEP: Duration = Duration::from_secs(60);

/// Writes records into files of a directory.
pub struct FileSink {
    context: SinkContext,
    config: FileConfig,
    access: Access,
    disk: Arc<dyn Disk>,
    plan: Mutex<Plan>,
    writer: Arc<Mutex<Writer>>,
    /// Its turn at the files: a write of the sink that was there before it may still be under way.
    turn: Turn,
    /// One at a time compresses and deletes closed files.
    one_at_a_time: Arc<Mutex<()>>,
    /// The one that was started last.
    tidying: Mutex<Option<JoinHandle<()>>>,
    stop_tidying: CancellationToken,
}

/// A configuration that cannot work on this machine.
#[derive(Debug, thiserror::Error)]
pub enum FileSinkError {
    /// The group does not exist.
    #[error("there is no group `{group}` on this machine")]
    NoSuchGroup {
        /// Its name.
        group: String,
    },
    /// The group could not be looked up.
    #[error("cannot look up the group `{group}`: {source}")]
    Group {
        /// Its name.
        group: String,
        /// Why.
        source: nix::Error,
    },
    /// The rotation is never or always due.
    #[error("`{key}` must be more than zero")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// The directory is relative, and there is no working directory.
    #[error("cannot resolve the directory: {0}")]
    Directory(#[from] std::io::Error),
}

impl FileSink {
    /// A sink for this directory. It touches nothing before it is opened.
    ///
    /// # Errors
    ///
    /// When the configuration cannot work.
    pub fn new(config: FileConfig, context: SinkContext) -> Result<Self, FileSinkError> {
        Self::on(Arc::new(RealDisk), config, context)
    }

    fn on(disk: Arc<dyn Disk>, mut config: FileConfig, context: SinkContext) -> Result<Self, FileSinkError> {
        config.directory = std::path::absolute(&config.directory)?;
        if config.rotate_bytes == 0 {
            return Err(FileSinkError::Zero { key: "rotate_bytes" });
        }
        if config.rotate_interval.is_zero() {
            return Err(FileSinkError::Zero { key: "rotate_interval" });
        }
        let group = match &config.group {
            None => None,
            Some(name) => match nix::unistd::Group::from_name(name) {
                Ok(Some(group)) => Some(group.gid.as_raw()),
                Ok(None) => return Err(FileSinkError::NoSuchGroup { group: name.clone() }),
                Err(source) => return Err(FileSinkError::Group { group: name.clone(), source }),
            },
        };
        let access = Access { mode: config.mode.bits(), group };
        let writer = Writer::new(Arc::clone(&disk), live_path(&config), access);
        Ok(Self {
            turn: context.ledger.turns(&context.name).join(),
            context,
            plan: Mutex::new(Plan::new(config.clone(), None, None)),
            config,
            access,
            disk,
            writer: Arc::new(Mutex::new(writer)),
            one_at_a_time: Arc::default(),
            tidying: Mutex::default(),
            stop_tidying: CancellationToken::new(),
        })
    }

    /// Does blocking work with the writer, in its turn.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, DeliverError> + Send + 'static,
    ) -> Result<T, DeliverError> {
        let (writer, turn) = (Arc::clone(&self.writer), self.turn.clone());
        blocking(move || {
            let _under_way = turn.enter().map_err(NotNow::retried)?;
            // After a panic, the writer looks again at what is on disk before it goes on.
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut writer)
        })
        .await
    }

    /// Compresses and deletes closed files in the background. What is interrupted is done at the next start.
    fn tidy_in_background(&self) {
        let (disk, config, access) = (Arc::clone(&self.disk), self.config.clone(), self.access);
        let (one_at_a_time, stop) = (Arc::clone(&self.one_at_a_time), self.stop_tidying.clone());
        let name = self.context.name.clone();
        let turn = self.turn.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _one = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
            // Another configuration may keep more.
            let Ok(_under_way) = turn.enter() else { return };
            if let Err(error) = tidy(disk.as_ref(), &config, access, &stop) {
                let directory = config.directory.display();
                warn!(sink = %name, "closed files in {directory} are left as they are for now: {error}");
            }
        });
        *self.tidying.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    fn is_taken(&self, closed: &Path) -> bool {
        // When it cannot be told, the rename would tell.
        forms(closed).iter().any(|form| self.disk.look(form).is_ok_and(|found| found.is_some()))
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for FileSink {
    fn name(&self) -> &SinkName {
        &self.context.name
    }

    fn limits(&self) -> Limits {
        Limits {
            max_records: BATCH_RECORDS,
            max_bytes: BATCH_BYTES,
            beside: 0,
            linger: LINGER,
            in_flight: 1,
            ordered: true,
            timeout: TIMEOUT,
            exactly_once: true,
            whole_works: true,
        }
    }

    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        Box::pin(async move {
            self.turn.begin().map_err(NotNow::retried)?;
            let mut state = self.context.stored(State::decode).await?;
            if let Some(known) = state.clone()
                && self.blocking(move |writer| writer.is_gone(&known)).await?
            {
                // The ledger has to know before another file is made.
                state = state.map(|state| state.started_anew(live_path(&self.config)));
                if let Some(state) = &state {
                    self.context.keep(state.encode()).await?;
                }
            }
            let (known, disk) = (state.clone(), Arc::clone(&self.disk));
            let mut live = vec![live_path(&self.config)];
            live.extend(state.as_ref().map(|state| state.path.clone()));
            let opened = self.blocking(move |writer| {
                let identity = writer.open(known.as_ref())?;
                // Where nothing can be listed, nothing is tidied by number either.
                let numbers = live.iter().filter_map(|live| last_number(disk.as_ref(), live).ok());
                Ok((identity, numbers.max().unwrap_or(0)))
            });
            let (identity, last) = opened.await?;
            let mut plan = Plan::new(self.config.clone(), state, Some(identity));
            plan.goes_on_behind(last);
            let unfinished = plan.unfinished();
            *self.plan() = plan;
            self.tidy_in_background();
            Ok(unfinished)
        })
    }

    fn state(&self, finished: &[WorkId], next: Option<&Batch>) -> Option<Vec<u8>> {
        let taken = |path: &Path| self.is_taken(path);
        Some(self.plan().announce(finished, next, &taken, Utc::now()).encode())
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>> {
        Box::pin(async move {
            let place = self.plan().place();
            let rotates = place.closing.is_some();
            let coverage = batch.coverage();
            let parts: Vec<(WorkId, Positions)> =
                batch.parts.iter().map(|part| (part.work.id, part.positions().collect())).collect();
            let again = batch.clone();
            let written = match self.blocking(move |writer| writer.deliver(&place, &batch)).await? {
                Some(written) => written,
                None => {
                    let mut plan = self.plan().clone();
                    self.context.keep(plan.start_anew(&parts, Utc::now()).encode()).await?;
                    let place = plan.place();
                    *self.plan() = plan;
                    let written = self.blocking(move |writer| writer.deliver(&place, &again)).await?;
                    written.ok_or_else(|| DeliverError::retry("the live file is gone again"))?
                }
            };
            // Only here does the place move on: when this future is dropped earlier, the batch comes again, and finds
            // its lines.
            self.plan().wrote(&parts, &written);
            if rotates {
                self.tidy_in_background();
            }
            Ok(Receipt::confirmed(coverage, Durability::Fsynced))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>> {
        Box::pin(async move {
            let state = self.context.stored(State::decode).await?;
            // It writes to no file that counts, and whoever is halted was perhaps never opened.
            let writer = Arc::clone(&self.writer);
            blocking(move || writer.lock().unwrap_or_else(PoisonError::into_inner).probe(state.as_ref()))
                .await
        })
    }

    fn upkeep(&self) -> BoxFuture<'_, Result<Option<Duration>, DeliverError>> {
        Box::pin(async move {
            let mut plan = self.plan().clone();
            if let Some(state) = plan.rotate_when_idle(&|path| self.is_taken(path), Utc::now()) {
                self.context.keep(state.encode()).await?;
                *self.plan() = plan;
            }
            let place = self.plan().place();
            if place.closing.is_some() {
                let identity = self.blocking(move |writer| writer.rotate(&place)).await?;
                self.plan().rotated(identity);
                self.tidy_in_background();
            }
            let left = self.plan().until_rotation(Utc::now());
            Ok(Some(left.map_or(UPKEEP, |left| left.clamp(Duration::from_secs(1), UPKEEP))))
        })
    }

    /// Waits for the compression that is under way; when it is dropped, that stops, and is done at the next start.
    fn close(&self) -> BoxFuture<'_, ()> {
        let stop = self.stop_tidying.clone().drop_guard();
        let tidying = self.tidying.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            if let Some(Err(error)) = OptionFuture::from(tidying).await {
                warn!(sink = %self.context.name, "compressing closed files ended badly: {error}");
            }
            drop(stop);
        })
    }
}
