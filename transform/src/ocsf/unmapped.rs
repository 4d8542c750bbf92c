//! `unmapped`: everything that OCSF has no place for, so that nothing is lost.

use super::Event;
use crate::{
    json::{Json, Text, write::key},
    parameters::write_fields,
    record::Record,
};

impl Event<'_, '_> {
    pub(super) fn unmapped(&mut self) {
        let object = self.w.object(key!("unmapped"));
        self.left_over();
        self.w.close_or_undo(object);
    }

    /// Every field of the record that was not used, under its own name.
    fn left_over(&mut self) {
        let record: &Record<'_> = self.reading.record;
        if record.has_repeats() {
            let names: Vec<_> = record
                .unused(self.used)
                .map(|(field, value)| (format!("\"{}\"", field.name()), value))
                .collect();
            let known = names.iter().filter_map(|(name, value)| {
                Some((crate::json::scan::scan_value(name).ok()?.text()?, *value))
            });
            let all: Vec<(Text<'_>, Json<'_>)> = known.chain(record.others().iter().copied()).collect();
            write_fields(&mut self.w, &all, true, Json::raw);
            return;
        }
        for (field, value) in record.unused(self.used) {
            self.w.json(field.key(), value);
        }
        write_fields(&mut self.w, record.others(), false, Json::raw);
    }
}
