//! One table: the ids of one partition in a file, found with one read.
//!
//! `hours-NNNN.table` (NNNN is the hour since 1970 modulo 2048) is a header of 512 bytes and then buckets of 512
//! bytes with 32 slots each. All numbers are big-endian.
//!
//! ```text
//! magic "mtidstab" · version u32 · mark of the ledger [8] · partition u16 · newest day u16 · buckets u64 · ids u64
//! · checkpoint of the last flush: journal u64, length u64 · crc32 of all that u32 · zeros
//! ```
//!
//! A slot lies in the bucket that its fingerprint calls home or, when that is full, in the next one with room. Slots
//! fill a bucket from its front and are never emptied, only replaced, so that a search ends at the first empty slot.
//!
//! Buckets are changed in place and need no checksum: a crash in the middle of a flush leaves some sectors old and
//! some new, and either is a valid state, because a table receives ids of committed blobs alone, and the journal,
//! which is kept until the flush is durable, brings the missing ones again. A damaged slot can make a repetition go
//! unnoticed; to make a record a false duplicate it would have to hit 72 bits of another fingerprint.

use super::disk::DiskFile;
use super::slot::{Horizon, Mark, Partition, SLOT_BYTES, Slot};
use super::{Checkpoint, Day, IdsError};

const MAGIC: &[u8; 8] = b"mtidstab";
const VERSION: u32 = 1;
const CRC_AT: usize = 56;
const SLOTS: u64 = 32;
/// Bytes of a bucket, and of the header: one sector of a disk.
pub(super) const BUCKET_BYTES: usize = SLOTS as usize * SLOT_BYTES;
/// Buckets that are read or written at once where ids lie close together.
const WIDE: u64 = 128;

/// What is known of a table without reading its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) partition: Partition,
    /// The newest day of an id in it: when that has expired, all have.
    pub(super) newest: Day,
    pub(super) buckets: u64,
    /// Ids in it, expired ones included; after a crash a few more or less, until it is rebuilt.
    pub(super) ids: u64,
    /// How far the ledger had committed when ids came in last.
    pub(super) flushed: Checkpoint,
}

impl Header {
    /// Bytes of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        (1 + self.buckets) * BUCKET_BYTES as u64
    }

    /// Reads and checks the header of a file, and whether the file is as long as it says.
    pub(super) fn read(file: &DiskFile, mark: Mark, partition: Partition) -> Result<Self, IdsError> {
        let damaged = |what| IdsError::Damaged { path: file.path().to_owned(), what };
        let mut bytes = [0; BUCKET_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let mut rest = &bytes[..CRC_AT + 4];
        if take(&mut rest) != *MAGIC {
            return Err(damaged("it is no table of ids"));
        }
        let version = u32::from_be_bytes(take(&mut rest));
        let marked = Mark(take(&mut rest));
        let numbered = u16::from_be_bytes(take(&mut rest));
        let newest = Day(u16::from_be_bytes(take(&mut rest)));
        let buckets = u64::from_be_bytes(take(&mut rest));
        let ids = u64::from_be_bytes(take(&mut rest));
        let journal = u64::from_be_bytes(take(&mut rest));
        let length = u64::from_be_bytes(take(&mut rest));
        if crc32fast::hash(&bytes[..CRC_AT]) != u32::from_be_bytes(take(&mut rest)) {
            return Err(damaged("the checksum of its header is wrong"));
        }
        if version != VERSION {
            return Err(IdsError::Newer { path: file.path().to_owned(), version });
        }
        if marked != mark {
            return Err(IdsError::Foreign {
                path: file.path().to_owned(),
                what: "it bears another ledger's mark",
            });
        }
        if numbered != partition.number() || buckets == 0 {
            return Err(damaged("its header contradicts its name"));
        }
        let header = Self { partition, newest, buckets, ids, flushed: Checkpoint { journal, length } };
        if file.len()? != header.file_bytes() {
            return Err(damaged("its length is not that of its buckets"));
        }
        Ok(header)
    }

    /// Writes the header to its place in the file.
    pub(super) fn write(&self, file: &DiskFile, mark: Mark) -> Result<(), IdsError> {
        let mut bytes = Vec::with_capacity(BUCKET_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&mark.0);
        bytes.extend_from_slice(&self.partition.number().to_be_bytes());
        bytes.extend_from_slice(&self.newest.0.to_be_bytes());
        for number in [self.buckets, self.ids, self.flushed.journal, self.flushed.length] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        debug_assert_eq!(bytes.len(), CRC_AT);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        bytes.resize(BUCKET_BYTES, 0);
        file.write_all_at(&bytes, 0)
    }
}

