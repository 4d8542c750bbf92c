//! How far each tenant is, as the brokers know it: the compacted progress topic.
//!
//! Every transaction also writes one message for each tenant that has records in it, to partition 0 of the progress
//! topic, so that it counts exactly when the records do. Its key is `TRANSACTIONAL_ID/TENANT_ID`, its value is JSON:
//!
//! ```json
//! {"version":1,"ledger":"…","incarnation":1,"after":57,"seq":812,"records":340,
//!  "sent":[{"work":17,"seq":812,"body":"0123456789abcdef","positions":[[0,340]]}]}
//! ```
//!
//! | member | meaning |
//! |---|---|
//! | `ledger`, `incarnation` | Whose progress it is: the ledger's id, and how often the sink was forgotten, and one more |
//! | `after` | The number of the sink's state in the ledger when the transaction began |
//! | `seq`, `records` | How far the tenant is: the Seq of the last work, and how many of its records are done |
//! | `sent` | What was committed since that state was: works with their Seq and body, and positions as runs of first and count |
//!
//! After a crash the ledger's state tells what was done before `after`, and `sent` what was done since. Only partition
//! 0 is used, so that the order of these messages is that of the transactions, however many partitions there are.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
};
use schemas::TenantId;
use serde::{Deserialize, Serialize};

use super::client::Context;
use crate::{
    delivery_ledger::{BodyId, SinkIdentity, WorkId},
    positions::Positions,
    sink::DeliverError,
    versioned::{self, Unreadable},
};

/// Everything is in one partition, for its order.
pub(super) const PARTITION: i32 = 0;

const VERSION: u32 = 1;
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// How long all of the reading may take. A transaction of somebody else who uses the same topic hides what comes
/// behind it until it ends or its time is over.
const READING: Duration = Duration::from_secs(120);

/// How far a tenant is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    version: u32,
    pub(super) ledger: String,
    pub(super) incarnation: u64,
    pub(super) after: u64,
    pub(super) seq: u64,
    pub(super) records: u32,
    pub(super) sent: Vec<Sent>,
}

/// What was committed of a work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) work: WorkId,
    pub(super) seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<BodyId>,
    pub(super) positions: Positions,
}

impl Progress {
    pub(super) fn new(identity: &SinkIdentity, after: u64) -> Self {
        Self {
            version: VERSION,
            ledger: identity.ledger.clone(),
            incarnation: identity.incarnation,
            after,
            seq: 0,
            records: 0,
            sent: Vec::new(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and texts are always JSON")
    }

    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        versioned::decode(bytes, VERSION)
    }
}

/// The key of a tenant's progress.
pub(super) fn key(transactional_id: &str, tenant: &str) -> String {
    format!("{transactional_id}/{tenant}")
}

/// Where progress is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) topic: &'a str,
    pub(super) transactional_id: &'a str,
}

/// What becomes of a transaction that is open while progress is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// What stands before it is enough.
    Ignored,
    /// Its end is waited for, so that everything that is there now is read.
    Awaited,
}

/// Reads the progress of all tenants. Blocks.
pub(super) fn read(
    settings: &ClientConfig,
    context: &Context,
    place: Place<'_>,
    open: Open,
) -> Result<BTreeMap<TenantId, Progress>, DeliverError> {
    let Place { topic, transactional_id } = place;
    let what = format!("the progress topic {topic} cannot be read");
    let failure = |error: &KafkaError| context.failure(&what, error);
    let deadline = Instant::now() + READING;
    let consumer = |isolation: &str| {
        let mut settings = settings.clone();
        settings
            .set("isolation.level", isolation)
            // It never joins a group, but cannot be assigned anything without the name of one.
            .set("group.id", transactional_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("statistics.interval.ms", "0")
            .set("fetch.wait.max.ms", "50");
        BaseConsumer::from_config_and_context(&settings, context.clone()).map_err(|error| failure(&error))
    };
    let end = |consumer: &BaseConsumer<Context>| loop {
        // Polling serves what librdkafka wants to ask or tell, such as for a token.
        drop(consumer.poll(Duration::from_millis(20)));
        match consumer.fetch_watermarks(topic, PARTITION, REQUEST) {
            Ok((_, high)) => return Ok(high),
            Err(error) if context.trouble().refused.is_some() || Instant::now() > deadline => {
                return Err(failure(&error));
            }
            Err(error) => match context.failure(&what, &error) {
                halt if matches!(halt.disposition, crate::sink::Disposition::Halt) => return Err(halt),
                _ if Instant::now() + REQUEST > deadline => return Err(failure(&error)),
                _ if context.trouble().unreachable => return Err(failure(&error)),
                _ => {}
            },
        }
    };
    // What is committed behind an open transaction of somebody else cannot be read before that has ended.
    let high = end(&consumer("read_uncommitted")?)?;
    let committed = consumer("read_committed")?;
    while open == Open::Awaited && end(&committed)? < high {
        if Instant::now() > deadline {
            return Err(DeliverError::retry(format!(
                "{what}: another producer's transaction has been open for long; it ends by itself"
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, PARTITION, Offset::Beginning).map_err(|error| failure(&error))?;
    committed.assign(&from).map_err(|error| failure(&error))?;
    let start = format!("{transactional_id}/");
    let mut all = BTreeMap::new();
    loop {
        match committed.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
                let Some(tenant) = key.strip_prefix(&start) else { continue };
                let Ok(tenant) = tenant.parse::<TenantId>() else { continue };
                match message.payload() {
                    Some(value) => {
                        let progress = Progress::decode(value).map_err(|error| {
                            DeliverError::halt(format!(
                                "the progress topic {topic} holds for {key} what cannot be read: {error}"
                            ))
                        })?;
                        all.insert(tenant, progress);
                    }
                    // Somebody has deleted it on purpose.
                    None => {
                        all.remove(&tenant);
                    }
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(all),
            Some(Err(error)) => {
                let failure = failure(&error);
                if matches!(failure.disposition, crate::sink::Disposition::Halt) {
                    return Err(failure);
                }
            }
            None => {}
        }
        if Instant::now() > deadline {
            return Err(DeliverError::retry(format!("{what}: it took too long")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_back_and_a_newer_one_is_refused() {
        let identity = SinkIdentity { ledger: "a-ledger".to_owned(), incarnation: 2 };
        let mut progress = Progress::new(&identity, 57);
        progress.seq = 812;
        progress.records = 340;
        progress.sent.push(Sent { work: WorkId(17), seq: 812, body: None, positions: (0..340).collect() });
        let bytes = progress.encode();
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"version":1,"ledger":"a-ledger","incarnation":2,"after":57,"seq":812,"records":340,"sent":[{"work":17,"seq":812,"positions":[[0,340]]}]}"#
        );
        assert_eq!(Progress::decode(&bytes).unwrap(), progress);
        let newer = Progress::decode(br#"{"version":2}"#);
        assert!(matches!(newer, Err(Unreadable::Newer { found: 2, .. })), "{newer:?}");
        assert!(Progress::decode(b"x").is_err());
        assert_eq!(key("mailtrail-soc", "t"), "mailtrail-soc/t");
    }
}
