//! What is given up when the spool is full: works that only optional sinks still want, the oldest first.
//!
//! Only a whole work makes room. So those that a single sink still wants go first, and of the others all that is pending
//! goes at once: a sink that keeps up gives up nothing for another one's sake as long as that one has enough to give, and
//! never without making room. Of both, what was never tried goes first: of the rest a part may have arrived, which a retry
//! sends again.

use std::collections::BTreeMap;

use crate::{WorkId, error::Result, leases::Leased, writer::Writer};

/// The reason of a delivery that had to make room.
pub const SPOOL_FULL: &str = "spool_full";

/// Whether a delivery may have been tried: records of it may have arrived, with or without a receipt. Each one that was begun
/// or given back has an error, if only an empty one.
const TRIED: &str = "(begun > 0 OR attempts > 0 OR last_error IS NOT NULL)";

/// Deliveries of a sink that are looked at in one go when room is made.
const GIVEN_UP_AT_ONCE: i64 = 256;

/// All that is pending of a work which can be given up.
struct Optional {
    work: WorkId,
    tried: bool,
    /// The bytes that it takes.
    stored: i64,
    /// Sinks, with the records that are due for each.
    deliveries: Vec<(i64, i64)>,
}

impl Writer {
    /// Gives up works that only optional sinks still want. Returns how many deliveries these were.
    pub(crate) fn give_up_optional(&mut self) -> Result<usize> {
        let names = self.all("SELECT id, name FROM sink WHERE required = 0", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        // The oldest eighth at most: room for what comes next, not all that the sinks have.
        let enough = (self.shared.settings.spool_max_bytes / 8) as i64;
        let mut candidates: BTreeMap<WorkId, bool> = BTreeMap::new();
        for (sink, _) in &names {
            for (work, tried) in self.oldest_of(*sink)? {
                *candidates.entry(work).or_default() |= tried;
            }
        }
        let mut candidates: Vec<_> = candidates.into_iter().map(|(work, tried)| (tried, work)).collect();
        candidates.sort_unstable();
        let mut freed = 0;
        let mut given_up: BTreeMap<i64, usize> = BTreeMap::new();
        let mut wanted_by_several = Vec::new();
        for (_, work) in candidates {
            if freed >= enough {
                break;
            }
            match self.if_optional(work)? {
                Some(optional) if optional.deliveries.len() > 1 => wanted_by_several.push(optional),
                Some(optional) => freed += self.give_up(&optional, &mut given_up)?,
                None => {}
            }
        }
        wanted_by_several.sort_unstable_by_key(|optional| (optional.tried, optional.work));
        for optional in wanted_by_several {
            if freed >= enough {
                break;
            }
            freed += self.give_up(&optional, &mut given_up)?;
        }
        for (sink, name) in names {
            if let Some(deliveries) = given_up.get(&sink) {
                tracing::error!(
                    sink = name,
                    deliveries,
                    "the spool is full: deliveries of an optional sink were given up; \
                     `mailtrail dead-letters retry` fetches them again while the service has them"
                );
            }
        }
        Ok(given_up.values().sum())
    }

    /// The oldest of what is pending for a sink, and whether it was tried.
    fn oldest_of(&self, sink: i64) -> Result<Vec<(WorkId, bool)>> {
        let due = |tried: bool| {
            let not = if tried { "" } else { "NOT" };
            self.all(
                &format!(
                    "SELECT work FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before = 0 \
                     AND {not} {TRIED} ORDER BY tenant, seq LIMIT ?2"
                ),
                (sink, GIVEN_UP_AT_ONCE),
                |row| Ok((WorkId(row.get(0)?), tried)),
            )
        };
        let mut oldest = due(false)?;
        // Looked for among many that were not, they would take long to find.
        if (oldest.len() as i64) < GIVEN_UP_AT_ONCE {
            oldest.extend(due(true)?);
        }
        oldest.extend(self.all(
            "SELECT work FROM delivery WHERE sink = ?1 AND state = 'pending' \
             AND not_before > 0 AND not_before < ?3 ORDER BY not_before LIMIT ?2",
            (sink, GIVEN_UP_AT_ONCE, i64::MAX),
            |row| Ok((WorkId(row.get(0)?), true)),
        )?);
        Ok(oldest)
    }

    /// All that is pending of the work, unless somebody has to have it, or has it just now.
    fn if_optional(&self, work: WorkId) -> Result<Option<Optional>> {
        let sql = format!(
            "SELECT sink, due, required, {TRIED} FROM delivery JOIN sink ON sink.id = delivery.sink \
             WHERE work = ?1 AND delivery.state = 'pending'"
        );
        let pending = self.all(&sql, [work.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?, row.get::<_, bool>(3)?))
        })?;
        let stays = |sink: i64, required| required || self.leases.is_claimed(Leased::Delivery(sink, work));
        if pending.iter().any(|(sink, _, required, _)| stays(*sink, *required)) {
            return Ok(None);
        }
        // A retry that was made of kept bytes is small, and would lose them.
        let sql = "SELECT stored FROM blob WHERE work = ?1 AND state = 'spooled' \
                   AND NOT EXISTS (SELECT 1 FROM dead_letter WHERE retry = ?1 AND done_at IS NULL AND size > 0)";
        let stored = self.first(sql, [work.0], |row| row.get(0))?;
        Ok(stored.map(|stored| Optional {
            work,
            tried: pending.iter().any(|(.., tried)| *tried),
            stored,
            deliveries: pending.into_iter().map(|(sink, due, ..)| (sink, due)).collect(),
        }))
    }

    /// Gives the work up, and counts its deliveries. Gives the bytes that come free.
    fn give_up(&mut self, optional: &Optional, given_up: &mut BTreeMap<i64, usize>) -> Result<i64> {
        let (work, now) = (optional.work, self.now_micros());
        for (sink, records) in &optional.deliveries {
            let sql = "UPDATE delivery SET state = 'dead', dead = due, reason = ?3, settled_at = ?4, not_before = 0 \
                       WHERE work = ?1 AND sink = ?2";
            self.exec(sql, (work.0, sink, SPOOL_FULL, now))?;
            self.note_dead_delivery(work, *sink, *records, SPOOL_FULL)?;
            *given_up.entry(*sink).or_default() += 1;
        }
        self.settle_when_done(work)?;
        Ok(optional.stored)
    }

    /// Notes of the deliveries of a retry that records may be there already, when they may be of a work among its `own` that
    /// was tried before it became dead: all that is sent now may be sent again then, and counts as that at most.
    pub(crate) fn inherit_begun(&self, retry: WorkId, own: &[WorkId]) -> Result<()> {
        let sql = format!(
            "UPDATE delivery SET begun = 1 WHERE work = ?1 AND state = 'pending' AND begun = 0 AND sink IN \
             (SELECT sink FROM delivery WHERE work = ?2 AND state = 'dead' AND {TRIED})"
        );
        for earlier in own.iter().filter(|work| **work != retry) {
            self.exec(&sql, (retry.0, earlier.0))?;
        }
        Ok(())
    }
}
