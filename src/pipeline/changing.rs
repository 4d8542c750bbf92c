//! A configuration that changes while everything runs.
//!
//! What is as before runs on untouched. What changed or is gone is stopped, as it is at the end of a run, and then
//! what changed or is new is started. A configuration that cannot be applied is refused before anything is touched,
//! with everything that is wrong with it.

use std::{fmt, sync::Arc, time::Duration};

use ledger::{LedgerError, LeftOverSink};
use schemas::SinkName;
use sinks::delivery_ledger::SinkStates;
use tokio::time::Instant;

use super::{
    Network, Pipeline, STOP, make_sink,
    running::{MadeSink, MadeTenant, RunningTenant},
    sink_spec, topics,
    understanding::Understanding,
};
use crate::config::{Config, StateConfig};

/// How long a disk that is full is waited for before it is said again.
const LEDGER_AGAIN: Duration = Duration::from_secs(1);

/// A configuration was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// It is not usable while mailtrail runs; nothing was changed.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// The ledger failed for good: the process has to stop.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What a new configuration changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    sinks: Changed,
    tenants: Changed,
    network: bool,
    /// Sinks that are gone, with what is still pending for them.
    left_over: Vec<(SinkName, u64)>,
}

/// Names, in the order of the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changed {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
}

impl Changes {
    /// Sinks that are gone and not done with.
    pub(crate) fn left_over(&self) -> impl Iterator<Item = LeftOverSink> + '_ {
        let pending = self.left_over.iter().filter(|(_, pending)| *pending > 0);
        pending.map(|(name, pending)| LeftOverSink { name: name.clone(), pending: *pending })
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (kind, changed) in [("sink", &self.sinks), ("tenant", &self.tenants)] {
            for (what, names) in
                [("added", &changed.added), ("changed", &changed.changed), ("removed", &changed.removed)]
            {
                parts.extend(names.iter().map(|name| format!("{kind} {name} {what}")));
            }
        }
        if self.network {
            parts.push("network changed".to_owned());
        }
        if parts.is_empty() { f.write_str("nothing changed") } else { f.write_str(&parts.join(", ")) }
    }
}

/// What is to be done to get from what runs to a new configuration.
#[derive(Default)]
struct Plan {
    changes: Changes,
    /// Sinks to be stopped, and of these the ones that are gone.
    stopped_sinks: Vec<SinkName>,
    removed_sinks: Vec<SinkName>,
    sinks: Vec<MadeSink>,
    stopped_tenants: Vec<String>,
    tenants: Vec<MadeTenant>,
}

impl Pipeline {
    /// Applies a new configuration. Dropping it in between is fine when everything is stopped next.
    ///
    /// # Errors
    ///
    /// When the configuration is refused, or the ledger fails for good.
    pub(crate) async fn apply(&self, config: &Config) -> Result<Changes, ApplyError> {
        let network = Network::new(&config.network).await;
        let network = network.map_err(|error| ApplyError::Refused(vec![error.to_string()]))?;
        let mut plan = self.plan(config, &network).map_err(ApplyError::Refused)?;

        self.stop_some(&plan).await;

        // One commit each, and each may be done again: a kill in between is made good by the next start.
        for made in &plan.sinks {
            self.insist(|| self.ledger.add_sink(sink_spec(&made.config))).await?;
        }
        for name in &plan.removed_sinks {
            let pending = self.insist(|| self.ledger.remove_sink(name)).await?;
            plan.changes.left_over.push((name.clone(), pending));
        }
        for tenant in &config.tenants {
            self.ledger.set_dedupe(tenant.tenant_id, tenant.dedupe);
        }

        let mut running = self.lock();
        let gone: Vec<_> = running
            .tenants
            .iter()
            .map(|entry| &entry.config)
            .chain(&running.gone)
            .filter(|old| config.tenants.iter().all(|tenant| tenant.tenant_id != old.tenant_id))
            .cloned()
            .collect();
        running.gone = gone;
        running.gone.dedup_by_key(|tenant| tenant.tenant_id);
        let known: Vec<_> = config.tenants.iter().chain(&running.gone).cloned().collect();
        self.deliveries.show(&known, &config.sinks);

        running.sinks.retain(|entry| !plan.stopped_sinks.contains(&entry.config.name));
        running.sinks.extend(self.run_sinks(plan.sinks));
        let place = |name: &SinkName| config.sinks.iter().position(|sink| sink.name == *name);
        running.sinks.sort_by_key(|entry| place(&entry.config.name));

        running.tenants.retain(|entry| !plan.stopped_tenants.contains(&entry.config.name));
        for made in plan.tenants {
            running.tenants.push(self.run_tenant(made, &network.http));
        }
        let place = |name: &str| config.tenants.iter().position(|tenant| tenant.name == name);
        running.tenants.sort_by_key(|entry| place(&entry.config.name));
        running.network = network;
        Ok(plan.changes)
    }

