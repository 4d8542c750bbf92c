//! Archives that are whole, and archives that somebody has been at.

pub(crate) mod columns;

use std::{collections::BTreeMap, fs, path::Path, path::PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use schemas::{ContentType, FeedKey};

use super::*;
use crate::{
    chain::{Begins, Draft, Link},
    entry::{Accounts, SealedFile, SealedObject},
    envelope::Envelope,
    hash::Hash,
    key::SigningKey,
    merkle::Merkle,
    names::{FileFormat, ObjectName},
    search::Search,
    store::{Source, Target},
};

/// An archive in a directory, and what is needed to go on with it.
pub(crate) struct Archive {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) chain: ChainKey,
    key: SigningKey,
    link: Option<Link>,
}

pub(crate) fn start() -> DateTime<Utc> {
    "2026-03-04T05:00:00Z".parse().unwrap()
}

pub(crate) fn record(seq: u64, position: u64) -> String {
    let time = start() + TimeDelta::seconds((60 * seq + position) as i64);
    let time = time.format("%Y-%m-%dT%H:%M:%S");
    format!(
        r#"{{"CreationTime":"{time}","Id":"00000000-0000-4000-8000-{seq:06}{position:06}","Operation":"Send"}}"#
    )
}

impl Archive {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&Target::Directory(directory.path().to_path_buf())).await.unwrap();
        let chain = ChainKey {
            tenant: "41463f53-8812-40f4-890f-865bf6e35190".parse().unwrap(),
            ledger: "0f1e2d3c-4b5a-4988-8776-655443322110".parse().unwrap(),
        };
        Self { directory, store, chain, key: SigningKey::generate().unwrap(), link: None }
    }

    /// Three entries with two objects each, of three records, in both compressions, and one of silence.
    pub(crate) async fn whole() -> Self {
        let mut archive = Self::new().await;
        for entry in 0..3 {
            let seq = 2 * entry + 1;
            let objects = [
                archive.put(seq, FileFormat::NdjsonZstd, 3).await,
                archive.put(seq + 1, FileFormat::NdjsonGzip, 3).await,
            ];
            archive.entry(seq + 1, objects.to_vec(), None).await;
        }
        archive.entry(6, Vec::new(), None).await;
        archive
    }

    pub(crate) async fn put(&self, seq: u64, format: FileFormat, records: u64) -> SealedObject {
        let lines: Vec<String> = (0..records).map(|position| record(seq, position)).collect();
        let mut tree = Merkle::default();
        lines.iter().for_each(|line| tree.push(line.as_bytes()));
        let bytes = compressed(&lines, format);
        let sha256 = Hash::of(&bytes);
        let name = ObjectName {
            ledger: self.chain.ledger,
            first_seq: Seq(seq),
            last_seq: Seq(seq),
            short_hash: sha256.short(),
        };
        let feed = FeedKey { tenant: self.chain.tenant, content_type: ContentType::Exchange };
        let path = name.hive_path(feed, start(), format);
        self.store.put_new(&path, Source::Bytes(bytes.clone().into()), &sha256).await.unwrap();
        SealedObject {
            content_type: ContentType::Exchange,
            first_seq: Seq(seq),
            last_seq: Seq(seq),
            records,
            first_creation_time: Some(start() + TimeDelta::seconds(60 * seq as i64)),
            last_creation_time: Some(start() + TimeDelta::seconds(60 * seq as i64 + 9)),
            merkle_root: tree.root(),
            files: vec![SealedFile { path, format, sha256, bytes: bytes.len() as u64, records }],
        }
    }

    pub(crate) async fn entry(
        &mut self,
        last_seq: u64,
        objects: Vec<SealedObject>,
        next_key: Option<SigningKey>,
    ) {
        let records = objects.iter().map(|object| object.records).sum();
        let blobs = objects.len() as u64;
        let accounts =
            Accounts { listed: blobs, fetched: blobs, records, archived: records, ..Accounts::default() };
        let other_seqs = last_seq - self.link.as_ref().map_or(0, |link| link.last_seq.0) - blobs;
        let begins = match self.link.take() {
            None => Begins::Chain { after_seq: Seq(0), from: start(), old_head: None },
            Some(link) => Begins::After(link),
        };
        let to = match &begins {
            Begins::Chain { from, .. } => *from,
            Begins::After(link) => link.to,
        } + TimeDelta::hours(1);
        let draft = Draft {
            chain: self.chain,
            begins,
            last_seq: Seq(last_seq),
            to,
            objects,
            accounts: BTreeMap::from([(ContentType::Exchange, accounts)]),
            other_seqs,
            incomplete_through: None,
            next_key: next_key.as_ref().map(|key| *key.public()),
        };
        let signed = draft.sign(&self.key).unwrap();
        let bytes = signed.envelope.to_bytes();
        self.store
            .put_new(&signed.path, Source::Bytes(bytes.clone().into()), &Hash::of(&bytes))
            .await
            .unwrap();
        self.link = Some(signed.link);
        if let Some(key) = next_key {
            self.key = key;
        }
    }

    /// The keys that are trusted.
    fn keys(&self) -> Vec<PublicKey> {
        vec![*self.key.public()]
    }

    async fn verify(&self) -> (Verified, Vec<(&'static str, String)>) {
        self.verify_with(vec![*self.key.public()], Vec::new()).await
    }

    async fn verify_with(
        &self,
        keys: Vec<PublicKey>,
        heads: Vec<Head>,
    ) -> (Verified, Vec<(&'static str, String)>) {
        let mut findings = Vec::new();
        let mut read = 0;
        let verify = Verify { keys, heads, jobs: 3 };
        let verified = verify
            .run(&self.store, &mut |step| match step {
                Step::Finding(finding) => {
                    assert!(finding.to_string().starts_with(&finding.subject()));
                    findings.push((finding.kind(), finding.subject()));
                }
                Step::Read { bytes } => read += bytes,
                _ => {}
            })
            .await
            .unwrap();
        assert_eq!((verified.findings, verified.bytes), (findings.len() as u64, read));
        findings.sort();
        (verified, findings)
    }

    fn file(&self, path: &ObjectPath) -> PathBuf {
        self.directory.path().join(path.as_str())
    }

    async fn read(&self, number: u64) -> Entry {
        read_entry(&self.store, &self.chain, number).await.unwrap().1
    }

    async fn object(&self, number: u64, at: usize) -> ObjectPath {
        self.read(number).await.objects[at].files[0].path.clone()
    }

    fn at(&self, number: u64) -> String {
        self.chain.entry(number).to_string()
    }

    /// Puts a signed entry in the place of another, as only somebody can who may write to the disk.
    fn replace(&self, number: u64, entry: &Entry, key: &SigningKey) {
        let bytes = Envelope::seal(entry.to_payload(), key).to_bytes();
        fs::write(self.file(&self.chain.entry(number)), bytes).unwrap();
    }
}

use crate::path::ObjectPath;

fn compressed(lines: &[String], format: FileFormat) -> Vec<u8> {
    let content: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    match format {
        FileFormat::NdjsonZstd => zstd::encode_all(content.as_bytes(), 3).unwrap(),
        _ => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            std::io::Write::write_all(&mut encoder, content.as_bytes()).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn flip(path: &Path, bit: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_whole_archive_has_no_findings_and_everything_is_counted() {
    let archive = Archive::whole().await;
    let head = archive.link.as_ref().unwrap().head();
    let (verified, findings) = archive.verify_with(vec![*archive.key.public()], vec![head]).await;
    assert_eq!(findings, []);
    assert_eq!((verified.files, verified.records, verified.not_yet_covered), (6, 18, 0));
    let chain = &verified.chains[0];
    assert_eq!((chain.entries, chain.head, chain.last_seq, chain.records), (4, Some(head), Seq(6), 18));
}

#[tokio::test]
async fn an_empty_folder_is_no_archive() {
    let archive = Archive::new().await;
    assert_eq!(archive.verify().await.1, [("no-entries", "manifests".to_owned())]);
}

#[tokio::test]
async fn what_is_newer_than_the_last_entry_is_not_covered_yet_and_what_is_not_is_surplus() {
    let archive = Archive::whole().await;
    archive.put(7, FileFormat::NdjsonZstd, 1).await;
    let old = archive.put(6, FileFormat::NdjsonZstd, 1).await.files[0].path.to_string();
    fs::write(archive.directory.path().join("readme.txt"), "hello").unwrap();
    fs::write(archive.file(&archive.chain.entry(1)).with_file_name("notes.json"), "{}").unwrap();
    fs::write(archive.file(&archive.chain.timestamp(2)), "a stamp").unwrap();
    fs::write(archive.file(&archive.chain.timestamp(5)), "a stamp of nothing").unwrap();
    let (verified, findings) = archive.verify().await;
    assert_eq!(verified.not_yet_covered, 1);
    let mut expected = vec![
        ("timestamp", archive.chain.timestamp(2).to_string()),
        ("surplus", old),
        ("surplus", "readme.txt".to_owned()),
        ("surplus", format!("{}/notes.json", archive.chain.folder())),
        ("surplus", archive.chain.timestamp(5).to_string()),
    ];
    expected.sort();
    assert_eq!(findings, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn a_flipped_bit_anywhere_is_found_and_named(which in 0..10usize, bit in any::<proptest::sample::Index>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let archive = Archive::whole().await;
            let path = match which {
                0..6 => archive.object(which as u64 / 2 + 1, which % 2).await,
                _ => archive.chain.entry(which as u64 - 5),
            };
            let file = archive.file(&path);
            flip(&file, bit.index(8 * fs::metadata(&file).unwrap().len() as usize));
            let (_, findings) = archive.verify().await;
            let named = findings.iter().filter(|(_, subject)| *subject == path.as_str()).count();
            assert!(named > 0, "{findings:?}");
            if which < 6 {
                assert_eq!(findings, [("object-changed", path.to_string())]);
            }
        });
    }
}

#[tokio::test]
async fn a_time_stamp_of_something_else_is_found() {
    let archive = Archive::whole().await;
    let other = include_bytes!("../timestamp/answer.tsr");
    fs::write(archive.file(&archive.chain.timestamp(3)), other).unwrap();
    let (verified, findings) = archive.verify().await;
    assert_eq!(findings, [("timestamp", archive.chain.timestamp(3).to_string())]);
    assert_eq!((verified.timestamps, verified.chains[0].stamped), (0, None));
}

#[tokio::test]
async fn a_record_that_was_taken_out_is_found_even_when_the_file_is_made_to_fit() {
    let archive = Archive::whole().await;
    let path = archive.object(2, 0).await;
    let fewer = compressed(&[record(3, 0), record(3, 2)], FileFormat::NdjsonZstd);
    fs::write(archive.file(&path), &fewer).unwrap();
    assert_eq!(archive.verify().await.1, [("object-changed", path.to_string())]);

    // Whoever holds the key can make the hash fit, but then the root must fit too.
    let mut entry = archive.read(2).await;
    let file = &mut entry.objects[0].files[0];
    (file.sha256, file.bytes) = (Hash::of(&fewer), fewer.len() as u64);
    archive.replace(2, &entry, &archive.key);
    let expected = [("entry-previous", archive.at(3)), ("object-records", path.to_string())];
    assert_eq!(archive.verify().await.1, expected);
    let exchanged = compressed(&[record(3, 1), record(3, 0), record(3, 2)], FileFormat::NdjsonZstd);
    fs::write(archive.file(&path), &exchanged).unwrap();
    let file = &mut entry.objects[0].files[0];
    (file.sha256, file.bytes) = (Hash::of(&exchanged), exchanged.len() as u64);
    archive.replace(2, &entry, &archive.key);
    assert_eq!(archive.verify().await.1, expected, "the same records in another order");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let archive = Archive::whole().await;
    let head = archive.link.as_ref().unwrap().head();
    let path = archive.object(1, 1).await;
    fs::remove_file(archive.file(&path)).unwrap();
    assert_eq!(archive.verify().await.1, [("object-missing", path.to_string())]);

    let archive = Archive::whole().await;
    let mut expected = vec![("entry-missing", archive.at(2))];
    for at in 0..2 {
        expected.push(("surplus", archive.object(2, at).await.to_string()));
    }
    expected.sort();
    fs::remove_file(archive.file(&archive.chain.entry(2))).unwrap();
    assert_eq!(archive.verify().await.1, expected);

    // The tail: nothing in the archive itself tells, but whoever kept the head notices.
    let archive = Archive::whole().await;
    let kept = archive.link.as_ref().unwrap().head();
    assert_ne!(kept, head, "another key");
    for number in [3, 4] {
        fs::remove_file(archive.file(&archive.chain.entry(number))).unwrap();
    }
    let (verified, findings) = archive.verify().await;
    assert_eq!((findings, verified.not_yet_covered), (Vec::new(), 2));
    let (_, findings) = archive.verify_with(vec![*archive.key.public()], vec![kept]).await;
    assert_eq!(findings, [("tail-cut", kept.to_string())]);
}

#[tokio::test]
async fn exchanged_entries_lie_in_the_wrong_place() {
    let archive = Archive::whole().await;
    let (two, three) = (archive.file(&archive.chain.entry(2)), archive.file(&archive.chain.entry(3)));
    let (second, third) = (fs::read(&two).unwrap(), fs::read(&three).unwrap());
    fs::write(two, third).unwrap();
    fs::write(three, second).unwrap();
    let findings = archive.verify().await.1;
    for number in [2, 3] {
        for kind in ["entry-misplaced", "entry-previous", "entry-span"] {
            assert!(findings.contains(&(kind, archive.at(number))), "{kind} {number} in {findings:?}");
        }
    }
    assert!(findings.contains(&("entry-previous", archive.at(4))));
}

#[tokio::test]
async fn another_key_s_signature_is_refused_even_when_that_key_is_trusted_elsewhere() {
    let archive = Archive::whole().await;
    let other = SigningKey::generate().unwrap();
    let mut entry = archive.read(3).await;
    entry.key = other.public().id();
    archive.replace(3, &entry, &other);
    let expected = [("entry-key", archive.at(3)), ("entry-previous", archive.at(4))];
    assert_eq!(archive.verify().await.1, expected);
    let both = vec![*archive.key.public(), *other.public()];
    assert_eq!(archive.verify_with(both, Vec::new()).await.1, expected);

    // Saying that the right key signed does not help either.
    let archive = Archive::whole().await;
    let entry = archive.read(4).await;
    let mut forged = Envelope::seal(entry.to_payload(), &other).to_bytes();
    let (wrong, right) = (other.public().id().to_string(), archive.key.public().id().to_string());
    forged = String::from_utf8(forged).unwrap().replace(&wrong, &right).into_bytes();
    fs::write(archive.file(&archive.chain.entry(4)), forged).unwrap();
    assert_eq!(archive.verify().await.1, [("entry-signature", archive.at(4))]);
    // And without the first key, nothing is proved by any entry.
    assert_eq!(archive.verify_with(vec![*other.public()], Vec::new()).await.1.len(), 4);
}

#[tokio::test]
async fn a_key_that_the_chain_names_takes_over() {
    let mut archive = Archive::new().await;
    let first = *archive.key.public();
    archive.entry(0, Vec::new(), None).await;
    archive.entry(0, Vec::new(), Some(SigningKey::generate().unwrap())).await;
    archive.entry(0, Vec::new(), None).await;
    archive.entry(0, Vec::new(), None).await;
    let second = *archive.key.public();
    assert_ne!(first, second);
    assert_eq!(archive.verify_with(vec![first], Vec::new()).await.1, []);
    assert_eq!(archive.verify_with(vec![second, first], Vec::new()).await.1, []);
    let unknown = [("entry-key", archive.at(1)), ("entry-key", archive.at(2))];
    assert_eq!(
        archive.verify_with(vec![second], Vec::new()).await.1,
        unknown,
        "the new key vouches from its own entry on"
    );
}

#[tokio::test]
async fn an_entry_that_contradicts_itself_is_found_whoever_signed_it() {
    let archive = Archive::whole().await;
    let entry = archive.read(4).await;
    let object = archive.read(1).await.objects[0].clone();
    type Change = fn(&mut Entry, SealedObject);
    let changes: [(&str, Change); 6] = [
        ("entry-root", |entry, _| entry.entry_root = Hash::of(b"x")),
        ("entry-objects", |entry, object| {
            entry.objects.push(object);
            entry.entry_root = Entry::root_of(&entry.objects);
        }),
        ("entry-accounts", |entry, _| {
            entry.accounts.get_mut(&ContentType::Exchange).unwrap().archived += 1;
        }),
        ("entry-accounts", |entry, _| entry.other_seqs += 1),
        ("entry-span", |entry, _| entry.after_seq = Seq(5)),
        ("entry-span", |entry, _| entry.from += TimeDelta::seconds(1)),
    ];
    for (kind, change) in changes {
        let mut changed = entry.clone();
        change(&mut changed, object.clone());
        archive.replace(4, &changed, &archive.key);
        let findings = archive.verify().await.1;
        assert!(findings.contains(&(kind, archive.at(4))), "{kind} in {findings:?}");
    }
}

#[tokio::test]
async fn a_record_is_found_by_its_id_and_its_proof_needs_no_archive() {
    let archive = Archive::whole().await;
    let wanted = record(4, 2);
    let search = |id: &str, since: Option<i64>| Search {
        id: id.to_owned(),
        keys: archive.keys(),
        since: since.map(|minute| start() + TimeDelta::minutes(minute)),
        until: None,
        jobs: 2,
    };
    let id = "00000000-0000-4000-8000-000004000002";
    let mut read = 0;
    let found = search(id, None).run(&archive.store, &mut |bytes| read += bytes).await.unwrap().unwrap();
    assert_eq!((found.index, found.path), (2, archive.object(2, 1).await));
    let proof = crate::proof::Proof::parse(&found.proof.to_bytes()).unwrap();
    let proved = proof.check(&[*archive.key.public()]).unwrap();
    assert_eq!((proved.record, proved.entry.number), (wanted.into_bytes(), 2));

    let mut read_since = 0;
    let found = search(id, Some(4)).run(&archive.store, &mut |bytes| read_since += bytes).await.unwrap();
    assert!(found.is_some());
    let none = search(id, Some(5)).run(&archive.store, &mut |_| {}).await.unwrap();
    assert!(none.is_none(), "no object that may hold it was read");
    assert!(
        search("00000000-0000-4000-8000-000004000009", None)
            .run(&archive.store, &mut |_| {})
            .await
            .unwrap()
            .is_none()
    );

    let path = archive.object(2, 1).await;
    let lines = [record(4, 0), record(4, 2)];
    fs::write(archive.file(&path), compressed(&lines, FileFormat::NdjsonGzip)).unwrap();
    let error = search(id, None).run(&archive.store, &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("cannot be proved"), "{error}");
    flip(&archive.file(&path), 200);
    let error = search(id, None).run(&archive.store, &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("archive verify"), "{error}");
}

#[tokio::test]
async fn entries_that_are_missing_in_a_row_are_told_once() {
    let archive = Archive::whole().await;
    for number in [1, 2] {
        fs::remove_file(archive.file(&archive.chain.entry(number))).unwrap();
    }
    // A name of anybody's choosing makes nobody count to it.
    fs::write(archive.file(&archive.chain.entry(9_999_999_999)), "{}").unwrap();
    fs::write(archive.file(&archive.chain.entry(1)).with_file_name("18446744073709551615.json"), "{}")
        .unwrap();
    let (verified, findings) = archive.verify().await;
    let of = |kind| {
        findings.iter().filter(|(found, _)| *found == kind).map(|(_, what)| what.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("entry-missing"), [archive.at(1), archive.at(5)]);
    assert_eq!(of("entry-unreadable"), [archive.at(9_999_999_999)]);
    assert!(of("surplus").contains(&format!("{}/18446744073709551615.json", archive.chain.folder())));
    assert_eq!(verified.chains[0].entries, 3);
    let found = Search { id: "nobody".to_owned(), keys: archive.keys(), since: None, until: None, jobs: 1 };
    assert!(found.run(&archive.store, &mut |_| ()).await.is_err());
}

#[tokio::test]
async fn records_that_are_archived_are_in_objects() {
    let mut archive = Archive::new().await;
    let one = archive.put(1, FileFormat::NdjsonZstd, 3).await;
    let nobody_s = archive.put(2, FileFormat::NdjsonZstd, 3).await;
    archive.entry(1, vec![one], None).await;
    archive.entry(2, vec![nobody_s.clone()], None).await;
    archive.entry(2, Vec::new(), None).await;
    assert_eq!(archive.verify().await.1, []);
    // Signed without the object that these records are in, of which no trace is left.
    let mut entry = archive.read(2).await;
    entry.objects.clear();
    entry.entry_root = Entry::root_of(&entry.objects);
    archive.replace(2, &entry, &archive.key);
    fs::remove_file(archive.file(&nobody_s.files[0].path)).unwrap();
    let found = archive.verify().await.1;
    assert_eq!(found, [("entry-accounts", archive.at(2)), ("entry-previous", archive.at(3))]);
    // Nothing is known of what was archived before the chain began.
    let mut entry = archive.read(1).await;
    entry.after_seq = Seq(1);
    archive.replace(1, &entry, &archive.key);
    assert!(!archive.verify().await.1.contains(&("entry-accounts", archive.at(2))));
}

#[tokio::test]
async fn a_decoy_neither_hides_a_record_nor_ends_the_search() {
    let mut archive = Archive::whole().await;
    let id = "00000000-0000-4000-8000-000004000002";
    let genuine = archive.object(2, 1).await;
    // The same record in another object: in a chain of a lower tenant, in a newer entry, and in an object that was changed.
    let (thief, chain) = (SigningKey::generate().unwrap(), archive.chain);
    let mut entry = archive.read(2).await;
    let changed = archive.object(3, 0).await;
    fs::write(archive.file(&changed), compressed(&[record(4, 2)], FileFormat::NdjsonZstd)).unwrap();
    entry.key = thief.public().id();
    for (tenant, number) in [("00000000-0000-0000-0000-000000000001", 1), (&chain.tenant.to_string(), 5)] {
        let decoy = ChainKey { tenant: tenant.parse().unwrap(), ledger: chain.ledger };
        (entry.tenant, entry.number) = (decoy.tenant, number);
        let path = archive.file(&decoy.entry(number));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, Envelope::seal(entry.to_payload(), &thief).to_bytes()).unwrap();
    }
    archive.chain = chain;
    let search = |keys| Search { id: id.to_owned(), keys, since: None, until: None, jobs: 1 };
    let found = search(archive.keys()).run(&archive.store, &mut |_| {}).await.unwrap().unwrap();
    assert_eq!((found.path, found.entry), (genuine, archive.chain.entry(2)));
    assert!(found.proof.check(&archive.keys()).is_ok() && found.signer == *archive.key.public());
    // And whoever trusts nobody is told why nothing is found.
    let error = search(Vec::new()).run(&archive.store, &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, crate::search::SearchError::Unsigned { .. }), "{error}");
}

/// An object may have its records in lines and in Parquet files, or in the latter alone; of each format all of them.
#[tokio::test]
async fn the_files_of_each_format_have_all_records_together() {
    let mut archive = Archive::new().await;
    let mut object = archive.put(1, FileFormat::NdjsonZstd, 5).await;
    let file = |name: &str, records| {
        let path: ObjectPath = format!("ext/c_1/{name}.parquet").parse().unwrap();
        SealedFile { path, format: FileFormat::Parquet, sha256: Hash::of(b""), bytes: 0, records }
    };
    let (one, other) = (file("one", 2), file("other", 3));
    object.files.extend([one.clone(), other]);
    archive.entry(1, vec![object.clone()], None).await;
    let kinds = |found: &[(&'static str, String)]| found.iter().map(|(kind, _)| *kind).collect::<Vec<_>>();
    let (verified, found) = archive.verify().await;
    assert_eq!((kinds(&found), verified.records), (vec!["object-missing"; 2], 5), "{found:?}");

    object.files.pop();
    let mut entry = archive.read(1).await;
    entry.objects = vec![object.clone()];
    archive.replace(1, &entry, &archive.key);
    assert_eq!(kinds(&archive.verify().await.1), ["entry-objects", "object-missing"]);

    // What cannot be read cannot be searched, and that is said.
    object.files = vec![SealedFile { records: 5, ..one }];
    entry.objects = vec![object];
    archive.replace(1, &entry, &archive.key);
    let (_, found) = archive.verify().await;
    assert_eq!(kinds(&found), ["object-missing", "surplus"], "{found:?}");
    let search = Search { id: "nobody".to_owned(), keys: archive.keys(), since: None, until: None, jobs: 1 };
    let error = search.run(&archive.store, &mut |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("ext/c_1/one.parquet"), "{error}");
}
