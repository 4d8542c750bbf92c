//! Objects are found by the time of their records, and believed only when they are what they should be.

use std::{collections::BTreeSet, fs, path::PathBuf};

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::{
    entry::SealedObject,
    verify::tests::{Archive, columns::Files, record, start},
};

/// Minutes behind the start: the records of the object with the Seq n are of the minute n.
fn minute(minute: i64) -> DateTime<Utc> {
    start() + TimeDelta::minutes(minute)
}

fn selection(from: i64, to: i64) -> Selection {
    Selection { since: minute(from), until: minute(to), tenants: None }
}

/// The records that are given out, and what is wrong.
async fn restored(archive: &Archive, selection: &Selection) -> (Vec<String>, Vec<String>) {
    let chosen = selection.choose(&archive.store).await.unwrap();
    let (mut records, mut wrong) = (Vec::new(), chosen.unusable);
    for file in chosen.files {
        let mut got = 0;
        let copy = tempfile::tempfile().unwrap();
        match file.read(&archive.store, copy, &mut |bytes| got += bytes).await {
            Ok(mut lines) => {
                assert_eq!(got, file.bytes);
                let before = records.len() as u64;
                while let Some(record) = lines.next_record().unwrap() {
                    records.push(String::from_utf8(record.to_vec()).unwrap());
                }
                assert_eq!(records.len() as u64 - before, lines.count());
            }
            Err(ReadError::NotRestorable(fault)) => wrong.push(fault),
            Err(error) => panic!("{error}"),
        }
    }
    (records, wrong.iter().map(ToString::to_string).collect())
}

fn file(archive: &Archive, object: &SealedObject) -> PathBuf {
    archive.directory.path().join(object.files[0].path.as_str())
}

fn all_of(seqs: impl IntoIterator<Item = u64>) -> Vec<String> {
    seqs.into_iter().flat_map(|seq| (0..3).map(move |position| record(seq, position))).collect()
}

#[tokio::test]
async fn only_objects_of_the_time_are_read_in_the_order_in_which_they_came() {
    let archive = Archive::whole().await;
    assert_eq!(restored(&archive, &selection(0, 100)).await, (all_of(1..=6), vec![]));
    assert_eq!(restored(&archive, &selection(3, 5)).await, (all_of([3, 4]), vec![]));
    assert_eq!(restored(&archive, &selection(20, 30)).await, (vec![], vec![]));
    let nobodys = Selection { tenants: Some(BTreeSet::new()), ..selection(0, 100) };
    assert_eq!(restored(&archive, &nobodys).await, (vec![], vec![]));
}

#[tokio::test]
async fn what_no_entry_speaks_for_is_found_by_its_name() {
    let mut archive = Archive::whole().await;
    archive.put(7, FileFormat::NdjsonZstd, 3).await;
    assert_eq!(restored(&archive, &selection(0, 100)).await, (all_of(1..=7), vec![]));
    // It was put today, and may hold records of any time before.
    assert_eq!(restored(&archive, &selection(3, 4)).await, (all_of([3, 7]), vec![]));
    // What was put before the time has no record of it.
    let future = Selection {
        since: Utc::now() + TimeDelta::days(2),
        until: Utc::now() + TimeDelta::days(3),
        tenants: None,
    };
    assert!(future.choose(&archive.store).await.unwrap().files.is_empty());
    // Between two objects that an entry names, there is none that it does not name.
    let unnamed = archive.put(8, FileFormat::NdjsonZstd, 3).await;
    let named = archive.put(9, FileFormat::NdjsonZstd, 3).await;
    archive.entry(9, vec![named], None).await;
    let (records, wrong) = restored(&archive, &selection(8, 100)).await;
    assert_eq!(records, all_of([9]));
    assert!(wrong.iter().any(|wrong| wrong.contains(unnamed.files[0].path.as_str())), "{wrong:?}");
    assert!(wrong.iter().all(|wrong| wrong.contains("no entry names it")), "{wrong:?}");
}

