//! Finding the records of a time in an archive again, and believing none before its object was verified.
//!
//! What lies in the archive is taken from the entries of its manifests: objects whose span of `CreationTime` does not touch the
//! asked one are not read. Objects that no entry speaks for are found by listing: those that are newer than the last entry, or
//! older than the first, and all of them in an archive without manifests. A file that the entries should name and do not is not
//! believed.
//!
//! An object is copied whole to this machine before a record of it is given out, and its hash compared: with its entry, or, without
//! one, with the digits of it in its name. So nothing is ever restored of an object that turns out to be damaged at its end. Its
//! records are its lines, or without lines what the column `raw` of its Parquet files holds, in the order of their rows.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use bytes::BytesMut;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt as _;
use schemas::{ContentType, FeedKey, Seq, TenantId};

use crate::{
    content::Lines,
    entry::{Entry, SealedFile},
    hash::{Hash, Hasher},
    names::{ChainKey, FileFormat, MANIFESTS, ObjectName},
    numbers::Place,
    parquet::rows::Rows,
    path::ObjectPath,
    reading::{Unreadable, again, chains, open, pause, read_entry},
    records::{NotRecords, Records},
    store::{Head, Store, StoreError},
    verify::short,
};

/// How much the clocks of whoever made a record and of the store may differ.
const SKEW: TimeDelta = TimeDelta::days(1);

/// Which records are looked for.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Their `CreationTime` is not before this one.
    pub since: DateTime<Utc>,
    /// Their `CreationTime` is before this one.
    pub until: DateTime<Utc>,
    /// Whose they are; `None` stands for everybody's.
    pub tenants: Option<BTreeSet<TenantId>>,
}

/// A file that may hold some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Where it lies.
    pub path: ObjectPath,
    /// How it is written.
    pub format: FileFormat,
    /// Whose records it holds, and of what.
    pub feed: FeedKey,
    /// Its size.
    pub bytes: u64,
    known: Known,
}

/// What is known of a file before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// An entry names it.
    ByEntry { sha256: Hash, records: u64 },
    /// Its name tells the beginning of its hash.
    ByName { digits: String },
}

/// What an archive has for a selection.
#[derive(Debug, Default)]
pub struct Chosen {
    /// Files to be read, in the order in which their records came.
    pub files: Vec<Selected>,
    /// What may hold more of it and cannot be used.
    pub unusable: Vec<NotRestorable>,
}

/// Something that may hold records of the asked time and from which none can be restored.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct NotRestorable {
    /// Where it lies.
    pub path: String,
    /// Why.
    pub why: Why,
}

