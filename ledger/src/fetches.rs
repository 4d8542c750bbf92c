//! Fetching: which blobs are due, who has them, and what became of an attempt.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use rusqlite::params;
use schemas::{BlobKey, GapReason, Seq, TenantId};

use crate::{
    WorkId,
    clock::{micros, time},
    error::{LedgerError, Result},
    handle::{Answer, Ledger},
    leases::{Claim, Leased},
    work::{FEED_COLUMNS, content_id, feed_key},
    writer::Writer,
};

/// The longest message of an error that is kept.
const ERROR_BYTES: usize = 1000;

/// One fetcher's turn at one blob. Dropping it makes the blob due again.
#[derive(Debug)]
pub struct FetchLease {
    /// The ledger's own number of the blob.
    pub work: WorkId,
    /// Which blob.
    pub blob: BlobKey,
    /// When the API made it available.
    pub created: DateTime<Utc>,
    /// When the API forgets it.
    pub expires: DateTime<Utc>,
    /// How often it was tried before.
    pub attempts: u32,
    /// Releases the blob when dropped.
    pub claim: Claim,
}

impl Ledger {
    /// Blobs of the tenant that are due to be fetched, at most `want`: in turn one whose wait has ended, the freshest
    /// and the one closest to its expiry. Each is leased: nobody else gets it meanwhile. Empty while the spool is full
    /// or no sink is known.
    pub fn claim_fetches(&self, tenant: TenantId, want: usize) -> Answer<Vec<FetchLease>> {
        self.look(move |writer| writer.claim_fetches(tenant, want))
    }

    /// Resolves when [`Ledger::claim_fetches`] may have something, at the latest after `at_most`.
    pub async fn fetches_may_be_due(&self, tenant: TenantId, at_most: Duration) {
        self.shared.fetches(tenant).wait(&self.shared.clock, at_most).await;
    }

    /// Records a failed attempt: the blob is due again at `not_before`.
    pub fn fetch_failed(&self, work: WorkId, not_before: DateTime<Utc>, error: String) -> Answer<()> {
        self.change(move |writer| {
            writer.require_claim(work)?;
            let sql = "UPDATE blob SET attempts = attempts + 1, not_before = ?2, last_error = ?3 \
                       WHERE work = ?1 AND state = 'listed'";
            writer.exec(sql, params![work.0, micros(not_before).max(1), shorten(&error)])?;
            writer.after.wake_fetches = true;
            Ok(())
        })
    }

    /// Records that the blob can no longer be had. Gives the number that it took; `None` when nobody misses it, because
    /// it was fetched again and all of its records were settled meanwhile, or because nobody wants it any more.
    pub fn gap(&self, work: WorkId, reason: GapReason) -> Answer<Option<Seq>> {
        self.change(move |writer| {
            writer.require_claim(work)?;
            writer.record_gap(work, reason)
        })
    }
}

