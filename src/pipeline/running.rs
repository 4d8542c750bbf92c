//! What runs: a task for each sink and each tenant, with a stop of its own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use entra::TokenSource;
use ingest::{Collector, Listing, Passes, TenantHealth};
use reqwest::Client;
use schemas::SinkName;
use sinks::{delivery::DeliveryLoop, health::Health, rate::Rate, sink::Sink};
use tokio::{sync::watch, task::AbortHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use crate::config::{SinkConfig, TenantConfig};

/// A sink whose delivery loop runs.
#[derive(Clone)]
pub(crate) struct RunningSink {
    /// Its name.
    pub(crate) name: SinkName,
    /// Whether fetching waits for it when the spool is full.
    pub(crate) required: bool,
    /// The PEM of the certificate that it shows to its destination.
    pub(crate) client_certificate: Option<PathBuf>,
    /// How it is doing.
    pub(crate) health: Arc<Health>,
    /// The sink itself, for the figures of its kind.
    pub(crate) sink: Arc<dyn Sink>,
    /// To be cancelled when nothing more is coming, for sinks that would wait for it.
    pub(crate) finish: CancellationToken,
}

/// A tenant that is configured.
#[derive(Clone)]
pub(crate) enum RunningTenant {
    /// It is being collected.
    Collected {
        /// How it is doing.
        health: Arc<TenantHealth>,
        /// Complete passes, as they happen.
        passes: watch::Receiver<Passes>,
        /// How it logs in.
        tokens: TokenSource,
        /// The request budget that the configuration allows it.
        requests_per_minute: u32,
    },
    /// It could not be started; the others are not touched by that.
    Unstarted {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
}

/// A task that can be stopped alone.
pub(super) struct Task {
    stop: CancellationToken,
    ended: CancellationToken,
    abort: AbortHandle,
}

impl Task {
    /// Asks it to stop.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for its end until `deadline`, and then ends it: what it had under way stays pending.
    pub(super) async fn ended(&self, deadline: Instant) {
        if tokio::time::timeout_at(deadline, self.ended.cancelled()).await.is_err() {
            self.abort.abort();
            // An aborted task is dropped as soon as it yields.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.ended.cancelled()).await;
        }
    }
}

/// A configured sink and its task.
pub(super) struct SinkEntry {
    pub(super) config: SinkConfig,
    pub(super) shown: RunningSink,
    pub(super) task: Arc<Task>,
}

/// A configured tenant and its task, if it has one.
pub(super) struct TenantEntry {
    pub(super) config: TenantConfig,
    pub(super) shown: RunningTenant,
    pub(super) task: Option<Arc<Task>>,
}

/// A sink that was made and does not run yet.
pub(super) struct MadeSink {
    pub(super) config: SinkConfig,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) rate: Arc<Rate>,
}

/// A tenant that can be collected, or why it cannot.
pub(super) struct MadeTenant {
    pub(super) config: TenantConfig,
    pub(super) login: Result<(TokenSource, ingest::TenantConfig), String>,
}

impl MadeTenant {
    /// Prepares a tenant; asks nobody yet.
    pub(super) fn new(config: &TenantConfig, http: &Client, listing: Listing) -> Self {
        let login = || {
            let tokens = config.token_source(http.clone()).map_err(|error| error.to_string())?;
            let collected = config.collector_config(listing);
            collected.api(tokens.clone(), http.clone()).map_err(|error| error.to_string())?;
            Ok((tokens, collected))
        };
        Self { config: config.clone(), login: login() }
    }
}

impl Pipeline {
    /// Runs the delivery loops of these sinks. All loops are made before the first runs, because each takes its share
    /// of the memory when it is made.
    pub(super) fn run_sinks(&self, made: Vec<MadeSink>) -> Vec<SinkEntry> {
        let loops: Vec<_> = made
            .into_iter()
            .map(|made| {
                let deliveries = Arc::clone(&self.deliveries);
                let delivery = DeliveryLoop::new(Arc::clone(&made.sink), deliveries, made.rate, &self.budget);
                (made.config, made.sink, delivery)
            })
            .collect();
        let run = |(config, sink, delivery): (SinkConfig, Arc<dyn Sink>, DeliveryLoop)| {
            let name = config.name.clone();
            let shown = RunningSink {
                name: name.clone(),
                required: config.required,
                client_certificate: config.client_certificate().map(Path::to_owned),
                health: delivery.health(),
                sink,
                finish: delivery.finish(),
            };
            let stop = self.delivering.child_token();
            let running = delivery.run(stop.clone());
            let task = self.spawn(stop, format!("sink {name}"), async move {
                running.await.map_err(|failure| failure.message)
            });
            SinkEntry { config, shown, task }
        };
        loops.into_iter().map(run).collect()
    }

    /// Collects a tenant.
    pub(super) fn run_tenant(&self, made: MadeTenant, http: &Client) -> TenantEntry {
        let MadeTenant { config, login } = made;
        let stop = self.collecting.child_token();
        let spawned = login.and_then(|(tokens, collected)| {
            let feeds = Arc::clone(&self.feeds);
            Collector::spawn(collected, tokens.clone(), feeds, http.clone(), &self.places, stop.clone())
                .map(|handle| (handle, tokens))
                .map_err(|error| error.to_string())
        });
        match spawned {
            Ok((handle, tokens)) => {
                let (health, passes) = (Arc::clone(handle.health()), handle.passes());
                let task = self.spawn(stop, format!("tenant {}", config.name), async move {
                    handle.join().await.map_err(|failure| failure.message)
                });
                let requests_per_minute = config.requests_per_minute.get();
                let shown = RunningTenant::Collected { health, passes, tokens, requests_per_minute };
                TenantEntry { config, shown, task: Some(task) }
            }
            Err(why) => {
                tracing::error!(tenant = config.name, why, "this tenant is not collected");
                let shown = RunningTenant::Unstarted { name: config.name.clone(), why };
                TenantEntry { config, shown, task: None }
            }
        }
    }

    /// Spawns a task whose failure ends the process.
    fn spawn(
        &self,
        stop: CancellationToken,
        what: String,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) -> Arc<Task> {
        let ended = CancellationToken::new();
        let at_the_end = ended.clone().drop_guard();
        let fatal = self.fatal.clone();
        let handle = self.tasks.spawn(async move {
            // Also when it panics or is aborted.
            let _at_the_end = at_the_end;
            if let Err(why) = work.await {
                fatal.send_replace(Some(super::Fatal { what, why }));
            }
        });
        Arc::new(Task { stop, ended, abort: handle.abort_handle() })
    }
}
