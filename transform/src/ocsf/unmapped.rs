//! `unmapped`: everything that OCSF has no place for, so that nothing is lost.
//!
//! - `exchange`: what is known of Exchange ([`super::exchange`]).
//! - `mailtrail`: what had to be made up, so that nobody takes it for the record's own.
//! - Every field of the record that is found nowhere else in the event, under its own name. Should a record have a field that
//!   is called like one of the two above, or begins with `record.`, it stands under `record.` and its name.

use super::Event;
use crate::{
    json::{Json, Text, Writer, scan::scan_value, write::key},
    operation::Class,
    parameters::write_fields,
    reading::TimeSource,
    record::{FieldSet, Record},
};

impl Event<'_, '_> {
    pub(super) fn unmapped(&mut self, class: Class) {
        let object = self.w.object(key!("unmapped"));
        if self.reading.exchange {
            self.exchange(class);
        }
        match self.reading.time.source {
            TimeSource::Plain | TimeSource::Record => {}
            TimeSource::Blob => self.w.raw(r#""mailtrail":{"time_source":"content_id"},"#),
            TimeSource::Nowhere => self.w.raw(r#""mailtrail":{"time_source":"unknown"},"#),
        }
        let record = self.reading.record;
        left_over(record, self.used, record.others(), is_taken, &mut self.w);
        self.w.close_or_undo(object);
    }
}

/// Writes every known field of a record that is not in `used`, and `others`, under their own names; `record.` stands before
/// a name that is taken.
pub(crate) fn left_over(
    record: &Record<'_>,
    used: FieldSet,
    others: &[(Text<'_>, Json<'_>)],
    is_taken: impl Fn(&str) -> bool,
    w: &mut Writer<'_>,
) {
    let is_taken = |name: Text<'_>| match name.plain() {
        Some(name) => is_taken(name),
        None => is_taken(&name.unescape()),
    };
    if !record.has_repeats() && !others.iter().any(|(name, _)| is_taken(*name)) {
        for (field, value) in record.unused(used) {
            w.json(field.key(), value);
        }
        write_fields(w, others, false, Json::raw);
        return;
    }
    let quoted: Vec<String> = record
        .unused(used)
        .map(|(field, _)| format!("\"{}\"", field.name()))
        .chain(others.iter().map(|(name, _)| match is_taken(*name) {
            true => format!("\"record.{}\"", name.raw()),
            false => name.json().to_owned(),
        }))
        .collect();
    let values = record.unused(used).map(|(_, value)| value).chain(others.iter().map(|(_, value)| *value));
    let fields: Vec<(Text<'_>, Json<'_>)> = quoted
        .iter()
        .zip(values)
        .filter_map(|(name, value)| Some((scan_value(name).ok()?.text()?, value)))
        .collect();
    write_fields(w, &fields, true, Json::raw);
}

/// Whether a name means something else under `unmapped`.
fn is_taken(name: &str) -> bool {
    name == "exchange" || name == "mailtrail" || name.starts_with("record.")
}
