//! The Parquet twin, read back by the `parquet` crate, and by pyarrow and DuckDB, as `tests/servers/parquet-readers`
//! installs them (`cargo test -p archive -- --ignored real_`).

#[path = "../../tests/scenarios/support/installed.rs"]
mod installed;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use archive::{
    Hash,
    parquet::{
        Lines, ParquetOptions, ROW_GROUP_BYTES, Row, Slice, SortBy, TwinError, Twins, Understand, Written,
    },
};
use installed::installed;
use parquet::{
    file::{
        properties::ReaderProperties,
        reader::{FileReader as _, SerializedFileReader},
        serialized_reader::ReadOptionsBuilder,
    },
    record::{Field, RowAccessor as _},
};
use schemas::FeedKey;
use serde_json::Value;
use tempfile::TempDir;

/// Understands the records of this test.
struct Plain;

impl Understand for Plain {
    fn tell(&self, _: FeedKey, record: &[u8], told: &mut dyn FnMut(&Row<'_>)) {
        let value: Value = serde_json::from_slice(record).unwrap_or_default();
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let number = |key: &str| value[key].as_i64().and_then(|number| i32::try_from(number).ok());
        let tags: Vec<&str> =
            value["Tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if text("Id") == "never-told" {
            return;
        }
        told(&Row {
            id: text("Id"),
            time_ms: value["Time"].as_i64(),
            record_type: number("RecordType"),
            operation: text("Operation"),
            user: text("UserId"),
            user_type: number("UserType"),
            mailbox: text("Mailbox"),
            client_ip: text("ClientIP"),
            class_uid: number("Class"),
            tags: &tags,
            ..Row::default()
        });
        if text("Id") == "told-twice" {
            told(&Row::default());
        }
    }
}

fn options(sort_by: SortBy) -> ParquetOptions {
    let tenant = "41463f53-8812-40f4-890f-865bf6e35190".parse().expect("a tenant");
    let feed = FeedKey { tenant, content_type: schemas::ContentType::Exchange };
    ParquetOptions { feed, sort_by, raw: true, sliced: false }
}

fn lines(path: &Path) -> Lines<'_> {
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    Lines { path, bytes, understand: &Plain, cancelled: &|| false }
}

fn write_twin(path: &Path, twin: &Path, options: ParquetOptions) -> Result<Written, TwinError> {
    Twins::read(lines(path), options)?.write(None, twin, |_| ())
}

