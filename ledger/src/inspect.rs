//! Looking into a ledger, open in this process, in another, or in none: reads what is committed and changes nothing.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Row, params_from_iter, types::Value};
use schemas::{ContentId, FeedKey, LedgerId, SinkName, TenantId};

use crate::{
    WorkId,
    clock::time,
    error::{LedgerError, OpenError, Result},
    findings::{Acknowledgement, FindingId},
    handle::lock,
    schema,
    status::sink_name,
    work::{content_id, feed_key},
    writer::{all, first},
};

/// A ledger, opened for reading only.
#[derive(Debug)]
pub struct Inspector {
    db: Mutex<Connection>,
    dir: PathBuf,
}

/// A dead letter, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number; its id in reports is `dead-NUMBER`.
    pub id: i64,
    /// The work that the record was in.
    pub work: WorkId,
    /// The feed.
    pub feed: FeedKey,
    /// The blob.
    pub content_id: ContentId,
    /// When the API made the blob available.
    pub created: DateTime<Utc>,
    /// When the API forgets the blob.
    pub expires: DateTime<Utc>,
    /// The sink that refused it; none when the blob was quarantined.
    pub sink: Option<SinkName>,
    /// The record's position; none for a whole delivery, or a part of a body that is no array of records.
    pub position: Option<u32>,
    /// How many records it stands for.
    pub records: u32,
    /// Why.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
    /// The work that retries it.
    pub retry: Option<WorkId>,
    /// When that was settled.
    pub done_at: Option<DateTime<Utc>>,
    /// Bytes that are kept of it.
    pub size: u64,
    /// That somebody has looked at it.
    pub acknowledged: Option<Acknowledgement>,
}

impl DeadLetter {
    /// Whether somebody still has to do something about it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.retry.is_none() && self.acknowledged.is_none()
    }
}

/// Which dead letters are wanted.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// Only this sink's.
    pub sink: Option<SinkName>,
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only this work's.
    pub work: Option<WorkId>,
    /// Only those with a reason that contains this text.
    pub reason: Option<String>,
    /// Only those that were neither retried nor acknowledged.
    pub open: bool,
    /// Only those with a larger number.
    pub after: i64,
    /// At most so many; 0 stands for 1000.
    pub limit: usize,
}

impl Inspector {
    /// Opens the ledger in a state directory for reading, beside a running process or alone.
    ///
    /// # Errors
    ///
    /// When there is none, when it is of a newer format, and when it cannot be read.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(schema::FILE_NAME);
        if !path.exists() {
            return Err(OpenError::Missing { dir: dir.to_owned() });
        }
        Ok(Self { db: Mutex::new(schema::open_read_only(&path)?), dir: dir.to_owned() })
    }

    /// The ledger's id.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn ledger_id(&self) -> Result<LedgerId> {
        let sql = "SELECT value FROM meta WHERE key = 'ledger_id'";
        let text: String = first(&self.db(), sql, [], |row| row.get(0))?.unwrap_or_default();
        text.parse().map_err(|_| LedgerError::damaged(format!("the ledger id `{text}`")))
    }

    /// The state directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Which one of that name a sink is; `None` when the ledger does not know it.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn incarnation(&self, sink: &SinkName) -> Result<Option<u64>> {
        let sql = "SELECT incarnation FROM sink WHERE name = ?1 AND forgotten_at IS NULL";
        let incarnation: Option<i64> = first(&self.db(), sql, [sink.as_str()], |row| row.get(0))?;
        Ok(incarnation.map(|incarnation| incarnation as u64))
    }

    /// A sink's own durable state; `None` when the ledger does not know the sink, or it has none.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn sink_state(&self, sink: &SinkName) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT state FROM sink WHERE name = ?1 AND forgotten_at IS NULL";
        Ok(first(&self.db(), sql, [sink.as_str()], |row| row.get(0))?.flatten())
    }

    pub(crate) fn db(&self) -> MutexGuard<'_, Connection> {
        lock(&self.db)
    }

    /// Dead letters, by their numbers. To read on, ask again with `after` set to the last one's.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn dead_letters(&self, filter: &LetterFilter) -> Result<Vec<DeadLetter>> {
        let db = self.db();
        let mut sql = format!("{LETTERS} WHERE dead_letter.id > ?");
        let mut values = vec![Value::Integer(filter.after)];
        if let Some(sink) = &filter.sink {
            sql += " AND sink.name = ?";
            values.push(Value::Text(sink.to_string()));
        }
        if let Some(tenant) = &filter.tenant {
            sql += " AND guid = ?";
            values.push(Value::Text(tenant.to_string()));
        }
        if let Some(work) = filter.work {
            sql += " AND dead_letter.work = ?";
            values.push(Value::Integer(work.0));
        }
        if let Some(reason) = &filter.reason {
            sql += " AND instr(dead_letter.reason, ?) > 0";
            values.push(Value::Text(reason.clone()));
        }
        if filter.open {
            sql += " AND retry IS NULL AND one.finding IS NULL AND whole.finding IS NULL";
        }
        sql += " ORDER BY dead_letter.id LIMIT ?";
        values.push(Value::Integer(if filter.limit == 0 { 1000 } else { filter.limit as i64 }));
        all(&db, &sql, params_from_iter(values), read_letter)?.into_iter().collect()
    }

    /// A dead letter with its bytes, if any are kept.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn dead_letter(&self, id: i64) -> Result<Option<(DeadLetter, Option<Vec<u8>>)>> {
        let db = self.db();
        let sql = format!("{LETTERS} WHERE dead_letter.id = ?1");
        let Some(letter) = first(&db, &sql, [id], read_letter)? else { return Ok(None) };
        let bytes = first(&db, "SELECT bytes FROM dead_letter WHERE id = ?1", [id], |row| row.get(0))?;
        Ok(Some((letter?, bytes.flatten())))
    }

    /// Hands every dead letter that is wanted to `take`, with its bytes, until that fails.
    ///
    /// # Errors
    ///
    /// When one cannot be read, or `take` fails.
    pub fn export_dead_letters(
        &self,
        filter: &LetterFilter,
        take: &mut dyn FnMut(&DeadLetter, &[u8]) -> std::io::Result<()>,
    ) -> Result<u64> {
        let mut filter = filter.clone();
        let mut left = if filter.limit == 0 { usize::MAX } else { filter.limit };
        let mut count = 0;
        loop {
            filter.limit = left.min(200);
            let letters = self.dead_letters(&filter)?;
            let Some(last) = letters.last() else { return Ok(count) };
            filter.after = last.id;
            left -= letters.len();
            for letter in &letters {
                let sql = "SELECT bytes FROM dead_letter WHERE id = ?1";
                let bytes = first(&self.db(), sql, [letter.id], |row| row.get::<_, Option<Vec<u8>>>(0))?;
                let bytes = bytes.flatten().unwrap_or_default();
                take(letter, &bytes).map_err(LedgerError::io("exporting dead letters"))?;
                count += 1;
            }
            if left == 0 {
                return Ok(count);
            }
        }
    }

    /// How a finding was acknowledged.
    pub(crate) fn acknowledgements(db: &Connection) -> Result<HashMap<FindingId, Acknowledgement>> {
        let rows = all(db, "SELECT finding, reason, name, at FROM acknowledgement", [], |row| {
            Ok((row.get::<_, String>(0)?, read_acknowledgement(row, 1)?))
        })?;
        Ok(rows.into_iter().filter_map(|(id, given)| Some((id.parse().ok()?, given))).collect())
    }
}

