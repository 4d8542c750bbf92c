//! The OCSF event.

mod actor;
mod endpoint;
mod metadata;
mod unmapped;

use crate::{
    RenderOptions,
    json::{Writer, write::key},
    operation::{Class, api},
    reading::Reading,
    record::{Field, FieldSet},
};

/// An event while it is written.
pub(crate) struct Event<'e, 'a> {
    pub(crate) w: Writer<'e>,
    pub(crate) reading: &'e Reading<'a>,
    pub(crate) options: &'e RenderOptions,
    /// The fields of the record whose values the event has somewhere; all others go to `unmapped`.
    pub(crate) used: FieldSet,
}

/// Appends the event of a record whose own bytes are `bytes`.
pub(crate) fn write(reading: &Reading<'_>, options: &RenderOptions, bytes: &[u8], out: &mut Vec<u8>) {
    let mut event = Event { w: Writer::new(out), reading, options, used: FieldSet::default() };
    let whole = event.w.object("");
    event.class();
    event.metadata();
    event.cloud();
    event.api();
    event.actor();
    event.endpoints();
    event.unmapped();
    event.w.close(whole);
    event.w.finish();
    let _ = bytes;
}

impl Event<'_, '_> {
    fn class(&mut self) {
        let activity = self.reading.meaning.api;
        let _ = Class::Api;
        self.w.raw(r#""class_uid":6003,"class_name":"API Activity","category_uid":6,"category_name":"Application Activity","#);
        self.w.int(key!("activity_id"), i64::from(activity));
        let caption = match activity {
            api::CREATE => "Create",
            api::READ => "Read",
            api::UPDATE => "Update",
            api::DELETE => "Delete",
            api::OTHER => "Other",
            _ => "Unknown",
        };
        match self.reading.operation {
            Some(operation) if activity == api::OTHER => self.w.text(key!("activity_name"), operation),
            _ => self.w.str(key!("activity_name"), caption),
        }
        self.w.int(key!("type_uid"), 600_300 + i64::from(activity));
        self.w.raw(r#""type_name":"API Activity: "#);
        self.w.raw(caption);
        self.w.raw("\",");
        self.time();
        self.w.raw(r#""severity_id":1,"severity":"Informational","#);
        self.status();
    }

    /// `time`, which nothing may lack, and its text.
    fn time(&mut self) {
        let time = self.reading.time;
        self.w.int(key!("time"), time.ms);
        if let Some(text) = metadata::datetime(time.ms) {
            self.w.str(key!("time_dt"), &text);
        }
    }

    fn status(&mut self) {
        let Some(status) = self.reading.record.text(Field::ResultStatus) else {
            self.w.raw(r#""status_id":0,"status":"Unknown","#);
            return;
        };
        if status.is_one_of(&["Succeeded", "True", "Success"]) {
            self.w.raw(r#""status_id":1,"status":"Success","#);
        } else if status.is_one_of(&["Failed", "False", "Failure", "Fail"]) {
            self.w.raw(r#""status_id":2,"status":"Failure","#);
        } else {
            self.w.raw(r#""status_id":99,"#);
            self.w.text(key!("status"), status);
        }
        self.w.text(key!("status_code"), status);
        self.used.insert(Field::ResultStatus);
    }
}
