//! Times as the API and its records write them.

use chrono::{DateTime, NaiveDateTime, Utc};

/// Reads a time of the API or of a record. Without a zone it means UTC (Office 365 Management Activity API schema,
/// "CreationTime: the date and time in Coordinated Universal Time"). A fraction, `Z`, an offset, a blank in place of
/// the `T` and blanks around it are accepted, because all of them have been seen.
#[must_use]
pub fn parse_utc(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Some(ms) = parse_plain(text) {
        return DateTime::from_timestamp_millis(ms);
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

/// The form of nearly every record, `2015-06-29T20:03:19`, in milliseconds since 1970, without the cost of a general parser.
#[must_use]
pub fn parse_plain(text: &str) -> Option<i64> {
    let text: &[u8; 19] = text.as_bytes().try_into().ok()?;
    let marks = [text[4], text[7], text[10], text[13], text[16]];
    if marks != *b"--T::" {
        return None;
    }
    let mut largest = 0;
    let mut two = |place: usize| {
        let (tens, ones) = (text[place].wrapping_sub(b'0'), text[place + 1].wrapping_sub(b'0'));
        largest = tens.max(ones).max(largest);
        i64::from(tens) * 10 + i64::from(ones)
    };
    let (year, month, day) = (two(0) * 100 + two(2), two(5), two(8));
    let (hour, minute, second) = (two(11), two(14), two(17));
    if largest > 9 {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second is the first of the next minute: no clock of ours tells it apart.
    if !(1..=days_of_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years are counted from March on, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_plain_form_is_what_a_general_parser_reads(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-5][0-9]|[0-9T:. +-]{19}",
        ) {
            let general = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S").ok();
            let general = general.map(|time| time.and_utc().timestamp_millis());
            let plain = parse_plain(&text);
            prop_assert!(plain == general || plain.is_none() && !text.bytes().all(|b| b.is_ascii_digit() || b"-T:".contains(&b)));
        }

        #[test]
        fn every_second_of_ten_thousand_years_comes_back(second in -62_167_219_200i64..253_402_300_800) {
            let time = DateTime::from_timestamp(second, 0).unwrap();
            let text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
            prop_assert_eq!(parse_plain(&text), Some(second * 1000));
        }
    }

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
