//! Every kind of record that Microsoft's audit log names is made, and every record is one.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;
use simulator::{Example, Logon, MailboxKind, catalogue, quirk_catalogue};

use Logon::{Admin, Delegate, Owner};

/// Action, and whether Admin, Delegate and Owner are audited (Microsoft, "Manage mailbox auditing").
const USER_AND_SHARED: [(&str, [bool; 3]); 20] = [
    ("ApplyRecord", [true, true, true]),
    ("Copy", [true, false, false]),
    ("Create", [true, true, true]),
    ("FolderBind", [true, true, false]),
    ("HardDelete", [true, true, true]),
    ("MailboxLogin", [false, false, true]),
    ("MailItemsAccessed", [true, true, true]),
    ("MessageBind", [true, false, false]),
    ("Move", [true, true, true]),
    ("MoveToDeletedItems", [true, true, true]),
    ("RecordDelete", [true, true, true]),
    ("SearchQueryInitiatedExchange", [false, false, true]),
    ("Send", [true, false, true]),
    ("SendAs", [true, true, false]),
    ("SendOnBehalf", [true, true, false]),
    ("SoftDelete", [true, true, true]),
    ("Update", [true, true, true]),
    ("UpdateCalendarDelegation", [true, false, true]),
    ("UpdateFolderPermissions", [true, true, true]),
    ("UpdateInboxRules", [true, true, true]),
];
const GROUPS: [(&str, [bool; 3]); 7] = [
    ("Create", [true, true, false]),
    ("HardDelete", [true, true, true]),
    ("MoveToDeletedItems", [true, true, true]),
    ("SendAs", [true, true, false]),
    ("SendOnBehalf", [true, true, false]),
    ("SoftDelete", [true, true, true]),
    ("Update", [true, true, true]),
];
/// What auditors look for, with the parameter that gives it away.
const CMDLETS: [(&str, &str); 34] = [
    ("Set-OrganizationConfig", "AuditDisabled"),
    ("Set-Mailbox", "AuditEnabled"),
    ("Set-Mailbox", "AuditOwner"),
    ("Set-Mailbox", "AuditDelegate"),
    ("Set-Mailbox", "AuditAdmin"),
    ("Set-Mailbox", "AuditLogAgeLimit"),
    ("Set-Mailbox", "DefaultAuditSet"),
    ("Set-MailboxAuditBypassAssociation", "AuditBypassEnabled"),
    ("Set-AdminAuditLogConfig", "AdminAuditLogEnabled"),
    ("Set-AdminAuditLogConfig", "UnifiedAuditLogIngestionEnabled"),
    ("Set-AdminAuditLogConfig", "AdminAuditLogCmdlets"),
    ("Set-AdminAuditLogConfig", "AdminAuditLogParameters"),
    ("Set-AdminAuditLogConfig", "AdminAuditLogExcludedCmdlets"),
    ("Set-AdminAuditLogConfig", "AdminAuditLogAgeLimit"),
    ("New-UnifiedAuditLogRetentionPolicy", "RetentionDuration"),
    ("Remove-UnifiedAuditLogRetentionPolicy", "Identity"),
    ("Add-MailboxPermission", "AccessRights"),
    ("Remove-MailboxPermission", "AccessRights"),
    ("Add-RecipientPermission", "Trustee"),
    ("Remove-RecipientPermission", "Trustee"),
    ("New-InboxRule", "ForwardTo"),
    ("Set-InboxRule", "RedirectTo"),
    ("New-TransportRule", "BlindCopyTo"),
    ("Set-TransportRule", "RedirectMessageTo"),
    ("New-MailboxExportRequest", "FilePath"),
    ("New-Mailbox", "Name"),
    ("Set-Mailbox", "ForwardingSmtpAddress"),
    ("Set-Mailbox", "ForwardingAddress"),
    ("Enable-Mailbox", "Identity"),
    ("Disable-Mailbox", "Identity"),
    ("Remove-Mailbox", "Identity"),
    ("New-ManagementRoleAssignment", "Role"),
    ("Add-RoleGroupMember", "Member"),
    ("Set-Mailbox", "GrantSendOnBehalfTo"),
];

