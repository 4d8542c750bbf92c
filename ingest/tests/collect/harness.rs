//! A simulated tenant that is being collected, with waits that suit a test.

use std::{collections::BTreeSet, io::Write, num::NonZeroU32, sync::Arc, time::Duration};

use chrono::TimeDelta;
use entra::{Cloud, Credential, Endpoint, SecretSource, TokenSource};
use ingest::{
    Collector, CollectorHandle, HttpSettings, Listing, Places, TenantConfig, backoff::Backoff,
    collector::Pacing, health::Condition,
};
use schemas::ContentType;
use simulator::{Fate, Running, Simulator, SimulatorConfig, StatsSnapshot};
use tempfile::NamedTempFile;
use tokio_util::sync::CancellationToken;

use crate::memory_ledger::{MemoryLedger, Shared, State};

/// Long enough for anything that a test waits for, and short enough not to hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// `S` is the simulated tenant; `()` when a test scripts its own.
pub(crate) struct Collecting<S = Running> {
    pub simulator: S,
    pub ledger: Arc<MemoryLedger>,
    pub handle: CollectorHandle,
    pub cancel: CancellationToken,
    _secret: NamedTempFile,
}

/// A simulated tenant without a quota of its own.
pub(crate) fn simulation(blobs: u64, faults: &str) -> SimulatorConfig {
    SimulatorConfig {
        requests_per_minute: None,
        faults: faults.parse().unwrap(),
        ..SimulatorConfig::backlog(blobs, 3)
    }
}

pub(crate) async fn start(config: SimulatorConfig) -> Running {
    Simulator::start(config, ([127, 0, 0, 1], 0).into()).await.unwrap()
}

/// How the simulated tenant is collected: as fast as it can be.
pub(crate) fn tenant(simulator: &Running, content_types: &[ContentType]) -> TenantConfig {
    tenant_at(&simulator.base_url(), content_types)
}

/// The default simulated tenant, at an API.
pub(crate) fn tenant_at(api: &str, content_types: &[ContentType]) -> TenantConfig {
    let quick = Backoff { first: Duration::from_millis(5), longest: Duration::from_millis(100) };
    let identity = simulator::TenantConfig::default();
    let mut config =
        TenantConfig::new("contoso", identity.tenant_id, api.parse().unwrap(), content_types.to_vec());
    config.poll_interval = Duration::from_millis(20);
    config.requests_per_minute = NonZeroU32::new(600_000).unwrap();
    config.pacing = Pacing {
        retry_listing: quick,
        retry_page: quick,
        retry_blob: quick,
        breath: quick,
        probe: Duration::from_millis(100),
        between_starts: Duration::from_secs(900),
        grace: Duration::from_secs(5),
    };
    config
}

pub(crate) fn collect_with(simulator: Running, config: TenantConfig, http: &HttpSettings) -> Collecting {
    let ledger = Arc::new(MemoryLedger::default());
    collect_into(simulator, config, http, ledger)
}

pub(crate) fn collect_into(
    simulator: Running,
    config: TenantConfig,
    http: &HttpSettings,
    ledger: Arc<MemoryLedger>,
) -> Collecting {
    let authority = simulator.base_url();
    collect_from(simulator, &authority, config, http, ledger)
}

/// Collects a simulated tenant that is known by another address than its own.
pub(crate) fn collect_from(
    simulator: Running,
    authority: &str,
    config: TenantConfig,
    http: &HttpSettings,
    ledger: Arc<MemoryLedger>,
) -> Collecting {
    let http = http.client().unwrap();
    let cancel = CancellationToken::new();
    let secret = simulator::TenantConfig::default().client_secret.unwrap();
    let (tokens, secret) = tokens(authority, &http, &secret);
    let shared = Arc::new(Shared(Arc::clone(&ledger)));
    let handle = Collector::spawn(config, tokens, shared, http, &Places::new(), cancel.clone()).unwrap();
    Collecting { simulator, ledger, handle, cancel, _secret: secret }
}

