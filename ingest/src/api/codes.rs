//! The API's error codes: what each means, what it asks for, and what an administrator can do about it.
//!
//! Source: Office 365 Management Activity API reference, "Errors", and what clients have seen beyond it (AF20024,
//! AF50005 and AF50006 are undocumented). The code decides, never the HTTP status: several conditions share 400, and
//! throttling also comes as 403.

use std::fmt;

use schemas::GapReason;

/// What an answer asks the caller to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Passing: try again, a little later each time.
    Retry,
    /// Too many requests: the whole tenant pauses.
    Throttle,
    /// The access token is not taken (any more): get a new one and try once more.
    RefreshToken,
    /// The times or the page asked for are no good (any more): compute the window anew.
    RestartWindow,
    /// There is no enabled subscription.
    StartSubscription,
    /// A start that was not needed: success.
    AlreadyEnabled,
    /// The blob can no longer be had.
    Gap(GapReason),
    /// The API does not know a content id that it listed itself. One is an oddity, several in a row mean that another
    /// cloud or tenant is asked than the one that holds the content.
    SuspectContentId,
    /// Nothing will come of this content type until somebody changes something.
    HaltContentType,
    /// Nothing will come of this tenant until somebody changes something.
    HaltTenant,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $case:ident = $text:literal, $action:expr, $advice:expr;)+) => {
        /// A code of the API's error answers.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum AfCode {
            $($(#[$doc])* $case,)+
            /// A code that is not known here, as the API spelt it.
            Other(Box<str>),
        }

        impl AfCode {
            /// Every code that is known here.
            pub const KNOWN: &'static [Self] = &[$(Self::$case,)+];

            /// The code as the API spells it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$case => $text,)+
                    Self::Other(text) => text,
                }
            }

            /// What it asks the caller to do.
            #[must_use]
            pub const fn action(&self) -> Action {
                match self {
                    $(Self::$case => $action,)+
                    Self::Other(_) => Action::Retry,
                }
            }

            /// What an administrator can do about it; empty when waiting is all.
            #[must_use]
            pub const fn advice(&self) -> &'static str {
                match self {
                    $(Self::$case => $advice,)+
                    Self::Other(_) => "",
                }
            }
        }

        impl From<&str> for AfCode {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$case,)+
                    _ => Self::Other(text.into()),
                }
            }
        }
    };
}

/// How a missing permission is given.
pub const ADD_PERMISSION: &str = "add the application permission ActivityFeed.Read of the Office 365 Management APIs \
     and grant admin consent: Entra admin center > App registrations > the application > API permissions (DLP.All \
     needs ActivityFeed.ReadDlp as well)";

/// How auditing is turned on.
pub const TURN_AUDITING_ON: &str = "check tenant_id, and turn auditing on: Microsoft Purview portal > Audit > Start \
     recording user and admin activity; it can take 60 minutes to take effect";

const OTHER_CLOUD: &str = "check `cloud` and `tenant_id`: the content is kept by another cloud's API host or belongs \
     to another tenant (commercial manage.office.com, gcc manage-gcc.office.com, gcc-high manage.office365.us, dod \
     manage.protection.apps.mil)";

const OUR_MISTAKE: &str = "this is a mistake of mailtrail or of something that rewrites its requests: report it, with \
     this message";

codes! {
    /// The token lacks the permission to read the feed.
    NoPermission = "AF10001", Action::HaltContentType, ADD_PERMISSION;
    /// A required parameter is missing.
    MissingParameter = "AF20001", Action::HaltContentType, OUR_MISTAKE;
    /// A parameter has the wrong type.
    WrongParameterType = "AF20002", Action::HaltContentType, OUR_MISTAKE;
    /// A webhook's expiration lies in the past.
    WebhookExpired = "AF20003", Action::HaltContentType,
        "another program started this subscription with a webhook that has expired: remove its webhook";
    /// The tenant in the URL is not the tenant of the token.
    WrongTenant = "AF20010", Action::HaltTenant,
        "tenant_id is not the tenant that issued the token: check tenant_id and the credential's authority";
    /// The tenant does not exist or was deleted, or auditing is off.
    UnknownTenant = "AF20011", Action::HaltTenant, TURN_AUDITING_ON;
    /// The tenant is misconfigured at Microsoft.
    TenantMisconfigured = "AF20012", Action::HaltTenant,
        "the tenant is misconfigured at Microsoft: open a support request in the Microsoft 365 admin center";
    /// The tenant id is no GUID.
    TenantNotAGuid = "AF20013", Action::HaltTenant, "tenant_id must be the directory's GUID";
    /// The content type is none.
    UnknownContentType = "AF20020", Action::HaltContentType,
        "this cloud does not offer this content type: take it out of content_types";
    /// A webhook did not validate.
    WebhookNotValidated = "AF20021", Action::HaltContentType,
        "another program started this subscription with a webhook that does not answer: remove its webhook";
    /// There is no subscription for the content type.
    NotSubscribed = "AF20022", Action::StartSubscription, "";
    /// An administrator of the tenant or of the service disabled the subscription.
    SubscriptionDisabled = "AF20023", Action::StartSubscription,
        "the subscription was disabled by an administrator of the tenant or of Microsoft; it is started again \
         every 15 minutes, and what is published meanwhile cannot be had";
    /// The subscription was enabled already.
    AlreadyEnabled = "AF20024", Action::AlreadyEnabled, "";
    /// The times do not fit together.
    InvalidTimeRange = "AF20030", Action::RestartWindow, "";
    /// The next page's token is no good (any more).
    InvalidNextPage = "AF20031", Action::RestartWindow, "";
    /// The content does not exist.
    ContentGone = "AF20050", Action::Gap(GapReason::Gone), "";
    /// The content is older than 7 days.
    ContentExpired = "AF20051", Action::Gap(GapReason::Expired), "";
    /// The content id is invalid.
    InvalidContentId = "AF20052", Action::SuspectContentId, OTHER_CLOUD;
    /// More than one language was asked for.
    ManyLanguages = "AF20053", Action::Retry, OUR_MISTAKE;
    /// The language asked for is none.
    UnknownLanguage = "AF20054", Action::Retry, OUR_MISTAKE;
    /// The times are not within 24 hours and 7 days, or not in order.
    TimeRangeTooWide = "AF20055", Action::RestartWindow, "";
    /// Too many requests.
    TooManyRequests = "AF429", Action::Throttle, "";
    /// An internal error.
    Internal = "AF50000", Action::Retry, "";
    /// An internal error, undocumented.
    Internal5 = "AF50005", Action::Retry, "";
    /// An internal error, undocumented.
    Internal6 = "AF50006", Action::Retry, "";
}

impl fmt::Display for AfCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_as_itself() {
        for code in AfCode::KNOWN {
            assert_eq!(&AfCode::from(code.as_str()), code);
        }
        let unknown = AfCode::from("AF99999");
        assert_eq!((unknown.to_string().as_str(), unknown.action()), ("AF99999", Action::Retry));
    }

    #[test]
    fn whatever_halts_says_what_to_do() {
        for code in AfCode::KNOWN {
            if matches!(
                code.action(),
                Action::HaltContentType | Action::HaltTenant | Action::SuspectContentId
            ) {
                assert!(!code.advice().is_empty(), "{code}");
            }
        }
    }
}
