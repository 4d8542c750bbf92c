//! The keys of `[sinks.NAME]` with `type = "kafka"`, beside those that every sink has.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf, time::Duration};

use entra::SecretSource;
use schemas::SinkName;

use crate::template::Template;

/// Configuration of a `kafka` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Brokers to begin with, `host:port`.
    pub bootstrap_servers: Vec<String>,
    /// Which topic a record goes to.
    pub topic: Template,
    /// What decides the partition.
    pub key: Key,
    /// Which time a message has.
    pub timestamp: Timestamp,
    /// Whether messages have headers.
    pub headers: bool,
    /// What the header `schema` says of the messages.
    pub schema: String,
    /// How batches are compressed on their way and in the broker.
    pub compression: Compression,
    /// The largest message, with its key and headers, in bytes.
    pub max_message_bytes: NonZeroU32,
    /// What becomes of a larger one.
    pub oversize: Oversize,
    /// How long a message may take to be acknowledged, and a transaction to be committed.
    pub delivery_timeout: Duration,
    /// How much may wait within the producer.
    pub queue_bytes: u64,
    /// Exactly once; `None` is at least once.
    pub transactions: Option<Transactions>,
    /// Encryption; `None` is none.
    pub tls: Option<Tls>,
    /// How mailtrail logs in; `None` is not at all, or by a client certificate.
    pub login: Option<Login>,
    /// What the broker really is.
    pub preset: Preset,
    /// Further settings of librdkafka.
    pub librdkafka: BTreeMap<String, String>,
}

/// What decides the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The mailbox; without one the user, without either the tenant.
    Mailbox,
    /// The user; without one the tenant.
    User,
    /// The tenant's id.
    Tenant,
    /// Nothing: messages have no key and go anywhere.
    None,
}

/// Which time a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamp {
    /// The record's `CreationTime`; without one, when it is sent.
    CreationTime,
    /// When it is sent.
    Sent,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// The only one that Event Hubs takes.
    Gzip,
    /// Fast, with a low ratio.
    Snappy,
    /// Fast.
    Lz4,
    /// The best ratio.
    Zstd,
}

impl Compression {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// What becomes of a record that is too large for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversize {
    /// It is a dead letter.
    DeadLetter,
    /// Its longest texts and lists are cut, and it says so.
    Truncate,
}

/// Exactly once, by transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transactions {
    /// The compacted topic that holds how far each tenant is.
    pub progress_topic: String,
    /// Who mailtrail is to the brokers: of two with the same id the older is locked out.
    pub transactional_id: String,
}

impl Transactions {
    /// The usual progress topic.
    pub const PROGRESS_TOPIC: &'static str = "mailtrail.progress";

    /// The usual id of a sink.
    #[must_use]
    pub fn usual_id(sink: &SinkName) -> String {
        format!("mailtrail-{sink}")
    }
}

/// Encryption.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// PEM of the authorities that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Who mailtrail is.
    pub client: Option<ClientCertificate>,
}

/// Who mailtrail is, by a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM of the certificate and of those between it and the authority.
    pub certificate_file: PathBuf,
    /// PEM of its private key.
    pub key: SecretSource,
    /// The password of the key, if it has one.
    pub key_password: Option<SecretSource>,
}

/// How mailtrail logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// With a user's name and password.
    Password {
        /// How these are proved.
        mechanism: Mechanism,
        /// The name.
        username: String,
        /// The password.
        password: SecretSource,
    },
    /// With an access token (OAUTHBEARER).
    Token,
}

/// How a password is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// It is sent; only with TLS.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

impl Mechanism {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// What the broker really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Apache Kafka, or something that does the same.
    Kafka,
    /// Azure Event Hubs, with its limits.
    EventHubs,
}

impl Preset {
    /// The largest message unless the configuration says otherwise. Event Hubs closes the connection on a request of
    /// more than 1,046,528 bytes; Apache Kafka's brokers refuse more than 1,048,588 by default.
    #[must_use]
    pub const fn max_message_bytes(self) -> u32 {
        1_000_000
    }

