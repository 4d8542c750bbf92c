//! Puts one tenant's lister tasks and fetcher together, starts and stops them.
//!
//! Each feed has a task, which is begun anew when it panics; the fetcher has one. Stopping is graceful: listing stops
//! at once, bodies under way get a few seconds, and whatever is dropped is simply due again (L7).

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroUsize},
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use entra::TokenSource;
use futures_util::FutureExt;
use reqwest::Client;
use schemas::{ContentType, FeedKey, TenantId};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    api::{ActivityApi, ApiAddress, Timeouts, urls::BadApiAddress},
    backoff::Backoff,
    budget::Budget,
    feed_ledger::{FeedLedger, LedgerFailure},
    fetcher::{Fetcher, RETRY_BLOB, panic_message},
    gates::Gates,
    grants::Grants,
    health::{Condition, FeedHealth, FetcherHealth, Requests, TenantHealth, Trouble},
    lister::{Begun, Lister, RETRY_LISTING, Subscribed},
    places::{Places, TenantPlaces},
    plan::Policy,
    skew::ServerClock,
};

/// How long listing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Again and again.
    Forever,
    /// Until one complete pass of each feed; fetching goes on until it is stopped. What `run --until-idle` wants.
    Once,
}

/// The waits of the lister and the fetcher. The defaults are what the API asks for; tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Before a pass that failed is begun again.
    pub retry_listing: Backoff,
    /// Before a page that failed, or a window that is begun anew, is asked for again.
    pub retry_page: Backoff,
    /// Before a blob that failed is due again.
    pub retry_blob: Backoff,
    /// While everything that is fetched fails.
    pub breath: Backoff,
    /// Before something that is halted is tried again.
    pub probe: Duration,
    /// Between two starts of a subscription (Office 365 Management Activity API reference, "Start a subscription").
    pub between_starts: Duration,
    /// What bodies under way get when it stops.
    pub grace: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            retry_listing: RETRY_LISTING,
            retry_page: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) },
            retry_blob: RETRY_BLOB,
            breath: Backoff { first: Duration::from_secs(2), longest: Duration::from_secs(60) },
            probe: Duration::from_secs(600),
            between_starts: Duration::from_secs(900),
            grace: Duration::from_secs(5),
        }
    }
}

/// One tenant, and how it is collected.
#[derive(Debug, Clone)]
pub struct TenantConfig {
    /// Its name in the configuration.
    pub name: String,
    /// Which tenant.
    pub tenant: TenantId,
    /// The API's host, such as `https://manage.office.com`.
    pub api: Url,
    /// On whose behalf it is read (`PublisherIdentifier`); by default the tenant itself.
    pub publisher: TenantId,
    /// What is collected.
    pub content_types: Vec<ContentType>,
    /// From one pass to the next.
    pub poll_interval: Duration,
    /// What is listed, and how often again.
    pub policy: Policy,
    /// Requests a minute, of all feeds together.
    pub requests_per_minute: NonZeroU32,
    /// Blobs fetched at once.
    pub fetch_concurrency: NonZeroUsize,
    /// The largest body that is taken, unpacked.
    pub blob_max_bytes: u64,
    /// How long calls may take.
    pub timeouts: Timeouts,
    /// How long is waited after failures.
    pub pacing: Pacing,
    /// How long listing goes on.
    pub listing: Listing,
}

impl TenantConfig {
    /// A tenant with the defaults: every pass after 60 s, 2,000 requests a minute, 8 blobs at once, bodies of at most
    /// 256 MiB.
    #[must_use]
    pub fn new(name: impl Into<String>, tenant: TenantId, api: Url, content_types: Vec<ContentType>) -> Self {
        Self {
            name: name.into(),
            tenant,
            api,
            publisher: tenant,
            content_types,
            poll_interval: Duration::from_secs(60),
            policy: Policy::default(),
            requests_per_minute: NonZeroU32::new(2000).unwrap_or(NonZeroU32::MIN),
            fetch_concurrency: NonZeroUsize::new(8).unwrap_or(NonZeroUsize::MIN),
            blob_max_bytes: 256 << 20,
            timeouts: Timeouts::default(),
            pacing: Pacing::default(),
            listing: Listing::Forever,
        }
    }
}

