//! Dead letters: records that a sink refuses for good, kept with their bytes and the reason until somebody retries or
//! acknowledges them.
//!
//! They have their own bound. When it is reached, those that were acknowledged or retried with success give up their
//! bytes, the oldest first; when that is not enough, settling with more dead letters is refused, and the sink pauses.

use std::collections::BTreeMap;

use rusqlite::params;

use crate::{
    WorkId,
    error::{LedgerError, Result},
    handle::{Answer, Ledger},
    pieces::find_body,
    spool::{Place, reader::ReadFailure},
    writer::Writer,
};

/// Under which key the bytes of all dead letters are counted.
pub(crate) const BYTES_KEPT: &str = "dead_letter_bytes";

/// A record that is to be kept as a dead letter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dead<'a> {
    pub(crate) position: u32,
    pub(crate) reason: &'a str,
}

/// What a retry made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retried {
    /// The new work.
    pub works: Vec<WorkId>,
    /// The records in it.
    pub records: u64,
    /// Other dead letters that went along: a body is fetched whole, with everything that was kept of it.
    pub along: Vec<i64>,
    /// Dead letters that cannot be retried, and why.
    pub refused: Vec<(i64, RetryRefused)>,
}

/// Why a dead letter cannot be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetryRefused {
    /// There is none of this number.
    #[error("there is no such dead letter")]
    Unknown,
    /// It was retried before.
    #[error("it was retried already")]
    AlreadyRetried,
    /// Its sink was forgotten, or no sink is configured.
    #[error("its sink is no longer configured")]
    NoSink,
    /// Its bytes were not kept, and the service has forgotten the blob.
    #[error("its bytes were not kept and the blob has expired")]
    Expired,
    /// Its bytes were not kept, and it came from an archive.
    #[error("its bytes were not kept; `mailtrail archive restore` brings it again")]
    Restored,
    /// Its bytes were given up for others when it was acknowledged. The whole blob would bring its other records again.
    #[error("its bytes were given up for others after it was acknowledged")]
    BytesGivenUp,
}

/// What a retry needs to know of a dead letter.
struct Letter {
    id: i64,
    work: i64,
    feed: i64,
    content_id: String,
    created: i64,
    expires: i64,
    sink: Option<i64>,
    records: u32,
    has_record: bool,
    restored: bool,
}

impl Ledger {
    /// Retries dead letters: makes new work of them, with its own number and body, for the sinks that had them. Those
    /// without bytes are fetched again.
    pub fn retry_dead_letters(&self, ids: Vec<i64>) -> Answer<Retried> {
        self.change(move |writer| writer.retry_dead_letters(&ids))
    }
}