/// Tokens of the default simulated tenant's application, from an authority, and the file that holds its secret.
pub(crate) fn tokens(authority: &str, http: &reqwest::Client, secret: &str) -> (TokenSource, NamedTempFile) {
    let identity = simulator::TenantConfig::default();
    let cloud = Cloud::from_config("custom", Some(authority), Some(authority)).unwrap();
    let endpoint = Endpoint::new(&cloud.authority(), &identity.tenant_id.to_string()).unwrap();
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(secret.as_bytes()).unwrap();
    let credential = Credential::ClientSecret(SecretSource::File(file.path().to_owned()));
    let client_id = identity.client_id.parse().unwrap();
    (TokenSource::new(http.clone(), endpoint, client_id, credential, cloud.api_scope()), file)
}

/// Collects everything of a simulated tenant's `Audit.Exchange`, with whatever goes wrong.
pub(crate) async fn collect(config: SimulatorConfig) -> Collecting {
    let simulator = start(config).await;
    let config = tenant(&simulator, &[ContentType::Exchange]);
    collect_with(simulator, config, &HttpSettings::default())
}

/// Collects `Audit.Exchange` of a tenant at some address, which answers as a test says.
pub(crate) fn collect_scripted(base: &str, secret: &str) -> Collecting<()> {
    collect_scripted_into(base, secret, Arc::new(MemoryLedger::default()))
}

/// The same, from where a ledger is.
pub(crate) fn collect_scripted_into(base: &str, secret: &str, ledger: Arc<MemoryLedger>) -> Collecting<()> {
    let http = HttpSettings::default().client().unwrap();
    let (tokens, secret) = tokens(base, &http, secret);
    let cancel = CancellationToken::new();
    let config = tenant_at(base, &[ContentType::Exchange]);
    let shared = Arc::new(Shared(Arc::clone(&ledger)));
    let handle = Collector::spawn(config, tokens, shared, http, &Places::new(), cancel.clone()).unwrap();
    Collecting { simulator: (), ledger, handle, cancel, _secret: secret }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE * 2, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never came: {what}");
}

impl Collecting {
    /// Waits until every blob that the simulator can have listed is settled.
    pub(crate) async fn until_settled(&self) {
        let blobs = self.simulator.truth().blobs().count();
        let settled = || self.ledger.count(|state| *state != State::Listed) >= blobs;
        let waited = tokio::time::timeout(PATIENCE, until("every blob is settled", settled)).await;
        assert!(
            waited.is_ok(),
            "{} of {blobs} are listed: {:?}",
            self.ledger.count(|_| true),
            self.handle.health()
        );
    }

    /// Stops, and checks that every blob came exactly once, and that no rule was broken on the way.
    pub(crate) async fn finish(self) -> StatsSnapshot {
        self.cancel.cancel();
        self.handle.join().await.unwrap();
        let inner = self.ledger.lock();
        let mut known = BTreeSet::new();
        for blob in self.simulator.truth().blobs() {
            let row = inner
                .blobs
                .iter()
                .find(|(key, _)| {
                    key.feed.content_type == blob.content_type && key.content_id.as_str() == blob.content_id
                })
                .map(|(_, row)| row)
                .unwrap_or_else(|| panic!("{} was never listed", blob.content_id));
            let expected = match blob.fate {
                Fate::Deliverable => State::Fetched,
                Fate::Expired => State::Gap(schemas::GapReason::Expired),
                Fate::Gone => State::Gap(schemas::GapReason::Gone),
                Fate::Oversized | Fate::Unreadable => State::Listed,
            };
            assert_eq!(row.state, expected, "{} after {:?}", blob.content_id, row.errors);
            if row.state == State::Fetched {
                assert_eq!(u64::from(row.records), blob.records + blob.duplicates, "{}", blob.content_id);
            }
            known.insert(blob.content_id);
        }
        assert_eq!(inner.blobs.len(), known.len(), "something was listed that does not exist");
        drop(inner);
        let stats = self.simulator.stats();
        assert_eq!(stats.violations, Default::default());
        assert_eq!((stats.other_origin_requests, stats.tokens_leaked), (0, 0));
        assert_eq!(stats.without_publisher_identifier, 0);
        stats
    }

    /// How a feed is doing.
    pub(crate) fn condition(&self, content_type: ContentType) -> Condition {
        self.handle.health().feed(content_type).unwrap().status().condition
    }
}

/// A config whose listing ends after one pass of each feed.
pub(crate) fn once(config: TenantConfig) -> TenantConfig {
    TenantConfig { listing: Listing::Once, ..config }
}

pub(crate) fn hours(hours: i64) -> TimeDelta {
    TimeDelta::hours(hours)
}
