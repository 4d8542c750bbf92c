//! When `run --until-idle` is done, and when it has to give up.
//!
//! It is done when every feed was listed once and everything that is listed is settled for every sink. A sink that
//! waits for more (an archive's open object) is told when nothing more is coming. It gives up
//! when, for [`PATIENCE`], nothing is left but retries that fail and sinks that are halted. A wait that a service
//! asked for (`Retry-After`, a quota) is no failure and is waited out, and so is a body that is still coming.

use std::{collections::BTreeMap, time::Duration};

use ingest::{Passes, TenantHealth, health::Condition};
use ledger::{IdleState, LedgerError};
use schemas::TenantId;
use sinks::health::State;
use tokio::{sync::watch, time::Instant};

use crate::pipeline::{Pipeline, RunningSink, RunningTenant};

/// How long failures may be all that is left.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(200);

/// How a run until idle ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything that is listed is settled for every sink.
    Idle,
    /// Only this is left, and it keeps failing.
    Stuck(Vec<String>),
}

/// What is left of one tenant or sink.
enum Left {
    /// Nothing.
    Nothing,
    /// Something that goes on.
    Going,
    /// Something that only fails: what to tell about it.
    Failing(String),
}

/// Waits until nothing is left to do, or only what keeps failing.
pub(crate) async fn until_idle(pipeline: &Pipeline) -> Result<Ending, LedgerError> {
    let mut failing_since: Option<Instant> = None;
    let mut arriving = Arriving::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let (tenants, sinks) = (pipeline.tenants(), pipeline.sinks());
        let listings: Vec<_> = tenants.iter().map(listing).collect();
        let (passes, state) = look(&listings, pipeline.ledger().idle_state()).await?;
        let sinks_fail = sinks.iter().any(|sink| sink.health.report().only_failing_since.is_some());
        let blocked = *pipeline.ledger().spool_paused().borrow() && sinks_fail;
        let mut left_of = |tenant: &RunningTenant, passes: &Option<Passes>| match tenant {
            RunningTenant::Unstarted { name, why } => Left::Failing(format!("tenant {name}: {why}")),
            RunningTenant::Collected { health, .. } => {
                let arrives = arriving.look(health);
                tenant_left(health, passes.as_ref(), &state, blocked, arrives)
            }
        };
        let collecting: Vec<_> =
            tenants.iter().zip(&passes).map(|(tenant, passes)| left_of(tenant, passes)).collect();
        if !collecting.iter().any(|left| matches!(left, Left::Going)) {
            sinks.iter().for_each(|sink| sink.finish.cancel());
        }
        let left: Vec<_> =
            collecting.into_iter().chain(sinks.iter().map(|sink| sink_left(sink, &state))).collect();
        if left.iter().all(|left| matches!(left, Left::Nothing)) {
            return Ok(Ending::Idle);
        }
        let failing: Vec<_> = left
            .iter()
            .filter_map(|left| if let Left::Failing(what) = left { Some(what.clone()) } else { None })
            .collect();
        if left.iter().any(|left| matches!(left, Left::Going)) {
            failing_since = None;
        } else if failing_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            return Ok(Ending::Stuck(failing));
        }
    }
}

/// Where a tenant says what it has listed; `None` when it is not collected.
fn listing(tenant: &RunningTenant) -> Option<watch::Receiver<Passes>> {
    match tenant {
        RunningTenant::Collected { passes, .. } => Some(passes.clone()),
        RunningTenant::Unstarted { .. } => None,
    }
}

/// Sees what each tenant has listed, and only then asks the ledger what is left: what a pass found is in the ledger before
/// the pass counts. The other way round, a page that comes in between would count as listed, and its blobs not as left.
async fn look(
    listings: &[Option<watch::Receiver<Passes>>],
    ask: impl Future<Output = Result<IdleState, LedgerError>>,
) -> Result<(Vec<Option<Passes>>, IdleState), LedgerError> {
    let passes =
        listings.iter().map(|listing| listing.as_ref().map(|passes| passes.borrow().clone())).collect();
    Ok((passes, ask.await?))
}

fn sink_left(sink: &RunningSink, state: &IdleState) -> Left {
    let report = sink.health.report();
    let of = state.deliveries.iter().find(|left| left.sink == sink.name);
    let pending = of.is_some();
    let failing = |error: String| Left::Failing(format!("sink {}: {error}", sink.name));
    if (pending || report.ledger_error.is_some()) && report.only_failing_since.is_some() {
        return failing(match report.state {
            State::Halted { error, .. } | State::Retrying { error, .. } | State::Deferred { error, .. } => {
                error
            }
            _ => report.last_error.unwrap_or_default(),
        });
    }
    // It has everything and is to end what it began with it.
    let ends = sink.sink.holding().is_some_and(|holding| !holding.is_finished());
    if ends && report.only_failing_since.is_some() {
        return failing(report.last_error.unwrap_or_default());
    }
    if let Some(error) = report.ledger_error {
        return failing(error);
    }
    match of {
        // Whether these come is up to their tenants: when no tenant gets on, nothing does.
        Some(left) if left.due + left.waiting == 0 && !ends => {
            failing(format!("{} blobs were damaged in the spool and are being fetched again", left.held))
        }
        None if !ends => Left::Nothing,
        _ => Left::Going,
    }
}

