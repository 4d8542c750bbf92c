//! A connected producer: sends batches, with or without a transaction. Everything here blocks.
//!
//! Without transactions the next batch may be sent before this one is acknowledged. When one fails, the producer is closed
//! ([`Producer::close`]): nothing leaves any more, and what has left is waited for. Of each partition the broker has taken
//! messages up to one and none behind it then, because it refuses what comes after a gap in an idempotent producer's
//! numbers, and librdkafka does not fill the gap (`enable.gapless.guarantee`).
//!
//! A producer whose transaction failed is not used again either. When librdkafka takes messages back it gives their numbers
//! to the next ones (`rd_kafka_toppar_purge_queues`), also when they had left and only the answer was lost. The broker then
//! has messages with these numbers, in the transaction that was aborted, takes the next ones for a repetition, and
//! acknowledges what it does not write. A new producer has an epoch of its own, and counts from 0.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext as _,
    error::KafkaError,
    producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use schemas::TenantId;
use tracing::{debug, info};

use super::{
    client::Context,
    config::{KafkaConfig, Transactions},
    figures::{Ending, Figures},
    message::{Body, Shape},
    progress::{self, Progress},
    state::Plan,
    tally::{Report, Standing, Tally},
    verdict::{Verdict, code_of, verdict, worst},
};
use crate::{
    delivery_ledger::{BodyId, SinkIdentity, WorkId},
    line::Place,
    positions::Positions,
    sink::{Batch, DeliverError, Disposition},
    template::Template,
};

/// How long no broker may be reached, or the login be refused, before a batch is taken back.
const PATIENCE: Duration = Duration::from_secs(15);
const PATIENCE_REFUSED: Duration = Duration::from_secs(3);
/// How often troubles are looked for while nothing else happens.
const LOOK: Duration = Duration::from_millis(250);
/// How often room is looked for in a queue that is full.
const ROOM: Duration = Duration::from_millis(10);
/// How long aborting a transaction may take.
const ABORT: Duration = Duration::from_secs(30);
/// How long the reports of what was taken back may take: they are made in this process.
const PURGED: Duration = Duration::from_secs(10);

/// A connected producer.
pub(super) struct Producer {
    inner: ThreadedProducer<Context>,
    context: Context,
    figures: Arc<Figures>,
    timeout: Duration,
    transactions: Option<(Transactions, SinkIdentity)>,
    /// Whether a batch failed. Held while a message is enqueued, so that none is once this is set.
    closed: Mutex<bool>,
}

/// What the shape of messages depends on.
pub(super) struct Shaping {
    pub(super) shape: Shape,
    pub(super) topic: Template,
}

/// How sending a batch ended.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) result: Result<(), DeliverError>,
    /// The indexes of records that arrived, although the batch as a whole did not. None with transactions.
    pub(super) arrived: Vec<u32>,
    /// Whether the producer can be used again: not after a batch failed of which something may have been sent.
    pub(super) usable: bool,
    /// Whether another producer took over the transactional id.
    pub(super) fenced: bool,
    /// What a transaction committed.
    pub(super) committed: Vec<Committed>,
}

/// What was committed of a work.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) tenant: TenantId,
    pub(super) work: WorkId,
    pub(super) seq: u64,
    pub(super) body: Option<BodyId>,
    pub(super) positions: Positions,
}

/// Enqueueing ended before the last message of a batch.
struct Stopped {
    /// How many messages were enqueued before. Nothing of the others has left or ever will.
    enqueued: usize,
    error: DeliverError,
}

/// A failure inside a transaction.
enum Broken {
    /// Nothing of it counts, once it is aborted: the error that remains.
    Abort(DeliverError),
    /// Nobody knows whether it was committed; or the producer cannot go on.
    Lost(DeliverError),
    Fenced,
}

