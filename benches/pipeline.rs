//! The whole pipeline: a simulated tenant in its own process, over loopback HTTP, into a file.
//!
//! `cargo bench --bench pipeline` prints what mailtrail alone took of CPU, memory and time for 1,000 blobs of 100
//! records of about 2 KB, to an OCSF file and to a raw file, beside one parse of the same bytes by `serde_json` in the
//! same run. `-- --blobs 100000 --records-per-blob 2 --no-prerender` is a long backlog, over which memory must stay flat;
//! `--gzip` compresses on the wire, `--sinks ocsf,raw` chooses the views.

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The simulator's tenant and application.
const TENANT: &str = "5150a11e-c0de-4000-8000-000000000001";
const CLIENT: &str = "5150a11e-c0de-4000-8000-0000000000c1";
const SECRET: &str = "simulated-secret";

struct Options {
    blobs: u64,
    records: u64,
    bytes: u64,
    views: Vec<String>,
    gzip: bool,
    prerender: bool,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        blobs: 1_000,
        records: 100,
        bytes: 2_000,
        views: vec!["ocsf".into(), "raw".into()],
        gzip: false,
        prerender: true,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => {}
            "--blobs" => options.blobs = value()?.parse()?,
            "--records-per-blob" => options.records = value()?.parse()?,
            "--record-bytes" => options.bytes = value()?.parse()?,
            "--gzip" => options.gzip = true,
            // A backlog that does not fit into the simulator's memory; it then is slower than mailtrail.
            "--no-prerender" => options.prerender = false,
            "--sinks" => options.views = value()?.split(',').map(str::to_owned).collect(),
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    Ok(options)
}

