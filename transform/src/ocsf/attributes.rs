//! Which attributes the writer of this folder gives an event, class by class. The published JSON Schema is made from these
//! tables ([`crate::published`]), and a test holds them to the writer in both directions: no event has an attribute that is
//! not here, and every attribute that is here is in some event.

use schemas::ContentType;

use super::exchange::{LOGON_TYPES, USER_TYPES};
use crate::{OcsfVersion, operation::Class, tags};

/// What an attribute holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Text,
    /// An address as OCSF's type `email_t` has it.
    Email,
    /// An address of IPv4 or IPv6.
    Ip,
    DateTime,
    Integer,
    Bool,
    /// JSON of any shape.
    Json,
    /// An object with any names.
    AnyObject,
    /// One of these texts.
    Words(&'static [&'static str]),
    /// One of these texts, which another table has.
    WordsOf(fn() -> Vec<&'static str>),
    /// One of these numbers.
    Numbers(&'static [i64]),
    Object(&'static Object),
    /// A list with something in it.
    List(&'static Kind),
    /// A list that may be empty.
    MaybeEmptyList(&'static Kind),
}

/// One name, with what stands under it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attribute {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Whether it is always there when its object is.
    pub(crate) required: bool,
    /// What it says, where the name does not tell or OCSF does not say.
    pub(crate) about: &'static str,
}

/// The attributes of a kind of object.
#[derive(Debug)]
pub(crate) struct Object {
    /// What the kind is called in the published schema.
    pub(crate) name: &'static str,
    pub(crate) attributes: &'static [Attribute],
    /// Whether other names may stand there too.
    pub(crate) open: bool,
}

impl Attribute {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn about(self, about: &'static str) -> Self {
        Self { about, ..self }
    }
}

const fn of(name: &'static str, kind: Kind) -> Attribute {
    Attribute { name, kind, required: false, about: "" }
}

const fn text(name: &'static str) -> Attribute {
    of(name, Kind::Text)
}

const fn integer(name: &'static str) -> Attribute {
    of(name, Kind::Integer)
}

const fn truth(name: &'static str) -> Attribute {
    of(name, Kind::Bool)
}

const fn texts(name: &'static str) -> Attribute {
    of(name, Kind::List(&Kind::Text))
}

const fn word(name: &'static str, words: &'static [&'static str]) -> Attribute {
    of(name, Kind::Words(words))
}

const fn number(name: &'static str, numbers: &'static [i64]) -> Attribute {
    of(name, Kind::Numbers(numbers))
}

const fn object(name: &'static str, object: &'static Object) -> Attribute {
    of(name, Kind::Object(object))
}

const fn closed(name: &'static str, attributes: &'static [Attribute]) -> Object {
    Object { name, attributes, open: false }
}

/// What the events of a class have, beside what says which class it is: `class_uid`, `activity_id` and their like, which
/// [`Class::names`] and [`Class::activities`] have.
pub(crate) fn of_class(class: Class) -> Vec<Attribute> {
    let mut all = EVERY_CLASS.to_vec();
    if class.has_destination() {
        all.push(object("dst_endpoint", &DESTINATION));
    }
    if class.has_http_request() {
        all.push(object("http_request", &HTTP_REQUEST));
    }
    if class.has_resources() {
        all.push(of("resources", Kind::List(&Kind::Object(&RESOURCE))));
    }
    let own: &[Attribute] = match class {
        Class::Api => &[],
        Class::Email => &EMAIL_ACTIVITY,
        Class::UserAccess => &USER_ACCESS,
        Class::Group => &GROUP_MANAGEMENT,
        Class::Account => &ACCOUNT_CHANGE,
        Class::Authentication => &AUTHENTICATION,
    };
    all.extend(own);
    all
}

const EVERY_CLASS: [Attribute; 19] = [
    integer("time").required().about("milliseconds since 1970 in UTC"),
    of("time_dt", Kind::DateTime),
    number("severity_id", &[1]).required(),
    word("severity", &["Informational"]),
    number("status_id", &[0, 1, 2, 99]).required(),
    text("status").about("the record's own word where status_id is 99"),
    text("status_code").about("ResultStatus as the record has it"),
    object("metadata", &METADATA).required(),
    object("cloud", &CLOUD).required(),
    object("api", &API).required(),
    object("actor", &ACTOR).required(),
    object("src_endpoint", &SOURCE).required(),
    integer("count").about("how many operations the record stands for"),
    of("attacks", Kind::List(&Kind::Object(&ATTACK))),
    of("observables", Kind::List(&Kind::Object(&OBSERVABLE))),
    text("raw_data").about("the record's own bytes; only when the sink asks for them"),
    object("raw_data_hash", &HASH).about("only when the sink asks for it; since OCSF 1.6"),
    integer("raw_data_size").about("only with raw_data or raw_data_hash"),
    object("unmapped", &UNMAPPED),
];

const EMAIL_ACTIVITY: [Attribute; 3] = [
    number("direction_id", &[0, 2, 3]).required(),
    word("direction", &["Unknown", "Outbound", "Internal"]),
    object("email", &EMAIL).required(),
];

const USER_ACCESS: [Attribute; 2] = [object("user", &USER).required(), texts("privileges").required()];

const GROUP_MANAGEMENT: [Attribute; 3] =
    [object("group", &GROUP).required(), object("user", &USER), texts("privileges")];

const ACCOUNT_CHANGE: [Attribute; 1] = [object("user", &USER).required()];

const AUTHENTICATION: [Attribute; 2] =
    [object("user", &USER).required(), object("service", &SERVICE).required()];

const METADATA: Object = closed(
    "metadata",
    &[
        of("version", Kind::WordsOf(|| OcsfVersion::ALL.map(OcsfVersion::as_str).to_vec())).required(),
        object("product", &PRODUCT).required(),
        text("uid").required().about("the record's Id; its blob and its place there when it has none"),
        text("original_event_uid").about("the record's Id; since OCSF 1.7"),
        text("event_code").about("the name of the RecordType"),
        of("log_name", Kind::WordsOf(|| ContentType::ALL.map(ContentType::as_str).to_vec())).required(),
        word("log_provider", &["Office 365 Management Activity API"]).required(),
        text("original_time").about("CreationTime as the record has it"),
        text("tenant_uid").required(),
        text("log_version"),
        text("correlation_uid"),
        of("labels", Kind::List(&Kind::WordsOf(|| tags::ALL.iter().map(|tag| tag.name).collect())))
            .about("tags: what the record may be a sign of"),
        of("profiles", Kind::List(&Kind::Words(&["cloud", "datetime", "host", "security_control"])))
            .required(),
    ],
);

const PRODUCT: Object = closed(
    "product",
    &[
        word("name", &["Exchange Online", "Microsoft 365"]).required(),
        word("vendor_name", &["Microsoft"]).required(),
        object("feature", &FEATURE),
    ],
);

const FEATURE: Object = closed("feature", &[word("name", &["Admin Audit", "Mailbox Audit"]).required()]);

const CLOUD: Object = closed(
    "cloud",
    &[word("provider", &["Microsoft 365"]).required(), object("account", &CLOUD_ACCOUNT).required()],
);

const CLOUD_ACCOUNT: Object = closed(
    "cloud_account",
    &[
        text("uid").required(),
        text("name"),
        number("type_id", &[99]).required(),
        word("type", &["Microsoft 365 Tenant"]).required(),
    ],
);

const API: Object = closed(
    "api",
    &[
        text("operation").required().about("Operation as the record has it"),
        object("service", &SERVICE).about("the Workload"),
        object("request", &REQUEST),
        object("token", &TOKEN).about("since OCSF 1.8"),
    ],
);

const SERVICE: Object = closed("service", &[text("name").required()]);

const REQUEST: Object = closed(
    "request",
    &[
        text("uid").required(),
        of("data", Kind::AnyObject).about("Parameters and OperationProperties by their names"),
    ],
);

const TOKEN: Object = closed("token", &[text("uid"), integer("created_time")]);

const ACTOR: Object = closed(
    "actor",
    &[object("user", &ACTOR_USER).required(), object("session", &SESSION), text("app_uid"), text("app_name")],
);

const ACTOR_USER: Object = closed(
    "actor_user",
    &[
        text("name").required().about("UserId, or Unknown"),
        text("uid"),
        of("email_addr", Kind::Email),
        text("domain"),
        number("type_id", &[1, 2, 3, 4, 99]).about("4 since OCSF 1.6"),
        text("type"),
        text("uid_alt").about("UserKey"),
        object("account", &USER_ACCOUNT),
        object("org", &ORGANIZATION).about("the tenant that issued the token"),
    ],
);

const USER_ACCOUNT: Object = closed(
    "user_account",
    &[
        text("uid").required(),
        text("name"),
        number("type_id", &[6]).required(),
        word("type", &["Azure AD Account"]),
    ],
);

const ORGANIZATION: Object = closed("organization", &[text("uid").required()]);

const SESSION: Object = closed("session", &[text("uid").required(), text("uid_alt")]);

const SOURCE: Object = closed(
    "src_endpoint",
    &[
        of("ip", Kind::Ip),
        text("hostname"),
        integer("port"),
        word("svc_name", &["Exchange Online", "Microsoft 365"]).about("where the record has no address"),
        text("name"),
        text("uid"),
    ],
);

const DESTINATION: Object = closed(
    "dst_endpoint",
    &[word("svc_name", &["Exchange Online", "Microsoft 365"]).required(), text("hostname").required()],
);

const HTTP_REQUEST: Object = closed("http_request", &[text("user_agent").required()]);

const RESOURCE: Object = closed(
    "resource",
    &[
        text("type")
            .about("Mailbox, Folder or Email; the noun of a cmdlet; the ItemType of another workload"),
        number("role_id", &[1, 3, 4]).about("since OCSF 1.6"),
        word("role", &["Target", "Affected", "Related"]),
        text("uid"),
        text("uid_alt"),
        text("name"),
        text("namespace").about("the folder of a message"),
        object("owner", &OWNER),
        of("data", Kind::AnyObject),
    ],
);

const OWNER: Object = closed(
    "owner",
    &[text("uid").required(), text("name").required(), of("email_addr", Kind::Email), text("uid_alt")],
);

const USER: Object = closed("user", &[text("name"), text("uid").required(), of("email_addr", Kind::Email)]);

const GROUP: Object = closed("group", &[text("name"), text("uid")]);

const EMAIL: Object = closed(
    "email",
    &[
        of("from", Kind::Email),
        of("sender", Kind::Email).about("who sent on behalf of another; since OCSF 1.6"),
        of("to", Kind::List(&Kind::Email)),
        text("subject"),
        text("message_uid"),
        text("uid"),
        integer("size"),
        of("files", Kind::List(&Kind::Object(&FILE))),
    ],
);

const FILE: Object = closed(
    "file",
    &[
        text("name").required(),
        number("type_id", &[1]).required(),
        word("type", &["Regular File"]),
        integer("size").required(),
        text("ext"),
    ],
);

const ATTACK: Object =
    closed("attack", &[object("technique", &TECHNIQUE).required(), object("sub_technique", &SUB_TECHNIQUE)]);

const TECHNIQUE: Object = closed(
    "technique",
    &[
        of("uid", Kind::WordsOf(|| techniques().map(|technique| technique.uid).collect())).required(),
        of("name", Kind::WordsOf(|| techniques().map(|technique| technique.name).collect())).required(),
    ],
);

const SUB_TECHNIQUE: Object = closed(
    "sub_technique",
    &[
        of("uid", Kind::WordsOf(|| subs().map(|(uid, _)| uid).collect())).required(),
        of("name", Kind::WordsOf(|| subs().map(|(_, name)| name).collect())).required(),
    ],
);

fn techniques() -> impl Iterator<Item = &'static tags::Technique> {
    tags::ALL.iter().flat_map(|tag| tag.techniques)
}

fn subs() -> impl Iterator<Item = (&'static str, &'static str)> {
    techniques().filter_map(|technique| technique.sub)
}

const OBSERVABLE: Object = closed(
    "observable",
    &[
        text("name").required().about("the path where the value stands in the event"),
        number("type_id", &[2, 4, 5, 7, 42]).required(),
        word("type", &["IP Address", "User Name", "Email Address", "File Name", "Message UID"]),
        text("value").required(),
    ],
);

const HASH: Object = closed(
    "hash",
    &[number("algorithm_id", &[3]).required(), word("algorithm", &["SHA-256"]), text("value").required()],
);

/// `unmapped`, which holds the record's other fields under their own names.
const UNMAPPED: Object = Object {
    name: "unmapped",
    attributes: &[
        object("exchange", &EXCHANGE).about("the facts of Exchange, under the same path in every class"),
        object("mailtrail", &MADE_UP).about("what the record does not say"),
    ],
    open: true,
};

const MADE_UP: Object = closed(
    "mailtrail",
    &[word("time_source", &["content_id", "unknown"])
        .required()
        .about("where the time is from, if not from the record")],
);

const EXCHANGE: Object = closed(
    "exchange",
    &[
        integer("record_type_id"),
        text("record_type"),
        integer("logon_type_id"),
        word("logon_type", &LOGON_TYPES),
        integer("internal_logon_type_id"),
        integer("user_type_id"),
        word("user_type", &USER_TYPES),
        truth("external_access"),
        truth("is_owner").about("whether the actor owns the mailbox: by their SIDs, else by their addresses"),
        text("access_type").about("Bind: message by message; Sync: a folder at once"),
        truth("is_throttled").about("whether Exchange stopped to record what was read"),
        object("mailbox", &MAILBOX),
        object("dest_mailbox", &MAILBOX),
        truth("cross_mailbox"),
        of("dest_folder", Kind::Json),
        text("logon_user_sid"),
        text("logon_user_name"),
        text("client_info"),
        text("client_protocol").about("the first `Client=` of client_info"),
        text("client_process_name"),
        text("client_version"),
        text("actor_info"),
        text("app_id"),
        text("api_id"),
        text("host_app_id"),
        text("auth_type"),
        text("token_type"),
        text("server_build"),
        object("send_as", &REPRESENTED),
        object("send_on_behalf_of", &REPRESENTED),
        truth("save_to_sent_items"),
        integer("recipient_count"),
        of("item", Kind::Json).about("Item as the record has it; in Email Activity only"),
        of("modified_properties", Kind::Json),
        texts("members").about("who came into a group or left it"),
        object("inbox_rule", &INBOX_RULE),
        object("forwarding", &FORWARDING),
    ],
);

const MAILBOX: Object =
    closed("mailbox", &[text("uid"), text("owner_upn"), text("owner_sid"), text("owner_master_account_sid")]);

const REPRESENTED: Object = closed("represented", &[text("smtp"), text("mailbox_uid")]);

const INBOX_RULE: Object = closed(
    "inbox_rule",
    &[
        text("name"),
        texts("forward_to"),
        texts("redirect_to"),
        texts("forward_as_attachment_to"),
        truth("delete"),
        text("move_to_folder"),
        truth("mark_read"),
        truth("stop_processing"),
        object("conditions", &CONDITIONS),
    ],
);

const CONDITIONS: Object =
    closed("conditions", &[texts("subject"), texts("body"), texts("subject_or_body"), texts("from")]);

const FORWARDING: Object = closed(
    "forwarding",
    &[
        of("targets", Kind::MaybeEmptyList(&Kind::Text)).required(),
        of("external_targets", Kind::MaybeEmptyList(&Kind::Text))
            .required()
            .about("those of the targets whose domain is not the organisation's"),
        truth("keep_copy"),
    ],
);
