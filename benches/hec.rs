//! Delivery to Splunk's HTTP Event Collector, beside the OpenTelemetry Collector's own exporter.
//!
//! `cargo bench --bench hec` has the same records (a simulated tenant, 1,000 blobs of 100 records of about 2 KB, as they
//! came) arrive at the OpenTelemetry Collector's `splunkhecreceiver`, which runs in a process of its own and is not
//! counted: collected and sent by mailtrail in one go; sent by mailtrail after the receiver was away while they were
//! collected; and sent by a second Collector that reads them from files, as it comes and with requests as large as
//! mailtrail's. `tests/servers/hec-receiver` builds the Collector.
//!
//! `-- --backlog --blobs 10000 --no-prerender` is the second alone, with 2 GB, over which memory must stay bounded.

#[path = "support/delivering.rs"]
mod delivering;
#[path = "../tests/scenarios/support/installed.rs"]
mod installed;
mod support;

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use delivering::{Backlog, Counts as _, Tally, free_port, show, stop};
use installed::installed;
use support::{Measured, Outcome, Simulated, Taken, Workload};

/// The receiver asks for none, but the exporter always sends one.
const TOKEN: &str = "11111111-2222-3333-4444-555555555555";

/// The OpenTelemetry Collector. Building it needs Go.
fn program() -> PathBuf {
    installed("hec-receiver-v0.145.0/dist/hec-receiver", "tests/servers/hec-receiver")
}

fn collector(directory: &Path, name: &str, config: &str) -> Outcome<Command> {
    let path = directory.join(format!("{name}.yaml"));
    fs::write(&path, config)?;
    let mut command = Command::new(program());
    command
        .arg("--config")
        .arg(format!("file:{}", path.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.stderr(fs::File::create(directory.join(format!("{name}.log")))?);
    Ok(command)
}

/// A receiver until it is dropped. It writes what it takes to a file before it answers.
struct Receiver {
    process: Child,
    tally: Tally,
}

impl Receiver {
    fn start(directory: &Path, port: u16) -> Outcome<Self> {
        let out = directory.join("received");
        fs::create_dir(&out)?;
        let config = format!(
            "receivers:\n  splunk_hec: {{endpoint: \"127.0.0.1:{port}\"}}\n\
             exporters:\n  file: {{path: {:?}, flush_interval: 100ms}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
             pipelines: {{logs: {{receivers: [splunk_hec], exporters: [file]}}}}\n",
            out.join("records.ndjson")
        );
        let process = collector(directory, "receiver", &config)?.spawn()?;
        // Within a record this would stand with its quotes escaped.
        let receiver = Self { process, tally: Tally::new(&out, b"\"body\":{\"stringValue\":") };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                return Err("the receiver does not listen".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(receiver)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hec_sink(port: u16) -> String {
    format!(
        "[sinks.soc]\ntype = \"splunk_hec\"\nurl = \"http://127.0.0.1:{port}\"\n\
         token = {{ env = \"BENCH_SECRET\" }}\nacknowledgement = \"accept\"\ncompression = \"gzip\"\n"
    )
}

/// Collected and delivered in one go, from the start of the process until the last record arrived.
fn in_one_go(simulated: &Simulated, all: u64) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let mut receiver = Receiver::start(directory.path(), port)?;
    let mut command = simulated.mailtrail(directory.path(), &hec_sink(port))?;
    command.args(["--until-idle", "--log-level", "warn"]);
    let mut mailtrail = Measured::start(&mut command)?;
    let wall = receiver.tally.reaches(all, &mut mailtrail.process)? - mailtrail.started;
    let taken = Taken { wall, ..mailtrail.until_end()? };
    assert_eq!(receiver.tally.now()?, all, "every record arrives once");
    show("mailtrail, collects and delivers", all, &taken);
    Ok(())
}

/// Collected into a file while the receiver is away, and delivered when it comes. The file's directory is left there.
fn after_an_outage(simulated: &Simulated, all: u64, directory: &Path) -> Outcome<()> {
    let port = free_port()?;
    let (backlog, collecting) = Backlog::collect(simulated, all, directory, &hec_sink(port))?;
    show("mailtrail, collects while HEC is away", all, &collecting);
    let mut receiver = Receiver::start(directory, port)?;
    backlog.deliver("mailtrail, delivers what it kept", &mut receiver.tally)?;
    assert_eq!(receiver.tally.now()?, all, "every record arrives once");
    Ok(())
}

/// The Collector reads the same records from files and exports them, from its start until the last record arrived.
fn exporter(what: &str, input: &Path, all: u64, queue: &str) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let mut receiver = Receiver::start(directory.path(), port)?;
    let config = format!(
        "receivers:\n  filelog: {{include: [{:?}], start_at: beginning, include_file_name: false, \
         retry_on_failure: {{enabled: true}}}}\n\
         exporters:\n  splunk_hec: {{endpoint: \"http://127.0.0.1:{port}/services/collector\", token: \"{TOKEN}\", \
         index: main, sourcetype: \"o365:management:activity\", sending_queue: {{{queue}}}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
         pipelines: {{logs: {{receivers: [filelog], exporters: [splunk_hec]}}}}\n",
        input.join("*.ndjson")
    );
    let mut exporter = Measured::start(&mut collector(directory.path(), "exporter", &config)?)?;
    let wall = receiver.tally.reaches(all, &mut exporter.process)? - exporter.started;
    let taken = Taken { wall, ..stop(exporter)? };
    show(what, all, &taken);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() -> Outcome<()> {
    let mut backlog = false;
    let workload = Workload::asked_for(|argument, _| {
        backlog |= argument == "--backlog";
        Ok(argument == "--backlog")
    })?;
    // It is missed before anything takes time.
    program();
    let simulated = Simulated::start(&workload)?;
    let all = workload.all();
    println!("{workload}");
    if !backlog {
        in_one_go(&simulated, all)?;
    }
    let directory = tempfile::tempdir()?;
    after_an_outage(&simulated, all, directory.path())?;
    drop(simulated);
    if !backlog {
        let input = directory.path().join("out");
        exporter("Collector's exporter, as it comes", &input, all, "block_on_overflow: true")?;
        let batches = "block_on_overflow: true, queue_size: 100, \
                       batch: {sizer: bytes, min_size: 786432, max_size: 786432, flush_timeout: 200ms}";
        exporter("Collector's exporter, requests of 768 KiB", &input, all, batches)?;
    }
    Ok(())
}