impl Producer {
    /// Connects. With transactions, whoever had the same transactional id before is locked out, and what it left open is
    /// aborted.
    pub(super) fn connect(
        config: &KafkaConfig,
        settings: &ClientConfig,
        context: Context,
        figures: Arc<Figures>,
        identity: Option<&SinkIdentity>,
    ) -> Result<Self, DeliverError> {
        let made = ThreadedProducer::from_config_and_context(settings, context.clone());
        let inner = made.map_err(|error| DeliverError::halt(format!("the settings do not work: {error}")))?;
        let transactions = config.transactions.clone().zip(identity.cloned());
        let timeout = config.delivery_timeout;
        let producer = Self { inner, context, figures, timeout, transactions, closed: Mutex::new(false) };
        if let Some((transactions, _)) = &producer.transactions {
            let id = &transactions.transactional_id;
            let started = producer.inner.init_transactions(timeout);
            started.map_err(|error| {
                producer.context.failure(&format!("no transactions with the id {id}"), &error)
            })?;
            debug!(id, "ready for transactions");
        }
        Ok(producer)
    }

    /// Sends what of the batch is not there already, and waits until all of it is acknowledged, or committed. Its place in
    /// line is that for sending.
    pub(super) fn deliver(
        &self,
        batch: Batch,
        plan: &Plan,
        shaping: &Shaping,
        tally: &Arc<Tally>,
        mut place: Place,
    ) -> Attempt {
        let mut messages = match Messages::shape(&batch, plan, shaping) {
            Ok(messages) => messages,
            Err(refused) => {
                return Attempt::failed(DeliverError {
                    context: format!("{} records are too large", refused.len()),
                    disposition: Disposition::Reject { records: refused },
                });
            }
        };
        self.figures.truncated(messages.cut);
        let size = messages.size_of_single();
        let mut attempt = match &self.transactions {
            _ if messages.bodies.is_empty() => {
                place.given();
                Attempt::succeeded()
            }
            None => {
                let mut sent: Vec<u32> = messages.sent().collect();
                let enqueued = self.enqueue_all(&mut messages, shaping, tally).map_err(|stopped| {
                    // No report will ever speak of the others.
                    sent.truncate(stopped.enqueued);
                    stopped.error
                });
                drop(messages);
                // librdkafka has a copy of them.
                let _room = batch.into_room();
                if enqueued.is_ok() {
                    place.given();
                } else {
                    self.close();
                }
                self.finish_plain(enqueued, &sent, tally)
            }
            Some((transactions, identity)) => {
                let (attempt, ending) =
                    self.send_in_transaction(&mut messages, shaping, tally, plan, transactions, identity);
                self.figures.transaction(ending);
                attempt
            }
        };
        match (&mut attempt.result, size) {
            (Ok(()), _) => place.taken(),
            // Refused alone it becomes a dead letter with this reason.
            (Err(error), Some(bytes))
                if matches!(error.disposition, Disposition::Split | Disposition::Isolate { .. }) =>
            {
                error.context.push_str(&format!("; the record has {bytes} bytes"));
            }
            (Err(_), _) => {}
        }
        attempt
    }

    /// Makes the progress of these tenants this ledger's.
    pub(super) fn adopt(&self, tenants: &[TenantId], number: u64) -> Result<(), DeliverError> {
        let Some((transactions, identity)) = &self.transactions else { return Ok(()) };
        if tenants.is_empty() {
            return Ok(());
        }
        let failed = |error: &KafkaError| self.context.failure("the progress cannot be taken over", error);
        let tally = Tally::new();
        self.inner.begin_transaction().map_err(|error| failed(&error))?;
        for tenant in tenants {
            self.enqueue_progress(*tenant, &Progress::new(identity, number), transactions, &tally)?;
        }
        self.await_reports(&tally, true)?;
        self.inner.commit_transaction(self.timeout).map_err(|error| failed(&error))
    }

