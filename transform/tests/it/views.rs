//! The views beside OCSF: their columns, what other mappings get wrong, and that nothing of a record is lost in them.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use serde_json::Value;
use transform::{Column, ColumnKind, RenderOptions, View, tables};

use crate::{
    lossless::{lost, record},
    records::{all, event, fixtures, ours, render, shared},
};

const VIEWS: [View; 4] = [View::Ecs, View::Asim, View::Splunk, View::OfficeActivity];

fn options(view: View) -> RenderOptions {
    RenderOptions { view, ..RenderOptions::default() }
}

pub(crate) fn in_view(text: &str, view: View) -> Value {
    event(text.as_bytes(), &options(view))
}

/// One event of each kind that differs, to be read by people.
#[test]
fn events_of_each_view() {
    let telling = [
        "add_mailbox_permission",
        "add_role_group_member",
        "attachment_access",
        "entra_login",
        "hard_delete_sent",
        "mail_items_accessed_bind",
        "mailbox_login",
        "modify_folder_permissions",
        "new_inbox_rule",
        "nothing_known",
        "parameters_as_command_line",
        "parameters_twice",
        "send_on_behalf",
        "set_mailbox_forwarding",
        "sharepoint_download",
        "strings_for_numbers",
        "system_admin",
        "update_inbox_rules",
    ];
    let fixtures: HashMap<_, _> = fixtures().into_iter().collect();
    for view in VIEWS {
        for name in telling {
            let event = in_view(&fixtures[name], view);
            insta::assert_snapshot!(format!("{view}_{name}"), serde_json::to_string_pretty(&event).unwrap());
        }
    }
}

/// An event with every text that holds JSON taken for that JSON, but not the texts in there.
fn opened(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with(['{', '[']) => {
            serde_json::from_str(text).unwrap_or_else(|_| value.clone())
        }
        Value::Array(items) => items.iter().map(opened).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), opened(value))).collect(),
        _ => value.clone(),
    }
}

/// An event with numbers and truth values as texts.
fn texts(value: &Value) -> Value {
    match value {
        Value::Number(_) | Value::Bool(_) => Value::from(value.to_string()),
        Value::Array(items) => items.iter().map(texts).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), texts(value))).collect(),
        _ => value.clone(),
    }
}

/// The leaves of a record that are not in an event of one of these views. They may have them in a text that is JSON, as texts,
/// and the names of properties as names of fields.
pub(crate) fn lost_in_view(record: &Value, event: &Value, view: View) -> Vec<String> {
    // Nothing of the record looks different there.
    if view == View::Splunk {
        return lost(record, event);
    }
    let forms = Value::from(vec![event.clone(), texts(&opened(event))]);
    let is_name = |leaf: &str| {
        let Some((path, name)) = leaf.split_once(' ') else { return false };
        let Ok(name) = serde_json::from_str::<String>(name) else { return false };
        let field = path.strip_suffix("/Name").unwrap_or(path).trim_start_matches('/');
        let map = ["ModifiedProperties", "ExtendedProperties"].contains(&field);
        map && event["o365"]["audit"][field].get(name).is_some()
    };
    lost(record, &forms).into_iter().filter(|leaf| !is_name(leaf)).collect()
}

#[test]
fn nothing_of_a_record_is_lost_in_any_view() {
    let all = all();
    std::thread::scope(|scope| {
        for view in VIEWS {
            let all = &all;
            scope.spawn(move || {
                for text in all {
                    let record: Value = serde_json::from_str(text).unwrap();
                    let event = in_view(text, view);
                    assert_eq!(lost_in_view(&record, &event, view), [""; 0], "{view}\n{text}\n{event}");
                }
            });
        }
    });
}

/// Each text made unlike any other, so that none can stand in for another.
#[test]
fn nothing_of_a_record_of_unlike_parts_is_lost_in_any_view() {
    let ours = ours().len();
    for (index, text) in all().into_iter().enumerate() {
        let record = crate::lossless::unlike_parts(&text);
        // Real records, which are many and much alike, take turns at the views.
        let turn = |n: usize| index < ours || n == index % VIEWS.len();
        for (_, view) in VIEWS.into_iter().enumerate().filter(|(n, _)| turn(*n)) {
            let event = in_view(&record.to_string(), view);
            assert_eq!(lost_in_view(&record, &event, view), [""; 0], "{view}\n{record}\n{event}");
        }
    }
}

