//! The API's clock, read from the `Date` header of its answers.
//!
//! Windows end where the server says that it is now, and blobs expire by the server's clock, so that a wrong local
//! clock, or one that is set while the process runs, loses nothing. Between answers the clock goes on by the
//! monotonic clock. The header counts whole seconds and is already old when it arrives: the reading never runs ahead
//! of the server.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use reqwest::header::{AGE, DATE, HeaderMap};
use tokio::time::Instant;

/// A local clock that is further off than this is worth a warning.
const WORTH_A_WARNING: TimeDelta = TimeDelta::minutes(5);

/// A server that is further off than this does not tell its own time: something on the way makes it up.
const BELIEVABLE: TimeDelta = TimeDelta::days(366);

/// One tenant's view of the API's clock.
#[derive(Debug, Default)]
pub struct ServerClock {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reading: Option<Reading>,
    warned: bool,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    server: DateTime<Utc>,
    at: Instant,
    skew: TimeDelta,
}

impl ServerClock {
    /// A clock that was not read yet and follows the local one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the clock from an answer's headers. An answer that was stored on the way (it has an `Age`) says
    /// nothing, nor does one that is off by years.
    pub(crate) fn observe(&self, headers: &HeaderMap) -> Option<DateTime<Utc>> {
        if headers.contains_key(AGE) {
            return None;
        }
        let server = parse_http_date(headers.get(DATE)?.to_str().ok()?)?;
        let local = Utc::now();
        if (server - local).abs() > BELIEVABLE {
            return None;
        }
        self.set(server, local);
        Some(server)
    }

    fn set(&self, server: DateTime<Utc>, local: DateTime<Utc>) {
        let skew = server - local;
        let mut state = self.lock();
        state.reading = Some(Reading { server, at: Instant::now(), skew });
        let off = skew.abs() > WORTH_A_WARNING;
        if off && !state.warned {
            tracing::warn!(
                seconds = -skew.num_seconds(),
                "the local clock differs from the API's by more than 5 minutes; collecting goes by the API's clock, \
                 but set the local one right (NTP), because logs and waits go by it"
            );
        }
        state.warned = off;
    }

    /// The server's time, by the last reading; the local time as long as there is none.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.known_now().unwrap_or_else(Utc::now)
    }

    /// The server's time, when it was ever heard of.
    #[must_use]
    pub fn known_now(&self) -> Option<DateTime<Utc>> {
        let reading = self.lock().reading?;
        TimeDelta::from_std(reading.at.elapsed()).ok().map(|passed| reading.server + passed)
    }

    /// How far the server's clock is ahead of the local one (negative: behind), at the last reading.
    #[must_use]
    pub fn skew(&self) -> Option<TimeDelta> {
        self.lock().reading.map(|reading| reading.skew)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the three forms of RFC 9110, section 5.6.7.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .into_iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|time| time.and_utc())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_three_forms_of_an_http_date_are_the_same_instant() {
        let expected = "1994-11-06T08:49:37Z".parse::<DateTime<Utc>>().unwrap();
        for form in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse_http_date(form), Some(expected), "{form}");
        }
        for bad in ["", "now", "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 25:49:37 GMT"] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn between_answers_the_clock_goes_on_by_itself() {
        let clock = ServerClock::new();
        assert_eq!(clock.known_now(), None);
        let server = "2026-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap();
        clock.set(server, server - TimeDelta::hours(3));
        assert_eq!(clock.skew(), Some(TimeDelta::hours(3)));
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now(), server + TimeDelta::seconds(90));
    }

    #[test]
    fn a_stored_answer_and_a_broken_date_say_nothing() {
        let clock = ServerClock::new();
        let mut headers = HeaderMap::new();
        headers.insert(DATE, "yesterday".parse().unwrap());
        assert_eq!(clock.observe(&headers), None);
        headers.insert(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        assert_eq!(clock.observe(&headers), None, "years ago");
        let now = Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        headers.insert(DATE, now.parse().unwrap());
        headers.insert(AGE, "5".parse().unwrap());
        assert_eq!(clock.observe(&headers), None);
        assert_eq!(clock.known_now(), None);
        headers.remove(AGE);
        assert!(clock.observe(&headers).is_some());
    }
}
