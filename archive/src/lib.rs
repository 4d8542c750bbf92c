//! The archive: objects that hold records for years, and signed manifests that prove that none is missing or changed.
//!
//! | file | what it holds |
//! |---|---|
//! | `hash.rs` | [`Hash`], [`Hasher`]: SHA-256 |
//! | `path.rs` | [`ObjectPath`]: where an object lies in an archive |
//! | `merkle.rs` | [`Merkle`]: the tree over the records of an object |
//! | [`store`] | [`Store`]: where the objects lie; each is written once |

mod hash;
mod merkle;
mod path;
pub mod store;

pub use hash::{Hash, Hasher, NotAHash};
pub use merkle::Merkle;
pub use path::{NotAPath, ObjectPath};
pub use store::{Put, Source, Store, StoreError, Target};
