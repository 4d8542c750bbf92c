//! What is taken from an answer over HTTP, whoever gave it: a receiver, or a proxy in its place.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{Response, header::RETRY_AFTER};

/// The longest wait that is believed.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long the sender asks to wait.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let after = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    wait(after, Utc::now())
}

/// How long a `Retry-After` asks to wait: seconds, or a time.
fn wait(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse().map(Duration::from_secs) {
        Ok(wait) => wait,
        Err(_) => (DateTime::parse_from_rfc2822(value).ok()?.to_utc() - now).to_std().ok()?,
    };
    Some(wait.min(LONGEST))
}

/// The body, or its beginning when it is longer than `most` bytes: then it is no receiver's answer, and the beginning
/// says enough.
pub(crate) async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > most {
            body.truncate(most);
            break;
        }
    }
    Ok(body)
}

/// The beginning of a text, on one line: at most so many characters.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    let mut short: String = text.trim().chars().take(most).collect();
    if short.len() < text.trim().len() {
        short.push('…');
    }
    short.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_as_a_time() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(wait("7", now), Some(Duration::from_secs(7)));
        assert_eq!(wait("Fri, 02 Jan 2026 03:04:35 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(wait("Fri, 02 Jan 2026 03:04:00 GMT", now), None);
        assert_eq!(wait("soon", now), None);
        assert_eq!(wait("999999999", now), Some(LONGEST));
    }

    #[test]
    fn an_excerpt_is_short_and_on_one_line() {
        assert_eq!(excerpt(" not\nhere ", 8), "not here");
        assert_eq!(excerpt("not here", 3), "not…");
    }
}
