//! Records in the shape that a sink sends, and what a sink may know of them without reading them again.

use std::ops::Range;

use crate::buffer::Buffer;

/// What is known of a record beside its bytes. Texts are empty when the record does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordFacts<'a> {
    /// `Id`.
    pub id: &'a str,
    /// `CreationTime` in milliseconds since 1970.
    pub time_ms: Option<i64>,
    /// `UserId`: who did it.
    pub user: &'a str,
    /// The owner of the mailbox that it was done to (`MailboxOwnerUPN`), or its GUID.
    pub mailbox: &'a str,
    /// `Operation`: what was done.
    pub operation: &'a str,
    /// `Workload`.
    pub workload: &'a str,
    /// The client's address without its port.
    pub client_ip: &'a str,
    /// `RecordType`, as a number.
    pub record_type: Option<i64>,
    /// What the record was tagged with, as a set of bits that `transform` gives names to.
    pub tags: u32,
}

/// A record that cannot be rendered, with the reason; its bytes are in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrenderable {
    /// The record's position in its blob, counted from 0.
    pub position: u32,
    /// Why.
    pub reason: String,
}

/// Consecutive records of one blob, rendered for one sink.
///
/// The bytes of all records stand in one buffer, because a batch has thousands of them, each with a line break behind
/// it, so that whoever sends lines sends the buffer as it is.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    bytes: Buffer,
    texts: String,
    records: Vec<Mark>,
    /// Records that could not be rendered: dead letters.
    pub unrenderable: Vec<Unrenderable>,
    /// How many records the sink's filter took out.
    pub filtered: u32,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    position: u32,
    /// Behind its line break.
    bytes_end: u32,
    /// Where each text ends in `texts`: id, user, mailbox, operation, workload, client address.
    texts_end: [u32; 6],
    time_ms: Option<i64>,
    record_type: Option<i64>,
    tags: u32,
}

/// One record of [`Rendered`].
#[derive(Debug, Clone, Copy)]
pub struct RenderedRecord<'a> {
    /// Its position in its blob, counted from 0.
    pub position: u32,
    /// What the sink sends: one line, without a line break at its end.
    pub bytes: &'a [u8],
    /// What is known of it.
    pub facts: RecordFacts<'a>,
}

impl Rendered {
    /// Room for about this many bytes of records.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        // A record takes some kilobytes, and its texts some two hundred bytes.
        let (texts, records) = (String::with_capacity(bytes / 16), Vec::with_capacity(bytes / 2048));
        Self { bytes: Buffer::with_room(bytes), texts, records, ..Self::default() }
    }

    /// Where the next record's bytes are to be appended, before [`Rendered::end_record`].
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Forgets what was appended since the last record ended.
    pub fn undo_record(&mut self) {
        let end = self.bytes_end();
        self.bytes.truncate(end);
    }

    /// Ends a record whose bytes were appended to [`Rendered::buffer`].
    ///
    /// # Panics
    ///
    /// Beyond 4 GiB; the pieces that blobs are cut into are far smaller.
    pub fn end_record(&mut self, position: u32, facts: RecordFacts<'_>) {
        let RecordFacts { id, time_ms, user, mailbox, operation, workload, client_ip, record_type, tags } =
            facts;
        let texts_end = [id, user, mailbox, operation, workload, client_ip].map(|text| {
            self.texts.push_str(text);
            fits(self.texts.len())
        });
        self.bytes.push(b'\n');
        let bytes_end = fits(self.bytes.len());
        self.records.push(Mark { position, bytes_end, texts_end, time_ms, record_type, tags });
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The length of all records together, in bytes, without line breaks.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.bytes_of(0..self.records.len())
    }

    /// What this takes of memory, about, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + self.texts.capacity() + self.records.capacity() * size_of::<Mark>()
    }

    /// The record with this index (not position).
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn get(&self, index: usize) -> RenderedRecord<'_> {
        let mark = &self.records[index];
        let (bytes_start, mut start) = match index.checked_sub(1) {
            Some(before) => (self.records[before].bytes_end, self.records[before].texts_end[5]),
            None => (0, 0),
        };
        let [id, user, mailbox, operation, workload, client_ip] = mark.texts_end.map(|end| {
            let text = &self.texts[start as usize..end as usize];
            start = end;
            text
        });
        RenderedRecord {
            position: mark.position,
            bytes: &self.bytes[bytes_start as usize..mark.bytes_end as usize - 1],
            facts: RecordFacts {
                id,
                time_ms: mark.time_ms,
                user,
                mailbox,
                operation,
                workload,
                client_ip,
                record_type: mark.record_type,
                tags: mark.tags,
            },
        }
    }

    /// `CreationTime` of the record with this index (not position), in milliseconds since 1970; what
    /// [`Rendered::get`] gives too, for those who want nothing else of it.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn time_ms(&self, index: usize) -> Option<i64> {
        self.records[index].time_ms
    }

    /// The position of the record with this index in its blob, like [`Rendered::time_ms`].
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn position(&self, index: usize) -> u32 {
        self.records[index].position
    }

    /// The records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RenderedRecord<'_>> {
        (0..self.records.len()).map(|index| self.get(index))
    }

    /// The length of the records in `indexes`, in bytes, without line breaks.
    #[must_use]
    pub fn bytes_of(&self, indexes: Range<usize>) -> usize {
        let records = indexes.len();
        self.span(indexes).len() - records
    }

    /// The records in `indexes` as lines, each with a line break behind it.
    #[must_use]
    pub fn lines_of(&self, indexes: Range<usize>) -> &[u8] {
        &self.bytes[self.span(indexes)]
    }

    fn span(&self, indexes: Range<usize>) -> Range<usize> {
        let end =
            |index: usize| index.checked_sub(1).map_or(0, |before| self.records[before].bytes_end as usize);
        end(indexes.start)..end(indexes.end)
    }

    fn bytes_end(&self) -> usize {
        self.records.last().map_or(0, |mark| mark.bytes_end as usize)
    }
}

fn fits(length: usize) -> u32 {
    u32::try_from(length).expect("a piece of a blob is under 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_put() {
        let mut rendered = Rendered::default();
        for (position, id, user) in [(3, "one", "a@b"), (5, "", ""), (6, "three", "c@d")] {
            rendered.buffer().extend_from_slice(format!("{{{position}}}").as_bytes());
            let facts =
                RecordFacts { id, user, time_ms: Some(i64::from(position)), ..RecordFacts::default() };
            rendered.end_record(position, facts);
        }
        rendered.buffer().extend_from_slice(b"half a rec");
        rendered.undo_record();
        let back: Vec<_> = rendered.iter().map(|r| (r.position, r.bytes, r.facts.id, r.facts.user)).collect();
        assert_eq!(
            back,
            [(3, &b"{3}"[..], "one", "a@b"), (5, &b"{5}"[..], "", ""), (6, &b"{6}"[..], "three", "c@d")]
        );
        assert_eq!(rendered.bytes_of(1..3), 6);
        assert_eq!((rendered.time_ms(0), rendered.time_ms(2)), (Some(3), Some(6)));
        assert_eq!((rendered.position(0), rendered.position(1)), (3, 5));
        assert_eq!(rendered.total_bytes(), 9);
        assert_eq!(rendered.lines_of(1..3), b"{5}\n{6}\n");
        assert!(rendered.lines_of(3..3).is_empty());
    }
}