/// The next bytes of a header that is long enough for them.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, left) = rest.split_at(N);
    *rest = left;
    let mut bytes = [0; N];
    bytes.copy_from_slice(taken);
    bytes
}

/// Whether a table of so many buckets is too crowded for so many ids: beyond 70 % too many buckets overflow.
pub(super) fn is_crowded(buckets: u64, ids: u64) -> bool {
    ids * 10 > buckets * SLOTS * 7
}

/// The buckets that a new table for so many ids gets: half full, so that it grows by two fifths before the next one.
pub(super) fn buckets_for(ids: u64) -> u64 {
    ids.div_ceil(SLOTS / 2).max(1)
}

/// Looks for the id of `wanted`, expired or not. One read, unless its home is full.
pub(super) fn find(file: &DiskFile, buckets: u64, wanted: Slot) -> Result<Option<Slot>, IdsError> {
    let home = wanted.home(buckets);
    let mut bucket = [0; BUCKET_BYTES];
    for at in (home..buckets).chain(0..home) {
        file.read_exact_at(&mut bucket, offset(at))?;
        match search(&bucket, wanted) {
            Search::Found(_, slot) => return Ok(Some(slot)),
            Search::Ends(_) => return Ok(None),
            Search::GoesOn => {}
        }
    }
    Ok(None)
}

/// What a bucket says about an id.
enum Search {
    /// It is there, at this index.
    Found(usize, Slot),
    /// It is not in the table; here is an empty slot.
    Ends(usize),
    /// The bucket is full of others: it may be in the next one.
    GoesOn,
}

fn search(bucket: &[u8], wanted: Slot) -> Search {
    for (index, slot) in slots(bucket).enumerate() {
        if slot.is_empty() {
            return Search::Ends(index);
        }
        if slot.same_id(wanted) {
            return Search::Found(index, slot);
        }
    }
    Search::GoesOn
}

/// Gives every slot of a table from front to back, in sorted runs of neighbouring buckets.
pub(super) fn scan(
    file: &DiskFile,
    buckets: u64,
    mut take: impl FnMut(&[Slot]) -> Result<(), IdsError>,
) -> Result<(), IdsError> {
    let mut bytes = Vec::new();
    let mut run = Vec::new();
    for first in (0..buckets).step_by(WIDE as usize) {
        bytes.resize((buckets - first).min(WIDE) as usize * BUCKET_BYTES, 0);
        file.read_exact_at(&mut bytes, offset(first))?;
        run.clear();
        run.extend(slots(&bytes).filter(|slot| !slot.is_empty()));
        run.sort_unstable();
        take(&run)?;
    }
    Ok(())
}

/// What became of a slot that was put into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It took an empty slot.
    Added,
    /// It took the slot of an expired id, its own or another's.
    Replaced,
    /// The id was there, with an owner that still counts. At most its day was changed.
    Known,
    /// There is no room for it.
    Full,
}

/// Puts slots into a table through a window onto neighbouring buckets, so that slots that come in order cost few
/// reads and writes. [`Writer::finish`] writes what is left; nothing is durable before the file is synced.
pub(super) struct Writer<'a> {
    file: &'a DiskFile,
    buckets: u64,
    horizon: Horizon,
    /// Buckets in the window at most.
    width: u64,
    first: u64,
    window: Vec<u8>,
    /// The first and last bucket of the window that were changed, relative to `first`.
    changed: Option<(u64, u64)>,
}

impl<'a> Writer<'a> {
    /// A writer that is to receive about `expected` slots, in order.
    pub(super) fn new(file: &'a DiskFile, buckets: u64, expected: u64, horizon: Horizon) -> Self {
        // Where touched buckets lie far apart, reading what is between them costs more than another call.
        let width = if buckets / expected.max(1) < WIDE / 8 { WIDE } else { 1 };
        Self { file, buckets, horizon, width, first: 0, window: Vec::new(), changed: None }
    }

    /// Puts one slot in. Of an id that is there and had not expired, only the day may change: see [`Slot::seen_again`].
    pub(super) fn put(&mut self, slot: Slot) -> Result<Put, IdsError> {
        let home = slot.home(self.buckets);
        // The first slot on the way whose id has expired; it serves when the id turns out not to be there.
        let mut expired = None;
        for at in (home..self.buckets).chain(0..home) {
            let start = self.bucket(at)?;
            let bucket = &self.window[start..start + BUCKET_BYTES];
            let search = search(bucket, slot);
            if expired.is_none() {
                let index =
                    slots(bucket).position(|known| !known.is_empty() && !self.horizon.includes(known.day()));
                expired = index.map(|index| (at, index));
            }
            match search {
                Search::Found(index, known) => {
                    let merged = known.seen_again(slot, self.horizon.days);
                    if merged != known {
                        self.set(at, index, merged)?;
                    }
                    return Ok(if merged.owner() == known.owner() { Put::Known } else { Put::Replaced });
                }
                Search::Ends(index) if expired.is_none() => {
                    self.set(at, index, slot)?;
                    return Ok(Put::Added);
                }
                Search::Ends(_) => break,
                Search::GoesOn => {}
            }
        }
        let Some((at, index)) = expired else { return Ok(Put::Full) };
        self.set(at, index, slot)?;
        Ok(Put::Replaced)
    }

