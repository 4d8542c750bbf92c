//! What the records look like: one module per workload, and what they share.
//!
//! A [`Kind`] is a sort of record (operation, logon type, sort of mailbox, variant), a [`Scene`] one moment in the
//! tenant's life, and a [`Record`] what the audit log says about it. Field names and shapes follow Microsoft's
//! "Office 365 Management Activity API schema" and what is seen on the wire; every value is invented.

mod admin;
mod dlp;
mod entra;
mod general;
mod mailbox;
mod quirks;
mod sharepoint;

use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use schemas::ContentType;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{cast::Cast, dice::Dice};

pub(crate) use quirks::{QUIRKS, Quirk};

/// In which capacity somebody opened a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Logon {
    /// The mailbox's own user: wire value 0.
    Owner,
    /// An administrator without delegate rights (eDiscovery, export, MAPI editing): wire value 1.
    Admin,
    /// A user with full access, send-as or send-on-behalf: wire value 2.
    Delegate,
}

impl Logon {
    /// The number of `LogonType` on the wire.
    #[must_use]
    pub const fn wire(self) -> i32 {
        match self {
            Self::Owner => 0,
            Self::Admin => 1,
            Self::Delegate => 2,
        }
    }
}

/// Whose mailbox it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MailboxKind {
    /// A person's.
    User,
    /// A shared one, which nobody owns.
    Shared,
    /// A Microsoft 365 group's.
    Group,
}

/// A sort of record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) content_type: ContentType,
    pub(crate) operation: &'static str,
    pub(crate) record_type: i32,
    pub(crate) logon: Option<Logon>,
    pub(crate) mailbox: Option<MailboxKind>,
    /// Tells kinds of the same operation apart; may be empty.
    pub(crate) variant: &'static str,
    /// How often it happens in ordinary traffic, relative to the others of its content type.
    pub(crate) weight: u64,
    pub(crate) build: Build,
}

