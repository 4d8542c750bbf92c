//! The most recent ids, in memory: committed ones that no table holds yet, and staged ones that no commit holds yet.
//!
//! About 25 bytes an id. What is in here is durable by the journal alone.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::slot::{Entry, Horizon, Id, Slot};
use super::{Day, Owner};

/// Recent ids, committed and staged.
#[derive(Default)]
pub(super) struct Memtable {
    ids: HashMap<Id, Packed, BuildHasherDefault<Passed>>,
    /// The staged among them, in the order in which they came.
    staged: Vec<Entry>,
    /// How many of `staged` are in a journal.
    journalled: usize,
}

impl Memtable {
    /// What is known of an id, expired or not.
    pub(super) fn get(&self, id: &Id) -> Option<Slot> {
        self.ids.get(id).map(|packed| packed.slot(id))
    }

    /// Adds an id to the staged ones, unless it is there and had not expired when this one came.
    pub(super) fn stage(&mut self, id: Id, owner: Owner, horizon: Horizon) {
        let slot = Slot::new(id.fingerprint, owner, horizon.today);
        if self.put(id, slot, horizon) {
            self.staged.push(Entry { partition: id.partition, slot });
        }
    }

    /// Adds an id that is committed: one of the journal at start. `days` is the horizon.
    pub(super) fn restore(&mut self, entry: Entry, days: u16) {
        self.put(entry.id(), entry.slot, Horizon { days, today: entry.slot.day() });
    }

    fn put(&mut self, id: Id, slot: Slot, horizon: Horizon) -> bool {
        let packed = Packed::of(slot);
        let mut put = true;
        self.ids
            .entry(id)
            .and_modify(|known| {
                put = !horizon.includes(known.slot(&id).day());
                if put {
                    *known = packed;
                }
            })
            .or_insert(packed);
        put
    }

    /// The staged ids that no journal holds.
    pub(super) fn unjournalled(&self) -> &[Entry] {
        &self.staged[self.journalled..]
    }

    /// Every id, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = Entry> {
        self.ids.iter().map(|(id, packed)| Entry { partition: id.partition, slot: packed.slot(id) })
    }

    /// How many ids there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// How many of them are committed.
    pub(super) fn committed_len(&self) -> usize {
        // What is staged in place of an expired id counts once, as staged.
        self.ids.len().saturating_sub(self.staged.len())
    }

    /// All that is staged is in a journal now.
    pub(super) fn set_journalled(&mut self) {
        self.journalled = self.staged.len();
    }

    /// What is staged and in a journal is committed now.
    pub(super) fn commit(&mut self) {
        self.staged.drain(..self.journalled);
        self.journalled = 0;
        self.staged.shrink_to(STAGED_KEPT);
    }

    /// Forgets what is staged.
    pub(super) fn roll_back(&mut self) {
        for entry in self.staged.drain(..) {
            self.ids.remove(&entry.id());
        }
        self.journalled = 0;
        self.staged.shrink_to(STAGED_KEPT);
    }

    /// Gives the committed ids that have not expired in runs of at most `run` ids, each run in the order of its
    /// partitions and buckets.
    pub(super) fn committed_runs<E>(
        &self,
        run: usize,
        horizon: Horizon,
        mut take: impl FnMut(&[Entry]) -> Result<(), E>,
    ) -> Result<(), E> {
        let staged: HashSet<Id, BuildHasherDefault<Passed>> =
            self.staged.iter().map(|entry| entry.id()).collect();
        let mut entries = Vec::with_capacity(run.min(self.ids.len()));
        for entry in self.all() {
            if !horizon.includes(entry.slot.day()) || staged.contains(&entry.id()) {
                continue;
            }
            entries.push(entry);
            if entries.len() == run {
                entries.sort_unstable();
                take(&entries)?;
                entries.clear();
            }
        }
        entries.sort_unstable();
        take(&entries)
    }

    /// Forgets the committed ids, which are in the tables now, and gives back memory beyond room for `keep` ids.
    pub(super) fn forget_committed(&mut self, keep: usize) {
        if self.staged.is_empty() {
            self.ids.clear();
        } else {
            let staged = self.staged.iter().map(|entry| (entry.id(), Packed::of(entry.slot))).collect();
            self.ids = staged;
        }
        self.ids.shrink_to(keep);
    }
}

/// So much room for staged ids is kept from group to group.
const STAGED_KEPT: usize = 4096;

/// Owner and day of an id without the padding that integers would need.
#[derive(Clone, Copy)]
struct Packed {
    owner: [u8; 5],
    day: [u8; 2],
}

impl Packed {
    fn of(slot: Slot) -> Self {
        let mut owner = [0; 5];
        owner.copy_from_slice(&slot.owner().0.to_be_bytes()[3..]);
        Self { owner, day: slot.day().0.to_be_bytes() }
    }

    fn slot(self, id: &Id) -> Slot {
        let mut owner = [0; 8];
        owner[3..].copy_from_slice(&self.owner);
        Slot::new(id.fingerprint, Owner(i64::from_be_bytes(owner)), Day(u16::from_be_bytes(self.day)))
    }
}

/// Passes on the hash that a fingerprint is.
#[derive(Default)]
struct Passed(u64);

impl Hasher for Passed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::RecordKey;

    use super::super::FeedNumber;
    use super::super::slot::Secret;
    use super::*;

    fn id(number: u8) -> Id {
        Secret::new([3; 16])
            .id(FeedNumber(1), &RecordKey { hour: i32::from(number % 3), digest: [number; 16] })
    }

    fn on(day: u16) -> Horizon {
        Horizon { days: 8, today: Day(day) }
    }

    fn owner(memtable: &Memtable, number: u8) -> Option<i64> {
        memtable.get(&id(number)).map(|slot| slot.owner().0)
    }

    #[test]
    fn the_first_owner_stays_until_it_expires() {
        let mut memtable = Memtable::default();
        memtable.stage(id(1), Owner(10), on(100));
        memtable.stage(id(1), Owner(11), on(108));
        assert_eq!(owner(&memtable, 1), Some(10));
        assert_eq!(memtable.unjournalled().len(), 1);
        memtable.stage(id(1), Owner(12), on(109));
        assert_eq!(owner(&memtable, 1), Some(12));
    }

    #[test]
    fn rolling_back_forgets_the_staged_alone() {
        let mut memtable = Memtable::default();
        memtable.stage(id(1), Owner(1), on(100));
        memtable.set_journalled();
        memtable.commit();
        memtable.stage(id(2), Owner(2), on(100));
        assert_eq!(memtable.committed_len(), 1);
        memtable.roll_back();
        assert_eq!((owner(&memtable, 1), owner(&memtable, 2)), (Some(1), None));
    }

    #[test]
    fn runs_are_sorted_and_leave_out_the_staged_and_the_expired() {
        let mut memtable = Memtable::default();
        memtable.stage(id(200), Owner(9), on(80));
        (0..100).for_each(|number| memtable.stage(id(number), Owner(1), on(100)));
        memtable.set_journalled();
        memtable.commit();
        memtable.stage(id(201), Owner(2), on(100));
        let mut seen = 0;
        memtable
            .committed_runs(30, on(100), |run| {
                assert!(run.len() <= 30 && run.is_sorted());
                assert!(run.iter().all(|entry| entry.slot.owner() == Owner(1)));
                seen += run.len();
                Ok::<(), ()>(())
            })
            .unwrap();
        assert_eq!(seen, 100);
        memtable.forget_committed(10);
        assert_eq!((memtable.len(), owner(&memtable, 201)), (1, Some(2)));
    }
}
