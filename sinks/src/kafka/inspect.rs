//! What can be found out about the brokers without sending a record. Everything here blocks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _},
    error::{IsError as _, KafkaError},
    producer::{BaseRecord, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use tokio::runtime::Handle;
use tracing::warn;

use super::{
    client::Context,
    tally::{Report, Tally},
};
use crate::sink::DeliverError;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// Whether these topics exist. Asking does not make them.
pub(super) fn topics(
    settings: &ClientConfig,
    context: &Context,
    topics: &[String],
) -> Result<(), DeliverError> {
    let mut settings = settings.clone();
    settings.set("allow.auto.create.topics", "false").set("statistics.interval.ms", "0");
    let consumer = BaseConsumer::from_config_and_context(&settings, context.clone());
    let consumer: BaseConsumer<Context> =
        consumer.map_err(|error| DeliverError::halt(format!("the settings do not work: {error}")))?;
    let mut missing = Vec::new();
    for topic in topics {
        match exists(&consumer, context, topic)? {
            true => {}
            false => missing.push(topic.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let (them, these) = if missing.len() == 1 { ("it", "topic") } else { ("them", "topics") };
    Err(DeliverError::halt(format!(
        "there is no {these} {}: create {them}, mailtrail never does (kafka-topics.sh --create --topic {}); or the user \
         lacks the ACL Describe",
        missing.join(", "),
        missing[0]
    )))
}

fn exists(consumer: &BaseConsumer<Context>, context: &Context, topic: &str) -> Result<bool, DeliverError> {
    let what = format!("topic {topic}");
    // A token or an error has to be served by polling; and a login that is refused is told there only.
    let deadline = Instant::now() + REQUEST;
    let metadata = loop {
        drop(consumer.poll(Duration::from_millis(50)));
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(2));
        drop(consumer.poll(Duration::ZERO));
        match metadata {
            Ok(metadata) => break metadata,
            Err(error) if context.trouble().refused.is_some() || Instant::now() > deadline => {
                return Err(context.failure(&what, &error));
            }
            Err(_) => {}
        }
    };
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(false) };
    match found.error() {
        Some(error) if error.is_error() => match RDKafkaErrorCode::from(error) {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(false),
            // It has just been made, or its leader is being changed.
            RDKafkaErrorCode::LeaderNotAvailable => Ok(true),
            code => Err(context.failure(&what, &KafkaError::Global(code))),
        },
        _ => Ok(!found.partitions().is_empty()),
    }
}

/// Whether the topic is compacted, so that what is in it is kept.
pub(super) fn compacted(
    settings: &ClientConfig,
    context: &Context,
    topic: &str,
    runtime: &Handle,
) -> Result<(), DeliverError> {
    let admin = AdminClient::from_config_and_context(settings, context.clone());
    let admin: AdminClient<Context> =
        admin.map_err(|error| DeliverError::halt(format!("the settings do not work: {error}")))?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST));
    let resource = ResourceSpecifier::Topic(topic);
    let described = runtime.block_on(admin.describe_configs([&resource], &options));
    let policy = match described {
        Ok(all) => match all.into_iter().next() {
            Some(Ok(found)) => found.entry_map().get("cleanup.policy").and_then(|entry| entry.value.clone()),
            _ => None,
        },
        Err(error) => return Err(context.failure(&format!("topic {topic}"), &error)),
    };
    match policy {
        Some(policy) if policy.contains("compact") && !policy.contains("delete") => Ok(()),
        Some(policy) => Err(DeliverError::halt(format!(
            "the progress topic {topic} has cleanup.policy={policy} and would lose what it is for: set it to compact \
             (kafka-configs.sh --alter --topic {topic} --add-config cleanup.policy=compact)"
        ))),
        None => {
            warn!(
                "whether the progress topic {topic} is compacted cannot be seen without the ACL DescribeConfigs on it"
            );
            Ok(())
        }
    }
}

/// Whether records may be written to the topic. A message is sent that asks for a number of confirmations that does not
/// exist: the broker looks at the permission first, and then refuses it. Nothing is written.
pub(super) fn writable(settings: &ClientConfig, context: &Context, topic: &str) -> Result<(), DeliverError> {
    let mut settings = settings.clone();
    settings
        .set("acks", IMPOSSIBLE_ACKS)
        .set("message.timeout.ms", REQUEST.as_millis().to_string())
        .set("message.send.max.retries", "0")
        .set("statistics.interval.ms", "0");
    let producer = ThreadedProducer::from_config_and_context(&settings, context.clone());
    let producer: ThreadedProducer<Context> =
        producer.map_err(|error| DeliverError::halt(format!("the settings do not work: {error}")))?;
    let what = format!("topic {topic} cannot be written to");
    let tally = Tally::new();
    tally.expect();
    let report = Box::new(Report { tally: Arc::clone(&tally), index: 0 });
    let mut message = BaseRecord::with_opaque_to(topic, report);
    message.key = Some("mailtrail-probe");
    message.payload = Some("{}");
    if let Err((error, _)) = producer.send(message) {
        return Err(context.failure(&what, &error));
    }
    let deadline = Instant::now() + REQUEST * 2;
    while tally.wait(Duration::from_millis(250)).waited_for > 0 && Instant::now() < deadline {}
    match tally.failed().first().map(|(_, code)| *code) {
        // It was let in, and refused for what is impossible about it.
        None | Some(RDKafkaErrorCode::InvalidRequiredAcks) => Ok(()),
        Some(code) => Err(context.failure(&what, &KafkaError::Global(code))),
    }
}

/// Brokers know -1, 0 and 1.
const IMPOSSIBLE_ACKS: &str = "2";
