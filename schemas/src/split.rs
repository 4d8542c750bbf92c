//! Cuts a blob body into its records, byte for byte, while it arrives.
//!
//! A body is a JSON array of records. The splitter follows strings and brackets only: it does not judge what is in a
//! record, so that one that no parser would take is still cut out whole. It needs no more memory than the record that
//! a chunk ends in. On the way it picks up the four parts of the [`RecordKey`], so that the body is read once.
//!
//! A body counts as whole only when its closing `]` was seen: [`Splitter::finish`] tells a cut body from a short one.

use crate::{RecordKey, buffer::make_room, bytes::find_quote};

/// Why a body is not an array of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The body ended before its closing bracket: it was cut on the way and must be fetched again.
    #[error("the body ends after {bytes} bytes without its closing bracket")]
    Truncated {
        /// How much of it there was.
        bytes: u64,
    },
    /// The body ends with a `]` that stands within a record: quotes or brackets of that record are not in pairs.
    #[error(
        "the closing bracket at the end of {bytes} bytes stands within a record whose quotes or brackets are not in pairs"
    )]
    Unclosed {
        /// How much of it there was.
        bytes: u64,
    },
    /// The body does not begin with `[`.
    #[error("the body begins with byte {first:#04x} and not with `[`")]
    NotAnArray {
        /// The first byte that is not white space.
        first: u8,
    },
    /// Brackets, commas or values stand where none can.
    #[error("the body is broken at byte {at}: found byte {found:#04x}")]
    Malformed {
        /// Where, counted from 0.
        at: u64,
        /// What stood there.
        found: u8,
    },
}

/// Where in the array the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the opening bracket.
    Start,
    /// After the opening bracket or a comma: an element or the end.
    Element,
    /// After an element: a comma or the end.
    Separator,
    /// In a string, number or word that is itself an element.
    Scalar,
    /// In an object or array that is an element.
    Nested,
    /// After the closing bracket.
    End,
}

/// The parts of the record key, in the order of their names' lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Id,
    UserId,
    Operation,
    CreationTime,
}

impl Part {
    fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"Id" => Some(Self::Id),
            b"UserId" => Some(Self::UserId),
            b"Operation" => Some(Self::Operation),
            b"CreationTime" => Some(Self::CreationTime),
            _ => None,
        }
    }
}

/// A value of one of the four parts: where it stands in the record, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Found {
    #[default]
    Nothing,
    Text {
        start: usize,
        end: usize,
    },
    /// Not a string, or named twice: there is no telling what it means.
    Unusable,
}

/// The bytes between strings that mean something here; nearly half of them are colons, which do not.
static MATTERS: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = b"\"{}[],-0123456789abcdefghijklmnopqrstuvwxyz";
    let mut index = 0;
    while index < bytes.len() {
        table[bytes[index] as usize] = true;
        index += 1;
    }
    table
};

