//! Taking in a body: cut into records while it streams in, decided about and made durable at its end.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering, mpsc::Sender},
    task::{Context, Poll},
};

use chrono::{DateTime, Utc};
use rusqlite::params;
use schemas::{RecordKey, Seq, SplitError, Splitter, Spooled, make_room};
use sha2::{Digest, Sha256};

use crate::{
    BodyError, WorkId,
    dedupe::{self, Keys},
    error::Result,
    handle::{Answer, Ledger, Shared, lock, send},
    ids::Day,
    leases::Leased,
    positions,
    spool::incoming::Incoming,
    writer::{Kind, Message, Writer, first},
};

/// How often the same broken body has to come until its blob is quarantined.
pub const BROKEN_BODIES: u32 = 3;

/// Takes the inflated bytes of one body. Its methods may block.
///
/// A body that is no array of records is taken to its end all the same, so that the same broken body is recognised when
/// it comes again; [`BodyWriter::finish`] tells.
pub struct BodyWriter {
    shared: Arc<Shared>,
    writer: Sender<Message>,
    work: WorkId,
    /// From when on its records are remembered.
    day: Day,
    /// Gone when the body turned out to be broken.
    splitter: Option<Splitter>,
    broken: Option<SplitError>,
    hash: Sha256,
    bytes: u64,
    records: Incoming,
    keys: Keys,
    /// The body's bytes as they came, kept when the next broken one is the last. `None` before the first byte.
    raw: Option<Option<Incoming>>,
    _arriving: Arriving,
}

/// A body that somebody is taking in, counted for as long as this lives.
struct Arriving(Arc<Shared>);

impl Arriving {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.arriving.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that is on its way into a commit. What becomes of it does not depend on anybody's waiting.
#[derive(Debug)]
#[must_use = "a body counts only when it is durable"]
pub struct Finishing(Answer<Result<Spooled, BodyError>>);

impl Finishing {
    /// Waits until the body is durable (L2). Not to be called on a thread of an async runtime, where it is awaited.
    ///
    /// # Errors
    ///
    /// When the body is broken or cannot be kept. A broken one is counted, and the third one in a row with the same
    /// bytes quarantines the blob.
    pub fn wait(self) -> Result<Spooled, BodyError> {
        self.0.wait()?
    }
}

impl Future for Finishing {
    type Output = Result<Spooled, BodyError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(|error| Err(error.into())))
    }
}

/// A body that waits to be committed.
struct Finished {
    work: WorkId,
    day: Day,
    sha256: [u8; 32],
    bytes: u64,
    records: Incoming,
    keys: Keys,
}

impl std::fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyWriter").field("work", &self.work).field("bytes", &self.bytes).finish()
    }
}

impl Ledger {
    /// Begins to take the body of a blob that is claimed. `now` is the time by which its records are remembered and others
    /// are forgotten: the service's, because by a local clock that is ahead their repetitions would come through.
    #[must_use]
    pub fn body_writer(&self, work: WorkId, now: DateTime<Utc>) -> BodyWriter {
        let shared = Arc::clone(&self.shared);
        BodyWriter {
            writer: self.writer(),
            work,
            day: Day::of(now),
            splitter: Some(Splitter::new()),
            broken: None,
            hash: Sha256::new(),
            bytes: 0,
            records: shared.incoming(work),
            keys: Keys::new(),
            raw: None,
            _arriving: Arriving::new(&shared),
            shared,
        }
    }
}

impl Shared {
    /// A body on its way into the spool.
    pub(crate) fn incoming(&self, work: WorkId) -> Incoming {
        Incoming::new(self.dir.join("spool"), Arc::clone(&self.codecs), work.0)
    }

    /// How often in a row the work's body was broken.
    fn broken_times(&self, work: WorkId) -> Result<u32> {
        let sql = "SELECT broken_times FROM blob WHERE work = ?1";
        let times = first(&lock(&self.bodies), sql, [work.0], |row| row.get(0))?;
        Ok(times.unwrap_or(0))
    }
}

impl BodyWriter {
    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be kept. The body can then only be dropped.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        let raw = match &mut self.raw {
            Some(raw) => raw,
            None => {
                let last = self.shared.broken_times(self.work)? + 1 >= BROKEN_BODIES;
                self.raw.insert(last.then(|| self.shared.incoming(self.work)))
            }
        };
        if let Some(raw) = raw {
            raw.push(bytes)?;
        }
        let Some(splitter) = &mut self.splitter else { return Ok(()) };
        let (records, keys) = (&mut self.records, &mut self.keys);
        let mut failed = None;
        let mut take = |record: &[u8], key: Option<RecordKey>| {
            if failed.is_none() {
                if let Some(key) = key {
                    make_room(keys, 1);
                    keys.push((key, records.records()));
                }
                failed = records.push(record).err();
            }
        };
        if let Err(broken) = splitter.push(bytes, &mut take) {
            self.broken = Some(broken);
            self.splitter = None;
            self.keys = Keys::new();
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let carried = self.splitter.as_ref().map_or(0, Splitter::carried_bytes);
        let raw = self.raw.as_ref().and_then(Option::as_ref).map_or(0, Incoming::memory);
        carried + self.keys.capacity() * size_of::<(RecordKey, u32)>() + self.records.memory() + raw
    }

