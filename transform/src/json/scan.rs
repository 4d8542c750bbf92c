//! Checks a record and finds the fields of its top level, in one pass, without recursion and without memory.

use super::{Json, Text};

/// How deep a record may be nested. The event adds a few levels, and common JSON readers give up at 128.
pub(crate) const MAX_DEPTH: u32 = 100;

/// Why a text is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it is not a JSON object but begins with {}", shown(*.first))]
    NotAnObject { first: Option<u8> },
    #[error("it is not JSON: {expected} was expected at byte {at}")]
    Syntax { at: usize, expected: &'static str },
    #[error("it is nested deeper than {MAX_DEPTH} levels at byte {at}")]
    TooDeep { at: usize },
    #[error("it is not JSON: a bare control character stands in a string at byte {at}")]
    ControlCharacter { at: usize },
    #[error("it is not JSON: half of a surrogate pair stands at byte {at}")]
    LoneSurrogate { at: usize },
}

fn shown(first: Option<u8>) -> String {
    match first {
        Some(byte) if byte.is_ascii_graphic() => format!("`{}`", char::from(byte)),
        Some(byte) => format!("byte 0x{byte:02x}"),
        None => "nothing".to_owned(),
    }
}

/// Checks that `text` is one JSON object and hands over the fields of its top level in their order.
pub(crate) fn scan_object<'a>(text: &'a str, mut field: impl FnMut(Text<'a>, Json<'a>)) -> Result<(), Fault> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    scanner.blanks();
    if scanner.peek() != Some(b'{') {
        return Err(Fault::NotAnObject { first: scanner.peek() });
    }
    scanner.at += 1;
    scanner.blanks();
    if scanner.peek() == Some(b'}') {
        scanner.at += 1;
    } else {
        loop {
            scanner.blanks();
            let name_start = scanner.at;
            scanner.expect(b'"', "a name")?;
            scanner.string()?;
            let name = Text::quoted(&text[name_start..scanner.at]);
            scanner.blanks();
            scanner.expect(b':', "`:`")?;
            scanner.blanks();
            let value_start = scanner.at;
            scanner.value(1)?;
            field(name, Json::checked(&text[value_start..scanner.at]));
            scanner.blanks();
            match scanner.peek() {
                Some(b',') => scanner.at += 1,
                Some(b'}') => {
                    scanner.at += 1;
                    break;
                }
                _ => return Err(scanner.wanted("`,` or `}`")),
            }
        }
    }
    scanner.blanks();
    if scanner.at < text.len() { Err(scanner.wanted("the end")) } else { Ok(()) }
}

/// Checks that `text` is one JSON value of any kind; used for JSON that stands in a string.
pub(crate) fn scan_value(text: &str) -> Result<Json<'_>, Fault> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    scanner.blanks();
    let start = scanner.at;
    scanner.value(0)?;
    let end = scanner.at;
    scanner.blanks();
    if scanner.at < text.len() {
        Err(scanner.wanted("the end"))
    } else {
        Ok(Json::checked(&text[start..end]))
    }
}

