//! What an id is on its way through the index: where it belongs, by what it is recognised, and the 16 bytes that
//! are kept of it.
//!
//! A slot is a big-endian 128-bit number: 72 bits of fingerprint, 40 bits of owner, 16 bits of day. All zero is an
//! empty slot. The fingerprint leads, so that slots in numerical order are in the order of their buckets, too.

use std::hash::{Hash, Hasher};

use schemas::RecordKey;
use sha2::{Digest, Sha256};

use super::{Day, FeedNumber, Owner};

/// How many partitions there are. An hour goes to the partition of its remainder, so that there are never more
/// files than this, whatever times a record claims; 2048 hours are 85 days, far more than a horizon spans.
pub(super) const PARTITIONS: u16 = 2048;

/// Bytes of one slot on disk.
pub(super) const SLOT_BYTES: usize = 16;

const OWNER_BITS: u32 = 40;
const DAY_BITS: u32 = 16;

/// The largest owner that a slot can hold.
pub(super) const MAX_OWNER: i64 = (1 << OWNER_BITS) - 1;

/// The part of the index, and the file, that an hour's ids are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Partition(u16);

impl Partition {
    /// The partition of an hour since 1970.
    pub(super) fn of_hour(hour: i32) -> Self {
        Self(hour.rem_euclid(i32::from(PARTITIONS)) as u16)
    }

    /// The partition of this number, if there is one.
    pub(super) fn new(number: u16) -> Option<Self> {
        (number < PARTITIONS).then_some(Self(number))
    }

    /// Its number, below [`PARTITIONS`].
    pub(super) fn number(self) -> u16 {
        self.0
    }
}

/// By what an id is recognised within its partition: 72 bits of a keyed hash. In a partition of a million ids a
/// look-up takes a stranger for a known id once in 2^52 times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fingerprint([u8; 9]);

impl Fingerprint {
    fn high(self) -> u64 {
        let mut high = [0; 8];
        high.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(high)
    }
}

/// One id: the partition it belongs to and its fingerprint there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) partition: Partition,
    pub(super) fingerprint: Fingerprint,
}

impl Hash for Id {
    /// A fingerprint is a keyed hash already: eight bytes of it are as good as any other hash of it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint.high());
    }
}

/// The ledger's random secret. Without it nobody can make records whose ids collide or crowd one bucket.
#[derive(Clone, Copy)]
pub(super) struct Secret([u8; 16]);

impl Secret {
    pub(super) fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// The id of a record of a feed. What is hashed fits one block of SHA-256.
    pub(super) fn id(&self, feed: FeedNumber, key: &RecordKey) -> Id {
        let mut block = [0; 44];
        block[..16].copy_from_slice(&self.0);
        block[16..24].copy_from_slice(&feed.0.to_be_bytes());
        block[24..28].copy_from_slice(&key.hour.to_be_bytes());
        block[28..].copy_from_slice(&key.digest);
        let mut fingerprint = [0; 9];
        fingerprint.copy_from_slice(&Sha256::digest(block)[..9]);
        Id { partition: Partition::of_hour(key.hour), fingerprint: Fingerprint(fingerprint) }
    }

    /// What the files of this ledger are marked with, so that those of another ledger are noticed.
    pub(super) fn mark(&self) -> Mark {
        let mut hash = Sha256::new();
        hash.update(b"mailtrail duplicate index");
        hash.update(self.0);
        let mut mark = [0; 8];
        mark.copy_from_slice(&hash.finalize()[..8]);
        Mark(mark)
    }
}

/// Tells the files of one ledger from those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(pub(super) [u8; 8]);

/// An id as it lies in a bucket or in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u128);

impl Slot {
    pub(super) const EMPTY: Self = Self(0);

    /// Makes a slot; `owner` must be within 0 and [`MAX_OWNER`].
    pub(super) fn new(fingerprint: Fingerprint, owner: Owner, day: Day) -> Self {
        debug_assert!((0..=MAX_OWNER).contains(&owner.0), "owner {} does not fit a slot", owner.0);
        let mut bytes = [0; SLOT_BYTES];
        bytes[..9].copy_from_slice(&fingerprint.0);
        bytes[9..14].copy_from_slice(&owner.0.to_be_bytes()[3..]);
        bytes[14..].copy_from_slice(&day.0.to_be_bytes());
        Self::from_bytes(bytes)
    }

