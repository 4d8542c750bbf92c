//! The corpus of `fuzz/` goes through the functions that are fuzzed, so that what was once found stays mended without the
//! toolchain that finds it.
//!
//! `MAILTRAIL_UPDATE_CORPUS=1 cargo test -p transform --test it fuzz_corpus` writes the seeds again; files that fuzzing found
//! are left alone.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use proptest::prelude::*;

use crate::records::fixtures;

#[path = "../../../fuzz/src/normalise.rs"]
mod normalise;
#[path = "../../../fuzz/src/split.rs"]
mod split;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// The longest seed, in bytes. What is longer makes fuzzing slow and has nothing that a shorter one lacks.
const LONGEST: usize = 4000;

/// Every operation that the simulator knows once, every oddity, and what a fixture says in few words.
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let (mut operations, mut body) = (BTreeSet::new(), Vec::new());
    for example in simulator::catalogue() {
        if operations.insert(example.operation) {
            let name = example.operation.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_");
            seeds.push(("normalise", name, example.record.clone()));
        }
        if operations.len() < 3 {
            body.push(String::from_utf8(example.record).unwrap());
        }
    }
    for example in simulator::quirk_catalogue() {
        seeds.push(("normalise", format!("quirk_{}", example.variant.replace(' ', "_")), example.record));
    }
    for (name, text) in fixtures().into_iter().filter(|(_, text)| text.len() < 700) {
        seeds.push(("normalise", format!("fixture_{name}"), text.into_bytes()));
    }
    seeds.retain(|(.., bytes)| bytes.len() <= LONGEST);
    let whole = format!("[{}]", body.join(","));
    let cut = whole.as_bytes()[..whole.len() / 2].to_vec();
    for (name, bytes) in [
        ("whole", whole.clone().into_bytes()),
        ("cut", cut),
        ("pretty", format!("\u{feff}[\r\n  {}\r\n]\r\n", body.join(" ,\n  ")).into_bytes()),
        ("empty", b"[]".to_vec()),
        ("scalars", br#"[1,"a\"]",null,[{}],{"Id":"x","Id":"y"}]"#.to_vec()),
        (
            "escapes",
            br#"[{"\u0049d":"1c7412a6-858d-49ff-3f93-08d7ac0f45bf","UserId":"\\\"}","Operation":"a"}]"#
                .to_vec(),
        ),
        ("error", br#"{"error":{"code":"AF50000"}}"#.to_vec()),
    ] {
        seeds.push(("split", name.to_owned(), bytes));
    }
    seeds
}

#[test]
fn fuzz_corpus_has_its_seeds() {
    let seeds = seeds();
    assert!(seeds.len() > 50);
    let mut stale = Vec::new();
    for (target, name, bytes) in seeds {
        let path = folder(target).join(&name);
        if std::env::var_os("MAILTRAIL_UPDATE_CORPUS").is_some() {
            std::fs::create_dir_all(folder(target)).unwrap();
            std::fs::write(path, bytes).unwrap();
        } else if std::fs::read(path).ok() != Some(bytes) {
            stale.push(format!("{target}/{name}"));
        }
    }
    assert_eq!(stale, [""; 0], "write the seeds again with MAILTRAIL_UPDATE_CORPUS=1");
}

fn replay(target: &str, check: fn(&[u8])) {
    let files: Vec<_> = std::fs::read_dir(folder(target)).unwrap().collect();
    assert!(!files.is_empty());
    for file in files {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if std::panic::catch_unwind(|| check(&bytes)).is_err() {
            panic!("{} fails {target}", path.display());
        }
    }
}

#[test]
fn fuzz_corpus_of_normalise_holds() {
    replay("normalise", normalise::check);
}

#[test]
fn fuzz_corpus_of_split_holds() {
    replay("split", split::check);
}

proptest! {
    /// The same promises for records of known fields with anything in them, and for the records beside each other.
    #[test]
    fn what_is_fuzzed_holds_for_generated_records(records in prop::collection::vec(crate::lossless::record(), 1..4)) {
        let texts: Vec<String> = records.iter().map(ToString::to_string).collect();
        texts.iter().for_each(|text| normalise::check(text.as_bytes()));
        split::check(format!("[{}]", texts.join(",")).as_bytes());
    }

    /// And for what is hardly JSON.
    #[test]
    fn what_is_fuzzed_holds_for_cut_records(record in crate::lossless::record(), at in any::<prop::sample::Index>()) {
        let text = record.to_string().into_bytes();
        normalise::check(&text[..at.index(text.len())]);
        split::check(&text[..at.index(text.len())]);
    }
}