/// A check that cannot fail proves nothing: without one of its leaves an event is found wanting.
#[test]
fn a_lost_leaf_is_noticed() {
    let record: Value = serde_json::json!({"Workload": "Exchange", "Unknown": {"inner": "only-here"}});
    for view in VIEWS {
        let whole = in_view(&record.to_string(), view);
        assert_eq!(lost_in_view(&record, &whole, view), [""; 0]);
        let without: Value = serde_json::from_str(&whole.to_string().replace("only-here", "gone")).unwrap();
        assert_eq!(lost_in_view(&record, &without, view), ["/Unknown/inner \"only-here\""], "{view}");
    }
}

/// The leaves of an event by their paths. Below `native` stands the record, which has any names.
fn leaves<'v>(value: &'v Value, path: &str, native: Option<&str>, found: &mut Vec<(String, &'v Value)>) {
    match value {
        _ if native == Some(path) && !path.is_empty() => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &path, native, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| leaves(item, path, native, found));
        }
        _ => found.push((path.to_owned(), value)),
    }
}

fn fits(column: &Column, value: &Value) -> bool {
    if let Some(items) = value.as_array().filter(|_| column.list) {
        return !items.is_empty() && items.iter().all(|item| fits(&Column { list: false, ..*column }, item));
    }
    match column.kind {
        ColumnKind::String => value.is_string(),
        ColumnKind::Int => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        ColumnKind::Long => value.is_i64(),
        ColumnKind::Bool => value.is_boolean(),
        ColumnKind::Ip => value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok()),
        ColumnKind::DateTime => {
            value.as_str().is_some_and(|text| text.ends_with('Z') && schemas::time::parse_utc(text).is_some())
        }
        ColumnKind::Dynamic => true,
    }
}

/// What is wrong with an event, by the columns of its view.
fn column_faults(record: &Value, event: &Value, view: View, seen: &mut HashSet<String>) -> Vec<String> {
    let named = event.get("Type").and_then(Value::as_str);
    let table = tables(view).iter().find(|table| named.is_none_or(|name| name == table.name)).unwrap();
    let columns: HashMap<&str, &Column> = table.columns.iter().map(|column| (column.name, column)).collect();
    let mut found = Vec::new();
    if view == View::Ecs {
        leaves(event, "", table.native, &mut found);
    } else {
        found.extend(event.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value)));
    }
    let own = |name: &str| table.native == Some("") && record.get(name).is_some();
    let mut faults = Vec::new();
    for (name, value) in &found {
        match columns.get(name.as_str()) {
            _ if own(name) => {}
            Some(column) if fits(column, value) => drop(seen.insert(format!("{} {name}", table.name))),
            Some(column) => faults.push(format!("{column:?} is {value}")),
            None => faults.push(format!("{name} is no column")),
        }
    }
    for column in table.columns.iter().filter(|column| column.required) {
        if !found.iter().any(|(name, _)| name == column.name) {
            faults.push(format!("{} is missing", column.name));
        }
    }
    faults
}

#[test]
fn events_have_the_columns_of_their_view() {
    let mut seen = HashSet::new();
    for text in all().into_iter().chain(rare()) {
        let record: Value = serde_json::from_str(&text).unwrap();
        for view in VIEWS {
            let event = in_view(&text, view);
            assert_eq!(column_faults(&record, &event, view, &mut seen), [""; 0], "{view}\n{text}\n{event:#}");
        }
    }
    // Columns of other workloads need records of theirs.
    if shared("samples").is_none() {
        return;
    }
    let views = [View::Ecs, View::Asim, View::Splunk];
    let tables = views.into_iter().flat_map(tables);
    let all =
        tables.flat_map(|table| table.columns.iter().map(|column| format!("{} {}", table.name, column.name)));
    let never: Vec<String> = all.filter(|column| !seen.contains(column)).collect();
    assert_eq!(never, [""; 0]);
}

