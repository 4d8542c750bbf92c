//! The `splunk_hec` sink: Splunk's HTTP Event Collector, and what speaks its language.
//!
//! | file | what it holds |
//! |---|---|
//! | `splunk_hec.rs` | [`SplunkHecSink`]: the sink, and what becomes of one batch |
//! | `splunk_hec/config.rs` | [`HecConfig`]: how it is configured |
//! | `splunk_hec/envelope.rs` | from a batch to the body of a request; pure |
//! | `splunk_hec/answer.rs` | what a receiver's answers mean: the table of its codes; pure |
//! | `splunk_hec/endpoint.rs` | the receivers: balance, health, the channel of each |
//! | `splunk_hec/channel.rs` | a channel, and what is awaited on it |
//! | `splunk_hec/cookies.rs` | how a load balancer finds the same indexer again; pure |
//! | `splunk_hec/acknowledging.rs` | asking the indexer what it has |
//! | `splunk_hec/request.rs` | the HTTP client: TLS, proxy, token |
//! | `splunk_hec/counters.rs` | what it counts |
//! | `splunk_hec/trying.rs` | trying the receivers without sending an event |
//!
//! # What it promises
//!
//! * Every record at least once. A record comes twice only after an outcome that nobody knows (a cut connection, a time
//!   that ran out, a receiver that restarted, a process that was killed), and then it is counted as resent.
//! * With `acknowledgement = "indexer"` nothing is delivered before the indexer says that it has it. When it does not
//!   say so in time, the batch is sent again on a new channel. A token that does not acknowledge halts the sink: there
//!   is no way on with less than what was asked for.
//! * One record that the receiver will never take becomes a dead letter, alone.
//! * A batch that waits for its acknowledgement holds no bytes.

mod acknowledging;
mod answer;
mod channel;
mod config;
mod cookies;
mod counters;
mod endpoint;
mod envelope;
mod request;
#[cfg(test)]
mod tests;
mod trying;

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use schemas::SinkName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::config::{Acknowledgement, BadHecUrl, EventForm, HecConfig, HecNetwork, HecProxy, HecUrl, Tls};
use self::{
    answer::{ACKNOWLEDGEMENT_OFF, Meaning, NO_ANSWER, Said, meaning},
    channel::{Await, Channel, Fate},
    counters::{Counters, Levels},
    endpoint::{Endpoint, Pool},
    envelope::{Body, Unfit},
    request::{Answered, Requests, Unanswered},
};
use crate::{
    blocking::blocking,
    measure::Measure,
    sink::{
        Batch, BoxFuture, DeliverError, Disposition, Durability, Limits, Receipt, Sink, SinkContext,
        Unfinished,
    },
};

/// How many batches may await their acknowledgement. Each costs a few hundred bytes.
const MOST_AWAITED: usize = 2048;
/// How long acknowledgements are still awaited when the sink is about to halt.
const GRACE: Duration = Duration::from_secs(10);
/// What a delivery may take beyond the times that it is made of.
const SLACK: Duration = Duration::from_secs(30);

/// A sink that sends to Splunk's HTTP Event Collector.
pub struct SplunkHecSink {
    inner: Arc<Inner>,
}

struct Inner {
    context: SinkContext,
    config: HecConfig,
    pool: Pool,
    requests: Requests,
    counters: Counters,
    /// Why nothing more may be sent, when that was found out by a request whose events may have been taken.
    refused: Mutex<Option<String>>,
    /// Whether the sink is about to halt.
    halting: watch::Sender<bool>,
    /// Ends what runs in the background.
    stop: CancellationToken,
}

