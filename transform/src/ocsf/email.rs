//! Email Activity (4009): mail that was sent.

use super::{Event, observables::Path};
use crate::{
    RenderOptions,
    json::{Json, Text, write::key},
    parts::Item,
    reading::{Reading, is_email},
    record::Field,
};

/// What is known of a mail that was sent.
#[derive(Debug)]
pub(crate) struct Email<'a> {
    pub(crate) from: Option<Text<'a>>,
    pub(crate) to: Vec<Text<'a>>,
    /// Whether `to` holds every receiver with all that the record says of it, and which field that was.
    list: Option<(Field, bool)>,
    pub(crate) direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Unknown,
    Outbound,
    Internal,
}

impl<'a> Email<'a> {
    /// A mail has a sender or a receiver that is an address, or it cannot be told in this class.
    pub(super) fn read(reading: &Reading<'a>, options: &'a RenderOptions) -> Option<Self> {
        let record = reading.record;
        let senders = [
            Field::SendAsUserSmtp,
            Field::SendAsUserSmpt,
            Field::SendOnBehalfOfUserSmtp,
            Field::SendOnBehalfOfUserSmpt,
            Field::MailboxOwnerUpn,
            Field::UserId,
        ];
        let from =
            senders.into_iter().filter_map(|field| record.text(field)).find(|text| is_email(text.raw()));
        let lists = [Field::RecipientList, Field::RecipientListUpper];
        let list = lists.into_iter().find_map(|field| Some((field, record.get(field)?)));
        let (mut to, mut whole) = (Vec::new(), true);
        for receiver in list.into_iter().flat_map(|(_, list)| list.each()) {
            let (address, only) = receiver_address(receiver);
            whole &= only && address.is_some();
            to.extend(address);
        }
        if from.is_none() && to.is_empty() {
            return None;
        }
        let direction = if to.is_empty() {
            Direction::Unknown
        } else {
            let domains = reading.domains(options);
            let outside = to.iter().any(|address| domains.is_external(address.raw()));
            if outside { Direction::Outbound } else { Direction::Internal }
        };
        let list = list.map(|(field, _)| (field, whole && !to.is_empty()));
        Some(Self { from, to, list, direction })
    }
}

/// The address of a receiver, and whether the record says nothing else of them.
fn receiver_address(receiver: Json<'_>) -> (Option<Text<'_>>, bool) {
    let email = |text: &Text<'_>| is_email(text.raw());
    if let Some(text) = receiver.text() {
        return (Some(text).filter(email), true);
    }
    let names = ["Address", "EmailAddress", "SmtpAddress"];
    let address = names.into_iter().find_map(|name| receiver.get_text(name)).filter(email);
    (address, receiver.entries().count() == 1)
}

impl<'a> Event<'_, 'a> {
    pub(super) fn email(&mut self, email: &Email<'a>) {
        match email.direction {
            Direction::Unknown => self.w.raw(r#""direction_id":0,"#),
            Direction::Outbound => self.w.raw(r#""direction_id":2,"#),
            Direction::Internal => self.w.raw(r#""direction_id":3,"#),
        }
        if self.options.captions {
            match email.direction {
                Direction::Unknown => self.w.raw(r#""direction":"Unknown","#),
                Direction::Outbound => self.w.raw(r#""direction":"Outbound","#),
                Direction::Internal => self.w.raw(r#""direction":"Internal","#),
            }
        }
        let record = self.reading.record;
        let object = self.w.object(key!("email"));
        if let Some(from) = email.from {
            self.w.text(key!("from"), from);
            self.observables.address(Path::Plain("email.from"), from);
        }
        let on_behalf = self.reading.operation.is_some_and(|operation| operation.is("SendOnBehalf"));
        let actor = record.text(Field::UserId).filter(|actor| on_behalf && is_email(actor.raw()));
        if self.options.ocsf_version.has_email_sender() {
            self.w.maybe_text(key!("sender"), actor);
        }
        let to = self.w.array(key!("to"));
        for (index, address) in email.to.iter().enumerate() {
            self.w.text("", *address);
            self.observables.address(Path::Indexed("email.to", index, ""), *address);
        }
        self.w.close_or_undo(to);
        if let Some((field, true)) = email.list {
            self.used.insert(field);
        }
        if let Some(item) = self.reading.items.first() {
            self.message(item);
        }
        self.w.close(object);
    }

    /// The message itself. The item stays as it is under `unmapped.exchange.item`.
    fn message(&mut self, item: &Item<'a>) {
        self.w.maybe_text(key!("subject"), item.subject);
        if let Some(id) = item.message_id {
            self.w.text(key!("message_uid"), id);
            self.observables.add(Path::Plain("email.message_uid"), super::observables::MESSAGE_UID, id);
        }
        // Mail that was sent by an application and not kept has no item; the word is no id.
        self.w.maybe_text(key!("uid"), item.id.filter(|id| !id.is("Unknown")));
        if let Some(size) = item.size {
            self.w.int(key!("size"), size);
        }
        let Some(attachments) = item.attachments else { return };
        let files = self.w.array(key!("files"));
        for (index, (name, size)) in attached(attachments.raw()).enumerate() {
            let file = self.w.object("");
            self.w.fragment(key!("name"), name);
            self.w.raw(r#""type_id":1,"#);
            if self.options.captions {
                self.w.raw(r#""type":"Regular File","#);
            }
            self.w.int(key!("size"), size);
            if let Some((_, extension)) = name.rsplit_once('.').filter(|(_, extension)| !extension.is_empty())
            {
                self.w.fragment(key!("ext"), extension);
            }
            self.w.close(file);
            self.observables.piece(
                Path::Indexed("email.files", index, ".name"),
                super::observables::FILE_NAME,
                name,
            );
        }
        self.w.close_or_undo(files);
    }
}

/// The names and sizes in `a (1).pdf (20480b); b.png (5b)`. A name may hold brackets and semicolons, so a file ends only
/// where a size in brackets is followed by a semicolon or by the end.
pub(crate) fn attached(text: &str) -> impl Iterator<Item = (&str, i64)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut from = 0;
        loop {
            let close = from + rest.get(from..)?.find("b)")?;
            let after = rest[close + 2..].trim_start();
            let name = if after.is_empty() || after.starts_with(';') { sized(&rest[..close]) } else { None };
            if let Some(found) = name {
                rest = after.strip_prefix(';').unwrap_or(after).trim_start();
                return Some(found);
            }
            from = close + 2;
        }
    })
}

/// The name and size in `a (1).pdf (20480`.
fn sized(text: &str) -> Option<(&str, i64)> {
    let (name, size) = text.rsplit_once('(')?;
    let digits = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
    let name = name.trim();
    (digits && !name.is_empty()).then_some((name, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_may_be_called_anything() {
        for (text, expected) in [
            ("a (1).pdf (20480b); b.png (5b)", &[("a (1).pdf", 20480), ("b.png", 5)][..]),
            ("x;y (2b) (7b)", &[("x;y (2b)", 7)]),
            ("one(3b);two (4b)", &[("one", 3), ("two", 4)]),
            ("no size", &[]),
            ("(5b)", &[]),
            ("", &[]),
            ("a (99999999999999999999b); b (1b)", &[("a (99999999999999999999b); b", 1)]),
        ] {
            assert_eq!(attached(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
