//! Checks a record and finds the fields of its top level, in one pass, without recursion and without memory.

use super::{
    Json, Key, Text,
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
    record: &'a str,
    /// Where it stands there, with its quotes.
    start: usize,
    end: usize,
    pub(crate) escaped: bool,
    /// It is the name that [`Fields::expected`] told.
    pub(crate) expected: bool,
}

impl<'a> Name<'a> {
    /// What stands between its quotes, its escapes unresolved.
    #[inline]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        &self.record.as_bytes()[self.start + 1..self.end - 1]
    }

    /// The name as text, which takes more than its bytes.
    #[inline]
    pub(crate) fn text(&self) -> Text<'a> {
        Text::quoted(&self.record[self.start..self.end])
    }
}

/// Takes what the scanner finds.
pub(crate) trait Fields<'a> {
    /// The name that probably comes next, if any does: when it comes, nobody has to look for its end or look it up.
    fn expected(&self) -> Option<&'static Key>;

    /// A field of the top level. `escaped` says whether the value is a string with escapes.
    fn field(&mut self, name: Name<'a>, value: Json<'a>, escaped: bool);

    /// Whether the fields of the objects in this list are wanted too, so that nobody has to scan it again.
    fn wants_elements(&self, name: Name<'a>) -> bool;

    /// A list that is wanted begins.
    fn list(&mut self);

    /// The next element of the list is an object of `Name` and `Value` and nothing else, both strings without escapes. It has
    /// no fields to come.
    fn pair(&mut self, name: Text<'a>, value: Json<'a>);

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

/// Checks that `text` is one JSON object and hands over the fields of its top level in their order. `controls` says whether
/// there is a control character anywhere in the text.
pub(crate) fn scan_object<'a>(
    text: &'a str,
    controls: bool,
    fields: &mut impl Fields<'a>,
) -> Result<(), Fault> {
    let mut scanner = Scanner::new(text, controls);
    let (start, first) = scanner.token(0);
    if first != b'{' {
        return Err(Fault::NotAnObject { first: scanner.byte(start) });
    }
    match scanner.top_level(start + 1, fields) {
        Some(()) => Ok(()),
        None => Err(scanner.fault(start)),
    }
}

/// Checks that `text` is one JSON value of any kind; used for JSON that stands in a string.
pub(crate) fn scan_value(text: &str) -> Result<Json<'_>, Fault> {
    let mut scanner = Scanner::new(text, has_controls(text.as_bytes()));
    let (start, first) = scanner.token(0);
    let end = scanner.value(start, first, 0).and_then(|(end, _)| scanner.end(end).map(|()| end));
    match end {
        Some(end) => Ok(Json::checked(&text[start..end])),
        None => Err(scanner.fault(start)),
    }
}

