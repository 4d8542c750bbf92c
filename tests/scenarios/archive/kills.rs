//! `kill -9` in each phase of an object's life, twenty times in each: an archive in a directory, and one in a bucket.
//!
//! Each process is killed when an object is in the wanted phase, and the kill counts only when it still is afterwards. What
//! decides how far an object comes is in front of the bucket (a [`Gate`]), or is the directory itself.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use simulator::{Faults, SimulatorConfig};

use super::{below, configure, ends_with, is_complete, staging, stores, target};
use crate::support::{
    World,
    bucket::Bucket,
    gate::{Gate, Mode},
    kill_hard,
};

/// So many kills in each phase.
const KILLS: usize = 20;
/// So slow that there is something new in every life, with a burst of 12 requests at its beginning.
const SLOW: &str = "requests_per_minute = 240\n";
const FAST: &str = "requests_per_minute = 600000\n";
/// Objects that are closed and sealed as soon as there is something in them.
const SHORT: &str = "object_bytes = \"64KiB\"\nobject_age = \"50ms\"";
const LONG: &str = "object_age = \"1h\"";

/// How far an object is when the process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It takes records.
    Open,
    /// It is compressed and hashed.
    Sealing,
    /// It has its name, and nothing of it is in the archive.
    Sealed,
    /// It is on its way: a part of it is written, or the request has arrived and nothing has happened.
    Putting,
    /// It is there, and nobody was told.
    Put,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Open, Self::Sealing, Self::Sealed, Self::Putting, Self::Put];
}

/// Where the objects go.
enum Place<'a> {
    Directory,
    Bucket(&'a Bucket, &'a Gate),
}

impl Place<'_> {
    /// Sees to it that the next process comes to this phase, and no further where that can be had.
    fn lead_to(&self, phase: Phase, world: &World) {
        let lines = if phase == Phase::Open { LONG } else { SHORT };
        match self {
            Self::Directory => {
                configure(world, lines);
                world.edit(|text| text.replace("[sinks.", &format!("{SLOW}[sinks.")));
                close(&target(world), phase == Phase::Sealed);
            }
            Self::Bucket(bucket, gate) => {
                stores::configure(world, bucket, gate.address(), SLOW, lines);
                gate.set(match phase {
                    Phase::Open | Phase::Sealing => Mode::Open,
                    Phase::Sealed => Mode::Busy(usize::MAX),
                    Phase::Putting => Mode::Before,
                    Phase::Put => Mode::After,
                });
            }
        }
    }

    fn is_reached(&self, phase: Phase, world: &World, before: &[PathBuf]) -> bool {
        let staged = below(&staging(world));
        let is_staged = |ending: &str| staged.iter().any(|path| ends_with(path, ending));
        match (phase, self) {
            (Phase::Open, _) => {
                let has_lines = |path: &PathBuf| {
                    ends_with(path, ".ndjson") && path.metadata().is_ok_and(|file| file.len() > 0)
                };
                staged.iter().any(has_lines) && !is_staged(".object") && !is_staged(".object.part")
            }
            (Phase::Sealing, _) => is_staged(".object.part"),
            (_, Self::Bucket(_, gate)) => gate.seen() > 0 && is_staged(".object"),
            // Its records are removed when the ledger knows its name.
            (Phase::Sealed, Self::Directory) => {
                let named =
                    |path: &PathBuf| ends_with(path, ".object") && !path.with_extension("ndjson").exists();
                staged.iter().any(named)
            }
            (Phase::Putting, Self::Directory) => {
                is_staged(".object") && below(&target(world)).iter().any(|path| ends_with(path, ".part"))
            }
            (Phase::Put, Self::Directory) => {
                let new = |path: &&PathBuf| ends_with(path, ".ndjson.zst") && !before.contains(path);
                is_staged(".object") && below(&target(world)).iter().any(|path| new(&path))
            }
        }
    }
}

/// Puts a file in the place of a directory, so that nothing can be put there, or takes it away again.
fn close(directory: &Path, closed: bool) {
    let away = directory.with_extension("away");
    match (closed, away.exists()) {
        (true, false) => {
            fs::create_dir_all(directory).expect("a folder");
            fs::rename(directory, &away).expect("it can be moved");
            fs::write(directory, "").expect("a file");
        }
        (false, true) => {
            fs::remove_file(directory).expect("a file");
            fs::rename(away, directory).expect("it can be moved");
        }
        _ => {}
    }
}

/// Kills a process when an object is in this phase; whether it still was when the process was gone.
fn kill_in(phase: Phase, world: &World, place: &Place<'_>) -> bool {
    place.lead_to(phase, world);
    let before = below(&target(world));
    let running = world.start(&["run"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !place.is_reached(phase, world, &before) {
        assert!(Instant::now() < deadline, "no object was ever {phase:?}");
        thread::sleep(Duration::from_micros(100));
    }
    kill_hard(&running);
    running.wait();
    place.is_reached(phase, world, &before)
}

#[expect(clippy::print_stdout, reason = "whoever runs the tests is told how they went")]
fn kill_in_every_phase(place: &Place<'_>) -> World {
    let mut faults = Faults::default();
    for fault in ["duplicate_records=1/3", "cut_body=1/7x1"] {
        faults.set(fault).expect("a fault");
    }
    let world = World::new(SimulatorConfig {
        blobs: 1400,
        records_per_blob: 5,
        record_bytes: Some(4000),
        backlog_span: Duration::from_secs(5 * 24 * 3600),
        requests_per_minute: None,
        subscribed: true,
        faults,
        ..SimulatorConfig::default()
    });
    let (start, mut spent) = (Instant::now(), BTreeMap::<Phase, (usize, Duration)>::new());
    for _ in 0..KILLS {
        for phase in Phase::ALL {
            let begun = Instant::now();
            let lives = (1..=20).find(|_| kill_in(phase, &world, place));
            let lives =
                lives.unwrap_or_else(|| panic!("twenty kills, and never while an object was {phase:?}"));
            let spent = spent.entry(phase).or_default();
            *spent = (spent.0 + lives, spent.1 + begun.elapsed());
        }
    }
    for (phase, (lives, time)) in spent {
        println!("{KILLS} kills while an object was {phase:?} took {lives} lives and {time:.1?}");
    }
    println!("{:.1?} in all", start.elapsed());
    place.lead_to(Phase::Sealing, &world);
    world.edit(|text| text.replace(SLOW, FAST));
    world.collect();
    world
}

/// Twenty `kill -9` in each of the five phases of an object whose place is a bucket.
pub(crate) fn kills_lose_and_double_nothing(bucket: &Bucket) {
    let gate = Gate::before(bucket.address, "PUT");
    let world = kill_in_every_phase(&Place::Bucket(bucket, &gate));
    stores::is_complete(&world, bucket);
}

#[test]
fn twenty_kills_in_every_phase_lose_and_double_nothing() {
    let world = kill_in_every_phase(&Place::Directory);
    is_complete(&world);
}

#[test]
fn s3_twenty_kills_in_every_phase_lose_and_double_nothing() {
    kills_lose_and_double_nothing(&Bucket::memory());
}