/// Records with fields that are in no fixture and in no sample.
pub(crate) fn rare() -> Vec<String> {
    let record = |operation: &str, context: &str| {
        serde_json::json!({
            "RecordType": 2, "Workload": "Exchange", "Operation": operation, "UserId": "joni@contoso.com",
            "LogonUserDisplayName": "Joni", "DeviceId": "d1", "ClientMachineName": "PC-7", "ClientAppId": "a1",
            "AppAccessContext": {"ClientAppName": context}, "Unknown": "x".repeat(70_000),
        })
        .to_string()
    };
    vec![record("MailItemsAccessed", "One"), record("MailboxLogin", "Two")]
}

/// Splunk's view is the record, byte for byte, with more behind it, and it hides no field of the record.
#[test]
fn splunk_events_begin_with_the_record() {
    for text in all() {
        let line = String::from_utf8(render(text.as_bytes(), &options(View::Splunk)).unwrap()).unwrap();
        let raw = String::from_utf8(render(text.as_bytes(), &options(View::Raw)).unwrap()).unwrap();
        let record = raw.trim().strip_suffix('}').unwrap().trim_end();
        // A record on several lines is written anew on one.
        assert!(text.contains('\n') || line.starts_with(record), "{line}");
        let (record, event): (Value, Value) =
            (serde_json::from_str(&raw).unwrap(), serde_json::from_str(&line).unwrap());
        for (name, value) in record.as_object().unwrap() {
            assert_eq!(&event[name], value);
        }
    }
    let own = r#"{"action":"mine","Operation":"Send","src_port":null}"#;
    let event = String::from_utf8(render(own.as_bytes(), &options(View::Splunk)).unwrap()).unwrap();
    assert_eq!(event.matches("\"action\":").count() + event.matches("\"src_port\":").count(), 2, "{event}");
    assert!(event.starts_with(&own[..own.len() - 1]) && event.contains("\"signature\":\"Send\""), "{event}");
}

