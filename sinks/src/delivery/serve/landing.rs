//! What became of batches and works: accounts, failures, panics, and the end of each work.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use tracing::{error, info, warn};

use super::{
    super::{
        attempt::{End, Outcome},
        leased::{GiveUp, Leased},
        not_before,
    },
    Exit, Serve,
    commit::GivenBack,
};
use crate::{
    delivery_ledger::{Deferral, LedgerFailure, WorkId},
    holding::Holding,
};

/// A time that has come by any clock: one that is set back must not let others overtake what was put off until "now".
const AT_ONCE: DateTime<Utc> = DateTime::UNIX_EPOCH;

impl Serve<'_> {
    pub(super) fn landed(&mut self, outcome: Outcome) -> Result<(), LedgerFailure> {
        let mut touched = BTreeSet::new();
        for slice in &outcome.delivered {
            touched.insert(slice.work.id);
            if let Some(leased) = self.leased.get_mut(&slice.work.id) {
                leased.account.delivered(slice);
            }
        }
        for (id, record) in outcome.dead {
            touched.insert(id);
            if let Some(leased) = self.leased.get_mut(&id) {
                leased.account.refused(record);
            }
        }
        let ambiguous = outcome.ambiguous && !self.shared.limits.exactly_once;
        let mut left = BTreeSet::new();
        for slice in &outcome.left {
            left.insert(slice.work.id);
            if let Some(leased) = self.leased.get_mut(&slice.work.id) {
                leased.account.unsent(slice.len());
                leased.account.ambiguous |= ambiguous;
            }
        }
        for id in touched.iter().chain(&left) {
            if let Some(leased) = self.leased.get_mut(id) {
                leased.begin_committed |= leased.begin_asked;
            }
        }
        let strict = self.shared.limits.ordered;
        self.undecided |= !matches!(outcome.end, End::Done);
        match outcome.end {
            End::Done => self.failing = false,
            End::GaveUp { .. } if self.shared.stop.is_cancelled() => {
                for &id in &left {
                    self.give_up(id, None, "stopped".to_owned());
                }
            }
            End::GaveUp { error, after: None } if outcome.in_line => {
                for &id in &left {
                    self.give_up(id, Some(AT_ONCE), error.clone());
                }
                // Those behind it fail because it did.
                if self.ending.is_none() {
                    info!(sink = %self.shared.name, "goes on with one batch at a time: {error}");
                    self.shared.health.retrying(&error, false);
                }
                self.end(Exit::Again);
            }
            End::GaveUp { error, after } => {
                self.failing = true;
                let mut until = Utc::now();
                for &id in &left {
                    let attempts = self.leased.get(&id).map_or(0, |leased| leased.lease.attempts);
                    let due = self.not_before(attempts, after);
                    until = until.max(due);
                    self.give_up(id, Some(due), error.clone());
                }
                warn!(sink = %self.shared.name, "blobs put off: {}, because: {error}", left.len());
                self.shared.health.deferred(left.len(), until, &error, after.is_some());
                if strict {
                    self.end(Exit::Reopen { after, at_once: false });
                }
            }
            End::Halted(error) => {
                for &id in &left {
                    self.give_up(id, None, error.context.clone());
                }
                self.end(Exit::Halted(error));
            }
            End::Panicked { works, message } => {
                for &id in left.iter().filter(|id| !works.contains(id)) {
                    self.give_up(id, None, "another work of its batch panicked".to_owned());
                }
                self.panicked(works, message);
            }
            End::Ledger(failure) => return Err(failure),
        }
        for id in touched.into_iter().chain(left) {
            self.look_at(id);
        }
        Ok(())
    }

    /// Handling these works panicked. One work is counted by the ledger; several are tried one by one.
    pub(super) fn panicked(&mut self, works: Vec<WorkId>, message: String) {
        self.shared.panicked(&message);
        let strict = self.shared.limits.ordered;
        let single = works.len() == 1;
        for id in works {
            if single {
                if let Some(leased) = self.leased.get_mut(&id) {
                    leased.giving_up = Some(GiveUp::Panicked { message: message.clone() });
                }
                self.withdraw(id);
            } else {
                self.suspects.insert(id);
                self.give_up(id, None, "its batch panicked".to_owned());
            }
            self.look_at(id);
        }
        if strict {
            self.end(Exit::Reopen { after: None, at_once: !single });
        }
    }

    /// When a work is due again. With strict order nothing may overtake it: then it is the loop that waits.
    pub(super) fn not_before(&self, attempts: u32, after: Option<Duration>) -> DateTime<Utc> {
        if self.shared.limits.ordered { AT_ONCE } else { not_before(attempts, after) }
    }

    pub(super) fn give_up(&mut self, id: WorkId, not_before: Option<DateTime<Utc>>, error: String) {
        if let Some(leased) = self.leased.get_mut(&id) {
            leased.giving_up.get_or_insert(GiveUp::Until { not_before, error });
        }
        self.withdraw(id);
    }

    /// Takes a work that is given up out of what is to be read and sent.
    pub(super) fn withdraw(&mut self, id: WorkId) {
        self.unread.retain(|other| *other != id);
        if self.reading.as_ref().is_some_and(|reading| reading.work == id) {
            // What it reads must not be taken for the next turn's.
            self.reading = None;
        }
        let purged = self.ready.purge(id);
        if let Some(leased) = self.leased.get_mut(&id) {
            leased.account.unsent(purged);
        }
        if self.ready.is_empty() {
            self.ready_since = None;
        }
    }

    /// Ends a work when nothing of it is under way and nothing is left to do, or when it is given up.
    pub(super) fn look_at(&mut self, id: WorkId) {
        let Some(leased) = self.leased.get(&id) else { return };
        let over = leased.account.is_complete() || (leased.giving_up.is_some() && leased.account.is_quiet());
        if !over {
            return;
        }
        let Some(mut leased) = self.leased.remove(&id) else { return };
        self.resumed.remove(&id);
        leased.account.resent(self.shared.take_resent(id));
        if leased.account.is_complete() && leased.giving_up.is_none() {
            self.settle(leased);
            return;
        }
        if !self.shared.limits.exactly_once {
            self.partials.keep(id, leased.partial());
        }
        let given_back = match leased.giving_up.take() {
            Some(GiveUp::Panicked { message }) => {
                let due = self.not_before(leased.lease.attempts, None);
                GivenBack::Panicked { otherwise: leased.deferral(Some(due), message.clone()), message }
            }
            Some(GiveUp::Until { not_before, error }) => {
                GivenBack::Deferred(leased.deferral(not_before, error))
            }
            None => return,
        };
        self.to_give_back.push((given_back, leased.lease));
    }

    pub(super) fn settle(&mut self, leased: Leased) {
        let Leased { lease, account, .. } = leased;
        let (id, counted) = (lease.work.id, account.resent_so_far());
        let otherwise = Deferral {
            work: id,
            not_before: Some(self.not_before(lease.attempts, None)),
            error: String::new(),
            begun: lease.begun + u32::from(!self.shared.limits.exactly_once),
        };
        // Also of a sink that recognises what it has of this work: of another that it retries it does not.
        match account.settle(&lease.work, lease.begun) {
            Ok(settlement) => {
                let holds = |holding: &dyn Holding| settlement.delivered > 0 && holding.hold(&settlement);
                let held = self.shared.sink.holding().is_some_and(holds);
                let resent = u64::from(settlement.resent.saturating_sub(counted));
                self.shared.health.count(|counters| counters.resent += resent);
                self.suspects.remove(&id);
                self.partials.forget(id);
                if held {
                    self.count_outcome(&settlement);
                    self.held.hold(settlement, lease.claim);
                } else {
                    self.to_settle.push((settlement, lease.claim));
                }
            }
            Err(imbalance) => {
                let message = imbalance.to_string();
                error!(sink = %self.shared.name, "{id:?} is not settled: {message}");
                let otherwise = Deferral { error: message.clone(), ..otherwise };
                self.to_give_back.push((GivenBack::Panicked { message, otherwise }, lease));
                if self.shared.sink.holding().is_some() {
                    // It has records of a work that comes again; opened anew, it lets go of them.
                    self.end(Exit::Reopen { after: None, at_once: false });
                }
            }
        }
    }

    /// Gives back what is known not to have left, so that nobody takes it for sent.
    pub(super) fn release(&mut self) {
        for (id, mut leased) in self.leased.drain() {
            leased.account.resent(self.shared.take_resent(id));
            if leased.begin_asked {
                self.partials.keep(id, leased.partial());
                if leased.begin_committed {
                    let deferral = leased.deferral(None, "stopped before it was complete".to_owned());
                    self.to_give_back.push((GivenBack::Deferred(deferral), leased.lease));
                }
            }
        }
    }
}
