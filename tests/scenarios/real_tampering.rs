//! Somebody tampers with an archive that mailtrail wrote: both verifiers find it and name it.
//!
//! `tests/servers/archive-verifier` makes the Python that the independent one runs with.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use archive::{ChainFile, ChainKey, Entry, Envelope, ObjectPath, SigningKey};
use simulator::SimulatorConfig;

use crate::{
    archive::{below, configure},
    support::{
        World, terminate,
        verifiers::{independent, mailtrail, python},
    },
};

/// A copy of an archive that somebody has been at.
struct Copy {
    folder: PathBuf,
    chain: ChainKey,
    /// The number of its last entry.
    last: u64,
    /// The head that stands in the log.
    head: String,
}

impl Copy {
    fn file(&self, path: &ObjectPath) -> PathBuf {
        self.folder.join(path.as_str())
    }

    fn entry(&self, number: u64) -> Entry {
        let bytes = fs::read(self.file(&self.chain.entry(number))).expect("an entry");
        Entry::parse(Envelope::parse(&bytes).expect("an envelope").payload()).expect("an entry")
    }

    /// An entry that is not the last, and names an object; and the object.
    fn object(&self) -> (u64, PathBuf) {
        let named = (1..self.last).find_map(|number| {
            let entry = self.entry(number);
            Some((number, self.file(&entry.objects.first()?.files.first()?.path)))
        });
        named.expect("an entry before the last names an object")
    }

    fn change(file: &Path, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let bytes = fs::read(file).expect("it is there");
        // What is archived can be written by nobody.
        fs::remove_file(file).expect("it can be removed");
        fs::write(file, change(bytes)).expect("it can be written");
    }
}

/// What somebody does, the heads that were kept, and kinds of findings that it must lead to at least.
type Tampering = (&'static str, fn(&Copy) -> Vec<String>, &'static [&'static str]);

const TAMPERINGS: &[Tampering] = &[
    ("nothing", |copy| vec![copy.head.clone()], &[]),
    (
        "a bit of an object flipped",
        |copy| {
            Copy::change(&copy.object().1, |mut bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
                bytes
            });
            Vec::new()
        },
        &["object-changed"],
    ),
    (
        "a record removed and the object rewritten",
        |copy| {
            Copy::change(&copy.object().1, |bytes| {
                let plain = zstd::decode_all(&bytes[..]).expect("zstd");
                let second = plain.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
                zstd::encode_all(&plain[second..], 3).expect("zstd")
            });
            Vec::new()
        },
        &["object-changed"],
    ),
    (
        "an object deleted",
        |copy| {
            fs::remove_file(copy.object().1).expect("an object");
            Vec::new()
        },
        &["object-missing"],
    ),
    (
        "an entry deleted",
        |copy| {
            fs::remove_file(copy.file(&copy.chain.entry(copy.object().0))).expect("an entry");
            Vec::new()
        },
        &["entry-missing", "surplus"],
    ),
    (
        "the tail cut",
        |copy| {
            fs::remove_file(copy.file(&copy.chain.entry(copy.last))).expect("an entry");
            vec![copy.head.clone()]
        },
        &["tail-cut"],
    ),
    (
        "two entries swapped",
        |copy| {
            let [one, two] = [1, 2].map(|number| copy.file(&copy.chain.entry(number)));
            let between = copy.folder.join("between");
            fs::rename(&one, &between).expect("an entry");
            fs::rename(&two, &one).expect("an entry");
            fs::rename(&between, &two).expect("an entry");
            Vec::new()
        },
        &["entry-misplaced", "entry-previous"],
    ),
    (
        "an entry signed anew with another key",
        |copy| {
            let other = SigningKey::generate().expect("a key");
            let mut entry = copy.entry(2);
            entry.key = other.public().id();
            Copy::change(&copy.file(&copy.chain.entry(2)), |_| {
                Envelope::seal(entry.to_payload(), &other).to_bytes()
            });
            Vec::new()
        },
        &["entry-key"],
    ),
];

/// An archive of several entries, and the head that stands in the log.
fn archived() -> (World, String) {
    let world = World::new(SimulatorConfig {
        blobs: 60,
        rate: 500.0,
        flow_blobs: Some(60),
        ..SimulatorConfig::default()
    });
    configure(&world, "object_age = \"300ms\"\nmanifest_interval = \"1s\"");
    world.edit(|text| text.replace("[sinks.", "poll_interval = \"1s\"\n[sinks."));
    let running = world.start(&["run"]);
    world.until("there are four entries", || entries(&world.path().join("archive")).len() >= 4);
    terminate(&running);
    let log = running.wait().ends_with(0).stderr + &world.collect().stderr;
    let logged = log.lines().rev().find_map(|line| line.split("head=").nth(1));
    let head = logged.map(|rest| rest.split_whitespace().next().expect("a head").to_owned());
    let head = head.unwrap_or_else(|| panic!("no head in the log: {log}"));
    (world, head)
}

/// The entries of the one chain.
fn entries(folder: &Path) -> Vec<(ChainKey, u64)> {
    let name = |path: PathBuf| path.strip_prefix(folder).ok()?.to_str()?.parse::<ObjectPath>().ok();
    let entry = |path: ObjectPath| match ChainKey::parse(&path)? {
        (chain, ChainFile::Entry(number)) => Some((chain, number)),
        (_, ChainFile::Timestamp(_)) => None,
    };
    below(folder).into_iter().filter_map(name).filter_map(entry).collect()
}

fn copy_of(world: &World, head: &str) -> Copy {
    let (from, folder) = (world.path().join("archive"), world.path().join("copy"));
    let _ = fs::remove_dir_all(&folder);
    for file in below(&from) {
        let to = folder.join(file.strip_prefix(&from).expect("it is below"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(file, to).expect("a copy");
    }
    let (chain, last) = entries(&folder).into_iter().max_by_key(|(_, number)| *number).expect("entries");
    Copy { folder, chain, last, head: head.to_owned() }
}

#[test]
#[ignore = "needs Python packages, which tests/servers/archive-verifier installs"]
fn real_tampering_with_what_mailtrail_wrote_is_found_by_both_verifiers() {
    let python = python();
    let (world, head) = archived();
    let key = world.path().join("archive.pub");
    for (what, tamper, kinds) in TAMPERINGS {
        let copy = copy_of(&world, &head);
        let heads = tamper(&copy);
        let found = mailtrail(&copy.folder, &key, &heads);
        let found_kinds: BTreeSet<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
        assert!(kinds.iter().all(|kind| found_kinds.contains(kind)), "{what}: {found:?}");
        assert_eq!(found.is_empty(), kinds.is_empty(), "{what}: {found:?}");
        assert_eq!(independent(&python, &copy.folder, &key, &heads), found, "{what}");
    }
}