    pub(super) fn from_bytes(bytes: [u8; SLOT_BYTES]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    pub(super) fn to_bytes(self) -> [u8; SLOT_BYTES] {
        self.0.to_be_bytes()
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    pub(super) fn fingerprint(self) -> Fingerprint {
        let mut fingerprint = [0; 9];
        fingerprint.copy_from_slice(&self.to_bytes()[..9]);
        Fingerprint(fingerprint)
    }

    pub(super) fn owner(self) -> Owner {
        Owner((self.0 >> DAY_BITS) as i64 & MAX_OWNER)
    }

    pub(super) fn day(self) -> Day {
        Day(self.0 as u16)
    }

    /// Whether both hold the same id.
    pub(super) fn same_id(self, other: Self) -> bool {
        (self.0 ^ other.0) >> (OWNER_BITS + DAY_BITS) == 0
    }

    /// What is to be known of an id that came again: its first owner and the latest day, because each blob that holds it is
    /// remembered from when it was spooled; of an id that had expired by then, what came. `days` is the horizon. The order in
    /// which a crash brings the same ones again makes no difference.
    pub(super) fn seen_again(self, later: Self, days: u16) -> Self {
        if !(Horizon { days, today: later.day() }).includes(self.day()) {
            return later;
        }
        Self(self.0 - u128::from(self.day().0) + u128::from(self.day().max(later.day()).0))
    }

    /// The bucket that this id belongs to in a table of so many buckets. It rises with the fingerprint, whatever
    /// the number of buckets, so that a table is rebuilt from front to back.
    pub(super) fn home(self, buckets: u64) -> u64 {
        let high = self.0 >> 64;
        ((high * u128::from(buckets)) >> 64) as u64
    }
}

/// An id with its partition, as the journal keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) partition: Partition,
    pub(super) slot: Slot,
}

impl Entry {
    pub(super) fn id(self) -> Id {
        Id { partition: self.partition, fingerprint: self.slot.fingerprint() }
    }
}

/// Until when an id counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Horizon {
    pub(super) days: u16,
    pub(super) today: Day,
}

impl Horizon {
    /// Whether what was spooled on `day` still counts. A day that is yet to come (the clock went back) does.
    pub(super) fn includes(self, day: Day) -> bool {
        self.today.0.saturating_sub(day.0) <= self.days
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hour: i32, digest: u8) -> RecordKey {
        RecordKey { hour, digest: [digest; 16] }
    }

    #[test]
    fn a_slot_gives_back_what_was_put_in() {
        let id = Secret::new([1; 16]).id(FeedNumber(7), &key(400_000, 9));
        for (owner, day) in [(0, 1), (1, 0), (MAX_OWNER, u16::MAX), (0x12_3456_789a, 20_000)] {
            let slot = Slot::new(id.fingerprint, Owner(owner), Day(day));
            assert_eq!(slot.fingerprint(), id.fingerprint);
            assert_eq!((slot.owner(), slot.day()), (Owner(owner), Day(day)));
            assert_eq!(Slot::from_bytes(slot.to_bytes()), slot);
            assert!(!slot.is_empty());
        }
    }

    #[test]
    fn secret_feed_hour_and_digest_each_make_another_id() {
        let id = Secret::new([1; 16]).id(FeedNumber(7), &key(400_000, 9));
        assert_eq!(id, Secret::new([1; 16]).id(FeedNumber(7), &key(400_000, 9)));
        for other in [
            Secret::new([2; 16]).id(FeedNumber(7), &key(400_000, 9)),
            Secret::new([1; 16]).id(FeedNumber(8), &key(400_000, 9)),
            Secret::new([1; 16]).id(FeedNumber(7), &key(400_000 + i32::from(PARTITIONS), 9)),
            Secret::new([1; 16]).id(FeedNumber(7), &key(400_000, 8)),
        ] {
            assert_ne!(id.fingerprint, other.fingerprint);
        }
    }

    #[test]
    fn homes_rise_with_the_slots_and_stay_within_the_table() {
        let mut slots: Vec<_> = (0..200)
            .map(|n| {
                Slot::new(Secret::new([1; 16]).id(FeedNumber(n), &key(0, 0)).fingerprint, Owner(1), Day(1))
            })
            .collect();
        slots.sort_unstable();
        for buckets in [1, 3, 64, 1_000_003] {
            assert!(slots.is_sorted_by_key(|slot| slot.home(buckets)));
            assert!(slots.iter().all(|slot| slot.home(buckets) < buckets));
        }
        assert_eq!(Slot::from_bytes([0xff; SLOT_BYTES]).home(1000), 999);
    }

    #[test]
    fn every_hour_has_a_partition() {
        for hour in [i32::MIN, -1, 0, 1, 2047, 2048, 480_000, i32::MAX] {
            assert!(Partition::of_hour(hour).number() < PARTITIONS);
        }
        assert_ne!(Partition::of_hour(-1), Partition::of_hour(0));
    }

    #[test]
    fn a_day_counts_until_its_horizon_has_passed() {
        let at = |today| Horizon { days: 8, today: Day(today) };
        assert!(at(100).includes(Day(100)) && at(108).includes(Day(100)) && at(99).includes(Day(100)));
        assert!(!at(109).includes(Day(100)));
    }
}
