//! A document of the Elastic Common Schema, 9.4.0, like those of Elastic's `o365` integration, so that rules, dashboards and
//! index templates made for it work. It must not be sent through the integration's ingest pipeline again.
//!
//! It differs where the integration is wrong: a build number is no address, the owner of a mailbox is `user.target` and never
//! the actor, only what succeeded is a success, a tenant is no host. `event.category` has `web`, as the integration's rules
//! ask, and the category that fits beside it.
//!
//! `o365.audit` ([`audit`]) is the record. `mailtrail` is our own: facts that neither schema has a name for.

mod audit;
mod columns;
mod types;

use columns::COLUMNS;

use super::{
    column::Table,
    meaning::{self, Ended, Message},
    row::{write_time, write_uid},
};
use crate::{
    RenderOptions,
    address::{Host, IpText, parse_address},
    json::{Text, Writer, write::key},
    ocsf::{
        class::Shape,
        email::{Direction, attached},
    },
    operation::{Source, api, group},
    reading::{ADDRESS_FIELDS, Reading, TimeSource, is_email},
    record::Field,
    tags::{self, Technique},
};

pub(super) static TABLES: [Table; 1] =
    [Table { name: "logs-o365.audit", columns: &COLUMNS, native: Some("o365.audit") }];

/// An event while it is written.
struct Event<'w, 'r, 'a> {
    w: Writer<'w>,
    reading: &'r Reading<'a>,
}

/// Appends a record.
pub(crate) fn write<'a>(reading: &Reading<'a>, options: &'a RenderOptions, tags: u32, out: &mut Vec<u8>) {
    let mut event = Event { w: Writer::new(out), reading };
    let shape = Shape::of(reading, options);
    let messages = meaning::messages(reading);
    let mut targets = meaning::targets(&shape);
    if targets.is_empty() {
        targets.extend(meaning::owner(reading));
    }
    let whole = event.w.object("");
    event.w.raw(key!("@timestamp"));
    write_time(&mut event.w, reading);
    event.w.raw(r#""ecs":{"version":"9.4.0"},"data_stream":{"type":"logs","dataset":"o365.audit"},"#);
    event.event(&shape);
    event.organization();
    event.user(&targets);
    event.source();
    event.related(&targets);
    event.email(&shape, &messages);
    event.tags(tags);
    let o365 = event.w.object(key!("o365"));
    let rest = audit::write(&mut event.w, reading);
    event.w.close(o365);
    event.own(rest);
    event.w.close(whole);
    event.w.finish();
}

