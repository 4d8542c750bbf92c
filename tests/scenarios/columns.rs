//! The archive sink with Parquet files: what is in them is what was archived, whatever was killed or configured anew.
//! They are read by the `parquet` crate here, and by pyarrow and DuckDB in the tests whose names begin with `real_`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use chrono::NaiveDateTime;
use parquet::{
    file::reader::{FileReader as _, SerializedFileReader},
    record::{Row, RowAccessor as _},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use simulator::SimulatorConfig;

use crate::{
    archive::{
        arrived_in, below, configure, ends_with, is_accounted_for, is_complete, objects, objects_below,
        staging, stores, target, verify,
    },
    deploy::root,
    support::{
        Arrived, World,
        bucket::Bucket,
        install, kill_hard, terminate,
        verifiers::{self, Findings},
    },
};

/// Lines, and columns beside them.
pub(crate) const BOTH: &str = "formats = [\"ndjson\", \"parquet\"]\nsort = \"user\"";
/// Columns alone, as Amazon Security Lake wants them.
pub(crate) const LAKE: &str = "formats = [\"parquet\"]\nlayout = \"security_lake\"\n\
                    security_lake = { source = \"audit\", region = \"eu-central-1\" }";
/// Where `raw` is among the columns.
const RAW: usize = 16;

fn twins(world: &World) -> Vec<PathBuf> {
    twins_below(&target(world))
}

fn twins_below(folder: &Path) -> Vec<PathBuf> {
    below(folder).into_iter().filter(|path| ends_with(path, ".parquet")).collect()
}

fn rows(twin: &Path) -> Vec<Row> {
    let reader = SerializedFileReader::new(fs::File::open(twin).expect("a file")).expect("Parquet");
    reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect()
}

/// Every record is in the columns once, and each column says what the record does.
fn columns_are_complete(world: &World) {
    columns_have_every_record(world, &target(world));
}

fn columns_have_every_record(world: &World, folder: &Path) {
    let rows: Vec<Row> = twins_below(folder).into_iter().flat_map(|twin| rows(&twin)).collect();
    let raw = rows.iter().map(|row| row.get_string(RAW).expect("a record").clone().into_bytes());
    Arrived::of_lines(raw.collect()).is_exactly(&world.simulator().truth());
    for row in rows {
        let record: Value = serde_json::from_str(row.get_string(RAW).expect("a record")).expect("JSON");
        let text = |at: usize| row.get_string(at).ok().map(String::as_str);
        for (at, name) in [(0, "Id"), (3, "Operation"), (4, "Workload"), (5, "UserId"), (7, "UserKey")] {
            assert_eq!(text(at), record[name].as_str().filter(|said| !said.is_empty()), "{name} of {record}");
        }
        let said = record["CreationTime"].as_str().expect("a time");
        let said = NaiveDateTime::parse_from_str(said, "%Y-%m-%dT%H:%M:%S").expect("a time");
        assert_eq!(row.get_timestamp_millis(1).ok(), Some(said.and_utc().timestamp_millis()), "{record}");
        assert_eq!(row.get_int(2).ok().map(i64::from), record["RecordType"].as_i64(), "{record}");
        assert_eq!(row.get_int(6).ok().map(i64::from), record["UserType"].as_i64(), "{record}");
        assert!(row.get_int(12).is_ok(), "every event has a class: {record}");
    }
}

#[test]
fn lines_and_columns_hold_the_same_records() {
    let world = World::new(SimulatorConfig { blobs: 60, records_per_blob: 40, ..SimulatorConfig::default() });
    configure(&world, BOTH);
    world.collect();
    is_complete(&world);
    columns_are_complete(&world);
    let (lines, twins) = (objects(&world), twins(&world));
    assert_eq!((lines.len(), twins.len()), (1, 1));
    let name =
        |path: &Path, end: &str| path.to_str().and_then(|path| path.strip_suffix(end)).map(str::to_owned);
    assert_eq!(name(&lines[0], ".ndjson.zst"), name(&twins[0], ".parquet"));
    let users: Vec<_> = rows(&twins[0]).iter().map(|row| row.get_string(5).ok().cloned()).collect();
    assert!(users.is_sorted_by_key(|user| (user.is_none(), user.clone())), "sorted by user");
    let tagged =
        rows(&twins[0]).iter().filter(|row| !row.get_list(13).expect("a list").elements().is_empty()).count();
    assert!(tagged > 0, "some records are tagged");
    assert!(rows(&twins[0]).iter().any(|row| row.get_string(8).is_ok()), "some are done to a mailbox");

    // What was there is changed or taken away: it is named.
    let relative = twins[0].strip_prefix(target(&world)).expect("below").to_str().expect("plain").to_owned();
    let mut bytes = fs::read(&twins[0]).expect("a file");
    bytes[100] ^= 1;
    fs::remove_file(&twins[0]).expect("a file");
    let told = verify(&world, &[]).ends_with(1).stdout;
    assert!(told.contains("object-missing") && told.contains(&relative), "{told}");
    fs::write(&twins[0], bytes).expect("a file");
    let told = verify(&world, &[]).ends_with(1).stdout;
    assert!(told.contains("object-changed") && told.contains(&relative), "{told}");
}

#[test]
fn a_security_lake_has_one_class_and_day_a_file() {
    let world = World::new(SimulatorConfig {
        blobs: 60,
        records_per_blob: 40,
        backlog_span: Duration::from_secs(3 * 24 * 3600),
        ..SimulatorConfig::default()
    });
    configure(&world, LAKE);
    world.collect();
    columns_are_complete(&world);
    is_accounted_for(&world, "archive");
    assert!(objects(&world).is_empty(), "no lines are wanted");
    let (mut classes, mut days) = (BTreeSet::new(), BTreeSet::new());
    for twin in twins(&world) {
        let name = twin.strip_prefix(target(&world)).expect("below").to_str().expect("plain").to_owned();
        let parts: Vec<_> = name.split('/').collect();
        let [ext, source, region, account, day, _] = parts[..] else { panic!("{name}") };
        assert_eq!((ext, region), ("ext", "region=eu-central-1"), "{name}");
        assert!(account.starts_with("accountId=external_"), "{name}");
        let (class, day) = (source.strip_prefix("audit_"), day.strip_prefix("eventDay="));
        let rows = rows(&twin);
        for row in &rows {
            assert_eq!(Some(row.get_int(12).expect("a class").to_string().as_str()), class, "{name}");
            let time = chrono::DateTime::from_timestamp_millis(row.get_timestamp_millis(1).expect("a time"));
            let time = time.expect("a time").format("%Y%m%d").to_string();
            assert_eq!(Some(time.as_str()), day, "{name}");
        }
        assert!(rows.is_sorted_by_key(|row| row.get_timestamp_millis(1).ok()), "{name} is sorted by time");
        classes.insert(class.map(str::to_owned));
        days.insert(day.map(str::to_owned));
    }
    assert!(classes.len() > 1 && days.len() > 1, "{classes:?} {days:?}");

    let told = a_record_is_proved(&world, ["--directory", "archive"], &target(&world));
    assert!(told.starts_with("The record is row "), "{told}");
    let nobody =
        ["archive", "prove", "--directory", "archive", "--public-key", "archive.pub", "--id", NOBODY];
    let told = world.mailtrail(&nobody).ends_with(1).stderr;
    assert!(told.contains("no object holds a record with the Id"), "{told}");
    let listed =
        world.mailtrail(&["archive", "list", "--directory", "archive", "--objects"]).ends_with(0).stdout;
    assert!(listed.contains("audit_6003"), "{listed}");
}

#[test]
fn an_open_object_becomes_what_was_configured_when_it_was_begun() {
    let world =
        World::new(SimulatorConfig { blobs: 300, records_per_blob: 50, ..SimulatorConfig::default() });
    configure(&world, BOTH);
    let running = world.start(&["run"]);
    world.until("something is open", || {
        below(&staging(&world)).iter().any(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 0))
    });
    // A batch later there are whole works for certain.
    thread::sleep(Duration::from_millis(500));
    terminate(&running);
    running.wait().ends_with(0);
    assert!(below(&staging(&world)).iter().any(|path| ends_with(path, ".ndjson")), "something is open");
    configure(&world, "formats = [\"ndjson\"]\ncompression = \"gzip\"");
    world.collect();
    is_complete(&world);
    columns_are_complete(&world);
    assert_eq!((objects(&world).len(), twins(&world).len()), (1, 1));
    // From the next one on it is as configured now.
    world.mailtrail(&["check"]).ends_with(0);
}

