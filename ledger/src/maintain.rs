//! What has to be done now and then: blobs whose time is over become gaps, old rows are folded into sums, empty and
//! mostly dead segments go, ids expire, and the write-ahead log is emptied.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::params;
use schemas::GapReason;

use crate::{
    WorkId,
    clock::{MICROS_PER_HOUR, hour, micros, time},
    dead_letters::BYTES_KEPT,
    deliveries::HELD,
    error::Result,
    handle::{Answer, Ledger},
    ids::Day,
    leases::Leased,
    spool::segment,
    statement::folded_seq,
    writer::Writer,
};

/// How long a blob may be overdue before it counts as a gap without another attempt. Whoever fetches it tries for a day
/// beyond its expiry and says so sooner; this is for blobs that nobody tries, such as those of a tenant that was removed.
pub const OVERDUE: TimeDelta = TimeDelta::hours(25);

/// How long rows outlive the expiry of their blob, so that a sweep does not meet a forgotten one.
pub const ROWS_KEPT: TimeDelta = TimeDelta::days(2);

/// How long sums are kept, and longer those of an hour with something that nobody has acknowledged.
pub const SUMS_KEPT: TimeDelta = TimeDelta::days(400);

/// No blob waits longer to be fetched than this: one that failed is tried again within a day, whatever asked it to wait.
const LONGEST_FETCH_WAIT: TimeDelta = TimeDelta::hours(25);

/// No delivery waits longer than this: what a destination asks for counts up to an hour.
const LONGEST_DELIVERY_WAIT: TimeDelta = TimeDelta::hours(2);

/// Rows that are dealt with in one call.
const AT_ONCE: i64 = 5000;

/// The time of the last call, in `meta`.
const MAINTAINED: &str = "maintained_at";

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// Blobs that became gaps because their expiry passed.
    pub gaps: u64,
    /// Rows that were folded into sums.
    pub folded: u64,
    /// Bodies that were moved to give space back.
    pub moved: u64,
    /// Whether there was more to do than one call does.
    pub more: bool,
}

impl Ledger {
    /// Does what has to be done now and then. To be called about once a minute. `now` is the time by which blobs expire;
    /// one that is too early gives nothing up.
    pub fn maintain(&self, now: DateTime<Utc>) -> Answer<Maintained> {
        self.change(move |writer| writer.maintain(now))
    }

    /// The time that the last call was told, over restarts; `None` when there was none. One that is before 1970 does not
    /// count.
    pub fn last_maintained(&self) -> Answer<Option<DateTime<Utc>>> {
        self.look(|writer| Ok(Some(writer.meta(MAINTAINED)?).filter(|at| *at > 0).map(time)))
    }
}

impl Writer {
    fn maintain(&mut self, now: DateTime<Utc>) -> Result<Maintained> {
        let mut done = Maintained::default();
        let overdue = self.all(
            "SELECT work, content_id FROM blob WHERE state = 'listed' AND expires < ?1 ORDER BY expires LIMIT ?2",
            (micros(now - OVERDUE), AT_ONCE),
            |row| Ok((WorkId(row.get(0)?), row.get::<_, String>(1)?)),
        )?;
        for (work, blob) in overdue {
            if !self.leases.is_claimed(Leased::Fetch(work)) {
                let reason = GapReason::ExpiryPassed;
                if self.record_gap(work, reason)?.is_some() {
                    // Nobody else says so: no fetch of it ended.
                    tracing::error!(blob, %reason, "a blob can no longer be had: recorded as a gap");
                    done.gaps += 1;
                }
            }
        }
        done.folded = self.fold(now)?;
        self.forget_sums(now)?;
        self.forget_letters(now)?;
        self.forget_restores(now)?;
        self.give_space_back(&mut done)?;
        self.review_pauses()?;
        self.end_odd_waits()?;
        if micros(now) > 0 {
            self.set_meta(MAINTAINED, micros(now))?;
        }
        if let Err(error) = self.ids.maintain(Day::of(now)) {
            tracing::warn!(%error, "old ids were not removed; it is tried again");
        }
        self.after.checkpoint = true;
        done.more = done.gaps as i64 == AT_ONCE || done.folded as i64 == AT_ONCE;
        Ok(done)
    }

