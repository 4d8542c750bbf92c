//! What kind of thing each operation is: tables, in the order of the page that they come from (docs/SCHEMA.md,
//! "Operations"), and the rules for what is in no table. Names are compared without regard to case.

use crate::{
    cmdlet::{Cmdlet, Noun, Verb},
    json::Text,
};

/// An OCSF class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// 6003, what everything is that has no class of its own.
    Api,
    /// 4009.
    Email,
    /// 3005.
    UserAccess,
    /// 3006.
    Group,
    /// 3001.
    Account,
    /// 3002.
    Authentication,
}

/// What an operation is: a class, and the number of one of the class's activities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) class: Class,
    pub(crate) activity: u8,
}

/// The activities of API Activity (6003).
pub(crate) mod api {
    pub(crate) const UNKNOWN: u8 = 0;
    pub(crate) const CREATE: u8 = 1;
    pub(crate) const READ: u8 = 2;
    pub(crate) const UPDATE: u8 = 3;
    pub(crate) const DELETE: u8 = 4;
    pub(crate) const OTHER: u8 = 99;
}

/// The activities of User Access Management (3005) and the first two of Group Management (3006).
pub(crate) const ASSIGN: u8 = 1;
/// See [`ASSIGN`].
pub(crate) const REVOKE: u8 = 2;

/// The other activities of Group Management (3006).
pub(crate) mod group {
    pub(crate) const ADD_USER: u8 = 3;
    pub(crate) const REMOVE_USER: u8 = 4;
    pub(crate) const DELETE: u8 = 5;
    pub(crate) const CREATE: u8 = 6;
}

/// The activities of Account Change (3001).
mod account {
    pub(super) const CREATE: u8 = 1;
    pub(super) const ENABLE: u8 = 2;
    pub(super) const DISABLE: u8 = 5;
    pub(super) const DELETE: u8 = 6;
}

/// Send of Email Activity (4009), Logon of Authentication (3002).
const SEND: u8 = 1;
const LOGON: u8 = 1;

struct Row {
    operations: &'static [&'static str],
    class: Class,
    activity: u8,
    /// The activity when every event is to be an API Activity.
    api: u8,
}

const fn row(operations: &'static [&'static str], class: Class, activity: u8, api: u8) -> Row {
    Row { operations, class, activity, api }
}

/// Operations on a mailbox.
const MAILBOX: &[Row] = &[
    row(
        &[
            "MailItemsAccessed",
            "AttachmentAccess",
            "FolderBind",
            "MessageBind",
            "SearchQueryInitiatedExchange",
        ],
        Class::Api,
        api::READ,
        api::READ,
    ),
    row(&["Create", "Copy"], Class::Api, api::CREATE, api::CREATE),
    row(&["Update", "Move", "ApplyRecord", "UpdateInboxRules"], Class::Api, api::UPDATE, api::UPDATE),
    row(
        &["MoveToDeletedItems", "SoftDelete", "HardDelete", "RecordDelete", "PriorityCleanupDelete"],
        Class::Api,
        api::DELETE,
        api::DELETE,
    ),
    row(&["Send", "SendAs", "SendOnBehalf"], Class::Email, SEND, api::CREATE),
    row(
        &[
            "AddFolderPermissions",
            "ModifyFolderPermissions",
            "UpdateFolderPermissions",
            "UpdateCalendarDelegation",
            "AddMailboxPermissions",
        ],
        Class::UserAccess,
        ASSIGN,
        api::UPDATE,
    ),
    row(&["RemoveFolderPermissions"], Class::UserAccess, REVOKE, api::UPDATE),
    row(&["MailboxLogin"], Class::Authentication, LOGON, api::READ),
    // Operations of the compliance portal that are about mail.
    row(&["SearchCreated"], Class::Api, api::CREATE, api::CREATE),
    row(&["SearchExported", "AdminMailAccess"], Class::Api, api::READ, api::READ),
];

struct Cmdlets {
    verbs: &'static [Verb],
    nouns: &'static [Noun],
    class: Class,
    activity: u8,
}

const fn cmdlets(verbs: &'static [Verb], nouns: &'static [Noun], class: Class, activity: u8) -> Cmdlets {
    Cmdlets { verbs, nouns, class, activity }
}

const PERMISSIONS: &[Noun] =
    &[Noun::MailboxPermission, Noun::RecipientPermission, Noun::MailboxFolderPermission];
const ROLES: &[Noun] = &[Noun::ManagementRoleAssignment];
const MEMBERS: &[Noun] = &[Noun::RoleGroupMember, Noun::DistributionGroupMember, Noun::UnifiedGroupLinks];
const GROUPS: &[Noun] = &[Noun::RoleGroup, Noun::DistributionGroup, Noun::UnifiedGroup];
const ACCOUNTS: &[Noun] =
    &[Noun::Mailbox, Noun::MailUser, Noun::RemoteMailbox, Noun::MailContact, Noun::User];

