//! Deliveries: leasing work to sinks, and what became of it.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use rusqlite::params;
use schemas::{BodyId, Deferral, Seq, Settlement, SinkName, Want};

use crate::{
    Work, WorkId,
    clock::{micros, time},
    dead_letters::Dead,
    error::{LedgerError, Result, Unreadable},
    fetches::shorten,
    handle::{Answer, Ledger},
    leases::{Claim, Leased},
    work::{FEED_COLUMNS, content_id, feed_key},
    writer::Writer,
};

/// How many panics quarantine a work (L11).
pub const PANICS: u32 = 3;

/// The reason of what is dead because its work was quarantined.
pub const QUARANTINED: &str = "quarantined";

/// One sink's turn at one piece of work (L5). Dropping it makes the work pending again (L7).
#[derive(Debug)]
pub struct Lease {
    /// What is to be delivered.
    pub work: Arc<Work>,
    /// How often it was deferred before.
    pub attempts: u32,
    /// How often its records may be there already, as [`Ledger::begin`] or the last deferral said.
    pub begun: u32,
    /// Whether its body is being fetched again, so that nothing can be read. Only [`Ledger::lease_these`] gives such a lease:
    /// whoever has sent all of the work needs its body no more and can settle it.
    pub awaits_body: bool,
    /// Releases the work when dropped.
    pub claim: Claim,
}

/// A delivery as the database has it.
struct Delivery {
    state: String,
    due: u32,
    /// The body that the work has now, or had last.
    body: Option<BodyId>,
}

impl Ledger {
    /// Leases pending work of the sink, as much as is wanted, tenants in turn, each in the order of `Seq`. Work that is
    /// leased or that has a `not_before` in the future is passed over.
    pub fn lease(&self, sink: &SinkName, want: impl Into<Want>) -> Answer<Vec<Lease>> {
        let (sink, want) = (sink.clone(), want.into());
        self.look(move |writer| writer.lease(&sink, want))
    }

    /// Leases exactly this work, in this order, whether or not it was to wait, also for its body; what is settled already is
    /// left out.
    pub fn lease_these(&self, sink: &SinkName, work: &[WorkId]) -> Answer<Vec<Lease>> {
        let (sink, work) = (sink.clone(), work.to_vec());
        self.look(move |writer| writer.lease_these(&sink, &work))
    }

    /// Resolves when [`Ledger::lease`] may have something, at the latest after `at_most`.
    pub async fn work_may_be_due(&self, sink: &SinkName, at_most: Duration) {
        self.shared.sink(sink).wait(&self.shared.clock, at_most).await;
    }

    /// Commits how often the records of these deliveries may be there, before they leave. It never becomes less by this. Not
    /// once, when their sink recognises what it has of them; then this only says that they were tried, for the case that they
    /// are given up before it can.
    pub fn begin(&self, sink: &SinkName, work: Vec<(WorkId, u32)>) -> Answer<()> {
        let sink = sink.clone();
        self.change(move |writer| {
            let number = writer.sink_number(&sink)?;
            for (work, times) in work {
                writer.require_lease(number, &sink, work)?;
                let sql = "UPDATE delivery SET begun = max(begun, ?3), last_error = coalesce(last_error, '') \
                           WHERE work = ?1 AND sink = ?2 AND state = 'pending'";
                writer.exec(sql, (work.0, number, times))?;
            }
            Ok(())
        })
    }

    /// Settles deliveries (none is fine), together with the sink's own state if there is one, in one commit (L3, L6). One that
    /// became dead while it was leased, because its work was quarantined, stays dead. One whose body was fetched again while
    /// it was leased, and came back as another, is settled as it was leased: the sink has what it was given. The leases may
    /// be dropped when it resolves.
    pub fn settle(
        &self,
        sink: &SinkName,
        settlements: Vec<Settlement>,
        state: Option<Vec<u8>>,
    ) -> Answer<()> {
        let sink = sink.clone();
        self.change(move |writer| {
            let number = writer.sink_number(&sink)?;
            for settlement in &settlements {
                writer.settle(number, &sink, settlement)?;
            }
            if let Some(state) = state {
                writer.exec("UPDATE sink SET state = ?2 WHERE id = ?1", (number, state))?;
            }
            Ok(())
        })
    }