    /// Writes what is changed and not yet written.
    pub(super) fn finish(mut self) -> Result<(), IdsError> {
        self.write_back()
    }

    fn set(&mut self, at: u64, index: usize, slot: Slot) -> Result<(), IdsError> {
        let place = self.bucket(at)? + index * SLOT_BYTES;
        self.window[place..place + SLOT_BYTES].copy_from_slice(&slot.to_bytes());
        let bucket = at - self.first;
        let (low, high) = self.changed.unwrap_or((bucket, bucket));
        self.changed = Some((low.min(bucket), high.max(bucket)));
        Ok(())
    }

    /// Moves the window over a bucket and says where in it the bucket begins.
    fn bucket(&mut self, at: u64) -> Result<usize, IdsError> {
        let held = (self.window.len() / BUCKET_BYTES) as u64;
        if !(self.first..self.first + held).contains(&at) {
            self.write_back()?;
            self.first = at - at % self.width;
            let length = self.width.min(self.buckets - self.first) as usize * BUCKET_BYTES;
            self.window.clear();
            self.window.resize(length, 0);
            if let Err(error) = self.file.read_exact_at(&mut self.window, offset(self.first)) {
                self.window.clear();
                return Err(error);
            }
        }
        Ok((at - self.first) as usize * BUCKET_BYTES)
    }

    fn write_back(&mut self) -> Result<(), IdsError> {
        let Some((low, high)) = self.changed.take() else { return Ok(()) };
        let range = low as usize * BUCKET_BYTES..(high + 1) as usize * BUCKET_BYTES;
        self.file.write_all_at(&self.window[range], offset(self.first + low))
    }
}

/// Where a bucket begins in the file.
fn offset(bucket: u64) -> u64 {
    (1 + bucket) * BUCKET_BYTES as u64
}