#[test]
fn kills_while_columns_are_made_and_put_lose_and_double_nothing() {
    for (seed, lines) in [(17, BOTH), (18, LAKE)] {
        let world = World::new(SimulatorConfig {
            blobs: 800,
            records_per_blob: 40,
            page_size: 37,
            backlog_span: Duration::from_secs(3 * 24 * 3600),
            ..SimulatorConfig::default()
        });
        configure(&world, &format!("object_bytes = \"512KiB\"\nobject_age = \"500ms\"\n{lines}"));
        let mut random = StdRng::seed_from_u64(seed);
        let mut midway = 0;
        for _ in 0..10 {
            let running = world.start(&["run"]);
            // It is killed while something is sealed: some of its files are made.
            for _ in 0..800 {
                if below(&staging(&world)).iter().any(|path| ends_with(path, ".part")) {
                    break;
                }
                thread::sleep(Duration::from_millis(2));
            }
            thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
            kill_hard(&running);
            running.wait();
            let staged = below(&staging(&world));
            midway +=
                usize::from(staged.iter().any(|path| ends_with(path, ".part") || ends_with(path, ".object")));
        }
        assert!(midway > 0, "no kill came while something was sealed or put");
        world.collect();
        columns_are_complete(&world);
        if lines == BOTH {
            is_complete(&world);
            arrived_in(&target(&world)).is_exactly(&world.simulator().truth());
        } else {
            is_accounted_for(&world, "archive");
        }
    }
}

