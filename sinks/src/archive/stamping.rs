//! Time-stamps of the chains' heads (RFC 3161), beside the archive's work and never in its way.
//!
//! When an entry is put it is noted here, and a task of its own asks the authority and puts the answer beside the entry.
//! Each chain waits with its newest head only, because that speaks for all entries before it: an authority that is away
//! for a day costs a day's time-stamps and neither memory nor, when it is back, a flood of requests. Nothing of this is in
//! the ledger; what is missing after a start is seen in the archive.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use archive::{
    ChainKey, Hash, Head, Source, Store, StoreError, Timestamp, TimestampError, TimestampQuery,
    timestamp::ANSWER_BYTES,
};
use bytes::Bytes;
use entra::error::causes;
use reqwest::{Client, StatusCode, header};
use schemas::{SinkName, TenantId};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use url::Url;
use uuid::Uuid;

use crate::{
    http_answer,
    measure::{Measure, Reading},
};

/// How long an authority may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The pauses after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// A time-stamping authority.
#[derive(Debug, Clone)]
pub struct TimestampAuthority {
    url: Url,
    http: Client,
}

/// There is no time-stamp.
#[derive(Debug, thiserror::Error)]
pub enum NoTimestamp {
    /// The authority cannot be reached.
    #[error("cannot reach {url}: {why}")]
    Unreachable {
        /// Where it should be.
        url: Url,
        /// What happened.
        why: String,
    },
    /// It answers something else.
    #[error("{url} answers HTTP {status} instead of a time-stamp; check timestamp_url")]
    Status {
        /// Where it is.
        url: Url,
        /// The status.
        status: StatusCode,
    },
    /// It answers more than a time-stamp can have.
    #[error("{url} answers more than {ANSWER_BYTES} bytes, which is no time-stamp; check timestamp_url")]
    TooLong {
        /// Where it is.
        url: Url,
    },
    /// What it answers is no time-stamp.
    #[error("what {url} answers cannot be used: {error}")]
    Unfit {
        /// Where it is.
        url: Url,
        /// Why.
        error: TimestampError,
    },
    /// It cannot be put into the archive.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TimestampAuthority {
    /// The authority at this address, which is reached through this client.
    #[must_use]
    pub fn new(url: Url, http: Client) -> Self {
        Self { url, http }
    }

    /// Asks for a time-stamp of this hash. The answer is given as it came, and as it was read.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn ask(&self, imprint: Hash) -> Result<(Bytes, Timestamp), NoTimestamp> {
        // Of a random UUID, which has fixed bits, the half with fewer of them.
        let query = TimestampQuery { imprint, nonce: Uuid::new_v4().as_u64_pair().1 };
        let unreachable = |error: reqwest::Error| {
            let in_time = !error.is_timeout();
            let why = if in_time { causes(error) } else { format!("no answer within {TIMEOUT:?}") };
            NoTimestamp::Unreachable { url: self.url.clone(), why }
        };
        let answer = self
            .http
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/timestamp-query")
            .header(header::ACCEPT, "application/timestamp-reply")
            .timeout(TIMEOUT)
            .body(query.to_der())
            .send()
            .await
            .map_err(unreachable)?;
        if !answer.status().is_success() {
            return Err(NoTimestamp::Status { url: self.url.clone(), status: answer.status() });
        }
        let bytes = http_answer::body(answer, ANSWER_BYTES + 1).await.map_err(unreachable)?;
        if bytes.len() > ANSWER_BYTES {
            return Err(NoTimestamp::TooLong { url: self.url.clone() });
        }
        let checked = query.check(&bytes);
        let timestamp = checked.map_err(|error| NoTimestamp::Unfit { url: self.url.clone(), error })?;
        Ok((bytes.into(), timestamp))
    }
}

/// The heads that wait for a time-stamp.
#[derive(Debug, Default)]
struct Waiting {
    heads: BTreeMap<TenantId, (ChainKey, Head)>,
    /// The last attempt failed.
    failing: bool,
}

/// See the module. Dropping it ends the task.
#[derive(Debug)]
pub(super) struct Stamping {
    shared: Arc<Shared>,
    /// The task, while there is one.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    sink: SinkName,
    authority: TimestampAuthority,
    waiting: Mutex<Waiting>,
    /// There is a new head.
    added: Notify,
    /// Nothing waits any more, or an attempt failed.
    settled: Notify,
    stamped: AtomicU64,
    failed: AtomicU64,
}

