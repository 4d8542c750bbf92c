//! Which class an event has: that of its operation, when the record holds what the class requires. An event that cannot fill
//! its class is an API Activity of the activity Update, which can always be filled.

use super::email::Email;
use crate::{
    ClassPolicy, RenderOptions,
    cmdlet::Noun,
    json::{Json, Text},
    operation::{Class, Source, api},
    reading::{Reading, is_email},
    record::Field,
};

/// What a class requires, beside what every class has.
#[derive(Debug)]
pub(crate) enum Shape<'a> {
    /// 6003
    Api { activity: u8 },
    /// 4009
    Email(Email<'a>),
    /// 3005
    UserAccess { activity: u8, user: Named<'a>, privileges: Json<'a> },
    /// 3006
    Group { activity: u8, group: Named<'a>, members: Vec<&'a str>, privileges: Option<Json<'a>> },
    /// 3001
    Account { activity: u8, user: Named<'a> },
    /// 3002
    Authentication,
}

/// Somebody or something with a name, an id, or both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) name: Option<Text<'a>>,
    pub(crate) uid: Option<Text<'a>>,
    /// An address of theirs, where another field than the name has it.
    pub(crate) address: Option<Text<'a>>,
    /// Whether `uid` is the record's `ObjectId`.
    pub(super) uid_is_object: bool,
}

impl<'a> Named<'a> {
    fn new(name: Option<Text<'a>>, uid: Option<Text<'a>>) -> Option<Self> {
        (name.is_some() || uid.is_some()).then_some(Self { name, uid, address: None, uid_is_object: false })
    }

    /// The object of an admin's cmdlet.
    fn object(reading: &Reading<'a>, names: &[&str]) -> Option<Self> {
        let name = names.iter().find_map(|name| reading.parameters.text(name));
        let named = Self::new(name, reading.record.text(Field::ObjectId))?;
        Some(Self { uid_is_object: named.uid.is_some(), ..named })
    }
}

impl<'a> Shape<'a> {
    pub(crate) fn choose(reading: &Reading<'a>, options: &'a RenderOptions) -> Self {
        if options.class_policy == ClassPolicy::ApiOnly {
            return Self::Api { activity: reading.meaning.api };
        }
        Self::of(reading, options)
    }

    /// The class of its own that an operation has.
    pub(crate) fn of(reading: &Reading<'a>, options: &'a RenderOptions) -> Self {
        let meaning = reading.meaning;
        let activity = meaning.kind.activity;
        let shape = match meaning.kind.class {
            Class::Api => Some(Self::Api { activity }),
            Class::Email => Email::read(reading, options).map(Self::Email),
            Class::UserAccess if reading.source == Source::ExchangeAdmin => granted(reading, activity),
            Class::UserAccess => shared_folder(reading, activity),
            Class::Group => group_changed(reading, activity),
            Class::Account => account_changed(reading, activity),
            Class::Authentication => {
                let somebody = [Field::UserId, Field::MailboxOwnerUpn, Field::UserKey];
                let known = somebody.into_iter().any(|field| reading.record.text(field).is_some());
                known.then_some(Self::Authentication)
            }
        };
        shape.unwrap_or(Self::Api { activity: api::UPDATE })
    }

    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Api { .. } => Class::Api,
            Self::Email(_) => Class::Email,
            Self::UserAccess { .. } => Class::UserAccess,
            Self::Group { .. } => Class::Group,
            Self::Account { .. } => Class::Account,
            Self::Authentication => Class::Authentication,
        }
    }

    pub(super) fn activity(&self) -> u8 {
        match self {
            Self::Api { activity }
            | Self::UserAccess { activity, .. }
            | Self::Group { activity, .. }
            | Self::Account { activity, .. } => *activity,
            Self::Email(_) | Self::Authentication => 1,
        }
    }

    /// The activity as it stands in the event, and the class with it.
    pub(super) fn named_activity(&self) -> &'static Activity {
        let (activities, number) = (self.class().activities(), self.activity());
        activities.iter().find(|activity| activity.number == number).unwrap_or(&activities[0])
    }
}

/// What the schema says of a class.
pub(crate) struct ClassNames {
    pub(crate) uid: u32,
    pub(crate) name: &'static str,
    pub(crate) category_uid: u32,
    pub(crate) category_name: &'static str,
}

/// An activity of a class.
pub(crate) struct Activity {
    pub(crate) number: u8,
    pub(crate) caption: &'static str,
    pub(super) captioned: Written,
    pub(super) bare: Written,
}

/// What the class and the activity are, as an event has it, each piece with a comma at its end.
pub(super) struct Written {
    /// Class and category, and the activity's number.
    pub(super) uids: &'static str,
    /// The activity's name, for which another may stand there.
    pub(super) name: &'static str,
    /// The type.
    pub(super) kind: &'static str,
}

