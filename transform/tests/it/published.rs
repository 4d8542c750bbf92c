//! The published schemas say what the code writes: the files are those that the code prints, every event is valid against
//! them, and they name nothing that no event has.
//!
//! `MAILTRAIL_UPDATE_SCHEMAS=1 cargo test -p transform --test it published` writes the files again.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use proptest::prelude::*;
use schemas::{ContentType, Rendered};
use serde_json::{Map, Value, json};
use transform::{
    ClassPolicy, Filter, OcsfVersion, Origin, RawData, RenderOptions, Renderer, View, published, tables,
};

use crate::{
    lossless::record,
    records::{all, event, origin},
};

fn file(view: View) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(published::path(view))
}

#[test]
fn the_files_are_those_that_the_code_prints() {
    let mut stale = Vec::new();
    for view in View::ALL {
        let schema = published::json_schema(view);
        if std::env::var_os("MAILTRAIL_UPDATE_SCHEMAS").is_some() {
            std::fs::create_dir_all(file(view).parent().unwrap()).unwrap();
            std::fs::write(file(view), serde_json::to_string_pretty(&schema).unwrap() + "\n").unwrap();
            continue;
        }
        let text = std::fs::read_to_string(file(view)).unwrap_or_default();
        if serde_json::from_str::<Value>(&text).ok().as_ref() != Some(&schema) {
            stale.push(published::path(view));
        }
    }
    assert_eq!(
        stale, [""; 0],
        "not what the code prints; read docs/SCHEMA.md, \"Published schemas\", and write them again with \
         MAILTRAIL_UPDATE_SCHEMAS=1 cargo test -p transform --test it published"
    );
}

#[test]
fn the_schemas_are_schemas_and_their_ids_are_their_own() {
    let mut ids = BTreeSet::new();
    for view in View::ALL {
        let schema = published::json_schema(view);
        assert!(jsonschema::meta::is_valid(&schema), "{view}");
        ids.insert(schema["$id"].as_str().unwrap().to_owned());
        assert!(published::path(view).contains(&format!("/v{}/", published::VERSION)));
    }
    assert_eq!(ids.len(), View::ALL.len());
}

/// The schemas, ready to judge events.
pub(crate) struct Published(HashMap<View, (Value, jsonschema::Validator)>);

impl Published {
    pub(crate) fn new() -> Self {
        let ready = View::ALL.map(|view| {
            let schema = published::json_schema(view);
            let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
            (view, (schema, validator))
        });
        Self(ready.into_iter().collect())
    }

    /// Everything that is wrong with an event.
    pub(crate) fn faults(&self, view: View, record: &Value, event: &Value) -> Vec<String> {
        let native = tables(view).iter().any(|table| table.native == Some(""));
        // Where a record's own fields come first, one that is called like a column may hold anything.
        let own = |path: &str| {
            native && record.get(path.split('/').nth(1).unwrap_or("")).is_some_and(|_| !path.is_empty())
        };
        let errors = self.0[&view].1.iter_errors(event);
        errors
            .map(|error| (error.instance_path().to_string(), error))
            .filter(|(path, _)| !own(path))
            .map(|(path, error)| format!("{view} {path}: {error}"))
            .collect()
    }
}

/// What a schema names: every attribute, and every value of an enumeration.
fn named(schema: &Value, place: &str, found: &mut BTreeSet<String>) {
    for (name, inner) in schema.as_object().into_iter().flatten() {
        let place = format!("{place}/{name}");
        match name.as_str() {
            "properties" => {
                for (name, inner) in inner.as_object().into_iter().flatten() {
                    found.insert(format!("{place}/{name}"));
                    named(inner, &format!("{place}/{name}"), found);
                }
            }
            "enum" => {
                found.extend(inner.as_array().into_iter().flatten().map(|value| format!("{place}/{value}")));
            }
            "$defs" => {
                for (name, inner) in inner.as_object().into_iter().flatten() {
                    named(inner, &format!("{place}/{name}"), found);
                }
            }
            "items" => named(inner, &place, found),
            "anyOf" => {
                for (index, inner) in inner.as_array().into_iter().flatten().enumerate() {
                    named(inner, &format!("{place}/{index}"), found);
                }
            }
            _ => {}
        }
    }
}

