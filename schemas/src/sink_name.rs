//! The name of a destination.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A sink's name, as in `[sinks.NAME]`: 1 to 64 of `a-z A-Z 0-9 _ -`. It is a key in the ledger: renaming a sink in
/// the configuration makes a new sink.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SinkName(Arc<str>);

/// The text cannot name a sink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot name a sink: use 1 to 64 letters, digits, `_` or `-`")]
pub struct BadSinkName {
    /// What was given instead.
    pub text: String,
}

impl SinkName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SinkName {
    type Err = BadSinkName;

    fn from_str(text: &str) -> Result<Self, BadSinkName> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if fits { Ok(Self(text.into())) } else { Err(BadSinkName { text: text.to_owned() }) }
    }
}

impl TryFrom<String> for SinkName {
    type Error = BadSinkName;

    fn try_from(text: String) -> Result<Self, BadSinkName> {
        text.parse()
    }
}

impl From<SinkName> for String {
    fn from(name: SinkName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SinkName({})", self.0)
    }
}
