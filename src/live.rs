//! How a running process is doing, as only it knows: what fails or is halted, and why. `status` asks for it over the
//! control socket, `/readyz` and `/metrics` show it.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use ingest::{TenantHealth, health::Condition};
use serde::{Deserialize, Serialize};
use sinks::{archive::ArchiveReport, health::State};

use crate::{
    idle::failing,
    pipeline::{Pipeline, RunningSink, RunningTenant},
    reload::Reloads,
};

/// Where the answers come from.
#[derive(Clone)]
pub(crate) struct Live {
    pipeline: Arc<Pipeline>,
    reloads: Reloads,
    started: DateTime<Utc>,
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
    /// The configuration that was read last, when it is not the one in use.
    pub(crate) refused_config: Option<RefusedConfig>,
    /// Each feed; each tenant's fetcher and token, when something is wrong with them.
    pub(crate) sources: Vec<LiveState>,
    /// Each sink.
    pub(crate) sinks: Vec<LiveState>,
    /// Each archive sink, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) archives: BTreeMap<String, ArchiveReport>,
}

/// A configuration that was refused while the one before stays in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedConfig {
    /// When it was read.
    pub(crate) at: DateTime<Utc>,
    /// Everything that is wrong with it.
    pub(crate) problems: Vec<String>,
}

/// How one thing is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LiveState {
    /// The tenant's or the sink's label.
    pub(crate) name: String,
    /// The content type; empty for a tenant's fetcher and its token, and for sinks.
    pub(crate) part: String,
    /// One or two words.
    pub(crate) state: String,
    /// Whether somebody should look at it.
    pub(crate) bad: bool,
    /// Whether everything waits for it in the end: all but optional sinks.
    pub(crate) required: bool,
    /// Since when.
    pub(crate) since: Option<DateTime<Utc>>,
    /// What is wrong and what to do; empty when nothing is.
    pub(crate) error: String,
}

impl Live {
    /// Of a process that has just started.
    pub(crate) fn of(pipeline: Arc<Pipeline>, reloads: Reloads) -> Self {
        Self { pipeline, reloads, started: Utc::now() }
    }

    /// What runs.
    pub(crate) fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// What became of the configurations that were read.
    pub(crate) fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// When the process started.
    pub(crate) fn started(&self) -> DateTime<Utc> {
        self.started
    }

    /// How it is doing now.
    pub(crate) fn report(&self) -> LiveReport {
        let mut sources = Vec::new();
        for tenant in self.pipeline.tenants() {
            match tenant {
                RunningTenant::Collected { health, .. } => {
                    for feed in &health.feeds {
                        let part = feed.feed.content_type.to_string();
                        sources.push(source(&health.name, part, &feed.status()));
                    }
                    let fetcher = health.fetcher.status.get();
                    if failing(&fetcher.condition).is_some() {
                        sources.push(source(&health.name, String::new(), &fetcher));
                    }
                    sources.extend(lacking(&health));
                }
                RunningTenant::Unstarted { name, why } => sources.push(LiveState {
                    name,
                    part: String::new(),
                    state: "not started".to_owned(),
                    bad: true,
                    required: true,
                    since: None,
                    error: why,
                }),
            }
        }
        LiveReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            spool_full: *self.pipeline.ledger().spool_paused().borrow(),
            refused_config: self.reloads.state().refused,
            sources,
            sinks: self.pipeline.sinks().iter().map(sink).collect(),
            archives: self.pipeline.sinks().iter().filter_map(archive).collect(),
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
        required: true,
        since: Some(status.since),
        error: error.unwrap_or_default(),
    }
}

/// What a tenant's token does not allow. Nothing waits for it: what it takes away is missing without a failure.
fn lacking(health: &TenantHealth) -> Option<LiveState> {
    let (since, troubles) = health.lacks()?;
    let told: Vec<_> =
        troubles.into_iter().filter_map(|trouble| failing(&Condition::Failing(trouble))).collect();
    Some(LiveState {
        name: health.name.clone(),
        part: String::new(),
        state: "permission missing".to_owned(),
        bad: true,
        required: false,
        since: Some(since),
        error: told.join("; "),
    })
}

fn archive(sink: &RunningSink) -> Option<(String, ArchiveReport)> {
    Some((sink.name.to_string(), sink.sink.archive()?))
}

fn sink(sink: &RunningSink) -> LiveState {
    let report = sink.health.report();
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
        name: sink.name.to_string(),
        part: String::new(),
        state: state.to_owned(),
        bad: bad || !error.is_empty(),
        required: sink.required,
        since,
        error,
    }
}
