//! Tags: what a record may be a sign of, as a table of rules over the record as it was understood.
//!
//! A tag is a label in the event and a technique of MITRE ATT&CK. It says what happened, not that it was wrong to do so;
//! rules that need a second record, such as a rate, belong into the SIEM.

use crate::{
    RenderOptions,
    cmdlet::{Cmdlet, Noun, Verb},
    json::{Json, Text},
    names::has_any,
    operation::Source,
    parameters::Parameters,
    reading::Reading,
    record::Field,
};

/// A technique of MITRE ATT&CK, with a sub-technique where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Technique {
    /// The technique, such as `T1114`.
    pub uid: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The sub-technique and its name, such as `T1114.003`.
    pub sub: Option<(&'static str, &'static str)>,
}

/// A tag. Its place in [`ALL`] is its bit in [`schemas::RecordFacts::tags`].
#[derive(Debug)]
pub struct Tag {
    /// Its name, as `metadata.labels` has it.
    pub name: &'static str,
    /// What it may be a sign of.
    pub techniques: &'static [Technique],
    scope: Scope,
    applies: fn(&Reading<'_>, &RenderOptions) -> bool,
}

/// Which records a rule need not be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// It is about a cmdlet, of Exchange or of the compliance portal.
    Cmdlet,
    /// It is about an operation on a mailbox.
    Mailbox,
    /// It may be about either.
    Either,
}

const fn technique(
    uid: &'static str,
    name: &'static str,
    sub: &'static str,
    sub_name: &'static str,
) -> Technique {
    Technique { uid, name, sub: if sub.is_empty() { None } else { Some((sub, sub_name)) } }
}

const COLLECTION: Technique = technique("T1114", "Email Collection", "", "");
const REMOTE_COLLECTION: Technique =
    technique("T1114", "Email Collection", "T1114.002", "Remote Email Collection");
const FORWARDING_RULE: Technique =
    technique("T1114", "Email Collection", "T1114.003", "Email Forwarding Rule");
const HIDING_RULE: Technique = technique("T1564", "Hide Artifacts", "T1564.008", "Email Hiding Rules");
const ACCOUNT_MANIPULATION: Technique = technique("T1098", "Account Manipulation", "", "");
const DELEGATE: Technique =
    technique("T1098", "Account Manipulation", "T1098.002", "Additional Email Delegate Permissions");
const CLOUD_LOGS: Technique =
    technique("T1562", "Impair Defenses", "T1562.008", "Disable or Modify Cloud Logs");
const TOOLS: Technique = technique("T1562", "Impair Defenses", "T1562.001", "Disable or Modify Tools");
const TRUST: Technique =
    technique("T1484", "Domain or Tenant Policy Modification", "T1484.002", "Trust Modification");
const MAILBOX_DATA: Technique = technique("T1070", "Indicator Removal", "T1070.008", "Clear Mailbox Data");
const VALID_ACCOUNTS: Technique = technique("T1078", "Valid Accounts", "", "");
const INTERPRETER: Technique = technique("T1059", "Command and Scripting Interpreter", "", "");