    fn enqueue_progress(
        &self,
        tenant: TenantId,
        progress: &Progress,
        transactions: &Transactions,
        tally: &Arc<Tally>,
    ) -> Result<(), DeliverError> {
        let key = progress::key(&transactions.transactional_id, &tenant.to_string());
        let value = progress.encode();
        let report = Box::new(Report { tally: Arc::clone(tally), index: Report::BESIDE });
        let mut message = BaseRecord::with_opaque_to(&transactions.progress_topic, report);
        message.partition = Some(progress::PARTITION);
        message.key = Some(key.as_str());
        message.payload = Some(value.as_slice());
        self.enqueue(message, tally)
    }

    /// Waits for the reports of what was enqueued, which is `sent`.
    fn finish_plain(&self, enqueued: Result<(), DeliverError>, sent: &[u32], tally: &Tally) -> Attempt {
        let mut trouble = enqueued.and_then(|()| self.await_reports(tally, true)).err();
        if trouble.is_none() && tally.standing().failed == 0 {
            return Attempt::succeeded();
        }
        // Another batch may have failed first. Then its reports are not to be disturbed: they say what arrived.
        let others = self.close();
        if trouble.is_none() || others {
            let rest = self.await_reports(tally, false).err();
            trouble = trouble.or(rest);
        }
        if tally.standing().waited_for > 0 {
            self.take_back(tally);
        }
        let standing = tally.standing();
        let failed: BTreeMap<u32, RDKafkaErrorCode> = tally.failed().into_iter().collect();
        // Records whose report is missing are not among the failed ones, and must not count as arrived.
        let arrived = if standing.waited_for == 0 {
            sent.iter().copied().filter(|index| !failed.contains_key(index)).collect()
        } else {
            Vec::new()
        };
        // Of each message, whether it arrived. What was not enqueued did not.
        let is_known = standing.waited_for == 0
            && failed.values().all(|code| !matches!(verdict(*code), Verdict::Unknown | Verdict::Fenced));
        let error = match (trouble, worst(failed.values().copied())) {
            (Some(trouble), _) => trouble,
            // The broker refuses a record, and what came behind it was taken back.
            (None, Some((_, Verdict::Unknown)))
                if failed.values().any(|code| verdict(*code) == Verdict::Data) =>
            {
                DeliverError {
                    disposition: Disposition::Isolate { suspect: None },
                    context: "the broker refuses a record".to_owned(),
                }
            }
            (None, Some((code, verdict))) => self.error_of(code, &verdict),
            (None, None) => DeliverError::ambiguous("not every message was acknowledged"),
        };
        let DeliverError { disposition, context } = error;
        let disposition = match disposition {
            Disposition::Retry { after, .. } => Disposition::Retry { after, ambiguous: !is_known },
            // What may have arrived has to be counted as sent again.
            Disposition::Halt if !is_known => Disposition::Retry { after: None, ambiguous: true },
            Disposition::Split if !is_known => Disposition::Isolate { suspect: None },
            other => other,
        };
        let error = DeliverError { disposition, context };
        if let Some((code, said)) = self.inner.client().fatal_error() {
            info!("the producer is made anew after {code:?}: {said}");
        }
        Attempt { result: Err(error), arrived, usable: false, fenced: false, committed: Vec::new() }
    }

