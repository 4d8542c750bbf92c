//! `kill -9` at any instant: nothing is missing, nothing is doubled, and a reader who follows the files never sees a
//! line that is taken back.

use std::{
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use simulator::{Faults, SimulatorConfig};

use crate::support::{Arrived, World, files, kill_hard};

/// Follows a file sink as an agent does: by inode, from where it stopped, across renames.
struct Tailer {
    directory: PathBuf,
    /// Inode, open file, and how far it was read.
    files: Vec<(u64, File, u64)>,
    lines: Vec<Vec<u8>>,
    half: Vec<u8>,
}

impl Tailer {
    fn new(directory: PathBuf) -> Self {
        Self { directory, files: Vec::new(), lines: Vec::new(), half: Vec::new() }
    }

    fn read(&mut self) {
        for path in files(&self.directory) {
            let Ok(file) = File::open(&path) else { continue };
            let inode = file.metadata().expect("metadata").ino();
            if !self.files.iter().any(|(known, ..)| *known == inode) {
                self.files.push((inode, file, 0));
            }
        }
        for (_, file, at) in &mut self.files {
            let length = file.metadata().expect("metadata").len();
            assert!(
                length >= *at || self.half.len() as u64 >= *at - length,
                "what was read as a line was cut off"
            );
            if length < *at {
                // Only the part after the last line break may go.
                let cut = (*at - length) as usize;
                self.half.truncate(self.half.len() - cut);
                *at = length;
            }
            let mut bytes = vec![0; (length - *at) as usize];
            let read = file.read_at(&mut bytes, *at).expect("a read");
            *at += read as u64;
            for byte in &bytes[..read] {
                if *byte == b'\n' {
                    self.lines.push(std::mem::take(&mut self.half));
                } else {
                    self.half.push(*byte);
                }
            }
        }
    }
}

fn kills(sinks: &[(&str, &str)], rounds: usize, seed: u64) {
    let mut faults = Faults::default();
    for fault in ["duplicate_records=1/3", "cut_body=1/7x1", "same_created=1/2"] {
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
    world.configure_with("", sinks);
    let stop = Arc::new(AtomicBool::new(false));
    let followed = {
        let (stop, mut tailer) = (stop.clone(), Tailer::new(world.out("files")));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                tailer.read();
                thread::sleep(Duration::from_millis(3));
            }
            tailer.read();
            tailer
        })
    };
    let mut random = StdRng::seed_from_u64(seed);
    let written = || {
        files(&world.out("files"))
            .iter()
            .filter_map(|file| file.metadata().ok())
            .map(|m| m.len())
            .sum::<u64>()
    };
    let (mut killed, mut went_on) = (0, 0);
    for round in 0..rounds {
        let before = written();
        let mut running = world.start(&["run"]);
        // Every other time it is killed anywhere between its start and its first records, else in the midst of them.
        let deadline = Instant::now() + Duration::from_secs(5);
        while round % 2 == 1 && written() == before && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(Duration::from_micros(random.random_range(0..250_000)));
        if running.has_ended() {
            panic!("it ended by itself: {}", running.wait().text());
        }
        kill_hard(&running);
        running.wait();
        killed += 1;
        went_on += usize::from(written() > before);
    }
    assert_eq!(killed, rounds);
    assert!(went_on >= rounds / 4, "only {went_on} of {rounds} kills came while records were written");
    world.collect();
    stop.store(true, Ordering::Relaxed);
    let tailer = followed.join().expect("the tailer is fine");
    for (sink, _) in sinks {
        Arrived::read(&world.out(sink)).is_exactly(&world.simulator().truth());
    }
    world.mailtrail(&["reconcile"]).ends_with(0);
    assert!(tailer.half.is_empty(), "the last line is whole");
    let arrived = Arrived::read(&world.out("files"));
    let mut seen = tailer.lines;
    let mut there = arrived.lines().to_vec();
    seen.sort();
    there.sort();
    assert!(seen == there, "the follower saw {} lines, there are {}", seen.len(), there.len());
}

#[test]
fn a_hundred_kills_lose_and_double_nothing() {
    kills(
        &[("files", "view = \"raw\"\nrotate_bytes = \"2MiB\""), ("events", "rotate_bytes = \"3MiB\"\n")],
        100,
        7,
    );
}
