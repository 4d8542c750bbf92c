//! Which sinks there are: met, configured, forgotten.
//!
//! A sink is met once; what it starts with is decided then. When it is forgotten, its pending deliveries are given up
//! and its incarnation ends: a sink of the same name is a new one afterwards.

use rusqlite::params;
use schemas::SinkName;

use crate::{
    WorkId,
    deliveries::HELD,
    error::{LedgerError, LeftOverSink, Result},
    handle::{Answer, Ledger},
    writer::Writer,
};

/// The reason of deliveries that were given up with their sink.
pub const FORGOTTEN: &str = "forgotten";

/// Deliveries that are given up in one commit.
const FORGOTTEN_AT_ONCE: i64 = 1000;

/// What a new sink gets first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// What is in the spool, then what comes.
    Spooled,
    /// Only what comes.
    Now,
}

/// A sink as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSpec {
    /// Its name.
    pub name: SinkName,
    /// Whether the spool waits for it without limit.
    pub required: bool,
    /// What it gets first, if the ledger does not know it yet.
    pub start_from: StartFrom,
}

/// A sink that the ledger has met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetSink {
    /// Its name.
    pub name: SinkName,
    /// Which one of that name: 1, and one more after each time that it was forgotten.
    pub incarnation: u64,
    /// Whether it was met just now.
    pub new: bool,
    /// Its pending deliveries.
    pub pending: u64,
}

impl Ledger {
    /// Says which sinks are configured, at the start. Blobs that are spooled from now on are delivered to these.
    ///
    /// Fails with [`LedgerError::LeftOverSinks`], and changes nothing, when a sink that is not among them has pending
    /// deliveries.
    pub fn meet_sinks(&self, specs: Vec<SinkSpec>) -> Answer<Vec<MetSink>> {
        self.change(move |writer| writer.meet_sinks(&specs))
    }

    /// Adds a sink, or changes a known one, while the ledger is open.
    pub fn add_sink(&self, spec: SinkSpec) -> Answer<MetSink> {
        self.change(move |writer| writer.meet_sink(&spec))
    }

    /// Takes a sink out while the ledger is open. It gets nothing new; what is pending stays pending until the sink
    /// is added again or forgotten. Gives how much that is.
    pub fn remove_sink(&self, name: &SinkName) -> Answer<u64> {
        let name = name.clone();
        self.change(move |writer| {
            let number = writer.sink_number(&name)?;
            writer.exec("UPDATE sink SET configured = 0 WHERE id = ?1", [number])?;
            writer.pending(number)
        })
    }

    /// Gives up everything that is pending for a sink that is no longer configured, and ends its incarnation. Gives
    /// how many deliveries that were. Blocks.
    ///
    /// # Errors
    ///
    /// When the sink is unknown or configured.
    pub fn forget_sink(&self, name: &SinkName) -> Result<u64> {
        let mut count = 0;
        loop {
            let name = name.clone();
            let (some, done) = self.change(move |writer| writer.forget_some(&name)).wait()?;
            count += some;
            if done {
                return Ok(count);
            }
        }
    }

    /// Which one of that name the sink is: 1, and one more after each time that it was forgotten.
    pub fn incarnation(&self, sink: &SinkName) -> Answer<u64> {
        let sink = sink.clone();
        self.look(move |writer| {
            let number = writer.sink_number(&sink)?;
            Ok(writer.number("SELECT incarnation FROM sink WHERE id = ?1", [number])? as u64)
        })
    }

    /// The sink's own durable state.
    pub fn sink_state(&self, sink: &SinkName) -> Answer<Option<Vec<u8>>> {
        let sink = sink.clone();
        self.look(move |writer| {
            let number = writer.sink_number(&sink)?;
            let state = writer.first("SELECT state FROM sink WHERE id = ?1", [number], |row| row.get(0))?;
            Ok(state.flatten())
        })
    }

    /// Changes the sink's own durable state in one commit, whatever else happens meanwhile. Fails with
    /// [`LedgerError::SinkState`], and changes nothing, when `change` refuses.
    pub fn change_sink_state(
        &self,
        sink: &SinkName,
        change: impl FnOnce(Option<Vec<u8>>) -> std::result::Result<Vec<u8>, String> + Send + 'static,
    ) -> Answer<()> {
        let sink = sink.clone();
        self.change(move |writer| {
            let number = writer.sink_number(&sink)?;
            let state = writer.first("SELECT state FROM sink WHERE id = ?1", [number], |row| row.get(0))?;
            let changed =
                change(state.flatten()).map_err(|why| LedgerError::SinkState { name: sink, why })?;
            writer.exec("UPDATE sink SET state = ?2 WHERE id = ?1", (number, changed))?;
            Ok(())
        })
    }

    /// Commits the sink's own durable state.
    pub fn set_sink_state(&self, sink: &SinkName, state: Vec<u8>) -> Answer<()> {
        let sink = sink.clone();
        self.change(move |writer| {
            let number = writer.sink_number(&sink)?;
            writer.exec("UPDATE sink SET state = ?2 WHERE id = ?1", (number, state))?;
            Ok(())
        })
    }
}

impl Writer {
    /// The number of a sink that was met and not forgotten.
    pub(crate) fn sink_number(&self, name: &SinkName) -> Result<i64> {
        let sql = "SELECT id FROM sink WHERE name = ?1 AND forgotten_at IS NULL";
        let number = self.first(sql, [name.as_str()], |row| row.get(0))?;
        let number = number.ok_or_else(|| LedgerError::UnknownSink { name: name.clone() })?;
        self.shared.number_sink(number, name);
        Ok(number)
    }

