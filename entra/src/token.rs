//! An access token, and what stands in it.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// The life of a token is never believed to be longer.
const LONGEST_LIFE: Duration = Duration::from_secs(48 * 3600);
/// A token is renewed at least this long before its end, if it lives long enough.
const LEAST_LEAD: Duration = Duration::from_secs(300);
/// A token is not given out so shortly before its end that it could end on the way.
const LAST_MOMENT: Duration = Duration::from_secs(30);

/// Bytes that prove who we are. Cloning is cheap; clones are the same token.
#[derive(Clone)]
pub struct AccessToken(Arc<Inner>);

struct Inner {
    text: SecretString,
    lifetime: Duration,
    renew_at: Instant,
    usable_until: Instant,
    ends_at: Instant,
}

/// The text cannot be a bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAToken;

impl AccessToken {
    /// A token that was asked for at `asked_at` and lives for `lifetime` from then. The monotonic clock decides, so a
    /// wall clock that is set changes nothing; where that clock stands still while a machine sleeps, the API's 401 and
    /// [`TokenSource::invalidate`](crate::TokenSource::invalidate) settle it.
    pub(crate) fn new(text: &str, lifetime: Duration, asked_at: Instant) -> Result<Self, NotAToken> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NotAToken);
        }
        let lifetime = lifetime.min(LONGEST_LIFE);
        let lead = (lifetime / 4).max(LEAST_LEAD).min(lifetime / 2);
        // Many tenants of one process, and many processes, should not ask in the same second.
        let jitter = lead.mul_f64(rand::random_range(0.0..0.1));
        Ok(Self(Arc::new(Inner {
            text: SecretString::from(text),
            lifetime,
            renew_at: asked_at + (lifetime - lead).saturating_sub(jitter),
            usable_until: asked_at + (lifetime - LAST_MOMENT.min(lifetime / 10)),
            ends_at: asked_at + lifetime,
        })))
    }

    /// The value of an `Authorization` header, marked as sensitive.
    #[must_use]
    pub fn authorization_header(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Bearer {}", self.expose()));
        let mut value = HeaderValue::from_str(&text).expect("a token of graphic ASCII fits into a header");
        value.set_sensitive(true);
        value
    }

    /// The token itself, for protocols other than HTTP and for scrubbing what others say.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.text.expose_secret()
    }

    /// How long the token lived when it was new.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.0.lifetime
    }

    /// How long the token still lives.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.0.ends_at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.0.renew_at
    }

    pub(crate) fn is_usable(&self, now: Instant) -> bool {
        now < self.0.usable_until
    }

    /// Whether both are the very same answer of Entra.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What stands in the token, for messages only: **nothing of it is verified**, and Microsoft says that a client
    /// must not rely on it. `None` when the token is not a readable JWT.
    #[must_use]
    pub fn claims(&self) -> Option<Claims> {
        let payload = self.expose().split('.').nth(1)?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let raw: RawClaims = serde_json::from_slice(&json).ok()?;
        let text = |value: Option<Value>| match value? {
            Value::String(text) => Some(text),
            _ => None,
        };
        let several = |value: Option<Value>| match value {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.into_iter().filter_map(|value| text(Some(value))).collect(),
            _ => Vec::new(),
        };
        Some(Claims {
            tenant_id: text(raw.tid),
            app_id: text(raw.appid).or_else(|| text(raw.azp)),
            audience: several(raw.aud).into_iter().next(),
            roles: several(raw.roles),
            expires: raw.exp.and_then(|exp| exp.as_i64()).and_then(|exp| DateTime::from_timestamp(exp, 0)),
        })
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("lifetime", &self.0.lifetime).finish_non_exhaustive()
    }
}

