//! Room in the spool: who may fetch, and how space comes back.
//!
//! The bound counts the bytes of segment files, dead bytes included. A tenant may fetch while there is more room than
//! what the other tenants are still owed of half of their equal share (L11), so that a tenant whose records nobody takes
//! leaves the others their half. Claimed blobs count with the usual length of a body, because their own is not known.
//!
//! When there is no room, it is made: deliveries of optional sinks without a live lease are given up, the oldest first
//! (`spool_full`), and the live bodies of segments that are mostly dead are moved to the current one. What was never tried
//! goes first: of the rest a part may have arrived, which a retry sends again.

use std::io::{BufReader, ErrorKind};

use crate::{
    WorkId,
    error::{LedgerError, Result},
    leases::Leased,
    spool::{Place, reader::ReadFailure, segment},
    writer::Writer,
};

/// The reason of a delivery that had to make room.
pub const SPOOL_FULL: &str = "spool_full";

/// Restores take this part of the spool at most: a half.
pub(crate) const RESTORES: u64 = 2;

/// How full the spool is at least when bodies are compressed, in parts of its bound and in bytes: a quarter of a gigabyte
/// is hundreds of bodies more than sinks that keep up ever leave.
const PACK_FROM: (u64, u64) = (8, 256 << 20);

/// Whether a delivery may have been tried: records of it may have arrived, with or without a receipt. Each one that was given
/// back has an error, if only an empty one.
const TRIED: &str = "(begun > 0 OR attempts > 0 OR last_error IS NOT NULL)";

/// Deliveries of a sink that are looked at in one go when room is made.
const GIVEN_UP_AT_ONCE: i64 = 256;

/// Bytes that are moved in one go.
const MOVED_AT_ONCE: u64 = 16 << 20;

/// Bytes of these that are read at once.
const READ_AT_ONCE: usize = 128 << 10;

