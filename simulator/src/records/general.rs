//! Workloads without a content type of their own (`Audit.General`): Teams, the compliance centre, Power BI, alerts,
//! mail threats and what is not known to anyone.

use schemas::ContentType;
use serde_json::json;

use super::{Kind, Record, Row, Scene, kinds_in, pairs};

const ROWS: &[Row] = &[
    ("MessageSent", 25, "", 100, teams_message),
    ("MemberAdded", 25, "", 6, teams_members),
    ("MemberRoleChanged", 25, "", 2, teams_members),
    ("TeamsSessionStarted", 25, "", 30, teams_session),
    ("New-ComplianceSearchAction", 18, "", 2, compliance_cmdlet),
    ("Remove-DlpCompliancePolicy", 18, "", 1, compliance_cmdlet),
    ("SearchExported", 24, "", 1, search_exported),
    ("AlertTriggered", 40, "", 3, alert),
    ("TIMailData", 28, "", 4, threat_mail),
    ("ViewReport", 20, "", 10, power_bi),
    ("AirInvestigationData", 64, "large", 1, investigation),
    ("NobodyKnowsThisOperation", 9999, "unknown", 1, unknown),
];

pub(super) fn kinds() -> Vec<Kind> {
    kinds_in(ContentType::General, ROWS)
}

fn user(s: &mut Scene<'_>, record: &mut Record, workload: &str) {
    let person = s.cast.any_user(&mut s.dice);
    record.put("Workload", workload);
    record.put("UserKey", person.object_id.to_string());
    record.put("UserType", 0);
    record.put("UserId", person.upn);
    record.put("ClientIP", person.ipv4.to_string());
}

fn teams_message(s: &mut Scene<'_>, record: &mut Record) {
    user(s, record, "MicrosoftTeams");
    record.put("CommunicationType", "GroupChat");
    record.put("ChatThreadId", format!("19:{}@thread.v2", s.dice.guid().simple()));
    record.put("MessageId", (1_700_000_000_000 + s.dice.below(1 << 36)).to_string());
    record.put("MessageVersion", "1");
    record.put("ExtraProperties", pairs(&[("TimeZone", "Europe/Berlin"), ("OsName", "windows")]));
}

fn teams_members(s: &mut Scene<'_>, record: &mut Record) {
    user(s, record, "MicrosoftTeams");
    let (first, second) = (s.cast.any_user(&mut s.dice), s.cast.any_user(&mut s.dice));
    record.put("CommunicationType", "Team");
    record.put(
        "Members",
        json!([{ "DisplayName": first.display, "Role": 1, "UPN": first.upn }, { "DisplayName": second.display, "Role": 2, "UPN": second.upn }]),
    );
    record.put("TeamGuid", format!("19:{}@thread.tacv2", s.dice.guid().simple()));
    record.put("TeamName", "Project Aurora");
    record.put("ItemName", "Project Aurora");
}

fn teams_session(s: &mut Scene<'_>, record: &mut Record) {
    user(s, record, "MicrosoftTeams");
    record.put("ObjectId", "Unknown (Unknown)");
    record.put("OperationScope", "Admin");
    record.put("TabType", "");
}

fn compliance_cmdlet(s: &mut Scene<'_>, record: &mut Record) {
    let admin = s.cast.any_admin(&mut s.dice);
    record.put("Workload", "SecurityComplianceCenter");
    record.put("ResultStatus", "Success");
    record.put("UserKey", admin.upn.as_str());
    record.put("UserType", 2);
    record.put("UserId", admin.upn);
    record.put("ObjectId", "Case 17");
    record.put("SecurityComplianceCenterEventType", 0);
    record.put("ClientApplication", "EMC");
    record.put("CmdletVersion", "...");
    record.put("EffectiveOrganization", s.cast.organisation.as_str());
    record.put("NonPIIParameters", "-Export -Format \"FxStream\"");
    // A list elsewhere; here one text, with quotes inside.
    record
        .put("Parameters", "-SearchName \"Case 17\" -Export -Format \"FxStream\" -Types (\"Bulk\",\"Spam\")");
    record.put("StartTime", s.at.format("%Y-%m-%dT%H:%M:%S").to_string());
    record.put("UserServicePlan", "");
}

