//! Values of a record that was checked: borrowed slices of its text, walked on demand.

use std::{borrow::Cow, cmp::Ordering, fmt};

use super::bytes::find_quote;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// One value as it stands in the record, without the blanks around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Json<'a>(&'a str);

/// One string as it stands in the record: between its quotes, its escapes unresolved.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a>(&'a str);

impl<'a> Json<'a> {
    /// Takes a slice that the scanner has passed.
    #[inline]
    pub(super) fn checked(raw: &'a str) -> Self {
        debug_assert!(!raw.is_empty());
        Self(raw)
    }

    /// Its bytes in the record.
    #[inline]
    pub(crate) fn raw(self) -> &'a str {
        self.0
    }

    #[inline]
    pub(crate) fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    #[inline]
    pub(crate) fn text(self) -> Option<Text<'a>> {
        (self.kind() == Kind::String).then_some(Text(self.0))
    }

    /// A whole number, written as a number (`2`, `2.0`, `2e0`) or as a string that holds one.
    #[inline]
    pub(crate) fn int(self) -> Option<i64> {
        match self.0.as_bytes() {
            // Nearly every number of a record is that of a kind.
            [digit @ b'0'..=b'9'] => Some(i64::from(digit - b'0')),
            _ => self.long_int(),
        }
    }

    #[inline(never)]
    fn long_int(self) -> Option<i64> {
        let digits = match self.kind() {
            Kind::Number => self.0,
            Kind::String => Text(self.0).plain()?.trim(),
            _ => return None,
        };
        if let Ok(number) = digits.parse() {
            return Some(number);
        }
        let number: f64 = digits.parse().ok()?;
        // Beyond 2^53 a float no longer says which whole number was meant.
        (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
    }

    /// A truth value, written as one or as a string that holds one.
    pub(crate) fn bool(self) -> Option<bool> {
        match self.kind() {
            Kind::Bool => Some(self.0 == "true"),
            Kind::String if Text(self.0).is("true") => Some(true),
            Kind::String if Text(self.0).is("false") => Some(false),
            _ => None,
        }
    }

    /// The elements of an array; of anything else, none.
    #[inline]
    pub(crate) fn items(self) -> Items<'a> {
        Items::of(if self.kind() == Kind::Array { inside(self.0) } else { "" })
    }

    /// The elements of an array, or the value itself: Microsoft writes a list of one as its element at times.
    #[inline]
    pub(crate) fn each(self) -> Items<'a> {
        match self.kind() {
            Kind::Array => self.items(),
            Kind::Null => Items::of(""),
            _ => Items::of(self.0),
        }
    }

    /// The fields of an object; of anything else, none.
    #[inline]
    pub(crate) fn entries(self) -> Entries<'a> {
        Entries(Walk { text: if self.kind() == Kind::Object { inside(self.0) } else { "" }, at: 0 })
    }

    /// The first field of an object that has this name.
    pub(crate) fn get(self, name: &str) -> Option<Json<'a>> {
        self.entries().find(|(candidate, _)| candidate.equals(name)).map(|(_, value)| value)
    }

    /// [`Json::get`] for several names in one walk.
    pub(crate) fn get_all<const N: usize>(self, names: [&str; N]) -> [Option<Json<'a>>; N] {
        let mut found = [None; N];
        for (candidate, value) in self.entries() {
            for (name, place) in names.iter().zip(&mut found) {
                if place.is_none() && candidate.equals(name) {
                    *place = Some(value);
                    break;
                }
            }
        }
        found
    }

    /// A field that holds a string which is not empty.
    pub(crate) fn get_text(self, name: &str) -> Option<Text<'a>> {
        self.get(name)?.filled_text()
    }

    /// A string that is not empty.
    #[inline]
    pub(crate) fn filled_text(self) -> Option<Text<'a>> {
        self.text().filter(|text| !text.is_empty())
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<'a> Text<'a> {
    /// Takes a string with its quotes that the scanner has passed.
    #[inline]
    pub(super) fn quoted(raw: &'a str) -> Self {
        debug_assert!(raw.len() >= 2 && raw.starts_with('"') && raw.ends_with('"'));
        Self(raw)
    }

    /// With its quotes, as it can be copied into any JSON.
    #[inline]
    pub(crate) fn json(self) -> &'a str {
        self.0
    }

    /// Without its quotes, its escapes unresolved.
    #[inline]
    pub(crate) fn raw(self) -> &'a str {
        self.0.get(1..self.0.len() - 1).unwrap_or_default()
    }

    /// [`Text::raw`] as bytes, which takes less.
    #[inline]
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0.as_bytes().get(1..self.0.len() - 1).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0.len() <= 2
    }

    /// The text when it holds no escape.
    #[inline]
    pub(crate) fn plain(self) -> Option<&'a str> {
        (!self.has_escape()).then(|| self.raw())
    }

    /// Whether it holds an escape.
    #[inline]
    fn has_escape(self) -> bool {
        // A quote can only stand in it behind a backslash.
        let bytes = self.bytes();
        find_quote(bytes, 0) < bytes.len()
    }

    /// The text with its escapes resolved.
    pub(crate) fn unescape(self) -> Cow<'a, str> {
        match self.plain() {
            Some(plain) => Cow::Borrowed(plain),
            None => Cow::Owned(self.resolve()),
        }
    }

    /// [`Text::unescape`] for a text that has escapes. Nearly all are of a single character, such as the backslash in
    /// `NT AUTHORITY\\SYSTEM`.
    pub(crate) fn resolve(self) -> String {
        let mut out = String::with_capacity(self.0.len());
        let mut rest = self.raw();
        loop {
            let escape = find_quote(rest.as_bytes(), 0);
            let (before, after) = rest.split_at(escape);
            out.push_str(before);
            out.push(match after.as_bytes() {
                [] => return out,
                [_, b'n', ..] => '\n',
                [_, b'r', ..] => '\r',
                [_, b't', ..] => '\t',
                [_, b'b', ..] => '\u{8}',
                [_, b'f', ..] => '\u{c}',
                [_, byte @ (b'"' | b'\\' | b'/'), ..] => char::from(*byte),
                // The scanner has passed the string, so it can be read.
                _ => return serde_json::from_str(self.0).unwrap_or_else(|_| self.raw().to_owned()),
            });
            rest = after.get(2..).unwrap_or_default();
        }
    }

    #[inline]
    pub(crate) fn equals(self, other: &str) -> bool {
        // An escape is longer than what it stands for, so the lengths nearly always tell.
        let (here, other_bytes) = (self.bytes(), other.as_bytes());
        match here.len().cmp(&other.len()) {
            Ordering::Less => false,
            Ordering::Equal => here == other_bytes && !here.contains(&b'\\'),
            Ordering::Greater => self.may_be(other, |one, other| one == other) && self.unescape() == other,
        }
    }

    /// Equality without regard to the case of ASCII letters.
    #[inline]
    pub(crate) fn is(self, other: &str) -> bool {
        // An escape is longer than what it stands for, so the lengths nearly always tell.
        let here = self.bytes();
        match here.len().cmp(&other.len()) {
            Ordering::Less => false,
            Ordering::Equal => same_word(here, other) && !here.contains(&b'\\'),
            Ordering::Greater => {
                self.may_be(other, |one, other| one.eq_ignore_ascii_case(&other))
                    && self.unescape().eq_ignore_ascii_case(other)
            }
        }
    }

    /// Whether a longer text agrees with another one up to its own first escape.
    #[inline]
    fn may_be(self, other: &str, same: impl Fn(u8, u8) -> bool) -> bool {
        let mut both = self.bytes().iter().zip(other.as_bytes());
        both.find(|(one, other)| **one == b'\\' || !same(**one, **other))
            .is_some_and(|(one, _)| *one == b'\\')
    }

    pub(crate) fn is_text(self, other: Text<'_>) -> bool {
        self.0 == other.0 || self.is(&other.unescape())
    }

    pub(crate) fn is_one_of(self, others: &[&str]) -> bool {
        others.iter().any(|other| self.is(other))
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
            || (self.plain().is_none() || other.plain().is_none()) && self.unescape() == other.unescape()
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Equality without regard to the case of ASCII letters, for words that mostly differ: their lengths and their first letters
/// are looked at before the rest.
#[inline]
pub(crate) fn same_word(one: &[u8], other: &str) -> bool {
    let (first, other) = (|word: &[u8]| word.first().map(u8::to_ascii_lowercase), other.as_bytes());
    // Nearly all are spelt alike, which is seen many letters at a time.
    one.len() == other.len()
        && first(one) == first(other)
        && (one == other || one.eq_ignore_ascii_case(other))
}

/// What stands between the brackets of a container.
#[inline]
fn inside(raw: &str) -> &str {
    raw.get(1..raw.len() - 1).unwrap_or_default()
}

/// Values one after the other, in text that is known to be JSON.
#[derive(Debug, Clone)]
struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    /// Passes over the commas, colons and blanks before the next value, and gives the byte behind them.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            if !BETWEEN[usize::from(byte)] {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// The next value, behind what is before it.
    #[inline]
    fn next(&mut self) -> Option<Json<'a>> {
        self.token()?;
        let start = self.at;
        self.at = value_end(self.text.as_bytes(), start);
        self.text.get(start..self.at).map(Json)
    }
}

