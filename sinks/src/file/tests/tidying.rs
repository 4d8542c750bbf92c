//! Compression and deletion of closed files, with a crash at each step.

use std::{
    collections::BTreeMap,
    io::Read,
    num::NonZeroU32,
    path::Path,
    sync::{Arc, Mutex},
};

use tokio_util::sync::CancellationToken;

use super::{
    super::{Compression, FileConfig, closed::tidy, disk::Access},
    config,
    sim::{Platter, SimDisk},
};
use crate::test_ledger::Fuse;

const ACCESS: Access = Access { mode: 0o600, group: None };

fn name(number: u32) -> String {
    format!("/logs/mailtrail-2026010{number}T000000Z-{number}.ndjson")
}

fn content(number: u32) -> Vec<u8> {
    (0..5000).map(|line| format!("{{\"file\":{number},\"line\":{line}}}\n")).collect::<String>().into_bytes()
}

fn platter(chance: u64) -> Arc<Mutex<Platter>> {
    let platter = Platter::new(&[], chance);
    for number in 1..=3 {
        platter.lock().unwrap().put(&name(number), &content(number));
    }
    platter.lock().unwrap().put("/logs/mailtrail.ndjson", b"live\n");
    platter.lock().unwrap().put("/logs/mailtrail-notes.ndjson", b"somebody else's\n");
    platter
}

fn run(platter: &Arc<Mutex<Platter>>, config: &FileConfig, fuse: Arc<Fuse>) -> bool {
    let disk = SimDisk { platter: Arc::clone(platter), fuse };
    tidy(&disk, config, ACCESS, &CancellationToken::new()).is_ok()
}

/// The content of every closed file, unpacked.
fn unpacked(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for (path, data) in files.iter().filter(|(path, _)| path.contains("-2026")) {
        let (plain, data) = if let Some(plain) = path.strip_suffix(".gz") {
            let mut out = Vec::new();
            flate2::read::MultiGzDecoder::new(data.as_slice()).read_to_end(&mut out).unwrap();
            (plain, out)
        } else if let Some(plain) = path.strip_suffix(".zst") {
            (plain, zstd::decode_all(data.as_slice()).unwrap())
        } else if path.ends_with(".tmp") {
            continue;
        } else {
            (path.as_str(), data.clone())
        };
        if let Some(before) = all.insert(plain.to_owned(), data.clone()) {
            assert_eq!(before, data, "both forms hold the same");
        }
    }
    all
}

fn check(platter: &Arc<Mutex<Platter>>, suffix: &str) {
    let files = platter.lock().unwrap().files();
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    let expected: Vec<String> = (1..=3).map(|number| name(number) + suffix).collect();
    let closed: Vec<_> = names.iter().filter(|name| name.contains("-2026")).collect();
    assert_eq!(closed, expected.iter().map(String::as_str).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    let all = unpacked(&files);
    assert!((1..=3).all(|number| all[&name(number)] == content(number)));
    assert_eq!(files["/logs/mailtrail.ndjson"], b"live\n");
    assert_eq!(files["/logs/mailtrail-notes.ndjson"], b"somebody else's\n");
}

#[test]
fn a_crash_at_each_step_of_compression_is_made_good() {
    for (compression, suffix) in [(Compression::Gzip, ".gz"), (Compression::Zstd, ".zst")] {
        let config = FileConfig { compression, ..config("/logs") };
        for power in [None, Some(false), Some(true)] {
            let mut steps = 0;
            loop {
                let platter = platter(u64::from(steps));
                let whole = run(&platter, &config, Fuse::new(Some(steps)));
                if let Some(all) = power {
                    platter.lock().unwrap().cut_power(all);
                }
                let now = unpacked(&platter.lock().unwrap().files());
                assert!((1..=3).all(|number| now[&name(number)] == content(number)), "step {steps}");
                assert!(run(&platter, &config, Fuse::new(None)));
                check(&platter, suffix);
                platter.lock().unwrap().cut_power(true);
                check(&platter, suffix);
                if whole {
                    break;
                }
                steps += 1;
            }
            assert!(steps > 10);
        }
    }
}

#[test]
fn a_compressed_file_that_is_not_the_original_is_made_again() {
    let config = FileConfig { compression: Compression::Gzip, ..config("/logs") };
    for bad in [&b"no gzip at all"[..], b""] {
        let platter = platter(1);
        platter.lock().unwrap().put(&format!("{}.gz", name(2)), bad);
        assert!(run(&platter, &config, Fuse::new(None)));
        // What stood in the way is gone; the next time, or this time, the original is compressed.
        assert!(run(&platter, &config, Fuse::new(None)));
        check(&platter, ".gz");
    }
}

#[test]
fn only_so_many_are_kept_and_only_our_own_are_deleted() {
    let platter = platter(1);
    let config = FileConfig { keep: NonZeroU32::new(2), ..config("/logs") };
    assert!(run(&platter, &config, Fuse::new(None)));
    let names: Vec<_> = platter.lock().unwrap().files().into_keys().collect();
    let mut expected =
        vec![name(2), name(3), "/logs/mailtrail-notes.ndjson".into(), "/logs/mailtrail.ndjson".into()];
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_full_disk_leaves_the_original_and_no_rest() {
    let platter = platter(1);
    let used: usize = platter.lock().unwrap().files().values().map(Vec::len).sum();
    platter.lock().unwrap().room = Some(used + 100);
    let config = FileConfig { compression: Compression::Zstd, ..config("/logs") };
    assert!(!run(&platter, &config, Fuse::new(None)));
    check(&platter, "");
    platter.lock().unwrap().room = None;
    assert!(run(&platter, &config, Fuse::new(None)));
    check(&platter, ".zst");
    assert!(Path::new(&name(1)).is_absolute());
}

/// A clock that is set back makes a file that was closed later look older.
#[test]
fn the_files_that_are_kept_are_those_that_were_closed_last_whatever_the_clock_said() {
    let name = |(number, day): (u32, u32)| format!("/logs/mailtrail-2026010{day}T000000Z-{number}.ndjson");
    let config = FileConfig { keep: NonZeroU32::new(2), ..config("/logs") };
    for days in [[5, 3, 2, 4], [5, 5, 5, 5], [1, 2, 3, 4]] {
        let platter = Platter::new(&[], 1);
        let closed: Vec<_> = (9..).zip(days).map(name).collect();
        for path in &closed {
            platter.lock().unwrap().put(path, b"{}\n");
        }
        assert!(run(&platter, &config, Fuse::new(None)));
        let mut left: Vec<_> = platter.lock().unwrap().files().into_keys().collect();
        left.sort_by_key(|path| closed.iter().position(|of| of == path));
        assert_eq!(left, closed[2..], "{days:?}");
    }
}
