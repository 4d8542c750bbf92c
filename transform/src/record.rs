//! A record as its fields: each known name has a place of its own, everything else is kept in order.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use crate::{
    json::{ElementName, Fault, Fields, Json, Key, Kind, Name, Text, has_controls, scan_object},
    names::{Names, Seen},
};

macro_rules! fields {
    ($($field:ident = $name:literal,)*) => {
        /// A field that the mapping knows, by its name on the wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Field { $(#[doc = $name] $field,)* }

        /// Every known field, in the order of [`Field`].
        pub(crate) const FIELDS: &[Field] = &[$(Field::$field,)*];
        const NAMES: &[&str] = &[$($name,)*];
        static KEYS: [Key; COUNT] = [$(Key::new(concat!("\"", $name, "\":")),)*];
    };
}

// Source: Office 365 Management Activity API schema (common, Exchange Admin and Exchange Mailbox schemas), and the same
// records on the wire, which spell some names in another way.
fields! {
    Id = "Id",
    RecordType = "RecordType",
    CreationTime = "CreationTime",
    Operation = "Operation",
    OrganizationId = "OrganizationId",
    OrganizationName = "OrganizationName",
    UserType = "UserType",
    UserKey = "UserKey",
    Workload = "Workload",
    ResultStatus = "ResultStatus",
    ObjectId = "ObjectId",
    UserId = "UserId",
    ClientIp = "ClientIP",
    ClientIpAddress = "ClientIPAddress",
    ActorIpAddress = "ActorIpAddress",
    ActorIp = "ActorIP",
    AppAccessContext = "AppAccessContext",
    Version = "Version",
    ModifiedObjectResolvedName = "ModifiedObjectResolvedName",
    Parameters = "Parameters",
    OperationProperties = "OperationProperties",
    ModifiedProperties = "ModifiedProperties",
    ExternalAccess = "ExternalAccess",
    OriginatingServer = "OriginatingServer",
    DeviceId = "DeviceId",
    TokenObjectId = "TokenObjectId",
    TokenTenantId = "TokenTenantId",
    TokenType = "TokenType",
    AuthType = "AuthType",
    AppId = "AppId",
    ApiId = "APIId",
    ClientAppId = "ClientAppId",
    HostAppId = "HostAppId",
    SessionId = "SessionId",
    LogonType = "LogonType",
    InternalLogonType = "InternalLogonType",
    MailboxGuid = "MailboxGuid",
    MailboxOwnerUpn = "MailboxOwnerUPN",
    MailboxOwnerSid = "MailboxOwnerSid",
    MailboxOwnerMasterAccountSid = "MailboxOwnerMasterAccountSid",
    DestMailboxId = "DestMailboxId",
    DestMailboxOwnerUpn = "DestMailboxOwnerUPN",
    DestMailboxOwnerSid = "DestMailboxOwnerSid",
    DestMailboxOwnerMasterAccountSid = "DestMailboxOwnerMasterAccountSid",
    CrossMailboxOperation = "CrossMailboxOperation",
    CrossMailboxOperations = "CrossMailboxOperations",
    LogonUserSid = "LogonUserSid",
    LogonUserDisplayName = "LogonUserDisplayName",
    ClientInfoString = "ClientInfoString",
    ClientMachineName = "ClientMachineName",
    ClientProcessName = "ClientProcessName",
    ClientVersion = "ClientVersion",
    ClientRequestId = "ClientRequestId",
    RequestId = "RequestId",
    ActorInfoString = "ActorInfoString",
    RecipientCount = "recipientCount",
    RecipientCountUpper = "RecipientCount",
    RecipientList = "recipientList",
    RecipientListUpper = "RecipientList",
    SaveToSentItems = "SaveToSentItems",
    SendAsUserSmtp = "SendAsUserSmtp",
    SendAsUserSmpt = "SendAsUserSmpt",
    SendAsUserMailboxGuid = "SendAsUserMailboxGuid",
    SendOnBehalfOfUserSmtp = "SendOnBehalfOfUserSmtp",
    SendOnBehalfOfUserSmpt = "SendOnBehalfOfUserSmpt",
    SendOnBehalfOfUserMailboxGuid = "SendOnBehalfOfUserMailboxGuid",
    OperationCount = "OperationCount",
    Folder = "Folder",
    DestFolder = "DestFolder",
    Folders = "Folders",
    Item = "Item",
    AffectedItems = "AffectedItems",
    Messages = "Messages",
    UserAgent = "UserAgent",
    CorrelationId = "CorrelationId",
    ApplicationId = "ApplicationId",
    ApplicationDisplayName = "ApplicationDisplayName",
    ItemType = "ItemType",
}

