//! A small file that proves one record without the archive: the record, its way to the root of its object, that one's way to the
//! root of the entry, and the signed entry.
//!
//! ```json
//! {"format":1,"record":"<base64>","object":{"index":7,"leaves":1204,"path":["…"]},
//!  "entry":{"index":0,"leaves":3,"path":["…"]},"envelope":{"payloadType":"…","payload":"…","signatures":[…]}}
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    entry::{Entry, EntryError, FORMAT},
    envelope::Envelope,
    hash::Hash,
    inclusion::{Inclusion, Prover},
    json,
    key::{KeyId, PublicKey},
    merkle::leaf_hash,
};

/// A proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    format: u32,
    #[serde(with = "base64_bytes")]
    record: Vec<u8>,
    object: Inclusion,
    entry: Inclusion,
    envelope: Envelope,
}

/// What a proof proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The record, byte for byte.
    pub record: Vec<u8>,
    /// The entry that speaks for it.
    pub entry: Entry,
    /// Which of the entry's objects holds it.
    pub object: usize,
}

/// A proof that proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotProved {
    /// The bytes are no proof.
    #[error("it is no proof: {why}")]
    Form {
        /// What the parser says.
        why: String,
    },
    /// It is of another version.
    #[error("it is of format {found}, and this mailtrail knows format {FORMAT}; take a newer one")]
    Format {
        /// Which.
        found: u32,
    },
    /// None of the given keys is the one that signed.
    #[error("its entry is signed by the key {key}, which was not given")]
    Key {
        /// Which.
        key: KeyId,
    },
    /// The signature is wrong.
    #[error("its entry's signature is not that of the key {key}: the entry was changed after it was signed")]
    Signature {
        /// The key that should have signed.
        key: KeyId,
    },
    /// The signed payload is no entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The way to the object's root does not end there.
    #[error(
        "the record is not in the object that the entry names: the record or its way to the root was changed"
    )]
    Record,
    /// The way from the object's root to the entry's does not end there.
    #[error("the object is not in the entry: the way to the entry's root was changed")]
    Object,
}

impl Proof {
    /// A proof for a record whose way to its object's root is known. `None` when that is not one of the entry's objects.
    #[must_use]
    pub fn new(record: Vec<u8>, inclusion: Inclusion, envelope: Envelope, entry: &Entry) -> Option<Self> {
        let root = inclusion.root(leaf_hash(&record))?;
        let at = entry.objects.iter().position(|object| object.merkle_root == root)?;
        let mut prover = Prover::new(at as u64);
        entry.objects.iter().for_each(|object| prover.push(leaf_hash(object.merkle_root.as_bytes())));
        let (way, _) = prover.finish()?;
        Some(Self { format: FORMAT, record, object: inclusion, entry: way, envelope })
    }

    /// Reads a proof.
    ///
    /// # Errors
    ///
    /// When the bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotProved> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let form = |error: serde_json::Error| NotProved::Form { why: error.to_string() };
        json::check(bytes).map_err(form)?;
        let Versioned { format: found } = serde_json::from_slice(bytes).map_err(form)?;
        if found != FORMAT {
            return Err(NotProved::Format { found });
        }
        serde_json::from_slice(bytes).map_err(form)
    }

    /// The proof as a file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("strings, numbers and lists are always written");
        bytes.push(b'\n');
        bytes
    }

    /// Checks it.
    ///
    /// # Errors
    ///
    /// When it does not prove that the entry's signer had this record archived.
    pub fn check(&self, keys: &[PublicKey]) -> Result<Proved, NotProved> {
        let key = self.envelope.keyid();
        let signer = keys.iter().find(|given| given.id() == key).ok_or(NotProved::Key { key })?;
        if !self.envelope.is_signed_by(signer) {
            return Err(NotProved::Signature { key });
        }
        let entry = Entry::parse(self.envelope.payload())?;
        let root: Hash = self.object.root(leaf_hash(&self.record)).ok_or(NotProved::Record)?;
        let index = usize::try_from(self.entry.index).map_err(|_| NotProved::Object)?;
        let object = entry.objects.get(index).ok_or(NotProved::Object)?;
        if object.merkle_root != root || object.records != self.object.leaves {
            return Err(NotProved::Record);
        }
        let leaves = entry.objects.len() as u64;
        if self.entry.leaves != leaves
            || self.entry.root(leaf_hash(root.as_bytes())) != Some(entry.entry_root)
        {
            return Err(NotProved::Object);
        }
        Ok(Proved { record: self.record.clone(), entry, object: index })
    }
}

