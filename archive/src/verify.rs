//! Verifying an archive: every signature, every link of every chain, every file's hash, every record's place in its tree, and that
//! nothing is there that no entry names.
//!
//! - It needs the public keys and nothing else; nothing is written anywhere.
//! - Memory is bounded by 64 KiB and a decoder's window for each file that is being read (of an object without lines by the records
//!   of a row group, as they are stored), one entry, and 40 bytes for each file of the archive (the hashes of the names, to find
//!   what is surplus).
//! - Files are read, hashed and decompressed on as many threads as are asked for.
//! - What is put while it runs is not taken for a finding: it looks at the entries that were there when it began, and at what is
//!   listed again at the end.
//!
//! | file | what it holds |
//! |---|---|
//! | `finding.rs` | [`Finding`]: what is wrong, in a sentence |
//! | `entries.rs` | the rules of a chain |
//! | `listing.rs` | what lies in the archive, and what of it nobody named |
//! | `files.rs` | files against what their entry says |

mod entries;
mod files;
mod finding;
mod listing;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use schemas::Seq;
use serde::Serialize;

pub use self::finding::Finding;
pub(crate) use self::{entries::Walk, listing::short};
use self::{
    files::{Job, Part},
    listing::{Listing, Unnamed},
};
use crate::{
    blocking::ended,
    entry::{Entry, Head},
    key::PublicKey,
    names::ChainKey,
    numbers::{Numbers, Place},
    path::ObjectPath,
    reading::{read_entry, read_whole},
    store::{Store, StoreError},
    timestamp::{ANSWER_BYTES, Timestamp},
};

/// What to verify with.
#[derive(Debug, Clone)]
pub struct Verify {
    /// The public keys that are trusted: that of each chain's first entry. Later ones are named in the chain.
    pub keys: Vec<PublicKey>,
    /// Heads that somebody kept; each must be in a chain.
    pub heads: Vec<Head>,
    /// How many files are read at a time.
    pub jobs: usize,
}

/// What happens while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// How much there is, as far as it was listed.
    Listed {
        /// Entries.
        entries: u64,
        /// Other files.
        files: u64,
        /// Bytes of those.
        bytes: u64,
    },
    /// An entry was looked at.
    Entry,
    /// So many bytes of a file were.
    Read {
        /// How many.
        bytes: u64,
    },
    /// A whole file was.
    File,
    /// Something is wrong.
    Finding(&'a Finding),
}

/// What was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Each chain.
    pub chains: Vec<VerifiedChain>,
    /// Files that entries name.
    pub files: u64,
    /// Bytes of those that were read.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Entries that have a time-stamp, which is theirs. Who made it is not looked at.
    pub timestamps: u64,
    /// Files that are newer than the last entry of their chain.
    pub not_yet_covered: u64,
    /// How much is wrong.
    pub findings: u64,
}

/// A chain that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedChain {
    /// Whose records.
    pub tenant: schemas::TenantId,
    /// The ledger that they went through.
    pub ledger: schemas::LedgerId,
    /// How many entries it has.
    pub entries: u64,
    /// Its last entry that can be read.
    pub head: Option<Head>,
    /// When that was made.
    pub to: Option<chrono::DateTime<chrono::Utc>>,
    /// Up to which `Seq` it speaks.
    pub last_seq: Seq,
    /// Records that its entries name.
    pub records: u64,
    /// The last entry that has a time-stamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stamped: Option<Stamped>,
}

/// An entry that has a time-stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stamped {
    /// Its number.
    pub number: u64,
    /// The time that the authority gives.
    pub time: chrono::DateTime<chrono::Utc>,
}

impl Verify {
    /// Verifies an archive. `step` is called on the thread of the caller's task.
    ///
    /// # Errors
    ///
    /// When the archive cannot be listed. What cannot be read is a finding.
    pub async fn run(&self, store: &Store, step: &mut dyn FnMut(Step<'_>)) -> Result<Verified, StoreError> {
        let (listing, mut unnamed) = listing::list(store).await?;
        step(Step::Listed { entries: listing.entries, files: listing.files, bytes: listing.bytes });
        let mut run = Run {
            store,
            jobs: self.jobs.max(1),
            verified: Verified::default(),
            heads: self.heads.iter().map(|head| (*head, false)).collect(),
            running: FuturesUnordered::new(),
            step,
        };
        if listing.chains.is_empty() {
            run.found(Finding::NoEntries);
        }
        for (chain, numbers) in &listing.chains {
            run.chain(*chain, numbers, &self.keys, &mut unnamed).await;
        }
        while run.finish_one().await {}
        run.surplus(&listing, &mut unnamed).await?;
        for (head, there) in std::mem::take(&mut run.heads) {
            if !there {
                run.found(Finding::TailCut { head });
            }
        }
        Ok(run.verified)
    }
}

/// A verification while it runs.
struct Run<'a> {
    store: &'a Store,
    jobs: usize,
    verified: Verified,
    heads: Vec<(Head, bool)>,
    running: FuturesUnordered<files::Running>,
    step: &'a mut dyn FnMut(Step<'_>),
}

