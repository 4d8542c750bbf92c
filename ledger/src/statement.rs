//! What became of a span of a tenant's numbers, for one sink: the sums of the reconciliation, cut by `Seq` instead of by hour.
//!
//! A number stands for a blob, a gap, a hole, a retry or a part of a restore, which is stated as a retry is. A blob that had to be fetched again got a later number; it is stated under the
//! number under which it was delivered to this sink, once. What stands for nothing of this sink any more (a number that was given
//! up in that way, a retry or restore for another sink) is counted as other, so that the parts always make up the span.
//!
//! Once everything in a span is settled, a statement on it stays the same: `delivered` and `dead` are final (L6), and rows are kept
//! for [`ROWS_KEPT`](crate::ROWS_KEPT) after they were settled. After that what a number stood for is not known any more, and it is
//! counted as other; the statement says so (`incomplete_through`).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use schemas::{ContentType, Seq, SinkName, TenantId};

use crate::{
    clock::{MICROS_PER_HOUR, hour, micros, time},
    error::{LedgerError, Result},
    inspect::Inspector,
    writer::{all, first},
};

/// The numbers behind one, up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqSpan {
    /// Behind this one …
    pub after: Seq,
    /// … up to this one.
    pub last: Seq,
}

/// What became of a span of numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    /// By content type; those without a number in the span are left out.
    pub content_types: BTreeMap<ContentType, ContentStatement>,
    /// Numbers that stand for nothing of this sink.
    pub other: u64,
    /// Rows are folded already: of the numbers up to this one, `other` may have some that stood for something.
    pub incomplete_through: Option<Seq>,
}

/// What became of the numbers of a content type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentStatement {
    /// Blobs: those that were fetched, and those that were lost.
    pub listed: u64,
    /// Of those, the ones whose body was taken.
    pub fetched: u64,
    /// Of those, the ones that can no longer be had.
    pub gaps: u64,
    /// Of those, the ones that nobody could handle.
    pub quarantined: u64,
    /// Holes.
    pub holes: u64,
    /// Records in the bodies.
    pub records: u64,
    /// Of those, the ones that are repetitions.
    pub duplicates: u64,
    /// Of those that are none, the ones that were never due for this sink.
    pub not_due: u64,
    /// What became of the others.
    pub blobs: Settled,
    /// Retries for this sink.
    pub retried: u64,
    /// What became of their records.
    pub retries: Settled,
    /// Blobs that were made available before the asked time, by the hour.
    pub late: BTreeMap<DateTime<Utc>, u64>,
}

/// What became of records that were due for a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// All of them.
    pub due: u64,
    /// Those that receipts cover.
    pub delivered: u64,
    /// Those that the filter took out.
    pub filtered: u64,
    /// Those that are dead.
    pub dead: u64,
}

impl Inspector {
    /// For each tenant, the last number up to which everything is settled for the sink. Blocks for milliseconds.
    ///
    /// # Errors
    ///
    /// When the sink is unknown, and when the ledger cannot be read.
    pub fn settled_through(&self, sink: &SinkName) -> Result<BTreeMap<TenantId, Seq>> {
        let db = self.db();
        let db = db.unchecked_transaction()?;
        let number = sink_number(&db, sink)?;
        let sql = "SELECT guid, min(next_seq, \
                   coalesce((SELECT min(seq) FROM delivery WHERE sink = ?1 AND tenant = tenant.id \
                             AND state = 'pending' AND not_before = 0), next_seq), \
                   coalesce((SELECT min(seq) FROM delivery WHERE sink = ?1 AND tenant = tenant.id \
                             AND state = 'pending' AND not_before > 0), next_seq)) - 1 FROM tenant";
        let rows = all(&db, sql, [number], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        let tenants = rows.into_iter().map(|(guid, seq)| {
            let tenant = guid.parse().map_err(|_| LedgerError::damaged(format!("the tenant `{guid}`")))?;
            Ok((tenant, Seq(seq.max(0) as u64)))
        });
        tenants.collect()
    }

    /// What became of a span of a tenant's numbers for the sink; blobs that were made available before `late_before` are
    /// counted as late too. Blocks for as long as it takes to read the span's rows.
    ///
    /// # Errors
    ///
    /// When the sink is unknown, and when the ledger cannot be read.
    pub fn statement(
        &self,
        sink: &SinkName,
        tenant: TenantId,
        span: SeqSpan,
        late_before: DateTime<Utc>,
    ) -> Result<Statement> {
        let db = self.db();
        // One transaction: the figures belong together.
        let db = db.unchecked_transaction()?;
        let sink = sink_number(&db, sink)?;
        let sql = "SELECT id FROM tenant WHERE guid = ?1";
        let tenant: Option<i64> = first(&db, sql, [tenant.to_string()], |row| row.get(0))?;
        let Some(tenant) = tenant else {
            return Ok(Statement { other: span.numbers(), ..Statement::default() });
        };
        let read = Reading { db: &db, sink, tenant, after: span.after.0 as i64, last: span.last.0 as i64 };
        let mut statement = Statement::default();
        read.blobs(&mut statement)?;
        read.late(&mut statement, late_before)?;
        read.holes(&mut statement)?;
        let known = |content: &ContentStatement| content.listed + content.holes + content.retried;
        let known: u64 = statement.content_types.values().map(known).sum();
        statement.other = span.numbers().checked_sub(known).ok_or_else(|| {
            LedgerError::damaged(format!(
                "the numbers behind {} up to {}, of which there are {known}",
                span.after, span.last
            ))
        })?;
        let sql = "SELECT value FROM meta WHERE key = ?1 AND value > ?2";
        let folded: Option<i64> = first(&db, sql, params![folded_seq(tenant), read.after], |row| row.get(0))?;
        statement.incomplete_through = folded.map(|folded| Seq(folded.max(0) as u64).min(span.last));
        Ok(statement)
    }
}

/// The fact that keeps up to which number a tenant's rows are folded; not all below it need be.
pub(crate) fn folded_seq(tenant: i64) -> String {
    format!("folded_seq_{tenant}")
}

impl SeqSpan {
    /// How many there are.
    #[must_use]
    pub fn numbers(self) -> u64 {
        self.last.0.saturating_sub(self.after.0)
    }
}

fn sink_number(db: &Connection, sink: &SinkName) -> Result<i64> {
    let sql = "SELECT id FROM sink WHERE name = ?1 AND forgotten_at IS NULL";
    first(db, sql, [sink.as_str()], |row| row.get(0))?
        .ok_or_else(|| LedgerError::UnknownSink { name: sink.clone() })
}

/// Rows of the span. A blob that was fetched again after it had been delivered is found behind the span, under its later
/// number: its delivery still has the earlier one.
const ROWS: &str = "FROM blob JOIN feed ON feed.id = blob.feed \
                    LEFT JOIN delivery ON delivery.work = blob.work AND delivery.sink = ?1 \
                    WHERE blob.tenant = ?2 AND blob.seq > ?3 \
                    AND coalesce(delivery.seq, blob.seq) > ?3 AND coalesce(delivery.seq, blob.seq) <= ?4";

struct Reading<'a> {
    db: &'a Connection,
    sink: i64,
    tenant: i64,
    after: i64,
    last: i64,
}

