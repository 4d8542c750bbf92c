//! Exchange mailbox audit: every action, by owner, delegate and administrator, on user, shared and group mailboxes.

use schemas::ContentType;
use serde_json::{Value, json};

use super::{Build, Kind, Logon, MailboxKind, Record, Scene, pairs};
use crate::cast::{CLIENTS, Client, DESKTOP, Mailbox, Person};

use Logon::{Admin, Delegate, Owner};

/// Somebody opens a mailbox.
pub(crate) struct Access<'s, 'a> {
    scene: &'s mut Scene<'a>,
    /// Nobody: the service itself.
    actor: Option<Person>,
    mailbox: Mailbox,
}

type Fill = fn(&mut Access<'_, '_>, &mut Record);
/// Operation, record type, variant, weight, who can do it, what the record holds.
type Row = (&'static str, i32, &'static str, u64, &'static [Logon], Fill);

const ALL: &[Logon] = &[Owner, Admin, Delegate];

/// The actions on user and shared mailboxes.
const ACTIONS: &[Row] = &[
    ("ApplyRecord", 2, "", 1, ALL, item),
    ("Copy", 3, "", 1, &[Admin], moved),
    ("Create", 2, "", 25, ALL, created),
    ("FolderBind", 2, "", 4, &[Admin, Delegate], folder_bind),
    ("HardDelete", 3, "", 20, ALL, deleted),
    ("MailboxLogin", 2, "", 20, &[Owner], login),
    ("MailItemsAccessed", 50, "bind", 300, ALL, bind),
    ("MailItemsAccessed", 50, "sync", 60, ALL, sync),
    ("MailItemsAccessed", 50, "throttled", 2, ALL, throttled),
    ("MessageBind", 2, "", 1, &[Admin], item),
    ("Move", 3, "", 30, ALL, moved),
    ("MoveToDeletedItems", 3, "", 40, ALL, to_deleted),
    ("RecordDelete", 3, "", 1, ALL, deleted),
    ("SearchQueryInitiatedExchange", 101, "", 5, &[Owner], search),
    ("Send", 2, "", 60, &[Owner, Admin], send),
    ("SendAs", 2, "", 4, &[Admin, Delegate], send_as),
    ("SendOnBehalf", 2, "", 4, &[Admin, Delegate], send_on_behalf),
    ("SoftDelete", 3, "", 30, ALL, deleted),
    ("Update", 2, "", 60, ALL, update),
    ("UpdateCalendarDelegation", 2, "", 1, &[Owner, Admin], calendar_delegation),
    ("UpdateComplianceTag", 2, "", 1, ALL, item),
    ("UpdateFolderPermissions", 2, "", 1, ALL, folder_permissions),
    ("AddFolderPermissions", 2, "", 2, ALL, folder_permissions),
    ("ModifyFolderPermissions", 2, "", 1, ALL, folder_permissions),
    ("RemoveFolderPermissions", 2, "", 1, ALL, folder_permissions),
    ("UpdateInboxRules", 2, "forward", 1, ALL, rule_forward),
    ("UpdateInboxRules", 2, "hide", 1, ALL, rule_hide),
    ("AttachmentAccess", 50, "", 8, &[Owner, Delegate], attachment_access),
    ("MailItemsAccessed", 19, "aggregated", 1, &[Owner], aggregated),
];

/// The fixed set on the mailboxes of Microsoft 365 groups.
const GROUP_ACTIONS: &[Row] = &[
    ("Create", 2, "", 3, &[Admin, Delegate], created),
    ("HardDelete", 3, "", 2, ALL, deleted),
    ("MoveToDeletedItems", 3, "", 2, ALL, to_deleted),
    ("SendAs", 2, "", 1, &[Admin, Delegate], send_as),
    ("SendOnBehalf", 2, "", 1, &[Admin, Delegate], send_on_behalf),
    ("SoftDelete", 3, "", 2, ALL, deleted),
    ("Update", 2, "", 4, ALL, update),
];

pub(super) fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut add = |rows: &[Row], mailbox, logons: &[Logon], divisor| {
        for &(operation, record_type, variant, weight, who, fill) in rows {
            for &logon in who.iter().filter(|logon| logons.contains(logon)) {
                // Most access is the owner's; what others do is rare, and what matters.
                let weight: u64 = if logon == Owner { weight } else { (weight / 20).max(1) } / divisor;
                kinds.push(Kind {
                    content_type: ContentType::Exchange,
                    operation,
                    record_type,
                    logon: Some(logon),
                    mailbox: Some(mailbox),
                    variant,
                    weight: weight.max(1),
                    build: Build::Mailbox(fill),
                });
            }
        }
    };
    add(ACTIONS, MailboxKind::User, ALL, 1);
    // Nobody owns a shared mailbox, so nobody opens it as its owner.
    add(ACTIONS, MailboxKind::Shared, &[Admin, Delegate], 1);
    add(GROUP_ACTIONS, MailboxKind::Group, ALL, 1);
    kinds
}

