//! A chain's entries, one after the other: the rules of docs/archive-format.md, "Verifying a chain", in their order.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemas::Seq;

use super::finding::Finding;
use crate::{
    chain::belongs,
    entry::{Entry, Head},
    envelope::Envelope,
    hash::Hash,
    key::{KeyId, PublicKey},
    names::ChainKey,
    path::ObjectPath,
    reading::Unreadable,
    store::StoreError,
};

/// How far a chain is verified.
pub(crate) struct Walk {
    chain: ChainKey,
    /// Keys that were given, and those that verified entries name.
    known: BTreeMap<KeyId, PublicKey>,
    before: Option<Before>,
    /// The highest `Seq` that an entry speaks for.
    pub(super) last_seq: Seq,
    /// Records that the entries so far say are archived, and those of the objects that they name. None when they need not agree,
    /// or were found not to.
    sums: Option<(u128, u128)>,
    /// The key that signed the entry that was taken last, when it is the right one.
    pub(crate) signer: Option<PublicKey>,
    /// The last entry that could be read.
    pub(super) head: Option<Head>,
    /// When it was made.
    pub(super) to: Option<DateTime<Utc>>,
}

/// The entry before, when it could be read.
struct Before {
    sha256: Hash,
    last_seq: Seq,
    to: DateTime<Utc>,
    /// The key that must sign the next one, when this one's signature is right.
    signer: Option<PublicKey>,
}

impl Walk {
    pub(crate) fn new(chain: ChainKey, given: &[PublicKey]) -> Self {
        Self {
            chain,
            known: given.iter().map(|key| (key.id(), *key)).collect(),
            before: None,
            last_seq: Seq(0),
            sums: None,
            signer: None,
            head: None,
            to: None,
        }
    }

    /// Takes note of entries that are not there.
    pub(super) fn missing(&mut self, first: u64, last: u64, found: &mut dyn FnMut(Finding)) {
        found(Finding::EntryMissing { path: self.chain.entry(first), more: last - first });
        self.lost();
    }

    /// Nothing is known of the entry before the next one.
    pub(crate) fn lost(&mut self) {
        (self.before, self.signer, self.sums) = (None, None, None);
    }

    /// Takes the next entry, and says what is wrong with it. It gives it back when its objects can be looked at.
    pub(crate) fn take(
        &mut self,
        number: u64,
        read: Result<(Envelope, Entry), Unreadable>,
        found: &mut dyn FnMut(Finding),
    ) -> Option<Entry> {
        let path = self.chain.entry(number);
        let (envelope, entry) = match read {
            Ok(read) => read,
            Err(error) => {
                found(match error {
                    Unreadable::Store(StoreError::NotFound { .. }) => Finding::EntryMissing { path, more: 0 },
                    error => Finding::EntryUnreadable { path, why: error.to_string() },
                });
                self.lost();
                return None;
            }
        };
        if entry.chain() != self.chain || entry.number != number {
            let (chain, number) = (entry.chain(), entry.number);
            found(Finding::EntryMisplaced { path: path.clone(), chain, number });
        }
        self.signer = self.right_signer(number, &path, &envelope, &entry, found);
        self.goes_on(number, &path, &entry, found);
        contradictions(&path, &entry, found);
        let wrong = self.unarchived(number, &entry);
        if let Some(why) = entry.disagreement().or(wrong) {
            found(Finding::EntryAccounts { path: path.clone(), why });
        }
        if let Some(key) = entry.next_key.filter(|_| self.signer.is_some()) {
            self.known.insert(key.id(), key);
        }
        let sha256 = envelope.hash();
        self.before = Some(Before {
            sha256,
            last_seq: entry.last_seq,
            to: entry.to,
            signer: self.signer.map(|key| entry.next_key.unwrap_or(key)),
        });
        self.last_seq = self.last_seq.max(entry.last_seq);
        self.head = Some(Head { number, sha256 });
        self.to = Some(entry.to);
        Some(entry)
    }

