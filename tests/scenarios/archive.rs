//! The archive sink with a directory as its target: every record is in exactly one object, whatever is killed when.
//! What is there is counted by a reader that knows nothing but zstd and lines.

mod entra;
pub(crate) mod kills;
pub(crate) mod stores;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use schemas::ContentType;
use simulator::{SimulatorConfig, TenantConfig};

use crate::support::{Arrived, Outcome, World, terminate};

/// Every file below a folder.
pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let Ok(entry) = entry else { continue };
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder { all.extend(below(&entry.path())) } else { all.push(entry.path()) }
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

/// The objects of records, as lines, below a folder.
pub(crate) fn objects_below(folder: &Path) -> Vec<PathBuf> {
    below(folder).into_iter().filter(|path| ends_with(path, ".ndjson.zst")).collect()
}

/// Those that are in the archive.
pub(crate) fn objects(world: &World) -> Vec<PathBuf> {
    objects_below(&target(world))
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

/// Every record of an archive, as somebody reads it who knows zstd.
pub(crate) fn arrived_in(folder: &Path) -> Arrived {
    arrived_of(&objects_below(folder))
}

/// Every record of these objects.
pub(crate) fn arrived_of(objects: &[PathBuf]) -> Arrived {
    let mut lines = Vec::new();
    for object in objects {
        let plain = zstd::decode_all(&fs::read(object).expect("an object")[..]).expect("zstd");
        assert!(plain.ends_with(b"\n"), "{} ends with half a line", object.display());
        lines
            .extend(plain.split_inclusive(|byte| *byte == b'\n').map(|line| line[..line.len() - 1].to_vec()));
    }
    Arrived::of_lines(lines)
}

/// Every record is in one object, and so says whoever looks.
pub(crate) fn is_complete(world: &World) {
    arrived_in(&target(world)).is_exactly(&world.simulator().truth());
    is_accounted_for(world, "archive");
}

/// The books agree; `verify` finds every record in order, in the target and in this folder, which is the target or a copy
/// of it; and nothing waits on this machine.
pub(crate) fn is_accounted_for(world: &World, folder: &str) {
    world.mailtrail(&["reconcile"]).ends_with(0);
    for place in [["--sink", "evidence"], ["--directory", folder]] {
        let arguments = ["archive", "verify", place[0], place[1], "--public-key", "archive.pub", "--json"];
        let verified = world.mailtrail(&arguments).ends_with(0);
        let verified: serde_json::Value = serde_json::from_str(&verified.stdout).expect("JSON");
        assert_eq!(verified["records"].as_u64(), Some(world.simulator().truth().count()), "{verified}");
    }
    let left = below(&staging(world));
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