/// How many bytes of bodies had come of each tenant when it was last looked.
#[derive(Default)]
struct Arriving(BTreeMap<TenantId, u64>);

impl Arriving {
    /// Whether any came since. A tenant that a reload began anew counts anew, too.
    fn look(&mut self, health: &TenantHealth) -> bool {
        let came = health.fetcher.wire_bytes.get();
        self.0.insert(health.tenant, came).is_some_and(|before| before != came)
    }
}

/// What is left of a tenant that is collected. `arrives`: bytes of its bodies came since it was last looked.
fn tenant_left(
    health: &TenantHealth,
    passes: Option<&Passes>,
    state: &IdleState,
    blocked: bool,
    arrives: bool,
) -> Left {
    let fetches = state.fetches.iter().find(|left| left.tenant == health.tenant);
    let listed = passes.is_some_and(Passes::each_passed);
    if listed && fetches.is_none() {
        return Left::Nothing;
    }
    if health.paused_for().is_some() || (arrives && fetches.is_some()) {
        return Left::Going;
    }
    let troubles = troubles(health);
    let listing_fails = !listed && unlisted_all_fail(health, passes);
    // A feed that fails says nothing of the blobs of another.
    let each_fails = || health.feeds.iter().all(|feed| failing(&feed.status().condition).is_some());
    let fetching_fails = fetches.is_some_and(|left| {
        left.due == 0 || blocked || failing(&health.fetcher.status.get().condition).is_some() || each_fails()
    });
    let going = (!listed && !listing_fails) || (fetches.is_some() && !fetching_fails);
    if going {
        return Left::Going;
    }
    let mut told = troubles;
    if let Some(left) = fetches.filter(|_| told.is_empty()) {
        told.push(format!("{} blobs cannot be fetched yet", left.due + left.waiting));
    }
    Left::Failing(format!("tenant {}: {}", health.name, told.join("; ")))
}

/// Whether each feed that was not listed yet fails.
fn unlisted_all_fail(health: &TenantHealth, passes: Option<&Passes>) -> bool {
    health
        .feeds
        .iter()
        .filter(|feed| passes.is_none_or(|passes| passes.of(feed.feed.content_type) == 0))
        .all(|feed| failing(&feed.listing.get().condition).is_some())
}

fn troubles(health: &TenantHealth) -> Vec<String> {
    let told = |(what, status): (String, ingest::health::Status)| {
        failing(&status.condition).map(|error| format!("{what}: {error}"))
    };
    health.troubles().into_iter().filter_map(told).collect()
}

/// What a condition says is wrong, with what to do about it.
pub(crate) fn failing(condition: &Condition) -> Option<String> {
    match condition {
        Condition::Failing(trouble) | Condition::Halted(trouble) if trouble.advice.is_empty() => {
            Some(trouble.error.clone())
        }
        Condition::Failing(trouble) | Condition::Halted(trouble) => {
            Some(format!("{}; {}", trouble.error, trouble.advice))
        }
        Condition::Starting | Condition::Ok | Condition::WaitingForFirstContent => None,
    }
}

#[cfg(test)]
mod tests {
    use schemas::ContentType;

    use super::*;

    #[tokio::test]
    async fn a_pass_that_ends_while_the_ledger_is_asked_does_not_count_yet() {
        let (passed, passes) = watch::channel(Passes::none_of(&[ContentType::Exchange]));
        let ask = |state: IdleState| {
            let passed = &passed;
            // The ledger says what it held before the lister's only page came.
            async move {
                passed.send_modify(|passes| passes.count(ContentType::Exchange));
                Ok(state)
            }
        };
        let listings = [Some(passes), None];
        let (seen, state) = look(&listings, ask(IdleState::default())).await.unwrap();
        assert!(state.is_idle());
        let listed: Vec<_> = seen.iter().map(|passes| passes.as_ref().map(Passes::each_passed)).collect();
        assert_eq!(listed, [Some(false), None], "what the ledger said is older than the pass");
        let (seen, _) = look(&listings, ask(IdleState::default())).await.unwrap();
        assert!(seen[0].as_ref().is_some_and(Passes::each_passed));
    }
}
