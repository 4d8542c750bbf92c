//! Where an object lies in an archive, the same on a disk and in a bucket.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A relative path such as `tenant=41463f53-…/content_type=Audit.Exchange/…/x.ndjson.zst`.
///
/// Parts are separated by `/` and hold ASCII letters, digits and `. _ = -` only; none is empty, `.` or `..`, or begins with a
/// dot. So a path never leaves the archive, and is spelt alike by a file system, by S3, by Azure and in a URL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectPath(Arc<str>);

/// The text is no path in an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no path in an archive (parts of letters, digits and . _ = - between slashes, at most {} bytes)",
    ObjectPath::MAX_BYTES
)]
pub struct NotAPath {
    /// What was given instead.
    pub text: String,
}

impl ObjectPath {
    /// The longest path: a limit of S3 (1024) less room for a prefix.
    pub const MAX_BYTES: usize = 900;

    /// The path as text, parts separated by `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its last part.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for ObjectPath {
    type Err = NotAPath;

    fn from_str(text: &str) -> Result<Self, NotAPath> {
        let good = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._=-".contains(&b))
        };
        if text.len() <= Self::MAX_BYTES && text.split('/').all(good) {
            Ok(Self(text.into()))
        } else {
            Err(NotAPath { text: text.to_owned() })
        }
    }
}

impl TryFrom<String> for ObjectPath {
    type Error = NotAPath;

    fn try_from(text: String) -> Result<Self, NotAPath> {
        text.parse()
    }
}

impl From<ObjectPath> for String {
    fn from(path: ObjectPath) -> Self {
        path.0.as_ref().to_owned()
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectPath({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_archive() {
        let path: ObjectPath =
            "tenant=x/content_type=Audit.Exchange/hour=03/a-1-2.ndjson.zst".parse().unwrap();
        assert_eq!(path.name(), "a-1-2.ndjson.zst");
        let long = "a".repeat(901);
        for bad in
            ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.b", "a\\b", "a b", "a\0", "ä", "a:b", &long]
        {
            assert!(bad.parse::<ObjectPath>().is_err(), "{bad}");
        }
    }
}
