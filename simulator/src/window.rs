//! The rules for the times of a listing (Activity API reference, "List available content").

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

/// The window of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) start: DateTime<Utc>,
    pub(crate) end: DateTime<Utc>,
}

/// A window that the API does not list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadWindow {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) violation: &'static str,
}

/// The start may be 7 days back; the server allows an hour more.
const OLDEST: TimeDelta = TimeDelta::hours(7 * 24 + 1);
const LONGEST: TimeDelta = TimeDelta::hours(24);

/// Reads the window that a request asks for. With `partial`, a window that is too long is cut instead of refused.
pub(crate) fn read(
    start: Option<&str>,
    end: Option<&str>,
    now: DateTime<Utc>,
    partial: bool,
) -> Result<Window, BadWindow> {
    let rule = "Start time and end time must both be specified (or both omitted) and must be less than or equal to 24 hours \
                apart, with the start time no more than 7 days in the past";
    let (start, end) = match (start, end) {
        (None, None) => return Ok(Window { start: now - LONGEST, end: now }),
        (Some(start), Some(end)) => (start, end),
        _ => {
            return Err(BadWindow { code: "AF20030", message: format!("{rule}."), violation: "half_window" });
        }
    };
    let read = |name: &str, text: &str| {
        read_time(text).ok_or_else(|| BadWindow {
            code: "AF20002",
            message: format!("Invalid parameter type: {name}. Expected type: DateTime."),
            violation: "bad_time",
        })
    };
    let (from, to) = (read("startTime", start)?, read("endTime", end)?);
    let violation = if from >= to {
        "window_reversed"
    } else if now - from > OLDEST {
        "window_too_old"
    } else if to - from > LONGEST && !partial {
        "window_too_long"
    } else {
        return Ok(Window { start: from, end: to.min(from + LONGEST) });
    };
    let form = "%m/%d/%Y %I:%M:%S %p";
    let message = format!(
        "{rule}, and the start time prior to the end time. StartTime:{}, EndTime:{}",
        from.format(form),
        to.format(form)
    );
    Err(BadWindow { code: "AF20055", message, violation })
}

/// A date, a date with minutes or seconds, with or without fraction and zone.
fn read_time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return day.and_hms_opt(0, 0, 0).map(|time| time.and_utc());
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
        .into_iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|time| time.and_utc())
}

/// How the window's times are written in a NextPageUri.
pub(crate) fn write_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn every_documented_form_of_a_time_is_read() {
        let expected = at("2026-11-20T10:30:00Z");
        for form in [
            "2026-11-20T10:30",
            "2026-11-20T10:30:00",
            "2026-11-20T10:30:00Z",
            "2026-11-20T10:30:00.000Z",
            "2026-11-20T10:30:00.0000000",
            "2026-11-20T12:30:00+02:00",
        ] {
            assert_eq!(read_time(form), Some(expected), "{form}");
        }
        assert_eq!(read_time("2026-11-20"), Some(at("2026-11-20T00:00:00Z")));
        // A `+` that was not percent-encoded arrives as a blank.
        for bad in ["", "yesterday", "2026-11-20T12:30:00 02:00", "20261120"] {
            assert_eq!(read_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_rules_hold_to_the_second() {
        let now = at("2026-11-20T12:00:00Z");
        let violation = |start: Option<&str>, end: Option<&str>| {
            read(start, end, now, false).err().map(|bad| bad.violation)
        };
        assert_eq!(violation(None, None), None);
        assert_eq!(violation(Some("2026-11-20"), None), Some("half_window"));
        assert_eq!(violation(None, Some("2026-11-20")), Some("half_window"));
        assert_eq!(violation(Some("2026-11-19T12:00:00"), Some("2026-11-20T12:00:00")), None);
        assert_eq!(
            violation(Some("2026-11-19T12:00:00"), Some("2026-11-20T12:00:01")),
            Some("window_too_long")
        );
        assert_eq!(
            violation(Some("2026-11-20T11:00:00"), Some("2026-11-20T11:00:00")),
            Some("window_reversed")
        );
        assert_eq!(violation(Some("2026-11-13T11:00:00"), Some("2026-11-13T12:00:00")), None);
        assert_eq!(
            violation(Some("2026-11-13T10:59:59"), Some("2026-11-13T12:00:00")),
            Some("window_too_old")
        );
        assert_eq!(
            violation(Some("2026-11-20T11:00:00"), Some("2026-11-21T11:00:00")),
            None,
            "an end in the future is fine"
        );
        assert_eq!(violation(Some("x"), Some("2026-11-20T11:00:00")), Some("bad_time"));
        let cut = read(Some("2026-11-18"), Some("2026-11-20"), now, true).unwrap();
        assert_eq!(cut.end, at("2026-11-19T00:00:00Z"));
    }

    #[test]
    fn the_refusal_names_both_times() {
        let bad =
            read(Some("2026-11-18"), Some("2026-11-20"), at("2026-11-20T12:00:00Z"), false).unwrap_err();
        assert_eq!(bad.code, "AF20055");
        assert!(
            bad.message.ends_with("StartTime:11/18/2026 12:00:00 AM, EndTime:11/20/2026 12:00:00 AM"),
            "{}",
            bad.message
        );
    }
}
