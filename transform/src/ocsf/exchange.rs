//! `unmapped.exchange`: the facts of Exchange that OCSF has no attribute for, under the same path in every class.
//! `docs/SCHEMA.md` lists them.

use std::borrow::Cow;

use schemas::record_type::record_type_name;

use super::{Event, class::group_members};
use crate::{
    forwarding::Forwarding,
    inbox_rule::InboxRule,
    json::{Json, Kind, Text, write::key},
    operation::Class,
    record::{Field, FieldSet},
};

/// `LogonType` and `InternalLogonType` (Office 365 Management Activity API schema, "LogonType").
pub(super) const LOGON_TYPES: [&str; 7] =
    ["Owner", "Admin", "Delegated", "Transport", "SystemService", "BestAccess", "DelegatedAdmin"];

/// `UserType` (Office 365 Management Activity API schema, "User Type").
pub(crate) const USER_TYPES: [&str; 11] = [
    "Regular",
    "Reserved",
    "Admin",
    "DcAdmin",
    "System",
    "Application",
    "ServicePrincipal",
    "CustomPolicy",
    "SystemPolicy",
    "PartnerTechnician",
    "Guest",
];

/// The name of a number in an enumeration.
pub(crate) fn named<'n>(names: &[&'n str], number: i64) -> Option<&'n str> {
    usize::try_from(number).ok().and_then(|number| names.get(number).copied())
}

/// The number of `LogonType` with its name; records of old exports have the name only.
pub(crate) fn logon_type(value: Json<'_>) -> Option<(i64, &'static str)> {
    if let Some(number) = value.int() {
        return named(&LOGON_TYPES, number).map(|name| (number, name));
    }
    let text = value.text()?;
    let number = LOGON_TYPES.iter().position(|name| text.is(name))?;
    Some((i64::try_from(number).ok()?, LOGON_TYPES[number]))
}

/// The number of `UserType`; some senders have the name only.
pub(crate) fn user_type(value: Json<'_>) -> Option<i64> {
    value.int().or_else(|| {
        let text = value.text()?;
        let number = USER_TYPES.into_iter().position(|name| text.is(name))?;
        i64::try_from(number).ok()
    })
}

/// The fields that say which mailboxes it was done to; records of admins have none of them.
const OF_MAILBOXES: FieldSet = FieldSet::of(&[
    Field::MailboxGuid,
    Field::MailboxOwnerUpn,
    Field::MailboxOwnerSid,
    Field::MailboxOwnerMasterAccountSid,
    Field::DestMailboxId,
    Field::DestMailboxOwnerUpn,
    Field::DestMailboxOwnerSid,
    Field::DestMailboxOwnerMasterAccountSid,
]);

/// The fields that only mail that was sent has.
const OF_SENDING: FieldSet = FieldSet::of(&[
    Field::SendAsUserSmtp,
    Field::SendAsUserSmpt,
    Field::SendAsUserMailboxGuid,
    Field::SendOnBehalfOfUserSmtp,
    Field::SendOnBehalfOfUserSmpt,
    Field::SendOnBehalfOfUserMailboxGuid,
    Field::SaveToSentItems,
    Field::RecipientCount,
    Field::RecipientCountUpper,
]);