/// Cmdlets with a class of their own. `New-ManagementRoleAssignment` gives a role to a user or to a group, which only its
/// parameters tell, so it is looked at again where they are known.
const CMDLETS: &[Cmdlets] = &[
    cmdlets(&[Verb::Add, Verb::Set], PERMISSIONS, Class::UserAccess, ASSIGN),
    cmdlets(&[Verb::Remove], PERMISSIONS, Class::UserAccess, REVOKE),
    cmdlets(&[Verb::New], ROLES, Class::UserAccess, ASSIGN),
    cmdlets(&[Verb::Remove], ROLES, Class::UserAccess, REVOKE),
    cmdlets(&[Verb::Add], MEMBERS, Class::Group, group::ADD_USER),
    cmdlets(&[Verb::Remove], MEMBERS, Class::Group, group::REMOVE_USER),
    cmdlets(&[Verb::New], GROUPS, Class::Group, group::CREATE),
    cmdlets(&[Verb::Remove], GROUPS, Class::Group, group::DELETE),
    cmdlets(&[Verb::New], ACCOUNTS, Class::Account, account::CREATE),
    cmdlets(&[Verb::Enable], ACCOUNTS, Class::Account, account::ENABLE),
    cmdlets(&[Verb::Disable], ACCOUNTS, Class::Account, account::DISABLE),
    cmdlets(&[Verb::Remove], ACCOUNTS, Class::Account, account::DELETE),
];

impl Cmdlet<'_> {
    /// What a cmdlet is that has no class of its own. A verb that is not here changes something.
    fn activity(self) -> u8 {
        match self.verb {
            Verb::New | Verb::Add | Verb::Import | Verb::Install => api::CREATE,
            Verb::Get | Verb::Search | Verb::Test | Verb::Export => api::READ,
            Verb::Remove | Verb::Uninstall | Verb::Clear | Verb::Purge => api::DELETE,
            _ => api::UPDATE,
        }
    }

    /// Whether the verb tells a cmdlet of another workload from an operation that merely has a hyphen in its name.
    fn is_known_verb(self) -> bool {
        !matches!(self.verb, Verb::Initialize | Verb::Suspend | Verb::Other)
    }
}

/// Where an operation comes from, as far as its meaning hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Exchange admin audit: the operation is a cmdlet.
    ExchangeAdmin,
    /// Exchange mailbox audit.
    ExchangeMailbox,
    /// Any other workload.
    Elsewhere,
}

/// What an operation is, in its own class and as an API Activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) kind: Kind,
    /// The activity when every event is to be an API Activity.
    pub(crate) api: u8,
}

/// Looks an operation up.
pub(crate) fn meaning(operation: Option<Text<'_>>, cmdlet: Option<Cmdlet<'_>>, source: Source) -> Meaning {
    let Some(operation) = operation else { return of_api(api::UNKNOWN) };
    match cmdlet {
        Some(cmdlet) if source == Source::ExchangeAdmin => {
            let of = |row: &&Cmdlets| row.verbs.contains(&cmdlet.verb) && row.nouns.contains(&cmdlet.noun);
            let kind = CMDLETS.iter().find(of).map(|row| Kind { class: row.class, activity: row.activity });
            let api = cmdlet.activity();
            return kind.map_or_else(|| of_api(api), |kind| Meaning { kind, api });
        }
        Some(cmdlet) if cmdlet.is_known_verb() => return of_api(cmdlet.activity()),
        _ => {}
    }
    let listed = |row: &&Row| source != Source::ExchangeAdmin && operation.is_one_of(row.operations);
    match MAILBOX.iter().find(listed) {
        // `Send` of another workload is no mail, and nobody logs on to a mailbox there; `Create` is the same everywhere.
        Some(row) if source == Source::ExchangeMailbox || row.class == Class::Api => {
            Meaning { kind: Kind { class: row.class, activity: row.activity }, api: row.api }
        }
        _ => of_api(api::OTHER),
    }
}

/// Every operation that has a row of its own in the tables.
pub(crate) fn tabled() -> impl Iterator<Item = String> {
    let mailbox = MAILBOX.iter().flat_map(|row| row.operations).map(|name| (*name).to_owned());
    let cmdlets = CMDLETS.iter().flat_map(|row| {
        row.verbs
            .iter()
            .flat_map(|verb| row.nouns.iter().map(move |noun| format!("{}-{}", verb.name(), noun.name())))
    });
    mailbox.chain(cmdlets)
}