fn parse(example: &Example) -> Value {
    let value: Value =
        serde_json::from_slice(&example.record).unwrap_or_else(|error| panic!("{example:?}: {error}"));
    assert!(value.is_object());
    value
}

#[test]
fn every_mailbox_action_is_there_for_every_logon_type_and_for_no_other() {
    let all = catalogue();
    let there = |action: &str, mailbox, logon| {
        all.iter().any(|one| (one.operation, one.mailbox, one.logon) == (action, Some(mailbox), Some(logon)))
    };
    for (action, audited) in USER_AND_SHARED {
        for (logon, expected) in [Admin, Delegate, Owner].into_iter().zip(audited) {
            assert_eq!(there(action, MailboxKind::User, logon), expected, "{action} {logon:?}");
            // Nobody is the owner of a shared mailbox.
            assert_eq!(
                there(action, MailboxKind::Shared, logon),
                expected && logon != Owner,
                "{action} {logon:?} shared"
            );
        }
    }
    for (action, audited) in GROUPS {
        for (logon, expected) in [Admin, Delegate, Owner].into_iter().zip(audited) {
            assert_eq!(there(action, MailboxKind::Group, logon), expected, "{action} {logon:?} group");
        }
    }
    let groups: BTreeSet<_> =
        all.iter().filter(|one| one.mailbox == Some(MailboxKind::Group)).map(|one| one.operation).collect();
    assert_eq!(groups, GROUPS.iter().map(|(action, _)| *action).collect());
}

#[test]
fn every_cmdlet_that_auditors_look_for_is_there_with_its_parameter() {
    let all: Vec<_> = catalogue().iter().filter(|one| one.record_type == 1).map(parse).collect();
    for (cmdlet, parameter) in CMDLETS {
        let found = all.iter().any(|record| {
            record["Operation"] == cmdlet
                && record["Parameters"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|one| one["Name"] == parameter && one["Value"] != "")
        });
        assert!(found, "{cmdlet} -{parameter}");
    }
}

#[test]
fn every_record_has_the_mandatory_fields() {
    for example in catalogue() {
        let record = parse(&example);
        for name in ["Id", "CreationTime", "Operation", "OrganizationId", "UserKey", "UserId", "Workload"] {
            assert!(
                record[name].as_str().is_some_and(|text| !text.is_empty()),
                "{} {name}: {record}",
                example.operation
            );
        }
        for name in ["RecordType", "UserType", "Version"] {
            assert!(record[name].is_i64(), "{} {name}", example.operation);
        }
        assert!(schemas::time::parse_utc(record["CreationTime"].as_str().unwrap()).is_some());
        assert_eq!(
            (record["Operation"].as_str(), record["RecordType"].as_i64()),
            (Some(example.operation), Some(example.record_type.into()))
        );
        if let Some(logon) = example.logon {
            assert_eq!(record["LogonType"], logon.wire());
            for name in [
                "MailboxGuid",
                "MailboxOwnerUPN",
                "MailboxOwnerSid",
                "LogonUserSid",
                "ClientInfoString",
                "OriginatingServer",
            ] {
                assert!(record[name].is_string(), "{} {name}", example.operation);
            }
            assert!(record["InternalLogonType"].is_i64() && record["ExternalAccess"].is_boolean());
        }
    }
}

#[test]
fn the_actor_is_the_owner_exactly_when_the_owner_logged_on() {
    for example in catalogue() {
        let record = parse(&example);
        if let Some(logon) = example.logon {
            assert_eq!(
                record["LogonUserSid"] == record["MailboxOwnerSid"],
                logon == Owner,
                "{} {logon:?}",
                example.operation
            );
        }
    }
}

