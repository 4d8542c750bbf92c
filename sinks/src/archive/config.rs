//! How an archive sink is configured.

use std::time::Duration;

use archive::FileFormat;
use entra::SecretSource;
use serde::{Deserialize, Serialize};

/// Configuration of an `archive` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// An object is closed when its records have at least this many bytes, before they are compressed.
    pub object_bytes: u64,
    /// An object is closed when it was begun this long ago.
    pub object_age: Duration,
    /// How objects are compressed.
    pub compression: Compression,
    /// The signed manifests. `None` makes none.
    pub signing: Option<Signing>,
    /// How many bytes of the disk what is open or waits to be put may take. Objects are closed early at half of it.
    pub staging_bytes: u64,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            object_bytes: 128 << 20,
            object_age: Duration::from_secs(3600),
            compression: Compression::default(),
            signing: None,
            staging_bytes: 4 << 30,
        }
    }
}

impl ArchiveConfig {
    pub(super) fn settings(&self) -> Settings {
        Settings { compression: self.compression }
    }
}

/// How manifests are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// Where the private key is.
    pub key: SecretSource,
    /// Where the one is that signed until now, when the key is to be changed.
    pub previous_key: Option<SecretSource>,
    /// How often each tenant's manifest gets an entry.
    pub interval: Duration,
}

/// How the NDJSON of an object is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Zstandard, level 3, with a checksum.
    #[default]
    Zstd,
    /// gzip, level 6.
    Gzip,
}

impl Compression {
    /// The format of the files.
    #[must_use]
    pub fn format(self) -> FileFormat {
        match self {
            Self::Zstd => FileFormat::NdjsonZstd,
            Self::Gzip => FileFormat::NdjsonGzip,
        }
    }
}

/// What an object keeps from its beginning to its end, whatever the configuration says by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) compression: Compression,
}
