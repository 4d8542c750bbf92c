//! The columns of the two schemas. A name means the same in both.

use crate::view::column::{Column, datetime, dynamic, int, string};

pub(super) const TIME_GENERATED: Column = datetime("TimeGenerated").required();
pub(super) const EVENT_START_TIME: Column = datetime("EventStartTime").required();
pub(super) const EVENT_END_TIME: Column = datetime("EventEndTime").required();
pub(super) const TYPE: Column = string("Type").required();
pub(super) const EVENT_SCHEMA: Column = string("EventSchema").required();
pub(super) const EVENT_SCHEMA_VERSION: Column = string("EventSchemaVersion").required();
pub(super) const EVENT_VENDOR: Column = string("EventVendor").required();
pub(super) const EVENT_PRODUCT: Column = string("EventProduct").required();
pub(super) const EVENT_COUNT: Column = int("EventCount").required();
pub(super) const EVENT_TYPE: Column = string("EventType").required();
pub(super) const EVENT_RESULT: Column = string("EventResult").required();
pub(super) const EVENT_SEVERITY: Column = string("EventSeverity").required();
pub(super) const EVENT_UID: Column = string("EventUid").required();
pub(super) const EVENT_ORIGINAL_UID: Column = string("EventOriginalUid");
pub(super) const EVENT_ORIGINAL_TYPE: Column = string("EventOriginalType");
pub(super) const EVENT_ORIGINAL_SUB_TYPE: Column = string("EventOriginalSubType");
pub(super) const EVENT_ORIGINAL_RESULT_DETAILS: Column = string("EventOriginalResultDetails");
pub(super) const OPERATION: Column = string("Operation").required();
pub(super) const DVC: Column = string("Dvc").required();
pub(super) const DVC_SCOPE_ID: Column = string("DvcScopeId").required();
pub(super) const DVC_SCOPE: Column = string("DvcScope");
pub(super) const SRC_DESCRIPTION: Column = string("SrcDescription");
pub(super) const ACTOR_USERNAME: Column = string("ActorUsername");
pub(super) const ACTOR_USERNAME_TYPE: Column = string("ActorUsernameType");
pub(super) const ACTOR_USER_ID: Column = string("ActorUserId");
pub(super) const ACTOR_USER_ID_TYPE: Column = string("ActorUserIdType");
pub(super) const ACTOR_USER_AAD_ID: Column = string("ActorUserAadId");
pub(super) const ACTOR_USER_SID: Column = string("ActorUserSid");
pub(super) const ACTOR_SCOPE_ID: Column = string("ActorScopeId");
pub(super) const ACTOR_USER_TYPE: Column = string("ActorUserType");
pub(super) const ACTOR_ORIGINAL_USER_TYPE: Column = string("ActorOriginalUserType");
pub(super) const ACTOR_SESSION_ID: Column = string("ActorSessionId");
pub(super) const USER: Column = string("User");
pub(super) const OBJECT: Column = string("Object");
pub(super) const OBJECT_ID: Column = string("ObjectId");
pub(super) const OBJECT_TYPE: Column = string("ObjectType");
pub(super) const ORIGINAL_OBJECT_TYPE: Column = string("OriginalObjectType");
pub(super) const OLD_VALUE: Column = string("OldValue");
pub(super) const NEW_VALUE: Column = string("NewValue");
pub(super) const ACTING_APP_ID: Column = string("ActingAppId");
pub(super) const ACTING_APP_NAME: Column = string("ActingAppName");
pub(super) const ACTING_APP_TYPE: Column = string("ActingAppType");
pub(super) const TARGET_APP_NAME: Column = string("TargetAppName").required();
pub(super) const TARGET_APP_TYPE: Column = string("TargetAppType").required();
pub(super) const APPLICATION: Column = string("Application").required();
pub(super) const HTTP_USER_AGENT: Column = string("HttpUserAgent");
pub(super) const SRC_IP_ADDR: Column = string("SrcIpAddr");
pub(super) const IP_ADDR: Column = string("IpAddr");
pub(super) const SRC: Column = string("Src");
pub(super) const SRC_HOSTNAME: Column = string("SrcHostname");
pub(super) const SRC_PORT_NUMBER: Column = int("SrcPortNumber");
pub(super) const SRC_DVC_ID: Column = string("SrcDvcId");
pub(super) const SRC_DVC_ID_TYPE: Column = string("SrcDvcIdType");
pub(super) const ADDITIONAL_FIELDS: Column = dynamic("AdditionalFields").required();
pub(super) const EVENT_MESSAGE: Column = string("EventMessage");

