//! The types that Elastic's `o365` integration gives the fields under `o365.audit`, and which values its index takes for them.

use schemas::time::parse_plain;

use crate::{
    json::{Json, Kind, Text},
    names::Names,
    view::meaning::says_number,
};

/// What a field holds there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Text, or a number or truth value as text.
    Keyword,
    Boolean,
    Long,
    Date,
    /// Fields of its own.
    Object,
}

impl Type {
    /// The type of a field that the integration knows.
    pub(super) fn of(name: &str) -> Option<Self> {
        static KNOWN: Names<1024> = Names::new(&NAMES);
        KNOWN.place(name.as_bytes()).map(|place| FIELDS[place].1)
    }

    /// Whether the index takes a value, or each of a list. It refuses the whole document otherwise.
    pub(super) fn takes(self, value: Json<'_>) -> bool {
        match value.kind() {
            Kind::Null => true,
            Kind::Array => value.items().all(|item| item.kind() != Kind::Array && self.takes(item)),
            kind => match self {
                Self::Keyword => kind != Kind::Object,
                Self::Boolean => kind == Kind::Bool || matches!(value.raw(), r#""true""# | r#""false""#),
                Self::Long => value.int().is_some_and(|n| kind == Kind::Number || says_number(value, n)),
                // A number is one of milliseconds.
                Self::Date if kind == Kind::Number => value.int().is_some(),
                Self::Date => value.text().and_then(Text::plain).is_some_and(is_date),
                Self::Object => kind == Kind::Object,
            },
        }
    }
}

/// Whether Elasticsearch reads a text as a time: to the second, perhaps with a fraction, in UTC.
fn is_date(text: &str) -> bool {
    let Some((time, rest)) = text.split_at_checked(19) else { return false };
    let rest = rest.strip_suffix('Z').unwrap_or(rest);
    let fraction = rest.strip_prefix('.').is_some_and(|digits| {
        (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    });
    // It knows no leap seconds.
    parse_plain(time).is_some() && !time.ends_with("60") && (rest.is_empty() || fraction)
}

const NAMES: [&str; FIELDS.len()] = {
    let mut names = [""; FIELDS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = FIELDS[index].0;
        index += 1;
    }
    names
};

// Source: elastic/integrations, packages/o365, data_stream/audit/fields/fields.yml. `ModifiedProperties`, `Parameters` and
// `ExtendedProperties` are written in a way of their own.
const FIELDS: [(&str, Type); 193] = [
    ("AadAppId", Type::Keyword),
    ("Actions", Type::Object),
    ("Activity", Type::Keyword),
    ("Actor", Type::Object),
    ("ActorContextId", Type::Keyword),
    ("ActorInfoString", Type::Keyword),
    ("ActorIpAddress", Type::Keyword),
    ("ActorUserId", Type::Keyword),
    ("ActorYammerUserId", Type::Keyword),
    ("AdditionalData", Type::Object),
    ("AdditionalInfo", Type::Object),
    ("AirAdminActionSource", Type::Keyword),
    ("AirAdminActionType", Type::Keyword),
    ("AlertEntityId", Type::Keyword),
    ("AlertId", Type::Keyword),
    ("AlertLinks", Type::Object),
    ("AlertType", Type::Keyword),
    ("AppAccessContext", Type::Object),
    ("AppId", Type::Keyword),
    ("Application", Type::Keyword),
    ("ApplicationDisplayName", Type::Keyword),
    ("ApplicationId", Type::Keyword),
    ("Approver", Type::Keyword),
    ("AttachmentData", Type::Object),
    ("AuthDetails", Type::Object),
    ("AuthenticationType", Type::Keyword),
    ("AzureActiveDirectoryEventType", Type::Keyword),
    ("BCLValue", Type::Keyword),
    ("BulkApprovalId", Type::Keyword),
    ("Category", Type::Keyword),
    ("ClientAppId", Type::Keyword),
    ("ClientApplication", Type::Keyword),
    ("ClientIP", Type::Keyword),
    ("ClientIPAddress", Type::Keyword),
    ("ClientInfoString", Type::Keyword),
    ("ClientRequestId", Type::Keyword),
    ("CmdletVersion", Type::Keyword),
    ("Comments", Type::Keyword),
    ("Connector", Type::Keyword),
    ("CorrelationId", Type::Keyword),
    ("CreationTime", Type::Keyword),
    ("CustomUniqueId", Type::Boolean),
    ("Data", Type::Object),
    ("DataType", Type::Keyword),
    ("DatabaseType", Type::Keyword),
    ("DeepLinkUrl", Type::Keyword),
    ("DeliveryAction", Type::Keyword),
    ("Description", Type::Keyword),
    ("DetectionMethod", Type::Keyword),
    ("DetectionType", Type::Keyword),
    ("DeviceName", Type::Keyword),
    ("Directionality", Type::Keyword),
    ("EffectiveOrganization", Type::Keyword),
    ("EndTimeUtc", Type::Date),
    ("EntityType", Type::Keyword),
    ("ErrorNumber", Type::Keyword),
    ("EventData", Type::Keyword),
    ("EventDeepLink", Type::Keyword),
    ("EventSource", Type::Keyword),
    ("ExceptionInfo", Type::Object),
    ("ExchangeAggregatedFolders", Type::Object),
    ("ExchangeAggregatedMessages", Type::Object),
    ("ExchangeMetaData", Type::Object),
    ("Experience", Type::Keyword),
    ("ExternalAccess", Type::Boolean),
    ("FileExtension", Type::Keyword),
    ("FileSize", Type::Keyword),
    ("FileSizeBytes", Type::Long),
    ("FilteringDate", Type::Date),
    ("GroupName", Type::Keyword),
    ("Id", Type::Keyword),
    ("ImplicitShare", Type::Keyword),
    ("IncidentId", Type::Keyword),
    ("InsightData", Type::Object),
    ("InsightId", Type::Keyword),
    ("InterSystemsId", Type::Keyword),
    ("InternalLogonType", Type::Keyword),
    ("InternetMessageId", Type::Keyword),
    ("IntraSystemId", Type::Keyword),
    ("InvestigationId", Type::Keyword),
    ("InvestigationName", Type::Keyword),
    ("InvestigationType", Type::Keyword),
    ("InvestigationUrn", Type::Keyword),
    ("Item", Type::Object),
    ("ItemName", Type::Keyword),
    ("ItemType", Type::Keyword),
    ("KesMailId", Type::Keyword),
    ("Language", Type::Keyword),
    ("LastUpdateTimeUtc", Type::Date),
    ("LatestDeliveryLocation", Type::Keyword),
    ("ListBaseType", Type::Keyword),
    ("ListId", Type::Keyword),
    ("ListItemUniqueId", Type::Keyword),
    ("LogonError", Type::Keyword),
    ("LogonType", Type::Keyword),
    ("LogonUserSid", Type::Keyword),
    ("MailboxGuid", Type::Keyword),
    ("MailboxOwnerMasterAccountSid", Type::Keyword),
    ("MailboxOwnerSid", Type::Keyword),
    ("MailboxOwnerUPN", Type::Keyword),
    ("Members", Type::Object),
    ("MessageDate", Type::Keyword),
    ("MessageTime", Type::Keyword),
    ("Name", Type::Keyword),
    ("NetworkMessageId", Type::Keyword),
    ("NewValue", Type::Keyword),
    ("NonPIIParameters", Type::Keyword),
    ("ObjectDisplayName", Type::Keyword),
    ("ObjectId", Type::Keyword),
    ("ObjectType", Type::Keyword),
    ("Operation", Type::Keyword),
    ("OperationCount", Type::Long),
    ("OperationId", Type::Keyword),
    ("OperationProperties", Type::Object),
    ("OrganizationId", Type::Keyword),
    ("OrganizationName", Type::Keyword),
    ("OriginalDeliveryLocation", Type::Keyword),
    ("OriginatingDomain", Type::Keyword),
    ("OriginatingServer", Type::Keyword),
    ("P1Sender", Type::Keyword),
    ("P1SenderDomain", Type::Keyword),
    ("P2Sender", Type::Keyword),
    ("P2SenderDomain", Type::Keyword),
    ("PhishConfidenceLevel", Type::Keyword),
    ("Platform", Type::Keyword),
    ("Policy", Type::Keyword),
    ("PolicyAction", Type::Keyword),
    ("PolicyDetails", Type::Object),
    ("PolicyId", Type::Keyword),
    ("Recipients", Type::Keyword),
    ("RecordType", Type::Keyword),
    ("RelativeUrl", Type::Keyword),
    ("RequestId", Type::Keyword),
    ("RescanResult", Type::Object),
    ("ResultCount", Type::Keyword),
    ("ResultStatus", Type::Keyword),
    ("RunningTime", Type::Keyword),
    ("SecurityComplianceCenterEventType", Type::Keyword),
    ("Sender", Type::Keyword),
    ("SenderEntity", Type::Object),
    ("SenderIP", Type::Keyword),
    ("SenderIp", Type::Keyword),
    ("SensitiveInfoDetectionIsIncluded", Type::Boolean),
    ("SensitivityLabelEventData", Type::Object),
    ("SessionId", Type::Keyword),
    ("Severity", Type::Keyword),
    ("Sha1", Type::Keyword),
    ("Sha256", Type::Keyword),
    ("SharePointMetaData", Type::Object),
    ("Site", Type::Keyword),
    ("SiteUrl", Type::Keyword),
    ("Source", Type::Keyword),
    ("SourceFileExtension", Type::Keyword),
    ("SourceFileName", Type::Keyword),
    ("SourceRelativeUrl", Type::Keyword),
    ("StartTime", Type::Keyword),
    ("StartTimeUtc", Type::Keyword),
    ("Status", Type::Keyword),
    ("SubAirAdminActionTypeMail", Type::Keyword),
    ("Subject", Type::Keyword),
    ("SubmissionConfidenceLevel", Type::Keyword),
    ("SubmissionContentSubType", Type::Keyword),
    ("SubmissionContentType", Type::Keyword),
    ("SubmissionId", Type::Keyword),
    ("SubmissionState", Type::Keyword),
    ("SubmissionType", Type::Keyword),
    ("Submitter", Type::Keyword),
    ("SubmitterId", Type::Keyword),
    ("SupportTicketId", Type::Keyword),
    ("SystemOverrides", Type::Object),
    ("Target", Type::Object),
    ("TargetContextId", Type::Keyword),
    ("TargetFilePath", Type::Keyword),
    ("TargetUserOrGroupName", Type::Keyword),
    ("TargetUserOrGroupType", Type::Keyword),
    ("TeamGuid", Type::Keyword),
    ("TeamName", Type::Keyword),
    ("ThreatDetectionMethods", Type::Keyword),
    ("Timestamp", Type::Keyword),
    ("TokenObjectId", Type::Keyword),
    ("TokenTenantId", Type::Keyword),
    ("UniqueSharingId", Type::Keyword),
    ("UserAgent", Type::Keyword),
    ("UserId", Type::Keyword),
    ("UserKey", Type::Keyword),
    ("UserType", Type::Keyword),
    ("Verdict", Type::Keyword),
    ("Version", Type::Keyword),
    ("WebId", Type::Keyword),
    ("Workload", Type::Keyword),
    ("WorkspaceId", Type::Keyword),
    ("WorkspaceName", Type::Keyword),
    ("YammerNetworkId", Type::Keyword),
];
