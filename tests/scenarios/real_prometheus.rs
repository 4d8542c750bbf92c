//! A real Prometheus that scrapes a real mailtrail: the page, the rules, and every query of the alerts and the dashboard.
//!
//! `tests/servers/prometheus` fetches it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use simulator::{Blob, SimulatorConfig};

use crate::{
    archive::{make_key, target},
    deploy::{alerts, dashboard_queries, root},
    support::{World, free_address, get, install, sample, terminate},
};

/// Where Prometheus and promtool are.
fn tools() -> PathBuf {
    install("prometheus")
}

/// Runs promtool; it must be content.
fn promtool(tools: &Path, arguments: &[&str], input: Option<&Path>) {
    let input = input.map_or(Stdio::null(), |path| fs::File::open(path).expect("a file").into());
    let output =
        Command::new(tools.join("promtool")).args(arguments).current_dir(root()).stdin(input).output();
    let output = output.expect("promtool runs");
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "promtool {arguments:?}: {}\n{}", output.status, told.join("\n"));
}

/// A Prometheus that runs. Dropping it kills it.
struct Prometheus {
    address: SocketAddr,
    process: Child,
}

impl Prometheus {
    /// Scrapes this address every second, with the alerts that are shipped.
    fn start(tools: &Path, directory: &Path, scraped: SocketAddr) -> Self {
        let alerts = root().join("deploy/prometheus/alerts.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{alerts:?}]\nscrape_configs:\n  \
             - job_name: mailtrail\n    static_configs: [{{targets: [\"{scraped}\"]}}]\n"
        );
        let path = directory.join("prometheus.yml");
        fs::write(&path, config).expect("a configuration");
        let address = free_address();
        let log = fs::File::create(directory.join("prometheus.log")).expect("a log");
        let process = Command::new(tools.join("prometheus"))
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts");
        Self { address, process }
    }

    /// What an expression comes to: how many series; what Prometheus says when it is wrong.
    fn query(&self, expression: &str) -> Result<usize, String> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, body) =
            get(self.address, &format!("/api/v1/query?query={escaped}")).ok_or("no answer")?;
        let answer: serde_json::Value = serde_json::from_str(&body).map_err(|_| body.clone())?;
        if status != 200 || answer["status"] != "success" {
            return Err(body);
        }
        Ok(answer["data"]["result"].as_array().map_or(0, Vec::len))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs Debian's prometheus: tests/servers/prometheus"]
fn real_prometheus_takes_the_rules_and_their_cases() {
    let tools = tools();
    promtool(&tools, &["check", "config", "deploy/prometheus/prometheus.yml"], None);
    promtool(&tools, &["check", "rules", "deploy/prometheus/alerts.yml"], None);
    promtool(&tools, &["test", "rules", "deploy/prometheus/alerts_test.yml"], None);
}

#[test]
#[ignore = "needs Debian's prometheus: tests/servers/prometheus"]
fn real_prometheus_scrapes_and_answers_every_query_of_the_alerts_and_the_dashboard() {
    let tools = tools();
    let world = World::new(SimulatorConfig { blobs: 20, records_per_blob: 10, ..SimulatorConfig::default() });
    let address = free_address();
    let http = format!("[http]\nlisten = \"{address}\"\n");
    world.configure_all(&http, "poll_interval = \"1s\"\n", &[("files", "view = \"raw\""), ("halted", "")]);
    let archive = format!(
        "[sinks.evidence]\ntype = \"archive\"\ntarget = \"directory\"\ndirectory = {:?}\nsigning_key = {{ file = {:?} }}\n\
         object_age = \"1s\"\nmanifest_interval = \"1s\"\n",
        target(&world),
        make_key(&world)
    );
    world.edit(|text| format!("{text}\n{archive}"));
    // A sink that halts: an alert has something to say.
    fs::create_dir_all(world.out("halted")).expect("a directory");
    fs::write(world.out("halted").join("mailtrail.ndjson"), "somebody else's\n").expect("a file");
    let running = world.start(&["run"]);
    let delivered = || sample(address, "mailtrail_sink_records_total{sink=\"files\"}");
    world.until("everything is delivered", || delivered() == Some(200.0));

    let page = world.path().join("metrics.txt");
    fs::write(&page, get(address, "/metrics").expect("an answer").1).expect("a file");
    promtool(&tools, &["check", "metrics"], Some(&page));

    let prometheus = Prometheus::start(&tools, world.path(), address);
    let up = || prometheus.query("up{job=\"mailtrail\"} == 1") == Ok(1);
    world.until("it is scraped", up);
    // Rates need counters that grow while it looks.
    let mut number = 0;
    world.until("there are rates", || {
        number += 1;
        let record = format!(r#"{{"Id":"00000000-0000-4000-8000-{number:012}","CreationTime":"{}","Operation":"Update","UserId":"a@b.c"}}"#,
            (world.simulator().now() - chrono::TimeDelta::minutes(30)).format("%Y-%m-%dT%H:%M:%S"));
        let created = world.simulator().now() - chrono::TimeDelta::minutes(1);
        let blob = Blob::from_records(schemas::ContentType::Exchange, created, &[record.as_bytes()]);
        let _ = world.simulator().add_blob(blob);
        std::thread::sleep(Duration::from_millis(500));
        prometheus.query("sum(rate(mailtrail_sink_records_total{sink=\"files\"}[1m])) > 0") == Ok(1)
    });

    for (name, rule) in alerts() {
        let expression = rule["expr"].as_str().expect("an expression");
        prometheus.query(expression).unwrap_or_else(|error| panic!("{name}: {expression}: {error}"));
    }
    assert!(prometheus.query("mailtrail_sink_state{sink=\"halted\",state=\"halted\"} == 1") == Ok(1));
    world.until("the alert of the halted sink is pending", || {
        prometheus.query("ALERTS{alertname=\"MailtrailSinkHalted\",sink=\"halted\"}") == Ok(1)
    });

    let heads = "mailtrail_archive_manifest_head_timestamp_seconds";
    world.until("the archive has a manifest", || prometheus.query(heads) == Ok(1));
    // What a run without a certificate, a HEC and a Kafka sink has nothing to show for.
    let absent = ["Certificates", "Repetitions"];
    for (panel, query) in dashboard_queries() {
        let query =
            ["$instance", "$tenant", "$sink"].iter().fold(query, |query, name| query.replace(name, ".*"));
        let query = query.replace("$__rate_interval", "1m");
        assert!(!query.contains('$'), "{panel}: {query}");
        let series = prometheus.query(&query).unwrap_or_else(|error| panic!("{panel}: {query}: {error}"));
        let other_kinds = ["mailtrail_hec_", "mailtrail_kafka_"].iter().any(|kind| query.contains(kind));
        if !other_kinds && !absent.contains(&panel.as_str()) {
            assert!(series > 0, "{panel} shows nothing: {query}");
        }
    }
    drop(prometheus);
    terminate(&running);
    running.wait().ends_with(0);
}
