//! What the tests of this sink share.

use super::config::{Compression, KafkaConfig, Key, Oversize, Preset, Timestamp};

/// A configuration with what is usual.
pub(super) fn config() -> KafkaConfig {
    KafkaConfig {
        bootstrap_servers: vec!["127.0.0.1:1".to_owned()],
        topic: "audit".parse().unwrap(),
        key: Key::Mailbox,
        timestamp: Timestamp::CreationTime,
        headers: true,
        schema: "ocsf/1.8.0".to_owned(),
        compression: Compression::Zstd,
        max_message_bytes: 1_000_000.try_into().unwrap(),
        oversize: Oversize::DeadLetter,
        delivery_timeout: std::time::Duration::from_secs(20),
        queue_bytes: 16 << 20,
        transactions: None,
        tls: None,
        login: None,
        preset: Preset::Kafka,
        librdkafka: std::collections::BTreeMap::new(),
    }
}
