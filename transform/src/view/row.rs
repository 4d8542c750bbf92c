//! Writes an event that is a flat row of columns. A value of the wrong kind for its column is caught in debug builds.

use super::column::{Column, ColumnKind};
use crate::{
    json::{Json, Text, Writer, write::Opened},
    ocsf::metadata::datetime,
    reading::{Reading, TimeSource},
    record::Field,
    tags,
};

/// A row while it is written.
pub(super) struct Row<'w> {
    pub(super) w: Writer<'w>,
    whole: Opened,
    /// Columns that are longer than Log Analytics keeps.
    long: Vec<&'static str>,
}

/// What Log Analytics keeps of a value, in bytes; it cuts the rest off without saying so.
pub(super) const LONGEST: usize = 64 * 1024;

impl<'w> Row<'w> {
    pub(super) fn new(out: &'w mut Vec<u8>) -> Self {
        let mut w = Writer::new(out);
        let whole = w.object("");
        Self { w, whole, long: Vec::new() }
    }

    pub(super) fn finish(mut self) {
        self.w.close(self.whole);
        self.w.finish();
    }

    /// The names of the columns that are longer than [`LONGEST`].
    pub(super) fn long(&self) -> &[&'static str] {
        &self.long
    }

    fn name(&mut self, column: Column) {
        self.w.raw("\"");
        self.w.raw(column.name);
        self.w.raw("\":");
    }

    fn measure(&mut self, column: Column, length: usize) {
        if length > LONGEST {
            self.long.push(column.name);
        }
    }

    fn check(column: Column, kinds: &[ColumnKind]) {
        debug_assert!(kinds.contains(&column.kind), "{column:?} is none of {kinds:?}");
    }

    /// A string of the record.
    pub(super) fn text(&mut self, column: Column, text: Text<'_>) {
        self.fragment(column, text.raw());
    }

    pub(super) fn maybe_text(&mut self, column: Column, text: Option<Text<'_>>) {
        if let Some(text) = text {
            self.text(column, text);
        }
    }

    /// A part of a string of the record, its escapes unresolved, or text that needs no escape.
    pub(super) fn fragment(&mut self, column: Column, raw: &str) {
        Self::check(column, &[ColumnKind::String, ColumnKind::Ip, ColumnKind::DateTime]);
        self.name(column);
        self.w.fragment("", raw);
        self.measure(column, raw.len());
    }

    pub(super) fn maybe_fragment(&mut self, column: Column, raw: Option<&str>) {
        if let Some(raw) = raw {
            self.fragment(column, raw);
        }
    }

    /// JSON as text.
    pub(super) fn json_text(&mut self, column: Column, json: &str) {
        Self::check(column, &[ColumnKind::String]);
        self.name(column);
        self.w.str("", json);
        self.measure(column, json.len());
    }

    pub(super) fn int(&mut self, column: Column, number: i64) {
        Self::check(column, &[ColumnKind::Int, ColumnKind::Long]);
        self.name(column);
        self.w.int("", number);
    }

    pub(super) fn bool(&mut self, column: Column, truth: bool) {
        Self::check(column, &[ColumnKind::Bool]);
        self.name(column);
        self.w.bool("", truth);
    }

    /// JSON as it stands in the record.
    pub(super) fn json(&mut self, column: Column, value: Json<'_>) {
        Self::check(column, &[ColumnKind::Dynamic]);
        self.name(column);
        self.w.json("", value);
        self.measure(column, value.raw().len());
    }

    /// A time, in milliseconds since 1970.
    pub(super) fn time(&mut self, column: Column, reading: &Reading<'_>) {
        Self::check(column, &[ColumnKind::DateTime]);
        self.name(column);
        write_time(&mut self.w, reading);
    }

    /// Opens a column that holds an object.
    pub(super) fn object(&mut self, column: Column) -> Opened {
        Self::check(column, &[ColumnKind::Dynamic]);
        self.name(column);
        self.w.object("")
    }

    /// Opens a list, which the writer closes.
    pub(super) fn list(&mut self, column: Column) -> Opened {
        debug_assert!(column.list || column.kind == ColumnKind::Dynamic, "{column:?} is no list");
        self.name(column);
        self.w.array("")
    }

    /// Closes what [`Row::object`] opened. An object that is empty stays.
    pub(super) fn close(&mut self, column: Column, opened: Opened) {
        self.w.close(opened);
        let length = self.w.written(opened);
        self.measure(column, length);
    }

    /// The event's own id: that of the record, or its blob and its position there.
    pub(super) fn uid(&mut self, column: Column, reading: &Reading<'_>) {
        Self::check(column, &[ColumnKind::String]);
        self.name(column);
        write_uid(&mut self.w, reading);
    }

    /// The names of the tags, when there is one.
    pub(super) fn tags(&mut self, column: Column, tags: u32) {
        if tags == 0 {
            return;
        }
        self.name(column);
        let list = self.w.array("");
        for name in tags::names(tags) {
            self.w.fragment("", name);
        }
        self.w.close(list);
    }
}

/// When it happened, as text.
pub(super) fn write_time(w: &mut Writer<'_>, reading: &Reading<'_>) {
    match reading.record.text(Field::CreationTime) {
        Some(text) if reading.time.source == TimeSource::Plain => {
            w.raw("\"");
            w.raw(text.raw());
            w.raw(".000Z\",");
        }
        _ => match datetime(reading.time.ms) {
            Some(text) => w.fragment("", &text),
            // No year of four digits: the nearest that Log Analytics takes. The record's own text is in the event too.
            None if reading.time.ms < 0 => w.raw("\"0001-01-01T00:00:00.000Z\","),
            None => w.raw("\"9999-12-31T23:59:59.999Z\","),
        },
    }
}

/// The record's id, or its blob and its position there, which never change.
pub(super) fn write_uid(w: &mut Writer<'_>, reading: &Reading<'_>) {
    match reading.record.text(Field::Id) {
        Some(id) => w.text("", id),
        None => {
            w.raw("\"");
            w.escaped(reading.origin.content_id);
            w.raw("#");
            w.raw(itoa::Buffer::new().format(reading.position));
            w.raw("\",");
        }
    }
}