    /// Gives leases back, each with the reason, in one commit. They may be dropped when it resolves.
    pub fn defer(&self, sink: &SinkName, deferrals: Vec<Deferral>) -> Answer<()> {
        let sink = sink.clone();
        self.change(move |writer| {
            let number = writer.sink_number(&sink)?;
            let now = writer.now();
            for deferral in &deferrals {
                writer.require_lease(number, &sink, deferral.work)?;
                // A delivery that waits for its body goes on waiting for it.
                let sql = "UPDATE delivery SET attempts = attempts + ?3, last_error = ?4, \
                           not_before = CASE not_before WHEN ?5 THEN not_before ELSE ?6 END, \
                           begun = ?7 \
                           WHERE work = ?1 AND sink = ?2 AND state = 'pending'";
                // A time that has come is none to wait for: noted down, it would become one with a clock that is set back.
                let until = deferral.not_before.filter(|at| *at > now).map_or(0, |at| micros(at).max(1));
                writer.exec(
                    sql,
                    params![
                        deferral.work.0,
                        number,
                        deferral.not_before.is_some(),
                        shorten(&deferral.error),
                        HELD,
                        until,
                        deferral.begun,
                    ],
                )?;
            }
            writer.after.wake_sinks.insert(Some(number));
            Ok(())
        })
    }

    /// Counts a panic while the work was handled; the third one quarantines it (L11). Gives whether it did.
    pub fn panicked(&self, work: WorkId, message: String) -> Answer<bool> {
        self.change(move |writer| {
            let sql = "UPDATE blob SET panics = panics + 1, last_error = ?2 WHERE work = ?1 RETURNING panics, state";
            let row = writer.first(sql, (work.0, shorten(&message)), |row| {
                Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?))
            })?;
            let (panics, state) = row.ok_or(Unreadable::NotSpooled { work })?;
            match state.as_str() {
                "spooled" if panics >= PANICS => {
                    writer.quarantine(work, QUARANTINED, &message)?;
                    Ok(true)
                }
                "listed" if panics >= PANICS => writer.quarantine_unfetched(work, &message),
                _ => Ok(false),
            }
        })
    }
}

/// The `not_before` of deliveries whose body is being fetched again.
pub(crate) const HELD: i64 = i64::MAX;

impl Writer {
    pub(crate) fn require_lease(&self, number: i64, sink: &SinkName, work: WorkId) -> Result<()> {
        if self.leases.is_claimed(Leased::Delivery(number, work)) {
            Ok(())
        } else {
            Err(LedgerError::NotLeased { work, sink: sink.clone() })
        }
    }

