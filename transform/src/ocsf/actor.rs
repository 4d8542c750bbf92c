//! `actor`: who did it, in which session, with which application.

use super::{
    Event,
    exchange::{SERVICE, USER_TYPES, context_is_told, named, ocsf_user_type, user_type},
    observables::{Path, USER_NAME},
};
use crate::{
    json::{Kind, Text, write::key},
    reading::is_email,
    record::Field,
};

impl<'a> Event<'_, 'a> {
    pub(super) fn actor(&mut self) {
        let object = self.w.object(key!("actor"));
        self.user();
        self.session();
        if let Some(app) = self.reading.app_id() {
            self.w.text(key!("app_uid"), app);
            for field in [Field::ClientAppId, Field::ApplicationId] {
                if self.reading.record.text(field) == Some(app) {
                    self.used.insert(field);
                }
            }
        }
        if let Some(name) = self.app_name() {
            self.w.text(key!("app_name"), name);
            if self.reading.record.text(Field::ApplicationDisplayName) == Some(name) {
                self.used.insert(Field::ApplicationDisplayName);
            }
        }
        self.w.close(object);
    }

    /// The name of the application. It is no `process`: that would need an id which nobody gives. OCSF 1.9 is to have another
    /// place for it, so it is decided here alone.
    fn app_name(&self) -> Option<Text<'a>> {
        let record = self.reading.record;
        self.reading
            .context
            .and_then(|context| context.app_name)
            .or_else(|| record.text(Field::ClientProcessName))
            .or_else(|| record.text(Field::ApplicationDisplayName))
    }

    fn user(&mut self) {
        let record = self.reading.record;
        let user = self.w.object(key!("user"));
        match record.text(Field::UserId) {
            Some(id) => {
                self.used.insert(Field::UserId);
                self.w.text(key!("name"), id);
                self.w.text(key!("uid"), id);
                self.observables.add(Path::Plain("actor.user.name"), USER_NAME, id);
                let address = id.raw();
                if is_email(address)
                    && let Some((_, domain)) = address.split_once('@')
                {
                    self.w.text(key!("email_addr"), id);
                    self.w.fragment(key!("domain"), domain);
                    self.observables.address(Path::Plain("actor.user.email_addr"), id);
                }
            }
            None => self.w.raw(r#""name":"Unknown","#),
        }
        self.user_type();
        if let Some(key) = record.text(Field::UserKey) {
            self.used.insert(Field::UserKey);
            self.w.text(key!("uid_alt"), key);
        }
        if let Some(id) = record.text(Field::TokenObjectId) {
            self.used.insert(Field::TokenObjectId);
            let account = self.w.object(key!("account"));
            self.w.text(key!("uid"), id);
            self.w.maybe_text(key!("name"), record.text(Field::UserId));
            self.w.raw(if self.options.captions {
                r#""type_id":6,"type":"Azure AD Account","#
            } else {
                r#""type_id":6,"#
            });
            self.w.close(account);
        }
        if let Some(tenant) = record.text(Field::TokenTenantId) {
            self.used.insert(Field::TokenTenantId);
            let organization = self.w.object(key!("org"));
            self.w.text(key!("uid"), tenant);
            self.w.close(organization);
        }
        self.w.close(user);
    }

    fn user_type(&mut self) {
        let Some(number) = self.reading.record.get(Field::UserType).and_then(user_type) else { return };
        let service = self.options.ocsf_version.has_service_user();
        match ocsf_user_type(number).filter(|(id, _)| service || *id != SERVICE) {
            Some((id, caption)) => {
                self.w.int(key!("type_id"), id);
                if self.options.captions {
                    self.w.fragment(key!("type"), caption);
                }
            }
            // OCSF asks for the source's own word beside 99.
            None => {
                self.w.int(key!("type_id"), 99);
                let number = itoa::Buffer::new().format(number).to_owned();
                self.w.fragment(
                    key!("type"),
                    named(&USER_TYPES, number.parse().unwrap_or(-1)).unwrap_or(&number),
                );
            }
        }
    }

    fn session(&mut self) {
        let own = self.reading.record.text(Field::SessionId);
        let directory = self.reading.context.and_then(|context| context.session);
        let Some(uid) = own.or(directory) else { return };
        let session = self.w.object(key!("session"));
        self.w.text(key!("uid"), uid);
        self.w.maybe_text(key!("uid_alt"), directory.filter(|directory| *directory != uid));
        self.w.close(session);
        if own.is_some() {
            self.used.insert(Field::SessionId);
        }
    }

    /// Counts `AppAccessContext` as used when each of its fields has found a place in the event.
    pub(super) fn use_context(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let Some(context) = reading.context else { return };
        if record.get(Field::AppAccessContext).is_none_or(|value| value.kind() != Kind::Object) {
            return;
        }
        let token = self.options.ocsf_version.has_api_token();
        let told = context_is_told(context.json, |name, text| match name.raw() {
            "AADSessionId" => true,
            "APIId" => reading.exchange && record.text(Field::ApiId).is_none_or(|own| own == text),
            "ClientAppId" => reading.app_id() == Some(text),
            "ClientAppName" | "CorrelationId" => true,
            "UniqueTokenId" => token,
            "IssuedAtTime" => token && super::metadata::token_time(text).is_some_and(|(_, exact)| exact),
            _ => false,
        });
        // A name that comes twice would count twice, though only its first value was read.
        let fields: Vec<_> = context.json.entries().collect();
        if told && !fields.is_empty() && !crate::record::has_repeats(&fields) {
            self.used.insert(Field::AppAccessContext);
        }
    }
}
