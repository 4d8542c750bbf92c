//! The templates: against what Azure requires of each resource, against each other, and against the views.

mod bicep;
mod kql;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use transform::{published, tables};

use super::*;

fn template(target: Target) -> Json {
    serde_json::from_str(&arm(target)).unwrap()
}

fn resources<'a>(template: &'a Json, kind: &str) -> Vec<&'a Json> {
    let all = template["resources"].as_array().unwrap();
    all.iter().filter(|resource| resource["type"] == kind).collect()
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Exactly these members, `optional` aside.
fn has(value: &Json, required: &[&str], optional: &[&str]) {
    let members: BTreeSet<&str> = value
        .as_object()
        .unwrap_or_else(|| panic!("{value} is no object"))
        .keys()
        .map(String::as_str)
        .collect();
    for name in required {
        assert!(members.contains(name), "there is no {name} in {value}");
    }
    for name in members {
        assert!(required.contains(&name) || optional.contains(&name), "{name} is not known in {value}");
    }
}

/// Columns by name, each of one of the kinds.
fn columns(value: &Json, kinds: &[&str]) -> BTreeMap<String, String> {
    let mut columns = BTreeMap::new();
    for column in value.as_array().unwrap() {
        has(column, &["name", "type"], &[]);
        let (name, kind) = (text(&column["name"]), text(&column["type"]));
        assert!(kinds.contains(&kind), "{name} is {kind}");
        // Azure Monitor, "Create a custom table": a letter first, then letters, digits and `_`, 45 in all.
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        assert!(
            name.len() <= 45 && name.as_bytes()[0].is_ascii_alphabetic() && name.bytes().all(known),
            "{name}"
        );
        assert!(!RESERVED.contains(&name), "{name} is reserved");
        assert!(columns.insert(name.to_owned(), kind.to_lowercase()).is_none(), "{name} is there twice");
    }
    columns
}

const TABLE_KINDS: [&str; 8] = ["boolean", "dateTime", "dynamic", "guid", "int", "long", "real", "string"];
const STREAM_KINDS: [&str; 7] = ["boolean", "datetime", "dynamic", "int", "long", "real", "string"];

