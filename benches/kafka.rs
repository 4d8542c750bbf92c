//! Delivery to Apache Kafka, beside librdkafka's own `rdkafka_performance`.
//!
//! `cargo bench --bench kafka` has mailtrail collect a simulated tenant (1,000 blobs of 100 records of about 2 KB, as they
//! came) while its configuration names no broker, and deliver them when it does, without transactions and with them. Then
//! `rdkafka_performance` sends as many messages of the same size to the same broker, idempotent like mailtrail, all of
//! them the same bytes in its memory: once bare, and once with headers like mailtrail's. The broker runs beside them and is
//! not counted. With `-- --rounds 5` all of that is done five times in turns, and medians are printed too.
//!
//! `tests/servers/kafka` installs the broker, `benches/rdkafka-performance` builds the example from the very sources that
//! mailtrail is built with.

#[expect(dead_code, reason = "the scenarios need more of it")]
#[path = "../tests/scenarios/support/kafka/broker.rs"]
mod broker;
#[path = "support/delivering.rs"]
mod delivering;
#[path = "../tests/scenarios/support/installed.rs"]
mod installed;
mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

use broker::Broker;
use delivering::{Backlog, Counts, free_port, show, signal};
use installed::installed;
use nix::sys::signal::Signal;
use support::{Measured, Outcome, Simulated, Taken, Workload};

/// Headers as mailtrail's messages have them.
const HEADERS: [&str; 7] = [
    "o365-tenant=5150a11e-c0de-4000-8000-000000000001",
    "o365-content-type=Audit.Exchange",
    "o365-content-id=20260101000000000000000$20260101000000000000000$audit_exchange$Audit_Exchange",
    "collector=mailtrail",
    "schema=o365-management-activity/1",
    "o365-record-id=5150a11e-c0de-4000-8000-000000000001",
    "o365-record-type=50",
];
const TOPIC: &str = "audit";
const PARTITIONS: u32 = 3;
/// Where no broker is.
const NOBODY: &str = "127.0.0.1:1";

/// Looks at what the program says of itself: how many records receipts cover.
struct Receipts {
    port: u16,
}

impl Counts for Receipts {
    fn now(&mut self) -> Outcome<u64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let line = page.lines().find(|line| {
            line.starts_with("mailtrail_sink_records_total") && line.contains("sink=\"stream\"")
        });
        Ok(line.and_then(|line| line.rsplit(' ').next()).map_or(Ok(0), str::parse)?)
    }
}

/// Writes everything to the disk that waits for it, so that nobody pays for what was written before.
fn settle() -> Outcome<()> {
    let status = Command::new("sync").status()?;
    if status.success() { Ok(()) } else { Err(format!("sync ended with {status}").into()) }
}

/// Collected while the broker is out of reach, and delivered when it is not. Gives records a second, and the length of a record
/// on average.
fn mailtrail(
    what: &str,
    simulated: &Simulated,
    all: u64,
    broker: &Broker,
    more: &str,
) -> Outcome<(f64, u64)> {
    let directory = tempfile::tempdir()?;
    let port = free_port()?;
    let sinks = format!(
        "[http]\nlisten = \"127.0.0.1:{port}\"\n\
         [sinks.stream]\ntype = \"kafka\"\nbootstrap_servers = [\"{NOBODY}\"]\ntopic = \"{TOPIC}\"\nview = \"raw\"\n\
         compression = \"none\"\n{more}"
    );
    let (backlog, _) = Backlog::collect(simulated, all, directory.path(), &sinks)?;
    let configuration = directory.path().join("mailtrail.toml");
    let text = fs::read_to_string(&configuration)?;
    fs::write(&configuration, text.replace(NOBODY, &broker.address()))?;
    settle()?;
    signal(&backlog.running, Signal::SIGHUP)?;
    let rate = backlog.deliver(what, &mut Receipts { port })?;
    Ok((rate, average_bytes(&directory.path().join("out"), all)?))
}

/// librdkafka's example, from its start to the last acknowledgement.
fn performance(broker: &Broker, all: u64, bytes: u64, headers: &[&str]) -> Outcome<Taken> {
    settle()?;
    let program = installed("rdkafka-performance/rdkafka_performance", "benches/rdkafka-performance");
    let mut command = Command::new(program);
    command
        .args(["-P", "-q", "-t", TOPIC, "-b", &broker.address()])
        .args(["-c", &all.to_string(), "-s", &bytes.to_string(), "-a", "-1"])
        .args(["-X", "enable.idempotence=true", "-X", "compression.codec=none"])
        .args(headers.iter().flat_map(|header| ["-H", header]))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Measured::start(&mut command)?.until_end()
}

/// Each time as somebody else: the broker remembers how far the ledgers before were.
fn transactions(round: usize) -> String {
    format!("transactions = true\ntransactional_id = \"mailtrail-bench-{round}\"\n")
}

/// How long the records are on average, from the file that the collected ones are in.
fn average_bytes(directory: &Path, all: u64) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes / all - 1)
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() -> Outcome<()> {
    let mut rounds = 1;
    let workload = Workload::asked_for(|argument, arguments| {
        if argument == "--rounds" {
            rounds = arguments.next().ok_or("--rounds needs a value")?.parse()?;
        }
        Ok(argument == "--rounds")
    })?;
    let simulated = Simulated::start(&workload)?;
    let all = workload.all();
    println!("{workload}");
    let broker = Broker::start();
    broker.create(TOPIC, PARTITIONS, &[]);
    broker.create("mailtrail.progress", 1, &["cleanup.policy=compact"]);
    const RUNS: [&str; 4] = [
        "mailtrail, delivers what it kept",
        "mailtrail, the same, exactly once",
        "rdkafka_performance",
        "rdkafka_performance, with headers",
    ];
    let mut rates: [Vec<f64>; 4] = Default::default();
    // A broker that was just started is slow, whoever sends.
    for _ in 0..2 {
        performance(&broker, all, workload.bytes, &HEADERS)?;
    }
    let mut bytes = workload.bytes;
    for round in 0..rounds {
        // Each comes behind each of the others.
        for run in (0..RUNS.len()).map(|place| (place + round) % RUNS.len()) {
            let rate = match run {
                0 | 1 => {
                    let more = if run == 0 { String::new() } else { transactions(round) };
                    let (rate, average) = mailtrail(RUNS[run], &simulated, all, &broker, &more)?;
                    bytes = average;
                    rate
                }
                _ => {
                    let headers = if run == 2 { &[][..] } else { &HEADERS };
                    let taken = performance(&broker, all, bytes, headers)?;
                    show(RUNS[run], all, &taken);
                    all as f64 / taken.wall.as_secs_f64()
                }
            };
            rates[run].push(rate);
        }
    }
    let medians = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    for (run, median) in RUNS.iter().zip(medians) {
        let of = |run: usize| 100.0 * median / medians[run];
        println!(
            "median: {run:36} {median:8.0} /s, {:3.0} % of the example, {:3.0} % with headers",
            of(2),
            of(3)
        );
    }
    Ok(())
}
