//! The writer: one thread through which everything goes that changes the ledger.
//!
//! It takes the first job, drains what waits behind it, runs all of it in one transaction, makes the spool and the
//! duplicate index durable, commits, and answers: one durable commit for many callers. A job that fails goes back to its savepoint and
//! spoils nothing for the others. Jobs that only look are answered at once while no transaction is open; behind a
//! change they wait for its commit, so that nobody is told what may yet be rolled back.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Params, Row};

use crate::{
    WorkId,
    clock::micros,
    error::{LedgerError, Result},
    faults::{Faults, Point},
    handle::Shared,
    ids::{Checkpoint, DuplicateIndex},
    leases::{Leased, Leases},
    lock::Lock,
    schema,
    spool::{Place, Spool},
};

/// Most jobs of one transaction.
const GROUP: usize = 256;

/// How long a group that holds nothing but ends of bodies waits for more of them, while more are arriving. Making a
/// group durable costs three flushes however many bodies are in it.
const GATHER: Duration = Duration::from_millis(10);

/// What the writer's channel carries.
pub(crate) enum Message {
    /// Something to do.
    Job(Job),
    /// A claim was dropped.
    Release(Leased, u64),
    /// The end: whatever came before is finished, then the files are closed.
    Close,
}

/// What kind of thing a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes nothing durable.
    Look,
    /// It changes something, and somebody waits for that.
    Change,
    /// It ends a body. Nobody waits for a single one: it may wait a little for others, to be made durable with them.
    Body,
}

/// Something to do, and whom to answer.
pub(crate) struct Job {
    /// What it does.
    pub(crate) kind: Kind,
    /// Runs it, or tells its owner why it cannot be.
    pub(crate) run: Run,
}

/// Whether a group waits for more.
#[derive(Default)]
struct Gather {
    /// When it has waited long enough. `None` before the first end of a body.
    until: Option<Instant>,
    /// Somebody waits for something else in the group.
    hurry: bool,
}

impl Gather {
    fn joined(&mut self, kind: Kind) {
        match kind {
            Kind::Body => self.until = self.until.or_else(|| Instant::now().checked_add(GATHER)),
            Kind::Look | Kind::Change => self.hurry = true,
        }
    }

    /// How long to wait for one more, when so many bodies are arriving.
    fn wait(&self, arriving: usize) -> Option<Duration> {
        let until = self.until.filter(|_| !self.hurry && arriving > 0)?;
        until.checked_duration_since(Instant::now())
    }
}

/// The answer to a job, held back until the commit.
pub(crate) struct Held {
    /// Whether it failed by itself.
    pub(crate) error: Option<LedgerError>,
    /// Sends the answer, or the failure of the whole group.
    pub(crate) answer: Reply,
}

type Run = Box<dyn FnOnce(Result<&mut Writer>) -> Held + Send>;
type Reply = Box<dyn FnOnce(Option<&LedgerError>) + Send>;

/// What is to be done when the group is committed, and not otherwise.
#[derive(Default)]
pub(crate) struct After {
    /// Segments that no row names any more.
    pub(crate) remove: Vec<u64>,
    /// Somebody may have blobs to fetch.
    pub(crate) wake_fetches: bool,
    /// Sinks that may have work; `None` stands for all of them.
    pub(crate) wake_sinks: BTreeSet<Option<i64>>,
    /// The write-ahead log is to be emptied.
    pub(crate) checkpoint: bool,
}

/// The ledger's only writer.
pub(crate) struct Writer {
    pub(crate) db: Connection,
    pub(crate) spool: Spool,
    pub(crate) ids: DuplicateIndex,
    pub(crate) leases: Leases,
    pub(crate) after: After,
    pub(crate) shared: Arc<Shared>,
    pub(crate) faults: Faults,
    /// Tenants whose fetching pauses for want of room.
    pub(crate) paused: HashSet<i64>,
    /// The usual length of a body in the spool, for reserving room before it is known.
    pub(crate) usual_body: u64,
    /// After which tenant the next lease of a sink begins.
    pub(crate) turns: HashMap<i64, i64>,
    /// Bodies that a failed job found damaged.
    pub(crate) damaged: Vec<(WorkId, Place)>,
    /// Set when a claim found no room: room is to be made after this turn.
    pub(crate) wants_room: bool,
    /// What the database says of the duplicate index.
    pub(crate) checkpoint: Checkpoint,
    /// Set by a commit of which nobody knows whether it is durable.
    pub(crate) broken: Option<LedgerError>,
    pub(crate) _lock: Lock,
}

