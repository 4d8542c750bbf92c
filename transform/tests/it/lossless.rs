//! Every leaf of a record is found again in its event.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value;
use transform::{ClassPolicy, OcsfVersion, RenderOptions};

use crate::records::{all, event, ours};

/// Every value without parts, as text; empty containers count as one.
fn leaves(value: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                leaves(value, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                leaves(item, path, found);
            }
        }
        _ if path.is_empty() => {}
        _ => found.push((path.to_owned(), value.to_string())),
    }
}

/// Every name of a field.
fn names<'v>(value: &'v Value, found: &mut HashSet<&'v str>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            found.insert(name);
            names(value, found);
        }),
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

/// The leaves of a record that are not in its event. Only these may look different there: a number that was a string and the
/// other way round, the name of a parameter that became the name of a field, an address with its port, a server with its
/// build or without the line break behind it, and the time at which a token was issued.
pub(crate) fn lost(record: &Value, event: &Value) -> Vec<String> {
    let (mut wanted, mut there) = (Vec::new(), Vec::new());
    leaves(record, "", &mut wanted);
    leaves(event, "", &mut there);
    let mut named = HashSet::new();
    names(event, &mut named);
    let there: HashSet<String> = there.into_iter().map(|(_, leaf)| leaf).collect();
    let has = |leaf: &str| there.contains(leaf);
    let has_text = |text: &str| has(&Value::from(text).to_string());
    wanted
        .into_iter()
        .filter(|(path, leaf)| {
            let text = serde_json::from_str::<String>(leaf).unwrap_or_else(|_| leaf.clone());
            let number = |text: &str| text.parse::<f64>().is_ok_and(|n| has(text) || has(&format!("{n}")));
            let split = match path.as_str() {
                "/Parameters/Name" | "/OperationProperties/Name" => named.contains(text.as_str()),
                "/ClientIP" | "/ClientIPAddress" | "/ActorIpAddress" | "/ActorIP" => text
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| has_text(host.trim_matches(['[', ']'])) && has(port)),
                "/OriginatingServer" => {
                    let server = text.trim_end_matches(['\r', '\n', ' ']);
                    let taken_apart = server.strip_suffix(')').and_then(|server| server.split_once(" ("));
                    has_text(server)
                        || taken_apart.is_some_and(|(host, build)| has_text(host) && has_text(build))
                }
                "/AppAccessContext/IssuedAtTime" => schemas::time::parse_utc(&text)
                    .is_some_and(|time| has(&time.timestamp_millis().to_string())),
                _ => false,
            };
            !(has(leaf) || has_text(&text) || number(&text) || split)
        })
        .map(|(path, leaf)| format!("{path} {leaf}"))
        .collect()
}

fn all_options() -> Vec<RenderOptions> {
    let plain = RenderOptions { observables: false, captions: false, ..RenderOptions::default() };
    let policies = [ClassPolicy::Rich, ClassPolicy::ApiOnly];
    policies
        .into_iter()
        .flat_map(|class_policy| {
            let plain = plain.clone();
            OcsfVersion::ALL.map(|ocsf_version| RenderOptions { class_policy, ocsf_version, ..plain.clone() })
        })
        .collect()
}

#[test]
fn nothing_of_a_record_is_lost() {
    let ours = ours().len();
    for (index, text) in all().into_iter().enumerate() {
        let record: Value = serde_json::from_str(&text).unwrap();
        // Real records, which are many and much alike, take turns at the options.
        let turn = |n: usize| index < ours || n == index % 8;
        for (_, options) in all_options().into_iter().enumerate().filter(|(n, _)| turn(*n)) {
            let event = event(text.as_bytes(), &options);
            assert_eq!(lost(&record, &event), [""; 0], "{options:?}\n{text}\n{event}");
        }
    }
}

/// A record with every text made unlike any other, but for those that say what the record is.
pub(crate) fn unlike_parts(text: &str) -> Value {
    let mut record: Value = serde_json::from_str(text).unwrap();
    unlike(&mut record, "", &mut 0);
    record
}

fn unlike(value: &mut Value, path: &str, count: &mut usize) {
    match value {
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, value)| unlike(value, &format!("{path}/{name}"), count));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| unlike(item, path, count)),
        Value::String(text) => {
            let fixed = [
                "/Operation",
                "/Workload",
                "/RecordType",
                "/UserType",
                "/CreationTime",
                "/ResultStatus",
                "/Parameters/Name",
                "/OperationProperties/Name",
                "/AppAccessContext/IssuedAtTime",
            ];
            if !fixed.contains(&path) && !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) {
                *count += 1;
                text.insert_str(0, &format!("u{count}."));
            }
        }
        _ => {}
    }
}

