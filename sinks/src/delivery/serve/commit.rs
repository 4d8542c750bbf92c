//! What goes into the ledger: settlements with the state before the next batch, and leases that are given back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tracing::error;

use super::{
    super::shared::{insist, panic_text},
    Claim, Exit, Serve,
};
use crate::{
    batching::Outgoing,
    delivery_ledger::{Deferral, Settlement, WorkId},
};

/// A lease on its way back into the ledger.
pub(super) enum GivenBack {
    Deferred(Deferral),
    /// The ledger counts the panic, and defers the work unless it was the last one.
    Panicked {
        message: String,
        otherwise: Deferral,
    },
}

impl Serve<'_> {
    /// For a sink with a state of its own: settles what the last batch completed in the same commit as the state
    /// that has to be durable before the next one leaves.
    ///
    /// After a batch that did not end well there is no next state. The one that is durable says what of that batch may be
    /// there; one behind it would say that it is known, and what arrived all the same would be sent again. So nothing is
    /// settled any more, as after a kill: what is complete is leased again after opening, and recognised.
    pub(super) fn start_next_with_state(&mut self) {
        if self.committing.is_some() || !self.under_way.is_empty() {
            return;
        }
        if self.undecided {
            self.to_settle.clear();
            self.start_committing(Vec::new(), None, Vec::new());
            return;
        }
        if let Some(outgoing) = self.prepared.take() {
            self.dispatch(outgoing);
            return;
        }
        let may_send = self.ending.is_none() && self.has_free_place();
        let may_settle = self.resumed.is_empty();
        let combines = may_settle && !self.to_settle.is_empty();
        let next = if may_send && (combines || self.batch_is_due()) { self.take_batch() } else { None };
        let settlements = if may_settle { self.take_settlements() } else { Vec::new() };
        let tried = next.as_ref().map(|outgoing| self.tried_first(outgoing)).unwrap_or_default();
        let mut finished = std::mem::take(&mut self.vanished);
        finished.extend(settlements.iter().map(|(settlement, _)| settlement.work));
        if next.is_none() && finished.is_empty() {
            self.start_committing(settlements, None, Vec::new());
            return;
        }
        let batch = next.as_ref().map(|outgoing| &outgoing.batch);
        let state = catch_unwind(AssertUnwindSafe(|| self.shared.sink.state(&finished, batch)));
        let Ok(state) = state.inspect_err(|panic| {
            self.shared.panicked(&panic_text(panic.as_ref()));
        }) else {
            // Nothing is settled: what was just delivered is leased again after opening, and recognised.
            self.end(Exit::Reopen { after: None, at_once: false });
            return;
        };
        // Without a state of its own for the batch, it goes nowhere yet.
        let tried = if state.is_some() { tried } else { Vec::new() };
        self.start_committing(settlements, state, tried);
        match next {
            Some(outgoing) if self.committing.is_some() => self.prepared = Some(outgoing),
            Some(outgoing) => self.dispatch(outgoing),
            None => {}
        }
    }

    /// The works of a batch of which nothing was on its way before.
    fn tried_first(&mut self, outgoing: &Outgoing) -> Vec<WorkId> {
        let mut works: Vec<WorkId> = Vec::new();
        for slice in &outgoing.slices {
            let id = slice.work.id;
            if let Some(leased) = self.leased.get_mut(&id)
                && !std::mem::replace(&mut leased.tried, true)
            {
                works.push(id);
            }
        }
        works
    }

    /// What is complete, on its way into the ledger.
    pub(super) fn take_settlements(&mut self) -> Vec<(Settlement, Claim)> {
        let settlements = std::mem::take(&mut self.to_settle);
        self.shared.health.count(|counters| counters.settled += settlements.len() as u64);
        settlements.iter().for_each(|(settlement, _)| self.count_outcome(settlement));
        settlements
    }

    /// Counts what became of a work's records, but for those that arrived, which are counted when they do.
    pub(super) fn count_outcome(&self, settlement: &Settlement) {
        self.shared.health.count(|counters| {
            counters.filtered += u64::from(settlement.filtered);
            counters.dead += settlement.dead.len() as u64;
        });
    }

    /// Commits what is to be committed, one commit at a time. The sink recognises what it has of `tried`, so nothing of
    /// these counts as begun; but when they are given up before it can, whoever retries them has to know.
    pub(super) fn start_committing(
        &mut self,
        settlements: Vec<(Settlement, Claim)>,
        state: Option<Vec<u8>>,
        tried: Vec<WorkId>,
    ) {
        let state = state.or_else(|| self.partials.changed_state());
        let given_back = std::mem::take(&mut self.to_give_back);
        if settlements.is_empty() && given_back.is_empty() && state.is_none() {
            return;
        }
        let (settlements, settled): (Vec<_>, Vec<_>) = settlements.into_iter().unzip();
        let shared = Arc::clone(&self.shared);
        self.committing = Some(Box::pin(async move {
            let (ledger, name) = (&shared.ledger, &shared.name);
            if !settlements.is_empty() || state.is_some() {
                let tried: Vec<_> = tried.into_iter().map(|work| (work, 0)).collect();
                let mark = async {
                    match tried.is_empty() {
                        true => Ok(()),
                        false => insist(&shared, || ledger.begin(name, tried.clone())).await,
                    }
                };
                let settle = insist(&shared, || ledger.settle(name, settlements.clone(), state.clone()));
                // Asked for together, they cost one commit.
                let (marked, settled) = tokio::join!(mark, settle);
                marked.and(settled)?;
            }
            drop(settled);
            let mut deferrals = Vec::new();
            let mut leases = Vec::new();
            for (given_back, lease) in given_back {
                leases.push(lease);
                match given_back {
                    GivenBack::Deferred(deferral) => deferrals.push(deferral),
                    GivenBack::Panicked { message, otherwise } => {
                        let count = || ledger.panicked(otherwise.work, message.clone());
                        if insist(&shared, count).await? {
                            error!(sink = %name, "{:?} is quarantined: {message}", otherwise.work);
                        } else {
                            deferrals.push(otherwise);
                        }
                    }
                }
            }
            if !deferrals.is_empty() {
                insist(&shared, || ledger.defer(name, deferrals.clone())).await?;
            }
            drop(leases);
            Ok(())
        }));
    }
}
