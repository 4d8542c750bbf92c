//! The archive sink with a bucket as its target: every record is in exactly one object, whatever is killed and however
//! the server behaves. `real_s3.rs` and `real_azure.rs` do the same with real servers.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use simulator::SimulatorConfig;

use super::{arrived_in, below, ends_with, make_key, staging};
use crate::support::{
    Binary, World,
    bucket::Bucket,
    gate::{Gate, Mode},
    kill_hard, terminate,
};

pub(crate) fn world(blobs: u64) -> World {
    World::new(SimulatorConfig {
        blobs,
        records_per_blob: 40,
        page_size: 37,
        backlog_span: Duration::from_secs(5 * 24 * 3600),
        ..SimulatorConfig::default()
    })
}

/// An archive with signed manifests in a bucket that is reached through this address.
pub(crate) fn configure(world: &World, bucket: &Bucket, address: SocketAddr, tenant: &str, lines: &str) {
    let key = make_key(world);
    let sink = format!(
        "[sinks.evidence]\ntype = \"archive\"\ntarget = {:?}\nsigning_key = {{ file = {key:?} }}\n{lines}\n{}",
        bucket.target(),
        bucket.keys(world, address)
    );
    world.configure_sinks("", tenant, &sink);
}

/// The bucket has every record in one object, and so says whoever looks.
pub(crate) fn is_complete(world: &World, bucket: &Bucket) {
    let copy = bucket.download(world);
    arrived_in(&copy).is_exactly(&world.simulator().truth());
    world.mailtrail(&["reconcile"]).ends_with(0);
    let count = world.simulator().truth().count();
    // The bucket itself, and what was downloaded of it.
    for place in [["--sink", "evidence"], ["--directory", "copy"]] {
        let arguments = ["archive", "verify", place[0], place[1], "--public-key", "archive.pub", "--json"];
        let verified = world.mailtrail(&arguments).ends_with(0);
        let verified: serde_json::Value = serde_json::from_str(&verified.stdout).expect("JSON");
        assert_eq!(verified["records"].as_u64(), Some(count), "{verified}");
    }
    let left = below(&staging(world));
    assert!(left.is_empty(), "nothing is left in the staging folder: {left:?}");
}

/// How far an object is when the process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It takes records.
    Open,
    /// It is compressed and hashed.
    Sealing,
    /// It has its name, and no request for it has arrived.
    Sealed,
    /// The request has arrived, and nothing has happened.
    Putting,
    /// It is there, and nobody was told.
    Put,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Open, Self::Sealing, Self::Sealed, Self::Putting, Self::Put];

    /// What the gate does in it.
    fn mode(self) -> Mode {
        match self {
            Self::Open | Self::Sealing => Mode::Open,
            Self::Sealed => Mode::Busy(usize::MAX),
            Self::Putting => Mode::Before,
            Self::Put => Mode::After,
        }
    }

    fn is_reached(self, world: &World, gate: &Gate) -> bool {
        let staged = |ending: &str| below(&staging(world)).iter().any(|path| ends_with(path, ending));
        match self {
            Self::Open => staged(".ndjson") && !staged(".object") && !staged(".object.part"),
            Self::Sealing => staged(".object.part"),
            Self::Sealed | Self::Putting | Self::Put => gate.seen() > 0 && staged(".object"),
        }
    }
}

