//! Every record in every view is a row that the deployed table takes: nothing is dropped and nothing is cut without a
//! word.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use chrono::{TimeDelta, Utc};
use schemas::ContentType;
use serde_json::json;
use simulator::{Blob, SimulatorConfig};

use super::{Setup, sink, small, template};
use crate::support::{World, sentinel::Sentinel};

const VIEWS: [&str; 3] = ["asim", "officeactivity", "raw"];

/// Collects these records into one table for each view; what the services are then.
fn deliver(world: &World, dedupe: bool) -> BTreeMap<&'static str, Sentinel> {
    let services: BTreeMap<_, _> =
        VIEWS.iter().map(|view| (*view, Sentinel::start(&template(view)))).collect();
    let sinks: String = services
        .iter()
        .map(|(view, service)| {
            let lines = format!("view = \"{view}\"\n");
            sink(world, &service.url(), &lines).replace("[sinks.soc]", &format!("[sinks.{view}]"))
        })
        .collect();
    world.configure_sinks("", &format!("dedupe = {dedupe}\n"), &sinks);
    world.collect();
    world.mailtrail(&["reconcile"]).ends_with(0);
    services
}

fn world(records: &[Vec<u8>]) -> World {
    let created = Utc::now() - TimeDelta::hours(5);
    let given = records.chunks(100).enumerate().map(|(number, chunk)| {
        Blob::from_records(ContentType::Exchange, created + TimeDelta::seconds(number as i64), chunk)
    });
    World::new(SimulatorConfig {
        blobs: 0,
        given: given.collect(),
        backlog_span: Duration::from_secs(3600),
        ..SimulatorConfig::default()
    })
}

#[test]
fn every_oddity_of_records_fits_in_every_view() {
    let config = SimulatorConfig {
        quirks: true,
        content_types: vec![ContentType::Exchange, ContentType::General, ContentType::DlpAll],
        ..small()
    };
    let world = World::new(config);
    let services = deliver(&world, true);
    let expected = world.simulator().truth().count() as usize;
    for (view, service) in services {
        service.lost_nothing();
        assert_eq!(service.count(), expected, "{view}");
    }
}

#[test]
fn every_real_record_fits_in_every_view() {
    for name in ["exchange.ndjson", "all-workloads.ndjson"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples").join(name);
        let Ok(bytes) = fs::read(&path) else {
            println!("skipped: there is no {}", path.display());
            return;
        };
        let records: Vec<_> =
            bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
        let world = world(&records);
        for (view, service) in deliver(&world, false) {
            service.lost_nothing();
            assert_eq!(service.count(), records.len(), "{name} in {view}");
        }
    }
}

#[test]
fn what_is_too_long_for_a_column_is_cut_and_its_row_says_so() {
    let long = |number: u32, length: usize| {
        json!({
            "Id": format!("00000000-0000-4000-8000-{number:012}"), "CreationTime": "2026-01-02T03:04:05",
            "Operation": "DLPRuleMatch", "RecordType": 13, "Workload": "Exchange", "UserId": "a@contoso.com",
            "OrganizationId": "5150a11e-c0de-4000-8000-000000000001", "UserType": 0,
            "PolicyDetails": [{ "PolicyName": "p", "Rules": "ä".repeat(length) }],
            "Parameters": [{ "Name": "Comment", "Value": "x".repeat(length) }],
        })
        .to_string()
        .into_bytes()
    };
    // The last one is larger than a request.
    let world = world(&[long(1, 10), long(2, 100_000), long(3, 800_000)]);
    for (view, service) in deliver(&world, true) {
        service.lost_nothing();
        let rows = service.rows();
        assert_eq!(rows.len(), 3, "{view}");
        let cut: Vec<_> = rows
            .iter()
            .filter(|row| row.value["CutColumns"].as_str().is_some_and(|cut| !cut.is_empty()))
            .collect();
        assert_eq!(cut.len(), 2, "{view}");
        for row in cut {
            let text = row.value.to_string();
            assert!(text.contains("mailtrail_truncated") || text.contains("cut by mailtrail"), "{view}");
            assert!(text.contains("contoso.com"), "{view}: the rest of it is there");
        }
    }
}

#[test]
fn the_raw_view_is_the_record_itself() {
    let setup = Setup::new(small(), "");
    let service = Sentinel::start(&template("raw"));
    let files = format!(
        "[sinks.files]\ntype = \"file\"\ndirectory = {:?}\nview = \"raw\"\n",
        setup.world.out("files")
    );
    let soc = sink(&setup.world, &service.url(), "view = \"raw\"\n");
    setup.world.configure_sinks("", "", &format!("{soc}{files}"));
    setup.world.collect();
    let mut lines: Vec<_> = setup.world.arrived().events().map(|event| event.to_string()).collect();
    let mut rows: Vec<_> = service.rows().iter().map(|row| row.value["Record"].to_string()).collect();
    lines.sort();
    rows.sort();
    assert!(lines == rows, "the rows hold other records");
}
