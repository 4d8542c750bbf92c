//! Microsoft's Advanced Security Information Model: an AuditEvent (0.1.2), or an Authentication event (0.1.3) for a logon to
//! a mailbox.
//!
//! What the model has no column for stands in `AdditionalFields` under its own name. There, `LogonType` is the name and
//! `LogonTypeId` the number; `MailboxOwnerUPN` is the owner of the mailbox, and `Items` names the messages that the record is
//! about in one shape. `EventMessage` names the columns that Sentinel will cut, should there be any.
//!
//! `Type` is what a Log Analytics table fills in by itself; it is written so that other readers can tell the two schemas apart.

mod columns;
mod words;

use columns::*;
use words::{asim_user_type, event_type, key_type, object_type, username_type};

use super::{
    column::{Column, Table},
    meaning::{self, Ended},
    row::Row,
};
use crate::{
    RenderOptions,
    address::{Host, is_host_name},
    json::{Json, Text, Writer, write::key},
    ocsf::{class::Shape, unmapped::left_over},
    operation::Source,
    reading::{Reading, without_line_end},
    record::{Field, FieldSet},
};

pub(super) static TABLES: [Table; 2] = [
    Table { name: "ASimAuditEventLogs", columns: &AUDIT, native: Some("AdditionalFields") },
    Table { name: "ASimAuthenticationEventLogs", columns: &AUTHENTICATION, native: Some("AdditionalFields") },
];

/// An event while it is written.
struct Event<'w, 'r, 'a> {
    row: Row<'w>,
    reading: &'r Reading<'a>,
    /// The fields of the record whose values stand in a column.
    used: FieldSet,
}

/// Appends a record.
pub(crate) fn write<'a>(reading: &Reading<'a>, options: &'a RenderOptions, tags: u32, out: &mut Vec<u8>) {
    let mut event = Event { row: Row::new(out), reading, used: FieldSet::default() };
    let shape = Shape::of(reading, options);
    let logon = matches!(shape, Shape::Authentication);
    event.event(logon, &shape);
    event.device();
    if logon {
        event.user(&TARGET);
        event.maybe(LOGON_PROTOCOL, reading.client_protocol());
    } else {
        event.user(&ACTOR);
        event.object();
        event.values();
    }
    event.application();
    event.source();
    event.additional(logon, tags);
    if !event.row.long().is_empty() {
        let names = event.row.long().join(", ");
        let message = format!("longer than Log Analytics keeps, so it will be cut there: {names}");
        event.row.fragment(EVENT_MESSAGE, &message);
    }
    event.row.finish();
}

/// The columns of a user, who is called otherwise in each schema.
struct User {
    name: Column,
    name_type: Column,
    id: Column,
    id_type: Column,
    user_type: Column,
    original_type: Column,
    session: Column,
}

const ACTOR: User = User {
    name: ACTOR_USERNAME,
    name_type: ACTOR_USERNAME_TYPE,
    id: ACTOR_USER_ID,
    id_type: ACTOR_USER_ID_TYPE,
    user_type: ACTOR_USER_TYPE,
    original_type: ACTOR_ORIGINAL_USER_TYPE,
    session: ACTOR_SESSION_ID,
};

/// In a logon, who logs on is the target.
const TARGET: User = User {
    name: TARGET_USERNAME,
    name_type: TARGET_USERNAME_TYPE,
    id: TARGET_USER_ID,
    id_type: TARGET_USER_ID_TYPE,
    user_type: TARGET_USER_TYPE,
    original_type: TARGET_ORIGINAL_USER_TYPE,
    session: TARGET_SESSION_ID,
};

impl<'a> Event<'_, '_, 'a> {
    fn maybe(&mut self, column: Column, raw: Option<&str>) {
        self.row.maybe_fragment(column, raw);
    }

    /// A column that says all that a field says.
    fn field(&mut self, column: Column, field: Field) {
        if let Some(text) = self.reading.record.text(field) {
            self.row.text(column, text);
            self.used.insert(field);
        }
    }

