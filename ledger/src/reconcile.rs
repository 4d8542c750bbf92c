//! The proof: for each feed and hour what was listed, fetched, delivered and lost, whether the sums agree, and what
//! somebody still has to look at.
//!
//! The figures that must agree come from different places. What was listed is counted when a page is recorded, the
//! rest is counted from the rows, and from the sums into which old rows were folded. A tenant's numbers are dense:
//! every number that was given is found in a row, in a hole, or in the count of folded rows.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use schemas::{FeedKey, SinkName, TenantId, TimeRange};

use crate::{
    WorkId,
    clock::{MICROS_PER_HOUR, hour, micros, time},
    error::{LedgerError, Result},
    findings::{Acknowledgement, FindingId, FindingKind},
    inspect::Inspector,
    status::sink_name,
    work::feed_key,
    writer::all,
};

/// The report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciliation {
    /// A line for each feed and hour that has something.
    pub hours: Vec<HourReport>,
    /// A line for each tenant.
    pub numbers: Vec<SeqReport>,
    /// Everything that somebody has to look at or has looked at, whatever the asked time.
    pub findings: Vec<Finding>,
}

/// An hour of a feed, by when the API made the blobs available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HourReport {
    /// Which feed.
    pub feed: FeedKey,
    /// The hour's beginning.
    pub hour: DateTime<Utc>,
    /// Blobs that were listed.
    pub listed: u64,
    /// Of those, the ones that are still to be fetched.
    pub waiting: u64,
    /// Of those, the ones whose body was taken.
    pub fetched: u64,
    /// Of those, the ones that can no longer be had.
    pub gaps: u64,
    /// Of those, the ones that nobody could handle.
    pub quarantined: u64,
    /// Holes that touch the hour and were not recovered.
    pub holes: u64,
    /// Records in the fetched bodies.
    pub records: u64,
    /// Of those, the ones that are repetitions.
    pub duplicates: u64,
    /// Each sink's part.
    pub sinks: BTreeMap<SinkName, SinkSums>,
}

/// What became of a sink's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SinkSums {
    /// Those of the blobs.
    pub blobs: Sums,
    /// Those of retries.
    pub retries: Sums,
    /// Those that were restored from an archive, in the hour in which they were.
    pub restores: Sums,
}

/// What a delivery counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Blobs,
    Retries,
    Restores,
}

impl Of {
    /// As it stands in `hour_sink.retry`.
    fn read(number: i64) -> Result<Self> {
        match number {
            0 => Ok(Self::Blobs),
            1 => Ok(Self::Retries),
            2 => Ok(Self::Restores),
            _ => Err(LedgerError::damaged(format!("sums of the kind {number}"))),
        }
    }
}

/// Records of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// All of them that are no duplicates. A sink that was forgotten and met again has both times in one sum.
    pub due: u64,
    /// Those that receipts cover.
    pub delivered: u64,
    /// Those that the filter took out.
    pub filtered: u64,
    /// Those that are dead.
    pub dead: u64,
    /// Those of deliveries that are not settled.
    pub pending: u64,
    /// Records that were sent again after an ambiguous outcome; not a part of the sum.
    pub resent: u64,
}

/// Whether a tenant's numbers are dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeqReport {
    /// Whose.
    pub tenant: TenantId,
    /// Numbers that were given.
    pub given: u64,
    /// Numbers that were found.
    pub found: u64,
}

/// Something that somebody has to look at or has looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its id, which stays the same.
    pub id: FindingId,
    /// The feed.
    pub feed: FeedKey,
    /// What it is about, for people.
    pub what: String,
    /// Why.
    pub reason: String,
    /// When it was recorded.
    pub at: DateTime<Utc>,
    /// How many records it stands for, as far as that is known.
    pub records: u64,
    /// The work, for gaps, quarantined blobs and dead letters.
    pub work: Option<WorkId>,
    /// That somebody has looked at it.
    pub acknowledged: Option<Acknowledgement>,
}

