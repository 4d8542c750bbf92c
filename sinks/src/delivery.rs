//! The delivery loop: from pending work in the ledger to receipts in the ledger, one loop for each sink.
//!
//! | file | what it holds |
//! |---|---|
//! | `delivery.rs` | [`DeliveryLoop`]: opens the sink, serves it, waits while it is halted, stops |
//! | `delivery/serve.rs` | leases, reads, forms batches, accounts, settles and gives back, as long as the sink is open |
//! | `delivery/leased.rs` | one leased work: how far it is read, and its account |
//! | `delivery/attempt.rs` | one batch on its way: retries, halves, refused records |
//! | `delivery/shared.rs` | what both use: patience with the ledger, waits, caught panics |
//! | `delivery/told.rs` | what the log was told of failing deliveries |
//!
//! What it promises:
//!
//! * A work is settled only when every record of it is delivered by a receipt, filtered or dead (L3, L10).
//! * A failure never acknowledges and never drops: the work is tried again, at last by the ledger's clock. So do
//!   shutdown, timeout, panic and drop (L7).
//! * For a sink that is ordered nothing overtakes, also over a restart. Where several batches are under way, they are in
//!   line, and the first failure breaks the line: nothing more is given to the sink, all leases are given back as due at
//!   once, and what they hold is sent anew, one batch at a time until one of them has arrived. A batch that goes alone
//!   is tried again in memory; when it failed for longer than that lasts, all leases are given back as due at once, the
//!   loop waits, and opens the sink anew. For a sink that is not, what failed waits in the ledger, and the rest goes on.
//! * Tenants take turns, and no more is leased ahead than one and a half batches: behind one tenant's backlog another's
//!   new blob waits for two batches at most, and for the blob that is being read, if that is larger.
//! * What receipts cover is not sent again because other records of its work failed (`partial.rs`).
//! * Memory is bounded: what is read ahead and what is read again each have a share of the budget (L8). Two shares,
//!   because what was read ahead waits for batches under way, and these may have to be read again.

mod attempt;
mod leased;
mod serve;
mod shared;
#[cfg(test)]
mod tests;
mod told;

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    serve::{Exit, Serve},
    shared::{Backoff, Shared, panic_text},
};
use crate::{
    delivery_ledger::{DeliveryLedger, LedgerFailure},
    health::Health,
    memory::MemoryBudget,
    rate::Rate,
    sink::{DeliverError, Disposition, Sink, Unfinished},
};

/// How long what is under way may take to end after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(7);
/// How long a sink may take to let go of its destination, and more when what was under way ended early.
const CLOSE: Duration = Duration::from_secs(1);
/// How long all of that may take together.
const STOPPING: Duration = Duration::from_secs(9);
/// The first and the longest pause between probes of a halted sink.
const PROBES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
/// The longest pause of a sink that fails again and again.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The weights of what is read ahead and of what is read again in a sink's part of the memory budget.
const WEIGHTS: (usize, usize) = (3, 1);

/// Delivers one sink's work until it is stopped.
pub struct DeliveryLoop {
    shared: Shared,
}

impl DeliveryLoop {
    /// A loop for this sink. It takes its shares of the budget now, so make all loops before running the first.
    #[must_use]
    pub fn new(
        sink: Arc<dyn Sink>,
        ledger: Arc<dyn DeliveryLedger>,
        rate: Arc<Rate>,
        budget: &MemoryBudget,
    ) -> Self {
        let name = sink.name().clone();
        let limits = rate.cap(sink.limits());
        debug_assert!(
            !limits.exactly_once || (limits.in_flight == 1 && limits.ordered),
            "a sink's state describes one batch under way"
        );
        let shared = Shared {
            name,
            sink,
            ledger,
            rate,
            limits,
            health: Arc::new(Health::default()),
            ahead: budget.share(WEIGHTS.0),
            again: budget.share(WEIGHTS.1),
            stop: CancellationToken::new(),
            finish: CancellationToken::new(),
            resent: Mutex::default(),
            told: Mutex::default(),
        };
        Self { shared }
    }

    /// What can be seen of it from outside.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.shared.health)
    }

    /// To be cancelled when nothing more is coming for now, so that a sink that holds works does not wait for it.
    #[must_use]
    pub fn finish(&self) -> CancellationToken {
        self.shared.finish.clone()
    }

    /// Runs until `stop`, and then as long as what is under way takes to end, at most 9 s. Dropping it is safe at
    /// any time: what was not settled stays pending.
    ///
    /// # Errors
    ///
    /// When the ledger failed in a way that waiting cannot help: the process has to stop.
    pub async fn run(self, stop: CancellationToken) -> Result<(), LedgerFailure> {
        let shared = Arc::new(Shared { stop, ..self.shared });
        let mut stopping = None;
        let result = {
            let mut delivering = pin!(deliver_until_stopped(&shared));
            loop {
                tokio::select! {
                    biased;
                    result = &mut delivering => break result,
                    () = shared.stop.cancelled(), if stopping.is_none() => stopping = Some(Instant::now()),
                }
            }
        };
        let close = AssertUnwindSafe(async { shared.sink.close().await }).catch_unwind();
        let now = Instant::now();
        let until = (now + CLOSE).max(stopping.unwrap_or(now) + STOPPING);
        if !matches!(tokio::time::timeout_at(until, close).await, Ok(Ok(()))) {
            warn!(sink = %shared.name, "the sink did not close in time");
        }
        shared.health.stopped();
        result
    }
}

