//! Checks a record and finds the fields of its top level, in one pass, without recursion and without memory.

use super::{
    Json, Text,
    bytes::{find_quote, find_special, has_controls, utf16_unit},
};

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

#[cfg(test)]
mod tests;
