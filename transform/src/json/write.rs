//! Writes JSON into a buffer.
//!
//! Every value is written with a comma behind it, and closing a container takes the last comma back. So nobody has to
//! know whether a field is the first of its object, and an object that stayed empty can be taken back whole.

use super::{Json, Text, bytes::find_special};

/// A field's name as it is written: `key!("uid")` is `"uid":`.
macro_rules! key {
    ($name:literal) => {
        concat!("\"", $name, "\":")
    };
}
pub(crate) use key;

/// Where an object or array begins; it ends it, or takes it back.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Opened {
    start: usize,
    inside: usize,
    closing: u8,
}

/// Appends JSON to a buffer. Names are given by [`key!`].
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(out: &'b mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Copies what is JSON already, such as a constant piece with a comma at its end.
    #[inline]
    pub(crate) fn raw(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    /// Opens an object; `""` as its key stands for an element of an array.
    #[inline]
    pub(crate) fn object(&mut self, key: &str) -> Opened {
        self.open(key, b'{')
    }

    #[inline]
    pub(crate) fn array(&mut self, key: &str) -> Opened {
        self.open(key, b'[')
    }

    #[inline]
    fn open(&mut self, key: &str, bracket: u8) -> Opened {
        let start = self.out.len();
        self.raw(key);
        self.out.push(bracket);
        // The bracket that closes stands two behind the one that opens.
        Opened { start, inside: self.out.len(), closing: bracket + 2 }
    }

    #[inline]
    pub(crate) fn close(&mut self, opened: Opened) {
        match self.out.last_mut() {
            Some(last) if *last == b',' => *last = opened.closing,
            _ => self.out.push(opened.closing),
        }
        self.out.push(b',');
    }

    /// Closes what holds something and takes back what holds nothing. Whether it held something.
    #[inline]
    pub(crate) fn close_or_undo(&mut self, opened: Opened) -> bool {
        let holds = self.out.len() > opened.inside;
        if holds {
            self.close(opened);
        } else {
            self.out.truncate(opened.start);
        }
        holds
    }

    /// How many bytes were written since `opened`.
    #[inline]
    pub(crate) fn written(&self, opened: Opened) -> usize {
        self.out.len() - opened.start
    }

    /// Takes the comma behind the last value back.
    pub(crate) fn finish(self) {
        if self.out.last() == Some(&b',') {
            self.out.pop();
        }
    }

    /// A string of the record, as it stands there.
    #[inline]
    pub(crate) fn text(&mut self, key: &str, text: Text<'_>) {
        self.piece(key, text.json());
    }

    /// Like [`Writer::text`] when there is one.
    #[inline]
    pub(crate) fn maybe_text(&mut self, key: &str, text: Option<Text<'_>>) {
        if let Some(text) = text {
            self.piece(key, text.json());
        }
    }

    /// Any value of the record, as it stands there.
    #[inline]
    pub(crate) fn json(&mut self, key: &str, value: Json<'_>) {
        self.piece(key, value.raw());
    }

    #[inline]
    fn piece(&mut self, key: &str, json: &str) {
        self.raw(key);
        self.raw(json);
        self.out.push(b',');
    }

    /// A name of the record with its value.
    #[inline]
    pub(crate) fn field(&mut self, name: Text<'_>, value: Json<'_>) {
        self.name(name);
        self.piece("", value.raw());
    }

    /// A name of the record, to be followed by a value with an empty key.
    #[inline]
    pub(crate) fn name(&mut self, name: Text<'_>) {
        self.raw(name.json());
        self.out.push(b':');
    }

    /// A part of a string of the record, its escapes unresolved.
    #[inline]
    pub(crate) fn fragment(&mut self, key: &str, raw: &str) {
        self.raw(key);
        self.out.push(b'"');
        self.raw(raw);
        self.raw("\",");
    }

    /// Any text; what needs an escape gets one.
    pub(crate) fn str(&mut self, key: &str, text: &str) {
        self.raw(key);
        self.out.push(b'"');
        self.escaped(text);
        self.raw("\",");
    }

    /// Any text without quotes around it, escaped.
    pub(crate) fn escaped(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut copied = 0;
        loop {
            let at = find_special(bytes, copied);
            self.out.extend_from_slice(&bytes[copied..at]);
            match bytes.get(at) {
                None => return,
                Some(b'"') => self.raw("\\\""),
                Some(b'\\') => self.raw("\\\\"),
                Some(b'\n') => self.raw("\\n"),
                Some(b'\r') => self.raw("\\r"),
                Some(b'\t') => self.raw("\\t"),
                Some(control) => {
                    const DIGITS: &[u8; 16] = b"0123456789abcdef";
                    self.raw("\\u00");
                    self.out.push(DIGITS[usize::from(control >> 4)]);
                    self.out.push(DIGITS[usize::from(control & 15)]);
                }
            }
            copied = at + 1;
        }
    }

    #[inline(always)]
    pub(crate) fn int(&mut self, key: &str, number: i64) {
        self.raw(key);
        match number {
            // Nearly every number is that of a kind.
            0..10 => self.out.extend_from_slice(&[b'0' + number as u8, b',']),
            _ => self.long_int(number),
        }
    }

    #[inline(never)]
    fn long_int(&mut self, number: i64) {
        self.piece("", itoa::Buffer::new().format(number));
    }

    #[inline]
    pub(crate) fn bool(&mut self, key: &str, truth: bool) {
        self.piece(key, if truth { "true" } else { "false" });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commas_stand_where_they_belong() {
        let mut out = b"before ".to_vec();
        let mut writer = Writer::new(&mut out);
        let event = writer.object("");
        let list = writer.array(key!("list"));
        for number in [1, -2] {
            writer.int("", number);
        }
        writer.close(list);
        let empty = writer.object(key!("empty"));
        writer.close(empty);
        let gone = writer.object(key!("gone"));
        assert!(!writer.close_or_undo(gone));
        writer.bool(key!("yes"), true);
        let kept = writer.object(key!("kept"));
        writer.fragment(key!("part"), "\\u0041b");
        assert!(writer.close_or_undo(kept));
        writer.close(event);
        writer.finish();
        let expected = r#"before {"list":[1,-2],"empty":{},"yes":true,"kept":{"part":"\u0041b"}}"#;
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out);
            writer.str("", &text);
            writer.finish();
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
