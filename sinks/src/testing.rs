//! Pieces and batches for the tests.

use std::sync::Arc;

use schemas::{RecordFacts, Rendered};

use crate::{
    memory::{Piece, Reservation},
    sink::{Batch, BatchPart},
    test_ledger::work,
};

/// A piece of these records, each with its position and its time.
pub(crate) fn piece<'a>(records: impl IntoIterator<Item = (u32, &'a [u8], Option<i64>)>) -> Arc<Piece> {
    let mut rendered = Rendered::default();
    for (position, bytes, time_ms) in records {
        rendered.buffer().extend_from_slice(bytes);
        rendered.end_record(position, RecordFacts { time_ms, ..RecordFacts::default() });
    }
    Arc::new(Piece::new(Arc::new(rendered), Arc::new(Reservation::uncounted())))
}

/// A batch of one work with these records, each with its time.
pub(crate) fn batch(records: &[(&[u8], Option<i64>)]) -> Batch {
    let part = BatchPart {
        work: work(1, records.len()),
        piece: piece((0..).zip(records).map(|(position, (bytes, time))| (position, *bytes, *time))),
        indexes: 0..records.len(),
        first: true,
        last: true,
    };
    Batch { parts: vec![part] }
}
