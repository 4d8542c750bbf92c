//! The keys of `type = "archive"`.

mod formats;
mod place;

use std::{path::Path, time::Duration};

use archive::{Target, store::target::Network};
use reqwest::Client;
use sinks::archive::{ArchiveConfig, Signing, TimestampAuthority};
use transform::options::View;
use url::Url;

use self::place::Place;
use super::super::{reader::Section, value::Bytes};

/// An archive sink as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchiveSinkConfig {
    /// What the sink itself needs.
    pub(crate) archive: ArchiveConfig,
    place: Place,
    timestamp_url: Option<Url>,
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

    /// The address of the bucket or container, with the folder in it, that it lies in, if it lies in one.
    pub(crate) fn bucket(&self) -> Option<String> {
        self.place.bucket()
    }

    /// Who time-stamps the heads of its manifests, reached through this client.
    pub(crate) fn timestamp_authority(&self, http: &Client) -> Option<TimestampAuthority> {
        self.timestamp_url.clone().map(|url| TimestampAuthority::new(url, http.clone()))
    }

    /// Where the archive lies, reached in this way; logins go through this client. Nothing is asked for yet.
    ///
    /// # Errors
    ///
    /// When the platform does not offer the identity that is configured.
    pub(crate) fn target(&self, network: Network, http: &Client) -> Result<Target, String> {
        self.place.target(network, http)
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
    let timestamp_url = read_timestamp_url(section);
    let archive = ArchiveConfig {
        signing,
        object_bytes,
        object_age: section.get_or("object_age", usual.object_age),
        formats: formats?,
        staging_bytes,
    };
    Some(ArchiveSinkConfig { archive, place: place?, timestamp_url })
}

/// Longer, the ledger would have forgotten some of what an entry states: of what came late it keeps two days.
const LONGEST_INTERVAL: Duration = Duration::from_secs(86_400);

/// Shorter, a chain would have more entries than anybody verifies.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

fn read_signing(section: &mut Section<'_>) -> Option<Signing> {
    let key = section.secret("signing_key");
    let previous_key = section.secret("previous_signing_key");
    let interval: Option<Duration> = section.get("manifest_interval");
    if !section.has("signing_key") {
        for other in ["previous_signing_key", "manifest_interval", "timestamp_url"] {
            if section.has(other) {
                section.wrong(other, "has no meaning without signing_key: nothing is signed");
            }
        }
    }
    if interval.is_some_and(|interval| !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&interval)) {
        section.wrong("manifest_interval", "must be at least 1s and at most 24h");
    }
    Some(Signing { key: key?, previous_key, interval: interval.unwrap_or(Duration::from_secs(3600)) })
}

/// A token is signed, so most authorities are asked without TLS.
fn read_timestamp_url(section: &mut Section<'_>) -> Option<Url> {
    let url: Url = section.get("timestamp_url")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        section.wrong("timestamp_url", "must be a URL such as \"http://timestamp.example.com\"");
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        section
            .wrong("timestamp_url", "must not hold a password; authorities that want one are not supported");
        return None;
    }
    Some(url)
}
