//! `o365.audit` goes into an index of Elastic's `o365` integration, which refuses a whole document for one value of another kind.

use serde_json::{Value, json};
use transform::View;

use crate::{
    records::all,
    views::{in_view, lost_in_view},
};

/// What the index takes for a field, beside null and lists of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Anything without fields of its own.
    Plain,
    /// `true` and `false`, as text too.
    Truth,
    /// A whole number, as text too.
    Number,
    /// Milliseconds, or text that is a time.
    Time,
    /// Fields.
    Fields,
}

// Source: elastic/integrations, packages/o365, data_stream/audit/fields/fields.yml.
const TAKEN: &[(&str, Taken)] = &[
    ("Id", Taken::Plain),
    ("RecordType", Taken::Plain),
    ("CreationTime", Taken::Plain),
    ("UserId", Taken::Plain),
    ("UserType", Taken::Plain),
    ("Version", Taken::Plain),
    ("LogonType", Taken::Plain),
    ("ClientIP", Taken::Plain),
    ("ObjectId", Taken::Plain),
    ("MailboxOwnerUPN", Taken::Plain),
    ("OriginatingServer", Taken::Plain),
    ("Sender", Taken::Plain),
    ("Recipients", Taken::Plain),
    ("Subject", Taken::Plain),
    ("EventData", Taken::Plain),
    ("YammerNetworkId", Taken::Plain),
    ("ExternalAccess", Taken::Truth),
    ("CustomUniqueId", Taken::Truth),
    ("SensitiveInfoDetectionIsIncluded", Taken::Truth),
    ("OperationCount", Taken::Number),
    ("FileSizeBytes", Taken::Number),
    ("EndTimeUtc", Taken::Time),
    ("LastUpdateTimeUtc", Taken::Time),
    ("AlertLinks", Taken::Fields),
    ("OperationProperties", Taken::Fields),
    ("Parameters", Taken::Fields),
    ("ModifiedProperties", Taken::Fields),
    ("ExtendedProperties", Taken::Fields),
    ("ExceptionInfo", Taken::Fields),
    ("AdditionalInfo", Taken::Fields),
    ("AppAccessContext", Taken::Fields),
    ("Actor", Taken::Fields),
    ("Target", Taken::Fields),
    ("Data", Taken::Fields),
    ("Item", Taken::Fields),
    ("Members", Taken::Fields),
    ("PolicyDetails", Taken::Fields),
    ("ExchangeMetaData", Taken::Fields),
    ("SenderEntity", Taken::Fields),
];

fn takes(taken: Taken, value: &Value) -> bool {
    if let Some(items) = value.as_array() {
        return items.iter().all(|item| takes(taken, item));
    }
    value.is_null()
        || match taken {
            Taken::Plain => !value.is_object(),
            Taken::Truth => value.is_boolean() || value == "true" || value == "false",
            Taken::Number => {
                value.as_f64().is_some_and(|number| number.fract() == 0.0)
                    || value.as_str().is_some_and(|text| text.parse::<i64>().is_ok())
            }
            Taken::Time => {
                value.is_i64()
                    || value.as_str().is_some_and(|text| {
                        text.as_bytes().get(10) == Some(&b'T') && schemas::time::parse_utc(text).is_some()
                    })
            }
            Taken::Fields => value.is_object(),
        }
}

/// The fields of an event that the index would refuse.
fn refused(event: &Value) -> Vec<String> {
    let audit = &event["o365"]["audit"];
    let details = &audit["ExtendedProperties"]["additionalDetails"];
    let details = [("additionalDetails", Taken::Fields, details)];
    let fields = TAKEN.iter().map(|(name, taken)| (*name, *taken, &audit[name]));
    fields
        .chain(details)
        .filter(|(_, taken, value)| !takes(*taken, value))
        .map(|(name, taken, value)| format!("{name} is {value} and no {taken:?}"))
        .collect()
}

#[test]
fn the_index_takes_every_event() {
    for text in all() {
        assert_eq!(refused(&in_view(&text, View::Ecs)), [""; 0], "{text}");
    }
}

