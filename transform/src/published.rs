//! JSON Schemas of what the views emit, for those who receive it.
//!
//! They are made from the tables that the code itself goes by, and lie as files in `schemas/published/`. What a change of them
//! means to a receiver, and when [`VERSION`] has to grow, is said in `docs/SCHEMA.md`, "Published schemas".
//!
//! They say what mailtrail writes. Whether that is also what the owner of a schema (OCSF, Elastic, Microsoft) asks for is
//! tested apart from this.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    Column, ColumnKind, Table, View,
    ocsf::attributes::{self, Attribute, Kind, Object},
    operation::{self, Class},
    tables,
};

/// The version of the schemas, which their ids and their folder carry. It grows when an event may change in a way that a
/// receiver who relies on its schema would notice.
pub const VERSION: u32 = 1;

/// The name of a view's file, from the root of the workspace.
#[must_use]
pub fn path(view: View) -> String {
    format!("schemas/published/v{VERSION}/{view}.schema.json")
}

/// The operations that have a row of their own in the mapping (`docs/SCHEMA.md`, "Operations"), cmdlets with their verbs.
#[must_use]
pub fn operations() -> Vec<String> {
    operation::tabled().collect()
}

/// The schema of a view's events (JSON Schema, draft 2020-12).
#[must_use]
pub fn json_schema(view: View) -> Value {
    let mut schema = match view {
        View::Ocsf => ocsf(),
        View::Raw => json!({
            "description": "A record of the Office 365 Management Activity API as it gave it, on one line.",
            "type": "object",
        }),
        View::Ecs | View::Asim | View::Splunk | View::OfficeActivity => of_tables(tables(view)),
    };
    let title = format!("mailtrail events, view {view}, version {VERSION}");
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        fields.insert("$id".into(), format!("urn:mailtrail:schema:v{VERSION}:{view}").into());
        fields.insert("title".into(), title.into());
    }
    schema
}

/// One schema for each kind of event, chosen by a field that says which kind it is.
fn chosen_by(field: &str, kinds: Vec<(Value, String)>, definitions: Map<String, Value>) -> Value {
    let values: Vec<&Value> = kinds.iter().map(|(value, _)| value).collect();
    let properties: Map<_, _> = [(field.to_owned(), json!({"enum": values}))].into_iter().collect();
    let choices: Vec<Value> = kinds
        .iter()
        .map(|(value, name)| {
            let is: Map<_, _> = [(field.to_owned(), json!({"const": value}))].into_iter().collect();
            json!({"if": {"properties": is}, "then": {"$ref": format!("#/$defs/{name}")}})
        })
        .collect();
    json!({
        "type": "object", "required": [field], "properties": properties, "allOf": choices, "$defs": definitions,
    })
}

/// The name of a class's definition: `api_activity` of `API Activity`.
fn class_definition(class: Class) -> String {
    class.names().name.to_ascii_lowercase().replace(' ', "_")
}

fn ocsf() -> Value {
    let mut definitions = BTreeMap::new();
    let mut kinds = Vec::new();
    for class in Class::ALL {
        let of_class = ocsf_class(class, &mut definitions);
        definitions.insert(class_definition(class), of_class);
        kinds.push((class.names().uid.into(), class_definition(class)));
    }
    let mut schema = chosen_by("class_uid", kinds, definitions.into_iter().collect());
    if let Some(fields) = schema.as_object_mut() {
        let description = "OCSF events of the releases 1.5.0 to 1.8.0. Captions (names beside numbers), observables and raw \
            data depend on the sink's configuration. Other fields of the record stand under unmapped with their own names.";
        fields.insert("description".into(), description.into());
    }
    schema
}

fn ocsf_class(class: Class, definitions: &mut BTreeMap<String, Value>) -> Value {
    let names = class.names();
    let numbers: Vec<u8> = class.activities().iter().map(|activity| activity.number).collect();
    let types: Vec<u32> = numbers.iter().map(|number| names.uid * 100 + u32::from(*number)).collect();
    let captions: Vec<&str> = class.activities().iter().map(|activity| activity.caption).collect();
    let type_names: Vec<String> =
        captions.iter().map(|caption| format!("{}: {caption}", names.name)).collect();
    let own_word = numbers.contains(&operation::api::OTHER);
    let fixed = json!({
        "class_uid": {"const": names.uid},
        "class_name": {"const": names.name},
        "category_uid": {"const": names.category_uid},
        "category_name": {"const": names.category_name},
        "activity_id": {"enum": numbers},
        "activity_name": if own_word {
            json!({"type": "string", "description": "the record's own Operation where activity_id is 99"})
        } else {
            json!({"enum": captions})
        },
        "type_uid": {"enum": types},
        "type_name": {"enum": type_names},
    });
    let mut schema = object(&attributes::of_class(class), false, definitions);
    if let (Some(properties), Value::Object(fixed)) = (schema["properties"].as_object_mut(), fixed) {
        properties.extend(fixed);
    }
    if let Some(required) = schema["required"].as_array_mut() {
        let always = ["class_uid", "category_uid", "activity_id", "type_uid"];
        required.extend(always.map(Value::from));
    }
    schema
}

/// The schema of an object. Objects within it go to the definitions.
fn object(attributes: &[Attribute], open: bool, definitions: &mut BTreeMap<String, Value>) -> Value {
    let mut properties = Map::new();
    for attribute in attributes {
        let mut schema = of_kind(attribute.kind, definitions);
        if let Some(fields) = schema.as_object_mut().filter(|_| !attribute.about.is_empty()) {
            fields.insert("description".into(), attribute.about.into());
        }
        properties.insert(attribute.name.into(), schema);
    }
    let required: Vec<&str> = attributes.iter().filter(|a| a.required).map(|a| a.name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": open,
    })
}

