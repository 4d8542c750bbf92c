//! The model's words for what records say.

use crate::{
    cmdlet::{Cmdlet, Verb},
    json::Text,
    ocsf::class::Shape,
    operation::{Source, api},
    reading::{Reading, is_email},
};

/// What a cmdlet's verb is called. A verb that is not here sets something.
fn type_of(verb: Verb) -> &'static str {
    match verb {
        Verb::New | Verb::Add | Verb::Import => "Create",
        Verb::Get | Verb::Search | Verb::Test | Verb::Export => "Read",
        Verb::Remove | Verb::Uninstall | Verb::Purge => "Delete",
        Verb::Install => "Install",
        Verb::Clear => "Clear",
        Verb::Enable => "Enable",
        Verb::Disable => "Disable",
        Verb::Initialize => "Initialize",
        Verb::Start | Verb::Resume => "Start",
        Verb::Stop | Verb::Suspend => "Stop",
        Verb::Invoke | Verb::Complete => "Execute",
        _ => "Set",
    }
}

pub(super) fn event_type(reading: &Reading<'_>, shape: &Shape<'_>) -> &'static str {
    if let Some(cmdlet) = reading.cmdlet.filter(|_| reading.source != Source::ExchangeMailbox) {
        return type_of(cmdlet.verb);
    }
    let is = |name: &str| reading.operation.is_some_and(|operation| operation.is(name));
    match shape {
        Shape::Email(_) => "Execute",
        Shape::UserAccess { .. } if is("RemoveFolderPermissions") => "Delete",
        Shape::UserAccess { .. } if is("AddFolderPermissions") || is("AddMailboxPermissions") => "Create",
        _ => match reading.meaning.api {
            api::CREATE => "Create",
            api::READ => "Read",
            api::UPDATE => "Set",
            api::DELETE => "Delete",
            _ => "Other",
        },
    }
}

/// The kind of thing that a cmdlet is about.
pub(super) fn object_type(cmdlet: Cmdlet<'_>) -> &'static str {
    let directory =
        ["Mailbox", "User", "Group", "Contact", "Member", "RoleAssignment", "RecipientPermission"];
    if cmdlet.noun_has(&["Rule", "Policy"]) {
        "Policy Rule"
    } else if !cmdlet.noun_has(&["Config", "Plan"]) && cmdlet.noun_has(&directory) {
        "Directory Service Object"
    } else {
        "Configuration Atom"
    }
}

pub(super) fn username_type(name: Text<'_>) -> &'static str {
    if is_email(name.raw()) {
        "UPN"
    } else if name.raw().contains(r"\\") {
        "Windows"
    } else {
        "Simple"
    }
}

/// What kind of id `UserKey` is: a PUID as a rule, a GUID of the directory for applications, a SID now and then.
pub(super) fn key_type(key: &str) -> &'static str {
    let hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    if key.len() == 16 && hex(key) {
        "PUID"
    } else if key.len() == 36 && key.split('-').count() == 5 && key.split('-').all(hex) {
        "AADID"
    } else if key.starts_with("S-1-") {
        "SID"
    } else {
        "Other"
    }
}

pub(super) fn asim_user_type(name: Option<&str>) -> &'static str {
    match name {
        Some("Regular") => "Regular",
        Some("Admin" | "DcAdmin") => "Admin",
        Some("System" | "SystemPolicy") => "System",
        Some("Application") => "Application",
        Some("ServicePrincipal") => "Service",
        Some("Guest") => "Guest",
        _ => "Other",
    }
}