const fn tag(
    name: &'static str,
    techniques: &'static [Technique],
    scope: Scope,
    applies: fn(&Reading<'_>, &RenderOptions) -> bool,
) -> Tag {
    Tag { name, techniques, scope, applies }
}

/// Every tag, in the order of its bit.
pub static ALL: [Tag; 16] = [
    tag("exo.forwarding.external", &[FORWARDING_RULE], Scope::Either, forwards_outside),
    tag("exo.inbox_rule.hide", &[HIDING_RULE], Scope::Either, hides_mail),
    tag("exo.mail_access.bulk", &[REMOTE_COLLECTION], Scope::Mailbox, reads_in_bulk),
    tag("exo.mail_access.app", &[REMOTE_COLLECTION], Scope::Mailbox, reads_by_app),
    tag("exo.mail_access.non_owner", &[REMOTE_COLLECTION], Scope::Mailbox, reads_for_another),
    tag("exo.permission.mailbox", &[DELEGATE], Scope::Cmdlet, grants_mailbox),
    tag("exo.permission.folder_everyone", &[DELEGATE], Scope::Either, grants_folder_to_everyone),
    tag("exo.rbac.impersonation", &[ACCOUNT_MANIPULATION], Scope::Cmdlet, gives_role),
    tag(AUDIT_DISABLED_NAME, &[CLOUD_LOGS], Scope::Cmdlet, weakens_audit),
    tag("exo.protection.weakened", &[TOOLS], Scope::Cmdlet, weakens_protection),
    tag("exo.transport_rule.changed", &[FORWARDING_RULE], Scope::Cmdlet, |reading, _| {
        changes(reading, &[Noun::TransportRule])
    }),
    tag("exo.connector.changed", &[FORWARDING_RULE], Scope::Cmdlet, |reading, _| {
        changes(reading, &[Noun::InboundConnector, Noun::OutboundConnector])
    }),
    tag("exo.domain.changed", &[TRUST], Scope::Cmdlet, |reading, _| {
        changes(reading, &[Noun::AcceptedDomain, Noun::FederatedDomain])
    }),
    tag("exo.delete.cover_tracks", &[MAILBOX_DATA], Scope::Mailbox, covers_tracks),
    tag("exo.mailbox_login.powershell", &[VALID_ACCOUNTS, INTERPRETER], Scope::Mailbox, logs_on_by_script),
    tag("exo.export", &[COLLECTION], Scope::Either, exports),
];

const AUDIT_DISABLED_NAME: &str = "exo.audit.disabled";

/// The bit of `exo.audit.disabled`, which is given even when tags are off: after it, records are missing.
const AUDIT_DISABLED: usize = 8;

/// The names of a set of tags.
pub fn names(tags: u32) -> impl Iterator<Item = &'static str> {
    of(tags).map(|tag| tag.name)
}

/// The tags of a set.
pub(crate) fn of(tags: u32) -> impl Iterator<Item = &'static Tag> {
    ALL.iter().enumerate().filter(move |(bit, _)| tags >> bit & 1 == 1).map(|(_, tag)| tag)
}

/// The tags of a record.
pub(crate) fn of_record(reading: &Reading<'_>, options: &RenderOptions) -> u32 {
    if !reading.exchange && reading.source == Source::Elsewhere && reading.cmdlet.is_none() {
        // Of other workloads, only the portal's exports concern mail.
        return u32::from(options.tags && exports(reading, options)) << (ALL.len() - 1);
    }
    let pointless = match (reading.cmdlet, reading.source) {
        (Some(_), Source::ExchangeMailbox) => None,
        (Some(_), _) => Some(Scope::Mailbox),
        (None, _) => Some(Scope::Cmdlet),
    };
    let mut found = 0;
    for (bit, tag) in ALL.iter().enumerate() {
        let asked = (options.tags || bit == AUDIT_DISABLED) && Some(tag.scope) != pointless;
        if asked && (tag.applies)(reading, options) {
            found |= 1 << bit;
        }
    }
    found
}

fn forwards_outside(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    reading.forwarding.as_ref().is_some_and(|forwarding| forwarding.has_external())
}

/// Folders that nobody looks into.
const HIDING_PLACES: [&str; 6] = ["rss", "deleted", "junk", "archive", "conversation history", "notes"];

/// Words in the conditions of rules that keep an intruder's mail, or warnings about it, from its reader.
const TELLING_WORDS: [&str; 14] = [
    "invoice",
    "payment",
    "payroll",
    "wire",
    "bank",
    "password",
    "hack",
    "phish",
    "fraud",
    "scam",
    "security",
    "suspicious",
    "mfa",
    "docusign",
];

fn hides_mail(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    let Some(rule) = &reading.inbox_rule else { return false };
    let into = |folder: &str| HIDING_PLACES.iter().any(|place| folder.to_lowercase().contains(place));
    let mut conditions = rule.subject.iter().chain(&rule.body).chain(&rule.subject_or_body);
    let telling = |word: &str| TELLING_WORDS.iter().any(|telling| word.to_lowercase().contains(telling));
    let no_letters = |name: &str| !name.is_empty() && !name.chars().any(char::is_alphanumeric);
    rule.delete == Some(true)
        || rule.mark_read == Some(true)
        || rule.move_to_folder.as_ref().is_some_and(|folder| into(folder))
        || conditions.any(|word| telling(word))
        || rule.name.as_ref().is_some_and(|name| no_letters(name))
}