pub(super) fn record(kind: &Kind, scene: &mut Scene<'_>, fill: Fill) -> Record {
    let logon = kind.logon.unwrap_or(Owner);
    let mailbox_kind = kind.mailbox.unwrap_or(MailboxKind::User);
    let cast = scene.cast;
    // Folder permissions come in episodes: who was given them is who loses them.
    let paired = kind.operation.ends_with("FolderPermissions");
    let mut dice = if paired { scene.episode.clone() } else { scene.dice.clone() };
    let owner = cast.any_user(&mut dice);
    let mailbox = match mailbox_kind {
        MailboxKind::User => cast.mailbox_of(&owner),
        MailboxKind::Shared => cast.any_shared(&mut dice),
        MailboxKind::Group => cast.any_group(&mut dice),
    };
    let actor = match (logon, mailbox_kind) {
        (Owner, MailboxKind::User) => Some(owner),
        // A group's own mailbox and what configures it is the service at work.
        (Owner, _) => None,
        (Admin, MailboxKind::Group) if dice.once_in(2) => None,
        (Admin, _) => {
            let admin = cast.any_admin(&mut dice);
            Some(if admin.upn == mailbox.upn { cast.other_user(&mut dice, &admin) } else { admin })
        }
        (Delegate, _) => Some(cast.other_user(&mut dice, &owner)),
    };
    let client = match (kind.variant, logon) {
        ("sync", _) => DESKTOP,
        (_, Admin) => Client {
            info: dice.pick(&[
                "Client=Management;Action=MailboxSearch",
                "Client=MSExchangeRPC",
                "Client=WebServices;Action=EDiscovery",
            ]),
            app_id: "",
            process: None,
        },
        // Only what they can do: IMAP reads, PowerShell and POP3 log in.
        _ if kind.operation == "MailboxLogin" => dice.pick(&CLIENTS),
        _ if kind.operation == "MailItemsAccessed" => dice.pick(&CLIENTS[..8]),
        _ => dice.pick(&CLIENTS[..7]),
    };
    if !paired {
        scene.dice = dice;
    }
    let mut record = base(kind, scene, logon, actor.as_ref(), &mailbox, client);
    fill(&mut Access { scene, actor, mailbox }, &mut record);
    record
}

