//! Finding a record in an archive by its `Id`, and proving it.
//!
//! There is no index. Objects whose span of `CreationTime` does not touch the asked one are not read; the others are searched on
//! as many threads as are asked for, one line of each in memory. An object without lines is searched in the columns that hold its
//! records, of which one row group is in memory; it is hashed before.
//!
//! Whoever can write to the archive can lay decoys: other chains, entries and objects with the same record. So only entries are
//! searched whose signature is right, a proof is handed out only when it convinces, and what fails ends no search.

use std::{borrow::Cow, io};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use memchr::memmem;
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::{
    blocking::ended,
    entry::{Entry, SealedFile, SealedObject},
    envelope::Envelope,
    hash::{Hash, Hasher},
    inclusion::Prover,
    key::{KeyId, PublicKey},
    merkle::leaf_hash,
    names::{ChainKey, FileFormat},
    numbers::{Numbers, Place},
    path::ObjectPath,
    proof::Proof,
    reading::{Unreadable, chains, read_blocking, read_entry, read_records},
    records::NotRecords,
    store::{Store, StoreError},
    verify::Walk,
};

/// Which record is looked for.
#[derive(Debug, Clone)]
pub struct Search {
    /// Its `Id`.
    pub id: String,
    /// The public keys that are trusted: that of each chain's first entry. Later ones are named in the chain.
    pub keys: Vec<PublicKey>,
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
    /// On which line or row, counted from 0.
    pub index: u64,
    /// How the file is written.
    pub format: FileFormat,
    /// The entry that names the file.
    pub entry: ObjectPath,
    /// The key that signed that.
    pub signer: PublicKey,
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
    /// No key that is trusted signed an entry, so its objects are not searched.
    #[error(
        "{path} says that the key {key} signed it, and that is none of those that were given or that the chain names, or its \
         signature is wrong: its objects were not searched; `mailtrail archive verify` tells more"
    )]
    Unsigned {
        /// Where it lies.
        path: ObjectPath,
        /// Which key it names.
        key: KeyId,
    },
    /// A file cannot be read, so the record might be in it.
    #[error("{path}: {why}; `mailtrail archive verify` tells more")]
    File {
        /// Which.
        path: ObjectPath,
        /// Why.
        why: NotRecords,
    },
    /// A file is not what its entry says.
    #[error(
        "{path} is not what {entry} names, so that a record in it cannot be proved; `mailtrail archive verify` tells more"
    )]
    Changed {
        /// The file.
        path: ObjectPath,
        /// The entry.
        entry: ObjectPath,
    },
}

/// A record that was found in an object.
struct Found {
    /// In which of its files.
    file: usize,
    /// On which line or row of that.
    index: u64,
    record: Vec<u8>,
}

/// An object that is to be searched.
struct Job {
    chain: ChainKey,
    number: u64,
    /// The key that signed the entry.
    signer: PublicKey,
    /// The files over whose records its tree stands.
    files: Vec<SealedFile>,
    root: Hash,
}

type Running = JoinHandle<(Job, Result<Option<Found>, SearchError>)>;

