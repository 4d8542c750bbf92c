//! Answers that are not what was asked for: the API's errors, and whatever stands on the way to it.
//!
//! The body is read for a code and a message in every form that was seen. What is kept of it is short, on one line, and
//! without tokens: some proxies repeat the request that they refuse.

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::{
    StatusCode,
    header::{DATE, HeaderMap, RETRY_AFTER},
};
use serde_json::Value;

use super::codes::{Action, AfCode, TURN_AUDITING_ON};
use crate::{budget::LONGEST_PAUSE, skew::parse_http_date};

/// How much of an answer that says nothing useful is kept.
const EXCERPT: usize = 300;

/// An answer of the API, or of something on the way to it, that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The API's error code; `None` when the answer has none (a proxy's page, a gateway's error).
    pub code: Option<AfCode>,
    /// The HTTP status.
    pub status: StatusCode,
    /// The answer's message, or the beginning of its body; never a token.
    pub message: String,
    /// What it asks for.
    pub action: Action,
    /// How long the answer asked to wait.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{code} (HTTP {})", self.status.as_u16())?,
            None => write!(f, "HTTP {} without an error code", self.status.as_u16())?,
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// What an administrator can do about it; empty when waiting is all.
    #[must_use]
    pub fn advice(&self) -> &str {
        match (&self.code, self.action) {
            (None, Action::HaltTenant) => TURN_AUDITING_ON,
            (None, Action::RefreshToken) => {
                "the API refuses a fresh token: check `cloud`, and that the token's authority belongs to that cloud"
            }
            (None, _) => match self.status.as_u16() {
                407 => {
                    "the proxy asks for credentials: put them into its address, http://user:password@host:port"
                }
                403 => "a proxy or firewall on the way may be blocking the API's host: allow it",
                _ => "",
            },
            (Some(code), _) => code.advice(),
        }
    }

    /// Reads an answer that is not what was asked for. `token` is taken out of whatever is kept of it.
    pub(crate) fn read(
        status: StatusCode,
        body: &[u8],
        retry_after: Option<Duration>,
        token: Option<&str>,
    ) -> Self {
        let text = String::from_utf8_lossy(body);
        let (code, message) = serde_json::from_slice::<Value>(body.trim_ascii())
            .ok()
            .map_or((None, None), |json| code_and_message(&json));
        let code = code.filter(|code| code.starts_with("AF")).map(|code| AfCode::from(code.as_str()));
        let message = scrub(&message.unwrap_or_else(|| text.trim().to_owned()), token);
        let action = match &code {
            Some(AfCode::Other(_)) | None => action_by_status(status, &text),
            Some(code) => code.action(),
        };
        Self { code, status, message, action, retry_after }
    }
}

/// Finds code and message in the forms that were seen: `{"error":{"code","message"}}`, the same without the envelope,
/// and `{"Message":…}`.
fn code_and_message(json: &Value) -> (Option<String>, Option<String>) {
    let inner = json.get("error").unwrap_or(json);
    let text = |names: [&str; 2]| {
        names.iter().find_map(|name| match inner.get(name) {
            Some(Value::String(text)) => Some(text.trim().to_owned()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        })
    };
    (text(["code", "Code"]), text(["message", "Message"]))
}

/// For answers without a known code.
fn action_by_status(status: StatusCode, text: &str) -> Action {
    match status.as_u16() {
        401 => Action::RefreshToken,
        429 => Action::Throttle,
        // The answer of a tenant whose auditing is off carries an exception's text in place of a code
        // (Troubleshooting the Office 365 Management Activity API).
        400 if text.contains("DataServiceException")
            || (text.contains("Tenant") && text.contains("does not exist")) =>
        {
            Action::HaltTenant
        }
        _ => Action::Retry,
    }
}

/// Makes a text fit for logs: one line, bounded, without tokens.
pub(crate) fn scrub(text: &str, token: Option<&str>) -> String {
    let text = match token {
        Some(token) if !token.is_empty() => text.replace(token, "[token]"),
        _ => text.to_owned(),
    };
    let mut clean = String::new();
    let mut after_bearer = false;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !clean.is_empty() {
            clean.push(' ');
        }
        // A signed token begins with the base64 of `{"`.
        let secret = after_bearer || word.match_indices("eyJ").any(|(at, _)| word.len() - at > 40);
        clean.push_str(if secret { "[token]" } else { word });
        after_bearer = word.trim_matches(|c: char| !c.is_alphanumeric()).eq_ignore_ascii_case("bearer");
        if clean.len() > EXCERPT {
            let end = (0..=EXCERPT).rev().find(|at| clean.is_char_boundary(*at)).unwrap_or(0);
            clean.truncate(end);
            clean.push('…');
            break;
        }
    }
    clean
}