/// Why no record can be restored from something.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// It is an entry that cannot be read, so nobody knows which objects it names.
    #[error("{0}")]
    Entry(#[from] Unreadable),
    /// It is not there.
    #[error("it is named by an entry and is not there")]
    Missing,
    /// It is not what its entry or its name says.
    #[error("it is not what {} says: its SHA-256 is {found}, not {expected}{}", .by, if *.by == "its name" { "…" } else { "" })]
    Changed {
        /// Who says what it should be.
        by: &'static str,
        /// The hash that it should have, or the beginning of it.
        expected: String,
        /// The hash that it has.
        found: Hash,
    },
    /// It has that hash, and is no object.
    #[error("{0}")]
    NotRecords(#[from] NotRecords),
    /// It does not hold so many records as its entry says.
    #[error("it holds {found} records, and its entry says {expected}")]
    Records {
        /// What its entry says.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// It lies where the entries should name it.
    #[error("no entry names it, although they speak for its Seqs: it is not believed")]
    Surplus,
    /// There is no telling whose records it holds.
    #[error("no entry names it (yet), and its folders do not tell its tenant and content type")]
    NoFeed,
}

/// A file that was read is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing can be restored from it. Others are not concerned.
    #[error(transparent)]
    NotRestorable(#[from] NotRestorable),
    /// The store failed, so that others are likely to fail, too.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy cannot be written or read.
    #[error("cannot copy {path} to this machine: {source}")]
    Copy {
        /// Which.
        path: ObjectPath,
        /// What the system says.
        source: io::Error,
    },
}

impl Selection {
    /// What the archive has for it. Nothing but manifests is read.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn choose(&self, store: &Store) -> Result<Chosen, StoreError> {
        let mut chosen = Chosen::default();
        let mut files = Vec::new();
        let mut named = HashSet::new();
        let mut spoken: BTreeMap<ChainKey, (Seq, Seq)> = BTreeMap::new();
        for (chain, numbers) in chains(store).await? {
            if !self.wants(chain.tenant) {
                continue;
            }
            for place in numbers.places() {
                let (Place::Entry(number) | Place::Missing { first: number, .. }) = place;
                let entry = match read_entry(store, &chain, number).await {
                    Ok((_, entry)) => entry,
                    Err(Unreadable::Store(error)) if !matches!(error, StoreError::NotFound { .. }) => {
                        return Err(error);
                    }
                    Err(why) => {
                        let path = chain.entry(number).to_string();
                        chosen.unusable.push(NotRestorable { path, why: why.into() });
                        continue;
                    }
                };
                let span = spoken.entry(chain).or_insert((entry.after_seq, entry.last_seq));
                *span = (span.0.min(entry.after_seq), span.1.max(entry.last_seq));
                self.choose_named(&entry, &mut files, &mut named);
            }
        }
        self.choose_listed(store, &spoken, &named, &mut files, &mut chosen.unusable).await?;
        files.sort_by_cached_key(Selected::order);
        chosen.files = files;
        Ok(chosen)
    }

    fn wants(&self, tenant: TenantId) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.contains(&tenant))
    }

    /// Takes the objects of an entry that may hold a record of that time.
    fn choose_named(&self, entry: &Entry, files: &mut Vec<Selected>, named: &mut HashSet<[u8; 16]>) {
        for object in &entry.objects {
            named.extend(object.files.iter().map(|file| short(file.path.as_str())));
            let (Some(first), Some(last)) = (object.first_creation_time, object.last_creation_time) else {
                // None of its records says when it happened, so none is of any time.
                continue;
            };
            if first >= self.until || last < self.since {
                continue;
            }
            let feed = FeedKey { tenant: entry.tenant, content_type: object.content_type };
            files.extend(object.evidence().iter().cloned().map(|file| {
                let SealedFile { path, format, sha256, bytes, records } = file;
                Selected { path, format, feed, bytes, known: Known::ByEntry { sha256, records } }
            }));
        }
    }

    /// Takes the objects that no entry speaks for and that were put when a record of that time may have been there.
    async fn choose_listed(
        &self,
        store: &Store,
        spoken: &BTreeMap<ChainKey, (Seq, Seq)>,
        named: &HashSet<[u8; 16]>,
        files: &mut Vec<Selected>,
        unusable: &mut Vec<NotRestorable>,
    ) -> Result<(), StoreError> {
        let mut listed = store.list(None);
        // Parquet files wait until it is known whether there is NDJSON of the same name.
        let (mut columns, mut lines) = (Vec::new(), BTreeSet::new());
        let mut take = |name: String, unnamed: &ByName, head| match unnamed.selected(&name, head) {
            Some(file) => files.push(file),
            None => unusable.push(NotRestorable { path: name, why: Why::NoFeed }),
        };
        let mut surplus = Vec::new();
        while let Some(object) = listed.try_next().await? {
            let name = object.name;
            let Some(unnamed) = ByName::read(&name) else { continue };
            if named.contains(&short(&name)) || object.head.modified + SKEW < self.since {
                continue;
            }
            if unnamed.tenant.is_some_and(|tenant| !self.wants(tenant)) {
                continue;
            }
            match unnamed.standing(spoken) {
                Standing::Surplus => surplus.push(NotRestorable { path: name, why: Why::Surplus }),
                Standing::NotSpokenFor if unnamed.format == FileFormat::Parquet => {
                    columns.push((name, unnamed, object.head));
                }
                Standing::NotSpokenFor => {
                    take(name, &unnamed, object.head);
                    lines.insert(unnamed.object.to_string());
                }
            }
        }
        let alone =
            columns.into_iter().filter(|(_, unnamed, _)| !lines.contains(&unnamed.object.to_string()));
        alone.for_each(|(name, unnamed, head)| take(name, &unnamed, head));
        unusable.extend(surplus);
        Ok(())
    }
}

