//! How fast records are read and rendered, beside one `serde_json::from_slice::<Value>` of the same bytes: the figures that
//! count are the ratios within one run. `cargo bench -p transform`.

use std::path::Path;

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use schemas::{ContentType, Rendered};
use transform::{Facts, Filter, Origin, RenderOptions, Renderer, View};

fn main() {
    divan::main();
}

/// Real records when they are there, else the fixtures of the tests over and over.
fn records() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Ok(text) = std::fs::read_to_string(root.join("../../shared/samples/exchange.ndjson")) {
        return text.lines().map(|line| line.as_bytes().to_vec()).collect();
    }
    let folder = std::fs::read_dir(root.join("tests/fixtures")).expect("the fixtures are part of the crate");
    let fixtures: Vec<Vec<u8>> = folder
        .map(|entry| {
            let text =
                std::fs::read(entry.expect("a folder can be listed").path()).expect("a fixture can be read");
            let value: serde_json::Value = serde_json::from_slice(&text).expect("a fixture is JSON");
            value.to_string().into_bytes()
        })
        .collect();
    fixtures.iter().cycle().take(4000).cloned().collect()
}

fn bytes(records: &[Vec<u8>]) -> BytesCount {
    BytesCount::new(records.iter().map(Vec::len).sum::<usize>())
}

fn count(records: &[Vec<u8>]) -> ItemsCount {
    ItemsCount::new(records.len())
}

/// One parse, which all others are measured against.
#[divan::bench]
fn serde_json_value(bencher: Bencher<'_, '_>) {
    let records = records();
    bencher.counter(bytes(&records)).counter(count(&records)).bench_local(|| {
        for record in &records {
            black_box(serde_json::from_slice::<serde_json::Value>(record).expect("the records are JSON"));
        }
    });
}

#[divan::bench(args = View::ALL)]
fn render(bencher: Bencher<'_, '_>, view: View) {
    run(bencher, RenderOptions { view, ..RenderOptions::default() });
}

/// The raw view for a sink that need not know what a record means.
#[divan::bench]
fn render_raw_plain(bencher: Bencher<'_, '_>) {
    run(bencher, RenderOptions { view: View::Raw, facts: Facts::Plain, ..RenderOptions::default() });
}

/// The raw view for a sink that wants to know of whose mailbox a record is.
#[divan::bench]
fn render_raw_mailbox(bencher: Bencher<'_, '_>) {
    run(bencher, RenderOptions { view: View::Raw, facts: Facts::Mailbox, ..RenderOptions::default() });
}

#[divan::bench]
fn render_ocsf_bare(bencher: Bencher<'_, '_>) {
    run(
        bencher,
        RenderOptions { observables: false, captions: false, tags: false, ..RenderOptions::default() },
    );
}

/// Reads every record and keeps none: what a filter costs.
#[divan::bench]
fn filter_all(bencher: Bencher<'_, '_>) {
    let filter = Filter { operations: vec!["Nothing".to_owned()], ..Filter::default() };
    run_with(bencher, RenderOptions::default(), &filter);
}

fn run(bencher: Bencher<'_, '_>, options: RenderOptions) {
    run_with(bencher, options, &Filter::default());
}

fn run_with(bencher: Bencher<'_, '_>, options: RenderOptions, filter: &Filter) {
    let records = records();
    let renderer = Renderer::new(options);
    let origin = Origin {
        tenant: "11111111-2222-3333-4444-555555555555".parse().expect("it is a GUID"),
        tenant_name: "contoso",
        content_type: ContentType::Exchange,
        content_id: "bench",
    };
    bencher.counter(bytes(&records)).counter(count(&records)).bench_local(|| {
        // As much at a time as a sink leases.
        for piece in records.chunks(200) {
            let mut out = Rendered::with_capacity(1 << 20);
            for (position, record) in (0u32..).zip(piece) {
                renderer.render(record, position, &origin, filter, &mut out);
            }
            black_box(out);
        }
    });
}
