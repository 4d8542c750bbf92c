//! `[state]`: where mailtrail keeps its memory, and how much of the disk it may use.

use std::{path::PathBuf, time::Duration};

use super::{reader::Section, value::Bytes};
use crate::units;

/// The ledger and its spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateConfig {
    /// The state directory. Only one process at a time uses it.
    pub(crate) directory: PathBuf,
    /// When the spool holds so many bytes, fetching pauses.
    pub(crate) spool_max_bytes: u64,
    /// When a sink's dead letters hold so many bytes, it pauses.
    pub(crate) dead_letter_max_bytes: u64,
    /// How long a record is remembered, so that its repetition is dropped.
    pub(crate) dedupe_horizon: Duration,
}

/// With less, fetching would pause for every few blobs.
const SMALLEST_SPOOL: u64 = 1 << 20;

const DAY: Duration = Duration::from_secs(24 * 3600);

impl StateConfig {
    /// Reads the section. `None` when something in it is wrong, which is then reported.
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let directory = section.require(
            "directory",
            "it is where mailtrail keeps what it has collected, such as \"/var/lib/mailtrail\"",
        );
        let Bytes(spool_max_bytes) = section.get_or("spool_max_bytes", Bytes(10 << 30));
        let Bytes(dead_letter_max_bytes) = section.get_or("dead_letter_max_bytes", Bytes(1 << 30));
        let dedupe_horizon = section.get_or("dedupe_horizon", 8 * DAY);
        if spool_max_bytes < SMALLEST_SPOOL {
            section.wrong(
                "spool_max_bytes",
                format!("is {}; it must be at least 1 MiB", units::format_bytes(spool_max_bytes)),
            );
        }
        if !(DAY..=90 * DAY).contains(&dedupe_horizon) {
            section.wrong("dedupe_horizon", "must be from 1d to 90d");
        }
        section.finish();
        Some(Self { directory: directory?, spool_max_bytes, dead_letter_max_bytes, dedupe_horizon })
    }
}
