//! The wiring: the only place that knows ingest, transform and sinks.
//!
//! A pipeline is one ledger, one collector per tenant and one delivery loop per sink, all running side by side, each
//! with a stop of its own. They know of each other only what the ledger tells them.
//!
//! | file | what it holds |
//! |---|---|
//! | `pipeline.rs` | [`Pipeline`]: starting and stopping everything |
//! | `pipeline/running.rs` | one sink's and one tenant's task |
//! | `pipeline/changing.rs` | another configuration while everything runs |
//! | `pipeline/collecting.rs`, `delivering.rs` | the ledger as `ingest` and as `sinks` see it; views |
//! | `pipeline/pieces.rs`, `probing.rs` | pieces that were read lately; a sink that is only tried |
//! | `pipeline/understanding.rs` | what the columns of an archive hold |

mod changing;
mod collecting;
mod delivering;
mod pieces;
mod probing;
mod running;
mod stating;
mod understanding;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use archive::parquet::Understand;
use chrono::{DateTime, TimeDelta, Utc};
use ingest::{FeedLedger, HttpSettings, Listing, Places, TenantHealth};
use ledger::{Ledger, LedgerError, OpenError, Settings, SinkSpec};
use reqwest::Client;
use schemas::{LedgerFailure, RecordFacts, SinkName};
use sinks::{
    archive::ArchiveSink,
    delivery_ledger::SinkStates,
    file::FileSink,
    kafka::KafkaSink,
    memory::MemoryBudget,
    rate::Rate,
    sentinel::SentinelSink,
    sink::{Sink, SinkContext},
    splunk_hec::SplunkHecSink,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use transform::{Filter, Origin, filter::Match};

use self::{
    collecting::Collecting,
    delivering::Delivering,
    running::{MadeSink, MadeTenant, SinkEntry, TenantEntry},
    understanding::Understanding,
};
use crate::config::{Config, NetworkConfig, SinkConfig, SinkKind, StartFrom, StateConfig, TenantConfig};

pub(crate) use self::{
    changing::ApplyError,
    probing::{Found, probe},
    running::{RunningSink, RunningTenant},
};

/// What records may take of memory on their way to all sinks together, in bytes. With the duplicate index, the bodies
/// that are being fetched, what an archive makes columns in (one object at a time) and the process itself it keeps mailtrail
/// under 128 MB.
pub(crate) const MEMORY: usize = 24 << 20;

/// How often the ledger is tidied.
const MAINTENANCE: Duration = Duration::from_secs(60);

/// A time by which nothing has expired: only what has to do with room is tidied.
const LONG_AGO: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// How soon it is tidied again when nobody had said what time it is.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// How long everything together may take to stop.
const STOP: Duration = Duration::from_secs(10);

/// How long the ledger's writer may be silent before the process counts as hung.
const ALIVE: Duration = Duration::from_secs(10);

// Whoever fetches a blob gives it up before the ledger does so unasked.
const _: () = assert!(ledger::OVERDUE.num_minutes() >= ingest::BEYOND_EXPIRY.num_minutes() + 60);

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

/// Everything that runs. Whoever shows it (`status`, `/metrics`) holds it too, and only looks.
pub(crate) struct Pipeline {
    ledger: Ledger,
    listing: Listing,
    deliveries: Arc<Delivering>,
    feeds: Arc<dyn FeedLedger>,
    /// For records on their way to all sinks together.
    budget: MemoryBudget,
    /// For the bodies of all tenants that are being taken in.
    places: Places,
    running: Mutex<Running>,
    tasks: TaskTracker,
    collecting: CancellationToken,
    delivering: CancellationToken,
    fatal: watch::Sender<Option<Fatal>>,
    started: Instant,
    /// By which time the ledger was tidied last before this start.
    tidied: Option<DateTime<Utc>>,
}

/// What runs at present, in the order of the configuration.
struct Running {
    state: StateConfig,
    network: Network,
    tenants: Vec<TenantEntry>,
    sinks: Vec<SinkEntry>,
    /// Tenants that were taken out of the configuration while this process ran: what the spool holds of them is still
    /// delivered, under their names.
    gone: Vec<TenantConfig>,
}

/// How Microsoft is reached.
struct Network {
    settings: HttpSettings,
    http: Client,
}

impl Network {
    /// A client by this section, with the proxy's password as it is now.
    async fn new(config: &NetworkConfig) -> Result<Self, StartError> {
        let network = |error: String| StartError::Network(error);
        let settings = config.http_settings().await.map_err(|error| network(error.to_string()))?;
        let http = settings.client().map_err(|error| network(error.to_string()))?;
        Ok(Self { settings, http })
    }

    /// Whether both reach it in the same way.
    fn is_like(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
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
    config: &Config,
    sink: &SinkConfig,
    http: &Client,
    ledger: Arc<dyn SinkStates>,
    understand: Arc<dyn Understand>,
    rate: Arc<Rate>,
) -> Result<Arc<dyn Sink>, StartError> {
    let context = SinkContext { name: sink.name.clone(), ledger, rate };
    let wrong = |what: String| StartError::Sink { name: sink.name.clone(), what };
    match &sink.kind {
        SinkKind::File(file) => {
            let sink = FileSink::new(file.clone(), context).map_err(|error| wrong(error.to_string()))?;
            Ok(Arc::new(sink))
        }
        SinkKind::SplunkHec(hec) => {
            Ok(Arc::new(SplunkHecSink::new(hec.as_ref().clone(), config.network.hec(), context)))
        }
        SinkKind::Kafka(kafka) => {
            let tokens = kafka.tokens(http).map_err(wrong)?;
            let topics = topics(sink, &config.tenants);
            let sink = KafkaSink::new(kafka.kafka.clone(), tokens, topics, context);
            Ok(Arc::new(sink.map_err(|error| wrong(error.to_string()))?))
        }
        SinkKind::Sentinel(sentinel) => {
            let tokens = sentinel.tokens(http).map_err(wrong)?;
            Ok(Arc::new(SentinelSink::new(sentinel.sentinel.clone(), tokens, http.clone(), context)))
        }
        SinkKind::Archive(archive) => {
            let staging = config.state.directory.join("archive").join(sink.name.as_str());
            let target = archive.target(config.network.archive(), http).map_err(wrong)?;
            let made = ArchiveSink::new(archive.archive.clone(), target, &staging, understand, context);
            let mut sink = made.map_err(|error| wrong(error.to_string()))?;
            if let Some(authority) = archive.timestamp_authority(http) {
                sink = sink.stamped_by(authority);
            }
            Ok(Arc::new(sink))
        }
    }
}

/// What `ingest` and `sinks` are told when the ledger did not do what it was asked for.
fn failure(error: LedgerError) -> LedgerFailure {
    LedgerFailure { passing: error.passing(), message: error.to_string() }
}

/// The state by which a sink that is exactly once beyond this ledger overrules what another one has left.
///
/// # Errors
///
/// When its present state is not of such a sink.
pub(crate) fn adopted(state: Option<Vec<u8>>) -> Result<Vec<u8>, String> {
    sinks::kafka::adopt(state.as_deref()).map_err(|error| error.to_string())
}

/// The topics that the configured tenants' records go to, as far as the sink wants them. None for a sink that has none.
fn topics(sink: &SinkConfig, tenants: &[TenantConfig]) -> Vec<String> {
    let SinkKind::Kafka(kafka) = &sink.kind else { return Vec::new() };
    let topic = &kafka.kafka.topic;
    // Of the filter, what is known before there is a record.
    let exclude = &sink.filter.exclude;
    let is_whole = exclude.operations.is_empty()
        && exclude.record_types.is_empty()
        && exclude.users.is_empty()
        && exclude.mailboxes.is_empty();
    let filter = Filter {
        tenants: sink.filter.tenants.clone(),
        content_types: sink.filter.content_types.clone(),
        exclude: if is_whole { exclude.clone() } else { Match::default() },
        ..Filter::default()
    };
    let mut topics = BTreeSet::new();
    for tenant in tenants {
        for &content_type in &tenant.content_types {
            let origin =
                Origin { tenant: tenant.tenant_id, tenant_name: &tenant.name, content_type, content_id: "" };
            if filter.keeps(&RecordFacts::default(), "", &origin) {
                topics.insert(topic.expand_for(&tenant.name, tenant.tenant_id, content_type));
            }
        }
    }
    topics.into_iter().collect()
}

/// The HTTP client for logins and API calls alike.
pub(crate) async fn http_client(network: &NetworkConfig) -> Result<Client, StartError> {
    Ok(Network::new(network).await?.http)
}

/// A sink as the ledger wants to know it.
fn sink_spec(sink: &SinkConfig) -> SinkSpec {
    SinkSpec {
        name: sink.name.clone(),
        required: sink.required,
        start_from: match sink.start_from {
            StartFrom::Spooled => ledger::StartFrom::Spooled,
            StartFrom::Now => ledger::StartFrom::Now,
        },
    }
}

impl Pipeline {
    /// Starts everything.
    pub(crate) async fn start(
        config: &Config,
        ledger: Ledger,
        listing: Listing,
    ) -> Result<Arc<Self>, StartError> {
        ledger.meet_sinks(config.sinks.iter().map(sink_spec).collect()).await?;
        let tidied = ledger.last_maintained().await?;
        let network = Network::new(&config.network).await?;
        let deliveries = Arc::new(Delivering::new(ledger.clone()));
        deliveries.show(&config.tenants, &config.sinks);
        let mut sinks = Vec::new();
        for sink in &config.sinks {
            let rate = Arc::new(sink.rate());
            let states: Arc<dyn SinkStates> = deliveries.clone();
            let understand = Arc::new(Understanding::new(deliveries.clone(), sink.name.clone()));
            let made = make_sink(config, sink, &network.http, states, understand, Arc::clone(&rate))?;
            sinks.push(MadeSink { config: sink.clone(), sink: made, rate });
        }
        let http = network.http.clone();
        let pipeline = Arc::new(Self {
            feeds: Arc::new(Collecting::new(ledger.clone())),
            ledger,
            listing,
            deliveries,
            budget: MemoryBudget::new(MEMORY),
            places: Places::new(),
            running: Mutex::new(Running {
                state: config.state.clone(),
                network,
                tenants: Vec::new(),
                sinks: Vec::new(),
                gone: Vec::new(),
            }),
            tasks: TaskTracker::new(),
            collecting: CancellationToken::new(),
            delivering: CancellationToken::new(),
            fatal: watch::Sender::new(None),
            started: Instant::now(),
            tidied,
        });
        let sinks = pipeline.run_sinks(sinks);
        let run = |tenant| pipeline.run_tenant(MadeTenant::new(tenant, &http, listing), &http);
        let tenants = config.tenants.iter().map(run).collect();
        {
            let mut running = pipeline.lock();
            (running.sinks, running.tenants) = (sinks, tenants);
        }
        pipeline.tasks.spawn(maintain(Arc::clone(&pipeline)));
        Ok(pipeline)
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Its tenants at present.
    pub(crate) fn tenants(&self) -> Vec<RunningTenant> {
        self.lock().tenants.iter().map(|entry| entry.shown.clone()).collect()
    }

    /// The health of those tenants that are collected.
    pub(crate) fn collected(&self) -> Vec<Arc<TenantHealth>> {
        let health = |tenant| match tenant {
            RunningTenant::Collected { health, .. } => Some(health),
            RunningTenant::Unstarted { .. } => None,
        };
        self.tenants().into_iter().filter_map(health).collect()
    }

    /// Its sinks at present.
    pub(crate) fn sinks(&self) -> Vec<RunningSink> {
        self.lock().sinks.iter().map(|entry| entry.shown.clone()).collect()
    }

    /// What records on their way to all sinks together take of [`MEMORY`].
    pub(crate) fn memory_held(&self) -> usize {
        self.budget.held()
    }

    /// What the spool may take.
    pub(crate) fn spool_max_bytes(&self) -> u64 {
        self.lock().state.spool_max_bytes
    }

    /// Whether the process does anything: its reactor does when this runs, the ledger's writer has to answer.
    pub(crate) async fn alive(&self) -> Result<(), String> {
        match tokio::time::timeout(ALIVE, self.ledger.answers()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the ledger has not answered for {} s", ALIVE.as_secs())),
        }
    }

    /// The time by which blobs expire, rows are folded and records are forgotten: never later than an API says, because a
    /// local clock that is ahead would give up what can still be had. `None` while nobody has said what time it is.
    fn time(&self) -> Option<DateTime<Utc>> {
        let tenants = self.collected();
        let heard = tenants.iter().filter_map(|tenant| tenant.server_time()).min();
        let passed = TimeDelta::from_std(self.started.elapsed()).unwrap_or_default();
        let at_least = self.tidied.map(|tidied| tidied + passed);
        time_by(heard, Utc::now(), at_least, tenants.is_empty())
    }

    /// Resolves when something ended that should not have.
    pub(crate) async fn broken(&self) -> Fatal {
        let mut fatal = self.fatal.subscribe();
        let found = fatal.wait_for(Option::is_some).await.expect("the sender is here");
        found.clone().expect("it was waited for")
    }

    /// Stops everything: first the collecting, then, when what is under way is delivered, the rest; within 10 s. What
    /// is not settled by then stays pending.
    pub(crate) async fn stop(&self) {
        self.collecting.cancel();
        self.delivering.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("not everything stopped in time; what was under way stays pending");
        } else if let Err(error) = self.ledger.maintain(self.time().unwrap_or(LONG_AGO)).await {
            // A run until idle is often the only one of the day: what it leaves behind is tidied now.
            tracing::warn!(%error, "the ledger could not be tidied");
        }
        let ledger = self.ledger.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || ledger.close()).await {
            tracing::error!(%error, "the ledger did not close");
        }
    }
}

/// The earlier of both clocks. While the APIs' was not `heard`, it is as late as it certainly is: when the ledger was
/// tidied last, and for how long this process runs since. Without either, the local clock counts only when there is
/// `nobody` to ask.
fn time_by(
    heard: Option<DateTime<Utc>>,
    local: DateTime<Utc>,
    at_least: Option<DateTime<Utc>>,
    nobody: bool,
) -> Option<DateTime<Utc>> {
    match heard.or(at_least) {
        Some(known) => Some(known.min(local)),
        None => nobody.then_some(local),
    }
}

/// Tidies the ledger now and then.
async fn maintain(pipeline: Arc<Pipeline>) {
    loop {
        let time = pipeline.time();
        let pause = match pipeline.ledger.maintain(time.unwrap_or(LONG_AGO)).await {
            Ok(done) if done.more => Duration::from_millis(100),
            Ok(_) if time.is_none() => LISTEN_AGAIN,
            Ok(_) => MAINTENANCE,
            Err(error) => {
                tracing::warn!(%error, "the ledger could not be tidied; it is tried again in a minute");
                MAINTENANCE
            }
        };
        tokio::select! {
            () = pipeline.delivering.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_clock_that_is_ahead_gives_nothing_up() {
        let now: DateTime<Utc> = "2026-03-02T10:00:00Z".parse().unwrap();
        let month = TimeDelta::days(30);
        assert_eq!(time_by(Some(now), now + month, None, false), Some(now));
        assert_eq!(time_by(Some(now), now - month, None, false), Some(now - month));
        // While no API answers, what is given up is what was certainly over: however long that lasts.
        assert_eq!(time_by(None, now + month, None, false), None);
        assert_eq!(time_by(None, now + month, Some(now), false), Some(now));
        assert_eq!(time_by(None, now - month, Some(now), false), Some(now - month));
        // Who collects nothing has nobody to ask.
        assert_eq!(time_by(None, now, None, true), Some(now));
        assert_eq!(time_by(None, now + month, Some(now), true), Some(now));
    }
}