impl Reading<'_> {
    fn blobs(&self, statement: &mut Statement) -> Result<()> {
        let sql = format!(
            "SELECT content_type, kind = 'retry', count(*), sum(blob.state = 'gap'), sum(blob.state = 'quarantined'), \
             sum(records), sum(duplicates), sum(coalesce(due, 0)), sum(coalesce(delivery.delivered, 0)), \
             sum(coalesce(delivery.filtered, 0)), sum(coalesce(delivery.dead, 0)), count(delivery.work) \
             {ROWS} GROUP BY content_type, kind"
        );
        let rows = all(self.db, &sql, params![self.sink, self.tenant, self.after, self.last], |row| {
            let mut counts = [0; 10];
            for (at, count) in counts.iter_mut().enumerate() {
                *count = row.get::<_, i64>(at + 2)?.max(0) as u64;
            }
            Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, counts))
        })?;
        for (kind, retry, counts) in rows {
            let [works, gaps, quarantined, records, duplicates, due, delivered, filtered, dead, ours] =
                counts;
            let settled = Settled { due, delivered, filtered, dead };
            let content = statement.of(&kind, !retry || ours > 0)?;
            let Some(content) = content else { continue };
            if retry {
                (content.retried, content.retries) = (ours, settled);
            } else {
                content.listed = works;
                content.gaps = gaps;
                content.quarantined = quarantined;
                content.fetched = works.saturating_sub(gaps + quarantined);
                content.records = records;
                content.duplicates = duplicates;
                content.not_due = records.saturating_sub(duplicates + due);
                content.blobs = settled;
            }
        }
        Ok(())
    }

    fn late(&self, statement: &mut Statement, before: DateTime<Utc>) -> Result<()> {
        let sql = format!(
            "SELECT content_type, created, count(*) {ROWS} AND kind = 'blob' AND created < ?5 GROUP BY content_type, \
             (created - ((created % ?6) + ?6) % ?6) / ?6"
        );
        let before = micros(before);
        let params = params![self.sink, self.tenant, self.after, self.last, before, MICROS_PER_HOUR];
        for (kind, created, blobs) in all(self.db, &sql, params, |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })? {
            if let Some(content) = statement.of(&kind, true)? {
                content.late.insert(time(hour(created) * MICROS_PER_HOUR), blobs.max(0) as u64);
            }
        }
        Ok(())
    }

    fn holes(&self, statement: &mut Statement) -> Result<()> {
        let sql = "SELECT content_type, count(*) FROM hole JOIN feed ON feed.id = hole.feed \
                   WHERE hole.tenant = ?1 AND seq > ?2 AND seq <= ?3 GROUP BY content_type";
        for (kind, holes) in all(self.db, sql, [self.tenant, self.after, self.last], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
        })? {
            if let Some(content) = statement.of(&kind, true)? {
                content.holes = holes.max(0) as u64;
            }
        }
        Ok(())
    }
}

impl Statement {
    /// The line of a content type, which is made when it is wanted.
    fn of(&mut self, kind: &str, wanted: bool) -> Result<Option<&mut ContentStatement>> {
        let kind: ContentType =
            kind.parse().map_err(|_| LedgerError::damaged(format!("the content type `{kind}`")))?;
        Ok(if wanted { Some(self.content_types.entry(kind).or_default()) } else { None })
    }
}
