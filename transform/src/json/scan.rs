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

/// The name of a field, and whether it has escapes, which hardly any has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) text: Text<'a>,
    pub(crate) escaped: bool,
}

/// Takes what the scanner finds.
pub(crate) trait Fields<'a> {
    /// A field of the top level. `escaped` says whether the value is a string with escapes.
    fn field(&mut self, name: Name<'a>, value: Json<'a>, escaped: bool);

    /// Whether the fields of the objects in this list are wanted too, so that nobody has to scan it again.
    fn wants_elements(&self, name: Name<'a>) -> bool;

    /// A list that is wanted begins.
    fn list(&mut self);

    /// The next element of the list begins; `object` says whether it is one, whose fields come next.
    fn element(&mut self, object: bool);

    /// A field of the object that is the current element. `escaped` says whether the value is a string with escapes.
    fn element_field(&mut self, name: ElementName, value: Json<'a>, escaped: bool);
}

/// The name of a field in an element of a list: nearly all are one of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementName {
    Name,
    Value,
    Other,
}

/// Checks that `text` is one JSON object and hands over the fields of its top level in their order.
pub(crate) fn scan_object<'a>(text: &'a str, fields: &mut impl Fields<'a>) -> Result<(), Fault> {
    let mut scanner = Scanner::new(text);
    if scanner.token() != Some(b'{') {
        return Err(Fault::NotAnObject { first: scanner.token() });
    }
    match scanner.top_level(fields) {
        Some(()) => Ok(()),
        None => Err(scanner.fault()),
    }
}

/// Checks that `text` is one JSON value of any kind; used for JSON that stands in a string.
pub(crate) fn scan_value(text: &str) -> Result<Json<'_>, Fault> {
    let mut scanner = Scanner::new(text);
    let start = scanner.blanks();
    let value = scanner.value(0).map(|_| Json::checked(&text[start..scanner.at]));
    match value.filter(|_| scanner.end().is_some()) {
        Some(value) => Ok(value),
        None => Err(scanner.fault()),
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Whether a byte is a control character. Without an early end, so that the compiler can look at many bytes at once.
fn has_controls(bytes: &[u8]) -> bool {
    bytes.chunks(128).any(|chunk| chunk.iter().fold(false, |found, byte| found | (*byte < 0x20)))
}

/// The first quote or backslash at or after `at`; the length when there is none.
#[inline]
pub(crate) fn find_quote(bytes: &[u8], mut at: usize) -> usize {
    let (words, end) = bytes.get(at..).unwrap_or_default().as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * b'"' as u64);
        let backslash = word ^ (ONES * b'\\' as u64);
        let hits = ((quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash)) & HIGH;
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + end.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(end.len())
}