impl Writer {
    /// Works until the ledger is closed.
    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            if self.turn(first, messages).is_break() || self.faults.crashed() {
                break;
            }
        }
        if self.faults.crashed() || self.broken.is_some() {
            return;
        }
        if let Err(error) = self.set_meta("open", 0) {
            tracing::warn!(%error, "the end was not noted; the next start takes this one for a crash");
        }
        self.empty_log();
    }

    fn turn(&mut self, first: Message, messages: &Receiver<Message>) -> ControlFlow<()> {
        let mut held = Vec::new();
        let mut open = false;
        let mut next = Some(first);
        let mut end = ControlFlow::Continue(());
        let mut jobs = 0;
        let mut gather = Gather::default();
        while let Some(message) = next.take() {
            match message {
                Message::Release(what, token) => self.release(what, token),
                Message::Close => end = ControlFlow::Break(()),
                Message::Job(job) => {
                    jobs += 1;
                    gather.joined(job.kind);
                    if let Some(answer) = self.job(job, &mut open, &mut held) {
                        held.push(answer);
                    }
                }
            }
            if self.faults.crashed() {
                return ControlFlow::Break(());
            }
            // Whoever found no room may ask again at once.
            if end.is_continue() && jobs < GROUP && !self.wants_room {
                next = messages.try_recv().ok().or_else(|| {
                    let wait = gather.wait(self.shared.arriving.load(Ordering::Relaxed))?;
                    messages.recv_timeout(wait).ok()
                });
            }
        }
        self.end_group(open, held);
        if end.is_continue() && !self.faults.crashed() {
            let damaged = std::mem::take(&mut self.damaged);
            if !damaged.is_empty() {
                self.internal("damaged bodies could not be given up", |writer| {
                    damaged.into_iter().try_for_each(|(work, place)| writer.body_lost(work, place).map(drop))
                });
            }
            if std::mem::take(&mut self.wants_room) {
                self.internal("no room could be made in the spool", Self::make_room);
            }
        }
        end
    }

    /// Runs a job; gives its answer when it has to wait for the commit.
    fn job(&mut self, job: Job, open: &mut bool, held: &mut Vec<Held>) -> Option<Held> {
        if let Some(error) = &self.broken {
            let refused = (job.run)(Err(error.clone()));
            (refused.answer)(None);
            return None;
        }
        if job.kind == Kind::Look && !*open {
            // One transaction for its statements: they see the same state, and the file is locked once.
            let result = self.exec("BEGIN", []).map(|_| ());
            let done = (job.run)(result.map(|()| &mut *self));
            if !self.db.is_autocommit()
                && let Err(error) = self.exec("COMMIT", [])
            {
                tracing::warn!(%error, "a reading transaction did not end well");
                self.roll_back(false);
            }
            (done.answer)(None);
            self.run_after();
            return None;
        }
        if !*open {
            if let Err(error) = self.exec("BEGIN IMMEDIATE", []) {
                let refused = (job.run)(Err(error));
                (refused.answer)(None);
                return None;
            }
            *open = true;
        }
        let mark = self.spool.mark();
        let after = self.after.remove.len();
        if let Err(error) = self.exec("SAVEPOINT job", []) {
            let refused = (job.run)(Err(error));
            (refused.answer)(None);
            return None;
        }
        let done = (job.run)(Ok(self));
        if self.faults.crashed() {
            return None;
        }
        if let Some(error) = &done.error {
            self.spool.rewind(&mark);
            self.after.remove.truncate(after);
            let back = self.exec("ROLLBACK TO job", []).and_then(|_| self.exec("RELEASE job", []));
            // A full disk ends the whole transaction.
            if self.db.is_autocommit() || back.is_err() {
                let error = error.clone();
                *open = false;
                self.roll_back(false);
                for held in held.drain(..) {
                    (held.answer)(Some(&error));
                }
                (done.answer)(None);
                return None;
            }
        } else if let Err(error) = self.exec("RELEASE job", []) {
            *open = false;
            self.roll_back(false);
            for held in held.drain(..) {
                (held.answer)(Some(&error));
            }
            (done.answer)(Some(&error));
            return None;
        }
        Some(done)
    }

    fn end_group(&mut self, open: bool, held: Vec<Held>) {
        let failure = if open { self.commit().err() } else { None };
        if self.faults.crashed() {
            return;
        }
        for held in held {
            (held.answer)(failure.as_ref());
        }
        if failure.is_none() {
            self.run_after();
        }
    }

    /// Runs something of the writer's own in a group of its own.
    fn internal(&mut self, failure: &'static str, work: impl FnOnce(&mut Self) -> Result<()>) {
        if self.broken.is_some() {
            return;
        }
        let result = self.exec("BEGIN IMMEDIATE", []).and_then(|_| work(self)).and_then(|()| self.commit());
        if self.faults.crashed() {
            return;
        }
        match result {
            Ok(()) => self.run_after(),
            Err(error) => {
                if !self.db.is_autocommit() && self.broken.is_none() {
                    self.roll_back(false);
                }
                tracing::warn!(%error, "{failure}");
            }
        }
    }

    /// Makes the open group durable.
    fn commit(&mut self) -> Result<()> {
        if let Err(error) = self.spool.sync() {
            if !self.faults.crashed() {
                self.roll_back(true);
            }
            return Err(error);
        }
        let committed = self.sync_ids().and_then(|()| {
            self.faults.at(Point::Commit).map_err(LedgerError::io("committing"))?;
            self.exec("COMMIT", [])
        });
        if self.faults.crashed() {
            return Err(LedgerError::Closed);
        }
        if let Err(error) = committed {
            if let LedgerError::Database(cause) = &error {
                // The commit may be on the disk or not. Only opening the ledger anew tells.
                tracing::error!(error = %cause, "a commit failed; the ledger must be opened anew");
                self.broken = Some(LedgerError::Broken(Arc::clone(cause)));
            } else {
                self.roll_back(false);
            }
            return Err(error);
        }
        self.faults.at(Point::Committed).map_err(LedgerError::io("after the commit"))?;
        self.spool.committed();
        // Its ids are durable whatever happens now; moving them to the tables is tried again with the next commit.
        if let Err(error) = self.ids.committed() {
            tracing::warn!(%error, "recent ids were not moved to the tables");
        }
        Ok(())
    }

    fn sync_ids(&mut self) -> Result<()> {
        self.faults.at(Point::SyncIds).map_err(LedgerError::io("making the duplicate index durable"))?;
        let checkpoint = self.ids.sync()?;
        self.note_ids_durable(checkpoint);
        if checkpoint != self.checkpoint {
            self.set_meta("ids_journal", checkpoint.journal as i64)?;
            self.set_meta("ids_length", checkpoint.length as i64)?;
            self.checkpoint = checkpoint;
        }
        Ok(())
    }

    fn note_ids_durable(&self, checkpoint: Checkpoint) {
        let name = format!("journal-{:010}", checkpoint.journal);
        self.faults.synced(&self.shared.dir.join("ids").join(name), checkpoint.length);
    }

    fn roll_back(&mut self, distrust: bool) {
        if !self.db.is_autocommit()
            && let Err(error) = self.exec("ROLLBACK", [])
        {
            tracing::error!(%error, "a transaction could not be rolled back; the ledger must be opened anew");
            self.broken = Some(error);
        }
        self.spool.roll_back(distrust);
        self.ids.roll_back();
        self.after = After::default();
        // What the row says now is not known here; the next commit writes it.
        self.checkpoint = Checkpoint { journal: u64::MAX, length: u64::MAX };
    }

    /// Does what had to wait for the commit.
    fn run_after(&mut self) {
        let after = std::mem::take(&mut self.after);
        for number in &after.remove {
            self.spool.remove(*number);
            self.shared.spool.forget(*number);
            if self.faults.crashed() {
                return;
            }
        }
        if after.wake_fetches || !after.remove.is_empty() {
            self.shared.wake_fetches();
        }
        if after.wake_sinks.contains(&None) {
            self.shared.wake_all_sinks();
        } else {
            for sink in after.wake_sinks.into_iter().flatten() {
                self.shared.wake_sink(sink);
            }
        }
        if after.checkpoint {
            self.empty_log();
        }
    }

    /// Empties the write-ahead log. Whoever reads an earlier state keeps a part of it, and is not waited for: a report on
    /// a large ledger takes its time, and everybody waits for this thread.
    fn empty_log(&self) {
        let emptied = self.db.busy_timeout(Duration::ZERO);
        let emptied = emptied.and_then(|()| self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"));
        if let Err(error) = emptied.and(self.db.busy_timeout(schema::BUSY)) {
            tracing::debug!(%error, "the write-ahead log was not emptied");
        }
    }

    fn release(&mut self, what: Leased, token: u64) {
        self.leases.release(what, token);
        match what {
            Leased::Fetch(_) => self.shared.wake_fetches(),
            Leased::Delivery(sink, _) => self.shared.wake_sink(sink),
        }
    }

    /// The time.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.shared.clock.now()
    }

    /// The time as it is written down.
    pub(crate) fn now_micros(&self) -> i64 {
        micros(self.now())
    }

    /// Runs a statement; gives how many rows it changed.
    pub(crate) fn exec(&self, sql: &str, params: impl Params) -> Result<usize> {
        Ok(self.db.prepare_cached(sql)?.execute(params)?)
    }

    /// Reads the first row, if there is one.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        first(&self.db, sql, params, read)
    }

    /// Reads every row. For statements with a limit.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        all(&self.db, sql, params, read)
    }

    /// A number that a statement always gives.
    pub(crate) fn number(&self, sql: &str, params: impl Params) -> Result<i64> {
        Ok(self.db.prepare_cached(sql)?.query_row(params, |row| row.get(0))?)
    }

    /// Keeps a single fact.
    pub(crate) fn set_meta(&self, key: &str, value: i64) -> Result<()> {
        self.exec(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )?;
        Ok(())
    }

    /// A single fact; 0 when it was never set.
    pub(crate) fn meta(&self, key: &str) -> Result<i64> {
        let value = self.first("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))?;
        Ok(value.unwrap_or(0))
    }

    /// Takes the tenant's next number.
    pub(crate) fn take_seq(&self, tenant: i64) -> Result<i64> {
        // In two statements: what an UPDATE returns, SQLite first gathers in a table that it makes for that.
        let seq = self.number("SELECT next_seq FROM tenant WHERE id = ?1", [tenant])?;
        self.exec("UPDATE tenant SET next_seq = next_seq + 1 WHERE id = ?1", [tenant])?;
        Ok(seq)
    }
}

/// Reads the first row, if there is one.
pub(crate) fn first<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    Ok(rows.next()?.map(read).transpose()?)
}

/// Reads every row.
pub(crate) fn all<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params, read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_wait_for_others_that_are_arriving_and_nothing_else_waits() {
        let mut gather = Gather::default();
        assert_eq!(gather.wait(3), None, "nothing to wait with");
        gather.joined(Kind::Body);
        assert!(gather.wait(3).is_some_and(|wait| wait <= GATHER));
        assert_eq!(gather.wait(0), None, "nothing to wait for");
        gather.joined(Kind::Change);
        assert_eq!(gather.wait(3), None, "somebody waits for the change");
    }
}