    /// Ends the body: its duplicates are decided and it is made durable together with whatever else is under way. Not
    /// calling it leaves no trace.
    ///
    /// # Errors
    ///
    /// When the body is cut ([`SplitError::Truncated`]) or its last records cannot be kept; that leaves no trace either.
    pub fn finish(mut self) -> Result<Finishing, BodyError> {
        let sha256: [u8; 32] = std::mem::take(&mut self.hash).finalize().into();
        let work = self.work;
        if let Some(splitter) = self.splitter.take() {
            match splitter.finish() {
                // It may be whole and end so. When it was cut in this place, it does not come again with the same bytes.
                Err(broken @ SplitError::Unclosed { .. }) => self.broken = Some(broken),
                result => result?,
            }
        }
        if let Some(cause) = self.broken {
            let raw = self.raw.take().flatten();
            let count = move |writer: &mut Writer| {
                Ok(Err(match writer.broken_body(work, sha256, cause, raw)? {
                    None => BodyError::Unwanted,
                    Some((times, true)) => BodyError::Quarantined { times, cause },
                    Some((_, false)) => cause.into(),
                }))
            };
            return Ok(Finishing(send(&self.writer, Kind::Body, count)));
        }
        self.records.close()?;
        dedupe::sort(&mut self.keys);
        let body = Finished {
            work,
            day: self.day,
            sha256,
            bytes: self.bytes,
            records: self.records,
            keys: self.keys,
        };
        let spool = move |writer: &mut Writer| Ok(writer.spool(body)?.ok_or(BodyError::Unwanted));
        Ok(Finishing(send(&self.writer, Kind::Body, spool)))
    }
}

/// The row of a blob whose body has come.
struct Row {
    tenant: i64,
    feed: i64,
    kind: String,
    seq: Option<i64>,
    guid: String,
}

impl Writer {
    /// Spools a body; `None` when nobody waits for it any more.
    fn spool(&mut self, mut body: Finished) -> Result<Option<Spooled>> {
        let work = body.work;
        self.require_claim(work)?;
        let sql = "SELECT tenant, feed, kind, seq, guid FROM blob \
                   JOIN tenant ON tenant.id = blob.tenant WHERE work = ?1 AND state = 'listed'";
        let row = self.first(sql, [work.0], |row| {
            Ok(Row {
                tenant: row.get(0)?,
                feed: row.get(1)?,
                kind: row.get(2)?,
                seq: row.get(3)?,
                guid: row.get(4)?,
            })
        })?;
        let Some(row) = row else { return Ok(None) };
        let dedupe = row.guid.parse().is_ok_and(|id| !lock(&self.shared.keep_duplicates).contains(&id));
        let own = self.own_works(work)?;
        // A retry's ids are those of the blob whose records it brings again, however often it was retried before.
        let owner = own.last().copied().unwrap_or(work);
        let first = if dedupe { Some(self.first_owners(row.feed, &body.keys, body.day)?) } else { None };
        let (dropped, duplicates) = match (self.earlier_decision(&own, &body.sha256)?, &first) {
            (Some(decision), _) => decision,
            (None, Some(first)) => {
                let duplicates = dedupe::duplicates(&own, &body.keys, first);
                (positions::encode(&duplicates), duplicates.len() as u32)
            }
            (None, None) => (Vec::new(), 0),
        };

        let stored = body.records.stored();
        let records = body.records.records();
        let place = match stored {
            0 => None,
            _ => Some(self.spool.append(&mut body.records.reader()?, stored)?),
        };
        if let Some(place) = place {
            self.account_body(place)?;
        }
        let seq = self.take_seq(row.tenant)?;
        let superseded = i64::from(row.seq.is_some());
        let sql = "UPDATE tenant SET spooled_bytes = spooled_bytes + ?2, superseded_seqs = superseded_seqs + ?3 \
                   WHERE id = ?1";
        self.exec(sql, (row.tenant, stored as i64, superseded))?;
        let sql = "UPDATE blob SET state = 'spooled', seq = ?2, spooled_at = ?3, sha256 = ?4, bytes = ?5, \
                   records = ?6, duplicates = ?7, dropped = ?8, segment = ?9, offset = ?10, stored = ?11, \
                   not_before = 0, last_error = NULL, broken_sha = NULL, broken_times = 0 WHERE work = ?1";
        self.exec(
            sql,
            params![
                work.0,
                seq,
                self.now_micros(),
                body.sha256.as_slice(),
                body.records.bytes() as i64,
                records,
                duplicates,
                dropped,
                place.map(|place| place.segment as i64),
                place.map(|place| place.offset as i64),
                stored as i64,
            ],
        )?;
        self.make_deliveries(work, &row, seq, records - duplicates)?;
        self.inherit_begun(work, &own)?;
        if place.is_none() || records == duplicates {
            self.settle_empty(work)?;
        } else if row.kind == "retry" || row.seq.is_some() && self.has_deliveries(work)? {
            // Its sinks may have been forgotten while it was fetched. One that was fetched again may be settled: whoever
            // had read it before it was damaged needed it no more.
            self.settle_when_done(work)?;
        }
        if let Some(first) = first {
            self.stage_ids(row.feed, owner, &body.keys, &first, body.day);
        }
        self.usual_body = (self.usual_body * 7 + stored.max(4096)) / 8;
        self.after.wake_sinks.insert(None);
        Ok(Some(Spooled { seq: Seq(seq as u64), records, duplicates, bytes: body.bytes }))
    }