/// Real records repeat themselves: the actor is the owner, and one address stands in three fields. Here every text is made
/// unlike any other, so that none can stand in for another.
#[test]
fn nothing_of_a_record_of_unlike_parts_is_lost() {
    let ours = ours().len();
    for (index, text) in all().into_iter().enumerate() {
        let record = unlike_parts(&text);
        let turn = |n: usize| index < ours || n == index % 8;
        for (_, options) in all_options().into_iter().enumerate().filter(|(n, _)| turn(*n)) {
            let event = event(record.to_string().as_bytes(), &options);
            assert_eq!(lost(&record, &event), [""; 0], "{options:?}\n{record}\n{event}");
        }
    }
}

/// Unknown fields keep their names and their values.
#[test]
fn unknown_fields_stay_as_they_are() {
    let text = r#"{"Workload":"Exchange","New":{"a":[1.50,"x\u00e9",{}]},"exchange":{"x":1},"record.y":2,"mailtrail":3,"Twice":1,"Twice":[2]}"#;
    let event = event(text.as_bytes(), &RenderOptions::default());
    let unmapped = &event["unmapped"];
    assert_eq!(unmapped["New"], serde_json::json!({"a": [1.50, "xé", {}]}));
    assert_eq!(unmapped["record.exchange"], serde_json::json!({"x": 1}));
    assert_eq!(unmapped["record.record.y"], 2);
    assert_eq!(unmapped["record.mailtrail"], 3);
    assert_eq!(unmapped["Twice"], serde_json::json!([1, [2]]));
    assert_eq!(unmapped["mailtrail"]["time_source"], "content_id");
}

/// Names that the mapping knows, and one that it does not.
const NAMES: &[&str] = &[
    "Id",
    "RecordType",
    "CreationTime",
    "Operation",
    "OrganizationId",
    "OrganizationName",
    "UserType",
    "UserKey",
    "Workload",
    "ResultStatus",
    "ObjectId",
    "UserId",
    "ClientIP",
    "ClientIPAddress",
    "ActorIpAddress",
    "ActorIP",
    "AppAccessContext",
    "Version",
    "ModifiedObjectResolvedName",
    "Parameters",
    "OperationProperties",
    "ModifiedProperties",
    "ExternalAccess",
    "OriginatingServer",
    "DeviceId",
    "TokenObjectId",
    "TokenTenantId",
    "TokenType",
    "AuthType",
    "AppId",
    "APIId",
    "ClientAppId",
    "HostAppId",
    "SessionId",
    "LogonType",
    "InternalLogonType",
    "MailboxGuid",
    "MailboxOwnerUPN",
    "MailboxOwnerSid",
    "MailboxOwnerMasterAccountSid",
    "DestMailboxId",
    "DestMailboxOwnerUPN",
    "DestMailboxOwnerSid",
    "DestMailboxOwnerMasterAccountSid",
    "CrossMailboxOperation",
    "CrossMailboxOperations",
    "LogonUserSid",
    "LogonUserDisplayName",
    "ClientInfoString",
    "ClientMachineName",
    "ClientProcessName",
    "ClientVersion",
    "ClientRequestId",
    "RequestId",
    "ActorInfoString",
    "recipientCount",
    "RecipientCount",
    "recipientList",
    "RecipientList",
    "SaveToSentItems",
    "SendAsUserSmtp",
    "SendAsUserSmpt",
    "SendAsUserMailboxGuid",
    "SendOnBehalfOfUserSmtp",
    "SendOnBehalfOfUserSmpt",
    "SendOnBehalfOfUserMailboxGuid",
    "OperationCount",
    "Folder",
    "DestFolder",
    "Folders",
    "Item",
    "AffectedItems",
    "Messages",
    "UserAgent",
    "CorrelationId",
    "ApplicationId",
    "ApplicationDisplayName",
    "ItemType",
    "Unknown",
    "exchange",
];

const INNER: &[&str] = &[
    "Id",
    "Name",
    "Value",
    "Path",
    "FolderItems",
    "MessageItems",
    "InternetMessageId",
    "Subject",
    "ParentFolder",
    "MemberUpn",
    "MemberSid",
    "MemberRights",
    "Address",
    "Attachments",
    "SizeInBytes",
    "ClientAppId",
    "APIId",
    "AADSessionId",
    "IssuedAtTime",
    "UniqueTokenId",
    "CorrelationId",
    "ClientAppName",
    "x",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-z]{6}[0-9]{6}",
        2 => "[a-z]{4}[0-9]{4}@[a-z]{5}\\.example",
        1 => "\\PC{0,12}",
        1 => prop::sample::select(vec![
            "", "::1", "10.1.2.3:55", "[2001:db8::1]:7", "2001:db8::9", "::ffff:1.2.3.4", "SRV01 (15.20.1.2)\r\n", "True",
            "2026-01-02T03:04:05", "2026-01-02T03:04:05.123Z", "x (1b); y (2b)", "-A \"b c\" -D", "[{\"Name\":\"A\",\"Value\":\"q\"}]",
            "@{Name=A; Value=b}", "5", "1.0", "Everyone", "ReadAny, Create", "NT AUTHORITY\\SYSTEM (w3wp)", "smtp:a@b.c;d@e.f",
        ])
        .prop_map(str::to_owned),
    ]
}

