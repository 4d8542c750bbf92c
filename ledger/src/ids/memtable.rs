//! The most recent ids, in memory: committed ones that no table holds yet, and staged ones that no commit holds yet.
//!
//! About 25 bytes an id. What is in here is durable by the journal alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::hash::{BuildHasherDefault, Hasher};

use super::slot::{Entry, Horizon, Id, Partition, Slot};
use super::{Day, Owner};

/// An id that no commit holds yet.
struct Staged {
    partition: Partition,
    slot: Slot,
    /// What was known of it before, and is again when it is rolled back.
    before: Option<Packed>,
}

impl Staged {
    fn entry(&self) -> Entry {
        Entry { partition: self.partition, slot: self.slot }
    }
}

/// Recent ids, committed and staged.
#[derive(Default)]
pub(super) struct Memtable {
    ids: HashMap<Id, Packed, BuildHasherDefault<Passed>>,
    /// The staged among them, in the order in which they came.
    staged: Vec<Staged>,
    /// How many of `staged` are in a journal.
    journalled: usize,
}

impl Memtable {
    /// What is known of an id, expired or not.
    pub(super) fn get(&self, id: &Id) -> Option<Slot> {
        self.ids.get(id).map(|packed| packed.slot(id))
    }

    /// Adds an id to the staged ones, unless this says nothing new of it: see [`Slot::seen_again`].
    pub(super) fn stage(&mut self, id: Id, owner: Owner, horizon: Horizon) {
        let slot = Slot::new(id.fingerprint, owner, horizon.today);
        if let Some((slot, before)) = self.put(id, slot, horizon.days) {
            self.staged.push(Staged { partition: id.partition, slot, before });
        }
    }

    /// Adds an id that is committed: one of the journal at start. `days` is the horizon.
    pub(super) fn restore(&mut self, entry: Entry, days: u16) {
        self.put(entry.id(), entry.slot, days);
    }

    /// Gives what is known of the id now and what was before, unless it is the same.
    fn put(&mut self, id: Id, slot: Slot, days: u16) -> Option<(Slot, Option<Packed>)> {
        match self.ids.entry(id) {
            MapEntry::Vacant(free) => {
                free.insert(Packed::of(slot));
                Some((slot, None))
            }
            MapEntry::Occupied(mut known) => {
                let before = *known.get();
                let merged = before.slot(&id).seen_again(slot, days);
                known.insert(Packed::of(merged));
                (merged != before.slot(&id)).then_some((merged, Some(before)))
            }
        }
    }

    /// The staged ids that no journal holds.
    pub(super) fn unjournalled(&self) -> impl ExactSizeIterator<Item = Entry> {
        self.staged[self.journalled..].iter().map(Staged::entry)
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
        self.ids.len() - self.staged.iter().filter(|staged| staged.before.is_none()).count()
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
        for staged in self.staged.drain(..).rev() {
            let id = staged.entry().id();
            match staged.before {
                Some(before) => self.ids.insert(id, before),
                None => self.ids.remove(&id),
            };
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
        // Of an id that is staged, what was committed of it before.
        let mut staged: HashMap<Id, Option<Packed>, BuildHasherDefault<Passed>> = HashMap::default();
        for entry in &self.staged {
            staged.entry(entry.entry().id()).or_insert(entry.before);
        }
        let mut entries = Vec::with_capacity(run.min(self.ids.len()));
        for Entry { partition, slot } in self.all() {
            let id = Id { partition, fingerprint: slot.fingerprint() };
            let committed = match staged.get(&id) {
                None => Some(slot),
                Some(before) => before.map(|before| before.slot(&id)),
            };
            let Some(slot) = committed.filter(|slot| horizon.includes(slot.day())) else { continue };
            entries.push(Entry { partition, slot });
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
        self.ids.clear();
        for staged in &mut self.staged {
            if self.ids.insert(staged.entry().id(), Packed::of(staged.slot)).is_none() {
                // It is in the tables.
                staged.before = None;
            }
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

    fn seen(memtable: &Memtable, number: u8) -> Option<(i64, u16)> {
        memtable.get(&id(number)).map(|slot| (slot.owner().0, slot.day().0))
    }

    fn owner(memtable: &Memtable, number: u8) -> Option<i64> {
        seen(memtable, number).map(|(owner, _)| owner)
    }

    #[test]
    fn the_first_owner_stays_until_it_expires() {
        let mut memtable = Memtable::default();
        memtable.stage(id(1), Owner(10), on(100));
        memtable.stage(id(1), Owner(11), on(100));
        assert_eq!(memtable.unjournalled().len(), 1, "nothing new");
        memtable.stage(id(1), Owner(11), on(108));
        assert_eq!(seen(&memtable, 1), Some((10, 108)), "from now on it counts from here");
        assert_eq!(memtable.unjournalled().len(), 2);
        memtable.stage(id(1), Owner(12), on(105));
        assert_eq!(seen(&memtable, 1), Some((10, 108)), "the clock went back");
        memtable.stage(id(1), Owner(13), on(117));
        assert_eq!(seen(&memtable, 1), Some((13, 117)));
    }

    #[test]
    fn rolling_back_brings_back_what_was_known_before() {
        let mut memtable = Memtable::default();
        memtable.stage(id(1), Owner(1), on(100));
        memtable.set_journalled();
        memtable.stage(id(1), Owner(2), on(103));
        assert_eq!(memtable.committed_len(), 0);
        memtable.commit();
        assert_eq!(memtable.committed_len(), 1);
        memtable.stage(id(1), Owner(3), on(105));
        assert_eq!((seen(&memtable, 1), memtable.committed_len()), (Some((1, 105)), 1));
        memtable.roll_back();
        assert_eq!((seen(&memtable, 1), memtable.committed_len()), (Some((1, 100)), 1));
        memtable.stage(id(1), Owner(4), on(120));
        memtable.roll_back();
        assert_eq!(seen(&memtable, 1), Some((1, 100)));
    }

    #[test]
    fn what_was_committed_of_an_id_goes_to_the_tables_though_it_is_staged_again() {
        let mut memtable = Memtable::default();
        memtable.stage(id(1), Owner(1), on(100));
        memtable.set_journalled();
        memtable.commit();
        memtable.stage(id(1), Owner(1), on(103));
        memtable.stage(id(1), Owner(1), on(105));
        let mut moved = Vec::new();
        memtable
            .committed_runs(30, on(105), |run| {
                moved.extend(run.iter().map(|entry| (entry.slot.owner().0, entry.slot.day().0)));
                Ok::<(), ()>(())
            })
            .unwrap();
        assert_eq!(moved, [(1, 100)]);
        memtable.forget_committed(10);
        assert_eq!((seen(&memtable, 1), memtable.committed_len()), (Some((1, 105)), 0));
        memtable.roll_back();
        assert_eq!(memtable.len(), 0);
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
