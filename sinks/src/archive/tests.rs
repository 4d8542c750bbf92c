//! The archive sink against crashes, damaged files and many tenants, with a directory as its target.

mod crashes;
mod manifests;
mod meeting;
mod parquet;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use archive::{
    Target,
    parquet::{Row, Understand},
};
use schemas::FeedKey;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{ArchiveConfig, ArchiveSink, staging::Staging};
use crate::{
    delivery::DeliveryLoop,
    delivery_ledger::LedgerFailure,
    health::{Health, State},
    memory::MemoryBudget,
    rate::Rate,
    sink::SinkContext,
    test_ledger::{Fuse, Kind, MemoryLedger, sink_name},
};

/// Understands the records of these tests.
struct Words;

impl Understand for Words {
    fn tell(&self, _: FeedKey, record: &[u8], told: &mut dyn FnMut(&Row<'_>)) {
        let value: serde_json::Value = serde_json::from_slice(record).unwrap_or_default();
        let id = value["Id"].as_str().unwrap_or_default();
        // Of two classes and three days, whatever the order in which they come.
        let number = i64::from(id.bytes().map(u32::from).sum::<u32>());
        let class_uid = Some([6003, 4009][(number % 2) as usize]);
        let time_ms = (number % 3 < 2).then_some(1_770_000_000_000 + number % 3 * 86_400_000 + number);
        told(&Row { id, time_ms, class_uid, ..Row::default() });
    }
}

/// A ledger, a state directory and a target. They outlive the processes.
struct World {
    ledger: Arc<MemoryLedger>,
    directory: TempDir,
    /// The name of the folder that is the target.
    place: &'static str,
    config: ArchiveConfig,
}

/// A process.
struct Running {
    stop: CancellationToken,
    finish: CancellationToken,
    health: Arc<Health>,
    sink: Arc<ArchiveSink>,
    task: tokio::task::JoinHandle<Result<(), LedgerFailure>>,
}

impl World {
    fn new(works: &[usize]) -> Self {
        let kinds = works.iter().map(|records| {
            (0..*records).map(|n| if n % 11 == 10 { Kind::Broken } else { Kind::Plain }).collect()
        });
        Self::of(MemoryLedger::new(kinds))
    }

    fn of(ledger: MemoryLedger) -> Self {
        let directory = tempfile::tempdir().unwrap();
        *ledger.id.lock().unwrap() = "0f1e2d3c-4b5a-4988-8776-655443322110".to_owned();
        Self { ledger: Arc::new(ledger), directory, place: "target", config: ArchiveConfig::default() }
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join(self.place)
    }

    fn staging(&self) -> PathBuf {
        self.directory.path().join("state/archive/test")
    }

    fn start(&self) -> Running {
        self.start_with(None)
    }

    fn start_with(&self, fuse: Option<Arc<Fuse>>) -> Running {
        self.ledger.restart(fuse.clone());
        let rate = Arc::new(Rate::new(None, None));
        let context = SinkContext { name: sink_name(), ledger: self.ledger.clone(), rate: Arc::clone(&rate) };
        let mut staging = Staging::new(self.staging());
        staging.fuse = fuse;
        let target = Target::Directory(self.target());
        let sink = ArchiveSink::on(staging, self.config.clone(), target, Arc::new(Words), context);
        let sink = Arc::new(sink.unwrap());
        let budget = MemoryBudget::new(64 << 20);
        let delivery = DeliveryLoop::new(sink.clone(), self.ledger.clone(), rate, &budget);
        let (health, finish, stop) = (delivery.health(), delivery.finish(), CancellationToken::new());
        let task = tokio::spawn(delivery.run(stop.clone()));
        Running { stop, finish, health, sink, task }
    }

    /// Waits until all works are taken: until nothing more has come for long.
    async fn all_taken(&self) {
        let (mut before, mut quiet) = (0, 0);
        for _ in 0..10_000 {
            let taken = self.taken();
            quiet = if taken > 0 && taken == before { quiet + 1 } else { 0 };
            before = taken;
            if quiet > 100 && self.ledger.leased() == self.ledger.pending() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} works are leased, {before} bytes taken", self.ledger.leased());
    }

