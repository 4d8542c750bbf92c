//! `mailtrail archive verify` and an independent verifier, `tests/archive/verify.py`, on archives that are whole and on archives that
//! somebody has been at: they find the same.
//!
//! `tests/servers/archive-verifier` makes the Python that it runs with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use archive::{
    Accounts, Begins, ChainKey, Draft, Entry, Envelope, FileFormat, Hash, Link, Merkle, ObjectName,
    ObjectPath, SealedFile, SealedObject, SigningKey,
};
use chrono::{DateTime, TimeDelta, Utc};
use schemas::{ContentType, FeedKey, Seq};

use crate::{
    deploy::root,
    support::{
        Binary, Outcome,
        verifiers::{self, Findings, python},
    },
};

fn start() -> DateTime<Utc> {
    "2026-03-04T05:00:00Z".parse().expect("a time")
}

fn record(seq: u64, position: u64) -> String {
    let time = (start() + TimeDelta::seconds((60 * seq + position) as i64)).format("%Y-%m-%dT%H:%M:%S");
    format!(
        r#"{{"CreationTime":"{time}","Id":"00000000-0000-4000-8000-{seq:06}{position:06}","Operation":"Send"}}"#
    )
}

fn compressed(lines: &[String], format: FileFormat) -> Vec<u8> {
    let content: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    match format {
        FileFormat::NdjsonZstd => zstd::encode_all(content.as_bytes(), 3).expect("zstd"),
        _ => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            std::io::Write::write_all(&mut encoder, content.as_bytes()).expect("gzip");
            encoder.finish().expect("gzip")
        }
    }
}

/// An archive in a folder, written with nothing but the format.
struct Archive {
    directory: tempfile::TempDir,
    chain: ChainKey,
    key: SigningKey,
    /// The public key that the archive began with.
    public: PathBuf,
    link: Option<Link>,
}

