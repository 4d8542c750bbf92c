//! `actor`: who did it.

use super::Event;
use crate::{
    json::{Text, write::key},
    reading::is_email,
    record::Field,
};

impl Event<'_, '_> {
    pub(super) fn actor(&mut self) {
        let record = self.reading.record;
        let object = self.w.object(key!("actor"));
        let user = self.w.object(key!("user"));
        match record.text(Field::UserId) {
            Some(id) => {
                self.used.insert(Field::UserId);
                self.w.text(key!("name"), id);
                self.w.text(key!("uid"), id);
                self.address_of(id);
            }
            None => self.w.raw(r#""name":"Unknown","#),
        }
        if let Some(key) = record.text(Field::UserKey) {
            self.used.insert(Field::UserKey);
            self.w.text(key!("uid_alt"), key);
        }
        self.w.close(user);
        self.w.close(object);
    }

    /// The address and domain of a user whose name is an address.
    fn address_of(&mut self, name: Text<'_>) {
        let address = name.raw();
        if let Some((_, domain)) = address.split_once('@').filter(|_| is_email(address)) {
            self.w.text(key!("email_addr"), name);
            self.w.fragment(key!("domain"), domain);
        }
    }
}