/// Cuts a body into records.
#[derive(Debug)]
pub struct Splitter {
    place: Place,
    /// The part of the current record that came in earlier chunks.
    carried: Vec<u8>,
    /// The open brackets of the current record.
    open: Vec<u8>,
    in_string: bool,
    /// The byte after a backslash.
    escaped: bool,
    /// Where the current string began, counted from the record's first byte.
    string_start: usize,
    /// Whether a string at the record's top level would be a name.
    at_name: bool,
    /// Which part the value that follows belongs to.
    part: Option<Part>,
    found: [Found; 4],
    /// Bytes before the current chunk.
    consumed: u64,
    /// The last byte before the current chunk that is not white space.
    last: u8,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Splitter {
    /// A splitter at the beginning of a body.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            place: Place::Start,
            carried: Vec::new(),
            open: Vec::new(),
            in_string: false,
            escaped: false,
            string_start: 0,
            at_name: false,
            part: None,
            found: [Found::Nothing; 4],
            consumed: 0,
            last: 0,
        }
    }

    /// How many bytes of an unfinished record are held.
    #[must_use]
    pub fn carried_bytes(&self) -> usize {
        self.carried.len()
    }

    /// Takes the next bytes of the body and hands each record that ends in them to `on_record`, with its key.
    ///
    /// # Errors
    ///
    /// [`SplitError::NotAnArray`] and [`SplitError::Malformed`]; the splitter must not be used after one.
    pub fn push(
        &mut self,
        chunk: &[u8],
        on_record: &mut dyn FnMut(&[u8], Option<RecordKey>),
    ) -> Result<(), SplitError> {
        let mut at = 0;
        // Where the current record begins in this chunk; 0 when it began in an earlier one.
        let mut from = 0;
        while at < chunk.len() {
            match self.place {
                Place::Nested | Place::Scalar => {
                    let carried = self.carried.len();
                    let end = if self.place == Place::Nested {
                        self.scan_nested(chunk, from, &mut at)?
                    } else {
                        self.scan_scalar(chunk, &mut at)
                    };
                    if !end {
                        break;
                    }
                    if carried == 0 {
                        on_record(&chunk[from..at], self.key(&chunk[from..at]));
                    } else {
                        make_room(&mut self.carried, at - from);
                        self.carried.extend_from_slice(&chunk[from..at]);
                        let record = std::mem::take(&mut self.carried);
                        on_record(&record, self.key(&record));
                        // The buffer is kept unless one huge record made it huge.
                        if record.capacity() <= 1 << 20 {
                            self.carried = record;
                            self.carried.clear();
                        }
                    }
                    self.place = Place::Separator;
                }
                _ => {
                    if self.between(chunk[at], at)? {
                        from = at;
                        self.begin_record(chunk[at]);
                    } else {
                        at += 1;
                    }
                }
            }
        }
        if matches!(self.place, Place::Nested | Place::Scalar) {
            make_room(&mut self.carried, chunk.len() - from);
            self.carried.extend_from_slice(&chunk[from..]);
        }
        self.consumed += chunk.len() as u64;
        if let Some(last) = chunk.iter().rev().find(|byte| !byte.is_ascii_whitespace()) {
            self.last = *last;
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    ///
    /// [`SplitError::Truncated`] when its closing bracket never came, [`SplitError::Unclosed`] when it came where it
    /// closes nothing.
    pub fn finish(self) -> Result<(), SplitError> {
        let bytes = self.consumed;
        match self.place {
            Place::End => Ok(()),
            Place::Nested | Place::Scalar if self.last == b']' => Err(SplitError::Unclosed { bytes }),
            _ => Err(SplitError::Truncated { bytes }),
        }
    }

    /// Handles a byte outside of every record; true when it is the first of a record.
    fn between(&mut self, byte: u8, at: usize) -> Result<bool, SplitError> {
        let offset = self.consumed + at as u64;
        if byte.is_ascii_whitespace() {
            return Ok(false);
        }
        match (self.place, byte) {
            (Place::Start, b'[') | (Place::Separator, b',') => self.place = Place::Element,
            // A byte order mark.
            (Place::Start, 0xEF | 0xBB | 0xBF) if offset < 3 => {}
            (Place::Start, first) => return Err(SplitError::NotAnArray { first }),
            (Place::Element | Place::Separator, b']') => self.place = Place::End,
            (Place::Element, found) if !matches!(found, b',' | b':' | b'}') => return Ok(true),
            (_, found) => return Err(SplitError::Malformed { at: offset, found }),
        }
        Ok(false)
    }

    fn begin_record(&mut self, first: u8) {
        self.open.clear();
        self.in_string = false;
        self.escaped = false;
        self.at_name = false;
        self.part = None;
        self.found = [Found::Nothing; 4];
        self.place = if matches!(first, b'{' | b'[') { Place::Nested } else { Place::Scalar };
    }

    /// Reads on in an object or array; true when `at` stands behind its end.
    fn scan_nested(&mut self, chunk: &[u8], from: usize, at: &mut usize) -> Result<bool, SplitError> {
        let carried = self.carried.len();
        let mut next = *at;
        let ended = loop {
            if self.in_string {
                if self.escaped {
                    if next >= chunk.len() {
                        break false;
                    }
                    self.escaped = false;
                    next += 1;
                }
                next = find_quote(chunk, next);
                let Some(&found) = chunk.get(next) else { break false };
                next += 1;
                if found == b'\\' {
                    self.escaped = true;
                    continue;
                }
                self.in_string = false;
                if self.open.len() == 1 {
                    self.end_top_string(chunk, from, carried + next - 1 - from);
                }
                // Nearly always the next string comes behind a single byte.
                if let Some([between @ (b':' | b','), b'"']) = chunk.get(next..next + 2) {
                    if *between == b',' {
                        self.end_value();
                    }
                    next += 2;
                    self.in_string = true;
                    self.string_start = carried + next - from;
                    continue;
                }
            }
            let Some(&byte) = chunk.get(next) else { break false };
            next += 1;
            if !MATTERS[usize::from(byte)] {
                continue;
            }
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.string_start = carried + next - from;
                }
                b'{' | b'[' => {
                    if self.open.len() == 1 {
                        self.set_value(Found::Unusable);
                    }
                    self.open.push(byte);
                    self.at_name = self.open.len() == 1 && byte == b'{';
                }
                b'}' | b']' => {
                    let opened = self.open.pop();
                    if opened != Some(if byte == b'}' { b'{' } else { b'[' }) {
                        let at = self.consumed + next as u64 - 1;
                        return Err(SplitError::Malformed { at, found: byte });
                    }
                    if self.open.is_empty() {
                        break true;
                    }
                }
                b',' => self.end_value(),
                // A number or a word as a value: only strings can be a part of the key.
                b'0'..=b'9' | b'-' | b'a'..=b'z' if self.open.len() == 1 => self.set_value(Found::Unusable),
                _ => {}
            }
        };
        *at = next;
        Ok(ended)
    }

    /// Reads on in an element that is no container; true when `at` stands behind its end.
    fn scan_scalar(&mut self, chunk: &[u8], at: &mut usize) -> bool {
        while *at < chunk.len() {
            let byte = chunk[*at];
            if self.in_string {
                if self.escaped {
                    self.escaped = false;
                } else if byte == b'\\' {
                    self.escaped = true;
                } else if byte == b'"' {
                    self.in_string = false;
                }
            } else if byte == b'"' {
                self.in_string = true;
            } else if matches!(byte, b',' | b']') || byte.is_ascii_whitespace() {
                return true;
            }
            *at += 1;
        }
        false
    }

    /// A comma: at the record's top level a name comes next.
    #[inline]
    fn end_value(&mut self) {
        if let [outermost] = self.open[..] {
            self.part = None;
            self.at_name = outermost == b'{';
        }
    }

    /// A string at the record's top level ended: a name, or perhaps the value of a part.
    fn end_top_string(&mut self, chunk: &[u8], from: usize, end: usize) {
        let start = self.string_start;
        if !self.at_name {
            self.set_value(Found::Text { start, end });
            return;
        }
        self.at_name = false;
        let carried = self.carried.len();
        self.part = match end - start {
            2 | 6 | 9 | 12 if start >= carried => {
                Part::named(&chunk[from + start - carried..from + end - carried])
            }
            2 | 6 | 9 | 12 => {
                let here = &chunk[from..from + end.saturating_sub(carried)];
                Part::named(&[&self.carried[start..end.min(carried)], here].concat())
            }
            _ => None,
        };
    }

    fn set_value(&mut self, value: Found) {
        if let Some(part) = self.part {
            let slot = &mut self.found[part as usize];
            // The bytes of one number arrive here one by one; a second value of the same name does not.
            *slot = if *slot == Found::Nothing { value } else { Found::Unusable };
        }
    }

    fn key(&self, record: &[u8]) -> Option<RecordKey> {
        if record.first() != Some(&b'{') {
            return None;
        }
        let text = |part: Part| match self.found[part as usize] {
            Found::Text { start, end } => unescape(&record[start..end]),
            Found::Nothing | Found::Unusable => None,
        };
        let (id, time) = (text(Part::Id)?, text(Part::CreationTime)?);
        RecordKey::new(&id, &time, &text(Part::Operation)?, &text(Part::UserId)?)
    }
}

