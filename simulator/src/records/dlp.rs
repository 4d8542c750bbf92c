//! Data loss prevention (content type `DLP.All`).
//!
//! What was detected is in a record only for applications that may see it: without `ActivityFeed.ReadDlp` the same
//! record comes without the values and with `SensitiveInfoDetectionIsIncluded` false.

use schemas::ContentType;
use serde_json::{Value, json};

use super::{Kind, Record, Row, Scene, kinds_in};

const ROWS: &[Row] = &[
    ("DLPRuleMatch", 13, "", 10, exchange),
    ("DLPRuleMatch", 11, "", 10, sharepoint),
    ("DLPRuleUndo", 11, "", 1, sharepoint),
    ("DLPRuleMatch", 63, "endpoint", 4, endpoint),
];

pub(super) fn kinds() -> Vec<Kind> {
    kinds_in(ContentType::DlpAll, ROWS)
}

fn policy(s: &mut Scene<'_>) -> Value {
    let mut found = json!({ "Count": 3, "UniqueCount": 2, "Confidence": 85, "SensitiveType": "50842eb7-edc8-4019-85dd-5a5c1f2bb085" });
    if s.dlp_detail {
        found["SensitiveInformationDetections"] = json!({
            "DetectedValues": [{ "Name": "4111 1111 1111 1111", "Value": "card: 4111 1111 1111 1111 exp" }],
            "ResultsTruncated": false,
        });
    }
    json!([{
        "PolicyId": s.episode.clone().guid().to_string(),
        "PolicyName": "Financial data",
        "Rules": [{
            "RuleId": s.dice.guid().to_string(), "RuleName": "Low volume of content detected", "RuleMode": "Enable", "Severity": "Low",
            "Actions": ["NotifyUser"], "ActionParameters": [],
            "ConditionsMatched": { "SensitiveInformation": [found], "OtherConditions": [{ "Name": "AccessScope", "Value": "IncludeExternalUsers" }] },
        }],
    }])
}

fn base(s: &mut Scene<'_>, record: &mut Record, workload: &str, agent: &str) {
    record.put("Workload", workload);
    record.put("UserKey", agent);
    record.put("UserType", 4);
    record.put("UserId", agent);
    record.put("IncidentId", s.dice.guid().to_string());
    record.put("SensitiveInfoDetectionIsIncluded", s.dlp_detail);
    let policy = policy(s);
    record.put("PolicyDetails", policy);
}

fn exchange(s: &mut Scene<'_>, record: &mut Record) {
    base(s, record, "Exchange", "DlpAgent");
    let from = s.cast.any_user(&mut s.dice);
    let id = s.cast.message_id(&mut s.dice);
    record.put("ObjectId", id.as_str());
    record.put(
        "ExchangeMetaData",
        json!({ "MessageID": id, "From": from.upn, "To": [s.cast.external(&mut s.dice)], "CC": [], "BCC": [], "Subject": "Card data",
                "Sent": s.at.format("%Y-%m-%dT%H:%M:%S").to_string(), "RecipientCount": 1 }),
    );
}

fn sharepoint(s: &mut Scene<'_>, record: &mut Record) {
    base(s, record, "OneDrive", "DlpPolicyEventBasedAssistantOneDriveForBusiness");
    let owner = s.cast.any_user(&mut s.dice);
    let id = s.dice.guid().to_string();
    record.put("ObjectId", id.as_str());
    record.put(
        "SharePointMetaData",
        json!({ "UniqueID": id, "From": owner.upn, "FileName": "Cards.xlsx", "FileOwner": owner.display, "FilePathUrl": "https://contoso-my.sharepoint.com/Cards.xlsx" }),
    );
}

fn endpoint(s: &mut Scene<'_>, record: &mut Record) {
    let person = s.cast.any_user(&mut s.dice);
    base(s, record, "Endpoint", &person.upn);
    record.put("ClientIP", person.ipv4.to_string());
    record.put("UserType", 0);
    record.put("ObjectId", "E:\\Cards.xlsx");
    record.put("EndpointMetaData", json!({ "DeviceName": "LAPTOP-0142", "EndpointOperation": "FileCopiedToRemovableMedia", "EnforcementMode": 1 }));
}
