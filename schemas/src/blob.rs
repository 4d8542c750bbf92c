//! Feeds and the blobs that they list.

use std::{fmt, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{ContentType, TenantId};

/// One content type of one tenant: what has a watermark of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeedKey {
    /// Whose records.
    pub tenant: TenantId,
    /// Which of them.
    pub content_type: ContentType,
}

impl fmt::Display for FeedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.tenant, self.content_type)
    }
}

/// The API's opaque name of a blob. Observed forms hold digits, letters, `$`, `_` and `-`, but nothing is promised,
/// so any non-empty text up to [`ContentId::MAX_BYTES`] is taken as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentId(Arc<str>);

/// A listed content id that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a content id must have 1 to {} bytes, this one has {bytes}", ContentId::MAX_BYTES)]
pub struct BadContentId {
    /// Its length.
    pub bytes: usize,
}

impl ContentId {
    /// The longest content id that is believed. Real ones have under 100 bytes.
    pub const MAX_BYTES: usize = 2048;

    /// The id as the API spelt it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for ContentId {
    type Error = BadContentId;

    fn try_from(text: &str) -> Result<Self, BadContentId> {
        if (1..=Self::MAX_BYTES).contains(&text.len()) {
            Ok(Self(text.into()))
        } else {
            Err(BadContentId { bytes: text.len() })
        }
    }
}

impl TryFrom<String> for ContentId {
    type Error = BadContentId;

    fn try_from(text: String) -> Result<Self, BadContentId> {
        Self::try_from(text.as_str())
    }
}

impl From<ContentId> for String {
    fn from(id: ContentId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({})", self.0)
    }
}

/// A blob: the unit of work and of proof.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobKey {
    /// The feed that listed it.
    pub feed: FeedKey,
    /// Its name within the feed.
    pub content_id: ContentId,
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.feed, self.content_id)
    }
}

/// A blob as a listing names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBlob {
    /// Which blob.
    pub content_id: ContentId,
    /// When the API made it available (`contentCreated`). Not when its records happened.
    pub created: DateTime<Utc>,
    /// When the API forgets it (`contentExpiration`), 7 days after it was made available.
    pub expires: DateTime<Utc>,
}

/// A tenant's dense number: 1, 2, 3, … in the order in which the ledger took things in, without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A span of time, its start included and its end not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// The first instant in it.
    pub start: DateTime<Utc>,
    /// The first instant after it.
    pub end: DateTime<Utc>,
}

impl TimeRange {
    /// The span's length; zero or negative when it is empty.
    #[must_use]
    pub fn length(&self) -> TimeDelta {
        self.end - self.start
    }

    /// Whether no instant is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// What of it none of the others covers, in rising order.
    #[must_use]
    pub fn without(self, others: &[Self]) -> Vec<Self> {
        let mut others = others.to_vec();
        others.sort_unstable_by_key(|other| other.start);
        let mut left = Vec::new();
        let mut start = self.start;
        for other in others {
            left.push(Self { start, end: other.start.min(self.end) });
            start = start.max(other.end);
        }
        left.push(Self { start, end: self.end });
        left.retain(|part| !part.is_empty());
        left
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = "%Y-%m-%dT%H:%M:%SZ";
        write!(f, "{}..{}", self.start.format(form), self.end.format(form))
    }
}

/// What became of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spooled {
    /// The tenant's number for it.
    pub seq: Seq,
    /// Records in it.
    pub records: u32,
    /// How many of them were dropped as duplicates.
    pub duplicates: u32,
    /// Bytes of the body, inflated.
    pub bytes: u64,
}
