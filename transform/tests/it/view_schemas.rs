//! The schemas that the views beside OCSF follow, as their makers publish them.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use transform::{ColumnKind, View, tables};

use crate::{
    records::{all, shared},
    views::in_view,
};

/// What the schema's own list says of each column, where it is there.
#[test]
fn ecs_fields_are_those_of_the_schema() {
    let Some(folder) = shared("schema/ecs") else { return };
    let fields = csv(&std::fs::read_to_string(folder.join("fields-9.4.0.csv")).unwrap());
    let types: HashMap<&str, (&str, &str)> = fields
        .iter()
        .map(|row| (row["Field"].as_str(), (row["Type"].as_str(), row["Normalization"].as_str())))
        .collect();
    for column in tables(View::Ecs)[0].columns.iter().filter(|column| !column.name.starts_with("mailtrail."))
    {
        let (kind, normalization) =
            types.get(column.name).unwrap_or_else(|| panic!("{} is no field", column.name));
        let fits: &[&str] = match column.kind {
            ColumnKind::String => &["keyword", "wildcard", "constant_keyword", "match_only_text"],
            ColumnKind::Long => &["long"],
            ColumnKind::Ip => &["ip"],
            ColumnKind::DateTime => &["date"],
            _ => &[],
        };
        assert!(fits.contains(kind), "{} is {kind}", column.name);
        // Several messages have several subjects, and several attachments stand in a list of their own.
        let listed = *normalization == "array" || column.name.starts_with("email.");
        assert!(!column.list || listed, "{} is no list", column.name);
    }
}

#[test]
fn ecs_documents_are_such_as_the_integration_s_rules_look_for() {
    let categories = ["web", "email", "configuration", "iam", "authentication"];
    let types = ["access", "admin", "change", "creation", "deletion", "group", "info", "start", "user"];
    for text in all() {
        let record: Value = serde_json::from_str(&text).unwrap();
        let event = in_view(&text, View::Ecs);
        let list = |name: &str| event["event"][name].as_array().unwrap().clone();
        assert_eq!(list("category")[0], "web");
        assert!(list("category").iter().all(|category| categories.contains(&category.as_str().unwrap())));
        assert!(list("type").iter().all(|kind| types.contains(&kind.as_str().unwrap())));
        assert_eq!(event["event"]["dataset"], "o365.audit");
        for (path, field) in [("provider", "Workload"), ("action", "Operation")] {
            assert_eq!(event["event"].get(path), record.get(field).filter(|value| *value != ""));
        }
        let audit = &event["o365"]["audit"];
        for field in ["RecordType", "UserType", "LogonType", "InternalLogonType", "Version"] {
            assert!(audit.get(field).is_none_or(Value::is_string), "{field} {audit}");
        }
        for field in ["Parameters", "ExtendedProperties", "ModifiedProperties"] {
            let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
            assert!(
                audit.get(field).is_none_or(|value| value.is_object() || empty(value)),
                "{field} {audit}"
            );
        }
        for pair in record["Parameters"].as_array().into_iter().flatten() {
            let found = &audit["Parameters"][pair["Name"].as_str().unwrap()];
            let is = |value: &Value| value == &pair["Value"];
            assert!(is(found) || found.as_array().is_some_and(|all| all.iter().any(is)), "{pair} {audit}");
        }
    }
}

/// Rows of a CSV file by the names in its first line.
fn csv(text: &str) -> Vec<HashMap<String, String>> {
    let mut rows: Vec<Vec<String>> = vec![vec![String::new()]];
    let (mut quoted, mut letters) = (false, text.chars().peekable());
    while let Some(letter) = letters.next() {
        let field = rows.last_mut().unwrap().last_mut().unwrap();
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.push(letters.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => rows.last_mut().unwrap().push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            '\r' | '\u{feff}' => {}
            _ => field.push(letter),
        }
    }
    let names = rows.remove(0);
    let whole = rows.into_iter().filter(|row| row.len() == names.len());
    whole.map(|row| names.iter().cloned().zip(row).collect()).collect()
}

struct AsimColumn {
    kind: String,
    class: String,
    values: Vec<String>,
    aliased: String,
}

#[test]
fn asim_events_pass_microsoft_s_test_of_the_schema() {
    let Some(folder) = shared("schema/asim") else { return };
    let rows = csv(&std::fs::read_to_string(folder.join("ASimTester.csv")).unwrap());
    let schema = |name: &str| -> BTreeMap<String, AsimColumn> {
        let of = rows.iter().filter(|row| row["Schema"] == name);
        of.map(|row| {
            let values = row["ListOfValues"].split('|').filter(|value| !value.is_empty()).map(str::to_owned);
            let column = AsimColumn {
                kind: row["ColumnType"].clone(),
                class: row["Class"].clone(),
                values: values.collect(),
                aliased: row["Aliased"].clone(),
            };
            (row["ColumnName"].clone(), column)
        })
        .collect()
    };
    let schemas: HashMap<&str, _> =
        ["AuditEvent", "Authentication"].into_iter().map(|name| (name, schema(name))).collect();
    for (table, name) in tables(View::Asim).iter().zip(["AuditEvent", "Authentication"]) {
        for column in table.columns {
            let known =
                schemas[name].get(column.name).unwrap_or_else(|| panic!("{name} has no {}", column.name));
            let kind = match column.kind {
                ColumnKind::String => "string",
                ColumnKind::Int => "int",
                ColumnKind::DateTime => "datetime",
                ColumnKind::Dynamic => "dynamic",
                other => panic!("{other:?}"),
            };
            assert_eq!(known.kind, kind, "{}", column.name);
        }
    }
    let mut logons = 0;
    for text in all() {
        let event = in_view(&text, View::Asim);
        let columns = &schemas[event["EventSchema"].as_str().unwrap()];
        logons += usize::from(event["EventSchema"] == "Authentication");
        for (name, column) in columns {
            let value = event.get(name);
            match column.class.as_str() {
                "Mandatory" => {
                    assert!(value.is_some_and(|value| *value != ""), "{name} is missing: {event:#}")
                }
                "Conditional" => {
                    let asked = event.get(&column.aliased).is_some();
                    assert_eq!(value.is_some(), asked, "{name} goes with {}: {event:#}", column.aliased);
                }
                "Alias" => {
                    assert!(
                        value.is_none() || value == event.get(&column.aliased),
                        "{name} is not {}",
                        column.aliased
                    );
                }
                _ => {}
            }
            // The list of products is that of the parsers that exist; Microsoft asks for `Exchange 365` all the same.
            let product = name == "EventProduct"
                && (columns.contains_key("TargetUsername") || value.is_some_and(|v| v == "Microsoft 365"));
            if let Some(text) =
                value.and_then(Value::as_str).filter(|_| !column.values.is_empty() && !product)
            {
                assert!(column.values.iter().any(|known| known == text), "{name} is {text}");
            }
        }
    }
    assert!(logons > 0);
}
