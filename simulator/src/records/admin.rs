//! Exchange admin audit: what was run in PowerShell or the admin centre, cmdlet by cmdlet.
//!
//! Permission grants, forwarding, exports and everything that weakens auditing are here with the parameters that
//! give them away. A grant and its removal are drawn from the same episode, so that they name the same people.

use schemas::ContentType;

use super::{Build, Kind, Record, Scene, pairs};
use crate::{cast::Person, dice::Dice};

/// A cmdlet as it was run.
#[derive(Debug)]
pub(crate) struct Cmdlet {
    /// The canonical name of what it changed.
    object: String,
    parameters: Vec<(&'static str, String)>,
}

/// Cmdlet, variant, weight, how it was run.
type Row = (&'static str, &'static str, u64, fn(&mut Scene<'_>) -> Cmdlet);

/// Who an episode is about: a mailbox's owner and somebody who gains from it.
fn pair(s: &Scene<'_>) -> (Person, Person) {
    let mut dice = s.episode.clone();
    let owner = s.cast.any_user(&mut dice);
    let other = s.cast.other_user(&mut dice, &owner);
    (owner, other)
}

/// A cmdlet on a user's mailbox.
fn on_user(s: &Scene<'_>, parameters: &[(&'static str, &str)]) -> Cmdlet {
    let (owner, _) = pair(s);
    let mut list = vec![("Identity", owner.upn)];
    list.extend(parameters.iter().map(|(name, value)| (*name, (*value).to_owned())));
    Cmdlet { object: s.cast.canonical(&owner.alias), parameters: list }
}

/// A cmdlet that gives somebody something on another's mailbox, or takes it.
fn grant(s: &Scene<'_>, who: &'static str, parameters: &[(&'static str, &str)]) -> Cmdlet {
    let (owner, other) = pair(s);
    let mut list = vec![("Identity", s.cast.canonical(&owner.alias)), (who, s.cast.canonical(&other.alias))];
    list.extend(parameters.iter().map(|(name, value)| (*name, (*value).to_owned())));
    Cmdlet { object: owner.alias, parameters: list }
}

/// A cmdlet on something of the organisation.
fn on(s: &Scene<'_>, object: &str, parameters: &[(&'static str, &str)]) -> Cmdlet {
    Cmdlet {
        object: format!("{}\\{object}", s.cast.organisation),
        parameters: parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
    }
}

fn outside(s: &Scene<'_>) -> String {
    let mut dice: Dice = s.episode.clone();
    s.cast.external(&mut dice).to_owned()
}

const AUDIT_SETTINGS: &str = "Admin Audit Log Settings";

const CMDLETS: &[Row] = &[
    // What weakens or stops auditing.
    ("Set-OrganizationConfig", "audit_disabled", 1, |s| on(s, "", &[("AuditDisabled", "True")])),
    ("Set-Mailbox", "audit_enabled_false", 1, |s| on_user(s, &[("AuditEnabled", "False")])),
    ("Set-Mailbox", "audit_owner_reduced", 1, |s| {
        on_user(s, &[("AuditOwner", "@{Remove=\"MailItemsAccessed\",\"HardDelete\"}")])
    }),
    ("Set-Mailbox", "audit_delegate_reduced", 1, |s| on_user(s, &[("AuditDelegate", "Update")])),
    ("Set-Mailbox", "audit_admin_reduced", 1, |s| on_user(s, &[("AuditAdmin", "None")])),
    ("Set-Mailbox", "audit_log_age_limit", 1, |s| on_user(s, &[("AuditLogAgeLimit", "1.00:00:00")])),
    ("Set-Mailbox", "default_audit_set", 1, |s| on_user(s, &[("DefaultAuditSet", "Owner")])),
    ("Set-MailboxAuditBypassAssociation", "audit_bypass_enabled", 1, |s| {
        on_user(s, &[("AuditBypassEnabled", "True")])
    }),
    ("Set-AdminAuditLogConfig", "admin_audit_log_enabled", 1, |s| {
        on(s, AUDIT_SETTINGS, &[("AdminAuditLogEnabled", "False")])
    }),
    ("Set-AdminAuditLogConfig", "unified_audit_log_ingestion", 1, |s| {
        on(s, AUDIT_SETTINGS, &[("UnifiedAuditLogIngestionEnabled", "False")])
    }),
    ("Set-AdminAuditLogConfig", "cmdlets", 1, |s| {
        on(s, AUDIT_SETTINGS, &[("AdminAuditLogCmdlets", "New-Mailbox")])
    }),
    ("Set-AdminAuditLogConfig", "parameters", 1, |s| {
        on(s, AUDIT_SETTINGS, &[("AdminAuditLogParameters", "Identity")])
    }),
    ("Set-AdminAuditLogConfig", "excluded_cmdlets", 1, |s| {
        on(s, AUDIT_SETTINGS, &[("AdminAuditLogExcludedCmdlets", "*-InboxRule;*-MailboxPermission")])
    }),
    ("Set-AdminAuditLogConfig", "age_limit", 1, |s| {
        on(s, AUDIT_SETTINGS, &[("AdminAuditLogAgeLimit", "1.00:00:00")])
    }),
    ("New-UnifiedAuditLogRetentionPolicy", "", 1, |s| {
        on(
            s,
            "Short Exchange",
            &[
                ("Name", "Short Exchange"),
                ("RecordTypes", "ExchangeItem"),
                ("RetentionDuration", "SevenDays"),
                ("Priority", "1"),
            ],
        )
    }),
    ("Set-UnifiedAuditLogRetentionPolicy", "", 1, |s| {
        on(s, "Short Exchange", &[("Identity", "Short Exchange"), ("RetentionDuration", "SevenDays")])
    }),
    ("Remove-UnifiedAuditLogRetentionPolicy", "", 1, |s| {
        on(s, "Ten years", &[("Identity", "Ten years"), ("Confirm", "False")])
    }),
    // Permissions: grants and the removals that follow them.
    ("Add-MailboxPermission", "full_access", 3, |s| {
        grant(
            s,
            "User",
            &[("AccessRights", "FullAccess"), ("InheritanceType", "All"), ("AutoMapping", "False")],
        )
    }),
    ("Remove-MailboxPermission", "full_access", 2, |s| {
        grant(s, "User", &[("AccessRights", "FullAccess"), ("InheritanceType", "All")])
    }),
    ("Add-RecipientPermission", "send_as", 2, |s| grant(s, "Trustee", &[("AccessRights", "SendAs")])),
    ("Remove-RecipientPermission", "send_as", 2, |s| grant(s, "Trustee", &[("AccessRights", "SendAs")])),
    ("Add-MailboxFolderPermission", "", 2, |s| {
        let (owner, other) = pair(s);
        let folder = format!("{}:\\Inbox", owner.upn);
        Cmdlet {
            object: folder.clone(),
            parameters: vec![("Identity", folder), ("User", other.upn), ("AccessRights", "Reviewer".into())],
        }
    }),
    ("Set-MailboxFolderPermission", "default_user", 1, |s| {
        let folder = format!("{}:\\Calendar", pair(s).0.upn);
        Cmdlet {
            object: folder.clone(),
            parameters: vec![
                ("Identity", folder),
                ("User", "Default".into()),
                ("AccessRights", "Editor".into()),
            ],
        }
    }),
    ("Remove-MailboxFolderPermission", "", 1, |s| {
        let (owner, other) = pair(s);
        let folder = format!("{}:\\Inbox", owner.upn);
        Cmdlet {
            object: folder.clone(),
            parameters: vec![("Identity", folder), ("User", other.upn), ("Confirm", "False".into())],
        }
    }),
    ("Set-Mailbox", "grant_send_on_behalf", 2, |s| on_user(s, &[("GrantSendOnBehalfTo", &pair(s).1.upn)])),
    ("New-ManagementRoleAssignment", "impersonation", 1, |s| {
        let (_, other) = pair(s);
        let name = format!("ApplicationImpersonation-{}", other.alias);
        on(s, &name, &[("Role", "ApplicationImpersonation"), ("User", &other.upn), ("Name", &name)])
    }),
    ("Remove-ManagementRoleAssignment", "", 1, |s| {
        let name = format!("ApplicationImpersonation-{}", pair(s).1.alias);
        on(s, &name, &[("Identity", &name), ("Confirm", "False")])
    }),
    ("Add-RoleGroupMember", "", 1, |s| {
        on(
            s,
            "Organization Management",
            &[("Identity", "Organization Management"), ("Member", &pair(s).1.upn)],
        )
    }),
    ("Remove-RoleGroupMember", "", 1, |s| {
        on(
            s,
            "Organization Management",
            &[("Identity", "Organization Management"), ("Member", &pair(s).1.upn)],
        )
    }),
    ("Add-DistributionGroupMember", "", 3, |s| {
        on(s, "Finance", &[("Identity", "Finance"), ("Member", &pair(s).1.upn)])
    }),
    ("Remove-DistributionGroupMember", "", 2, |s| {
        on(s, "Finance", &[("Identity", "Finance"), ("Member", &pair(s).1.upn)])
    }),
    ("Add-UnifiedGroupLinks", "", 2, |s| {
        on(
            s,
            "ProjectAurora",
            &[("Identity", "ProjectAurora"), ("LinkType", "Owners"), ("Links", &pair(s).1.upn)],
        )
    }),
    ("New-UnifiedGroup", "", 1, |s| {
        on(s, "BookClub", &[("DisplayName", "Book Club"), ("AccessType", "Private")])
    }),
    ("New-DistributionGroup", "", 1, |s| on(s, "Finance", &[("Name", "Finance"), ("Type", "Security")])),
    // Forwarding, however it is made.
    ("Set-Mailbox", "forwarding_smtp", 2, |s| {
        on_user(
            s,
            &[
                ("ForwardingSmtpAddress", &format!("smtp:{}", outside(s))),
                ("DeliverToMailboxAndForward", "True"),
            ],
        )
    }),
    ("Set-Mailbox", "forwarding_address", 1, |s| {
        on_user(s, &[("ForwardingAddress", &pair(s).1.upn), ("DeliverToMailboxAndForward", "False")])
    }),
    ("Set-Mailbox", "forwarding_removed", 1, |s| {
        on_user(s, &[("ForwardingSmtpAddress", ""), ("ForwardingAddress", "")])
    }),
    ("New-InboxRule", "forward_external", 2, |s| {
        let (owner, _) = pair(s);
        Cmdlet {
            object: format!("{}\\Financial reporting", owner.alias),
            parameters: vec![
                ("AlwaysDeleteOutlookRulesBlob", "False".into()),
                ("Force", "False".into()),
                ("Name", "Financial reporting".into()),
                ("SubjectOrBodyContainsWords", "invoice;payment;bank".into()),
                ("ForwardTo", outside(s)),
                ("StopProcessingRules", "True".into()),
            ],
        }
    }),
    ("New-InboxRule", "hide", 1, |s| {
        let (owner, _) = pair(s);
        Cmdlet {
            object: format!("{}\\..", owner.alias),
            parameters: vec![
                ("Name", "..".into()),
                ("From", outside(s)),
                ("MoveToFolder", "RSS Subscriptions".into()),
                ("MarkAsRead", "True".into()),
            ],
        }
    }),
    ("Set-InboxRule", "redirect", 1, |s| {
        let (owner, other) = pair(s);
        Cmdlet {
            object: format!("{}\\Financial reporting", owner.alias),
            parameters: vec![
                ("Identity", format!("{}\\1774261093", s.cast.canonical(&owner.alias))),
                ("RedirectTo", format!("{};{}", outside(s), other.upn)),
                ("DeleteMessage", "True".into()),
            ],
        }
    }),
    ("Disable-InboxRule", "", 1, |s| on_user(s, &[("Confirm", "False")])),
    ("Remove-InboxRule", "", 1, |s| on_user(s, &[("Force", "True")])),
    ("New-TransportRule", "blind_copy", 1, |s| {
        let to = outside(s);
        on(
            s,
            "Archive",
            &[
                ("Name", "Archive"),
                ("BlindCopyTo", &to),
                ("SubjectOrBodyContainsWords", "password;payment"),
                ("Mode", "Enforce"),
                ("Comments", ""),
            ],
        )
    }),
    ("Set-TransportRule", "redirect", 1, |s| {
        let to = outside(s);
        on(
            s,
            "Archive",
            &[("Identity", "Archive"), ("RedirectMessageTo", &to), ("StopRuleProcessing", "True")],
        )
    }),
    ("Disable-TransportRule", "", 1, |s| {
        on(s, "Block executables", &[("Identity", "Block executables"), ("Confirm", "False")])
    }),
    // Exports and mailboxes themselves.
    ("New-MailboxExportRequest", "", 1, |s| {
        on_user(
            s,
            &[("FilePath", "\\\\files\\share\\export.pst"), ("ContentFilter", "Received -gt '2026-01-01'")],
        )
    }),
    ("New-Mailbox", "", 1, |s| {
        let (owner, _) = pair(s);
        on_user(
            s,
            &[
                ("Name", &owner.display),
                ("MicrosoftOnlineServicesID", &owner.upn),
                ("ResetPasswordOnNextLogon", "True"),
            ],
        )
    }),
    ("Enable-Mailbox", "archive", 1, |s| on_user(s, &[("Archive", "True")])),
    ("Disable-Mailbox", "", 1, |s| on_user(s, &[("Confirm", "False")])),
    ("Remove-Mailbox", "", 1, |s| on_user(s, &[("PermanentlyDelete", "True"), ("Confirm", "False")])),
    ("Set-Mailbox", "language", 4, |s| {
        on_user(s, &[("Languages", "de-DE"), ("RetainDeletedItemsFor", "30.00:00:00")])
    }),
    ("Set-User", "", 3, |s| on_user(s, &[("Department", "Finance"), ("Office", "B-217")])),
    ("Set-CASMailbox", "", 2, |s| {
        on_user(s, &[("ImapEnabled", "True"), ("PopEnabled", "True"), ("ActiveSyncEnabled", "False")])
    }),
    // Protection and mail flow.
    ("Set-AntiPhishPolicy", "", 1, |s| on(s, "Default", &[("Identity", "Default"), ("Enabled", "False")])),
    ("Disable-AntiPhishRule", "", 1, |s| on(s, "Executives", &[("Identity", "Executives")])),
    ("Remove-SafeLinksPolicy", "", 1, |s| on(s, "Standard", &[("Identity", "Standard"), ("Force", "True")])),
    ("Set-MalwareFilterPolicy", "", 1, |s| {
        on(s, "Default", &[("Identity", "Default"), ("EnableFileFilter", "False")])
    }),
    ("Set-DkimSigningConfig", "", 1, |s| {
        on(s, &s.cast.organisation, &[("Identity", &s.cast.organisation), ("Enabled", "False")])
    }),
    ("New-InboundConnector", "", 1, |s| {
        on(
            s,
            "Relay",
            &[
                ("Name", "Relay"),
                ("ConnectorType", "OnPremises"),
                ("SenderIPAddresses", "192.0.2.44"),
                ("RequireTls", "False"),
            ],
        )
    }),
    ("New-OutboundConnector", "", 1, |s| {
        on(s, "Out", &[("Name", "Out"), ("SmartHosts", "relay.litware.example"), ("Enabled", "True")])
    }),
    ("New-AcceptedDomain", "", 1, |s| {
        on(
            s,
            "tailspintoys.example",
            &[("DomainName", "tailspintoys.example"), ("DomainType", "Authoritative")],
        )
    }),
    ("Set-RemoteDomain", "", 1, |s| {
        on(s, "Default", &[("Identity", "Default"), ("AutoForwardEnabled", "True")])
    }),
    ("Set-OwaMailboxPolicy", "", 2, |s| {
        on(
            s,
            "OwaMailboxPolicy-Default",
            &[("Identity", "OwaMailboxPolicy-Default"), ("InstantMessagingType", "Ocs")],
        )
    }),
    ("Set-TransportConfig", "", 2, |s| {
        on(
            s,
            "Transport Settings",
            &[("DomainController", ""), ("Identity", ""), ("SmtpClientAuthenticationDisabled", "False")],
        )
    }),
    ("New-App", "", 1, |s| {
        on(
            s,
            "Add-in",
            &[("Enabled", "True"), ("OrganizationApp", "True"), ("FileData", "PD94bWwgdmVyc2lvbj0iMS4wIj8+")],
        )
    }),
    ("Install-DefaultSharingPolicy", "service", 2, |s| {
        on(s, "Default Sharing Policy", &[("DomainController", ""), ("Organization", &s.cast.organisation)])
    }),
    ("Set-ConditionalAccessPolicy", "service", 3, |s| {
        on(
            s,
            "Baseline",
            &[
                ("Identity", "Baseline"),
                ("DisplayName", "Baseline"),
                ("PolicyLastUpdatedTime", "07/21/2026 09:14:55"),
            ],
        )
    }),
];

pub(super) fn kinds() -> Vec<Kind> {
    let kind = |&(operation, variant, weight, cmdlet): &Row| Kind {
        content_type: ContentType::Exchange,
        operation,
        record_type: 1,
        logon: None,
        mailbox: None,
        variant,
        weight,
        build: Build::Cmdlet(cmdlet),
    };
    CMDLETS.iter().map(kind).collect()
}

/// The fields of every admin record (schema: "Exchange Admin schema").
pub(super) fn record(kind: &Kind, scene: &mut Scene<'_>, cmdlet: fn(&mut Scene<'_>) -> Cmdlet) -> Record {
    let cmdlet = cmdlet(scene);
    let mut record = scene.common(kind.operation, kind.record_type, "Exchange");
    let cast = scene.cast;
    let admin = cast.any_admin(&mut scene.episode.clone());
    let dice = &mut scene.dice;
    let failed = dice.once_in(40);
    record.put("ResultStatus", if failed { "False" } else { "True" });
    if kind.variant == "service" {
        let service = "NT AUTHORITY\\SYSTEM (Microsoft.Exchange.ServiceHost)";
        record.put("UserKey", service);
        record.put("UserType", 3);
        record.put("UserId", service);
        record.put("ExternalAccess", true);
    } else {
        record.put("UserKey", admin.puid);
        record.put("UserType", 2);
        record.put("UserId", admin.upn);
        record.put("ExternalAccess", false);
        let port = 1024 + dice.below(60_000);
        let address = if dice.once_in(3) {
            format!("[{}]:{port}", admin.ipv6)
        } else {
            format!("{}:{port}", admin.ipv4)
        };
        record.put("ClientIP", address);
        record.put("SessionId", dice.guid().to_string());
        record.put("TokenObjectId", admin.object_id.to_string());
        record.put("TokenTenantId", cast.tenant.to_string());
    }
    record.put("ObjectId", cmdlet.object);
    record.put(
        "AppId",
        dice.pick(&["", "fb78d390-0c51-40cd-8e17-fdbfab77341b", "497effe9-df71-4043-a8bb-14cf78c4b63b"]),
    );
    record.put("ClientAppId", "");
    record.put("OrganizationName", cast.organisation.as_str());
    record.put("OriginatingServer", cast.server(dice));
    record.put("Parameters", pairs(&cmdlet.parameters));
    record
}
