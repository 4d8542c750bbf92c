//! What makes an OCSF event valid: its JSON Schema, and what no JSON Schema can say.

use std::{collections::HashMap, io::Read};

use serde_json::{Map, Value};

use crate::records::shared;

/// The published schema, when it is there.
pub(crate) struct Checks {
    schemas: HashMap<String, jsonschema::Validator>,
    /// The whole schema: captions, siblings and deprecations.
    compiled: Value,
}

const CLASSES: [(u64, &str, &str); 6] = [
    (6003, "api_activity", "api_activity"),
    (4009, "email_activity", "email_activity"),
    (3005, "user_access", "user_access"),
    (3006, "group_management", "group_management"),
    (3001, "account_change", "account_change"),
    (3002, "authentication", "authentication"),
];

impl Checks {
    pub(crate) fn load() -> Option<Self> {
        let folder = shared("schema/ocsf")?;
        let mut schemas = HashMap::new();
        for (_, file, _) in CLASSES {
            for name in [file.to_owned(), format!("{file}+security_control")] {
                let text = std::fs::read_to_string(folder.join(format!("jsonschema/{name}.json"))).unwrap();
                let schema: Value = serde_json::from_str(&text).unwrap();
                schemas.insert(name, jsonschema::validator_for(&schema).unwrap());
            }
        }
        let packed = std::fs::File::open(folder.join("ocsf-1.8.0.compiled.json.gz")).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        Some(Self { schemas, compiled: serde_json::from_str(&text).unwrap() })
    }

    /// Everything that is wrong with an event.
    pub(crate) fn faults(&self, event: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        let uid = event["class_uid"].as_u64().unwrap_or(0);
        let Some((_, file, class)) = CLASSES.iter().find(|(known, ..)| *known == uid) else {
            return vec![format!("class_uid {uid}")];
        };
        let profiles: Vec<&str> = event["metadata"]["profiles"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let controlled = profiles.contains(&"security_control");
        let name = if controlled { format!("{file}+security_control") } else { (*file).to_owned() };
        for error in self.schemas[&name].iter_errors(event) {
            faults.push(format!("{}: {error}", error.instance_path()));
        }
        let activity = event["activity_id"].as_u64().unwrap_or(0);
        if event["type_uid"].as_u64() != Some(uid * 100 + activity) {
            faults.push(format!("type_uid {} of activity {activity}", event["type_uid"]));
        }
        let allowed = self.compiled["classes"][class]["profiles"].as_array().unwrap();
        for profile in &profiles {
            if !allowed.iter().any(|allowed| allowed == profile) {
                faults.push(format!("profile {profile}"));
            }
        }
        for (profile, used) in [
            ("cloud", event.get("cloud").is_some() || event.get("api").is_some()),
            ("datetime", event.get("time_dt").is_some()),
            ("host", uid == 4009 && event.get("actor").is_some()),
            ("security_control", event.get("attacks").is_some()),
        ] {
            if used && !profiles.contains(&profile) {
                faults.push(format!("profile {profile} is used and not listed"));
            }
        }
        self.captions(
            event.as_object().unwrap(),
            &self.compiled["classes"][class]["attributes"],
            "",
            &mut faults,
        );
        for observable in event["observables"].as_array().into_iter().flatten() {
            let (name, value) = (observable["name"].as_str().unwrap_or(""), &observable["value"]);
            if at_path(event, name) != Some(value) {
                faults.push(format!("observable {name} is not {value}"));
            }
        }
        faults
    }

    /// Numbers of enumerations with their captions, and deprecated attributes, through all objects of an event.
    fn captions(
        &self,
        object: &Map<String, Value>,
        attributes: &Value,
        path: &str,
        faults: &mut Vec<String>,
    ) {
        for (name, value) in object {
            let attribute = &attributes[name];
            let path = format!("{path}.{name}");
            if attribute.get("@deprecated").is_some() {
                faults.push(format!("{path} is deprecated"));
            }
            if let (Some(sibling), Some(number)) = (attribute["sibling"].as_str(), value.as_u64()) {
                let caption = &attribute["enum"][number.to_string()]["caption"];
                match object.get(sibling) {
                    Some(found) if number != 99 && found != caption => {
                        faults.push(format!("{path} {number} is {caption}, not {found}"));
                    }
                    None if number == 99 => faults.push(format!("{path} is 99 and nothing says what")),
                    _ => {}
                }
            }
            let Some(kind) = attribute["object_type"].as_str() else { continue };
            let attributes = &self.compiled["objects"][kind]["attributes"];
            for inner in value.as_array().unwrap_or(&vec![value.clone()]) {
                if let Some(inner) = inner.as_object() {
                    self.captions(inner, attributes, &path, faults);
                }
            }
        }
    }
}

/// The value at a path such as `resources[2].uid`.
fn at_path<'v>(event: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(event, |value, step| {
        let (name, index) = match step.split_once('[') {
            Some((name, index)) => (name, Some(index.strip_suffix(']')?.parse::<usize>().ok()?)),
            None => (step, None),
        };
        let value = value.get(name)?;
        index.map_or(Some(value), |index| value.get(index))
    })
}
