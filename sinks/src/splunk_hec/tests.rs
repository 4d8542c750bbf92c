//! What the tests of this sink share.

use std::sync::Arc;

use entra::SecretSource;
use schemas::{RecordFacts, Rendered};

use super::{config::Tls, *};
use crate::{
    memory::{Piece, Reservation},
    sink::BatchPart,
    test_ledger::work,
};

/// A configuration whose token is the name of this package.
pub(super) fn config() -> HecConfig {
    HecConfig {
        urls: vec!["https://splunk.example:8088".parse().unwrap()],
        token: SecretSource::Env("CARGO_PKG_NAME".to_owned()),
        acknowledgement: Acknowledgement::Indexer,
        ack_timeout: Duration::from_secs(300),
        event: EventForm::String,
        host: "{tenant}".parse().unwrap(),
        source: "src/{content_id}".parse().unwrap(),
        sourcetype: "st".parse().unwrap(),
        index: None,
        fields: Vec::new(),
        gzip: false,
        batch_bytes: 1 << 20,
        batch_events: 1000,
        linger: Duration::from_secs(1),
        connections: 4,
        timeout: Duration::from_secs(60),
        tls: Tls::default(),
    }
}

/// A batch of these records, each with its time.
pub(super) fn batch(records: &[(&[u8], Option<i64>)]) -> Batch {
    let mut rendered = Rendered::default();
    for (position, (bytes, time_ms)) in records.iter().enumerate() {
        rendered.buffer().extend_from_slice(bytes);
        rendered.end_record(position as u32, RecordFacts { time_ms: *time_ms, ..RecordFacts::default() });
    }
    let part = BatchPart {
        work: work(1, records.len()),
        piece: Arc::new(Piece::new(Arc::new(rendered), Arc::new(Reservation::uncounted()))),
        indexes: 0..records.len(),
        first: true,
        last: true,
    };
    Batch { parts: vec![part] }
}
