//! The file sink in real directories.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    super::{Compression, FileConfig, FileSinkError, disk::RealDisk},
    config, records_of, sink, start,
};
use crate::{
    file::{FileSink, Mode},
    health::State,
    rate::Rate,
    sink::{Disposition, SinkContext},
    test_ledger::{MemoryLedger, sink_name},
};

async fn deliver(config: FileConfig, ledger: &Arc<MemoryLedger>) {
    start(Arc::new(RealDisk), config, ledger).finish(ledger).await;
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

#[tokio::test]
async fn records_are_lines_of_a_file_that_only_its_owner_reads() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("made/for/it");
    let ledger = Arc::new(MemoryLedger::plain([3, 40]));
    deliver(config(&directory), &ledger).await;
    let live = directory.join("mailtrail.ndjson");
    let records = records_of(&fs::read(&live).unwrap());
    assert_eq!(records.len(), 43);
    assert!(records.is_sorted());
    assert_eq!(fs::metadata(&live).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);

    // The next run goes on in the same file, and applies another mode to it.
    ledger.add(2, vec![crate::test_ledger::Kind::Plain; 2]);
    let inode = fs::metadata(&live).unwrap().ino();
    let mode = Mode::try_from("0640".to_owned()).unwrap();
    deliver(FileConfig { mode, ..config(&directory) }, &ledger).await;
    assert_eq!(records_of(&fs::read(&live).unwrap()).len(), 45);
    let metadata = fs::metadata(&live).unwrap();
    assert_eq!((metadata.ino(), metadata.permissions().mode() & 0o777), (inode, 0o640));
    assert_eq!(files(&directory).len(), 1, "nothing else is left there");
}

#[tokio::test]
async fn the_group_is_set_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let own = nix::unistd::Group::from_gid(nix::unistd::getegid()).unwrap().unwrap();
    let ledger = Arc::new(MemoryLedger::plain([1]));
    let mode = Mode::try_from("0640".to_owned()).unwrap();
    deliver(FileConfig { group: Some(own.name), mode, ..config(directory.path()) }, &ledger).await;
    let metadata = fs::metadata(directory.path().join("mailtrail.ndjson")).unwrap();
    assert_eq!((metadata.gid(), metadata.mode() & 0o777), (own.gid.as_raw(), 0o640));
    let context =
        SinkContext { name: sink_name(), ledger: ledger.clone(), rate: Arc::new(Rate::new(None, None)) };
    let unknown = FileConfig { group: Some("no-such-group".into()), ..config(directory.path()) };
    assert!(matches!(FileSink::new(unknown, context), Err(FileSinkError::NoSuchGroup { .. })));
}

#[tokio::test]
async fn files_are_closed_by_size_between_blobs_and_compressed() {
    for (compression, suffix) in [
        (Compression::None, ".ndjson"),
        (Compression::Gzip, ".ndjson.gz"),
        (Compression::Zstd, ".ndjson.zst"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Arc::new(MemoryLedger::plain([]));
        let config = FileConfig { rotate_bytes: 1000, compression, ..config(directory.path()) };
        let running = start(Arc::new(RealDisk), config.clone(), &ledger);
        for work in 0..4 {
            ledger.add(work, vec![crate::test_ledger::Kind::Plain; 20]);
            ledger.all_settled().await;
        }
        running.stop().await;
        // What the stop interrupted is done at the next start.
        let running = start(Arc::new(RealDisk), config, &ledger);
        let mut closed = Vec::new();
        for _ in 0..500 {
            closed = files(directory.path()).into_iter().filter(|(name, _)| name.contains("-20")).collect();
            if closed.len() == 3 && closed.iter().all(|(name, _)| name.ends_with(suffix)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.stop().await;
        assert_eq!(closed.len(), 3, "{closed:?}");
        for (name, data) in &closed {
            assert!(name.ends_with(suffix), "{name}");
            let text = match compression {
                Compression::None => data.clone(),
                Compression::Gzip => {
                    let mut text = Vec::new();
                    let mut reader = flate2::read::GzDecoder::new(data.as_slice());
                    std::io::Read::read_to_end(&mut reader, &mut text).unwrap();
                    text
                }
                Compression::Zstd => zstd::decode_all(data.as_slice()).unwrap(),
            };
            let records = records_of(&text);
            assert_eq!(records.len(), 20, "a blob is never in two files");
            assert!(records.iter().all(|(work, _)| *work == records[0].0));
        }
        assert_eq!(records_of(&fs::read(directory.path().join("mailtrail.ndjson")).unwrap()).len(), 20);
    }
}

#[tokio::test]
async fn an_old_file_is_closed_while_nothing_happens() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::plain([5]));
    deliver(config(directory.path()), &ledger).await;
    let sink = sink(
        Arc::new(RealDisk),
        FileConfig { rotate_interval: Duration::from_millis(1), ..config(directory.path()) },
        &ledger,
    );
    assert_eq!(sink.open().await.unwrap(), []);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(sink.upkeep().await.unwrap().is_some());
    let names: Vec<_> = files(directory.path()).into_keys().collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("mailtrail-20") && names[0].ends_with("Z-1.ndjson"), "{names:?}");
    assert_eq!(
        fs::read(directory.path().join("mailtrail.ndjson")).unwrap(),
        b"",
        "the new one is there already"
    );
    // An empty file is not closed.
    assert!(sink.upkeep().await.unwrap().is_some());
    assert_eq!(files(directory.path()).len(), 2);
    // And the next run knows of it.
    deliver(config(directory.path()), &ledger).await;
    assert_eq!(files(directory.path()).len(), 2);
}

