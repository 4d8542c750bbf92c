//! How things stand: a snapshot for `status`, the metrics and `run --until-idle`.

use std::{collections::HashMap, sync::atomic::Ordering};

use chrono::{DateTime, Utc};
use schemas::{FeedKey, LedgerId, SinkName, TenantId};

use crate::{
    clock::time,
    dead_letters::BYTES_KEPT,
    deliveries::HELD,
    error::{LedgerError, Result},
    handle::{Answer, Ledger},
    inspect::Inspector,
    leases::Leased,
    restores::RestoreStatus,
    schema::FORMAT_VERSION,
    work::feed_key,
    writer::{Writer, all, first},
};

/// A snapshot of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The ledger's id.
    pub ledger: LedgerId,
    /// The format of its files.
    pub format: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Every feed that it knows.
    pub feeds: Vec<FeedStatus>,
    /// Every sink that is not forgotten.
    pub sinks: Vec<SinkStatus>,
    /// Restores that are unfinished, or of which records are still to be delivered.
    pub restores: Vec<RestoreStatus>,
    /// Bytes of the spool's segment files.
    pub spool_bytes: u64,
    /// Bytes in them that some sink still wants.
    pub spool_live_bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes of dead letters.
    pub dead_letter_bytes: u64,
    /// Dead letters that were neither retried nor acknowledged.
    pub open_dead_letters: u64,
    /// Quarantined blobs whose rows are kept.
    pub quarantined: u64,
    /// Those of them that nobody has acknowledged.
    pub open_quarantined: u64,
}

/// How a feed stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedStatus {
    /// Which.
    pub feed: FeedKey,
    /// Everything before this was listed or is a recorded hole.
    pub watermark: Option<DateTime<Utc>>,
    /// When the last sweep ended.
    pub swept_at: Option<DateTime<Utc>>,
    /// Blobs that are listed and not fetched.
    pub to_fetch: u64,
    /// When the first of them expires.
    pub first_expiry: Option<DateTime<Utc>>,
    /// Gaps whose rows are kept.
    pub gaps: u64,
    /// Those of them that nobody has acknowledged.
    pub open_gaps: u64,
    /// Holes that were never recovered.
    pub holes: u64,
    /// Those of them that nobody has acknowledged.
    pub open_holes: u64,
    /// When Microsoft made the newest blob whose row is kept.
    pub newest: Option<DateTime<Utc>>,
    /// The message of the last failed fetch among the blobs that are still to be fetched.
    pub last_error: Option<String>,
}

/// How a sink stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkStatus {
    /// Its name.
    pub name: SinkName,
    /// Which one of that name.
    pub incarnation: u64,
    /// Whether it is in the configuration.
    pub configured: bool,
    /// Whether the spool waits for it without limit.
    pub required: bool,
    /// Pending deliveries.
    pub pending: u64,
    /// Records in them.
    pub pending_records: u64,
    /// Of those records, the ones that were restored from an archive.
    pub pending_restored: u64,
    /// Of those deliveries, the ones that wait after a failure.
    pub waiting: u64,
    /// When the oldest pending one was spooled.
    pub oldest_pending: Option<DateTime<Utc>>,
    /// The message of the last failure among the pending ones.
    pub last_error: Option<String>,
}

/// What is left to do, for whoever waits until nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdleState {
    /// Blobs to fetch, of each tenant that has any.
    pub fetches: Vec<TenantFetches>,
    /// Deliveries, of each configured sink that has any.
    pub deliveries: Vec<SinkDeliveries>,
}

/// A tenant's blobs to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantFetches {
    /// Whose.
    pub tenant: TenantId,
    /// Blobs that could be fetched now, those that are claimed included.
    pub due: u64,
    /// Blobs that wait after a failed attempt.
    pub waiting: u64,
    /// When the first of them is due.
    pub next_due: Option<DateTime<Utc>>,
    /// Blobs that are claimed.
    pub claimed: u64,
}

/// A sink's pending deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkDeliveries {
    /// Whose.
    pub sink: SinkName,
    /// Deliveries that could be made now, those that are leased included.
    pub due: u64,
    /// Deliveries that wait after a failed attempt.
    pub waiting: u64,
    /// When the first of them is due.
    pub next_due: Option<DateTime<Utc>>,
    /// Deliveries whose blob is being fetched again.
    pub held: u64,
    /// Deliveries that are leased.
    pub leased: u64,
}

impl IdleState {
    /// Whether everything that is listed is settled for every configured sink.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.fetches.is_empty() && self.deliveries.is_empty()
    }
}

impl Ledger {
    /// What is left to do.
    pub fn idle_state(&self) -> Answer<IdleState> {
        self.look(Writer::idle_state)
    }

    /// How often a body in the spool was found damaged since the ledger was opened.
    #[must_use]
    pub fn corrupt_pieces(&self) -> u64 {
        self.shared.corrupt_pieces.load(Ordering::Relaxed)
    }
}