/// Whatever kind a field is of, the index takes the event, and nothing is lost.
#[test]
fn the_index_takes_a_field_of_any_kind() {
    let values = [
        json!("some text"),
        json!(""),
        json!("False"),
        json!("true"),
        json!("17"),
        json!(" 18"),
        json!("2026-01-02T03:04:05.1234567Z"),
        json!("2026-01-02T03:04:60"),
        json!("2026-01-02 03:04:05"),
        json!("01/02/2026"),
        json!(true),
        json!(19),
        json!(1.5),
        json!(null),
        json!({"inner": "value"}),
        json!([]),
        json!(["a", "b"]),
        json!([{"Name": "n", "Value": "v"}]),
        json!([{"AlertLinkHref": "https://x.example"}]),
        json!([{"inner": "value"}, "text"]),
        json!([["a"], [{"b": 1}]]),
    ];
    let mut written = std::collections::HashSet::new();
    for (name, _) in TAKEN {
        for value in &values {
            let record = json!({"Operation": "Send", "Workload": "Exchange", *name: value});
            let event = in_view(&record.to_string(), View::Ecs);
            assert_eq!(refused(&event), [""; 0], "{record}");
            assert_eq!(lost_in_view(&record, &event, View::Ecs), [""; 0], "{record}\n{event}");
            if event["o365"]["audit"].get(name).is_some_and(|value| !value.is_null()) {
                written.insert(*name);
            }
        }
    }
    // A table that moves all away would pass too.
    assert_eq!(written.len(), TAKEN.len());
}

/// What the integration moves stands where it moves it.
#[test]
fn some_fields_stand_where_the_integration_has_them() {
    let with = |name: &str, value: Value| {
        let event = in_view(&json!({"Operation": "x", name: value}).to_string(), View::Ecs);
        (event["o365"]["audit"].clone(), event["mailtrail"].get("rest").is_some())
    };
    let sender = json!({"UPN": "a@contoso.com"});
    let (audit, rest) = with("Sender", sender.clone());
    assert_eq!((audit.get("Sender"), &audit["SenderEntity"], rest), (None, &sender, false));
    let (audit, rest) = with("ExceptionInfo", json!("needed"));
    assert_eq!((&audit["ExceptionInfo"], rest), (&json!({"Reason": "needed"}), false));
    let (audit, rest) = with("ExternalAccess", json!("False"));
    assert_eq!((&audit["ExternalAccess"], rest), (&json!(false), true));
    let (audit, rest) = with("OperationProperties", json!("text"));
    assert_eq!((audit.get("OperationProperties"), rest), (None, true));
    let details = json!([{"Name": "additionalDetails", "Value": "{}"}, {"Name": "UserAgent", "Value": "x"}]);
    let (audit, rest) = with("ExtendedProperties", details);
    assert_eq!((&audit["ExtendedProperties"], rest), (&json!({"UserAgent": "x"}), true));
    // A name can be taken already.
    let both = json!({"Sender": sender, "SenderEntity": {"UPN": "b@contoso.com"}}).to_string();
    let event = in_view(&both, View::Ecs);
    assert_eq!(event["o365"]["audit"]["SenderEntity"], json!({"UPN": "b@contoso.com"}));
    assert_eq!(event["mailtrail"]["rest"], json!({"Sender": sender}).to_string());
}

/// Looking for repeated names takes no time for each pair of names.
#[test]
fn a_record_of_many_fields_with_a_repeated_one_keeps_them_all() {
    let fields: String = (0..100_000).map(|n| format!("\"F{n}.\":{n},\"G{n}\":{n},")).collect();
    let event = in_view(&format!("{{{fields}\"G7\":\"again\"}}"), View::Ecs);
    let rest: Value = serde_json::from_str(event["mailtrail"]["rest"].as_str().unwrap()).unwrap();
    assert_eq!(
        (rest.as_object().unwrap().len(), &rest["G7"], &rest["F99."]),
        (100_001, &"again".into(), &99.into())
    );
    assert_eq!(event["o365"]["audit"].as_object().unwrap().len(), 100_000);
}