/// The check. Its methods take the place where they begin and give the one where they have come to, so that it stays in a
/// register; `None` when there is a fault, which is kept beside, because a fault is large and rare.
struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// Whether there are control characters at all, and strings have to be searched for them.
    controls: bool,
    fault: Option<Fault>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, controls: bool) -> Self {
        Self { text, bytes: text.as_bytes(), controls, fault: None }
    }

    #[inline]
    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    #[cold]
    fn fail<T>(&mut self, fault: Fault) -> Option<T> {
        self.fault = Some(fault);
        None
    }

    #[cold]
    fn wanted<T>(&mut self, at: usize, expected: &'static str) -> Option<T> {
        self.fail(Fault::Syntax { at, expected })
    }

    fn fault(&self, at: usize) -> Fault {
        self.fault.unwrap_or(Fault::Syntax { at, expected: "JSON" })
    }

    /// The place behind the blanks, nearly always there is none or a single one, and the byte there: 0 at the end, which
    /// is no token either.
    #[inline(always)]
    fn token(&self, at: usize) -> (usize, u8) {
        match self.bytes.get(at) {
            Some(&byte) if byte > b' ' => (at, byte),
            Some(b' ') => match self.bytes.get(at + 1) {
                Some(&byte) if byte > b' ' => (at + 1, byte),
                _ => self.far_token(at),
            },
            _ => self.far_token(at),
        }
    }

    #[inline(never)]
    fn far_token(&self, mut at: usize) -> (usize, u8) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte(at) {
            at += 1;
        }
        (at, self.byte(at).unwrap_or_default())
    }

    fn end(&mut self, at: usize) -> Option<()> {
        let (at, _) = self.token(at);
        if at < self.bytes.len() { self.wanted(at, "the end") } else { Some(()) }
    }

    /// The text between two places where characters begin.
    #[inline(always)]
    fn slice(&self, start: usize, end: usize) -> &'a str {
        // Two cuts are inlined where a range would be a call.
        self.text.split_at(end).0.split_at(start).1
    }

    /// The fields of the record, from behind its opening bracket.
    fn top_level(&mut self, start: usize, fields: &mut impl Fields<'a>) -> Option<()> {
        let (mut at, mut byte) = self.token(start);
        if byte == b'}' {
            return self.end(at + 1);
        }
        loop {
            let (name, (start, first)) = match self.expected_name(at, fields.expected()) {
                Some((name, end)) => (name, self.token(end)),
                None => {
                    let name = self.name(at, byte)?;
                    (name, self.colon(name.end)?)
                }
            };
            let (end, escaped) = if first == b'[' && fields.wants_elements(name) {
                (self.list(start + 1, fields)?, false)
            } else {
                self.value(start, first, 1)?
            };
            fields.field(name, Json::checked(self.slice(start, end)), escaped);
            (at, byte) = self.token(end);
            match byte {
                b',' => (at, byte) = self.token(at + 1),
                b'}' => return self.end(at + 1),
                _ => return self.wanted(at, "`,` or `}`"),
            }
        }
    }

    /// A list on the top level whose elements are wanted, from behind its opening bracket. It is kept apart so that the
    /// loop over the top level has the registers for itself.
    #[inline(never)]
    fn list(&mut self, start: usize, fields: &mut impl Fields<'a>) -> Option<usize> {
        fields.list();
        let (mut at, mut byte) = self.token(start);
        if byte == b']' {
            return Some(at + 1);
        }
        loop {
            if let Some((name, value, end)) = self.plain_pair(at) {
                fields.pair(name, value);
                at = end;
            } else {
                let object = byte == b'{';
                fields.element(object);
                at = if object { self.element_fields(at + 1, fields)? } else { self.value(at, byte, 2)?.0 };
            }
            (at, byte) = self.token(at);
            match byte {
                b',' => (at, byte) = self.token(at + 1),
                b']' => return Some(at + 1),
                _ => return self.wanted(at, "`,` or `]`"),
            }
        }
    }

    /// An element as nearly all are, `{"Name": "…", "Value": "…"}` without escapes, and where it ends. Whatever is written in
    /// another way is none, and neither is what is wrong.
    #[inline(always)]
    fn plain_pair(&self, at: usize) -> Option<(Text<'a>, Json<'a>, usize)> {
        let (name, end) = self.plain_member(at, b"{\"Name\":")?;
        let between = match self.bytes.get(end..)? {
            [b',', b' ', ..] => 2,
            [b',', ..] => 1,
            _ => return None,
        };
        let (value, end) = self.plain_member(end + between, b"\"Value\":")?;
        let closed = self.byte(end) == Some(b'}');
        closed.then(|| (Text::quoted(name), Json::checked(value), end + 1))
    }

    /// A string without escapes behind what is expected before it and at most one blank, and where it ends.
    #[inline(always)]
    fn plain_member(&self, at: usize, before: &[u8; 8]) -> Option<(&'a str, usize)> {
        let rest = self.bytes.get(at..)?;
        if self.controls || rest.first_chunk() != Some(before) {
            return None;
        }
        let start = match rest.get(8..)? {
            [b' ', b'"', ..] => at + 9,
            [b'"', ..] => at + 8,
            _ => return None,
        };
        let quote = find_quote(self.bytes, start + 1);
        let end = quote + 1;
        if self.byte(quote) == Some(b'"') { Some((self.slice(start, end), end)) } else { None }
    }

    #[inline(always)]
    fn element_fields(&mut self, start: usize, fields: &mut impl Fields<'a>) -> Option<usize> {
        let (mut at, mut byte) = self.token(start);
        if byte == b'}' {
            return Some(at + 1);
        }
        loop {
            let (name, (start, first)) = self.element_name(at, byte)?;
            let (end, escaped) = self.value(start, first, 3)?;
            fields.element_field(name, Json::checked(self.slice(start, end)), escaped);
            (at, byte) = self.token(end);
            match byte {
                b',' => (at, byte) = self.token(at + 1),
                b'}' => return Some(at + 1),
                _ => return self.wanted(at, "`,` or `}`"),
            }
        }
    }

    /// The name of a field in an element, and where its value begins and with what.
    #[inline(always)]
    fn element_name(&mut self, at: usize, byte: u8) -> Option<(ElementName, (usize, u8))> {
        let next = self.bytes.get(at..).and_then(<[u8]>::first_chunk::<8>);
        match next {
            Some([b'"', b'N', b'a', b'm', b'e', b'"', b':', _]) => {
                Some((ElementName::Name, self.token(at + 7)))
            }
            Some(b"\"Value\":") => Some((ElementName::Value, self.token(at + 8))),
            _ => self.other_name(at, byte),
        }
    }

    #[inline(never)]
    fn other_name(&mut self, at: usize, byte: u8) -> Option<(ElementName, (usize, u8))> {
        let name = self.name(at, byte)?;
        let kind = match name.bytes() {
            b"Name" => ElementName::Name,
            b"Value" => ElementName::Value,
            _ => ElementName::Other,
        };
        Some((kind, self.colon(name.end)?))
    }

    /// One value that begins with `first` and stands in `outer` containers: where it ends, and whether it is a string with
    /// escapes.
    #[inline(always)]
    fn value(&mut self, at: usize, first: u8, outer: u32) -> Option<(usize, bool)> {
        match first {
            b'"' => self.string(at + 1),
            // Nearly every number has a single digit.
            b'0'..=b'9' if matches!(self.byte(at + 1), Some(b',' | b'}' | b']')) => Some((at + 1, false)),
            _ => self.other(at, outer).map(|end| (end, false)),
        }
    }

    /// A value that is no string.
    #[inline(never)]
    fn other(&mut self, at: usize, outer: u32) -> Option<usize> {
        match self.byte(at) {
            Some(b'{' | b'[') => self.container(at, outer),
            _ => self.scalar(at),
        }
    }

    fn scalar(&mut self, at: usize) -> Option<usize> {
        match self.byte(at) {
            Some(b'-' | b'0'..=b'9') => self.number(at),
            Some(b't') => self.word(at, b"true"),
            Some(b'f') => self.word(at, b"false"),
            Some(b'n') => self.word(at, b"null"),
            _ => self.wanted(at, "a value"),
        }
    }

    /// A container with all that is in it. The kinds of the open ones are the bits of a number, 1 for an object.
    fn container(&mut self, start: usize, outer: u32) -> Option<usize> {
        let (mut at, mut kinds, mut depth) = (start, 0u128, outer);
        'value: loop {
            // The loop comes here with the place of a token.
            match self.byte(at) {
                Some(b'"') => at = self.string(at + 1)?.0,
                Some(open @ (b'{' | b'[')) => {
                    if depth == MAX_DEPTH {
                        return self.fail(Fault::TooDeep { at });
                    }
                    let byte;
                    (at, byte) = self.token(at + 1);
                    // In ASCII the closing bracket stands two behind the opening one.
                    if byte == open + 2 {
                        at += 1;
                    } else {
                        depth += 1;
                        kinds = kinds << 1 | u128::from(open == b'{');
                        if open == b'{' {
                            at = self.inner_name(at, byte)?;
                        }
                        continue 'value;
                    }
                }
                _ => at = self.scalar(at)?,
            }
            while depth > outer {
                let in_object = kinds & 1 == 1;
                let byte;
                (at, byte) = self.token(at);
                match byte {
                    b',' => {
                        let byte;
                        (at, byte) = self.token(at + 1);
                        if in_object {
                            at = self.inner_name(at, byte)?;
                        }
                        continue 'value;
                    }
                    close @ (b'}' | b']') if (close == b'}') == in_object => {
                        at += 1;
                        kinds >>= 1;
                        depth -= 1;
                    }
                    _ => return self.wanted(at, if in_object { "`,` or `}`" } else { "`,` or `]`" }),
                }
            }
            return Some(at);
        }
    }

    /// The name of a field.
    #[inline(always)]
    fn name(&mut self, start: usize, first: u8) -> Option<Name<'a>> {
        if first != b'"' {
            return self.wanted(start, "a name");
        }
        let (end, escaped) = self.string(start + 1)?;
        Some(Name { record: self.text, start, end, escaped, expected: false })
    }

    /// The name at `start` and the place behind its colon, when this very key stands there.
    #[inline(always)]
    fn expected_name(&self, start: usize, key: Option<&Key>) -> Option<(Name<'a>, usize)> {
        let end = key?.end_in(self.bytes, start)?;
        Some((Name { record: self.text, start, end: end - 1, escaped: false, expected: true }, end))
    }

    /// A name on a deeper level, of which only the place behind its colon is wanted.
    #[inline(never)]
    fn inner_name(&mut self, at: usize, first: u8) -> Option<usize> {
        let name = self.name(at, first)?;
        Some(self.colon(name.end)?.0)
    }

    /// The place behind the colon and the blanks around it, and the byte there.
    #[inline(always)]
    fn colon(&mut self, at: usize) -> Option<(usize, u8)> {
        let (at, byte) = self.token(at);
        if byte != b':' {
            return self.wanted(at, "`:`");
        }
        Some(self.token(at + 1))
    }

    /// The rest of a string whose opening quote is passed: where it ends, and whether it has escapes.
    #[inline(always)]
    fn string(&mut self, start: usize) -> Option<(usize, bool)> {
        if self.controls {
            return self.any_string(start);
        }
        let at = find_quote(self.bytes, start);
        if self.byte(at) == Some(b'"') { Some((at + 1, false)) } else { self.any_string(at) }
    }

    /// [`Scanner::string`] from anywhere in it up to its first escape.
    #[inline(never)]
    fn any_string(&mut self, start: usize) -> Option<(usize, bool)> {
        let (mut at, mut escaped) = (start, false);
        loop {
            at = match self.controls {
                true => find_special(self.bytes, at),
                false => find_quote(self.bytes, at),
            };
            match self.byte(at) {
                Some(b'"') => return Some((at + 1, escaped)),
                Some(b'\\') => {
                    escaped = true;
                    at = self.escape(at)?;
                }
                Some(_) => return self.fail(Fault::ControlCharacter { at }),
                None => return self.wanted(at, "the end of a string"),
            }
        }
    }

    fn escape(&mut self, at: usize) -> Option<usize> {
        match self.byte(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Some(at + 2),
            Some(b'u') => match self.unit(at)? {
                0xd800..=0xdbff => {
                    let paired = self.bytes.get(at + 6..at + 8) == Some(b"\\u")
                        && (0xdc00..=0xdfff).contains(&self.unit(at + 6)?);
                    if paired { Some(at + 12) } else { self.fail(Fault::LoneSurrogate { at }) }
                }
                0xdc00..=0xdfff => self.fail(Fault::LoneSurrogate { at }),
                _ => Some(at + 6),
            },
            _ => self.wanted(at, "an escape"),
        }
    }

    /// The number in the escape `\uXXXX` at `at`.
    fn unit(&mut self, at: usize) -> Option<u32> {
        match utf16_unit(self.bytes, at) {
            Some(unit) => Some(unit),
            None => self.fail(Fault::Syntax { at, expected: "four hexadecimal digits" }),
        }
    }

    fn number(&mut self, start: usize) -> Option<usize> {
        let mut at = start;
        if self.byte(at) == Some(b'-') {
            at += 1;
        }
        if self.byte(at) == Some(b'0') {
            at += 1;
        } else {
            at = self.digits(at)?;
        }
        if self.byte(at) == Some(b'.') {
            at = self.digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = self.byte(at) {
            at += 1;
            if let Some(b'+' | b'-') = self.byte(at) {
                at += 1;
            }
            at = self.digits(at)?;
        }
        Some(at)
    }

    fn digits(&mut self, start: usize) -> Option<usize> {
        let mut at = start;
        while let Some(b'0'..=b'9') = self.byte(at) {
            at += 1;
        }
        if at == start { self.wanted(at, "a digit") } else { Some(at) }
    }

    fn word(&mut self, at: usize, word: &[u8]) -> Option<usize> {
        if self.bytes.get(at..).is_some_and(|rest| rest.starts_with(word)) {
            Some(at + word.len())
        } else {
            self.wanted(at, "a value")
        }
    }
}

#[cfg(test)]
mod tests;