/// Who fills a record in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Build {
    Mailbox(fn(&mut mailbox::Access<'_, '_>, &mut Record)),
    Cmdlet(fn(&mut Scene<'_>) -> admin::Cmdlet),
    Other(fn(&mut Scene<'_>, &mut Record)),
}

/// Operation, record type, variant, weight, and what the record holds, where neither a mailbox was opened nor a cmdlet run.
type Row = (&'static str, i32, &'static str, u64, fn(&mut Scene<'_>, &mut Record));

fn kinds_in(content_type: ContentType, rows: &[Row]) -> Vec<Kind> {
    let kind = |&(operation, record_type, variant, weight, fill): &Row| Kind {
        content_type,
        operation,
        record_type,
        logon: None,
        mailbox: None,
        variant,
        weight,
        build: Build::Other(fill),
    };
    rows.iter().map(kind).collect()
}

/// One moment in the tenant's life.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) cast: &'a Cast,
    pub(crate) dice: Dice,
    /// The dice of the whole episode, for things that belong together: a grant and its removal are drawn from the
    /// same episode, so that they name the same people.
    pub(crate) episode: Dice,
    pub(crate) id: Uuid,
    pub(crate) at: DateTime<Utc>,
    /// Whether DLP records may hold what was detected (`ActivityFeed.ReadDlp`).
    pub(crate) dlp_detail: bool,
}

/// A record's fields in the order in which they were put.
#[derive(Debug, Default, Clone)]
pub(crate) struct Record {
    fields: Vec<(&'static str, Value)>,
}

impl Record {
    /// Sets a field; a field that is there already changes its value and keeps its place.
    pub(crate) fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        match self.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value.into(),
            None => self.fields.push((name, value.into())),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.fields.retain(|(known, _)| *known != name);
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.fields.iter_mut().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Appends the record's JSON. `order` chooses where in the circle of fields it begins and which way it goes:
    /// most records come in the usual order, as in life.
    pub(crate) fn write(&self, order: u64, out: &mut Vec<u8>) {
        let count = self.fields.len();
        let (start, backwards) =
            if order.is_multiple_of(3) { (0, false) } else { (order as usize, order.is_multiple_of(5)) };
        out.push(b'{');
        for step in 0..count {
            let turn = if backwards { count - 1 - step } else { step };
            let (name, value) = &self.fields[(start % count + turn) % count];
            if step > 0 {
                out.push(b',');
            }
            write_json(name, out);
            out.push(b':');
            write_json(value, out);
        }
        out.push(b'}');
    }

    pub(crate) fn len(&self) -> usize {
        let mut out = Vec::new();
        self.write(0, &mut out);
        out.len()
    }
}

fn write_json(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("a JSON value is written to memory without fail");
}

impl Scene<'_> {
    /// The fields that every record has (Management Activity API schema, "Common schema").
    pub(crate) fn common(&self, operation: &str, record_type: i32, workload: &str) -> Record {
        let mut record = Record::default();
        record.put("CreationTime", self.at.format("%Y-%m-%dT%H:%M:%S").to_string());
        record.put("Id", self.id.to_string());
        record.put("Operation", operation);
        record.put("OrganizationId", self.cast.tenant.to_string());
        record.put("RecordType", record_type);
        record.put("Version", 1);
        record.put("Workload", workload);
        record
    }
}

impl Kind {
    /// The record of this kind that a moment left behind.
    pub(crate) fn record(&self, scene: &mut Scene<'_>) -> Record {
        match self.build {
            Build::Mailbox(fill) => mailbox::record(self, scene, fill),
            Build::Cmdlet(cmdlet) => admin::record(self, scene, cmdlet),
            Build::Other(fill) => {
                let mut record = scene.common(self.operation, self.record_type, "");
                fill(scene, &mut record);
                record
            }
        }
    }
}

/// Grows a record to about `bytes` in the way in which real ones grow: more items, more parameters.
pub(crate) fn pad(record: &mut Record, bytes: usize, scene: &mut Scene<'_>) {
    let size = record.len();
    if size + 40 >= bytes {
        return;
    }
    let missing = bytes - size;
    let dice = &mut scene.dice;
    let items = match record.get_mut("Folders") {
        Some(folders) => folders.get_mut(0).and_then(|folder| folder.get_mut("FolderItems")),
        None => None,
    };
    if let Some(Value::Array(items)) = items {
        let cast = scene.cast;
        fill(
            items,
            missing,
            || json!({ "InternetMessageId": cast.message_id(dice), "SizeInBytes": 2000 + dice.below(90_000) }),
        );
        return;
    }
    if let Some(Value::Array(items)) = record.get_mut("AffectedItems") {
        let like = items.first().cloned().unwrap_or_else(|| json!({}));
        let cast = scene.cast;
        fill(items, missing, || {
            let mut item = like.clone();
            if let Value::Object(fields) = &mut item {
                fields.insert("InternetMessageId".into(), cast.message_id(dice).into());
            }
            item
        });
        return;
    }
    let list = if record.get_mut("Parameters").is_some_and(|list| list.is_array()) {
        "Parameters"
    } else {
        "ExtendedProperties"
    };
    if record.get_mut(list).is_none() {
        record.put(list, json!([]));
    }
    if let Some(Value::Array(pairs)) = record.get_mut(list) {
        let mut number = 0;
        fill(pairs, missing, || {
            number += 1;
            json!({ "Name": format!("CustomAttribute{number}"), "Value": format!("{}/{}", dice.guid(), dice.guid()) })
        });
    }
}

/// Adds elements until `missing` bytes came together.
fn fill(list: &mut Vec<Value>, missing: usize, mut next: impl FnMut() -> Value) {
    let mut added = 0;
    loop {
        let value = next();
        added += value.to_string().len() + 1;
        // The element that would overshoot by more than half of itself is left out.
        if added > missing + 40 {
            return;
        }
        list.push(value);
    }
}

/// `[{"Name":…,"Value":…},…]`, the form of parameters and properties.
pub(crate) fn pairs<K: AsRef<str>, V: AsRef<str>>(list: &[(K, V)]) -> Value {
    list.iter().map(|(name, value)| json!({ "Name": name.as_ref(), "Value": value.as_ref() })).collect()
}

/// Every kind of record.
pub(crate) fn kinds() -> &'static [Kind] {
    static KINDS: OnceLock<Vec<Kind>> = OnceLock::new();
    KINDS.get_or_init(|| {
        [
            mailbox::kinds(),
            admin::kinds(),
            entra::kinds(),
            sharepoint::kinds(),
            general::kinds(),
            dlp::kinds(),
        ]
        .concat()
    })
}

/// The kinds of one content type.
pub(crate) fn kinds_of(content_type: ContentType) -> &'static [&'static Kind] {
    static BY_TYPE: OnceLock<Vec<(ContentType, Vec<&'static Kind>)>> = OnceLock::new();
    let by_type = BY_TYPE.get_or_init(|| {
        let of = |wanted| kinds().iter().filter(|kind| kind.content_type == wanted).collect();
        ContentType::ALL.into_iter().map(|kind| (kind, of(kind))).collect()
    });
    by_type.iter().find(|(known, _)| *known == content_type).map_or(&[], |(_, kinds)| kinds)
}
