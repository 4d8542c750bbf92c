//! Splunk's HTTP Event Collector: whatever the receiver does, every record arrives at least once, what arrives twice is
//! counted, and nothing counts as delivered that is not.

mod acknowledged;
mod codes;
mod outages;
mod poison;
mod rate;
mod tls;
mod trying;

use std::{fs, time::Duration};

use serde_json::Value;
use simulator::SimulatorConfig;

use crate::support::{
    World,
    hec::{Acks, Hec, TOKEN},
};

/// A simulated tenant and a receiver.
struct Setup {
    world: World,
    hec: Hec,
}

fn small() -> SimulatorConfig {
    SimulatorConfig { blobs: 12, records_per_blob: 15, ..SimulatorConfig::default() }
}

impl Setup {
    /// With `soc`, a sink for this receiver.
    fn new(config: SimulatorConfig, hec: Hec, acknowledgement: &str, lines: &str) -> Setup {
        let setup = Setup { world: World::new(config), hec };
        fs::write(setup.world.path().join("hec-token"), TOKEN).expect("a token");
        setup.configure(acknowledgement, lines, "");
        setup
    }

    /// Takes every record at once.
    fn accepting(lines: &str) -> Setup {
        Setup::new(small(), Hec::start(Acks::Off), "accept", lines)
    }

    /// Acknowledges.
    fn acknowledging(acks: Acks, lines: &str) -> Setup {
        Setup::new(small(), Hec::start(acks), "indexer", lines)
    }

    /// Writes the configuration; `others` are further sinks.
    fn configure(&self, acknowledgement: &str, lines: &str, others: &str) {
        let token = self.world.path().join("hec-token");
        let url =
            if lines.contains("urls = ") { String::new() } else { format!("url = {:?}\n", self.hec.url()) };
        let soc = format!(
            "[sinks.soc]\ntype = \"splunk_hec\"\n{url}token = {{ file = {token:?} }}\n\
             acknowledgement = \"{acknowledgement}\"\nlinger = \"50ms\"\n{lines}\n{others}"
        );
        self.world.configure_sinks("", "", &soc);
    }

    /// How many records came more than once, and how many are counted as sent again.
    fn judge(&self) -> (usize, usize) {
        self.world.came_at_least_once(&self.hec.ids(), "soc")
    }

    /// A number of `reconcile` for the sink.
    fn sums(&self, what: &str) -> usize {
        self.world.sum("soc", what)
    }
}

#[test]
fn an_event_is_the_record_byte_for_byte_in_its_envelope() {
    let setup = Setup::accepting("");
    let files = format!(
        "[sinks.files]\ntype = \"file\"\ndirectory = {:?}\nview = \"raw\"\n",
        setup.world.out("files")
    );
    setup.configure(
        "accept",
        "index = \"o365-{tenant}\"\nfields = { team = \"soc\", of = \"{tenant_id}\" }\n",
        &files,
    );
    setup.world.collect();
    setup.world.is_complete();
    assert_eq!(setup.judge(), (0, 0));
    let mut lines: Vec<String> = setup
        .world
        .arrived()
        .lines()
        .iter()
        .map(|line| String::from_utf8(line.clone()).expect("text"))
        .collect();
    let events = setup.hec.events();
    let mut sent: Vec<String> =
        events.iter().map(|event| event.envelope["event"].as_str().expect("text").to_owned()).collect();
    lines.sort();
    sent.sort();
    assert!(lines == sent, "the events are other bytes than the records");
    let tenant = simulator::TenantConfig::default().tenant_id.to_string();
    for event in &events {
        let envelope = &event.envelope;
        let record: Value = serde_json::from_str(envelope["event"].as_str().expect("text")).expect("JSON");
        assert_eq!(envelope["host"], "tenant0");
        assert_eq!(envelope["index"], "o365-tenant0");
        assert_eq!(envelope["sourcetype"], "o365:management:activity");
        assert_eq!(envelope["fields"]["team"], "soc");
        assert_eq!(envelope["fields"]["of"], tenant.as_str());
        let source = envelope["source"].as_str().expect("text");
        let feed = format!("https://manage.office.com/api/v1.0/{tenant}/activity/feed/audit/");
        assert!(source.starts_with(&feed) && source.len() > feed.len(), "{source}");
        let created = record["CreationTime"].as_str().expect("a time");
        let created =
            chrono::NaiveDateTime::parse_from_str(created, "%Y-%m-%dT%H:%M:%S").expect("a time").and_utc();
        assert_eq!(envelope["time"].as_f64(), Some(created.timestamp() as f64));
    }
    let requests = setup.hec.requests();
    assert!(requests.iter().all(|request| request.gzip && request.channel.is_none()));
    assert!(requests.iter().all(|request| request.sent * 3 < request.plain), "it is compressed");
    assert!(requests.iter().all(|request| request.agent.starts_with("mailtrail/")));
}

#[test]
fn other_views_are_json_and_batches_keep_their_bounds() {
    let setup = Setup::accepting("view = \"ocsf\"\ncompression = \"none\"\nbatch_events = 7\n");
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
    for event in setup.hec.events() {
        assert!(event.envelope["event"]["class_uid"].is_u64(), "{}", event.envelope);
        assert_eq!(event.envelope["sourcetype"], "mailtrail:ocsf");
    }
    let requests = setup.hec.requests();
    assert!(requests.len() >= 12 * 15 / 7 && requests.iter().all(|request| !request.gzip));
}

#[test]
fn kills_lose_nothing_and_what_came_twice_is_counted() {
    let config = SimulatorConfig { blobs: 200, records_per_blob: 20, ..SimulatorConfig::default() };
    let setup = Setup::new(config, Hec::start(Acks::Prompt), "indexer", "batch_events = 50\n");
    for round in 0..8_u64 {
        let running = setup.world.start(&["run"]);
        let before = setup.hec.count();
        // Some die before an acknowledgement, some after.
        setup.world.until("something arrived", || setup.hec.count() > before || setup.hec.count() >= 4000);
        std::thread::sleep(Duration::from_millis(round * 250));
        crate::support::kill_hard(&running);
        running.wait();
    }
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    let (twice, resent) = setup.judge();
    assert!(resent > 0 && twice > 0, "no kill came between an answer and its acknowledgement");
}