/// What stands in a token, unverified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// `tid`: the tenant that the token is good for.
    pub tenant_id: Option<String>,
    /// `appid` or `azp`: the application's client id.
    pub app_id: Option<String>,
    /// `aud`: the resource that the token is good for.
    pub audience: Option<String>,
    /// `roles`: what the application was consented to, e.g. `ActivityFeed.Read`.
    pub roles: Vec<String>,
    /// `exp`: the token's end.
    pub expires: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct RawClaims {
    tid: Option<Value>,
    appid: Option<Value>,
    azp: Option<Value>,
    aud: Option<Value>,
    roles: Option<Value>,
    exp: Option<Value>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(text: &str, seconds: u64) -> AccessToken {
        AccessToken::new(text, Duration::from_secs(seconds), Instant::now()).unwrap()
    }

    fn jwt(claims: &str) -> AccessToken {
        token(&format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(claims)), 3599)
    }

    #[test]
    fn the_header_is_sensitive_and_nothing_shows_the_token() {
        let token = token("header.payload.signature", 60);
        let header = token.authorization_header();
        assert_eq!(header.as_bytes(), b"Bearer header.payload.signature");
        assert!(header.is_sensitive());
        assert!(!format!("{token:?} {header:?} {:?}", token.claims()).contains("payload"));
    }

    #[test]
    fn what_does_not_fit_into_a_header_is_no_token() {
        for bad in ["", "a b", "a\nb", "a\r\nX-Evil: 1", "ä"] {
            assert_eq!(AccessToken::new(bad, Duration::from_secs(1), Instant::now()).unwrap_err(), NotAToken);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_early_and_not_used_to_its_last_moment() {
        // (lifetime, renewal at the latest, renewal at the earliest, usable until), in seconds
        for (lifetime, latest, earliest, usable) in [
            (3600, 2700, 2610, 3570),
            (86_400, 64_800, 62_640, 86_370),
            (1200, 900, 870, 1170),
            (600, 300, 270, 570),
            (60, 30, 27, 54),
            (1, 1, 0, 1),
        ] {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let token = token("x", lifetime);
            assert!(token.is_due(at(latest)), "{lifetime}");
            assert!(earliest == 0 || !token.is_due(at(earliest) - Duration::from_millis(1)), "{lifetime}");
            assert!(!token.is_usable(at(usable)), "{lifetime}");
            assert!(token.is_usable(at(usable - 1)), "{lifetime}");
            assert_eq!(token.remaining(), Duration::from_secs(lifetime));
        }
        assert_eq!(token("x", u64::MAX).lifetime(), LONGEST_LIFE);
    }

    #[test]
    fn claims_are_read_leniently() {
        let claims =
            jwt(r#"{"tid":"41463f53","appid":"0f1e2d3c","aud":"https://manage.office.com","exp":1700000000,
                "roles":["ActivityFeed.Read",7,"ServiceHealth.Read"],"other":{}}"#)
            .claims()
            .unwrap();
        assert_eq!(
            claims,
            Claims {
                tenant_id: Some("41463f53".to_owned()),
                app_id: Some("0f1e2d3c".to_owned()),
                audience: Some("https://manage.office.com".to_owned()),
                roles: vec!["ActivityFeed.Read".to_owned(), "ServiceHealth.Read".to_owned()],
                expires: DateTime::from_timestamp(1_700_000_000, 0),
            }
        );
        let odd = jwt(r#"{"tid":7,"azp":"a","aud":["x","y"],"roles":"one","exp":"soon"}"#).claims().unwrap();
        assert_eq!(odd.tenant_id, None);
        assert_eq!(odd.app_id.as_deref(), Some("a"));
        assert_eq!(odd.audience.as_deref(), Some("x"));
        assert_eq!(odd.roles, ["one"]);
        assert_eq!(odd.expires, None);
        assert_eq!(jwt("{}").claims(), Some(Claims::default()));
        for opaque in [jwt("[]"), jwt("no json"), token("opaque", 1), token("a.!.c", 1)] {
            assert_eq!(opaque.claims(), None);
        }
    }

    proptest! {
        #[test]
        fn no_token_breaks_the_reader(text in "[!-~]{1,80}", claims in ".{0,80}") {
            let _ = token(&text, 1).claims();
            let _ = jwt(&claims).claims();
        }
    }
}
