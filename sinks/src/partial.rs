//! What was delivered of works that were given back before they were complete.
//!
//! A destination that is down for longer than retries in memory last makes its works go back into the ledger, and so
//! does a stop. What receipts cover of them is remembered, so that it is not sent again: duplicates arise only after
//! an ambiguous outcome. For a sink that is not exactly once this is kept as the sink's state in the ledger.
//!
//! The state is JSON: `{"version":1,"partial":[{"work":17,"delivered":[[0,400]],"resent":3}]}`, with runs of first
//! position and count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    delivery_ledger::WorkId,
    positions::Positions,
    versioned::{self, Unreadable},
};

const VERSION: u32 = 1;

/// What was done of a work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Partial {
    /// What receipts cover.
    pub(crate) delivered: Positions,
    /// How many records were sent again after an ambiguous outcome.
    pub(crate) resent: u32,
}

/// What was done, by work.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Partials {
    works: BTreeMap<WorkId, Partial>,
    /// Whether it differs from what the ledger has.
    changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    partial: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    work: WorkId,
    delivered: Positions,
    resent: u32,
}

impl Partials {
    pub(crate) fn decode(state: Option<&[u8]>) -> Result<Self, Unreadable> {
        let Some(state) = state else { return Ok(Self::default()) };
        let stored: Stored = versioned::decode(state, VERSION)?;
        let works = stored.partial.into_iter();
        let works =
            works.map(|Entry { work, delivered, resent }| (work, Partial { delivered, resent })).collect();
        Ok(Self { works, changed: false })
    }

    pub(crate) fn get(&self, work: WorkId) -> Option<&Partial> {
        self.works.get(&work)
    }

    pub(crate) fn keep(&mut self, work: WorkId, partial: Partial) {
        if partial != Partial::default() && self.works.get(&work) != Some(&partial) {
            self.changed = true;
            self.works.insert(work, partial);
        }
    }

    pub(crate) fn forget(&mut self, work: WorkId) {
        self.changed |= self.works.remove(&work).is_some();
    }

    /// The bytes to keep, if they differ from those that were kept last.
    pub(crate) fn changed_state(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let partial = self
            .works
            .iter()
            .map(|(&work, Partial { delivered, resent })| Entry {
                work,
                delivered: delivered.clone(),
                resent: *resent,
            })
            .collect();
        let stored = Stored { version: VERSION, partial };
        Some(serde_json::to_vec(&stored).expect("numbers in lists are always JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_comes_back_and_a_newer_one_is_refused() {
        let mut partials = Partials::default();
        assert_eq!(partials.changed_state(), None);
        partials.keep(WorkId(17), Partial { delivered: (0..400).collect(), resent: 3 });
        partials.keep(WorkId(18), Partial::default());
        let state = partials.changed_state().expect("it changed");
        assert_eq!(
            std::str::from_utf8(&state).unwrap(),
            r#"{"version":1,"partial":[{"work":17,"delivered":[[0,400]],"resent":3}]}"#
        );
        assert_eq!(partials.changed_state(), None);
        assert_eq!(Partials::decode(Some(&state)).unwrap(), partials);
        partials.forget(WorkId(17));
        assert!(partials.changed_state().is_some());
        assert!(matches!(
            Partials::decode(Some(br#"{"version":2,"partial":[]}"#)),
            Err(Unreadable::Newer { found: 2, .. })
        ));
        assert!(Partials::decode(Some(b"garbage")).is_err());
    }
}
