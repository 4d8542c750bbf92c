//! The record's own fields, untouched and first, with those of Splunk's Common Information Model behind them.
//!
//! Searches that were written for the raw record find it; data models find `action`, `user`, `src` and the rest. A field of
//! the record is never hidden: where the record has a field that is called like one of the model, that one is left out.

use super::{
    column::{Column, Table, boolean, int, string},
    meaning::{self, Ended, Message},
    row::Row,
};
use crate::{
    RenderOptions,
    address::Host,
    json::Text,
    ocsf::{class::Shape, email::attached},
    operation::{Source, api, group},
    reading::{Reading, is_email},
    record::Field,
    tags,
};

const ACTION: Column = string("action").required();
const STATUS: Column = string("status").required();
const RESULT: Column = string("result");
const CHANGE_TYPE: Column = string("change_type");
const COMMAND: Column = string("command");
const SIGNATURE: Column = string("signature");
const DATA_MODEL: Column = string("data_model").required();
const VENDOR_PRODUCT: Column = string("vendor_product").required();
const APP: Column = string("app");
const DVC: Column = string("dvc");
const DEST: Column = string("dest").required();
const TENANT_ID: Column = string("tenant_id").required();
const VENDOR_ACCOUNT: Column = string("vendor_account").required();
const USER: Column = string("user").list();
const USER_ID: Column = string("user_id");
const USER_TYPE: Column = string("user_type");
const SRC_USER: Column = string("src_user");
const SRC_USER_ID: Column = string("src_user_id");
const SRC_USER_TYPE: Column = string("src_user_type");
const SRC: Column = string("src");
const SRC_IP: Column = Column::new("src_ip", super::ColumnKind::Ip);
const SRC_PORT: Column = int("src_port");
const USER_AGENT: Column = string("user_agent");
const APP_ID: Column = string("app_id");
const SESSION_ID: Column = string("session_id");
const OWNER: Column = string("owner");
const OWNER_EMAIL: Column = string("owner_email");
const OWNER_ID: Column = string("owner_id");
const IS_OWNER: Column = boolean("is_owner");
const OBJECT: Column = string("object").list();
const OBJECT_ID: Column = string("object_id");
const OBJECT_CATEGORY: Column = string("object_category");
const OBJECT_PATH: Column = string("object_path").list();
const OBJECT_ATTRS: Column = string("object_attrs").list();
const MESSAGE_ID: Column = string("message_id").list();
const SUBJECT: Column = string("subject").list();
const RECIPIENT: Column = string("recipient").list();
const FILE_NAME: Column = string("file_name").list();
const FILE_SIZE: Column = Column::new("file_size", super::ColumnKind::Long).list();
const SIZE: Column = Column::new("size", super::ColumnKind::Long);
const RECORD_TYPE: Column = string("record_type");
const LOGON_TYPE: Column = string("logon_type");
const FORWARDING: Column = string("forwarding_target").list();
const EXTERNAL_FORWARDING: Column = string("external_forwarding_target").list();
const TAGS: Column = string("mailtrail_tag").list();
const TECHNIQUES: Column = string("mitre_technique_id").list();

const COLUMNS: [Column; 46] = [
    ACTION,
    STATUS,
    RESULT,
    CHANGE_TYPE,
    COMMAND,
    SIGNATURE,
    DATA_MODEL,
    VENDOR_PRODUCT,
    APP,
    DVC,
    DEST,
    TENANT_ID,
    VENDOR_ACCOUNT,
    USER,
    USER_ID,
    USER_TYPE,
    SRC_USER,
    SRC_USER_ID,
    SRC_USER_TYPE,
    SRC,
    SRC_IP,
    SRC_PORT,
    USER_AGENT,
    APP_ID,
    SESSION_ID,
    OWNER,
    OWNER_EMAIL,
    OWNER_ID,
    IS_OWNER,
    OBJECT,
    OBJECT_ID,
    OBJECT_CATEGORY,
    OBJECT_PATH,
    OBJECT_ATTRS,
    MESSAGE_ID,
    SUBJECT,
    RECIPIENT,
    FILE_NAME,
    FILE_SIZE,
    SIZE,
    RECORD_TYPE,
    LOGON_TYPE,
    FORWARDING,
    EXTERNAL_FORWARDING,
    TAGS,
    TECHNIQUES,
];