    /// The compression unless the configuration says otherwise.
    #[must_use]
    pub const fn compression(self) -> Compression {
        match self {
            Self::Kafka => Compression::Zstd,
            Self::EventHubs => Compression::Gzip,
        }
    }
}

/// How long a message may take unless the configuration says otherwise. A transaction that is open for long holds up
/// whoever reads what is committed, so it has less.
#[must_use]
pub const fn usual_delivery_timeout(transactions: bool) -> Duration {
    if transactions { Duration::from_secs(60) } else { Duration::from_secs(300) }
}

/// The beginnings of librdkafka's settings that keys of the sink stand for, or that would break its promises.
const REFUSED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set bootstrap_servers"),
    ("metadata.broker.list", "set bootstrap_servers"),
    ("client.id", "it is mailtrail's"),
    ("group.", "mailtrail is no consumer"),
    ("enable.", "the producer is always idempotent, and reads to the end"),
    ("isolation.level", "only what was committed is read back"),
    ("acks", "every replica that is in sync has to confirm"),
    ("request.required.acks", "every replica that is in sync has to confirm"),
    ("request.timeout.ms", "set delivery_timeout"),
    ("transaction", "set transactions, transactional_id and delivery_timeout"),
    ("max.in.flight", "the idempotent producer decides it"),
    ("retries", "set delivery_timeout"),
    ("message.send.max.retries", "set delivery_timeout"),
    ("message.timeout.ms", "set delivery_timeout"),
    ("delivery.timeout.ms", "set delivery_timeout"),
    ("message.max.bytes", "set max_message_bytes"),
    ("queue.buffering.max.messages", "set queue_bytes"),
    ("queue.buffering.max.kbytes", "set queue_bytes"),
    ("queuing.strategy", "order would be lost"),
    ("compression.", "set compression"),
    ("security.protocol", "set tls and sasl"),
    ("sasl.", "set sasl"),
    ("ssl.ca", "set tls.ca_file"),
    ("ssl.key", "set tls.key"),
    ("ssl.certificate", "set tls.certificate_file"),
    ("enable.ssl", "set tls"),
    ("plugin.", "it would load code"),
    ("test.", "nothing would be delivered"),
    ("log.queue", "mailtrail reads the log"),
    ("opaque", "it is mailtrail's"),
];

/// Why a setting of librdkafka may not be given, with the key to set instead; `None` when it may.
#[must_use]
pub fn refused_setting(name: &str) -> Option<&'static str> {
    if name.ends_with("_cb") {
        return Some("it is no setting for a file");
    }
    // Whether the name of the broker's certificate is verified is a matter of trust that belongs to the operator.
    if name == "enable.ssl.certificate.verification" || name == "enable.random.seed" {
        return None;
    }
    REFUSED.iter().find(|(start, _)| name.starts_with(start)).map(|(_, why)| *why)
}

/// Whether Kafka takes this for a topic: 1 to 249 of `a-z A-Z 0-9 . _ -`, but neither `.` nor `..`.
#[must_use]
pub fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_promise_is_refused() {
        for name in [
            "enable.idempotence",
            "acks",
            "transactional.id",
            "max.in.flight.requests.per.connection",
            "sasl.password",
            "ssl.key.password",
            "dr_msg_cb",
            "test.mock.num.brokers",
            "enable.gapless.guarantee",
        ] {
            assert!(refused_setting(name).is_some(), "{name}");
        }
        for name in ["linger.ms", "client.rack", "debug", "batch.size", "partitioner", "ssl.cipher.suites"] {
            assert_eq!(refused_setting(name), None, "{name}");
        }
    }

    #[test]
    fn topics_are_named_as_brokers_want_it() {
        for name in ["o365.Audit.Exchange", "a", "_x-Y.9"] {
            assert!(is_topic_name(name), "{name}");
        }
        let long = "x".repeat(250);
        for name in ["", ".", "..", "a b", "a/b", "ä", long.as_str()] {
            assert!(!is_topic_name(name), "{name}");
        }
    }
}
