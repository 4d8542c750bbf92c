//! What the servers share.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicI64},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use schemas::{ContentType, TenantId};
use tokio::sync::watch;

use crate::{
    SimulatorConfig, TenantConfig,
    cast::Cast,
    clock::Clock,
    fault_desk::FaultDesk,
    feed::{BlobNumber, Feed},
    stats::Stats,
    token::Mint,
};

/// Locks, whatever became of whoever held the lock before: everything behind these locks is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running simulation.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: SimulatorConfig,
    pub(crate) clock: Clock,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) faults: FaultDesk,
    pub(crate) stats: Stats,
    pub(crate) mint: Mint,
    /// Tokens issued before this instant (milliseconds since 1970) are no longer good.
    pub(crate) revoked_before: AtomicI64,
    /// The origin that no token should ever reach.
    pub(crate) other_origin: String,
    /// Becomes true when the simulation stops; ends stalled answers.
    pub(crate) stop: watch::Receiver<bool>,
}

/// A tenant of a running simulation.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) config: TenantConfig,
    pub(crate) cast: Cast,
    feeds: Vec<LiveFeed>,
    /// Requests in the running minute, by publisher.
    quota: Mutex<HashMap<String, (Instant, u32)>>,
}

/// A feed and what clients did with it.
#[derive(Debug)]
pub(crate) struct LiveFeed {
    pub(crate) feed: Feed,
    pub(crate) subscription: Mutex<Subscription>,
    snapshots: Mutex<VecDeque<(SnapshotKey, Arc<[BlobNumber]>)>>,
    /// Blobs that were served whole.
    pub(crate) served: Mutex<HashSet<BlobNumber>>,
}

/// A listing's window and the instant at which its first page was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SnapshotKey {
    pub(crate) start: DateTime<Utc>,
    pub(crate) end: DateTime<Utc>,
    pub(crate) at: DateTime<Utc>,
}

/// The subscription to a content type.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subscription {
    pub(crate) enabled: bool,
    /// Whether it was enabled ever.
    pub(crate) known: bool,
    /// When it was enabled; none when it was enabled from the beginning.
    pub(crate) started: Option<DateTime<Utc>>,
    /// When a start was asked for last.
    pub(crate) asked: Option<DateTime<Utc>>,
}

impl Tenant {
    pub(crate) fn new(simulation: &SimulatorConfig, config: TenantConfig, anchor: DateTime<Utc>) -> Self {
        let cast = Cast::new(
            simulation.seed,
            config.tenant_id,
            &config.domain,
            simulation.users,
            simulation.shared_mailboxes,
            simulation.group_mailboxes,
        );
        let detail = config.has_role("ActivityFeed.ReadDlp");
        let enabled = simulation.subscribed;
        let feeds = ContentType::ALL
            .into_iter()
            .map(|content_type| LiveFeed {
                feed: Feed::new(simulation, config.tenant_id, content_type, anchor, detail),
                subscription: Mutex::new(Subscription {
                    enabled,
                    known: enabled,
                    started: None,
                    asked: None,
                }),
                snapshots: Mutex::default(),
                served: Mutex::default(),
            })
            .collect();
        Self { config, cast, feeds, quota: Mutex::default() }
    }

    pub(crate) fn live(&self, content_type: ContentType) -> &LiveFeed {
        self.feeds
            .iter()
            .find(|live| live.feed.content_type == content_type)
            .expect("a tenant has a feed for every content type")
    }

    pub(crate) fn all(&self) -> &[LiveFeed] {
        &self.feeds
    }

    pub(crate) fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.feeds.iter().map(|live| &live.feed)
    }

    /// Counts a request against the publisher's quota. Gives the time until the minute is over when it is used up.
    pub(crate) fn count_request(&self, publisher: &str, per_minute: u32) -> Result<(), Duration> {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut quota = lock(&self.quota);
        let now = Instant::now();
        // Publishers that were silent for a minute are forgotten, so that inventing names costs nothing.
        if quota.len() > 1000 {
            quota.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
        }
        let (since, count) = quota.entry(publisher.to_owned()).or_insert((now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        if *count >= per_minute {
            return Err(MINUTE.saturating_sub(now.duration_since(*since)));
        }
        *count += 1;
        Ok(())
    }
}

impl LiveFeed {
    /// The blobs of a listing, the same on all of its pages. The last few listings are kept; an older one is made
    /// again, which gives the same blobs, because a listing depends on its key only.
    pub(crate) fn snapshot(
        &self,
        key: SnapshotKey,
        arrange: impl FnOnce(Vec<BlobNumber>) -> Vec<BlobNumber>,
    ) -> Arc<[BlobNumber]> {
        if let Some((_, kept)) = lock(&self.snapshots).iter().find(|(known, _)| *known == key) {
            return Arc::clone(kept);
        }
        let window: Range<_> = key.start..key.end;
        let made: Arc<[_]> = arrange(self.feed.listed(window, key.at)).into();
        let mut snapshots = lock(&self.snapshots);
        if snapshots.len() >= 8 {
            snapshots.pop_front();
        }
        snapshots.push_back((key, Arc::clone(&made)));
        made
    }
}

impl State {
    pub(crate) fn tenant(&self, id: TenantId) -> Option<&Tenant> {
        self.tenants.iter().find(|tenant| tenant.config.tenant_id == id)
    }

    /// The origin under which the client reaches the API.
    pub(crate) fn origin(&self, host: &str) -> String {
        self.config
            .public_url
            .as_deref()
            .map_or_else(|| format!("http://{host}"), |url| url.trim_end_matches('/').to_owned())
    }
}
