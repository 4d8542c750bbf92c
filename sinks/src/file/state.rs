//! What the file sink keeps in the ledger, in the commit before it appends.
//!
//! It is JSON, so that it can be read in the ledger by eye:
//!
//! ```json
//! {"version":1,"path":"/var/log/mailtrail/mailtrail.ndjson","start":1200,"synced":4096,
//!  "opened":"2026-01-02T03:04:05Z","closed":7,
//!  "closing":{"from":"…/mailtrail.ndjson","to":"…/mailtrail-20260102T040405Z-7.ndjson","length":268435456,
//!             "identity":{"device":2049,"inode":77}},
//!  "due":[{"work":17,"body":"0123456789abcdef","sent":[[0,100]]}]}
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `path` | the live file |
//! | `start` | where in it the lines of `due` begin |
//! | `synced` | so long it was when it was last fsynced: it can never be shorter |
//! | `opened` | when its first record was due |
//! | `closed` | how many files were closed; the number in the next closed name is one more |
//! | `closing` | a rotation that was decided; it may have happened or not. Absent otherwise |
//! | `due` | the lines that stand behind `start`, or will, in order: positions of works, as runs of first position and count. A work may come more than once |
//! | `given_up` | up to where lines of works may stand that were given up meanwhile: what is whole there stays. The largest number: nobody has looked yet. Absent when there are none |
//! | `due.body` | of which body of the work they are ([`BodyId`]); absent for records that never came as one |
//! | `due.resent` | how many lines of bodies that the work had before were there; absent when there were none |

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::disk::Identity;
use crate::{
    delivery_ledger::{BodyId, WorkId},
    positions::Positions,
    versioned::{self, Unreadable},
};

const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) version: u32,
    pub(super) path: PathBuf,
    pub(super) start: u64,
    pub(super) synced: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) opened: Option<DateTime<Utc>>,
    pub(super) closed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) closing: Option<Closing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) given_up: Option<u64>,
    pub(super) due: Vec<Due>,
}

/// A rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Closing {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    pub(super) length: u64,
    pub(super) identity: Identity,
}

/// Lines of a work that are due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Due {
    pub(super) work: WorkId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<BodyId>,
    pub(super) sent: Positions,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) resent: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A state that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadState {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("it is damaged: the lines begin at {start}, after the end at {synced}")]
    StartAfterEnd { start: u64, synced: u64 },
}

impl State {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            version: VERSION,
            path,
            start: 0,
            synced: 0,
            opened: None,
            closed: 0,
            closing: None,
            given_up: None,
            due: Vec::new(),
        }
    }

    /// The same lines are due in a new file, because the one that was there is gone.
    pub(super) fn started_anew(self, path: PathBuf) -> Self {
        Self { path, start: 0, synced: 0, opened: None, given_up: None, ..self }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .expect("paths come from the configuration, which is UTF-8; all else is always JSON")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadState> {
        let state: Self = versioned::decode(bytes, VERSION)?;
        if state.start > state.synced {
            return Err(BadState::StartAfterEnd { start: state.start, synced: state.synced });
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format that is in ledgers: whoever changes it raises the version and reads the old one.
    #[test]
    fn version_1_is_read_as_it_was_written() {
        let text = concat!(
            r#"{"version":1,"path":"/x/mailtrail.ndjson","start":12,"synced":40,"opened":"2026-01-02T03:04:05Z","#,
            r#""closed":7,"closing":{"from":"/x/mailtrail.ndjson","to":"/x/mailtrail-20260102T040405Z-7.ndjson","#,
            r#""length":40,"identity":{"device":1,"inode":2}},"due":[{"work":17,"sent":[[0,3],[9,1]]}]}"#
        );
        let state = State::decode(text.as_bytes()).unwrap();
        assert_eq!(state.due[0].sent.iter().collect::<Vec<_>>(), [0, 1, 2, 9]);
        assert_eq!(std::str::from_utf8(&state.encode()).unwrap(), text);
    }

    #[test]
    fn what_it_cannot_know_is_refused() {
        let newer = br#"{"version":2,"anything":[]}"#;
        assert!(matches!(
            State::decode(newer),
            Err(BadState::Unreadable(Unreadable::Newer { found: 2, .. }))
        ));
        assert!(matches!(State::decode(b"\x00"), Err(BadState::Unreadable(Unreadable::Malformed(_)))));
        let mut state = State::new("/x".into());
        state.start = 1;
        assert!(matches!(State::decode(&state.encode()), Err(BadState::StartAfterEnd { .. })));
    }
}
