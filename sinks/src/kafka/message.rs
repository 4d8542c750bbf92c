//! The shape of a message: topic, key, time, headers, and what is cut off a record that is too large. Pure.

use chrono::Utc;
use rdkafka::message::{Header, OwnedHeaders};
use schemas::RenderedRecord;

use super::config::{KafkaConfig, Key, Oversize, Timestamp};
use crate::{delivery_ledger::Work, shorten::shorten};

/// What Kafka adds to a message: offsets, lengths, a timestamp, and what the batch around it needs.
const OVERHEAD: usize = 200;
/// What it adds to a header.
const HEADER_OVERHEAD: usize = 10;

/// Who has collected the record.
const MAILTRAIL: &str = "mailtrail";

/// The headers that every message of a blob has.
const TENANT: &str = "o365-tenant";
const CONTENT_TYPE: &str = "o365-content-type";
const CONTENT_ID: &str = "o365-content-id";
const COLLECTOR: &str = "collector";
const SCHEMA: &str = "schema";
/// Those that differ.
const RECORD_ID: &str = "o365-record-id";
const RECORD_TYPE: &str = "o365-record-type";
/// Only on what was cut: its size before that.
const TRUNCATED: &str = "mailtrail-truncated-from";

/// How messages look.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    key: Key,
    timestamp: Timestamp,
    headers: bool,
    schema: String,
    oversize: Oversize,
    max_bytes: usize,
}

/// What the messages of one blob have in common.
pub(super) struct OfWork {
    tenant: String,
    headers: Vec<(&'static str, String)>,
    headers_bytes: usize,
}

/// The bytes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// The record as it was rendered.
    Whole,
    /// The record, cut.
    Cut(Vec<u8>),
}