impl Archive {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a folder");
        let chain = ChainKey {
            tenant: "41463f53-8812-40f4-890f-865bf6e35190".parse().expect("a tenant"),
            ledger: "0f1e2d3c-4b5a-4988-8776-655443322110".parse().expect("a ledger"),
        };
        let key = SigningKey::generate().expect("a key");
        let public = directory.path().join("archive.pub");
        fs::write(&public, key.public().to_pem()).expect("a key file");
        fs::create_dir(directory.path().join("archive")).expect("a folder");
        Self { directory, chain, key, public, link: None }
    }

    /// Five entries: three with two objects each of 300 records, in both compressions; one of silence, in which the key changes; and one
    /// by the new key.
    fn whole() -> Self {
        let mut archive = Self::new();
        for entry in 0..3 {
            let seq = 2 * entry + 1;
            let objects = vec![
                archive.put(seq, ContentType::Exchange, FileFormat::NdjsonZstd),
                archive.put(seq + 1, ContentType::General, FileFormat::NdjsonGzip),
            ];
            archive.entry(seq + 1, objects, None);
        }
        archive.entry(6, Vec::new(), Some(SigningKey::generate().expect("a key")));
        let object = archive.put(7, ContentType::DlpAll, FileFormat::NdjsonZstd);
        archive.entry(7, vec![object], None);
        // Begun, and not covered by an entry yet.
        archive.put(8, ContentType::Exchange, FileFormat::NdjsonZstd);
        archive
    }

    fn folder(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    fn write(&self, path: &ObjectPath, bytes: &[u8]) {
        let file = self.file(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
        fs::write(file, bytes).expect("a file");
    }

    fn file(&self, path: &ObjectPath) -> PathBuf {
        self.folder().join(path.as_str())
    }

    fn put(&self, seq: u64, content_type: ContentType, format: FileFormat) -> SealedObject {
        let lines: Vec<String> = (0..300).map(|position| record(seq, position)).collect();
        let mut tree = Merkle::default();
        lines.iter().for_each(|line| tree.push(line.as_bytes()));
        let bytes = compressed(&lines, format);
        let sha256 = Hash::of(&bytes);
        let (first_seq, last_seq, records) = (Seq(seq), Seq(seq), lines.len() as u64);
        let name = ObjectName { ledger: self.chain.ledger, first_seq, last_seq, short_hash: sha256.short() };
        let path = name.hive_path(FeedKey { tenant: self.chain.tenant, content_type }, start(), format);
        self.write(&path, &bytes);
        SealedObject {
            content_type,
            first_seq,
            last_seq,
            records,
            first_creation_time: Some(start() + TimeDelta::seconds(60 * seq as i64)),
            last_creation_time: Some(start() + TimeDelta::seconds(60 * seq as i64 + 299)),
            merkle_root: tree.root(),
            files: vec![SealedFile { path, format, sha256, bytes: bytes.len() as u64, records }],
        }
    }

    fn entry(&mut self, last_seq: u64, objects: Vec<SealedObject>, next_key: Option<SigningKey>) {
        let mut accounts: BTreeMap<ContentType, Accounts> = BTreeMap::new();
        for object in &objects {
            let accounts = accounts.entry(object.content_type).or_default();
            accounts.listed += 1;
            accounts.fetched += 1;
            accounts.records += object.records + 1;
            accounts.duplicates += 1;
            accounts.archived += object.records;
        }
        let (begins, from) = match self.link.take() {
            None => (Begins::Chain { after_seq: Seq(0), from: start(), old_head: None }, start()),
            Some(link) => (Begins::After(link.clone()), link.to),
        };
        let draft = Draft {
            chain: self.chain,
            begins,
            last_seq: Seq(last_seq),
            to: from + TimeDelta::microseconds(3_600_000_001),
            objects,
            accounts,
            other_seqs: 0,
            incomplete_through: None,
            next_key: next_key.as_ref().map(|key| *key.public()),
        };
        let signed = draft.sign(&self.key).expect("it fits");
        self.write(&signed.path, &signed.envelope.to_bytes());
        self.link = Some(signed.link);
        if let Some(key) = next_key {
            self.key = key;
        }
    }

    fn read(&self, number: u64) -> Entry {
        let bytes = fs::read(self.file(&self.chain.entry(number))).expect("an entry");
        Entry::parse(Envelope::parse(&bytes).expect("an envelope").payload()).expect("an entry")
    }

    fn object(&self, number: u64, at: usize) -> ObjectPath {
        self.read(number).objects[at].files[0].path.clone()
    }

    fn remove(&self, path: &ObjectPath) {
        fs::remove_file(self.file(path)).expect("it is there");
    }

    fn flip(&self, path: &ObjectPath, bit: usize) {
        let mut bytes = fs::read(self.file(path)).expect("it is there");
        let bit = bit % (8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(self.file(path), bytes).expect("it can be written");
    }

    /// What mailtrail finds.
    fn mailtrail(&self, heads: &[String]) -> Findings {
        verifiers::mailtrail(&self.folder(), &self.public, heads)
    }

    /// What the independent verifier finds.
    fn independent(&self, python: &Path, heads: &[String]) -> Findings {
        verifiers::independent(python, &self.folder(), &self.public, heads)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a name in UTF-8")
}

fn mailtrail(directory: &Path, arguments: &[&str]) -> Outcome {
    Binary::start(directory, arguments).wait()
}

/// Somebody's change to a whole archive, the heads that were kept, and the kinds of findings that it must lead to.
type Tampering = (&'static str, fn(&Archive) -> Vec<String>, &'static [&'static str]);

const TAMPERINGS: &[Tampering] = &[
    ("nothing", |archive| vec![archive.link.as_ref().expect("a chain").head().to_string()], &[]),
    (
        "a bit of an object flipped",
        |archive| {
            archive.flip(&archive.object(2, 0), 333);
            Vec::new()
        },
        &["object-changed"],
    ),
    (
        "a letter of a signature changed",
        |archive| {
            let path = archive.chain.entry(2);
            let mut bytes = fs::read(archive.file(&path)).expect("it is there");
            // Another one of base64: a flipped bit may make it none.
            let at = bytes.len() - 40;
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            archive.write(&path, &bytes);
            Vec::new()
        },
        &["entry-signature"],
    ),
    (
        "a record removed and the object rewritten",
        |archive| {
            let lines: Vec<String> =
                (0..300).filter(|position| *position != 17).map(|position| record(3, position)).collect();
            archive.write(&archive.object(2, 0), &compressed(&lines, FileFormat::NdjsonZstd));
            Vec::new()
        },
        &["object-changed"],
    ),
    (
        "a record removed, the object rewritten, and the entry signed anew by the thief of the key",
        |archive| {
            let lines: Vec<String> =
                (0..300).filter(|position| *position != 17).map(|position| record(7, position)).collect();
            let bytes = compressed(&lines, FileFormat::NdjsonZstd);
            let mut entry = archive.read(5);
            let file = &mut entry.objects[0].files[0];
            (file.sha256, file.bytes) = (Hash::of(&bytes), bytes.len() as u64);
            archive.write(&file.path.clone(), &bytes);
            archive
                .write(&archive.chain.entry(5), &Envelope::seal(entry.to_payload(), &archive.key).to_bytes());
            vec![archive.link.as_ref().expect("a chain").head().to_string()]
        },
        &["object-records", "tail-cut"],
    ),
    (
        "an object deleted",
        |archive| {
            archive.remove(&archive.object(3, 1));
            Vec::new()
        },
        &["object-missing"],
    ),
    (
        "an object added",
        |archive| {
            let path = archive.object(1, 0).to_string().replace("-1-1-", "-1-2-");
            archive.write(&path.parse().expect("a path"), b"something");
            Vec::new()
        },
        &["surplus"],
    ),
    (
        "an entry deleted",
        |archive| {
            archive.remove(&archive.chain.entry(2));
            Vec::new()
        },
        &["entry-missing", "surplus"],
    ),
    (
        "the tail cut, and nobody kept the head",
        |archive| {
            archive.remove(&archive.chain.entry(5));
            Vec::new()
        },
        &[],
    ),
    (
        "the tail cut",
        |archive| {
            archive.remove(&archive.chain.entry(5));
            vec![archive.link.as_ref().expect("a chain").head().to_string()]
        },
        &["tail-cut"],
    ),
    (
        "two entries swapped",
        |archive| {
            let [second, third] = [2, 3].map(|number| archive.file(&archive.chain.entry(number)));
            let [two, three] = [&second, &third].map(|path| fs::read(path).expect("an entry"));
            fs::write(second, three).expect("it can be written");
            fs::write(third, two).expect("it can be written");
            Vec::new()
        },
        &["entry-misplaced", "entry-previous", "entry-span"],
    ),
    (
        "an entry signed anew with another key",
        |archive| {
            let other = SigningKey::generate().expect("a key");
            let mut entry = archive.read(3);
            entry.key = other.public().id();
            archive.write(&archive.chain.entry(3), &Envelope::seal(entry.to_payload(), &other).to_bytes());
            Vec::new()
        },
        &["entry-key", "entry-previous"],
    ),
    (
        "an entry signed anew with another key in the name of the right one",
        |archive| {
            let other = SigningKey::generate().expect("a key");
            let forged = Envelope::seal(archive.read(5).to_payload(), &other).to_bytes();
            let forged = String::from_utf8(forged).expect("JSON");
            let forged =
                forged.replace(&other.public().id().to_string(), &archive.key.public().id().to_string());
            archive.write(&archive.chain.entry(5), forged.as_bytes());
            Vec::new()
        },
        &["entry-signature"],
    ),
    (
        "accounts that do not add up",
        |archive| {
            let mut entry = archive.read(5);
            entry.other_seqs = 1;
            archive
                .write(&archive.chain.entry(5), &Envelope::seal(entry.to_payload(), &archive.key).to_bytes());
            Vec::new()
        },
        &["entry-accounts"],
    ),
    (
        "an entry with a number far away planted",
        |archive| {
            archive.write(&archive.chain.entry(9_999_999_999), b"{}");
            Vec::new()
        },
        &["entry-missing", "entry-unreadable"],
    ),
    (
        "a chain planted that names genuine objects",
        |archive| {
            let thief = SigningKey::generate().expect("a key");
            let mut entry = archive.read(1);
            entry.tenant = "00000000-0000-0000-0000-000000000001".parse().expect("a tenant");
            entry.key = thief.public().id();
            let envelope = Envelope::seal(entry.to_payload(), &thief);
            archive.write(&entry.chain().entry(1), &envelope.to_bytes());
            Vec::new()
        },
        &["entry-key", "object-twice"],
    ),
    (
        "an entry signed without one of its objects, which is gone",
        |archive| {
            let mut entry = archive.read(5);
            archive.remove(&archive.object(5, 0));
            entry.objects.clear();
            entry.entry_root = Entry::root_of(&entry.objects);
            archive
                .write(&archive.chain.entry(5), &Envelope::seal(entry.to_payload(), &archive.key).to_bytes());
            Vec::new()
        },
        &["entry-accounts"],
    ),
    (
        "an entry that leads out of the archive",
        |archive| {
            let payload = String::from_utf8(archive.read(5).to_payload()).expect("JSON");
            let outside = payload.replace(archive.object(5, 0).as_str(), "../archive.pub");
            archive.write(
                &archive.chain.entry(5),
                &Envelope::seal(outside.into_bytes(), &archive.key).to_bytes(),
            );
            Vec::new()
        },
        &["entry-unreadable"],
    ),
    (
        "an entry with a member that is there twice",
        |archive| {
            let payload = String::from_utf8(archive.read(5).to_payload()).expect("JSON");
            let twice = payload.replacen("\"accounts\":{", "\"accounts\":{\"DLP.All\":{},", 1);
            archive
                .write(&archive.chain.entry(5), &Envelope::seal(twice.into_bytes(), &archive.key).to_bytes());
            Vec::new()
        },
        &["entry-unreadable"],
    ),
    (
        "an entry that is nested without end",
        |archive| {
            let nested = format!("{{\"a\":{}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
            archive.write(&archive.chain.entry(6), nested.as_bytes());
            Vec::new()
        },
        &["entry-unreadable"],
    ),
    (
        "pipes in the place of an entry and an object",
        |archive| {
            for path in [archive.chain.entry(5), archive.object(1, 0)] {
                archive.remove(&path);
                let made = Command::new("mkfifo").arg(archive.file(&path)).status().expect("mkfifo runs");
                assert!(made.success());
            }
            Vec::new()
        },
        &["entry-missing", "object-missing"],
    ),
    (
        "everything deleted",
        |archive| {
            fs::remove_dir_all(archive.folder()).expect("it can be deleted");
            fs::create_dir(archive.folder()).expect("a folder");
            Vec::new()
        },
        &["no-entries"],
    ),
];

#[test]
#[ignore = "needs Python packages, which tests/servers/archive-verifier installs"]
fn real_archive_verifiers_agree_on_every_tampering() {
    let python = python();
    for (what, tamper, kinds) in TAMPERINGS {
        let archive = Archive::whole();
        let heads = tamper(&archive);
        let found = archive.mailtrail(&heads);
        let found_kinds: BTreeSet<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(found_kinds, kinds.iter().copied().collect(), "{what}: {found:?}");
        assert_eq!(archive.independent(&python, &heads), found, "{what}");
    }
    // Any bit of any file: both name the file.
    let archive = Archive::whole();
    let files: Vec<ObjectPath> =
        (1..=5).map(|number| archive.chain.entry(number)).chain([archive.object(1, 1)]).collect();
    for (round, path) in files.iter().cycle().take(18).enumerate() {
        let bit = 7919 * (round + 1);
        archive.flip(path, bit);
        for found in [archive.mailtrail(&[]), archive.independent(&python, &[])] {
            assert!(
                found.iter().any(|(_, subject)| subject == path.as_str()),
                "bit {bit} of {path}: {found:?}"
            );
        }
        archive.flip(path, bit);
    }
}

#[test]
#[ignore = "needs Python packages, which tests/servers/archive-verifier installs"]
fn real_archive_proofs_convince_both_verifiers() {
    let python = python();
    let archive = Archive::whole();
    let (folder, directory) = (archive.folder(), archive.directory.path());
    let proof = directory.join("proof.json");
    let id = "00000000-0000-4000-8000-000004000123";
    let key = text(&archive.public);
    let line = [
        "archive",
        "prove",
        "--directory",
        text(&folder),
        "--public-key",
        key,
        "--id",
        id,
        "--out",
        text(&proof),
    ];
    mailtrail(directory, &line).ends_with(0);
    let again = mailtrail(directory, &line).ends_with(2);
    assert!(again.stderr.contains("nothing is written over it"), "{}", again.text());
    let since = [&line[..8], &["--since", "2026-03-04T06:00:00"]].concat();
    assert!(mailtrail(directory, &since).ends_with(1).stderr.contains("no object of that time"));

    let both = || {
        let line = ["archive", "verify", "--proof", text(&proof), "--public-key", text(&archive.public)];
        let ours = mailtrail(directory, &line);
        let theirs = Command::new(&python)
            .arg(root().join("tests/archive/verify_proof.py"))
            .args([&proof, &archive.public])
            .output()
            .expect("Python runs");
        assert_eq!(String::from_utf8_lossy(&theirs.stderr), "");
        assert_eq!(ours.status.code(), theirs.status.code(), "{}", ours.text());
        ours
    };
    let proved = both().ends_with(0);
    assert!(proved.stdout.contains(&record(4, 123)), "{}", proved.text());
    let good = fs::read(&proof).expect("the proof");
    for round in 1..=12 {
        let mut bytes = good.clone();
        let bit = 7919 * round % (8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&proof, &bytes).expect("it can be written");
        both().ends_with(1);
    }
}

#[test]
fn a_new_key_signs_and_is_never_written_over_another() {
    let directory = tempfile::tempdir().expect("a folder");
    let key = directory.path().join("archive.key");
    let line = ["archive", "keygen", "--out", text(&key)];
    let made = mailtrail(directory.path(), &line).ends_with(0);
    let private = fs::read_to_string(&key).expect("a key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&key).expect("a key").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let signer = SigningKey::from_pem(&private.clone().into()).expect("a private key");
    assert_eq!(archive::PublicKey::from_pem(&made.stdout).expect("a public key"), *signer.public());
    assert!(made.stdout.contains(&signer.public().id().to_string()));
    let refused = mailtrail(directory.path(), &line).ends_with(2);
    assert!(refused.stderr.contains("nothing is written over it"), "{}", refused.text());
    assert_eq!(fs::read_to_string(&key).expect("a key"), private);
}

#[test]
fn an_archive_is_listed_and_verified_from_the_command_line() {
    let archive = Archive::whole();
    let (folder, directory) = (archive.folder(), archive.directory.path());
    let verify = ["archive", "verify", "--directory", text(&folder), "--public-key", text(&archive.public)];
    let good = mailtrail(directory, &verify).ends_with(0);
    assert!(good.stdout.contains("Everything is as the entries say."), "{}", good.text());
    assert!(good.stdout.contains("7 files") && good.stdout.contains("2,100 records"), "{}", good.text());
    assert!(good.stdout.contains("1 newer files are not covered"), "{}", good.text());
    let listed =
        mailtrail(directory, &["archive", "list", "--directory", text(&folder), "--json"]).ends_with(0);
    let entries: Vec<serde_json::Value> =
        listed.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[4]["sha256"], archive.link.as_ref().expect("a chain").sha256.to_string());
    let since =
        ["archive", "list", "--directory", text(&folder), "--objects", "--since", "2026-03-04T07:30:00"];
    let objects = mailtrail(directory, &since).ends_with(0);
    assert_eq!(objects.stdout.lines().count(), 1 + 3, "{}", objects.text());

    let path = archive.object(1, 0);
    archive.flip(&path, 99);
    let bad = mailtrail(directory, &verify).ends_with(1);
    assert!(bad.stdout.contains(&format!("{path}: the object was changed")), "{}", bad.text());
    let nothing = mailtrail(
        directory,
        &["archive", "verify", "--directory", "/nowhere", "--public-key", text(&archive.public)],
    );
    assert!(nothing.ends_with(2).stderr.contains("/nowhere is no folder"));
    let no_key = mailtrail(
        directory,
        &["archive", "verify", "--directory", text(&folder), "--public-key", text(&archive.file(&path))],
    );
    assert!(no_key.ends_with(2).stderr.contains("as a public key"));
}
