//! Restores: records that come from an archive once more, for one sink.
//!
//! ```text
//! let begun = ledger.begin_restore(ask).await?;              // the same asked again goes on
//! for each object {
//!     let at = ledger.restore_position(begun.id, object).await?;   // where to go on, and whether there is room
//!     ledger.restore_records(some).await?;                   // they are due, and the position moves, in one commit
//! }
//! ledger.end_restore(begun.id).await?;
//! ```
//!
//! Each piece is a work of its own: a new row, with a number and a body of its own, that only the sink of the restore has a
//! delivery of. It passes the duplicate check by, in both directions: nothing of it is looked up, and nothing is
//! remembered. It was never listed, so it counts for no hour's `listed`, `fetched` or `records`; its delivery is counted
//! apart, in the hour in which it was made.
//!
//! The position in an object moves in the commit that makes its records durable. A restore that was interrupted anywhere
//! goes on behind the last record that was put back, so no record is put back twice by one restore.
//!
//! A restore takes at most half of what the spool may hold: records that are safe in an archive must not keep those from
//! being fetched that Microsoft forgets in a week.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use schemas::{ContentId, FeedKey, Seq, SinkName, TimeRange};
use serde::{Deserialize, Serialize};

use crate::{
    WorkId,
    clock::{micros, time},
    error::{LedgerError, Result},
    handle::{Answer, Ledger},
    maintain::SUMS_KEPT,
    room::RESTORES,
    status::sink_name,
    writer::{Writer, all},
};

/// The ledger's number of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RestoreId(pub i64);

impl std::fmt::Display for RestoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "restore {}", self.0)
    }
}

/// What is to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreAsk {
    /// To which sink.
    pub sink: SinkName,
    /// From where, and which records, in words that are the same whenever the same is asked for.
    pub asked: String,
    /// From which `CreationTime` on.
    pub since: DateTime<Utc>,
    /// Before which `CreationTime`.
    pub until: DateTime<Utc>,
    /// Begin from the first record again, also when the same was asked for and is unfinished.
    pub anew: bool,
}

/// A restore that was begun, now or earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunRestore {
    /// Its number.
    pub id: RestoreId,
    /// When it was begun.
    pub begun_at: DateTime<Utc>,
    /// From which `CreationTime` on, as it was when it was begun.
    pub since: DateTime<Utc>,
    /// Before which `CreationTime`.
    pub until: DateTime<Utc>,
    /// Records that it has put back already.
    pub records: u64,
    /// Whether it was begun earlier and goes on.
    pub goes_on: bool,
}

/// How far a restore is in an object, and whether it may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePosition {
    /// So many lines are dealt with.
    pub lines: u64,
    /// All of them are.
    pub done: bool,
    /// Whether the spool has room for a restore at present.
    pub room: bool,
}

/// Some lines of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreStep {
    /// Which restore.
    pub restore: RestoreId,
    /// Whose records they are, and of what.
    pub feed: FeedKey,
    /// The object's name. The records' work takes it as the name of its blob.
    pub object: ContentId,
    /// So many lines of it were dealt with before.
    pub from: u64,
    /// So many are when this is done.
    pub through: u64,
    /// Whether that is all of them.
    pub done: bool,
}

/// A restore as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreStatus {
    /// Its number.
    pub id: RestoreId,
    /// To which sink.
    pub sink: SinkName,
    /// From which `CreationTime` on, and before which.
    pub span: TimeRange,
    /// When it was begun.
    pub begun_at: DateTime<Utc>,
    /// When all of it was in the spool.
    pub ended_at: Option<DateTime<Utc>>,
    /// Records that were put back so far.
    pub records: u64,
    /// Those of them that are still to be delivered.
    pub pending: u64,
}

impl Ledger {
    /// Begins a restore. When the same was asked for before and is unfinished, that one goes on.
    pub fn begin_restore(&self, ask: RestoreAsk) -> Answer<BegunRestore> {
        self.change(move |writer| writer.begin_restore(&ask))
    }

    /// How far a restore is in an object, and whether there is room for more of it.
    pub fn restore_position(&self, restore: RestoreId, object: ContentId) -> Answer<RestorePosition> {
        self.change(move |writer| writer.restore_position(restore, &object))
    }