#[test]
fn each_resource_has_what_azure_requires_and_nothing_unknown() {
    for target in Target::ALL {
        let template = template(target);
        has(&template, &["$schema", "contentVersion", "parameters", "resources", "outputs"], &["metadata"]);
        assert_eq!(
            template["$schema"],
            "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
        );
        for (name, parameter) in template["parameters"].as_object().unwrap() {
            has(parameter, &["type", "metadata"], &["defaultValue", "minValue", "maxValue"]);
            assert!(["string", "int", "bool"].contains(&text(&parameter["type"])), "{name}");
        }
        for output in template["outputs"].as_object().unwrap().values() {
            has(output, &["type", "value"], &[]);
        }
        let mut names = BTreeSet::new();
        for resource in template["resources"].as_array().unwrap() {
            assert!(
                names.insert((text(&resource["type"]), text(&resource["name"]))),
                "{resource} is there twice"
            );
            let properties = &resource["properties"];
            match text(&resource["type"]) {
                "Microsoft.OperationalInsights/workspaces/tables" => {
                    has(resource, &["type", "apiVersion", "name", "properties"], &[]);
                    has(properties, &["plan", "retentionInDays", "totalRetentionInDays", "schema"], &[]);
                    has(&properties["schema"], &["name", "columns"], &[]);
                    assert!(text(&properties["schema"]["name"]).ends_with("_CL"));
                    let columns = columns(&properties["schema"]["columns"], &TABLE_KINDS);
                    assert_eq!(columns["TimeGenerated"], "datetime");
                    assert!(columns.len() <= 500, "a table has at most 500 columns");
                }
                "Microsoft.Insights/dataCollectionEndpoints" => {
                    has(resource, &["type", "apiVersion", "name", "location", "properties"], &[]);
                    has(properties, &["networkAcls"], &[]);
                    assert_eq!(properties["networkAcls"]["publicNetworkAccess"], "Enabled");
                }
                "Microsoft.Insights/dataCollectionRules" => {
                    has(
                        resource,
                        &["type", "apiVersion", "name", "location", "dependsOn", "properties"],
                        &[],
                    );
                    rule(properties, target);
                }
                "Microsoft.Authorization/roleAssignments" => {
                    has(resource, &["type", "apiVersion", "scope", "name", "dependsOn", "properties"], &[]);
                    has(properties, &["roleDefinitionId", "principalId", "principalType"], &[]);
                    assert!(text(&resource["scope"]).contains("Microsoft.Insights/dataCollectionRules/"));
                    assert!(text(&resource["name"]).starts_with("[guid("), "a name has to be a GUID");
                    assert!(
                        text(&properties["roleDefinitionId"])
                            .contains("3913510d-42f4-4e42-8a64-420c390055eb")
                    );
                }
                "Microsoft.OperationalInsights/workspaces/savedSearches" => {
                    has(resource, &["type", "apiVersion", "name", "dependsOn", "properties"], &["condition"]);
                    let members = [
                        "category",
                        "displayName",
                        "functionAlias",
                        "functionParameters",
                        "query",
                        "version",
                    ];
                    has(properties, &members, &[]);
                    assert_eq!(properties["version"], 2);
                }
                other => panic!("{other} is not expected"),
            }
        }
        let functions = resources(&template, "Microsoft.OperationalInsights/workspaces/savedSearches");
        assert_eq!(functions.len(), if target == Target::Asim { 8 } else { 0 });
        assert_eq!(names.len(), 4 + functions.len());
    }
}

fn rule(properties: &Json, target: Target) {
    let members =
        ["description", "dataCollectionEndpointId", "streamDeclarations", "destinations", "dataFlows"];
    has(properties, &members, &[]);
    let stream = target.stream();
    let streams = properties["streamDeclarations"].as_object().unwrap();
    assert_eq!(streams.keys().collect::<Vec<_>>(), [stream.as_str()]);
    has(&streams[stream.as_str()], &["columns"], &[]);
    columns(&streams[stream.as_str()]["columns"], &STREAM_KINDS);
    let destinations = properties["destinations"]["logAnalytics"].as_array().unwrap();
    assert_eq!(destinations.len(), 1);
    has(&destinations[0], &["workspaceResourceId", "name"], &[]);
    let flows = properties["dataFlows"].as_array().unwrap();
    assert_eq!(flows.len(), 1);
    has(&flows[0], &["streams", "destinations", "transformKql", "outputStream"], &[]);
    assert_eq!(flows[0]["streams"][0], stream.as_str());
    assert_eq!(flows[0]["destinations"][0], destinations[0]["name"]);
    assert_eq!(flows[0]["outputStream"], format!("Custom-{}", target.table()));
    // Azure Monitor service limits: a transformation has at most 15,360 characters.
    let transformation = text(&flows[0]["transformKql"]);
    assert!(transformation.starts_with("source") && transformation.len() <= 15_360);
}

