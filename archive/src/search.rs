//! Finding a record in an archive by its `Id`, and proving it.
//!
//! There is no index. Objects whose span of `CreationTime` does not touch the asked one are not read; the others are searched on
//! as many threads as are asked for, one line of each in memory.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use memchr::memmem;
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::{
    blocking::ended,
    content::{Lines, NotLines},
    entry::{Entry, SealedFile, SealedObject},
    envelope::Envelope,
    hash::Hash,
    inclusion::Prover,
    merkle::leaf_hash,
    names::ChainKey,
    path::ObjectPath,
    proof::Proof,
    reading::{Unreadable, chains, read_blocking, read_entry},
    store::{Store, StoreError},
};

/// Which record is looked for.
#[derive(Debug, Clone)]
pub struct Search {
    /// Its `Id`.
    pub id: String,
    /// Its `CreationTime` is not before this one.
    pub since: Option<DateTime<Utc>>,
    /// Its `CreationTime` is before this one.
    pub until: Option<DateTime<Utc>>,
    /// How many files are read at a time.
    pub jobs: usize,
}

/// A record that was found.
#[derive(Debug, Clone)]
pub struct Match {
    /// The file that holds it.
    pub path: ObjectPath,
    /// On which line, counted from 0.
    pub index: u64,
    /// The entry that names the file.
    pub entry: ObjectPath,
    /// The proof.
    pub proof: Proof,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry cannot be read, so the record might be in one of its objects.
    #[error("{path}: {why}; `mailtrail archive verify` tells more")]
    Entry {
        /// Where it lies.
        path: ObjectPath,
        /// Why.
        why: Unreadable,
    },
    /// A file cannot be read, so the record might be in it.
    #[error("{path}: {why}; `mailtrail archive verify` tells more")]
    File {
        /// Which.
        path: ObjectPath,
        /// Why.
        why: NotLines,
    },
    /// An object has no lines, so the record might be in it.
    #[error(
        "the record is in no object with lines, and {path} belongs to one that has Parquet files only, in which nothing \
         is searched: look for it there with a reader of Parquet"
    )]
    Columns {
        /// One of the files.
        path: ObjectPath,
    },
    /// The record is there, but not as its entry says.
    #[error(
        "the record is in {path}, whose records are not those that {entry} names: it cannot be proved; \
         `mailtrail archive verify` tells more"
    )]
    Changed {
        /// The file.
        path: ObjectPath,
        /// The entry.
        entry: ObjectPath,
    },
}

/// A line that was found in a file.
struct Line {
    index: u64,
    record: Vec<u8>,
}

struct Job {
    chain: ChainKey,
    number: u64,
    file: SealedFile,
    root: Hash,
}

type Running = JoinHandle<(Job, Result<Option<Line>, SearchError>)>;

impl Search {
    /// Looks for the record in entries from the newest to the oldest. `None` when no object holds it. `searched` is told the size
    /// of each file that was searched.
    ///
    /// # Errors
    ///
    /// When something that might hold it cannot be read, and it was not found elsewhere; or it cannot be proved.
    pub async fn run(
        &self,
        store: &Store,
        searched: &mut dyn FnMut(u64),
    ) -> Result<Option<Match>, SearchError> {
        let mut running: FuturesUnordered<Running> = FuturesUnordered::new();
        let (mut failed, mut without_lines) = (None, None);
        for (chain, last) in chains(store).await? {
            for number in (1..=last).rev() {
                let entry = match read_entry(store, &chain, number).await {
                    Ok((_, entry)) => entry,
                    Err(why) => {
                        failed.get_or_insert(SearchError::Entry { path: chain.entry(number), why });
                        continue;
                    }
                };
                for object in entry.objects.iter().filter(|object| self.may_be_in(object)) {
                    let Some(file) = object.ndjson() else {
                        let path = object.files.first().map(|file| file.path.clone());
                        without_lines = without_lines.or(path);
                        continue;
                    };
                    while running.len() >= self.jobs.max(1) {
                        if let Some(found) = self.next(store, &mut running, &mut failed, searched).await? {
                            return Ok(Some(found));
                        }
                    }
                    let job = Job { chain, number, file: file.clone(), root: object.merkle_root };
                    running.push(tokio::spawn(find(store.clone(), job, self.id.clone())));
                }
            }
        }
        while !running.is_empty() {
            if let Some(found) = self.next(store, &mut running, &mut failed, searched).await? {
                return Ok(Some(found));
            }
        }
        let columns = without_lines.map(|path| SearchError::Columns { path });
        failed.or(columns).map_or(Ok(None), Err)
    }