const COUNT: usize = NAMES.len();

impl Field {
    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Its name as a JSON key with the colon.
    pub(crate) fn key(self) -> &'static str {
        KEYS[self as usize].text()
    }

    /// The field of a name.
    #[inline]
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        static KNOWN: Names<512> = Names::new(NAMES);
        KNOWN.place(name).map(|place| FIELDS[place])
    }
}

/// A set of known fields, in two words because a shift of 128 bits costs several of 64.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FieldSet([u64; 2]);

const _: () = assert!(COUNT <= 128, "a FieldSet has a bit for every field");

impl FieldSet {
    pub(crate) const fn of(fields: &[Field]) -> Self {
        let (mut set, mut index) = ([0; 2], 0);
        while index < fields.len() {
            set[fields[index] as usize / 64] |= 1 << (fields[index] as usize % 64);
            index += 1;
        }
        Self(set)
    }

    #[inline]
    pub(crate) fn insert(&mut self, field: Field) {
        self.0[field as usize / 64] |= 1 << (field as usize % 64);
    }

    #[inline]
    pub(crate) fn contains(self, field: Field) -> bool {
        self.0[field as usize / 64] >> (field as usize % 64) & 1 == 1
    }

    /// The fields that are in this set and not in the other, in the order of [`Field`].
    fn without(self, other: Self) -> impl Iterator<Item = Field> {
        let mut left = [self.0[0] & !other.0[0], self.0[1] & !other.0[1]];
        std::iter::from_fn(move || {
            let word = usize::from(left[0] == 0);
            if left[word] == 0 {
                return None;
            }
            let field = FIELDS[word * 64 + left[word].trailing_zeros() as usize];
            left[word] &= left[word] - 1;
            Some(field)
        })
    }
}

/// Which field came after which in earlier records. Records of a kind have their fields in the same order, so that the
/// next name is nearly always known before it is read; a wrong guess costs a comparison.
#[derive(Debug)]
pub(crate) struct Order([AtomicU8; COUNT + 1]);

/// The place in [`Order`] for what comes first, or after a field that the mapping does not know.
const NO_FIELD: usize = COUNT;

impl Order {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU8::new(0) }; COUNT + 1])
    }

    #[inline]
    fn after(&self, before: usize) -> u8 {
        self.0[before].load(Relaxed)
    }
}

/// A record whose text was checked.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    order: &'a Order,
    /// The field before, or [`NO_FIELD`], and the one that is expected after it.
    before: usize,
    expected: u8,
    known: [Option<Json<'a>>; COUNT],
    present: FieldSet,
    /// The known fields that are strings with escapes.
    escaped: FieldSet,
    /// Fields that the mapping does not know, and what comes after the first field of a known name.
    others: Vec<(Text<'a>, Json<'a>)>,
    repeats: bool,
    /// Whether one of the others has escapes in its name.
    escaped_other: bool,
    parameters: Option<Pairs<'a>>,
    properties: Option<Pairs<'a>>,
    /// The list that is scanned at the moment.
    list: Pairs<'a>,
}

/// The elements of a list of `{"Name": …, "Value": …}`.
#[derive(Debug, Default)]
pub(crate) struct Pairs<'a> {
    pub(crate) pairs: Vec<(Text<'a>, Option<Json<'a>>)>,
    /// Whether some element was not that, or not only that.
    pub(crate) inexact: bool,
    /// Whether a name has escapes.
    pub(crate) escaped_name: bool,
    /// The element that is scanned at the moment.
    name: Option<Text<'a>>,
    value: Option<Json<'a>>,
    open: bool,
}

impl<'a> Pairs<'a> {
    /// Takes up the element that was scanned.
    #[inline]
    fn finish_element(&mut self) {
        if std::mem::take(&mut self.open) {
            match self.name.take() {
                Some(name) => self.pairs.push((name, self.value.take())),
                None => {
                    self.value = None;
                    self.inexact = true;
                }
            }
        }
    }
}