    /// Removes old sums, but not those of an hour in which something still stands for itself: a row that was not folded,
    /// such as a gap that nobody has acknowledged, does not agree with an hour that has forgotten it was listed.
    fn forget_sums(&mut self, now: DateTime<Utc>) -> Result<()> {
        let old = hour(micros(now - SUMS_KEPT));
        for sums in ["hour", "hour_sink"] {
            let sql = format!(
                "DELETE FROM {sums} AS sums WHERE feed IN (SELECT id FROM feed) AND hour < ?1 \
                 AND NOT EXISTS (SELECT 1 FROM blob WHERE blob.feed = sums.feed \
                     AND created >= sums.hour * ?2 AND created < (sums.hour + 1) * ?2) \
                 AND NOT EXISTS (SELECT 1 FROM hole WHERE hole.feed = sums.feed AND recovered_at IS NULL \
                     AND ends > sums.hour * ?2 AND starts < (sums.hour + 1) * ?2 \
                     AND NOT EXISTS (SELECT 1 FROM acknowledgement WHERE finding = 'hole-' || hole.id))"
            );
            self.exec(&sql, (old, MICROS_PER_HOUR))?;
        }
        Ok(())
    }

    fn give_space_back(&mut self, done: &mut Maintained) -> Result<()> {
        self.give_back_current()?;
        let current = self.spool.current().map_or(-1, |(number, _)| number as i64);
        let empty = self.all(
            "DELETE FROM segment WHERE live_bodies = 0 AND number <> ?1 RETURNING number",
            [current],
            |row| row.get::<_, i64>(0),
        )?;
        self.after.remove.extend(empty.into_iter().map(|number| number as u64));
        let sql = "SELECT coalesce(sum(length), 0), coalesce(sum(live_bytes), 0) FROM segment";
        let sums = self.first(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        let (disk, live) = sums.unwrap_or_default();
        if disk > 2 * live {
            done.moved = self.relocate(0.5)? as u64;
        }
        Ok(())
    }

    /// Gives back the current segment, too, when nothing in it is wanted any more. Returns whether it did.
    pub(crate) fn give_back_current(&mut self) -> Result<bool> {
        let Some((number, length)) = self.spool.current() else { return Ok(false) };
        if length <= segment::HEADER || self.spool.has_uncommitted() {
            return Ok(false);
        }
        let sql = "DELETE FROM segment WHERE number = ?1 AND live_bodies = 0";
        let given_back = self.exec(sql, [number as i64])? == 1;
        if given_back {
            self.spool.leave_current();
            self.after.remove.push(number);
        }
        Ok(given_back)
    }

    /// Ends waits that reach further than any wait does. They were written down while the local clock was ahead, and would
    /// keep a blob waiting for as long as the clock was wrong, beyond its expiry perhaps.
    fn end_odd_waits(&mut self) -> Result<()> {
        let now = self.now_micros().max(1);
        let far = |longest| micros(self.now() + longest);
        let sql = "UPDATE blob SET not_before = ?1 WHERE tenant IN (SELECT id FROM tenant) AND state = 'listed' \
                   AND not_before > 0 AND not_before > ?2";
        let fetches = self.exec(sql, (now, far(LONGEST_FETCH_WAIT)))?;
        let sql = "UPDATE delivery SET not_before = ?1 WHERE sink IN (SELECT id FROM sink) AND state = 'pending' \
                   AND not_before > 0 AND not_before > ?2 AND not_before < ?3";
        let deliveries = self.exec(sql, (now, far(LONGEST_DELIVERY_WAIT), HELD))?;
        if fetches + deliveries > 0 {
            tracing::warn!(
                fetches,
                deliveries,
                "what was to wait longer than anything does is due now: the local clock was ahead"
            );
            self.after.wake_fetches = true;
            self.after.wake_sinks.insert(None);
        }
        Ok(())
    }

    /// Removes dead letters that were dealt with when the sums of their time were still kept.
    fn forget_letters(&mut self, now: DateTime<Utc>) -> Result<()> {
        let old = self.all(
            "SELECT id, size FROM (SELECT id, work, size, at, done_at FROM dead_letter ORDER BY id LIMIT ?2) WHERE at < ?1 \
             AND (done_at IS NOT NULL OR EXISTS (SELECT 1 FROM acknowledgement \
                  WHERE finding = 'dead-' || id OR finding = 'quarantine-' || work))",
            (micros(now - SUMS_KEPT), AT_ONCE),
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        )?;
        let mut freed = 0;
        for (id, size) in old {
            self.exec("DELETE FROM dead_letter WHERE id = ?1", [id])?;
            freed += size;
        }
        if freed > 0 {
            let kept = self.meta(BYTES_KEPT)?;
            self.set_meta(BYTES_KEPT, kept - freed)?;
        }
        Ok(())
    }

    /// Folds rows whose time is over into the sums of their hour. Rows that somebody still has to look at stay, and so do
    /// quarantined ones while a letter of theirs, or one that they were to bring again, is not delivered: they say to which
    /// sinks a retry may go, and `reconcile` shows letters of no particular sink with their row only.
    fn fold(&mut self, now: DateTime<Utc>) -> Result<u64> {
        let cut = micros(now - ROWS_KEPT);
        let works = self.all(
            "SELECT work, expires, tenant, seq FROM blob WHERE ended_at IS NOT NULL AND expires < ?1 AND ended_at < ?1 \
             AND state IN ('settled', 'gap', 'quarantined') \
             AND (state = 'settled' OR kind = 'retry' OR EXISTS (SELECT 1 FROM acknowledgement WHERE finding = \
                  CASE state WHEN 'gap' THEN 'gap-' ELSE 'quarantine-' END || work)) \
             AND (state <> 'quarantined' OR NOT EXISTS \
                  (SELECT 1 FROM dead_letter WHERE dead_letter.work IN (blob.work, origin) AND done_at IS NULL)) \
             ORDER BY expires LIMIT ?2",
            (cut, AT_ONCE),
            |row| {
                let number = row.get::<_, Option<i64>>(3)?;
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, number))
            },
        )?;
        let Some((_, last, ..)) = works.last() else { return Ok(0) };
        let mut numbers: BTreeMap<i64, i64> = BTreeMap::new();
        for (work, _, tenant, number) in &works {
            self.fold_row(*work)?;
            let highest = numbers.entry(*tenant).or_default();
            *highest = number.unwrap_or(0).max(*highest);
        }
        // A statement on numbers up to there is not complete any more.
        for (tenant, highest) in numbers {
            let key = folded_seq(tenant);
            let before = self.meta(&key)?;
            self.set_meta(&key, before.max(highest))?;
        }
        // From here on a listing that names such a blob is not believed to bring a new one. By what was folded and not by
        // the time: a clock that was far ahead once must not make new blobs look forgotten.
        let before = self.meta("folded_through")?;
        self.set_meta("folded_through", before.max(last + 1))?;
        Ok(works.len() as u64)
    }

    fn fold_row(&self, work: i64) -> Result<()> {
        let sql = "INSERT INTO hour (feed, hour, fetched, gaps, quarantined, records, duplicates) \
                   SELECT feed, (created - ((created % ?2) + ?2) % ?2) / ?2, state = 'settled', state = 'gap', \
                   state = 'quarantined', records, duplicates FROM blob WHERE work = ?1 AND kind = 'blob' \
                   ON CONFLICT (feed, hour) DO UPDATE SET fetched = fetched + excluded.fetched, \
                   gaps = gaps + excluded.gaps, quarantined = quarantined + excluded.quarantined, \
                   records = records + excluded.records, duplicates = duplicates + excluded.duplicates";
        self.exec(sql, (work, MICROS_PER_HOUR))?;
        let sql = "INSERT INTO hour_sink (feed, hour, sink, retry, due, delivered, filtered, dead, resent) \
                   SELECT feed, (created - ((created % ?2) + ?2) % ?2) / ?2, name, (kind = 'retry') \
                   + (restore IS NOT NULL), due, delivered, filtered, dead, resent FROM delivery JOIN blob USING (work) JOIN sink ON sink.id = delivery.sink \
                   WHERE work = ?1 \
                   ON CONFLICT (feed, hour, sink, retry) DO UPDATE SET due = due + excluded.due, \
                   delivered = delivered + excluded.delivered, filtered = filtered + excluded.filtered, \
                   dead = dead + excluded.dead, resent = resent + excluded.resent";
        self.exec(sql, (work, MICROS_PER_HOUR))?;
        let sql = "UPDATE tenant SET folded_seqs = folded_seqs + 1 \
                   WHERE id = (SELECT tenant FROM blob WHERE work = ?1 AND seq IS NOT NULL)";
        self.exec(sql, [work])?;
        for sql in [
            "DELETE FROM delivery WHERE work = ?1",
            "DELETE FROM retry_sink WHERE work = ?1",
            "DELETE FROM blob WHERE work = ?1",
        ] {
            self.exec(sql, params![work])?;
        }
        Ok(())
    }
}
