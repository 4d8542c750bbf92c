//! The archive: objects that hold records for years, and signed manifests that prove that none is missing or changed.
//!
//! | file | what it holds |
//! |---|---|
//! | `merkle.rs` | [`Merkle`]: the tree over the records of an object |

mod merkle;

pub use merkle::{Hash, Merkle};