/// The first quote, backslash or control character at or after `at`; the length when there is none.
#[inline]
pub(crate) fn find_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = bytes.get(at..at + 8).and_then(|chunk| <[u8; 8]>::try_from(chunk).ok()) {
        let word = u64::from_le_bytes(chunk);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        // A byte's high bit is set when the byte is below the subtrahend; a borrow can only flag bytes after a true hit.
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let hits =
            (control | (quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash))
                & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < bytes.len() && !matches!(bytes[at], b'"' | b'\\' | 0..0x20) {
        at += 1;
    }
    at
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn wanted(&self, expected: &'static str) -> Fault {
        Fault::Syntax { at: self.at, expected }
    }

    #[inline]
    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Fault> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.wanted(expected))
        }
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// One value that stands in `outer` containers. Ends right behind it.
    #[inline]
    fn value(&mut self, outer: u32) -> Result<(), Fault> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string()
            }
            Some(b'{' | b'[') => self.container(outer),
            _ => self.scalar(),
        }
    }

    fn scalar(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(self.wanted("a value")),
        }
    }

    /// A container with all that is in it. The kinds of the open ones are the bits of a number, 1 for an object.
    fn container(&mut self, outer: u32) -> Result<(), Fault> {
        let (mut kinds, mut depth) = (0u128, outer);
        'value: loop {
            self.blanks();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.string()?;
                }
                Some(open @ (b'{' | b'[')) => {
                    if depth == MAX_DEPTH {
                        return Err(Fault::TooDeep { at: self.at });
                    }
                    depth += 1;
                    kinds = kinds << 1 | u128::from(open == b'{');
                    self.at += 1;
                    self.blanks();
                    if self.peek() == Some(open + 2) {
                        // `{}` and `[]`; in ASCII the closing bracket stands two behind the opening one.
                        self.at += 1;
                        kinds >>= 1;
                        depth -= 1;
                    } else {
                        if open == b'{' {
                            self.name()?;
                        }
                        continue 'value;
                    }
                }
                _ => self.scalar()?,
            }
            while depth > outer {
                self.blanks();
                let in_object = kinds & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if in_object {
                            self.blanks();
                            self.name()?;
                        }
                        continue 'value;
                    }
                    Some(close @ (b'}' | b']')) if (close == b'}') == in_object => {
                        self.at += 1;
                        kinds >>= 1;
                        depth -= 1;
                    }
                    _ => return Err(self.wanted(if in_object { "`,` or `}`" } else { "`,` or `]`" })),
                }
            }
            return Ok(());
        }
    }

    fn name(&mut self) -> Result<(), Fault> {
        self.expect(b'"', "a name")?;
        self.string()?;
        self.blanks();
        self.expect(b':', "`:`")
    }

    /// The rest of a string whose opening quote is passed.
    #[inline]
    fn string(&mut self) -> Result<(), Fault> {
        loop {
            self.at = find_special(self.bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(Fault::ControlCharacter { at: self.at }),
                None => return Err(self.wanted("the end of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match self.unit(self.at)? {
                0xd800..=0xdbff => {
                    let paired = self.bytes.get(self.at + 6..self.at + 8) == Some(b"\\u")
                        && (0xdc00..=0xdfff).contains(&self.unit(self.at + 6)?);
                    if !paired {
                        return Err(Fault::LoneSurrogate { at: self.at });
                    }
                    self.at += 12;
                }
                0xdc00..=0xdfff => return Err(Fault::LoneSurrogate { at: self.at }),
                _ => self.at += 6,
            },
            _ => return Err(self.wanted("an escape")),
        }
        Ok(())
    }

    /// The number in the escape `\uXXXX` at `at`.
    fn unit(&self, at: usize) -> Result<u32, Fault> {
        utf16_unit(self.bytes, at).ok_or(Fault::Syntax { at, expected: "four hexadecimal digits" })
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.wanted("a digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.wanted("a value"))
        }
    }
}

/// The number in the escape `\uXXXX` at `at`.
pub(super) fn utf16_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at + 2..at + 6)?;
    digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(text: &str) -> Result<Vec<(&str, &str)>, Fault> {
        let mut found = Vec::new();
        scan_object(text, |name, value| found.push((name.raw(), value.raw())))?;
        Ok(found)
    }

    #[test]
    fn the_top_level_is_found_and_nothing_below_it() {
        let text = "\n { \"a\" : [ {\"b\":1} , \"}\\\"\" ] ,\"c\":\"\\u00e9\\\\\", \"a\":-1.5e+3,\"d\":{}, \"\":null } ";
        let expected = [
            ("a", "[ {\"b\":1} , \"}\\\"\" ]"),
            ("c", "\"\\u00e9\\\\\""),
            ("a", "-1.5e+3"),
            ("d", "{}"),
            ("", "null"),
        ];
        assert_eq!(fields(text).unwrap(), expected);
        assert_eq!(fields("{}").unwrap(), []);
    }

    #[test]
    fn faults_are_named() {
        for (text, fault) in [
            ("", Fault::NotAnObject { first: None }),
            ("[]", Fault::NotAnObject { first: Some(b'[') }),
            ("{", Fault::Syntax { at: 1, expected: "a name" }),
            ("{\"a\"}", Fault::Syntax { at: 4, expected: "`:`" }),
            ("{\"a\":1,}", Fault::Syntax { at: 7, expected: "a name" }),
            ("{\"a\":01}", Fault::Syntax { at: 6, expected: "`,` or `}`" }),
            ("{\"a\":[1}", Fault::Syntax { at: 7, expected: "`,` or `]`" }),
            ("{\"a\":nul}", Fault::Syntax { at: 5, expected: "a value" }),
            ("{\"a\":\"\\x\"}", Fault::Syntax { at: 6, expected: "an escape" }),
            ("{} x", Fault::Syntax { at: 3, expected: "the end" }),
            ("{\"a\":\"\n\"}", Fault::ControlCharacter { at: 6 }),
            ("{\"a\":\"\\ud800x\"}", Fault::LoneSurrogate { at: 6 }),
            ("{\"a\":\"\\udc00\"}", Fault::LoneSurrogate { at: 6 }),
        ] {
            assert_eq!(fields(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn the_depth_is_bounded_and_no_stack_is_used() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(fields(&nested(MAX_DEPTH as usize)).is_ok());
        assert_eq!(
            fields(&nested(MAX_DEPTH as usize + 1)),
            Err(Fault::TooDeep { at: MAX_DEPTH as usize + 4 })
        );
        assert!(matches!(fields(&nested(1_000_000)), Err(Fault::TooDeep { .. })));
    }

    proptest! {
        /// The scanner and serde_json agree on what JSON is.
        #[test]
        fn what_serde_json_reads_is_read_and_nothing_else(text in "\\{\"[ab\\\\\"]{0,2}\":[-0-9.eE\\[\\]{}\",: tnu\\\\]{0,12}\\}") {
            let ours = fields(&text).is_ok();
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(ours, theirs, "{}", text);
        }

        #[test]
        fn special_bytes_are_found_where_they_are(bytes in proptest::collection::vec(any::<u8>(), 0..40), from in 0usize..40) {
            let from = from.min(bytes.len());
            let slow = bytes[from..].iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(find_special(&bytes, from), slow.map_or(bytes.len(), |at| from + at));
        }
    }
}