/// The number says which file is older, so it goes on behind what another ledger has left.
#[tokio::test]
async fn numbers_go_on_behind_those_of_the_files_that_are_there() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("mailtrail-20260102T030405Z-41.ndjson.gz"), "an older ledger's").unwrap();
    fs::write(directory.path().join("mailtrail-notes-7000.ndjson"), "somebody else's").unwrap();
    let ledger = Arc::new(MemoryLedger::plain([5]));
    deliver(config(directory.path()), &ledger).await;
    let interval = Duration::from_millis(1);
    let config = FileConfig { rotate_interval: interval, ..config(directory.path()) };
    let sink = sink(Arc::new(RealDisk), config, &ledger);
    sink.open().await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    sink.upkeep().await.unwrap();
    let names: Vec<_> = files(directory.path()).into_keys().collect();
    assert!(names.iter().any(|name| name.ends_with("Z-42.ndjson")), "{names:?}");
}

async fn refused(directory: &Path, ledger: &Arc<MemoryLedger>) -> String {
    let sink = sink(Arc::new(RealDisk), config(directory), ledger);
    let error = sink.open().await.unwrap_err();
    assert_eq!(error.disposition, Disposition::Halt, "{error}");
    assert_eq!(sink.probe().await.unwrap_err(), error, "the probe says the same");
    error.context
}

#[tokio::test]
async fn a_file_that_the_ledger_does_not_know_is_never_touched() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("mailtrail.ndjson");
    fs::write(&live, "somebody's\n").unwrap();
    let ledger = Arc::new(MemoryLedger::plain([3]));
    let message = refused(directory.path(), &ledger).await;
    assert!(message.contains("did not write") && message.contains(live.to_str().unwrap()), "{message}");
    let running = start(Arc::new(RealDisk), config(directory.path()), &ledger);
    while !matches!(running.health.report().state, State::Halted { .. }) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.stop().await;
    assert_eq!(fs::read(&live).unwrap(), b"somebody's\n");
    assert_eq!(ledger.pending(), 1);

    // Once it is out of the way, the sink goes on. An empty file is taken.
    fs::rename(&live, directory.path().join("old")).unwrap();
    fs::write(&live, "").unwrap();
    deliver(config(directory.path()), &ledger).await;
    assert_eq!(records_of(&fs::read(&live).unwrap()).len(), 3);
}

#[tokio::test]
async fn a_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    fs::write(&target, "").unwrap();
    symlink(&target, directory.path().join("mailtrail.ndjson")).unwrap();
    let ledger = Arc::new(MemoryLedger::plain([3]));
    let message = refused(directory.path(), &ledger).await;
    assert!(message.contains("no regular file"), "{message}");
    assert_eq!(fs::read(&target).unwrap(), b"");

    // Nor when it takes the place of a file that was ours.
    let live = directory.path().join("mailtrail.ndjson");
    fs::remove_file(&live).unwrap();
    deliver(config(directory.path()), &ledger).await;
    fs::rename(&live, &target).unwrap();
    symlink(&target, &live).unwrap();
    ledger.add(1, vec![crate::test_ledger::Kind::Plain; 3]);
    refused(directory.path(), &ledger).await;
    assert_eq!(records_of(&fs::read(&target).unwrap()).len(), 3);
}