impl TenantConfig {
    /// The tenant's API with a budget of its own, for those who only want to ask it something.
    ///
    /// # Errors
    ///
    /// When the API's address cannot be used.
    pub fn api(&self, tokens: TokenSource, http: Client) -> Result<ActivityApi, BadApiAddress> {
        let address = ApiAddress::new(&self.api, self.tenant, self.publisher)?;
        let budget = Arc::new(Budget::new(self.requests_per_minute));
        Ok(ActivityApi {
            address,
            http,
            tokens,
            budget,
            clock: Arc::new(ServerClock::new()),
            requests: Arc::new(Requests::default()),
            timeouts: self.timeouts,
            grants: None,
        })
    }
}

/// How many complete passes each feed has made since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passes(BTreeMap<ContentType, u64>);

impl Passes {
    /// No pass of any of these feeds.
    #[must_use]
    pub fn none_of(content_types: &[ContentType]) -> Self {
        Self(content_types.iter().map(|kind| (*kind, 0)).collect())
    }

    /// Counts a complete pass of a feed.
    pub fn count(&mut self, content_type: ContentType) {
        *self.0.entry(content_type).or_default() += 1;
    }

    /// Whether every feed was listed completely at least once.
    #[must_use]
    pub fn each_passed(&self) -> bool {
        self.0.values().all(|passes| *passes > 0)
    }

    /// How often one feed was listed completely.
    #[must_use]
    pub fn of(&self, content_type: ContentType) -> u64 {
        self.0.get(&content_type).copied().unwrap_or(0)
    }
}

/// Starts the collecting of a tenant.
#[derive(Debug)]
pub struct Collector;

/// A tenant that is being collected. Dropping it leaves it running; its cancellation token stops it.
#[derive(Debug)]
pub struct CollectorHandle {
    health: Arc<TenantHealth>,
    api: Arc<ActivityApi>,
    passes: watch::Receiver<Passes>,
    task: JoinHandle<Result<(), LedgerFailure>>,
}

impl CollectorHandle {
    /// What is going on.
    #[must_use]
    pub const fn health(&self) -> &Arc<TenantHealth> {
        &self.health
    }

    /// The tenant's API, whose calls count in the same budget.
    #[must_use]
    pub const fn api(&self) -> &Arc<ActivityApi> {
        &self.api
    }

    /// Complete passes, as they happen. Together with the ledger's counts it tells when a tenant is idle.
    #[must_use]
    pub fn passes(&self) -> watch::Receiver<Passes> {
        self.passes.clone()
    }

    /// Waits for the end: after it was cancelled, or when the ledger failed for good.
    ///
    /// # Errors
    ///
    /// When the ledger failed in a way that waiting cannot help: the process has to stop.
    pub async fn join(self) -> Result<(), LedgerFailure> {
        self.task.await.unwrap_or_else(|error| {
            Err(LedgerFailure { message: format!("the collector ended badly: {error}"), passing: false })
        })
    }
}

impl Collector {
    /// Starts to collect a tenant, until `cancel` is cancelled. Its bodies take `places` among those of all tenants.
    ///
    /// # Errors
    ///
    /// When the API's address cannot be used.
    pub fn spawn(
        config: TenantConfig,
        tokens: TokenSource,
        ledger: Arc<dyn FeedLedger>,
        http: Client,
        places: &Places,
        cancel: CancellationToken,
    ) -> Result<CollectorHandle, BadApiAddress> {
        let grants = Arc::new(Grants::new(&config.name, &config.content_types));
        let api = config.api(tokens, http)?;
        let api = Arc::new(ActivityApi { grants: Some(Arc::clone(&grants)), ..api });
        let mut content_types = config.content_types.clone();
        content_types.sort_unstable();
        content_types.dedup();
        let feed = |content_type| FeedKey { tenant: config.tenant, content_type };
        let health = Arc::new(TenantHealth {
            name: config.name.clone(),
            tenant: config.tenant,
            feeds: content_types.iter().map(|kind| Arc::new(FeedHealth::new(feed(*kind)))).collect(),
            fetcher: FetcherHealth::default(),
            requests: Arc::clone(&api.requests),
            budget: Arc::clone(&api.budget),
            clock: Arc::clone(&api.clock),
            grants,
        });
        let (passed, passes) = watch::channel(Passes::none_of(&content_types));
        let tenant = Tenant {
            config,
            api: Arc::clone(&api),
            ledger,
            health: Arc::clone(&health),
            places: places.of_a_tenant(),
            passed,
            begun: Begun::now(),
        };
        let task = tokio::spawn(tenant.run(cancel));
        Ok(CollectorHandle { health, api, passes, task })
    }
}

