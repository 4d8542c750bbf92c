//! An entry of a manifest: what of a tenant's records went into the archive since the entry before, and what became of the rest.
//!
//! The entry numbered n speaks for the `Seq`s after `after_seq` up to `last_seq`, those of n + 1 for the ones that follow; it is
//! made once everything up to `last_seq` is settled and put. An object belongs to the entry that speaks for its first `Seq`; its
//! last may lie behind the entry's. An entry is made every hour, also when nothing came: silence is recorded.
//!
//! It is written as JSON without blanks, members in the order of the fields below, and that text is the payload of an
//! [`Envelope`](crate::Envelope). docs/archive-format.md describes each member.

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use schemas::{ContentType, LedgerId, Seq, TenantId};
use serde::{Deserialize, Serialize};

use crate::{
    hash::Hash,
    json,
    key::{KeyId, PublicKey},
    merkle::Merkle,
    names::{ChainKey, FileFormat},
    path::ObjectPath,
};

/// The version of the format that this crate writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose records.
    pub tenant: TenantId,
    /// The ledger that they went through.
    pub ledger: LedgerId,
    /// 1, 2, 3, … in its chain.
    pub number: u64,
    /// It speaks for the `Seq`s behind this one …
    pub after_seq: Seq,
    /// … up to this one.
    pub last_seq: Seq,
    /// When the entry before was made; for the first, when the archive began.
    pub from: DateTime<Utc>,
    /// When this one was made.
    pub to: DateTime<Utc>,
    /// The hash of the payload of the entry before; none for the first.
    pub previous: Option<Hash>,
    /// In the first entry of a new target: the head of the chain that it goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_head: Option<OldHead>,
    /// What was put, in the order in which it was.
    pub objects: Vec<SealedObject>,
    /// The Merkle root over the objects' roots, in their order.
    pub entry_root: Hash,
    /// What became of everything that these `Seq`s stand for.
    pub accounts: BTreeMap<ContentType, Accounts>,
    /// How many of these `Seq`s stand for nothing of this archive: retries for other sinks, and blobs that were fetched again under
    /// a later `Seq`.
    pub other_seqs: u64,
    /// The entry was made so late that the ledger had forgotten some of its `Seq`s: up to this one, `other_seqs` may have some
    /// that stood for something of this archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete_through: Option<Seq>,
    /// The key that signs this entry.
    pub key: KeyId,
    /// The key that signs from the next entry on, when it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_key: Option<PublicKey>,
}

/// Records that belong together: of one tenant and content type, in the order of their `Seq`s and positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedObject {
    /// What they are of.
    pub content_type: ContentType,
    /// The `Seq` of the first blob that has a record in it.
    pub first_seq: Seq,
    /// The `Seq` of the last.
    pub last_seq: Seq,
    /// How many.
    pub records: u64,
    /// The earliest `CreationTime` of a record, when one has any.
    pub first_creation_time: Option<DateTime<Utc>>,
    /// The latest.
    pub last_creation_time: Option<DateTime<Utc>>,
    /// The Merkle root over the records' raw bytes: in the order of the lines, or without such a file in the order of
    /// the rows of the Parquet files, one file after the other.
    pub merkle_root: Hash,
    /// The files that hold them: all in lines, and in Parquet all in one, or those of a class and day in each.
    pub files: Vec<SealedFile>,
}

/// A file of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFile {
    /// Where it lies.
    pub path: ObjectPath,
    /// How it is written.
    pub format: FileFormat,
    /// The hash of its bytes as they are stored.
    pub sha256: Hash,
    /// How many those are.
    pub bytes: u64,
    /// How many records it holds.
    pub records: u64,
}

/// What `reconcile` states of a content type for the `Seq`s of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Accounts {
    /// Blobs that were listed and are done with: fetched, or lost.
    pub listed: u64,
    /// Of those, the ones whose body was taken.
    pub fetched: u64,
    /// Of those, the ones that could no longer be had.
    pub gaps: u64,
    /// Of those, the ones that mailtrail could not handle; their bodies are kept beside the dead letters.
    pub quarantined: u64,
    /// Spans of time that could not be listed.
    pub holes: u64,
    /// Records in the bodies that were taken.
    pub records: u64,
    /// Of those, repetitions of others.
    pub duplicates: u64,
    /// Of those, the ones that were taken while this sink was not configured.
    pub not_due: u64,
    /// Of those, the ones that the sink's filter took out.
    pub filtered: u64,
    /// Of those, the ones that are in the archive's objects.
    pub archived: u64,
    /// Of those, the ones that are kept as dead letters.
    pub dead: u64,
    /// Dead letters of earlier `Seq`s that were tried again.
    #[serde(default, skip_serializing_if = "Retries::is_none")]
    pub retries: Retries,
    /// Blobs that became available before the hour in which the entry's span begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<LateHour>,
}