impl SplunkHecSink {
    /// A sink with these receivers. It asks nobody before it is opened.
    #[must_use]
    pub fn new(config: HecConfig, network: HecNetwork, context: SinkContext) -> Self {
        let inner = Inner {
            context,
            pool: Pool::new(&config.urls, config.connections),
            requests: Requests::new(config.clone(), network),
            config,
            counters: Counters::default(),
            refused: Mutex::default(),
            halting: watch::Sender::new(false),
            stop: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Drop for SplunkHecSink {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

impl Sink for SplunkHecSink {
    fn name(&self) -> &SinkName {
        &self.inner.context.name
    }

    fn limits(&self) -> Limits {
        let config = &self.inner.config;
        let requests = config.connections * config.urls.len();
        let (in_flight, acknowledging) = match config.acknowledgement {
            Acknowledgement::Indexer => (MOST_AWAITED.max(requests), config.ack_timeout),
            Acknowledgement::Accept => (requests, Duration::ZERO),
        };
        Limits {
            max_records: config.batch_events,
            max_bytes: config.batch_bytes,
            beside: 0,
            linger: config.linger,
            in_flight,
            ordered: in_flight == 1,
            // Its turn, the opening of the channel, the request itself, and then the acknowledgement.
            timeout: config.timeout * 3 + acknowledging + SLACK,
            exactly_once: false,
            whole_works: false,
        }
    }

    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        Box::pin(async move {
            let inner = &self.inner;
            inner.halting.send_replace(false);
            *inner.refused() = None;
            inner.requests.renew();
            inner.say_how_it_is_configured();
            // What a person has to do is found out before an event is sent; what can pass is left to the first batch.
            match inner.try_tokens().await {
                Err(error) if error.disposition == Disposition::Halt => Err(error),
                _ => Ok(Vec::new()),
            }
        })
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>> {
        Box::pin(async move {
            let result = self.inner.deliver(batch).await;
            if result.as_ref().is_err_and(|error| error.disposition == Disposition::Halt) {
                self.inner.halting.send_replace(true);
            }
            result
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>> {
        Box::pin(async move {
            self.inner.requests.renew();
            self.inner.probe().await
        })
    }

    fn untried(&self) -> Option<&'static str> {
        Some("index")
    }

    fn measures(&self) -> Vec<Measure> {
        let endpoints = self.inner.pool.endpoints();
        self.inner.counters.measures(Levels {
            acks_awaited: endpoints.iter().map(|endpoint| endpoint.awaited()).sum(),
            endpoints: endpoints.len(),
            healthy: endpoints.iter().filter(|endpoint| endpoint.is_healthy()).count(),
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.inner.stop.cancel() })
    }
}

impl Inner {
    fn say_how_it_is_configured(&self) {
        let name = &self.context.name;
        match self.config.acknowledgement {
            Acknowledgement::Indexer => info!(sink = %name, "delivered means: acknowledged by the indexer"),
            Acknowledgement::Accept => {
                info!(sink = %name, "delivered means: taken by the receiver; a crash of it can lose that");
            }
        }
        if self.config.tls.unverified {
            warn!(
                sink = %name,
                "VERIFICATION IS OFF (verify = false): whoever sits between here and Splunk can read and change every \
                 record and take the token; name the authority with ca_file instead"
            );
        }
        for url in self.config.urls.iter().filter(|url| url.is_in_the_clear()) {
            warn!(sink = %name, "{url} is not encrypted: the token and every record can be read on the way");
        }
    }

    /// Sends a batch, and awaits its acknowledgement when it is configured.
    async fn deliver(self: &Arc<Self>, batch: Batch) -> Result<Receipt, DeliverError> {
        let coverage = batch.coverage();
        let turn = self.pool.turn();
        let endpoint: &Arc<Endpoint> = &turn;
        let busy = || DeliverError::retry(format!("{}: earlier requests take too long", endpoint.url));
        let permit = tokio::time::timeout(self.config.timeout, endpoint.permits.acquire()).await;
        let permit = permit.map_err(|_| busy())?.expect("the permits are never closed");
        // The first request of a channel goes alone: its answer holds the cookie that leads to the same indexer.
        let mut opening = None;
        let channel = match self.config.acknowledgement {
            Acknowledgement::Accept => None,
            Acknowledgement::Indexer => {
                let deadline = tokio::time::Instant::now() + self.config.timeout;
                loop {
                    let channel = self.channel(endpoint);
                    if channel.is_open() {
                        break Some(channel);
                    }
                    let guard = tokio::time::timeout_at(deadline, channel.opening()).await;
                    let guard = guard.map_err(|_| busy())?;
                    if !channel.is_retired() {
                        opening = (!channel.is_open()).then_some(guard);
                        break Some(channel);
                    }
                }
            }
        };
        if let Some(why) = self.refused().clone() {
            return Err(DeliverError::halt(why));
        }
        let (batch, body) = self.encode(batch).await;
        let body = match body {
            Ok(body) => body,
            Err(records) => {
                let context = "some records cannot be sent".to_owned();
                return Err(DeliverError { disposition: Disposition::Reject { records }, context });
            }
        };
        self.counters.body(body.plain, body.bytes.len());
        let recovering = !endpoint.is_healthy();
        let sent = self
            .requests
            .events(&endpoint.event, channel.as_deref(), body.bytes, self.config.gzip, recovering)
            .await;
        let ack_id = self.conclude(endpoint, channel.as_ref(), sent, &batch)?;
        let Some(channel) = channel else {
            return Ok(Receipt::confirmed(coverage, Durability::Accepted));
        };
        let Some(ack_id) = ack_id else {
            let why =
                format!("{} took events without an acknowledgement id: {ACKNOWLEDGEMENT_OFF}", endpoint.url);
            // These events may be there. They go back as that, and the next batch finds the sink refused.
            *self.refused() = Some(why.clone());
            return Err(DeliverError::ambiguous(why));
        };
        channel.opened();
        let awaited = channel.awaits(ack_id);
        // From here on it holds ranges of the spool, and nothing else.
        drop((batch, opening, permit));
        let Ok((awaited, begin)) = awaited else {
            self.counters.ack_lost();
            return Err(DeliverError::ambiguous(format!(
                "{} gave the acknowledgement id {ack_id} a second time",
                endpoint.url
            )));
        };
        if begin {
            acknowledging::begin(self, endpoint, &channel);
        }
        let endpoint = Arc::clone(endpoint);
        drop(turn);
        self.acknowledged(&endpoint, &channel, awaited).await?;
        Ok(Receipt::confirmed(coverage, Durability::Indexed))
    }

    /// Waits for the indexer to say that it has it.
    async fn acknowledged(
        &self,
        endpoint: &Endpoint,
        channel: &Channel,
        mut awaited: Await,
    ) -> Result<(), DeliverError> {
        let patience = self.config.ack_timeout;
        let fate = tokio::select! {
            fate = tokio::time::timeout(patience, awaited.fate()) => fate.ok(),
            () = self.halted_for_long() => None,
        };
        let why = match fate {
            Some(Fate::Indexed) => return Ok(()),
            // These events were taken too, and nobody will ever say what became of them.
            Some(Fate::Halted(why)) => {
                *self.refused() = Some(why.clone());
                return Err(DeliverError::ambiguous(why));
            }
            Some(Fate::Unknown(why)) => why,
            None => {
                let trouble = awaited.trouble().map(|what| format!(" ({what})")).unwrap_or_default();
                format!("no acknowledgement within {patience:?}{trouble}")
            }
        };
        channel.retire();
        self.counters.ack_lost();
        Err(DeliverError::ambiguous(format!("{}: {why}", endpoint.url)))
    }

    async fn halted_for_long(&self) {
        let mut halting = self.halting.subscribe();
        // The sender lives as long as this does.
        let _ = halting.wait_for(|halting| *halting).await;
        tokio::time::sleep(GRACE).await;
    }

    /// The channel for the next request.
    fn channel(&self, endpoint: &Endpoint) -> Arc<Channel> {
        let (channel, new) = endpoint.channel();
        if new {
            self.counters.channel();
        }
        channel
    }

    /// Makes the body off the reactor's threads.
    async fn encode(self: &Arc<Self>, batch: Batch) -> (Batch, Result<Body, Unfit>) {
        let inner = Arc::clone(self);
        blocking(move || {
            let body = envelope::encode(&inner.config, &batch);
            (batch, body)
        })
        .await
    }

    /// What an answer to events means: taken, with what to ask the indexer about, or an error.
    fn conclude(
        &self,
        endpoint: &Endpoint,
        channel: Option<&Arc<Channel>>,
        sent: Result<Answered, Unanswered>,
        batch: &Batch,
    ) -> Result<Option<u64>, DeliverError> {
        let answered = match sent {
            Ok(answered) => answered,
            Err(unanswered) => {
                self.counters.request(None, None);
                return Err(self.unanswered(endpoint, channel, unanswered));
            }
        };
        let said = answered.said();
        self.counters.request(Some(answered.http), said.code);
        let what = self.told(endpoint, answered.http, &said);
        let retry = |after, ambiguous, context: String| DeliverError {
            disposition: Disposition::Retry { after, ambiguous },
            context,
        };
        match meaning(answered.http, answered.after, &said) {
            Meaning::Taken { ack_id, pressed } => {
                endpoint.succeeded();
                if pressed {
                    self.context.rate.slow_down(None);
                    if let Some(channel) = channel {
                        channel.ask_now.notify_one();
                    }
                }
                Ok(ack_id)
            }
            Meaning::Busy { after, ambiguous, acks_full } => {
                endpoint.failed(after);
                let after = self.after_rest(after);
                // One that is busy rests by itself; the sink is slowed down by the last of them.
                if self.pool.rest().is_some() {
                    self.context.rate.slow_down(after);
                }
                if let Some(channel) = channel.filter(|_| acks_full) {
                    channel.ask_now.notify_one();
                }
                Err(retry(after, ambiguous, what))
            }
            Meaning::Failed { after, ambiguous } => {
                endpoint.failed(after);
                let after = self.after_rest(after);
                // The next request may reach another indexer; what is awaited on this channel goes on.
                if let Some(channel) = channel {
                    channel.retire();
                }
                Err(retry(after, ambiguous, what))
            }
            Meaning::TooLarge => {
                let context =
                    format!("{what}: {} events of {} bytes are too large for it", batch.len(), batch.bytes());
                Err(DeliverError { disposition: Disposition::Split, context })
            }
            Meaning::Poisoned { suspect } => {
                Err(DeliverError { disposition: Disposition::Isolate { suspect }, context: what })
            }
            Meaning::WrongIndex { suspect } => {
                Err(DeliverError::halt(self.wrong_index(&what, suspect, batch)))
            }
            Meaning::Refused { advice } => Err(DeliverError::halt(format!("{what}; {advice}"))),
        }
    }

    /// How long a batch waits whose receiver asked for so long: not at all for that one's sake when another can take it.
    fn after_rest(&self, asked: Option<Duration>) -> Option<Duration> {
        let shortest = self.pool.rest().unwrap_or_default();
        asked.map(|asked| asked.min(shortest)).filter(|after| !after.is_zero())
    }

    fn unanswered(
        &self,
        endpoint: &Endpoint,
        channel: Option<&Arc<Channel>>,
        unanswered: Unanswered,
    ) -> DeliverError {
        if let Unanswered::Local(why) = unanswered {
            return DeliverError::halt(why);
        }
        endpoint.failed(None);
        if let Some(channel) = channel {
            channel.retire();
        }
        match unanswered {
            Unanswered::NotSent(why) => DeliverError::retry(format!("{}: {why}", endpoint.url)),
            Unanswered::Unknown(why) | Unanswered::Local(why) => {
                DeliverError::ambiguous(format!("{}: {why}", endpoint.url))
            }
        }
    }

    fn wrong_index(&self, what: &str, suspect: Option<usize>, batch: &Batch) -> String {
        let named = suspect.and_then(|suspect| batch.records().nth(suspect)).and_then(|(work, _)| {
            let index = self.config.index.as_ref()?;
            Some(vec![index.expand(work)])
        });
        let indexes = named.unwrap_or_else(|| envelope::indexes(&self.config, batch));
        let indexes = match &indexes[..] {
            [] => "the token's default index".to_owned(),
            [index] => format!("index `{index}`"),
            several => format!("one of the indexes `{}`", several.join("`, `")),
        };
        format!(
            "{what}; {indexes} does not exist or is not allowed for the token: create it, or add it to the token's \
             allowed indexes (Settings > Data inputs > HTTP Event Collector), or change `index`"
        )
    }

    /// What a receiver answered, in words.
    fn told(&self, endpoint: &Endpoint, http: u16, said: &Said) -> String {
        let mut told = format!("{} answered {http}", endpoint.url);
        // Writing into a text cannot fail.
        let _ = match (said.code, said.text.as_str()) {
            (Some(code), "") => write!(told, ", code {code}"),
            (Some(code), text) => write!(told, ", code {code}: {text}"),
            (None, "") => Ok(()),
            (None, text) => write!(told, ": {text}"),
        };
        if said.foreign && (200..300).contains(&http) {
            told.push_str("; ");
            told.push_str(NO_ANSWER);
        }
        told
    }

    fn refused(&self) -> MutexGuard<'_, Option<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
