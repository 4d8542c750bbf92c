//! What the classes of identity and access management have of their own: users, groups and privileges.

use super::{
    Event,
    class::{Named, group_members, privileges},
    observables::{EMAIL_ADDRESS, Path, USER_NAME},
};
use crate::{
    json::{Json, Text, write::key},
    operation::Class,
    reading::is_email,
    record::Field,
};

impl<'a> Event<'_, 'a> {
    /// `user`, to whom it was done.
    pub(super) fn affected_user(&mut self, user: &Named<'a>) {
        if user.uid_is_object {
            self.used.insert(Field::ObjectId);
        }
        let raw = |text: Option<Text<'a>>| text.map(Text::raw);
        self.person(raw(user.name), raw(user.uid), raw(user.address));
    }

    fn person(&mut self, name: Option<&'a str>, uid: Option<&'a str>, address: Option<&'a str>) {
        let object = self.w.object(key!("user"));
        if let Some(name) = name {
            self.w.fragment(key!("name"), name);
            self.observables.piece(Path::Plain("user.name"), USER_NAME, name);
        }
        if let Some(uid) = uid.or(name) {
            self.w.fragment(key!("uid"), uid);
        }
        if let Some(address) = address.or(name).filter(|address| is_email(address)) {
            self.w.fragment(key!("email_addr"), address);
            self.observables.piece(Path::Plain("user.email_addr"), EMAIL_ADDRESS, address);
        }
        self.w.close(object);
    }

    /// `user` of a group: the member that came or went. The class has no list of users, so several are nobody there, and
    /// `unmapped.exchange.members` has them all.
    pub(super) fn members(&mut self, members: &[&'a str]) {
        if let [member] = members {
            self.person(Some(member), None, None);
        }
    }

    /// The members that stand in `unmapped.exchange` alone.
    pub(super) fn observe_members(&mut self, class: Class) {
        let members = group_members(self.reading);
        if class == Class::Group && members.len() == 1 {
            return;
        }
        for (index, member) in members.into_iter().enumerate() {
            let kind = if is_email(member) { EMAIL_ADDRESS } else { USER_NAME };
            self.observables.piece(Path::Indexed("unmapped.exchange.members", index, ""), kind, member);
        }
    }

    pub(super) fn group(&mut self, group: &Named<'a>) {
        let object = self.w.object(key!("group"));
        self.w.maybe_text(key!("name"), group.name);
        self.w.maybe_text(key!("uid"), group.uid);
        if group.uid_is_object {
            self.used.insert(Field::ObjectId);
        }
        self.w.close(object);
    }

    pub(super) fn privileges(&mut self, value: Json<'a>) {
        let list = self.w.array(key!("privileges"));
        for privilege in privileges(value) {
            self.w.fragment("", privilege);
        }
        self.w.close(list);
    }

    /// What Authentication has of its own: who logged on, and to what.
    pub(super) fn logon(&mut self) {
        let record = self.reading.record;
        let somebody = [Field::UserId, Field::MailboxOwnerUpn, Field::UserKey];
        let user = somebody.into_iter().find_map(|field| record.text(field));
        if let Some(user) = user {
            self.person(Some(user.raw()), None, None);
        }
        self.w.raw(r#""service":{"name":"Exchange Online"},"#);
    }
}