impl<'a> Event<'_, '_, 'a> {
    fn event(&mut self, shape: &Shape<'a>) {
        let (reading, record) = (self.reading, self.reading.record);
        let object = self.w.object(key!("event"));
        self.w.raw(r#""kind":"event","module":"o365","dataset":"o365.audit","#);
        self.w.raw(key!("id"));
        write_uid(&mut self.w, reading);
        self.w.maybe_text(key!("action"), reading.operation);
        self.w.maybe_text(key!("provider"), record.text(Field::Workload));
        match (meaning::record_type(reading), reading.record_type) {
            (Some(name), _) => self.w.fragment(key!("code"), name),
            (None, Some(number)) => self.w.fragment(key!("code"), itoa::Buffer::new().format(number)),
            (None, None) => self.w.maybe_text(key!("code"), record.text(Field::RecordType)),
        }
        self.w.raw(category(reading, shape));
        self.w.raw(match meaning::ended(reading) {
            Ended::Success => r#""outcome":"success","#,
            Ended::Failure => r#""outcome":"failure","#,
            Ended::Partial | Ended::Unknown => r#""outcome":"unknown","#,
        });
        self.w.close(object);
    }

    fn organization(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let tenant = reading.origin.tenant.to_string();
        let id = record.text(Field::OrganizationId).map_or(tenant.as_str(), Text::raw);
        let name = record.text(Field::OrganizationName);
        let organization = self.w.object(key!("organization"));
        self.w.fragment(key!("id"), id);
        self.w.maybe_text(key!("name"), name);
        self.w.close(organization);
        let cloud = self.w.object(key!("cloud"));
        self.w.raw(r#""provider":"azure","#);
        let account = self.w.object(key!("account"));
        self.w.fragment(key!("id"), id);
        self.w.maybe_text(key!("name"), name);
        self.w.close(account);
        if reading.exchange {
            self.w.raw(r#""service":{"name":"Exchange Online"},"#);
        }
        self.w.close(cloud);
    }

    /// Who did it, and to whom: several of those are in `related.user` alone, since `user.target` is one.
    fn user(&mut self, targets: &[&str]) {
        let record = self.reading.record;
        let user = self.w.object(key!("user"));
        let actor = record.text(Field::UserId).or_else(|| record.text(Field::LogonUserSid));
        if let Some(actor) = actor {
            self.person(actor.raw());
        }
        self.w.maybe_text(key!("full_name"), record.text(Field::LogonUserDisplayName));
        if let [target] = targets {
            let object = self.w.object(key!("target"));
            self.person(target);
            self.w.close(object);
        }
        self.w.close_or_undo(user);
    }

    fn person(&mut self, id: &str) {
        self.w.fragment(key!("id"), id);
        match id.split_once('@').filter(|_| is_email(id)) {
            Some((name, domain)) => {
                self.w.fragment(key!("name"), name);
                self.w.fragment(key!("domain"), domain);
                self.w.fragment(key!("email"), id);
            }
            None => self.w.fragment(key!("name"), id),
        }
    }

    /// `source` and `client`, which are the same, the client's name for itself, and the server.
    fn source(&mut self) {
        if let Some(client) = self.reading.client {
            let host = client.address.host;
            for key in [key!("source"), key!("client")] {
                let object = self.w.object(key);
                self.w.fragment(key!("address"), host.as_str());
                match host {
                    Host::Ip(_) => self.w.fragment(key!("ip"), host.as_str()),
                    Host::Name(_) => self.w.fragment(key!("domain"), host.as_str()),
                }
                if let Some(port) = client.address.port {
                    self.w.int(key!("port"), i64::from(port));
                }
                self.w.close(object);
            }
        }
        if let Some((_, agent)) = meaning::user_agent(self.reading) {
            let object = self.w.object(key!("user_agent"));
            self.w.text(key!("original"), agent);
            self.w.close(object);
        }
        if let Some(server) = self.reading.server {
            let object = self.w.object(key!("server"));
            self.w.fragment(key!("domain"), server.host);
            self.w.close(object);
        }
    }

    /// Everybody and everything that is named, for a search over all kinds of event.
    fn related(&mut self, targets: &[&'a str]) {
        let (reading, record) = (self.reading, self.reading.record);
        let related = self.w.object(key!("related"));
        let mut ips: Vec<IpText> = Vec::new();
        for address in ADDRESS_FIELDS.into_iter().filter_map(|field| parse_address(record.plain(field)?)) {
            if let Host::Ip(ip) = address.host
                && ips.iter().all(|earlier| earlier.as_str() != ip.as_str())
            {
                ips.push(ip);
            }
        }
        let list = self.w.array(key!("ip"));
        for ip in &ips {
            self.w.fragment("", ip.as_str());
        }
        self.w.close_or_undo(list);
        let actor = record.text(Field::UserId).map(Text::raw);
        let mut users: Vec<&str> = Vec::with_capacity(6);
        let named = [actor, meaning::owner(reading)].into_iter().flatten();
        for user in named.chain(targets.iter().copied()) {
            let local = user.split_once('@').map(|(name, _)| name).filter(|_| is_email(user));
            for name in [Some(user), local].into_iter().flatten() {
                if !users.contains(&name) {
                    users.push(name);
                }
            }
        }
        let list = self.w.array(key!("user"));
        for user in users {
            self.w.fragment("", user);
        }
        self.w.close_or_undo(list);
        let machine = record.text(Field::ClientMachineName).map(Text::raw);
        let list = self.w.array(key!("hosts"));
        for host in [reading.server.map(|server| server.host), machine].into_iter().flatten() {
            self.w.fragment("", host);
        }
        self.w.close_or_undo(list);
        self.w.close_or_undo(related);
    }

    /// Mail that was sent, and the messages that were read, moved or deleted.
    fn email(&mut self, shape: &Shape<'a>, messages: &[Message<'a>]) {
        let email = self.w.object(key!("email"));
        if let Shape::Email(mail) = shape {
            match mail.direction {
                Direction::Unknown => {}
                Direction::Outbound => self.w.raw(r#""direction":"outbound","#),
                Direction::Internal => self.w.raw(r#""direction":"internal","#),
            }
            self.addresses(key!("from"), mail.from);
            self.addresses(key!("to"), mail.to.iter().copied());
            let on_behalf = self.reading.operation.is_some_and(|operation| operation.is("SendOnBehalf"));
            if let Some(actor) = self.reading.record.text(Field::UserId).filter(|_| on_behalf) {
                let sender = self.w.object(key!("sender"));
                self.w.text(key!("address"), actor);
                self.w.close(sender);
            }
        }
        self.one_or_list(key!("subject"), messages.iter().filter_map(|message| message.subject));
        self.one_or_list(key!("message_id"), messages.iter().filter_map(|message| message.message_id));
        if let [Message { id, .. }] = messages {
            self.w.maybe_text(key!("local_id"), id.filter(|id| !id.is("Unknown")));
        }
        let attachments = self.w.array(key!("attachments"));
        let files = messages.iter().filter_map(|message| message.attachments);
        for (name, size) in files.flat_map(|text| attached(text.raw())) {
            let attachment = self.w.object("");
            let file = self.w.object(key!("file"));
            self.w.fragment(key!("name"), name);
            if let Some((_, extension)) = name.rsplit_once('.').filter(|(_, extension)| !extension.is_empty())
            {
                self.w.fragment(key!("extension"), extension);
            }
            self.w.int(key!("size"), size);
            self.w.close(file);
            self.w.close(attachment);
        }
        self.w.close_or_undo(attachments);
        self.w.close_or_undo(email);
    }

    fn addresses(&mut self, key: &str, addresses: impl IntoIterator<Item = Text<'a>>) {
        let object = self.w.object(key);
        let list = self.w.array(key!("address"));
        for address in addresses {
            self.w.text("", address);
        }
        self.w.close_or_undo(list);
        self.w.close_or_undo(object);
    }

    /// One text stands alone; several are a list, which is the same to Elasticsearch.
    fn one_or_list(&mut self, key: &str, mut texts: impl Iterator<Item = Text<'a>>) {
        let Some(first) = texts.next() else { return };
        match texts.next() {
            None => self.w.text(key, first),
            Some(second) => {
                let list = self.w.array(key);
                for text in [first, second].into_iter().chain(texts) {
                    self.w.text("", text);
                }
                self.w.close(list);
            }
        }
    }

    fn tags(&mut self, tags: u32) {
        if tags == 0 {
            return;
        }
        let list = self.w.array(key!("tags"));
        for name in tags::names(tags) {
            self.w.fragment("", name);
        }
        self.w.close(list);
        let techniques: Vec<&Technique> = tags::of(tags).flat_map(|tag| tag.techniques).collect();
        let threat = self.w.object(key!("threat"));
        self.w.raw(r#""framework":"MITRE ATT&CK","#);
        let technique = self.w.object(key!("technique"));
        self.unique(key!("id"), techniques.iter().map(|technique| technique.uid));
        self.unique(key!("name"), techniques.iter().map(|technique| technique.name));
        let sub = self.w.object(key!("subtechnique"));
        self.unique(key!("id"), techniques.iter().filter_map(|technique| technique.sub).map(|(id, _)| id));
        self.unique(
            key!("name"),
            techniques.iter().filter_map(|technique| technique.sub).map(|(_, name)| name),
        );
        self.w.close_or_undo(sub);
        self.w.close(technique);
        self.w.close(threat);
    }

    fn unique(&mut self, key: &str, texts: impl Iterator<Item = &'static str>) {
        let mut seen = Vec::new();
        let list = self.w.array(key);
        for text in texts {
            if !seen.contains(&text) {
                seen.push(text);
                self.w.fragment("", text);
            }
        }
        self.w.close_or_undo(list);
    }

    /// `mailtrail`: what is known and has no place in either schema.
    fn own(&mut self, rest: Option<String>) {
        let reading = self.reading;
        let object = self.w.object(key!("mailtrail"));
        if let Some(owner) = meaning::owner(reading) {
            self.w.fragment(key!("mailbox_owner"), owner);
        }
        if let Some(is_owner) = reading.is_owner() {
            self.w.bool(key!("is_owner"), is_owner);
        }
        if let Some(name) = meaning::logon(reading) {
            self.w.fragment(key!("logon_type"), name);
        }
        let parameters = &reading.parameters;
        let access = parameters.text("MailAccessType").or_else(|| parameters.text("AttachmentAccessType"));
        self.w.maybe_text(key!("access_type"), access);
        if let Some(throttled) = parameters.truth("IsThrottled") {
            self.w.bool(key!("is_throttled"), throttled);
        }
        if let Some(forwarding) = &reading.forwarding {
            for (key, external) in
                [(key!("forwarding_target"), false), (key!("external_forwarding_target"), true)]
            {
                let list = self.w.array(key);
                for target in forwarding.targets.iter().filter(|target| target.external || !external) {
                    self.w.str("", &target.address);
                }
                self.w.close_or_undo(list);
            }
        }
        match reading.time.source {
            TimeSource::Plain | TimeSource::Record => {}
            TimeSource::Blob => self.w.raw(r#""time_source":"content_id","#),
            TimeSource::Nowhere => self.w.raw(r#""time_source":"unknown","#),
        }
        if let Some(rest) = rest {
            self.w.str(key!("rest"), &rest);
        }
        self.w.close_or_undo(object);
    }
}

/// `event.category` and `event.type`.
fn category(reading: &Reading<'_>, shape: &Shape<'_>) -> &'static str {
    match shape {
        Shape::Email(_) => r#""category":["web","email"],"type":["info"],"#,
        Shape::Authentication => r#""category":["web","authentication"],"type":["start"],"#,
        Shape::UserAccess { .. } => r#""category":["web","iam"],"type":["user","change"],"#,
        Shape::Account { activity: 1, .. } => r#""category":["web","iam"],"type":["user","creation"],"#,
        Shape::Account { activity: 6, .. } => r#""category":["web","iam"],"type":["user","deletion"],"#,
        Shape::Account { .. } => r#""category":["web","iam"],"type":["user","change"],"#,
        Shape::Group { activity: group::CREATE, .. } => {
            r#""category":["web","iam"],"type":["group","creation"],"#
        }
        Shape::Group { activity: group::DELETE, .. } => {
            r#""category":["web","iam"],"type":["group","deletion"],"#
        }
        Shape::Group { .. } => r#""category":["web","iam"],"type":["group","change"],"#,
        Shape::Api { .. } => api_category(reading),
    }
}

fn api_category(reading: &Reading<'_>) -> &'static str {
    let rule = reading.operation.is_some_and(|operation| operation.is("UpdateInboxRules"));
    match (reading.source, reading.meaning.api) {
        _ if rule => r#""category":["web","email","configuration"],"type":["change"],"#,
        (Source::ExchangeAdmin, api::CREATE) => r#""category":["web","configuration"],"type":["creation"],"#,
        (Source::ExchangeAdmin, api::READ) => r#""category":["web","configuration"],"type":["access"],"#,
        (Source::ExchangeAdmin, api::DELETE) => r#""category":["web","configuration"],"type":["deletion"],"#,
        (Source::ExchangeAdmin, api::UPDATE) => r#""category":["web","configuration"],"type":["change"],"#,
        (Source::ExchangeAdmin, _) => r#""category":["web","configuration"],"type":["info"],"#,
        (Source::ExchangeMailbox, api::CREATE) => r#""category":["web","email"],"type":["info","creation"],"#,
        (Source::ExchangeMailbox, api::READ) => r#""category":["web","email"],"type":["info","access"],"#,
        (Source::ExchangeMailbox, api::UPDATE) => r#""category":["web","email"],"type":["info","change"],"#,
        (Source::ExchangeMailbox, api::DELETE) => r#""category":["web","email"],"type":["info","deletion"],"#,
        (Source::ExchangeMailbox, _) => r#""category":["web","email"],"type":["info"],"#,
        (Source::Elsewhere, _) if meaning::is_sign_in(reading) => {
            r#""category":["web","authentication"],"type":["start","access"],"#
        }
        (Source::Elsewhere, _) => r#""category":["web"],"type":["info"],"#,
    }
}
