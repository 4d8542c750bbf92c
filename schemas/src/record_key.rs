//! What makes two records the same record.
//!
//! Microsoft repeats audit records by design and leaves it to the consumer to remove them (Office 365 Management
//! Activity API troubleshooting, "duplicate audit events"). Two records are the same when `Id`, `CreationTime`,
//! `Operation` and `UserId` are; their text may differ, because the order of keys in JSON is not stable.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::time::parse_utc;

/// The identity of a record within its feed: a digest of `Id`, `CreationTime`, `Operation` and `UserId`.
///
/// A record that lacks one of the four, or whose `Id` is no GUID, has no key and is never a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// Hours since 1970 of `CreationTime`: keys that are looked up together lie together.
    pub hour: i32,
    /// The first half of the SHA-256 of the four parts.
    pub digest: [u8; 16],
}

impl RecordKey {
    /// Makes the key of a record from its four parts as text (JSON escapes already resolved).
    #[must_use]
    pub fn new(id: &str, creation_time: &str, operation: &str, user_id: &str) -> Option<Self> {
        let id = Uuid::try_parse(id).ok().filter(|_| id.len() == 36)?;
        let time: DateTime<Utc> = parse_utc(creation_time)?;
        let mut hash = Sha256::new();
        hash.update(id.as_bytes());
        hash.update(time.timestamp().to_le_bytes());
        hash.update(time.timestamp_subsec_nanos().to_le_bytes());
        // The length keeps `ab` + `c` apart from `a` + `bc`.
        hash.update((operation.len() as u64).to_le_bytes());
        hash.update(operation);
        hash.update(user_id);
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        let hour = i32::try_from(time.timestamp().div_euclid(3600)).ok()?;
        Some(Self { hour, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1c7412a6-858d-49ff-3f93-08d7ac0f45bf";

    #[test]
    fn each_part_counts_and_the_spelling_of_id_and_time_does_not() {
        let key = RecordKey::new(ID, "2020-02-07T20:49:49", "Set-Mailbox", "a@b.c").unwrap();
        assert_eq!(
            RecordKey::new(&ID.to_uppercase(), "2020-02-07T20:49:49Z", "Set-Mailbox", "a@b.c"),
            Some(key)
        );
        for other in [
            RecordKey::new(
                "1c7412a6-858d-49ff-3f93-08d7ac0f45be",
                "2020-02-07T20:49:49",
                "Set-Mailbox",
                "a@b.c",
            ),
            RecordKey::new(ID, "2020-02-07T20:49:49.001", "Set-Mailbox", "a@b.c"),
            RecordKey::new(ID, "2020-02-07T20:49:49", "Set-Mailboxa", "@b.c"),
            RecordKey::new(ID, "2020-02-07T20:49:49", "Set-Mailbox", "A@b.c"),
        ] {
            assert!(other.is_some_and(|other| other != key));
        }
    }

    #[test]
    fn what_cannot_be_told_apart_has_no_key() {
        assert_eq!(RecordKey::new("sanitized", "2020-02-07T20:49:49", "Set-Mailbox", "a@b.c"), None);
        assert_eq!(RecordKey::new(ID, "yesterday", "Set-Mailbox", "a@b.c"), None);
    }
}
