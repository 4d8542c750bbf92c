//! Which files an object of an archive becomes: `formats`, `compression`, `layout`, `sort` and `raw`.

use archive::{LakeSource, NotALakeSource, parquet::SortBy};
use sinks::archive::{Compression, Formats, Layout, Parquet};

use super::{
    super::super::{reader::Section, value::Keyword},
    place::Place,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LayoutKind {
    Hive,
    SecurityLake,
}

impl Keyword for LayoutKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("hive", Self::Hive), ("security_lake", Self::SecurityLake)];
}

impl Keyword for SortBy {
    const WORDS: &'static [(&'static str, Self)] = &[("time", Self::Time), ("user", Self::User)];
}

impl Keyword for Compression {
    const WORDS: &'static [(&'static str, Self)] = &[("zstd", Self::Zstd), ("gzip", Self::Gzip)];
}

/// Reads the keys. `None` when something in them is wrong, which is then reported.
pub(super) fn read(section: &mut Section<'_>, place: Option<&Place>) -> Option<Formats> {
    let formats = read_formats(section);
    let compression = section.keyword("compression").unwrap_or_default();
    let layout = section.keyword("layout").unwrap_or(LayoutKind::Hive);
    let sort = section.keyword("sort").unwrap_or_default();
    let raw = section.get_or("raw", true);
    let source = read_source(section, layout);
    let (ndjson, parquet) = formats?;
    if !ndjson && section.has("compression") {
        section.wrong(
            "compression",
            "has no meaning without \"ndjson\" in formats: Parquet is always compressed with zstd",
        );
    }
    if !parquet {
        for key in ["sort", "raw"].into_iter().filter(|key| section.has(key)) {
            section.wrong(key, "has no meaning without \"parquet\" in formats");
        }
        if layout == LayoutKind::SecurityLake {
            section.wrong("layout", "\"security_lake\" is for Parquet: add \"parquet\" to formats");
            return None;
        }
        return Some(Formats { compression: Some(compression), parquet: None });
    }
    if !ndjson && !raw {
        section.wrong(
            "raw",
            "false would archive what columns say of the records and not the records: add \"ndjson\" to formats, or \
             leave raw out",
        );
        return None;
    }
    let layout = match layout {
        LayoutKind::Hive => Layout::Hive { sort },
        LayoutKind::SecurityLake => {
            if sort == SortBy::User {
                section
                    .wrong("sort", "must be \"time\" with layout = \"security_lake\": the lake wants it so");
            }
            if let Some((key, what)) = place.and_then(Place::unfit_for_a_lake) {
                section.wrong(key, what);
            }
            Layout::SecurityLake { source: source? }
        }
    };
    let compression = ndjson.then_some(compression);
    Some(Formats { compression, parquet: Some(Parquet { raw, layout }) })
}

/// Whether lines are wanted, and whether columns are.
fn read_formats(section: &mut Section<'_>) -> Option<(bool, bool)> {
    let Some(formats) = section.list::<String>("formats") else {
        // What is there and no list is reported already.
        return (!section.has("formats")).then_some((true, false));
    };
    if let Some(other) = formats.iter().find(|format| !["ndjson", "parquet"].contains(&format.as_str())) {
        section.wrong("formats", format!("names {other:?}; there are \"ndjson\" and \"parquet\""));
        return None;
    }
    let has = |wanted: &str| formats.iter().any(|format| format == wanted);
    Some((has("ndjson"), has("parquet")))
}

fn read_source(section: &mut Section<'_>, layout: LayoutKind) -> Option<LakeSource> {
    let key = "security_lake";
    if layout == LayoutKind::Hive {
        if section.has(key) {
            section.wrong(key, "has a meaning with layout = \"security_lake\" only");
        }
        section.asked_for(key);
        return None;
    }
    let mut lake = section.section(key);
    let name: String = lake.get_or("source", "mailtrail".to_owned());
    let region: Option<String> = lake.require("region", "it is the lake's region, such as \"eu-central-1\"");
    let source = LakeSource::new(&name, region.as_deref()?);
    if let Err(error) = &source {
        let key = match error {
            NotALakeSource::Name(_) => "source",
            NotALakeSource::Region(_) => "region",
        };
        lake.wrong(key, format!("does not do: {error}"));
    }
    lake.finish();
    source.ok()
}
