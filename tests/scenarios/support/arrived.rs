//! The judge: reads the files that a sink wrote, as a reader who comes later does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use simulator::Truth;

/// Every line of a file sink's directory, in the order in which it was written.
pub(crate) struct Arrived {
    lines: Vec<Vec<u8>>,
}

impl Arrived {
    /// Reads closed files by age, then the live one. Each must end with a whole line.
    pub(crate) fn read(directory: &Path) -> Self {
        let mut lines = Vec::new();
        for file in files(directory) {
            let bytes = unpacked(&file);
            assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "{} ends with half a line", file.display());
            lines.extend(
                bytes.split_inclusive(|byte| *byte == b'\n').map(|line| line[..line.len() - 1].to_vec()),
            );
        }
        Self { lines }
    }

    /// Lines that came by another way.
    pub(crate) fn of_lines(lines: Vec<Vec<u8>>) -> Self {
        Self { lines }
    }

    /// The lines.
    pub(crate) fn lines(&self) -> &[Vec<u8>] {
        &self.lines
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Each line as JSON.
    pub(crate) fn events(&self) -> impl Iterator<Item = serde_json::Value> + '_ {
        self.lines.iter().map(|line| serde_json::from_slice(line).expect("every line is JSON"))
    }

    /// The record ids with how often each came, whatever the view.
    pub(crate) fn ids(&self) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for event in self.events() {
            let id = event["metadata"]["uid"].as_str().or(event["Id"].as_str()).expect("an id").to_owned();
            *ids.entry(id).or_insert(0) += 1;
        }
        ids
    }

    /// Every record that a perfect collector delivers is there exactly once, and nothing else is.
    pub(crate) fn is_exactly(&self, truth: &Truth) {
        let expected: Vec<String> = truth.records().filter_map(|(_, _, id)| id).collect();
        assert_eq!(expected.len() as u64, truth.count(), "the simulated records have ids");
        let ids = self.ids();
        let missing: Vec<_> = expected.iter().filter(|id| !ids.contains_key(*id)).collect();
        assert!(
            missing.is_empty(),
            "{} of {} records are missing: {:?}",
            missing.len(),
            expected.len(),
            few(&missing)
        );
        let doubled: Vec<_> = ids.iter().filter(|(_, times)| **times > 1).collect();
        assert!(doubled.is_empty(), "{} records came more than once: {:?}", doubled.len(), few(&doubled));
        let expected: BTreeSet<_> = expected.into_iter().collect();
        let surplus: Vec<_> = ids.keys().filter(|id| !expected.contains(*id)).collect();
        assert!(surplus.is_empty(), "{} records belong to nobody: {:?}", surplus.len(), few(&surplus));
    }
}

fn few<T>(items: &[T]) -> &[T] {
    &items[..items.len().min(5)]
}

/// Closed files by age, then the live one.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut closed: Vec<(String, u64, PathBuf)> = Vec::new();
    let mut live = None;
    for entry in entries {
        let path = entry.expect("a directory can be read").path();
        let name = path.file_name().expect("a name").to_str().expect("plain names").to_owned();
        if name == "mailtrail.ndjson" {
            live = Some(path);
            continue;
        }
        // mailtrail-20260101T000000Z-12.ndjson[.gz|.zst]
        let parts: Vec<_> = name.split(['-', '.']).collect();
        let number = parts.get(2).and_then(|n| n.parse().ok());
        closed.push((
            parts[1].to_owned(),
            number.unwrap_or_else(|| panic!("an unexpected file {name}")),
            path,
        ));
    }
    closed.sort();
    closed.into_iter().map(|(_, _, path)| path).chain(live).collect()
}

fn unpacked(file: &Path) -> Vec<u8> {
    let bytes = fs::read(file).expect("a file can be read");
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).expect("gzip");
            plain
        }
        Some("zst") => zstd::decode_all(&bytes[..]).expect("zstd"),
        _ => bytes,
    }
}