impl<'a> Event<'_, 'a> {
    pub(super) fn exchange(&mut self, class: Class) {
        let (reading, record) = (self.reading, self.reading.record);
        let object = self.w.object(key!("exchange"));
        if let Some(number) = reading.record_type {
            self.whole_number(key!("record_type_id"), Field::RecordType, number);
            if let Some(name) = record_type_name(number) {
                self.w.fragment(key!("record_type"), name);
            }
        }
        if let Some(value) = record.get(Field::LogonType) {
            if let Some(number) = value.int() {
                self.whole_number(key!("logon_type_id"), Field::LogonType, number);
            }
            if let Some((_, name)) = logon_type(value) {
                self.w.fragment(key!("logon_type"), name);
            }
        }
        if let Some(number) = record.get(Field::InternalLogonType).and_then(Json::int) {
            self.whole_number(key!("internal_logon_type_id"), Field::InternalLogonType, number);
        }
        if let Some(number) = record.get(Field::UserType).and_then(user_type) {
            self.whole_number(key!("user_type_id"), Field::UserType, number);
            if let Some(name) = named(&USER_TYPES, number) {
                self.w.fragment(key!("user_type"), name);
            }
        }
        self.truth(key!("external_access"), Field::ExternalAccess);
        if let Some(owner) = reading.is_owner() {
            self.w.bool(key!("is_owner"), owner);
        }
        self.access();
        self.mailboxes();
        self.truth(key!("cross_mailbox"), Field::CrossMailboxOperation);
        if record.get(Field::CrossMailboxOperation).is_none() {
            self.truth(key!("cross_mailbox"), Field::CrossMailboxOperations);
        }
        self.verbatim(key!("dest_folder"), Field::DestFolder);
        self.client();
        if let Some(build) = reading.server.and_then(|server| server.build) {
            self.w.fragment(key!("server_build"), build);
        }
        self.on_behalf();
        if class == Class::Email {
            self.verbatim(key!("item"), Field::Item);
        }
        self.verbatim(key!("modified_properties"), Field::ModifiedProperties);
        let members = self.w.array(key!("members"));
        for member in group_members(reading) {
            self.w.fragment("", member);
        }
        self.w.close_or_undo(members);
        if let Some(rule) = &reading.inbox_rule {
            self.inbox_rule(rule);
        }
        if let Some(forwarding) = &reading.forwarding {
            self.forwarding(forwarding);
        }
        self.w.close_or_undo(object);
    }

    /// A number, which the record may have in another form; the field is used when it had this one.
    fn whole_number(&mut self, key: &str, field: Field, number: i64) {
        self.w.int(key, number);
        self.use_number(field, number);
    }

    /// Counts a field as used when it says this number in the usual form, with or without quotes.
    #[inline]
    pub(super) fn use_number(&mut self, field: Field, number: i64) {
        let raw = self.reading.record.get(field).map_or("", Json::raw);
        let same = match raw.as_bytes() {
            [digit @ b'0'..=b'9'] => number == i64::from(digit - b'0'),
            _ => says(raw, number),
        };
        if same {
            self.used.insert(field);
        }
    }

    /// A text of the record that is not empty. Most fields that are asked for are not there, so only the question is inlined.
    #[inline(always)]
    fn plain(&mut self, key: &str, field: Field) {
        if let Some(value) = self.reading.record.get(field) {
            self.plain_value(key, field, value);
        }
    }

    #[inline(never)]
    fn plain_value(&mut self, key: &str, field: Field, value: Json<'_>) {
        if let Some(text) = value.text().filter(|text| !text.is_empty()) {
            self.w.text(key, text);
            self.used.insert(field);
        }
    }

    /// A truth value, which the record may have as text.
    #[inline(always)]
    fn truth(&mut self, key: &str, field: Field) {
        if let Some(value) = self.reading.record.get(field) {
            self.truth_value(key, field, value);
        }
    }

    #[inline(never)]
    fn truth_value(&mut self, key: &str, field: Field, value: Json<'_>) {
        if value.kind() == Kind::Bool {
            self.w.json(key, value);
            self.used.insert(field);
        } else if let Some(truth) = value.bool() {
            self.w.bool(key, truth);
        }
    }

    /// A value as it stands in the record.
    fn verbatim(&mut self, key: &str, field: Field) {
        if let Some(value) = self.reading.record.get(field) {
            self.w.json(key, value);
            self.used.insert(field);
        }
    }

    /// How mail was read: message by message or a folder at once, and whether Exchange has stopped to record it.
    fn access(&mut self) {
        let parameters = &self.reading.parameters;
        let kind = parameters.text("MailAccessType").or_else(|| parameters.text("AttachmentAccessType"));
        self.w.maybe_text(key!("access_type"), kind);
        if let Some(throttled) = parameters.truth("IsThrottled") {
            self.w.bool(key!("is_throttled"), throttled);
        }
    }

    fn mailboxes(&mut self) {
        if !self.reading.record.has_any(&OF_MAILBOXES) && self.reading.administered_mailbox.is_none() {
            return;
        }
        let mailbox = self.w.object(key!("mailbox"));
        self.plain(key!("uid"), Field::MailboxGuid);
        match (self.reading.record.text(Field::MailboxOwnerUpn), self.reading.administered_mailbox) {
            (None, Some(owner)) => self.w.fragment(key!("owner_upn"), owner),
            _ => self.plain(key!("owner_upn"), Field::MailboxOwnerUpn),
        }
        self.plain(key!("owner_sid"), Field::MailboxOwnerSid);
        self.plain(key!("owner_master_account_sid"), Field::MailboxOwnerMasterAccountSid);
        self.w.close_or_undo(mailbox);
        let destination = self.w.object(key!("dest_mailbox"));
        self.plain(key!("uid"), Field::DestMailboxId);
        self.plain(key!("owner_upn"), Field::DestMailboxOwnerUpn);
        self.plain(key!("owner_sid"), Field::DestMailboxOwnerSid);
        self.plain(key!("owner_master_account_sid"), Field::DestMailboxOwnerMasterAccountSid);
        self.w.close_or_undo(destination);
    }

    /// With what the actor came: account, client, application, token.
    fn client(&mut self) {
        self.plain(key!("logon_user_sid"), Field::LogonUserSid);
        self.plain(key!("logon_user_name"), Field::LogonUserDisplayName);
        self.plain(key!("client_info"), Field::ClientInfoString);
        if let Some(protocol) = self.reading.client_protocol() {
            self.w.fragment(key!("client_protocol"), protocol);
        }
        self.plain(key!("client_process_name"), Field::ClientProcessName);
        self.plain(key!("client_version"), Field::ClientVersion);
        self.plain(key!("actor_info"), Field::ActorInfoString);
        self.plain(key!("app_id"), Field::AppId);
        match self.reading.context.and_then(|context| context.api) {
            Some(api) if self.reading.record.text(Field::ApiId).is_none() => self.w.text(key!("api_id"), api),
            _ => self.plain(key!("api_id"), Field::ApiId),
        }
        self.plain(key!("host_app_id"), Field::HostAppId);
        self.plain(key!("auth_type"), Field::AuthType);
        self.plain(key!("token_type"), Field::TokenType);
    }

    /// In whose name mail was sent, and to how many.
    fn on_behalf(&mut self) {
        let record = self.reading.record;
        if !record.has_any(&OF_SENDING) {
            return;
        }
        let misspelt = |right: Field, wrong: Field| if record.text(right).is_some() { right } else { wrong };
        let send_as = self.w.object(key!("send_as"));
        self.plain(key!("smtp"), misspelt(Field::SendAsUserSmtp, Field::SendAsUserSmpt));
        self.plain(key!("mailbox_uid"), Field::SendAsUserMailboxGuid);
        self.w.close_or_undo(send_as);
        let on_behalf = self.w.object(key!("send_on_behalf_of"));
        self.plain(key!("smtp"), misspelt(Field::SendOnBehalfOfUserSmtp, Field::SendOnBehalfOfUserSmpt));
        self.plain(key!("mailbox_uid"), Field::SendOnBehalfOfUserMailboxGuid);
        self.w.close_or_undo(on_behalf);
        self.truth(key!("save_to_sent_items"), Field::SaveToSentItems);
        let counts = [Field::RecipientCount, Field::RecipientCountUpper];
        let count = counts.into_iter().find_map(|field| Some((field, record.get(field)?.int()?)));
        if let Some((field, count)) = count {
            self.whole_number(key!("recipient_count"), field, count);
        }
    }

    fn inbox_rule(&mut self, rule: &InboxRule<'a>) {
        let object = self.w.object(key!("inbox_rule"));
        self.maybe_str(key!("name"), rule.name.as_deref());
        self.list(key!("forward_to"), &rule.forward_to);
        self.list(key!("redirect_to"), &rule.redirect_to);
        self.list(key!("forward_as_attachment_to"), &rule.forward_as_attachment_to);
        self.maybe_bool(key!("delete"), rule.delete);
        self.maybe_str(key!("move_to_folder"), rule.move_to_folder.as_deref());
        self.maybe_bool(key!("mark_read"), rule.mark_read);
        self.maybe_bool(key!("stop_processing"), rule.stop_processing);
        let conditions = self.w.object(key!("conditions"));
        self.list(key!("subject"), &rule.subject);
        self.list(key!("body"), &rule.body);
        self.list(key!("subject_or_body"), &rule.subject_or_body);
        self.list(key!("from"), &rule.from);
        self.w.close_or_undo(conditions);
        self.w.close(object);
    }

    fn forwarding(&mut self, forwarding: &Forwarding<'a>) {
        let object = self.w.object(key!("forwarding"));
        let targets = self.w.array(key!("targets"));
        for target in &forwarding.targets {
            self.w.str("", &target.address);
        }
        self.w.close(targets);
        let external = self.w.array(key!("external_targets"));
        for target in forwarding.targets.iter().filter(|target| target.external) {
            self.w.str("", &target.address);
        }
        self.w.close(external);
        self.maybe_bool(key!("keep_copy"), forwarding.keep_copy);
        self.w.close(object);
    }

    fn maybe_str(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.w.str(key, text);
        }
    }

    fn maybe_bool(&mut self, key: &str, truth: Option<bool>) {
        if let Some(truth) = truth {
            self.w.bool(key, truth);
        }
    }

    fn list(&mut self, key: &str, texts: &[Cow<'_, str>]) {
        let list = self.w.array(key);
        for text in texts {
            self.w.str("", text);
        }
        self.w.close_or_undo(list);
    }
}

#[inline(never)]
fn says(raw: &str, number: i64) -> bool {
    raw.trim_matches('"') == itoa::Buffer::new().format(number)
}

/// OCSF's number for a user that is a service.
pub(super) const SERVICE: i64 = 4;

/// The kind of user as OCSF numbers and names it, for a `UserType`; `None` for what OCSF has no number for.
pub(super) fn ocsf_user_type(number: i64) -> Option<(i64, &'static str)> {
    match number {
        0 => Some((1, "User")),
        2 | 3 => Some((2, "Admin")),
        4 => Some((3, "System")),
        5 | 6 => Some((SERVICE, "Service")),
        _ => None,
    }
}

/// Whether the fields of `AppAccessContext` are all ones that `place` finds a place for.
pub(super) fn context_is_told(context: Json<'_>, mut place: impl FnMut(Text<'_>, Text<'_>) -> bool) -> bool {
    context
        .entries()
        .all(|(name, value)| value.text().is_some_and(|text| !text.is_empty() && place(name, text)))
}