/// Takes out of `left` what an event has of that which [`named`] found.
fn cross_out(root: &Value, schema: &Value, place: &str, value: &Value, left: &mut BTreeSet<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        let schema = root.pointer(target.trim_start_matches('#')).unwrap();
        return cross_out(root, schema, target.trim_start_matches('#'), value, left);
    }
    if schema.get("enum").is_some() {
        left.remove(&format!("{place}/enum/{value}"));
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let place = format!("{place}/properties/{name}");
        if let Some(schema) = schema["properties"].get(name) {
            left.remove(&place);
            cross_out(root, schema, &place, inner, left);
        }
    }
    for item in value.as_array().into_iter().flatten().filter(|_| schema.get("items").is_some()) {
        cross_out(root, &schema["items"], &format!("{place}/items"), item, left);
    }
    for choice in schema["allOf"].as_array().into_iter().flatten() {
        let mut wanted = choice["if"]["properties"].as_object().unwrap().iter();
        if wanted.all(|(name, is)| value.get(name) == is.get("const")) {
            cross_out(root, &choice["then"], place, value, left);
        }
    }
}

/// The ways of writing an OCSF event that differ in which attributes there are.
fn ways(view: View) -> Vec<RenderOptions> {
    let plain = RenderOptions { view, ..RenderOptions::default() };
    if view != View::Ocsf {
        return vec![plain];
    }
    let bare = RenderOptions { captions: false, observables: false, tags: false, ..plain.clone() };
    vec![
        RenderOptions { raw_data: RawData::Full, ..plain.clone() },
        RenderOptions { raw_data: RawData::Hash, ocsf_version: OcsfVersion::V1_7, ..plain.clone() },
        RenderOptions { class_policy: ClassPolicy::ApiOnly, ocsf_version: OcsfVersion::V1_6, ..plain },
        RenderOptions { raw_data: RawData::Full, ocsf_version: OcsfVersion::V1_5, ..bare },
    ]
}

