//! The archive sink with a bucket as its target: every record is in exactly one object, whatever is killed and however
//! the server behaves. `real_s3.rs` and `real_azure.rs` do the same with real servers.

use std::{fs, net::SocketAddr, time::Duration};

use simulator::SimulatorConfig;

use super::{arrived_in, is_accounted_for, make_key};
use crate::support::{
    Binary, World,
    bucket::{Bucket, PREFIX},
    gate::{Gate, Mode},
    terminate,
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
    // A lake has its bucket for itself.
    let prefix =
        if lines.contains("security_lake") { String::new() } else { format!("prefix = {PREFIX:?}\n") };
    let sink = format!(
        "[sinks.evidence]\ntype = \"archive\"\ntarget = {:?}\nsigning_key = {{ file = {key:?} }}\n{lines}\n{}{prefix}",
        bucket.target(),
        bucket.keys(world, address)
    );
    world.configure_sinks("", tenant, &sink);
}

/// The bucket has every record in one object, and so says whoever looks.
pub(crate) fn is_complete(world: &World, bucket: &Bucket) {
    arrived_in(&bucket.download(world)).is_exactly(&world.simulator().truth());
    is_accounted_for(world, "copy");
}

/// What was collected is there, and a run with nothing new puts nothing.
pub(crate) fn every_record_is_in_one_object(bucket: &Bucket) {
    let world = world(100);
    configure(&world, bucket, bucket.address, "", "");
    world.mailtrail(&["check"]).ends_with(0);
    assert!(bucket.names().is_empty(), "it leaves nothing behind");
    world.collect();
    is_complete(&world, bucket);
    let before = bucket.names();
    world.collect();
    assert_eq!(bucket.names(), before, "a run with nothing new puts nothing");
}

/// A server that asks for fewer requests, and refuses many of them, gets each object once.
pub(crate) fn a_server_that_is_asked_too_often_is_asked_again(bucket: &Bucket) {
    let world = world(150);
    let gate = Gate::before(bucket.address, "PUT");
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
fn s3_has_every_record_in_one_object() {
    every_record_is_in_one_object(&Bucket::memory());
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