    /// What happened, when, and how it ended.
    fn event(&mut self, logon: bool, shape: &Shape<'a>) {
        let reading = self.reading;
        for column in [TIME_GENERATED, EVENT_START_TIME, EVENT_END_TIME] {
            self.row.time(column, reading);
        }
        let (table, schema, version) = match logon {
            false => ("ASimAuditEventLogs", "AuditEvent", "0.1.2"),
            true => ("ASimAuthenticationEventLogs", "Authentication", "0.1.3"),
        };
        self.row.fragment(TYPE, table);
        self.row.fragment(EVENT_SCHEMA, schema);
        self.row.fragment(EVENT_SCHEMA_VERSION, version);
        self.row.fragment(EVENT_VENDOR, "Microsoft");
        self.row.fragment(EVENT_PRODUCT, self.product());
        let count = self.count();
        self.row.int(EVENT_COUNT, count);
        self.row.fragment(EVENT_TYPE, if logon { "Logon" } else { event_type(reading, shape) });
        let result = match meaning::ended(reading) {
            Ended::Success => "Success",
            Ended::Failure => "Failure",
            Ended::Partial => "Partial",
            Ended::Unknown => "NA",
        };
        self.row.fragment(EVENT_RESULT, result);
        self.row.fragment(EVENT_SEVERITY, "Informational");
        self.row.uid(EVENT_UID, reading);
        self.field(EVENT_ORIGINAL_UID, Field::Id);
        self.maybe(EVENT_ORIGINAL_TYPE, meaning::record_type(reading));
        self.field(EVENT_ORIGINAL_SUB_TYPE, Field::Operation);
        self.field(EVENT_ORIGINAL_RESULT_DETAILS, Field::ResultStatus);
        if !logon {
            self.row.fragment(OPERATION, reading.operation.map_or("Unknown", Text::raw));
        }
    }

    /// How many operations the record stands for.
    fn count(&mut self) -> i64 {
        let Some(value) = self.reading.record.get(Field::OperationCount) else { return 1 };
        let count = value.int().filter(|count| (1..=i64::from(i32::MAX)).contains(count));
        let Some(count) = count else { return 1 };
        if meaning::says_number(value, count) {
            self.used.insert(Field::OperationCount);
        }
        count
    }

