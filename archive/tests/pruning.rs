//! How little of a twin a query for one user in one week reads, as a reader finds it out from statistics and page index.

use std::{fs::File, io::Write as _};

use archive::parquet::{Lines, ParquetOptions, Row, SortBy, Twins, Understand};
use parquet::file::{
    metadata::{RowGroupMetaData, page_index::PageIndexProvider},
    page_index::{column_index::ColumnIndexMetaData, offset_index::OffsetIndexMetaData},
    reader::{FileReader as _, SerializedFileReader},
    serialized_reader::ReadOptionsBuilder,
};
use schemas::FeedKey;

const START: i64 = 1_767_225_600_000;
const WEEK: i64 = 7 * 86_400_000;

/// Records of this test are words: id, time, user, operation, address.
struct Words;

impl Understand for Words {
    fn tell(&self, _: FeedKey, record: &[u8], told: &mut dyn FnMut(&Row<'_>)) {
        let mut words = str::from_utf8(record).expect("text").split(' ');
        let mut word = || words.next().expect("five words");
        told(&Row {
            id: word(),
            time_ms: word().parse().ok(),
            user: word(),
            operation: word(),
            client_ip: word(),
            ..Row::default()
        });
    }
}

/// The share of the bytes of the columns `id`, `time`, `user`, `operation` and `client_ip` that the query reads, when there
/// are so many rows of so many users, scattered over 90 days.
#[expect(clippy::print_stdout, reason = "a figure that is measured is to be seen")]
fn share(rows: u64, users: u64) -> f64 {
    let directory = tempfile::tempdir().expect("a directory");
    let (lines, twin) = (directory.path().join("lines"), directory.path().join("twin.parquet"));
    let mut to = std::io::BufWriter::new(File::create(&lines).expect("a file"));
    let operations = ["MailItemsAccessed", "Send", "MoveToDeletedItems", "Update", "MailboxLogin"];
    for number in 0..rows {
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number << 17);
        let random = (random ^ (random >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let time = START + i64::try_from(random % (90 * 86_400_000)).expect("a time");
        let user = (random >> 33) % users;
        let operation = operations[usize::try_from(random % 5).expect("a number")];
        let (a, b) = (user % 250, random % 7);
        writeln!(to, "{random:016x}{number:016x} {time} user-{user:06}@contoso.com {operation} 10.1.{a}.{b}")
            .expect("room");
    }
    drop(to);
    let tenant = "41463f53-8812-40f4-890f-865bf6e35190".parse().expect("a tenant");
    let feed = FeedKey { tenant, content_type: schemas::ContentType::Exchange };
    let options = ParquetOptions { feed, sort_by: SortBy::User, raw: false, sliced: false };
    let bytes = std::fs::metadata(&lines).expect("a file").len();
    let lines = Lines { path: &lines, bytes, understand: &Words, cancelled: &|| false };
    let written = Twins::read(lines, options).and_then(|twins| twins.write(None, &twin, |_| ()));
    let written = written.expect("a twin");
    assert_eq!(written.rows, rows);

    let read = ReadOptionsBuilder::new().with_page_index().build();
    let file = File::open(&twin).expect("a file");
    let reader = SerializedFileReader::new_with_options(file, read).expect("Parquet");
    let user = format!("user-{:06}@contoso.com", users / 2);
    let week = START + 5 * WEEK..START + 6 * WEEK;
    let (mut touched, mut all) = (0, 0);
    let index = &**reader.metadata().page_index().expect("a page index");
    for (number, group) in reader.metadata().row_groups().iter().enumerate() {
        let at = |name: &str| {
            group.columns().iter().position(|column| column.column_path().string() == name).expect("a column")
        };
        let (user_column, time_column) = (at("user"), at("time"));
        let users = pages(index, (number, user_column), group, |index, page| match index {
            ColumnIndexMetaData::BYTE_ARRAY(index) => {
                let bound = |value: Option<&[u8]>| value.expect("each page has users").to_vec();
                bound(index.min_value(page)).as_slice() <= user.as_bytes()
                    && user.as_bytes() <= bound(index.max_value(page)).as_slice()
            }
            _ => panic!("users are text"),
        });
        let times = pages(index, (number, time_column), group, |index, page| match index {
            ColumnIndexMetaData::INT64(index) => {
                let bound = |value: Option<&i64>| *value.expect("each page has times");
                bound(index.min_value(page)) < week.end && week.start <= bound(index.max_value(page))
            }
            _ => panic!("times are numbers"),
        });
        let rows = both(&users, &times);
        for name in ["id", "time", "user", "operation", "client_ip"] {
            let column = at(name);
            let wanted = match name {
                // What it is looked for by is read wherever it may be.
                "user" => &users,
                _ => &rows,
            };
            let offsets = index.offset_index(number, column).expect("a page index");
            touched += read_of(offsets, wanted, group, column);
            all += u64::try_from(group.column(column).compressed_size()).expect("a size");
        }
    }
    println!("{touched} of {all} bytes: {:.3} %", 100.0 * touched as f64 / all as f64);
    touched as f64 / all as f64
}

type Rows = std::ops::Range<i64>;

fn ranges(offsets: &OffsetIndexMetaData, group: &RowGroupMetaData) -> Vec<Rows> {
    let starts: Vec<i64> = offsets.page_locations().iter().map(|page| page.first_row_index).collect();
    let ends = starts.iter().skip(1).copied().chain([group.num_rows()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// The rows of the pages that may hold what is looked for.
fn pages(
    index: &dyn PageIndexProvider,
    (number, column): (usize, usize),
    group: &RowGroupMetaData,
    may: impl Fn(&ColumnIndexMetaData, usize) -> bool,
) -> Vec<Rows> {
    let offsets = index.offset_index(number, column).expect("a page index");
    let bounds = index.column_index(number, column).expect("a page index");
    ranges(offsets, group)
        .into_iter()
        .enumerate()
        .filter(|(page, _)| may(bounds, *page))
        .map(|(_, rows)| rows)
        .collect()
}

fn both(one: &[Rows], other: &[Rows]) -> Vec<Rows> {
    let overlap = |a: &Rows, b: &Rows| a.start.max(b.start)..a.end.min(b.end);
    let pairs = one.iter().flat_map(|a| other.iter().map(move |b| overlap(a, b)));
    pairs.filter(|rows| !rows.is_empty()).collect()
}

/// The bytes of a column's pages that hold any of these rows, its dictionary included.
fn read_of(offsets: &OffsetIndexMetaData, rows: &[Rows], group: &RowGroupMetaData, column: usize) -> u64 {
    let wanted = |page: &Rows| rows.iter().any(|rows| rows.start < page.end && page.start < rows.end);
    let locations = offsets.page_locations();
    let pages = ranges(offsets, group).into_iter().zip(locations).filter(|(page, _)| wanted(page));
    let bytes: i64 = pages.map(|(_, page)| i64::from(page.compressed_page_size)).sum();
    if bytes == 0 {
        return 0;
    }
    let dictionary = group.column(column).dictionary_page_offset();
    let dictionary = dictionary.map_or(0, |start| locations[0].offset - start);
    u64::try_from(bytes + dictionary).expect("sizes")
}

#[test]
fn one_user_in_one_week_reads_little() {
    assert!(share(150_000, 500) < 0.05);
}

/// `cargo test --release -p archive --test pruning -- --ignored --nocapture`, as docs/BENCHMARKS.md has it.
#[test]
#[ignore = "takes minutes, and 1 GB of disk"]
fn measure_one_user_in_one_week_of_ten_million_rows() {
    assert!(share(10_000_000, 5_000) < 0.05);
}
