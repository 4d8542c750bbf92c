//! Points in time on the command line: absolute, or so long ago.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use schemas::time::parse_utc;

use crate::units;

/// A point in time, which may depend on when it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// That instant.
    At(DateTime<Utc>),
    /// So long before now.
    Ago(Duration),
}

impl When {
    /// Reads `2026-11-20`, `2026-11-20T10:00:00Z` (UTC when it names no zone) or `24h`.
    ///
    /// # Errors
    ///
    /// When it is none of them: with what would be.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(day) = text.parse::<NaiveDate>() {
            return Ok(Self::At(day.and_time(NaiveTime::MIN).and_utc()));
        }
        if let Some(time) = parse_utc(text) {
            return Ok(Self::At(time));
        }
        units::parse_duration(text).map(Self::Ago).map_err(|_| {
            "use a day (2026-11-20), a time in UTC (2026-11-20T10:00:00Z), or how long ago (24h, 7d)"
                .to_owned()
        })
    }

    /// The instant, seen from `now`.
    pub(crate) fn resolve(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(time) => time,
            Self::Ago(duration) => TimeDelta::from_std(duration)
                .ok()
                .and_then(|back| now.checked_sub_signed(back))
                .unwrap_or(DateTime::<Utc>::MIN_UTC),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_times_and_spans() {
        let now = "2026-11-21T12:00:00Z".parse::<DateTime<Utc>>().unwrap();
        for (text, time) in [
            ("2026-11-20", "2026-11-20T00:00:00Z"),
            ("2026-11-20T10:30:00", "2026-11-20T10:30:00Z"),
            ("2026-11-20T10:30:00+02:00", "2026-11-20T08:30:00Z"),
            ("24h", "2026-11-20T12:00:00Z"),
            ("1d12h", "2026-11-20T00:00:00Z"),
            ("36500d", "1926-12-16T12:00:00Z"),
        ] {
            let expected = time.parse::<DateTime<Utc>>().unwrap();
            assert_eq!(When::parse(text).unwrap().resolve(now), expected, "{text}");
        }
        for wrong in ["", "yesterday", "24", "2026-13-01"] {
            assert!(When::parse(wrong).unwrap_err().starts_with("use a day"), "{wrong}");
        }
    }
}
