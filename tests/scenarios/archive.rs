//! The archive sink with a directory as its target: every record is in exactly one object, whatever is killed when.
//! What is there is counted by a reader that knows nothing but zstd and lines.

mod entra;
pub(crate) mod stores;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use schemas::ContentType;
use simulator::{Faults, SimulatorConfig, TenantConfig};

use crate::support::{Arrived, Outcome, World, kill_hard, terminate};

/// Every file below a folder.
pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        if path.is_dir() { all.extend(below(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

pub(crate) fn ends_with(path: &Path, ending: &str) -> bool {
    path.to_str().is_some_and(|path| path.ends_with(ending))
}

pub(crate) fn target(world: &World) -> PathBuf {
    world.path().join("archive")
}

pub(crate) fn staging(world: &World) -> PathBuf {
    world.path().join("state/archive/evidence")
}

/// The objects of records that are in the archive.
pub(crate) fn objects(world: &World) -> Vec<PathBuf> {
    below(&target(world)).into_iter().filter(|path| ends_with(path, ".ndjson.zst")).collect()
}

/// Makes `archive.key` and `archive.pub`, once.
pub(crate) fn make_key(world: &World) -> PathBuf {
    let key = world.path().join("archive.key");
    if !key.exists() {
        let public = world.mailtrail(&["archive", "keygen", "--out", "archive.key"]).ends_with(0).stdout;
        fs::write(world.path().join("archive.pub"), public).expect("a key");
    }
    key
}

/// An archive with signed manifests.
pub(crate) fn configure(world: &World, lines: &str) {
    let (directory, key) = (target(world), make_key(world));
    let sink = format!(
        "[sinks.evidence]\ntype = \"archive\"\ntarget = \"directory\"\ndirectory = {directory:?}\n\
         signing_key = {{ file = {key:?} }}\n{lines}\n"
    );
    world.configure_sinks("", "", &sink);
}

fn arrived(world: &World) -> Arrived {
    arrived_in(&target(world))
}

/// Every record of an archive, as somebody reads it who knows zstd.
pub(crate) fn arrived_in(folder: &Path) -> Arrived {
    let mut lines = Vec::new();
    for object in below(folder).into_iter().filter(|path| ends_with(path, ".ndjson.zst")) {
        let plain = zstd::decode_all(&fs::read(&object).expect("an object")[..]).expect("zstd");
        assert!(plain.ends_with(b"\n"), "{} ends with half a line", object.display());
        lines
            .extend(plain.split_inclusive(|byte| *byte == b'\n').map(|line| line[..line.len() - 1].to_vec()));
    }
    Arrived::of_lines(lines)
}

pub(crate) fn is_complete(world: &World) {
    arrived(world).is_exactly(&world.simulator().truth());
    world.mailtrail(&["reconcile"]).ends_with(0);
    let verified = verify(world, &[]).ends_with(0);
    assert!(verified.stdout.contains(&world.simulator().truth().count().to_string()), "{}", verified.stdout);
    let by_name = ["archive", "verify", "--sink", "evidence", "--public-key", "archive.pub", "--json"];
    assert_eq!(world.mailtrail(&by_name).ends_with(0).stdout, verified.stdout);
    let left: Vec<_> = below(&staging(world));
    assert!(left.is_empty(), "nothing is left in the staging folder: {left:?}");
}

pub(crate) fn verify(world: &World, more: &[&str]) -> Outcome {
    let arguments = ["archive", "verify", "--directory", "archive", "--public-key", "archive.pub", "--json"];
    world.mailtrail(&[&arguments[..], more].concat())
}

#[test]
fn every_record_is_in_one_object_of_its_tenant_and_content_type() {
    let config = SimulatorConfig {
        tenants: (0..3).map(TenantConfig::numbered).collect(),
        content_types: vec![ContentType::Exchange, ContentType::General],
        ..SimulatorConfig::default()
    };
    let world = World::new(config);
    configure(&world, "");
    world.collect();
    is_complete(&world);
    let mut by_feed: BTreeMap<(String, String), usize> = BTreeMap::new();
    for object in objects(&world) {
        let name = object.strip_prefix(target(&world)).expect("below").to_str().expect("plain").to_owned();
        let parts: Vec<_> = name.split('/').collect();
        let key = |part: usize, key: &str| {
            parts[part].strip_prefix(key).unwrap_or_else(|| panic!("{name} has no {key}")).to_owned()
        };
        for (part, name) in [(2, "year="), (3, "month="), (4, "day="), (5, "hour=")] {
            key(part, name);
        }
        *by_feed.entry((key(0, "tenant="), key(1, "content_type="))).or_default() += 1;
    }
    assert_eq!(by_feed.len(), 6, "{by_feed:?}");
    assert!(by_feed.values().all(|count| *count == 1), "no small files: {by_feed:?}");
    let before = objects(&world);
    world.collect();
    assert_eq!(objects(&world), before, "a run with nothing new puts nothing");
    // What is missing is named.
    fs::remove_file(&before[0]).expect("an object");
    let name = before[0].file_name().and_then(|name| name.to_str()).expect("a name");
    let outcome = verify(&world, &[]).ends_with(1);
    assert!(outcome.text().contains(name), "{}", outcome.text());
}

#[test]
fn after_sigterm_what_is_open_goes_on() {
    let world =
        World::new(SimulatorConfig { blobs: 300, records_per_blob: 50, ..SimulatorConfig::default() });
    configure(&world, "");
    let running = world.start(&["run"]);
    world.until("something is open", || {
        below(&staging(&world)).iter().any(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 0))
    });
    // A batch later there are whole works for certain.
    thread::sleep(Duration::from_millis(500));
    terminate(&running);
    running.wait().ends_with(0);
    assert!(objects(&world).is_empty());
    let before: Vec<_> = below(&staging(&world));
    assert_eq!(before.len(), 2, "the records and the works of one object: {before:?}");
    let length = before[0].metadata().expect("a file").len();
    let running = world.start(&["run"]);
    world.until("it grows", || before[0].metadata().is_ok_and(|metadata| metadata.len() > length));
    terminate(&running);
    running.wait().ends_with(0);
    world.collect();
    is_complete(&world);
    assert_eq!(objects(&world).len(), 1);
}

/// How far the objects had come when a process was killed.
#[derive(Debug, Default)]
struct Phases {
    open: usize,
    sealing: usize,
    sealed: usize,
    putting: usize,
    put: usize,
}

impl Phases {
    fn look(&mut self, world: &World) {
        let staged = below(&staging(world));
        let archived = below(&target(world));
        let some = |files: &[PathBuf], ending: &str| files.iter().any(|path| ends_with(path, ending));
        self.open += usize::from(some(&staged, ".ndjson"));
        self.sealing += usize::from(some(&staged, ".object.part"));
        self.putting += usize::from(some(&archived, ".part"));
        let is_put = |object: &Path| {
            let bytes = fs::read(object).expect("an object");
            archived.iter().any(|path| fs::read(path).is_ok_and(|archived| archived == bytes))
        };
        let objects: Vec<_> = staged.iter().filter(|path| ends_with(path, ".object")).collect();
        let put = objects.iter().filter(|object| is_put(object)).count();
        self.put += usize::from(put > 0);
        self.sealed += usize::from(put < objects.len());
    }
}

#[test]
fn twenty_kills_in_every_phase_lose_and_double_nothing() {
    let mut faults = Faults::default();
    for fault in ["duplicate_records=1/3", "cut_body=1/7x1"] {
        faults.set(fault).expect("a fault");
    }
    let world = World::new(SimulatorConfig {
        blobs: 1500,
        records_per_blob: 40,
        page_size: 37,
        faults,
        backlog_span: Duration::from_secs(5 * 24 * 3600),
        ..SimulatorConfig::default()
    });
    configure(&world, "object_bytes = \"256KiB\"\nobject_age = \"300ms\"");
    let mut random = StdRng::seed_from_u64(11);
    let mut phases = Phases::default();
    for round in 0..20 {
        let before = objects(&world).len();
        let running = world.start(&["run"]);
        // Every other time it is killed anywhere after its start, else in the midst of its objects.
        for _ in 0..500 {
            if round % 2 == 0 || objects(&world).len() > before {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_micros(random.random_range(0..400_000)));
        kill_hard(&running);
        running.wait();
        phases.look(&world);
    }
    println!("killed while objects were: {phases:?}");
    assert!(phases.open > 0, "{phases:?}");
    assert!(phases.sealing + phases.sealed + phases.putting + phases.put > 0, "{phases:?}");
    world.collect();
    is_complete(&world);
}

#[test]
fn check_says_what_is_wrong_with_a_target() {
    let world = World::new(SimulatorConfig { blobs: 3, ..SimulatorConfig::default() });
    configure(&world, "");
    world.mailtrail(&["check"]).ends_with(0);
    assert!(below(&target(&world)).is_empty(), "it leaves nothing behind");
    fs::write(world.path().join("file"), "not a directory").expect("a file");
    world.edit(|text| text.replace("/archive\"", "/file\""));
    let outcome = world.mailtrail(&["check"]).ends_with(1);
    assert!(outcome.text().contains("evidence"), "{}", outcome.text());
    world.edit(|text| text.replace("type = \"archive\"", "type = \"archive\"\nview = \"ocsf\""));
    let outcome = world.mailtrail(&["check"]).ends_with(2);
    assert!(outcome.text().contains("keeps the records as they came"), "{}", outcome.text());
}
