//! The columns of Sentinel's `OfficeActivity` table. Nobody can write into that table, but rules for it run on another table
//! with the same columns, once its name is put in.
//!
//! A column holds what Microsoft's own connector puts there: numbers of enumerations by their names, lists and objects as
//! JSON text. What `OfficeActivity` has no column for stands in `AdditionalFields` under its own name, as does what does not
//! fit the type of its column. These columns are not Microsoft's: `AdditionalFields`, `AppAccessContext`, `CreationTime`
//! (Sentinel moves `TimeGenerated` when it is more than two days past), `LongColumns` (those that Sentinel will cut),
//! `SessionId`, `SrcIpAddr_n` and `SrcPort_n` (the client's address, taken apart), `Tags`.

use schemas::time::parse_utc;

use super::{
    column::{Column, ColumnKind, Table, boolean, datetime, dynamic, int, string},
    meaning::{self, says_number},
    row::Row,
};
use crate::{
    address::Host,
    json::{Json, Kind, Text},
    ocsf::unmapped::left_over,
    reading::{Reading, is_email},
    record::{Field, FieldSet},
};

const TIME_GENERATED: Column = datetime("TimeGenerated").required();
const OFFICE_ID: Column = string("OfficeId").required();
const RECORD_TYPE: Column = string("RecordType");
const USER_TYPE: Column = string("UserType");
const LOGON_TYPE: Column = string("Logon_Type");
const ORGANIZATION_ID: Column = string("OrganizationId").required();
const USER_DOMAIN: Column = string("UserDomain");
const CLIENT_IP: Column = string("ClientIP");
const CLIENT_IP_ADDRESS: Column = string("Client_IPAddress");
const SRC_IP_ADDR: Column = string("SrcIpAddr_n");
const SRC_PORT: Column = int("SrcPort_n");
const ITEM_NAME: Column = string("ItemName");
const TAGS: Column = dynamic("Tags");
const ADDITIONAL_FIELDS: Column = dynamic("AdditionalFields");
const LONG_COLUMNS: Column = string("LongColumns");

/// Columns that are worked out.
const DERIVED: [Column; 15] = [
    TIME_GENERATED,
    OFFICE_ID,
    RECORD_TYPE,
    USER_TYPE,
    LOGON_TYPE,
    ORGANIZATION_ID,
    USER_DOMAIN,
    CLIENT_IP,
    CLIENT_IP_ADDRESS,
    SRC_IP_ADDR,
    SRC_PORT,
    ITEM_NAME,
    TAGS,
    ADDITIONAL_FIELDS,
    LONG_COLUMNS,
];

/// Columns that hold a field of the record which the mapping knows.
const KNOWN: [(Field, Column); 44] = [
    (Field::CreationTime, string("CreationTime")),
    (Field::Operation, string("Operation")),
    (Field::Workload, string("OfficeWorkload")),
    (Field::UserId, string("UserId")),
    (Field::UserKey, string("UserKey")),
    (Field::ResultStatus, string("ResultStatus")),
    (Field::ObjectId, string("OfficeObjectId")),
    (Field::OrganizationName, string("OrganizationName")),
    (Field::Parameters, string("Parameters")),
    (Field::OperationProperties, dynamic("OperationProperties")),
    (Field::ModifiedProperties, string("ModifiedProperties")),
    (Field::ModifiedObjectResolvedName, string("ModifiedObjectResolvedName")),
    (Field::ExternalAccess, string("ExternalAccess")),
    (Field::OriginatingServer, string("OriginatingServer")),
    (Field::ClientInfoString, string("ClientInfoString")),
    (Field::ClientMachineName, string("ClientMachineName")),
    (Field::ClientProcessName, string("ClientProcessName")),
    (Field::ClientVersion, string("ClientVersion")),
    (Field::ClientAppId, string("ClientAppId")),
    (Field::AppId, string("AppId")),
    (Field::SessionId, string("SessionId")),
    (Field::AppAccessContext, string("AppAccessContext")),
    (Field::InternalLogonType, int("InternalLogonType")),
    (Field::LogonUserSid, string("LogonUserSid")),
    (Field::LogonUserDisplayName, string("LogonUserDisplayName")),
    (Field::MailboxGuid, string("MailboxGuid")),
    (Field::MailboxOwnerUpn, string("MailboxOwnerUPN")),
    (Field::MailboxOwnerSid, string("MailboxOwnerSid")),
    (Field::MailboxOwnerMasterAccountSid, string("MailboxOwnerMasterAccountSid")),
    (Field::CrossMailboxOperations, boolean("CrossMailboxOperations")),
    (Field::DestMailboxId, string("DestMailboxId")),
    (Field::DestMailboxOwnerUpn, string("DestMailboxOwnerUPN")),
    (Field::DestMailboxOwnerSid, string("DestMailboxOwnerSid")),
    (Field::DestMailboxOwnerMasterAccountSid, string("DestMailboxOwnerMasterAccountSid")),
    (Field::SendAsUserSmtp, string("SendAsUserSmtp")),
    (Field::SendAsUserMailboxGuid, string("SendAsUserMailboxGuid")),
    (Field::SendOnBehalfOfUserSmtp, string("SendOnBehalfOfUserSmtp")),
    // Microsoft spells the column in another way than the field.
    (Field::SendOnBehalfOfUserMailboxGuid, string("SendonBehalfOfUserMailboxGuid")),
    (Field::Folder, string("Folder")),
    (Field::DestFolder, string("DestFolder")),
    (Field::Folders, string("Folders")),
    (Field::Item, string("Item")),
    (Field::AffectedItems, string("AffectedItems")),
    (Field::ActorIpAddress, string("ActorIpAddress")),
];