impl Stamping {
    pub(super) fn new(sink: SinkName, authority: TimestampAuthority) -> Self {
        let shared = Shared {
            sink,
            authority,
            waiting: Mutex::default(),
            added: Notify::new(),
            settled: Notify::new(),
            stamped: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), task: Mutex::default() }
    }

    /// A head wants a time-stamp. It takes the place of an older one of its chain.
    pub(super) fn add(&self, chain: ChainKey, head: Head) {
        self.shared.waiting().heads.insert(chain.tenant, (chain, head));
        self.shared.added.notify_one();
    }

    /// Begins to work for this store, and no other one.
    pub(super) fn start(&self, store: Store) {
        let task = tokio::spawn(Arc::clone(&self.shared).work(store));
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(AbortOnDropHandle::new(task));
    }

    /// Stops working.
    pub(super) fn stop(&self) {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Waits until nothing waits any more, or it failed, or so long.
    pub(super) async fn settle(&self, at_most: Duration) {
        let settled = async {
            loop {
                let changed = self.shared.settled.notified();
                let (done, failing) = {
                    let waiting = self.shared.waiting();
                    (waiting.heads.is_empty(), waiting.failing)
                };
                if done || failing {
                    return;
                }
                changed.await;
            }
        };
        // What is not stamped by then is at the next start.
        let _ = tokio::time::timeout(at_most, settled).await;
    }

    pub(super) fn measures(&self) -> Vec<Measure> {
        let count = |counter: &AtomicU64| Reading::Counter(counter.load(Ordering::Relaxed));
        let waiting = self.shared.waiting().heads.len();
        vec![
            Measure::alone(
                "archive_timestamps_total",
                "Heads of manifests that got a time-stamp.",
                count(&self.shared.stamped),
            ),
            Measure::alone(
                "archive_timestamp_failures_total",
                "Attempts to get a time-stamp that failed and are made again.",
                count(&self.shared.failed),
            ),
            Measure::alone(
                "archive_timestamps_waiting",
                "Heads of manifests that have no time-stamp yet.",
                Reading::Gauge(waiting as f64),
            ),
        ]
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(self: Arc<Self>, store: Store) {
        let mut pause = PAUSES.0;
        loop {
            match self.stamp_all(&store).await {
                Ok(()) => {
                    pause = PAUSES.0;
                    self.added.notified().await;
                }
                Err(error) => {
                    self.told(&error, pause);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    fn told(&self, error: &NoTimestamp, pause: Duration) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let waiting = {
            let mut waiting = self.waiting();
            waiting.failing = true;
            waiting.heads.len()
        };
        self.settled.notify_waiters();
        warn!(
            sink = %self.sink,
            "{waiting} heads of manifests have no time-stamp yet: {error}; the archive goes on without, and it is tried \
             again in {pause:?}"
        );
    }

    /// Stamps every head that waits; one that cannot be stamped does not keep the others.
    async fn stamp_all(&self, store: &Store) -> Result<(), NoTimestamp> {
        let heads: Vec<(ChainKey, Head)> = self.waiting().heads.values().copied().collect();
        let mut failed = None;
        for (chain, head) in heads {
            match self.stamp(store, chain, head).await {
                Ok(()) => {
                    let mut waiting = self.waiting();
                    waiting.failing = false;
                    // A newer one may have come meanwhile.
                    if waiting.heads.get(&chain.tenant) == Some(&(chain, head)) {
                        waiting.heads.remove(&chain.tenant);
                    }
                }
                // The others would wait for the same.
                Err(error @ NoTimestamp::Unreachable { .. }) => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        self.settled.notify_waiters();
        failed.map_or(Ok(()), Err)
    }

    async fn stamp(&self, store: &Store, chain: ChainKey, head: Head) -> Result<(), NoTimestamp> {
        let path = chain.timestamp(head.number);
        if store.head(&path).await?.is_some() {
            return Ok(());
        }
        let (answer, timestamp) = self.authority.ask(head.sha256).await?;
        match store.put_new(&path, Source::Bytes(answer.clone()), &Hash::of(&answer)).await {
            Ok(_) => {}
            // Another one lies there since: it is never replaced.
            Err(StoreError::OtherBytes { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.stamped.fetch_add(1, Ordering::Relaxed);
        info!(sink = %self.sink, tenant = %chain.tenant, %head, time = %timestamp.time, "the head has a time-stamp");
        Ok(())
    }
}
