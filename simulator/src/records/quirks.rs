//! Oddities that real records have and that a collector must survive.
//!
//! Each quirk takes an ordinary record and bends it. They are legal JSON, all of them, and each has been seen in
//! some tenant or in the test data of some collector; together they are what `quirks` mode mixes into the traffic.

use serde_json::{Value, json};

use super::Record;

/// One oddity.
#[derive(Debug)]
pub(crate) struct Quirk {
    /// Its name in the catalogue.
    pub(crate) name: &'static str,
    /// The kind of record that it bends: operation and variant.
    pub(crate) on: (&'static str, &'static str),
    pub(crate) bend: fn(&mut Record),
}

macro_rules! quirks {
    ($($name:literal on $operation:literal $variant:literal: |$record:ident| $bend:expr;)*) => {
        /// Every oddity.
        pub(crate) const QUIRKS: &[Quirk] = &[
            $(Quirk { name: $name, on: ($operation, $variant), bend: |$record| { $bend; } }),*
        ];
    };
}

fn address(record: &mut Record, text: impl Into<Value>) {
    let text = text.into();
    record.put("ClientIP", text.clone());
    record.put("ClientIPAddress", text);
}

quirks! {
    "address_v4_port" on "Update" "": |r| address(r, "198.51.100.13:12345");
    "address_v4_brackets" on "Update" "": |r| address(r, "[198.51.100.13]");
    "address_v4_brackets_port" on "Update" "": |r| address(r, "[198.51.100.13]:12345");
    "address_v6" on "Update" "": |r| address(r, "2001:db8::abcd");
    "address_v6_brackets" on "Update" "": |r| address(r, "[2001:db8::abcd]");
    "address_v6_brackets_port" on "Update" "": |r| address(r, "[2001:db8::abcd]:12345");
    "address_v6_zone" on "Update" "": |r| address(r, "fe80::1%12");
    "address_mapped_v4" on "Update" "": |r| address(r, "::ffff:198.51.100.13");
    "address_mapped_v4_port" on "Update" "": |r| address(r, "[::ffff:198.51.100.13]:12345");
    "address_loopback" on "Update" "": |r| address(r, "::1");
    "address_host" on "Update" "": |r| address(r, "localhost");
    "address_host_port" on "Update" "": |r| address(r, "cool.client.local:12345");
    "address_host_brackets_port" on "Update" "": |r| address(r, "[cool.client.local]:12345");
    "address_garbage" on "Update" "": |r| address(r, "NOTANIPV4 (10.9000.0.1)");
    "address_empty" on "Update" "": |r| address(r, "");
    "address_null" on "Update" "": |r| address(r, Value::Null);
    "address_absent" on "Update" "": |r| { r.remove("ClientIP"); r.remove("ClientIPAddress") };
    "addresses_differ" on "Update" "": |r| { r.put("ClientIP", "2001:db8:ffff:1f4::28"); r.put("ClientIPAddress", "203.0.113.77") };
    "server_crlf" on "Send" "": |r| r.put("OriginatingServer", "AM6PR01MB4535 (15.20.2878.014)\r\n");
    "server_lf" on "Send" "": |r| r.put("OriginatingServer", "AM6PR01MB4535 (15.20.2878.014)\n");
    "server_not_a_build" on "Send" "": |r| r.put("OriginatingServer", "SERVER1 (198.51.100.300)");
    "user_system" on "Set-User" "": |r| { r.put("UserId", "NT AUTHORITY\\SYSTEM (w3wp)"); r.put("UserType", 3) };
    "user_sid" on "Update" "": |r| r.put("UserId", "S-1-5-18");
    "user_datacenter" on "Set-User" "": |r| r.put("UserId", "Administrator@apcprd03.prod.outlook.com");
    "user_application" on "MailItemsAccessed" "bind": |r| { r.put("UserId", "33b68b23-a6c2-4684-99a0-fa3832792226"); r.put("UserType", 5) };
    "user_certificate" on "Set-User" "": |r| { r.put("UserId", "Certificate"); r.put("UserKey", "Not Available") };
    "parameters_text" on "Set-User" "": |r| r.put("Parameters", "-Identity \"Quarantine 1\" -QuarantineTypes (\"Bulk\",\"Spam\")");
    "parameters_object" on "Set-User" "": |r| r.put("Parameters", json!({ "Identity": "adele", "Department": "Finance" }));
    "parameters_null" on "Set-User" "": |r| r.put("Parameters", Value::Null);
    "parameters_empty" on "Set-User" "": |r| r.put("Parameters", json!([]));
    "parameter_without_value" on "Set-User" "": |r| r.put("Parameters", json!([{ "Name": "Force" }, { "Name": "Identity", "Value": "adele" }]));
    "parameter_null_value" on "Set-User" "": |r| r.put("Parameters", json!([{ "Name": "Manager", "Value": null }]));
    "parameter_names_twice" on "Set-User" "": |r|
        r.put("Parameters", json!([{ "Name": "Member", "Value": "a" }, { "Name": "Member", "Value": "b" }, { "Name": "Member", "Value": "b" }]));
    "modified_properties_strings" on "Update" "": |r| r.put("ModifiedProperties", json!(["HtmlBody", "CreationTime"]));
    "modified_properties_objects" on "Set-User" "": |r|
        r.put("ModifiedProperties", json!([{ "Name": "Work Phone.Number", "OldValue": "", "NewValue": "1" }]));
    "modified_properties_text" on "Set-User" "": |r| r.put("ModifiedProperties", "Department");
    "modified_properties_empty" on "Update" "": |r| r.put("ModifiedProperties", json!([]));
    "operation_properties_text" on "MailItemsAccessed" "bind": |r|
        r.put("OperationProperties", "[{\"Name\":\"MailAccessType\",\"Value\":\"Bind\"},{\"Name\":\"IsThrottled\",\"Value\":\"False\"}]");
    "operation_properties_empty_text" on "MailItemsAccessed" "bind": |r| r.put("OperationProperties", "[]");
    "numbers_as_text" on "Update" "": |r| { r.put("RecordType", "2"); r.put("UserType", "0"); r.put("LogonType", "0"); r.put("Version", "1") };
    "numbers_as_floats" on "MailItemsAccessed" "bind": |r| { r.put("OperationCount", 2.0); r.put("RecordType", 50.0) };
    "count_as_text_float" on "MailItemsAccessed" "bind": |r| r.put("OperationCount", "1.0");
    "count_as_exponent" on "MailItemsAccessed" "bind": |r| r.put("OperationCount", "1e9");
    "size_as_float" on "Send" "": |r| if let Some(item) = r.get_mut("Item") { item["SizeInBytes"] = json!(1_156_492.0) };
    "booleans_as_text" on "Update" "": |r| r.put("ExternalAccess", "False");
    "record_type_minus_one" on "Update" "": |r| r.put("RecordType", -1);
    "record_type_unknown" on "Update" "": |r| r.put("RecordType", 4711);
    "json_in_text_with_twin_keys" on "AlertTriggered" "": |r| r.put("Data", "{\"QueryTime\":\"1\",\"QueryTime\":\"1\",\"a\":{\"b\":[]}}");
    "message_id_without_brackets" on "Send" "": |r|
        if let Some(item) = r.get_mut("Item") { item["InternetMessageId"] = "f00d@mail.example".into() };
    "folder_without_backslash" on "Send" "": |r| if let Some(item) = r.get_mut("Item") { item["ParentFolder"]["Path"] = "Inbox".into() };
    "attachments_with_parentheses" on "Send" "": |r|
        if let Some(item) = r.get_mut("Item") { item["Attachments"] = "a (1).pdf (20480b); b; c (2b).png (5b); (7b) (9b)".into() };
    "time_with_fraction" on "Update" "": |r| r.put("CreationTime", "2026-03-04T05:06:07.1234567");
    "time_with_zulu" on "Update" "": |r| r.put("CreationTime", "2026-03-04T05:06:07Z");
    "time_with_offset" on "Update" "": |r| r.put("CreationTime", "2026-03-04T07:06:07+02:00");
    "result_spelling_true" on "Set-User" "": |r| r.put("ResultStatus", "TRUE");
    "result_spelling_success" on "Update" "": |r| r.put("ResultStatus", "success");
    "result_absent" on "Update" "": |r| r.remove("ResultStatus");
    "context_as_list" on "Update" "": |r| r.put("AppAccessContext", json!([{ "ClientAppId": "", "UniqueTokenId": "aBcD" }]));
    "cross_mailbox_plural" on "Move" "": |r| { r.remove("CrossMailboxOperation"); r.put("CrossMailboxOperations", false) };
    "recipients_capitals" on "Send" "": |r|
        { r.remove("recipientList"); r.put("RecipientList", json!([{ "Address": "a@fabrikam.example", "Name": "A" }])) };
    "recipients_as_text" on "Send" "": |r| { r.remove("recipientList"); r.put("recipientList", json!(["a@fabrikam.example"])) };
    "send_as_old_spelling" on "SendAs" "": |r| { r.remove("SendAsUserSmtp"); r.put("SendAsUserSmpt", "sales@contoso.onmicrosoft.com") };
    "cmdlet_lower_case" on "Set-InboxRule" "redirect": |r| r.put("Operation", "set-InboxRule");
    "everything_null" on "Update" "": |r| for name in ["SessionId", "AppId", "ClientInfoString", "Item", "MailboxGuid"] { r.put(name, Value::Null) };
    "id_not_a_guid" on "Update" "": |r| r.put("Id", "sanitized");
    "id_absent" on "Update" "": |r| r.remove("Id");
    "text_with_controls" on "Send" "": |r|
        if let Some(item) = r.get_mut("Item") { item["Subject"] = "tab\t nul\u{0} bell\u{7} del\u{7f} nel\u{85} ls\u{2028} \u{1F600}".into() };
    "deep_nesting" on "Update" "": |r| r.put("Extra", (0..60).fold(json!(1), |inner, _| json!([inner])));
    "large_record" on "Send" "": |r| r.put("Extra", "0123456789abcdef".repeat(20_000));
}
