//! Each tag with records that have it and records that only look like it.

use schemas::{ContentType, Rendered};
use serde_json::{Value, json};

use super::*;
use crate::{Filter, Origin, Renderer};

fn tags_with(options: RenderOptions, record: &Value) -> Vec<&'static str> {
    let origin = Origin {
        tenant: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
        tenant_name: "contoso",
        content_type: ContentType::Exchange,
        content_id: "x",
    };
    let mut out = Rendered::default();
    Renderer::new(options).render(record.to_string().as_bytes(), 0, &origin, &Filter::default(), &mut out);
    assert_eq!(out.len(), 1);
    let event: Value = serde_json::from_slice(out.get(0).bytes).unwrap();
    let found: Vec<_> = names(out.get(0).facts.tags).collect();
    let labels: Vec<&str> =
        event["metadata"]["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(labels, found);
    assert_eq!(event.get("attacks").is_some(), !found.is_empty());
    found
}

fn tags(record: &Value) -> Vec<&'static str> {
    let options = RenderOptions {
        accepted_domains: vec!["contoso.com".to_owned(), "Contoso.example".to_owned()],
        first_party_apps: vec!["AAAAAAAA-0000-4000-8000-000000000001".to_owned()],
        ..RenderOptions::default()
    };
    tags_with(options, record)
}

/// An admin's cmdlet.
fn cmdlet(operation: &str, parameters: &[(&str, &str)]) -> Value {
    let parameters: Vec<_> =
        parameters.iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect();
    json!({
        "Operation": operation, "RecordType": 1, "Workload": "Exchange", "UserId": "admin@contoso.com",
        "Parameters": parameters,
    })
}

/// A cmdlet with one parameter that is no text.
fn with_value(operation: &str, name: &str, value: Value) -> Value {
    let mut record = cmdlet(operation, &[]);
    record["Parameters"] = json!([{"Name": name, "Value": value}]);
    record
}

/// A cmdlet as a command line, with a list for its parameter.
fn lists(operation: &str, name: &str) -> Value {
    let mut record = cmdlet(operation, &[]);
    record["Parameters"] = format!("-{name} (\"A\",\"B\")").into();
    record
}

/// An operation on a mailbox by its owner, with more fields.
fn mailbox(operation: &str, more: Value) -> Value {
    let mut record = json!({
        "Operation": operation, "RecordType": 2, "Workload": "Exchange", "UserId": "joni@contoso.com",
        "MailboxOwnerUPN": "joni@contoso.com", "LogonUserSid": "S-1", "MailboxOwnerSid": "S-1", "LogonType": 0,
        "ExternalAccess": false,
    });
    let fields = more.as_object().unwrap().clone();
    record.as_object_mut().unwrap().extend(fields);
    record
}

fn has(tag: &str, record: &Value) {
    assert!(tags(record).contains(&tag), "{record} should be {tag}");
}

fn has_not(tag: &str, record: &Value) {
    assert!(!tags(record).contains(&tag), "{record} should not be {tag}");
}

#[test]
fn bits_and_names_agree() {
    assert_eq!(ALL[AUDIT_DISABLED].name, AUDIT_DISABLED_NAME);
    assert_eq!(ALL[ALL.len() - 1].name, "exo.export");
    assert_eq!(names(0b101).collect::<Vec<_>>(), ["exo.forwarding.external", "exo.mail_access.bulk"]);
    let mut all: Vec<_> = ALL.iter().map(|tag| tag.name).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 16);
    assert!(ALL.iter().all(|tag| !tag.techniques.is_empty()));
}

#[test]
fn forwarding() {
    let tag = "exo.forwarding.external";
    has(tag, &cmdlet("Set-Mailbox", &[("ForwardingSmtpAddress", "smtp:x@evil.example")]));
    has(tag, &cmdlet("New-InboxRule", &[("RedirectTo", "\"X\" [SMTP:x@evil.example]")]));
    has(tag, &cmdlet("Set-TransportRule", &[("RedirectMessageTo", "joni@contoso.com;x@evil.example")]));
    let actions = r#"[{"ActionType":"Forward","Recipients":["x@evil.example"]}]"#;
    has(
        tag,
        &mailbox(
            "UpdateInboxRules",
            json!({"OperationProperties": [{"Name": "RuleActions", "Value": actions}]}),
        ),
    );
    has_not(tag, &cmdlet("Set-Mailbox", &[("ForwardingSmtpAddress", "smtp:x@CONTOSO.example")]));
    has_not(tag, &cmdlet("Set-Mailbox", &[("ForwardingAddress", "Finance Team")]));
    has_not(tag, &cmdlet("Set-Mailbox", &[("ForwardingSmtpAddress", "")]));
    has_not(tag, &cmdlet("Set-MailboxPlan", &[("ForwardingSmtpAddress", "x@evil.example")]));
}

