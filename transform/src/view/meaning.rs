//! What a record means in words that all views share.

use schemas::record_type::record_type_name;

use crate::{
    json::{Json, Text},
    ocsf::{
        class::Shape,
        exchange::{self, USER_TYPES, logon_type, named},
        metadata::{Outcome, outcome},
    },
    operation::Source,
    parts::Item,
    reading::{Reading, is_email},
    record::Field,
};

/// How it ended. What the record does not say, or says in an unknown word, is not known: least of all is it a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Success,
    Failure,
    Partial,
    Unknown,
}

pub(super) fn ended(reading: &Reading<'_>) -> Ended {
    let partial = |status: Text<'_>| status.is_one_of(&["PartiallySucceeded", "Partial"]);
    match outcome(reading) {
        Some(Outcome::Success) => Ended::Success,
        Some(Outcome::Failure) => Ended::Failure,
        Some(Outcome::Other) if reading.record.text(Field::ResultStatus).is_some_and(partial) => {
            Ended::Partial
        }
        Some(Outcome::Other) | None => Ended::Unknown,
    }
}

/// Whether somebody signed in to the directory, or tried to (`AzureActiveDirectoryStsLogon`).
pub(super) fn is_sign_in(reading: &Reading<'_>) -> bool {
    reading.record_type == Some(15)
}

/// The name of the record type.
pub(super) fn record_type(reading: &Reading<'_>) -> Option<&'static str> {
    record_type_name(reading.record_type?)
}

/// The name of `UserType`.
pub(super) fn user_type(reading: &Reading<'_>) -> Option<&'static str> {
    let number = reading.record.get(Field::UserType).and_then(exchange::user_type)?;
    named(&USER_TYPES, number)
}

/// The name of `LogonType`.
pub(super) fn logon(reading: &Reading<'_>) -> Option<&'static str> {
    reading.record.get(Field::LogonType).and_then(logon_type).map(|(_, name)| name)
}

/// The owner of the mailbox that it was done to, their escapes unresolved.
pub(super) fn owner<'a>(reading: &Reading<'a>) -> Option<&'a str> {
    reading.record.text(Field::MailboxOwnerUpn).map(Text::raw).or(reading.administered_mailbox)
}

/// Whom it was done to, when that is somebody else than the owner of the mailbox: who was given or lost a permission, who
/// came into or left a group, whose account was changed. Escapes are unresolved.
pub(super) fn targets<'a>(shape: &Shape<'a>) -> Vec<&'a str> {
    let user = match shape {
        Shape::UserAccess { user, .. } | Shape::Account { user, .. } => user,
        Shape::Group { members, .. } => return members.clone(),
        Shape::Api { .. } | Shape::Email(_) | Shape::Authentication => return Vec::new(),
    };
    user.address.or(user.name).or(user.uid).map(Text::raw).into_iter().collect()
}

/// Whether a value is this number in its usual form, with or without quotes, so that the number says all that it said.
pub(super) fn says_number(value: Json<'_>, number: i64) -> bool {
    value.raw().trim_matches('"') == itoa::Buffer::new().format(number)
}

/// The client's name for itself.
pub(super) fn user_agent<'a>(reading: &Reading<'a>) -> Option<(Field, Text<'a>)> {
    let fields = [Field::ClientInfoString, Field::UserAgent];
    fields.into_iter().find_map(|field| Some((field, reading.record.text(field)?)))
}

/// The session that it was done in.
pub(super) fn session<'a>(reading: &Reading<'a>) -> Option<Text<'a>> {
    reading.record.text(Field::SessionId).or_else(|| reading.context?.session)
}

/// The name of what an admin's cmdlet was about: an address, else what the record resolved it to, else what it was called by.
pub(super) fn object_name<'a>(reading: &Reading<'a>) -> Option<Text<'a>> {
    let admin = reading.source == Source::ExchangeAdmin;
    let identity = reading.parameters.identity.filter(|_| admin);
    identity
        .filter(|identity| is_email(identity.raw()))
        .or_else(|| reading.record.text(Field::ModifiedObjectResolvedName))
        .or(identity)
        .or_else(|| reading.parameters.text("Name").filter(|_| admin))
        .or_else(|| reading.record.text(Field::ObjectId))
}

/// A message, or another item of a mailbox.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Message<'a> {
    pub(super) id: Option<Text<'a>>,
    pub(super) message_id: Option<Text<'a>>,
    pub(super) subject: Option<Text<'a>>,
    pub(super) attachments: Option<Text<'a>>,
    pub(super) size: Option<i64>,
    /// The path of the folder that it lies in.
    pub(super) folder: Option<Text<'a>>,
}

impl<'a> Message<'a> {
    fn read(item: &Item<'a>, folder: Option<Text<'a>>) -> Self {
        Self {
            id: item.id,
            message_id: item.message_id,
            subject: item.subject,
            attachments: item.attachments,
            size: item.size,
            folder: folder.or_else(|| item.parent?.path),
        }
    }

    /// Whether there is more to it than an id and a folder: an operation on a folder has the folder as its item.
    fn is_message(&self) -> bool {
        self.message_id.is_some() || self.subject.is_some() || self.attachments.is_some()
    }
}

/// Every message that a record names, from the four fields and three shapes in which records have them.
pub(super) fn messages<'a>(reading: &Reading<'a>) -> Vec<Message<'a>> {
    let mut all = Vec::new();
    all.extend(reading.all_items().map(|item| Message::read(item, None)));
    for (field, items) in [(Field::Folders, "FolderItems"), (Field::Messages, "MessageItems")] {
        for folder in reading.record.get(field).into_iter().flat_map(Json::each) {
            let (mut path, mut inside) = (None, None);
            for (name, value) in folder.entries() {
                match name.raw() {
                    "Path" => path = path.or_else(|| value.text().filter(|text| !text.is_empty())),
                    name if name == items => inside = inside.or(Some(value)),
                    _ => {}
                }
            }
            let items = inside.into_iter().flat_map(Item::each);
            all.extend(items.map(|item| Message::read(&item, path)));
        }
    }
    all.retain(Message::is_message);
    all
}

/// The paths of the folders that it was done to, each once after another.
pub(super) fn folders<'a>(reading: &Reading<'a>, messages: &[Message<'a>]) -> Vec<Text<'a>> {
    let path = |folder: Json<'a>| folder.get_text("Path");
    let fields = [Field::Folder, Field::DestFolder, Field::Folders];
    let own = fields
        .into_iter()
        .filter_map(|field| reading.record.get(field))
        .flat_map(Json::each)
        .filter_map(path);
    let parents = reading.all_items().filter_map(|item| item.parent?.path);
    let mut all: Vec<Text<'a>> =
        own.chain(parents).chain(messages.iter().filter_map(|message| message.folder)).collect();
    all.dedup_by(|one, other| one.json() == other.json());
    all
}
