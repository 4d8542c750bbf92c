//! Quarantine: blobs that nobody can handle. Their deliveries are dead, and their bytes lie among the dead letters.

use std::io::Read;

use schemas::{Buffer, SplitError};

use crate::{
    WorkId,
    deliveries::QUARANTINED,
    error::{LedgerError, Result},
    pieces::find_body,
    spool::{
        codec::Codecs,
        frame::{HEADER, Header},
        incoming::Incoming,
        reader::ReadFailure,
    },
    writer::Writer,
};

impl Writer {
    /// Quarantines a spooled work: what is pending of it is dead with the reason, and the records that can be read of
    /// its body become dead letters of no particular sink.
    pub(crate) fn quarantine(&mut self, work: WorkId, reason: &str, message: &str) -> Result<()> {
        let now = self.now_micros();
        // The letters that a retry was made of have the records: they are as unsent as they were. One that was fetched has
        // more than those of its letters.
        let sql = "UPDATE dead_letter SET retry = NULL WHERE retry = ?1 AND done_at IS NULL AND bytes IS NOT NULL \
                   AND position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM retry_sink WHERE work = ?1)";
        if self.exec(sql, [work.0])? == 0 {
            self.keep_body(work, &format!("{reason}: {message}"))?;
            // Its letters are replaced by those that were made just now.
            let sql = "UPDATE dead_letter SET done_at = ?2 WHERE retry = ?1 AND done_at IS NULL";
            self.exec(sql, (work.0, now))?;
        }
        let sql = "UPDATE delivery SET state = 'dead', dead = due, reason = ?2, settled_at = ?3, not_before = 0 \
                   WHERE work = ?1 AND state = 'pending'";
        self.exec(sql, (work.0, reason, now))?;
        let sql = "UPDATE blob SET state = 'quarantined', reason = ?2, ended_at = ?3 WHERE work = ?1";
        self.exec(sql, (work.0, reason, now))?;
        self.release_body(work)?;
        self.after.wake_sinks.insert(None);
        tracing::error!(%work, reason, message, "quarantined; see `mailtrail reconcile` and `mailtrail dead-letters`");
        Ok(())
    }

    /// Keeps the records of a spooled body, as far as they can be read, as dead letters of no particular sink.
    fn keep_body(&mut self, work: WorkId, reason: &str) -> Result<()> {
        let body = find_body(&self.db, work)?;
        let mut kept = 0;
        let mut position = 0;
        while let Some(place) = body.place.filter(|_| position < body.records) {
            let frame = match self.shared.spool.piece(work.0, place, position) {
                Ok(frame) => frame,
                Err(ReadFailure::Io(source)) => return Err(LedgerError::io("reading the spool")(source)),
                Err(ReadFailure::NoFile | ReadFailure::Corrupt { .. }) => {
                    // What lies behind a damaged frame cannot be found: the frames lead from one to the next.
                    let lost =
                        (position..body.records).filter(|at| !body.dropped.contains(*at)).count() as u32;
                    self.add_letter(work, None, None, lost, reason, None)?;
                    break;
                }
            };
            let mut start = 0;
            position = frame.first;
            for length in &frame.unpacked.lengths {
                let end = start + *length as usize;
                if !body.dropped.contains(position) {
                    let bytes = &frame.unpacked.bytes[start..end];
                    kept += self.add_letter(work, None, Some(position), 1, reason, Some(bytes))?;
                }
                (position, start) = (position + 1, end);
            }
        }
        self.count_letter_bytes(kept)
    }

    /// Quarantines a listed blob whose body is no array of records. The body is kept in parts. Gives whether it did:
    /// not when nothing of it is wanted any more.
    pub(crate) fn quarantine_broken(
        &mut self,
        work: WorkId,
        mut raw: Incoming,
        cause: &SplitError,
    ) -> Result<bool> {
        if self.settle_unwanted(work)? {
            return Ok(false);
        }
        let reason = format!("{QUARANTINED}: {cause}");
        raw.close()?;
        let codecs = Codecs::default();
        let (mut made, mut kept) = (0, 0);
        {
            let mut reader = raw.reader()?;
            let mut head = [0; HEADER];
            let failed = || LedgerError::io("reading a part file");
            while let 1.. = reader.read(&mut head[..1]).map_err(failed())? {
                reader.read_exact(&mut head[1..]).map_err(failed())?;
                let odd = |what: &str| LedgerError::damaged(format!("a part file of which {what}"));
                let header = Header::parse(&head, work.0).map_err(odd)?;
                let mut stored = Buffer::of_length(header.stored as usize);
                reader.read_exact(&mut stored).map_err(failed())?;
                let unpacked = header.unpack(stored, &codecs).map_err(odd)?;
                kept += self.add_letter(work, None, None, 0, &reason, Some(&unpacked.bytes))?;
                made += 1;
            }
        }
        if made > 0 {
            // The letters that it was to bring again are replaced by these: both would bring the blob, once for each.
            let sql = "UPDATE dead_letter SET done_at = ?2 WHERE retry = ?1 AND done_at IS NULL";
            self.exec(sql, (work.0, self.now_micros()))?;
        }
        self.count_letter_bytes(kept)?;
        self.end_unfetched(work, &reason)?;
        tracing::error!(%work, %cause, "the same broken body came again and again: quarantined");
        Ok(true)
    }

    /// Quarantines a listed blob whose fetching panics. There is no body to keep. Gives whether it did, as
    /// [`Writer::quarantine_broken`].
    pub(crate) fn quarantine_unfetched(&mut self, work: WorkId, message: &str) -> Result<bool> {
        if self.settle_unwanted(work)? {
            return Ok(false);
        }
        self.end_unfetched(work, &format!("{QUARANTINED}: {message}"))?;
        tracing::error!(%work, message, "fetching it panicked again and again: quarantined");
        Ok(true)
    }

    fn end_unfetched(&mut self, work: WorkId, reason: &str) -> Result<()> {
        let sql = "UPDATE blob SET state = 'quarantined', reason = ?2, ended_at = ?3, not_before = 0 WHERE work = ?1";
        let now = self.now_micros();
        self.exec(sql, (work.0, reason, now))?;
        // A body that was spooled before and damaged: what waited for it waits for nothing.
        let sql = "UPDATE delivery SET state = 'dead', dead = due, reason = ?2, settled_at = ?3, not_before = 0 \
                   WHERE work = ?1 AND state = 'pending'";
        self.exec(sql, (work.0, QUARANTINED, now))?;
        self.exec("UPDATE dead_letter SET retry = NULL WHERE retry = ?1 AND done_at IS NULL", [work.0])?;
        Ok(())
    }
}
