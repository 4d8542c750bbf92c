//! The index against a plain map, with crashes at any moment.
//!
//! A crash keeps what was synced and, of what was not, anything: writes up to some point, and of the sectors of a
//! table that a flush changed any choice of old and new ones, a table that was renamed but whose directory was not
//! synced under its old or its new content, and anything behind the committed end of the journal.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use proptest::prelude::*;
use schemas::RecordKey;

use super::disk::faults;
use super::slot::Horizon;
use super::*;

const HORIZON: u16 = 8;
const KEYS: u16 = 700;

#[derive(Debug, Clone)]
enum Step {
    /// Look records up and stage them for whom they were first, as the ledger does.
    Spool {
        first: u16,
        count: u16,
    },
    /// Sync and commit, and if that fails roll back.
    Commit {
        full_disk_after: Option<u32>,
    },
    RollBack {
        synced: bool,
    },
    NextDays(u16),
    Maintain,
    Crash(Crash),
}

#[derive(Debug, Clone)]
struct Crash {
    /// Whether what was staged had been synced, and committed by the ledger.
    synced: bool,
    committed: bool,
    /// How many writes of a flush were done.
    writes: u32,
    /// Chooses among old and new sectors.
    seed: u64,
    garbage: Vec<u8>,
}

fn step() -> impl Strategy<Value = Step> {
    let crash =
        (any::<bool>(), any::<bool>(), 0..30u32, any::<u64>(), prop::collection::vec(any::<u8>(), 0..90))
            .prop_map(|(synced, committed, writes, seed, garbage)| {
                Step::Crash(Crash { synced, committed, writes, seed, garbage })
            });
    prop_oneof![
        10 => (0..KEYS, 1..120u16).prop_map(|(first, count)| Step::Spool { first, count }),
        5 => prop::option::weighted(0.2, 0..20u32).prop_map(|full_disk_after| Step::Commit { full_disk_after }),
        1 => any::<bool>().prop_map(|synced| Step::RollBack { synced }),
        2 => (1..5u16).prop_map(Step::NextDays),
        1 => Just(Step::Maintain),
        4 => crash,
    ]
}

