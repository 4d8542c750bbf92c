//! What was delivered of works that were given back before they were complete.
//!
//! A destination that is down for longer than retries in memory last makes its works go back into the ledger, and so
//! does a stop. What receipts cover of them is remembered, so that it is not sent again: duplicates arise only after
//! an ambiguous outcome. For a sink that is not exactly once this is kept as the sink's state in the ledger.
//!
//! Positions are those of one body. When a damaged body was fetched again and came back as another one, all of that one is
//! sent, and what was delivered of the first counts as sent again.
//!
//! The state is JSON: `{"version":1,"partial":[{"work":17,"body":"0123456789abcdef","delivered":[[0,400]],"resent":3}]}`,
//! with runs of first position and count. `body` ([`BodyId`]) is absent for records that never came as one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    delivery_ledger::{BodyId, Work, WorkId},
    positions::Positions,
    versioned::{self, Unreadable},
};

const VERSION: u32 = 1;

/// What was done of a work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Partial {
    /// Of which body.
    pub(crate) body: Option<BodyId>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<BodyId>,
    delivered: Positions,
    resent: u32,
}

impl Partial {
    /// Whether there is anything to be remembered.
    fn is_empty(&self) -> bool {
        self.delivered.is_empty() && self.resent == 0
    }

    /// The same, once the work has this body; and how many records are sent again because it is another.
    fn of_body(&self, body: Option<BodyId>) -> (Self, u32) {
        if !BodyId::differ(self.body, body) {
            return (Self { body: body.or(self.body), ..self.clone() }, 0);
        }
        let again = u32::try_from(self.delivered.len()).unwrap_or(u32::MAX);
        (Self { body, delivered: Positions::default(), resent: self.resent.saturating_add(again) }, again)
    }
}

impl Partials {
    pub(crate) fn decode(state: Option<&[u8]>) -> Result<Self, Unreadable> {
        let Some(state) = state else { return Ok(Self::default()) };
        let stored: Stored = versioned::decode(state, VERSION)?;
        let works = stored.partial.into_iter();
        let works = works
            .map(|Entry { work, body, delivered, resent }| (work, Partial { body, delivered, resent }))
            .collect();
        Ok(Self { works, changed: false })
    }

    /// What was done of this work as it is leased now, and how many records of an earlier body are sent again.
    pub(crate) fn get(&mut self, work: &Work) -> (Option<&Partial>, u32) {
        let Some(partial) = self.works.get_mut(&work.id) else { return (None, 0) };
        let (of_body, again) = partial.of_body(work.body);
        self.changed |= *partial != of_body;
        *partial = of_body;
        (Some(partial), again)
    }

    pub(crate) fn keep(&mut self, work: WorkId, partial: Partial) {
        if !partial.is_empty() && self.works.get(&work) != Some(&partial) {
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
            .map(|(&work, Partial { body, delivered, resent })| Entry {
                work,
                body: *body,
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
    use crate::test_ledger::work;

    #[test]
    fn positions_of_another_body_are_worth_nothing_and_count_as_sent_again() {
        let body = |byte: u8| BodyId::of_sha256(&[byte; 32]);
        let with = |body| Work { body, ..Work::clone(&work(17, 500)) };
        let mut partials = Partials::default();
        let partial = Partial { body: body(1), delivered: (0..400).collect(), resent: 3 };
        partials.keep(WorkId(17), partial.clone());
        let state = partials.changed_state().expect("it changed");
        assert_eq!(
            std::str::from_utf8(&state).unwrap(),
            r#"{"version":1,"partial":[{"work":17,"body":"0101010101010101","delivered":[[0,400]],"resent":3}]}"#
        );
        let mut partials = Partials::decode(Some(&state)).unwrap();
        assert_eq!(partials.get(&with(body(1))), (Some(&partial), 0), "it came back as it was");
        assert_eq!(partials.changed_state(), None);
        let anew = Partial { body: body(2), delivered: Positions::default(), resent: 403 };
        assert_eq!(partials.get(&with(body(2))), (Some(&anew), 400));
        assert_eq!(partials.get(&with(body(2))), (Some(&anew), 0), "it counts once");
        assert!(partials.changed_state().is_some(), "and over a restart");
        // A state without bodies is of an earlier version.
        let old = br#"{"version":1,"partial":[{"work":17,"delivered":[[0,400]],"resent":3}]}"#;
        assert_eq!(Partials::decode(Some(old)).unwrap().get(&with(body(1))), (Some(&partial), 0));
    }

    #[test]
    fn the_state_comes_back_and_a_newer_one_is_refused() {
        let mut partials = Partials::default();
        assert_eq!(partials.changed_state(), None);
        partials.keep(WorkId(17), Partial { body: None, delivered: (0..400).collect(), resent: 3 });
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