#[test]
fn check_says_which_formats_make_no_sense() {
    let world = World::new(SimulatorConfig { blobs: 3, ..SimulatorConfig::default() });
    for (lines, told) in [
        ("formats = [\"parquet\"]\nraw = false", "add \"ndjson\" to formats, or leave raw out"),
        (
            "layout = \"security_lake\"\nsecurity_lake = { region = \"eu-west-1\" }",
            "add \"parquet\" to formats",
        ),
        ("formats = [\"csv\"]", "there are \"ndjson\" and \"parquet\""),
    ] {
        configure(&world, lines);
        let outcome = world.mailtrail(&["check"]).ends_with(2);
        assert!(outcome.stderr.contains(told), "{}", outcome.text());
    }
}

/// The id of no record.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// A record is proved from an archive, of which this folder is a copy, and the proof convinces without it.
fn a_record_is_proved(world: &World, place: [&str; 2], folder: &Path) -> String {
    let row = rows(&twins_below(folder)[0]).pop().expect("a row");
    let (id, record) = (row.get_string(0).expect("an id"), row.get_string(RAW).expect("a record"));
    let line = [
        "archive",
        "prove",
        place[0],
        place[1],
        "--public-key",
        "archive.pub",
        "--id",
        id,
        "--out",
        "proof.json",
    ];
    let told = world.mailtrail(&line).ends_with(0).stdout;
    let check = ["archive", "verify", "--proof", "proof.json", "--public-key", "archive.pub"];
    let proved = world.mailtrail(&check).ends_with(0).stdout;
    assert!(proved.contains(record), "{proved}");
    told
}

