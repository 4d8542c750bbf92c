//! How objects and entries are named.
//!
//! ```text
//! tenant=<guid>/content_type=Audit.Exchange/year=2026/month=11/day=21/hour=18/<ledger>-<first>-<last>-<hash>.ndjson.zst
//! manifests/tenant=<guid>/<ledger>/0000000001.json
//! manifests/tenant=<guid>/<ledger>/0000000001.tsr
//! ```
//!
//! The time is the one at which the object was begun, so what comes late reopens no old folder. `<first>` and `<last>` are the
//! tenant's first and last `Seq` in the object, `<hash>` the first 16 digits of the SHA-256 of the object's first file as it
//! is stored: that of the lines, when there is one. An object's files in several formats have the same name but for its end.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use schemas::{FeedKey, LedgerId, Seq, TenantId};
use serde::{Deserialize, Serialize};

use crate::{hash::unhex, path::ObjectPath};

/// The folder of the manifests.
pub const MANIFESTS: &str = "manifests";
/// How many digits the number in an entry's name has.
const NUMBER_DIGITS: usize = 10;

/// How a file of an object is written; also how its name ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FileFormat {
    /// The raw records, one a line, compressed with zstd (RFC 8878).
    #[serde(rename = "ndjson.zst")]
    NdjsonZstd,
    /// The raw records, one a line, compressed with gzip (RFC 1952).
    #[serde(rename = "ndjson.gz")]
    NdjsonGzip,
    /// Columns of the records, Apache Parquet.
    #[serde(rename = "parquet")]
    Parquet,
}

impl FileFormat {
    /// How a name ends, without the dot before it.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::NdjsonZstd => "ndjson.zst",
            Self::NdjsonGzip => "ndjson.gz",
            Self::Parquet => "parquet",
        }
    }

    /// Whether it holds the raw records line by line, over which the object's Merkle tree stands.
    #[must_use]
    pub const fn is_ndjson(self) -> bool {
        matches!(self, Self::NdjsonZstd | Self::NdjsonGzip)
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.extension())
    }
}

/// An object's name without its folder and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName {
    /// The ledger that the records went through.
    pub ledger: LedgerId,
    /// The tenant's first `Seq` in it.
    pub first_seq: Seq,
    /// The tenant's last `Seq` in it.
    pub last_seq: Seq,
    /// The first 16 digits of the SHA-256 of its first file as it is stored.
    pub short_hash: String,
}

/// The text is no name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not named <ledger>-<first Seq>-<last Seq>-<16 hexadecimal digits>")]
pub struct NotAnObjectName;

impl ObjectName {
    /// The folder for what was begun at this time, of the hive layout.
    #[must_use]
    pub fn hive_folder(feed: FeedKey, begun: DateTime<Utc>) -> String {
        let hour = begun.format("year=%Y/month=%m/day=%d/hour=%H");
        format!("tenant={}/content_type={}/{hour}", feed.tenant, feed.content_type)
    }

    /// Its path in the hive layout.
    #[must_use]
    pub fn hive_path(&self, feed: FeedKey, begun: DateTime<Utc>, format: FileFormat) -> ObjectPath {
        let folder = Self::hive_folder(feed, begun);
        format!("{folder}/{self}.{format}")
            .parse()
            .expect("ids, numbers and times are made of the letters of a path")
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ledger, first_seq, last_seq, short_hash } = self;
        write!(f, "{ledger}-{first_seq}-{last_seq}-{short_hash}")
    }
}

impl FromStr for ObjectName {
    type Err = NotAnObjectName;

    /// Reads a file's name; from the first dot on it is the name's end.
    fn from_str(text: &str) -> Result<Self, NotAnObjectName> {
        let name = text.split('.').next().unwrap_or(text);
        let (ledger, numbers) = name.split_at_checked(36).ok_or(NotAnObjectName)?;
        let mut numbers = numbers.split('-');
        let (Some(""), Some(first), Some(last), Some(short), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(NotAnObjectName);
        };
        let number =
            |text: &str| text.parse().ok().filter(|number: &u64| number.to_string() == text).map(Seq);
        Ok(Self {
            ledger: ledger.parse().map_err(|_| NotAnObjectName)?,
            first_seq: number(first).ok_or(NotAnObjectName)?,
            last_seq: number(last).ok_or(NotAnObjectName)?,
            short_hash: unhex::<8>(short).map(|_| short.to_owned()).ok_or(NotAnObjectName)?,
        })
    }
}

/// One tenant's entries by one ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainKey {
    /// Whose records.
    pub tenant: TenantId,
    /// The ledger that they went through.
    pub ledger: LedgerId,
}

/// A file of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainFile {
    /// An entry, by its number.
    Entry(u64),
    /// The time-stamp of an entry, by its number.
    Timestamp(u64),
}