fn slots(bytes: &[u8]) -> impl Iterator<Item = Slot> {
    bytes.as_chunks::<SLOT_BYTES>().0.iter().map(|bytes| Slot::from_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Owner;
    use super::*;

    const MARK: Mark = Mark([7; 8]);

    fn horizon(today: u16) -> Horizon {
        Horizon { days: 8, today: Day(today) }
    }

    /// A slot whose home is the bucket of that share of the table, in 256ths.
    fn slot(share: u8, number: u32, owner: i64, day: u16) -> Slot {
        let mut bytes = [0; SLOT_BYTES];
        bytes[0] = share;
        bytes[4..8].copy_from_slice(&number.to_be_bytes());
        Slot::new(Slot::from_bytes(bytes).fingerprint(), Owner(owner), Day(day))
    }

    fn table(dir: &tempfile::TempDir, buckets: u64) -> DiskFile {
        let file = DiskFile::create(dir.path().join("table")).unwrap();
        file.set_len(offset(buckets)).unwrap();
        file
    }

    fn put_all(file: &DiskFile, buckets: u64, today: u16, slots: &[Slot]) -> Vec<Put> {
        let mut writer = Writer::new(file, buckets, slots.len() as u64, horizon(today));
        let done = slots.iter().map(|slot| writer.put(*slot).unwrap()).collect();
        writer.finish().unwrap();
        done
    }

    #[test]
    fn crowded_buckets_overflow_into_the_next_ones_and_around_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = table(&dir, 4);
        let crowd: Vec<_> = (0..100).map(|number| slot(255, number, 1, 100)).collect();
        assert!(put_all(&file, 4, 100, &crowd).iter().all(|put| *put == Put::Added));
        for slot in &crowd {
            assert_eq!(find(&file, 4, *slot).unwrap(), Some(*slot));
        }
        assert_eq!(find(&file, 4, slot(255, 100, 1, 100)).unwrap(), None);
        assert_eq!(find(&file, 4, slot(0, 1, 1, 100)).unwrap(), None);
        let rest: Vec<_> = (0..29).map(|number| slot(100, number, 2, 100)).collect();
        let done = put_all(&file, 4, 100, &rest);
        assert!(done[..28].iter().all(|put| *put == Put::Added));
        assert_eq!(done[28], Put::Full);
        // A full table is searched once around and no further.
        assert_eq!(find(&file, 4, slot(7, 7, 1, 100)).unwrap(), None);
        let mut found = Vec::new();
        scan(&file, 4, |run| {
            found.extend_from_slice(run);
            Ok(())
        })
        .unwrap();
        found.sort_unstable();
        let mut all: Vec<_> = crowd.iter().chain(&rest[..28]).copied().collect();
        all.sort_unstable();
        assert_eq!(found, all);
    }

    #[test]
    fn the_first_owner_stays_and_expired_slots_are_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = table(&dir, 2);
        assert_eq!(put_all(&file, 2, 100, &[slot(0, 1, 1, 100), slot(0, 2, 1, 105)]), [Put::Added; 2]);
        assert_eq!(put_all(&file, 2, 106, &[slot(0, 1, 2, 106)]), [Put::Known]);
        let seen_last = slot(0, 1, 1, 106);
        assert_eq!(find(&file, 2, slot(0, 1, 9, 0)).unwrap(), Some(seen_last));
        // The same once more after a crash, and what came before it.
        assert_eq!(put_all(&file, 2, 106, &[slot(0, 1, 2, 106), slot(0, 1, 1, 100)]), [Put::Known; 2]);
        assert_eq!(find(&file, 2, slot(0, 1, 9, 0)).unwrap(), Some(seen_last));
        // The other has expired, but it had not when it came again.
        assert_eq!(put_all(&file, 2, 114, &[slot(0, 2, 2, 113)]), [Put::Known]);
        assert_eq!(find(&file, 2, slot(0, 2, 9, 0)).unwrap(), Some(slot(0, 2, 1, 113)));
        // The id itself has expired.
        assert_eq!(put_all(&file, 2, 115, &[slot(0, 1, 3, 115)]), [Put::Replaced]);
        assert_eq!(find(&file, 2, slot(0, 1, 9, 0)).unwrap(), Some(slot(0, 1, 3, 115)));
        // Another one has.
        assert_eq!(put_all(&file, 2, 122, &[slot(0, 3, 4, 122)]), [Put::Replaced]);
        assert_eq!(find(&file, 2, slot(0, 2, 9, 0)).unwrap(), None);
        assert_eq!(find(&file, 2, slot(0, 3, 9, 0)).unwrap(), Some(slot(0, 3, 4, 122)));
    }

    #[test]
    fn an_id_behind_an_expired_one_is_found_before_it_is_added_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = table(&dir, 3);
        let old: Vec<_> = (0..32).map(|number| slot(0, number, 1, 90)).collect();
        put_all(&file, 3, 90, &old);
        put_all(&file, 3, 98, &[slot(0, 77, 2, 98)]);
        assert_eq!(put_all(&file, 3, 100, &[slot(0, 77, 3, 100)]), [Put::Known]);
        assert_eq!(find(&file, 3, slot(0, 77, 0, 0)).unwrap().map(Slot::owner), Some(Owner(2)));
    }

    #[test]
    fn narrow_and_wide_windows_write_the_same_table() {
        let slots: Vec<_> = (0..3000).map(|number| slot((number % 251) as u8, number, 1, 100)).collect();
        let write = |expected| {
            let dir = tempfile::tempdir().unwrap();
            let file = table(&dir, 200);
            let mut writer = Writer::new(&file, 200, expected, horizon(100));
            slots.iter().for_each(|slot| assert_eq!(writer.put(*slot).unwrap(), Put::Added));
            writer.finish().unwrap();
            fs::read(file.path()).unwrap()
        };
        assert!(write(1) == write(10_000));
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_header_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = table(&dir, 3);
        let partition = Partition::of_hour(5);
        let flushed = Checkpoint { journal: 3, length: 99 };
        let header = Header { partition, newest: Day(9), buckets: 3, ids: 4, flushed };
        header.write(&file, MARK).unwrap();
        assert_eq!(Header::read(&file, MARK, partition).unwrap(), header);
        for bit in 0..(CRC_AT + 4) * 8 {
            let mut whole = fs::read(file.path()).unwrap();
            whole[bit / 8] ^= 1 << (bit % 8);
            fs::write(file.path(), &whole).unwrap();
            let error = Header::read(&file, MARK, partition).unwrap_err();
            assert!(matches!(error, IdsError::Damaged { .. }), "bit {bit}: {error}");
            whole[bit / 8] ^= 1 << (bit % 8);
            fs::write(file.path(), &whole).unwrap();
        }
        assert!(matches!(Header::read(&file, Mark([8; 8]), partition), Err(IdsError::Foreign { .. })));
        file.set_len(offset(2)).unwrap();
        assert!(matches!(Header::read(&file, MARK, partition), Err(IdsError::Damaged { .. })));
    }
}