/// Columns whose field many records spell in another way, and how.
const SPELT_OTHERWISE: [(Field, Field, Column); 3] = [
    (Field::CrossMailboxOperations, Field::CrossMailboxOperation, boolean("CrossMailboxOperations")),
    (Field::SendAsUserSmtp, Field::SendAsUserSmpt, string("SendAsUserSmtp")),
    (Field::SendOnBehalfOfUserSmtp, Field::SendOnBehalfOfUserSmpt, string("SendOnBehalfOfUserSmtp")),
];

/// Columns that hold a field of the record which the mapping knows in other workloads only.
const OF_OTHERS: [(Field, Column); 3] = [
    (Field::UserAgent, string("UserAgent")),
    (Field::ApplicationId, string("ApplicationId")),
    (Field::ItemType, string("ItemType")),
];

/// Columns that hold a field of another workload, in the order of the field's name.
// Source: Azure Monitor Logs reference, OfficeActivity; Office 365 Management Activity API schema.
const OTHERS: [(&str, Column); 61] = [
    ("AADGroupId", string("AADGroupId")),
    ("AADTarget", string("AADTarget")),
    ("Activity", string("Activity")),
    ("Actor", string("Actor")),
    ("ActorContextId", string("ActorContextId")),
    ("AddOnGuid", string("AddOnGuid")),
    ("AddOnName", string("AddonName")),
    ("AddOnType", string("AddOnType")),
    ("AppDistributionMode", string("AppDistributionMode")),
    ("Application", string("Application")),
    ("AzureADAppId", string("AzureADAppId")),
    ("AzureActiveDirectoryEventType", string("AzureActiveDirectory_EventType")),
    ("ChannelGuid", string("ChannelGuid")),
    ("ChannelName", string("ChannelName")),
    ("ChannelType", string("ChannelType")),
    ("ChatName", string("ChatName")),
    ("ChatThreadId", string("ChatThreadId")),
    ("Client", string("Client")),
    ("CommunicationType", string("CommunicationType")),
    ("CustomEvent", string("CustomEvent")),
    ("DataCenterSecurityEventType", int("DataCenterSecurityEventType")),
    ("DestinationFileExtension", string("DestinationFileExtension")),
    ("DestinationFileName", string("DestinationFileName")),
    ("DestinationRelativeUrl", string("DestinationRelativeUrl")),
    ("EffectiveOrganization", string("EffectiveOrganization")),
    ("EventData", string("Event_Data")),
    ("EventSource", string("EventSource")),
    ("ExtendedProperties", string("ExtendedProperties")),
    ("ExtraProperties", dynamic("ExtraProperties")),
    ("GenericInfo", string("GenericInfo")),
    ("InterSystemsId", string("InterSystemsId")),
    ("IntraSystemId", string("IntraSystemId")),
    ("IsManagedDevice", boolean("IsManagedDevice")),
    ("ItemName", ITEM_NAME),
    ("LoginStatus", int("LoginStatus")),
    ("MachineDomainInfo", string("MachineDomainInfo")),
    ("MachineId", string("MachineId")),
    ("Members", dynamic("Members")),
    ("MessageId", string("MessageId")),
    ("Name", string("Name")),
    ("NewValue", string("NewValue")),
    ("OldValue", string("OldValue")),
    ("OperationScope", string("OperationScope")),
    ("ResultReasonType", string("ResultReasonType")),
    ("SharingType", string("SharingType")),
    ("Site", string("Site_")),
    ("SiteUrl", string("Site_Url")),
    ("SourceFileExtension", string("SourceFileExtension")),
    ("SourceFileName", string("SourceFileName")),
    ("SourceName", string("Source_Name")),
    ("SourceRelativeUrl", string("SourceRelativeUrl")),
    ("StartTime", datetime("Start_Time")),
    ("SupportTicketId", string("SupportTicketId")),
    ("TabType", string("TabType")),
    ("TargetContextId", string("TargetContextId")),
    ("TargetUserId", string("TargetUserId")),
    ("TargetUserOrGroupName", string("TargetUserOrGroupName")),
    ("TargetUserOrGroupType", string("TargetUserOrGroupType")),
    ("TeamGuid", string("TeamGuid")),
    ("TeamName", string("TeamName")),
    ("UserSharedWith", string("UserSharedWith")),
];