/// So many records, in no order, of a few users; some say nothing, and one is not even JSON.
fn records(count: usize, padding: usize) -> Vec<String> {
    let mut records: Vec<String> = (0..count)
        .map(|number| {
            let scattered = number.wrapping_mul(7_919) % count;
            let tags = ["", r#""a""#, r#""a","b""#][number % 3];
            let noise = "x".repeat(padding);
            format!(
                r#"{{"Id":"id-{number}","Time":{},"UserId":"user-{}@example.com","RecordType":{},"UserType":0,"Operation":"Send","Mailbox":"ä{}","ClientIP":"10.0.0.{}","Class":{},"Tags":[{tags}],"Noise":"{noise}"}}"#,
                1_770_000_000_000_i64 + scattered as i64,
                scattered % 17,
                number % 5,
                number % 11,
                number % 200,
                [6003, 4009][number % 2],
            )
        })
        .collect();
    records[count / 2] = r#"{"Id":"says-nothing"}"#.to_owned();
    records[count / 3] = "not JSON at all".to_owned();
    records
}

fn write(records: &[String], options: &ParquetOptions) -> (TempDir, PathBuf, Written) {
    let directory = tempfile::tempdir().expect("a directory");
    let (lines, twin) = (directory.path().join("lines"), directory.path().join("twin.parquet"));
    fs::write(&lines, records.join("\n") + "\n").expect("a file");
    let written = write_twin(&lines, &twin, *options).expect("a twin");
    (directory, twin, written)
}

/// Each row as the user, the time and the record's bytes.
fn rows(twin: &PathBuf) -> Vec<(Option<String>, Option<i64>, String)> {
    let reader = SerializedFileReader::new(fs::File::open(twin).expect("a file")).expect("Parquet");
    let rows = reader.get_row_iter(None).expect("rows");
    rows.map(|row| {
        let row = row.expect("a row");
        let user = row.get_string(5).ok().cloned();
        let time = row.get_timestamp_millis(1).ok();
        (user, time, row.get_string(16).expect("the record").clone())
    })
    .collect()
}

#[test]
fn every_record_is_there_once_in_the_order_wanted() {
    let mut records = records(3_000, 0);
    records[5] = r#"{"Id":"never-told"}"#.to_owned();
    records[6] = r#"{"Id":"told-twice"}"#.to_owned();
    let (_directory, twin, written) = write(&records, &options(SortBy::Time));
    let found = rows(&twin);
    assert_eq!(written.rows, 3_000);
    assert_eq!(written.bytes, fs::metadata(&twin).expect("a file").len());
    assert_eq!(written.sha256, Hash::of(&fs::read(&twin).expect("a file")));
    let time = |time: Option<i64>| time.unwrap_or(i64::MAX);
    assert!(found.is_sorted_by_key(|(_, at, _)| time(*at)));
    let (mut expected, mut all) = (records.clone(), found.into_iter().map(|row| row.2).collect::<Vec<_>>());
    expected.sort();
    all.sort();
    assert!(expected == all);

    let (_directory, twin, _) = write(&records, &options(SortBy::User));
    let found = rows(&twin);
    assert_eq!(found.len(), 3_000);
    let key = |row: &(Option<String>, Option<i64>, String)| (row.0.is_none(), row.0.clone(), time(row.1));
    assert!(found.is_sorted_by_key(key));
}

#[test]
fn the_same_lines_become_the_same_bytes() {
    let records = records(500, 0);
    let hash = || write(&records, &options(SortBy::User)).2.sha256;
    assert_eq!(hash(), hash());
}

#[test]
fn row_groups_are_small_and_everything_that_prunes_is_there() {
    let records = records(3_000, 16 * 1024);
    let (_directory, twin, written) = write(&records, &options(SortBy::User));
    assert!(written.row_groups > 2, "{}", written.row_groups);
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let read = ReadOptionsBuilder::new().with_reader_properties(properties).with_page_index().build();
    let file = fs::File::open(&twin).expect("a file");
    let reader = SerializedFileReader::new_with_options(file, read).expect("Parquet");
    let metadata = reader.metadata();
    assert!(metadata.page_index().is_some());
    for (index, group) in metadata.row_groups().iter().enumerate() {
        assert!(usize::try_from(group.total_byte_size()).expect("a size") <= ROW_GROUP_BYTES + (1 << 20));
        for (at, column) in group.columns().iter().enumerate() {
            let name = column.column_path().string();
            assert_eq!(column.compression().to_string().split('(').next(), Some("ZSTD"), "{name}");
            assert_eq!(column.statistics().is_some(), name != "raw", "{name}");
            let filter = reader.get_row_group(index).expect("a group").get_column_bloom_filter(at).is_some();
            assert_eq!(filter, ["id", "user", "mailbox", "client_ip"].contains(&&*name), "{name}");
        }
    }
    let group = reader.get_row_group(0).expect("a group");
    let first = group.get_row_iter(None).expect("rows").next().expect("one").expect("a row");
    let filter = group.get_column_bloom_filter(0).expect("a filter");
    assert!(filter.check(&first.get_string(0).expect("an id").as_str()));
    assert!((0..100).filter(|number| filter.check(&format!("none-{number}").as_str())).count() < 20);
}

/// Amazon Security Lake takes pages of at most 1 MB, and no more of the records is in memory while they are written.
#[test]
fn pages_are_small_however_large_the_records_are() {
    for (count, padding) in [(3_000, 1_500), (500, 40_000)] {
        let records = records(count, padding);
        let (_directory, twin, _) = write(&records, &options(SortBy::Time));
        let reader = SerializedFileReader::new(fs::File::open(&twin).expect("a file")).expect("Parquet");
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).expect("a group");
            for column in 0..group.num_columns() {
                for page in group.get_column_page_reader(column).expect("pages") {
                    let bytes = page.expect("a page").buffer().len();
                    assert!(bytes <= 1_000_000, "column {column} has a page of {bytes} bytes");
                }
            }
        }
        let (mut found, mut expected) =
            (rows(&twin).into_iter().map(|row| row.2).collect::<Vec<_>>(), records);
        found.sort();
        expected.sort();
        assert!(found == expected);
    }
}

