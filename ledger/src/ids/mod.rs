//! The duplicate index: which blob an id was seen in first, for as many ids as a horizon of days brings, in bounded
//! memory.
//!
//! It promises that
//!
//! - an id that was committed is found until its horizon has passed since it came last, over crashes and restarts;
//! - an id that was not committed is never found after a crash or [`DuplicateIndex::roll_back`], so that a record can
//!   never be taken for a duplicate of itself and be lost;
//! - its anonymous memory stays under 48 MB with 100 million ids: about 25 bytes for each of the [`RECENT_IDS`] most
//!   recent ones, and a constant. (A group that stages more than that exceeds the bound until it is committed.)
//! - a failed write, of a full disk say, leaves it as it was, and it goes on when there is room again.
//!
//! # How it works
//!
//! Recent ids are in memory and, for durability, in an append-only journal whose committed length
//! is part of the ledger's own commit. When there are many, they move to tables, one file for each hour of
//! `CreationTime`, sorted, so that few system calls are needed; the ledger's next commit then names a new, empty
//! journal and the old one is deleted. Moving them is idempotent: a crash in the middle moves them again. A look-up
//! is one probe in memory and, where the hour has a table, one read of 512 bytes, nearly always from the page cache.
//!
//! # On disk
//!
//! ```text
//! ids/journal-NNNNNNNNNN   recent ids: see journal.rs
//! ids/hours-NNNN.table     older ids of the hours that leave the remainder NNNN divided by 2048: see table.rs
//! ids/hours-NNNN.new       a table that is being written; left over by a crash, removed at the next start
//! ```
//!
//! Deleting `ids/` while mailtrail does not run is safe: no record is lost, only repetitions of records that were
//! collected before are not noticed.

mod disk;
mod error;
mod journal;
mod memtable;
mod slot;
mod table;
mod tables;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use schemas::RecordKey;

pub use self::error::IdsError;
use self::journal::Journal;
use self::memtable::Memtable;
use self::slot::{Horizon, MAX_OWNER, Partition, Secret};
use self::tables::{Name, Tables};

/// Committed ids beyond which the memory is emptied into the tables.
pub const RECENT_IDS: usize = 200_000;

/// Table files that are open at a time. A horizon of 8 days has 192 hours.
const OPEN_FILES: usize = 256;

/// How far the index is durable. The ledger records it in the commit that makes the blobs of the ids durable, and
/// gives it back at the next start. The default is the checkpoint of an empty index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checkpoint {
    /// The number of the journal.
    pub journal: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The ledger's number for a feed. Ids of different feeds have nothing to do with one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedNumber(pub i64);

/// The ledger's number for the blob that an id was seen in first: 0 or more, and below 2^40.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub i64);

/// A day: whole days since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub u16);

impl Day {
    /// A day on which nothing has expired.
    pub const UNKNOWN: Self = Self(0);

    /// The day of a time; times before 1970 and after 2149 are the first and the last day.
    #[must_use]
    pub fn of(time: DateTime<Utc>) -> Self {
        Self(time.timestamp().div_euclid(86_400).clamp(0, i64::from(u16::MAX)) as u16)
    }
}

/// How large the index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdsStats {
    /// Ids in the tables, those that expired and are not yet dropped included.
    pub in_tables: u64,
    /// Ids in memory.
    pub recent: u64,
    /// Tables, one for each hour that has ids.
    pub tables: u64,
    /// Files that are open.
    pub open_files: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Which blob an id was seen in first. See the module for what it promises.
///
/// One writer calls, for each group of blobs: [`owner_of`](Self::owner_of) and [`stage`](Self::stage) for every
/// record, [`sync`](Self::sync), then its own commit with the checkpoint that `sync` gave, then
/// [`committed`](Self::committed) or, when anything failed, [`roll_back`](Self::roll_back).
pub struct DuplicateIndex {
    dir: PathBuf,
    secret: Secret,
    horizon_days: u16,
    /// The day of the latest call that said one.
    today: Day,
    recent_limit: usize,
    memtable: Memtable,
    tables: Tables,
    journal: Journal,
    /// What the ledger's commit says.
    committed: Checkpoint,
    /// What the last sync gave and the ledger has not yet committed.
    offered: Option<Checkpoint>,
    /// Journals that go when the ledger has committed one that is none of them.
    obsolete: Vec<u64>,
}

