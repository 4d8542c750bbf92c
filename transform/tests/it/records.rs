//! The records that tests run over: the fixtures beside them, one of each kind that the simulator makes, and real ones when
//! they are there.

use std::path::{Path, PathBuf};

use schemas::{ContentType, Rendered};
use serde_json::Value;
use transform::{Filter, Origin, RenderOptions, Renderer};

/// Where a record of the tests comes from.
pub(crate) fn origin() -> Origin<'static> {
    Origin {
        tenant: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
        tenant_name: "contoso",
        content_type: ContentType::Exchange,
        content_id: "20260601100233000000000$20260601101500123000000$audit_exchange$Audit_Exchange$emea0036",
    }
}

/// The bytes of one record's view, or the reason why there is none.
pub(crate) fn render(record: &[u8], options: &RenderOptions) -> Result<Vec<u8>, String> {
    let mut out = Rendered::default();
    Renderer::new(options.clone()).render(record, 7, &origin(), &Filter::default(), &mut out);
    match (out.len(), out.unrenderable.pop()) {
        (1, None) => Ok(out.get(0).bytes.to_vec()),
        (0, Some(dead)) => Err(dead.reason),
        (events, dead) => panic!("{events} events and {dead:?} of one record"),
    }
}

/// One record's view as a value.
pub(crate) fn event(record: &[u8], options: &RenderOptions) -> Value {
    let bytes = render(record, options)
        .unwrap_or_else(|reason| panic!("{reason}: {}", String::from_utf8_lossy(record)));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&bytes)))
}

/// The fixtures by name, as they stand in their files.
pub(crate) fn fixtures() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort();
    assert!(all.len() > 40);
    all
}

/// A folder beside the workspace that holds what is too large for it, or foreign.
pub(crate) fn shared(folder: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(folder);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Real records, one a line; none when they are not there.
pub(crate) fn samples() -> Vec<String> {
    let Some(folder) = shared("samples") else { return Vec::new() };
    let text = std::fs::read_to_string(folder.join("all-workloads.ndjson")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// One record of every kind that the simulator makes, and of every oddity that it knows.
pub(crate) fn simulated() -> Vec<String> {
    let all: Vec<_> = simulator::catalogue().into_iter().chain(simulator::quirk_catalogue()).collect();
    assert!(all.len() > 100);
    all.into_iter().map(|example| String::from_utf8(example.record).unwrap()).collect()
}

/// The project's own records: fixtures and simulated ones.
pub(crate) fn ours() -> Vec<String> {
    fixtures().into_iter().map(|(_, text)| text).chain(simulated()).collect()
}

/// Every record: [`ours`], then the samples.
pub(crate) fn all() -> Vec<String> {
    ours().into_iter().chain(samples()).collect()
}
