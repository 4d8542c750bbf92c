//! The disk of the state directory is full, and has room again, with the real binary: a small disk in memory that nobody
//! but the process sees.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::Pid;
use schemas::ContentType;
use simulator::{Blob, SimulatorConfig};

use crate::support::{Binary, World, free_address, get, sample, terminate};

const MAILTRAIL: &str = env!("CARGO_BIN_EXE_mailtrail");

/// What mounts is allowed to in a namespace of its own only, and in some containers not even there.
const ALONE: [&str; 3] = ["--user", "--map-root-user", "--mount"];

fn may_mount(at: &Path) -> bool {
    let tried = Command::new("unshare")
        .args(ALONE)
        .args(["mount", "-t", "tmpfs", "none"])
        .arg(at)
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// A path as the process sees it.
fn seen_by(process: Pid, path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").expect("it is absolute");
    PathBuf::from(format!("/proc/{process}/root")).join(path)
}

/// Takes all the room that is left.
fn fill(file: &Path) {
    let mut file = File::create(file).expect("a file");
    for size in [64 << 10, 1] {
        let full = loop {
            if let Err(error) = file.write_all(&vec![0; size]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
    }
}

fn blob(world: &World, number: usize) -> Blob {
    let filling = "x".repeat(3000);
    let record = |position: usize| {
        format!(
            r#"{{"Id":"{number:08}-0000-4000-8000-{position:012}","CreationTime":"2026-03-02T09:00:00","Operation":"Update","UserId":"a@b.c","Filling":"{filling}"}}"#
        )
    };
    let records: Vec<_> = (0..200).map(record).collect();
    let records: Vec<_> = records.iter().map(String::as_bytes).collect();
    Blob::from_records(
        ContentType::Exchange,
        world.simulator().now() - chrono::TimeDelta::minutes(1),
        &records,
    )
}

#[test]
fn nothing_is_lost_while_the_disk_is_full_and_it_goes_on_by_itself() {
    let world = World::new(SimulatorConfig { blobs: 5, records_per_blob: 10, ..SimulatorConfig::default() });
    let disk = world.path().join("disk");
    fs::create_dir(&disk).expect("a directory");
    if !may_mount(&disk) {
        eprintln!("not tried: this machine lets nobody mount a disk of his own");
        return;
    }
    let address = free_address();
    let http = format!("[http]\nlisten = \"{address}\"\n");
    world.configure_all(&http, "poll_interval = \"1s\"\n", &[("files", "view = \"raw\"")]);
    let state = world.path().join("state");
    world.edit(|text| text.replace(&format!("{state:?}"), &format!("{:?}", disk.join("state"))));

    let mut command = Command::new("unshare");
    let mount_and_run = "mount -t tmpfs -o size=24m none disk && exec \"$0\" run";
    command.args(ALONE).args(["sh", "-c", mount_and_run, MAILTRAIL]);
    let running = Binary::spawn(command, world.path());
    let delivered = || sample(address, "mailtrail_sink_records_total{sink=\"files\"}");
    world.until("there was room enough", || delivered() == Some(50.0));

    let ballast = seen_by(running.pid(), &disk).join("ballast");
    fill(&ballast);
    for number in 0..3 {
        assert!(world.simulator().add_blob(blob(&world, number)).is_some());
    }
    let full = "the disk of the state directory is full";
    world.until("it is told that the disk is full", || {
        get(address, "/readyz").is_some_and(|(_, page)| page.contains(full))
    });
    assert_eq!(get(address, "/healthz").expect("an answer").0, 200, "a restart repairs nothing");
    assert_eq!(delivered(), Some(50.0));

    fs::remove_file(ballast).expect("it is there");
    world.until("the rest is delivered", || delivered() == Some(650.0));
    let process = running.pid().to_string();
    let looked = Command::new("nsenter")
        .args([
            "--user",
            "--mount",
            "--preserve-credentials",
            "--target",
            &process,
            MAILTRAIL,
            "reconcile",
            "--config",
        ])
        .arg(world.path().join("mailtrail.toml"))
        .output()
        .expect("nsenter runs");
    let report = String::from_utf8_lossy(&looked.stdout);
    assert!(looked.status.success(), "{report}{}", String::from_utf8_lossy(&looked.stderr));
    assert!(
        !state.exists() && fs::read_dir(&disk).expect("a directory").next().is_none(),
        "it was the small disk"
    );
    terminate(&running);
    let log = running.wait().ends_with(0).stderr;
    assert!(log.contains(full), "{log}");
    world.arrived().is_exactly(&world.simulator().truth());
}