#[test]
fn hiding_rules() {
    let tag = "exo.inbox_rule.hide";
    has(tag, &cmdlet("New-InboxRule", &[("DeleteMessage", "True")]));
    has(tag, &cmdlet("set-inboxrule", &[("MoveToFolder", "RSS Feeds")]));
    has(tag, &cmdlet("New-InboxRule", &[("MarkAsRead", "True")]));
    has(tag, &cmdlet("New-InboxRule", &[("BodyContainsWords", "lunch;Invoices")]));
    has(tag, &cmdlet("New-InboxRule", &[("Name", "..")]));
    has_not(
        tag,
        &cmdlet("New-InboxRule", &[("Name", "Team"), ("MoveToFolder", "Team"), ("DeleteMessage", "False")]),
    );
    has_not(tag, &cmdlet("Remove-Mailbox", &[("Name", "..")]));
}

#[test]
fn bulk_reading() {
    let tag = "exo.mail_access.bulk";
    has(tag, &mailbox("MailItemsAccessed", json!({"OperationCount": 100})));
    has(
        tag,
        &mailbox(
            "MailItemsAccessed",
            json!({"OperationProperties": [{"Name": "IsThrottled", "Value": "True"}]}),
        ),
    );
    has_not(tag, &mailbox("MailItemsAccessed", json!({"OperationCount": 99})));
    has_not(tag, &mailbox("Update", json!({"OperationCount": 1000})));
}

#[test]
fn reading_by_an_application() {
    let tag = "exo.mail_access.app";
    let rest = |app: &str| {
        mailbox("MailItemsAccessed", json!({"ClientInfoString": "Client=REST;;", "ClientAppId": app}))
    };
    has(tag, &rest("8f0e1d2c-3b4a-4596-8778-695a4b3c2d1e"));
    let graph = json!({"AppId": "00000003-0000-0000-c000-000000000000", "AppAccessContext": {"ClientAppId": "8f0e1d2c"}});
    has(tag, &mailbox("MailItemsAccessed", graph));
    has_not(tag, &rest("00000002-0000-0ff1-ce00-000000000000"));
    has_not(tag, &rest("27922004-5251-4030-b22d-91ecd9a37ea4"));
    has_not(tag, &rest("aaaaaaaa-0000-4000-8000-000000000001"));
    has_not(tag, &rest(""));
    has_not(
        tag,
        &mailbox("MailItemsAccessed", json!({"ClientInfoString": "Client=OWA", "ClientAppId": "8f0e1d2c"})),
    );
}

#[test]
fn reading_for_another() {
    let tag = "exo.mail_access.non_owner";
    has(tag, &mailbox("MailItemsAccessed", json!({"LogonUserSid": "S-2"})));
    has(tag, &mailbox("FolderBind", json!({"LogonType": 2})));
    has(tag, &mailbox("MailItemsAccessed", json!({"ExternalAccess": true})));
    has(tag, &mailbox("MailItemsAccessed", json!({"LogonUserSid": "", "UserId": "else@contoso.com"})));
    has_not(tag, &mailbox("MailItemsAccessed", json!({})));
    has_not(
        tag,
        &mailbox("MailItemsAccessed", json!({"LogonUserSid": "S-2", "MailboxOwnerMasterAccountSid": "S-2"})),
    );
    has_not(tag, &mailbox("HardDelete", json!({"LogonType": 2})));
}

#[test]
fn mailbox_permissions() {
    let tag = "exo.permission.mailbox";
    has(
        tag,
        &cmdlet("Add-MailboxPermission", &[("User", "x"), ("AccessRights", "ReadPermission, FullAccess")]),
    );
    has(tag, &cmdlet("Add-RecipientPermission", &[("Trustee", "x"), ("AccessRights", "SendAs")]));
    has(tag, &cmdlet("Set-Mailbox", &[("GrantSendOnBehalfTo", "x@contoso.com")]));
    has(tag, &lists("Set-Mailbox", "GrantSendOnBehalfTo"));
    has_not(tag, &with_value("Set-Mailbox", "GrantSendOnBehalfTo", json!([])));
    has_not(tag, &with_value("Set-Mailbox", "GrantSendOnBehalfTo", json!([""])));
    has_not(tag, &cmdlet("Remove-MailboxPermission", &[("User", "x"), ("AccessRights", "FullAccess")]));
    has_not(tag, &cmdlet("Add-MailboxPermission", &[("User", "x"), ("AccessRights", "ReadPermission")]));
    has_not(
        tag,
        &cmdlet("Add-MailboxPermission", &[("User", "NT AUTHORITY\\SELF"), ("AccessRights", "FullAccess")]),
    );
    let mut system = cmdlet("Add-MailboxPermission", &[("User", "x"), ("AccessRights", "FullAccess")]);
    system["UserId"] = "NT AUTHORITY\\SYSTEM (Microsoft.Exchange.ServiceHost)".into();
    has_not(tag, &system);
}