/// The fields of every mailbox record (schema: "Exchange Mailbox schema").
fn base(
    kind: &Kind,
    scene: &mut Scene<'_>,
    logon: Logon,
    actor: Option<&Person>,
    mailbox: &Mailbox,
    client: Client,
) -> Record {
    let mut record = scene.common(kind.operation, kind.record_type, "Exchange");
    let (cast, dice) = (scene.cast, &mut scene.dice);
    let failed = dice.below(200);
    record.put(
        "ResultStatus",
        match failed {
            0 => "Failed",
            1..=3 => "PartiallySucceeded",
            _ => "Succeeded",
        },
    );
    let service = kind.mailbox == Some(MailboxKind::Group) && actor.is_none();
    match actor {
        Some(person) => {
            record.put("UserKey", person.puid.as_str());
            record.put("UserType", if logon == Admin { 2 } else { 0 });
            record.put("UserId", person.upn.as_str());
            record.put("LogonUserSid", person.sid.as_str());
            if logon != Owner {
                record.put("LogonUserDisplayName", person.display.as_str());
            }
            let address = if dice.once_in(3) { person.ipv6.to_string() } else { person.ipv4.to_string() };
            // The first hop is sometimes a front-end server of the service, while the client's own address is beside it.
            if dice.once_in(4) {
                record.put(
                    "ClientIP",
                    format!("2001:db8:ffff:{:x}::{:x}", dice.below(0xffff), dice.below(0xff)),
                );
            } else if kind.record_type != 50 {
                record.put("ClientIP", address.as_str());
            }
            record.put("ClientIPAddress", address);
            record.put("TokenObjectId", person.object_id.to_string());
            record.put("TokenTenantId", cast.tenant.to_string());
        }
        None => {
            record.put("UserKey", "S-1-5-18");
            record.put("UserType", 2);
            record.put("UserId", if logon == Owner { mailbox.upn.as_str() } else { "S-1-5-18" });
            record.put("LogonUserSid", if logon == Owner { mailbox.sid.as_str() } else { "S-1-5-18" });
            record.put("ClientIP", "::1");
            record.put("ClientIPAddress", "::1");
        }
    }
    record.put(
        "ClientInfoString",
        if service { "Client=WebServices;Action=ConfigureGroupMailbox" } else { client.info },
    );
    if !client.app_id.is_empty() && !service {
        record.put("AppId", client.app_id);
    }
    if let Some((process, version)) = client.process {
        record.put("ClientProcessName", process);
        record.put("ClientVersion", version);
    }
    if client.info.starts_with("Client=REST") {
        let app = dice.guid();
        record.put("ClientAppId", app.to_string());
        record.put(
            "AppAccessContext",
            json!({ "APIId": client.app_id, "ClientAppId": app.to_string(), "IssuedAtTime": scene.at.format("%Y-%m-%dT%H:%M:%S").to_string(),
                    "UniqueTokenId": dice.guid().simple().to_string()[..22].to_owned(), "AADSessionId": dice.guid().to_string() }),
        );
        record.put("ClientRequestId", dice.guid().to_string());
    }
    if let Some(device) = client.info.split("DeviceId=").nth(1) {
        record.put("DeviceId", device);
    }
    record.put("ExternalAccess", service);
    record.put("InternalLogonType", if service { 1 } else { 0 });
    record.put("LogonType", logon.wire());
    record.put("MailboxGuid", mailbox.guid.to_string());
    record.put("MailboxOwnerSid", mailbox.sid.as_str());
    if mailbox.kind != MailboxKind::User {
        // Nobody: the well-known SID "self" (MS-DTYP 2.4.2.4).
        record.put("MailboxOwnerMasterAccountSid", "S-1-5-10");
    }
    record.put("MailboxOwnerUPN", mailbox.upn.as_str());
    record.put("OrganizationName", cast.organisation.as_str());
    record.put("OriginatingServer", cast.server(dice));
    record.put("SessionId", dice.guid().to_string());
    record
}

const SUBJECTS: [&str; 16] = [
    "Minutes of Tuesday's meeting",
    "Invoice 2024-0417",
    "RE: Holiday plan",
    "Your parcel is on its way",
    "Quarterly numbers",
    "FW: Contract draft v7",
    "Lunch?",
    "Password expires in 3 days",
    "Einladung: Sommerfest",
    "見積書の送付",
    "Re: Re: Server room \"B\"",
    "Payment reminder <final>",
    "Offsite agenda; please read",
    "Budget\tupdate",
    "🎉 Welcome aboard",
    "Fwd: Reisekostenabrechnung März",
];
const ATTACHMENTS: [&str; 6] = [
    "report.pdf (20480b)",
    "Budget (final).xlsx (48211b); notes; draft.txt (512b)",
    "image001.png (5120b)",
    "scan (1).pdf (731904b); scan (2).pdf (698112b)",
    "contract_v7.docx (88064b)",
    "Übersicht.pptx (1048576b)",
];
const FOLDERS: [&str; 8] = [
    "\\Inbox",
    "\\Inbox",
    "\\Inbox",
    "\\Sent Items",
    "\\Drafts",
    "\\Archive",
    "\\Inbox\\Projects\\Aurora",
    "\\Junk Email",
];

impl Access<'_, '_> {
    fn any_folder(&mut self) -> Value {
        let path = self.scene.dice.pick(&FOLDERS);
        self.folder(path)
    }