/// The first quote, backslash or control character at or after `at`; the length when there is none.
#[inline]
pub(crate) fn find_special(bytes: &[u8], mut at: usize) -> usize {
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

/// Where the check has come to. Its methods give `None` when there is a fault, which is kept beside, because a fault is
/// large and rare.
struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Whether there are control characters at all, and strings have to be searched for them.
    controls: bool,
    fault: Option<Fault>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        Self { text, bytes, at: 0, controls: has_controls(bytes), fault: None }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[cold]
    fn fail<T>(&mut self, fault: Fault) -> Option<T> {
        self.fault = Some(fault);
        None
    }

    #[cold]
    fn wanted<T>(&mut self, expected: &'static str) -> Option<T> {
        self.fail(Fault::Syntax { at: self.at, expected })
    }

    fn fault(&self) -> Fault {
        self.fault.unwrap_or(Fault::Syntax { at: self.at, expected: "JSON" })
    }

    /// Passes the blanks and gives the byte behind them.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        match self.peek() {
            Some(byte) if byte > b' ' => Some(byte),
            _ => {
                self.blanks();
                self.peek()
            }
        }
    }

    /// Passes the blanks and gives the place behind them.
    fn blanks(&mut self) -> usize {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
        self.at
    }

    fn end(&mut self) -> Option<()> {
        if self.token().is_some() { self.wanted("the end") } else { Some(()) }
    }

    fn top_level(&mut self, fields: &mut impl Fields<'a>) -> Option<()> {
        self.at += 1;
        if self.token() == Some(b'}') {
            self.at += 1;
            return self.end();
        }
        loop {
            let name = self.name()?;
            let byte = self.token();
            let start = self.at;
            let escaped = if byte == Some(b'[') && fields.wants_elements(name) {
                self.list(fields)?;
                false
            } else {
                self.value(1)?
            };
            fields.field(name, Json::checked(&self.text[start..self.at]), escaped);
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return self.end();
                }
                _ => return self.wanted("`,` or `}`"),
            }
        }
    }

    /// A list on the top level whose elements are wanted.
    fn list(&mut self, fields: &mut impl Fields<'a>) -> Option<()> {
        fields.list();
        self.at += 1;
        if self.token() == Some(b']') {
            self.at += 1;
            return Some(());
        }
        loop {
            if self.token() == Some(b'{') {
                fields.element(true);
                self.at += 1;
                self.element_fields(fields)?;
            } else {
                fields.element(false);
                self.value(2)?;
            }
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Some(());
                }
                _ => return self.wanted("`,` or `]`"),
            }
        }
    }

    fn element_fields(&mut self, fields: &mut impl Fields<'a>) -> Option<()> {
        if self.token() == Some(b'}') {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.element_name()?;
            self.token();
            let start = self.at;
            let escaped = self.value(3)?;
            fields.element_field(name, Json::checked(&self.text[start..self.at]), escaped);
            match self.token() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Some(());
                }
                _ => return self.wanted("`,` or `}`"),
            }
        }
    }

    /// The name of a field in an element, with the colon behind it.
    #[inline]
    fn element_name(&mut self) -> Option<ElementName> {
        self.token();
        let rest = &self.bytes[self.at..];
        if rest.starts_with(b"\"Name\":") {
            self.at += 7;
            return Some(ElementName::Name);
        }
        if rest.starts_with(b"\"Value\":") {
            self.at += 8;
            return Some(ElementName::Value);
        }
        Some(match self.name()?.text.raw() {
            "Name" => ElementName::Name,
            "Value" => ElementName::Value,
            _ => ElementName::Other,
        })
    }

    /// One value that stands in `outer` containers. Ends right behind it. Whether it is a string with escapes.
    #[inline]
    fn value(&mut self, outer: u32) -> Option<bool> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string()
            }
            Some(b'{' | b'[') => self.container(outer).map(|()| false),
            _ => self.scalar().map(|()| false),
        }
    }

    fn scalar(&mut self) -> Option<()> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => self.wanted("a value"),
        }
    }

    /// A container with all that is in it. The kinds of the open ones are the bits of a number, 1 for an object.
    fn container(&mut self, outer: u32) -> Option<()> {
        let (mut kinds, mut depth) = (0u128, outer);
        'value: loop {
            match self.token() {
                Some(b'"') => {
                    self.at += 1;
                    self.string()?;
                }
                Some(open @ (b'{' | b'[')) => {
                    if depth == MAX_DEPTH {
                        return self.fail(Fault::TooDeep { at: self.at });
                    }
                    self.at += 1;
                    // In ASCII the closing bracket stands two behind the opening one.
                    if self.token() == Some(open + 2) {
                        self.at += 1;
                    } else {
                        depth += 1;
                        kinds = kinds << 1 | u128::from(open == b'{');
                        if open == b'{' {
                            self.name()?;
                        }
                        continue 'value;
                    }
                }
                _ => self.scalar()?,
            }
            while depth > outer {
                let in_object = kinds & 1 == 1;
                match self.token() {
                    Some(b',') => {
                        self.at += 1;
                        if in_object {
                            self.name()?;
                        }
                        continue 'value;
                    }
                    Some(close @ (b'}' | b']')) if (close == b'}') == in_object => {
                        self.at += 1;
                        kinds >>= 1;
                        depth -= 1;
                    }
                    _ => return self.wanted(if in_object { "`,` or `}`" } else { "`,` or `]`" }),
                }
            }
            return Some(());
        }
    }

    /// The name of a field, with the colon behind it.
    #[inline]
    fn name(&mut self) -> Option<Name<'a>> {
        if self.token() != Some(b'"') {
            return self.wanted("a name");
        }
        let start = self.at;
        self.at += 1;
        let escaped = self.string()?;
        let text = Text::quoted(&self.text[start..self.at]);
        if self.token() != Some(b':') {
            return self.wanted("`:`");
        }
        self.at += 1;
        Some(Name { text, escaped })
    }

    /// The rest of a string whose opening quote is passed; whether it has escapes.
    #[inline(always)]
    fn string(&mut self) -> Option<bool> {
        if !self.controls {
            self.at = find_quote(self.bytes, self.at);
            if self.peek() == Some(b'"') {
                self.at += 1;
                return Some(false);
            }
        }
        self.any_string()
    }

    #[inline(never)]
    fn any_string(&mut self) -> Option<bool> {
        let mut escaped = false;
        loop {
            let find = if self.controls { find_special } else { find_quote };
            self.at = find(self.bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Some(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return self.fail(Fault::ControlCharacter { at: self.at }),
                None => return self.wanted("the end of a string"),
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match self.unit(self.at)? {
                0xd800..=0xdbff => {
                    let paired = self.bytes.get(self.at + 6..self.at + 8) == Some(b"\\u")
                        && (0xdc00..=0xdfff).contains(&self.unit(self.at + 6)?);
                    if !paired {
                        return self.fail(Fault::LoneSurrogate { at: self.at });
                    }
                    self.at += 12;
                }
                0xdc00..=0xdfff => return self.fail(Fault::LoneSurrogate { at: self.at }),
                _ => self.at += 6,
            },
            _ => return self.wanted("an escape"),
        }
        Some(())
    }

    /// The number in the escape `\uXXXX` at `at`.
    fn unit(&mut self, at: usize) -> Option<u32> {
        match utf16_unit(self.bytes, at) {
            Some(unit) => Some(unit),
            None => self.fail(Fault::Syntax { at, expected: "four hexadecimal digits" }),
        }
    }

    fn number(&mut self) -> Option<()> {
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
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { self.wanted("a digit") } else { Some(()) }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            Some(())
        } else {
            self.wanted("a value")
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

    /// The fields of the top level, and of the elements of a list that is called `pairs`.
    #[derive(Default)]
    struct Found<'a> {
        top: Vec<(&'a str, &'a str)>,
        elements: Vec<String>,
    }

    impl<'a> Fields<'a> for Found<'a> {
        fn field(&mut self, name: Name<'a>, value: Json<'a>, escaped: bool) {
            assert_eq!(escaped, value.text().is_some_and(|text| text.raw().contains('\\')));
            self.top.push((name.text.raw(), value.raw()));
        }

        fn wants_elements(&self, name: Name<'a>) -> bool {
            name.text.raw() == "pairs"
        }

        fn list(&mut self) {
            self.elements.clear();
        }

        fn element(&mut self, object: bool) {
            self.elements.push(if object { "object" } else { "other" }.to_owned());
        }

        fn element_field(&mut self, name: ElementName, value: Json<'a>, escaped: bool) {
            assert_eq!(escaped, value.text().is_some_and(|text| text.raw().contains('\\')));
            self.elements.push(format!("{name:?}={}", value.raw()));
        }
    }

    fn fields(text: &str) -> Result<Vec<(&str, &str)>, Fault> {
        let mut found = Found::default();
        scan_object(text, &mut found)?;
        Ok(found.top)
    }

    #[test]
    fn the_elements_of_a_list_are_found_on_the_way() {
        let text = r#"{"pairs":[1],"pairs": [ {"Name" : 1,"b":[{}]} ,2,{ }, [{"c":1}],{"Value":"]\u0041", "Name":2} ],"x":[{"y":1}]}"#;
        let mut found = Found::default();
        scan_object(text, &mut found).unwrap();
        assert_eq!(
            found.elements,
            [
                "object",
                "Name=1",
                "Other=[{}]",
                "other",
                "object",
                "other",
                "object",
                "Value=\"]\\u0041\"",
                "Name=2"
            ]
        );
        assert_eq!(found.top.len(), 3);
        for broken in
            [r#"{"pairs":[{"a":1]}"#, r#"{"pairs":[{"a"}]}"#, r#"{"pairs":[1 2]}"#, r#"{"pairs":[{}"#]
        {
            assert!(scan_object(broken, &mut Found::default()).is_err(), "{broken}");
        }
        let deep = format!("{{\"pairs\":[{{\"a\":{}{}}}]}}", "[".repeat(98), "]".repeat(98));
        assert_eq!(fields(&deep), Err(Fault::TooDeep { at: 112 }));
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
            let slow = bytes[from..].iter().position(|b| matches!(b, b'"' | b'\\'));
            prop_assert_eq!(find_quote(&bytes, from), slow.map_or(bytes.len(), |at| from + at));
            prop_assert_eq!(has_controls(&bytes), bytes.iter().any(|b| *b < 0x20));
        }
    }
}
