//! Sizes, durations and times as people write them: `10GiB`, `60s`, `167h50m`, `2026-03-01T12:00:00Z`.
//!
//! What [`format_bytes`] and [`format_duration`] print, [`parse_bytes`] and [`parse_duration`] read back; exactly,
//! as long as nothing had to be rounded.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSize {
    /// It does not begin with a number.
    #[error("it does not begin with a whole number")]
    NoNumber,
    /// What follows the number is no unit.
    #[error(
        "`{0}` is not a unit of size: use B, KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (of 1000)"
    )]
    Unit(String),
    /// More than can be counted.
    #[error("it is larger than 16 EiB")]
    TooLarge,
}

/// The text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadDuration {
    /// It has no digits where a number should be.
    #[error("it does not begin with a whole number")]
    NoNumber,
    /// A number without a unit.
    #[error("`{0}` has no unit: use ms, s, m, h or d, as in {0}s")]
    NoUnit(String),
    /// What follows a number is no unit.
    #[error("`{0}` is not a unit of time: use ms, s, m, h or d")]
    Unit(String),
    /// Units must go from the largest to the smallest, each at most once.
    #[error("units must go from the largest to the smallest, as in 1h30m")]
    Order,
    /// More than can be counted.
    #[error("it is longer than 36500 days")]
    TooLong,
}

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// In milliseconds, largest first.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const LONGEST_MILLIS: u64 = 36_500 * 86_400_000;

/// Reads a size in bytes: a whole number and a unit (`256MiB`, `10 GB`); without a unit it is bytes.
///
/// # Errors
///
/// When it is no size, or more than a `u64` holds.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, BadSize> {
    let (number, unit) = split_number(text.trim());
    let number = match number {
        "" => return Err(BadSize::NoNumber),
        digits => digits.parse::<u64>().map_err(|_| BadSize::TooLarge)?,
    };
    let unit = unit.trim_start();
    let scale = if unit.is_empty() {
        1
    } else {
        SIZES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, scale)| *scale)
            .ok_or_else(|| BadSize::Unit(unit.to_owned()))?
    };
    number.checked_mul(scale).ok_or(BadSize::TooLarge)
}

/// Reads a duration: whole numbers with units, the largest first (`60s`, `1h30m`, `8d`).
///
/// # Errors
///
/// When it is no duration, or more than 36,500 days.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, BadDuration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(BadDuration::NoNumber);
    }
    let mut millis = 0u64;
    // The units that may still come: each one must be smaller than the one before.
    let mut allowed = TIMES.as_slice();
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        if number.is_empty() {
            return Err(BadDuration::NoNumber);
        }
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        if unit.is_empty() {
            return Err(BadDuration::NoUnit(number.to_owned()));
        }
        let Some((_, scale)) = TIMES.iter().find(|(name, _)| *name == unit) else {
            return Err(BadDuration::Unit(unit.to_owned()));
        };
        let Some(place) = allowed.iter().position(|(name, _)| *name == unit) else {
            return Err(BadDuration::Order);
        };
        allowed = &allowed[place + 1..];
        millis = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*scale))
            .and_then(|part| millis.checked_add(part))
            .filter(|sum| *sum <= LONGEST_MILLIS)
            .ok_or(BadDuration::TooLong)?;
        rest = next.trim_start();
    }
    Ok(Duration::from_millis(millis))
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Prints a size with three figures and a binary unit: `512 B`, `1.21 MiB`, `10 GiB`.
pub(crate) fn format_bytes(bytes: u64) -> String {
    let Some((unit, scale)) = SIZES[..4].iter().find(|(_, scale)| bytes >= *scale) else {
        return format!("{bytes} B");
    };
    if bytes.is_multiple_of(*scale) {
        return format!("{} {unit}", bytes / scale);
    }
    let value = bytes as f64 / *scale as f64;
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Prints a duration with its two largest units: `250ms`, `45s`, `1h30m`, `6d23h`. What is smaller is cut off.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let Some(first) = TIMES.iter().position(|(_, scale)| millis >= *scale) else { return "0s".to_owned() };
    let mut text = String::new();
    for (unit, scale) in TIMES.iter().skip(first).take(2) {
        let number = millis / scale;
        millis %= scale;
        if number > 0 {
            text.push_str(&format!("{number}{unit}"));
        }
    }
    text
}

/// Prints a time to the second: `2026-03-01T12:00:00Z`.
pub(crate) fn format_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Prints a count with its thousands set apart: `1,234,567`.
pub(crate) fn format_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("7B", 7),
            ("10GiB", 10 << 30),
            ("256 MiB", 256 << 20),
            ("1kib", 1024),
            ("1KB", 1000),
            ("2TB", 2_000_000_000_000),
            (" 3TiB ", 3 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_bytes(""), Err(BadSize::NoNumber));
        assert_eq!(parse_bytes("GiB"), Err(BadSize::NoNumber));
        assert_eq!(parse_bytes("-1"), Err(BadSize::NoNumber));
        assert_eq!(parse_bytes("1.5GiB"), Err(BadSize::Unit(".5GiB".to_owned())));
        assert_eq!(parse_bytes("10G"), Err(BadSize::Unit("G".to_owned())));
        assert_eq!(parse_bytes("99999999999999999999"), Err(BadSize::TooLarge));
        assert_eq!(parse_bytes("99999999TiB"), Err(BadSize::TooLarge));
    }

    #[test]
    fn durations_have_units_the_largest_first() {
        for (text, millis) in [
            ("60s", 60_000),
            ("1h", 3_600_000),
            ("167h50m", 604_200_000),
            ("8d", 691_200_000),
            ("500ms", 500),
            ("1h 30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration(""), Err(BadDuration::NoNumber));
        assert_eq!(parse_duration("h"), Err(BadDuration::NoNumber));
        assert_eq!(parse_duration("60"), Err(BadDuration::NoUnit("60".to_owned())));
        assert_eq!(parse_duration("1h30"), Err(BadDuration::NoUnit("30".to_owned())));
        assert_eq!(parse_duration("1week"), Err(BadDuration::Unit("week".to_owned())));
        assert_eq!(parse_duration("30m1h"), Err(BadDuration::Order));
        assert_eq!(parse_duration("1h1h"), Err(BadDuration::Order));
        assert_eq!(parse_duration("999999999999d"), Err(BadDuration::TooLong));
    }

    #[test]
    fn printed_for_people() {
        assert_eq!(format_bytes(0), "0 B");
        assert_eq!(format_bytes(1023), "1023 B");
        assert_eq!(format_bytes(10 << 30), "10 GiB");
        assert_eq!(format_bytes(1_268_776), "1.21 MiB");
        assert_eq!(format_bytes((100 << 20) + 1), "100 MiB");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_duration(Duration::from_secs(5400)), "1h30m");
        assert_eq!(format_duration(Duration::from_secs(7 * 86_400 - 600)), "6d23h");
        assert_eq!(format_duration(Duration::from_millis(250)), "250ms");
        assert_eq!(format_count(0), "0");
        assert_eq!(format_count(999), "999");
        assert_eq!(format_count(1_234_567), "1,234,567");
        assert_eq!(format_count(100_000), "100,000");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,24}") {
            let _ = parse_bytes(&text);
            let _ = parse_duration(&text);
        }

        #[test]
        fn whole_sizes_and_short_durations_are_read_back(number in 1u64..1024, unit in 0usize..4, seconds in 0u64..3600) {
            let bytes = number * SIZES[unit].1;
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
