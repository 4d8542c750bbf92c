//! Times as the API and its records write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

/// Reads a time of the API or of a record. Without a zone it means UTC (Office 365 Management Activity API schema,
/// "CreationTime: the date and time in Coordinated Universal Time"). A fraction, `Z`, an offset, a blank in place of
/// the `T` and blanks around it are accepted, because all of them have been seen.
#[must_use]
pub fn parse_utc(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Some(time) = parse_plain(text.as_bytes()) {
        return Some(time);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let unzoned = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
        .into_iter()
        .find_map(|form| NaiveDateTime::parse_from_str(unzoned, form).ok())
        .map(|time| time.and_utc())
}

/// The form of nearly every record, `2015-06-29T20:03:19`, without the cost of a general parser.
fn parse_plain(text: &[u8]) -> Option<DateTime<Utc>> {
    let text: &[u8; 19] = text.try_into().ok()?;
    let number = |from: usize, to: usize| {
        text[from..to]
            .iter()
            .try_fold(0u32, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u32::from(b - b'0')))
    };
    let marks = (text[4], text[7], text[10], text[13], text[16]);
    if marks != (b'-', b'-', b'T', b':', b':') {
        return None;
    }
    let day = NaiveDate::from_ymd_opt(number(0, 4)? as i32, number(5, 7)?, number(8, 10)?)?;
    let second = number(17, 19)?;
    // A leap second is the first of the next minute: no clock of ours tells it apart.
    let time = day.and_hms_opt(number(11, 13)?, number(14, 16)?, second.min(59))?.and_utc();
    match second {
        0..60 => Some(time),
        60 => Some(time + TimeDelta::seconds(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_was_seen_is_the_same_instant() {
        let expected = "2015-06-29T20:03:19Z".parse::<DateTime<Utc>>().unwrap();
        for form in [
            "2015-06-29T20:03:19",
            "2015-06-29T20:03:19Z",
            "2015-06-29T20:03:19.000Z",
            "2015-06-29T20:03:19.0000000",
            "2015-06-29 20:03:19",
            "2015-06-29T22:03:19+02:00",
            "2015-06-29T20:03:19.0000000Z ",
        ] {
            assert_eq!(parse_utc(form), Some(expected), "{form}");
        }
        assert_eq!(parse_utc("2016-12-31T23:59:60"), parse_utc("2017-01-01T00:00:00"));
        for bad in ["", "yesterday", "2015-13-01T00:00:00", "2015-06-29T24:00:00", "9/20/2023 4:05:03 AM"] {
            assert_eq!(parse_utc(bad), None, "{bad}");
        }
    }
}