    fn product(&self) -> &'static str {
        if self.reading.exchange { "Exchange 365" } else { "Microsoft 365" }
    }

    /// What reports it. A service is no device; the model then asks for the product. `OriginatingServer` has a server and
    /// its build; neither is an address.
    fn device(&mut self) {
        self.row.fragment(DVC, self.product());
        match self.reading.record.text(Field::OrganizationId) {
            Some(_) => self.field(DVC_SCOPE_ID, Field::OrganizationId),
            None => self.row.fragment(DVC_SCOPE_ID, &self.reading.origin.tenant.to_string()),
        }
        self.field(DVC_SCOPE, Field::OrganizationName);
        let server = self.reading.record.text(Field::OriginatingServer).map(without_line_end);
        if let Some(server) = server.filter(|server| !server.is_empty()) {
            self.row.fragment(SRC_DESCRIPTION, server);
            self.used.insert(Field::OriginatingServer);
        }
    }

    fn user(&mut self, columns: &User) {
        let (reading, record) = (self.reading, self.reading.record);
        if let Some(name) = record.text(Field::UserId) {
            self.field(columns.name, Field::UserId);
            self.row.fragment(columns.name_type, username_type(name));
            self.row.text(USER, name);
        }
        let ids = [(Field::TokenObjectId, "AADID"), (Field::LogonUserSid, "SID"), (Field::UserKey, "")];
        if let Some((field, kind)) = ids.into_iter().find(|(field, _)| record.text(*field).is_some()) {
            self.field(columns.id, field);
            let key = record.text(field).map_or("", Text::raw);
            self.row.fragment(columns.id_type, if kind.is_empty() { key_type(key) } else { kind });
        }
        if columns.name == ACTOR_USERNAME {
            self.field(ACTOR_USER_AAD_ID, Field::TokenObjectId);
            self.field(ACTOR_USER_SID, Field::LogonUserSid);
            if let Some(tenant) =
                record.text(Field::TokenTenantId).or_else(|| record.text(Field::OrganizationId))
            {
                self.row.text(ACTOR_SCOPE_ID, tenant);
                if record.text(Field::TokenTenantId).is_some() {
                    self.used.insert(Field::TokenTenantId);
                }
            }
        }
        if let Some(value) = record.get(Field::UserType) {
            let name = meaning::user_type(reading);
            self.row.fragment(columns.user_type, asim_user_type(name));
            match (name, value.text()) {
                (Some(name), _) => self.row.fragment(columns.original_type, name),
                (None, Some(text)) => self.row.text(columns.original_type, text),
                (None, None) => self.row.json_text(columns.original_type, value.raw()),
            }
        }
        if let Some(session) = meaning::session(reading) {
            self.row.text(columns.session, session);
            if record.text(Field::SessionId).is_some() {
                self.used.insert(Field::SessionId);
            }
        }
    }

    /// What it was done to: a mailbox, or the object of an admin's cmdlet.
    fn object(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let mailbox = [Field::MailboxOwnerUpn, Field::MailboxGuid]
            .into_iter()
            .any(|field| record.text(field).is_some());
        if mailbox && reading.source != Source::ExchangeAdmin {
            self.field(OBJECT, Field::MailboxOwnerUpn);
            self.field(OBJECT_ID, Field::MailboxGuid);
            self.row.fragment(OBJECT_TYPE, "Other");
            self.row.fragment(ORIGINAL_OBJECT_TYPE, "Mailbox");
            return;
        }
        let name = meaning::object_name(reading);
        self.row.maybe_text(OBJECT, name);
        if let Some(name) = name
            && record
                .text(Field::ModifiedObjectResolvedName)
                .is_some_and(|resolved| resolved.json() == name.json())
        {
            self.used.insert(Field::ModifiedObjectResolvedName);
        }
        self.field(OBJECT_ID, Field::ObjectId);
        match reading.cmdlet {
            Some(cmdlet) => {
                self.row.fragment(OBJECT_TYPE, object_type(cmdlet));
                self.row.fragment(ORIGINAL_OBJECT_TYPE, cmdlet.noun_text);
            }
            None => {
                if name.is_some() {
                    self.row.fragment(OBJECT_TYPE, "Other");
                }
                self.field(ORIGINAL_OBJECT_TYPE, Field::ItemType);
            }
        }
    }

    /// What it was set to: the parameters by their names, else the properties that changed, with what they were before.
    fn values(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let mut json = Vec::new();
        if !reading.parameters.is_empty() {
            let mut w = Writer::new(&mut json);
            let object = w.object("");
            reading.parameters.write(&mut w);
            w.close(object);
            w.finish();
            self.row.json_text(NEW_VALUE, &String::from_utf8_lossy(&json));
            for (exact, field) in [
                (reading.parameters.parameters_exact, Field::Parameters),
                (reading.parameters.properties_exact, Field::OperationProperties),
            ] {
                if exact {
                    self.used.insert(field);
                }
            }
            return;
        }
        let Some(changed) = record.get(Field::ModifiedProperties) else { return };
        let is_change = |item: Json<'_>| item.get_text("Name").is_some();
        if !changed.items().any(is_change) {
            return;
        }
        for (column, side) in [(OLD_VALUE, "OldValue"), (NEW_VALUE, "NewValue")] {
            json.clear();
            let mut w = Writer::new(&mut json);
            let object = w.object("");
            let pairs: Vec<_> =
                changed.items().filter_map(|item| Some((item.get_text("Name")?, item.get(side)?))).collect();
            let repeats = crate::record::has_repeats(&pairs);
            crate::parameters::write_fields(&mut w, &pairs, repeats, Json::raw);
            w.close(object);
            w.finish();
            self.row.json_text(column, &String::from_utf8_lossy(&json));
        }
        // The properties may have more to them, so they stay in `AdditionalFields` as they are too.
    }

    /// With which application, and through which.
    fn application(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let app = reading.app_id();
        let name = reading
            .context
            .and_then(|context| context.app_name)
            .or_else(|| record.text(Field::ClientProcessName))
            .or_else(|| record.text(Field::ApplicationDisplayName));
        if let Some(app) = app {
            self.row.text(ACTING_APP_ID, app);
            for field in [Field::ClientAppId, Field::AppId, Field::ApplicationId] {
                if record.text(field).is_some_and(|text| text.json() == app.json()) {
                    self.used.insert(field);
                }
            }
        }
        if let Some(name) = name {
            self.row.text(ACTING_APP_NAME, name);
            for field in [Field::ClientProcessName, Field::ApplicationDisplayName] {
                if record.text(field).is_some_and(|text| text.json() == name.json()) {
                    self.used.insert(field);
                }
            }
        }
        if app.is_some() || name.is_some() {
            self.row.fragment(ACTING_APP_TYPE, if app.is_some() { "SaaS application" } else { "Process" });
        }
        let target = match record.text(Field::Workload) {
            Some(workload) if !reading.exchange => workload.raw(),
            _ => self.product(),
        };
        if record.text(Field::Workload).is_some_and(|workload| workload.raw() == target) {
            self.used.insert(Field::Workload);
        }
        self.row.fragment(TARGET_APP_NAME, target);
        self.row.fragment(TARGET_APP_TYPE, "SaaS application");
        self.row.fragment(APPLICATION, target);
        if let Some((field, agent)) = meaning::user_agent(reading) {
            self.row.text(HTTP_USER_AGENT, agent);
            self.used.insert(field);
        }
    }

    /// From where.
    fn source(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let machine = record.text(Field::ClientMachineName).filter(|name| is_host_name(name.raw()));
        let host = reading.client.map(|client| client.address.host);
        match &host {
            Some(Host::Ip(ip)) => {
                for column in [SRC_IP_ADDR, IP_ADDR, SRC] {
                    self.row.fragment(column, ip.as_str());
                }
            }
            Some(Host::Name(name)) => self.row.fragment(SRC, name),
            None => self.row.maybe_text(SRC, machine),
        }
        match (machine, &host) {
            (Some(_), _) => self.field(SRC_HOSTNAME, Field::ClientMachineName),
            (None, Some(Host::Name(name))) => self.row.fragment(SRC_HOSTNAME, name),
            _ => {}
        }
        if let Some(client) = reading.client {
            if let Some(port) = client.address.port {
                self.row.int(SRC_PORT_NUMBER, i64::from(port));
            }
            for field in crate::reading::ADDRESS_FIELDS {
                if client.told.contains(field) {
                    self.used.insert(field);
                }
            }
        }
        if record.text(Field::DeviceId).is_some() {
            self.field(SRC_DVC_ID, Field::DeviceId);
            self.row.fragment(SRC_DVC_ID_TYPE, "Other");
        }
    }

    /// Everything else.
    fn additional(&mut self, logon: bool, tags: u32) {
        let (reading, record) = (self.reading, self.reading.record);
        let object = self.row.object(ADDITIONAL_FIELDS);
        let w = &mut self.row.w;
        if let Some(name) = meaning::logon(reading) {
            self.used.insert(Field::LogonType);
            w.fragment(key!("LogonType"), name);
            if let Some(value) = record.get(Field::LogonType) {
                w.json(key!("LogonTypeId"), value);
            }
        }
        let has_owner = record.text(Field::MailboxOwnerUpn).is_some();
        if let Some(owner) =
            meaning::owner(reading).filter(|_| has_owner || record.get(Field::MailboxOwnerUpn).is_none())
        {
            self.used.insert(Field::MailboxOwnerUpn);
            w.fragment(key!("MailboxOwnerUPN"), owner);
        }
        if let Some(is_owner) = reading.is_owner() {
            w.bool(key!("IsOwner"), is_owner);
        }
        if !logon {
            let items = w.array(key!("Items"));
            for message in meaning::messages(reading) {
                let item = w.object("");
                w.maybe_text(key!("Subject"), message.subject);
                w.maybe_text(key!("InternetMessageId"), message.message_id);
                w.maybe_text(key!("Folder"), message.folder);
                w.close_or_undo(item);
            }
            w.close_or_undo(items);
        }
        if let Some(forwarding) = &reading.forwarding {
            let targets = w.array(key!("ExternalForwardingTargets"));
            for target in forwarding.targets.iter().filter(|target| target.external) {
                w.str("", &target.address);
            }
            w.close_or_undo(targets);
        }
        if tags != 0 {
            let list = w.array(key!("Tags"));
            for name in crate::tags::names(tags) {
                w.fragment("", name);
            }
            w.close(list);
        }
        left_over(record, self.used, record.others(), is_taken, w);
        self.row.close(ADDITIONAL_FIELDS, object);
    }
}

/// Names in `AdditionalFields` that are not the record's. A field of the record that is called so stands under `record.` and
/// its name.
fn is_taken(name: &str) -> bool {
    let own = [
        "LogonType",
        "LogonTypeId",
        "MailboxOwnerUPN",
        "IsOwner",
        "Items",
        "ExternalForwardingTargets",
        "Tags",
    ];
    own.contains(&name) || name.starts_with("record.")
}
