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
mod support;

use std::{
    env, fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use delivering::{Tally, cpu_so_far, free_port, installed, show, stop};
use support::{Measured, Outcome, Simulated, Taken, Workload};

/// The receiver asks for none, but a token is always sent.
const TOKEN: &str = "11111111-2222-3333-4444-555555555555";

/// Where `tests/servers/hec-receiver` has put it.
fn program() -> Outcome<PathBuf> {
    let program = installed("hec-receiver-v0.145.0/dist/hec-receiver")?;
    if !program.exists() {
        return Err(format!(
            "there is no {}: run tests/servers/hec-receiver first, which builds the OpenTelemetry Collector and needs Go",
            program.display()
        )
        .into());
    }
    Ok(program)
}

fn collector(directory: &Path, name: &str, config: &str) -> Outcome<Command> {
    let path = directory.join(format!("{name}.yaml"));
    fs::write(&path, config)?;
    let mut command = Command::new(program()?);
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
         token = {{ env = \"BENCH_TOKEN\" }}\nacknowledgement = \"accept\"\ncompression = \"gzip\"\n"
    )
}

/// Collected and delivered in one go, from the start of the process until the last record arrived.
fn in_one_go(simulated: &Simulated, all: u64) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let mut receiver = Receiver::start(directory.path(), port)?;
    let mut command = simulated.mailtrail(directory.path(), &hec_sink(port))?;
    command.args(["--until-idle", "--log-level", "warn"]).env("BENCH_TOKEN", TOKEN);
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
    let out = directory.join("out");
    let sinks =
        format!("{}[sinks.files]\ntype = \"file\"\ndirectory = {out:?}\nview = \"raw\"\n", hec_sink(port));
    let mut command = simulated.mailtrail(directory, &sinks)?;
    command.args(["--log-level", "error"]).env("BENCH_TOKEN", TOKEN);
    let mut mailtrail = Measured::start(&mut command)?;
    let wall = Tally::new(&out, b"\n").reaches(all, &mut mailtrail.process)? - mailtrail.started;
    // What is settled in the background after the last record belongs to collecting it.
    thread::sleep(Duration::from_secs(1));
    let cpu = cpu_so_far(&mailtrail.process)?;
    let collecting = Taken { wall, cpu, peak_anon_kib: mailtrail.peak_anon_kib.swap(0, Ordering::Relaxed) };
    show("mailtrail, collects while HEC is away", all, &collecting);

    let mut receiver = Receiver::start(directory, port)?;
    // When it notices depends on how long it has tried in vain, not on how fast it is.
    let began = receiver.tally.reaches(1, &mut mailtrail.process)?;
    let wall = receiver.tally.reaches(all, &mut mailtrail.process)? - began;
    let taken = stop(mailtrail)?;
    assert_eq!(receiver.tally.now()?, all, "every record arrives once");
    let delivering = Taken { wall, cpu: taken.cpu - cpu, ..taken };
    show("mailtrail, delivers what it kept", all, &delivering);
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
    let (mut workload, mut backlog) = (Workload::new(), false);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--backlog" => backlog = true,
            argument if workload.takes(argument, &mut arguments)? => {}
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    program()?;
    let simulated = Simulated::start(&workload)?;
    let all = workload.all();
    println!("{} blobs x {} records x about {} bytes", workload.blobs, workload.records, workload.bytes);
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