    fn may_be_in(&self, object: &SealedObject) -> bool {
        // A record without a time may be in any object.
        self.until.is_none_or(|until| object.first_creation_time.is_none_or(|first| first < until))
            && self.since.is_none_or(|since| object.last_creation_time.is_none_or(|last| last >= since))
    }

    async fn next(
        &self,
        store: &Store,
        running: &mut FuturesUnordered<Running>,
        failed: &mut Option<SearchError>,
        searched: &mut dyn FnMut(u64),
    ) -> Result<Option<Match>, SearchError> {
        let Some(done) = running.next().await else { return Ok(None) };
        let (job, found) = match done {
            Ok(done) => done,
            Err(error) => ended(error).await,
        };
        searched(job.file.bytes);
        match found {
            Ok(None) => Ok(None),
            Ok(Some(line)) => prove(store, job, line).await.map(Some),
            Err(error) => {
                failed.get_or_insert(error);
                Ok(None)
            }
        }
    }
}

/// Looks for the record in one file.
async fn find(store: Store, job: Job, id: String) -> (Job, Result<Option<Line>, SearchError>) {
    let found = read_lines(&store, &job.file, move |lines| {
        let finder = memmem::Finder::new(id.as_bytes());
        let mut index = 0;
        while let Some(record) = lines.next_line()? {
            // Most lines do not have the text of the id at all. An id with escapes in it would be missed; a GUID has none.
            if finder.find(record).is_some() && has_id(record, &id) {
                return Ok(Some(Line { index, record: record.to_vec() }));
            }
            index += 1;
        }
        Ok(None)
    });
    let found = found.await;
    (job, found)
}

fn has_id(record: &[u8], id: &str) -> bool {
    #[derive(Deserialize)]
    struct Identified<'a> {
        #[serde(rename = "Id", borrow)]
        id: Option<Cow<'a, str>>,
    }
    serde_json::from_slice::<Identified<'_>>(record).is_ok_and(|record| record.id.as_deref() == Some(id))
}

/// Reads the file once more for the way from the record to the root.
async fn prove(store: &Store, job: Job, line: Line) -> Result<Match, SearchError> {
    let Job { chain, number, file, root } = job;
    let index = line.index;
    let tree = read_lines(store, &file, move |lines| {
        let mut prover = Prover::new(index);
        while let Some(record) = lines.next_line()? {
            prover.push(leaf_hash(record));
        }
        Ok(prover.finish())
    });
    let tree = tree.await?;
    let entry_path = chain.entry(number);
    let (envelope, entry): (Envelope, Entry) = read_entry(store, &chain, number)
        .await
        .map_err(|why| SearchError::Entry { path: entry_path.clone(), why })?;
    let proof = tree
        .filter(|(_, found)| *found == root)
        .and_then(|(inclusion, _)| Proof::new(line.record, inclusion, envelope, &entry));
    match proof {
        Some(proof) => Ok(Match { path: file.path, index, entry: entry_path, proof }),
        None => Err(SearchError::Changed { path: file.path, entry: entry_path }),
    }
}

/// Gives the lines of a file to `read`, on a blocking thread.
async fn read_lines<T: Send + 'static>(
    store: &Store,
    file: &SealedFile,
    read: impl FnOnce(&mut Lines<'_>) -> Result<T, NotLines> + Send + 'static,
) -> Result<T, SearchError> {
    let format = file.format;
    let done = read_blocking(store, &file.path, move |content| {
        Lines::new(content, format).and_then(|mut lines| read(&mut lines))
    })
    .await?;
    done.map_err(|why| SearchError::File { path: file.path.clone(), why })
}