    /// How many bytes of records are open.
    fn taken(&self) -> u64 {
        let records = files(&self.staging()).into_iter().filter(|path| path.ends_with(".ndjson"));
        records.filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
    }

    /// The records of every object in the archive.
    fn archived(&self) -> Vec<(i64, u32)> {
        let mut records = Vec::new();
        for path in objects_below(&self.target()) {
            let bytes = fs::read(&path).unwrap();
            let plain = zstd::decode_all(&bytes[..]).unwrap_or_else(|error| panic!("{path}: {error}"));
            for line in std::str::from_utf8(&plain).unwrap().lines() {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                let id: uuid::Uuid = record["Id"].as_str().unwrap().parse().unwrap();
                records.push(((id.as_u128() >> 64) as i64 - 1, id.as_u128() as u32));
            }
        }
        records
    }

    /// Every due record is in exactly one object, and nothing is left on this machine.
    fn is_complete(&self, works: &[usize]) {
        let archived = self.archived();
        let distinct: BTreeSet<_> = archived.iter().copied().collect();
        assert_eq!(distinct.len(), archived.len(), "no record is there twice");
        let due = works.iter().enumerate().flat_map(|(work, records)| {
            (0..*records as u32).filter(|n| n % 11 != 10).map(move |n| (work as i64, n))
        });
        assert_eq!(distinct, due.collect());
        assert_eq!(self.ledger.pending(), 0);
    }

    fn objects(&self) -> usize {
        objects_below(&self.target()).len()
    }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("the loop does not panic").expect("the ledger does not fail");
    }

    /// Waits until everything is settled, and stops.
    async fn finish(self, ledger: &MemoryLedger) {
        self.finish.cancel();
        let settled = tokio::time::timeout(Duration::from_secs(86_400), ledger.all_settled()).await;
        assert!(settled.is_ok(), "stuck: {:?}", self.health.report());
        // What is not needed any more is cleared away.
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.stop().await;
    }
}

/// The objects of records in an archive.
fn objects_below(target: &Path) -> Vec<String> {
    files(target).into_iter().filter(|path| path.contains(".ndjson.")).collect()
}