/// Records that have every field which the mapping knows, and every number that has a name, in every class. They are the
/// only ones with some of them, since nobody's tenant has them all.
fn full() -> Vec<String> {
    let object = |value: Value| match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let every = r#"{
        "Id": "5d0f0b6e-0000-4000-8000-000000000001", "CreationTime": "2026-06-01T10:02:33", "Version": 1,
        "OrganizationId": "11111111-2222-3333-4444-555555555555", "OrganizationName": "contoso.onmicrosoft.com",
        "UserId": "joni@contoso.com", "UserKey": "1003", "ResultStatus": "Succeeded", "Workload": "Exchange",
        "ObjectId": "object-1", "ModifiedObjectResolvedName": "Object One", "ItemType": "File",
        "ClientIPAddress": "203.0.113.7:4711", "ClientMachineName": "PC-7", "DeviceId": "device-7",
        "ClientProcessName": "OUTLOOK.EXE", "ClientVersion": "16.0", "ClientInfoString": "Client=OWA;Action=ViaProxy",
        "OriginatingServer": "SRV01 (15.20.1.2)\r\n", "ClientRequestId": "request-1", "OperationCount": 3,
        "SessionId": "session-1", "TokenObjectId": "token-object-1", "TokenTenantId": "tenant-2", "TokenType": "Bearer",
        "AuthType": "OAuth", "AppId": "app-1", "ClientAppId": "app-2", "HostAppId": "app-3", "ActorInfoString": "Client=OWA",
        "AppAccessContext": {"AADSessionId": "session-2", "APIId": "api-1", "ClientAppName": "Outlook", "UniqueTokenId": "t",
            "CorrelationId": "c", "IssuedAtTime": "2026-06-01T09:00:00"},
        "ExternalAccess": false, "CrossMailboxOperation": true, "LogonUserSid": "S-1-5-21-1", "LogonUserDisplayName": "Joni",
        "MailboxGuid": "mailbox-1", "MailboxOwnerUPN": "cfo@contoso.com", "MailboxOwnerSid": "S-1-5-21-2",
        "MailboxOwnerMasterAccountSid": "S-1-5-21-3", "DestMailboxId": "mailbox-2", "DestMailboxOwnerUPN": "ceo@contoso.com",
        "DestMailboxOwnerSid": "S-1-5-21-4", "DestMailboxOwnerMasterAccountSid": "S-1-5-21-5",
        "SendAsUserSmtp": "cfo@contoso.com", "SendAsUserMailboxGuid": "mailbox-3",
        "SendOnBehalfOfUserSmtp": "ceo@contoso.com", "SendOnBehalfOfUserMailboxGuid": "mailbox-4", "SaveToSentItems": true,
        "recipientCount": 1, "recipientList": ["eve@evil.example"], "ModifiedProperties": [{"Name": "a", "NewValue": "b"}],
        "Folder": {"Id": "f1", "Path": "\\Inbox"}, "DestFolder": {"Id": "f2", "Path": "\\Sent Items"},
        "Item": {"Id": "i1", "Subject": "Hello", "InternetMessageId": "<1@contoso.com>", "SizeInBytes": 5,
            "Attachments": "a (1).pdf (20480b)", "ParentFolder": {"Id": "f1", "Path": "\\Inbox", "MemberUpn": "eve@contoso.com",
            "MemberRights": "ReadAny, Create"}},
        "Parameters": [{"Name": "Identity", "Value": "cfo@contoso.com"}, {"Name": "User", "Value": "eve@contoso.com"},
            {"Name": "AccessRights", "Value": "FullAccess"}, {"Name": "Role", "Value": "ApplicationImpersonation"},
            {"Name": "Member", "Value": "eve@contoso.com"}],
        "OperationProperties": [{"Name": "MailAccessType", "Value": "Bind"}, {"Name": "IsThrottled", "Value": "True"}]
    }"#;
    let every = object(serde_json::from_str(every).unwrap());
    let with = |changes: Value| {
        let mut record = every.clone();
        record.extend(object(changes));
        Value::Object(record).to_string()
    };
    let mut records = Vec::new();
    // One of each class and activity.
    for (record_type, operation) in [
        (2, "MailItemsAccessed"),
        (2, "Send"),
        (2, "SendOnBehalf"),
        (2, "ModifyFolderPermissions"),
        (2, "RemoveFolderPermissions"),
        (2, "MailboxLogin"),
        (1, "Add-RoleGroupMember"),
        (1, "Remove-RoleGroupMember"),
        (1, "New-RoleGroup"),
        (1, "Remove-RoleGroup"),
        (1, "New-Mailbox"),
        (1, "Enable-Mailbox"),
        (1, "Disable-Mailbox"),
        (1, "Remove-Mailbox"),
        (1, "Set-MailboxAuditBypassAssociation"),
    ] {
        records.push(with(json!({"RecordType": record_type, "Operation": operation})));
        for status in [json!("Failed"), json!("PartiallySucceeded"), json!(null)] {
            let changes = json!({"RecordType": record_type, "Operation": operation, "ResultStatus": status});
            records.push(with(changes));
        }
    }
    // What is tagged in classes where few things are.
    let mailbox = json!([{"Name": "Name", "Value": "x"}, {"Name": "GrantSendOnBehalfTo", "Value": "eve"}]);
    records.push(with(json!({"RecordType": 1, "Operation": "New-Mailbox", "Parameters": mailbox})));
    let everyone = json!({"ParentFolder": {"MemberUpn": "Everyone", "MemberRights": "ReadAny"}});
    records.push(with(json!({"RecordType": 2, "Operation": "Send", "Item": everyone})));
    for operation in ["New-ManagementRoleAssignment", "Remove-ManagementRoleAssignment"] {
        let parameters =
            json!([{"Name": "SecurityGroup", "Value": "Admins"}, {"Name": "Role", "Value": "Mail Import"}]);
        records.push(with(json!({"RecordType": 1, "Operation": operation, "Parameters": parameters})));
    }
    for number in 0..=11 {
        records.push(with(
            json!({"RecordType": 2, "LogonType": number, "InternalLogonType": 0, "UserType": number}),
        ));
    }
    let rule = json!([
        {"Name": "Name", "Value": "."}, {"Name": "ForwardTo", "Value": "a@evil.example"},
        {"Name": "RedirectTo", "Value": "b@contoso.com"}, {"Name": "ForwardAsAttachmentTo", "Value": "c@contoso.com"},
        {"Name": "DeleteMessage", "Value": "True"}, {"Name": "MoveToFolder", "Value": "RSS Feeds"},
        {"Name": "MarkAsRead", "Value": "True"}, {"Name": "StopProcessingRules", "Value": "True"},
        {"Name": "SubjectContainsWords", "Value": "a"}, {"Name": "BodyContainsWords", "Value": "b"},
        {"Name": "SubjectOrBodyContainsWords", "Value": "c"}, {"Name": "From", "Value": "d@contoso.com"},
    ]);
    records.push(with(json!({"RecordType": 1, "Operation": "New-InboxRule", "Parameters": rule})));
    records.push(with(json!({"ClientIPAddress": "mail.contoso.com", "RecordType": 2, "Operation": "Send",
        "recipientList": ["joni@contoso.com"], "ResultStatus": "PartiallySucceeded"})));
    records.push(with(json!({"Workload": "SharePoint", "RecordType": 6, "Operation": "FileDownloaded"})));
    // Every column that Sentinel has for another workload, with a value of its kind.
    let mut others = every.clone();
    for column in tables(View::OfficeActivity)[0].columns {
        let value = match column.kind {
            transform::ColumnKind::Int | transform::ColumnKind::Long => 5.into(),
            transform::ColumnKind::Bool => true.into(),
            transform::ColumnKind::DateTime => "2026-06-01T10:02:33Z".into(),
            transform::ColumnKind::Dynamic => json!([{"Name": "a", "Value": "b"}]),
            _ => Value::from("x".repeat(if column.name == "Parameters" { 70_000 } else { 5 })),
        };
        others.entry(column.name).or_insert_with(|| value.clone());
        // Microsoft writes some of the columns with an underscore that the field does not have.
        others.entry(column.name.trim_end_matches('_').replace('_', "")).or_insert(value);
    }
    others.extend(object(
        json!({"AddOnName": "x", "Workload": "MicrosoftTeams", "RecordType": 25, "Operation": "Others"}),
    ));
    records.push(Value::Object(others).to_string());
    records.extend(crate::views::rare());
    records
}

