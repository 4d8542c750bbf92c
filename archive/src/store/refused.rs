//! From an error of a request to a [`StoreError`] that says what helps.

use object_store::{Error, client::HttpError};
use reqwest::StatusCode;

use super::{StoreError, bucket::Kind, credentials::NoCredential, wire::Refusal};

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Put,
    Get,
    List,
}

impl Doing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "read",
            Self::List => "list",
        }
    }
}

/// What an error means.
pub(super) fn explain(kind: Kind, place: &str, doing: Doing, object: &str, error: &Error) -> StoreError {
    if let Error::NotFound { .. } = error {
        return match doing {
            Doing::Get => StoreError::NotFound { object: object.to_owned() },
            Doing::Put | Doing::List => no_bucket(place),
        };
    }
    let (mut cause, mut transport) = (Some(error as &(dyn std::error::Error + 'static)), None);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return refused(kind, place, doing, object, refusal);
        }
        if let Some(error) = error.downcast_ref::<NoCredential>() {
            return match error.clone() {
                NoCredential::Secret(error) => StoreError::Secret(error),
                NoCredential::Token(error) => StoreError::Token { error },
                malformed @ NoCredential::Malformed { .. } => StoreError::Settings(malformed.to_string()),
            };
        }
        if error.is::<HttpError>() {
            transport = Some(error);
        }
        cause = error.source();
    }
    // The library's own text names the address, in which a secret could stand; a failed transport says enough.
    let why = match transport {
        Some(error) => innermost(error),
        None => innermost(error),
    };
    let doing = format!("{} {object}", doing.as_str());
    StoreError::Unavailable { doing, why, retry_after: None }
}

/// What caused it all, and what that means for whoever asked.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // Many an error repeats what caused it.
        texts.retain(|outer| !outer.contains(&text));
        texts.push(text);
        cause = error.source();
    }
    texts.join(": ")
}

fn refused(kind: Kind, place: &str, doing: Doing, object: &str, refusal: &Refusal) -> StoreError {
    let code = refusal.code.as_deref().unwrap_or_default();
    let why = refusal.to_string();
    let retry_after = refusal.retry_after;
    let status = refusal.status;
    if matches!(code, "NoSuchBucket" | "ContainerNotFound") {
        return no_bucket(place);
    }
    let slow = ["SlowDown", "ServerBusy", "RequestLimitExceeded", "Throttling", "TooManyRequests"];
    if slow.contains(&code)
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    {
        return StoreError::Throttled { place: place.to_owned(), why, retry_after };
    }
    let passing = ["RequestTimeout", "InternalError", "OperationTimedOut"];
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT || passing.contains(&code) {
        let doing = format!("{} {object}", doing.as_str());
        return StoreError::Unavailable { doing, why, retry_after };
    }
    let stale = ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"];
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) || stale.contains(&code) {
        let what = format!("to {} {object}", doing.as_str());
        return StoreError::Denied { what, why, advice: right(kind, doing, code) };
    }
    let advice = if why.contains("Object Lock") || why.contains("ObjectLock") {
        "Object Lock needs a bucket that was made with it; enable it there, or take object_lock out"
    } else if status.is_redirection() || code == "AuthorizationHeaderMalformed" {
        "the bucket is elsewhere: set region to the bucket's own"
    } else if why.contains("mmutability") {
        "immutability needs a container with version-level immutability support; enable it there, or take it out"
    } else {
        "check the target's settings against what it says"
    };
    StoreError::Refused { place: place.to_owned(), doing: doing.as_str(), why, advice }
}

fn no_bucket(place: &str) -> StoreError {
    StoreError::NoTarget { what: place.to_owned(), advice: "check its name, or make it: mailtrail does not" }
}

/// Which right is missing.
fn right(kind: Kind, doing: Doing, code: &str) -> String {
    let text = match (kind, code) {
        (_, "RequestTimeTooSkewed") => "set this machine's clock",
        (
            Kind::S3 { .. },
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken"
            | "TokenRefreshRequired",
        ) => "check access_key_id, secret_access_key and session_token",
        (Kind::Azure, "AuthenticationFailed" | "InvalidAuthenticationInfo") => {
            "check the account key, or the shared access signature and its expiry, and this machine's clock"
        }
        (Kind::Azure, "AuthorizationFailure") => {
            "the storage account's network rules keep this machine out, or the shared access signature lacks a right"
        }
        (Kind::Azure, _) => {
            "give the identity the role Storage Blob Data Contributor on the container, \
             or the shared access signature the rights racwl"
        }
        (Kind::S3 { locks }, _) => match (doing, locks) {
            (Doing::Put, true) => "allow s3:PutObject, s3:PutObjectRetention and s3:AbortMultipartUpload",
            (Doing::Put, false) => "allow s3:PutObject and s3:AbortMultipartUpload",
            (Doing::Get, _) => {
                "allow s3:GetObject, and s3:ListBucket, without which an object that is not there looks like this"
            }
            (Doing::List, _) => "allow s3:ListBucket on the bucket itself",
        },
        (Kind::Gcs, _) => match doing {
            Doing::Put => "give the service account the role roles/storage.objectCreator",
            Doing::Get | Doing::List => "give the service account the role roles/storage.objectViewer",
        },
    };
    text.to_owned()
}
