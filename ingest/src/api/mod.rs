//! The Office 365 Management Activity API, for one tenant.
//!
//! Every call waits for its turn in the tenant's [budget](crate::budget), carries the bearer token and the
//! `PublisherIdentifier`, and reads the server's clock. A token that is refused is renewed once. What goes wrong is an
//! [`ApiError`], which says what it asks for ([`codes::Action`]) and what an administrator can do.

pub mod body;
pub mod codes;
pub mod error;
pub mod listing;
pub mod refusal;
pub mod subscriptions;
pub mod urls;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use entra::{AccessToken, TokenSource, error::causes_at_host};
use reqwest::{
    Client, Method, Response, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, LOCATION},
};
use schemas::ContentId;
use tokio::time::{Instant, timeout};
use url::Url;

use self::{body::Body, error::Wait};
pub use self::{
    codes::{Action, AfCode},
    error::ApiError,
    refusal::Refusal,
    urls::ApiAddress,
};
use crate::{
    budget::{Budget, Turn},
    grants::Grants,
    health::Requests,
    skew::ServerClock,
};

/// How much of an error answer is read.
const ERROR_BYTES: usize = 16 << 10;

/// How long things may take. The wait for a connection is set in [`HttpSettings`](crate::HttpSettings).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request to the beginning of its answer.
    pub first_byte: Duration,
    /// Between two pieces of a body.
    pub stall: Duration,
    /// A whole body.
    pub whole_body: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            whole_body: Duration::from_secs(600),
        }
    }
}

/// The calls that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `GET /subscriptions/list`
    Subscriptions,
    /// `POST /subscriptions/start`
    Start,
    /// `GET /subscriptions/content`
    List,
    /// `GET /audit/{contentId}`
    Fetch,
}

impl Call {
    /// Every call.
    pub const ALL: [Self; 4] = [Self::Subscriptions, Self::Start, Self::List, Self::Fetch];

    /// The call as metrics spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscriptions => "subscriptions",
            Self::Start => "start",
            Self::List => "list",
            Self::Fetch => "fetch",
        }
    }

    const fn turn(self) -> Turn {
        match self {
            Self::Fetch => Turn::Fetching,
            Self::Subscriptions | Self::Start | Self::List => Turn::Listing,
        }
    }
}

/// The API of one tenant.
#[derive(Debug)]
pub struct ActivityApi {
    pub(crate) address: ApiAddress,
    pub(crate) http: Client,
    pub(crate) tokens: TokenSource,
    pub(crate) budget: Arc<Budget>,
    pub(crate) clock: Arc<ServerClock>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) timeouts: Timeouts,
    /// Told of each token; `None` for those who look at it themselves.
    pub(crate) grants: Option<Arc<Grants>>,
}

/// An answer with the status 200. What came of the request is known when its body was read:
/// [`ActivityApi::came_to`] has to be told.
pub(crate) struct Answer<T> {
    pub(crate) response: Response,
    pub(crate) sent: Sent,
    pub(crate) server_time: Option<DateTime<Utc>>,
    /// What was made together with the URL.
    pub(crate) made: T,
}

/// A request that was answered with the status 200.
#[derive(Debug, Clone, Copy)]
#[must_use = "a body may hold an error, which counts like one with a status of its own"]
pub(crate) struct Sent {
    call: Call,
    at: Instant,
    retry_after: Option<Duration>,
}

impl ActivityApi {
    /// Begins to fetch a blob. What its body comes to is for [`ActivityApi::came_to`].
    ///
    /// # Errors
    ///
    /// Any [`ApiError`] of a call.
    pub(crate) async fn fetch(&self, content_id: &ContentId) -> Result<(Body, Sent), ApiError> {
        let url = self.address.blob(content_id).ok_or(ApiError::UnusableContentId)?;
        let answer = self.send(Call::Fetch, Method::GET, || plain(Some(&url))).await?;
        // Wherever the next page is: without it the blob would look complete.
        let body = match self.address.next_page(answer.response.headers()) {
            Ok(None) => Body::new(answer.response, &self.timeouts),
            Ok(Some(_)) | Err(_) => Err(ApiError::BlobContinues),
        };
        match body {
            Ok(body) => Ok((body, answer.sent)),
            Err(mut error) => {
                self.came_to(answer.sent, Some(&mut error));
                Err(error)
            }
        }
    }

