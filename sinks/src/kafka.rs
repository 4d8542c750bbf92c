//! The `kafka` sink: one record a message, exactly once with transactions, otherwise at least once.
//!
//! | file | what it holds |
//! |---|---|
//! | `kafka.rs` | [`KafkaSink`]: the sink; what blocks is on threads of its own |
//! | `kafka/config.rs` | [`KafkaConfig`]: the keys of the configuration |
//! | `kafka/message.rs` | topic, key, time and headers of a message; what is too large. Pure |
//! | `kafka/client.rs` | librdkafka's settings, and what it tells |
//! | `kafka/connection.rs` | the connected producer, and the batches that use it |
//! | `kafka/producer.rs` | a connected producer: sends batches, with or without a transaction |
//! | `kafka/tally.rs` | the reports of a batch |
//! | `kafka/progress.rs` | how far each tenant is, in the progress topic |
//! | `kafka/state.rs` | what the ledger keeps for it, and what is there already. Pure |
//! | `kafka/inspect.rs` | what can be found out without sending a record |
//! | `kafka/verdict.rs` | what an error means. Pure |
//! | `kafka/oauth.rs`, `kafka/figures.rs` | access tokens; what it counts |
//!
//! # What it promises
//!
//! * A receipt is made when the brokers have acknowledged every message of the batch with all replicas that are in sync,
//!   or have committed the transaction.
//! * The producer is idempotent: what librdkafka sends again after a lost answer is there once, and in order.
//! * With transactions every record is there exactly once for whoever reads what is committed, whatever crashed and
//!   when: progress is committed with the records (`kafka/progress.rs`), and the ledger has the number that it refers to
//!   (`kafka/state.rs`). When nobody knows whether a transaction was committed, the progress topic is asked.
//! * Without, what may have arrived is sent again, and counted. What was acknowledged of a batch that failed as a whole
//!   is not sent again by this process.
//! * Another ledger's progress, and another producer with the same transactional id, halt the sink. Only an operator
//!   overrules that.
//! * Records with the same key stay in order. With transactions one batch is under way at a time. Without, several are, and
//!   after a failure none of them goes on (`kafka/connection.rs`).

mod client;
mod config;
mod connection;
mod figures;
mod inspect;
mod message;
mod oauth;
mod producer;
mod progress;
mod state;
mod tally;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verdict;

use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::ClientConfig;
use schemas::{SinkName, TenantId};
use tokio::{runtime::Handle, sync::oneshot};
use tracing::{info, warn};

use self::{
    client::Context,
    connection::{Connection, discard},
    figures::Figures,
    message::Shape,
    producer::{Attempt, Producer, Shaping},
    progress::{Open, Place, Progress},
    state::{Plan, Standing, State},
    tally::{CancelOnDrop, Tally},
};
pub use self::{
    config::{
        ClientCertificate, Compression, KafkaConfig, Key, Login, Mechanism, Oversize, Preset, Timestamp, Tls,
        Transactions, is_topic_name, refused_setting, usual_delivery_timeout,
    },
    oauth::{Oidc, Tokens},
    state::adopt,
};
use crate::{
    delivery_ledger::{BodyId, SinkIdentity, WorkId},
    measure::Measure,
    sink::{Batch, BoxFuture, DeliverError, Durability, Limits, Receipt, Sink, SinkContext, Unfinished},
};

/// With transactions a batch is as large as what may be read ahead makes sensible.
const TRANSACTION_BYTES: usize = 2 << 20;
/// Otherwise it is smaller, and more of them are under way: what the brokers have to answer is the same, and places that
/// are free are filled sooner.
const BATCH_BYTES: usize = 1 << 20;
const BATCHES: usize = 6;
const BATCH_RECORDS: usize = 20_000;
const LINGER: Duration = Duration::from_millis(100);