/// Records that came to the archive once more, under a new `Seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retries {
    /// How many `Seq`s.
    pub works: u64,
    /// How many records.
    pub records: u64,
    /// Of those, the ones that the sink's filter took out.
    pub filtered: u64,
    /// Of those, the ones that are in the archive's objects now.
    pub archived: u64,
    /// Of those, the ones that are dead letters again.
    pub dead: u64,
}

impl Retries {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Blobs that came late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateHour {
    /// The beginning of the hour in which they became available.
    pub hour: DateTime<Utc>,
    /// How many.
    pub blobs: u64,
}

/// The last entry of a chain. Whoever keeps it outside of the archive notices when the tail is cut off. Written `17:<hash>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// The hash of its payload.
    pub sha256: Hash,
}

/// The head of another target's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldHead {
    /// The ledger of that chain.
    pub ledger: LedgerId,
    /// The number of its last entry.
    pub number: u64,
    /// The hash of that entry's payload.
    pub sha256: Hash,
}

/// The bytes are no entry of this format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// They are no JSON of this form.
    #[error("its payload is no entry: {why}")]
    Form {
        /// What the parser says.
        why: String,
    },
    /// It is of another version.
    #[error("it is of format {found}, and this mailtrail knows format {FORMAT}; take a newer one")]
    Format {
        /// Which.
        found: u64,
    },
}

impl Entry {
    /// Reads the payload of an envelope.
    ///
    /// # Errors
    ///
    /// When it is no entry, or of another format.
    pub fn parse(payload: &[u8]) -> Result<Self, EntryError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u64,
        }
        let form = |error: serde_json::Error| EntryError::Form { why: error.to_string() };
        json::check(payload).map_err(form)?;
        let Versioned { format } = serde_json::from_slice(payload).map_err(form)?;
        if format != u64::from(FORMAT) {
            return Err(EntryError::Format { found: format });
        }
        serde_json::from_slice(payload).map_err(form)
    }

    /// The payload: the same entry always gives the same bytes.
    #[must_use]
    pub fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and lists are always written")
    }

    /// What of its accounts does not add up, if anything.
    #[must_use]
    pub fn disagreement(&self) -> Option<String> {
        if let Some((content_type, _)) = self.accounts.iter().find(|(_, accounts)| !accounts.agree()) {
            return Some(format!(
                "of {content_type}, the parts are not the whole: some of what came in is neither archived, nor filtered, a \
                 duplicate or a dead letter"
            ));
        }
        let parts = self
            .accounts
            .values()
            .flat_map(|accounts| [accounts.listed, accounts.holes, accounts.retries.works]);
        let numbers = parts.chain([self.other_seqs]).try_fold(0u64, u64::checked_add);
        let span = self.last_seq.0.checked_sub(self.after_seq.0);
        (numbers.is_none() || numbers != span).then(|| {
            let (after, last) = (self.after_seq, self.last_seq);
            format!("not every Seq behind {after} up to {last} is accounted for")
        })
    }

    /// Which chain it is of.
    #[must_use]
    pub fn chain(&self) -> ChainKey {
        ChainKey { tenant: self.tenant, ledger: self.ledger }
    }

    /// The Merkle root over the roots of these objects.
    #[must_use]
    pub fn root_of(objects: &[SealedObject]) -> Hash {
        let mut tree = Merkle::default();
        objects.iter().for_each(|object| tree.push(object.merkle_root.as_bytes()));
        tree.root()
    }
}

impl SealedObject {
    /// The file with the raw records, when there is one.
    #[must_use]
    pub fn ndjson(&self) -> Option<&SealedFile> {
        self.files.iter().find(|file| file.format.is_ndjson())
    }

    /// The files over whose records its tree stands, in their order: the one with lines, or all of them.
    #[must_use]
    pub fn evidence(&self) -> &[SealedFile] {
        self.ndjson().map_or(&self.files[..], std::slice::from_ref)
    }

    /// What its files take.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Accounts {
    /// Whether nothing has vanished.
    #[must_use]
    pub fn agree(&self) -> bool {
        let sum = |parts: &[u64]| parts.iter().try_fold(0u64, |sum, part| sum.checked_add(*part));
        sum(&[self.fetched, self.gaps, self.quarantined]) == Some(self.listed)
            && sum(&[self.duplicates, self.not_due, self.filtered, self.archived, self.dead])
                == Some(self.records)
            && sum(&[self.retries.filtered, self.retries.archived, self.retries.dead])
                == Some(self.retries.records)
    }
}

/// The text is no head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no head (expected NUMBER:HASH, as the log and the metric show it, such as 17:ba78…, with 64 digits)"
)]
pub struct NotAHead {
    /// What was given instead.
    pub text: String,
}

impl FromStr for Head {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let head = text.split_once(':').and_then(|(number, sha256)| {
            Some(Self { number: number.parse().ok()?, sha256: sha256.parse().ok()? })
        });
        head.ok_or_else(|| NotAHead { text: text.to_owned() })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.sha256)
    }
}