impl Writer {
    /// Keeps records of a spooled body as dead letters, of a sink or of all. The positions must rise.
    pub(crate) fn keep_dead(&mut self, work: WorkId, sink: Option<i64>, dead: &[Dead<'_>]) -> Result<()> {
        let body = find_body(&self.db, work)?;
        let mut kept = 0;
        let mut rest = dead;
        if let Some(pair) = dead.windows(2).find(|pair| pair[0].position >= pair[1].position) {
            return Err(LedgerError::NoSuchRecord { work, position: pair[1].position });
        }
        let wrong =
            dead.iter().find(|dead| dead.position >= body.records || body.dropped.contains(dead.position));
        if let Some(wrong) = wrong {
            return Err(LedgerError::NoSuchRecord { work, position: wrong.position });
        }
        while let (Some(first), Some(place)) = (rest.first(), body.place) {
            let frame = match self.shared.spool.piece(work.0, place, first.position) {
                Ok(frame) => frame,
                Err(ReadFailure::Io(source)) => return Err(LedgerError::io("reading the spool")(source)),
                Err(ReadFailure::NoFile | ReadFailure::Corrupt { .. }) => {
                    return Err(self.found_damage(work, place));
                }
            };
            let (mut position, mut start) = (frame.first, 0);
            for length in &frame.unpacked.lengths {
                let end = start + *length as usize;
                if let Some((first, others)) = rest.split_first()
                    && first.position == position
                {
                    let bytes = &frame.unpacked.bytes[start..end];
                    kept += self.add_letter(work, sink, Some(position), 1, first.reason, Some(bytes))?;
                    rest = others;
                }
                (position, start) = (position + 1, end);
            }
        }
        self.count_letter_bytes(kept)
    }

    /// Keeps records of a body that is no more as dead letters of a sink, without their bytes.
    pub(crate) fn note_dead(&self, work: WorkId, sink: i64, dead: &[Dead<'_>]) -> Result<()> {
        for dead in dead {
            self.add_letter(work, Some(sink), Some(dead.position), 1, dead.reason, None)?;
        }
        Ok(())
    }

    /// Notes damage that is to be dealt with when this turn is over, because the job that found it fails.
    fn found_damage(&mut self, work: WorkId, place: Place) -> LedgerError {
        self.damaged.push((work, place));
        crate::Unreadable::NotSpooled { work }.into()
    }

    /// Adds a dead letter about a work. Gives the bytes that it takes.
    pub(crate) fn add_letter(
        &self,
        work: WorkId,
        sink: Option<i64>,
        position: Option<u32>,
        records: u32,
        reason: &str,
        bytes: Option<&[u8]>,
    ) -> Result<u64> {
        let sql = "INSERT INTO dead_letter (work, feed, content_id, created, expires, sink, position, records, \
                   reason, at, size, bytes) SELECT work, feed, content_id, created, expires, ?2, ?3, ?4, ?5, ?6, ?7, ?8 \
                   FROM blob WHERE work = ?1";
        let size = bytes.map_or(0, <[u8]>::len) as u64;
        let reason = crate::fetches::shorten(reason);
        self.exec(
            sql,
            params![work.0, sink, position, records, reason, self.now_micros(), size as i64, bytes],
        )?;
        Ok(size)
    }

    /// Keeps a whole delivery as a dead letter without bytes.
    pub(crate) fn note_dead_delivery(
        &self,
        work: WorkId,
        sink: i64,
        records: i64,
        reason: &str,
    ) -> Result<()> {
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        self.add_letter(work, Some(sink), None, records, reason, None)?;
        Ok(())
    }

    /// Counts bytes that dead letters take from now on, and makes room for them if they are too many.
    pub(crate) fn count_letter_bytes(&mut self, added: u64) -> Result<()> {
        if added == 0 {
            return Ok(());
        }
        let limit = self.shared.settings.dead_letter_max_bytes;
        let before = self.meta(BYTES_KEPT)?.max(0) as u64;
        let mut used = before + added;
        if used > limit {
            let given_up = self.all(
                "SELECT id, size FROM dead_letter WHERE size > 0 AND (done_at IS NOT NULL OR EXISTS \
                 (SELECT 1 FROM acknowledgement WHERE finding = 'dead-' || id OR finding = 'quarantine-' || work)) \
                 ORDER BY id",
                [],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
            )?;
            for (id, size) in given_up {
                if used <= limit {
                    break;
                }
                self.exec("UPDATE dead_letter SET size = 0, bytes = NULL WHERE id = ?1", [id])?;
                used = used.saturating_sub(size.max(0) as u64);
            }
        }
        if used > limit {
            return Err(LedgerError::DeadLettersFull { used: before, limit });
        }
        self.set_meta(BYTES_KEPT, used as i64)
    }

    fn retry_dead_letters(&mut self, ids: &[i64]) -> Result<Retried> {
        let mut retried = Retried::default();
        let mut groups: BTreeMap<(i64, Option<i64>, bool), Vec<Letter>> = BTreeMap::new();
        let mut seen = std::collections::BTreeSet::new();
        for id in ids.iter().copied().filter(|id| seen.insert(*id)) {
            let sql = "SELECT work, feed, content_id, created, expires, sink, records, \
                       bytes IS NOT NULL AND position IS NOT NULL, expires <= created, retry, \
                       bytes IS NULL AND position IS NOT NULL FROM dead_letter WHERE id = ?1";
            let letter = self.first(sql, [id], |row| {
                let letter = Letter {
                    id,
                    work: row.get(0)?,
                    feed: row.get(1)?,
                    content_id: row.get(2)?,
                    created: row.get(3)?,
                    expires: row.get(4)?,
                    sink: row.get(5)?,
                    records: row.get(6)?,
                    has_record: row.get(7)?,
                    restored: row.get(8)?,
                };
                Ok((letter, row.get::<_, Option<i64>>(9)?, row.get::<_, bool>(10)?))
            })?;
            match letter {
                None => retried.refused.push((id, RetryRefused::Unknown)),
                Some((_, Some(_), _)) => retried.refused.push((id, RetryRefused::AlreadyRetried)),
                Some((letter, None, _)) if !letter.has_record && letter.restored => {
                    retried.refused.push((id, RetryRefused::Restored));
                }
                Some((_, None, true)) => retried.refused.push((id, RetryRefused::BytesGivenUp)),
                Some((letter, None, _)) if !letter.has_record && letter.expires <= self.now_micros() => {
                    retried.refused.push((id, RetryRefused::Expired));
                }
                Some((letter, None, _)) => {
                    groups.entry((letter.work, letter.sink, letter.has_record)).or_default().push(letter);
                }
            }
        }
        let mut fetched = std::collections::BTreeSet::new();
        // What has to be fetched comes first of each work: then all that was kept of it comes with that.
        for ((work, sink, has_record), mut letters) in groups {
            letters.retain(|letter| !fetched.contains(&letter.id));
            if letters.is_empty() {
                continue;
            }
            let targets = self.retry_targets(WorkId(work), sink)?;
            if targets.is_empty() {
                retried.refused.extend(letters.iter().map(|letter| (letter.id, RetryRefused::NoSink)));
                continue;
            }
            if has_record {
                retried.works.push(self.retry_from_bytes(&letters, &targets)?);
                retried.records += letters.iter().map(|letter| u64::from(letter.records)).sum::<u64>();
                continue;
            }
            let (made, all) = self.retry_by_fetching(&letters, &targets)?;
            retried.works.push(made);
            for (id, records) in all {
                retried.records += records;
                fetched.insert(id);
                if !seen.contains(&id) {
                    retried.along.push(id);
                }
            }
        }
        Ok(retried)
    }

    /// The sinks that a retry goes to.
    fn retry_targets(&self, work: WorkId, sink: Option<i64>) -> Result<Vec<i64>> {
        let read = |row: &rusqlite::Row<'_>| row.get(0);
        if let Some(sink) = sink {
            let sql = "SELECT id FROM sink WHERE id = ?1 AND configured = 1";
            return self.all(sql, [sink], read);
        }
        let sql = "SELECT id FROM sink JOIN delivery ON delivery.sink = sink.id \
                   WHERE work = ?1 AND delivery.state = 'dead' AND configured = 1";
        let dead = self.all(sql, [work.0], read)?;
        if !dead.is_empty() {
            return Ok(dead);
        }
        let delivered = "SELECT EXISTS (SELECT 1 FROM delivery WHERE work = ?1)";
        if self.number(delivered, [work.0])? != 0 {
            return Ok(Vec::new());
        }
        // A retry that never came to anything goes on being for those that it was for.
        let is_retry = "SELECT EXISTS (SELECT 1 FROM blob WHERE work = ?1 AND kind = 'retry')";
        if self.number(is_retry, [work.0])? != 0 {
            let sql = "SELECT id FROM sink JOIN retry_sink ON sink = id WHERE work = ?1 AND configured = 1";
            return self.all(sql, [work.0], read);
        }
        self.all("SELECT id FROM sink WHERE configured = 1", [], read)
    }

    fn new_retry(&self, letter: &Letter, state: &str) -> Result<WorkId> {
        let sql = "INSERT INTO blob (tenant, feed, kind, origin, content_id, created, expires, listed_at, state) \
                   SELECT tenant, id, 'retry', ?2, ?3, ?4, ?5, ?6, ?7 FROM feed WHERE id = ?1 RETURNING work";
        let now = self.now_micros();
        let values =
            params![letter.feed, letter.work, letter.content_id, letter.created, letter.expires, now, state];
        let row = self.first(sql, values, |row| row.get(0).map(WorkId))?;
        row.ok_or_else(|| LedgerError::damaged(format!("a dead letter of the unknown feed {}", letter.feed)))
    }

    fn retry_from_bytes(&mut self, letters: &[Letter], targets: &[i64]) -> Result<WorkId> {
        let work = self.new_retry(&letters[0], "spooled")?;
        let mut body = self.shared.incoming(work);
        for letter in letters {
            let sql = "SELECT bytes FROM dead_letter WHERE id = ?1";
            let record = self.first(sql, [letter.id], |row| row.get::<_, Vec<u8>>(0))?.unwrap_or_default();
            body.push(&record)?;
            self.exec("UPDATE dead_letter SET retry = ?2 WHERE id = ?1", (letter.id, work.0))?;
        }
        body.close()?;
        self.spool_for(work, body, targets)?;
        if letters[0].sink.is_none() {
            self.inherit_begun(work, &self.own_works(work)?)?;
        }
        Ok(work)
    }

    /// Lets a body be fetched again, for all of its open letters: it brings what each of them stands for, and in turns of
    /// their own they would bring that as often as there are turns. Gives them, with their records.
    fn retry_by_fetching(
        &mut self,
        letters: &[Letter],
        targets: &[i64],
    ) -> Result<(WorkId, Vec<(i64, u64)>)> {
        let letter = &letters[0];
        let work = self.new_retry(letter, "listed")?;
        let sql = "UPDATE dead_letter SET retry = ?3 WHERE work = ?1 AND sink IS ?2 AND retry IS NULL \
                   RETURNING id, records";
        let all = self.all(sql, (letter.work, letter.sink, work.0), |row| {
            Ok((row.get::<_, i64>(0)?, u64::from(row.get::<_, u32>(1)?)))
        })?;
        for sink in targets {
            self.exec("INSERT INTO retry_sink (work, sink) VALUES (?1, ?2)", (work.0, sink))?;
        }
        self.after.wake_fetches = true;
        Ok((work, all))
    }
}