impl Sums {
    /// L10.
    #[must_use]
    pub fn agree(&self) -> bool {
        self.due == self.delivered + self.filtered + self.dead + self.pending
    }
}

impl SinkSums {
    fn agree(&self) -> bool {
        self.blobs.agree() && self.retries.agree() && self.restores.agree()
    }
}

impl HourReport {
    /// Whether nothing of the hour has vanished.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.listed == self.waiting + self.fetched + self.gaps + self.quarantined
            && self.duplicates <= self.records
            && self.sinks.values().all(SinkSums::agree)
    }
}

impl SeqReport {
    /// Whether every number was found.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.given == self.found
    }
}

impl Reconciliation {
    /// Whether everything adds up and nothing waits for somebody to look at it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.agrees() && self.open_findings().next().is_none()
    }

    /// Whether everything adds up.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.hours.iter().all(HourReport::agrees) && self.numbers.iter().all(SeqReport::agrees)
    }

    /// What nobody has looked at.
    pub fn open_findings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.acknowledged.is_none())
    }
}

/// Most findings of a kind in a report: those that nobody has acknowledged come first.
const FINDINGS: i64 = 10_000;

/// The hour of a blob, in SQL, rounded down before 1970 as well.
const HOUR: &str = "((created - ((created % 3600000000) + 3600000000) % 3600000000) / 3600000000)";

impl Inspector {
    /// The proof for the hours that the range touches.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn reconcile(&self, range: TimeRange) -> Result<Reconciliation> {
        let db = self.db();
        // One transaction: the figures belong together.
        let db = db.unchecked_transaction()?;
        let first_hour = hour(micros(range.start));
        let end_hour = hour(micros(range.end) - 1) + 1;
        let mut hours = Hours { feeds: feeds(&db)?, lines: BTreeMap::new() };
        hours.add_folded(&db, first_hour, end_hour)?;
        hours.add_blobs(&db, first_hour, end_hour)?;
        hours.add_deliveries(&db, first_hour, end_hour)?;
        hours.add_holes(&db, first_hour, end_hour)?;
        let mut report = Reconciliation {
            findings: findings(&db, &hours.feeds)?,
            numbers: numbers(&db)?,
            hours: hours.lines.into_values().collect(),
        };
        report.hours.sort_by_key(|line| (line.feed, line.hour));
        Ok(report)
    }
}

type Feeds = BTreeMap<i64, FeedKey>;

