//! The delivery contract and the tests that it names.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A sentence of the page, with the tests that it cites as (file, function).
struct Sentence {
    title: String,
    tests: Vec<(String, String)>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sentences(page: &str) -> Vec<Sentence> {
    let mut sentences: Vec<Sentence> = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            sentences.push(Sentence { title: title.to_owned(), tests: Vec::new() });
        } else if let Some(item) = line.strip_prefix("- ") {
            let cited = item.strip_prefix('`').and_then(|item| item.strip_suffix('`'));
            let cited = cited.and_then(|cited| cited.split_once("::"));
            let (file, name) = cited.unwrap_or_else(|| panic!("`{line}` names no test as `file::function`"));
            let sentence = sentences.last_mut().expect("a test is cited under a sentence");
            sentence.tests.push((file.to_owned(), name.to_owned()));
        }
    }
    sentences
}

/// The functions of a source file that are run as tests: those below an attribute that says so.
fn tests_in(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[") || line.starts_with("//") {
            // More attributes and comments may stand between.
        } else {
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let (true, Some((name, _))) = (is_test, function.and_then(|rest| rest.split_once('('))) {
                found.insert(name.to_owned());
            }
            is_test = false;
        }
    }
    found
}

/// The numbers that a test carries in its name: `l6_and_l10_a_settlement…` holds L6 and L10.
fn numbers_in(name: &str) -> Vec<String> {
    let number = |part: &str| {
        let digits = part.strip_prefix('l').filter(|digits| !digits.is_empty());
        digits
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .map(|digits| format!("L{digits}"))
    };
    name.split('_').take_while(|part| *part == "and" || number(part).is_some()).filter_map(number).collect()
}

/// Every Rust file of the workspace's own sources.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the source tree can be read") {
        let path = entry.expect("the source tree can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn page() -> Vec<Sentence> {
    let path = root().join("docs/delivery-contract.md");
    sentences(&fs::read_to_string(path).expect("docs/delivery-contract.md is there"))
}

#[test]
fn every_sentence_is_there_and_is_held_by_tests_that_exist() {
    let page = page();
    let numbered: Vec<_> = page
        .iter()
        .filter_map(|sentence| sentence.title.split_once(": ").map(|(number, _)| number))
        .collect();
    let expected: Vec<_> = (1..=11)
        .map(|number| format!("L{number}"))
        .chain(
            ["Bodies", "Files", "Splunk", "Sentinel", "Kafka", "Archive", "Restore", "Duplicates"]
                .map(str::to_owned),
        )
        .collect();
    assert_eq!(numbered, expected);
    let mut missing = Vec::new();
    for sentence in &page {
        assert!(!sentence.tests.is_empty(), "no test holds `{}`", sentence.title);
        for (file, name) in &sentence.tests {
            let source = fs::read_to_string(root().join(file)).unwrap_or_default();
            if !tests_in(&source).contains(name) {
                missing.push(format!("{}: {file}::{name}", sentence.title));
            }
        }
    }
    assert!(missing.is_empty(), "the contract names tests that do not exist:\n{}", missing.join("\n"));
}

#[test]
fn every_test_with_a_number_is_listed_under_its_sentence() {
    let page = page();
    let mut files = Vec::new();
    sources(root(), &mut files);
    let (mut seen, mut unlisted) = (0, Vec::new());
    for file in files {
        let source = fs::read_to_string(&file).expect("a source file can be read");
        let file = file.strip_prefix(root()).expect("it is below the root").display().to_string();
        for name in tests_in(&source) {
            for number in numbers_in(&name) {
                seen += 1;
                let title = format!("{number}: ");
                let listed = page.iter().find(|sentence| sentence.title.starts_with(&title));
                if !listed.is_some_and(|sentence| sentence.tests.contains(&(file.clone(), name.clone()))) {
                    unlisted.push(format!("{number}: {file}::{name}"));
                }
            }
        }
    }
    assert!(seen > 0, "no test carries a number: the search finds nothing");
    assert!(unlisted.is_empty(), "the contract does not list these tests:\n{}", unlisted.join("\n"));
}

#[test]
fn only_what_runs_as_a_test_counts_as_one() {
    let source = "
        #[test]
        fn plain() {}
        /// Told.
        #[tokio::test(start_paused = true)]
        // Why.
        #[ignore]
        async fn asynchronous() {}
        fn helper() {}
        #[test]
        let other = 1;
        fn after_something_else() {}
    ";
    let found: Vec<_> = tests_in(source).into_iter().collect();
    assert_eq!(found, ["asynchronous", "plain"]);
    assert_eq!(numbers_in("l6_and_l10_a_settlement"), ["L6", "L10"]);
    assert_eq!(numbers_in("l11_each_tenant"), ["L11"]);
    assert!(numbers_in("lines_of_l1").is_empty());
}
