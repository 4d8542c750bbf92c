//! Entra ID: sign-ins and directory changes (content type `Audit.AzureActiveDirectory`).

use schemas::ContentType;
use serde_json::{Value, json};

use super::{Kind, Record, Row, Scene, kinds_in, pairs};
use crate::cast::Person;

const ROWS: &[Row] = &[
    ("UserLoggedIn", 15, "", 200, signed_in),
    ("UserLoginFailed", 15, "", 25, sign_in_failed),
    ("PasswordLogonInitialAuthUsingPassword", 9, "", 2, account_logon),
    ("Add member to role.", 8, "", 1, member_added),
    ("Remove member from role.", 8, "", 1, member_added),
    ("Consent to application.", 8, "", 1, consent),
    ("Update user.", 8, "", 10, user_updated),
    ("Update service principal.", 8, "", 5, by_service),
];

pub(super) fn kinds() -> Vec<Kind> {
    kinds_in(ContentType::AzureActiveDirectory, ROWS)
}

fn actor(s: &mut Scene<'_>, record: &mut Record, person: &Person) {
    record.put("Workload", "AzureActiveDirectory");
    record.put("ResultStatus", "Success");
    record.put("UserKey", person.object_id.to_string());
    record.put("UserType", 0);
    record.put("UserId", person.upn.as_str());
    record.put("AzureActiveDirectoryEventType", 1);
    record.put(
        "Actor",
        json!([{ "ID": person.object_id.to_string(), "Type": 0 }, { "ID": person.upn, "Type": 5 }]),
    );
    record.put("ActorContextId", s.cast.tenant.to_string());
    record.put("TargetContextId", s.cast.tenant.to_string());
    record.put("InterSystemsId", s.dice.guid().to_string());
    record.put("IntraSystemId", s.dice.guid().to_string());
    record.put("SupportTicketId", "");
    record.put("ModifiedProperties", json!([]));
}

fn sign_in(s: &mut Scene<'_>, record: &mut Record, detail: &str) {
    let person = s.cast.any_user(&mut s.dice);
    actor(s, record, &person);
    let application = s.dice.pick(&[
        "d3590ed6-52b3-4102-aeff-aad2292ab01c",
        "00000002-0000-0ff1-ce00-000000000000",
        "1fec8e78-bce4-4aaf-ab1b-5451cc387264",
    ]);
    let target = "00000002-0000-0ff1-ce00-000000000000";
    let address = if s.dice.once_in(3) { person.ipv6.to_string() } else { person.ipv4.to_string() };
    record.put("ClientIP", address.as_str());
    record.put("ActorIpAddress", address);
    record.put("ObjectId", target);
    record.put("Target", json!([{ "ID": target, "Type": 0 }]));
    record.put("ApplicationId", application);
    record.put(
        "ExtendedProperties",
        pairs(&[
            ("ResultStatusDetail", detail),
            ("UserAgent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"),
            ("RequestType", "OAuth2:Authorize"),
        ]),
    );
    record.put(
        "DeviceProperties",
        pairs(&[
            ("OS", "Windows 11"),
            ("BrowserType", "Chrome"),
            ("IsCompliantAndManaged", "False"),
            ("SessionId", &s.dice.guid().to_string()),
        ]),
    );
    record.put("ErrorNumber", "0");
}

fn signed_in(s: &mut Scene<'_>, record: &mut Record) {
    sign_in(s, record, "Success");
}

fn sign_in_failed(s: &mut Scene<'_>, record: &mut Record) {
    sign_in(s, record, "UserError");
    record.put("ResultStatus", "Failed");
    record.put("ErrorNumber", "50126");
    record.put("LogonError", "InvalidUserNameOrPassword");
}

fn account_logon(s: &mut Scene<'_>, record: &mut Record) {
    let person = s.cast.any_user(&mut s.dice);
    record.put("Workload", "AzureActiveDirectory");
    record.put("ResultStatus", "failed");
    record.put("UserKey", format!("{}@{}", s.dice.below(1 << 60), s.cast.organisation));
    record.put("UserType", 0);
    record.put("UserId", person.upn.as_str());
    record.put("ClientIP", person.ipv4.to_string());
    record.put("ObjectId", person.upn);
    record.put("AzureActiveDirectoryEventType", 0);
    record.put(
        "ExtendedProperties",
        pairs(&[("LoginError", "-2147217390;PP_E_BAD_PASSWORD;The passwords do not match.")]),
    );
    record.put("Client", "Exchange");
    record.put("LoginStatus", -2_147_217_390_i64);
    record.put("UserDomain", s.cast.organisation.as_str());
}

fn directory_change(s: &mut Scene<'_>, record: &mut Record, modified: Value) {
    let admin = s.cast.any_admin(&mut s.episode.clone());
    let target = s.cast.any_user(&mut s.episode.clone());
    actor(s, record, &admin);
    record.put("ObjectId", target.upn.as_str());
    record.put(
        "Target",
        json!([{ "ID": format!("User_{}", target.object_id), "Type": 2 }, { "ID": target.upn, "Type": 5 }]),
    );
    record.put("ModifiedProperties", modified);
    record.put(
        "ExtendedProperties",
        pairs(&[
            ("additionalDetails", "{\"User-Agent\":\"Portal\"}"),
            ("extendedAuditEventCategory", "User"),
        ]),
    );
}

fn member_added(s: &mut Scene<'_>, record: &mut Record) {
    let modified = json!([
        { "Name": "Role.ObjectID", "NewValue": s.episode.clone().guid().to_string(), "OldValue": "" },
        { "Name": "Role.DisplayName", "NewValue": "Exchange Administrator", "OldValue": "" },
    ]);
    directory_change(s, record, modified);
}

fn consent(s: &mut Scene<'_>, record: &mut Record) {
    let scope = "[] => [[Id: x, ClientId: y, ConsentType: AllPrincipals, Scope: Mail.Read offline_access]]";
    directory_change(
        s,
        record,
        json!([{ "Name": "ConsentAction.Permissions", "NewValue": scope, "OldValue": "" }]),
    );
}

fn user_updated(s: &mut Scene<'_>, record: &mut Record) {
    let modified = json!([{ "Name": "StrongAuthenticationMethod", "NewValue": "[]", "OldValue": "[{\"MethodType\":6,\"Default\":true}]" }]);
    directory_change(s, record, modified);
}

fn by_service(s: &mut Scene<'_>, record: &mut Record) {
    let names = json!([{ "Name": "TargetId.ServicePrincipalNames", "NewValue": s.dice.guid().to_string(), "OldValue": "" }]);
    directory_change(s, record, names);
    record.put("UserKey", "Not Available");
    record.put("UserType", 4);
    record.put("UserId", format!("ServicePrincipal_{}", s.dice.guid()));
}