fn of_kind(kind: Kind, definitions: &mut BTreeMap<String, Value>) -> Value {
    match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Email => json!({
            "type": "string",
            "pattern": r"^[A-Za-z0-9!#$%&'*+,\-./=?^_`{|}~]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]+$",
        }),
        Kind::Ip => of_column_kind(ColumnKind::Ip),
        Kind::DateTime => of_column_kind(ColumnKind::DateTime),
        Kind::Integer => json!({"type": "integer"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Json => json!({}),
        Kind::AnyObject => json!({"type": "object"}),
        Kind::Words(words) => json!({"enum": words}),
        Kind::WordsOf(words) => {
            let mut words = words();
            words.sort_unstable();
            words.dedup();
            json!({"enum": words})
        }
        Kind::Numbers(numbers) => json!({"enum": numbers}),
        Kind::Object(of) => json!({"$ref": definition(of, definitions)}),
        Kind::List(item) => {
            json!({"type": "array", "minItems": 1, "items": of_kind(*item, definitions)})
        }
        Kind::MaybeEmptyList(item) => json!({"type": "array", "items": of_kind(*item, definitions)}),
    }
}

/// The reference to an object's definition, which is made when it is not there yet.
fn definition(of: &Object, definitions: &mut BTreeMap<String, Value>) -> String {
    if !definitions.contains_key(of.name) {
        let schema = object(of.attributes, of.open, definitions);
        definitions.insert(of.name.to_owned(), schema);
    }
    format!("#/$defs/{}", of.name)
}

/// The one object of the Elastic Common Schema among the columns that is a list of objects (its type `nested`).
const NESTED: &str = "email.attachments";

fn of_tables(tables: &[Table]) -> Value {
    if let [table] = tables {
        return of_table(table);
    }
    // Each event says in `Type` to which table it belongs.
    let definitions = tables.iter().map(|table| (table.name.to_owned(), of_table(table))).collect();
    let kinds = tables.iter().map(|table| (table.name.into(), table.name.to_owned())).collect();
    chosen_by("Type", kinds, definitions)
}

fn of_table(table: &Table) -> Value {
    let mut tree = Tree::default();
    for column in table.columns {
        let in_list = column.name.strip_prefix(NESTED).is_some_and(|rest| rest.starts_with('.'));
        tree.insert(
            column.name,
            of_column(&Column { list: column.list && !in_list, ..*column }),
            column.required,
        );
    }
    tree.mark_nested(NESTED);
    let mut description = format!("An event for {}.", table.name);
    match table.native {
        Some("") => {
            tree.open = true;
            description.push_str(
                " The record's own fields stand beside the columns under their own names. A field that is called like a \
                 column takes its place and may hold anything.",
            );
        }
        Some(native) => {
            // Should there be a column of that name, it is an object too.
            let record =
                json!({"type": "object", "description": "fields of the record under their own names"});
            tree.insert(native, record, false);
        }
        None => {}
    }
    let mut schema = tree.schema();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("description".into(), description.into());
    }
    schema
}

/// Objects within objects, as dots in the names of columns lead into them.
#[derive(Default)]
struct Tree {
    leaves: Map<String, Value>,
    required: Vec<String>,
    inner: BTreeMap<String, Tree>,
    /// Whether other names may stand here too.
    open: bool,
    /// Whether it is a list of such objects.
    nested: bool,
}

impl Tree {
    fn insert(&mut self, name: &str, schema: Value, required: bool) {
        let (first, rest) = match name.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (name, None),
        };
        if required && !self.required.iter().any(|known| known == first) {
            self.required.push(first.to_owned());
        }
        match rest {
            Some(rest) => self.inner.entry(first.to_owned()).or_default().insert(rest, schema, required),
            None => drop(self.leaves.insert(first.to_owned(), schema)),
        }
    }

    /// Makes the object that a path leads to a list of objects, where there is one.
    fn mark_nested(&mut self, path: &str) {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        match (self.inner.get_mut(first), rest) {
            (Some(tree), Some(rest)) => tree.mark_nested(rest),
            (Some(tree), None) => tree.nested = true,
            (None, _) => {}
        }
    }

    fn schema(self) -> Value {
        let inner = self.inner.into_iter().map(|(name, tree)| {
            let (nested, schema) = (tree.nested, tree.schema());
            let list = || json!({"type": "array", "minItems": 1, "items": schema});
            (name, if nested { list() } else { schema.clone() })
        });
        let properties: Map<String, Value> = self.leaves.into_iter().chain(inner).collect();
        json!({
            "type": "object",
            "properties": properties,
            "required": self.required,
            "additionalProperties": self.open,
        })
    }
}

/// A column with a list may also hold the only element of it.
fn of_column(column: &Column) -> Value {
    let one = of_column_kind(column.kind);
    if column.list {
        let list = json!({"type": "array", "minItems": 1, "items": one});
        json!({"anyOf": [one, list]})
    } else {
        one
    }
}

fn of_column_kind(kind: ColumnKind) -> Value {
    match kind {
        ColumnKind::String => json!({"type": "string"}),
        ColumnKind::Int => json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
        ColumnKind::Long => json!({"type": "integer"}),
        ColumnKind::Bool => json!({"type": "boolean"}),
        ColumnKind::DateTime => json!({"type": "string", "format": "date-time"}),
        ColumnKind::Ip => json!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
        ColumnKind::Dynamic => json!({}),
    }
}