    /// Puts records back, one a line, each with a line feed behind it, and notes how far the object is dealt with. Without a
    /// record only the latter. Gives the number that the records have got.
    ///
    /// Fails with [`LedgerError::Restore`], and changes nothing, when the restore has ended or somebody else has moved its
    /// position meanwhile.
    pub fn restore_records(&self, step: RestoreStep, lines: Vec<u8>) -> Answer<Option<Seq>> {
        self.change(move |writer| writer.restore_records(&step, &lines))
    }

    /// Ends a restore: all that was asked for is in the spool.
    pub fn end_restore(&self, restore: RestoreId) -> Answer<()> {
        self.change(move |writer| {
            writer.open_restore(restore)?;
            writer.close_restore(restore)
        })
    }
}

impl Writer {
    fn begin_restore(&mut self, ask: &RestoreAsk) -> Result<BegunRestore> {
        let sink = self.sink_number(&ask.sink)?;
        let refused = |why: String| LedgerError::Restore { why };
        if self.number("SELECT configured FROM sink WHERE id = ?1", [sink])? == 0 {
            return Err(refused(format!("sink {} is not configured", ask.sink)));
        }
        let sql = "SELECT id, starts, ends, begun_at, records FROM restore \
                   WHERE sink = ?1 AND asked = ?2 AND ended_at IS NULL";
        let open = self.first(sql, (sink, &ask.asked), |row| {
            Ok(BegunRestore {
                id: RestoreId(row.get(0)?),
                since: time(row.get(1)?),
                until: time(row.get(2)?),
                begun_at: time(row.get(3)?),
                records: row.get::<_, i64>(4)?.max(0) as u64,
                goes_on: true,
            })
        })?;
        match open {
            Some(open) if !ask.anew => return Ok(open),
            Some(open) => self.close_restore(open.id)?,
            None => {}
        }
        let now = self.now();
        let (since, until) = (micros(ask.since), micros(ask.until));
        if since >= until {
            return Err(refused("it ends before it begins".to_owned()));
        }
        let sql = "INSERT INTO restore (sink, asked, starts, ends, begun_at) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id";
        let id = RestoreId(self.number(sql, params![sink, ask.asked, since, until, micros(now)])?);
        Ok(BegunRestore { id, begun_at: now, since: ask.since, until: ask.until, records: 0, goes_on: false })
    }

    /// The sink of a restore that has not ended.
    fn open_restore(&self, restore: RestoreId) -> Result<i64> {
        let sql = "SELECT sink, configured FROM restore JOIN sink ON sink.id = restore.sink \
                   WHERE restore.id = ?1 AND ended_at IS NULL";
        match self.first(sql, [restore.0], |row| Ok((row.get(0)?, row.get(1)?)))? {
            Some((sink, true)) => Ok(sink),
            Some((_, false)) => {
                Err(LedgerError::Restore { why: format!("the sink of {restore} is no longer configured") })
            }
            None => Err(LedgerError::Restore {
                why: format!("{restore} has ended; another command has ended it or begun it anew"),
            }),
        }
    }

    fn close_restore(&self, restore: RestoreId) -> Result<()> {
        let now = self.now_micros();
        self.exec("UPDATE restore SET ended_at = ?2 WHERE id = ?1", (restore.0, now))?;
        self.exec("DELETE FROM restore_object WHERE restore = ?1", [restore.0])?;
        Ok(())
    }

    fn restored_lines(&self, restore: RestoreId, object: &ContentId) -> Result<(u64, bool)> {
        let sql = "SELECT lines, done FROM restore_object WHERE restore = ?1 AND object = ?2";
        let found = self.first(sql, (restore.0, object.as_str()), |row| {
            Ok((row.get::<_, i64>(0)?.max(0) as u64, row.get(1)?))
        })?;
        Ok(found.unwrap_or_default())
    }

    fn restore_position(&mut self, restore: RestoreId, object: &ContentId) -> Result<RestorePosition> {
        self.open_restore(restore)?;
        let (lines, done) = self.restored_lines(restore, object)?;
        Ok(RestorePosition { lines, done, room: self.room_for_restores()? })
    }

