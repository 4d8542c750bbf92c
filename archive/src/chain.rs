//! The rules by which entries form a chain, for whoever makes one.
//!
//! A [`Draft`] says what is new; [`Draft::sign`] adds what the entry before determines, and refuses what would break the chain.
//! It gives back the [`Link`] that the next draft goes on from; whoever makes entries keeps it durably, together with the
//! signed bytes, before it puts them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemas::{ContentType, Seq};
use serde::{Deserialize, Serialize};

use crate::{
    entry::{Accounts, Entry, FORMAT, Head, OldHead, SealedObject},
    envelope::Envelope,
    hash::Hash,
    key::{KeyId, PublicKey, SigningKey},
    names::ChainKey,
    path::ObjectPath,
};

/// What an entry hands to the one after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its number.
    pub number: u64,
    /// The hash of its payload.
    pub sha256: Hash,
    /// Up to which `Seq` it speaks.
    pub last_seq: Seq,
    /// When it was made.
    pub to: DateTime<Utc>,
    /// The key that must sign the next one.
    pub signer: PublicKey,
}

impl Link {
    /// The chain's head.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { number: self.number, sha256: self.sha256 }
    }
}

/// Where an entry begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begins {
    /// It is the first of its chain.
    Chain {
        /// The `Seq` behind which the archive begins; 0 when it has everything.
        after_seq: Seq,
        /// When the archive began.
        from: DateTime<Utc>,
        /// The head of the old target's chain, when this is a new one.
        old_head: Option<OldHead>,
    },
    /// It goes on from another.
    After(Link),
}

/// An entry that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Which chain it is of.
    pub chain: ChainKey,
    /// Where it begins.
    pub begins: Begins,
    /// Up to which `Seq` it speaks.
    pub last_seq: Seq,
    /// When it is made.
    pub to: DateTime<Utc>,
    /// What was put and has its first `Seq` in the entry's span.
    pub objects: Vec<SealedObject>,
    /// What became of everything.
    pub accounts: BTreeMap<ContentType, Accounts>,
    /// How many of its `Seq`s stand for nothing of this archive.
    pub other_seqs: u64,
    /// Up to which `Seq` some of it may not be known any more.
    pub incomplete_through: Option<Seq>,
    /// The key that signs from the next entry on, when it is to be another.
    pub next_key: Option<PublicKey>,
}

/// An entry that can be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedEntry {
    /// Where it goes.
    pub path: ObjectPath,
    /// What goes there.
    pub envelope: Envelope,
    /// What the next entry goes on from.
    pub link: Link,
}

/// An entry that would break its chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// The chain names another key.
    #[error(
        "the key {given} must not sign here: the chain goes on with the key {expected} until an entry signed by that one names \
         another"
    )]
    Key {
        /// Which key must sign.
        expected: KeyId,
        /// Which key was given.
        given: KeyId,
    },
    /// `Seq`s run on.
    #[error("the entry would end at Seq {last}, before it begins behind Seq {after}")]
    Seqs {
        /// Where it begins.
        after: Seq,
        /// Where it would end.
        last: Seq,
    },
    /// Times run on.
    #[error("the entry would end at {to}, before it begins at {from}; is the clock right?")]
    Times {
        /// When it begins.
        from: DateTime<Utc>,
        /// When it would end.
        to: DateTime<Utc>,
    },
    /// An object belongs to another entry.
    #[error(
        "the object of Seq {first} to {last} does not belong to an entry for the Seqs behind {after} up to {until}"
    )]
    Object {
        /// The object's first.
        first: Seq,
        /// The object's last.
        last: Seq,
        /// Where the entry begins.
        after: Seq,
        /// Where it ends.
        until: Seq,
    },
}