/// Every file below a folder, without those that begin with a dot.
fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
            all.push(path.to_str().unwrap().to_owned());
        }
    }
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn l3_nothing_is_settled_before_its_object_is_put() {
    let works = [3, 0, 12, 1, 40];
    let world = World::new(&works);
    let running = world.start();
    world.all_taken().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!((world.ledger.pending(), world.ledger.leased()), (4, 4), "only the empty one is settled");
    assert_eq!((world.objects(), running.health.report().counters.records), (0, 0));
    running.finish(&world.ledger).await;
    world.is_complete(&works);
    assert_eq!(world.objects(), 1);
    assert_eq!(
        world.ledger.tried(),
        [0, 2, 3, 4],
        "which counts if they are given up before they are settled"
    );
    assert!(files(&world.staging()).is_empty(), "{:?}", files(&world.staging()));
    let path = &files(&world.target())[0];
    for part in [
        "/tenant=00000000-0000-0000-0000-000000000001/content_type=Audit.Exchange/year=",
        "/0f1e2d3c-4b5a-4988-8776-655443322110-1-5-",
        ".ndjson.zst",
    ] {
        assert!(path.contains(part), "{path} has no {part}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_open_goes_on_after_a_stop() {
    let works = [30, 20, 10, 7];
    let world = World::new(&works[..3]);
    let running = world.start();
    world.all_taken().await;
    running.stop().await;
    assert_eq!((world.ledger.pending(), world.ledger.leased(), world.objects()), (3, 0, 0));
    world.ledger.add(3, vec![Kind::Plain; 7]);
    let running = world.start();
    world.all_taken().await;
    running.finish(&world.ledger).await;
    world.is_complete(&works);
    assert_eq!(world.objects(), 1, "it was one object all the time");
    let settled: u32 = world.ledger.settlements().iter().map(|settlement| settlement.delivered).sum();
    assert_eq!(settled as usize, world.archived().len());
}

#[tokio::test(start_paused = true)]
async fn an_open_object_whose_files_are_gone_or_cut_is_made_anew() {
    for harm in ["records", "works", "cut"] {
        let works = [30, 20];
        let world = World::new(&works);
        let running = world.start();
        world.all_taken().await;
        running.stop().await;
        for path in files(&world.staging()) {
            match harm {
                "records" if path.ends_with(".ndjson") => fs::remove_file(path).unwrap(),
                "works" if path.ends_with(".works") => fs::remove_file(path).unwrap(),
                "cut" if path.ends_with(".ndjson") => {
                    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(7).unwrap();
                }
                _ => {}
            }
        }
        world.start().finish(&world.ledger).await;
        world.is_complete(&works);
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_full_or_old_is_closed_between_works() {
    let works = [20; 12];
    let mut world = World::new(&works);
    world.config.object_bytes = 4000;
    let running = world.start();
    let some = async {
        while world.objects() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), some).await.expect("an object is full");
    running.finish(&world.ledger).await;
    world.is_complete(&works);

    let mut world = World::new(&works);
    world.config.object_age = Duration::from_millis(1);
    let running = world.start();
    let settled = tokio::time::timeout(Duration::from_secs(86_400), world.ledger.all_settled()).await;
    assert!(settled.is_ok(), "its age alone closes it: {:?}", running.health.report());
    running.stop().await;
    world.is_complete(&works);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_by_other_bytes_halts_and_overwrites_nothing() {
    let works = [30, 20];
    let world = World::new(&works);
    fs::create_dir_all(world.target()).unwrap();
    // Where the first part of every name is a file, nothing can be put.
    fs::write(world.target().join("tenant=00000000-0000-0000-0000-000000000001"), "theirs").unwrap();
    let running = world.start();
    running.finish.cancel();
    let failing = async {
        while running.health.report().last_error.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), failing).await.expect("it says so");
    assert_eq!(world.ledger.pending(), 2);
    let theirs = world.target().join("tenant=00000000-0000-0000-0000-000000000001");
    assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
    fs::remove_file(theirs).unwrap();
    running.finish(&world.ledger).await;
    world.is_complete(&works);
}

#[tokio::test(start_paused = true)]
async fn a_newer_state_halts() {
    let world = World::new(&[3]);
    world.ledger.set_state(Some(br#"{"version":9}"#.to_vec()));
    let running = world.start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let report = running.health.report();
    assert!(matches!(&report.state, State::Halted { error, .. } if error.contains("newer version")));
    running.stop().await;
}

/// The number of tenants costs no descriptors, and every one has its own objects.
#[tokio::test(start_paused = true)]
async fn many_tenants_share_few_open_files() {
    let ledger = MemoryLedger::plain([]);
    for tenant in 0..300u128 {
        for work in 0..2 {
            ledger.add_of(tenant + 1, (tenant * 2 + work) as i64, vec![Kind::Plain; 3]);
        }
    }
    let world = World::of(ledger);
    let running = world.start();
    world.all_taken().await;
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    assert!(open < 250, "{open} files are open");
    running.finish(&world.ledger).await;
    world.is_complete(&[3; 600]);
    assert_eq!(world.objects(), 300);
    let mut tenants: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for path in files(&world.target()) {
        let plain = zstd::decode_all(&fs::read(&path).unwrap()[..]).unwrap();
        let tenant = path.split("tenant=").nth(1).unwrap().split('/').next().unwrap().to_owned();
        assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), 6);
        assert!(tenants.insert(tenant, BTreeSet::new()).is_none());
    }
}

/// A full disk costs nothing but time.
#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_and_waited_for() {
    let works = [30, 20];
    let world = World::of(MemoryLedger::plain([]));
    let running = world.start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The first object's records go where there is no room.
    let full = world.staging().join("1.ndjson");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    for (work, records) in works.iter().enumerate() {
        world.ledger.add(work as i64, vec![Kind::Plain; *records]);
    }
    let told = async {
        while !running.health.report().last_error.is_some_and(|error| error.contains("is full")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), told).await.expect("it says so");
    assert_eq!(world.ledger.pending(), 2);
    fs::remove_file(full).unwrap();
    running.finish(&world.ledger).await;
    assert_eq!(world.archived().len(), 50);
    assert_eq!(world.objects(), 1);
}
