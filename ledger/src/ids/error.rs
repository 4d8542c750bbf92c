//! What can go wrong with the duplicate index, and what to do then.

use std::io;
use std::path::PathBuf;

/// Why the duplicate index could not do what it was asked.
///
/// No variant means that a record is lost: the index only ever decides whether a record has been seen before.
#[derive(Debug, thiserror::Error)]
pub enum IdsError {
    /// The operating system refused. What was committed is untouched, and the same call may succeed later.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what was written to it.
    #[error(
        "{} is damaged ({what}); stop mailtrail and delete the directory {}: \
         no record is lost, only repetitions of already collected records will not be noticed",
        path.display(), directory(path)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file belongs to another ledger, or to a later state of this one than the ledger is in.
    #[error(
        "{} does not belong to this ledger ({what}; was a part of the state directory copied or restored?); \
         stop mailtrail and delete the directory {}: \
         no record is lost, only repetitions of already collected records will not be noticed",
        path.display(), directory(path)
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that shows.
        what: &'static str,
    },
    /// A file is of a layout that this version does not know.
    #[error("{} has the layout version {version}, which this version of mailtrail does not know; use a newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl IdsError {
    /// Whether it failed for want of room on the disk, and will succeed when there is some.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

fn directory(path: &std::path::Path) -> impl std::fmt::Display {
    path.parent().unwrap_or(path).display()
}
