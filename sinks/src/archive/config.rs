//! How an archive sink is configured.

use std::time::Duration;

use archive::{FileFormat, LakeSource, parquet::SortBy};
use entra::SecretSource;
use serde::{Deserialize, Serialize};

/// Configuration of an `archive` sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// An object is closed when its records have at least this many bytes, before they are compressed.
    pub object_bytes: u64,
    /// An object is closed when it was begun this long ago.
    pub object_age: Duration,
    /// Which files an object becomes.
    pub formats: Formats,
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
            formats: Formats::default(),
            signing: None,
            staging_bytes: 4 << 30,
        }
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

/// Which files an object becomes. It keeps that from its beginning to its end, whatever the configuration says by then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// The records one a line, compressed in this way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// The records as columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parquet: Option<Parquet>,
}

impl Default for Formats {
    fn default() -> Self {
        Self { compression: Some(Compression::default()), parquet: None }
    }
}

impl Formats {
    /// Whether the records themselves are in one of the files.
    #[must_use]
    pub fn keep_records(&self) -> bool {
        self.compression.is_some() || self.parquet.as_ref().is_some_and(|parquet| parquet.raw)
    }
}

/// How columns are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parquet {
    /// Whether the record's own bytes are a column.
    pub raw: bool,
    /// How files are divided, sorted and named.
    #[serde(flatten)]
    pub layout: Layout,
}

/// How Parquet files are divided, sorted and named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "layout", rename_all = "snake_case")]
pub enum Layout {
    /// One for each object, in folders by tenant, content type and hour.
    Hive {
        /// What its rows are sorted by.
        sort: SortBy,
    },
    /// One for each class and day in an object, sorted by time, in the folders of Amazon Security Lake.
    SecurityLake {
        /// The custom sources that they are of.
        source: LakeSource,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format that is in ledgers.
    #[test]
    fn what_an_object_began_with_is_read_as_it_was_written() {
        let source = LakeSource::new("mailtrail", "eu-west-1").unwrap();
        let lake = Parquet { raw: true, layout: Layout::SecurityLake { source } };
        let hive = Parquet { raw: false, layout: Layout::Hive { sort: SortBy::User } };
        for (text, compression, parquet) in [
            (r#"{"compression":"gzip"}"#, Some(Compression::Gzip), None),
            (
                r#"{"compression":"zstd","parquet":{"raw":false,"layout":"hive","sort":"user"}}"#,
                Some(Compression::Zstd),
                Some(hive),
            ),
            (
                r#"{"parquet":{"raw":true,"layout":"security_lake","source":{"name":"mailtrail","region":"eu-west-1"}}}"#,
                None,
                Some(lake),
            ),
        ] {
            let formats = Formats { compression, parquet };
            assert_eq!(serde_json::from_str::<Formats>(text).unwrap(), formats);
            assert_eq!(serde_json::to_string(&formats).unwrap(), text);
        }
    }
}