impl DuplicateIndex {
    /// Opens the index in `dir`, which is made if it is not there, as the ledger has `committed` it.
    ///
    /// `secret` is the ledger's own random number, the same at every start. An id counts on the day on which it was
    /// staged last and on `horizon_days` more. What was written after the commit, and files left over by a crash, are
    /// removed. With the default checkpoint everything in `dir` is.
    ///
    /// # Errors
    ///
    /// Besides failures of the disk: [`IdsError::Damaged`] and [`IdsError::Foreign`] for files that are not what the
    /// ledger committed. Nothing is removed or changed then.
    pub fn open(
        dir: &Path,
        secret: [u8; 16],
        committed: Checkpoint,
        horizon_days: u16,
        today: Day,
    ) -> Result<Self, IdsError> {
        Self::open_with(dir, secret, committed, Horizon { days: horizon_days, today }, RECENT_IDS, OPEN_FILES)
    }

    fn open_with(
        dir: &Path,
        secret: [u8; 16],
        committed: Checkpoint,
        horizon: Horizon,
        recent_limit: usize,
        open_files: usize,
    ) -> Result<Self, IdsError> {
        disk::make_directory(dir)?;
        let secret = Secret::new(secret);
        let mark = secret.mark();
        let found = Found::list(dir)?;
        let mut memtable = Memtable::default();
        let mut tables = Tables::new(dir, mark, open_files);
        let journal = if committed == Checkpoint::default() {
            found.tables.iter().try_for_each(|partition| tables.remove(*partition))?;
            Journal::fresh(dir, mark, 1)
        } else if found.tables.is_empty() && found.journals.iter().all(|number| *number > committed.journal) {
            tracing::warn!(
                directory = %dir.display(),
                "the duplicate index was deleted; it starts anew, repetitions of earlier records go unnoticed"
            );
            Journal::fresh(dir, mark, committed.journal + 1)
        } else {
            found.tables.iter().try_for_each(|partition| tables.adopt(*partition, committed))?;
            let journal = Journal::reopen(dir, mark, committed, |entry| {
                if horizon.includes(entry.slot.day()) {
                    memtable.restore(entry, horizon.days);
                }
            })?;
            tables.expire(horizon)?;
            journal
        };
        found.left_over.iter().try_for_each(|path| disk::remove(path))?;
        for number in found.journals {
            if number != committed.journal {
                journal::remove(dir, number);
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            secret,
            horizon_days: horizon.days,
            today: horizon.today,
            recent_limit,
            memtable,
            tables,
            journal,
            committed,
            offered: None,
            obsolete: Vec::new(),
        })
    }

    /// The blob that the id was seen in first, among the committed and the staged ids that have not expired `today`.
    ///
    /// # Errors
    ///
    /// When the table of the id's hour cannot be read.
    pub fn owner_of(
        &mut self,
        feed: FeedNumber,
        key: &RecordKey,
        today: Day,
    ) -> Result<Option<Owner>, IdsError> {
        self.today = today;
        let horizon = self.horizon();
        let id = self.secret.id(feed, key);
        // The table first: what it has came earlier.
        let known = self.tables.find(&id)?.filter(|slot| horizon.includes(slot.day()));
        let known = known.or_else(|| self.memtable.get(&id).filter(|slot| horizon.includes(slot.day())));
        Ok(known.map(|slot| slot.owner()))
    }

    /// Notes that the id was seen in a blob. It is found from now on, and durable after the next commit.
    ///
    /// An id that was seen before and has not expired keeps its first owner, which is to be given here, and counts from
    /// `today` on. An owner beyond 2^40 is not noted, which costs a duplicate that goes unnoticed.
    pub fn stage(&mut self, feed: FeedNumber, key: &RecordKey, owner: Owner, today: Day) {
        debug_assert!((0..=MAX_OWNER).contains(&owner.0), "the owner {} is out of range", owner.0);
        if (0..=MAX_OWNER).contains(&owner.0) {
            self.today = today;
            self.memtable.stage(self.secret.id(feed, key), owner, self.horizon());
        }
    }