impl Writer {
    fn idle_state(&mut self) -> Result<IdleState> {
        let now = self.now_micros();
        let mut state = IdleState::default();
        let tenants = self.all("SELECT id, guid FROM tenant", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        for (id, guid) in tenants {
            let sql = "SELECT (SELECT count(*) FROM blob WHERE tenant = ?1 AND state = 'listed' AND not_before = 0), \
                       count(*), coalesce(sum(not_before <= ?2), 0), min(not_before) FROM blob \
                       WHERE tenant = ?1 AND state = 'listed' AND not_before > 0";
            let row = self.first(sql, (id, now), |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, i64>(2)?,
                    row.get::<_, Option<i64>>(3)?,
                ))
            })?;
            let (due, later, ended, next) = row.unwrap_or_default();
            if due + later == 0 {
                continue;
            }
            let tenant: TenantId =
                guid.parse().map_err(|_| LedgerError::damaged(format!("the tenant `{guid}`")))?;
            let mut claimed = 0;
            for what in self.leases.iter() {
                if let Leased::Fetch(work) = what {
                    let sql = "SELECT EXISTS (SELECT 1 FROM blob WHERE work = ?1 AND tenant = ?2)";
                    claimed += self.number(sql, (work.0, id))? as u64;
                }
            }
            state.fetches.push(TenantFetches {
                tenant,
                due: (due + ended) as u64,
                waiting: (later - ended) as u64,
                next_due: next.map(time),
                claimed,
            });
        }
        let sinks = self.all("SELECT id, name FROM sink WHERE configured = 1 ORDER BY name", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        for (id, name) in sinks {
            let sql = "SELECT (SELECT count(*) FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before = 0), \
                       count(*), coalesce(sum(not_before <= ?2), 0), coalesce(sum(not_before = ?3), 0), \
                       min(not_before) FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before > 0";
            let row = self.first(sql, (id, now, HELD), |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, i64>(2)?,
                    row.get::<_, i64>(3)?,
                    row.get::<_, Option<i64>>(4)?,
                ))
            })?;
            let (due, later, ended, held, next) = row.unwrap_or_default();
            if due + later == 0 {
                continue;
            }
            state.deliveries.push(SinkDeliveries {
                sink: sink_name(&name)?,
                due: (due + ended) as u64,
                waiting: (later - ended - held) as u64,
                next_due: next.filter(|next| *next < HELD).map(time),
                held: held as u64,
                leased: self.leases.of_sink(id) as u64,
            });
        }
        Ok(state)
    }
}

pub(crate) fn sink_name(name: &str) -> Result<SinkName> {
    name.parse().map_err(|_| LedgerError::damaged(format!("the sink `{name}`")))
}

impl Inspector {
    /// How things stand.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn status(&self) -> Result<Status> {
        let ledger = self.ledger_id()?;
        let db = self.db();
        // One transaction: the figures belong together.
        let db = db.unchecked_transaction()?;
        let number = |sql: &str| -> Result<u64> {
            Ok(first(&db, sql, [], |row| row.get::<_, Option<i64>>(0))?.flatten().unwrap_or(0).max(0) as u64)
        };
        let meta = |key: &str| -> Result<i64> {
            let sql = "SELECT value FROM meta WHERE key = ?1";
            Ok(first(&db, sql, [key], |row| row.get(0))?.unwrap_or(0))
        };
        Ok(Status {
            ledger,
            format: FORMAT_VERSION,
            created_at: time(meta("created_at")?),
            feeds: feeds(&db)?,
            sinks: sinks(&db)?,
            restores: RestoreStatus::read_all(&db)?,
            spool_bytes: number("SELECT sum(length) FROM segment")?,
            spool_live_bytes: number("SELECT sum(live_bytes) FROM segment")?,
            segments: number("SELECT count(*) FROM segment")?,
            dead_letter_bytes: meta(BYTES_KEPT)?.max(0) as u64,
            open_dead_letters: number(
                "SELECT count(*) FROM dead_letter WHERE retry IS NULL AND NOT EXISTS (SELECT 1 FROM acknowledgement \
                 WHERE finding = 'dead-' || id OR (sink IS NULL AND finding = 'quarantine-' || work))",
            )?,
            quarantined: number(
                "SELECT count(*) FROM blob WHERE state IN ('gap', 'quarantined') AND state = 'quarantined'",
            )?,
            open_quarantined: number(
                "SELECT count(*) FROM blob WHERE state IN ('gap', 'quarantined') AND state = 'quarantined' \
                 AND NOT EXISTS (SELECT 1 FROM acknowledgement WHERE finding = 'quarantine-' || work)",
            )?,
        })
    }
}