struct Simulated {
    process: Child,
    address: String,
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Simulated {
    fn start(options: &Options) -> Outcome<Self> {
        let mut process = Command::new(env!("CARGO_BIN_EXE_mailtrail"))
            .args(["simulate", "--listen", "127.0.0.1:0", "--requests-per-minute", "0"])
            .args(options.prerender.then_some("--prerender"))
            .args((!options.gzip).then_some("--no-gzip"))
            .args(["--blobs", &options.blobs.to_string()])
            .args(["--records-per-blob", &options.records.to_string()])
            .args(["--record-bytes", &options.bytes.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().ok_or("no standard output")?).lines();
        let address = loop {
            let line = lines.next().ok_or("the simulator ended at once")??;
            if let Some(start) = line.find("http://") {
                let rest = &line[start + "http://".len()..];
                let address = rest.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or(rest);
                break address.trim_end_matches('.').to_owned();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        Ok(Self { process, address })
    }

    fn get(&self, path: &str) -> Outcome<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address)?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let body = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no answer")? + 4;
        Ok(answer.split_off(body))
    }
}

struct Measured {
    wall: Duration,
    cpu: Duration,
    peak_anon_kib: u64,
    bytes_out: u64,
    lines: u64,
}

fn cpu_of_children() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs())
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

fn collect(simulated: &Simulated, view: &str, directory: &Path) -> Outcome<Measured> {
    let out = directory.join("out");
    let config = format!(
        "[state]\ndirectory = {:?}\n[tenants.bench]\ntenant_id = \"{TENANT}\"\nclient_id = \"{CLIENT}\"\n\
         client_secret = {{ env = \"BENCH_SECRET\" }}\ncloud = \"custom\"\nauthority = \"http://{a}\"\n\
         api = \"http://{a}\"\nrequests_per_minute = 1000000\n\
         [sinks.bench]\ntype = \"file\"\ndirectory = {out:?}\nview = \"{view}\"\n",
        directory.join("state"),
        a = simulated.address,
    );
    let path = directory.join("mailtrail.toml");
    fs::write(&path, config)?;

    let cpu_before = cpu_of_children()?;
    let started = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_mailtrail"))
        .arg("run")
        .args(["--until-idle", "--log-level", "warn", "--config"])
        .arg(&path)
        .env("BENCH_SECRET", SECRET)
        .stdout(Stdio::null())
        .spawn()?;
    let (peak, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let sampler = {
        let (peak, done, status) = (peak.clone(), done.clone(), format!("/proc/{}/status", process.id()));
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                if let Ok(text) = fs::read_to_string(&status) {
                    let anon = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
                    let kib =
                        anon.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
                    peak.fetch_max(kib, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let status = process.wait()?;
    let wall = started.elapsed();
    done.store(true, Ordering::Relaxed);
    sampler.join().map_err(|_| "the sampler panicked")?;
    if !status.success() {
        return Err(format!("mailtrail ended with {status}").into());
    }
    let (mut bytes_out, mut lines) = (0, 0);
    for entry in fs::read_dir(&out)? {
        let mut reader = BufReader::with_capacity(1 << 20, fs::File::open(entry?.path())?);
        loop {
            let buffer = reader.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let length = buffer.len();
            bytes_out += length as u64;
            lines += buffer.iter().filter(|byte| **byte == b'\n').count() as u64;
            reader.consume(length);
        }
    }
    let cpu = cpu_of_children()?.saturating_sub(cpu_before);
    Ok(Measured { wall, cpu, peak_anon_kib: peak.load(Ordering::Relaxed), bytes_out, lines })
}

/// CPU seconds that one parse takes for each byte, measured over some of the same records.
fn one_parse(raw: &Path, enough: u64) -> Outcome<(f64, u64)> {
    let (mut spent, mut bytes) = (Duration::ZERO, 0u64);
    let mut all = 0u64;
    for entry in fs::read_dir(raw)? {
        for line in BufReader::new(fs::File::open(entry?.path())?).split(b'\n') {
            let line = line?;
            all += line.len() as u64;
            if bytes < enough {
                bytes += line.len() as u64;
                let started = Instant::now();
                std::hint::black_box(serde_json::from_slice::<serde_json::Value>(&line)?);
                spent += started.elapsed();
            }
        }
    }
    Ok((spent.as_secs_f64() / bytes.max(1) as f64, all))
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() -> Outcome<()> {
    let options = options()?;
    let simulated = Simulated::start(&options)?;
    let mut parse = None;
    println!(
        "{} blobs x {} records x about {} bytes, collected by mailtrail alone",
        options.blobs, options.records, options.bytes
    );
    // The raw run comes first, because it leaves the bytes that one parse is measured with.
    let mut views = options.views.clone();
    views.sort_by_key(|view| view != "raw");
    for view in &views {
        let directory = tempfile::tempdir()?;
        let before = requests(&simulated)?;
        let measured = collect(&simulated, view, directory.path())?;
        let requests = requests(&simulated)? - before;
        assert_eq!(measured.lines, options.blobs * options.records, "every record arrives once");
        if view == "raw" {
            parse = Some(one_parse(&directory.path().join("out"), 100_000_000)?);
        }
        println!(
            "{view:>5}: {:6.2} CPU-s  {:6.2} s wall  {:5.1} MiB peak RssAnon  {:6.1} MB out  {requests} requests{}",
            measured.cpu.as_secs_f64(),
            measured.wall.as_secs_f64(),
            measured.peak_anon_kib as f64 / 1024.0,
            measured.bytes_out as f64 / 1e6,
            parse.map_or(String::new(), |(per_byte, bytes)| {
                let parse = per_byte * bytes as f64;
                format!("  = {:.2} parses of {:.2} s", measured.cpu.as_secs_f64() / parse, parse)
            }),
        );
    }
    Ok(())
}

fn requests(simulated: &Simulated) -> Outcome<u64> {
    let stats: serde_json::Value = serde_json::from_slice(&simulated.get("/_simulator/stats")?)?;
    let kinds = stats["requests"].as_object().ok_or_else(|| format!("no requests in {stats}"))?;
    Ok(kinds
        .values()
        .filter_map(serde_json::Value::as_object)
        .flat_map(|by| by.values())
        .filter_map(serde_json::Value::as_u64)
        .sum())
}
