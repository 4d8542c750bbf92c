//! Room in the spool: who may fetch, and how space comes back.
//!
//! The bound counts the bytes of segment files, dead bytes included. A tenant may fetch while there is more room than
//! what the other tenants are still owed of half of their equal share (L11), so that a tenant whose records nobody takes
//! leaves the others their half. Claimed blobs count with the usual length of a body, because their own is not known.
//!
//! When there is no room, it is made: deliveries of optional sinks are given up (`giving_up.rs`), and the live bodies of
//! segments that are mostly dead are moved to the current one.

use std::io::{BufReader, ErrorKind};

use crate::{
    WorkId,
    error::{LedgerError, Result},
    spool::{Place, reader::ReadFailure, segment},
    writer::Writer,
};

/// Restores take this part of the spool at most: a half.
pub(crate) const RESTORES: u64 = 2;

/// How full the spool is at least when bodies are compressed, in parts of its bound and in bytes: a quarter of a gigabyte
/// is hundreds of bodies more than sinks that keep up ever leave.
const PACK_FROM: (u64, u64) = (8, 256 << 20);

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