fn search_exported(s: &mut Scene<'_>, record: &mut Record) {
    compliance_cmdlet(s, record);
    record.put("ExchangeLocations", "All");
    record.put("Query", "from:\"board\" AND subject:aurora");
    record.put("CaseId", s.dice.guid().to_string());
}

fn alert(s: &mut Scene<'_>, record: &mut Record) {
    let person = s.cast.any_user(&mut s.dice);
    let data = json!({ "f3u": person.upn, "ts": s.at.to_rfc3339(), "op": "MailRedirect", "wl": "Exchange", "mat": "UserActivity" });
    record.put("Workload", "SecurityComplianceCenter");
    record.put("UserKey", "SecurityComplianceAlerts");
    record.put("UserType", 4);
    record.put("UserId", "SecurityComplianceAlerts");
    record.put("ObjectId", s.dice.guid().to_string());
    record.put("AlertId", s.dice.guid().to_string());
    record.put("AlertType", "System");
    record.put("Name", "Suspicious email sending patterns detected");
    record.put("Severity", "Medium");
    record.put("Category", "ThreatManagement");
    record.put("Source", "Office 365 Security & Compliance");
    record.put("Status", "Active");
    record.put("Data", data.to_string());
}

fn threat_mail(s: &mut Scene<'_>, record: &mut Record) {
    let to = s.cast.any_user(&mut s.dice);
    record.put("Workload", "ThreatIntelligence");
    record.put("UserKey", "ThreatIntel");
    record.put("UserType", 4);
    record.put("UserId", "ThreatIntel");
    record.put("ObjectId", s.dice.guid().to_string());
    record.put("DetectionMethod", "Advanced filter");
    record.put("DetectionType", "Inline");
    record.put("InternetMessageId", s.cast.message_id(&mut s.dice));
    record.put("NetworkMessageId", s.dice.guid().to_string());
    record.put("P1Sender", s.cast.external(&mut s.dice));
    record.put("P2Sender", s.cast.external(&mut s.dice));
    record.put("Recipients", json!([to.upn]));
    record.put("SenderIp", "192.0.2.91");
    record.put("Subject", "Your mailbox is almost full");
    record.put("Verdict", "Phish");
    record.put("AttachmentData", json!([{ "FileName": "invoice.htm", "FileType": "htm", "FileVerdict": 1, "SHA256": format!("{:064X}", s.dice.roll()) }]));
}

fn power_bi(s: &mut Scene<'_>, record: &mut Record) {
    user(s, record, "PowerBI");
    record.put("Activity", "ViewReport");
    record.put("ItemName", "Sales by region");
    record.put("WorkSpaceName", "Finance");
    record.put("RequestId", s.dice.guid().to_string());
    // A list elsewhere; here JSON in a string.
    record.put("OperationProperties", "[{\"Name\":\"SystemArtifactType\",\"Value\":\"None\"}]");
    record.put("IsSuccess", true);
}

fn investigation(s: &mut Scene<'_>, record: &mut Record) {
    user(s, record, "AirInvestigation");
    let entities: Vec<_> = (0..60)
        .map(|number| {
            let person = s.cast.any_user(&mut s.dice);
            json!({ "$id": number.to_string(), "Type": "mailbox", "Upn": person.upn, "DisplayName": person.display, "Urn": s.dice.guid().to_string() })
        })
        .collect();
    record.put("InvestigationId", format!("urn:ZappedUrlInvestigation:{}", s.dice.guid().simple()));
    record.put("InvestigationName", "Mail with malicious urls is zapped");
    record.put("Status", "Pending Action");
    record.put("Data", json!({ "Version": "3.0", "Entities": entities }).to_string());
}

fn unknown(s: &mut Scene<'_>, record: &mut Record) {
    user(s, record, "SomethingNew");
    record.put("FieldThatCameWithoutNotice", json!({ "Deep": [{ "Er": [1, 2.5, null, true, "x"] }] }));
}