/// Writes records to topics of Apache Kafka.
pub struct KafkaSink {
    context: SinkContext,
    config: KafkaConfig,
    settings: ClientConfig,
    /// Topics that it is known to write to.
    topics: Vec<String>,
    shaping: Arc<Shaping>,
    client: Context,
    figures: Arc<Figures>,
    connection: Connection,
    plan: Mutex<Arc<Plan>>,
    /// Another producer took over. It stays so: to come back would lock that one out.
    fenced: AtomicBool,
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSinkError {
    /// librdkafka refuses a setting.
    #[error("librdkafka refuses {key} = \"{value}\": {why}")]
    Setting {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
        /// Why.
        why: String,
    },
    /// The settings together do not work.
    #[error("the settings do not work: {0}")]
    Settings(String),
}

impl KafkaSink {
    /// A sink for these brokers. `topics` are those that it will write to as far as that is known; whether they exist is
    /// looked at when it is opened. It connects to nothing before. It has to be made within a runtime.
    ///
    /// # Errors
    ///
    /// When the configuration cannot work.
    pub fn new(
        config: KafkaConfig,
        tokens: Option<Tokens>,
        topics: Vec<String>,
        context: SinkContext,
    ) -> Result<Self, KafkaSinkError> {
        let settings = client::settings(&config);
        client::producer_settings(&config, &settings).create_native_config().map_err(
            |error| match error {
                rdkafka::error::KafkaError::ClientConfig(_, why, key, value) => {
                    KafkaSinkError::Setting { key, value, why }
                }
                other => KafkaSinkError::Settings(other.to_string()),
            },
        )?;
        let figures = Arc::new(Figures::default());
        let shaping = Shaping { shape: Shape::new(&config), topic: config.topic.clone() };
        Ok(Self {
            client: Context::new(context.name.clone(), Arc::clone(&figures), tokens),
            context,
            config,
            settings,
            topics,
            shaping: Arc::new(shaping),
            figures,
            connection: Connection::new(),
            plan: Mutex::default(),
            fenced: AtomicBool::new(false),
        })
    }

    fn plan(&self) -> MutexGuard<'_, Arc<Plan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_plan(&self, change: impl FnOnce(&mut Plan)) {
        change(Arc::make_mut(&mut self.plan()));
    }

    async fn identity(&self) -> Result<Option<SinkIdentity>, DeliverError> {
        let identity = self.context.ledger.identity(&self.context.name).await;
        identity.map_err(|failure| DeliverError::retry(failure.message))
    }

    fn place(&self) -> Option<(String, String)> {
        let transactions = self.config.transactions.as_ref()?;
        Some((transactions.progress_topic.clone(), transactions.transactional_id.clone()))
    }

    /// The progress of all tenants.
    async fn progress(
        &self,
        settings: &ClientConfig,
        open: Open,
    ) -> Result<BTreeMap<TenantId, Progress>, DeliverError> {
        let Some((topic, transactional_id)) = self.place() else { return Ok(BTreeMap::new()) };
        let (settings, client) = (settings.clone(), self.client.clone());
        on_thread(move || {
            let place = Place { topic: &topic, transactional_id: &transactional_id };
            progress::read(&settings, &client, place, open)
        })
        .await
    }

    /// Whether the progress is another's, unless that is to be overruled.
    fn judge(
        &self,
        progress: &BTreeMap<TenantId, Progress>,
        state: Option<&State>,
        identity: Option<&SinkIdentity>,
    ) -> Result<(), DeliverError> {
        let Some((topic, id)) = self.place() else { return Ok(()) };
        if state.is_some_and(|state| state.adopt) {
            return Ok(());
        }
        let sink = &self.context.name;
        match state::standing(progress, identity, state) {
            Standing::Ours => Ok(()),
            Standing::Foreign { ledger } => {
                let this =
                    identity.map_or("has no ledger yet".to_owned(), |of| format!("has ledger {}", of.ledger));
                Err(DeliverError::halt(format!(
                    "the progress topic {topic} says that ledger {ledger} delivers as {id}, and this mailtrail {this}: \
                     another one is configured alike (give this one another transactional_id), or the state directory \
                     was lost and made anew. If this one is to go on, run `mailtrail sinks adopt {sink}`; what the \
                     other has delivered and Microsoft still has then comes again"
                )))
            }
            Standing::Ahead => Err(DeliverError::halt(format!(
                "the progress topic {topic} is ahead of the ledger: another mailtrail goes on with a copy of this state \
                 directory (stop this one), or this one is an older copy. Bring back the newest; or run `mailtrail sinks \
                 adopt {sink}`, and what was delivered since then comes again"
            ))),
        }
    }

    /// Looks at the topics, and whose progress there is, before anybody is locked out.
    async fn look(
        &self,
        settings: &ClientConfig,
        state: Option<&State>,
        identity: Option<&SinkIdentity>,
    ) -> Result<(), DeliverError> {
        let (settings_, client, topics) = (settings.clone(), self.client.clone(), self.topics.clone());
        let (place, runtime) = (self.place(), Handle::current());
        let may_describe = self.config.preset == Preset::Kafka;
        on_thread(move || {
            inspect::topics(&settings_, &client, &topics)?;
            if let Some((topic, _)) = place {
                inspect::topics(&settings_, &client, std::slice::from_ref(&topic)).map_err(|error| {
                    DeliverError {
                        context: format!(
                            "{error}; the progress topic is needed for transactions, with one partition and \
                             cleanup.policy=compact"
                        ),
                        ..error
                    }
                })?;
                if may_describe {
                    inspect::compacted(&settings_, &client, &topic, &runtime)?;
                }
            }
            Ok(())
        })
        .await?;
        // One that a killed predecessor left open is ended by whoever connects, who reads again then.
        let progress = self.progress(settings, Open::Ignored).await?;
        if self.judge(&progress, state, identity).is_err() {
            // Another command may look beside the process that delivers, which has gone on since the state was read. A
            // state is durable before its transaction begins, so the one that is there now is not behind what was read
            // from the topic, if that is this ledger's.
            let (identity, state) = (self.identity().await?, self.context.stored(State::decode).await?);
            self.judge(&progress, state.as_ref(), identity.as_ref())?;
        }
        Ok(())
    }