/// What is wrong in other mappings.
#[test]
fn known_faults_of_other_mappings_are_not_ours() {
    let all_views = |record: &Value| VIEWS.map(|view| in_view(&record.to_string(), view));
    // A build number is no address.
    let [ecs, asim, splunk, office] = all_views(&serde_json::json!({
        "Workload": "Exchange", "RecordType": 2, "Operation": "HardDelete", "OriginatingServer": "AM6PR01MB4535 (15.20.225.32)\r\n",
    }));
    assert_eq!(ecs["server"], serde_json::json!({"domain": "AM6PR01MB4535"}));
    assert_eq!(asim["SrcDescription"], "AM6PR01MB4535 (15.20.225.32)");
    assert!(ecs["related"].get("ip").is_none() && ecs.get("destination").is_none());
    assert!(
        asim.get("SrcIpAddr").is_none()
            && splunk.get("src_ip").is_none()
            && office.get("SrcIpAddr_n").is_none()
    );
    // The owner of a mailbox is not who reads it, and is not lost when the reader is a SID.
    for reader in ["helpdesk@contoso.com", "S-1-5-21-1-2-3-4"] {
        let [ecs, asim, splunk, office] = all_views(&serde_json::json!({
            "Workload": "Exchange", "RecordType": 50, "Operation": "MailItemsAccessed", "UserId": reader,
            "MailboxOwnerUPN": "cfo@contoso.com", "LogonType": 2,
        }));
        assert_eq!(
            (&ecs["user"]["id"], &ecs["user"]["target"]["email"]),
            (&reader.into(), &"cfo@contoso.com".into())
        );
        // By a SID alone it cannot be told whether it is the owner's.
        let is_owner = reader.contains('@').then_some(Value::from(false));
        assert_eq!(
            (&ecs["o365"]["audit"]["LogonType"], ecs["mailtrail"].get("is_owner")),
            (&"2".into(), is_owner.as_ref())
        );
        assert_eq!((&asim["ActorUsername"], &asim["Object"]), (&reader.into(), &"cfo@contoso.com".into()));
        assert_eq!(asim["AdditionalFields"]["MailboxOwnerUPN"], "cfo@contoso.com");
        assert_eq!((&splunk["user"], &splunk["owner_email"]), (&reader.into(), &"cfo@contoso.com".into()));
        assert_eq!((&splunk["action"], &splunk["data_model"]), (&"read".into(), &"Data_Access".into()));
        assert_eq!(
            (&office["MailboxOwnerUPN"], &office["Logon_Type"]),
            (&"cfo@contoso.com".into(), &"Delegated".into())
        );
    }
    // What succeeded in part, or is not told, is no success.
    for (status, in_asim, in_ecs, in_splunk) in [
        (Some("Succeeded"), "Success", "success", "success"),
        (Some("True"), "Success", "success", "success"),
        (Some("PartiallySucceeded"), "Partial", "unknown", "partial"),
        (Some("False"), "Failure", "failure", "failure"),
        (Some("Interrupted"), "NA", "unknown", "unknown"),
        (None, "NA", "unknown", "unknown"),
    ] {
        let [ecs, asim, splunk, office] = all_views(
            &serde_json::json!({"RecordType": 1, "Operation": "Set-Mailbox", "ResultStatus": status}),
        );
        assert_eq!((&asim["EventResult"], &ecs["event"]["outcome"]), (&in_asim.into(), &in_ecs.into()));
        assert_eq!(
            (&splunk["status"], office.get("ResultStatus")),
            (&in_splunk.into(), status.map(Value::from).as_ref())
        );
    }
    // A sign-in that failed is no success, though the record says `Success`.
    let [ecs, asim, splunk, _] = all_views(
        &serde_json::json!({"RecordType": 15, "Operation": "UserLoginFailed", "ResultStatus": "Success"}),
    );
    assert_eq!((&splunk["action"], &splunk["data_model"]), (&"failure".into(), &"Authentication".into()));
    assert_eq!((&asim["EventResult"], &ecs["event"]["outcome"]), (&"Failure".into(), &"failure".into()));
    assert_eq!((&splunk["status"], &splunk["result"]), (&"failure".into(), &"Success".into()));
    // A bare IPv6 address is not cut at a colon, and one that wraps IPv4 is unwrapped.
    for (text, ip, port) in [
        ("2603:10a6:208:ac::15", "2603:10a6:208:ac::15", None),
        ("::1", "::1", None),
        ("[::ffff:203.0.113.77]:52816", "203.0.113.77", Some(52816)),
    ] {
        let [ecs, asim, splunk, office] = all_views(&serde_json::json!({"ClientIP": text}));
        let port = port.map(Value::from);
        assert_eq!((&ecs["source"]["ip"], ecs["client"].get("port")), (&ip.into(), port.as_ref()));
        assert_eq!((&asim["SrcIpAddr"], asim.get("SrcPortNumber")), (&ip.into(), port.as_ref()));
        assert_eq!((&splunk["src"], splunk.get("src_port")), (&ip.into(), port.as_ref()));
        assert_eq!((&office["SrcIpAddr_n"], office.get("SrcPort_n")), (&ip.into(), port.as_ref()));
        assert_eq!(office["ClientIP"], text);
    }
    // Every verb has a type, in any case.
    for (cmdlet, kind) in [
        ("set-InboxRule", "Set"),
        ("disable-TransportRule", "Disable"),
        ("Start-HistoricalSearch", "Start"),
        ("Stop-MigrationBatch", "Stop"),
        ("Update-RoleGroupMember", "Set"),
        ("Import-Contact", "Create"),
        ("Export-Message", "Read"),
        ("Test-Message", "Read"),
        ("Install-AdminAuditLogConfig", "Install"),
        ("Frob-Thing", "Set"),
    ] {
        let [_, asim, ..] = all_views(&serde_json::json!({"RecordType": 1, "Operation": cmdlet}));
        assert_eq!((&asim["EventType"], &asim["Operation"]), (&kind.into(), &cmdlet.into()));
    }
    // A mail that a rule for data loss has stopped is no mailbox.
    let [_, _, splunk, _] = all_views(
        &serde_json::json!({"RecordType": 13, "Workload": "Exchange", "Operation": "DlpRuleMatch", "ObjectId": "<m1@contoso.com>"}),
    );
    assert_eq!((&splunk["object"], splunk.get("object_category")), (&"<m1@contoso.com>".into(), None));
    // Two addresses are both there for whoever looks for one of them.
    let [ecs, ..] =
        all_views(&serde_json::json!({"ClientIP": "[2001:db8::1]:25", "ClientIPAddress": "203.0.113.9"}));
    assert_eq!(
        (&ecs["source"]["ip"], &ecs["related"]["ip"]),
        (&"203.0.113.9".into(), &serde_json::json!(["203.0.113.9", "2001:db8::1"]))
    );
    // Several members of a group are several people.
    let [ecs, _, splunk, _] = all_views(&serde_json::json!({
        "RecordType": 1, "Operation": "New-DistributionGroup", "UserId": "admin@contoso.com", "Parameters": [
            {"Name": "Name", "Value": "Board"}, {"Name": "Members", "Value": "eve@contoso.com;joni@contoso.com"}],
    }));
    assert_eq!(splunk["user"], serde_json::json!(["eve@contoso.com", "joni@contoso.com"]));
    assert_eq!(splunk["src_user"], "admin@contoso.com");
    let related = ecs["related"]["user"].as_array().unwrap();
    assert!(["eve@contoso.com", "joni@contoso.com"].iter().all(|member| related.contains(&(*member).into())));
    assert!(ecs["user"].get("target").is_none(), "{ecs}");
    // Who is given a right is not who gives it.
    let [ecs, asim, splunk, _] = all_views(&serde_json::json!({
        "RecordType": 1, "Operation": "Add-MailboxPermission", "UserId": "admin@contoso.com", "UserType": 0, "Parameters": [
            {"Name": "Identity", "Value": "cfo@contoso.com"}, {"Name": "User", "Value": "eve@contoso.com"},
            {"Name": "AccessRights", "Value": "FullAccess"}],
    }));
    assert_eq!(
        (&ecs["user"]["email"], &ecs["user"]["target"]["email"]),
        (&"admin@contoso.com".into(), &"eve@contoso.com".into())
    );
    assert_eq!(ecs["mailtrail"]["mailbox_owner"], "cfo@contoso.com");
    assert_eq!(
        (&splunk["user"], &splunk["src_user"]),
        (&"eve@contoso.com".into(), &"admin@contoso.com".into())
    );
    assert_eq!((&splunk["owner"], &splunk["action"]), (&"cfo@contoso.com".into(), &"acl_modified".into()));
    assert_eq!((&asim["ActorUserType"], &asim["Object"]), (&"Regular".into(), &"cfo@contoso.com".into()));
    let values: Value = serde_json::from_str(asim["NewValue"].as_str().unwrap()).unwrap();
    assert_eq!(values["User"], "eve@contoso.com");
}

