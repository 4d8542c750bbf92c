//! The unit of work: a blob, or some records that an operator asked for once more: a retry, or a part of a restore.

use rusqlite::params;
use schemas::{BodyId, ContentId, FeedKey, Seq, WorkId};

use crate::{
    error::{LedgerError, Result},
    leases::Leased,
    spool::incoming::Incoming,
    writer::Writer,
};

/// What is to be delivered: a blob, a retry or a part of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The ledger's number of it.
    pub id: WorkId,
    /// The tenant's number of it.
    pub seq: Seq,
    /// Which body it has; `None` when its records never came as one.
    pub body: Option<BodyId>,
    /// The feed that it is from.
    pub feed: FeedKey,
    /// The blob's name; that of the archive's object for restored records.
    pub content_id: ContentId,
    /// Whether its records were restored from an archive.
    pub restored: bool,
    /// Records in the body.
    pub records: u32,
    /// How many of them were dropped as duplicates.
    pub duplicates: u32,
    /// Bytes of the records.
    pub bytes: u64,
}

/// The columns that [`feed_key`] reads.
pub(crate) const FEED_COLUMNS: &str = "guid, content_type";

/// The feed that a row names.
pub(crate) fn feed_key(guid: &str, content_type: &str) -> Result<FeedKey> {
    Ok(FeedKey {
        tenant: guid.parse().map_err(|_| LedgerError::damaged(format!("the tenant `{guid}`")))?,
        content_type: content_type
            .parse()
            .map_err(|_| LedgerError::damaged(format!("the content type `{content_type}`")))?,
    })
}

/// The blob's name that a row holds.
pub(crate) fn content_id(text: &str) -> Result<ContentId> {
    ContentId::try_from(text).map_err(|error| LedgerError::damaged(error.to_string()))
}

impl Writer {
    /// Gives a work that an operator asked for its number and its body, which is closed, and makes it due for these sinks.
    pub(crate) fn spool_for(&mut self, work: WorkId, mut body: Incoming, sinks: &[i64]) -> Result<Seq> {
        let (stored, records, bytes) = (body.stored(), body.records(), body.bytes());
        let place = self.spool.append(&mut body.reader()?, stored)?;
        self.account_body(place)?;
        let tenant = self.number("SELECT tenant FROM blob WHERE work = ?1", [work.0])?;
        let seq = self.take_seq(tenant)?;
        let sql = "UPDATE blob SET seq = ?2, spooled_at = ?3, bytes = ?4, records = ?5, segment = ?6, offset = ?7, \
                   stored = ?8 WHERE work = ?1";
        let (segment, offset) = (place.segment as i64, place.offset as i64);
        let now = self.now_micros();
        self.exec(sql, params![work.0, seq, now, bytes as i64, records, segment, offset, stored as i64])?;
        let sql = "UPDATE tenant SET spooled_bytes = spooled_bytes + ?2 WHERE id = ?1";
        self.exec(sql, (tenant, stored as i64))?;
        for sink in sinks {
            let sql = "INSERT INTO delivery (work, sink, tenant, seq, due) VALUES (?1, ?2, ?3, ?4, ?5)";
            self.exec(sql, params![work.0, sink, tenant, seq, records])?;
            self.after.wake_sinks.insert(Some(*sink));
        }
        Ok(Seq(seq as u64))
    }

    /// Ends a body's time in the spool: its bytes no longer count, and a segment without any goes after the commit.
    pub(crate) fn release_body(&mut self, work: WorkId) -> Result<()> {
        let sql = "SELECT segment, stored, tenant FROM blob WHERE work = ?1 AND segment IS NOT NULL";
        let body = self.first(sql, [work.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        let Some((segment, stored, tenant)) = body else { return Ok(()) };
        self.after.wake_fetches |= !self.paused.is_empty();
        self.exec("UPDATE blob SET segment = NULL, offset = NULL WHERE work = ?1", [work.0])?;
        let sql = "UPDATE tenant SET spooled_bytes = spooled_bytes - ?2 WHERE id = ?1";
        self.exec(sql, (tenant, stored))?;
        self.forget_body(segment, stored)
    }

    /// Takes a body out of a segment's account.
    pub(crate) fn forget_body(&mut self, segment: i64, stored: i64) -> Result<()> {
        let sql = "UPDATE segment SET live_bytes = live_bytes - ?2, live_bodies = live_bodies - 1 WHERE number = ?1";
        self.exec(sql, (segment, stored))?;
        let live = self.number("SELECT live_bodies FROM segment WHERE number = ?1", [segment])?;
        debug_assert!(live >= 0, "segment {segment} has {live} live bodies");
        let current = self.spool.current().map(|(number, _)| number as i64);
        if live == 0 && current != Some(segment) {
            self.exec("DELETE FROM segment WHERE number = ?1", [segment])?;
            self.after.remove.push(segment as u64);
        }
        Ok(())
    }

    /// Settles a work none of whose deliveries is pending any more (L4), unless somebody is fetching its body just now: it
    /// ends with the fetch.
    pub(crate) fn settle_when_done(&mut self, work: WorkId) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM delivery WHERE work = ?1 AND state = 'pending')";
        if self.number(sql, [work.0])? != 0 {
            return Ok(false);
        }
        let now = self.now_micros();
        let sql = "UPDATE blob SET state = 'settled', ended_at = ?2 WHERE work = ?1 AND state = 'spooled'";
        if self.exec(sql, (work.0, now))? == 1 {
            self.release_body(work)?;
            self.retry_is_done(work, now)?;
        } else if !self.leases.is_claimed(Leased::Fetch(work)) {
            self.settle_unwanted(work)?;
        }
        Ok(true)
    }

    /// Settles a listed work whose body was lost when all of its deliveries were settled, or were settled since: it was to
    /// be fetched again for somebody who needs it no more, and whether it can be had is nobody's loss. Gives whether it was
    /// such a one.
    pub(crate) fn settle_unwanted(&mut self, work: WorkId) -> Result<bool> {
        let now = self.now_micros();
        let sql = "UPDATE blob SET state = 'settled', ended_at = ?2, not_before = 0 \
                   WHERE work = ?1 AND state = 'listed' AND seq IS NOT NULL \
                   AND EXISTS (SELECT 1 FROM delivery WHERE work = ?1) \
                   AND NOT EXISTS (SELECT 1 FROM delivery WHERE work = ?1 AND state = 'pending')";
        let unwanted = self.exec(sql, (work.0, now))? == 1;
        if unwanted {
            self.retry_is_done(work, now)?;
        }
        Ok(unwanted)
    }

    /// Ends the dead letters that a settled work has retried, if it has.
    pub(crate) fn retry_is_done(&mut self, work: WorkId, now: i64) -> Result<()> {
        let sql = "SELECT sum(size) FROM dead_letter WHERE retry = ?1 AND done_at IS NULL";
        let freed: Option<Option<i64>> = self.first(sql, [work.0], |row| row.get(0))?;
        let Some(freed) = freed.flatten() else { return Ok(()) };
        let sql = "UPDATE dead_letter SET done_at = ?2, size = 0, bytes = NULL \
                   WHERE retry = ?1 AND done_at IS NULL";
        self.exec(sql, (work.0, now))?;
        if freed > 0 {
            let kept = self.meta(crate::dead_letters::BYTES_KEPT)?;
            self.set_meta(crate::dead_letters::BYTES_KEPT, kept - freed)?;
        }
        Ok(())
    }
}
