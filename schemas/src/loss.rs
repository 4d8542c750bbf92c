//! What cannot be had any more, and why: gaps and holes. Both are counted, recorded and shown, never silent.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The text names no reason; a newer version wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason `{text}`")]
pub struct UnknownReason {
    /// What was found instead.
    pub text: String,
}

macro_rules! reason {
    ($(#[$doc:meta])* $name:ident { $($(#[$case_doc:meta])* $case:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$case_doc])* $case,)+
        }

        impl $name {
            /// The reason as the ledger, the metrics and the reports spell it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$case => $text,)+
                }
            }
        }

        impl FromStr for $name {
            type Err = UnknownReason;

            fn from_str(text: &str) -> Result<Self, UnknownReason> {
                match text {
                    $($text => Ok(Self::$case),)+
                    _ => Err(UnknownReason { text: text.to_owned() }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

reason! {
    /// Why a blob that is known to exist became a gap.
    GapReason {
        /// The API answered AF20051: its content has expired.
        Expired = "expired",
        /// The API answered AF20050: its content does not exist.
        Gone = "gone",
        /// Its `contentExpiration` passed before any attempt succeeded.
        ExpiryPassed = "expiry_passed",
    }
}

reason! {
    /// Why a span of a feed was not, or not wholly, listed.
    HoleReason {
        /// Nothing listed it until it was older than the API's seven days.
        TooOld = "too_old",
        /// The subscription was disabled: the API keeps nothing for such a time.
        SubscriptionDisabled = "subscription_disabled",
        /// A listing of it named content without an id that it could be fetched by.
        NamesNoBlob = "names_no_blob",
    }
}