/// What the name of a file of an object tells.
struct ByName {
    object: ObjectName,
    format: FileFormat,
    tenant: Option<TenantId>,
    content_type: Option<ContentType>,
    /// `year=…/month=…/day=…/hour=…`, as far as they are there.
    begun: Option<DateTime<Utc>>,
}

/// How a file that no entry names stands to the entries.
enum Standing {
    /// It is newer than the last one, or older than the first.
    NotSpokenFor,
    /// One of them should name it.
    Surplus,
}

impl ByName {
    /// `None` when it is no object.
    fn read(name: &str) -> Option<Self> {
        let (folders, file) = name.rsplit_once('/')?;
        if folders.split('/').next() == Some(MANIFESTS) {
            return None;
        }
        let end = file.split_once('.')?.1;
        let end = end.strip_prefix("undated.").unwrap_or(end);
        let formats = [FileFormat::NdjsonZstd, FileFormat::NdjsonGzip, FileFormat::Parquet];
        let format = formats.into_iter().find(|format| format.extension() == end)?;
        let keys: BTreeMap<&str, &str> =
            folders.split('/').filter_map(|folder| folder.split_once('=')).collect();
        let tenant = keys.get("tenant").or_else(|| keys.get("accountId"));
        let tenant = tenant.and_then(|id| id.strip_prefix("external_").unwrap_or(id).parse().ok());
        let key = |key: &str| keys.get(key).copied().unwrap_or_default();
        let begun = format!("{}-{}-{}T{}:00:00Z", key("year"), key("month"), key("day"), key("hour"));
        Some(Self {
            object: file.parse().ok()?,
            format,
            tenant,
            content_type: keys.get("content_type").and_then(|kind| kind.parse().ok()),
            begun: begun.parse().ok(),
        })
    }

    fn standing(&self, spoken: &BTreeMap<ChainKey, (Seq, Seq)>) -> Standing {
        let Some(tenant) = self.tenant else { return Standing::NotSpokenFor };
        match spoken.get(&ChainKey { tenant, ledger: self.object.ledger }) {
            Some((after, last)) if self.object.last_seq > *after && self.object.first_seq <= *last => {
                Standing::Surplus
            }
            _ => Standing::NotSpokenFor,
        }
    }

    fn selected(&self, name: &str, head: Head) -> Option<Selected> {
        let feed = FeedKey { tenant: self.tenant?, content_type: self.content_type? };
        let known = Known::ByName { digits: self.object.short_hash.clone() };
        Some(Selected { path: name.parse().ok()?, format: self.format, feed, bytes: head.bytes, known })
    }
}

impl Selected {
    /// When it was begun, and behind what of its ledger.
    fn order(&self) -> (Option<DateTime<Utc>>, Option<Seq>, ObjectPath) {
        let name = ByName::read(self.path.as_str());
        (name.as_ref().and_then(|name| name.begun), name.map(|name| name.object.first_seq), self.path.clone())
    }

    /// Copies the file into `copy`, an empty file of this machine, and gives its records when it is what it should be. `got` is
    /// told of each piece that came.
    ///
    /// # Errors
    ///
    /// When it is damaged, or cannot be had.
    pub async fn read(
        &self,
        store: &Store,
        mut copy: File,
        got: &mut dyn FnMut(u64),
    ) -> Result<VerifiedRecords, ReadError> {
        let mut attempt = 1;
        let found = loop {
            match self.copy(store, &mut copy, got).await {
                Err(ReadError::Store(error)) if again(&error, attempt) => pause(&error, attempt).await,
                Err(ReadError::Store(StoreError::NotFound { .. })) => {
                    return Err(self.fault(Why::Missing).into());
                }
                copied => break copied?,
            }
            attempt += 1;
        };
        self.check(found)?;
        let copy = Arc::new(copy);
        // Once more to its end, before a record is believed: a file whose name tells its hash may still be no object.
        let count = self.count(self.records(&copy)?)?;
        Ok(VerifiedRecords { records: self.records(&copy)?, path: self.path.clone(), count })
    }

