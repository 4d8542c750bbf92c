//! The wiring: the only place that knows ingest, transform and sinks.
//!
//! A pipeline is one ledger, one collector per tenant and one delivery loop per sink, all running side by side. They
//! know of each other only what the ledger tells them.

mod collecting;
mod delivering;
mod pieces;
mod probing;

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use ingest::{Collector, FeedLedger, Listing, Passes, TenantHealth};
use ledger::{Inspector, Ledger, LedgerError, OpenError, Settings, SinkSpec};
use reqwest::Client;
use schemas::SinkName;
use sinks::{
    delivery::DeliveryLoop,
    delivery_ledger::{DeliveryLedger, SinkStates},
    file::FileSink,
    health::Health,
    memory::MemoryBudget,
    rate::Rate,
    sink::{Sink, SinkContext},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{collecting::Collecting, delivering::Delivering, probing::Probing};
use crate::config::{Config, NetworkConfig, SinkConfig, SinkKind, StartFrom};

/// What records may take of memory on their way to all sinks together, in bytes. With the duplicate index, the bodies
/// that are being fetched and the process itself it keeps mailtrail well under 128 MB.
const MEMORY: usize = 24 << 20;

/// How often the ledger is tidied.
const MAINTENANCE: Duration = Duration::from_secs(60);

/// How long everything together may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// A pipeline cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The ledger cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The ledger refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The network is not usable as it is configured.
    #[error("{0}")]
    Network(String),
    /// A sink cannot be made as it is configured.
    #[error("sink {name}: {what}")]
    Sink {
        /// Its name.
        name: SinkName,
        /// What is wrong.
        what: String,
    },
}

/// Something ended that should not have: the process has to stop.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}: {why}")]
pub(crate) struct Fatal {
    /// What ended.
    what: String,
    /// Why.
    why: String,
}

/// A sink whose delivery loop runs.
pub(crate) struct RunningSink {
    /// Its name.
    pub(crate) name: SinkName,
    /// How it is doing.
    pub(crate) health: Arc<Health>,
}

/// A tenant that is configured.
pub(crate) enum RunningTenant {
    /// It is being collected.
    Collected {
        /// How it is doing.
        health: Arc<TenantHealth>,
        /// Complete passes, as they happen.
        passes: watch::Receiver<Passes>,
    },
    /// It could not be started; the others are not touched by that.
    Unstarted {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
}

/// Everything that runs.
pub(crate) struct Pipeline {
    ledger: Ledger,
    tenants: Vec<RunningTenant>,
    sinks: Vec<RunningSink>,
    tasks: Vec<JoinHandle<()>>,
    collecting: CancellationToken,
    delivering: CancellationToken,
    fatal: watch::Receiver<Option<Fatal>>,
}

/// How the ledger is to behave.
pub(crate) fn ledger_settings(config: &Config) -> Settings {
    let state = &config.state;
    Settings {
        spool_max_bytes: state.spool_max_bytes,
        dead_letter_max_bytes: state.dead_letter_max_bytes,
        horizon: TimeDelta::from_std(state.dedupe_horizon).unwrap_or(TimeDelta::days(8)),
        keep_duplicates: config
            .tenants
            .iter()
            .filter(|tenant| !tenant.dedupe)
            .map(|tenant| tenant.tenant_id)
            .collect(),
        opened_by: concat!("mailtrail ", env!("CARGO_PKG_VERSION")).to_owned(),
        ..Settings::default()
    }
}

/// Opens the ledger and says what was found.
pub(crate) fn open_ledger(config: &Config) -> Result<Ledger, OpenError> {
    let (ledger, recovery) = Ledger::open(&config.state.directory, ledger_settings(config))?;
    let directory = config.state.directory.display();
    if recovery.new {
        tracing::info!(ledger = %ledger.id(), %directory, "made a new ledger");
    } else {
        tracing::info!(
            ledger = %ledger.id(),
            %directory,
            after_a_crash = recovery.unclean,
            to_fetch = recovery.to_fetch,
            pending = recovery.pending,
            maybe_sent = recovery.begun,
            "opened the ledger"
        );
    }
    Ok(ledger)
}

/// Makes a sink as it is configured.
fn make_sink(
    config: &SinkConfig,
    ledger: Arc<dyn SinkStates>,
    rate: Arc<Rate>,
) -> Result<Arc<dyn Sink>, StartError> {
    let context = SinkContext { name: config.name.clone(), ledger, rate };
    let wrong = |what: String| StartError::Sink { name: config.name.clone(), what };
    match &config.kind {
        SinkKind::File(file) => {
            let sink = FileSink::new(file.clone(), context).map_err(|error| wrong(error.to_string()))?;
            Ok(Arc::new(sink))
        }
    }
}

/// Tries a sink without sending a record.
pub(crate) async fn probe(config: &SinkConfig, ledger: Option<Inspector>) -> Result<(), String> {
    let rate = Arc::new(Rate::new(None, None));
    let sink = make_sink(config, Arc::new(Probing(ledger)), rate).map_err(|error| error.to_string())?;
    sink.probe().await.map_err(|error| error.to_string())
}

/// The HTTP client for logins and API calls alike.
pub(crate) async fn http_client(network: &NetworkConfig) -> Result<Client, StartError> {
    let settings = network.http_settings().await.map_err(|error| StartError::Network(error.to_string()))?;
    settings.client().map_err(|error| StartError::Network(error.to_string()))
}

impl Pipeline {
    /// Starts everything.
    pub(crate) async fn start(config: &Config, ledger: Ledger, listing: Listing) -> Result<Self, StartError> {
        let spec = |sink: &SinkConfig| SinkSpec {
            name: sink.name.clone(),
            required: sink.required,
            start_from: match sink.start_from {
                StartFrom::Spooled => ledger::StartFrom::Spooled,
                StartFrom::Now => ledger::StartFrom::Now,
            },
        };
        ledger.meet_sinks(config.sinks.iter().map(spec).collect()).await?;

        let (collecting, delivering) = (CancellationToken::new(), CancellationToken::new());
        let (fatal_sender, fatal) = watch::channel(None);
        let fatal_sender = Arc::new(fatal_sender);
        let mut tasks = Vec::new();

        let deliveries: Arc<dyn DeliveryLedger> =
            Arc::new(Delivering::new(ledger.clone(), &config.tenants, &config.sinks));
        let budget = MemoryBudget::new(MEMORY);
        // All loops are made before the first runs, because each takes its share of the memory when it is made.
        let mut loops = Vec::new();
        for sink in &config.sinks {
            let rate = Arc::new(Rate::new(sink.events_per_second, sink.bytes_per_second));
            let states: Arc<dyn SinkStates> = deliveries.clone();
            let made = make_sink(sink, states, Arc::clone(&rate))?;
            loops.push((sink.name.clone(), DeliveryLoop::new(made, Arc::clone(&deliveries), rate, &budget)));
        }
        let mut sinks = Vec::new();
        for (name, delivery) in loops {
            sinks.push(RunningSink { name: name.clone(), health: delivery.health() });
            let (stop, fatal) = (delivering.clone(), Arc::clone(&fatal_sender));
            tasks.push(tokio::spawn(async move {
                if let Err(failure) = delivery.run(stop).await {
                    fatal.send_replace(Some(Fatal { what: format!("sink {name}"), why: failure.message }));
                }
            }));
        }

        let http = http_client(&config.network).await?;
        let feeds: Arc<dyn FeedLedger> = Arc::new(Collecting::new(ledger.clone()));
        let mut tenants = Vec::new();
        for tenant in &config.tenants {
            let started =
                tenant.token_source(http.clone()).map_err(|error| error.to_string()).and_then(|tokens| {
                    let collected = tenant.collector_config(Utc::now(), listing);
                    Collector::spawn(collected, tokens, Arc::clone(&feeds), http.clone(), collecting.clone())
                        .map_err(|error| error.to_string())
                });
            tenants.push(match started {
                Ok(handle) => {
                    let (health, passes) = (Arc::clone(handle.health()), handle.passes());
                    let (name, fatal) = (tenant.name.clone(), Arc::clone(&fatal_sender));
                    tasks.push(tokio::spawn(async move {
                        if let Err(failure) = handle.join().await {
                            fatal.send_replace(Some(Fatal {
                                what: format!("tenant {name}"),
                                why: failure.message,
                            }));
                        }
                    }));
                    RunningTenant::Collected { health, passes }
                }
                Err(why) => {
                    tracing::error!(tenant = tenant.name, why, "this tenant is not collected");
                    RunningTenant::Unstarted { name: tenant.name.clone(), why }
                }
            });
        }
        tasks.push(tokio::spawn(maintain(ledger.clone(), delivering.clone())));
        Ok(Self { ledger, tenants, sinks, tasks, collecting, delivering, fatal })
    }