    fn folder(&self, path: &str) -> Value {
        self.scene.cast.folder(&self.mailbox, path)
    }

    fn any_item(&mut self, folder: Value) -> Value {
        let (cast, dice) = (self.scene.cast, &mut self.scene.dice);
        let mut item = json!({
            "Id": cast.item_id(&self.mailbox, dice),
            "InternetMessageId": cast.message_id(dice),
            "ParentFolder": folder,
            "SizeInBytes": 1200 + dice.below(400_000),
            "Subject": dice.pick(&SUBJECTS),
        });
        if dice.once_in(3) {
            item["Attachments"] = dice.pick(&ATTACHMENTS).into();
        }
        if dice.once_in(4) {
            item["ImmutableId"] = format!("LgAAAA{}", dice.guid().simple()).into();
            item["IsRecord"] = dice.once_in(10).into();
        }
        item
    }

    fn affected(&mut self, folder: &Value) -> Value {
        let count = 1 + self.scene.dice.below(4);
        (0..count).map(|_| self.any_item(folder.clone())).collect()
    }

    fn recipients(&mut self, record: &mut Record) {
        let count = 1 + self.scene.dice.below(4);
        let mut list = Vec::new();
        for number in 0..count {
            if number == 0 && self.scene.dice.once_in(3) {
                list.push(json!({ "Address": self.scene.cast.external(&mut self.scene.dice), "Name": "" }));
            } else {
                let person = self.scene.cast.any_user(&mut self.scene.dice);
                list.push(json!({ "Address": person.upn, "Name": person.display }));
            }
        }
        record.put("recipientCount", list.len());
        record.put("recipientList", list);
    }
}

fn item(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = access.any_folder();
    let mut item = access.any_item(folder);
    if matches!(
        record.get_mut("Operation").and_then(|op| op.as_str()),
        Some("ApplyRecord" | "UpdateComplianceTag")
    ) {
        item["ComplianceLabel"] = "Financial records 10 years".into();
        item["IsRecord"] = true.into();
    }
    record.put("Item", item);
}

fn created(access: &mut Access<'_, '_>, record: &mut Record) {
    let path =
        access.scene.dice.pick(&["\\Calendar", "\\Contacts", "\\Drafts", "\\Notes", "\\Tasks", "\\Inbox"]);
    let folder = access.folder(path);
    let item = access.any_item(folder);
    record.put("Item", item);
    if path == "\\Contacts" {
        let person = access.scene.cast.any_user(&mut access.scene.dice);
        record.put("ContactEmail1", json!({ "EmailAddress": person.upn, "DisplayName": person.display }));
    }
}

fn folder_bind(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = access.any_folder();
    record.put("Item", json!({ "Id": folder["Id"], "ParentFolder": folder }));
}

fn login(access: &mut Access<'_, '_>, record: &mut Record) {
    let (puid, smtp) = match &access.actor {
        Some(person) => (person.puid.clone(), person.upn.clone()),
        None => ("S-1-5-18".to_owned(), access.mailbox.upn.clone()),
    };
    if access.scene.dice.once_in(5) {
        record.put(
            "MbxLoginLocalQueueADLookupInfo",
            json!({ "Puid": puid, "OrgIdPuid": puid, "Smtp": smtp, "SearchScope": "Tenant", "ConsumerMailbox": false }),
        );
    }
}

fn access_properties(kind: &str, throttled: bool) -> Value {
    pairs(&[("MailAccessType", kind), ("IsThrottled", if throttled { "True" } else { "False" })])
}

fn bind(access: &mut Access<'_, '_>, record: &mut Record) {
    let mut total = 0;
    let mut folders = Vec::new();
    for _ in 0..=access.scene.dice.below(2) {
        let mut folder = access.any_folder();
        let count = 1 + access.scene.dice.below(6);
        let (cast, dice) = (access.scene.cast, &mut access.scene.dice);
        let items: Value = (0..count)
            .map(|_| {
                let mut item = json!({ "InternetMessageId": cast.message_id(dice) });
                if dice.once_in(2) {
                    item["SizeInBytes"] = (900 + dice.below(90_000)).into();
                    item["Subject"] = dice.pick(&SUBJECTS).into();
                }
                item
            })
            .collect();
        folder["FolderItems"] = items;
        total += count;
        folders.push(folder);
    }
    record.put("OperationProperties", access_properties("Bind", false));
    record.put("Folders", folders);
    record.put("OperationCount", total);
}