    fn send_in_transaction(
        &self,
        messages: &mut Messages<'_>,
        shaping: &Shaping,
        tally: &Arc<Tally>,
        plan: &Plan,
        transactions: &Transactions,
        identity: &SinkIdentity,
    ) -> (Attempt, Ending) {
        let begun = Instant::now();
        let broken = match self.transact(messages, shaping, tally, plan, transactions, identity) {
            Ok(()) => {
                let committed = messages.works();
                return (Attempt { committed, ..Attempt::succeeded() }, Ending::Committed);
            }
            Err(broken) => broken,
        };
        // A transaction that was open for too long was ended by the broker, which looks as if somebody else had come.
        let was_slow = begun.elapsed() >= self.timeout;
        let unusable = |error| Attempt { usable: false, ..Attempt::failed(error) };
        let locked_out = || Attempt {
            fenced: true,
            ..unusable(DeliverError::halt(fenced(&transactions.transactional_id)))
        };
        let attempt = match broken {
            Broken::Fenced if !was_slow => locked_out(),
            Broken::Fenced => unusable(DeliverError::ambiguous("the transaction took too long")),
            Broken::Lost(error) => unusable(error),
            // The next producer would do it, too, but readers of what is committed would wait for that.
            Broken::Abort(error) => match self.inner.abort_transaction(ABORT) {
                Ok(()) => {
                    self.await_purged(tally);
                    return (unusable(error), Ending::Aborted);
                }
                Err(abort) => match verdict(code_of(&abort)) {
                    Verdict::Fenced if !was_slow => locked_out(),
                    // What was wrong comes again.
                    _ => unusable(match error.disposition {
                        Disposition::Halt => error,
                        _ => DeliverError::ambiguous(format!(
                            "{error}; and the transaction could not be aborted: {}",
                            self.context.explain(&abort)
                        )),
                    }),
                },
            },
        };
        (attempt, Ending::Uncertain)
    }