pub(super) static TABLES: [Table; 1] =
    [Table { name: "o365:management:activity", columns: &COLUMNS, native: Some("") }];

/// A row that leaves out what the record has a field for.
struct Event<'w, 'r, 'a> {
    row: Row<'w>,
    reading: &'r Reading<'a>,
    /// Names of the model that the record has fields of its own for. Nearly always none.
    taken: Vec<&'static str>,
}

/// Appends a record. `line` is its text, on one line and well formed.
pub(crate) fn write<'a>(
    line: &str,
    reading: &Reading<'a>,
    options: &'a RenderOptions,
    tags: u32,
    out: &mut Vec<u8>,
) {
    let mut row = Row::new(out);
    let inside =
        line.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default().trim_end();
    if !inside.is_empty() {
        row.w.raw(inside);
        row.w.raw(",");
    }
    let mut event = Event { row, reading, taken: taken(reading) };
    let shape = Shape::of(reading, options);
    event.what(&shape);
    event.place();
    event.people(&shape);
    event.source();
    event.objects(&shape);
    event.exchange();
    event.list(TAGS, tags::names(tags));
    let techniques = tags::of(tags).flat_map(|tag| tag.techniques);
    event.list(TECHNIQUES, techniques.map(|technique| technique.sub.map_or(technique.uid, |(sub, _)| sub)));
    event.row.finish();
}