    /// Makes the staged ids durable and gives the checkpoint to record in the ledger's commit. Costs nothing when
    /// nothing is staged.
    ///
    /// # Errors
    ///
    /// When the disk refuses. The ids stay staged: call it again, or [`roll_back`](Self::roll_back).
    pub fn sync(&mut self) -> Result<Checkpoint, IdsError> {
        if self.memtable.unjournalled().len() == 0 {
            return Ok(self.offered.unwrap_or(self.committed));
        }
        if self.memtable.committed_len() >= self.recent_limit.saturating_mul(2) {
            // The tables have refused for long; memory is bounded, so that nothing goes on before they accept.
            self.flush()?;
        }
        if self.journal.is_broken() {
            self.turn_over();
        }
        if self.journal.is_fresh() {
            self.journal.append(self.memtable.all())?;
        } else {
            self.journal.append(self.memtable.unjournalled())?;
        }
        self.memtable.set_journalled();
        let checkpoint = self.journal.checkpoint();
        self.offered = Some(checkpoint);
        Ok(checkpoint)
    }

    /// Notes that the commit with the checkpoint of the last [`sync`](Self::sync) succeeded. From time to time this
    /// moves the recent ids to the tables, which takes up to a few hundred milliseconds.
    ///
    /// # Errors
    ///
    /// When the tables could not be written. The ids are committed all the same and stay in memory and in the journal;
    /// the next call tries again.
    pub fn committed(&mut self) -> Result<(), IdsError> {
        if let Some(checkpoint) = self.offered.take() {
            self.committed = checkpoint;
            self.memtable.commit();
            let (dir, current) = (&self.dir, checkpoint.journal);
            self.obsolete.retain(|number| *number == current || !journal::remove(dir, *number));
        }
        if self.memtable.committed_len() >= self.recent_limit { self.flush() } else { Ok(()) }
    }

    /// Forgets what is staged, because the commit did not succeed.
    pub fn roll_back(&mut self) {
        self.offered = None;
        self.memtable.roll_back();
        let keep = if self.journal.number() == self.committed.journal { self.committed.length } else { 0 };
        self.journal.cut_back(keep);
    }

    /// Removes the hours of which every id has expired. To be called now and then, once an hour say.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed; the next call tries again.
    pub fn maintain(&mut self, today: Day) -> Result<(), IdsError> {
        self.today = today;
        self.tables.expire(self.horizon())
    }

    /// How large the index is.
    #[must_use]
    pub fn stats(&self) -> IdsStats {
        let tables = self.tables.headers();
        let (count, ids, bytes) = tables.fold((0, 0, 0), |(count, ids, bytes), header| {
            (count + 1, ids + header.ids, bytes + header.file_bytes())
        });
        IdsStats {
            in_tables: ids,
            recent: self.memtable.len() as u64,
            tables: count,
            open_files: self.tables.open_files() as u64,
            bytes: bytes + self.journal.checkpoint().length,
        }
    }

    fn horizon(&self) -> Horizon {
        Horizon { days: self.horizon_days, today: self.today }
    }

    /// Moves the committed ids from memory to the tables, and goes on with a new journal.
    fn flush(&mut self) -> Result<(), IdsError> {
        let (horizon, committed) = (self.horizon(), self.committed);
        let (memtable, tables) = (&self.memtable, &mut self.tables);
        memtable
            .committed_runs(self.recent_limit.max(1), horizon, |run| tables.put(run, horizon, committed))?;
        self.memtable.forget_committed(self.recent_limit);
        self.turn_over();
        Ok(())
    }

    /// Goes on with a new journal, which the next sync fills with every recent id.
    fn turn_over(&mut self) {
        let next = Journal::fresh(&self.dir, self.journal.mark(), self.journal.number() + 1);
        let old = std::mem::replace(&mut self.journal, next).number();
        // What the ledger has committed, or may be about to commit, stays until it has committed another.
        let named =
            old == self.committed.journal || self.offered.is_some_and(|offered| offered.journal == old);
        if named || !journal::remove(&self.dir, old) {
            self.obsolete.push(old);
        }
    }
}

/// What is in the directory of the index.
#[derive(Default)]
struct Found {
    journals: Vec<u64>,
    tables: Vec<Partition>,
    left_over: Vec<PathBuf>,
}

impl Found {
    /// Lists the directory. Files of other names are left alone.
    fn list(dir: &Path) -> Result<Self, IdsError> {
        let failed = |source| IdsError::Io { action: "list", path: dir.to_owned(), source };
        let mut found = Self::default();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            match (journal::number_in(name), tables::name(name)) {
                (Some(number), _) => found.journals.push(number),
                (_, Some(Name::Table(partition))) => found.tables.push(partition),
                (_, Some(Name::Unfinished)) => found.left_over.push(entry.path()),
                (None, None) => {}
            }
        }
        Ok(found)
    }
}
