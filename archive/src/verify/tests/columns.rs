//! Objects without lines: their records are in the columns of Parquet files, and nowhere else.

use super::*;
use crate::{
    lake::LakeSource,
    parquet::nesting::tests as nesting,
    parquet::{Lines, ParquetOptions, Row, SortBy, Twins, Understand},
    proof::Proof,
};

/// Understands the records of these tests: of two classes, the last one first.
struct Said;

impl Understand for Said {
    fn tell(&self, _: FeedKey, record: &[u8], told: &mut dyn FnMut(&Row<'_>)) {
        let said: serde_json::Value = serde_json::from_slice(record).unwrap();
        let id = said["Id"].as_str().unwrap();
        let number: i64 = id[id.len() - 6..].parse().unwrap();
        told(&Row {
            id,
            time_ms: Some(start().timestamp_millis() - number),
            class_uid: Some([6003, 4009][number as usize % 2]),
            ..Row::default()
        });
    }
}

/// How an object's columns are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    One,
    Sliced,
    WithoutRaw,
}

impl Archive {
    /// Puts an object without lines.
    pub(crate) async fn put_columns(&self, seq: u64, records: u64, how: Files) -> SealedObject {
        let (_directory, written, tree) = self.columns(seq, records, how);
        let name = ObjectName {
            ledger: self.chain.ledger,
            first_seq: Seq(seq),
            last_seq: Seq(seq),
            short_hash: Hash::of(&written[0].1).short(),
        };
        let feed = FeedKey { tenant: self.chain.tenant, content_type: ContentType::Exchange };
        let source = LakeSource::new("mailtrail", "eu-central-1").unwrap();
        let mut object = self.put(seq, FileFormat::NdjsonZstd, records).await;
        fs::remove_file(self.file(&object.files[0].path)).unwrap();
        (object.merkle_root, object.files) = (tree.root(), Vec::new());
        for (slice, bytes, records) in written {
            let path = match slice {
                Some(slice) => source.path(feed.tenant, slice, &name, start()),
                None => name.hive_path(feed, start(), FileFormat::Parquet),
            };
            let sha256 = Hash::of(&bytes);
            self.store.put_new(&path, Source::Bytes(bytes.clone().into()), &sha256).await.unwrap();
            let (format, bytes) = (FileFormat::Parquet, bytes.len() as u64);
            object.files.push(SealedFile { path, format, sha256, bytes, records });
        }
        object
    }

    #[expect(clippy::type_complexity, reason = "of one use")]
    fn columns(
        &self,
        seq: u64,
        records: u64,
        how: Files,
    ) -> (tempfile::TempDir, Vec<(Option<crate::parquet::Slice>, Vec<u8>, u64)>, Merkle) {
        let directory = tempfile::tempdir().unwrap();
        let (path, twin) = (directory.path().join("lines"), directory.path().join("twin"));
        let lines: String = (0..records).map(|position| record(seq, position) + "\n").collect();
        fs::write(&path, &lines).unwrap();
        let feed = FeedKey { tenant: self.chain.tenant, content_type: ContentType::Exchange };
        let (sort_by, raw) = (SortBy::Time, how != Files::WithoutRaw);
        let options = ParquetOptions { feed, sort_by, raw, sliced: how == Files::Sliced };
        let lines = Lines { path: &path, bytes: lines.len() as u64, understand: &Said, cancelled: &|| false };
        let twins = Twins::read(lines, options).unwrap();
        let mut tree = Merkle::default();
        let mut written = Vec::new();
        for (slice, count) in twins.slices() {
            twins.write(slice, &twin, |record| tree.push(record)).unwrap();
            written.push((slice, fs::read(&twin).unwrap(), count));
        }
        (directory, written, tree)
    }
}

/// An archive with an object in each layout, each of five records.
async fn archive() -> Archive {
    let mut archive = Archive::new().await;
    let objects =
        vec![archive.put_columns(1, 5, Files::One).await, archive.put_columns(2, 5, Files::Sliced).await];
    archive.entry(2, objects, None).await;
    archive
}

#[tokio::test]
async fn the_tree_over_rows_is_made_again() {
    let archive = archive().await;
    let (verified, found) = archive.verify().await;
    assert_eq!((found, verified.files, verified.records), (vec![], 3, 10));

    // Whoever signs may be wrong, too: about the order of the files, or about a record.
    let entry = archive.read(1).await;
    for object in 0..2 {
        let mut changed = entry.clone();
        changed.objects[object].merkle_root = Hash::of(b"another");
        changed.entry_root = Entry::root_of(&changed.objects);
        archive.replace(1, &changed, &archive.key);
        let path = entry.objects[object].files[0].path.to_string();
        assert_eq!(archive.verify().await.1, [("object-records", path)]);
    }
    let mut changed = entry.clone();
    changed.objects[1].files.reverse();
    archive.replace(1, &changed, &archive.key);
    let path = changed.objects[1].files[0].path.to_string();
    assert_eq!(archive.verify().await.1, [("object-records", path)]);
}