/// The activities of a class, each of them written out.
macro_rules! activities {
    ($uid:literal $name:literal in $category:literal $category_name:literal: $($number:tt $caption:literal),*) => {
        &[$(Activity {
            number: $number,
            caption: $caption,
            captioned: Written {
                uids: concat!(
                    "\"class_uid\":", $uid, ",\"class_name\":\"", $name, "\",\"category_uid\":", $category,
                    ",\"category_name\":\"", $category_name, "\",\"activity_id\":", $number, ","
                ),
                name: concat!("\"activity_name\":\"", $caption, "\","),
                kind: concat!(
                    "\"type_uid\":", $uid, two_digits!($number), ",\"type_name\":\"", $name, ": ", $caption, "\","
                ),
            },
            bare: Written {
                uids: concat!(
                    "\"class_uid\":", $uid, ",\"category_uid\":", $category, ",\"activity_id\":", $number, ","
                ),
                name: "",
                kind: concat!("\"type_uid\":", $uid, two_digits!($number), ","),
            },
        }),*]
    };
}

/// An activity's number as the end of a type's.
macro_rules! two_digits {
    (99) => {
        "99"
    };
    ($digit:tt) => {
        concat!("0", $digit)
    };
}

impl Class {
    /// Every class that events have.
    pub(crate) const ALL: [Self; 6] =
        [Self::Api, Self::Email, Self::UserAccess, Self::Group, Self::Account, Self::Authentication];

    pub(crate) fn names(self) -> &'static ClassNames {
        const fn names(
            uid: u32,
            name: &'static str,
            category_uid: u32,
            category_name: &'static str,
        ) -> ClassNames {
            ClassNames { uid, name, category_uid, category_name }
        }
        const IAM: &str = "Identity & Access Management";
        const API: ClassNames = names(6003, "API Activity", 6, "Application Activity");
        const EMAIL: ClassNames = names(4009, "Email Activity", 4, "Network Activity");
        const ACCESS: ClassNames = names(3005, "User Access Management", 3, IAM);
        const GROUP: ClassNames = names(3006, "Group Management", 3, IAM);
        const ACCOUNT: ClassNames = names(3001, "Account Change", 3, IAM);
        const LOGON: ClassNames = names(3002, "Authentication", 3, IAM);
        match self {
            Self::Api => &API,
            Self::Email => &EMAIL,
            Self::UserAccess => &ACCESS,
            Self::Group => &GROUP,
            Self::Account => &ACCOUNT,
            Self::Authentication => &LOGON,
        }
    }

    /// The activities that events of the class have.
    pub(crate) fn activities(self) -> &'static [Activity] {
        const API: &[Activity] = activities!(6003 "API Activity" in 6 "Application Activity":
            0 "Unknown", 1 "Create", 2 "Read", 3 "Update", 4 "Delete", 99 "Other");
        const EMAIL: &[Activity] = activities!(4009 "Email Activity" in 4 "Network Activity": 1 "Send");
        const ACCESS: &[Activity] = activities!(3005 "User Access Management" in 3 "Identity & Access Management":
            1 "Assign Privileges", 2 "Revoke Privileges");
        const GROUP: &[Activity] = activities!(3006 "Group Management" in 3 "Identity & Access Management":
            1 "Assign Privileges", 2 "Revoke Privileges", 3 "Add User", 4 "Remove User", 5 "Delete", 6 "Create");
        const ACCOUNT: &[Activity] = activities!(3001 "Account Change" in 3 "Identity & Access Management":
            1 "Create", 2 "Enable", 5 "Disable", 6 "Delete");
        const LOGON: &[Activity] =
            activities!(3002 "Authentication" in 3 "Identity & Access Management": 1 "Logon");
        match self {
            Self::Api => API,
            Self::Email => EMAIL,
            Self::UserAccess => ACCESS,
            Self::Group => GROUP,
            Self::Account => ACCOUNT,
            Self::Authentication => LOGON,
        }
    }

    /// Whether the class has `resources`.
    pub(super) fn has_resources(self) -> bool {
        matches!(self, Self::Api | Self::UserAccess)
    }

    /// Whether the class has `dst_endpoint`.
    pub(super) fn has_destination(self) -> bool {
        matches!(self, Self::Api | Self::Email | Self::Authentication)
    }

    /// Whether the class has `http_request`.
    pub(super) fn has_http_request(self) -> bool {
        self != Self::Email
    }
}

