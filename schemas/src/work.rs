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

/// Which bytes a work's body is: the beginning of the SHA-256 of the body as it came, 16 digits of hexadecimal. A blob is
/// to be immutable, but one that is fetched again may come with other bytes; then positions of the one body mean nothing
/// in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BodyId(u64);

/// What is no [`BodyId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not 16 digits of hexadecimal")]
pub struct BadBodyId(String);

impl BodyId {
    /// Of a body with this hash; `None` when that is too short to be one.
    #[must_use]
    pub fn of_sha256(hash: &[u8]) -> Option<Self> {
        hash.first_chunk().map(|bytes| Self(u64::from_be_bytes(*bytes)))
    }

    /// Whether a body is known to be another one than that before it. Nobody knows that of records that never came as a
    /// body (a retry from dead letters, a restore), which do not change.
    #[must_use]
    pub fn differ(before: Option<Self>, now: Option<Self>) -> bool {
        before.zip(now).is_some_and(|(before, now)| before != now)
    }
}

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<BodyId> for String {
    fn from(id: BodyId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for BodyId {
    type Error = BadBodyId;

    fn try_from(text: String) -> Result<Self, BadBodyId> {
        let is_whole = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(&text, 16) {
            Ok(number) if is_whole => Ok(Self(number)),
            _ => Err(BadBodyId(text)),
        }
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
    /// The body that it accounts for, as the lease had it.
    pub body: Option<BodyId>,
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
    /// When it may be leased again; a time that has come: at once. `None`: at once, and it does not count as an attempt.
    pub not_before: Option<DateTime<Utc>>,
    /// Why, for people.
    pub error: String,
    /// How often its records may have reached the destination without a receipt. This takes the place of what was said
    /// when it was begun.
    pub begun: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_told_from_another_by_the_beginning_of_its_hash() {
        let one = BodyId::of_sha256(&[0x0f; 32]);
        let other = BodyId::of_sha256(&[0xf0; 32]);
        assert_eq!(BodyId::of_sha256(&[1; 7]), None);
        assert!(BodyId::differ(one, other) && !BodyId::differ(one, one));
        assert!(!BodyId::differ(None, one) && !BodyId::differ(one, None), "nobody knows");
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(text, "\"0f0f0f0f0f0f0f0f\"");
        assert_eq!(serde_json::from_str::<Option<BodyId>>(&text).unwrap(), one);
        for bad in ["\"\"", "\"0f0f\"", "\"+f0f0f0f0f0f0f0f\"", "\"0f0f0f0f0f0f0f0g\"", "7"] {
            assert!(serde_json::from_str::<BodyId>(bad).is_err(), "{bad}");
        }
    }
}