    fn transact(
        &self,
        messages: &mut Messages<'_>,
        shaping: &Shaping,
        tally: &Arc<Tally>,
        plan: &Plan,
        transactions: &Transactions,
        identity: &SinkIdentity,
    ) -> Result<(), Broken> {
        self.inner.begin_transaction().map_err(|error| self.broken(&error))?;
        self.enqueue_all(messages, shaping, tally).map_err(|stopped| Broken::Abort(stopped.error))?;
        for (tenant, progress) in messages.progress(plan, identity) {
            self.enqueue_progress(tenant, &progress, transactions, tally).map_err(Broken::Abort)?;
        }
        let reports = self.await_reports(tally, true);
        let failed = tally.failed();
        if let Some((code, verdict)) = worst_of_transaction(failed.iter().map(|(_, code)| *code)) {
            if verdict == Verdict::Fenced {
                return Err(Broken::Fenced);
            }
            return Err(Broken::Abort(self.error_of(code, &verdict)));
        }
        reports.map_err(Broken::Abort)?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let Err(error) =
                self.inner.commit_transaction(deadline.saturating_duration_since(Instant::now()))
            else {
                return Ok(());
            };
            let again = match &error {
                KafkaError::Transaction(error) => error.is_retriable() && !error.txn_requires_abort(),
                _ => false,
            };
            if !again || Instant::now() >= deadline || tally.standing().cancelled {
                return Err(self.broken(&error));
            }
        }
    }

    /// What an error of a call about the transaction means.
    fn broken(&self, error: &KafkaError) -> Broken {
        let fatal = self.inner.client().fatal_error();
        let code = fatal.as_ref().map_or(code_of(error), |(code, _)| *code);
        match (verdict(code), error) {
            (Verdict::Fenced, _) => Broken::Fenced,
            (verdict, KafkaError::Transaction(of)) if of.txn_requires_abort() && fatal.is_none() => {
                Broken::Abort(self.error_of(code, &verdict))
            }
            (Verdict::Halt(_), _) => Broken::Lost(self.context.failure("the transaction failed", error)),
            _ => Broken::Lost(DeliverError::ambiguous(format!(
                "nobody knows whether the transaction was committed: {}",
                self.context.explain(error)
            ))),
        }
    }

    fn error_of(&self, code: RDKafkaErrorCode, verdict: &Verdict) -> DeliverError {
        let said = self.context.explain(&KafkaError::Global(code));
        match verdict {
            Verdict::Data => DeliverError {
                disposition: Disposition::Split,
                context: format!("the broker refuses it: {code}"),
            },
            Verdict::Halt(advice) => DeliverError::halt(format!("{said}; {advice}")),
            Verdict::NotSent => DeliverError::retry(said),
            Verdict::Fenced | Verdict::Unknown => DeliverError::ambiguous(said),
        }
    }

    fn enqueue_all(
        &self,
        messages: &mut Messages<'_>,
        shaping: &Shaping,
        tally: &Arc<Tally>,
    ) -> Result<(), Stopped> {
        let shape = &shaping.shape;
        let mut enqueued = 0;
        let mut next = messages.bodies.iter().peekable();
        let mut index = 0;
        for part in &messages.batch.parts {
            let of = shape.of_work(&part.work);
            let topic = shaping.topic.expand(&part.work);
            for record in part.records() {
                if let Some((_, body)) = next.next_if(|(of, _)| *of == index) {
                    let report = Box::new(Report { tally: Arc::clone(tally), index });
                    let mut message = BaseRecord::with_opaque_to(topic.as_str(), report);
                    message.payload = Some(match body {
                        Body::Whole => record.bytes,
                        Body::Cut(bytes) => bytes,
                    });
                    message.key = shape.key(&of, &record);
                    message.timestamp = shape.timestamp(&record);
                    message.headers = shape.headers(&of, &record, body);
                    self.enqueue(message, tally).map_err(|error| Stopped { enqueued, error })?;
                    enqueued += 1;
                }
                index += 1;
            }
        }
        Ok(())
    }

    /// Enqueues a message, and waits for room when there is none.
    fn enqueue(
        &self,
        mut message: BaseRecord<'_, str, [u8], Box<Report>>,
        tally: &Arc<Tally>,
    ) -> Result<(), DeliverError> {
        loop {
            tally.expect();
            let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
            if *closed {
                tally.unexpect();
                return Err(DeliverError::retry("a batch before it failed"));
            }
            let Err((error, back)) = self.inner.send(message) else { return Ok(()) };
            drop(closed);
            tally.unexpect();
            let code = code_of(&error);
            if code != RDKafkaErrorCode::QueueFull {
                return Err(self.error_of(code, &verdict(code)));
            }
            message = back;
            std::thread::sleep(ROOM);
            self.look_for_trouble(&tally.standing())?;
        }
    }

    /// Waits until every report has come, `early` only until something failed.
    fn await_reports(&self, tally: &Tally, early: bool) -> Result<(), DeliverError> {
        let mut standing = tally.standing();
        while standing.waited_for > 0 && !(early && standing.failed > 0) {
            self.look_for_trouble(&standing)?;
            standing = tally.wait(LOOK);
        }
        Ok(())
    }

    /// Whether it is in vain to wait on.
    fn look_for_trouble(&self, standing: &Standing) -> Result<(), DeliverError> {
        if standing.cancelled {
            return Err(DeliverError::ambiguous("stopped before it was acknowledged"));
        }
        if self.transactions.is_none() && standing.silent > self.timeout {
            return Err(DeliverError::ambiguous(format!("no acknowledgement within {:.0?}", self.timeout)));
        }
        let trouble = self.context.trouble();
        if let Some(refused) = trouble.refused.filter(|_| standing.silent > PATIENCE_REFUSED) {
            return Err(DeliverError::halt(refused));
        }
        if trouble.unreachable && standing.silent > PATIENCE {
            let said = trouble.last.map(|said| format!(": {said}")).unwrap_or_default();
            return Err(DeliverError::retry(format!("no broker can be reached{said}")));
        }
        Ok(())
    }

    /// Lets nothing leave any more, and takes back what has not left. Whether that was done before.
    pub(super) fn close(&self) -> bool {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        self.inner.purge(PurgeConfig::default().queue());
        std::mem::replace(&mut *closed, true)
    }

    /// Takes back what is not acknowledged; afterwards it is known of each message whether it may have left.
    fn take_back(&self, tally: &Tally) {
        self.inner.purge(PurgeConfig::default().queue().inflight());
        self.await_purged(tally);
    }

    fn await_purged(&self, tally: &Tally) {
        let deadline = Instant::now() + PURGED;
        while tally.wait(LOOK).waited_for > 0 && Instant::now() < deadline {}
    }
}

impl Attempt {
    fn succeeded() -> Self {
        Self { result: Ok(()), arrived: Vec::new(), usable: true, fenced: false, committed: Vec::new() }
    }