impl Draft {
    /// Makes the entry.
    ///
    /// # Errors
    ///
    /// When it would break the chain.
    pub fn sign(self, key: &SigningKey) -> Result<SignedEntry, DraftError> {
        let (number, after_seq, from, previous, old_head) = match self.begins {
            Begins::Chain { after_seq, from, old_head } => (1, after_seq, from, None, old_head),
            Begins::After(link) => {
                if link.signer != *key.public() {
                    return Err(DraftError::Key { expected: link.signer.id(), given: key.public().id() });
                }
                (link.number + 1, link.last_seq, link.to, Some(link.sha256), None)
            }
        };
        let (last_seq, to) = (self.last_seq, self.to);
        if last_seq < after_seq {
            return Err(DraftError::Seqs { after: after_seq, last: last_seq });
        }
        if to < from {
            return Err(DraftError::Times { from, to });
        }
        if let Some(object) = self.objects.iter().find(|object| !belongs(object, after_seq, last_seq)) {
            let (first, last) = (object.first_seq, object.last_seq);
            return Err(DraftError::Object { first, last, after: after_seq, until: last_seq });
        }
        let entry = Entry {
            format: FORMAT,
            tenant: self.chain.tenant,
            ledger: self.chain.ledger,
            number,
            after_seq,
            last_seq,
            from,
            to,
            previous,
            old_head,
            entry_root: Entry::root_of(&self.objects),
            objects: self.objects,
            accounts: self.accounts,
            other_seqs: self.other_seqs,
            incomplete_through: self.incomplete_through,
            key: key.public().id(),
            next_key: self.next_key.filter(|next| next != key.public()),
        };
        let signer = entry.next_key.unwrap_or(*key.public());
        let envelope = Envelope::seal(entry.to_payload(), key);
        let link = Link { number, sha256: envelope.hash(), last_seq, to, signer };
        Ok(SignedEntry { path: self.chain.entry(number), envelope, link })
    }
}