    fn restore_records(&mut self, step: &RestoreStep, lines: &[u8]) -> Result<Option<Seq>> {
        let restore = step.restore;
        let sink = self.open_restore(restore)?;
        let (before, done) = self.restored_lines(restore, &step.object)?;
        if (before, done) != (step.from, false) || step.through < step.from {
            return Err(LedgerError::Restore {
                why: format!(
                    "another command is at {restore}, too: {before} lines of {} are dealt with, not {}",
                    step.object, step.from
                ),
            });
        }
        let sql = "INSERT INTO restore_object (restore, object, lines, done) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT DO UPDATE SET lines = excluded.lines, done = excluded.done";
        let through = i64::try_from(step.through).unwrap_or(i64::MAX);
        self.exec(sql, params![restore.0, step.object.as_str(), through, step.done])?;
        if lines.is_empty() {
            return Ok(None);
        }
        let work = self.new_restored(step)?;
        let mut body = self.shared.incoming(work);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            body.push(line.strip_suffix(b"\n").unwrap_or(line))?;
        }
        body.close()?;
        let records = body.records();
        let seq = self.spool_for(work, body, &[sink])?;
        let sql = "UPDATE restore SET works = works + 1, records = records + ?2 WHERE id = ?1";
        self.exec(sql, (restore.0, records))?;
        Ok(Some(seq))
    }

    /// A row for restored records. They were made available now, and nobody can fetch them.
    fn new_restored(&self, step: &RestoreStep) -> Result<WorkId> {
        let row = self.feed_row(step.feed)?;
        let now = self.now_micros();
        let sql = "INSERT INTO blob (tenant, feed, kind, content_id, created, expires, listed_at, state, restore) \
                   VALUES (?1, ?2, 'retry', ?3, ?4, ?4, ?4, 'spooled', ?5) RETURNING work";
        let values = params![row.tenant, row.feed, step.object.as_str(), now, step.restore.0];
        Ok(WorkId(self.number(sql, values)?))
    }

    /// Whether a restore may put more into the spool.
    fn room_for_restores(&mut self) -> Result<bool> {
        let limit = self.shared.settings.spool_max_bytes / RESTORES;
        let disk = "SELECT coalesce(sum(length), 0) FROM segment";
        if (self.number(disk, [])? as u64) < limit {
            return Ok(true);
        }
        // What nobody wants any more is in the way. What an optional sink still wants is not given up for a restore.
        self.give_back_current()?;
        self.relocate(0.05)?;
        Ok((self.number(disk, [])? as u64) < limit)
    }

    /// Forgets restores of which nothing is left and whose time is over.
    pub(crate) fn forget_restores(&self, now: DateTime<Utc>) -> Result<()> {
        let old = "SELECT id FROM restore WHERE begun_at < ?1 \
                   AND NOT EXISTS (SELECT 1 FROM blob WHERE blob.restore = restore.id)";
        for id in self.all(old, [micros(now - SUMS_KEPT)], |row| row.get::<_, i64>(0))? {
            self.exec("DELETE FROM restore_object WHERE restore = ?1", [id])?;
            self.exec("DELETE FROM restore WHERE id = ?1", [id])?;
        }
        Ok(())
    }
}

impl RestoreStatus {
    /// Restores that are unfinished, or of which records are still to be delivered.
    pub(crate) fn read_all(db: &Connection) -> Result<Vec<Self>> {
        let sql = "SELECT * FROM (SELECT restore.id AS id, name, starts, ends, begun_at, ended_at, restore.records, \
                   (SELECT coalesce(sum(due), 0) FROM blob JOIN delivery USING (work) \
                    WHERE blob.restore = restore.id AND delivery.state = 'pending') AS pending \
                   FROM restore JOIN sink ON sink.id = restore.sink WHERE forgotten_at IS NULL) \
                   WHERE ended_at IS NULL OR pending > 0 ORDER BY id";
        let rows = all(db, sql, [], |row| {
            let times = [row.get::<_, i64>(2)?, row.get(3)?, row.get(4)?].map(time);
            let counts = [row.get::<_, i64>(6)?, row.get(7)?].map(|count: i64| count.max(0) as u64);
            let ended_at = row.get::<_, Option<i64>>(5)?.map(time);
            Ok((RestoreId(row.get(0)?), row.get::<_, String>(1)?, times, ended_at, counts))
        })?;
        let mut restores = Vec::with_capacity(rows.len());
        for (id, sink, [start, end, begun_at], ended_at, [records, pending]) in rows {
            let (sink, span) = (sink_name(&sink)?, TimeRange { start, end });
            restores.push(Self { id, sink, span, begun_at, ended_at, records, pending });
        }
        Ok(restores)
    }
}