async fn deliver_until_stopped(shared: &Arc<Shared>) -> Result<(), LedgerFailure> {
    let mut reopening = Backoff::new(Duration::from_secs(1), LONGEST_WAIT);
    let mut suspects = HashSet::new();
    let mut is_open = false;
    loop {
        let unfinished = if is_open {
            Vec::new()
        } else {
            let Some(unfinished) = open(shared).await else { return Ok(()) };
            unfinished
        };
        let before = shared.health.report().counters.batches;
        let serve = tokio::select! {
            serve = Serve::begin(shared, &mut suspects, unfinished) => serve?,
            () = shared.stop.cancelled() => return Ok(()),
        };
        let exit = serve.run().await?;
        if shared.health.report().counters.batches > before {
            reopening.reset();
        }
        is_open = matches!(exit, Exit::Again);
        match exit {
            Exit::Stopped => return Ok(()),
            Exit::Again => {}
            Exit::Halted(error) => {
                if !wait_while_halted(shared, &error).await {
                    return Ok(());
                }
            }
            Exit::Reopen { at_once: true, .. } => {}
            Exit::Reopen { after, at_once: false } => {
                let wait = reopening.next().max(after.unwrap_or_default());
                shared.health.deferred_until(in_future(wait));
                if !shared.pause(wait).await {
                    return Ok(());
                }
            }
        }
    }
}

/// Opens the sink, however long that takes; `None` when it was stopped.
async fn open(shared: &Arc<Shared>) -> Option<Vec<Unfinished>> {
    let mut backoff = Backoff::new(Duration::from_secs(1), LONGEST_WAIT);
    loop {
        if shared.stop.is_cancelled() {
            return None;
        }
        let opened = tokio::select! {
            opened = AssertUnwindSafe(async { shared.sink.open().await }).catch_unwind() => opened,
            () = shared.stop.cancelled() => return None,
        };
        let error = match opened {
            Ok(Ok(unfinished)) => {
                shared.health.opened();
                return Some(unfinished);
            }
            Ok(Err(error)) => error,
            Err(panic) => shared.panicked(&panic_text(panic.as_ref())),
        };
        match error.disposition {
            Disposition::Halt => {
                if !wait_while_halted(shared, &error).await {
                    return None;
                }
            }
            Disposition::Retry { after, .. } => {
                let wait = backoff.next().max(after.unwrap_or_default());
                warn!(sink = %shared.name, "cannot be opened, trying again in {wait:.0?}: {error}");
                shared.health.retrying(&error.context, after.is_some());
                if !shared.pause(wait).await {
                    return None;
                }
            }
            // There is no batch that could be cut or refused.
            Disposition::Split | Disposition::Reject { .. } | Disposition::Isolate { .. } => {
                shared.health.retrying(&error.context, false);
                if !shared.pause(backoff.next()).await {
                    return None;
                }
            }
        }
    }
}

/// Probes slowly until the destination answers; whether it does, or the loop was stopped.
async fn wait_while_halted(shared: &Arc<Shared>, error: &DeliverError) -> bool {
    error!(sink = %shared.name, "halted, everything stays pending: {error}");
    shared.health.halted(&error.context);
    let mut backoff = Backoff::new(PROBES.0, PROBES.1);
    let start = Instant::now();
    loop {
        if !shared.pause(backoff.next()).await {
            return false;
        }
        let probe = tokio::select! {
            probe = AssertUnwindSafe(async { shared.sink.probe().await }).catch_unwind() => probe,
            () = shared.stop.cancelled() => return false,
        };
        match probe {
            Ok(Ok(())) => {
                info!(sink = %shared.name, "answers again after {:.0?}", start.elapsed());
                return true;
            }
            Ok(Err(error)) => shared.health.halted(&error.context),
            Err(panic) => shared.health.halted(&shared.panicked(&panic_text(panic.as_ref())).context),
        }
    }
}

/// When something is due again that was tried so often before.
fn not_before(attempts: u32, after: Option<Duration>) -> DateTime<Utc> {
    let wait = Duration::from_secs(15).saturating_mul(1 << attempts.min(10)).min(LONGEST_WAIT);
    in_future(wait.max(after.unwrap_or_default()))
}

fn in_future(wait: Duration) -> DateTime<Utc> {
    let wait = TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX);
    Utc::now().checked_add_signed(wait).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
