//! The Parquet twins of an object: its records once more, as columns that a query engine prunes.
//!
//! Twins are made from the object's NDJSON in two passes. [`Twins::read`] reads every line and keeps its place, time and
//! user; [`Twins::write`] goes through the lines in the order wanted and writes them as row groups of at most
//! [`ROW_GROUP_BYTES`]. Memory therefore holds one row group, but for its records, which are read once more when their turn
//! to be written comes, and about 32 bytes for each record of the object. The same
//! lines with the same options become the same bytes. An object has one twin, or one for each class and day in it.
//!
//! # Columns
//!
//! | column | type | what it is |
//! |---|---|---|
//! | `id` | string | `Id` |
//! | `time` | timestamp, milliseconds, UTC | `CreationTime` |
//! | `record_type` | int32 | `RecordType` |
//! | `operation`, `workload` | string | as in the record |
//! | `user`, `user_type`, `user_key` | string, int32, string | who did it: `UserId`, `UserType`, `UserKey` |
//! | `mailbox` | string | whose mailbox it was done to |
//! | `client_ip` | string | from where, without the port |
//! | `object`, `result_status` | string | `ObjectId`, `ResultStatus` |
//! | `class_uid` | int32 | the class of the event in OCSF |
//! | `tags` | list of strings | what it may be a sign of |
//! | `tenant_id`, `feed` | string | tenant and content type; the folders' own names would be columns twice |
//! | `raw` | string | the record as its line has it, unless it is left out |
//!
//! What `raw` holds is read again by `parquet/rows.rs`.
//!
//! What a record does not say is null. Everything is compressed with zstd and has statistics and a page index; `id`, `user`,
//! `mailbox` and `client_ip` have a Bloom filter.

mod columns;
pub(crate) mod nesting;
mod order;
pub(crate) mod rows;
mod schema;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::parquet::{errors::ParquetError, file::writer::SerializedFileWriter};
use chrono::{DateTime, NaiveDate};
use schemas::FeedKey;
use serde::{Deserialize, Serialize};

use self::{columns::Columns, order::Place};
use crate::{Hash, HashedFile};

/// The most that a row group holds before compression, save a single record that is larger.
pub const ROW_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// After so many bytes of records it is asked whether to go on.
const ASK_AFTER: usize = 1 << 20;

/// Knows what records say.
pub trait Understand: Send + Sync {
    /// Tells once what this record of this feed says. Of what cannot be understood only the bytes are kept.
    fn tell(&self, feed: FeedKey, record: &[u8], told: &mut dyn FnMut(&Row<'_>));
}

/// What a record says. Texts are empty when it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Row<'a> {
    /// `Id`.
    pub id: &'a str,
    /// `CreationTime` in milliseconds since 1970.
    pub time_ms: Option<i64>,
    /// `RecordType`.
    pub record_type: Option<i32>,
    /// `Operation`.
    pub operation: &'a str,
    /// `Workload`.
    pub workload: &'a str,
    /// `UserId`.
    pub user: &'a str,
    /// `UserType`.
    pub user_type: Option<i32>,
    /// `UserKey`.
    pub user_key: &'a str,
    /// The owner of the mailbox.
    pub mailbox: &'a str,
    /// The client's address without its port.
    pub client_ip: &'a str,
    /// `ObjectId`.
    pub object: &'a str,
    /// `ResultStatus`.
    pub result_status: &'a str,
    /// The class of its event in OCSF.
    pub class_uid: Option<i32>,
    /// What it was tagged with.
    pub tags: &'a [&'a str],
}

/// What rows are sorted by. Those without are last, and what is equal stays in the order of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SortBy {
    /// When it happened.
    #[default]
    Time,
    /// Who did it, then when it happened: for looking up one user among many.
    User,
}

/// How twins are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParquetOptions {
    /// Whose records they are, and the content type that they came by.
    pub feed: FeedKey,
    /// What the rows are sorted by.
    pub sort_by: SortBy,
    /// Whether the record's own bytes are a column.
    pub raw: bool,
    /// Whether each class and day becomes a twin of its own.
    pub sliced: bool,
}

/// The lines of an object that is not compressed yet.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    /// The file that holds them.
    pub path: &'a Path,
    /// How far they reach in it.
    pub bytes: u64,
    /// What tells what they say.
    pub understand: &'a dyn Understand,
    /// Whether nobody waits for the twins any more.
    pub cancelled: &'a dyn Fn() -> bool,
}

impl Lines<'_> {
    /// Takes what a record says exactly once, whatever the other side does: no record is lost or doubled by it.
    fn tell(&self, feed: FeedKey, record: &[u8], mut take: impl FnMut(&Row<'_>)) {
        let mut told = false;
        self.understand.tell(feed, record, &mut |row| {
            if !std::mem::replace(&mut told, true) {
                take(row);
            }
        });
        if !told {
            take(&Row::default());
        }
    }
}

/// The records of an object that are of one class and happened on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    /// The class of their events in OCSF; 0, which is OCSF's own number for none, when it is unknown.
    pub class_uid: i32,
    /// The day, in UTC; `None` when they do not say.
    pub day: Option<NaiveDate>,
}