impl Search {
    /// Looks for the record in each chain's entries from the newest to the oldest. `None` when no object holds it. `searched` is
    /// told the size of each file that was searched.
    ///
    /// # Errors
    ///
    /// When something that might hold it cannot be read or believed, and it was not found elsewhere.
    pub async fn run(
        &self,
        store: &Store,
        searched: &mut dyn FnMut(u64),
    ) -> Result<Option<Match>, SearchError> {
        let mut running: FuturesUnordered<Running> = FuturesUnordered::new();
        let mut failed = None;
        for (chain, numbers) in chains(store).await? {
            let signed = self.signed(store, chain, &numbers, &mut failed).await;
            for (number, signer) in signed.into_iter().rev() {
                let entry = match read_entry(store, &chain, number).await {
                    Ok((envelope, entry)) if envelope.is_signed_by(&signer) => entry,
                    // Somebody exchanged it meanwhile.
                    Ok((_, entry)) => {
                        let path = chain.entry(number);
                        failed.get_or_insert(SearchError::Unsigned { path, key: entry.key });
                        continue;
                    }
                    Err(why) => {
                        failed.get_or_insert(SearchError::Entry { path: chain.entry(number), why });
                        continue;
                    }
                };
                for object in entry.objects.iter().filter(|object| self.may_be_in(object)) {
                    while running.len() >= self.jobs.max(1) {
                        if let Some(found) = self.next(store, &mut running, &mut failed, searched).await? {
                            return Ok(Some(found));
                        }
                    }
                    let (files, root) = (object.evidence().to_vec(), object.merkle_root);
                    let job = Job { chain, number, signer, files, root };
                    running.push(tokio::spawn(find(store.clone(), job, self.id.clone())));
                }
            }
        }
        while !running.is_empty() {
            if let Some(found) = self.next(store, &mut running, &mut failed, searched).await? {
                return Ok(Some(found));
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// The entries of a chain that are signed by the right key, and have an object that may hold the record.
    async fn signed(
        &self,
        store: &Store,
        chain: ChainKey,
        numbers: &Numbers,
        failed: &mut Option<SearchError>,
    ) -> Vec<(u64, PublicKey)> {
        let (mut walk, mut signed) = (Walk::new(chain, &self.keys), Vec::new());
        for place in numbers.places() {
            let (Place::Entry(number) | Place::Missing { first: number, .. }) = place;
            let path = chain.entry(number);
            let read = match read_entry(store, &chain, number).await {
                Err(why) => {
                    walk.lost();
                    failed.get_or_insert(SearchError::Entry { path, why });
                    continue;
                }
                read => read,
            };
            // What else is wrong with it takes nothing from the proof of a record.
            let Some(entry) = walk.take(number, read, &mut |_| {}) else { continue };
            match walk.signer {
                Some(signer) if entry.objects.iter().any(|object| self.may_be_in(object)) => {
                    signed.push((number, signer));
                }
                Some(_) => {}
                None => _ = failed.get_or_insert(SearchError::Unsigned { path, key: entry.key }),
            }
        }
        signed
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
        job.files.iter().for_each(|file| searched(file.bytes));
        let proved = match found {
            Ok(None) => return Ok(None),
            Ok(Some(found)) => prove(store, job, found).await,
            Err(error) => Err(error),
        };
        // What cannot be proved here may be provable elsewhere.
        Ok(proved.map_err(|error| _ = failed.get_or_insert(error)).ok())
    }
}

/// Looks for the record in one object.
async fn find(store: Store, job: Job, id: String) -> (Job, Result<Option<Found>, SearchError>) {
    for (at, file) in job.files.iter().enumerate() {
        match find_in(&store, &job, file, id.clone()).await {
            Ok(None) => {}
            Ok(Some((index, record))) => return (job, Ok(Some(Found { file: at, index, record }))),
            Err(error) => return (job, Err(error)),
        }
    }
    (job, Ok(None))
}

async fn find_in(
    store: &Store,
    job: &Job,
    file: &SealedFile,
    id: String,
) -> Result<Option<(u64, Vec<u8>)>, SearchError> {
    // A decoder of columns gets nothing that somebody has been at. Of lines one is in memory, and the tree tells in the end.
    if !file.format.is_ndjson() && !is_unchanged(store, file).await? {
        return Err(SearchError::Changed { path: file.path.clone(), entry: job.chain.entry(job.number) });
    }
    let found = read_records(store, file, move |records| {
        let finder = memmem::Finder::new(id.as_bytes());
        let mut index = 0;
        while let Some(record) = records.next_record()? {
            // Most do not have the text of the id at all. An id with escapes in it would be missed; a GUID has none.
            if finder.find(record).is_some() && has_id(record, &id) {
                return Ok(Some((index, record.to_vec())));
            }
            index += 1;
        }
        Ok(None)
    });
    found.await?.map_err(|why| SearchError::File { path: file.path.clone(), why })
}

/// Whether a file has the bytes that its entry names.
async fn is_unchanged(store: &Store, file: &SealedFile) -> Result<bool, StoreError> {
    let bytes = file.bytes;
    let found = read_blocking(store, &file.path, move |content| {
        let mut hasher = Hasher::default();
        if content.size() == bytes {
            io::copy(content, &mut hasher)?;
        }
        Ok((hasher.bytes(), hasher.finish()))
    });
    let failed = |source| StoreError::Io { doing: "read", path: file.path.as_str().into(), source };
    Ok(found.await?.map_err(failed)? == (bytes, file.sha256))
}

fn has_id(record: &[u8], id: &str) -> bool {
    #[derive(Deserialize)]
    struct Identified<'a> {
        #[serde(rename = "Id", borrow)]
        id: Option<Cow<'a, str>>,
    }
    serde_json::from_slice::<Identified<'_>>(record).is_ok_and(|record| record.id.as_deref() == Some(id))
}

/// Reads the object once more for the way from the record to the root.
async fn prove(store: &Store, job: Job, found: Found) -> Result<Match, SearchError> {
    let Job { chain, number, signer, files, root } = job;
    let before: u64 = files[..found.file].iter().map(|file| file.records).sum();
    let mut prover = Prover::new(before + found.index);
    for file in &files {
        let read = read_records(store, file, move |records| {
            while let Some(record) = records.next_record()? {
                prover.push(leaf_hash(record));
            }
            Ok(prover)
        });
        prover = read.await?.map_err(|why| SearchError::File { path: file.path.clone(), why })?;
    }
    let entry_path = chain.entry(number);
    let (envelope, entry): (Envelope, Entry) = read_entry(store, &chain, number)
        .await
        .map_err(|why| SearchError::Entry { path: entry_path.clone(), why })?;
    let SealedFile { path, format, .. } = files[found.file].clone();
    let proof = prover
        .finish()
        .filter(|(_, made)| *made == root)
        .and_then(|(inclusion, _)| Proof::new(found.record, inclusion, envelope, &entry))
        .filter(|proof| proof.check(&[signer]).is_ok());
    match proof {
        Some(proof) => Ok(Match { path, index: found.index, format, entry: entry_path, signer, proof }),
        None => Err(SearchError::Changed { path, entry: entry_path }),
    }
}