pub(super) const TARGET_USERNAME: Column = string("TargetUsername");
pub(super) const TARGET_USERNAME_TYPE: Column = string("TargetUsernameType");
pub(super) const TARGET_USER_ID: Column = string("TargetUserId");
pub(super) const TARGET_USER_ID_TYPE: Column = string("TargetUserIdType");
pub(super) const TARGET_USER_TYPE: Column = string("TargetUserType");
pub(super) const TARGET_ORIGINAL_USER_TYPE: Column = string("TargetOriginalUserType");
pub(super) const TARGET_SESSION_ID: Column = string("TargetSessionId");
pub(super) const LOGON_PROTOCOL: Column = string("LogonProtocol");

/// AuditEvent.
pub(super) const AUDIT: [Column; 55] = [
    TIME_GENERATED,
    EVENT_START_TIME,
    EVENT_END_TIME,
    TYPE,
    EVENT_SCHEMA,
    EVENT_SCHEMA_VERSION,
    EVENT_VENDOR,
    EVENT_PRODUCT,
    EVENT_COUNT,
    EVENT_TYPE,
    EVENT_RESULT,
    EVENT_SEVERITY,
    EVENT_UID,
    EVENT_ORIGINAL_UID,
    EVENT_ORIGINAL_TYPE,
    EVENT_ORIGINAL_SUB_TYPE,
    EVENT_ORIGINAL_RESULT_DETAILS,
    OPERATION,
    DVC,
    DVC_SCOPE_ID,
    DVC_SCOPE,
    SRC_DESCRIPTION,
    ACTOR_USERNAME,
    ACTOR_USERNAME_TYPE,
    USER,
    ACTOR_USER_ID,
    ACTOR_USER_ID_TYPE,
    ACTOR_USER_AAD_ID,
    ACTOR_USER_SID,
    ACTOR_SCOPE_ID,
    ACTOR_USER_TYPE,
    ACTOR_ORIGINAL_USER_TYPE,
    ACTOR_SESSION_ID,
    OBJECT,
    OBJECT_ID,
    OBJECT_TYPE,
    ORIGINAL_OBJECT_TYPE,
    OLD_VALUE,
    NEW_VALUE,
    ACTING_APP_ID,
    ACTING_APP_NAME,
    ACTING_APP_TYPE,
    TARGET_APP_NAME,
    TARGET_APP_TYPE,
    APPLICATION,
    HTTP_USER_AGENT,
    SRC_IP_ADDR,
    IP_ADDR,
    SRC,
    SRC_HOSTNAME,
    SRC_PORT_NUMBER,
    SRC_DVC_ID,
    SRC_DVC_ID_TYPE,
    ADDITIONAL_FIELDS,
    EVENT_MESSAGE,
];

/// Authentication.
pub(super) const AUTHENTICATION: [Column; 46] = [
    TIME_GENERATED,
    EVENT_START_TIME,
    EVENT_END_TIME,
    TYPE,
    EVENT_SCHEMA,
    EVENT_SCHEMA_VERSION,
    EVENT_VENDOR,
    EVENT_PRODUCT,
    EVENT_COUNT,
    EVENT_TYPE,
    EVENT_RESULT,
    EVENT_SEVERITY,
    EVENT_UID,
    EVENT_ORIGINAL_UID,
    EVENT_ORIGINAL_TYPE,
    EVENT_ORIGINAL_SUB_TYPE,
    EVENT_ORIGINAL_RESULT_DETAILS,
    DVC,
    DVC_SCOPE_ID,
    DVC_SCOPE,
    SRC_DESCRIPTION,
    TARGET_USERNAME,
    TARGET_USERNAME_TYPE,
    USER,
    TARGET_USER_ID,
    TARGET_USER_ID_TYPE,
    TARGET_USER_TYPE,
    TARGET_ORIGINAL_USER_TYPE,
    TARGET_SESSION_ID,
    LOGON_PROTOCOL,
    ACTING_APP_ID,
    ACTING_APP_NAME,
    ACTING_APP_TYPE,
    TARGET_APP_NAME,
    TARGET_APP_TYPE,
    APPLICATION,
    HTTP_USER_AGENT,
    SRC_IP_ADDR,
    IP_ADDR,
    SRC,
    SRC_HOSTNAME,
    SRC_PORT_NUMBER,
    SRC_DVC_ID,
    SRC_DVC_ID_TYPE,
    ADDITIONAL_FIELDS,
    EVENT_MESSAGE,
];