/// Real records spell some fields in another way than the columns that they belong to.
#[test]
fn columns_are_filled_from_fields_that_are_spelt_otherwise() {
    let with = |more: Value| {
        let mut record =
            serde_json::json!({"RecordType": 3, "Workload": "Exchange", "Operation": "SoftDelete"});
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        in_view(&record.to_string(), View::OfficeActivity)
    };
    let event = with(serde_json::json!({
        "CrossMailboxOperation": false, "SendAsUserSmpt": "a@contoso.com", "SendOnBehalfOfUserSmpt": "b@contoso.com",
    }));
    assert_eq!(event["CrossMailboxOperations"], false);
    assert_eq!(
        (&event["SendAsUserSmtp"], &event["SendOnBehalfOfUserSmtp"]),
        (&"a@contoso.com".into(), &"b@contoso.com".into())
    );
    assert_eq!(event["AdditionalFields"], serde_json::json!({"RecordType": 3}));
    let event = with(serde_json::json!({"CrossMailboxOperations": true, "CrossMailboxOperation": false}));
    assert_eq!(event["CrossMailboxOperations"], true);
    assert_eq!(
        event["AdditionalFields"],
        serde_json::json!({"RecordType": 3, "CrossMailboxOperation": false})
    );
}

/// A column of time has four digits for the year.
#[test]
fn times_that_no_column_holds_become_the_nearest_that_it_does() {
    for (text, expected) in [
        ("-0001-03-04T05:06:07", "0001-01-01T00:00:00.000Z"),
        ("0000-01-01T00:00:00+01:00", "0001-01-01T00:00:00.000Z"),
        ("+12026-03-04T05:06:07", "9999-12-31T23:59:59.999Z"),
    ] {
        let record = serde_json::json!({"RecordType": 2, "Operation": "Send", "CreationTime": text});
        assert_eq!(in_view(&record.to_string(), View::Ecs)["@timestamp"], expected);
        assert_eq!(in_view(&record.to_string(), View::Asim)["TimeGenerated"], expected);
    }
}