/// Bytes as base64.
mod base64_bytes {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use schemas::{ContentType, Seq};

    use super::*;
    use crate::{
        chain::{Begins, Draft},
        entry::SealedObject,
        key::SigningKey,
        merkle::Merkle,
        names::ChainKey,
    };

    fn object(records: &[Vec<u8>], seq: u64) -> SealedObject {
        let mut tree = Merkle::default();
        records.iter().for_each(|record| tree.push(record));
        SealedObject {
            content_type: ContentType::Exchange,
            first_seq: Seq(seq),
            last_seq: Seq(seq),
            records: records.len() as u64,
            first_creation_time: None,
            last_creation_time: None,
            merkle_root: tree.root(),
            files: Vec::new(),
        }
    }

    fn prove(objects: &[Vec<Vec<u8>>], at: usize, index: usize, key: &SigningKey) -> Proof {
        let draft = Draft {
            chain: ChainKey {
                tenant: "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap(),
                ledger: "0f1e2d3c-4b5a-4988-8776-655443322110".parse().unwrap(),
            },
            begins: Begins::Chain {
                after_seq: Seq(0),
                from: "2026-03-04T05:00:00Z".parse().unwrap(),
                old_head: None,
            },
            last_seq: Seq(objects.len() as u64),
            to: "2026-03-04T06:00:00Z".parse().unwrap(),
            objects: objects.iter().zip(1..).map(|(records, seq)| object(records, seq)).collect(),
            accounts: BTreeMap::new(),
            other_seqs: objects.len() as u64,
            incomplete_through: None,
            next_key: None,
        };
        let signed = draft.sign(key).unwrap();
        let entry = Entry::parse(signed.envelope.payload()).unwrap();
        let mut prover = Prover::new(index as u64);
        objects[at].iter().for_each(|record| prover.push(leaf_hash(record)));
        let (inclusion, root) = prover.finish().unwrap();
        assert_eq!(root, entry.objects[at].merkle_root);
        Proof::new(objects[at][index].clone(), inclusion, signed.envelope, &entry).unwrap()
    }

    fn objects() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let record = proptest::collection::vec(any::<u8>(), 0..12);
        proptest::collection::vec(proptest::collection::vec(record, 1..20), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_proof_proves_its_record_to_whoever_has_the_key_and_with_a_flipped_bit_nothing(
            objects in objects(),
            at in any::<proptest::sample::Index>(),
            index in any::<proptest::sample::Index>(),
            bit in any::<proptest::sample::Index>(),
        ) {
            let key = SigningKey::generate().unwrap();
            let keys = [*SigningKey::generate().unwrap().public(), *key.public()];
            let at = at.index(objects.len());
            let index = index.index(objects[at].len());
            let proof = prove(&objects, at, index, &key);
            let mut bytes = proof.to_bytes();
            let proved = Proof::parse(&bytes).unwrap().check(&keys).unwrap();
            prop_assert_eq!(&proved.record, &objects[at][index]);
            prop_assert_eq!(proved.entry.objects[proved.object].merkle_root, object(&objects[at], 1).merkle_root);
            prop_assert_eq!(proof.check(&keys[..1]), Err(NotProved::Key { key: key.public().id() }));

            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let still = Proof::parse(&bytes).and_then(|proof| proof.check(&keys));
            prop_assert!(still.is_err(), "bit {} of {}", bit, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_record_that_is_in_no_object_of_the_entry_has_no_proof() {
        let key = SigningKey::generate().unwrap();
        let proof = prove(&[vec![b"a".to_vec(), b"b".to_vec()]], 0, 1, &key);
        let entry = Entry::parse(proof.envelope.payload()).unwrap();
        assert!(Proof::new(b"c".to_vec(), proof.object.clone(), proof.envelope.clone(), &entry).is_none());
    }
}
