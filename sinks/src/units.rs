//! Sizes and spans of time as the configuration writes them: `"256MiB"`, `"1h"`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A number of bytes: a number, or a text with a unit, `"64KiB"`, `"256 MiB"`, `"10GiB"`, `"5MB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "Written", into = "String")]
pub struct ByteSize(pub u64);

/// A span of time with a unit: `"500ms"`, `"60s"`, `"5m"`, `"1h"`, `"7d"`; several may follow each other, `"1h30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// A text that is no size or span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct BadUnit {
    /// What was given.
    pub text: String,
    /// What it should have been.
    pub expected: &'static str,
}

const SIZES: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

const SPANS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a size such as \"256MiB\"")]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for ByteSize {
    type Error = BadUnit;

    fn try_from(written: Written) -> Result<Self, BadUnit> {
        match written {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl FromStr for ByteSize {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = || BadUnit { text: text.to_owned(), expected: "a size such as \"256MiB\" or \"10GiB\"" };
        let (number, unit) = cut_number(text.trim()).ok_or_else(bad)?;
        let unit = unit.trim_start();
        let factor =
            if unit.is_empty() { 1 } else { SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?.1 };
        number.checked_mul(factor).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES[..4].iter().rev().find(|(_, size)| self.0 > 0 && self.0.is_multiple_of(*size));
        match unit {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl FromStr for Span {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = || BadUnit { text: text.to_owned(), expected: "a span of time such as \"60s\" or \"1h\"" };
        let mut rest = text.trim();
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (number, after) = cut_number(rest).ok_or_else(bad)?;
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (_, factor) = SPANS.iter().find(|(name, _)| *name == &after[..end]).ok_or_else(bad)?;
            total = number.checked_mul(*factor).and_then(|ms| total.checked_add(ms)).ok_or_else(bad)?;
            rest = after[end..].trim_start();
        }
        if text.trim().is_empty() { Err(bad()) } else { Ok(Self(Duration::from_millis(total))) }
    }
}

impl TryFrom<String> for Span {
    type Error = BadUnit;

    fn try_from(text: String) -> Result<Self, BadUnit> {
        text.parse()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let unit = SPANS.iter().rev().find(|(_, size)| ms > 0 && ms.is_multiple_of(*size));
        match unit {
            Some((name, size)) => write!(f, "{}{name}", ms / size),
            None => write!(f, "{ms}ms"),
        }
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

fn cut_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_and_spans_as_people_write_them() {
        for (text, bytes) in
            [("256MiB", 256 << 20), ("10GiB", 10 << 30), ("1 kB", 1000), ("17", 17), ("3B", 3)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for (text, ms) in
            [("60s", 60_000), ("1h", 3_600_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(ms))), "{text}");
        }
        for bad in ["", "MiB", "-1s", "1.5h", "5 parsecs", "99999999999GiB", "10"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        for bad in ["", "MiB", "256mib", "99999999999GiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<ByteSize>("4096").unwrap(), ByteSize(4096));
        assert_eq!(serde_json::from_str::<ByteSize>("\"4KiB\"").unwrap(), ByteSize(4096));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(number: u64) {
            prop_assert_eq!(ByteSize(number).to_string().parse(), Ok(ByteSize(number)));
            let span = Span(Duration::from_millis(number));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