fn feeds(db: &Connection) -> Result<Feeds> {
    let sql = "SELECT feed.id, guid, content_type FROM feed JOIN tenant ON tenant.id = feed.tenant";
    let rows = all(db, sql, [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    rows.into_iter().map(|(id, guid, kind)| Ok((id, feed_key(&guid, &kind)?))).collect()
}

struct Hours {
    feeds: Feeds,
    lines: BTreeMap<(i64, i64), HourReport>,
}

impl Hours {
    fn line(&mut self, feed: i64, hour: i64) -> Result<&mut HourReport> {
        let key = *self.feeds.get(&feed).ok_or_else(|| LedgerError::damaged(format!("the feed {feed}")))?;
        Ok(self.lines.entry((feed, hour)).or_insert_with(|| HourReport {
            feed: key,
            hour: time(hour * MICROS_PER_HOUR),
            listed: 0,
            waiting: 0,
            fetched: 0,
            gaps: 0,
            quarantined: 0,
            holes: 0,
            records: 0,
            duplicates: 0,
            sinks: BTreeMap::new(),
        }))
    }

    fn sums(&mut self, feed: i64, hour: i64, sink: &str, of: i64) -> Result<&mut Sums> {
        let sums = self.line(feed, hour)?.sinks.entry(sink_name(sink)?).or_default();
        Ok(match Of::read(of)? {
            Of::Blobs => &mut sums.blobs,
            Of::Retries => &mut sums.retries,
            Of::Restores => &mut sums.restores,
        })
    }

    fn add_folded(&mut self, db: &Connection, first: i64, end: i64) -> Result<()> {
        let sql = "SELECT feed, hour, listed, fetched, gaps, quarantined, records, duplicates FROM hour \
                   WHERE hour >= ?1 AND hour < ?2";
        for (feed, hour, counts) in
            all(db, sql, (first, end), |row| Ok((row.get(0)?, row.get(1)?, counts::<6>(row, 2)?)))?
        {
            let line = self.line(feed, hour)?;
            let [listed, fetched, gaps, quarantined, records, duplicates] = counts;
            line.listed += listed;
            line.fetched += fetched;
            line.gaps += gaps;
            line.quarantined += quarantined;
            line.records += records;
            line.duplicates += duplicates;
        }
        let sql = "SELECT feed, hour, sink, retry, due, delivered, filtered, dead, resent FROM hour_sink \
                   WHERE hour >= ?1 AND hour < ?2";
        for (feed, hour, sink, of, counts) in all(db, sql, (first, end), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get(3)?, counts::<5>(row, 4)?))
        })? {
            let sums = self.sums(feed, hour, &sink, of)?;
            let [due, delivered, filtered, dead, resent] = counts;
            sums.due += due;
            sums.delivered += delivered;
            sums.filtered += filtered;
            sums.dead += dead;
            sums.resent += resent;
        }
        Ok(())
    }

    fn add_blobs(&mut self, db: &Connection, first: i64, end: i64) -> Result<()> {
        let sql = format!(
            "SELECT feed, {HOUR} AS hour, sum(state = 'listed'), sum(state IN ('spooled', 'settled')), \
             sum(state = 'gap'), sum(state = 'quarantined'), sum(records), sum(duplicates) \
             FROM blob WHERE kind = 'blob' AND created >= ?1 AND created < ?2 GROUP BY feed, hour"
        );
        let range = (first * MICROS_PER_HOUR, end * MICROS_PER_HOUR);
        for (feed, hour, counts) in
            all(db, &sql, range, |row| Ok((row.get(0)?, row.get(1)?, counts::<6>(row, 2)?)))?
        {
            let line = self.line(feed, hour)?;
            let [waiting, fetched, gaps, quarantined, records, duplicates] = counts;
            line.waiting += waiting;
            line.fetched += fetched;
            line.gaps += gaps;
            line.quarantined += quarantined;
            line.records += records;
            line.duplicates += duplicates;
        }
        Ok(())
    }

    fn add_deliveries(&mut self, db: &Connection, first: i64, end: i64) -> Result<()> {
        let sql = format!(
            "SELECT feed, {HOUR} AS hour, name, (kind = 'retry') + (restore IS NOT NULL) AS of, sum(due), sum(delivered), sum(filtered), \
             sum(dead), sum(CASE delivery.state WHEN 'pending' THEN due ELSE 0 END), sum(resent) \
             FROM blob JOIN delivery USING (work) JOIN sink ON sink.id = delivery.sink \
             WHERE created >= ?1 AND created < ?2 GROUP BY feed, hour, name, of"
        );
        let range = (first * MICROS_PER_HOUR, end * MICROS_PER_HOUR);
        for (feed, hour, sink, of, counts) in all(db, &sql, range, |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get(3)?, counts::<6>(row, 4)?))
        })? {
            let sums = self.sums(feed, hour, &sink, of)?;
            let [due, delivered, filtered, dead, pending, resent] = counts;
            sums.due += due;
            sums.delivered += delivered;
            sums.filtered += filtered;
            sums.dead += dead;
            sums.pending += pending;
            sums.resent += resent;
        }
        Ok(())
    }

    fn add_holes(&mut self, db: &Connection, first: i64, end: i64) -> Result<()> {
        let sql =
            "SELECT feed, starts, ends FROM hole WHERE recovered_at IS NULL AND ends > ?1 AND starts < ?2";
        let range = (first * MICROS_PER_HOUR, end * MICROS_PER_HOUR);
        for (feed, starts, ends) in
            all(db, sql, range, |row| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?
        {
            for hour in hour(starts).max(first)..=hour(ends - 1).min(end - 1) {
                self.line(feed, hour)?.holes += 1;
            }
        }
        Ok(())
    }
}