    /// Sends a request when its turn has come. The URL is made only then.
    pub(crate) async fn send<T>(
        &self,
        call: Call,
        method: Method,
        make: impl Fn() -> Result<(Url, T), ApiError>,
    ) -> Result<Answer<T>, ApiError> {
        let mut renewed = false;
        loop {
            self.budget.turn(call.turn()).await;
            let (url, made) = make()?;
            let token = match self.tokens.token().await {
                Ok(token) => token,
                Err(error) => {
                    self.requests.count(call, "no_token");
                    let error = ApiError::Token(error);
                    if let Some(wait) = error.retry_after() {
                        // Nothing comes of a request without a token, whichever call it is.
                        self.budget.pause(wait);
                    }
                    return Err(error);
                }
            };
            if let Some(grants) = &self.grants {
                grants.look(&token);
            }
            match self.send_once(call, method.clone(), url, &token).await {
                Ok((response, sent, server_time)) => {
                    return Ok(Answer { response, sent, server_time, made });
                }
                Err(error) => {
                    self.requests.count(call, error.kind());
                    let refresh = error.action() == Action::RefreshToken;
                    let no_permission =
                        matches!(&error, ApiError::Refused(Refusal { code: Some(AfCode::NoPermission), .. }));
                    if refresh || no_permission {
                        // A permission that is granted later is in new tokens only.
                        self.tokens.invalidate(&token);
                    }
                    if refresh && !renewed {
                        renewed = true;
                        continue;
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn send_once(
        &self,
        call: Call,
        method: Method,
        url: Url,
        token: &AccessToken,
    ) -> Result<(Response, Sent, Option<DateTime<Utc>>), ApiError> {
        let mut request = self
            .http
            .request(method.clone(), url)
            .header(AUTHORIZATION, token.authorization_header())
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "gzip");
        if method == Method::POST {
            // Some front ends refuse a POST without a length.
            request = request.header(CONTENT_LENGTH, 0).body("");
        }
        let sent_at = Instant::now();
        let response = match timeout(self.timeouts.first_byte, request.send()).await {
            Err(_) => {
                let after = self.timeouts.first_byte;
                return Err(ApiError::TimedOut { waited_for: Wait::Answer, after });
            }
            Ok(Err(error)) => {
                return Err(ApiError::Unreachable { cause: causes_at_host(error) });
            }
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status == StatusCode::OK {
            let server_time = self.clock.observe(response.headers());
            let retry_after = refusal::retry_after(response.headers(), self.clock.now());
            return Ok((response, Sent { call, at: sent_at, retry_after }, server_time));
        }
        if status.is_redirection() {
            return Err(redirected(&response));
        }
        let headers = response.headers().clone();
        let body = match Body::new(response, &self.timeouts) {
            Ok(body) => body.beginning(ERROR_BYTES).await,
            Err(_) => Vec::new(),
        };
        let retry_after = refusal::retry_after(&headers, self.clock.now());
        let refusal = Refusal::read(status, &body, retry_after, Some(token.expose()));
        if refusal.code.is_some() {
            // Only the API's own answers tell its time: a proxy's could tell another.
            self.clock.observe(&headers);
        }
        self.heed(&refusal, sent_at);
        Err(refusal.into())
    }

    /// Does what a refusal asks of the whole tenant: to send fewer requests, or none for a while.
    fn heed(&self, refusal: &Refusal, sent_at: Instant) {
        if refusal.action == Action::Throttle {
            self.requests.throttled(self.budget.throttled(sent_at, refusal.retry_after));
        } else if let Some(wait) = refusal.retry_after.filter(|_| refusal.status.is_server_error()) {
            self.budget.pause(wait);
        }
    }

    /// Counts what came of a request that was answered with the status 200, now that its body was read. An error of the
    /// API in it, throttling above all, counts like one with a status of its own.
    pub(crate) fn came_to(&self, sent: Sent, error: Option<&mut ApiError>) {
        if let Some(error) = error
            && let ApiError::Refused(refusal) = error
        {
            refusal.retry_after = refusal.retry_after.or(sent.retry_after);
            self.heed(refusal, sent.at);
            self.requests.count(sent.call, error.kind());
        } else {
            self.requests.count(sent.call, "ok");
            self.budget.answered();
        }
    }

    /// Reads the body of an answer, and counts what came of the request.
    pub(crate) async fn read<T>(
        &self,
        response: Response,
        sent: Sent,
        (what, limit): (&'static str, u64),
        understand: impl FnOnce(&[u8]) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let whole = async { Body::new(response, &self.timeouts)?.whole(what, limit).await };
        let mut read = whole.await.and_then(|body| understand(&body));
        self.came_to(sent, read.as_mut().err());
        read
    }
}

/// How much of an answer is read that is known to be small.
const SMALL: (&str, u64) = ("answer", 1 << 20);

/// What a 200 that is no list means: an object is an error, sent with the wrong status.
fn no_list(body: &[u8]) -> ApiError {
    let refusal = Refusal::read(StatusCode::OK, body, None, None);
    if refusal.code.is_some() {
        return refusal.into();
    }
    let excerpt = if body.is_empty() { "it is empty".to_owned() } else { refusal.message };
    ApiError::NotAList { excerpt }
}

fn redirected(response: &Response) -> ApiError {
    let to = response
        .headers()
        .get(LOCATION)
        .and_then(|location| response.url().join(location.to_str().ok()?).ok())
        .map_or_else(|| "an unreadable address".to_owned(), |url| urls::origin_of(&url));
    ApiError::Redirected { status: response.status(), to }
}

/// A URL that was made before its turn came, because nothing in it depends on the time.
fn plain(url: Option<&Url>) -> Result<(Url, ()), ApiError> {
    url.map(|url| (url.clone(), ())).ok_or(ApiError::UnusableContentId)
}

/// Drops a byte order mark.
pub(crate) fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}
