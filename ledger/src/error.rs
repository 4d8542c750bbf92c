//! What can go wrong, and whether waiting helps.

use std::{io, path::PathBuf, sync::Arc};

use schemas::{SinkName, SplitError};

use crate::{FindingId, WorkId, ids::IdsError};

/// The ledger did not do what was asked. Nothing of it has happened, and it can be asked for again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The disk that holds the state directory is full.
    #[error("the disk of the state directory is full ({what}); free some space, nothing is lost meanwhile")]
    DiskFull {
        /// What could not be written.
        what: &'static str,
    },
    /// The dead letters have reached `dead_letter_max_bytes`.
    #[error(
        "dead letters take {used} of at most {limit} bytes; export and acknowledge or retry some, \
         or raise dead_letter_max_bytes"
    )]
    DeadLettersFull {
        /// Bytes that are kept, without those that were refused now.
        used: u64,
        /// The bound.
        limit: u64,
    },
    /// Reading or writing a file failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The duplicate index could not be read or written.
    #[error("the duplicate index: {0}")]
    Ids(#[source] Arc<IdsError>),
    /// The database failed.
    #[error("ledger.sqlite: {0}")]
    Database(#[source] Arc<rusqlite::Error>),
    /// An earlier failure left it unknown what is durable: the ledger has to be opened anew.
    #[error("the ledger stopped after a failed commit ({0}); start mailtrail again")]
    Broken(#[source] Arc<rusqlite::Error>),
    /// The ledger was closed, or its writer died.
    #[error("the ledger is closed")]
    Closed,
    /// The blob is not claimed by whoever wants to end its fetch.
    #[error("{work} is not claimed for fetching")]
    NotClaimed {
        /// Which.
        work: WorkId,
    },
    /// The work is not leased by the sink that wants to settle it.
    #[error("{work} is not leased by sink {sink}")]
    NotLeased {
        /// Which work.
        work: WorkId,
        /// Which sink.
        sink: SinkName,
    },
    /// The work is leased already (L5).
    #[error("{work} is leased by sink {sink} already")]
    AlreadyLeased {
        /// Which work.
        work: WorkId,
        /// Which sink.
        sink: SinkName,
    },
    /// There is no such delivery.
    #[error("sink {sink} has no delivery of {work}")]
    UnknownDelivery {
        /// Which work.
        work: WorkId,
        /// Which sink.
        sink: SinkName,
    },
    /// The delivery is final already (L6).
    #[error("the delivery of {work} to sink {sink} is {state} already")]
    AlreadySettled {
        /// Which work.
        work: WorkId,
        /// Which sink.
        sink: SinkName,
        /// What it is.
        state: String,
    },
    /// A settlement does not account for every record (L10).
    #[error("a settlement of {work} for sink {sink} accounts for {given} records instead of {due}")]
    SumMismatch {
        /// Which work.
        work: WorkId,
        /// Which sink.
        sink: SinkName,
        /// Records that are due.
        due: u64,
        /// Records in the settlement.
        given: u64,
    },
    /// A settlement names a dead record that is not due: behind the end, a duplicate, or named twice.
    #[error("{work} has no record at position {position} that could be dead")]
    NoSuchRecord {
        /// Which work.
        work: WorkId,
        /// The position.
        position: u32,
    },
    /// The ledger does not know the sink, or it was forgotten.
    #[error("the ledger knows no sink {name}; `mailtrail status` lists those that it knows")]
    UnknownSink {
        /// Its name.
        name: SinkName,
    },
    /// The sink's own state cannot be changed as was asked.
    #[error("the state of sink {name} cannot be changed: {why}")]
    SinkState {
        /// Its name.
        name: SinkName,
        /// Why not.
        why: String,
    },
    /// A restore cannot begin or go on.
    #[error("nothing was restored: {why}")]
    Restore {
        /// Why not.
        why: String,
    },
    /// The sink is in use and cannot be forgotten.
    #[error("sink {name} is still configured; take it out of the configuration before it is forgotten")]
    SinkInUse {
        /// Its name.
        name: SinkName,
    },
    /// Sinks that are no longer configured have pending deliveries, which would pin the spool for ever.
    #[error("{}", left_over(.0))]
    LeftOverSinks(Vec<LeftOverSink>),
    /// Nothing of that name was found.
    #[error("there is nothing with the id {0}; `mailtrail reconcile` lists what there is")]
    UnknownFinding(FindingId),
    /// The work's body cannot be had now.
    #[error(transparent)]
    Body(#[from] Unreadable),
    /// A record or a body is larger than the spool's format can hold.
    #[error("a record of {bytes} bytes is larger than the spool can hold")]
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// A row of the database says what no version of this program writes.
    #[error("ledger.sqlite holds {what}, which this version does not understand")]
    Damaged {
        /// What was found.
        what: String,
    },
}

/// A sink that is no longer configured and has pending deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOverSink {
    /// Its name.
    pub name: SinkName,
    /// Its pending deliveries.
    pub pending: u64,
}

fn left_over(sinks: &[LeftOverSink]) -> String {
    let list: Vec<_> = sinks.iter().map(|sink| format!("{} ({} pending)", sink.name, sink.pending)).collect();
    format!(
        "sinks that are no longer configured have pending deliveries: {}; put them back into the configuration, \
         or give their deliveries up with `mailtrail sinks forget NAME`",
        list.join(", ")
    )
}

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not in the spool: never was, settled, or being fetched again.
    #[error("the body of {work} is not in the spool")]
    NotSpooled {
        /// Which.
        work: WorkId,
    },
    /// Another one is there in its place.
    #[error("the body of {work} was fetched again and came back as another")]
    Replaced {
        /// Which.
        work: WorkId,
    },
    /// Its bytes in the spool are damaged.
    #[error("the body of {work} is damaged in the spool at segment {segment}, byte {offset}: {what}; {}", remedy(*.fetched_again))]
    Corrupt {
        /// Which.
        work: WorkId,
        /// The segment file.
        segment: u64,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
        /// Whether it is fetched again; otherwise it was quarantined, because it has expired.
        fetched_again: bool,
    },
}

fn remedy(fetched_again: bool) -> &'static str {
    if fetched_again { "it is fetched again" } else { "it cannot be fetched again and is quarantined" }
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is no whole array of records: fetch it again.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// The same broken body came often enough: the blob is quarantined, with its bytes among the dead letters.
    #[error("quarantined, because the same broken body came {times} times: {cause}")]
    Quarantined {
        /// How often it came.
        times: u32,
        /// What is wrong with it.
        cause: SplitError,
    },
    /// Nobody wants it any more: while it was fetched, the sinks that it was for were forgotten, or it was quarantined because
    /// of one that could not handle what had been fetched before.
    #[error("nobody wants it any more")]
    Unwanted,
    /// The ledger could not keep it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by {}; stop it first, or give this one a state directory of its own", .dir.display(), holder(*.pid))]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// The other process, as it wrote it down.
        pid: Option<u32>,
    },
    /// A newer version of mailtrail wrote it.
    #[error(
        "{} was written by a newer mailtrail (format {found}, this one knows {known}); upgrade mailtrail",
        .path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that is known.
        known: i64,
    },
    /// An older version of mailtrail wrote it, and it was opened for reading only.
    #[error(
        "{} is of format {found}, and this mailtrail reads format {known}; the next `mailtrail run` of this version brings \
         it up to date",
        .path.display()
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format that is read.
        known: i64,
    },
    /// It is something else.
    #[error("{} is not a mailtrail ledger; set state.directory to a directory of its own", .path.display())]
    NotALedger {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to look at.
    #[error("there is no ledger in {}; has mailtrail run with this state directory?", .dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("{what} {} failed: {source}; check the path, its owner and permissions", .path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database failed.
    #[error("{}: {source}", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Anything that would fail in an open ledger, too.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("the process {pid}"))
}

impl LedgerError {
    /// Whether waiting can help; otherwise the process has to stop, or whoever asked did something wrong.
    #[must_use]
    pub fn passing(&self) -> bool {
        match self {
            Self::DiskFull { .. }
            | Self::DeadLettersFull { .. }
            | Self::Io { .. }
            | Self::Ids(_)
            | Self::Body(_)
            | Self::TooLarge { .. } => true,
            Self::Database(error) => {
                use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, SystemIoFailure};
                matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | SystemIoFailure))
            }
            _ => false,
        }
    }

    /// An I/O error, or [`LedgerError::DiskFull`] when that is what it is.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { what },
            _ => Self::Io { what, source: Arc::new(source) },
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            return Self::DiskFull { what: "ledger.sqlite" };
        }
        Self::Database(Arc::new(error))
    }
}

impl From<IdsError> for LedgerError {
    fn from(error: IdsError) -> Self {
        if error.is_disk_full() {
            return Self::DiskFull { what: "the duplicate index" };
        }
        Self::Ids(Arc::new(error))
    }
}

/// What most of the ledger's functions give.
pub(crate) type Result<T, E = LedgerError> = std::result::Result<T, E>;