/// The first text of a value that is a text or a list of texts.
fn first_text(value: Json<'_>) -> Option<Text<'_>> {
    value.each().filter_map(Json::text).find(|text| !text.is_empty())
}

/// The rights in a text, `ReadAny, Create`, or in a list, their escapes unresolved.
pub(crate) fn privileges(value: Json<'_>) -> impl Iterator<Item = &str> {
    let texts = value.each().filter_map(Json::text);
    texts.flat_map(|text| text.raw().split(',')).map(str::trim).filter(|right| !right.is_empty())
}

/// A permission or role that an admin gave or took.
fn granted<'a>(reading: &Reading<'a>, activity: u8) -> Option<Shape<'a>> {
    let parameters = &reading.parameters;
    let text = |name| parameters.get(name).and_then(first_text);
    if reading.cmdlet.is_some_and(|cmdlet| cmdlet.noun == Noun::ManagementRoleAssignment) {
        let role = parameters.get("Role").filter(|role| privileges(*role).next().is_some());
        if let (Some(user), Some(privileges)) = (text("User"), role) {
            let user = Named::new(Some(user), None)?;
            return Some(Shape::UserAccess { activity, user, privileges });
        }
        if let Some(group) = text("SecurityGroup") {
            let group = Named::new(Some(group), None)?;
            return Some(Shape::Group { activity, group, members: Vec::new(), privileges: role });
        }
        return Some(Shape::Api { activity: reading.meaning.api });
    }
    let user = Named::new(Some(text("User").or_else(|| text("Trustee"))?), None)?;
    let privileges_value = parameters.get("AccessRights")?;
    privileges(privileges_value).next()?;
    Some(Shape::UserAccess { activity, user, privileges: privileges_value })
}

/// A permission on a folder, as the mailbox records it.
fn shared_folder<'a>(reading: &Reading<'a>, activity: u8) -> Option<Shape<'a>> {
    let folder = reading.folder_member()?;
    let user = Named::new(folder.member_upn, folder.member_sid)?;
    let rights = folder.member_rights?;
    privileges(rights).next()?;
    Some(Shape::UserAccess { activity, user, privileges: rights })
}

fn group_changed<'a>(reading: &Reading<'a>, activity: u8) -> Option<Shape<'a>> {
    let group = Named::object(reading, &["Identity", "Name", "DisplayName"])?;
    Some(Shape::Group { activity, group, members: group_members(reading), privileges: None })
}

/// Who came into a group or left it, by an admin's cmdlet; their escapes are unresolved.
pub(super) fn group_members<'a>(reading: &Reading<'a>) -> Vec<&'a str> {
    if reading.meaning.kind.class != Class::Group {
        return Vec::new();
    }
    let value = ["Member", "Members", "Links"].into_iter().find_map(|name| reading.parameters.get(name));
    value.map(members).unwrap_or_default()
}

/// The members in a value: a list of texts, or a text with `;` between them. At a comma it is cut only where that leaves
/// nothing but addresses, because names in a directory have commas.
fn members(value: Json<'_>) -> Vec<&str> {
    let texts = value.each().filter_map(Json::text);
    let mut all: Vec<&str> = texts.flat_map(|text| text.raw().split(';')).map(str::trim).collect();
    let pieces = || all.iter().flat_map(|member| member.split(',')).map(str::trim);
    if pieces().all(is_email) {
        all = pieces().collect();
    }
    all.retain(|member| !member.is_empty());
    all
}

fn account_changed<'a>(reading: &Reading<'a>, activity: u8) -> Option<Shape<'a>> {
    let named = ["Identity", "Name", "UserPrincipalName", "MicrosoftOnlineServicesID", "DisplayName"];
    let user = Named::object(reading, &named)?;
    let addresses = ["PrimarySmtpAddress", "MicrosoftOnlineServicesID", "UserPrincipalName", "WindowsLiveID"];
    let address = addresses.into_iter().filter_map(|name| reading.parameters.text(name));
    let address = address.into_iter().find(|address| is_email(address.raw()));
    Some(Shape::Account { activity, user: Named { address, ..user } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::scan::scan_value;

    #[test]
    fn members_are_told_apart() {
        for (json, expected) in [
            (r#""a@b.c""#, &["a@b.c"][..]),
            (r#""a@b.c;d@e.f; ""#, &["a@b.c", "d@e.f"]),
            (r#""a@b.c, d@e.f""#, &["a@b.c", "d@e.f"]),
            (r#"["Joni Sherman","x;y"]"#, &["Joni Sherman", "x", "y"]),
            (r#""CN=Joni,OU=Users;CN=Bob,OU=Users""#, &["CN=Joni,OU=Users", "CN=Bob,OU=Users"]),
            (r#""Sherman, Joni""#, &["Sherman, Joni"]),
            ("\"\"", &[]),
            ("null", &[]),
        ] {
            assert_eq!(members(scan_value(json).unwrap()), expected, "{json}");
        }
    }
}
