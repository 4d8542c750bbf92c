//! What happens to every request on its way to a bucket, and to its answer.
//!
//! `object_store` knows nothing of Object Lock, of immutability policies, or of completing a large upload only when the
//! name is free. A [`Wire`] adds the headers for these to the requests that make an object, and signs such a request
//! again. It turns an answer that is neither a success nor one that `object_store` has to see into a [`Refusal`], which
//! keeps what the error text of a library loses: the code, the status, and how long to wait. In a listing, keys that the library
//! cannot hold get names that it can ([`keys`]).

use std::{fmt, future::Future, num::NonZeroU32, pin::Pin, sync::Arc, time::Duration};

use chrono::{DateTime, Days, SecondsFormat, Utc};
use futures_util::TryStreamExt as _;
use object_store::{
    ClientOptions, CredentialProvider as _,
    aws::{AwsAuthorizer, AwsCredentialProvider},
    azure::{AzureAuthorizer, AzureCredential},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService, ReqwestConnector,
    },
};
use reqwest::{
    Method, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, IF_NONE_MATCH, RETRY_AFTER},
};

use super::{
    credentials::AzureIdentity,
    keys,
    target::{Immutability, ObjectLock},
};
use crate::hash::unhex;

/// The most of an answer that is read for what is wrong.
const LONGEST_REFUSAL: usize = 16 * 1024;

/// What a store answered instead of doing what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Its own name for what is wrong, such as `SlowDown`.
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status.as_u16())?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Makes [`Wire`]s.
#[derive(Debug)]
pub(super) struct Connector(pub(super) Additions);

/// What is added to the requests that make an object.
#[derive(Clone)]
pub(super) enum Additions {
    /// Those of S3.
    S3 { lock: Option<ObjectLock>, region: String, credentials: AwsCredentialProvider },
    /// Those of Azure.
    Azure { immutability: Option<Immutability>, account: String, identity: Arc<AzureIdentity> },
    /// None.
    Nothing,
}

impl fmt::Debug for Additions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3 { .. } => "S3",
            Self::Azure { .. } => "Azure",
            Self::Nothing => "Nothing",
        })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Wire { inner, additions: Arc::new(self.0.clone()) }))
    }
}

/// An HTTP client.
#[derive(Debug)]
struct Wire {
    inner: HttpClient,
    additions: Arc<Additions>,
}

impl HttpService for Wire {
    fn call<'life0, 'async_trait>(
        &'life0 self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let mut request = request;
            self.additions.add(&mut request, Utc::now()).await?;
            let completes = request.method() == Method::POST && parameter(&request, "uploadId");
            let head = request.method() == Method::HEAD;
            let lists = request.method() == Method::GET
                && (parameter(&request, "list-type") || value_of(&request, "comp") == Some("list"));
            let again = self.additions.has_tokens().then(|| request.clone());
            let mut answer = self.inner.execute(request).await?;
            // Tokens can be revoked before they end. One more attempt, with a new one, tells.
            if let Some(mut again) = again.filter(|_| answer.status() == StatusCode::UNAUTHORIZED) {
                self.additions.renew_token(&mut again).await?;
                answer = self.inner.execute(again).await?;
            }
            let answer = judge(answer, completes, head).await?;
            if lists { hold(answer, self.additions.keys_are_in()).await } else { Ok(answer) }
        })
    }
}

/// Whether a request has this parameter.
fn parameter(request: &HttpRequest, name: &str) -> bool {
    value_of(request, name).is_some()
}

fn value_of<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.uri().query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

impl Additions {
    /// Adds to a request what it lacks, and signs it again.
    async fn add(&self, request: &mut HttpRequest, now: DateTime<Utc>) -> Result<(), HttpError> {
        match self {
            Self::Nothing => Ok(()),
            Self::S3 { lock, region, credentials } => {
                let more = s3_headers(request, *lock, now);
                if more.is_empty() {
                    return Ok(());
                }
                request.headers_mut().extend(more);
                let credential = credentials.get_credential().await.map_err(unsigned)?;
                let digest = request.headers().get("x-amz-content-sha256");
                let digest = digest.and_then(|digest| digest.to_str().ok()).and_then(unhex::<32>);
                request.headers_mut().remove(AUTHORIZATION);
                AwsAuthorizer::new(&credential, "s3", region)
                    .with_sign_payload(digest.is_some())
                    .try_authorize(request, digest.as_ref().map(|digest| &digest[..]))
                    .map_err(unsigned)
            }
            Self::Azure { immutability, account, identity } => {
                let more = azure_headers(request, *immutability, now);
                if more.is_empty() {
                    return Ok(());
                }
                request.headers_mut().extend(more);
                // Only a shared key signs the headers; a signature or token stands beside them.
                let credential = identity.get_credential().await.map_err(unsigned)?;
                if matches!(*credential, AzureCredential::AccessKey(_)) {
                    request.headers_mut().remove(AUTHORIZATION);
                    AzureAuthorizer::new(&credential, account).try_authorize(request).map_err(unsigned)?;
                }
                Ok(())
            }
        }
    }
}

impl Additions {
    /// The element of XML that a listing's keys stand in.
    fn keys_are_in(&self) -> &'static str {
        match self {
            Self::Azure { .. } => "Name",
            Self::S3 { .. } | Self::Nothing => "Key",
        }
    }

    /// Whether requests are signed with tokens, which may be refused before they end.
    fn has_tokens(&self) -> bool {
        matches!(self, Self::Azure { identity, .. } if identity.has_tokens())
    }

    /// Puts another token in the place of one that was refused.
    async fn renew_token(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        if let Self::Azure { identity, .. } = self {
            let refused = request.headers().get(AUTHORIZATION).cloned();
            let token = identity.another_token(refused.as_ref()).await;
            if let Some(token) = token.map_err(|error| unsigned(error.into()))? {
                request.headers_mut().insert(AUTHORIZATION, token);
            }
        }
        Ok(())
    }
}

