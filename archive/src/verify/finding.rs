//! What a verification finds wrong.

use std::fmt;

use serde::Serialize;

use crate::{entry::Head, hash::Hash, key::KeyId, names::ChainKey, path::ObjectPath};

/// Something that is not as the archive says, or that the archive does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// There is not a single entry.
    NoEntries,
    /// No entry has this number, and later ones exist.
    EntryMissing {
        /// Where it should lie.
        path: ObjectPath,
        /// How many behind it are missing as well.
        more: u64,
    },
    /// What lies there is no entry, or cannot be read.
    EntryUnreadable {
        /// Where it lies.
        path: ObjectPath,
        /// Why.
        why: String,
    },
    /// It is an entry of another place.
    EntryMisplaced {
        /// Where it lies.
        path: ObjectPath,
        /// Of which chain it says that it is.
        chain: ChainKey,
        /// Which number it says that it has.
        number: u64,
    },
    /// It says that a key signs it that must not.
    EntryKey {
        /// Where it lies.
        path: ObjectPath,
        /// The key that it names.
        key: KeyId,
        /// The key that must sign, when the entries before say which.
        expected: Option<KeyId>,
    },
    /// Its signature is wrong.
    EntrySignature {
        /// Where it lies.
        path: ObjectPath,
        /// The key that should have signed.
        key: KeyId,
    },
    /// It does not go on from the entry that lies before it.
    EntryPrevious {
        /// Where it lies.
        path: ObjectPath,
        /// The hash of the entry before it; none when it is the first.
        expected: Option<Hash>,
        /// The hash that it names.
        found: Option<Hash>,
    },
    /// What it speaks for does not begin where the entry before it ends.
    EntrySpan {
        /// Where it lies.
        path: ObjectPath,
        /// What is wrong.
        why: String,
    },
    /// Its root is not that of its objects.
    EntryRoot {
        /// Where it lies.
        path: ObjectPath,
    },
    /// It names an object that does not belong to it, or in a way that contradicts itself.
    EntryObjects {
        /// Where it lies.
        path: ObjectPath,
        /// What is wrong.
        why: String,
    },
    /// Its accounts do not add up.
    EntryAccounts {
        /// Where it lies.
        path: ObjectPath,
        /// What is wrong.
        why: String,
    },
    /// What lies beside an entry as its time-stamp is none of it.
    Timestamp {
        /// Where it lies.
        path: ObjectPath,
        /// Why not.
        why: String,
    },
    /// A file that an entry names is not there.
    ObjectMissing {
        /// Which.
        path: ObjectPath,
        /// The entry.
        entry: ObjectPath,
    },
    /// A file has other bytes than those that an entry names.
    ObjectChanged {
        /// Which.
        path: ObjectPath,
        /// The entry.
        entry: ObjectPath,
        /// Size and hash that it should have.
        expected: (u64, Hash),
        /// Size and hash that it has.
        found: (u64, Hash),
    },
    /// A file has the right bytes, and these are not the records that its entry names.
    ObjectRecords {
        /// Which.
        path: ObjectPath,
        /// The entry.
        entry: ObjectPath,
        /// What is wrong.
        why: String,
    },
    /// The store does not give a file.
    ObjectUnread {
        /// Which.
        path: ObjectPath,
        /// Why.
        why: String,
    },
    /// Two entries, or one of them twice, name the same file.
    ObjectTwice {
        /// Which.
        path: ObjectPath,
        /// The entry that names it again.
        entry: ObjectPath,
    },
    /// A file that no entry names, although the entries reach beyond it.
    Surplus {
        /// Its name, which somebody else may have chosen.
        name: String,
    },
    /// No chain has the entry that was its head once.
    TailCut {
        /// The head that somebody kept.
        head: Head,
    },
}