#[tokio::test]
async fn no_record_is_given_out_of_an_object_that_is_not_what_it_should_be() {
    let mut archive = Archive::new().await;
    let mut objects = Vec::new();
    for seq in 1..=5 {
        objects.push(archive.put(seq, FileFormat::NdjsonZstd, 3).await);
    }
    // Its entry says that it holds more than it does.
    objects[4].files[0].records = 4;
    archive.entry(5, objects.clone(), None).await;
    let newer = archive.put(6, FileFormat::NdjsonGzip, 3).await;

    let (changed, cut) = (file(&archive, &objects[0]), file(&archive, &objects[1]));
    let mut bytes = fs::read(&changed).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&changed).unwrap();
    fs::write(&changed, bytes).unwrap();
    let bytes = fs::read(&cut).unwrap();
    fs::remove_file(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    fs::remove_file(file(&archive, &objects[2])).unwrap();
    let other = fs::read(file(&archive, &objects[3])).unwrap();
    fs::remove_file(file(&archive, &newer)).unwrap();
    fs::write(file(&archive, &newer), other).unwrap();

    let (records, wrong) = restored(&archive, &selection(0, 100)).await;
    assert_eq!(records, all_of([4]), "the one that is whole");
    for (object, why) in [
        (&objects[0], "not what its entry says"),
        (&objects[1], "not what its entry says"),
        (&objects[2], "is not there"),
        (&objects[4], "it holds 3 records, and its entry says 4"),
        (&newer, "not what its name says"),
    ] {
        let path = object.files[0].path.as_str();
        let told = wrong.iter().find(|wrong| wrong.starts_with(path));
        assert!(told.is_some_and(|told| told.contains(why)), "{path}: {wrong:?}");
    }
    assert_eq!(wrong.len(), 5, "{wrong:?}");
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_named() {
    let archive = Archive::whole().await;
    let path = archive.chain.entry(2);
    let place = archive.directory.path().join(path.as_str());
    fs::remove_file(&place).unwrap();
    fs::write(&place, "{}").unwrap();
    let (records, wrong) = restored(&archive, &selection(0, 100)).await;
    assert_eq!(records, all_of([1, 2, 5, 6]));
    assert!(wrong[0].starts_with(path.as_str()), "{wrong:?}");
    assert_eq!(wrong.len(), 3, "its objects are named by no entry: {wrong:?}");
}

#[tokio::test]
async fn what_is_in_columns_only_is_read_from_there() {
    let mut archive = Archive::new().await;
    let mut objects = Vec::new();
    for (seq, how) in [(1, Files::One), (2, Files::Sliced)] {
        objects.push(archive.put_columns(seq, 3, how).await);
    }
    let paths: Vec<_> = objects.iter().map(|object| object.files[0].path.to_string()).collect();
    // In the order of the rows: the last of each file came first.
    let one = [2, 1, 0].map(|position| record(1, position));
    // Before an entry names them, only a name that tells whose records they are can be used.
    let (records, wrong) = restored(&archive, &selection(0, 100)).await;
    assert_eq!(records, one);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong.iter().all(|wrong| wrong.contains("no entry names it (yet)")), "{wrong:?}");

    archive.entry(2, objects.clone(), None).await;
    let (mut records, wrong) = restored(&archive, &selection(0, 100)).await;
    assert_eq!((records.len(), wrong), (6, vec![]));
    assert!(records.windows(3).any(|three| three == one));
    records.sort();
    assert_eq!(records, all_of(1..=2));
    assert_eq!(restored(&archive, &selection(50, 100)).await, (vec![], vec![]), "of another time");

    // Nothing is taken of a file that was changed; the others are not concerned.
    let changed = file(&archive, &objects[0]);
    let mut bytes = fs::read(&changed).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&changed).unwrap();
    fs::write(&changed, bytes).unwrap();
    let (mut records, wrong) = restored(&archive, &selection(0, 100)).await;
    records.sort();
    assert_eq!(records, all_of([2]));
    assert!(wrong.len() == 1 && wrong[0].starts_with(&paths[0]), "{wrong:?}");
}

/// Columns beside lines are the same records once more, and are left alone.
#[tokio::test]
async fn columns_beside_lines_are_not_read() {
    let mut archive = Archive::new().await;
    let mut object = archive.put(1, FileFormat::NdjsonZstd, 3).await;
    let columns = archive.put_columns(2, 3, Files::WithoutRaw).await;
    let beside = object.files[0].path.as_str().replace(".ndjson.zst", ".parquet");
    fs::rename(file(&archive, &columns), archive.directory.path().join(&beside)).unwrap();
    assert_eq!(restored(&archive, &selection(0, 100)).await, (all_of([1]), vec![]));
    object.files.push(SealedFile { path: beside.parse().unwrap(), ..columns.files[0].clone() });
    archive.entry(1, vec![object], None).await;
    assert_eq!(restored(&archive, &selection(0, 100)).await, (all_of([1]), vec![]));
}
