//! `type = "archive"`: which files an object becomes.

use archive::{LakeSource, parquet::SortBy};
use sinks::archive::{Compression, Formats, Layout, Parquet};

use super::{super::SinkKind, HEAD, parse};

const SINK: &str = "[sinks.evidence]\ntype = \"archive\"\n";
const DIRECTORY: &str = "target = \"directory\"\ndirectory = \"/srv/evidence\"\n";

fn formats(lines: &str) -> Formats {
    let config = parse(&format!("{HEAD}{SINK}{DIRECTORY}{lines}")).unwrap_or_else(|error| panic!("{error}"));
    let SinkKind::Archive(archive) = &config.sinks[1].kind else { panic!("an archive") };
    archive.archive.formats.clone()
}

fn hive(sort: SortBy, raw: bool) -> Option<Parquet> {
    Some(Parquet { raw, layout: Layout::Hive { sort } })
}

#[test]
fn lines_are_usual_and_columns_are_added_or_alone() {
    let zstd = Some(Compression::Zstd);
    assert_eq!(formats(""), Formats { compression: zstd, parquet: None });
    assert_eq!(formats("layout = \"hive\"\n"), Formats { compression: zstd, parquet: None });
    assert_eq!(
        formats(
            "formats = [\"parquet\", \"ndjson\"]\nsort = \"user\"\nraw = false\ncompression = \"gzip\"\n"
        ),
        Formats { compression: Some(Compression::Gzip), parquet: hive(SortBy::User, false) }
    );
    let alone = formats("formats = [\"parquet\"]\n");
    assert_eq!(alone, Formats { compression: None, parquet: hive(SortBy::Time, true) });
    let lake =
        "formats = [\"parquet\"]\nlayout = \"security_lake\"\nsecurity_lake = { region = \"eu-west-1\" }\n";
    let source = LakeSource::new("mailtrail", "eu-west-1").unwrap();
    let parquet = Some(Parquet { raw: true, layout: Layout::SecurityLake { source } });
    assert_eq!(formats(lake), Formats { compression: None, parquet });
}

#[test]
fn what_makes_no_sense_is_told_with_what_to_do() {
    let lake = "formats = [\"parquet\"]\nlayout = \"security_lake\"\n";
    let region = "security_lake = { region = \"eu-west-1\" }\n";
    let s3 = "target = \"s3\"\ns3 = { bucket = \"b\", prefix = \"p\" }\n";
    let gcs = "target = \"gcs\"\ngcs = { bucket = \"b\" }\n";
    let wrong = |lines: &str, what: &str| {
        let told = parse(&format!("{HEAD}{SINK}{lines}")).expect_err("it makes no sense").to_string();
        assert!(told.contains(what), "{told}");
        assert_eq!(told.lines().filter(|line| line.contains("m.toml")).count(), 1, "{told}");
    };
    let wrong_here = |lines: &str, what: &str| wrong(&format!("{DIRECTORY}{lines}"), what);
    wrong_here("formats = [\"csv\"]\n", "'sinks.evidence.formats' names \"csv\"; there are");
    wrong_here("formats = []\n", "'sinks.evidence.formats' is an empty list");
    wrong_here("sort = \"user\"\n", "'sinks.evidence.sort' has no meaning without \"parquet\" in formats");
    wrong_here("raw = true\n", "'sinks.evidence.raw' has no meaning without \"parquet\" in formats");
    wrong_here(
        "formats = [\"parquet\"]\nraw = false\n",
        "'sinks.evidence.raw' false would archive what columns say of the records and not the records: add \"ndjson\" to \
         formats, or leave raw out",
    );
    wrong_here("formats = [\"parquet\"]\ncompression = \"gzip\"\n", "Parquet is always compressed with zstd");
    wrong_here(region, "'sinks.evidence.security_lake' has a meaning with layout = \"security_lake\" only");
    wrong_here(&format!("layout = \"security_lake\"\n{region}"), "add \"parquet\" to formats");
    wrong_here(lake, "'sinks.evidence.security_lake.region' is missing; it is the lake's region");
    wrong_here(&format!("{lake}sort = \"user\"\n{region}"), "'sinks.evidence.sort' must be \"time\"");
    wrong_here(
        &format!("{lake}security_lake = {{ region = \"europe\" }}\n"),
        "'sinks.evidence.security_lake.region' does not do: `europe` is no region of AWS",
    );
    wrong_here(
        &format!("{lake}security_lake = {{ source = \"a/b\", region = \"eu-west-1\" }}\n"),
        "'sinks.evidence.security_lake.source' does not do: `a/b` cannot name a custom source",
    );
    wrong(&format!("{s3}{lake}{region}"), "'sinks.evidence.s3' must have no prefix with layout");
    wrong(&format!("{gcs}{lake}{region}"), "'sinks.evidence.target' must be \"s3\"");
}

#[test]
fn two_sinks_share_no_bucket_and_prefix() {
    let two = |first: &str, second: &str| {
        let sink = |name: &str, lines: &str| format!("[sinks.{name}]\ntype = \"archive\"\n{lines}\n");
        parse(&format!("{HEAD}{}{}", sink("one", first), sink("two", second))).map(drop)
    };
    let s3 = |more: &str| format!("target = \"s3\"\ns3 = {{ bucket = \"b\"{more} }}");
    let told = two(&s3(""), &s3(", region = \"eu-west-1\"")).unwrap_err().to_string();
    assert!(told.contains("'sinks.two' lies in b at S3, as 'sinks.one' does; give each sink"), "{told}");
    let minio = ", endpoint = \"https://minio.example\"";
    assert!(two(&s3(minio), &s3(&format!("{minio}, path_style = false"))).is_err());
    for more in [", prefix = \"p\"", minio] {
        two(&s3(""), &s3(more)).unwrap();
    }
    let gcs = |more: &str| format!("target = \"gcs\"\ngcs = {{ bucket = \"b\"{more} }}");
    assert!(two(&gcs(", prefix = \"p\""), &gcs(", prefix = \"p/\"")).is_err());
    two(&gcs(""), &s3("")).unwrap();
}

/// The ledger forgets what an entry would have to state.
#[test]
fn entries_are_made_every_day_at_least() {
    let config = |interval: &str| {
        let key = "signing_key = { file = \"/k\" }";
        parse(&format!("{HEAD}{SINK}{DIRECTORY}{key}\nmanifest_interval = \"{interval}\"\n")).map(drop)
    };
    config("24h").unwrap();
    for wrong in ["25h", "500ms"] {
        let told = config(wrong).unwrap_err().to_string();
        assert!(
            told.contains("'sinks.evidence.manifest_interval' must be at least 1s and at most 24h"),
            "{told}"
        );
    }
}