fn value(depth: u32) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        8 => word().prop_map(Value::from),
        2 => any::<i32>().prop_map(Value::from),
        1 => (-1e9..1e9f64).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    let name = prop::sample::select(INNER).prop_map(str::to_owned);
    prop_oneof![
        2 => leaf,
        1 => prop::collection::vec(value(depth - 1), 0..4).prop_map(Value::from),
        2 => prop::collection::hash_map(name, value(depth - 1), 0..5)
            .prop_map(|fields| Value::Object(fields.into_iter().collect())),
    ]
    .boxed()
}

fn operation() -> impl Strategy<Value = Value> {
    let mut known = transform::published::operations();
    // Those whose parameters are looked into, in any spelling, and one that nobody knows.
    let others = [
        "New-InboxRule",
        "set-InboxRule",
        "Set-Mailbox",
        "Set-TransportRule",
        "Set-OrganizationConfig",
        "Else",
    ];
    known.extend(others.map(str::to_owned));
    prop::sample::select(known).prop_map(Value::from)
}

/// Parameters that the mapping looks for, and one that it does not.
const PARAMETERS: &[&str] = &[
    "Identity",
    "User",
    "Trustee",
    "AccessRights",
    "Role",
    "SecurityGroup",
    "Member",
    "Links",
    "Name",
    "ForwardTo",
    "RedirectTo",
    "ForwardAsAttachmentTo",
    "ForwardingSmtpAddress",
    "DeliverToMailboxAndForward",
    "BlindCopyTo",
    "RedirectMessageTo",
    "DeleteMessage",
    "MoveToFolder",
    "MarkAsRead",
    "SubjectContainsWords",
    "From",
    "RuleActions",
    "RuleName",
    "MailAccessType",
    "IsThrottled",
    "AuditEnabled",
    "AuditOwner",
    "AuditLogAgeLimit",
    "PrimarySmtpAddress",
    "Else",
];

/// `Parameters` in each of the forms that it comes in: pairs, an object, a command line, pairs as text, on one line and on
/// several, printed objects.
fn parameters() -> impl Strategy<Value = Value> {
    let pairs = prop::collection::vec((prop::sample::select(PARAMETERS), value(1)), 0..6);
    (pairs, 0..6).prop_map(|(pairs, form)| {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let list = || -> Value {
            pairs.iter().map(|(name, value)| serde_json::json!({"Name": name, "Value": value})).collect()
        };
        match form {
            0 => list(),
            1 => pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            2 => {
                let words = pairs.iter().map(|(name, value)| format!("-{name} \"{}\"", plain(value)));
                words.collect::<Vec<_>>().join(" ").into()
            }
            3 => list().to_string().into(),
            4 => serde_json::to_string_pretty(&list()).unwrap().into(),
            _ => pairs
                .iter()
                .map(|(name, value)| format!("@{{Name={name}; Value={}}}", plain(value)))
                .collect(),
        }
    })
}

/// Any record, of known and unknown fields.
pub(crate) fn record() -> impl Strategy<Value = Value> {
    let field = (prop::sample::select(NAMES).prop_map(str::to_owned), value(3));
    let fields = prop::collection::vec(field, 0..25);
    let kind = prop::option::of((operation(), prop::sample::select(vec![1, 2, 3, 50, 15])));
    let field = prop::sample::select(vec!["Parameters", "OperationProperties"]);
    let parameters = prop::option::of((field, parameters()));
    (fields, parameters, kind).prop_map(|(fields, parameters, kind)| {
        let mut object: serde_json::Map<String, Value> = fields.into_iter().collect();
        object.extend(parameters.map(|(name, value)| (name.to_owned(), value)));
        if let Some((operation, record_type)) = kind {
            object.insert("Operation".into(), operation);
            object.insert("RecordType".into(), record_type.into());
        }
        Value::Object(object)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever stands in the fields, the event is valid and has every leaf.
    #[test]
    fn any_record_becomes_a_valid_event_with_all_that_was_in_it(record in record(), which in 0usize..8) {
        thread_local!(static CHECKS: Option<crate::checks::Checks> = crate::checks::Checks::load());
        let options = RenderOptions {
            observables: which % 2 == 0,
            captions: true,
            ..all_options()[which].clone()
        };
        let event = event(record.to_string().as_bytes(), &options);
        prop_assert_eq!(lost(&record, &event), [""; 0], "{}\n{}", record, event);
        let faults = CHECKS.with(|checks| checks.as_ref().map_or(Vec::new(), |checks| checks.faults(&event)));
        prop_assert_eq!(faults, [""; 0], "{}\n{}", record, event);
    }
}
