//! The documentation against the code.

use std::{collections::BTreeSet, fs, path::Path};

use toml::de::DeTable;

use super::{
    super::{Config, Document, read},
    HEAD, parse,
};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");

fn documentation(name: &str) -> String {
    let path = Path::new(DOCS).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every key that reading the fullest example asks for, with `NAME` for names.
fn known_keys() -> BTreeSet<String> {
    let text = documentation("examples/full.toml");
    let table = DeTable::parse(&text).unwrap();
    let document = Document::new(&text);
    read(Path::new("full.toml"), &document, table.get_ref()).unwrap();
    let mut keys = document.asked.take();
    // The outermost names are sections.
    keys.retain(|key| key.contains('.'));
    keys
}

/// Every key that the documentation lists: the first cells of the tables under a heading that names sections.
fn documented_keys() -> BTreeSet<String> {
    let code =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut sections: Vec<String> = Vec::new();
    let mut keys = BTreeSet::new();
    for line in documentation("configuration.md").lines() {
        if let Some(heading) = line.strip_prefix('#') {
            let named: Vec<String> = code(heading)
                .iter()
                .filter_map(|text| Some(text.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
                .collect();
            // A kind of sink is documented within the section of all sinks.
            if !(named.is_empty() && heading.contains("`type = ")) {
                sections = named;
            }
        } else if let Some(row) = line.strip_prefix("| `") {
            let cell = format!("`{}", row.split(" |").next().unwrap_or_default());
            for key in code(&cell) {
                keys.extend(sections.iter().map(|section| format!("{section}.{key}")));
            }
        }
    }
    keys
}

#[test]
fn the_documentation_lists_exactly_the_keys_that_there_are() {
    let (known, documented) = (known_keys(), documented_keys());
    assert!(known.len() > 60, "{known:?}");
    assert_eq!(
        known.difference(&documented).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "not in docs/configuration.md"
    );
    assert_eq!(
        documented.difference(&known).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "documented, but no such key"
    );
}

#[test]
fn the_fullest_example_sets_every_key() {
    let text = documentation("examples/full.toml");
    let config = parse(&text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.tenants.len(), 4);
    let words: BTreeSet<&str> = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let unset: Vec<String> = known_keys()
        .into_iter()
        .filter(|key| key.rsplit('.').next().is_some_and(|last| !words.contains(last)))
        .collect();
    assert_eq!(unset, Vec::<String>::new());
}

#[test]
fn every_example_in_the_documentation_is_valid() {
    let mut examples = Vec::new();
    for entry in fs::read_dir(Path::new(DOCS).join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            examples.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(examples.len() >= 2);
    for entry in fs::read_dir(DOCS).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for block in text.split("```toml\n").skip(1) {
            examples
                .push((path.display().to_string(), block.split("```").next().unwrap_or_default().to_owned()));
        }
    }
    for (name, text) in examples {
        // A part of a configuration is valid when it completes the shortest one.
        let part = !text.contains("[state]");
        let whole = if part { format!("{HEAD}{text}") } else { text };
        if let Err(error) = Config::parse(Path::new(&name), whole.as_bytes()) {
            panic!("{error}");
        }
    }
    let minimal = documentation("examples/minimal.toml");
    assert!(
        documentation("configuration.md").contains(&minimal),
        "the page shows another minimal configuration"
    );
    assert_eq!(minimal.lines().filter(|line| !line.is_empty()).count(), 9);
}