    /// The key that signed, when it is the right one.
    fn right_signer(
        &self,
        number: u64,
        path: &ObjectPath,
        envelope: &Envelope,
        entry: &Entry,
        found: &mut dyn FnMut(Finding),
    ) -> Option<PublicKey> {
        let path = path.clone();
        let expected = match &self.before {
            Some(before) if number > 1 => before.signer,
            _ => None,
        };
        let key = match expected {
            Some(key) => Some(key).filter(|key| key.id() == entry.key),
            None => self.known.get(&entry.key).copied(),
        };
        let Some(key) = key else {
            found(Finding::EntryKey { path, key: entry.key, expected: expected.map(|key| key.id()) });
            return None;
        };
        if !envelope.is_signed_by(&key) {
            found(Finding::EntrySignature { path, key: key.id() });
            return None;
        }
        Some(key)
    }

    /// Whether the entries so far say that more records are archived than are in the objects that they name. Every record of their
    /// `Seq`s is in one of those, provided that the chain begins with the first.
    fn unarchived(&mut self, number: u64, entry: &Entry) -> Option<String> {
        if number == 1 && entry.after_seq == Seq(0) {
            self.sums = Some((0, 0));
        }
        let (said, there) = self.sums.as_mut()?;
        let archived = entry.accounts.values().flat_map(|of| [of.archived, of.retries.archived]);
        *said += archived.map(u128::from).sum::<u128>();
        *there += entry.objects.iter().map(|object| u128::from(object.records)).sum::<u128>();
        let (said, there) = (*said, *there);
        if said <= there {
            return None;
        }
        // Said once: it is as true of all that follow.
        self.sums = None;
        Some(format!(
            "up to it {said} records are said to be archived, and the objects that are named have only {there}: objects with the              others may be gone without a trace"
        ))
    }

    /// Whether it goes on from the entry before.
    fn goes_on(&self, number: u64, path: &ObjectPath, entry: &Entry, found: &mut dyn FnMut(Finding)) {
        let mut span = |why: String| found(Finding::EntrySpan { path: path.clone(), why });
        if entry.last_seq < entry.after_seq {
            span(format!("it ends at Seq {}, and begins behind Seq {}", entry.last_seq, entry.after_seq));
        } else if entry.to < entry.from {
            span(format!("it ends at {}, and begins at {}", entry.to, entry.from));
        } else if let Some(before) = &self.before {
            if entry.after_seq != before.last_seq {
                span(format!(
                    "it begins behind Seq {}, that one ends at Seq {}",
                    entry.after_seq, before.last_seq
                ));
            } else if entry.from != before.to {
                span(format!("it begins at {}, that one ends at {}", entry.from, before.to));
            }
        }
        let expected = match &self.before {
            _ if number == 1 => None,
            Some(before) => Some(before.sha256),
            // The entry before cannot be read, which is a finding already.
            None => return,
        };
        if entry.previous != expected {
            found(Finding::EntryPrevious { path: path.clone(), expected, found: entry.previous });
        }
    }
}

/// What is wrong with an entry by itself.
fn contradictions(path: &ObjectPath, entry: &Entry, found: &mut dyn FnMut(Finding)) {
    if Entry::root_of(&entry.objects) != entry.entry_root {
        found(Finding::EntryRoot { path: path.clone() });
    }
    let wrong = entry.objects.iter().find_map(|object| {
        let first = &object.files.first().map_or("an object", |file| file.path.as_str());
        if !belongs(object, entry.after_seq, entry.last_seq) {
            let (from, to) = (object.first_seq, object.last_seq);
            return Some(format!("{first}, with the Seqs {from} to {to}, belongs to another entry"));
        }
        if object.files.is_empty() {
            return Some("an object has no file".to_owned());
        }
        let records = |format| {
            let files = object.files.iter().filter(move |file| file.format == format);
            files.map(|file| file.records).try_fold(0, u64::checked_add)
        };
        let wrong = object.files.iter().find(|file| records(file.format) != Some(object.records))?;
        let format = wrong.format;
        Some(format!("{first}: its object has {} records, and not its files of {format}", object.records))
    });
    if let Some(why) = wrong {
        found(Finding::EntryObjects { path: path.clone(), why });
    }
}