    /// What the copy holds, from its beginning.
    fn records(&self, copy: &Arc<File>) -> Result<Records<'static>, ReadError> {
        let cannot = |source| ReadError::Copy { path: self.path.clone(), source };
        let records = if self.format.is_ndjson() {
            (&**copy).seek(SeekFrom::Start(0)).map_err(cannot)?;
            Lines::new(Arc::clone(copy), self.format).map(Records::Lines)
        } else {
            let bytes = copy.metadata().map_err(cannot)?.len();
            let copy = Arc::clone(copy);
            let part = move |part: Range<u64>| {
                let length = usize::try_from(part.end - part.start).map_err(io::Error::other)?;
                let mut bytes = BytesMut::zeroed(length);
                copy.read_exact_at(&mut bytes, part.start)?;
                Ok(bytes.freeze())
            };
            let rows = Rows::open(bytes, Box::new(part)).map_err(|source| NotRecords::Columns { source });
            rows.map(|rows| Records::Rows(Box::new(rows)))
        };
        records.map_err(|why| self.fault(why.into()).into())
    }

    async fn copy(
        &self,
        store: &Store,
        copy: &mut File,
        got: &mut dyn FnMut(u64),
    ) -> Result<Hash, ReadError> {
        let cannot = |source| ReadError::Copy { path: self.path.clone(), source };
        copy.set_len(0).and_then(|()| copy.seek(SeekFrom::Start(0))).map_err(cannot)?;
        let mut hash = Hasher::default();
        let mut pieces = open(store, &self.path).await?.pieces;
        while let Some(piece) = pieces.try_next().await? {
            hash.update(&piece);
            copy.write_all(&piece).map_err(cannot)?;
            got(piece.len() as u64);
        }
        Ok(hash.finish())
    }

    fn check(&self, found: Hash) -> Result<(), NotRestorable> {
        let (right, by, expected) = match &self.known {
            Known::ByEntry { sha256, .. } => (*sha256 == found, "its entry", sha256.to_string()),
            Known::ByName { digits } => {
                (found.to_string().starts_with(digits.as_str()), "its name", digits.clone())
            }
        };
        if right { Ok(()) } else { Err(self.fault(Why::Changed { by, expected, found })) }
    }

    /// How many records it holds, which must be as many as its entry says.
    fn count(&self, mut records: Records<'_>) -> Result<u64, NotRestorable> {
        let mut found = 0;
        while records.next_record().map_err(|why| self.fault(why.into()))?.is_some() {
            found += 1;
        }
        match &self.known {
            Known::ByEntry { records, .. } if *records != found => {
                Err(self.fault(Why::Records { expected: *records, found }))
            }
            _ => Ok(found),
        }
    }

    fn fault(&self, why: Why) -> NotRestorable {
        NotRestorable { path: self.path.to_string(), why }
    }
}

/// The records of a file that was verified, one at a time.
pub struct VerifiedRecords {
    records: Records<'static>,
    path: ObjectPath,
    count: u64,
}

impl VerifiedRecords {
    /// How many there are in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The next record.
    ///
    /// # Errors
    ///
    /// When the copy on this machine can no longer be read.
    pub fn next_record(&mut self) -> Result<Option<&[u8]>, ReadError> {
        let path = &self.path;
        self.records
            .next_record()
            .map_err(|why| ReadError::Copy { path: path.clone(), source: io::Error::other(why) })
    }
}

impl fmt::Debug for VerifiedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedRecords").field("path", &self.path).finish_non_exhaustive()
    }
}