fn feeds(db: &rusqlite::Connection) -> Result<Vec<FeedStatus>> {
    let sql = "SELECT guid, content_type, watermark, swept_at, \
               (SELECT count(*) FROM hole WHERE hole.feed = feed.id AND recovered_at IS NULL), \
               (SELECT count(*) FROM hole WHERE hole.feed = feed.id AND recovered_at IS NULL \
                AND NOT EXISTS (SELECT 1 FROM acknowledgement WHERE finding = 'hole-' || hole.id)), \
               (SELECT created FROM blob WHERE blob.feed = feed.id AND restore IS NULL ORDER BY created DESC LIMIT 1), feed.id \
               FROM feed JOIN tenant ON tenant.id = feed.tenant ORDER BY guid, content_type";
    let listed = "SELECT feed, count(*), min(expires) FROM blob WHERE state = 'listed' GROUP BY feed";
    let listed: HashMap<i64, (i64, i64)> =
        all(db, listed, [], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.into_iter().collect();
    let mut feeds = Vec::new();
    for row in all(db, sql, [], |row| {
        Ok((
            (row.get::<_, String>(0)?, row.get::<_, String>(1)?),
            (row.get::<_, Option<i64>>(2)?, row.get::<_, Option<i64>>(3)?),
            (row.get::<_, i64>(4)?, row.get::<_, i64>(5)?),
            row.get::<_, Option<i64>>(6)?,
            row.get::<_, i64>(7)?,
        ))
    })? {
        let ((guid, content_type), (watermark, swept_at), (holes, open_holes), newest, id) = row;
        let to_fetch = listed.get(&id).map_or(0, |(count, _)| *count);
        let first_expiry = listed.get(&id).map(|(_, expiry)| *expiry);
        let sql = "SELECT last_error FROM blob WHERE tenant = (SELECT tenant FROM feed WHERE id = ?1) \
                   AND state = 'listed' AND not_before > 0 AND feed = ?1 ORDER BY not_before DESC LIMIT 1";
        let last_error = first(db, sql, [id], |row| row.get(0))?.flatten();
        let sql = "SELECT count(*), coalesce(sum(NOT EXISTS \
                   (SELECT 1 FROM acknowledgement WHERE finding = 'gap-' || work)), 0) \
                   FROM blob WHERE state IN ('gap', 'quarantined') AND state = 'gap' AND kind = 'blob' AND feed = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let (gaps, open_gaps) = first(db, sql, [id], read)?.unwrap_or_default();
        feeds.push(FeedStatus {
            feed: feed_key(&guid, &content_type)?,
            watermark: watermark.map(time),
            swept_at: swept_at.map(time),
            to_fetch: to_fetch as u64,
            first_expiry: first_expiry.map(time),
            gaps: gaps as u64,
            open_gaps: open_gaps as u64,
            holes: holes as u64,
            open_holes: open_holes as u64,
            newest: newest.map(time),
            last_error,
        });
    }
    Ok(feeds)
}

fn sinks(db: &rusqlite::Connection) -> Result<Vec<SinkStatus>> {
    let sql = "SELECT id, name, incarnation, configured, required FROM sink WHERE forgotten_at IS NULL ORDER BY name";
    let mut sinks = Vec::new();
    for (id, name, incarnation, configured, required) in all(db, sql, [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get(3)?, row.get(4)?))
    })? {
        let mut sums = (0i64, 0i64, None::<i64>);
        let mut restored = 0;
        let mut waiting = 0;
        for condition in ["not_before = 0", "not_before > 0"] {
            let sql = format!(
                "SELECT count(*), coalesce(sum(due), 0), min(spooled_at), \
                 coalesce(sum(CASE WHEN restore IS NULL THEN 0 ELSE due END), 0) FROM delivery JOIN blob USING (work) \
                 WHERE sink = ?1 AND delivery.state = 'pending' AND delivery.{condition}"
            );
            let (count, records, oldest, of_restores) = first(db, &sql, [id], |row| {
                let oldest = row.get::<_, Option<i64>>(2)?;
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, oldest, row.get::<_, i64>(3)?))
            })?
            .unwrap_or_default();
            restored += of_restores;
            sums = (sums.0 + count, sums.1 + records, [sums.2, oldest].into_iter().flatten().min());
            waiting = count;
        }
        let sql = "SELECT last_error FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before > 0 \
                   ORDER BY not_before DESC LIMIT 1";
        let last_error = first(db, sql, [id], |row| row.get(0))?.flatten();
        sinks.push(SinkStatus {
            name: sink_name(&name)?,
            incarnation: incarnation as u64,
            configured,
            required,
            pending: sums.0 as u64,
            pending_records: sums.1 as u64,
            pending_restored: i64::max(restored, 0) as u64,
            waiting: waiting as u64,
            oldest_pending: sums.2.map(time),
            last_error,
        });
    }
    Ok(sinks)
}