/// All columns; `ItemName` is in two of the lists.
const COUNT: usize = DERIVED.len() + KNOWN.len() + OF_OTHERS.len() + OTHERS.len() - 1;

static COLUMNS: [Column; COUNT] = {
    let mut columns = [TIME_GENERATED; COUNT];
    let (mut at, mut index) = (0, 0);
    while index < DERIVED.len() {
        columns[at] = DERIVED[index];
        at += 1;
        index += 1;
    }
    index = 0;
    while index < KNOWN.len() {
        columns[at] = KNOWN[index].1;
        at += 1;
        index += 1;
    }
    index = 0;
    while index < OF_OTHERS.len() {
        columns[at] = OF_OTHERS[index].1;
        at += 1;
        index += 1;
    }
    index = 0;
    while index < OTHERS.len() {
        if OTHERS[index].0.len() != ITEM_NAME.name.len() || OTHERS[index].0.as_bytes()[0] != b'I' {
            columns[at] = OTHERS[index].1;
            at += 1;
        }
        index += 1;
    }
    columns
};

pub(super) static TABLES: [Table; 1] =
    [Table { name: "OfficeActivity", columns: &COLUMNS, native: Some("AdditionalFields") }];

/// Appends a record.
pub(crate) fn write(reading: &Reading<'_>, tags: u32, out: &mut Vec<u8>) {
    let record = reading.record;
    let mut row = Row::new(out);
    let mut used = FieldSet::default();
    row.time(TIME_GENERATED, reading);
    row.uid(OFFICE_ID, reading);
    if record.text(Field::Id).is_some() {
        used.insert(Field::Id);
    }
    named(&mut row, reading, &mut used);
    for (field, column) in KNOWN.iter().chain(&OF_OTHERS) {
        if let Some(value) = record.get(*field)
            && put(&mut row, *column, value)
        {
            used.insert(*field);
        }
    }
    for (field, other, column) in &SPELT_OTHERWISE {
        if let Some(value) = record.get(*other)
            && record.get(*field).is_none_or(|value| value.kind() == Kind::Null)
            && put(&mut row, *column, value)
        {
            used.insert(*other);
        }
    }
    addresses(&mut row, reading, &mut used);
    let mut others = record.others().to_vec();
    let mut placed = Vec::new();
    others.retain(|(name, value)| {
        let column = column_of(*name).filter(|column| !placed.contains(&column.name));
        let Some(column) = column else { return true };
        placed.push(column.name);
        !put(&mut row, column, *value)
    });
    if !placed.contains(&ITEM_NAME.name)
        && let Some(subject) = reading.all_items().find_map(|item| item.subject)
    {
        row.text(ITEM_NAME, subject);
    }
    row.tags(TAGS, tags);
    let rest = row.object(ADDITIONAL_FIELDS);
    left_over(record, used, &others, |_| false, &mut row.w);
    row.close(ADDITIONAL_FIELDS, rest);
    if !row.long().is_empty() {
        let names = row.long().join(",");
        row.fragment(LONG_COLUMNS, &names);
    }
    row.finish();
}