impl<'a> Fields<'a> for Record<'a> {
    #[inline]
    fn expected(&self) -> Option<&'static Key> {
        KEYS.get(usize::from(self.expected))
    }

    #[inline]
    fn field(&mut self, name: Name<'a>, value: Json<'a>, escaped: bool) {
        let field = match name.expected {
            true => Some(FIELDS[usize::from(self.expected)]),
            false => self.unexpected(name),
        };
        self.before = field.map_or(NO_FIELD, |field| field as usize);
        self.expected = self.order.after(self.before);
        match field {
            Some(field) if self.known[field as usize].is_none() => {
                self.known[field as usize] = Some(value);
                self.present.insert(field);
                if escaped {
                    self.escaped.insert(field);
                }
                let pairs = match field {
                    Field::Parameters => &mut self.parameters,
                    Field::OperationProperties => &mut self.properties,
                    _ => return,
                };
                if value.kind() == Kind::Array {
                    self.list.finish_element();
                    *pairs = Some(std::mem::take(&mut self.list));
                }
            }
            _ => self.other(field, name, value),
        }
    }

    #[inline]
    fn wants_elements(&self, name: Name<'a>) -> bool {
        match name.expected {
            true => {
                matches!(FIELDS[usize::from(self.expected)], Field::Parameters | Field::OperationProperties)
            }
            false => matches!(name.bytes(), b"Parameters" | b"OperationProperties") || name.escaped,
        }
    }

    fn list(&mut self) {
        self.list = Pairs::default();
        self.list.pairs.reserve(16);
    }

    #[inline]
    fn pair(&mut self, name: Text<'a>, value: Json<'a>) {
        self.list.finish_element();
        self.list.pairs.push((name, Some(value)));
    }

    #[inline]
    fn element(&mut self, object: bool) {
        self.list.finish_element();
        self.list.open = object;
        self.list.inexact |= !object;
    }

    #[inline]
    fn element_field(&mut self, name: ElementName, value: Json<'a>, escaped: bool) {
        let list = &mut self.list;
        match name {
            ElementName::Name if list.name.is_none() && value.kind() == Kind::String => {
                list.name = value.text();
                list.escaped_name |= escaped;
            }
            ElementName::Value if list.value.is_none() => list.value = Some(value),
            _ => list.inexact = true,
        }
    }
}

impl<'a> Record<'a> {
    /// Looks up a name that was not expected, and expects it the next time.
    #[inline(never)]
    fn unexpected(&self, name: Name<'a>) -> Option<Field> {
        let field = match name.escaped {
            true => Field::named(name.text().unescape().as_bytes()),
            false => Field::named(name.bytes()),
        };
        if let Some(field) = field {
            self.order.0[self.before].store(field as u8, Relaxed);
        }
        field
    }

    /// Takes a field that has no place of its own, or whose place is taken.
    #[inline(never)]
    fn other(&mut self, field: Option<Field>, name: Name<'a>, value: Json<'a>) {
        self.repeats |= field.is_some();
        self.escaped_other |= name.escaped;
        self.others.push((name.text(), value));
    }

    /// Reads a record from text that is one JSON object.
    pub(crate) fn read(text: &'a str) -> Result<Self, Fault> {
        static ORDER: Order = Order::new();
        let mut record = Self::empty(&ORDER);
        record.fill(text, has_controls(text.as_bytes()))?;
        Ok(record)
    }

    /// A record to be filled where it is: it is large enough for a move to cost something.
    #[inline]
    pub(crate) fn empty(order: &'a Order) -> Self {
        Self {
            order,
            before: NO_FIELD,
            expected: order.after(NO_FIELD),
            known: [None; COUNT],
            present: FieldSet::default(),
            escaped: FieldSet::default(),
            others: Vec::new(),
            repeats: false,
            escaped_other: false,
            parameters: None,
            properties: None,
            list: Pairs::default(),
        }
    }

    /// [`Record::read`] for an empty record, when it is known whether the text has any control character.
    pub(crate) fn fill(&mut self, text: &'a str, controls: bool) -> Result<(), Fault> {
        scan_object(text, controls, self)?;
        self.repeats |= Seen::default().repeats(&self.others, self.escaped_other);
        Ok(())
    }

    /// Whether it has any of these fields.
    #[inline]
    pub(crate) fn has_any(&self, fields: &FieldSet) -> bool {
        self.present.0[0] & fields.0[0] | self.present.0[1] & fields.0[1] != 0
    }

    /// The pairs of `Parameters` and `OperationProperties`, where they are lists.
    pub(crate) fn pairs(&self, field: Field) -> Option<&Pairs<'a>> {
        match field {
            Field::Parameters => self.parameters.as_ref(),
            Field::OperationProperties => self.properties.as_ref(),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn get(&self, field: Field) -> Option<Json<'a>> {
        self.known[field as usize]
    }