    /// Connects, and finds out what the brokers have.
    async fn connect(
        &self,
        state: Option<&State>,
        identity: &SinkIdentity,
    ) -> Result<(Producer, BTreeMap<TenantId, Progress>), DeliverError> {
        let settings = client::with_secrets(&self.config, &self.settings).await?;
        self.look(&settings, state, Some(identity)).await?;
        let producer_settings = client::producer_settings(&self.config, &settings);
        let (config, client, figures) = (self.config.clone(), self.client.clone(), Arc::clone(&self.figures));
        let of = identity.clone();
        let producer =
            on_thread(move || Producer::connect(&config, &producer_settings, client, figures, Some(&of)))
                .await?;
        // What an earlier producer had under way is decided only now.
        let progress = self.progress(&settings, Open::Awaited).await?;
        if let Err(error) = self.judge(&progress, state, Some(identity)) {
            discard(Arc::new(producer));
            return Err(error);
        }
        Ok((producer, progress))
    }

    /// Makes the progress this ledger's, because an operator has said so. What is this ledger's already stays as it is.
    async fn overrule(
        &self,
        producer: Producer,
        state: State,
        progress: &mut BTreeMap<TenantId, Progress>,
        identity: &SinkIdentity,
    ) -> Result<(Producer, State), DeliverError> {
        let others = state::not_ours(progress, identity, &state);
        let (state, number) = state.adopted(progress, identity);
        let (producer, adopted) = {
            let others = others.clone();
            on_thread(move || {
                let adopted = producer.adopt(&others, number);
                (producer, adopted)
            })
            .await
        };
        if let Err(error) = adopted {
            discard(Arc::new(producer));
            return Err(error);
        }
        self.context.keep(state.encode()).await?;
        warn!(
            sink = %self.context.name,
            "goes on with this ledger, as `mailtrail sinks adopt` asked; the progress of {} tenants was overruled",
            others.len()
        );
        progress.extend(others.into_iter().map(|tenant| (tenant, Progress::new(identity, number))));
        Ok((producer, state))
    }

    fn refuse_when_fenced(&self) -> Result<(), DeliverError> {
        match self.place() {
            Some((_, id)) if self.fenced.load(Ordering::Relaxed) => {
                Err(DeliverError::halt(producer::fenced(&id)))
            }
            _ => Ok(()),
        }
    }

    /// Who the sink is; without transactions nobody asks.
    async fn known_identity(&self) -> Result<SinkIdentity, DeliverError> {
        match self.identity().await? {
            Some(identity) => Ok(identity),
            None if self.config.transactions.is_none() => {
                Ok(SinkIdentity { ledger: String::new(), incarnation: 0 })
            }
            None => Err(DeliverError::retry("the ledger has not met the sink yet")),
        }
    }
}

impl Sink for KafkaSink {
    fn name(&self) -> &SinkName {
        &self.context.name
    }

    fn limits(&self) -> Limits {
        let transactions = self.config.transactions.is_some();
        let timeout = self.config.delivery_timeout;
        Limits {
            max_records: BATCH_RECORDS,
            max_bytes: if transactions { TRANSACTION_BYTES } else { BATCH_BYTES },
            beside: 0,
            linger: LINGER,
            // A transaction is for one batch, and the next one says what it committed.
            in_flight: if transactions { 1 } else { BATCHES },
            ordered: true,
            // Longer than anything may take that ends by itself: connecting, sending, committing, aborting.
            timeout: timeout * 3 + Duration::from_secs(300),
            exactly_once: transactions,
            whole_works: transactions,
        }
    }