impl Writer {
    /// How many more blobs the tenant may fetch now.
    pub(crate) fn room_for(&self, tenant: i64) -> Result<usize> {
        let max = self.shared.settings.spool_max_bytes;
        let disk = self.number("SELECT coalesce(sum(length), 0) FROM segment", [])? as u64;
        self.shared.codecs.set_packing(disk > (max / PACK_FROM.0).min(PACK_FROM.1));
        let claimed = self.leases.fetches() as u64 * self.usual_body;
        let free = max.saturating_sub(disk).saturating_sub(claimed);
        let active = self.all(
            "SELECT id, spooled_bytes FROM tenant WHERE spooled_bytes > 0 OR id = ?1 \
             OR EXISTS (SELECT 1 FROM blob WHERE blob.tenant = tenant.id AND state = 'listed' AND not_before = 0) \
             OR EXISTS (SELECT 1 FROM blob WHERE blob.tenant = tenant.id AND state = 'listed' AND not_before > 0)",
            [tenant],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.max(0) as u64)),
        )?;
        let half_share = max / active.len().max(1) as u64 / 2;
        let owed: u64 = active
            .iter()
            .filter(|(id, _)| *id != tenant)
            .map(|(_, used)| half_share.saturating_sub(*used))
            .sum();
        let own = active.iter().find(|(id, _)| *id == tenant).map_or(0, |(_, used)| *used);
        let room = free.saturating_sub(owed).max(free.min(half_share.saturating_sub(own)));
        Ok(usize::try_from(room.div_ceil(self.usual_body)).unwrap_or(usize::MAX))
    }

    /// Notes whether a tenant that wants to fetch has room.
    pub(crate) fn note_room(&mut self, tenant: i64, room: bool) {
        let changed = if room { self.paused.remove(&tenant) } else { self.paused.insert(tenant) };
        if changed {
            let paused = !self.paused.is_empty();
            self.shared.paused.send_if_modified(|old| std::mem::replace(old, paused) != paused);
            if !room {
                tracing::warn!(
                    limit = self.shared.settings.spool_max_bytes,
                    "the spool is full: fetching pauses until the sinks have caught up; the service keeps blobs for 7 days"
                );
            }
        }
    }

    /// Looks again whether those who pause still have to, among them tenants that do not ask any more.
    pub(crate) fn review_pauses(&mut self) -> Result<()> {
        for tenant in self.paused.clone() {
            if self.room_for(tenant)? > 0 {
                self.note_room(tenant, true);
            }
        }
        Ok(())
    }

    /// Makes room after a claim found none.
    pub(crate) fn make_room(&mut self) -> Result<()> {
        // With a small spool the current segment may be all that there is.
        let given_back = self.give_back_current()?;
        let given_up = self.give_up_optional()?;
        let moved = self.relocate(0.05)?;
        self.after.wake_fetches |= given_back || given_up > 0 || moved > 0;
        Ok(())
    }

    /// Gives up deliveries that only an optional sink still wants. Returns how many.
    fn give_up_optional(&mut self) -> Result<usize> {
        let optional = self.all("SELECT id, name FROM sink WHERE required = 0", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        // The oldest eighth at most: room for what comes next, not all that the sink has.
        let enough = (self.shared.settings.spool_max_bytes / 8) as i64;
        let (mut count, mut freed) = (0, 0);
        for (sink, name) in optional {
            let read = |row: &rusqlite::Row<'_>| Ok((WorkId(row.get(0)?), row.get::<_, i64>(1)?));
            let due = |tried: &str| {
                self.all(
                    &format!(
                        "SELECT work, due FROM delivery WHERE sink = ?1 AND state = 'pending' AND not_before = 0 \
                         AND {tried} ORDER BY tenant, seq LIMIT ?2"
                    ),
                    (sink, GIVEN_UP_AT_ONCE),
                    read,
                )
            };
            let mut untried = due(&format!("NOT {TRIED}"))?;
            // Looked for among many that were not, they would take long to find.
            let few = (untried.len() as i64) < GIVEN_UP_AT_ONCE;
            let mut tried = if few { due(TRIED)? } else { Vec::new() };
            tried.extend(self.all(
                "SELECT work, due FROM delivery WHERE sink = ?1 AND state = 'pending' \
                 AND not_before > 0 AND not_before < ?3 ORDER BY not_before LIMIT ?2",
                (sink, GIVEN_UP_AT_ONCE, i64::MAX),
                read,
            )?);
            untried.sort_unstable();
            tried.sort_unstable();
            let before = count;
            for (work, records) in untried.into_iter().chain(tried) {
                // A retry that was made of kept bytes is small, and would lose them.
                let wanted = "SELECT EXISTS (SELECT 1 FROM delivery JOIN sink ON sink.id = delivery.sink \
                              WHERE work = ?1 AND delivery.state = 'pending' AND required = 1) \
                              OR EXISTS (SELECT 1 FROM dead_letter WHERE retry = ?1 AND done_at IS NULL AND size > 0)";
                if freed >= enough {
                    break;
                }
                if self.leases.is_claimed(Leased::Delivery(sink, work)) || self.number(wanted, [work.0])? != 0
                {
                    continue;
                }
                let now = self.now_micros();
                let sql = "UPDATE delivery SET state = 'dead', dead = due, reason = ?3, settled_at = ?4, not_before = 0 \
                           WHERE work = ?1 AND sink = ?2";
                self.exec(sql, (work.0, sink, SPOOL_FULL, now))?;
                self.note_dead_delivery(work, sink, records, SPOOL_FULL)?;
                count += 1;
                let sql = "SELECT stored FROM blob WHERE work = ?1";
                let stored = self.number(sql, [work.0])?;
                if self.settle_when_done(work)? {
                    freed += stored;
                }
            }
            if count > before {
                tracing::error!(
                    sink = name,
                    deliveries = count - before,
                    "the spool is full: deliveries of an optional sink were given up; \
                     `mailtrail dead-letters retry` fetches them again while the service has them"
                );
            }
        }
        Ok(count)
    }

    /// Notes of the deliveries of a retry that records may be there already, when they may be of a work that was tried
    /// before it became dead: all that is sent now may be sent again then, and counts as that at most.
    pub(crate) fn inherit_begun(&self, retry: WorkId, origin: i64) -> Result<()> {
        let sql = format!(
            "UPDATE delivery SET begun = 1 WHERE work = ?1 AND state = 'pending' AND begun = 0 AND sink IN \
             (SELECT sink FROM delivery WHERE work = ?2 AND state = 'dead' AND {TRIED})"
        );
        self.exec(&sql, (retry.0, origin))?;
        Ok(())
    }

    /// Moves live bodies out of the segment with the largest share of dead bytes, if that is more than `least`.
    /// Returns how many were moved.
    pub(crate) fn relocate(&mut self, least: f64) -> Result<usize> {
        let current = self.spool.current().map_or(-1, |(number, _)| number as i64);
        let sql = "SELECT number FROM segment \
                   WHERE number <> ?1 AND live_bytes < (length - ?3) * (1.0 - ?2) \
                   ORDER BY live_bytes * 1.0 / length LIMIT 1";
        let header = segment::HEADER as i64;
        let Some(number) = self.first(sql, (current, least, header), |row| row.get::<_, i64>(0))? else {
            return Ok(0);
        };
        let bodies = self.all(
            "SELECT work, offset, stored FROM blob WHERE segment = ?1 ORDER BY offset",
            [number],
            |row| Ok((WorkId(row.get(0)?), row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
        )?;
        let (mut moved, mut bytes) = (0, 0);
        for (work, offset, stored) in bodies {
            if bytes >= MOVED_AT_ONCE {
                break;
            }
            let place = Place { segment: number as u64, offset: offset as u64, stored: stored as u64 };
            let mut reader = match self.shared.spool.raw(place) {
                Ok(reader) => BufReader::with_capacity(READ_AT_ONCE, reader),
                Err(ReadFailure::Io(source)) => return Err(LedgerError::io("reading the spool")(source)),
                Err(ReadFailure::NoFile | ReadFailure::Corrupt { .. }) => {
                    self.body_lost(work, place)?;
                    continue;
                }
            };
            let before = self.spool.mark();
            let new = match self.spool.append(&mut reader, place.stored) {
                Ok(new) => new,
                // The segment is shorter than it was, or the disk cannot read all of it.
                Err(LedgerError::Io { source, .. })
                    if matches!(source.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
                {
                    self.spool.rewind(&before);
                    self.body_lost(work, place)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.account_body(new)?;
            let sql = "UPDATE blob SET segment = ?2, offset = ?3 WHERE work = ?1";
            self.exec(sql, (work.0, new.segment as i64, new.offset as i64))?;
            self.forget_body(number, stored)?;
            moved += 1;
            bytes += place.stored;
        }
        Ok(moved)
    }

    /// Adds a body to its segment's account.
    pub(crate) fn account_body(&self, place: Place) -> Result<()> {
        let sql = "INSERT INTO segment (number, length, live_bytes, live_bodies) VALUES (?1, ?2, ?3, 1) \
                   ON CONFLICT (number) DO UPDATE SET length = excluded.length, \
                   live_bytes = live_bytes + excluded.live_bytes, live_bodies = live_bodies + 1";
        let end = (place.offset + place.stored) as i64;
        self.exec(sql, (place.segment as i64, end, place.stored as i64))?;
        Ok(())
    }
}
