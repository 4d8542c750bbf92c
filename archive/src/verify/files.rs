//! The files of an object against what their entry says of them.

use std::{io, sync::Arc};

use tokio::task::JoinHandle;

use super::finding::Finding;
use crate::{
    content::{Measured, measure},
    entry::SealedFile,
    hash::Hash,
    merkle::Merkle,
    path::ObjectPath,
    reading::{Content, again, pause, read_blocking, read_records},
    store::{Store, StoreError},
};

/// Files of an object that are to be looked at.
pub(super) struct Job {
    /// The entry that names them.
    pub(super) entry: Arc<ObjectPath>,
    /// What the entry says of them.
    pub(super) files: Vec<SealedFile>,
    /// The root of the object's records.
    pub(super) root: Hash,
    /// What they are of the object.
    pub(super) part: Part,
    /// Whether the entry's signature is right.
    pub(super) signed: bool,
}

/// What files are of their object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Its lines, over which its tree stands.
    Lines,
    /// Some of the columns; its tree is not over these alone.
    Columns,
    /// All of it: its tree stands over their rows.
    All,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Done {
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) records: u64,
    pub(super) findings: Vec<Finding>,
}

pub(super) type Running = JoinHandle<Done>;

impl Job {
    pub(super) fn start(self, store: Store) -> Running {
        tokio::spawn(self.run(store))
    }

    async fn run(self, store: Store) -> Done {
        let mut done = Done { files: self.files.len(), ..Done::default() };
        for file in &self.files {
            match self.measure(&store, file).await {
                Ok(measured) => {
                    done.bytes += measured.bytes;
                    let compared = self.compare(file, measured);
                    done.records += if self.part == Part::Columns { 0 } else { compared.0 };
                    done.findings.extend(compared.1);
                }
                Err(error) => done.findings.push(self.unread(file, error)),
            }
        }
        // Columns are unpacked only when they are what somebody has signed.
        if self.part == Part::All && self.signed && done.findings.is_empty() {
            done.findings.extend(self.rows(&store).await);
        }
        done
    }

    async fn measure(&self, store: &Store, file: &SealedFile) -> Result<Measured, StoreError> {
        let mut attempt = 1;
        loop {
            let (named, signed) = (file.clone(), self.signed);
            let measure = move |content: &mut Content| {
                let size = content.size();
                measure(content, size, &named, signed)
            };
            let measured = read_blocking(store, &file.path, measure).await;
            let measured = measured.and_then(|measured| measured.map_err(|source| failed(file, source)));
            match measured {
                Err(error) if again(&error, attempt) => pause(&error, attempt).await,
                measured => return measured,
            }
            attempt += 1;
        }
    }

    fn unread(&self, file: &SealedFile, error: StoreError) -> Finding {
        let path = file.path.clone();
        match error {
            StoreError::NotFound { .. } => Finding::ObjectMissing { path, entry: (*self.entry).clone() },
            error => Finding::ObjectUnread { path, why: error.to_string() },
        }
    }

    fn no_records(&self, file: &SealedFile, why: String) -> Finding {
        Finding::ObjectRecords { path: file.path.clone(), entry: (*self.entry).clone(), why }
    }

    /// How many records it has, and what is wrong with it.
    fn compare(&self, file: &SealedFile, measured: Measured) -> (u64, Option<Finding>) {
        let (bytes, sha256) = (measured.bytes, measured.sha256);
        if (bytes, sha256) != (file.bytes, file.sha256) {
            let (expected, found) = ((file.bytes, file.sha256), (bytes, sha256));
            let (path, entry) = (file.path.clone(), (*self.entry).clone());
            return (0, Some(Finding::ObjectChanged { path, entry, expected, found }));
        }
        let (records, wrong) = match measured.content {
            // It had another size when it was opened.
            None if file.format.is_ndjson() => (0, Some("it changed while it was read".to_owned())),
            None => (0, None),
            Some(Err(why)) => (0, Some(why)),
            Some(Ok(content)) if content.records != file.records => {
                (content.records, Some(format!("it has {}, not {}", content.records, file.records)))
            }
            Some(Ok(content)) if content.root.is_some_and(|found| found != self.root) => {
                (content.records, Some(ANOTHER_ROOT.to_owned()))
            }
            Some(Ok(content)) => (content.records, None),
        };
        (records, wrong.map(|why| self.no_records(file, why)))
    }

    /// What is wrong with the records in the columns, which are the only ones.
    async fn rows(&self, store: &Store) -> Option<Finding> {
        let mut tree = Merkle::default();
        for file in &self.files {
            let read = read_records(store, file, move |records| {
                while let Some(record) = records.next_record()? {
                    tree.push(record);
                }
                Ok(tree)
            });
            tree = match read.await {
                Ok(Ok(tree)) => tree,
                Ok(Err(why)) => return Some(self.no_records(file, why.to_string())),
                Err(error) => return Some(self.unread(file, error)),
            };
        }
        let first = self.files.first().filter(|_| tree.root() != self.root)?;
        Some(self.no_records(first, ANOTHER_ROOT.to_owned()))
    }
}

const ANOTHER_ROOT: &str = "their Merkle root is another";

/// Reading failed for another reason than the store's; none is known.
fn failed(file: &SealedFile, source: io::Error) -> StoreError {
    StoreError::Io { doing: "read", path: file.path.as_str().into(), source }
}