#[tokio::test]
async fn what_was_safe_cannot_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("mailtrail.ndjson");
    let ledger = Arc::new(MemoryLedger::plain([30]));
    deliver(config(directory.path()), &ledger).await;
    let length = fs::metadata(&live).unwrap().len();
    fs::OpenOptions::new().write(true).open(&live).unwrap().set_len(length - 1).unwrap();
    let message = refused(directory.path(), &ledger).await;
    assert!(message.contains("safely on disk"), "{message}");

    // Missing altogether: started anew.
    fs::remove_file(&live).unwrap();
    ledger.add(1, vec![crate::test_ledger::Kind::Plain; 3]);
    deliver(config(directory.path()), &ledger).await;
    assert_eq!(records_of(&fs::read(&live).unwrap()), [(1, 0), (1, 1), (1, 2)]);
}

#[tokio::test]
async fn bytes_that_somebody_else_appended_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("mailtrail.ndjson");
    let ledger = Arc::new(MemoryLedger::plain([3]));
    deliver(config(directory.path()), &ledger).await;
    let ours = fs::read(&live).unwrap();
    fs::write(&live, [ours.as_slice(), b"theirs\n"].concat()).unwrap();
    ledger.add(1, vec![crate::test_ledger::Kind::Plain; 3]);
    deliver(config(directory.path()), &ledger).await;
    assert_eq!(records_of(&fs::read(&live).unwrap()).len(), 6);
}

/// Somebody rotates the live file by hand while it is in use.
#[tokio::test]
async fn a_live_file_that_is_renamed_under_us_is_started_anew() {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("mailtrail.ndjson");
    let ledger = Arc::new(MemoryLedger::plain([3]));
    let running = start(Arc::new(RealDisk), config(directory.path()), &ledger);
    ledger.all_settled().await;
    fs::rename(&live, directory.path().join("by-hand")).unwrap();
    ledger.add(1, vec![crate::test_ledger::Kind::Plain; 3]);
    running.finish(&ledger).await;
    assert_eq!(records_of(&fs::read(&live).unwrap()), [(1, 0), (1, 1), (1, 2)]);
    assert_eq!(records_of(&fs::read(directory.path().join("by-hand")).unwrap()).len(), 3);
    ledger.add(2, vec![crate::test_ledger::Kind::Plain; 3]);
    deliver(config(directory.path()), &ledger).await;
    assert_eq!(records_of(&fs::read(&live).unwrap()).len(), 6);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_halts_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let ledger = Arc::new(MemoryLedger::plain([3]));
    let message = refused(&file, &ledger).await;
    assert!(message.contains(file.to_str().unwrap()), "{message}");
}

#[tokio::test]
async fn a_probe_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::plain([]));
    let sink = sink(Arc::new(RealDisk), config(directory.path()), &ledger);
    sink.probe().await.unwrap();
    assert_eq!(files(directory.path()).len(), 0);
    assert_eq!(ledger.state(), None);
}

#[tokio::test]
async fn a_state_that_cannot_be_read_halts() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::plain([3]));
    ledger.set_state(Some(br#"{"version":99}"#.to_vec()));
    let message = refused(directory.path(), &ledger).await;
    assert!(message.contains("newer version"), "{message}");
    assert_eq!(files(directory.path()).len(), 0);
}

/// A line break in a rendered record would make two lines of it.
#[tokio::test]
async fn a_record_that_is_no_line_is_a_dead_letter() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::plain([4]));
    ledger.break_lines_of(2);
    deliver(config(directory.path()), &ledger).await;
    let live = fs::read(directory.path().join("mailtrail.ndjson")).unwrap();
    assert_eq!(records_of(&live), [(0, 0), (0, 1), (0, 3)]);
    let settlement = &ledger.settlements()[0];
    assert_eq!((settlement.delivered, settlement.dead[0].position), (3, 2));
}