/// Elements of an array.
#[derive(Debug, Clone)]
pub(crate) struct Items<'a>(Walk<'a>);

impl<'a> Items<'a> {
    #[inline]
    fn of(text: &'a str) -> Self {
        Self(Walk { text, at: 0 })
    }

    /// The next element. The fields of an object are handed over on the way to its end, so that nobody has to walk it again.
    #[inline]
    pub(crate) fn next_with(&mut self, field: impl FnMut((Text<'a>, Json<'a>))) -> Option<Json<'a>> {
        let walk = &mut self.0;
        if walk.token()? != b'{' {
            return walk.next();
        }
        let start = walk.at;
        let mut entries = Entries(Walk { text: walk.text, at: start + 1 });
        entries.by_ref().for_each(field);
        // They end before the closing bracket.
        walk.at = entries.0.at + 1;
        walk.text.get(start..walk.at).map(Json)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Json<'a>;

    #[inline]
    fn next(&mut self) -> Option<Json<'a>> {
        self.0.next()
    }
}

/// Fields of an object.
#[derive(Debug, Clone)]
pub(crate) struct Entries<'a>(Walk<'a>);

impl<'a> Iterator for Entries<'a> {
    type Item = (Text<'a>, Json<'a>);

    #[inline]
    fn next(&mut self) -> Option<(Text<'a>, Json<'a>)> {
        // No other byte than a quote begins a name.
        let walk = &mut self.0;
        if walk.token()? != b'"' {
            return None;
        }
        let start = walk.at;
        walk.at = string_end(walk.text.as_bytes(), start + 1);
        let name = walk.text.get(start..walk.at).map(Text)?;
        Some((name, walk.next()?))
    }
}

