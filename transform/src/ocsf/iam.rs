//! What the classes of identity and access management have of their own: users, groups and privileges.

use super::{
    Event,
    class::{Named, privileges},
    observables::{Path, USER_NAME},
};
use crate::{
    json::{Json, Text, write::key},
    reading::is_email,
    record::Field,
};

impl<'a> Event<'_, 'a> {
    /// `user`, to whom it was done.
    pub(super) fn affected_user(&mut self, user: &Named<'a>) {
        let object = self.w.object(key!("user"));
        if let Some(name) = user.name {
            self.w.text(key!("name"), name);
            self.observables.add(Path::Plain("user.name"), USER_NAME, name);
        }
        if let Some(uid) = user.uid.or(user.name) {
            self.w.text(key!("uid"), uid);
        }
        if user.uid_is_object {
            self.used.insert(Field::ObjectId);
        }
        let address = user.address.or(user.name).filter(|address| is_email(address.raw()));
        if let Some(address) = address {
            self.w.text(key!("email_addr"), address);
            self.observables.address(Path::Plain("user.email_addr"), address);
        }
        self.w.close(object);
    }

    /// `user` of a group: the member that came or went.
    pub(super) fn member(&mut self, member: Text<'a>) {
        self.affected_user(&Named { name: Some(member), uid: None, address: None, uid_is_object: false });
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
            self.member(user);
        }
        self.w.raw(r#""service":{"name":"Exchange Online"},"#);
    }
}