#[test]
fn folders_for_everyone() {
    let tag = "exo.permission.folder_everyone";
    let folder = |operation: &str, member: Value| {
        mailbox(operation, json!({"Item": {"Id": "x", "ParentFolder": member}}))
    };
    has(
        tag,
        &folder(
            "ModifyFolderPermissions",
            json!({"MemberUpn": "Everyone", "MemberRights": "ReadAny, Create"}),
        ),
    );
    has(tag, &folder("AddFolderPermissions", json!({"MemberSid": "S-1-5-7", "MemberRights": "ReadAny"})));
    has(tag, &cmdlet("Set-MailboxFolderPermission", &[("User", "Default"), ("AccessRights", "Reviewer")]));
    has_not(
        tag,
        &folder("ModifyFolderPermissions", json!({"MemberUpn": "Everyone", "MemberRights": "None"})),
    );
    has_not(
        tag,
        &folder(
            "ModifyFolderPermissions",
            json!({"MemberUpn": "bob@contoso.com", "MemberRights": "ReadAny"}),
        ),
    );
    has_not(
        tag,
        &folder("RemoveFolderPermissions", json!({"MemberUpn": "Everyone", "MemberRights": "ReadAny"})),
    );
    has_not(
        tag,
        &cmdlet("Set-MailboxFolderPermission", &[("User", "Default"), ("AccessRights", "AvailabilityOnly")]),
    );
}

#[test]
fn roles() {
    let tag = "exo.rbac.impersonation";
    has(tag, &cmdlet("New-ManagementRoleAssignment", &[("Role", "ApplicationImpersonation"), ("User", "x")]));
    has(tag, &cmdlet("Add-RoleGroupMember", &[("Identity", "Organization Management"), ("Member", "x")]));
    has_not(tag, &cmdlet("Remove-ManagementRoleAssignment", &[("Identity", "x")]));
    has_not(tag, &cmdlet("Add-DistributionGroupMember", &[("Identity", "x"), ("Member", "y")]));
}

#[test]
fn everything_that_weakens_auditing_stands_out() {
    let tag = AUDIT_DISABLED_NAME;
    for (operation, name, value) in [
        ("Set-OrganizationConfig", "AuditDisabled", "True"),
        ("Set-OrganizationConfig", "AuditDisabled", "$true"),
        ("Set-Mailbox", "AuditEnabled", "False"),
        ("Set-Mailbox", "AuditOwner", "@{Remove=\"HardDelete\"}"),
        ("Set-Mailbox", "AuditDelegate", ""),
        ("Set-Mailbox", "AuditAdmin", "Update;Move"),
        ("Set-Mailbox", "AuditLogAgeLimit", "1.00:00:00"),
        ("Set-Mailbox", "AuditLogAgeLimit", "10"),
        ("Set-Mailbox", "AuditLogAgeLimit", "12:00:00"),
        ("Set-Mailbox", "DefaultAuditSet", "Admin, Delegate"),
        ("Set-MailboxAuditBypassAssociation", "AuditBypassEnabled", "True"),
        ("Set-AdminAuditLogConfig", "AdminAuditLogEnabled", "False"),
        ("Set-AdminAuditLogConfig", "UnifiedAuditLogIngestionEnabled", "False"),
        ("Set-AdminAuditLogConfig", "AdminAuditLogCmdlets", "*Mailbox*"),
        ("Set-AdminAuditLogConfig", "AdminAuditLogParameters", "Identity"),
        ("Set-AdminAuditLogConfig", "AdminAuditLogExcludedCmdlets", "Set-Mailbox"),
        ("Set-AdminAuditLogConfig", "AdminAuditLogAgeLimit", "7.00:00:00"),
        ("New-UnifiedAuditLogRetentionPolicy", "Name", "x"),
        ("Remove-UnifiedAuditLogRetentionPolicy", "Identity", "x"),
    ] {
        let record = cmdlet(operation, &[(name, value)]);
        has(tag, &record);
        let off = RenderOptions { tags: false, ..RenderOptions::default() };
        assert_eq!(tags_with(off, &record), [tag], "{record}");
    }
    has(tag, &lists("Set-AdminAuditLogConfig", "AdminAuditLogExcludedCmdlets"));
    has_not(tag, &with_value("Set-AdminAuditLogConfig", "AdminAuditLogExcludedCmdlets", json!([])));
    for (operation, name, value) in [
        ("Set-OrganizationConfig", "AuditDisabled", "False"),
        ("Set-Mailbox", "AuditEnabled", "True"),
        ("Set-Mailbox", "AuditOwner", "@{Add=\"SearchQueryInitiated\"}"),
        ("Set-Mailbox", "AuditLogAgeLimit", "180.00:00:00"),
        ("Set-MailboxAuditBypassAssociation", "AuditBypassEnabled", "False"),
        ("Set-AdminAuditLogConfig", "AdminAuditLogEnabled", "True"),
        ("Set-AdminAuditLogConfig", "AdminAuditLogCmdlets", "*"),
        ("Set-AdminAuditLogConfig", "AdminAuditLogExcludedCmdlets", ""),
        ("Get-AdminAuditLogConfig", "AdminAuditLogEnabled", "False"),
        ("Set-CASMailbox", "AuditEnabled", "False"),
    ] {
        has_not(tag, &cmdlet(operation, &[(name, value)]));
    }
}