fn unsigned(error: object_store::Error) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

/// Until when, `days` from now.
fn until(now: DateTime<Utc>, days: NonZeroU32) -> DateTime<Utc> {
    now.checked_add_days(Days::new(u64::from(days.get()))).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// `PutObject` and `CreateMultipartUpload` take a lock; `CompleteMultipartUpload` takes the condition that the name is
/// free, which `PutObject` has already.
fn s3_headers(request: &HttpRequest, lock: Option<ObjectLock>, now: DateTime<Utc>) -> HeaderMap {
    let mut more = HeaderMap::new();
    let upload = parameter(request, "uploadId");
    let makes = match *request.method() {
        Method::PUT => !upload,
        Method::POST => parameter(request, "uploads"),
        _ => false,
    };
    if let Some(lock) = lock.filter(|_| makes) {
        more.insert("x-amz-object-lock-mode", HeaderValue::from_static(lock.mode.as_str()));
        let until = until(now, lock.days).to_rfc3339_opts(SecondsFormat::Secs, true);
        if let Ok(until) = HeaderValue::from_str(&until) {
            more.insert("x-amz-object-lock-retain-until-date", until);
        }
        // S3 takes an object with a lock only when this names the checksum that comes with it.
        if *request.method() == Method::PUT {
            more.insert("x-amz-sdk-checksum-algorithm", HeaderValue::from_static("SHA256"));
        }
    }
    if *request.method() == Method::POST && upload {
        more.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    more
}

/// `Put Blob` and `Put Block List` take a policy; `Put Block List` takes the condition that the name is free, which
/// `Put Blob` has already.
fn azure_headers(request: &HttpRequest, policy: Option<Immutability>, now: DateTime<Utc>) -> HeaderMap {
    let mut more = HeaderMap::new();
    if *request.method() != Method::PUT {
        return more;
    }
    let list = match value_of(request, "comp") {
        None => false,
        Some("blocklist") => true,
        Some(_) => return more,
    };
    if list {
        more.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    if let Some(policy) = policy {
        let mode = if policy.locked { "Locked" } else { "Unlocked" };
        more.insert("x-ms-immutability-policy-mode", HeaderValue::from_static(mode));
        let until = until(now, policy.days).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(until) = HeaderValue::from_str(&until) {
            more.insert("x-ms-immutability-policy-until-date", until);
        }
    }
    more
}

/// A listing whose keys the library can hold.
async fn hold(answer: HttpResponse, element: &str) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let body = body.bytes().await?;
    let held = std::str::from_utf8(&body).ok().and_then(|listing| keys::held(listing, element));
    let body = held.map_or_else(|| body.into(), HttpResponseBody::from);
    Ok(HttpResponse::from_parts(parts, body))
}

/// Lets through what went well and what `object_store` tells apart by itself.
async fn judge(answer: HttpResponse, completes: bool, head: bool) -> Result<HttpResponse, HttpError> {
    let status = answer.status();
    let passes = matches!(
        status,
        StatusCode::NOT_MODIFIED
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::CONFLICT
            | StatusCode::RANGE_NOT_SATISFIABLE
    );
    // S3 says 200 before it knows whether a large upload can be completed, and what went wrong in the body.
    if (status.is_success() && !completes) || passes || (status == StatusCode::NOT_FOUND && head) {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let text = read(body).await?;
    let refusal = Refusal {
        status,
        code: tagged(&text, "Code")
            .or_else(|| parts.headers.get("x-ms-error-code")?.to_str().ok().map(str::to_owned)),
        message: tagged(&text, "Message").map(|message| one_line(&message)),
        retry_after: retry_after(&parts.headers),
    };
    let missing = matches!(refusal.code.as_deref(), Some("NoSuchBucket" | "ContainerNotFound"));
    let fine = match status {
        StatusCode::NOT_FOUND => !missing,
        _ => status.is_success() && !text.contains("<Error>"),
    };
    if fine {
        return Ok(HttpResponse::from_parts(parts, text.into()));
    }
    tracing::debug!(%refusal, "a store refuses");
    Err(HttpError::new(HttpErrorKind::Unknown, refusal))
}

/// The beginning of an answer. What is behind it cannot matter.
async fn read(body: HttpResponseBody) -> Result<String, HttpError> {
    let mut stream = body.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.try_next().await? {
        let room = LONGEST_REFUSAL.saturating_sub(bytes.len());
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        if bytes.len() >= LONGEST_REFUSAL {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What stands in an element of XML, or in a string of JSON, of that name.
fn tagged(text: &str, name: &str) -> Option<String> {
    let xml = || text.split_once(&format!("<{name}>"))?.1.split_once('<').map(|(value, _)| value);
    let json = || {
        let rest = text.split_once(&format!("\"{}\":", name.to_ascii_lowercase()))?.1;
        rest.trim_start().strip_prefix('"')?.split_once('"').map(|(value, _)| value)
    };
    xml().or_else(json).map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned)
}

/// The first line of a message, without what could confuse a terminal, and not too long.
fn one_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.chars().filter(|letter| !letter.is_control()).take(300).collect()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::parse_from_rfc2822(text).ok()?;
    (at.to_utc() - Utc::now()).to_std().ok()
}
