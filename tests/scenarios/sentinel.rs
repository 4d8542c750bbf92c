//! Microsoft Sentinel: whatever the Logs Ingestion API does, every record arrives at least once, what arrives twice is
//! counted, no row is dropped for not fitting, and nothing counts as delivered that was not taken.

mod faults;
mod refusals;
mod rows;
mod trying;

use std::{fmt::Write as _, time::Duration};

use simulator::SimulatorConfig;

use crate::support::{
    Binary, World,
    sentinel::{RULES, Sentinel},
};

/// What the real binary deploys for a view.
pub(crate) fn template(view: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = ["sentinel", "template", "--view", view];
    Binary::start(directory.path(), &arguments).wait().ends_with(0).stdout
}

/// A simulated tenant and a service.
struct Setup {
    world: World,
    service: Sentinel,
}

fn small() -> SimulatorConfig {
    SimulatorConfig { blobs: 12, records_per_blob: 15, ..SimulatorConfig::default() }
}

impl Setup {
    /// With `soc`, a sink for this service with one rule.
    fn new(config: SimulatorConfig, lines: &str) -> Setup {
        let setup = Setup { world: World::new(config), service: Sentinel::start(&template("asim")) };
        setup.configure(lines);
        setup
    }

    /// Writes the configuration.
    fn configure(&self, lines: &str) {
        self.world.configure_sinks("", "", &sink(&self.world, &self.service.url(), lines));
    }

    /// How many records came more than once, and how many are counted as sent again. No row was dropped.
    fn judge(&self) -> (usize, usize) {
        self.service.lost_nothing();
        self.world.came_at_least_once(&self.service.ids(), "soc")
    }

    /// A number of `reconcile` for the sink.
    fn sums(&self, what: &str) -> usize {
        self.world.sum("soc", what)
    }
}

/// The section of a sink that sends to this address. `lines` may name rules of their own.
pub(crate) fn sink(world: &World, url: &str, lines: &str) -> String {
    let tenant = simulator::TenantConfig::default();
    let secret = world.path().join("secret-0");
    let mut text = format!(
        "[sinks.soc]\ntype = \"sentinel\"\nendpoint = {url:?}\ncloud = \"custom\"\nauthority = {:?}\n\
         scope = \"https://monitor.azure.com/.default\"\ntenant_id = \"{}\"\nclient_id = \"{}\"\n\
         client_secret = {{ file = {secret:?} }}\n",
        world.simulator().base_url(),
        tenant.tenant_id,
        tenant.client_id
    );
    if !lines.contains("dcr_immutable_id") {
        writeln!(text, "dcr_immutable_id = \"{}\"", RULES[0]).expect("text");
    }
    if !lines.contains("linger") {
        text.push_str("linger = \"50ms\"\n");
    }
    text.push_str(lines);
    text
}

#[test]
fn every_record_is_a_row_that_fits_and_requests_are_as_the_reference_has_them() {
    let setup = Setup::new(small(), "");
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
    assert_eq!(setup.sums("delivered"), 12 * 15);
    for request in setup.service.requests() {
        let header = |name: &str| request.headers.get(name).map(String::as_str).unwrap_or_default();
        assert_eq!((request.http, request.rule.as_str()), (204, RULES[0]));
        assert!(request.rows > 0);
        assert_eq!(request.stream, "Custom-MailtrailAsim_CL");
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("content-encoding"), "gzip");
        assert_eq!(header("accept"), "application/json");
        assert_eq!(header("x-ms-client-request-id").len(), 36);
        assert!(header("user-agent").starts_with("mailtrail/"));
        assert!(request.sent * 3 < request.plain, "it is compressed");
    }
    for row in setup.service.rows() {
        assert_eq!(row.value["EventStartTime"], row.value["TimeGenerated"]);
        assert!(row.value.get("Type").is_none(), "the name is reserved");
    }
}

#[test]
fn requests_are_filled_to_the_limit_and_never_beyond() {
    let config = SimulatorConfig { blobs: 20, records_per_blob: 100, ..SimulatorConfig::default() };
    let setup = Setup::new(config, "linger = \"30s\"\nconnections = 1\n");
    setup.world.collect();
    assert_eq!(setup.judge(), (0, 0));
    let sizes: Vec<usize> = setup.service.requests().iter().map(|request| request.plain).collect();
    assert!(sizes.iter().all(|size| *size <= 1_000_000), "{sizes:?}");
    // What waited long enough is full, but for the row that did not fit any more.
    assert!(sizes.iter().any(|size| *size > 990_000), "{sizes:?}");
}

#[test]
fn kills_lose_nothing_and_what_came_twice_is_counted() {
    let config = SimulatorConfig { blobs: 200, records_per_blob: 20, ..SimulatorConfig::default() };
    let setup = Setup::new(config, "batch_bytes = \"50KB\"\nevents_per_second = 1500\n");
    for round in 0..8_u64 {
        let running = setup.world.start(&["run"]);
        let before = setup.service.count();
        setup
            .world
            .until("something arrived", || setup.service.count() > before || setup.service.count() >= 4000);
        std::thread::sleep(Duration::from_millis(round * 60));
        crate::support::kill_hard(&running);
        running.wait();
    }
    setup.world.collect();
    setup.world.mailtrail(&["reconcile"]).ends_with(0);
    let (twice, resent) = setup.judge();
    assert!(resent > 0 && twice > 0, "no kill came between an answer and its settlement");
}