/// Resolves the escapes of a JSON string that stands between quotes.
fn unescape(raw: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    let text = std::str::from_utf8(raw).ok()?;
    if memchr::memchr(b'\\', raw).is_none() {
        return Some(text.into());
    }
    serde_json::from_str(&format!("\"{text}\"")).ok().map(std::borrow::Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Records = Vec<(Vec<u8>, Option<RecordKey>)>;

    fn split(body: &[u8], chunk: usize) -> Result<Records, SplitError> {
        let mut records = Vec::new();
        let mut splitter = Splitter::new();
        for piece in body.chunks(chunk.max(1)) {
            splitter.push(piece, &mut |record, key| records.push((record.to_vec(), key)))?;
        }
        splitter.finish()?;
        Ok(records)
    }

    fn texts(body: &str) -> Result<Vec<String>, SplitError> {
        let records = split(body.as_bytes(), body.len())?;
        Ok(records.into_iter().map(|(bytes, _)| String::from_utf8(bytes).unwrap()).collect())
    }

    #[test]
    fn records_keep_their_own_bytes() {
        let body = "\u{feff} [ {\"a\" : 1,\r\n \"b\":\"}]\\\"\"} ,{}\n, [1,{}], null,\"x,]\" ,-1.5e3 ] \n";
        assert_eq!(
            texts(body).unwrap(),
            ["{\"a\" : 1,\r\n \"b\":\"}]\\\"\"}", "{}", "[1,{}]", "null", "\"x,]\"", "-1.5e3"]
        );
        assert!(texts("[]").unwrap().is_empty());
    }

    #[test]
    fn a_cut_body_is_told_from_a_broken_one() {
        let body = r#"[{"a":"b"},{"c":[1,2]}]"#;
        for cut in 0..body.len() {
            let bytes = cut as u64;
            // Here it cannot be told from one whose last record is not closed.
            let cut_behind_bracket = body[..cut].ends_with(']');
            let error = if cut_behind_bracket {
                SplitError::Unclosed { bytes }
            } else {
                SplitError::Truncated { bytes }
            };
            assert_eq!(texts(&body[..cut]), Err(error), "{cut}");
        }
        assert_eq!(texts(r#"{"error":{}}"#), Err(SplitError::NotAnArray { first: b'{' }));
        assert_eq!(texts("<html>"), Err(SplitError::NotAnArray { first: b'<' }));
        assert!(matches!(texts(r#"[{"a":1}{"b":2}]"#), Err(SplitError::Malformed { at: 8, .. })));
        assert!(matches!(texts(r#"[{"a":[1}]]"#), Err(SplitError::Malformed { .. })));
        assert!(matches!(texts("[{}] {}"), Err(SplitError::Malformed { .. })));
    }

    #[test]
    fn a_body_that_a_record_swallowed_is_told_from_a_cut_one() {
        for body in
            [r#"[{"Subject":"C:\"},{"Subject":"C:\\"#, "[{\"a\":\"b\"},{\"a\":", "[{\"a\":[1,2]}", "[[1]"]
        {
            assert!(matches!(texts(body), Err(SplitError::Truncated { .. })), "{body}");
        }
        for body in [
            r#"[{"Subject":"C:\"},{"Subject":"x"}]"#,
            r#"[{"Subject":"5" screen"},{"Subject":"x"}] "#,
            r#"[{"Subject":"x"},"y]"#,
            r#"[{"a":[1]"#,
        ] {
            for chunk in 1..=body.len() {
                let bytes = body.len() as u64;
                assert_eq!(split(body.as_bytes(), chunk), Err(SplitError::Unclosed { bytes }), "{body}");
            }
        }
    }

    #[test]
    fn the_key_is_read_from_the_top_level_only() {
        let id = "1c7412a6-858d-49ff-3f93-08d7ac0f45bf";
        let key = RecordKey::new(id, "2020-02-07T20:49:49", "Set-Mailbox", "NT AUTHORITY\\SYSTEM");
        assert!(key.is_some());
        let whole = format!(
            r#"[{{"Item":{{"Id":"x","Operation":"y"}},"UserId" : "NT AUTHORITY\\SYSTEM","Id":"{id}","Operation":"Set-Mailbox","RecordType":1,"CreationTime":"2020-02-07T20:49:49"}}]"#
        );
        for chunk in 1..=whole.len() {
            assert_eq!(split(whole.as_bytes(), chunk).unwrap()[0].1, key, "chunks of {chunk}");
        }
        for without in [
            whole.replace(r#""Operation":"Set-Mailbox""#, r#""Operation":null"#),
            whole.replace(r#""Operation":"Set-Mailbox""#, r#""Operation":12"#),
            whole.replace(r#""Operation":"Set-Mailbox""#, r#""Operation":{}"#),
            whole.replace("RecordType\":1", "Operation\":\"Other\""),
            whole.replace("UserId", "UserID"),
        ] {
            assert_eq!(split(without.as_bytes(), without.len()).unwrap()[0].1, None, "{without}");
        }
    }

    fn json(depth: u32) -> BoxedStrategy<String> {
        let leaf = prop_oneof![
            "-?[0-9]{1,4}(\\.[0-9]+)?".prop_map(|number| number),
            Just("null".to_owned()),
            ".{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            Just(r#""1c7412a6-858d-49ff-3f93-08d7ac0f45bf""#.to_owned()),
            Just(r#""2020-02-07T20:49:49""#.to_owned()),
        ];
        if depth == 0 {
            return leaf.boxed();
        }
        let name = prop_oneof![
            Just("\"Id\"".to_owned()),
            Just("\"UserId\"".to_owned()),
            Just("\"Operation\"".to_owned()),
            Just("\"CreationTime\"".to_owned()),
            ".{0,5}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        prop_oneof![
            leaf,
            proptest::collection::vec(json(depth - 1), 0..4)
                .prop_map(|items| format!("[{}]", items.join(" , "))),
            proptest::collection::vec((name, json(depth - 1)), 0..6).prop_map(|pairs| {
                let pairs: Vec<_> =
                    pairs.into_iter().map(|(name, value)| format!("{name} :\n{value}")).collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
        .boxed()
    }

    proptest! {
        /// Whatever the chunks, the records are the elements of the array, byte for byte, and the keys agree.
        #[test]
        fn the_size_of_the_chunks_changes_nothing(
            records in proptest::collection::vec(json(3), 0..6),
            gap in "[ \\r\\n\\t]{0,3}",
            chunk in 1usize..40,
        ) {
            let body = format!("[{gap}{}{gap}]", records.join(&format!("{gap},{gap}")));
            let pieces = split(body.as_bytes(), chunk).unwrap();
            let expected: Vec<_> = records.iter().map(|record| record.as_bytes().to_vec()).collect();
            let bytes: Vec<_> = pieces.iter().map(|(bytes, _)| bytes.clone()).collect();
            prop_assert_eq!(bytes, expected);
            prop_assert_eq!(pieces, split(body.as_bytes(), body.len()).unwrap());
        }

        /// Bytes of any kind end in records or in an error, never in a panic.
        #[test]
        fn anything_may_come(body in proptest::collection::vec(any::<u8>(), 0..200), chunk in 1usize..20) {
            let _ = split(&body, chunk);
            let _ = split(&[b"[", body.as_slice(), b"]"].concat(), chunk);
        }
    }
}