#[test]
fn protection() {
    let tag = "exo.protection.weakened";
    for operation in [
        "Remove-AntiPhishPolicy",
        "Disable-SafeLinksRule",
        "Set-SafeAttachmentPolicy",
        "Disable-MalwareFilterRule",
        "Remove-DlpPolicy",
        "remove-antiphishrule",
    ] {
        has(tag, &cmdlet(operation, &[("Identity", "x")]));
    }
    has(tag, &cmdlet("Set-DkimSigningConfig", &[("Enabled", "False")]));
    has_not(tag, &cmdlet("Set-DkimSigningConfig", &[("Enabled", "True")]));
    has_not(tag, &cmdlet("New-AntiPhishPolicy", &[("Name", "x")]));
    has_not(tag, &cmdlet("Remove-Mailbox", &[("Identity", "AntiPhish")]));
}

#[test]
fn mail_flow() {
    for (tag, operation) in [
        ("exo.transport_rule.changed", "Disable-TransportRule"),
        ("exo.connector.changed", "New-InboundConnector"),
        ("exo.connector.changed", "Set-OutboundConnector"),
        ("exo.domain.changed", "Add-FederatedDomain"),
        ("exo.domain.changed", "Remove-AcceptedDomain"),
    ] {
        has(tag, &cmdlet(operation, &[("Identity", "x")]));
    }
    has_not("exo.transport_rule.changed", &cmdlet("Get-TransportRule", &[]));
    has_not("exo.connector.changed", &cmdlet("Set-TransportConfig", &[]));
    has_not("exo.domain.changed", &cmdlet("Set-RemoteDomain", &[]));
}

#[test]
fn covered_tracks() {
    let tag = "exo.delete.cover_tracks";
    let deleted = |operation: &str, path: &str, subject: &str| {
        let item = json!({"Id": "1", "Subject": subject});
        mailbox(operation, json!({"RecordType": 3, "Folder": {"Path": path}, "AffectedItems": [item]}))
    };
    has(tag, &deleted("HardDelete", "\\Sent Items", "Lunch"));
    has(tag, &deleted("HardDelete", "\\Recoverable Items\\Deletions", "Lunch"));
    has(tag, &deleted("SoftDelete", "\\Inbox", "Your verification code"));
    has_not(tag, &deleted("SoftDelete", "\\Sent Items", "Lunch"));
    has_not(tag, &deleted("HardDelete", "\\Inbox", "Lunch"));
    has_not(tag, &deleted("Update", "\\Inbox", "Your verification code"));
}

#[test]
fn logons_by_script() {
    let tag = "exo.mailbox_login.powershell";
    let login = |client: &str| mailbox("MailboxLogin", json!({"ClientInfoString": client}));
    has(tag, &login("Client=Microsoft.Exchange.Powershell; Microsoft WinRM Client"));
    has(tag, &login("Client=IMAP4;Protocol=IMAP4"));
    has_not(tag, &login("Client=OWA;Mozilla/5.0 (Windows NT 10.0)"));
    has_not(tag, &mailbox("Update", json!({"ClientInfoString": "Client=POP3"})));
}

#[test]
fn exports_of_mail() {
    let tag = "exo.export";
    has(tag, &cmdlet("New-MailboxExportRequest", &[("Mailbox", "x")]));
    let portal = |operation: &str| json!({"Operation": operation, "RecordType": 18, "Workload": "SecurityComplianceCenter"});
    has(tag, &portal("New-ComplianceSearchAction"));
    has(tag, &portal("SearchExported"));
    has_not(tag, &portal("SearchCreated"));
    has_not(tag, &cmdlet("Get-MailboxExportRequest", &[]));
    let off = RenderOptions { tags: false, ..RenderOptions::default() };
    assert_eq!(tags_with(off, &portal("SearchExported")), [""; 0]);
}