impl Finding {
    /// A word for each kind, for machines.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoEntries => "no-entries",
            Self::EntryMissing { .. } => "entry-missing",
            Self::EntryUnreadable { .. } => "entry-unreadable",
            Self::EntryMisplaced { .. } => "entry-misplaced",
            Self::EntryKey { .. } => "entry-key",
            Self::EntrySignature { .. } => "entry-signature",
            Self::EntryPrevious { .. } => "entry-previous",
            Self::EntrySpan { .. } => "entry-span",
            Self::EntryRoot { .. } => "entry-root",
            Self::EntryObjects { .. } => "entry-objects",
            Self::EntryAccounts { .. } => "entry-accounts",
            Self::Timestamp { .. } => "timestamp",
            Self::ObjectMissing { .. } => "object-missing",
            Self::ObjectChanged { .. } => "object-changed",
            Self::ObjectRecords { .. } => "object-records",
            Self::ObjectUnread { .. } => "object-unread",
            Self::ObjectTwice { .. } => "object-twice",
            Self::Surplus { .. } => "surplus",
            Self::TailCut { .. } => "tail-cut",
        }
    }

    /// What it is about: a path in the archive, or a head.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::NoEntries => crate::names::MANIFESTS.to_owned(),
            Self::EntryMissing { path, .. }
            | Self::EntryUnreadable { path, .. }
            | Self::EntryMisplaced { path, .. }
            | Self::EntryKey { path, .. }
            | Self::EntrySignature { path, .. }
            | Self::EntryPrevious { path, .. }
            | Self::EntrySpan { path, .. }
            | Self::EntryRoot { path }
            | Self::EntryObjects { path, .. }
            | Self::EntryAccounts { path, .. }
            | Self::Timestamp { path, .. }
            | Self::ObjectMissing { path, .. }
            | Self::ObjectChanged { path, .. }
            | Self::ObjectRecords { path, .. }
            | Self::ObjectUnread { path, .. }
            | Self::ObjectTwice { path, .. } => path.to_string(),
            Self::Surplus { name } => name.clone(),
            Self::TailCut { head } => head.to_string(),
        }
    }

    /// What it means, without its subject.
    #[must_use]
    pub fn meaning(&self) -> String {
        let short = |hash: &Option<Hash>| hash.map_or_else(|| "none".to_owned(), |hash| hash.to_string());
        match self {
            Self::NoEntries => {
                "there is not a single entry, so nothing proves anything: is this the archive's top folder?".to_owned()
            }
            Self::EntryMissing { more: 0, .. } => "the entry is missing, and there are later ones".to_owned(),
            Self::EntryMissing { more, .. } => {
                format!("the entry is missing, and so are the {more} behind it; there are later ones")
            }
            Self::EntryUnreadable { why, .. } => format!("the entry cannot be read: {why}"),
            Self::EntryMisplaced { chain, number, .. } => {
                format!("the entry lies in the wrong place: it says that it is number {number} of {chain}")
            }
            Self::EntryKey { key, expected: Some(expected), .. } => format!(
                "the entry is signed by the key {key}, but the entries before it say that {expected} signs: it was signed anew"
            ),
            Self::EntryKey { key, expected: None, .. } => format!(
                "the entry is signed by the key {key}, which was not given and which no verified entry names: its signature \
                 proves nothing"
            ),
            Self::EntrySignature { key, .. } => {
                format!("the signature is not that of the key {key}: the entry was changed after it was signed")
            }
            Self::EntryPrevious { expected, found, .. } => format!(
                "the entry goes on from {}, but the one before it is {}: one of them was changed or exchanged",
                short(found),
                short(expected)
            ),
            Self::EntrySpan { why, .. } => format!("the entry does not begin where the one before it ends: {why}"),
            Self::EntryRoot { .. } => "the entry's root is not that of its objects".to_owned(),
            Self::EntryObjects { why, .. } => format!("the entry contradicts itself: {why}"),
            Self::EntryAccounts { why, .. } => format!("the entry's accounts do not add up: {why}"),
            Self::Timestamp { why, .. } => format!("it is not the time-stamp of the entry beside it: {why}"),
            Self::ObjectMissing { entry, .. } => format!("the object is missing; {entry} names it"),
            Self::ObjectChanged { entry, expected: (bytes, hash), found: (now, other), .. } if bytes == now => format!(
                "the object was changed: its SHA-256 is {other}, and {entry} says {hash}"
            ),
            Self::ObjectChanged { entry, expected: (bytes, _), found: (now, _), .. } => {
                format!("the object was changed: it has {now} bytes, and {entry} says {bytes}")
            }
            Self::ObjectRecords { entry, why, .. } => {
                format!("the object has the bytes that {entry} names, but not the records: {why}")
            }
            Self::ObjectUnread { why, .. } => format!("the object could not be read, so it is not verified: {why}"),
            Self::ObjectTwice { entry, .. } => format!("the object is named a second time, by {entry}"),
            Self::Surplus { .. } => {
                "no entry names the file, although the entries reach beyond it: it was added, or its entry was taken away"
                    .to_owned()
            }
            Self::TailCut { .. } => {
                "no chain has this head: entries were cut off behind the ones that are left, or were replaced".to_owned()
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject(), self.meaning())
    }
}

impl Serialize for Finding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written {
            kind: &'static str,
            subject: String,
            meaning: String,
        }
        Written { kind: self.kind(), subject: self.subject(), meaning: self.meaning() }.serialize(serializer)
    }
}