/// Whether an entry for these `Seq`s is the one that names the object.
pub(crate) fn belongs(object: &SealedObject, after: Seq, last: Seq) -> bool {
    object.first_seq > after && object.first_seq <= last && object.first_seq <= object.last_seq
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::names::FileFormat;

    fn chain() -> ChainKey {
        ChainKey {
            tenant: "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap(),
            ledger: "0f1e2d3c-4b5a-4988-8776-655443322110".parse().unwrap(),
        }
    }

    fn time() -> DateTime<Utc> {
        "2026-03-04T05:00:00Z".parse().unwrap()
    }

    fn object(first: u64, last: u64) -> SealedObject {
        SealedObject {
            content_type: ContentType::Exchange,
            first_seq: Seq(first),
            last_seq: Seq(last),
            records: 2,
            first_creation_time: Some(time()),
            last_creation_time: None,
            merkle_root: Hash::of(b"records"),
            files: vec![crate::entry::SealedFile {
                path: "x/y.ndjson.zst".parse().unwrap(),
                format: FileFormat::NdjsonZstd,
                sha256: Hash::of(b"file"),
                bytes: 4,
                records: 2,
            }],
        }
    }

    fn draft(begins: Begins, last: u64, hour: i64) -> Draft {
        Draft {
            chain: chain(),
            begins,
            last_seq: Seq(last),
            to: time() + TimeDelta::hours(hour),
            objects: Vec::new(),
            accounts: BTreeMap::new(),
            other_seqs: 0,
            incomplete_through: None,
            next_key: None,
        }
    }

    fn begin() -> Begins {
        Begins::Chain { after_seq: Seq(0), from: time(), old_head: None }
    }

    #[test]
    fn an_entry_is_written_the_same_way_every_time() {
        let key = SigningKey::from_pem(
            &"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
              -----END PRIVATE KEY-----"
                .into(),
        )
        .unwrap();
        let mut first = draft(begin(), 3, 1);
        first.objects.push(object(1, 4));
        first.accounts.insert(
            ContentType::Exchange,
            Accounts {
                listed: 3,
                fetched: 2,
                gaps: 1,
                records: 5,
                duplicates: 3,
                archived: 2,
                late: vec![crate::entry::LateHour { hour: time() - TimeDelta::hours(2), blobs: 1 }],
                ..Accounts::default()
            },
        );
        let signed = first.clone().sign(&key).unwrap();
        assert_eq!(
            String::from_utf8(signed.envelope.payload().to_vec()).unwrap(),
            format!(
                r#"{{"format":1,"tenant":"41463f53-8812-40f4-890f-865bf6e35190","ledger":"0f1e2d3c-4b5a-4988-8776-655443322110","number":1,"after_seq":0,"last_seq":3,"from":"2026-03-04T05:00:00Z","to":"2026-03-04T06:00:00Z","previous":null,"objects":[{{"content_type":"Audit.Exchange","first_seq":1,"last_seq":4,"records":2,"first_creation_time":"2026-03-04T05:00:00Z","last_creation_time":null,"merkle_root":"{}","files":[{{"path":"x/y.ndjson.zst","format":"ndjson.zst","sha256":"{}","bytes":4,"records":2}}]}}],"entry_root":"{}","accounts":{{"Audit.Exchange":{{"listed":3,"fetched":2,"gaps":1,"quarantined":0,"holes":0,"records":5,"duplicates":3,"not_due":0,"filtered":0,"archived":2,"dead":0,"late":[{{"hour":"2026-03-04T03:00:00Z","blobs":1}}]}}}},"other_seqs":0,"key":"{}"}}"#,
                Hash::of(b"records"),
                Hash::of(b"file"),
                Entry::root_of(&[object(1, 4)]),
                key.public().id(),
            )
        );
        assert_eq!(signed, first.sign(&key).unwrap(), "Ed25519 signs the same bytes in the same way");
        let entry = Entry::parse(signed.envelope.payload()).unwrap();
        assert_eq!(entry.to_payload(), signed.envelope.payload());
        assert!(entry.accounts[&ContentType::Exchange].agree());
        assert_eq!(signed.path, chain().entry(1));
        assert_eq!(signed.link.head().to_string().parse(), Ok(signed.link.head()));
    }

    #[test]
    fn the_next_entry_goes_on_where_the_one_before_ended_and_a_named_key_takes_over() {
        let (old, new) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let first = draft(begin(), 3, 1).sign(&old).unwrap();
        let mut rotates = draft(Begins::After(first.link.clone()), 3, 2);
        rotates.next_key = Some(*new.public());
        assert_eq!(
            rotates.clone().sign(&new),
            Err(DraftError::Key { expected: old.public().id(), given: new.public().id() })
        );
        let second = rotates.sign(&old).unwrap();
        let third = draft(Begins::After(second.link.clone()), 9, 3);
        assert!(matches!(third.clone().sign(&old), Err(DraftError::Key { .. })));
        let third = third.sign(&new).unwrap();
        let entry = Entry::parse(third.envelope.payload()).unwrap();
        assert_eq!((entry.number, entry.after_seq, entry.last_seq), (3, Seq(3), Seq(9)));
        assert_eq!((entry.previous, entry.from), (Some(second.envelope.hash()), second.link.to));
        assert_eq!((entry.key, entry.next_key), (new.public().id(), None));
    }

    #[test]
    fn what_would_break_the_chain_is_not_signed() {
        let key = SigningKey::generate().unwrap();
        let first = draft(begin(), 3, 1).sign(&key).unwrap();
        let after = |last, hour| draft(Begins::After(first.link.clone()), last, hour);
        assert!(matches!(after(2, 2).sign(&key), Err(DraftError::Seqs { .. })));
        assert!(matches!(after(3, 0).sign(&key), Err(DraftError::Times { .. })));
        assert!(after(3, 2).sign(&key).is_ok(), "silence");
        for (object, fits) in [
            (object(3, 4), false),
            (object(4, 4), true),
            (object(5, 9), true),
            (object(6, 6), false),
            (object(5, 4), false),
        ] {
            let mut draft = after(5, 2);
            draft.objects.push(object);
            assert_eq!(draft.sign(&key).is_ok(), fits);
        }
    }

    #[test]
    fn a_newer_format_is_named_as_such() {
        let key = SigningKey::generate().unwrap();
        let payload = draft(begin(), 3, 1).sign(&key).unwrap().envelope.payload().to_vec();
        let newer = String::from_utf8(payload).unwrap().replace("\"format\":1", "\"format\":2");
        assert_eq!(Entry::parse(newer.as_bytes()), Err(crate::entry::EntryError::Format { found: 2 }));
    }
}
