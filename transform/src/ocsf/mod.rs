//! The OCSF event: six classes, one writer.
//!
//! Each part of an event is written by a method of [`Event`], in the file that is called like the part. A part that takes the
//! value of a field of the record says so in [`Event::used`]; what nobody took is written under `unmapped`, so a field
//! cannot be lost by forgetting it, only be there twice.

mod actor;
pub(crate) mod attributes;
pub(crate) mod class;
pub(crate) mod email;
mod endpoint;
pub(crate) mod exchange;
mod iam;
pub(crate) mod metadata;
mod observables;
mod raw_data;
mod resources;
mod security_control;
pub(crate) mod unmapped;
mod versions;

use crate::{
    RenderOptions,
    json::{Writer, write::key},
    ocsf::{class::Shape, observables::Observables},
    operation::api,
    reading::Reading,
    record::FieldSet,
};

/// An event while it is written.
struct Event<'e, 'a> {
    w: Writer<'e>,
    reading: &'e Reading<'a>,
    options: &'e RenderOptions,
    /// The fields of the record whose values the event has somewhere, all of them.
    used: FieldSet,
    observables: Observables<'a>,
    /// How many resources were written.
    resource_count: usize,
}

/// Appends the event of a record whose own bytes are `bytes`.
pub(crate) fn write<'a>(
    reading: &Reading<'a>,
    options: &'a RenderOptions,
    tags: u32,
    bytes: &[u8],
    out: &mut Vec<u8>,
) {
    let shape = Shape::choose(reading, options);
    let class = shape.class();
    let mut event = Event {
        w: Writer::new(out),
        reading,
        options,
        used: FieldSet::default(),
        observables: Observables::new(options.observables),
        resource_count: 0,
    };
    let whole = event.w.object("");
    event.class(&shape);
    event.metadata(class, tags);
    event.cloud();
    event.api();
    event.actor();
    event.source_endpoint();
    if class.has_destination() {
        event.destination_endpoint();
    }
    event.http_request(class);
    event.count();
    match &shape {
        Shape::Api { .. } => {}
        Shape::Email(email) => event.email(email),
        Shape::UserAccess { user, privileges, .. } => {
            event.affected_user(user);
            event.privileges(*privileges);
        }
        Shape::Group { group, members, privileges, .. } => {
            event.group(group);
            event.members(members);
            if let Some(privileges) = privileges {
                event.privileges(*privileges);
            }
        }
        Shape::Account { user, .. } => event.affected_user(user),
        Shape::Authentication => event.logon(),
    }
    if class.has_resources() {
        event.resources();
    }
    event.security_control(tags);
    event.use_context();
    event.observe_members(class);
    event.observables();
    event.raw_data(bytes);
    event.unmapped(class);
    event.w.close(whole);
    event.w.finish();
}

impl Event<'_, '_> {
    /// What an event is: class, category, activity, type, time, severity and status.
    fn class(&mut self, shape: &Shape<'_>) {
        let activity = shape.named_activity();
        let written = if self.options.captions { &activity.captioned } else { &activity.bare };
        self.w.raw(written.uids);
        match self.reading.operation {
            // OCSF asks for the source's own word beside 99.
            Some(operation) if activity.number == api::OTHER => {
                self.w.text(key!("activity_name"), operation);
            }
            _ => self.w.raw(written.name),
        }
        self.w.raw(written.kind);
        self.time();
        self.caption(r#""severity_id":1,"#, r#""severity_id":1,"severity":"Informational","#);
        self.status();
    }

    /// A number without its caption, or with it.
    fn caption(&mut self, bare: &str, captioned: &str) {
        self.w.raw(if self.options.captions { captioned } else { bare });
    }

    /// How many operations the record stands for.
    fn count(&mut self) {
        let field = crate::record::Field::OperationCount;
        if let Some(count) = self.reading.record.get(field).and_then(crate::json::Json::int) {
            self.w.int(key!("count"), count);
            self.use_number(field, count);
        }
    }
}