fn sync(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = access.any_folder();
    record.put("OperationProperties", access_properties("Sync", false));
    record.put("Item", json!({ "Id": folder["Id"], "ParentFolder": folder }));
    record.put("OperationCount", 1);
}

fn throttled(access: &mut Access<'_, '_>, record: &mut Record) {
    bind(access, record);
    record.put("OperationProperties", access_properties("Bind", true));
}

fn aggregated(access: &mut Access<'_, '_>, record: &mut Record) {
    bind(access, record);
    record.remove("Folders");
    record.put("AggregateDurationInSeconds", 120);
}

fn attachment_access(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = access.any_folder();
    let (cast, dice) = (access.scene.cast, &mut access.scene.dice);
    let count = 1 + dice.below(3);
    let items: Value = (0..count)
        .map(|_| json!({ "Id": cast.item_id(&access.mailbox, dice), "SizeInBytes": 4000 + dice.below(900_000) }))
        .collect();
    record.put("OperationProperties", pairs(&[("AttachmentAccessType", "Bind")]));
    record.put("Messages", json!([{ "Id": folder["Id"], "Path": folder["Path"], "MessageItems": items }]));
    record.put("OperationCount", count);
}

fn deleted(access: &mut Access<'_, '_>, record: &mut Record) {
    let hard =
        matches!(record.get_mut("Operation").and_then(|op| op.as_str()), Some("HardDelete" | "RecordDelete"));
    let folder = if hard { access.folder("\\Recoverable Items\\Deletions") } else { access.any_folder() };
    let affected = access.affected(&folder);
    record.put("AffectedItems", affected);
    record.put("CrossMailboxOperation", false);
    record.put("Folder", folder);
}

fn to_deleted(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = access.any_folder();
    let affected = access.affected(&folder);
    record.put("AffectedItems", affected);
    record.put("CrossMailboxOperation", false);
    record.put("DestFolder", access.folder("\\Deleted Items"));
    record.put("Folder", folder);
}

fn moved(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = access.any_folder();
    let affected = access.affected(&folder);
    let cross = access.mailbox.kind == MailboxKind::User && access.scene.dice.once_in(4);
    record.put("AffectedItems", affected);
    record.put("CrossMailboxOperation", cross);
    if cross {
        let other = access.scene.cast.any_shared(&mut access.scene.dice);
        record.put("DestMailboxId", other.guid.to_string());
        record.put("DestMailboxOwnerUPN", other.upn.as_str());
        record.put("DestMailboxOwnerSid", other.sid.as_str());
        record.put("DestMailboxOwnerMasterAccountSid", "S-1-5-10");
        record.put("DestFolder", access.scene.cast.folder(&other, "\\Inbox"));
    } else {
        record.put("DestFolder", access.folder("\\Archive\\2026"));
    }
    record.put("Folder", folder);
}

fn search(access: &mut Access<'_, '_>, record: &mut Record) {
    let text = access.scene.dice.pick(&[
        "wire transfer",
        "password OR passwort",
        "from:board \"salary\"",
        "kind:meetings aurora",
    ]);
    record.put("OperationProperties", pairs(&[("QueryText", text), ("QueryCategory", "Message")]));
    record.put("OperationCount", 1 + access.scene.dice.below(40));
}

fn send(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = access.folder("\\Drafts");
    let item = access.any_item(folder);
    record.put("Item", item);
    record.put("SaveToSentItems", !access.scene.dice.once_in(15));
    if access.scene.dice.below(3) > 0 {
        access.recipients(record);
    }
}

fn send_as(access: &mut Access<'_, '_>, record: &mut Record) {
    send(access, record);
    record.put("SendAsUserSmtp", access.mailbox.upn.as_str());
    record.put("SendAsUserMailboxGuid", access.mailbox.guid.to_string());
    if record.get_mut("recipientList").is_none() {
        access.recipients(record);
    }
}