fn is_read(reading: &Reading<'_>) -> bool {
    reading.source == Source::ExchangeMailbox
        && reading.operation.is_some_and(|operation| operation.is("MailItemsAccessed"))
}

fn reads_in_bulk(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    let count = || reading.record.get(Field::OperationCount).and_then(Json::int);
    is_read(reading)
        && (reading.parameters.is_true("IsThrottled") || count().is_some_and(|count| count >= 100))
}

/// Microsoft Graph, the resource that such access goes through.
const GRAPH: &str = "00000003-0000-0000-c000-000000000000";

/// How the ids of Microsoft's own services end, and those of its mail clients: Outlook desktop, Outlook mobile, the two
/// Outlooks on the web, and the substrate behind them.
const MICROSOFT_ENDINGS: [&str; 2] = ["-0000-0ff1-ce00-000000000000", "-0000-0000-c000-000000000000"];
const MICROSOFT_CLIENTS: [&str; 5] = [
    "d3590ed6-52b3-4102-aeff-aad2292ab01c",
    "27922004-5251-4030-b22d-91ecd9a37ea4",
    "5d661950-3475-41cd-a2c3-d671a3162bc1",
    "9199bf20-a13f-4107-85dc-02114787ef48",
    "13937bba-652e-4c46-b222-3003f4d1ff97",
];

fn reads_by_app(reading: &Reading<'_>, options: &RenderOptions) -> bool {
    if !is_read(reading) {
        return false;
    }
    let through_api = reading.record.text(Field::AppId).is_some_and(|app| app.is(GRAPH))
        || reading.client_protocol().is_some_and(|protocol| {
            ["REST", "RESTSystem", "WebServices", "EWS", "Graph"]
                .iter()
                .any(|api| protocol.eq_ignore_ascii_case(api))
        });
    let Some(app) = reading.app_id().filter(|_| through_api).map(Text::unescape) else { return false };
    let is_app = |id: &str| id.eq_ignore_ascii_case(&app);
    let own =
        app.get(8..).is_some_and(|end| MICROSOFT_ENDINGS.iter().any(|own| own.eq_ignore_ascii_case(end)));
    let client = MICROSOFT_CLIENTS.into_iter().any(is_app);
    !own && !client && !options.first_party_apps.iter().any(|id| is_app(id))
}

fn reads_for_another(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    let logon = || reading.record.get(Field::LogonType).and_then(Json::int);
    let external = || reading.record.get(Field::ExternalAccess).and_then(Json::bool);
    let read =
        reading.meaning.api == crate::operation::api::READ && reading.source == Source::ExchangeMailbox;
    read && (reading.is_owner() == Some(false)
        || matches!(logon(), Some(1 | 2 | 6))
        || external() == Some(true))
}

/// The cmdlet of a record of Exchange admin audit.
fn cmdlet<'a>(reading: &Reading<'a>) -> Option<Cmdlet<'a>> {
    reading.cmdlet.filter(|_| reading.source == Source::ExchangeAdmin)
}

/// Whether any text of a parameter has one of the words in it, in any case.
fn has_word(parameters: &Parameters<'_>, name: &str, words: &[&str]) -> bool {
    parameters.get(name).is_some_and(|value| text_has_word(value, words))
}

fn text_has_word(value: Json<'_>, words: &[&str]) -> bool {
    value.each().filter_map(Json::text).any(|text| {
        let text = text.unescape();
        let mut parts = text.split([',', ';', ' ']).map(str::trim);
        parts.any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
    })
}

/// Whether a parameter has a text, or a list with one, that is not empty.
fn names_any(parameters: &Parameters<'_>, name: &str) -> bool {
    parameters.get(name).is_some_and(|value| value.each().any(|item| item.filled_text().is_some()))
}