/// Reads a dead letter's columns; the letters of a quarantined blob are acknowledged with it.
const LETTERS: &str = "SELECT dead_letter.id, work, guid, content_type, content_id, created, expires, sink.name, \
     position, records, dead_letter.reason, dead_letter.at, retry, done_at, size, \
     coalesce(one.reason, whole.reason), coalesce(one.name, whole.name), coalesce(one.at, whole.at) \
     FROM dead_letter JOIN feed ON feed.id = dead_letter.feed JOIN tenant ON tenant.id = feed.tenant \
     LEFT JOIN sink ON sink.id = dead_letter.sink \
     LEFT JOIN acknowledgement AS one ON one.finding = 'dead-' || dead_letter.id \
     LEFT JOIN acknowledgement AS whole ON dead_letter.sink IS NULL AND whole.finding = 'quarantine-' || work";

fn read_acknowledgement(row: &Row<'_>, at: usize) -> rusqlite::Result<Acknowledgement> {
    Ok(Acknowledgement { reason: row.get(at)?, name: row.get(at + 1)?, at: time(row.get(at + 2)?) })
}

fn read_letter(row: &Row<'_>) -> rusqlite::Result<Result<DeadLetter>> {
    let (guid, content_type, content): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
    let sink: Option<String> = row.get(7)?;
    let acknowledged =
        if row.get::<_, Option<String>>(15)?.is_some() { Some(read_acknowledgement(row, 15)?) } else { None };
    let (id, work) = (row.get(0)?, WorkId(row.get(1)?));
    let (created, expires, at) = (time(row.get(5)?), time(row.get(6)?), time(row.get(11)?));
    let (position, records, reason) = (row.get(8)?, row.get(9)?, row.get(10)?);
    let retry = row.get::<_, Option<i64>>(12)?.map(WorkId);
    let done_at = row.get::<_, Option<i64>>(13)?.map(time);
    let size = row.get::<_, i64>(14)? as u64;
    let build = || {
        Ok(DeadLetter {
            id,
            work,
            feed: feed_key(&guid, &content_type)?,
            content_id: content_id(&content)?,
            created,
            expires,
            sink: sink.as_deref().map(sink_name).transpose()?,
            position,
            records,
            reason,
            at,
            retry,
            done_at,
            size,
            acknowledged,
        })
    };
    Ok(build())
}