/// What would make Elasticsearch refuse a document stands as text.
#[test]
fn odd_fields_do_not_stand_under_o365_audit() {
    let text = r#"{"RecordType":{"a":1},"ModifiedProperties":[{"Name":"Role.DisplayName","NewValue":"x","OldValue":{"y":1}},"Two Words"],
        "ExtendedProperties":[{"Name":"a.","Value":"1"},{"Name":"b","Value":{"c":2}}],"Parameters":"-Identity \"x y\"","Data":"{}",
        "AlertLinks":[{"AlertLinkHref":"https://x.example"}],"":1,"Id":"first","Id":"second","New":1,"New":2}"#;
    let event = in_view(text, View::Ecs);
    let audit = &event["o365"]["audit"];
    assert_eq!(audit.get("RecordType"), None);
    let expected = serde_json::json!({
        "Role_DisplayName": {"Name": "Role.DisplayName", "NewValue": "x", "OldValue": "{\"y\":1}"}, "Two_Words": {}});
    assert_eq!(audit["ModifiedProperties"], expected);
    assert_eq!(audit["ExtendedProperties"], serde_json::json!({"b": "{\"c\":2}"}));
    assert_eq!(audit["Parameters"], serde_json::json!({"_raw": "-Identity \"x y\"", "Identity": "x y"}));
    assert_eq!(
        (&audit["Data"]["_raw"], &audit["AlertLinks"]),
        (&"{}".into(), &serde_json::json!([{"AlertLinkHref": "https://x.example"}]))
    );
    assert_eq!((&audit["Id"], &audit["New"]), (&"first".into(), &1.into()));
    let rest: Value = serde_json::from_str(event["mailtrail"]["rest"].as_str().unwrap()).unwrap();
    let names: Vec<_> = rest.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["", "ExtendedProperties", "Id", "ModifiedProperties", "New", "RecordType"]);
    assert_eq!((&rest["Id"], &rest["New"]), (&"second".into(), &2.into()));
}

/// Sentinel cuts long values without a word; the event says which.
#[test]
fn columns_that_sentinel_would_cut_are_named() {
    let long = "x".repeat(70_000);
    let record = serde_json::json!({"RecordType": 1, "Operation": "Set-X", "Parameters": [{"Name": "A", "Value": long}]});
    let asim = in_view(&record.to_string(), View::Asim);
    assert!(asim["EventMessage"].as_str().unwrap().ends_with(": NewValue"), "{}", asim["EventMessage"]);
    assert_eq!(in_view(&record.to_string(), View::OfficeActivity)["LongColumns"], "Parameters");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever stands in the fields, every view is valid JSON, has its columns, and has every leaf.
    #[test]
    fn any_record_has_every_view(record in record()) {
        for view in VIEWS {
            let event = in_view(&record.to_string(), view);
            prop_assert_eq!(lost_in_view(&record, &event, view), [""; 0], "{}\n{}\n{}", view, record, event);
            let faults = column_faults(&record, &event, view, &mut HashSet::new());
            prop_assert_eq!(faults, [""; 0], "{}\n{}\n{}", view, record, event);
        }
    }
}
