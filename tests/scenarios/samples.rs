//! Real records, when they are at hand: they are not part of the project.

use std::{fs, path::Path, time::Duration};

use chrono::{TimeDelta, Utc};
use schemas::ContentType;
use simulator::{Blob, SimulatorConfig};

use crate::support::World;

#[expect(clippy::print_stdout, reason = "whoever runs the tests is told what was left out")]
fn samples(name: &str) -> Option<Vec<Vec<u8>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples").join(name);
    match fs::read(&path) {
        Ok(bytes) => Some(
            bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect(),
        ),
        Err(_) => {
            println!("skipped: there is no {}", path.display());
            None
        }
    }
}

fn world(records: &[Vec<u8>]) -> World {
    let created = Utc::now() - TimeDelta::hours(5);
    let given = records
        .chunks(100)
        .enumerate()
        .map(|(number, chunk)| {
            Blob::from_records(ContentType::Exchange, created + TimeDelta::seconds(number as i64), chunk)
        })
        .collect();
    World::new(SimulatorConfig {
        blobs: 0,
        given,
        backlog_span: Duration::from_secs(3600),
        ..SimulatorConfig::default()
    })
}

/// A line break between tokens is all that the raw view may take out of a record.
fn sorted(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut lines = lines.to_vec();
    lines.sort();
    lines
}

#[test]
fn without_dedupe_every_record_arrives_byte_for_byte() {
    for name in ["exchange.ndjson", "all-workloads.ndjson"] {
        let Some(records) = samples(name) else { return };
        let world = world(&records);
        world.configure_with("dedupe = false\n", &[("files", "view = \"raw\""), ("events", "")]).collect();
        assert!(sorted(world.arrived().lines()) == sorted(&records), "{name}: the bytes differ");
        assert_eq!(crate::support::Arrived::read(&world.out("events")).len(), records.len());
        world.mailtrail(&["reconcile"]).ends_with(0);
    }
}

#[test]
fn with_dedupe_what_arrives_and_what_was_dropped_add_up() {
    // Microsoft's own repetitions among the samples: equal Id, CreationTime, Operation and UserId, none missing.
    for (name, repeated) in [("exchange.ndjson", 81), ("all-workloads.ndjson", 347)] {
        let Some(records) = samples(name) else { return };
        let world = world(&records);
        world.configure().collect();
        assert_eq!(world.arrived().len() + repeated, records.len(), "{name}");
        let report = world.mailtrail(&["reconcile", "--json"]).ends_with(0);
        let report: serde_json::Value = serde_json::from_str(&report.stdout).expect("JSON");
        assert_eq!(report["total"]["duplicates"].as_u64(), Some(repeated as u64), "{report}");
    }
}