impl ChainKey {
    /// The folder of its entries.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{MANIFESTS}/tenant={}/{}", self.tenant, self.ledger)
    }

    /// Where an entry lies.
    #[must_use]
    pub fn entry(&self, number: u64) -> ObjectPath {
        self.file(number, "json")
    }

    /// Where the time-stamp of an entry lies.
    #[must_use]
    pub fn timestamp(&self, number: u64) -> ObjectPath {
        self.file(number, "tsr")
    }

    fn file(&self, number: u64, end: &str) -> ObjectPath {
        format!("{}/{number:0NUMBER_DIGITS$}.{end}", self.folder())
            .parse()
            .expect("ids and numbers are made of the letters of a path")
    }

    /// What a path in the folder of the manifests is; `None` when it is nothing of a chain.
    #[must_use]
    pub fn parse(path: &ObjectPath) -> Option<(Self, ChainFile)> {
        let mut parts = path.as_str().split('/');
        let (Some(MANIFESTS), Some(tenant), Some(ledger), Some(file), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let key =
            Self { tenant: tenant.strip_prefix("tenant=")?.parse().ok()?, ledger: ledger.parse().ok()? };
        let (digits, _) = file.split_once('.').filter(|(digits, _)| digits.len() == NUMBER_DIGITS)?;
        let number = digits.parse().ok().filter(|number| *number > 0)?;
        // Written again, so that there is one name for each.
        [(key.entry(number), ChainFile::Entry(number)), (key.timestamp(number), ChainFile::Timestamp(number))]
            .into_iter()
            .find_map(|(name, file)| (name == *path).then_some((key, file)))
    }
}

impl fmt::Display for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant {}, ledger {}", self.tenant, self.ledger)
    }
}

#[cfg(test)]
mod tests {
    use schemas::ContentType;

    use super::*;

    const TENANT: &str = "41463f53-8812-40f4-890f-865bf6e35190";
    const LEDGER: &str = "0f1e2d3c-4b5a-4988-8776-655443322110";

    #[test]
    fn an_object_s_path_says_what_is_in_it() {
        let name = ObjectName {
            ledger: LEDGER.parse().unwrap(),
            first_seq: Seq(7),
            last_seq: Seq(1204),
            short_hash: "ba7816bf8f01cfea".into(),
        };
        let feed = FeedKey { tenant: TENANT.parse().unwrap(), content_type: ContentType::Exchange };
        let path = name.hive_path(feed, "2026-03-04T05:59:59Z".parse().unwrap(), FileFormat::NdjsonZstd);
        assert_eq!(
            path.as_str(),
            "tenant=41463f53-8812-40f4-890f-865bf6e35190/content_type=Audit.Exchange/year=2026/month=03/day=04/hour=05/\
             0f1e2d3c-4b5a-4988-8776-655443322110-7-1204-ba7816bf8f01cfea.ndjson.zst"
        );
        assert_eq!(path.name().parse(), Ok(name));
    }

    #[test]
    fn other_names_are_no_names_of_objects() {
        for bad in [
            "",
            "readme.txt",
            "0f1e2d3c-4b5a-4988-8776-655443322110.json",
            "0f1e2d3c-4b5a-4988-8776-655443322110-1-2.ndjson.zst",
            "0f1e2d3c-4b5a-4988-8776-655443322110-01-2-ba7816bf8f01cfea.parquet",
            "0f1e2d3c-4b5a-4988-8776-655443322110-1-2-ba7816bf8f01cfe.parquet",
            "0f1e2d3c-4b5a-4988-8776-655443322110-1-2-3-ba7816bf8f01cfea.parquet",
        ] {
            assert_eq!(bad.parse::<ObjectName>(), Err(NotAnObjectName), "{bad}");
        }
    }

    #[test]
    fn an_entry_has_one_path() {
        let key = ChainKey { tenant: TENANT.parse().unwrap(), ledger: LEDGER.parse().unwrap() };
        let path = key.entry(12);
        assert_eq!(path.as_str(), format!("manifests/tenant={TENANT}/{LEDGER}/0000000012.json"));
        assert_eq!(ChainKey::parse(&path), Some((key, ChainFile::Entry(12))));
        assert_eq!(ChainKey::parse(&key.timestamp(12)), Some((key, ChainFile::Timestamp(12))));
        for bad in [
            "12.json",
            "0000000012.jsonl",
            "0000000012",
            "x/0000000012.json",
            "+000000012.json",
            "0000000000.json",
            "00000000012.json",
            "18446744073709551615.json",
        ] {
            let path = format!("manifests/tenant={TENANT}/{LEDGER}/{bad}");
            assert!(
                path.parse::<ObjectPath>().ok().and_then(|path| ChainKey::parse(&path)).is_none(),
                "{bad}"
            );
        }
    }
}
