//! The whole pipeline: a simulated tenant in its own process, over loopback HTTP, into a file.
//!
//! `cargo bench --bench pipeline` prints what mailtrail alone took of CPU, memory and time for 1,000 blobs of 100
//! records of about 2 KB, to an OCSF file and to a raw file, beside one parse of the same bytes by `serde_json` in the
//! same run, and beside what it takes to move as many bytes without looking at them. `-- --blobs 100000 --records-per-blob 2 --no-prerender` is a long backlog, over which memory must stay flat;
//! `--gzip` compresses on the wire, `--sinks ocsf,raw` chooses the views.

#[path = "support/moving.rs"]
mod moving;
mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use moving::{cpu_of_thread, moving};
use support::{Measured, Outcome, Simulated, Taken, Workload};

struct Collected {
    taken: Taken,
    bytes_out: u64,
    lines: u64,
}

fn collect(simulated: &Simulated, view: &str, directory: &Path) -> Outcome<Collected> {
    let out = directory.join("out");
    let sinks = format!("[sinks.bench]\ntype = \"file\"\ndirectory = {out:?}\nview = \"{view}\"\n");
    let mut mailtrail = simulated.mailtrail(directory, &sinks)?;
    let taken = Measured::start(mailtrail.args(["--until-idle", "--log-level", "warn"]))?.until_end()?;
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
    Ok(Collected { taken, bytes_out, lines })
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
                let before = cpu_of_thread()?;
                std::hint::black_box(serde_json::from_slice::<serde_json::Value>(&line)?);
                spent += cpu_of_thread()?.saturating_sub(before);
            }
        }
    }
    Ok((spent.as_secs_f64() / bytes.max(1) as f64, all))
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn main() -> Outcome<()> {
    let mut views = vec!["ocsf".to_owned(), "raw".to_owned()];
    let workload = Workload::asked_for(|argument, arguments| {
        if argument == "--sinks" {
            let asked = arguments.next().ok_or("--sinks needs a value")?;
            views = asked.split(',').map(str::to_owned).collect();
        }
        Ok(argument == "--sinks")
    })?;
    let simulated = Simulated::start(&workload)?;
    let mut parse = None;
    println!("{workload}, collected by mailtrail alone");
    // The raw run comes first, because it leaves the bytes that one parse is measured with.
    views.sort_by_key(|view| view != "raw");
    for view in &views {
        let directory = tempfile::tempdir()?;
        let before = requests(&simulated)?;
        let Collected { taken, bytes_out, lines } = collect(&simulated, view, directory.path())?;
        let requests = requests(&simulated)? - before;
        assert_eq!(lines, workload.all(), "every record arrives once");
        if view == "raw" {
            parse = Some(one_parse(&directory.path().join("out"), 100_000_000)?);
        }
        println!(
            "{}  {:6.1} MB out  {requests} requests{}",
            taken.line(view, lines),
            bytes_out as f64 / 1e6,
            parse.map_or(String::new(), |(per_byte, bytes)| {
                let parse = per_byte * bytes as f64;
                format!("  = {:.2} parses of {:.2} s", taken.cpu.as_secs_f64() / parse, parse)
            }),
        );
        if let Some((per_byte, bytes)) = parse {
            let scratch = tempfile::tempdir()?;
            let length = usize::try_from(bytes / workload.blobs)?;
            let out = usize::try_from(bytes_out / workload.blobs)?;
            let moved = moving(workload.blobs, length, out, scratch.path())?.as_secs_f64();
            println!(
                "{:<44} {:>28} {moved:6.2} CPU-s  = {:.2} parses",
                "  moving its bytes alone",
                "",
                moved / (per_byte * bytes as f64)
            );
        }
    }
    Ok(())
}

/// How many requests the simulator has had so far.
fn requests(simulated: &Simulated) -> Outcome<u64> {
    let mut stream = TcpStream::connect(&simulated.address)?;
    write!(stream, "GET /_simulator/stats HTTP/1.0\r\nHost: {}\r\n\r\n", simulated.address)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").ok_or("no answer")?.1;
    let stats: serde_json::Value = serde_json::from_str(body)?;
    let kinds = stats["requests"].as_object().ok_or_else(|| format!("no requests in {stats}"))?;
    Ok(kinds
        .values()
        .filter_map(serde_json::Value::as_object)
        .flat_map(|by| by.values())
        .filter_map(serde_json::Value::as_u64)
        .sum())
}
