//! What the tests of this sink share.

use std::{sync::Arc, time::Duration};

use schemas::{RecordFacts, Rendered};

use super::config::{Form, SentinelConfig};
use crate::{
    memory::{Piece, Reservation},
    sink::{Batch, BatchPart},
    test_ledger::work,
};

/// A configuration with one rule.
pub(super) fn config() -> SentinelConfig {
    SentinelConfig {
        endpoint: "https://mailtrail-abcd.westeurope-1.ingest.monitor.azure.com".parse().unwrap(),
        rules: vec!["dcr-00112233445566778899aabbccddeeff".parse().unwrap()],
        stream: "Custom-MailtrailAsim_CL".parse().unwrap(),
        form: Form::Columns { without: &["Type"] },
        batch_bytes: SentinelConfig::LARGEST,
        linger: Duration::from_secs(5),
        connections: 4,
        timeout: Duration::from_secs(60),
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
