//! The Parquet twin of an object: its records once more, as columns that a query engine prunes.
//!
//! A twin is made from the object's NDJSON in two passes. The first reads every line and keeps its place, time and user;
//! the second goes through the lines in the order wanted and writes them as row groups of at most [`ROW_GROUP_BYTES`].
//! Memory therefore holds one row group, and about 32 bytes for each record of the object. The same lines with the same
//! options become the same bytes.
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
//! | `raw` | string | the record, byte for byte, unless it is left out |
//!
//! What a record does not say is null. Everything is compressed with zstd and has statistics and a page index; `id`, `user`,
//! `mailbox` and `client_ip` have a Bloom filter.

mod columns;
mod order;
mod schema;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use ::parquet::{errors::ParquetError, file::writer::SerializedFileWriter};
use chrono::{DateTime, NaiveDate};
use schemas::{ContentType, TenantId};

use self::{columns::Columns, order::in_order};
use crate::{Hash, Hasher};

/// The most that a row group holds before compression, save a single record that is larger.
pub const ROW_GROUP_BYTES: usize = 16 * 1024 * 1024;

/// Knows what a record says.
pub trait Understand: Send + Sync {
    /// What this one says. Of what cannot be understood only the bytes are kept.
    fn row<'a>(&self, record: &'a [u8]) -> Row<'a>;
}

/// What a record says. Texts are empty when it does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row<'a> {
    /// `Id`.
    pub id: Cow<'a, str>,
    /// `CreationTime` in milliseconds since 1970.
    pub time_ms: Option<i64>,
    /// `RecordType`.
    pub record_type: Option<i32>,
    /// `Operation`.
    pub operation: Cow<'a, str>,
    /// `Workload`.
    pub workload: Cow<'a, str>,
    /// `UserId`.
    pub user: Cow<'a, str>,
    /// `UserType`.
    pub user_type: Option<i32>,
    /// `UserKey`.
    pub user_key: Cow<'a, str>,
    /// The owner of the mailbox.
    pub mailbox: Cow<'a, str>,
    /// The client's address without its port.
    pub client_ip: Cow<'a, str>,
    /// `ObjectId`.
    pub object: Cow<'a, str>,
    /// `ResultStatus`.
    pub result_status: Cow<'a, str>,
    /// The class of its event in OCSF.
    pub class_uid: Option<i32>,
    /// What it was tagged with.
    pub tags: Vec<Cow<'a, str>>,
}

/// What rows are sorted by. Those without are last, and what is equal stays in the order of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SortBy {
    /// When it happened.
    #[default]
    Time,
    /// Who did it, then when it happened: for looking up one user among many.
    User,
}

/// How a twin is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParquetOptions {
    /// Whose records they are.
    pub tenant: TenantId,
    /// The content type that they came by.
    pub content_type: ContentType,
    /// What the rows are sorted by.
    pub sort_by: SortBy,
    /// Whether the record's own bytes are a column.
    pub raw: bool,
    /// Only these records, for layouts with one class and day an object.
    pub only: Option<Slice>,
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

/// Writes the twin of the lines in a file as a new file, which is durable when this returns. It blocks.
///
/// # Errors
///
/// When a file cannot be read or written. What was written by then is left, to be written anew.
pub fn write_twin(
    lines: &Path,
    twin: &Path,
    options: &ParquetOptions,
    understand: &dyn Understand,
) -> Result<Written, TwinError> {
    let unreadable = |source| TwinError::Read { path: lines.to_owned(), source };
    let unwritable = |source| TwinError::Write { path: twin.to_owned(), source };
    let file = File::open(lines).map_err(unreadable)?;
    let places = in_order(&file, options, understand).map_err(unreadable)?;

    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(twin);
    let to = Hashing { file: to.map_err(|error| unwritable(error.into()))?, hasher: Hasher::default() };
    let schema = Arc::new(schema::schema(options.raw).map_err(unwritable)?);
    let properties = Arc::new(schema::properties(options));
    let mut writer = SerializedFileWriter::new(BufWriter::with_capacity(256 * 1024, to), schema, properties)
        .map_err(unwritable)?;

    let mut columns = Columns::new(options);
    let mut record = Vec::new();
    for place in &places {
        record.resize(place.length as usize, 0);
        file.read_exact_at(&mut record, place.offset).map_err(unreadable)?;
        let row = understand.row(&record);
        if !columns.is_empty() && columns.bytes() + columns.cost(&row, &record) > ROW_GROUP_BYTES {
            columns.write(&mut writer).map_err(unwritable)?;
        }
        columns.push(&row, &record);
    }
    if !columns.is_empty() {
        columns.write(&mut writer).map_err(unwritable)?;
    }
    let row_groups = writer.flushed_row_groups().len();
    let to = writer.into_inner().map_err(unwritable)?;
    let to = to.into_inner().map_err(|error| unwritable(error.into_error().into()))?;
    to.file.sync_all().map_err(|error| unwritable(error.into()))?;
    let bytes = to.hasher.bytes();
    Ok(Written { rows: places.len() as u64, bytes, sha256: to.hasher.finish(), row_groups })
}

/// How many of the lines in a file are of each class and day.
///
/// # Errors
///
/// When the file cannot be read.
pub fn slices(lines: &Path, understand: &dyn Understand) -> Result<BTreeMap<Slice, u64>, TwinError> {
    let unreadable = |source| TwinError::Read { path: lines.to_owned(), source };
    let file = File::open(lines).map_err(unreadable)?;
    let mut slices = BTreeMap::new();
    order::each_line(&file, |_, record| {
        *slices.entry(Slice::of(&understand.row(record))).or_insert(0) += 1;
    })
    .map_err(unreadable)?;
    Ok(slices)
}

/// A file that is hashed while it is written.
struct Hashing {
    file: File,
    hasher: Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
