//! `resources`: what it was done to. A mailbox with its folders and messages, or the object of an admin's cmdlet.

use super::{
    Event,
    observables::{MESSAGE_UID, Path},
};
use crate::{
    json::{Json, Kind, Text, write::key},
    operation::Source,
    parts::Item,
    reading::is_email,
    record::Field,
};

/// The part that a resource has in the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Target,
    Affected,
    Related,
}

impl<'a> Event<'_, 'a> {
    pub(super) fn resources(&mut self) {
        let list = self.w.array(key!("resources"));
        self.mailbox();
        self.object();
        for (field, role) in [(Field::Folder, Role::Affected), (Field::DestFolder, Role::Related)] {
            if let Some(folder) = self.reading.record.get(field) {
                let whole = self.folder(folder, role, "");
                self.use_if(whole, field);
            }
        }
        for (field, items) in [(Field::Folders, "FolderItems"), (Field::Messages, "MessageItems")] {
            if let Some(folders) = self.reading.record.get(field) {
                let (mut any, mut whole) = (false, true);
                for folder in folders.each() {
                    any = true;
                    whole &= self.folder(folder, Role::Affected, items);
                }
                self.use_if(any && whole, field);
            }
        }
        let reading = self.reading;
        for (field, items) in [(Field::Item, &reading.items), (Field::AffectedItems, &reading.affected_items)]
        {
            let whole =
                items.iter().fold(!items.is_empty(), |whole, item| self.item_or_folder(item) && whole);
            self.use_if(whole, field);
        }
        self.w.close_or_undo(list);
    }

    fn use_if(&mut self, whole: bool, field: Field) {
        if whole {
            self.used.insert(field);
        }
    }

    fn role(&mut self, role: Role) {
        self.resource_count += 1;
        if !self.options.ocsf_version.has_resource_roles() {
            return;
        }
        self.w.raw(match (role, self.options.captions) {
            (Role::Target, true) => r#""role_id":1,"role":"Target","#,
            (Role::Affected, true) => r#""role_id":3,"role":"Affected","#,
            (Role::Related, true) => r#""role_id":4,"role":"Related","#,
            (Role::Target, false) => r#""role_id":1,"#,
            (Role::Affected, false) => r#""role_id":3,"#,
            (Role::Related, false) => r#""role_id":4,"#,
        });
    }

    fn mailbox(&mut self) {
        let record = self.reading.record;
        let (guid, owner) = (record.text(Field::MailboxGuid), record.text(Field::MailboxOwnerUpn));
        if guid.is_none() && owner.is_none() {
            return;
        }
        let index = self.resource_count;
        let resource = self.w.object("");
        self.w.raw(r#""type":"Mailbox","#);
        self.role(Role::Target);
        self.w.maybe_text(key!("uid"), guid);
        if let Some(owner) = owner {
            self.w.text(key!("name"), owner);
            let user = self.w.object(key!("owner"));
            self.w.text(key!("uid"), owner);
            self.w.text(key!("name"), owner);
            if is_email(owner.raw()) {
                self.w.text(key!("email_addr"), owner);
                self.observables.address(Path::Indexed("resources", index, ".owner.email_addr"), owner);
            }
            self.w.maybe_text(key!("uid_alt"), record.text(Field::MailboxOwnerSid));
            self.w.close(user);
        }
        self.w.close(resource);
    }

    /// The object of a cmdlet, or of an operation of another workload.
    fn object(&mut self) {
        let reading = self.reading;
        let object = reading.record.text(Field::ObjectId);
        let resolved = reading.record.text(Field::ModifiedObjectResolvedName);
        let admin = reading.source == Source::ExchangeAdmin;
        let identity = reading.parameters.identity.filter(|_| admin);
        let address = identity.filter(|identity| is_email(identity.raw()));
        let made = || reading.parameters.text("Name").filter(|_| admin && object.is_none());
        let name = address.or(resolved).or_else(|| identity.filter(|_| object.is_none())).or_else(made);
        if object.is_none() && name.is_none() {
            return;
        }
        let resource = self.w.object("");
        if let Some(cmdlet) = reading.cmdlet.filter(|_| admin) {
            self.w.fragment(key!("type"), cmdlet.noun_text);
        } else if let Some(kind) = reading.record.text(Field::ItemType) {
            self.used.insert(Field::ItemType);
            self.w.text(key!("type"), kind);
        }
        self.role(Role::Target);
        self.w.maybe_text(key!("uid"), object);
        self.w.maybe_text(key!("name"), name);
        if let Some(resolved) = resolved {
            self.used.insert(Field::ModifiedObjectResolvedName);
            if address.is_some() {
                let data = self.w.object(key!("data"));
                self.w.text(key!("resolved_name"), resolved);
                self.w.close(data);
            }
        }
        if object.is_some() {
            self.used.insert(Field::ObjectId);
        }
        self.w.close(resource);
    }

    /// A folder, and the messages that are listed in it under the name `items`. Whether all of it was written.
    fn folder(&mut self, folder: Json<'a>, role: Role, items: &str) -> bool {
        let (mut id, mut path, mut inside, mut rest) = (None, None, None, false);
        for (name, value) in folder.entries() {
            match name.bytes() {
                b"Id" if id.is_none() && value.filled_text().is_some() => id = value.text(),
                b"Path" if path.is_none() && value.filled_text().is_some() => path = value.text(),
                name if inside.is_none() && !items.is_empty() && name == items.as_bytes() => {
                    inside = Some(value)
                }
                _ => rest = true,
            }
        }
        if id.is_none() && path.is_none() {
            return false;
        }
        let resource = self.w.object("");
        self.w.raw(r#""type":"Folder","#);
        self.role(role);
        self.w.maybe_text(key!("uid"), id);
        self.w.maybe_text(key!("name"), path);
        let taken = [("Id", id), ("Path", path)];
        if rest {
            self.rest_of(folder, &taken, items);
        }
        self.w.close(resource);
        let Some(messages) = inside else { return true };
        let (mut any, mut whole) = (false, messages.kind() == Kind::Array);
        for message in Item::each(messages) {
            any = true;
            whole &= self.item(&message, path);
        }
        any && whole
    }

    /// An item. Where the operation was done to a folder, the record has the folder as an item and as its own parent.
    fn item_or_folder(&mut self, item: &Item<'a>) -> bool {
        let path = item.parent.and_then(|parent| parent.path);
        let is_parent = item.id.is_some() && item.id == item.parent.and_then(|parent| parent.id);
        if !is_parent || item.message_id.is_some() || item.subject.is_some() {
            return self.item(item, path);
        }
        let resource = self.w.object("");
        self.w.raw(r#""type":"Folder","#);
        self.role(Role::Affected);
        self.w.maybe_text(key!("uid"), item.id);
        self.w.maybe_text(key!("name"), path);
        self.w.json(key!("data"), item.json);
        self.w.close(resource);
        true
    }

    /// A message. Whether it could be written, which takes an id or a subject.
    fn item(&mut self, item: &Item<'a>, folder: Option<Text<'a>>) -> bool {
        let Item { id, message_id, subject, .. } = *item;
        let Some(name) = message_id.or(id).or(subject) else { return false };
        let index = self.resource_count;
        let resource = self.w.object("");
        self.w.raw(r#""type":"Email","#);
        self.role(Role::Affected);
        if let Some(message_id) = message_id {
            self.w.text(key!("uid"), message_id);
            self.w.maybe_text(key!("uid_alt"), id);
            self.observables.add(Path::Indexed("resources", index, ".uid"), MESSAGE_UID, name);
        } else {
            self.w.maybe_text(key!("uid"), id);
        }
        self.w.maybe_text(key!("name"), subject);
        self.w.maybe_text(key!("namespace"), folder);
        if item.has_more {
            self.rest_of(
                item.json,
                &[("Id", id), ("InternetMessageId", message_id), ("Subject", subject)],
                "",
            );
        }
        self.w.close(resource);
        true
    }

    /// `data`: the fields of an object that were not taken, nor are the list `items`.
    fn rest_of(&mut self, object: Json<'a>, taken: &[(&str, Option<Text<'a>>)], items: &str) {
        let data = self.w.object(key!("data"));
        let (mut left, mut listed) = ([true; 3], items.is_empty());
        for (name, value) in object.entries() {
            if !listed && name.bytes() == items.as_bytes() {
                listed = true;
                continue;
            }
            let place =
                taken.iter().position(|(taken, text)| name.bytes() == taken.as_bytes() && text.is_some());
            match place {
                Some(place) if left[place] && value.filled_text().is_some() => left[place] = false,
                _ => self.w.field(name, value),
            }
        }
        self.w.close_or_undo(data);
    }
}