/// Exchange itself gives permissions to its own mailboxes all the time.
fn is_system(reading: &Reading<'_>) -> bool {
    reading.record.text(Field::UserId).is_some_and(|user| user.raw().starts_with("NT AUTHORITY"))
}

fn grants_mailbox(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    let Some(cmdlet) = cmdlet(reading).filter(|_| !is_system(reading)) else { return false };
    let parameters = &reading.parameters;
    let strong = ["FullAccess", "SendAs", "SendOnBehalf", "ChangeOwner", "ChangePermission"];
    match cmdlet.noun {
        Noun::MailboxPermission | Noun::RecipientPermission => {
            matches!(cmdlet.verb, Verb::Add | Verb::Set)
                && has_word(parameters, "AccessRights", &strong)
                && !has_word(parameters, "User", &["AUTHORITY\\SELF"])
        }
        Noun::Mailbox => names_any(parameters, "GrantSendOnBehalfTo"),
        _ => false,
    }
}

/// Rights and roles that let their holder read.
const READING_RIGHTS: [&str; 10] = [
    "ReadAny",
    "ReadItems",
    "Reviewer",
    "Author",
    "NonEditingAuthor",
    "PublishingAuthor",
    "Editor",
    "PublishingEditor",
    "Owner",
    "FullAccess",
];
const EVERYONE: [&str; 3] = ["Everyone", "Anonymous", "Default"];

fn grants_folder_to_everyone(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    if let Some(cmdlet) = cmdlet(reading) {
        return cmdlet.noun == Noun::MailboxFolderPermission
            && matches!(cmdlet.verb, Verb::Add | Verb::Set)
            && has_word(&reading.parameters, "User", &EVERYONE)
            && has_word(&reading.parameters, "AccessRights", &READING_RIGHTS);
    }
    let Some(member) = reading.folder_member() else { return false };
    let everyone = member.member_upn.is_some_and(|upn| upn.is_one_of(&EVERYONE))
        || member.member_sid.is_some_and(|sid| sid.is_one_of(&["S-1-1-0", "S-1-5-7"]));
    let grants = reading.operation.is_some_and(|operation| !operation.is("RemoveFolderPermissions"));
    grants && everyone && member.member_rights.is_some_and(|rights| text_has_word(rights, &READING_RIGHTS))
}

fn gives_role(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    cmdlet(reading).is_some_and(|cmdlet| {
        matches!(
            (cmdlet.verb, cmdlet.noun),
            (Verb::New, Noun::ManagementRoleAssignment) | (Verb::Add, Noun::RoleGroupMember)
        )
    })
}

/// How long audit records are kept unless somebody says otherwise, in days (Set-Mailbox, `AuditLogAgeLimit`).
const DEFAULT_AGE_LIMIT: u32 = 90;

fn weakens_audit(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    let Some(cmdlet) = reading.cmdlet else { return false };
    let parameters = &reading.parameters;
    if cmdlet.noun == Noun::UnifiedAuditLogRetentionPolicy {
        return matches!(cmdlet.verb, Verb::New | Verb::Set | Verb::Remove);
    }
    if cmdlet.verb != Verb::Set {
        return false;
    }
    let shorter = |name| parameters.text(name).is_some_and(|limit| shortens(&limit.unescape()));
    let reduced = |name| parameters.get(name).is_some_and(reduces);
    let narrowed = |name| parameters.get(name).is_some_and(|value| !text_has_word(value, &["*"]));
    match cmdlet.noun {
        Noun::Mailbox => {
            parameters.is_false("AuditEnabled")
                || ["AuditOwner", "AuditDelegate", "AuditAdmin"].into_iter().any(reduced)
                || shorter("AuditLogAgeLimit")
                || parameters.get("DefaultAuditSet").is_some()
        }
        Noun::OrganizationConfig => parameters.is_true("AuditDisabled"),
        Noun::MailboxAuditBypassAssociation => parameters.is_true("AuditBypassEnabled"),
        Noun::AdminAuditLogConfig => {
            parameters.is_false("AdminAuditLogEnabled")
                || parameters.is_false("UnifiedAuditLogIngestionEnabled")
                || ["AdminAuditLogCmdlets", "AdminAuditLogParameters"].into_iter().any(narrowed)
                || names_any(parameters, "AdminAuditLogExcludedCmdlets")
                || shorter("AdminAuditLogAgeLimit")
        }
        _ => false,
    }
}