/// What Microsoft's connector writes by its name: record type, user type, logon type. The number stays beside it.
fn named(row: &mut Row<'_>, reading: &Reading<'_>, used: &mut FieldSet) {
    let record = reading.record;
    for (column, field, name) in [
        (RECORD_TYPE, Field::RecordType, meaning::record_type(reading)),
        (USER_TYPE, Field::UserType, meaning::user_type(reading)),
        (LOGON_TYPE, Field::LogonType, meaning::logon(reading)),
    ] {
        match (name, record.get(field)) {
            (Some(name), _) => row.fragment(column, name),
            // A number without a name stands for itself.
            (None, Some(value)) if put(row, column, value) => used.insert(field),
            _ => {}
        }
    }
    match record.text(Field::OrganizationId) {
        Some(id) => {
            row.text(ORGANIZATION_ID, id);
            used.insert(Field::OrganizationId);
        }
        None => row.fragment(ORGANIZATION_ID, &reading.origin.tenant.to_string()),
    }
    let user = record.text(Field::UserId).map(Text::raw).filter(|user| is_email(user));
    row.maybe_fragment(USER_DOMAIN, user.and_then(|user| user.split_once('@')).map(|(_, domain)| domain));
}

/// The client's address as the record has it, in both columns that rules look into, and taken apart.
fn addresses(row: &mut Row<'_>, reading: &Reading<'_>, used: &mut FieldSet) {
    let record = reading.record;
    let (ip, address) = (record.text(Field::ClientIp), record.text(Field::ClientIpAddress));
    row.maybe_text(CLIENT_IP, ip.or(address));
    row.maybe_text(CLIENT_IP_ADDRESS, address.or(ip));
    for (field, text) in [(Field::ClientIp, ip), (Field::ClientIpAddress, address)] {
        if text.is_some() {
            used.insert(field);
        }
    }
    let Some(client) = reading.client else { return };
    if let Host::Ip(ip) = client.address.host {
        row.fragment(SRC_IP_ADDR, ip.as_str());
    }
    if let Some(port) = client.address.port {
        row.int(SRC_PORT, i64::from(port));
    }
}

fn column_of(name: Text<'_>) -> Option<Column> {
    let name = name.plain()?;
    let place = OTHERS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    Some(OTHERS[place].1)
}

/// Writes a value when it fits its column. Whether the column then says all that the record said.
fn put(row: &mut Row<'_>, column: Column, value: Json<'_>) -> bool {
    match (column.kind, value.kind()) {
        (_, Kind::Null) => false,
        (ColumnKind::String, Kind::String) => {
            row.fragment(column, value.text().map_or("", Text::raw));
            true
        }
        (ColumnKind::String, _) => {
            row.json_text(column, value.raw());
            true
        }
        (ColumnKind::Dynamic, _) => {
            row.json(column, value);
            true
        }
        (ColumnKind::Int, _) => match value.int().filter(|number| i32::try_from(*number).is_ok()) {
            Some(number) => {
                row.int(column, number);
                says_number(value, number)
            }
            None => false,
        },
        (ColumnKind::Bool, _) => match value.bool() {
            Some(truth) => {
                row.bool(column, truth);
                value.kind() == Kind::Bool
            }
            None => false,
        },
        (ColumnKind::DateTime, Kind::String) => {
            let text = value.text().and_then(Text::plain);
            if let Some(time) = text
                .and_then(parse_utc)
                .and_then(|time| crate::ocsf::metadata::datetime(time.timestamp_millis()))
            {
                row.fragment(column, &time);
            }
            // The text may have said more than a time in milliseconds does.
            false
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_each_column_is_there_once() {
        assert!(OTHERS.is_sorted_by(|one, other| one.0 < other.0));
        let mut names: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNT);
    }
}