fn send_on_behalf(access: &mut Access<'_, '_>, record: &mut Record) {
    send(access, record);
    record.put("SendOnBehalfOfUserSmtp", access.mailbox.upn.as_str());
    record.put("SendOnBehalfOfUserMailboxGuid", access.mailbox.guid.to_string());
}

fn update(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = access.any_folder();
    let item = access.any_item(folder);
    record.put("Item", item);
    let changed = access.scene.dice.pick(&[
        &["HtmlBody", "RecipientsAll", "AllAttachmentsHidden"][..],
        &["Subject"][..],
        &["FlagStatus", "FlagCompleteDate", "IsRead"][..],
        &["ResponseType", "AppointmentState"][..],
    ]);
    record.put("ModifiedProperties", changed);
}

/// A folder with the member whose rights on it changed.
fn member(access: &mut Access<'_, '_>, path: &str, rights: &str) -> Value {
    let mut folder = access.folder(path);
    let episode = &mut access.scene.episode.clone();
    let (upn, sid) = match episode.below(4) {
        0 => ("Everyone".to_owned(), "S-1-1-0".to_owned()),
        1 => ("Anonymous".to_owned(), "S-1-5-7".to_owned()),
        _ => {
            let person = access.scene.cast.any_user(episode);
            (person.upn, person.sid)
        }
    };
    folder["Name"] = path.trim_start_matches('\\').into();
    folder["MemberRights"] = rights.into();
    folder["MemberSid"] = sid.into();
    folder["MemberUpn"] = upn.into();
    folder
}

fn folder_permissions(access: &mut Access<'_, '_>, record: &mut Record) {
    let path = access.scene.episode.clone().pick(&["\\Inbox", "\\Calendar", "\\Sent Items"]);
    let rights = access.scene.episode.clone().pick(&[
        "ReadAny, Visible, FreeBusySimple, FreeBusyDetailed",
        "ReadAny, Create, EditOwned, DeleteOwned, EditAny, DeleteAny, CreateSubfolder, Owner, Contact, Visible",
        "ReadAny, Visible",
    ]);
    let folder = member(access, path, rights);
    record.put("Item", json!({ "Id": folder["Id"], "ParentFolder": folder }));
}

fn calendar_delegation(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = member(
        access,
        "\\Calendar",
        "ReadAny, Create, EditAny, DeleteAny, Visible, FreeBusySimple, FreeBusyDetailed",
    );
    record.put("Item", json!({ "Id": folder["Id"], "ParentFolder": folder }));
    record.put("OperationProperties", pairs(&[("DelegateUserFlags", "ReceivesMeetingMessages")]));
}

/// An inbox rule as Outlook makes it: the actions are JSON in a string.
fn rule(access: &mut Access<'_, '_>, record: &mut Record, name: &str, condition: &str, actions: &Value) {
    let id = access.scene.dice.roll() as i64;
    let operation = access.scene.dice.pick(&["AddMailboxRule", "ModifyMailboxRule"]);
    record.put(
        "OperationProperties",
        pairs(&[
            ("RuleOperation", operation),
            ("RuleId", &id.to_string()),
            ("RuleState", "Enabled, ExitAfterExecution"),
            ("RuleCondition", condition),
            ("RuleName", name),
            ("RuleProvider", "RuleOrganizer"),
            ("RuleActions", &actions.to_string()),
        ]),
    );
    let folder = access.folder("\\Inbox");
    record.put("Item", json!({ "Id": folder["Id"], "ParentFolder": folder }));
}

fn rule_forward(access: &mut Access<'_, '_>, record: &mut Record) {
    let to = access.scene.cast.external(&mut access.scene.dice);
    let actions = json!([{ "ActionType": "Forward", "Recipients": [to], "ForwardFlags": "None" }]);
    rule(access, record, "Copy to accountant", "(SubjectProperty contains \"invoice\")", &actions);
}

fn rule_hide(access: &mut Access<'_, '_>, record: &mut Record) {
    let folder = access.folder("\\RSS Subscriptions");
    let actions = json!([
        { "ActionType": "Move", "FolderId": folder["Id"], "FolderPath": folder["Path"] },
        { "ActionType": "MarkAsRead" },
    ]);
    rule(
        access,
        record,
        "..",
        "(BodyProperty contains \"phish\") OR (BodyProperty contains \"hacked\")",
        &actions,
    );
}