/// Whether a set of audited actions is replaced or taken from, and not only added to: the record does not say what the
/// set was before.
fn reduces(value: Json<'_>) -> bool {
    let text = value.text().map(Text::unescape);
    !text.is_some_and(|text| text.starts_with("@{Add") && !text.contains("Remove"))
}

/// Whether a time span, `90.00:00:00` or a number of days, is shorter than the default.
fn shortens(limit: &str) -> bool {
    let days = match (limit.split_once('.'), limit.contains(':')) {
        (Some((days, _)), _) => days,
        (None, true) => "0",
        (None, false) => limit,
    };
    days.trim().parse::<u32>().is_ok_and(|days| days < DEFAULT_AGE_LIMIT)
}

fn weakens_protection(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    let Some(cmdlet) = reading.cmdlet else { return false };
    if !matches!(cmdlet.verb, Verb::Remove | Verb::Disable | Verb::Set) {
        return false;
    }
    match cmdlet.noun {
        Noun::DkimSigningConfig => reading.parameters.is_false("Enabled"),
        Noun::Other => cmdlet.noun_has(&["AntiPhish", "SafeLinks", "SafeAttachment", "MalwareFilter", "Dlp"]),
        _ => false,
    }
}

fn changes(reading: &Reading<'_>, nouns: &[Noun]) -> bool {
    reading.cmdlet.is_some_and(|cmdlet| {
        nouns.contains(&cmdlet.noun)
            && !matches!(cmdlet.verb, Verb::Get | Verb::Test | Verb::Search | Verb::Export)
    })
}

/// Folders whose mail is gone for its owner, or was sent by somebody.
const TRACK_FOLDERS: [&str; 5] = ["sent items", "recoverable items", "deletions", "purges", "versions"];
/// What mails about the security of an account say in their subject.
const WARNING_SUBJECTS: [&str; 9] = [
    "verification code",
    "security alert",
    "security info",
    "password",
    "mfa",
    "multi-factor",
    "unusual sign-in",
    "suspicious",
    "authenticator",
];

fn covers_tracks(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    let Some(operation) = reading.operation.filter(|_| reading.source == Source::ExchangeMailbox) else {
        return false;
    };
    let hard = operation.is("HardDelete");
    if !hard && !operation.is_one_of(&["SoftDelete", "MoveToDeletedItems"]) {
        return false;
    }
    let has = |text: Option<Text<'_>>, words: &[&str]| {
        text.is_some_and(|text| has_any(text.unescape().as_bytes(), words))
    };
    let folder = reading.record.get(Field::Folder).and_then(|folder| folder.get_text("Path"));
    (hard && has(folder, &TRACK_FOLDERS))
        || reading.all_items().any(|item| has(item.subject, &WARNING_SUBJECTS))
}

fn logs_on_by_script(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    let login = reading.operation.is_some_and(|operation| operation.is("MailboxLogin"));
    let client = reading.record.text(Field::ClientInfoString).filter(|_| login);
    let signs = ["powershell", "winrm", "imap", "pop3", "python", "curl"];
    client.is_some_and(|client| has_any(client.bytes(), &signs))
}

fn exports(reading: &Reading<'_>, _: &RenderOptions) -> bool {
    let exported = |noun| {
        matches!(noun, Noun::MailboxExportRequest | Noun::ComplianceSearch | Noun::ComplianceSearchAction)
    };
    match reading.cmdlet {
        Some(cmdlet) => cmdlet.verb == Verb::New && exported(cmdlet.noun),
        None => reading.operation.is_some_and(|operation| operation.is("SearchExported")),
    }
}

#[cfg(test)]
mod tests;
