//! What the archive sink keeps in the ledger.
//!
//! It is JSON, so that it can be read in the ledger by eye:
//!
//! ```json
//! {"version":1,
//!  "open":[{"span":7,"tenant":"…","content_type":"Audit.Exchange","began":"2026-01-02T03:04:05Z",
//!           "settings":{"compression":"zstd"},"bytes":4096,"journal":812}],
//!  "sealed":[{"span":5,"tenant":"…","content_type":"…","began":"…","settings":{…},"bytes":…,"journal":…,
//!             "object":{…}}]}
//! ```
//!
//! | key | meaning |
//! |---|---|
//! | `settings` | which files the object becomes ([`Formats`]): what was configured when it was begun |
//! | `open` | what was open when the sink was last closed in peace, and how far its files reached: `SPAN.ndjson` and `SPAN.works` in the staging folder. Absent while the sink runs: what is open then is made anew after a crash |
//! | `sealed` | objects, as a manifest's entry names them ([`SealedObject`]), that have a name and a hash, and whether they are put is not certain: `SPAN.object`, `SPAN.1.object`, … and `SPAN.works` in the staging folder. They are put under that name with these bytes and no others |
//!
//! What else is in it is of the manifests: [`Manifests`].

use archive::{SealedFile, SealedObject};
use chrono::{DateTime, Utc};
use schemas::{ContentType, FeedKey, TenantId};
use serde::{Deserialize, Serialize};

use super::{config::Formats, manifests::Manifests, staging::Kind};
use crate::versioned::{self, Unreadable};

const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) open: Vec<OnDisk>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sealed: Vec<SealedOnDisk>,
    #[serde(flatten)]
    pub(super) manifests: Manifests,
}

/// A span whose files are on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OnDisk {
    pub(super) span: u64,
    tenant: TenantId,
    content_type: ContentType,
    pub(super) began: DateTime<Utc>,
    #[serde(rename = "settings")]
    pub(super) formats: Formats,
    /// How far its whole works reach.
    pub(super) bytes: u64,
    /// How long their journal is.
    pub(super) journal: u64,
}

/// A span that is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SealedOnDisk {
    #[serde(flatten)]
    pub(super) span: OnDisk,
    pub(super) object: SealedObject,
}

impl SealedOnDisk {
    /// Which file of the staging folder this file of the object is.
    pub(super) fn kind_of(&self, file: &SealedFile) -> Kind {
        let at = self.object.files.iter().position(|of| of == file).unwrap_or_default();
        Kind::File(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

impl OnDisk {
    pub(super) fn new(
        span: u64,
        feed: FeedKey,
        began: DateTime<Utc>,
        formats: Formats,
        (bytes, journal): (u64, u64),
    ) -> Self {
        let FeedKey { tenant, content_type } = feed;
        Self { span, tenant, content_type, began, formats, bytes, journal }
    }

    pub(super) fn feed(&self) -> FeedKey {
        FeedKey { tenant: self.tenant, content_type: self.content_type }
    }
}

impl State {
    pub(super) fn new(open: Vec<OnDisk>, sealed: Vec<SealedOnDisk>, manifests: Manifests) -> Self {
        Self { version: VERSION, open, sealed, manifests }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names, numbers and times are always JSON")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        versioned::decode(bytes, VERSION)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The format that is in ledgers: whoever changes it raises the version and reads the old one.
    pub(in super::super) fn version_1() -> String {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let span = |number: u32| {
            format!(
                r#""span":{number},"tenant":"41463f53-8812-40f4-890f-865bf6e35190","content_type":"Audit.Exchange","began":"2026-01-02T03:04:05Z","settings":{{"compression":"gzip"}},"bytes":4096,"journal":812"#
            )
        };
        format!(
            r#"{{"version":1,"open":[{{{}}}],"sealed":[{{{},"object":{{"content_type":"Audit.Exchange","first_seq":1,"last_seq":40,"records":3,"first_creation_time":"2026-01-01T00:00:00Z","last_creation_time":null,"merkle_root":"{hash}","files":[{{"path":"tenant=x/a-1-40.ndjson.gz","format":"ndjson.gz","sha256":"{hash}","bytes":77,"records":3}}]}}}}]}}"#,
            span(7),
            span(5)
        )
    }

    #[test]
    fn version_1_is_read_as_it_was_written() {
        let text = version_1();
        let state = State::decode(text.as_bytes()).unwrap();
        assert_eq!((state.open[0].span, state.sealed[0].span.bytes), (7, 4096));
        assert_eq!(std::str::from_utf8(&state.encode()).unwrap(), text);
        assert_eq!(
            State::decode(br#"{"version":1}"#).unwrap(),
            State::new(Vec::new(), Vec::new(), Manifests::default())
        );
    }

    #[test]
    fn what_it_cannot_know_is_refused() {
        assert!(matches!(State::decode(br#"{"version":2,"x":[]}"#), Err(Unreadable::Newer { found: 2, .. })));
        assert!(matches!(State::decode(b"\x00"), Err(Unreadable::Malformed(_))));
    }
}
