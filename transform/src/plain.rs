//! What stands in a record as it is: for sinks that pass records on and need not understand them.

use std::borrow::Cow;

use schemas::{RecordFacts, time::parse_utc};

use crate::{
    json::{ElementName, Fault, Fields, Json, Key, Name, Text, scan_object},
    reading::record_type_of,
};

/// A field, and whether it is a string with escapes.
type Value<'a> = Option<(Json<'a>, bool)>;

/// The few fields that [`Facts::Plain`](crate::options::Facts::Plain) and
/// [`Facts::Mailbox`](crate::options::Facts::Mailbox) promise, of a record that was checked.
#[derive(Debug, Default)]
pub(crate) struct Plain<'a> {
    id: Value<'a>,
    time: Value<'a>,
    operation: Value<'a>,
    user: Value<'a>,
    mailbox_owner: Value<'a>,
    record_type: Value<'a>,
}

impl<'a> Plain<'a> {
    /// Checks a record as [`Record::fill`](crate::record::Record::fill) does.
    pub(crate) fn read(text: &'a str, controls: bool) -> Result<Self, Fault> {
        let mut plain = Self::default();
        scan_object(text, controls, &mut plain)?;
        Ok(plain)
    }

    /// Whether the record says itself whose mailbox it is about. Otherwise that takes understanding it.
    pub(crate) fn names_mailbox_owner(&self) -> bool {
        self.mailbox_owner.and_then(|(owner, _)| owner.text()).is_some_and(|owner| !owner.is_empty())
    }

    /// Hands over what is known.
    pub(crate) fn tell(&self, told: impl FnOnce(RecordFacts<'_>)) {
        let [id, time, operation, user, mailbox] =
            [self.id, self.time, self.operation, self.user, self.mailbox_owner].map(text);
        told(RecordFacts {
            id: &id,
            time_ms: parse_utc(&time).map(|time| time.timestamp_millis()),
            operation: &operation,
            user: &user,
            mailbox: &mailbox,
            record_type: self.record_type.and_then(|(value, _)| record_type_of(value)),
            ..RecordFacts::default()
        });
    }

    #[inline]
    fn place(&mut self, name: &[u8]) -> Option<&mut Value<'a>> {
        match name {
            b"Id" => Some(&mut self.id),
            b"CreationTime" => Some(&mut self.time),
            b"Operation" => Some(&mut self.operation),
            b"UserId" => Some(&mut self.user),
            b"MailboxOwnerUPN" => Some(&mut self.mailbox_owner),
            b"RecordType" => Some(&mut self.record_type),
            _ => None,
        }
    }
}

/// The text of a field with its escapes resolved; empty when it holds none.
fn text(value: Value<'_>) -> Cow<'_, str> {
    match value.and_then(|(value, escaped)| Some((value.text()?, escaped))) {
        Some((text, true)) => text.unescape(),
        Some((text, false)) => Cow::Borrowed(text.raw()),
        None => Cow::Borrowed(""),
    }
}

impl<'a> Fields<'a> for Plain<'a> {
    fn expected(&self) -> Option<&'static Key> {
        None
    }

    #[inline]
    fn field(&mut self, name: Name<'a>, value: Json<'a>, escaped: bool) {
        let place = match name.escaped {
            true => self.place(name.text().unescape().as_bytes()),
            false => self.place(name.bytes()),
        };
        // The first of a name counts.
        if let Some(place) = place
            && place.is_none()
        {
            *place = Some((value, escaped));
        }
    }

    /// Not wanted, but the scanner passes over pairs with less work than over any other list.
    #[inline]
    fn wants_elements(&self, name: Name<'a>) -> bool {
        matches!(name.bytes(), b"Parameters" | b"OperationProperties")
    }

    fn list(&mut self) {}

    fn pair(&mut self, _: Text<'a>, _: Json<'a>) {}

    fn element(&mut self, _: bool) {}

    fn element_field(&mut self, _: ElementName, _: Json<'a>, _: bool) {}
}