/// Reads a `Retry-After`: seconds, or a date by the clock of whoever sent it. At most an hour is believed.
pub(crate) fn retry_after(headers: &HeaderMap, server_now: DateTime<Utc>) -> Option<Duration> {
    let date = headers.get(DATE).and_then(|date| parse_http_date(date.to_str().ok()?));
    let server_now = date.unwrap_or(server_now);
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_PAUSE),
        Ok(_) => Duration::ZERO,
        Err(_) => (parse_http_date(text)? - server_now).to_std().unwrap_or(Duration::ZERO),
    };
    Some(wait.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::GapReason;

    use super::*;
    use crate::api::ApiError;

    fn read(status: u16, body: &str) -> Refusal {
        Refusal::read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), None, None)
    }

    /// Every line of the API's error table, with the statuses that were seen with it.
    #[test]
    fn the_code_decides_and_not_the_status() {
        use Action::*;
        let table = [
            ("AF10001", 401, HaltContentType),
            ("AF20001", 400, HaltContentType),
            ("AF20002", 400, HaltContentType),
            ("AF20003", 400, HaltContentType),
            ("AF20010", 400, HaltTenant),
            ("AF20011", 400, HaltTenant),
            ("AF20012", 400, HaltTenant),
            ("AF20013", 400, HaltTenant),
            ("AF20020", 400, HaltContentType),
            ("AF20020", 403, HaltContentType),
            ("AF20021", 400, HaltContentType),
            ("AF20022", 400, StartSubscription),
            ("AF20023", 400, StartSubscription),
            ("AF20024", 400, AlreadyEnabled),
            ("AF20030", 400, RestartWindow),
            ("AF20055", 400, RestartWindow),
            ("AF20031", 400, RestartWindow),
            ("AF20050", 404, Gap(GapReason::Gone)),
            ("AF20050", 400, Gap(GapReason::Gone)),
            ("AF20051", 400, Gap(GapReason::Expired)),
            ("AF20051", 200, Gap(GapReason::Expired)),
            ("AF20052", 400, SuspectContentId),
            ("AF20053", 400, Retry),
            ("AF20054", 400, Retry),
            ("AF429", 403, Throttle),
            ("AF429", 429, Throttle),
            ("AF50000", 500, Retry),
            ("AF50005", 503, Retry),
            ("AF50006", 500, Retry),
            ("AF77777", 400, Retry),
            ("AF77777", 429, Throttle),
        ];
        for (code, status, action) in table {
            let refusal =
                read(status, &format!(r#"{{"error":{{"code":"{code}","message":"The message."}}}}"#));
            assert_eq!(refusal.code.as_ref().map(AfCode::as_str), Some(code));
            assert_eq!(refusal.action, action, "{code} with {status}");
            assert_eq!(refusal.message, "The message.");
        }
    }

    #[test]
    fn an_answer_without_a_code_goes_by_its_status() {
        let table = [
            (401, r#"{"Message":"Authorization has been denied for this request."}"#, Action::RefreshToken),
            (401, "", Action::RefreshToken),
            (429, "<html>slow down</html>", Action::Throttle),
            (404, "", Action::Retry),
            (408, "", Action::Retry),
            (500, "oops", Action::Retry),
            (502, "<html>bad gateway</html>", Action::Retry),
            (503, r#"{"error":"busy"}"#, Action::Retry),
            (403, "<html>blocked by policy</html>", Action::Retry),
            (407, "", Action::Retry),
            (
                400,
                "Microsoft.Office.Compliance.Audit.DataServiceException: Tenant 41463f53 does not exist.",
                Action::HaltTenant,
            ),
            (400, r#"{"error":{"code":"400","message":"Bad Request"}}"#, Action::Retry),
        ];
        for (status, body, action) in table {
            let refusal = read(status, body);
            assert_eq!((refusal.code, refusal.action), (None, action), "{status} {body}");
        }
    }

    #[test]
    fn messages_say_what_to_do_and_where() {
        let missing = ApiError::from(read(401, r#"{"error":{"code":"AF10001","message":"x"}}"#));
        for word in ["ActivityFeed.Read", "Office 365 Management APIs", "admin consent", "API permissions"] {
            assert!(missing.advice().contains(word), "{}", missing.advice());
        }
        let off = ApiError::from(read(400, "DataServiceException: Tenant x does not exist."));
        assert!(off.advice().contains("60 minutes"), "{}", off.advice());
        let cloud = ApiError::from(read(400, r#"{"error":{"code":"AF20052"}}"#));
        assert!(cloud.advice().contains("manage-gcc.office.com"), "{}", cloud.advice());
        let large = ApiError::TooLarge { what: "blob", limit: 5 };
        assert!(large.advice().contains("max_blob_bytes"), "{}", large.advice());
        // A page that is too large has nothing to do with that: a shorter window is asked for.
        let page = ApiError::TooLarge { what: "listing", limit: 5 };
        assert_eq!((page.action(), page.advice().as_str()), (Action::RestartWindow, ""));
    }

    #[test]
    fn no_token_is_kept() {
        let jwt = format!("eyJ0eXAi.{}.c2ln", "a".repeat(60));
        for body in [
            format!("<html>Authorization: Bearer {jwt} was refused</html>"),
            format!("Bearer opaque-token was refused, {jwt}"),
            format!("token={jwt};"),
        ] {
            let kept = read(403, &body).message;
            assert!(!kept.contains("eyJ") && !kept.contains("opaque-token"), "{kept}");
        }
        let kept = Refusal::read(StatusCode::FORBIDDEN, b"you sent opaque-1234.", None, Some("opaque-1234"));
        assert_eq!(kept.message, "you sent [token].");
    }

    fn wait(value: &str, now: &str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers, now.parse().unwrap()).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_servers_clock() {
        let now = "1994-11-06T08:49:00Z";
        for (value, expected) in [
            ("37", Some(37)),
            (" 5 ", Some(5)),
            ("0", Some(0)),
            ("-3", Some(0)),
            ("99999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("Sun, 06 Nov 2044 08:40:00 GMT", Some(3600)),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait(value, now), expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), Utc::now()), None);
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        headers.insert(DATE, "Sun, 06 Nov 1994 08:49:30 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers, Utc::now()), Some(Duration::from_secs(7)));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_and_bounded(status in 100u16..1000, body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let refusal = Refusal::read(StatusCode::from_u16(status).unwrap(), &body, None, Some("secret"));
            prop_assert!(refusal.message.len() <= EXCERPT + '…'.len_utf8());
            prop_assert!(!refusal.message.contains("secret"));
        }

        #[test]
        fn any_retry_after_is_at_most_an_hour(value in "[ -~]{0,30}") {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            if let Some(wait) = retry_after(&headers, Utc::now()) {
                prop_assert!(wait <= LONGEST_PAUSE);
            }
        }
    }
}