impl Shape {
    pub(super) fn new(config: &KafkaConfig) -> Self {
        Self {
            key: config.key,
            timestamp: config.timestamp,
            headers: config.headers,
            schema: config.schema.clone(),
            oversize: config.oversize,
            max_bytes: usize::try_from(config.max_message_bytes.get()).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn of_work(&self, work: &Work) -> OfWork {
        let tenant = work.feed.tenant.to_string();
        let headers = if self.headers {
            vec![
                (TENANT, tenant.clone()),
                (CONTENT_TYPE, work.feed.content_type.as_str().to_owned()),
                (CONTENT_ID, work.content_id.as_str().to_owned()),
                (COLLECTOR, MAILTRAIL.to_owned()),
                (SCHEMA, self.schema.clone()),
            ]
        } else {
            Vec::new()
        };
        let headers_bytes =
            headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD).sum();
        OfWork { tenant, headers, headers_bytes }
    }

    /// The key of a record's message.
    pub(super) fn key<'a>(&self, of: &'a OfWork, record: &RenderedRecord<'a>) -> Option<&'a str> {
        let first = |texts: [&'a str; 2]| {
            texts.into_iter().find(|text| !text.is_empty()).unwrap_or(of.tenant.as_str())
        };
        match self.key {
            Key::Mailbox => Some(first([record.facts.mailbox, record.facts.user])),
            Key::User => Some(first([record.facts.user, ""])),
            Key::Tenant => Some(&of.tenant),
            Key::None => None,
        }
    }

    /// Milliseconds since 1970; `None` leaves it to the moment of sending.
    pub(super) fn timestamp(&self, record: &RenderedRecord<'_>) -> Option<i64> {
        match self.timestamp {
            Timestamp::CreationTime => record.facts.time_ms.filter(|time| *time > 0),
            Timestamp::Sent => Some(Utc::now().timestamp_millis()),
        }
    }

    pub(super) fn headers(
        &self,
        of: &OfWork,
        record: &RenderedRecord<'_>,
        body: &Body,
    ) -> Option<OwnedHeaders> {
        let cut = matches!(body, Body::Cut(_));
        if !self.headers && !cut {
            return None;
        }
        let mut headers = OwnedHeaders::new_with_capacity(of.headers.len() + 3);
        for (key, value) in &of.headers {
            headers = headers.insert(Header { key, value: Some(value.as_str()) });
        }
        if self.headers {
            if !record.facts.id.is_empty() {
                headers = headers.insert(Header { key: RECORD_ID, value: Some(record.facts.id) });
            }
            if let Some(number) = record.facts.record_type {
                headers = headers.insert(Header { key: RECORD_TYPE, value: Some(&number.to_string()) });
            }
        }
        if cut {
            let size = record.bytes.len().to_string();
            headers = headers.insert(Header { key: TRUNCATED, value: Some(&size) });
        }
        Some(headers)
    }

    /// What of the record goes into its message; or why it can never go.
    pub(super) fn body(&self, of: &OfWork, record: &RenderedRecord<'_>) -> Result<Body, String> {
        let beside = OVERHEAD
            + self.key(of, record).map_or(0, str::len)
            + of.headers_bytes
            + if self.headers { record.facts.id.len() + 80 } else { 0 };
        let room = self.max_bytes.saturating_sub(beside);
        let size = record.bytes.len();
        if size <= room {
            return Ok(Body::Whole);
        }
        let too_large = || {
            format!(
                "too large for a message: {size} bytes, and with key and headers {}; max_message_bytes is {}",
                size + beside,
                self.max_bytes
            )
        };
        match self.oversize {
            Oversize::DeadLetter => Err(too_large()),
            Oversize::Truncate => {
                let room = room.saturating_sub(TRUNCATED.len() + 30);
                shorten(record.bytes, room).map(Body::Cut).ok_or_else(too_large)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers as _;
    use schemas::RecordFacts;
    use serde_json::Value;

    use super::*;
    use crate::{kafka::testing::config, test_ledger::work};

    fn record<'a>(bytes: &'a [u8], mailbox: &'a str, user: &'a str) -> RenderedRecord<'a> {
        let facts = RecordFacts {
            id: "an-id",
            mailbox,
            user,
            time_ms: Some(1_700_000_000_123),
            ..Default::default()
        };
        RenderedRecord { position: 3, bytes, facts: RecordFacts { record_type: Some(50), ..facts } }
    }

    fn shape(change: impl FnOnce(&mut KafkaConfig)) -> Shape {
        let mut config = config();
        change(&mut config);
        Shape::new(&config)
    }

    #[test]
    fn the_key_falls_back_to_what_there_is() {
        let of = shape(|_| {}).of_work(&work(1, 1));
        let tenant = of.tenant.as_str();
        let key = |key: Key, mailbox, user| {
            shape(|config| config.key = key).key(&of, &record(b"{}", mailbox, user)).map(str::to_owned)
        };
        assert_eq!(key(Key::Mailbox, "a@x", "b@x").as_deref(), Some("a@x"));
        assert_eq!(key(Key::Mailbox, "", "b@x").as_deref(), Some("b@x"));
        assert_eq!(key(Key::Mailbox, "", "").as_deref(), Some(tenant));
        assert_eq!(key(Key::User, "a@x", "b@x").as_deref(), Some("b@x"));
        assert_eq!(key(Key::User, "a@x", "").as_deref(), Some(tenant));
        assert_eq!(key(Key::Tenant, "a@x", "b@x").as_deref(), Some(tenant));
        assert_eq!(key(Key::None, "a@x", "b@x"), None);
    }

    #[test]
    fn headers_say_where_a_record_is_from() {
        let shape = shape(|config| config.headers = true);
        let of = shape.of_work(&work(1, 1));
        let headers = shape.headers(&of, &record(b"{}", "", ""), &Body::Whole).unwrap();
        let all: Vec<(&str, &str)> = headers
            .iter()
            .map(|header| (header.key, std::str::from_utf8(header.value.unwrap()).unwrap()))
            .collect();
        assert_eq!(
            all,
            [
                (TENANT, of.tenant.as_str()),
                (CONTENT_TYPE, "Audit.Exchange"),
                (CONTENT_ID, "blob1"),
                (COLLECTOR, MAILTRAIL),
                (SCHEMA, "ocsf/1.8.0"),
                (RECORD_ID, "an-id"),
                (RECORD_TYPE, "50"),
            ]
        );
        let without = super::tests::shape(|config| config.headers = false);
        assert!(without.headers(&of, &record(b"{}", "", ""), &Body::Whole).is_none());
    }

    #[test]
    fn the_time_is_the_records_own_or_now() {
        let own = shape(|config| config.timestamp = Timestamp::CreationTime);
        assert_eq!(own.timestamp(&record(b"{}", "", "")), Some(1_700_000_000_123));
        let timeless = RenderedRecord { facts: RecordFacts::default(), ..record(b"{}", "", "") };
        assert_eq!(own.timestamp(&timeless), None);
        let sent = shape(|config| config.timestamp = Timestamp::Sent).timestamp(&timeless).unwrap();
        assert!(sent > 1_700_000_000_123);
    }

    #[test]
    fn what_is_too_large_is_refused_with_its_size_or_cut_and_says_so() {
        let text = format!(r#"{{"Id":"an-id","Note":"short","Data":"{}"}}"#, "ä".repeat(40_000));
        let record = record(text.as_bytes(), "", "");
        let small = |oversize| {
            shape(|config| {
                config.oversize = oversize;
                config.max_message_bytes = 10_000.try_into().unwrap();
            })
        };
        let shape = small(Oversize::DeadLetter);
        let of = shape.of_work(&work(1, 1));
        let reason = shape.body(&of, &record).unwrap_err();
        assert!(reason.contains(&text.len().to_string()) && reason.contains("10000"), "{reason}");
        let shape = small(Oversize::Truncate);
        let Body::Cut(bytes) = shape.body(&of, &record).unwrap() else { panic!("it is too large") };
        assert!(bytes.len() < 10_000);
        let cut: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(cut["Note"], "short");
        assert_eq!(cut["mailtrail_truncated"]["original_bytes"], text.len());
        assert_eq!(cut["mailtrail_truncated"]["cut"][0], "/Data: a text of 80000 bytes");
        let headers = shape.headers(&of, &record, &Body::Cut(bytes)).unwrap();
        assert!(headers.iter().any(|header| header.key == TRUNCATED));
        // Nothing in it can be cut.
        let many: String = (0..5_000).map(|n| format!(r#""k{n}":{n},"#)).collect();
        let many = format!("{{{many}\"end\":1}}");
        assert!(shape.body(&of, &super::tests::record(many.as_bytes(), "", "")).is_err());
    }
}