#[test]
fn what_a_reader_must_be_able_to_tell_is_in_the_records() {
    let all: Vec<_> = catalogue().iter().map(parse).collect();
    let property = |record: &Value, name: &str, value: &str| {
        record["OperationProperties"]
            .as_array()
            .is_some_and(|list| list.iter().any(|one| one["Name"] == name && one["Value"] == value))
    };
    for (name, value) in [
        ("MailAccessType", "Bind"),
        ("MailAccessType", "Sync"),
        ("IsThrottled", "True"),
        ("IsThrottled", "False"),
    ] {
        assert!(
            all.iter()
                .any(|record| record["Operation"] == "MailItemsAccessed" && property(record, name, value)),
            "{name} {value}"
        );
    }
    for (operation, field) in [("SendAs", "SendAsUserSmtp"), ("SendOnBehalf", "SendOnBehalfOfUserSmtp")] {
        assert!(
            all.iter()
                .filter(|record| record["Operation"] == operation)
                .all(|record| record[field].as_str().unwrap().contains('@'))
        );
    }
    let bind = all.iter().filter(|record| record["RecordType"] == 50 && record["Folders"].is_array());
    for record in bind {
        let items: usize = record["Folders"]
            .as_array()
            .unwrap()
            .iter()
            .map(|folder| folder["FolderItems"].as_array().unwrap().len())
            .sum();
        assert_eq!(record["OperationCount"], items);
    }
    let forwards = all
        .iter()
        .filter(|record| record["Operation"] == "UpdateInboxRules" && record.to_string().contains("Forward"));
    assert!(forwards.count() > 0);
    for content_type in schemas::ContentType::ALL {
        assert!(catalogue().iter().any(|one| one.content_type == content_type), "{content_type}");
    }
}

#[test]
fn a_grant_is_followed_by_its_removal_with_the_same_people() {
    let all: Vec<_> = catalogue().iter().map(parse).collect();
    let cmdlet = |name: &str| all.iter().find(|record| record["Operation"] == name).unwrap();
    let value = |record: &Value, name: &str| {
        record["Parameters"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["Name"] == name)
            .map(|one| one["Value"].clone())
            .unwrap()
    };
    for (grant, removal, who) in [
        ("Add-MailboxPermission", "Remove-MailboxPermission", "User"),
        ("Add-RecipientPermission", "Remove-RecipientPermission", "Trustee"),
        ("Add-RoleGroupMember", "Remove-RoleGroupMember", "Member"),
    ] {
        let (grant, removal) = (cmdlet(grant), cmdlet(removal));
        assert_eq!(value(grant, who), value(removal, who));
        assert_eq!(value(grant, "Identity"), value(removal, "Identity"));
        assert_ne!(value(grant, who), value(grant, "Identity"));
    }
}

#[test]
fn the_catalogue_is_the_same_on_every_call_and_no_id_is_there_twice() {
    let (first, second) = (catalogue(), catalogue());
    assert!(first.iter().zip(&second).all(|(a, b)| a.record == b.record));
    let ids: HashSet<_> = first.iter().map(|one| parse(one)["Id"].to_string()).collect();
    assert_eq!(ids.len(), first.len());
}

#[test]
fn every_quirk_is_legal_json_and_bends_its_record() {
    let quirks = quirk_catalogue();
    assert!(quirks.len() > 60, "{}: a quirk names a kind that does not exist", quirks.len());
    for quirk in &quirks {
        parse(quirk);
    }
    let named = |name: &str| parse(quirks.iter().find(|quirk| quirk.variant == name).unwrap());
    assert!(named("parameters_text")["Parameters"].is_string());
    assert!(named("id_absent").get("Id").is_none());
    assert_eq!(named("numbers_as_text")["RecordType"], "2");
    assert!(named("server_crlf")["OriginatingServer"].as_str().unwrap().ends_with("\r\n"));
    assert_eq!(named("address_null")["ClientIP"], Value::Null);
    assert!(named("large_record").to_string().len() > 300_000);
}