#[test]
fn expressions_refer_to_what_there_is() {
    for target in Target::ALL {
        let template = template(target);
        let parameters = template["parameters"].as_object().unwrap();
        let kinds: BTreeSet<&str> = template["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|resource| text(&resource["type"]))
            .collect();
        let mut used = BTreeSet::new();
        let mut visit = vec![&template["resources"], &template["outputs"], &template["parameters"]];
        while let Some(value) = visit.pop() {
            match value {
                Json::Array(items) => visit.extend(items),
                Json::Object(members) => visit.extend(members.values()),
                Json::String(text) if text.starts_with('[') => {
                    assert!(text.ends_with(']'), "{text}");
                    for name in text.split("parameters('").skip(1) {
                        let name = name.split('\'').next().unwrap();
                        assert!(parameters.contains_key(name), "{text}");
                        used.insert(name.to_owned());
                    }
                    for kind in text.split("resourceId('").skip(1) {
                        let kind = kind.split('\'').next().unwrap();
                        let elsewhere = [
                            "Microsoft.OperationalInsights/workspaces",
                            "Microsoft.Authorization/roleDefinitions",
                        ];
                        assert!(kinds.contains(kind) || elsewhere.contains(&kind), "{text}");
                    }
                }
                _ => {}
            }
        }
        assert_eq!(used, parameters.keys().cloned().collect::<BTreeSet<_>>(), "every parameter is used");
    }
}

/// What a view writes, as its published schema has it.
#[test]
fn the_columns_are_those_of_the_view() {
    for target in [Target::Asim, Target::OfficeActivity] {
        let template = template(target);
        let rule = resources(&template, "Microsoft.Insights/dataCollectionRules")[0];
        let declared = &rule["properties"]["streamDeclarations"][target.stream().as_str()]["columns"];
        let declared = columns(declared, &STREAM_KINDS);
        let schema = published::json_schema(target.view());
        let mut schemas: Vec<&Json> =
            schema["$defs"].as_object().map(|definitions| definitions.values().collect()).unwrap_or_default();
        if schemas.is_empty() {
            schemas.push(&schema);
        }
        let mut written = BTreeMap::new();
        for schema in schemas {
            for (name, property) in schema["properties"].as_object().unwrap() {
                let kind = match (property["type"].as_str(), property["format"].as_str()) {
                    (Some("string"), Some("date-time")) => "datetime",
                    (Some("string"), _) => "string",
                    (Some("integer"), _) if property.get("maximum").is_some() => "int",
                    (Some("integer"), _) => "long",
                    (Some("boolean"), _) => "boolean",
                    _ => "dynamic",
                };
                let before = written.insert(name.clone(), kind.to_owned());
                assert!(before.is_none_or(|before| before == kind), "{name} has two types");
            }
        }
        assert_eq!(written.remove("Type").is_some(), target == Target::Asim);
        written.insert("CutColumns".to_owned(), "string".to_owned());
        assert_eq!(declared, written);
        assert!(
            tables(target.view())
                .iter()
                .flat_map(|table| table.columns)
                .all(|column| !column.list || column.kind == ColumnKind::Dynamic)
        );
    }
}

#[test]
fn what_the_rule_puts_out_is_what_the_table_has() {
    for target in Target::ALL {
        let template = template(target);
        let rule = resources(&template, "Microsoft.Insights/dataCollectionRules")[0];
        let table = resources(&template, "Microsoft.OperationalInsights/workspaces/tables")[0];
        let stream = &rule["properties"]["streamDeclarations"][target.stream().as_str()]["columns"];
        let mut out = columns(stream, &STREAM_KINDS);
        let transformation = text(&rule["properties"]["dataFlows"][0]["transformKql"]);
        if let Some((_, added)) = transformation.split_once("extend ") {
            for column in added.split(", ") {
                let (name, value) = column.split_once(" = ").unwrap();
                let kind = match value {
                    value if value.starts_with("toint(") => "int",
                    value if value.starts_with("tostring(") => "string",
                    value if value.starts_with("todatetime(") || value == "EventStartTime" => "datetime",
                    other => panic!("{other}"),
                };
                assert!(out.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there already");
            }
        }
        assert_eq!(out, columns(&table["properties"]["schema"]["columns"], &TABLE_KINDS), "{target:?}");
    }
}

#[test]
fn both_forms_are_the_same_deployment() {
    for target in Target::ALL {
        let (read, written) = (bicep::as_arm(&super::bicep(target)), template(target));
        for part in ["parameters", "outputs", "resources"] {
            assert_eq!(read[part], written[part], "{part} of {target:?}");
        }
    }
}