/// Lines and columns, or the files of a lake, are in a bucket as they are in a directory.
pub(crate) fn columns_arrive_in(bucket: &Bucket, lines: &str) {
    let world = World::new(SimulatorConfig {
        blobs: 60,
        records_per_blob: 40,
        backlog_span: Duration::from_secs(2 * 24 * 3600),
        ..SimulatorConfig::default()
    });
    let sink = format!("object_bytes = \"1MiB\"\n{lines}");
    stores::configure(&world, bucket, bucket.address, "", &sink);
    world.collect();
    let copy = bucket.download(&world);
    columns_have_every_record(&world, &copy);
    is_accounted_for(&world, "copy");
    a_record_is_proved(&world, ["--sink", "evidence"], &copy);
    let (lines_there, twins) = (objects_below(&copy), twins_below(&copy));
    if lines == LAKE {
        assert_eq!(lines_there, Vec::<PathBuf>::new(), "no lines are wanted");
        assert!(twins.len() > 2 && twins.iter().all(|twin| twin.starts_with(copy.join("ext"))), "{twins:?}");
    } else {
        arrived_in(&copy).is_exactly(&world.simulator().truth());
        let without = |path: &PathBuf, end: &str| {
            path.to_str().and_then(|path| path.strip_suffix(end)).map(str::to_owned)
        };
        let (lines_there, twins): (Vec<_>, Vec<_>) = (
            lines_there.iter().map(|path| without(path, ".ndjson.zst")).collect(),
            twins.iter().map(|path| without(path, ".parquet")).collect(),
        );
        assert_eq!(lines_there, twins, "each object has both");
        assert!(twins.len() > 1);
    }
}

#[test]
fn s3_takes_columns_and_a_security_lake() {
    for lines in [BOTH, LAKE] {
        columns_arrive_in(&Bucket::memory(), lines);
    }
}

#[test]
#[ignore = "needs pyarrow and DuckDB, which tests/servers/parquet-readers installs"]
fn real_readers_find_what_the_sink_has_written() {
    let (readers, verifier) = (install("parquet-readers"), verifiers::python());
    for lines in [BOTH, LAKE] {
        let world = World::new(SimulatorConfig {
            blobs: 120,
            records_per_blob: 60,
            backlog_span: Duration::from_secs(2 * 24 * 3600),
            ..SimulatorConfig::default()
        });
        configure(&world, &format!("object_bytes = \"1MiB\"\n{lines}"));
        world.collect();
        columns_are_complete(&world);
        let count = world.simulator().truth().count();
        let read = Command::new(&readers)
            .arg(root().join("tests/archive/read_columns.py"))
            .arg(target(&world))
            .output()
            .expect("Python runs");
        let said = String::from_utf8_lossy(&read.stdout);
        assert!(read.status.success(), "{said}{}", String::from_utf8_lossy(&read.stderr));
        assert!(said.starts_with(&format!("{count} records ")), "{said}");

        // Both verifiers say the same of what is whole, of a file that was changed, and of one that is gone.
        let key = world.path().join("archive.pub");
        let found = |kind: &str, name: &str| BTreeSet::from([(kind.to_owned(), name.to_owned())]);
        let agree_on = |expected: &Findings| {
            assert_eq!(verifiers::independent(&verifier, &target(&world), &key, &[]), *expected);
            assert_eq!(verifiers::mailtrail(&target(&world), &key, &[]), *expected);
        };
        agree_on(&Findings::new());
        let twin = twins(&world).remove(0);
        let name = twin.strip_prefix(target(&world)).expect("below").to_str().expect("plain").to_owned();
        let good = fs::read(&twin).expect("a file");
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 4;
        fs::write(&twin, bad).expect("a file");
        agree_on(&found("object-changed", &name));
        fs::remove_file(&twin).expect("a file");
        agree_on(&found("object-missing", &name));
    }
}