/// A text that is short enough to be kept in a row.
pub(crate) fn shorten(text: &str) -> &str {
    let mut end = text.len().min(ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Writer {
    pub(crate) fn require_claim(&self, work: WorkId) -> Result<()> {
        if self.leases.is_claimed(Leased::Fetch(work)) {
            Ok(())
        } else {
            Err(LedgerError::NotClaimed { work })
        }
    }

    pub(crate) fn claim_fetches(&mut self, tenant: TenantId, want: usize) -> Result<Vec<FetchLease>> {
        let now = self.now_micros();
        let sql = "SELECT id FROM tenant WHERE guid = ?1";
        let Some(tenant_row) = self.first(sql, [tenant.to_string()], |row| row.get::<_, i64>(0))? else {
            self.shared.fetches(tenant).drained(None);
            return Ok(Vec::new());
        };
        if self.number("SELECT EXISTS (SELECT 1 FROM sink WHERE configured = 1)", [])? == 0 {
            self.shared.fetches(tenant).drained(None);
            return Ok(Vec::new());
        }
        // Blobs that are claimed are still in the lists: that many more have to be looked at.
        let limit = (want + self.leases.fetches()) as i64;
        let column = |sql: &str, with_now: bool| {
            let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
            if with_now {
                self.all(sql, (tenant_row, limit, now), read)
            } else {
                self.all(sql, (tenant_row, limit), read)
            }
        };
        let waited = column(
            "SELECT work FROM blob WHERE tenant = ?1 AND state = 'listed' AND not_before > 0 AND not_before <= ?3 \
             ORDER BY not_before LIMIT ?2",
            true,
        )?;
        let fresh = column(
            "SELECT work FROM blob WHERE tenant = ?1 AND state = 'listed' AND not_before = 0 \
             ORDER BY created DESC LIMIT ?2",
            false,
        )?;
        let expiring = column(
            "SELECT work FROM blob WHERE tenant = ?1 AND state = 'listed' AND not_before = 0 \
             ORDER BY expires LIMIT ?2",
            false,
        )?;
        let mut seen = HashSet::new();
        let mut due: Vec<i64> = Vec::new();
        for turn in 0..limit as usize {
            due.extend([&waited, &fresh, &expiring].into_iter().filter_map(|list| list.get(turn)).filter(
                |work| !self.leases.is_claimed(Leased::Fetch(WorkId(**work))) && seen.insert(**work),
            ));
        }
        if due.is_empty() {
            self.note_room(tenant_row, true);
        } else {
            let room = self.room_for(tenant_row)?;
            self.note_room(tenant_row, room > 0);
            self.wants_room |= room == 0;
            due.truncate(want.min(room));
        }
        let mut leases = Vec::with_capacity(due.len());
        for work in due {
            let work = WorkId(work);
            let Some(claim) = self.leases.claim(Leased::Fetch(work)) else { continue };
            leases.push(self.fetch_lease(work, claim)?);
        }
        if leases.len() < want {
            let sql = "SELECT min(not_before) FROM blob WHERE tenant = ?1 AND state = 'listed' AND not_before > 0 \
                       AND not_before > ?2";
            let next = self.first(sql, (tenant_row, now), |row| row.get::<_, Option<i64>>(0))?.flatten();
            self.shared.fetches(tenant).drained(next.map(time));
        }
        Ok(leases)
    }

    fn fetch_lease(&self, work: WorkId, claim: Claim) -> Result<FetchLease> {
        let sql = format!(
            "SELECT content_id, created, expires, attempts, {FEED_COLUMNS} FROM blob \
             JOIN feed ON feed.id = blob.feed JOIN tenant ON tenant.id = blob.tenant WHERE work = ?1"
        );
        let row = self.first(&sql, [work.0], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, u32>(3)?,
                row.get::<_, String>(4)?,
                row.get::<_, String>(5)?,
            ))
        })?;
        let Some((id, created, expires, attempts, guid, content_type)) = row else {
            return Err(LedgerError::NotClaimed { work });
        };
        Ok(FetchLease {
            work,
            blob: BlobKey { feed: feed_key(&guid, &content_type)?, content_id: content_id(&id)? },
            created: time(created),
            expires: time(expires),
            attempts,
            claim,
        })
    }

    /// Makes a listed blob a gap. If it was spooled before, and its body was damaged, what was pending of it is dead; when
    /// nothing was, it is settled and no gap. Nor is one that was given up while somebody fetched it.
    pub(crate) fn record_gap(&mut self, work: WorkId, reason: GapReason) -> Result<Option<Seq>> {
        if self.settle_unwanted(work)? {
            return Ok(None);
        }
        let now = self.now_micros();
        let sql = "SELECT tenant, seq FROM blob WHERE work = ?1 AND state = 'listed'";
        let row =
            self.first(sql, [work.0], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?)))?;
        let Some((tenant, seq)) = row else { return Ok(None) };
        let seq = match seq {
            Some(seq) => seq,
            None => self.take_seq(tenant)?,
        };
        let sql = "UPDATE blob SET state = 'gap', reason = ?2, ended_at = ?3, seq = ?4, not_before = 0 WHERE work = ?1";
        self.exec(sql, params![work.0, reason.as_str(), now, seq])?;
        let sql = "UPDATE delivery SET state = 'dead', dead = due, reason = ?2, settled_at = ?3, not_before = 0 \
                   WHERE work = ?1 AND state = 'pending'";
        self.exec(sql, (work.0, reason.as_str(), now))?;
        // A retry that cannot be had leaves the letters as unsent as they were.
        self.exec("UPDATE dead_letter SET retry = NULL WHERE retry = ?1 AND done_at IS NULL", [work.0])?;
        Ok(Some(Seq(seq as u64)))
    }
}