/// The columns that the record has a field of the same name as. The names that Microsoft documents are in upper case.
fn taken(reading: &Reading<'_>) -> Vec<&'static str> {
    let others = reading.record.others().iter().map(|(name, _)| *name);
    let lower = others.filter(|name| !name.raw().starts_with(|first: char| first.is_ascii_uppercase()));
    lower
        .flat_map(|name| {
            COLUMNS.iter().filter(move |column| name.equals(column.name)).map(|column| column.name)
        })
        .collect()
}

impl<'a> Event<'_, '_, 'a> {
    fn has_place(&self, column: Column) -> bool {
        self.taken.is_empty() || !self.taken.contains(&column.name)
    }

    /// Text that needs no escape, or has its own.
    fn put(&mut self, column: Column, text: &str) {
        if self.has_place(column) {
            self.row.fragment(column, text);
        }
    }

    fn maybe(&mut self, column: Column, text: Option<Text<'_>>) {
        if let Some(text) = text {
            self.put(column, text.raw());
        }
    }

    /// A list of texts that need no escape; one stands alone, none is left out.
    fn list<'t>(&mut self, column: Column, texts: impl IntoIterator<Item = &'t str>) {
        let mut texts = texts.into_iter();
        let Some(first) = texts.next().filter(|_| self.has_place(column)) else { return };
        match texts.next() {
            None => self.row.fragment(column, first),
            Some(second) => {
                let list = self.row.list(column);
                for text in [first, second].into_iter().chain(texts) {
                    self.row.w.fragment("", text);
                }
                self.row.w.close(list);
            }
        }
    }

    /// What was done, and how it ended.
    fn what(&mut self, shape: &Shape<'a>) {
        let ended = meaning::ended(self.reading);
        let status = match ended {
            Ended::Success => "success",
            Ended::Failure => "failure",
            Ended::Partial => "partial",
            Ended::Unknown => "unknown",
        };
        let logon = matches!(shape, Shape::Authentication) || meaning::is_sign_in(self.reading);
        // The model of Authentication has the outcome for its action.
        let action = if logon { status } else { self.action(shape) };
        self.put(ACTION, action);
        self.put(STATUS, status);
        self.maybe(RESULT, self.reading.record.text(Field::ResultStatus));
        let change = match shape {
            Shape::UserAccess { .. } | Shape::Group { .. } | Shape::Account { .. } => Some("AAA"),
            Shape::Api { .. } if self.reading.source == Source::ExchangeAdmin => Some("configuration"),
            _ => None,
        };
        if let Some(change) = change {
            self.put(CHANGE_TYPE, change);
        }
        self.maybe(COMMAND, self.reading.operation);
        self.maybe(SIGNATURE, self.reading.operation);
        let model = match shape {
            _ if logon => "Authentication",
            Shape::Email(_) => "Email",
            Shape::Api { .. } if self.reading.source == Source::ExchangeMailbox => "Data_Access",
            Shape::Api { activity: api::READ } => "Data_Access",
            _ => "Change",
        };
        self.put(DATA_MODEL, model);
    }

    fn action(&self, shape: &Shape<'a>) -> &'static str {
        let is = |name: &str| self.reading.operation.is_some_and(|operation| operation.is(name));
        match shape {
            Shape::UserAccess { .. } => "acl_modified",
            Shape::Group { activity: group::CREATE, .. } | Shape::Account { activity: 1, .. } => "created",
            Shape::Group { activity: group::DELETE, .. } | Shape::Account { activity: 6, .. } => "deleted",
            Shape::Group { .. } | Shape::Account { .. } => "modified",
            _ if is("Copy") => "copied",
            _ => match self.reading.meaning.api {
                api::CREATE => "created",
                api::READ => "read",
                api::UPDATE => "modified",
                api::DELETE => "deleted",
                _ => "unknown",
            },
        }
    }

    /// Where it was done: product, server, tenant.
    fn place(&mut self) {
        let (reading, record) = (self.reading, self.reading.record);
        let product = if reading.exchange { "Microsoft Exchange Online" } else { "Microsoft 365" };
        self.put(VENDOR_PRODUCT, product);
        self.maybe(APP, record.text(Field::Workload));
        let server = reading.server.map(|server| server.host);
        if let Some(server) = server {
            self.put(DVC, server);
        }
        self.put(DEST, server.unwrap_or(product));
        let tenant = reading.origin.tenant.to_string();
        let id = record.text(Field::OrganizationId).map_or(tenant.as_str(), Text::raw);
        self.put(TENANT_ID, id);
        self.put(VENDOR_ACCOUNT, record.text(Field::OrganizationName).map_or(id, Text::raw));
    }

    /// Who did it, to whom, in whose mailbox. Where an account or a permission changes, the model has the one who did it as
    /// `src_user` and the one whom it was done to as `user`; in mail, the sender is `src_user`.
    fn people(&mut self, shape: &Shape<'a>) {
        let record = self.reading.record;
        let actor = record.text(Field::UserId);
        let id = record.text(Field::TokenObjectId).or_else(|| record.text(Field::UserKey));
        let kind = meaning::user_type(self.reading);
        let targets = meaning::targets(shape);
        let (name, number, class) = if targets.is_empty() {
            (USER, USER_ID, USER_TYPE)
        } else {
            (SRC_USER, SRC_USER_ID, SRC_USER_TYPE)
        };
        self.list(USER, targets);
        self.maybe(name, actor);
        self.maybe(number, id);
        if let Some(kind) = kind {
            self.put(class, kind);
        }
        if let Shape::Email(email) = shape {
            self.maybe(SRC_USER, email.from);
            self.list(RECIPIENT, email.to.iter().map(|address| address.raw()));
        }
        if let Some(owner) = meaning::owner(self.reading) {
            self.put(OWNER, owner);
            if is_email(owner) {
                self.put(OWNER_EMAIL, owner);
            }
        }
        self.maybe(OWNER_ID, record.text(Field::MailboxOwnerSid));
        if let Some(is_owner) = self.reading.is_owner().filter(|_| self.has_place(IS_OWNER)) {
            self.row.bool(IS_OWNER, is_owner);
        }
    }

    /// From where, with what.
    fn source(&mut self) {
        if let Some(client) = self.reading.client {
            let host = client.address.host;
            self.put(SRC, host.as_str());
            if matches!(host, Host::Ip(_)) {
                self.put(SRC_IP, host.as_str());
            }
            if let Some(port) = client.address.port.filter(|_| self.has_place(SRC_PORT)) {
                self.row.int(SRC_PORT, i64::from(port));
            }
        }
        self.maybe(USER_AGENT, meaning::user_agent(self.reading).map(|(_, agent)| agent));
        self.maybe(APP_ID, self.reading.app_id());
        self.maybe(SESSION_ID, meaning::session(self.reading));
    }

    /// What it was done to.
    fn objects(&mut self, shape: &Shape<'a>) {
        let reading = self.reading;
        let messages = meaning::messages(reading);
        let folders = meaning::folders(reading, &messages);
        let subjects = || messages.iter().filter_map(|message| message.subject.map(Text::raw));
        if messages.is_empty() {
            let mailbox = || reading.record.text(Field::MailboxGuid);
            let folder = folders.first().copied();
            // Exchange also tells of its rules for data loss and of encrypted mail, which nobody did to a mailbox.
            let mailbox_audit = reading.source == Source::ExchangeMailbox && reading.is_mailbox_audit();
            let object = match mailbox_audit {
                true => folder.map(Text::raw).or_else(|| meaning::owner(reading)),
                false => meaning::object_name(reading).map(Text::raw),
            };
            if let Some(object) = object {
                self.put(OBJECT, object);
            }
            self.maybe(OBJECT_ID, reading.record.text(Field::ObjectId).or_else(mailbox));
            match (mailbox_audit, reading.cmdlet) {
                (true, _) if folder.is_some() => self.put(OBJECT_CATEGORY, "folder"),
                (true, _) => self.put(OBJECT_CATEGORY, "mailbox"),
                (_, Some(cmdlet)) => self.put(OBJECT_CATEGORY, cmdlet.noun_text),
                _ => self.maybe(OBJECT_CATEGORY, reading.record.text(Field::ItemType)),
            }
        } else {
            self.list(OBJECT, subjects());
            self.put(OBJECT_CATEGORY, "email");
        }
        self.list(OBJECT_PATH, folders.iter().map(|path| path.raw()));
        self.list(OBJECT_ATTRS, reading.parameters.iter().map(|(name, _)| name.raw()));
        self.list(MESSAGE_ID, messages.iter().filter_map(|message| message.message_id.map(Text::raw)));
        if matches!(shape, Shape::Email(_)) {
            self.list(SUBJECT, subjects());
            if let [Message { size: Some(size), .. }] = messages[..]
                && self.has_place(SIZE)
            {
                self.row.int(SIZE, size);
            }
        }
        self.files(&messages);
    }

    fn files(&mut self, messages: &[Message<'a>]) {
        let lists = || {
            messages.iter().filter_map(|message| message.attachments).flat_map(|text| attached(text.raw()))
        };
        self.list(FILE_NAME, lists().map(|(name, _)| name));
        if lists().next().is_some() && self.has_place(FILE_SIZE) {
            let list = self.row.list(FILE_SIZE);
            for (_, size) in lists() {
                self.row.w.int("", size);
            }
            self.row.w.close(list);
        }
    }

    /// What only Exchange knows of.
    fn exchange(&mut self) {
        if let Some(name) = meaning::record_type(self.reading) {
            self.put(RECORD_TYPE, name);
        }
        if let Some(name) = meaning::logon(self.reading) {
            self.put(LOGON_TYPE, name);
        }
        let Some(forwarding) = &self.reading.forwarding else { return };
        for (column, external) in [(FORWARDING, false), (EXTERNAL_FORWARDING, true)] {
            let mut targets =
                forwarding.targets.iter().filter(|target| target.external || !external).peekable();
            if targets.peek().is_some() && self.has_place(column) {
                let list = self.row.list(column);
                for target in targets {
                    self.row.w.str("", &target.address);
                }
                self.row.w.close(list);
            }
        }
    }
}