fn counts<const N: usize>(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<[u64; N]> {
    let mut counts = [0; N];
    for (at, count) in counts.iter_mut().enumerate() {
        *count = row.get::<_, i64>(from + at)?.max(0) as u64;
    }
    Ok(counts)
}

fn numbers(db: &Connection) -> Result<Vec<SeqReport>> {
    let sql = "SELECT guid, next_seq - 1, folded_seqs + superseded_seqs \
               + (SELECT count(*) FROM blob WHERE blob.tenant = tenant.id AND seq IS NOT NULL) \
               + (SELECT count(*) FROM hole WHERE hole.tenant = tenant.id) FROM tenant ORDER BY guid";
    let rows =
        all(db, sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    let tenants = rows.into_iter().map(|(guid, given, found)| {
        let tenant = guid.parse().map_err(|_| LedgerError::damaged(format!("the tenant `{guid}`")))?;
        Ok(SeqReport { tenant, given: given as u64, found: found as u64 })
    });
    tenants.collect()
}

fn findings(db: &Connection, feeds: &Feeds) -> Result<Vec<Finding>> {
    let mut acknowledged = Inspector::acknowledgements(db)?;
    let kinds = [
        (
            FindingKind::Gap,
            "SELECT work, feed, 'blob ' || content_id, reason, ended_at, records - duplicates, work FROM blob \
             WHERE state IN ('gap', 'quarantined') AND state = 'gap' AND kind = 'blob' ORDER BY \
             EXISTS (SELECT 1 FROM acknowledgement WHERE finding = 'gap-' || work), work LIMIT ?1",
        ),
        (
            FindingKind::Hole,
            "SELECT id, feed, strftime('%Y-%m-%dT%H:%M:%SZ', starts / 1000000, 'unixepoch') || '..' || \
             strftime('%Y-%m-%dT%H:%M:%SZ', ends / 1000000, 'unixepoch'), reason, recorded_at, 0, NULL FROM hole \
             WHERE recovered_at IS NULL ORDER BY \
             EXISTS (SELECT 1 FROM acknowledgement WHERE finding = 'hole-' || id), id LIMIT ?1",
        ),
        (
            FindingKind::Quarantine,
            "SELECT work, feed, 'blob ' || content_id, reason, ended_at, records - duplicates, work FROM blob \
             WHERE state IN ('gap', 'quarantined') AND state = 'quarantined' ORDER BY \
             EXISTS (SELECT 1 FROM acknowledgement WHERE finding = 'quarantine-' || work), work LIMIT ?1",
        ),
        (
            // The letters of a quarantined blob are found with it.
            FindingKind::Dead,
            "SELECT dead_letter.id, feed, 'sink ' || coalesce(sink.name, '?') || ', blob ' || content_id || \
             coalesce(', record ' || position, ''), reason, at, records, work \
             FROM dead_letter JOIN sink ON sink.id = dead_letter.sink \
             WHERE retry IS NULL ORDER BY \
             EXISTS (SELECT 1 FROM acknowledgement WHERE finding = 'dead-' || dead_letter.id), dead_letter.id LIMIT ?1",
        ),
    ];
    let mut findings = Vec::new();
    for (kind, sql) in kinds {
        for (number, feed, what, reason, at, records, work) in all(db, sql, [FINDINGS], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, Option<String>>(3)?.unwrap_or_default(),
                time(row.get::<_, Option<i64>>(4)?.unwrap_or_default()),
                row.get::<_, i64>(5)?.max(0) as u64,
                row.get::<_, Option<i64>>(6)?.map(WorkId),
            ))
        })? {
            let id = FindingId { kind, number };
            let feed = *feeds.get(&feed).ok_or_else(|| LedgerError::damaged(format!("the feed {feed}")))?;
            let acknowledged = acknowledged.remove(&id);
            findings.push(Finding { id, feed, what, reason, at, records, work, acknowledged });
        }
    }
    findings.sort_unstable_by_key(|finding| finding.id);
    Ok(findings)
}
