//! The keys of `type = "archive"`.

mod formats;
mod place;

use std::{path::Path, time::Duration};

use archive::{Target, store::target::Network};
use sinks::archive::{ArchiveConfig, Signing};
use transform::options::View;

use self::place::Place;
use super::super::{reader::Section, value::Bytes};

/// An archive sink as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchiveSinkConfig {
    /// What the sink itself needs.
    pub(crate) archive: ArchiveConfig,
    place: Place,
}

impl ArchiveSinkConfig {
    /// Whether it is reached through the network.
    pub(crate) fn uses_network(&self) -> bool {
        self.place.uses_network()
    }

    /// The directory that it lies in, if it lies in one.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.place.directory()
    }

    /// Where the archive lies, reached in this way.
    pub(crate) fn target(&self, network: Network) -> Target {
        self.place.target(network)
    }
}

/// Reads the keys that only this kind of sink has. The view is the section's own, or the default of this kind.
pub(super) fn read(section: &mut Section<'_>, view: View) -> Option<ArchiveSinkConfig> {
    if view != View::Raw {
        section.wrong("view", "has no meaning for type = \"archive\", which keeps the records as they came");
    }
    let place = place::read(section);
    let formats = formats::read(section, place.as_ref());
    let usual = ArchiveConfig::default();
    let Bytes(object_bytes) = section.get_or("object_bytes", Bytes(usual.object_bytes));
    let Bytes(staging_bytes) =
        section.get_or("staging_bytes", Bytes(usual.staging_bytes.max(object_bytes.saturating_mul(2))));
    let signing = read_signing(section);
    let archive = ArchiveConfig {
        signing,
        object_bytes,
        object_age: section.get_or("object_age", usual.object_age),
        formats: formats?,
        staging_bytes,
    };
    Some(ArchiveSinkConfig { archive, place: place? })
}

/// Shorter, a chain would have more entries than anybody verifies.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

fn read_signing(section: &mut Section<'_>) -> Option<Signing> {
    let key = section.secret("signing_key");
    let previous_key = section.secret("previous_signing_key");
    let interval: Option<Duration> = section.get("manifest_interval");
    if !section.has("signing_key") {
        for other in ["previous_signing_key", "manifest_interval"] {
            if section.has(other) {
                section.wrong(other, "has no meaning without signing_key: nothing is signed");
            }
        }
    }
    if interval.is_some_and(|interval| interval < SHORTEST_INTERVAL) {
        section.wrong("manifest_interval", "must be at least 1s");
    }
    Some(Signing { key: key?, previous_key, interval: interval.unwrap_or(Duration::from_secs(3600)) })
}