#[test]
fn events_are_valid_and_have_all_that_the_schemas_name() {
    let published = Published::new();
    let records: Vec<String> = all().into_iter().chain(full()).collect();
    let ours = crate::records::ours().len();
    let (first, last) = (ours, records.len() - full().len());
    std::thread::scope(|scope| {
        for view in View::ALL {
            let (published, records) = (&published, &records);
            scope.spawn(move || {
                let schema = &published.0[&view].0;
                let mut left = BTreeSet::new();
                named(schema, "", &mut left);
                for (index, text) in records.iter().enumerate() {
                    let record: Value = serde_json::from_str(text).unwrap();
                    let ways = ways(view);
                    // Real records, which are many and much alike, take turns at the ways of writing them.
                    let turn = |n: usize| !(first..last).contains(&index) || n == index % ways.len();
                    for (_, options) in ways.iter().enumerate().filter(|(n, _)| turn(*n)) {
                        let event = event(text.as_bytes(), options);
                        let faults = published.faults(view, &record, &event);
                        assert_eq!(faults, [""; 0], "{options:?}\n{text}\n{event:#}");
                        cross_out(schema, schema, "", &event, &mut left);
                    }
                }
                // The feed and the blob that a record comes from.
                for content_type in ContentType::ALL {
                    let from = Origin { content_type, content_id: "blob", ..origin() };
                    let mut out = Rendered::default();
                    let renderer = Renderer::new(RenderOptions { view, ..RenderOptions::default() });
                    renderer.render(b"{}", 7, &from, &Filter::default(), &mut out);
                    let event: Value = serde_json::from_slice(out.get(0).bytes).unwrap();
                    assert_eq!(published.faults(view, &json!({}), &event), [""; 0], "{event:#}");
                    cross_out(schema, schema, "", &event, &mut left);
                }
                assert_eq!(left, BTreeSet::new(), "{view}: no event has these");
            });
        }
    });
}

/// A check that cannot fail proves nothing.
#[test]
fn what_is_not_in_the_schema_is_a_fault() {
    let published = Published::new();
    let text = r#"{"Workload":"Exchange","RecordType":2,"Operation":"Send","UserId":"a@b.example"}"#;
    let record: Value = serde_json::from_str(text).unwrap();
    for view in View::ALL.into_iter().filter(|view| *view != View::Raw) {
        let good = event(text.as_bytes(), &RenderOptions { view, ..RenderOptions::default() });
        assert_eq!(published.faults(view, &record, &good), [""; 0]);
        let mut more = good.clone();
        more["not_there"] = 1.into();
        assert_eq!(published.faults(view, &record, &more).is_empty(), view == View::Splunk, "{view}");
        let required = tables(view).iter().flat_map(|table| table.columns).find(|column| column.required);
        let required = required.map_or("class_uid", |column| column.name.split('.').next().unwrap());
        let mut less = good;
        less.as_object_mut().unwrap().remove(required).unwrap();
        assert_ne!(published.faults(view, &record, &less), [""; 0], "{view} without {required}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever stands in the fields, the event is what the schema says.
    #[test]
    fn any_record_becomes_an_event_of_the_schema(record in record(), which in 0usize..4) {
        thread_local!(static PUBLISHED: Published = Published::new());
        for view in View::ALL {
            let ways = ways(view);
            let event = event(record.to_string().as_bytes(), &ways[which % ways.len()]);
            let faults = PUBLISHED.with(|published| published.faults(view, &record, &event));
            prop_assert_eq!(faults, [""; 0], "{}\n{}", record, event);
        }
    }
}