/// A tenant that is being collected.
struct Tenant {
    config: TenantConfig,
    api: Arc<ActivityApi>,
    ledger: Arc<dyn FeedLedger>,
    health: Arc<TenantHealth>,
    places: TenantPlaces,
    passed: watch::Sender<Passes>,
    begun: Begun,
}

impl Tenant {
    async fn run(self, cancel: CancellationToken) -> Result<(), LedgerFailure> {
        let tenant = Arc::new(self);
        // Cancelled as well when the ledger fails for good, so that the others stop in order.
        let stop = cancel.child_token();
        let mut tasks = JoinSet::new();
        for feed in &tenant.health.feeds {
            let (tenant, feed, stop) = (Arc::clone(&tenant), Arc::clone(feed), stop.clone());
            tasks.spawn(async move { tenant.list(feed, &stop).await });
        }
        let (fetching, fetch_stop) = (Arc::clone(&tenant), stop.clone());
        tasks.spawn(async move { fetching.fetch(fetch_stop).await });
        let mut ended = Ok(());
        while let Some(joined) = tasks.join_next().await {
            let joined = joined.unwrap_or_else(|error| {
                Err(LedgerFailure { message: format!("a task ended badly: {error}"), passing: false })
            });
            if joined.is_err() {
                stop.cancel();
                ended = ended.and(joined);
            }
        }
        ended
    }

    async fn list(&self, feed: Arc<FeedHealth>, stop: &CancellationToken) -> Result<(), LedgerFailure> {
        let content_type = feed.feed.content_type;
        let mut lister = Lister {
            feed: feed.feed,
            api: Arc::clone(&self.api),
            ledger: Arc::clone(&self.ledger),
            clock: Arc::clone(&self.health.clock),
            tenant: Arc::clone(&self.health),
            health: Arc::clone(&feed),
            policy: self.config.policy,
            poll_interval: self.config.poll_interval,
            pacing: self.config.pacing,
            subscription: Subscribed::default(),
            begun: self.begun,
        };
        let passed = || self.passed.send_modify(|passes| passes.count(content_type));
        let once = self.config.listing == Listing::Once;
        loop {
            match AssertUnwindSafe(lister.run(once, &passed, stop)).catch_unwind().await {
                Ok(ended) => return ended,
                Err(panic) => {
                    feed.panics.add(1);
                    let error = format!(
                        "a panic: {}; this is a mistake of mailtrail, report it",
                        panic_message(&*panic)
                    );
                    tracing::error!(tenant = %self.health.name, content_type = %feed.feed.content_type, %error, "listing panicked");
                    feed.listing.set(Condition::Failing(Trouble::new(error)));
                }
            }
            let panics = u32::try_from(feed.panics.get()).unwrap_or(u32::MAX);
            if pause(self.config.pacing.retry_listing.after(panics), stop).await {
                return Ok(());
            }
        }
    }

    async fn fetch(&self, stop: CancellationToken) -> Result<(), LedgerFailure> {
        let fetcher = Arc::new(Fetcher {
            tenant: self.config.tenant,
            api: Arc::clone(&self.api),
            ledger: Arc::clone(&self.ledger),
            clock: Arc::clone(&self.health.clock),
            health: Arc::clone(&self.health),
            concurrency: self.config.fetch_concurrency,
            wires: Arc::new(Semaphore::new(self.config.fetch_concurrency.get())),
            places: self.places.clone(),
            aside: AtomicUsize::new(0),
            blob_max_bytes: self.config.blob_max_bytes,
            pacing: self.config.pacing,
            gates: Gates::default(),
            stop: stop.clone(),
        });
        loop {
            match AssertUnwindSafe(Arc::clone(&fetcher).run()).catch_unwind().await {
                Ok(ended) => return ended,
                Err(panic) => {
                    self.health.fetcher.panics.add(1);
                    let error = format!(
                        "a panic: {}; this is a mistake of mailtrail, report it",
                        panic_message(&*panic)
                    );
                    tracing::error!(tenant = %self.health.name, %error, "the fetcher panicked");
                    self.health.fetcher.status.set(Condition::Failing(Trouble::new(error)));
                }
            }
            if pause(self.config.pacing.breath.longest, &stop).await {
                return Ok(());
            }
        }
    }
}

/// Waits, and says whether it was stopped meanwhile.
async fn pause(wait: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(wait) => false,
    }
}