impl Run<'_> {
    fn found(&mut self, finding: Finding) {
        self.verified.findings += 1;
        (self.step)(Step::Finding(&finding));
    }

    async fn chain(&mut self, chain: ChainKey, numbers: &Numbers, keys: &[PublicKey], unnamed: &mut Unnamed) {
        let mut walk = Walk::new(chain, keys);
        let (mut records, mut stamped) = (0, None);
        for place in numbers.places() {
            let mut findings = Vec::new();
            let number = match place {
                Place::Entry(number) => number,
                Place::Missing { first, last } => {
                    walk.missing(first, last, &mut |finding| findings.push(finding));
                    findings.into_iter().for_each(|finding| self.found(finding));
                    continue;
                }
            };
            let read = read_entry(self.store, &chain, number).await;
            let entry = walk.take(number, read, &mut |finding| findings.push(finding));
            findings.into_iter().for_each(|finding| self.found(finding));
            (self.step)(Step::Entry);
            let Some(entry) = entry else { continue };
            if let Some(head) = walk.head {
                self.heads.iter_mut().filter(|(kept, _)| *kept == head).for_each(|(_, there)| *there = true);
                let path = chain.timestamp(number);
                if unnamed.is_listed(path.as_str()) {
                    stamped = self.timestamp(path, &head).await.or(stamped);
                }
            }
            records += entry.objects.iter().map(|object| object.records).sum::<u64>();
            self.files((&chain, number), entry, walk.signer.is_some(), unnamed).await;
        }
        self.verified.chains.push(VerifiedChain {
            tenant: chain.tenant,
            ledger: chain.ledger,
            entries: numbers.count(),
            head: walk.head,
            to: walk.to,
            last_seq: walk.last_seq,
            records,
            stamped,
        });
    }

    /// Looks at the time-stamp of an entry.
    async fn timestamp(&mut self, path: ObjectPath, head: &Head) -> Option<Stamped> {
        let read = read_whole(self.store, &path, ANSWER_BYTES).await.map_err(|error| error.to_string());
        let timestamp = read.and_then(|bytes| {
            let timestamp = Timestamp::parse(&bytes).map_err(|error| error.to_string())?;
            timestamp.is_of(&head.sha256).map_err(|error| error.to_string())?;
            Ok(timestamp)
        });
        match timestamp {
            Ok(timestamp) => {
                self.verified.timestamps += 1;
                Some(Stamped { number: head.number, time: timestamp.time })
            }
            Err(why) => {
                self.found(Finding::Timestamp { path, why });
                None
            }
        }
    }

    /// Looks at the files that an entry names, while other files are still being looked at.
    async fn files(
        &mut self,
        (chain, number): (&ChainKey, u64),
        entry: Entry,
        signed: bool,
        unnamed: &mut Unnamed,
    ) {
        let path = Arc::new(chain.entry(number));
        for object in entry.objects {
            let (has_lines, count) = (object.ndjson().is_some(), object.files.len());
            let mut fresh = Vec::new();
            for file in object.files {
                if unnamed.name(file.path.as_str()) {
                    fresh.push(file);
                } else {
                    self.found(Finding::ObjectTwice { path: file.path, entry: (*path).clone() });
                }
            }
            self.verified.files += fresh.len() as u64;
            let root = object.merkle_root;
            let job = |files, part| Job { entry: Arc::clone(&path), files, root, part, signed };
            if !has_lines && fresh.len() == count {
                // Their rows have to be hashed in their order.
                self.start(job(fresh, Part::All)).await;
                continue;
            }
            for file in fresh {
                let part = if file.format.is_ndjson() { Part::Lines } else { Part::Columns };
                self.start(job(vec![file], part)).await;
            }
        }
    }

    async fn start(&mut self, job: Job) {
        while self.running.len() >= self.jobs {
            self.finish_one().await;
        }
        self.running.push(job.start(self.store.clone()));
    }

    /// Waits until one of the files is done; `false` when there is none.
    async fn finish_one(&mut self) -> bool {
        let Some(done) = self.running.next().await else { return false };
        match done {
            Ok(done) => {
                self.verified.bytes += done.bytes;
                self.verified.records += done.records;
                (self.step)(Step::Read { bytes: done.bytes });
                (0..done.files).for_each(|_| (self.step)(Step::File));
                done.findings.into_iter().for_each(|finding| self.found(finding));
            }
            // The thread that read the file panicked: go on in the same way.
            Err(error) => ended(error).await,
        }
        true
    }

    /// Tells what is surplus from what no entry covers yet.
    async fn surplus(&mut self, listing: &Listing, unnamed: &mut Unnamed) -> Result<(), StoreError> {
        let covered: BTreeMap<ChainKey, Seq> = self
            .verified
            .chains
            .iter()
            .map(|chain| (ChainKey { tenant: chain.tenant, ledger: chain.ledger }, chain.last_seq))
            .collect();
        let mut surplus = listing::unnamed(self.store, listing, unnamed, &covered);
        while let Some(found) = surplus.next().await {
            match found? {
                listing::Found::NotYetCovered => self.verified.not_yet_covered += 1,
                listing::Found::Surplus(name) => self.found(Finding::Surplus { name }),
            }
        }
        Ok(())
    }
}

/// How many files are best read at a time on this machine.
#[must_use]
pub fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