    fn pending(&self, number: i64) -> Result<u64> {
        let sql = "SELECT (SELECT count(*) FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before = 0) \
                   + (SELECT count(*) FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before > 0)";
        Ok(self.number(sql, [number])? as u64)
    }

    fn meet_sinks(&mut self, specs: &[SinkSpec]) -> Result<Vec<MetSink>> {
        let known = self.all("SELECT id, name FROM sink WHERE forgotten_at IS NULL", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        let mut left_over = Vec::new();
        for (number, name) in known {
            if specs.iter().any(|spec| spec.name.as_str() == name) {
                continue;
            }
            let pending = self.pending(number)?;
            if pending > 0 {
                let name = name.parse().map_err(|_| LedgerError::damaged(format!("the sink `{name}`")))?;
                left_over.push(LeftOverSink { name, pending });
            }
            self.exec("UPDATE sink SET configured = 0 WHERE id = ?1", [number])?;
        }
        if !left_over.is_empty() {
            return Err(LedgerError::LeftOverSinks(left_over));
        }
        specs.iter().map(|spec| self.meet_sink(spec)).collect()
    }

    fn meet_sink(&mut self, spec: &SinkSpec) -> Result<MetSink> {
        let sql = "UPDATE sink SET required = ?2, configured = 1 WHERE name = ?1 AND forgotten_at IS NULL \
                   RETURNING id, incarnation";
        let name = spec.name.as_str();
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let known = self.first(sql, (name, spec.required), read)?;
        let new = known.is_none();
        let (number, incarnation) = match known {
            Some(known) => known,
            None => self.new_sink(spec)?,
        };
        self.shared.number_sink(number, &spec.name);
        self.after.wake_sinks.insert(Some(number));
        self.after.wake_fetches = true;
        // What was spooled while there was no sink at all, and this one does not want, is done.
        let unwanted = self.all(
            "SELECT work FROM blob WHERE segment IS NOT NULL AND state = 'spooled' \
             AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.work = blob.work AND delivery.state = 'pending')",
            [],
            |row| Ok(WorkId(row.get(0)?)),
        )?;
        for work in unwanted {
            self.settle_when_done(work)?;
        }
        let pending = self.pending(number)?;
        Ok(MetSink { name: spec.name.clone(), incarnation: incarnation as u64, new, pending })
    }

    fn new_sink(&mut self, spec: &SinkSpec) -> Result<(i64, i64)> {
        let name = spec.name.as_str();
        let start_from = match spec.start_from {
            StartFrom::Spooled => "spooled",
            StartFrom::Now => "now",
        };
        let last = self.number("SELECT coalesce(max(incarnation), 0) FROM sink WHERE name = ?1", [name])?;
        let sql = "INSERT INTO sink (name, incarnation, required, start_from, configured, met_at) \
                   VALUES (?1, ?2, ?3, ?4, 1, ?5) RETURNING id";
        let number =
            self.number(sql, params![name, last + 1, spec.required, start_from, self.now_micros()])?;
        if spec.start_from == StartFrom::Spooled {
            let sql = "INSERT INTO delivery (work, sink, tenant, seq, due, not_before) \
                       SELECT work, ?1, tenant, seq, records - duplicates, \
                       CASE state WHEN 'spooled' THEN 0 ELSE ?2 END FROM blob \
                       WHERE kind = 'blob' AND (segment IS NOT NULL OR (state = 'listed' AND seq IS NOT NULL))";
            self.exec(sql, (number, HELD))?;
        }
        Ok((number, last + 1))
    }

    /// Gives up some deliveries of a sink; true when they were the last and the sink is forgotten.
    fn forget_some(&mut self, name: &SinkName) -> Result<(u64, bool)> {
        let number = self.sink_number(name)?;
        if self.number("SELECT configured FROM sink WHERE id = ?1", [number])? != 0 {
            return Err(LedgerError::SinkInUse { name: name.clone() });
        }
        let now = self.now_micros();
        let mut given_up = 0;
        for condition in ["not_before = 0", "not_before > 0"] {
            let works = self.all(
                &format!(
                    "SELECT work FROM delivery WHERE sink = ?1 AND state = 'pending' AND {condition} LIMIT ?2"
                ),
                (number, FORGOTTEN_AT_ONCE - given_up),
                |row| Ok(WorkId(row.get(0)?)),
            )?;
            for work in works {
                let sql = "UPDATE delivery SET state = 'dead', dead = due, reason = ?3, settled_at = ?4, not_before = 0 \
                           WHERE work = ?1 AND sink = ?2";
                self.exec(sql, (work.0, number, FORGOTTEN, now))?;
                self.settle_when_done(work)?;
                given_up += 1;
            }
        }
        let done = given_up < FORGOTTEN_AT_ONCE;
        if done {
            self.exec("UPDATE sink SET forgotten_at = ?2, state = NULL WHERE id = ?1", (number, now))?;
            // A retry that has yet to be fetched for this sink has nobody to go to, also when it is just being fetched.
            self.exec("DELETE FROM retry_sink WHERE sink = ?1", [number])?;
            let sql = "UPDATE blob SET state = 'settled', ended_at = ?1 WHERE kind = 'retry' AND state = 'listed' \
                       AND NOT EXISTS (SELECT 1 FROM retry_sink WHERE retry_sink.work = blob.work) RETURNING work";
            for work in self.all(sql, [now], |row| Ok(WorkId(row.get(0)?)))? {
                self.retry_is_done(work, now)?;
            }
        }
        Ok((given_up as u64, done))
    }
}
