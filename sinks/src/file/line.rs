//! Lines of a file, and whether a line is a certain record in any rendering.

use std::io;

use schemas::RenderedRecord;
use serde_json::Value;

use super::disk::{DiskFile, read_full};

const CHUNK: usize = 64 * 1024;
/// A longer line is not believed to be a record: it is what a crash of the machine left, such as a hole.
const LONGEST: usize = 256 << 20;

/// A line of a file, or what stands at its end without a line break.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Without its line break.
    pub(super) bytes: &'a [u8],
    /// Whether it ends and has no hole in it: blocks that a crash of the machine kept from the disk read as zeros,
    /// which stand in no text.
    pub(super) whole: bool,
}

/// Reads lines from an offset on.
pub(super) struct Lines<'a> {
    file: &'a dyn DiskFile,
    /// Where the next read begins.
    offset: u64,
    buffer: Vec<u8>,
    /// How much of the buffer was given out.
    used: usize,
    ended: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, offset: u64) -> Self {
        Self { file, offset, buffer: Vec::new(), used: 0, ended: false }
    }

    /// The next line; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|&b| b == b'\n') {
                let end = searched + end;
                self.used = end + 1;
                let bytes = &self.buffer[..end];
                return Ok(Some(Line { bytes, whole: !bytes.contains(&0) }));
            }
            searched = self.buffer.len();
            if self.ended || searched > LONGEST {
                self.used = searched;
                let line = Line { bytes: &self.buffer, whole: false };
                return Ok((searched > 0).then_some(line));
            }
            self.buffer.resize(searched + CHUNK, 0);
            let read = read_full(self.file, &mut self.buffer[searched..], self.offset)?;
            self.buffer.truncate(searched + read);
            self.offset += read as u64;
            self.ended = read < CHUNK;
        }
    }
}

/// Whether a whole line is this record, rendered in this way or another.
pub(super) fn is_record(line: &[u8], record: &RenderedRecord<'_>) -> bool {
    if line == record.bytes {
        return true;
    }
    let facts = &record.facts;
    let marks: &[&str] =
        if facts.id.is_empty() { &[facts.operation, facts.user] } else { std::slice::from_ref(&facts.id) };
    if marks.iter().any(|mark| mark.is_empty()) {
        // Nothing tells it from its neighbours but its bytes.
        return false;
    }
    match serde_json::from_slice::<Value>(line) {
        Ok(value @ Value::Object(_)) => marks.iter().all(|mark| has_text(&value, mark)),
        _ => false,
    }
}

fn has_text(value: &Value, text: &str) -> bool {
    match value {
        Value::String(leaf) => leaf == text,
        Value::Array(items) => items.iter().any(|item| has_text(item, text)),
        Value::Object(fields) => fields.values().any(|field| has_text(field, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use schemas::RecordFacts;

    use super::*;

    #[test]
    fn a_record_is_known_in_another_rendering_by_its_id() {
        let facts = RecordFacts { id: "1c74", operation: "Send", user: "a@b", ..RecordFacts::default() };
        let record = RenderedRecord { position: 0, bytes: br#"{"Id":"1c74"}"#, facts };
        assert!(is_record(br#"{"Id":"1c74"}"#, &record));
        assert!(is_record(br#"{"metadata":{"uid":"1c74"},"more":[1]}"#, &record));
        assert!(!is_record(br#"{"metadata":{"uid":"1c75"}}"#, &record));
        assert!(!is_record(br#"{"uid":"1c74","#, &record), "torn");
        assert!(!is_record(b"{\"uid\":\"1c74\"\0\0}", &record), "a hole in the middle");
        assert!(!is_record(br#""1c74""#, &record));

        let facts = RecordFacts { id: "", ..facts };
        let nameless = RenderedRecord { position: 0, bytes: b"{}", facts };
        assert!(is_record(br#"{"Operation":"Send","UserId":"a@b"}"#, &nameless));
        assert!(!is_record(br#"{"Operation":"Send","UserId":"x@b"}"#, &nameless));
        let unknown = RenderedRecord { position: 0, bytes: b"{}", facts: RecordFacts::default() };
        assert!(is_record(b"{}", &unknown));
        assert!(!is_record(br#"{"a":1}"#, &unknown));
    }

    #[test]
    fn lines_of_any_length_are_read() {
        let mut file = tempfile::tempfile().unwrap();
        let long = "x".repeat(200_000);
        let text = format!("skip\na\n\n{long}\nho\0le\nto");
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let mut lines = Lines::new(&file, 5);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            seen.push((String::from_utf8(line.bytes.to_vec()).unwrap(), line.whole));
        }
        let expected = [("a", true), ("", true), (long.as_str(), true), ("ho\0le", false), ("to", false)];
        assert_eq!(seen, expected.map(|(text, whole)| (text.to_owned(), whole)));
    }
}
