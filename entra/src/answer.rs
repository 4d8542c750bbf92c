//! One exchange with whoever gives tokens: the request goes out once, never follows a redirect, has an end in time, and
//! its answer is bounded and read leniently.

use std::{borrow::Cow, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::{
    RequestBuilder, Response, StatusCode,
    header::{ACCEPT, HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::{
    error::{Service, TokenError, causes_at_host},
    refusal::Refusal,
    token::AccessToken,
};

/// The longest wait for a whole answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read. Tokens have a few KiB.
const MAX_BYTES: usize = 64 * 1024;
/// No longer wait than this is believed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// An answer's status, headers and body.
pub(crate) struct Answer {
    service: Service,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
    asked_at: Instant,
}

/// Sends a request and reads the whole answer.
pub(crate) async fn exchange(
    service: Service,
    request: RequestBuilder,
    timeout: Duration,
) -> Result<Answer, TokenError> {
    // The token's life is counted from before it began, to be on the safe side.
    let asked_at = Instant::now();
    let failed = |error: reqwest::Error| {
        if error.is_timeout() {
            TokenError::TimedOut { service, after: timeout }
        } else {
            TokenError::Unreachable { service, cause: causes_at_host(error) }
        }
    };
    let (client, request) = request.header(ACCEPT, "application/json").timeout(timeout).build_split();
    let request = request.map_err(failed)?;
    let url = request.url().clone();
    let response = client.execute(request).await.map_err(failed)?;
    let status = response.status();
    // A client that follows redirects is against the contract of `TokenSource::new`. It must not go unnoticed.
    if *response.url() != url {
        return Err(TokenError::Redirected { service, status: status.as_u16() });
    }
    let headers = response.headers().clone();
    let body = read_body(response).await.map_err(failed)?;
    let body = body.ok_or(TokenError::Unusable { service, problem: "it is far too long" })?;
    Ok(Answer { service, status, headers, body, asked_at })
}

/// `None` when the body is too long.
async fn read_body(mut response: Response) -> Result<Option<Zeroizing<Vec<u8>>>, reqwest::Error> {
    // A buffer that grew would leave copies of the token behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

#[derive(Deserialize)]
struct RawToken<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow)]
    token_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    expires_in: Option<Seconds<'a>>,
    #[serde(borrow)]
    expires_on: Option<Seconds<'a>>,
}

/// A number, which some endpoints write as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds<'a> {
    Whole(u64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

impl Seconds<'_> {
    fn get(&self) -> Option<u64> {
        match self {
            Self::Whole(seconds) => Some(*seconds),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

impl Answer {
    /// The token, or why there is none. `sent` are the secrets that the request held: they are taken out of whatever
    /// is kept of the answer.
    pub(crate) fn token(self, sent: &[&str]) -> Result<AccessToken, TokenError> {
        let service = self.service;
        let status = self.status.as_u16();
        if self.status.is_success() {
            return self.parse().map_err(|problem| TokenError::Unusable { service, problem });
        }
        if self.status.is_redirection() {
            return Err(TokenError::Redirected { service, status });
        }
        // The metadata service of a virtual machine answers 404 and 410 while it is updated ("How to use managed
        // identities to acquire an access token", "Retry guidance").
        let busy = matches!(status, 408 | 429 | 500..)
            || (service == Service::ManagedIdentity && matches!(status, 404 | 410));
        if busy {
            return Err(TokenError::Unavailable { service, status, retry_after: retry_after(&self.headers) });
        }
        let refusal = Refusal::read(service, status, &self.body, sent);
        Err(refusal.map_or(TokenError::Foreign { service, status }, TokenError::Refused))
    }

    fn parse(&self) -> Result<AccessToken, &'static str> {
        let raw: RawToken<'_> =
            serde_json::from_slice(&self.body).map_err(|_| "it is not the JSON of a token")?;
        if raw.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err("its token is not a bearer token");
        }
        let lifetime = raw.expires_in.as_ref().and_then(Seconds::get).or_else(|| {
            let end = raw.expires_on.as_ref().and_then(Seconds::get)?;
            Some(end.saturating_sub(u64::try_from(Utc::now().timestamp()).unwrap_or_default()))
        });
        let lifetime = lifetime.ok_or("it does not say how long its token lives")?;
        if lifetime == 0 {
            return Err("its token has already ended");
        }
        let token = Zeroizing::new(raw.access_token.into_owned());
        AccessToken::new(&token, Duration::from_secs(lifetime), self.asked_at)
            .map_err(|_| "its token has characters that no token has")
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - Utc::now()).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            service: Service::Entra,
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
            asked_at: Instant::now(),
        }
    }

    #[test]
    fn numbers_may_be_strings() {
        for body in [
            r#"{"access_token":"t","token_type":"Bearer","expires_in":3599}"#,
            r#"{"access_token":"t","token_type":"bearer","expires_in":"3599","expires_on":"1","not_before":"0"}"#,
            r#"{"access_token":"t","expires_in":" 3599 ","ext_expires_in":3599}"#,
        ] {
            assert_eq!(answer(200, body).token(&[]).unwrap().lifetime(), Duration::from_secs(3599), "{body}");
        }
    }

    #[test]
    fn the_end_counts_when_the_life_is_not_told() {
        let end = (Utc::now() + TimeDelta::hours(2)).timestamp();
        for body in [
            format!(r#"{{"access_token":"t","expires_on":{end}}}"#),
            format!(r#"{{"access_token":"t","expires_on":"{end}","expires_in":""}}"#),
        ] {
            let lifetime = answer(200, &body).token(&[]).unwrap().lifetime().as_secs();
            assert!((7100..=7200).contains(&lifetime), "{lifetime}");
        }
    }

    #[test]
    fn a_success_without_a_usable_token_shows_nothing_of_itself() {
        for body in [
            "",
            "<html>hidden</html>",
            r#"{"access_token":"hidden"}"#,
            r#"{"access_token":"hidden","expires_in":0}"#,
            r#"{"access_token":"hidden","expires_in":-5}"#,
            r#"{"access_token":"hidden","expires_in":"soon"}"#,
            r#"{"access_token":"hidden","expires_in":5,"token_type":"pop"}"#,
            r#"{"access_token":"hid den","expires_in":5}"#,
            r#"{"access_token":["hidden"],"expires_in":5}"#,
            r#"{"access_token":"hidden","expires_in":5"#,
        ] {
            let error = answer(200, body).token(&[]).unwrap_err();
            assert!(matches!(error, TokenError::Unusable { .. }), "{body}");
            assert!(!format!("{error} {error:?}").contains("hid"), "{error}");
            assert!(error.retryable());
        }
    }

    #[test]
    fn statuses_say_whether_waiting_helps() {
        for status in [408, 429, 500, 502, 503, 504] {
            let error = answer(status, r#"{"error":"x"}"#).token(&[]).unwrap_err();
            assert!(matches!(error, TokenError::Unavailable { .. }) && error.retryable(), "{status}");
        }
        for status in [400, 401, 403] {
            let error = answer(status, r#"{"error":"x"}"#).token(&[]).unwrap_err();
            assert!(matches!(error, TokenError::Refused(_)) && !error.retryable(), "{status}");
            let error = answer(status, "<html>").token(&[]).unwrap_err();
            assert!(matches!(error, TokenError::Foreign { .. }) && !error.retryable(), "{status}");
        }
        assert!(!answer(307, "").token(&[]).unwrap_err().retryable());
        for body in [r#"{"error":"temporarily_unavailable"}"#, r#"{"error":"x","error_codes":[90033]}"#] {
            assert!(answer(400, body).token(&[]).unwrap_err().retryable(), "{body}");
        }
        let mut local = answer(410, "");
        local.service = Service::ManagedIdentity;
        assert!(local.token(&[]).unwrap_err().retryable());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let wait = |text: &str| {
            let mut throttled = answer(429, "");
            throttled.headers.insert(RETRY_AFTER, text.parse().unwrap());
            throttled.token(&[]).unwrap_err().retry_after()
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("99999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = (Utc::now() + TimeDelta::minutes(10)).to_rfc2822();
        assert!(wait(&later).is_some_and(|wait| wait > Duration::from_secs(500)));
        for bad in ["soon", "-1", ""] {
            assert_eq!(wait(bad), None, "{bad}");
        }
    }
}
