//! The objects inside of a record that rules know: items, the folders that they lie in, and `AppAccessContext`. Each is
//! read in one walk.

use crate::json::{Json, Text};

/// A message or another item, or a folder that the record has as an item. The first field of a name that holds something
/// counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'a> {
    pub(crate) json: Json<'a>,
    pub(crate) id: Option<Text<'a>>,
    pub(crate) message_id: Option<Text<'a>>,
    pub(crate) subject: Option<Text<'a>>,
    pub(crate) attachments: Option<Text<'a>>,
    pub(crate) size: Option<i64>,
    pub(crate) parent: Option<Folder<'a>>,
    /// Whether it has more than an id, a message id and a subject.
    pub(crate) has_more: bool,
}

impl<'a> Item<'a> {
    /// The items in a value: the elements of a list, or the value itself.
    pub(crate) fn each(value: Json<'a>) -> impl Iterator<Item = Self> {
        let mut items = value.each();
        std::iter::from_fn(move || {
            let mut item = Self::empty(value);
            item.json = items.next_with(|(name, value)| item.take(name, value))?;
            Some(item)
        })
    }

    fn empty(json: Json<'a>) -> Self {
        Self {
            json,
            id: None,
            message_id: None,
            subject: None,
            attachments: None,
            size: None,
            parent: None,
            has_more: false,
        }
    }

    fn take(&mut self, name: Text<'a>, value: Json<'a>) {
        let place = match name.bytes() {
            b"Id" => &mut self.id,
            b"InternetMessageId" => &mut self.message_id,
            b"Subject" => &mut self.subject,
            other => {
                self.has_more = true;
                match other {
                    b"Attachments" => self.attachments = self.attachments.or_else(|| value.filled_text()),
                    b"SizeInBytes" => self.size = self.size.or_else(|| value.int()),
                    b"ParentFolder" => self.parent = self.parent.or_else(|| Some(Folder::read(value))),
                    _ => {}
                }
                return;
            }
        };
        match value.filled_text() {
            Some(text) if place.is_none() => *place = Some(text),
            _ => self.has_more = true,
        }
    }
}

/// A folder, and for an operation on its permissions, whom it is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folder<'a> {
    pub(crate) id: Option<Text<'a>>,
    pub(crate) path: Option<Text<'a>>,
    pub(crate) member_upn: Option<Text<'a>>,
    pub(crate) member_sid: Option<Text<'a>>,
    pub(crate) member_rights: Option<Json<'a>>,
}

impl<'a> Folder<'a> {
    pub(crate) fn read(json: Json<'a>) -> Self {
        let names = ["Id", "Path", "MemberUpn", "MemberSid", "MemberRights"];
        let [id, path, member_upn, member_sid, member_rights] = json.get_all(names);
        let text = |value: Option<Json<'a>>| value.and_then(Json::filled_text);
        Self {
            id: text(id),
            path: text(path),
            member_upn: text(member_upn),
            member_sid: text(member_sid),
            member_rights,
        }
    }
}

/// `AppAccessContext`: through which application and with which token it was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) json: Json<'a>,
    pub(crate) session: Option<Text<'a>>,
    pub(crate) api: Option<Text<'a>>,
    pub(crate) app: Option<Text<'a>>,
    pub(crate) app_name: Option<Text<'a>>,
    pub(crate) correlation: Option<Text<'a>>,
    pub(crate) token: Option<Text<'a>>,
    pub(crate) issued: Option<Text<'a>>,
}

impl<'a> Context<'a> {
    pub(crate) fn read(json: Json<'a>) -> Self {
        let fields = json.get_all([
            "AADSessionId",
            "APIId",
            "ClientAppId",
            "ClientAppName",
            "CorrelationId",
            "UniqueTokenId",
            "IssuedAtTime",
        ]);
        let [session, api, app, app_name, correlation, token, issued] =
            fields.map(|value| value.and_then(Json::filled_text));
        Self { json, session, api, app, app_name, correlation, token, issued }
    }
}