    /// The ledger.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Its tenants.
    pub(crate) fn tenants(&self) -> &[RunningTenant] {
        &self.tenants
    }

    /// The health of those tenants that are collected.
    pub(crate) fn collected(&self) -> impl Iterator<Item = &Arc<TenantHealth>> {
        self.tenants.iter().filter_map(|tenant| match tenant {
            RunningTenant::Collected { health, .. } => Some(health),
            RunningTenant::Unstarted { .. } => None,
        })
    }

    /// Its sinks.
    pub(crate) fn sinks(&self) -> &[RunningSink] {
        &self.sinks
    }

    /// Resolves when something ended that should not have.
    pub(crate) async fn broken(&self) -> Fatal {
        let mut fatal = self.fatal.clone();
        match fatal.wait_for(Option::is_some).await {
            Ok(found) => found.clone().expect("it was waited for"),
            // Every sender is gone: nothing can break any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops everything: first the collecting, then, when what is under way is delivered, the rest; within 10 s. What
    /// is not settled by then stays pending.
    pub(crate) async fn stop(self) {
        let Self { ledger, tasks, collecting, delivering, .. } = self;
        collecting.cancel();
        delivering.cancel();
        let everything = async {
            for task in tasks {
                if let Err(error) = task.await {
                    tracing::error!(%error, "a task ended badly");
                }
            }
        };
        if tokio::time::timeout(STOP, everything).await.is_err() {
            tracing::warn!("not everything stopped in time; what was under way stays pending");
        } else if let Err(error) = ledger.maintain(Utc::now()).await {
            // A run until idle is often the only one of the day: what it leaves behind is tidied now.
            tracing::warn!(%error, "the ledger could not be tidied");
        }
        if let Err(error) = tokio::task::spawn_blocking(move || ledger.close()).await {
            tracing::error!(%error, "the ledger did not close");
        }
    }
}

/// Tidies the ledger now and then.
async fn maintain(ledger: Ledger, stop: CancellationToken) {
    loop {
        let pause = match ledger.maintain(Utc::now()).await {
            Ok(done) if done.more => Duration::from_millis(100),
            Ok(_) => MAINTENANCE,
            Err(error) => {
                tracing::warn!(%error, "the ledger could not be tidied; it is tried again in a minute");
                MAINTENANCE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
