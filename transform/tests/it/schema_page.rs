//! `docs/SCHEMA.md` says what the code does.
//!
//! Its examples are written by the code: `UPDATE_SCHEMA_PAGE=1 cargo test -p transform --test it schema_page` puts the events
//! of today into the page, and without the variable a page that shows others fails.

use std::path::PathBuf;

use serde_json::Value;
use transform::{RenderOptions, View, tables};

use crate::records::{event, fixtures};

/// The fixtures that the page shows.
const EXAMPLES: [&str; 3] = ["mail_items_accessed_bind", "set_mailbox_forwarding", "new_inbox_rule"];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/SCHEMA.md")
}

fn page() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// Every fixture's name, record and OCSF event.
fn events() -> Vec<(String, Value, Value)> {
    let options = RenderOptions::default();
    fixtures()
        .into_iter()
        .map(|(name, text)| {
            let event = event(text.as_bytes(), &options);
            (name, serde_json::from_str(&text).unwrap(), event)
        })
        .collect()
}

/// Asserts that each name is on the page as code, and says which are not.
fn all_there<'n>(page: &str, names: impl IntoIterator<Item = &'n str>) {
    let missing: Vec<_> = names.into_iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, [""; 0], "not on the page");
}

#[test]
fn schema_page_shows_the_events_of_the_fixtures() {
    let mut page = page();
    let events = events();
    let mut stale = Vec::new();
    for example in EXAMPLES {
        let (.., event) = events.iter().find(|(name, ..)| name == example).unwrap();
        let start = format!("<!-- example: {example} -->\n```json\n");
        let from = page.find(&start).unwrap_or_else(|| panic!("{start} is not on the page")) + start.len();
        let to = from + page[from..].find("\n```\n").unwrap();
        let wanted = serde_json::to_string_pretty(event).unwrap();
        if page[from..to] != wanted {
            page.replace_range(from..to, &wanted);
            stale.push(example);
        }
    }
    if std::env::var_os("UPDATE_SCHEMA_PAGE").is_some() {
        std::fs::write(path(), page).unwrap();
    } else {
        assert_eq!(stale, [""; 0], "run the test with UPDATE_SCHEMA_PAGE=1 to write these examples again");
    }
}

#[test]
fn schema_page_names_every_tag_with_its_techniques() {
    let page = page();
    for tag in &transform::tags::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", tag.name)));
        let row = row.unwrap_or_else(|| panic!("{} has no row on the page", tag.name));
        for technique in tag.techniques {
            let id = technique.sub.map_or(technique.uid, |(id, _)| id);
            assert!(row.contains(&format!("`{id}`")), "{id} is not in: {row}");
        }
    }
}

#[test]
fn schema_page_names_every_column_of_the_views() {
    let page = page();
    for view in [View::Ecs, View::Asim, View::Splunk] {
        for table in tables(view) {
            all_there(&page, table.columns.iter().map(|column| column.name).chain([table.name]));
        }
    }
}

/// The paths of an object's leaves, `mailbox.owner_upn` for instance; a list counts as one.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    match value.as_object() {
        Some(fields) => fields.iter().for_each(|(name, value)| {
            let dot = if path.is_empty() { "" } else { "." };
            paths(value, &format!("{path}{dot}{name}"), found);
        }),
        None => found.push(path.to_owned()),
    }
}

#[test]
fn schema_page_names_every_field_of_exchange() {
    let page = page();
    let (mut fields, mut facts) = (0, 0);
    for (_, record, event) in events() {
        let Some(exchange) = event["unmapped"]["exchange"].as_object() else { continue };
        let record = record.as_object().unwrap();
        // What the fixtures made up stands under its own name, as the page says of all that is unknown.
        let known = record.keys().filter(|name| event["unmapped"].get(name.as_str()).is_none());
        fields += record.len();
        all_there(&page, known.map(String::as_str));
        let mut found = Vec::new();
        for (name, value) in exchange {
            // These two are the record's own values.
            match name.as_str() {
                "item" | "dest_folder" => found.push(name.clone()),
                _ => paths(value, name, &mut found),
            }
        }
        facts += found.len();
        all_there(&page, found.iter().map(String::as_str));
    }
    assert!(fields > 300 && facts > 200, "{fields} fields and {facts} facts");
}