/// Keys of six hours, two of which share a partition and one of which is before 1970.
fn key(number: u16) -> RecordKey {
    let hour = [480_000, 480_001, 480_002, 480_000 + 2048, -7, 3][usize::from(number % 6)];
    RecordKey {
        hour,
        digest: [(number / 256) as u8 | 0x40, number as u8, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    }
}

struct Model {
    dir: tempfile::TempDir,
    index: DuplicateIndex,
    today: u16,
    next_owner: i64,
    checkpoint: Checkpoint,
    committed: HashMap<u16, (i64, u16)>,
    staged: HashMap<u16, (i64, u16)>,
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path(), Checkpoint::default(), 20_000);
        let (committed, staged) = (HashMap::new(), HashMap::new());
        Self {
            dir,
            index,
            today: 20_000,
            next_owner: 1,
            checkpoint: Checkpoint::default(),
            committed,
            staged,
        }
    }

    fn expected(&self, number: u16) -> Option<i64> {
        let alive = |(owner, day): &(i64, u16)| (self.today - day <= HORIZON).then_some(*owner);
        let committed = self.committed.get(&number).and_then(alive);
        committed.or_else(|| self.staged.get(&number).and_then(alive))
    }

    fn found(&mut self, number: u16) -> Option<i64> {
        let found = self.index.owner_of(FeedNumber(1), &key(number), Day(self.today)).unwrap();
        found.map(|owner| owner.0)
    }

    fn check(&mut self) {
        for number in 0..KEYS {
            assert_eq!(self.found(number), self.expected(number), "key {number} on day {}", self.today);
        }
    }

    fn spool(&mut self, first: u16, count: u16) {
        for number in (first..first + count).map(|number| number % KEYS) {
            assert_eq!(self.found(number), self.expected(number), "key {number} on day {}", self.today);
            let owner = self.expected(number).unwrap_or(self.next_owner);
            self.index.stage(FeedNumber(1), &key(number), Owner(owner), Day(self.today));
            self.staged.insert(number, (owner, self.today));
        }
        self.next_owner += 1;
    }

    /// The ledger's commit succeeded.
    fn record(&mut self, checkpoint: Checkpoint) {
        self.checkpoint = checkpoint;
        self.committed.extend(self.staged.drain());
    }

    fn commit(&mut self, full_disk_after: Option<u32>) {
        if let Some(writes) = full_disk_after {
            faults::fill_disk_after(writes);
        }
        if let Ok(checkpoint) = self.index.sync() {
            self.record(checkpoint);
            // A flush that failed is tried again later.
            assert!(self.index.committed().is_ok() || full_disk_after.is_some());
        } else {
            assert!(full_disk_after.is_some());
            self.index.roll_back();
            self.staged.clear();
        }
        faults::heal();
    }

    fn crash(&mut self, crash: &Crash) {
        let mut before = held_files(self.dir.path());
        faults::fill_disk_after(crash.writes);
        if crash.synced
            && let Ok(checkpoint) = self.index.sync()
        {
            // It may have moved ids to the tables: what it did is durable when it returns.
            before = held_files(self.dir.path());
            if crash.committed {
                self.record(checkpoint);
                // How far the flush gets is the crash's choice; its result is lost with the process.
                drop(self.index.committed());
            }
        }
        faults::heal();
        self.staged.clear();
        let mut bits = crash.seed;
        let mut toss = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bits >> 63 == 1
        };
        for (name, mut new) in files(self.dir.path()) {
            let path = self.dir.path().join(&name);
            if name == format!("journal-{:010}", self.checkpoint.journal) {
                new.truncate(self.checkpoint.length as usize);
                new.extend_from_slice(&crash.garbage);
            } else if name.ends_with(".table") {
                match before.get(&name) {
                    Some(old) if old.inode() == inode(&path) => {
                        for (old, new) in old.bytes.chunks(512).zip(new.chunks_mut(512)) {
                            if toss() {
                                new.copy_from_slice(old);
                            }
                        }
                    }
                    Some(old) if toss() => new.clone_from(&old.bytes),
                    None if toss() => {
                        fs::remove_file(&path).unwrap();
                        continue;
                    }
                    _ => {}
                }
            }
            fs::write(path, new).unwrap();
        }
        self.index = open(self.dir.path(), self.checkpoint, self.today);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Spool { first, count } => self.spool(*first, *count),
            Step::Commit { full_disk_after } => self.commit(*full_disk_after),
            Step::RollBack { synced } => {
                if *synced {
                    self.index.sync().unwrap();
                }
                self.index.roll_back();
                self.staged.clear();
            }
            Step::NextDays(days) => self.today += days,
            Step::Maintain => self.index.maintain(Day(self.today)).unwrap(),
            Step::Crash(crash) => self.crash(crash),
        }
    }
}

fn open(dir: &Path, committed: Checkpoint, today: u16) -> DuplicateIndex {
    let horizon = Horizon { days: HORIZON, today: Day(today) };
    DuplicateIndex::open_with(dir, [9; 16], committed, horizon, 60, 2).unwrap()
}

/// A file as it was before a flush. It is held open, so that no new file gets its inode.
struct Held {
    file: File,
    bytes: Vec<u8>,
}

impl Held {
    fn inode(&self) -> u64 {
        self.file.metadata().unwrap().ino()
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

fn held_files(dir: &Path) -> HashMap<String, Held> {
    let hold = |(name, bytes): (String, _)| {
        let file = File::open(dir.join(&name)).unwrap();
        (name, Held { file, bytes })
    };
    files(dir).into_iter().map(hold).collect()
}

fn files(dir: &Path) -> HashMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_knows_what_was_committed_and_nothing_else(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
            if matches!(step, Step::Crash(_) | Step::RollBack { .. }) {
                model.check();
            }
        }
        model.check();
    }
}

/// The tables refused, so that the next sync moves the ids before it offers a journal without them.
#[test]
fn ids_that_a_sync_has_moved_are_found_after_a_crash() {
    for seed in 0..20 {
        let mut model = Model::new();
        let crash = Crash { synced: true, committed: true, writes: 22, seed, garbage: vec![7; 16] };
        for step in [
            Step::Spool { first: 28, count: 72 },
            Step::Spool { first: 187, count: 48 },
            Step::Commit { full_disk_after: Some(2) },
            Step::Spool { first: 0, count: 1 },
            Step::Crash(crash),
        ] {
            model.step(&step);
        }
        model.check();
    }
}
