//! The two that judge an archive: `mailtrail archive verify`, and `tests/archive/verify.py`, which shares nothing with it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Binary, install};
use crate::deploy::root;

/// What was found, by kind and subject.
pub(crate) type Findings = BTreeSet<(String, String)>;

/// The Python that has what the independent verifier needs.
pub(crate) fn python() -> PathBuf {
    install("archive-verifier")
}

/// What mailtrail finds in a folder.
pub(crate) fn mailtrail(folder: &Path, key: &Path, heads: &[String]) -> Findings {
    let text = |path: &Path| path.to_str().expect("a name in UTF-8").to_owned();
    let (place, key) = (text(folder), text(key));
    let mut arguments =
        vec!["archive", "verify", "--json", "--directory", place.as_str(), "--public-key", key.as_str()];
    heads.iter().for_each(|head| arguments.extend(["--head", head.as_str()]));
    let outcome = Binary::start(folder, &arguments).wait();
    let report: serde_json::Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.text()));
    let shown = report["shown"].as_array().expect("a list");
    let word = |finding: &serde_json::Value, name: &str| finding[name].as_str().expect("a text").to_owned();
    let findings: Findings =
        shown.iter().map(|finding| (word(finding, "kind"), word(finding, "subject"))).collect();
    assert_eq!(outcome.status.code(), Some(i32::from(!findings.is_empty())), "{}", outcome.text());
    findings
}

/// What the independent verifier finds in a folder.
pub(crate) fn independent(python: &Path, folder: &Path, key: &Path, heads: &[String]) -> Findings {
    let mut command = Command::new(python);
    command.arg(root().join("tests/archive/verify.py")).arg(folder).arg("--public-key").arg(key);
    heads.iter().for_each(|head| _ = command.args(["--head", head.as_str()]));
    let output = command.output().expect("Python runs");
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(errors, "");
    let findings: Findings = told
        .lines()
        .map(|line| line.split_once(' ').expect("a kind and a subject"))
        .map(|(kind, subject)| (kind.to_owned(), subject.to_owned()))
        .collect();
    assert_eq!(output.status.code(), Some(i32::from(!findings.is_empty())), "{told}");
    findings
}
