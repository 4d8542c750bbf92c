//! How a running process is doing, as only it knows: what fails or is halted, and why. `status` asks for it over the
//! control socket.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ingest::{TenantHealth, health::Condition};
use ledger::Ledger;
use serde::{Deserialize, Serialize};
use sinks::health::{Health, State};

use crate::{
    idle::failing,
    pipeline::{Pipeline, RunningTenant},
};

/// Where the answers come from.
#[derive(Clone)]
pub(crate) struct Live {
    ledger: Ledger,
    collected: Vec<Arc<TenantHealth>>,
    unstarted: Vec<(String, String)>,
    sinks: Vec<(String, Arc<Health>)>,
}

/// A running process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LiveReport {
    /// Its version.
    pub(crate) version: String,
    /// Its process id.
    pub(crate) pid: u32,
    /// Whether fetching pauses because the spool is full.
    pub(crate) spool_full: bool,
    /// Each feed and each tenant's fetcher.
    pub(crate) sources: Vec<LiveState>,
    /// Each sink.
    pub(crate) sinks: Vec<LiveState>,
}

/// How one thing is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LiveState {
    /// The tenant's or the sink's label.
    pub(crate) name: String,
    /// The content type; empty for a tenant's fetcher and for sinks.
    pub(crate) part: String,
    /// One or two words.
    pub(crate) state: String,
    /// Whether somebody should look at it.
    pub(crate) bad: bool,
    /// Since when.
    pub(crate) since: Option<DateTime<Utc>>,
    /// What is wrong and what to do; empty when nothing is.
    pub(crate) error: String,
}

impl Live {
    pub(crate) fn of(pipeline: &Pipeline) -> Self {
        let unstarted = pipeline.tenants().iter().filter_map(|tenant| match tenant {
            RunningTenant::Unstarted { name, why } => Some((name.clone(), why.clone())),
            RunningTenant::Collected { .. } => None,
        });
        let sinks = pipeline.sinks().iter().map(|sink| (sink.name.to_string(), Arc::clone(&sink.health)));
        Self {
            ledger: pipeline.ledger().clone(),
            collected: pipeline.collected().cloned().collect(),
            unstarted: unstarted.collect(),
            sinks: sinks.collect(),
        }
    }

    /// How it is doing now.
    pub(crate) fn report(&self) -> LiveReport {
        let mut sources = Vec::new();
        for tenant in &self.collected {
            for feed in &tenant.feeds {
                let part = feed.feed.content_type.to_string();
                sources.push(source(&tenant.name, part, &feed.status()));
            }
            let fetcher = tenant.fetcher.status.get();
            if failing(&fetcher.condition).is_some() {
                sources.push(source(&tenant.name, String::new(), &fetcher));
            }
        }
        sources.extend(self.unstarted.iter().map(|(name, why)| LiveState {
            name: name.clone(),
            part: String::new(),
            state: "not started".to_owned(),
            bad: true,
            since: None,
            error: why.clone(),
        }));
        LiveReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            spool_full: *self.ledger.spool_paused().borrow(),
            sources,
            sinks: self.sinks.iter().map(|(name, health)| sink(name, health)).collect(),
        }
    }
}

fn source(name: &str, part: String, status: &ingest::health::Status) -> LiveState {
    let state = match &status.condition {
        Condition::Starting => "starting",
        Condition::Ok => "ok",
        Condition::WaitingForFirstContent => "waiting for first content",
        Condition::Failing(_) => "failing",
        Condition::Halted(_) => "halted",
    };
    let error = failing(&status.condition);
    LiveState {
        name: name.to_owned(),
        part,
        state: state.to_owned(),
        bad: error.is_some(),
        since: Some(status.since),
        error: error.unwrap_or_default(),
    }
}

fn sink(name: &str, health: &Health) -> LiveState {
    let report = health.report();
    let (state, bad, since, error) = match report.state {
        State::Starting => ("starting", false, None, String::new()),
        State::Ok => ("ok", false, report.last_delivery, String::new()),
        State::Retrying { since, error } => ("retrying", true, Some(since), error),
        State::Deferred { since, error, .. } => ("waiting to retry", true, Some(since), error),
        State::Halted { since, error } => ("halted", true, Some(since), error),
        State::Stopped => ("stopped", false, None, String::new()),
    };
    let error = report.ledger_error.unwrap_or(error);
    LiveState {
        name: name.to_owned(),
        part: String::new(),
        state: state.to_owned(),
        bad: bad || !error.is_empty(),
        since,
        error,
    }
}
