//! One file against what its entry says of it.

use std::{io, sync::Arc};

use tokio::task::JoinHandle;

use super::finding::Finding;
use crate::{
    content::{Measured, measure},
    entry::SealedFile,
    hash::Hash,
    path::ObjectPath,
    reading::{again, pause, read_blocking},
    store::{Store, StoreError},
};

/// A file that is to be looked at.
pub(super) struct Job {
    /// The entry that names it.
    pub(super) entry: Arc<ObjectPath>,
    /// What the entry says of it.
    pub(super) file: SealedFile,
    /// The root of the object's records.
    pub(super) root: Hash,
    /// Whether it is by this file that its records count: those of Parquet are the ones of the lines once more, when
    /// there are lines.
    pub(super) counts: bool,
}

/// What came of it.
pub(super) struct Done {
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) finding: Option<Finding>,
}

pub(super) type Running = JoinHandle<Done>;

impl Job {
    pub(super) fn start(self, store: Store) -> Running {
        tokio::spawn(self.run(store))
    }

    async fn run(self, store: Store) -> Done {
        let mut attempt = 1;
        let measured = loop {
            match self.measure(&store).await {
                Err(error) if again(&error, attempt) => pause(&error, attempt).await,
                measured => break measured,
            }
            attempt += 1;
        };
        let path = self.file.path.clone();
        match measured {
            Ok(measured) => self.compare(measured),
            Err(StoreError::NotFound { .. }) => {
                let entry = (*self.entry).clone();
                Done { bytes: 0, records: 0, finding: Some(Finding::ObjectMissing { path, entry }) }
            }
            Err(error) => {
                let why = error.to_string();
                Done { bytes: 0, records: 0, finding: Some(Finding::ObjectUnread { path, why }) }
            }
        }
    }

    async fn measure(&self, store: &Store) -> Result<Measured, StoreError> {
        let format = self.file.format;
        let measured = read_blocking(store, &self.file.path, move |content| measure(content, format)).await?;
        measured.map_err(|source| unread(self, source))
    }

    fn compare(self, measured: Measured) -> Done {
        let Self { entry, file, root, counts } = self;
        let entry = (*entry).clone();
        let path = file.path;
        let (bytes, sha256) = (measured.bytes, measured.sha256);
        if (bytes, sha256) != (file.bytes, file.sha256) {
            let (expected, found) = ((file.bytes, file.sha256), (bytes, sha256));
            let finding = Finding::ObjectChanged { path, entry, expected, found };
            return Done { bytes, records: 0, finding: Some(finding) };
        }
        let (records, wrong) = match measured.content {
            Err(why) => (0, Some(why)),
            Ok(content) if content.records != file.records => {
                (content.records, Some(format!("it has {}, not {}", content.records, file.records)))
            }
            Ok(content) if content.root.is_some_and(|found| found != root) => {
                (content.records, Some("their Merkle root is another".to_owned()))
            }
            Ok(content) => (content.records, None),
        };
        let finding = wrong.map(|why| Finding::ObjectRecords { path, entry, why });
        Done { bytes, records: if counts { records } else { 0 }, finding }
    }
}

/// Reading failed for another reason than the store's; none is known.
fn unread(job: &Job, source: io::Error) -> StoreError {
    StoreError::Io { doing: "read", path: job.file.path.as_str().into(), source }
}