#[tokio::test]
async fn columns_without_the_records_are_no_object() {
    let mut archive = Archive::new().await;
    let object = archive.put_columns(1, 5, Files::WithoutRaw).await;
    let path = object.files[0].path.to_string();
    archive.entry(1, vec![object], None).await;
    assert_eq!(archive.verify().await.1, [("object-records", path.clone())]);
    let search = Search { id: "nobody".to_owned(), keys: archive.keys(), since: None, until: None, jobs: 1 };
    let error = search.run(&archive.store, &mut |_| {}).await.unwrap_err().to_string();
    assert!(error.contains(&path) && error.contains("no column with the records"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn a_flipped_bit_of_a_file_of_columns_is_found_and_named(
        which in 0..3usize,
        bit in any::<proptest::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let archive = archive().await;
            let objects = archive.read(1).await.objects;
            let path = objects.iter().flat_map(|object| &object.files).nth(which).unwrap().path.clone();
            let file = archive.file(&path);
            flip(&file, bit.index(8 * fs::metadata(&file).unwrap().len() as usize));
            assert_eq!(archive.verify().await.1, [("object-changed", path.to_string())]);
            // A search reads before anything is verified: it finds the record, or says what it could not read.
            let search = Search { id: "nobody".to_owned(), keys: archive.keys(), since: None, until: None, jobs: 1 };
            if let Err(error) = search.run(&archive.store, &mut |_| {}).await {
                assert!(error.to_string().contains(path.as_str()), "{error}");
            }
        });
    }
}

#[tokio::test]
async fn every_record_in_columns_is_found_and_proved() {
    let archive = archive().await;
    let mut places = Vec::new();
    for (seq, position) in (1..=2).flat_map(|seq| (0..5).map(move |position| (seq, position))) {
        let id = format!("00000000-0000-4000-8000-{seq:06}{position:06}");
        let search = Search { id, keys: archive.keys(), since: None, until: None, jobs: 2 };
        let found = search.run(&archive.store, &mut |_| {}).await.unwrap().unwrap();
        assert_eq!(found.format, FileFormat::Parquet);
        let proof = Proof::parse(&found.proof.to_bytes()).unwrap();
        let proved = proof.check(&[*archive.key.public()]).unwrap();
        assert_eq!(proved.record, record(seq, position).into_bytes());
        places.push((found.path.to_string(), found.index));
    }
    let (one, sliced) = places.split_at(5);
    let rows = |places: &[(String, u64)]| places.iter().map(|(_, row)| *row).collect::<Vec<_>>();
    assert_eq!(rows(one), [4, 3, 2, 1, 0], "the last came first");
    assert_eq!(rows(sliced), [2, 1, 1, 0, 0], "in the files of two classes");

    // A row that is no longer what was signed cannot be proved.
    let object = archive.put_columns(3, 5, Files::One).await;
    let path = archive.read(1).await.objects[0].files[0].path.clone();
    fs::remove_file(archive.file(&path)).unwrap();
    fs::rename(archive.file(&object.files[0].path), archive.file(&path)).unwrap();
    let id = "00000000-0000-4000-8000-000003000002".to_owned();
    let search = Search { id, keys: archive.keys(), since: None, until: None, jobs: 2 };
    let error = search.run(&archive.store, &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("cannot be proved"), "{error}");
}

/// A footer that would take the decoder's whole stack.
#[tokio::test]
async fn a_schema_without_end_is_a_finding() {
    let deep = nesting::file(&nesting::nested(600_000, 0));
    // In the place of what was signed.
    let archive = archive().await;
    let path = archive.read(1).await.objects[0].files[0].path.clone();
    fs::write(archive.file(&path), &deep).unwrap();
    assert_eq!(archive.verify().await.1, [("object-changed", path.to_string())]);

    // Signed as it is, by the owner of the key and by another.
    let mut entry = archive.read(1).await;
    let file = &mut entry.objects[0].files[0];
    (file.sha256, file.bytes) = (Hash::of(&deep), deep.len() as u64);
    archive.replace(1, &entry, &archive.key);
    assert_eq!(archive.verify().await.1, [("object-records", path.to_string())]);
    let search = Search { id: "nobody".to_owned(), keys: archive.keys(), since: None, until: None, jobs: 1 };
    let error = search.run(&archive.store, &mut |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("none of an archive"), "{error}");
    let thief = SigningKey::generate().unwrap();
    entry.key = thief.public().id();
    archive.replace(1, &entry, &thief);
    let found = archive.verify().await.1;
    assert_eq!(found, [("entry-key", archive.at(1))], "what nobody signed is hashed and not decoded");
}
