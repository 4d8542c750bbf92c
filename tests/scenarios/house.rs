//! Which crate may know which.

use std::{collections::BTreeMap, process::Command};

/// The arrows of docs/ARCHITECTURE.md, "The house". Development dependencies do not count: a crate's tests may use
/// the simulator.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("schemas", &[]),
    ("entra", &[]),
    ("archive", &["schemas", "entra"]),
    ("ledger", &["schemas"]),
    ("transform", &["schemas"]),
    ("ingest", &["schemas", "entra"]),
    ("sinks", &["schemas", "entra", "archive"]),
    ("simulator", &["schemas"]),
    ("mailtrail", &["schemas", "entra", "archive", "ledger", "transform", "ingest", "sinks", "simulator"]),
];

#[test]
fn crates_know_only_whom_they_may_know() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), allowed.len(), "every crate of the workspace is in the table");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let may_know = allowed.get(name).unwrap_or_else(|| panic!("crate {name} is not in the table"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let known = dependency["name"].as_str().expect("a name");
            if dependency["kind"].as_str() == Some("dev") || !allowed.contains_key(known) {
                continue;
            }
            assert!(may_know.contains(&known), "{name} must not know {known}");
        }
    }
    // What is pure has no way to do I/O or to read a clock.
    for pure in ["schemas", "transform"] {
        let package = packages.iter().find(|package| package["name"] == pure).expect("it is there");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let known = dependency["name"].as_str().expect("a name");
            assert!(
                dependency["kind"].as_str() == Some("dev") || !["tokio", "reqwest"].contains(&known),
                "{pure} must not know {known}"
            );
        }
    }
}