/// The bytes that stand between values.
static BETWEEN: [bool; 256] = table(b" \n\r\t,:");

/// The bytes that tell where a container ends.
static NESTING: [bool; 256] = table(b"\"{}[]");

const fn table(bytes: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut index = 0;
    while index < bytes.len() {
        table[bytes[index] as usize] = true;
        index += 1;
    }
    table
}

/// Where the value that begins at `at` ends, in text that is known to be JSON.
#[inline]
fn value_end(bytes: &[u8], at: usize) -> usize {
    match bytes[at] {
        b'"' => string_end(bytes, at + 1),
        b'{' | b'[' => container_end(bytes, at),
        _ => {
            let after = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            bytes[at..].iter().position(after).map_or(bytes.len(), |length| at + length)
        }
    }
}

#[inline]
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at = find_quote(bytes, at);
        match bytes.get(at) {
            Some(b'"') => return at + 1,
            Some(_) => at += 2,
            None => return bytes.len(),
        }
    }
}

fn container_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if !NESTING[usize::from(byte)] {
            continue;
        }
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => depth += 1,
            _ => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::{super::scan::scan_value, *};

    fn json(text: &str) -> Json<'_> {
        scan_value(text).unwrap()
    }

    #[test]
    fn containers_are_walked() {
        let array = json(r#" [ 1 ,{"a":[2,"]"]}, "x\",y" , null,[] ] "#);
        let raws: Vec<_> = array.items().map(Json::raw).collect();
        assert_eq!(raws, ["1", r#"{"a":[2,"]"]}"#, r#""x\",y""#, "null", "[]"]);
        let object = json(r#"{ "a" : 1,"b":{"c":{}},"c":"}" , "a":2 }"#);
        let pairs: Vec<_> = object.entries().map(|(name, value)| (name.raw(), value.raw())).collect();
        assert_eq!(pairs, [("a", "1"), ("b", r#"{"c":{}}"#), ("c", "\"}\""), ("a", "2")]);
        assert_eq!(object.get("a").map(Json::raw), Some("1"));
        assert_eq!(json("5").each().map(Json::raw).collect::<Vec<_>>(), ["5"]);
        assert_eq!(json("null").each().count() + json("[]").each().count() + json("{}").entries().count(), 0);
    }

    #[test]
    fn numbers_and_truth_come_in_several_forms() {
        for (text, number) in [
            ("2", Some(2)),
            ("\"2\"", Some(2)),
            ("1156492.00", Some(1_156_492)),
            ("\"1.0\"", Some(1)),
            ("\"1e9\"", Some(1_000_000_000)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("1.5", None),
            ("1e300", None),
            ("\"\"", None),
            ("\"two\"", None),
            ("\"inf\"", None),
            ("null", None),
            ("[2]", None),
        ] {
            assert_eq!(json(text).int(), number, "{text}");
        }
        for (text, truth) in [
            ("true", Some(true)),
            ("\"True\"", Some(true)),
            ("\"FALSE\"", Some(false)),
            ("1", None),
            ("\"\"", None),
        ] {
            assert_eq!(json(text).bool(), truth, "{text}");
        }
    }

    #[test]
    fn escapes_do_not_change_what_a_text_is() {
        let text = json(r#""S\u0065nd""#).text().unwrap();
        assert!(text.equals("Send") && text.is("sEND") && !text.equals("send"));
        assert_eq!(text, json("\"Send\"").text().unwrap());
        assert_eq!(text.plain(), None);
        assert_eq!(json(r#""\ud83d\ude00\\""#).text().unwrap().unescape(), "😀\\");
    }

    proptest::proptest! {
        #[test]
        fn escapes_are_resolved_like_anywhere_else(text in "([a-z]|\\\\[nrtbf/\\\\\"]|\\\\u00e9|é){0,20}") {
            let text = format!("\"{text}\"");
            proptest::prop_assert_eq!(
                json(&text).text().unwrap().unescape(),
                serde_json::from_str::<String>(&text).unwrap()
            );
        }
    }
}
