//! Works that a sink has taken and is not done with ([`Holding`](crate::holding::Holding)).

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    super::{
        LONGEST_WAIT,
        shared::{Backoff, Shared, insist, panic_text},
    },
    Claim, Exit, Serve,
};
use crate::{
    delivery_ledger::{LedgerFailure, Settlement, WorkId},
    holding::Advance,
    sink::{BoxFuture, DeliverError, Disposition},
};

/// So many works are leased at once to be held again.
const LEASE_AT_ONCE: usize = 1000;

/// What is held, and how the sink gets on with it.
pub(super) struct Held {
    works: HashMap<WorkId, (Settlement, Claim)>,
    /// Those of which the ledger was not told yet that the sink has them.
    untold: Vec<WorkId>,
    pub(super) advancing: Option<BoxFuture<'static, Result<Advance, DeliverError>>>,
    /// What is to be committed before the sink is asked again.
    advanced: Option<Advance>,
    /// When it is asked again after a failure.
    pub(super) again_at: Option<Instant>,
    backoff: Backoff,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            works: HashMap::new(),
            untold: Vec::new(),
            advancing: None,
            advanced: None,
            again_at: None,
            backoff: Backoff::new(std::time::Duration::from_millis(500), LONGEST_WAIT),
        }
    }
}

impl Held {
    /// Leases what the sink held before, to hold it again.
    pub(super) async fn again(shared: &Arc<Shared>) -> Result<Self, LedgerFailure> {
        let mut held = Self::default();
        let Some(holding) = shared.sink.holding() else { return Ok(held) };
        let settlements = holding.held();
        let mut gone = 0;
        for some in settlements.chunks(LEASE_AT_ONCE) {
            let works: Vec<WorkId> = some.iter().map(|settlement| settlement.work).collect();
            let leases = insist(shared, || shared.ledger.lease_these(&shared.name, &works)).await?;
            let mut claims: HashMap<WorkId, Claim> =
                leases.into_iter().map(|lease| (lease.work.id, lease.claim)).collect();
            for settlement in some {
                match claims.remove(&settlement.work) {
                    Some(claim) => {
                        held.hold(settlement.clone(), claim);
                    }
                    None => gone += 1,
                }
            }
        }
        if !settlements.is_empty() {
            info!(
                sink = %shared.name,
                "goes on with {} works that it has already; {gone} were settled meanwhile",
                held.works.len()
            );
        }
        Ok(held)
    }

    pub(super) fn hold(&mut self, settlement: Settlement, claim: Claim) {
        self.untold.push(settlement.work);
        self.works.insert(settlement.work, (settlement, claim));
    }

    pub(super) fn len(&self) -> usize {
        self.works.len()
    }
}

impl Serve<'_> {
    /// Lets the sink get on, and commits what came of it. Whether a commit was begun.
    pub(super) fn start_advancing(&mut self) -> bool {
        if self.committing.is_some() {
            return false;
        }
        if let Some(Advance { state, arrived, bytes, reached }) = self.held.advanced.take() {
            let mut settlements = self.take_settlements();
            let before = settlements.len();
            settlements.extend(arrived.iter().filter_map(|work| self.held.works.remove(work)));
            let records = settlements[before..].iter().map(|(settlement, _)| u64::from(settlement.delivered));
            if reached {
                self.shared.health.arrived(settlements.len() - before, records.sum(), bytes);
                self.shared.rate.eased();
            }
            // Those that are still held are perhaps on their way from now on.
            let mut tried = std::mem::take(&mut self.held.untold);
            tried.retain(|work| self.held.works.contains_key(work));
            self.start_committing(settlements, Some(state), tried);
            return true;
        }
        let is_due = self.held.again_at.is_none_or(|at| at <= Instant::now());
        if self.ending.is_none()
            && is_due
            && self.held.advancing.is_none()
            && self.shared.sink.holding().is_some()
        {
            self.held.again_at = None;
            let shared = Arc::clone(&self.shared);
            self.held.advancing = Some(Box::pin(async move {
                let Some(holding) = shared.sink.holding() else { return std::future::pending().await };
                let advance = AssertUnwindSafe(async { holding.advance().await }).catch_unwind().await;
                advance.unwrap_or_else(|panic| Err(shared.panicked(&panic_text(panic.as_ref()))))
            }));
        }
        false
    }

    pub(super) fn advanced(&mut self, result: Result<Advance, DeliverError>) {
        match result {
            Ok(advance) => {
                self.held.backoff.reset();
                self.held.advanced = Some(advance);
            }
            Err(error) if error.disposition == Disposition::Halt => self.end(Exit::Halted(error)),
            Err(error) => {
                let after = match error.disposition {
                    Disposition::Retry { after, .. } => after,
                    _ => None,
                };
                let wait = self.held.backoff.next().max(after.unwrap_or_default());
                warn!(sink = %self.shared.name, "does not get on, trying again in {wait:.0?}: {error}");
                self.shared.health.retrying(&error.context, after.is_some());
                self.held.again_at = Some(Instant::now() + wait);
            }
        }
    }

    /// Tells the sink that nothing more is coming when that was said and everything is taken.
    pub(super) fn flush_when_drained(&self) {
        let drained = self.drained && self.leased.is_empty() && self.under_way.is_empty();
        if self.finishing
            && drained
            && let Some(holding) = self.shared.sink.holding()
        {
            holding.flush();
        }
    }
}