    /// Compares a configuration with what runs, and makes what is to be started. Nothing is touched yet.
    fn plan(&self, config: &Config, network: &Network) -> Result<Plan, Vec<String>> {
        let running = self.lock();
        let mut problems = fixed(&running.state, &config.state);
        let mut plan = Plan::default();
        plan.changes.network = !running.network.is_like(network);

        let tenants: Vec<_> = running.tenants.iter().map(|entry| entry.config.clone()).collect();
        for sink in &config.sinks {
            let old = running.sinks.iter().find(|entry| entry.config.name == sink.name);
            match old {
                Some(entry) => {
                    // A sink knows its topics when it is made, and tenants have theirs.
                    let changed =
                        entry.config != *sink || topics(sink, &tenants) != topics(sink, &config.tenants);
                    let reconnects = plan.changes.network && sink.uses_network();
                    if !changed && !reconnects {
                        continue;
                    }
                    if changed {
                        plan.changes.sinks.changed.push(sink.name.to_string());
                    }
                    plan.stopped_sinks.push(sink.name.clone());
                }
                None => plan.changes.sinks.added.push(sink.name.to_string()),
            }
            let rate = Arc::new(sink.rate());
            let states: Arc<dyn SinkStates> = self.deliveries.clone();
            let understand = Arc::new(Understanding::new(self.deliveries.clone(), sink.name.clone()));
            match make_sink(config, sink, &network.http, states, understand, Arc::clone(&rate)) {
                Ok(made) => plan.sinks.push(MadeSink { config: sink.clone(), sink: made, rate }),
                Err(error) => problems.push(error.to_string()),
            }
        }
        for entry in &running.sinks {
            let name = &entry.config.name;
            if config.sinks.iter().all(|sink| sink.name != *name) {
                plan.changes.sinks.removed.push(name.to_string());
                plan.stopped_sinks.push(name.clone());
                plan.removed_sinks.push(name.clone());
            }
        }

        for tenant in &config.tenants {
            // The id is who it is; the name may change.
            let old = running.tenants.iter().find(|entry| entry.config.tenant_id == tenant.tenant_id);
            let made = || MadeTenant::new(tenant, &network.http, self.listing);
            match old {
                Some(entry) if entry.config == *tenant && !plan.changes.network => {
                    // What could not be started is tried again, and is no reason to refuse the rest.
                    if matches!(entry.shown, RunningTenant::Unstarted { .. }) {
                        plan.stopped_tenants.push(entry.config.name.clone());
                        plan.tenants.push(made());
                    }
                    continue;
                }
                Some(entry) => {
                    if entry.config != *tenant {
                        plan.changes.tenants.changed.push(tenant.name.clone());
                    }
                    plan.stopped_tenants.push(entry.config.name.clone());
                }
                None => plan.changes.tenants.added.push(tenant.name.clone()),
            }
            let made = made();
            if let Err(why) = &made.login {
                problems.push(format!("tenant {}: {why}", tenant.name));
            }
            plan.tenants.push(made);
        }
        for entry in &running.tenants {
            if config.tenants.iter().all(|tenant| tenant.tenant_id != entry.config.tenant_id) {
                plan.changes.tenants.removed.push(entry.config.name.clone());
                plan.stopped_tenants.push(entry.config.name.clone());
            }
        }
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }

    /// Stops what changed or is gone, all of it at once.
    async fn stop_some(&self, plan: &Plan) {
        let tasks: Vec<_> = {
            let running = self.lock();
            let sinks = running.sinks.iter().filter(|entry| plan.stopped_sinks.contains(&entry.config.name));
            let tenants =
                running.tenants.iter().filter(|entry| plan.stopped_tenants.contains(&entry.config.name));
            sinks
                .map(|entry| Arc::clone(&entry.task))
                .chain(tenants.filter_map(|entry| entry.task.clone()))
                .collect()
        };
        for task in &tasks {
            task.stop();
        }
        let deadline = Instant::now() + STOP;
        for task in &tasks {
            task.ended(deadline).await;
        }
    }

    /// Asks the ledger until it answers: a disk that is full is waited for.
    async fn insist<T>(&self, ask: impl Fn() -> ledger::Answer<T>) -> Result<T, LedgerError> {
        loop {
            match ask().await {
                Err(error) if error.passing() => {
                    tracing::warn!(%error, "applying the configuration waits for the ledger");
                    tokio::time::sleep(LEDGER_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }
}

/// What of `[state]` differs: all of it is settled when the ledger is opened.
fn fixed(old: &StateConfig, new: &StateConfig) -> Vec<String> {
    let keys = [
        ("directory", old.directory != new.directory),
        ("spool_max_bytes", old.spool_max_bytes != new.spool_max_bytes),
        ("dead_letter_max_bytes", old.dead_letter_max_bytes != new.dead_letter_max_bytes),
        ("dedupe_horizon", old.dedupe_horizon != new.dedupe_horizon),
    ];
    keys.iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| format!("'state.{key}' cannot change while mailtrail runs; restart it for that"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_by_name() {
        assert_eq!(Changes::default().to_string(), "nothing changed");
        let changes = Changes {
            sinks: Changed { added: vec!["new".into()], changed: vec!["soc".into()], removed: vec![] },
            tenants: Changed { removed: vec!["contoso".into()], ..Changed::default() },
            network: true,
            left_over: vec![],
        };
        assert_eq!(
            changes.to_string(),
            "sink new added, sink soc changed, tenant contoso removed, network changed"
        );
    }
}