    /// A field that holds a string which is not empty.
    #[inline]
    pub(crate) fn text(&self, field: Field) -> Option<Text<'a>> {
        self.known[field as usize]?.text().filter(|text| !text.is_empty())
    }

    /// [`Record::text`] when it holds no escape.
    #[inline]
    pub(crate) fn plain(&self, field: Field) -> Option<&'a str> {
        let text = self.text(field)?;
        (!self.escaped.contains(field)).then(|| text.raw())
    }

    /// [`Record::text`] with its escapes resolved; empty when there is none.
    #[inline]
    pub(crate) fn unescaped(&self, field: Field) -> Cow<'a, str> {
        match self.text(field) {
            Some(text) if self.escaped.contains(field) => Cow::Owned(text.resolve()),
            Some(text) => Cow::Borrowed(text.raw()),
            None => Cow::Borrowed(""),
        }
    }

    /// The known fields that are there and not in `used`, in the order of [`Field`].
    pub(crate) fn unused(&self, used: FieldSet) -> impl Iterator<Item = (Field, Json<'a>)> + '_ {
        self.present.without(used).filter_map(|field| Some((field, self.get(field)?)))
    }

    /// Unknown fields, and repeated ones.
    pub(crate) fn others(&self) -> &[(Text<'a>, Json<'a>)] {
        &self.others
    }

    /// Whether a name occurs twice.
    pub(crate) fn has_repeats(&self) -> bool {
        self.repeats
    }
}

/// Whether two of the names are the same.
pub(crate) fn has_repeats<V>(fields: &[(Text<'_>, V)]) -> bool {
    Seen::default().repeats(fields, fields.iter().any(|(name, _)| name.plain().is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_others_are_not() {
        for &field in FIELDS {
            assert_eq!(Field::named(field.name().as_bytes()), Some(field));
            assert_eq!(field.key(), format!("\"{}\":", field.name()));
        }
        for name in ["", "id", "Idd", "clientip", "RECIPIENTLIST", "Operatiom"] {
            assert_eq!(Field::named(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn the_first_of_a_name_counts_and_nothing_is_lost() {
        let text = r#"{"Id":"1","X":1,"I\u0064":"2","Item":null,"X":2,"Operation":""}"#;
        let record = Record::read(text).unwrap();
        assert_eq!(record.text(Field::Id).unwrap().raw(), "1");
        assert!(record.text(Field::Operation).is_none() && record.get(Field::Operation).is_some());
        assert!(record.has_repeats());
        let others: Vec<_> = record.others().iter().map(|(name, value)| (name.raw(), value.raw())).collect();
        assert_eq!(others, [("X", "1"), ("I\\u0064", "\"2\""), ("X", "2")]);
        let mut used = FieldSet::default();
        used.insert(Field::Id);
        let unused: Vec<_> = record.unused(used).map(|(field, _)| field).collect();
        assert_eq!(unused, [Field::Operation, Field::Item]);
    }

    /// The order is a guess: whatever came before, a record is read in the same way.
    #[test]
    fn what_came_before_changes_nothing() {
        let order = Order::new();
        let texts = [
            r#"{"Id":"1","Operation":"Send","UserId":"a"}"#,
            r#"{"Operation":"Send","Id":"1","New":0,"UserId":"a"}"#,
            r#"{"Id":"1","Operation":"Send","Id":"2","UserId":"a"}"#,
            r#"{"Id" : "1" , "Operation": "Send", "UserId" :"a", "IdX":1, "Id\u0058":2}"#,
        ];
        for text in texts.iter().cycle().take(40) {
            let mut record = Record::empty(&order);
            record.fill(text, false).unwrap();
            let fields =
                [Field::Id, Field::Operation, Field::UserId].map(|field| record.text(field).unwrap().raw());
            assert_eq!(fields, ["1", "Send", "a"]);
            assert_eq!(
                record.others().len(),
                text.matches("New").count() + text.matches("IdX").count() * 2 + text.matches("\"2\"").count()
            );
        }
    }

    #[test]
    fn repeats_are_seen_in_long_records_too() {
        let mut text: String = (0..100).map(|n| format!("\"N{n}\":{n},")).collect();
        assert!(!Record::read(&format!("{{{text}\"a\":1}}")).unwrap().has_repeats());
        text.push_str("\"N\\u0037\":0,");
        assert!(Record::read(&format!("{{{text}\"a\":1}}")).unwrap().has_repeats());
    }
}