#[test]
fn one_class_and_day_alone_and_no_raw_column() {
    let mut records = records(300, 0);
    records[7] = r#"{"Id":"the next day","Time":1770100000000,"Class":6003}"#.to_owned();
    let directory = tempfile::tempdir().expect("a directory");
    let lines = directory.path().join("lines");
    fs::write(&lines, records.join("\n") + "\n").expect("a file");
    let options = ParquetOptions { sliced: true, raw: false, ..options(SortBy::Time) };
    let twins = Twins::read(self::lines(&lines), options).expect("it can be read");
    let found: BTreeMap<_, _> =
        twins.slices().map(|(slice, count)| (slice.expect("a slice"), count)).collect();
    let day = |text: &str| Some(text.parse().expect("a day"));
    let counted = |class_uid, day| found[&Slice { class_uid, day }];
    assert_eq!(found.len(), 4);
    assert_eq!(counted(0, None), 2, "what nobody understands is counted as well");
    assert_eq!(counted(6003, day("2026-02-03")), 1);
    assert_eq!(counted(6003, day("2026-02-02")) + counted(4009, day("2026-02-02")), 297);
    let mut all = Vec::new();
    for (slice, count) in found {
        let twin = directory.path().join("twin");
        let written = twins.write(Some(slice), &twin, |record| all.push(record.to_vec())).expect("a twin");
        assert_eq!(written.rows, count);
        let reader = SerializedFileReader::new(fs::File::open(&twin).expect("a file")).expect("Parquet");
        for row in reader.get_row_iter(None).expect("rows") {
            let row = row.expect("a row");
            assert_eq!(row.len(), 16);
            assert_eq!(row.get_int(12).unwrap_or(0), slice.class_uid);
        }
    }
    let mut expected: Vec<_> = records.iter().map(|record| record.as_bytes().to_vec()).collect();
    expected.sort();
    all.sort();
    assert!(all == expected, "each record is handed over once");
}

#[test]
fn it_ends_when_nobody_waits_and_what_is_cut_off_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, twin) = (directory.path().join("lines"), directory.path().join("twin"));
    fs::write(&path, records(3_000, 1024).join("\n") + "\n").expect("a file");
    let stopped = Lines { cancelled: &|| true, ..lines(&path) };
    assert!(matches!(Twins::read(stopped, options(SortBy::Time)), Err(TwinError::Cancelled)));
    let cut = Lines { bytes: 100, ..lines(&path) };
    let error = Twins::read(cut, options(SortBy::Time)).err().expect("half a line");
    assert!(error.to_string().contains("the line at byte 0 is cut off"), "{error}");
    fs::write(&path, b"{\"Id\":\"\xff\"}\n").expect("a file");
    let error = write_twin(&path, &twin, options(SortBy::Time)).expect_err("no text");
    assert!(error.to_string().contains("is no text"), "{error}");
}

#[test]
fn tags_are_a_list_and_what_is_not_said_is_null() {
    let records = [r#"{"Id":"1","Tags":["a","b"]}"#, r#"{"Id":"2"}"#].map(str::to_owned);
    let (_directory, twin, _) = write(&records, &options(SortBy::Time));
    let reader = SerializedFileReader::new(fs::File::open(&twin).expect("a file")).expect("Parquet");
    let mut tags = Vec::new();
    for row in reader.get_row_iter(None).expect("rows") {
        let row = row.expect("a row");
        assert!(row.get_timestamp_millis(1).is_err(), "no time");
        let list = row.get_list(13).expect("a list").elements().to_vec();
        tags.push(list);
        assert_eq!(row.get_string(14).expect("a tenant"), "41463f53-8812-40f4-890f-865bf6e35190");
        assert_eq!(row.get_string(15).expect("a feed"), "Audit.Exchange");
    }
    assert_eq!(tags, [vec![Field::Str("a".to_owned()), Field::Str("b".to_owned())], vec![]]);
}

#[test]
fn what_cannot_be_written_names_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let lines = directory.path().join("lines");
    let error = write_twin(&lines, &lines, options(SortBy::Time)).expect_err("no lines");
    assert!(error.to_string().contains("cannot read") && !error.disk_full(), "{error}");
    fs::write(&lines, "{}\n").expect("a file");
    // Every write to it fails for want of room.
    let error = write_twin(&lines, "/dev/full".as_ref(), options(SortBy::Time)).expect_err("no room");
    assert!(error.disk_full(), "{error}");
}

#[test]
#[ignore = "needs pyarrow and DuckDB: tests/servers/parquet-readers"]
fn real_readers_see_the_same_rows_types_and_bytes() {
    let records = records(3_000, 1024);
    let (directory, twin, written) = write(&records, &options(SortBy::User));
    fs::write(directory.path().join("lines.txt"), records.join("\n") + "\n").expect("a file");
    let python = installed("parquet-readers-26.0.1-2.0.0/bin/python", "tests/servers/parquet-readers");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_twin.py");
    let mut command = Command::new(python);
    let output = command.arg(script).arg(&twin).arg(directory.path().join("lines.txt")).output();
    let output = output.expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), format!("{} rows agree", written.rows));
}
