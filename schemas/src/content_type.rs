//! The content types of the Management Activity API.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A kind of content that a tenant can be subscribed to. The API knows these five and answers AF20020 to any
/// other (Office 365 Management Activity API reference, "Working with the Office 365 Management Activity API").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ContentType {
    /// Microsoft Entra ID sign-ins and directory changes.
    AzureActiveDirectory,
    /// Exchange mailbox and admin audit records.
    Exchange,
    /// SharePoint and OneDrive.
    SharePoint,
    /// Every workload that has no content type of its own.
    General,
    /// Data loss prevention events of all workloads; needs `ActivityFeed.ReadDlp` to be useful.
    DlpAll,
}

/// The text names no content type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown content type `{text}`; the API knows Audit.Exchange, Audit.AzureActiveDirectory, Audit.SharePoint, \
     Audit.General and DLP.All"
)]
pub struct UnknownContentType {
    /// What was given instead.
    pub text: String,
}

impl ContentType {
    /// Every content type.
    pub const ALL: [Self; 5] =
        [Self::AzureActiveDirectory, Self::Exchange, Self::SharePoint, Self::General, Self::DlpAll];

    /// The name as the API spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AzureActiveDirectory => "Audit.AzureActiveDirectory",
            Self::Exchange => "Audit.Exchange",
            Self::SharePoint => "Audit.SharePoint",
            Self::General => "Audit.General",
            Self::DlpAll => "DLP.All",
        }
    }
}

impl FromStr for ContentType {
    type Err = UnknownContentType;

    fn from_str(text: &str) -> Result<Self, UnknownContentType> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownContentType { text: text.to_owned() })
    }
}

impl TryFrom<String> for ContentType {
    type Error = UnknownContentType;

    fn try_from(text: String) -> Result<Self, UnknownContentType> {
        text.parse()
    }
}

impl From<ContentType> for String {
    fn from(kind: ContentType) -> Self {
        kind.as_str().to_owned()
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