fn of_api(activity: u8) -> Meaning {
    Meaning { kind: Kind { class: Class::Api, activity }, api: activity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::scan::scan_value;

    fn look_up(operation: &str, source: Source) -> (Class, u8, u8) {
        let quoted = format!("\"{operation}\"");
        let text = scan_value(&quoted).unwrap().text();
        let Meaning { kind, api } = meaning(text, Cmdlet::named(operation), source);
        (kind.class, kind.activity, api)
    }

    /// The page's table, line by line.
    #[test]
    fn operations_on_mailboxes_are_what_the_table_says() {
        for (operations, class, activity) in [
            (
                "MailItemsAccessed AttachmentAccess FolderBind MessageBind SearchQueryInitiatedExchange",
                Class::Api,
                api::READ,
            ),
            ("Create Copy", Class::Api, api::CREATE),
            ("Update Move ApplyRecord UpdateInboxRules", Class::Api, api::UPDATE),
            (
                "MoveToDeletedItems SoftDelete HardDelete RecordDelete PriorityCleanupDelete",
                Class::Api,
                api::DELETE,
            ),
            ("Send SendAs SendOnBehalf", Class::Email, 1),
            (
                "AddFolderPermissions ModifyFolderPermissions UpdateFolderPermissions UpdateCalendarDelegation \
                 AddMailboxPermissions",
                Class::UserAccess,
                1,
            ),
            ("RemoveFolderPermissions", Class::UserAccess, 2),
            ("MailboxLogin", Class::Authentication, 1),
            ("SomethingNew", Class::Api, api::OTHER),
        ] {
            for operation in operations.split(' ') {
                let expected = (class, activity);
                for spelt in [operation.to_owned(), operation.to_lowercase()] {
                    let (class, activity, _) = look_up(&spelt, Source::ExchangeMailbox);
                    assert_eq!((class, activity), expected, "{spelt}");
                }
            }
        }
    }

    #[test]
    fn cmdlets_are_what_the_table_says() {
        for (operations, class, activity) in [
            (
                "Add-MailboxPermission Set-MailboxPermission Add-RecipientPermission Set-MailboxFolderPermission \
                 New-ManagementRoleAssignment",
                Class::UserAccess,
                1,
            ),
            (
                "Remove-MailboxPermission Remove-RecipientPermission Remove-MailboxFolderPermission \
                 Remove-ManagementRoleAssignment",
                Class::UserAccess,
                2,
            ),
            ("Add-RoleGroupMember Add-DistributionGroupMember Add-UnifiedGroupLinks", Class::Group, 3),
            (
                "Remove-RoleGroupMember Remove-DistributionGroupMember Remove-UnifiedGroupLinks",
                Class::Group,
                4,
            ),
            ("Remove-RoleGroup Remove-DistributionGroup Remove-UnifiedGroup", Class::Group, 5),
            ("New-RoleGroup New-DistributionGroup New-UnifiedGroup", Class::Group, 6),
            ("New-Mailbox New-MailUser New-RemoteMailbox New-MailContact New-User", Class::Account, 1),
            ("Enable-Mailbox Enable-MailUser", Class::Account, 2),
            ("Disable-Mailbox disable-mailcontact", Class::Account, 5),
            ("Remove-Mailbox REMOVE-USER", Class::Account, 6),
            (
                "Set-Mailbox set-InboxRule Enable-InboxRule Set-CASMailbox Update-RoleGroupMember Start-Something",
                Class::Api,
                api::UPDATE,
            ),
            (
                "New-InboxRule New-TransportRule New-ComplianceSearch Install-ResourceConfig Import-X",
                Class::Api,
                api::CREATE,
            ),
            ("Get-Mailbox Search-Mailbox Test-X Export-X", Class::Api, api::READ),
            ("Remove-InboxRule Clear-MobileDevice Uninstall-X Purge-X", Class::Api, api::DELETE),
            ("Create NoCmdlet", Class::Api, api::OTHER),
        ] {
            for operation in operations.split(' ') {
                let (found, found_activity, api) = look_up(operation, Source::ExchangeAdmin);
                assert_eq!((found, found_activity), (class, activity), "{operation}");
                assert!(class != Class::Api || api == activity, "{operation}");
            }
        }
    }

    #[test]
    fn other_workloads_are_told_by_their_verbs() {
        for (operation, activity) in [
            ("SearchCreated", api::CREATE),
            ("SearchExported", api::READ),
            ("AdminMailAccess", api::READ),
            ("Get-DlpSiDetectionsReport", api::READ),
            ("Set-DlpPolicy", api::UPDATE),
            ("Send", api::OTHER),
            ("MailboxLogin", api::OTHER),
            ("FileDownloaded", api::OTHER),
            ("Sign-in", api::OTHER),
            ("Update service principal.", api::OTHER),
        ] {
            let expected = (Class::Api, activity, activity);
            assert_eq!(look_up(operation, Source::Elsewhere), expected, "{operation}");
        }
        assert_eq!(meaning(None, None, Source::ExchangeAdmin), of_api(api::UNKNOWN));
    }
}
