//! The archive: objects that hold records for years, and signed manifests that prove that none is missing or changed.
//!
//! docs/archive-format.md describes the whole format for people who know nothing of this crate.
//!
//! | file | what it holds |
//! |---|---|
//! | `hash.rs` | [`struct@Hash`], [`Hasher`]: SHA-256 |
//! | `hashed_file.rs` | [`HashedFile`]: a file of an object while it is made |
//! | `path.rs` | [`ObjectPath`]: where an object lies in an archive |
//! | `names.rs` | [`ObjectName`], [`ChainKey`]: how objects and entries are named |
//! | `numbers.rs` | [`Numbers`]: which entries of a chain are there |
//! | `merkle.rs` | [`Merkle`]: the tree over the records of an object |
//! | `inclusion.rs` | [`Inclusion`], [`Prover`]: that a record is in a tree |
//! | `key.rs` | [`SigningKey`], [`PublicKey`], [`KeyId`] |
//! | `json.rs` | JSON that everybody reads alike |
//! | `envelope.rs` | [`Envelope`]: a payload and its signature |
//! | `entry.rs` | [`Entry`]: what a manifest's entry says |
//! | `chain.rs` | [`Draft`], [`Link`]: how entries form a chain |
//! | `reading.rs`, `content.rs`, `records.rs`, `blocking.rs` | how an archive is read again |
//! | [`verify`] | [`Verify`]: whether all of that is true |
//! | `proof.rs`, `search.rs` | [`Proof`], [`Search`]: one record, found and proved |
//! | [`restoring`] | the records of a time, found and verified |
//! | [`timestamp`] | [`Timestamp`]: that an entry existed at a time |
//! | `lake.rs` | [`LakeSource`]: how twins are named in Amazon Security Lake |
//! | [`parquet`] | the records of an object as columns |
//! | [`store`] | [`Store`]: where the objects lie; each is written once |

mod blocking;
mod chain;
mod content;
mod entry;
mod envelope;
mod hash;
mod hashed_file;
mod inclusion;
mod json;
mod key;
mod lake;
mod merkle;
mod names;
mod numbers;
pub mod parquet;
mod path;
mod proof;
mod reading;
mod records;
pub mod restoring;
mod search;
pub mod store;
pub mod timestamp;
pub mod verify;

pub use chain::{Begins, Draft, DraftError, Link, SignedEntry};
pub use entry::{
    Accounts, Entry, EntryError, FORMAT, Head, LateHour, NotAHead, OldHead, Retries, SealedFile, SealedObject,
};
pub use envelope::{Envelope, EnvelopeError, PAYLOAD_TYPE};
pub use hash::{Hash, Hasher, NotAHash};
pub use hashed_file::HashedFile;
pub use inclusion::{Inclusion, Prover};
pub use key::{KeyError, KeyId, NotAKeyId, PublicKey, SigningKey};
pub use lake::{LakeSource, NotALakeSource};
pub use merkle::{LeafHasher, Merkle};
pub use names::{ChainFile, ChainKey, FileFormat, MANIFESTS, NotAnObjectName, ObjectName};
pub use numbers::{Numbers, Place};
pub use path::{NotAPath, ObjectPath};
pub use proof::{NotProved, Proof, Proved};
pub use reading::{Unreadable, chains, read_entry};
pub use records::NotRecords;
pub use search::{Match, Search, SearchError};
pub use store::{Put, Source, Store, StoreError, Target};
pub use timestamp::{Timestamp, TimestampError, TimestampQuery};
pub use verify::{Finding, Stamped, Verified, VerifiedChain, Verify};