    fn failed(error: DeliverError) -> Self {
        Self { result: Err(error), ..Self::succeeded() }
    }
}

/// In a transaction nothing counts before its end, so a record that is to blame goes before what is unknown.
fn worst_of_transaction(
    codes: impl Iterator<Item = RDKafkaErrorCode> + Clone,
) -> Option<(RDKafkaErrorCode, Verdict)> {
    let mut data =
        codes.clone().map(|code| (code, verdict(code))).filter(|(_, verdict)| *verdict == Verdict::Data);
    data.next().or_else(|| worst(codes))
}

/// What is said when another producer took over.
pub(super) fn fenced(transactional_id: &str) -> String {
    format!(
        "another mailtrail has taken over the transactional id {transactional_id}: stop one of the two, or give them \
         different values of transactional_id; then restart this one"
    )
}

/// What of a batch is to be sent.
struct Messages<'a> {
    batch: &'a Batch,
    /// By index into the batch, ascending.
    bodies: Vec<(u32, Body)>,
    cut: u64,
}

impl<'a> Messages<'a> {
    /// Leaves out what is there already; or gives those records that can never be sent.
    fn shape(batch: &'a Batch, plan: &Plan, shaping: &Shaping) -> Result<Self, Vec<(usize, String)>> {
        let mut messages = Self { batch, bodies: Vec::with_capacity(batch.len()), cut: 0 };
        let mut refused = Vec::new();
        let mut index = 0;
        for part in &batch.parts {
            let of = shaping.shape.of_work(&part.work);
            for record in part.records() {
                if !plan.is_there(&part.work, record.position) {
                    match shaping.shape.body(&of, &record) {
                        Ok(body) => {
                            messages.cut += u64::from(matches!(body, Body::Cut(_)));
                            messages.bodies.push((index, body));
                        }
                        Err(reason) => refused.push((index as usize, reason)),
                    }
                }
                index += 1;
            }
        }
        if refused.is_empty() { Ok(messages) } else { Err(refused) }
    }

    /// The size of what is sent, when it is a single record.
    fn size_of_single(&self) -> Option<usize> {
        let [(index, body)] = self.bodies.as_slice() else { return None };
        match body {
            Body::Whole => self.batch.records().nth(*index as usize).map(|(_, record)| record.bytes.len()),
            Body::Cut(bytes) => Some(bytes.len()),
        }
    }

    fn sent(&self) -> impl Iterator<Item = u32> {
        self.bodies.iter().map(|(index, _)| *index)
    }

    /// What is sent of each work.
    fn works(&self) -> Vec<Committed> {
        let mut works: Vec<Committed> = Vec::new();
        let mut next = self.bodies.iter().peekable();
        for (index, (work, record)) in self.batch.records().enumerate() {
            if next.next_if(|(of, _)| *of as usize == index).is_none() {
                continue;
            }
            match works.last_mut() {
                Some(last) if last.work == work.id => last.positions.push(record.position),
                _ => works.push(Committed {
                    tenant: work.feed.tenant,
                    work: work.id,
                    seq: work.seq.0,
                    body: work.body,
                    positions: std::iter::once(record.position).collect(),
                }),
            }
        }
        works
    }

    /// How far each tenant is once this is committed.
    fn progress(&self, plan: &Plan, identity: &SinkIdentity) -> BTreeMap<TenantId, Progress> {
        let mut after = plan.clone();
        let mut far: BTreeMap<TenantId, (u64, u32)> = BTreeMap::new();
        for committed in self.works() {
            let records = committed.positions.iter().max().map_or(0, |position| position + 1);
            far.insert(committed.tenant, (committed.seq, records));
            after.committed(&committed);
        }
        let progress = far.into_iter().map(|(tenant, (seq, records))| {
            let mut progress = Progress::new(identity, after.number);
            progress.seq = seq;
            progress.records = records;
            progress.sent = after.since(tenant);
            (tenant, progress)
        });
        progress.collect()
    }
}