impl Slice {
    /// Which one a record belongs to.
    fn of(row: &Row<'_>) -> Self {
        let time = row.time_ms.and_then(DateTime::from_timestamp_millis);
        Self { class_uid: row.class_uid.unwrap_or(0), day: time.map(|time| time.date_naive()) }
    }
}

/// A twin that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// How many records it has.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The hash of all of it.
    pub sha256: Hash,
    /// How many row groups it has.
    pub row_groups: usize,
}

/// A twin cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// Nobody waits for it any more.
    #[error("stopped before it was done")]
    Cancelled,
    /// The object's lines cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The twin cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: ParquetError,
    },
}

impl TwinError {
    /// Whether there is no room on the disk.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            }
            cause = error.source();
        }
        false
    }
}

/// The twins of an object, before they are written.
pub struct Twins<'a> {
    lines: Lines<'a>,
    options: ParquetOptions,
    file: File,
    places: BTreeMap<Option<Slice>, Vec<Place>>,
}

impl<'a> Twins<'a> {
    /// Reads the lines for the first time. It blocks, like all of this.
    ///
    /// # Errors
    ///
    /// When they cannot be read, or the last one is cut off.
    pub fn read(lines: Lines<'a>, options: ParquetOptions) -> Result<Self, TwinError> {
        let unreadable = |source| TwinError::Read { path: lines.path.to_owned(), source };
        let file = File::open(lines.path).map_err(unreadable)?;
        let places = order::in_order(&file, &lines, &options).map_err(unreadable)?;
        let places = places.ok_or(TwinError::Cancelled)?;
        Ok(Self { lines, options, file, places })
    }

    /// Which twins there are, and how many records each has: one of everything, or one for each class and day.
    pub fn slices(&self) -> impl Iterator<Item = (Option<Slice>, u64)> {
        self.places.iter().map(|(slice, places)| (*slice, places.len() as u64))
    }

    /// How many bytes the lines have, line breaks and all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.places.values().flatten().map(|place| u64::from(place.length) + 1).sum()
    }

    /// Writes one of them as a new file, which is durable when this returns. `written` gets each record in the order of
    /// the rows.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, or a record that is to be a text is none. What was written by then is
    /// left, to be written anew.
    pub fn write(
        &self,
        slice: Option<Slice>,
        twin: &Path,
        mut written: impl FnMut(&[u8]),
    ) -> Result<Written, TwinError> {
        let Lines { path, cancelled, .. } = self.lines;
        let unreadable = |source| TwinError::Read { path: path.to_owned(), source };
        let unwritable = |source| TwinError::Write { path: twin.to_owned(), source };
        let to = HashedFile::create(twin).map_err(|error| unwritable(error.into()))?;
        let schema = Arc::new(schema::schema(self.options.raw).map_err(unwritable)?);
        let properties = Arc::new(schema::properties(&self.options));
        let mut writer =
            SerializedFileWriter::new(BufWriter::with_capacity(256 * 1024, to), schema, properties)
                .map_err(unwritable)?;

        let mut columns = Columns::new(&self.options);
        let (mut record, mut since) = (Vec::new(), 0);
        let places = self.places.get(&slice).map_or(&[][..], Vec::as_slice);
        for place in places {
            since += place.length as usize;
            if since >= ASK_AFTER {
                since = 0;
                if cancelled() {
                    return Err(TwinError::Cancelled);
                }
            }
            record.resize(place.length as usize, 0);
            self.file.read_exact_at(&mut record, place.offset).map_err(unreadable)?;
            if str::from_utf8(&record).is_err() {
                let what = format!("the record at byte {} is no text", place.offset);
                return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
            let mut pushed = Ok(());
            self.lines.tell(self.options.feed, &record, |row| {
                if !columns.is_empty() && columns.bytes() + columns.cost(row, *place) > ROW_GROUP_BYTES {
                    pushed = self.write_group(&mut columns, &mut writer, twin);
                }
                columns.push(row, *place);
            });
            pushed?;
            written(&record);
        }
        if !columns.is_empty() {
            self.write_group(&mut columns, &mut writer, twin)?;
        }
        let row_groups = writer.flushed_row_groups().len();
        let to = writer.into_inner().map_err(unwritable)?;
        let to = to.into_inner().map_err(|error| unwritable(error.into_error().into()))?;
        let (sha256, bytes) = to.finish().map_err(|error| unwritable(error.into()))?;
        Ok(Written { rows: places.len() as u64, bytes, sha256, row_groups })
    }
}

impl Twins<'_> {
    fn write_group<W: Write + Send>(
        &self,
        columns: &mut Columns,
        writer: &mut SerializedFileWriter<W>,
        twin: &Path,
    ) -> Result<(), TwinError> {
        let mut unreadable = None;
        let read = |place: Place, record: &mut [u8]| {
            self.file.read_exact_at(record, place.offset).map_err(|source| {
                unreadable = Some(source);
                ParquetError::General("its records cannot be read".to_owned())
            })
        };
        let written = columns.write(writer, read);
        match unreadable {
            Some(source) => Err(TwinError::Read { path: self.lines.path.to_owned(), source }),
            None => written.map_err(|source| TwinError::Write { path: twin.to_owned(), source }),
        }
    }
}
