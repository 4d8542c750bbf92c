//! Who may not fetch at present: a content type that is halted, or the whole fetcher while nothing works.
//!
//! A content type is halted when the API does not know several content ids in a row that it listed itself, or says that
//! nothing will come of it. Now and then one blob is let through as a probe; when that goes well, the gate is open.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use schemas::ContentType;
use tokio::time::Instant;

/// Content ids in a row that the API does not know, after which their content type is halted.
const SUSPECT_IDS: u32 = 3;

/// Failures in a row, of whatever blobs, after which the whole fetcher takes a breath.
const FAILURES_IN_A_ROW: u32 = 8;

/// The gates of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Failures in a row, of any blob, that may be anybody's fault.
    failures: u32,
    resume_at: Option<Instant>,
    /// The ledger gave out nothing when it was last asked.
    claims_failed: bool,
    /// How often the ledger failed since it last took a body.
    ledger_failures: u32,
    feeds: BTreeMap<ContentType, Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    /// Unknown content ids in a row.
    suspects: u32,
    /// When halted: the next probe.
    probe_at: Option<Instant>,
}

impl Gates {
    /// How long a blob of a halted content type has to wait; `None` lets it through. Each probe closes the gate for
    /// another `probe`.
    pub(crate) fn held_back(&self, content_type: ContentType, probe: Duration) -> Option<Duration> {
        let mut state = self.lock();
        let gate = state.feeds.get_mut(&content_type)?;
        let probe_at = gate.probe_at?;
        let now = Instant::now();
        if now < probe_at {
            return Some(probe_at - now);
        }
        gate.probe_at = Some(now + probe);
        None
    }

    /// Counts an unknown content id; says whether it is one too many.
    pub(crate) fn suspect(&self, content_type: ContentType) -> bool {
        let mut state = self.lock();
        let gate = state.feeds.entry(content_type).or_default();
        gate.suspects = gate.suspects.saturating_add(1);
        gate.suspects >= SUSPECT_IDS
    }

    /// Closes a content type's gate until the next probe.
    pub(crate) fn halt(&self, content_type: ContentType, probe: Duration) {
        self.lock().feeds.entry(content_type).or_default().probe_at = Some(Instant::now() + probe);
    }

    /// Opens a content type's gate: one of its blobs came, and the ledger took it.
    pub(crate) fn open(&self, content_type: ContentType) {
        let mut state = self.lock();
        state.feeds.remove(&content_type);
        state.ledger_failures = 0;
    }

    /// Counts a failure of the ledger. Returns how often it failed since it last took a body.
    pub(crate) fn ledger_failed(&self) -> u32 {
        let mut state = self.lock();
        state.ledger_failures = state.ledger_failures.saturating_add(1);
        state.ledger_failures
    }

    /// Counts a failure that may be anybody's fault. Returns how often in a row there were too many of them, if there
    /// are now.
    pub(crate) fn failed(&self) -> Option<u32> {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        (state.failures >= FAILURES_IN_A_ROW).then_some(state.failures / FAILURES_IN_A_ROW)
    }

    /// The API answers.
    pub(crate) fn reached(&self) {
        let mut state = self.lock();
        state.failures = 0;
        state.resume_at = None;
    }

    /// Claims nothing for a while.
    pub(crate) fn pause(&self, wait: Duration) {
        self.lock().resume_at = Some(Instant::now() + wait);
    }

    /// How much longer nothing is claimed.
    pub(crate) fn paused(&self) -> Option<Duration> {
        let until = self.lock().resume_at?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Keeps whether the ledger gave out leases. Returns whether it did and had not before.
    pub(crate) fn claims(&self, well: bool) -> bool {
        std::mem::replace(&mut self.lock().claims_failed, !well) && well
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Duration = Duration::from_secs(600);

    #[tokio::test(start_paused = true)]
    async fn a_halted_content_type_lets_one_probe_through_at_a_time_and_the_others_go_on() {
        let gates = Gates::default();
        let (halted, other) = (ContentType::General, ContentType::Exchange);
        assert_eq!(gates.held_back(halted, PROBE), None);
        assert_eq!(
            (gates.suspect(halted), gates.suspect(halted), gates.suspect(halted)),
            (false, false, true)
        );
        gates.halt(halted, PROBE);
        assert_eq!(gates.held_back(halted, PROBE), Some(PROBE));
        assert_eq!(gates.held_back(other, PROBE), None);
        tokio::time::advance(PROBE).await;
        assert_eq!(gates.held_back(halted, PROBE), None, "the probe");
        assert_eq!(gates.held_back(halted, PROBE), Some(PROBE), "and nobody else");
        gates.open(halted);
        assert_eq!(gates.held_back(halted, PROBE), None);
        assert!(!gates.suspect(halted), "counted anew");
    }

    #[tokio::test(start_paused = true)]
    async fn many_failures_in_a_row_are_too_many_until_the_api_answers() {
        let gates = Gates::default();
        let count = |times: u32| (0..times).filter_map(|_| gates.failed()).collect::<Vec<_>>();
        assert!(count(7).is_empty());
        assert_eq!(count(9), [1, 1, 1, 1, 1, 1, 1, 1, 2]);
        gates.pause(PROBE);
        assert_eq!(gates.paused(), Some(PROBE));
        gates.reached();
        assert_eq!((gates.paused(), gates.failed()), (None, None));
        gates.pause(PROBE);
        tokio::time::advance(PROBE).await;
        assert_eq!(gates.paused(), None);
    }

    #[test]
    fn a_ledger_that_gives_out_leases_again_is_noticed_once() {
        let gates = Gates::default();
        assert!(!gates.claims(true));
        assert!(!gates.claims(false));
        assert!(gates.claims(true));
        assert!(!gates.claims(true));
    }
}
