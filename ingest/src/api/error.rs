//! What can go wrong with a call of the API, and what each asks for.

use std::{fmt, time::Duration};

use entra::TokenError;
use reqwest::StatusCode;

use super::{codes::Action, refusal::Refusal};

/// What a body is of, in [`ApiError::TooLarge`]: a page of a listing.
pub(crate) const LISTING: &str = "listing";

/// A blob.
pub(crate) const BLOB: &str = "blob";

/// What was waited for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The beginning of the answer.
    Answer,
    /// The next bytes of the body.
    NextBytes,
    /// The end of the body.
    WholeBody,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "no answer came",
            Self::NextBytes => "the body stopped coming",
            Self::WholeBody => "the body was not complete",
        })
    }
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API, or something on the way, answered with something else than was asked for.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no access token.
    #[error("no access token: {0}")]
    Token(#[source] TokenError),
    /// The host cannot be reached, or the connection broke.
    #[error("cannot reach the API: {cause}")]
    Unreachable {
        /// The host, the error and its causes.
        cause: String,
    },
    /// Something took too long.
    #[error("{waited_for} within {} s", after.as_secs_f32())]
    TimedOut {
        /// What took too long.
        waited_for: Wait,
        /// How long it was waited for.
        after: Duration,
    },
    /// A body ended before it was complete, or is damaged.
    #[error("the body arrived damaged: {cause}")]
    Damaged {
        /// What is wrong with it.
        cause: String,
    },
    /// A body is larger than the bound.
    #[error("the {what} has more than {limit} bytes")]
    TooLarge {
        /// What it is the body of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A body is compressed in a way that was not asked for.
    #[error("the body is encoded as `{encoding}`, which was not asked for")]
    Encoding {
        /// Its encoding.
        encoding: String,
    },
    /// A 200 whose body is neither a list nor an error.
    #[error("the answer is no list: {excerpt}")]
    NotAList {
        /// Its beginning.
        excerpt: String,
    },
    /// The next page is on another host: the token does not go there.
    #[error("the next page is at {found}, and not at {expected}; the token was not sent there")]
    ForeignPage {
        /// Its scheme, host and port.
        found: String,
        /// Those of the configuration.
        expected: String,
    },
    /// The next page's address cannot be read.
    #[error("the next page's address cannot be read")]
    UnreadablePage,
    /// A blob's answer names a next page. Microsoft documents that for listings only ("Office 365 Management Activity API
    /// reference", "Pagination"), so nothing is known of what such a page would hold.
    #[error("the blob's answer names a next page, and blobs have none")]
    BlobContinues,
    /// A listing's pages lead in a circle.
    #[error("the listing's next page was listed before, after {pages} pages")]
    PageLoop {
        /// How many pages there were.
        pages: usize,
    },
    /// The answer is a redirect, which is never followed.
    #[error("HTTP {} redirects to {to}; redirects are not followed", status.as_u16())]
    Redirected {
        /// The status.
        status: StatusCode,
        /// The scheme, host and port that it points to.
        to: String,
    },
    /// All of the window is older than what may be asked for.
    #[error("the window is older than what the API lists")]
    WindowTooOld,
    /// A content id that cannot stand in a URL.
    #[error("the content id cannot stand in a URL")]
    UnusableContentId,
}

impl ApiError {
    /// What it asks for.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::Refused(refusal) => refusal.action,
            Self::Token(error) if !error.retryable() => Action::HaltTenant,
            Self::ForeignPage { .. } | Self::UnreadablePage | Self::PageLoop { .. } | Self::WindowTooOld => {
                Action::RestartWindow
            }
            // A shorter window has smaller pages.
            Self::TooLarge { what: LISTING, .. } => Action::RestartWindow,
            Self::Token(_)
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Damaged { .. }
            | Self::TooLarge { .. }
            | Self::Encoding { .. }
            | Self::NotAList { .. }
            | Self::Redirected { .. }
            | Self::BlobContinues
            | Self::UnusableContentId => Action::Retry,
        }
    }

    /// What an administrator can do about it; empty when waiting is all.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Refused(refusal) => refusal.advice().to_owned(),
            Self::Token(error) => error.advice().to_string(),
            Self::Unreachable { .. } => {
                "check the network, the proxy, the firewall and that extra certificate authorities are configured"
                    .to_owned()
            }
            Self::TooLarge { what: BLOB, limit } => format!(
                "raise max_blob_bytes of this tenant above {limit}; until then the blob is tried once a day, and it \
                 is lost when it expires"
            ),
            Self::BlobContinues => {
                "nothing of it was taken, because the rest would be missing; report it to the makers of mailtrail; \
                 until then the blob is tried again, and it is lost when it expires"
                    .to_owned()
            }
            Self::Redirected { .. } => {
                "check `cloud` or `api`, and whether a proxy answers in the API's place".to_owned()
            }
            Self::ForeignPage { .. } => {
                "nothing was lost, but this is not what Microsoft does: find out who answers in the API's place"
                    .to_owned()
            }
            Self::NotAList { .. } | Self::Encoding { .. } => {
                "find out whether a proxy answers in the API's place".to_owned()
            }
            _ => String::new(),
        }
    }

    /// How long the answer asked to wait; of whoever gives tokens, as far as that is heeded.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            Self::Token(error) => error.retry_after().map(|wait| wait.min(entra::LONGEST_PAUSE)),
            _ => None,
        }
    }

    /// Whether the API itself answered, so that the blob or window that was asked for has something to do with it.
    #[must_use]
    pub const fn answered(&self) -> bool {
        matches!(self, Self::Refused(Refusal { code: Some(_), .. }))
    }

    /// The kind of failure, as metrics spell it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(refusal) if refusal.action == Action::Throttle => "throttled",
            Self::Refused(refusal) if refusal.action == Action::RefreshToken => "unauthorized",
            Self::Refused(_) => "refused",
            Self::Token(_) => "no_token",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::Damaged { .. } | Self::NotAList { .. } | Self::Encoding { .. } => "damaged",
            Self::TooLarge { .. } => "too_large",
            Self::ForeignPage { .. } | Self::UnreadablePage | Self::PageLoop { .. } | Self::BlobContinues => {
                "bad_page"
            }
            Self::Redirected { .. } => "redirected",
            Self::WindowTooOld | Self::UnusableContentId => "not_sent",
        }
    }
}
