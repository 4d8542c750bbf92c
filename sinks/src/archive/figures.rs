//! What the archive sink counts.

use std::sync::atomic::{AtomicU64, Ordering};

use archive::{Put, SealedFile};
use chrono::{DateTime, Utc};

use super::{manifests::Manifests, plan::Levels};
use crate::measure::{Measure, Reading};

/// Counters since the sink was made.
#[derive(Debug, Default)]
pub(super) struct Figures {
    sealed: AtomicU64,
    created: AtomicU64,
    found: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
}

impl Figures {
    pub(super) fn sealed(&self, objects: usize) {
        self.sealed.fetch_add(objects as u64, Ordering::Relaxed);
    }

    pub(super) fn put(&self, file: &SealedFile, how: Put) {
        let counter = match how {
            Put::Created => &self.created,
            Put::AlreadyThere => &self.found,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(file.bytes, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn measures(&self, levels: Levels, now: DateTime<Utc>) -> Vec<Measure> {
        let count = |counter: &AtomicU64| Reading::Counter(counter.load(Ordering::Relaxed));
        let level = |number: u64| Reading::Gauge(number as f64);
        let age = levels.oldest.map_or(0.0, |began| (now - began).as_seconds_f64().max(0.0));
        let objects = "Objects on this machine, by how far they have come.";
        let bytes = "Bytes in the staging folder, by how far their objects have come.";
        let puts = "Files of objects that were put in the archive, by how that was found.";
        let of = |name, help, label: (&'static str, &str), reading| Measure {
            name,
            help,
            labels: vec![(label.0, label.1.to_owned())],
            reading,
        };
        vec![
            of("archive_objects", objects, ("stage", "open"), level(levels.open as u64)),
            of("archive_objects", objects, ("stage", "sealed"), level(levels.sealed as u64)),
            of("archive_staged_bytes", bytes, ("stage", "open"), level(levels.open_bytes)),
            of("archive_staged_bytes", bytes, ("stage", "sealed"), level(levels.sealed_bytes)),
            of("archive_objects_put_total", puts, ("how", "created"), count(&self.created)),
            of("archive_objects_put_total", puts, ("how", "there_already"), count(&self.found)),
            Measure::alone(
                "archive_objects_sealed_total",
                "Objects that got their name and hash.",
                count(&self.sealed),
            ),
            Measure::alone(
                "archive_put_bytes_total",
                "Bytes of the objects that were put, as they are stored.",
                count(&self.bytes),
            ),
            Measure::alone(
                "archive_put_failures_total",
                "Attempts to put objects that failed and are made again.",
                count(&self.failed),
            ),
            Measure::alone(
                "archive_held_works",
                "Blobs whose records wait in objects that are not put yet.",
                level(levels.works as u64),
            ),
            Measure::gauge(
                "archive_oldest_open_seconds",
                "How long the oldest open object has been open.",
                age,
            ),
        ]
    }
}

/// How far the manifests are, as far as they are in the archive. A head is also told as a label, as `archive verify --head`
/// takes it: whoever keeps these figures notices when the tail of a chain is cut off.
pub(super) fn chains(manifests: &Manifests) -> Vec<Measure> {
    let mut measures = Vec::new();
    for tenant in manifests.chains().keys() {
        let labels = vec![("tenant_id", tenant.to_string())];
        let last = manifests.last_put(*tenant);
        measures.push(Measure {
            name: "archive_manifest_number",
            help: "The number of the last entry of a tenant's manifest that is in the archive.",
            labels: labels.clone(),
            reading: Reading::Gauge(last.map_or(0, |(head, _)| head.number) as f64),
        });
        if let Some((head, made)) = last {
            measures.push(Measure {
                name: "archive_manifest_head_timestamp_seconds",
                help: "When the last entry of a tenant's manifest that is in the archive was made, with its number and hash as a label.",
                labels: [labels, vec![("head", head.to_string())]].concat(),
                reading: Reading::Gauge(made.timestamp() as f64),
            });
        }
    }
    if !measures.is_empty() {
        measures.push(Measure::gauge(
            "archive_unnamed_objects",
            "Objects in the archive that no entry of a manifest names yet.",
            manifests.unnamed() as f64,
        ));
    }
    measures
}
