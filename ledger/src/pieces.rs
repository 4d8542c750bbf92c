//! Reading records back from the spool, a bounded piece at a time.

use std::sync::atomic::Ordering;

use schemas::{BodyId, Buffer};

use crate::{
    WorkId,
    error::{LedgerError, Result, Unreadable},
    handle::{Ledger, lock},
    positions::Positions,
    spool::{
        Place,
        reader::{Piece as Frame, ReadFailure},
    },
    writer::{Writer, first},
};

/// Records of a body in one buffer. Duplicates are not among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// The records' bytes, and those of duplicates between them.
    buffer: Buffer,
    records: Vec<RecordSpan>,
    /// Where to read on; `None` behind the last record of the body.
    pub next: Option<u32>,
}

/// Where a record lies in a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RecordSpan {
    position: u32,
    start: usize,
    end: usize,
}

impl Piece {
    /// The records, each with its position in the body.
    pub fn records(&self) -> impl ExactSizeIterator<Item = (u32, &[u8])> {
        self.records.iter().map(|span| (span.position, &self.buffer[span.start..span.end]))
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds none: everything from the asked position on is a duplicate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.capacity() + self.records.capacity() * size_of::<RecordSpan>()
    }
}

/// A body in the spool.
pub(crate) struct Body {
    pub(crate) place: Option<Place>,
    pub(crate) records: u32,
    pub(crate) dropped: Positions,
    id: Option<BodyId>,
}

/// Finds a body that is in the spool.
pub(crate) fn find_body(db: &rusqlite::Connection, work: WorkId) -> Result<Body> {
    let sql = "SELECT segment, offset, stored, records, dropped, sha256 FROM blob WHERE work = ?1 AND state = 'spooled'";
    let row = first(db, sql, [work.0], |row| {
        Ok((
            row.get::<_, Option<i64>>(0)?,
            row.get::<_, Option<i64>>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, u32>(3)?,
            row.get::<_, Option<Vec<u8>>>(4)?,
            row.get::<_, Option<Vec<u8>>>(5)?,
        ))
    })?;
    let (segment, offset, stored, records, dropped, sha256) = row.ok_or(Unreadable::NotSpooled { work })?;
    let place = segment.zip(offset).map(|(segment, offset)| Place {
        segment: segment as u64,
        offset: offset as u64,
        stored: stored as u64,
    });
    let dropped = Positions::decode(dropped.as_deref().unwrap_or_default())
        .ok_or_else(|| LedgerError::damaged(format!("the duplicates of {work}")))?;
    let id = sha256.and_then(|hash| BodyId::of_sha256(&hash));
    Ok(Body { place, records, dropped, id })
}

impl Ledger {
    /// Reads records of a spooled body, from a position on: at most one piece of it, and at least one record unless
    /// all that follow are duplicates. Blocks.
    ///
    /// # Errors
    ///
    /// When the body is not in the spool, is another one than `body` by now, the disk fails, or the piece is damaged
    /// ([`Unreadable::Corrupt`]): then the blob has been made due for fetching again, or quarantined if it has expired.
    pub fn read_piece(&self, work: WorkId, body: Option<BodyId>, from: u32) -> Result<Piece> {
        let mut from = from;
        loop {
            let piece = self.read_once(work, body, from)?;
            match piece.next {
                Some(next) if piece.is_empty() => from = next,
                _ => return Ok(piece),
            }
        }
    }

    fn read_once(&self, work: WorkId, wanted: Option<BodyId>, from: u32) -> Result<Piece> {
        let mut moved = false;
        loop {
            let body = find_body(&lock(&self.shared.bodies), work)?;
            if BodyId::differ(wanted, body.id) {
                return Err(Unreadable::Replaced { work }.into());
            }
            let Some(place) = body.place.filter(|_| from < body.records) else {
                return Ok(Piece::default());
            };
            let (offset, what) = match self.shared.spool.piece(work.0, place, from) {
                Ok(frame) => return Ok(cut(frame, from, &body)),
                Err(ReadFailure::Io(source)) => return Err(LedgerError::io("reading the spool")(source)),
                // Between the look-up and the reading the body may have been moved.
                Err(ReadFailure::NoFile) if !moved => {
                    moved = true;
                    continue;
                }
                Err(ReadFailure::NoFile) => (place.offset, "the segment is missing"),
                Err(ReadFailure::Corrupt { offset, what }) => (offset, what),
            };
            let fetched_again = self.change(move |writer| writer.body_lost(work, place)).wait()?;
            let segment = place.segment;
            return Err(Unreadable::Corrupt { work, segment, offset, what, fetched_again }.into());
        }
    }
}

/// Takes the records from a position on out of a frame, without the duplicates.
fn cut(frame: Frame, from: u32, body: &Body) -> Piece {
    let mut records = Vec::with_capacity(frame.unpacked.lengths.len());
    let (mut position, mut start) = (frame.first, 0);
    for length in &frame.unpacked.lengths {
        let end = start + *length as usize;
        if position >= from && !body.dropped.contains(position) {
            records.push(RecordSpan { position, start, end });
        }
        (position, start) = (position + 1, end);
    }
    let next = (position < body.records).then_some(position);
    Piece { buffer: frame.unpacked.bytes, records, next }
}

impl Writer {
    /// A body in the spool turned out to be damaged. It is fetched again, if the service still has it; otherwise what
    /// can be read of it moves to the dead letters. Gives whether it is fetched again.
    pub(crate) fn body_lost(&mut self, work: WorkId, place: Place) -> Result<bool> {
        let sql = "SELECT expires, content_id, kind = 'blob' OR EXISTS (SELECT 1 FROM retry_sink WHERE work = ?1) \
                   FROM blob WHERE work = ?1 AND state = 'spooled' AND segment = ?2 AND offset = ?3";
        let row = self.first(sql, (work.0, place.segment as i64, place.offset as i64), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
        })?;
        let Some((expires, content_id, can_be_fetched)) = row else {
            // Somebody else noticed it first, or it was moved.
            let sql = "SELECT state = 'listed' FROM blob WHERE work = ?1";
            return Ok(self.first(sql, [work.0], |row| row.get(0))?.unwrap_or(false));
        };
        self.shared.corrupt_pieces.fetch_add(1, Ordering::Relaxed);
        let segment = place.segment;
        if can_be_fetched && expires > self.now_micros() {
            tracing::error!(%work, %content_id, segment, "a body is damaged in the spool; the blob is fetched again");
            self.release_body(work)?;
            let sql =
                "UPDATE blob SET state = 'listed', not_before = 0, attempts = 0, stored = 0 WHERE work = ?1";
            self.exec(sql, [work.0])?;
            let sql = "UPDATE delivery SET not_before = ?2 WHERE work = ?1 AND state = 'pending'";
            self.exec(sql, (work.0, crate::deliveries::HELD))?;
            self.after.wake_fetches = true;
            return Ok(true);
        }
        tracing::error!(%work, %content_id, segment, "a body is damaged in the spool and cannot be fetched again");
        self.quarantine(work, DAMAGED, "its body is damaged in the spool")?;
        Ok(false)
    }
}

/// The reason of what is dead because its body was damaged and could not be fetched again.
pub const DAMAGED: &str = "damaged";
