//! Works, and what a sink tells the ledger of them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The ledger's number of a piece of work: a blob, or a retry or restore of some of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkId(pub i64);

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "work {}", self.0)
    }
}

/// How much work is wanted at once: one at least, whatever its size, and then more until one of these is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Works.
    pub works: usize,
    /// Their records that are no duplicates.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl From<usize> for Want {
    /// So many works, of any size.
    fn from(works: usize) -> Self {
        Self { works, records: u64::MAX, bytes: u64::MAX }
    }
}

/// The end of one delivery: every record of the work that is no duplicate is in one of these (L10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// What is settled.
    pub work: WorkId,
    /// Records that receipts cover.
    pub delivered: u32,
    /// Records that the filter took out.
    pub filtered: u32,
    /// Records that are dead letters, by position, with the reason.
    pub dead: Vec<DeadRecord>,
    /// Records that were sent again after an ambiguous outcome.
    pub resent: u32,
}

/// A record that a sink refuses for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRecord {
    /// Its position in the body.
    pub position: u32,
    /// Why.
    pub reason: String,
}

/// A sink's turn at a work that is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferral {
    /// What is given back.
    pub work: WorkId,
    /// When it may be leased again. `None`: at once, and it does not count as an attempt.
    pub not_before: Option<DateTime<Utc>>,
    /// Why, for people.
    pub error: String,
    /// How often its records may have reached the destination without a receipt. This takes the place of what was said
    /// when it was begun.
    pub begun: u32,
}