    pub(crate) fn lease(&mut self, sink: &SinkName, want: Want) -> Result<Vec<Lease>> {
        let number = self.sink_number(sink)?;
        let now = self.now_micros();
        // What is leased is still in the lists: that many more have to be looked at.
        let limit = (want.works + self.leases.of_sink(number)) as i64;
        let mut waited: BTreeMap<i64, Vec<(i64, WorkId)>> = BTreeMap::new();
        let rows = self.all(
            "SELECT tenant, seq, work FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before > 0 \
             AND not_before <= ?2 ORDER BY not_before LIMIT ?3",
            (number, now, limit),
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, WorkId(row.get(2)?))),
        )?;
        for (tenant, seq, work) in rows {
            waited.entry(tenant).or_default().push((seq, work));
        }
        // The tenant whose turn it is, and those that follow.
        let tenants = self.tenants_with_work(number, &waited)?;
        let after = self.turns.get(&number).copied().unwrap_or(i64::MIN);
        let (before, behind): (Vec<_>, Vec<_>) = tenants.into_iter().partition(|tenant| *tenant <= after);
        let mut queue: VecDeque<(i64, Option<VecDeque<WorkId>>)> =
            behind.into_iter().chain(before).map(|tenant| (tenant, None)).collect();
        let mut leases = Vec::new();
        let (mut records, mut bytes) = (0, 0);
        while leases.len() < want.works
            && (leases.is_empty() || (records < want.records && bytes < want.bytes))
            && let Some((tenant, list)) = queue.pop_front()
        {
            let mut list = match list {
                Some(list) => list,
                None => self.due_of(number, tenant, waited.remove(&tenant).unwrap_or_default(), limit)?,
            };
            let Some(work) = list.pop_front() else { continue };
            queue.push_back((tenant, Some(list)));
            self.turns.insert(number, tenant);
            let claim = self.leases.claim(Leased::Delivery(number, work));
            debug_assert!(claim.is_some(), "L5: {work} was leased while it was free");
            if let Some(claim) = claim {
                let lease = self.make_lease(number, work, claim, false)?;
                records += u64::from(lease.work.records - lease.work.duplicates);
                bytes += lease.work.bytes;
                leases.push(lease);
            }
        }
        if queue.is_empty() && leases.len() < want.works {
            let sql = "SELECT min(not_before) FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before > 0 \
                       AND not_before > ?2 AND not_before < ?3";
            let next = self.first(sql, (number, now.max(0), HELD), |row| row.get::<_, Option<i64>>(0))?;
            self.shared.sink(sink).drained(next.flatten().map(time));
        }
        Ok(leases)
    }

    fn tenants_with_work(&self, sink: i64, waited: &BTreeMap<i64, Vec<(i64, WorkId)>>) -> Result<Vec<i64>> {
        let mut tenants: Vec<i64> = waited.keys().copied().collect();
        let mut last = i64::MIN;
        let sql = "SELECT tenant FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before = 0 \
                   AND tenant > ?2 ORDER BY tenant LIMIT 1";
        while let Some(tenant) = self.first(sql, (sink, last), |row| row.get(0))? {
            tenants.push(tenant);
            last = tenant;
        }
        tenants.sort_unstable();
        tenants.dedup();
        Ok(tenants)
    }

    /// What is due of a tenant and not leased, in the order of `Seq`.
    fn due_of(
        &self,
        sink: i64,
        tenant: i64,
        waited: Vec<(i64, WorkId)>,
        limit: i64,
    ) -> Result<VecDeque<WorkId>> {
        let mut due = self.all(
            "SELECT seq, work FROM delivery WHERE sink = ?1 AND tenant = ?2 AND state = 'pending' \
             AND not_before = 0 ORDER BY seq LIMIT ?3",
            (sink, tenant, limit),
            |row| Ok((row.get::<_, i64>(0)?, WorkId(row.get(1)?))),
        )?;
        due.extend(waited);
        due.sort_unstable();
        due.retain(|(_, work)| !self.leases.is_claimed(Leased::Delivery(sink, *work)));
        Ok(due.into_iter().map(|(_, work)| work).collect())
    }

    fn lease_these(&mut self, sink: &SinkName, works: &[WorkId]) -> Result<Vec<Lease>> {
        let number = self.sink_number(sink)?;
        let mut leases = Vec::with_capacity(works.len());
        let mut seen = HashSet::new();
        for work in works.iter().copied().filter(|work| seen.insert(*work)) {
            let sql =
                "SELECT delivery.state, delivery.not_before FROM delivery WHERE work = ?1 AND sink = ?2";
            let row = self
                .first(sql, (work.0, number), |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
            match row {
                Some((state, not_before)) if state == "pending" => {
                    let claim = self.leases.claim(Leased::Delivery(number, work));
                    let claim =
                        claim.ok_or_else(|| LedgerError::AlreadyLeased { work, sink: sink.clone() })?;
                    leases.push(self.make_lease(number, work, claim, not_before == HELD)?);
                }
                // A row that was folded was settled long ago.
                Some(_) | None => {}
            }
        }
        Ok(leases)
    }

    fn make_lease(&self, sink: i64, work: WorkId, claim: Claim, awaits_body: bool) -> Result<Lease> {
        let sql = format!(
            "SELECT blob.seq, content_id, records, duplicates, bytes, delivery.attempts, begun, restore, {FEED_COLUMNS}, \
             sha256 FROM delivery JOIN blob ON blob.work = delivery.work JOIN feed ON feed.id = blob.feed \
             JOIN tenant ON tenant.id = blob.tenant WHERE delivery.work = ?1 AND sink = ?2"
        );
        let row = self.first(&sql, (work.0, sink), |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                (row.get::<_, u32>(2)?, row.get::<_, u32>(3)?, row.get::<_, i64>(4)?),
                row.get::<_, u32>(5)?,
                row.get::<_, i64>(6)?,
                row.get::<_, Option<i64>>(7)?,
                (row.get::<_, String>(8)?, row.get::<_, String>(9)?),
                body_id(row.get(10)?),
            ))
        })?;
        let Some((seq, id, (records, duplicates, bytes), attempts, begun, restore, feed, body)) = row else {
            return Err(Unreadable::NotSpooled { work }.into());
        };
        let work = Work {
            id: work,
            seq: Seq(seq as u64),
            body,
            feed: feed_key(&feed.0, &feed.1)?,
            content_id: content_id(&id)?,
            restored: restore.is_some(),
            records,
            duplicates,
            bytes: bytes as u64,
        };
        let begun = u32::try_from(begun).unwrap_or(u32::MAX);
        Ok(Lease { work: Arc::new(work), attempts, begun, awaits_body, claim })
    }

    fn settle(&mut self, number: i64, sink: &SinkName, settlement: &Settlement) -> Result<()> {
        let work = settlement.work;
        let sql = "SELECT delivery.state, due, sha256 FROM delivery JOIN blob ON blob.work = delivery.work \
                   WHERE delivery.work = ?1 AND sink = ?2";
        let delivery = self.first(sql, (work.0, number), |row| {
            Ok(Delivery { state: row.get(0)?, due: row.get(1)?, body: body_id(row.get(2)?) })
        })?;
        let delivery = delivery.ok_or_else(|| LedgerError::UnknownDelivery { work, sink: sink.clone() })?;
        if delivery.state == "dead" && self.leases.is_claimed(Leased::Delivery(number, work)) {
            // Another sink could not handle it, or its body was lost: dead is final (L6), and no mistake of this sink.
            tracing::warn!(%work, %sink, "a delivery became dead while it was under way; it stays dead");
            return Ok(());
        }
        if delivery.state != "pending" {
            return Err(LedgerError::AlreadySettled { work, sink: sink.clone(), state: delivery.state });
        }
        self.require_lease(number, sink, work)?;
        let dead = settlement.dead.len() as u64;
        let given = u64::from(settlement.delivered) + u64::from(settlement.filtered) + dead;
        let replaced = BodyId::differ(settlement.body, delivery.body);
        if replaced {
            tracing::warn!(
                %work, %sink,
                "delivered before its body was fetched again and came back as another; that one is not delivered once more"
            );
        } else if given != u64::from(delivery.due) {
            let due = u64::from(delivery.due);
            return Err(LedgerError::SumMismatch { work, sink: sink.clone(), due, given });
        }
        if dead > 0 {
            let mut letters: Vec<_> = settlement
                .dead
                .iter()
                .map(|dead| Dead { position: dead.position, reason: &dead.reason })
                .collect();
            letters.sort_by_key(|letter| letter.position);
            if replaced {
                self.note_dead(work, number, &letters)?;
            } else {
                self.keep_dead(work, Some(number), &letters)?;
            }
        }
        let sql = "UPDATE delivery SET state = 'delivered', delivered = ?3, filtered = ?4, dead = ?5, resent = ?6, \
                   settled_at = ?7, due = ?8, not_before = 0, last_error = NULL \
                   WHERE work = ?1 AND sink = ?2 AND state = 'pending'";
        let changed = self.exec(
            sql,
            params![
                work.0,
                number,
                settlement.delivered,
                settlement.filtered,
                dead as i64,
                settlement.resent,
                self.now_micros(),
                given as i64,
            ],
        )?;
        debug_assert_eq!(changed, 1, "L6: a final delivery was settled");
        self.settle_when_done(work)?;
        Ok(())
    }
}

/// The body that a row's hash is of.
fn body_id(sha256: Option<Vec<u8>>) -> Option<BodyId> {
    sha256.and_then(|hash| BodyId::of_sha256(&hash))
}