    fn open(&self) -> BoxFuture<'_, Result<Vec<Unfinished>, DeliverError>> {
        Box::pin(async move {
            self.refuse_when_fenced()?;
            if let Some(producer) = self.connection.replace(None) {
                discard(producer);
            }
            let identity = self.known_identity().await?;
            let state = self.context.stored(State::decode).await?;
            let (mut producer, mut progress) = self.connect(state.as_ref(), &identity).await?;
            let mut unfinished = Vec::new();
            if self.config.transactions.is_some() {
                let mut state = state.unwrap_or_default();
                if state.adopt {
                    (producer, state) = self.overrule(producer, state, &mut progress, &identity).await?;
                }
                let plan = Plan::new(state, &progress, &identity);
                unfinished = plan.unfinished();
                if !unfinished.is_empty() {
                    info!(
                        sink = %self.context.name,
                        "{} works were committed in part or not settled; what the brokers have is not sent again",
                        unfinished.len()
                    );
                }
                *self.plan() = Arc::new(plan);
            }
            self.connection.replace(Some(Arc::new(producer)));
            Ok(unfinished)
        })
    }

    /// What was committed of each work is known by itself, and one that is spooled again has a later number.
    fn may_overtake_unfinished(&self) -> bool {
        true
    }

    fn state(&self, finished: &[WorkId], _next: Option<&Batch>) -> Option<Vec<u8>> {
        let mut state = None;
        self.change_plan(|plan| state = Some(plan.next_state(finished).encode()));
        state
    }

    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Result<Receipt, DeliverError>> {
        // Its place is taken now, and not when this is first polled: batches come in order.
        let using = self.connection.enter();
        Box::pin(async move {
            self.refuse_when_fenced()?;
            let mut using = using?;
            let producer = match using.producer() {
                Some(producer) => producer,
                None => {
                    let identity = self.known_identity().await?;
                    let state = self.context.stored(State::decode).await?;
                    let (producer, progress) = self.connect(state.as_ref(), &identity).await?;
                    self.change_plan(|plan| plan.learn(&progress, &identity));
                    using.connected(producer)
                }
            };
            let place = using.turn().await?;
            let (plan, shaping, tally) = (Arc::clone(&self.plan()), Arc::clone(&self.shaping), Tally::new());
            let coverage = batch.coverage();
            let records: Vec<(WorkId, Option<BodyId>, u32)> =
                batch.records().map(|(work, record)| (work.id, work.body, record.position)).collect();
            let cancel = CancelOnDrop(Arc::clone(&tally));
            let attempt = on_thread(move || producer.deliver(batch, &plan, &shaping, &tally, place)).await;
            drop(cancel);
            let Attempt { result, arrived, usable, fenced, committed } = attempt;
            using.ended(result.is_ok(), usable);
            if fenced {
                self.fenced.store(true, Ordering::Relaxed);
            }
            self.change_plan(|plan| {
                for of in &committed {
                    plan.committed(of);
                }
                if result.is_ok() {
                    records.iter().for_each(|&(work, body, position)| plan.received(work, body, position));
                }
                for &(work, body, position) in
                    arrived.into_iter().filter_map(|index| records.get(index as usize))
                {
                    plan.arrived(work, body, position);
                }
            });
            result.map(|()| Receipt::confirmed(coverage, Durability::Replicated))
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), DeliverError>> {
        Box::pin(async move {
            self.refuse_when_fenced()?;
            let settings = client::with_secrets(&self.config, &self.settings).await?;
            let (identity, state) = (self.identity().await?, self.context.stored(State::decode).await?);
            self.look(&settings, state.as_ref(), identity.as_ref()).await?;
            if self.config.preset == Preset::EventHubs {
                return Ok(());
            }
            let (client, mut topics) = (self.client.clone(), self.topics.clone());
            topics.extend(self.place().map(|(topic, _)| topic));
            on_thread(move || {
                topics.iter().try_for_each(|topic| inspect::writable(&settings, &client, topic))
            })
            .await
        })
    }

    fn untried(&self) -> Option<&'static str> {
        let tried = self.config.preset == Preset::Kafka || self.config.transactions.is_some();
        (!tried).then_some("whether Event Hubs takes a record")
    }

    fn measures(&self) -> Vec<Measure> {
        self.figures.measures(self.config.transactions.is_some())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(producer) = self.connection.replace(None) {
                on_thread(move || drop(producer)).await;
            }
        })
    }
}

/// Does what blocks on a thread of its own. Threads of the runtime would hold up its end when they hang, and librdkafka
/// does until its timeouts are over.
async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new().name("kafka sink".to_owned()).spawn(move || {
        // Nobody may be waiting any more; then what was made is dropped here.
        let _ = sender.send(work());
    });
    let thread = thread.expect("the system can start a thread");
    match receiver.await {
        Ok(done) => done,
        // Only a panic drops the sender without a word.
        Err(_) => match thread.join() {
            Err(panic) => resume_unwind(panic),
            Ok(()) => unreachable!("a thread that ends well has sent"),
        },
    }
}