    /// The work, what it retries, what that retried, and so on.
    pub(crate) fn own_works(&self, work: WorkId) -> Result<Vec<WorkId>> {
        let mut works = vec![work];
        let mut of = work;
        let sql = "SELECT origin FROM blob WHERE work = ?1";
        while let Some(origin) = self.first(sql, [of.0], |row| row.get::<_, Option<i64>>(0))?.flatten() {
            of = WorkId(origin);
            works.push(of);
        }
        Ok(works)
    }

    /// What was decided when the same body was spooled before, of the work itself or of what it retries.
    fn earlier_decision(&self, own: &[WorkId], sha256: &[u8; 32]) -> Result<Option<(Vec<u8>, u32)>> {
        for work in own {
            let sql = "SELECT dropped, duplicates FROM blob WHERE work = ?1 AND sha256 = ?2";
            let decision = self.first(sql, params![work.0, sha256.as_slice()], |row| {
                Ok((row.get::<_, Option<Vec<u8>>>(0)?.unwrap_or_default(), row.get(1)?))
            })?;
            if decision.is_some() {
                return Ok(decision);
            }
        }
        Ok(None)
    }

    fn make_deliveries(&mut self, work: WorkId, row: &Row, seq: i64, due: u32) -> Result<()> {
        if row.seq.is_some() || row.kind == "retry" {
            // Those of a body that is spooled again are there, held back until now.
            let sql = "UPDATE delivery SET seq = ?2, due = ?3, not_before = 0 WHERE work = ?1 AND state = 'pending'";
            self.exec(sql, (work.0, seq, due))?;
        }
        let sql = if row.kind == "retry" {
            "INSERT INTO delivery (work, sink, tenant, seq, due) SELECT work, sink, ?2, ?3, ?4 FROM retry_sink \
             WHERE work = ?1 ON CONFLICT DO NOTHING"
        } else if row.seq.is_none() {
            "INSERT INTO delivery (work, sink, tenant, seq, due) SELECT ?1, id, ?2, ?3, ?4 FROM sink \
             WHERE configured = 1 ON CONFLICT DO NOTHING"
        } else {
            return Ok(());
        };
        self.exec(sql, (work.0, row.tenant, seq, due))?;
        Ok(())
    }

    fn has_deliveries(&self, work: WorkId) -> Result<bool> {
        Ok(self.number("SELECT EXISTS (SELECT 1 FROM delivery WHERE work = ?1)", [work.0])? != 0)
    }

    /// Settles a body of which nothing is due: there is nothing that a receipt could cover. A sink that has it leased was
    /// given what was there before, and says itself what became of that.
    fn settle_empty(&mut self, work: WorkId) -> Result<()> {
        let sql = "SELECT sink FROM delivery WHERE work = ?1 AND state = 'pending'";
        for sink in self.all(sql, [work.0], |row| row.get::<_, i64>(0))? {
            if !self.leases.is_claimed(Leased::Delivery(sink, work)) {
                let sql =
                    "UPDATE delivery SET state = 'delivered', settled_at = ?3 WHERE work = ?1 AND sink = ?2";
                self.exec(sql, (work.0, sink, self.now_micros()))?;
            }
        }
        self.settle_when_done(work)?;
        Ok(())
    }

    /// Counts a broken body; quarantines the blob when the same one came often enough. Gives how often it came, and whether
    /// it is quarantined; `None` when nobody waits for it any more.
    fn broken_body(
        &mut self,
        work: WorkId,
        sha256: [u8; 32],
        cause: SplitError,
        raw: Option<Incoming>,
    ) -> Result<Option<(u32, bool)>> {
        self.require_claim(work)?;
        let sql = "UPDATE blob SET broken_times = CASE WHEN broken_sha = ?2 THEN broken_times + 1 ELSE 1 END, \
                   broken_sha = ?2 WHERE work = ?1 AND state = 'listed' RETURNING broken_times";
        let times = self.first(sql, params![work.0, sha256.as_slice()], |row| row.get::<_, u32>(0))?;
        let Some(times) = times else { return Ok(None) };
        Ok(Some(match raw {
            Some(raw) if times >= BROKEN_BODIES => (times, self.quarantine_broken(work, raw, &cause)?),
            _ => (times, false),
        }))
    }
}