/// Kills a process when an object is in this phase; whether it still is.
fn kill_in(phase: Phase, world: &World, gate: &Gate) -> bool {
    gate.set(phase.mode());
    let running = world.start(&["run"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !phase.is_reached(world, gate) {
        assert!(Instant::now() < deadline, "no object was ever {phase:?}");
        thread::sleep(Duration::from_micros(200));
    }
    kill_hard(&running);
    running.wait();
    phase.is_reached(world, gate)
}

/// So many `kill -9` in each of the five phases of an object.
pub(crate) fn kills_lose_and_double_nothing(bucket: &Bucket, rounds: u64) {
    let world = world(175 * rounds);
    let gate = Gate::before(bucket.address);
    // So slow that there is something new in every round.
    configure(
        &world,
        bucket,
        gate.address(),
        "requests_per_minute = 600\n",
        "object_bytes = \"1MiB\"\nobject_age = \"300ms\"",
    );
    for _ in 0..rounds {
        for phase in Phase::ALL {
            let kills = (1..=20).find(|_| kill_in(phase, &world, &gate));
            assert!(kills.is_some(), "twenty kills, and never while an object was {phase:?}");
        }
    }
    gate.set(Mode::Open);
    world.edit(|text| text.replace("requests_per_minute = 600\n", ""));
    world.collect();
    is_complete(&world, bucket);
}

/// A server that asks for fewer requests, and refuses many of them, gets each object once.
pub(crate) fn a_server_that_is_asked_too_often_is_asked_again(bucket: &Bucket) {
    let world = world(150);
    let gate = Gate::before(bucket.address);
    configure(&world, bucket, gate.address(), "", "object_bytes = \"1MiB\"");
    gate.set(Mode::Busy(5));
    world.collect();
    assert_eq!(gate.seen(), 5, "it was refused that often");
    is_complete(&world, bucket);
}

/// A running process, and what it says of its sink.
fn last_error(world: &World) -> Option<String> {
    let status = world.mailtrail(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).ok()?;
    status["running"]["sinks"][0]["error"].as_str().filter(|error| !error.is_empty()).map(str::to_owned)
}

/// Waits until everything is in the archive, and ends the process.
fn goes_on_to_the_end(world: &World, running: Binary) {
    world.until("nothing is pending", || {
        let status = world.mailtrail(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("JSON");
        let records = world.simulator().truth().count();
        status["sinks"][0]["pending"] == 0 && status["feeds"][0]["to_fetch"] == 0 && {
            let report = world.mailtrail(&["reconcile", "--json"]);
            let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("JSON");
            report["total"]["records"].as_u64() == Some(records)
        }
    });
    terminate(&running);
    running.wait().ends_with(0);
    // The last entry is made now, and not in an hour.
    world.collect();
}

/// A server that is away for a while, in the midst of a run.
pub(crate) fn a_server_that_is_stopped_and_started_is_waited_for(bucket: &mut Bucket) {
    let world = world(300);
    configure(
        &world,
        bucket,
        bucket.address,
        "requests_per_minute = 1200\n",
        "object_bytes = \"1MiB\"\nobject_age = \"300ms\"",
    );
    let running = world.start(&["run"]);
    world.until("something is put", || !bucket.objects().is_empty());
    bucket.stop();
    world.until("it is missed", || last_error(&world).is_some_and(|error| error.contains("cannot put")));
    bucket.start();
    goes_on_to_the_end(&world, running);
    is_complete(&world, bucket);
}

#[test]
fn s3_twenty_kills_lose_and_double_nothing() {
    kills_lose_and_double_nothing(&Bucket::memory(), 4);
}

#[test]
fn s3_that_is_asked_too_often_is_asked_again() {
    a_server_that_is_asked_too_often_is_asked_again(&Bucket::memory());
}

#[test]
fn s3_that_is_stopped_and_started_is_waited_for() {
    a_server_that_is_stopped_and_started_is_waited_for(&mut Bucket::memory());
}

/// A file system of so many kilobytes. Dropping it unmounts it.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Mounts it; `None` when that is not permitted.
    fn mount(at: std::path::PathBuf, kilobytes: u32) -> Option<Self> {
        fs::create_dir_all(&at).expect("a folder");
        mount(&at, &format!("size={kilobytes}k")).then(|| Self(at))
    }

    /// Makes room.
    fn grow(&self) {
        assert!(mount(&self.0, "remount,size=256m"), "it was mounted before");
    }
}

fn mount(at: &std::path::Path, options: &str) -> bool {
    let mut mount = std::process::Command::new("mount");
    let status =
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).stderr(std::process::Stdio::null());
    status.status().is_ok_and(|status| status.success())
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_here_or_there_is_told_and_waited_for() {
    for folder in ["archive", "state/archive"] {
        let world = world(100);
        super::configure(&world, "object_bytes = \"1MiB\"\nobject_age = \"1s\"");
        let Some(disk) = SmallDisk::mount(world.path().join(folder), 300) else {
            println!("skipped: mounting a small file system is not permitted here");
            return;
        };
        let running = world.start(&["run"]);
        world.until("it says so", || last_error(&world).is_some_and(|error| error.contains("is full")));
        disk.grow();
        goes_on_to_the_end(&world, running);
        super::is_complete(&world);
    }
}
