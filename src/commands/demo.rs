//! `mailtrail demo`: everything at work on this machine. A simulated tenant is collected with all that goes wrong in
//! reality, into files, and what arrived is held against what the tenant holds.

mod findings;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};
use indicatif::MultiProgress;
use schemas::TimeRange;
use serde_json::Value;
use simulator::{Running, Simulator, SimulatorConfig};

use self::findings::Findings;
use super::{
    Failure, inspect, print,
    run::{Ended, Hangup, collect},
    runtime,
};
use crate::{
    cli::{DemoArgs, DemoView},
    config::Config,
    units::{format_bytes, format_count},
};

/// What goes wrong when nothing else is asked for.
const FAULTS: [&str; 8] = [
    "throttle429=0.01@1s",
    "server_error=0.02",
    "cut_body=0.02",
    "cut_gzip=0.02",
    "bare_404=0.01",
    "duplicate_records=0.1",
    "duplicate_listing=0.05",
    "same_created=0.1",
];

/// Runs the command.
pub(super) fn run(args: DemoArgs, shown: MultiProgress) -> Result<ExitCode, Failure> {
    prepare(&args.out)?;
    let mut simulated = args.traffic.simulator_config();
    if args.traffic.faults.is_empty() {
        for fault in FAULTS {
            simulated.faults.set(fault).map_err(Failure::problem)?;
        }
    }
    runtime()?.block_on(show(&args, simulated, &shown))
}

/// Makes the directory; it must not hold anything, because the demonstration counts what is in it.
fn prepare(out: &Path) -> Result<(), Failure> {
    let there = |error: io::Error| Failure::Problem(format!("cannot use {}: {error}", out.display()));
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::Usage(format!(
                "{} is not empty; remove it, or choose another directory with --out",
                out.display()
            ))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(out).map_err(there),
        Err(error) => Err(there(error)),
    }
}

async fn show(
    args: &DemoArgs,
    simulated: SimulatorConfig,
    shown: &MultiProgress,
) -> Result<ExitCode, Failure> {
    let running =
        Simulator::start(simulated.clone(), ([127, 0, 0, 1], 0).into()).await.map_err(Failure::problem)?;
    let (config, records) = configure(args, &simulated, &running)?;
    print(&format!(
        "A simulated tenant with {} blobs is served at {}.\nCollecting it into {} …\n\n",
        format_count(simulated.blobs),
        running.base_url(),
        records.display()
    ))?;
    let started = Instant::now();
    let (ended, summary) = collect(&config, true, Hangup::Ends, shown).await?;
    let took = started.elapsed();
    print(&format!("{summary}\n"))?;
    match ended {
        Ended::Idle => {}
        Ended::Stopped => return Err(Failure::Problem("stopped before everything was collected".to_owned())),
        Ended::Stuck(left) => return Err(Failure::Problem(left.join("\n"))),
        Ended::Broken(why) => return Err(Failure::Problem(why)),
    }
    let expected = running.truth();
    let suffered: u64 = running.stats().faults.values().sum();
    let arrived = Arrived::read(&records, args.view)?;
    running.shutdown().await;

    let mut missing = 0u64;
    let mut expected_count = 0u64;
    for (_, _, id) in expected.records() {
        expected_count += 1;
        missing += u64::from(id.is_some_and(|id| !arrived.ids.contains_key(&id)));
    }
    let doubled: u64 = arrived.ids.values().map(|times| times - 1).sum();
    let surplus = (arrived.lines - doubled).saturating_sub(expected_count - missing);
    let all = TimeRange { start: DateTime::UNIX_EPOCH, end: Utc::now() + TimeDelta::days(1) };
    let proof = inspect(&config)?.reconcile(all).map_err(Failure::problem)?;
    let sums =
        if proof.is_clean() { "the sums in the ledger agree" } else { "THE SUMS IN THE LEDGER DO NOT AGREE" };
    print(&format!(
        "{} records ({}) in {:.1} s, {} records/s.\n\
         The tenant holds {}: {missing} missing, {doubled} doubled, {surplus} too many; {sums}.\n\
         On the way {} things went wrong (throttling, errors, cut bodies, repeated records).\n",
        format_count(arrived.lines),
        format_bytes(arrived.bytes),
        took.as_secs_f64(),
        format_count((arrived.lines as f64 / took.as_secs_f64().max(0.001)) as u64),
        format_count(expected_count),
        format_count(suffered),
    ))?;
    print(&arrived.findings.to_string())?;
    print(&format!(
        "\nLook around:\n  head -1 {}/mailtrail.ndjson\n  mailtrail reconcile --by feed --config {}\n",
        records.display(),
        config.path.display()
    ))?;
    let right = missing + doubled + surplus == 0 && proof.is_clean();
    Ok(super::found(!right))
}

/// Writes the configuration down, so that the other commands can be tried on what the demonstration leaves.
fn configure(
    args: &DemoArgs,
    simulated: &SimulatorConfig,
    running: &Running,
) -> Result<(Config, PathBuf), Failure> {
    let broken =
        |error: io::Error| Failure::Problem(format!("cannot write to {}: {error}", args.out.display()));
    let out = fs::canonicalize(&args.out).map_err(broken)?;
    let (secret, path, records) = (out.join("secret"), out.join("mailtrail.toml"), out.join("records"));
    let tenant =
        simulated.tenants.first().ok_or_else(|| Failure::Problem("no tenant is simulated".to_owned()))?;
    fs::write(&secret, tenant.client_secret.as_deref().unwrap_or_default()).map_err(broken)?;
    let text = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let view = match args.view {
        DemoView::Ocsf => "ocsf",
        DemoView::Raw => "raw",
    };
    let toml = format!(
        "# Written by `mailtrail demo`. The tenant was simulated and is gone; the ledger and the records are here.\n\
         [state]\ndirectory = {}\n\n\
         [tenants.contoso]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = {} }}\n\
         cloud = \"custom\"\nauthority = \"{origin}\"\napi = \"{origin}\"\naccepted_domains = [\"{}\"]\n\n\
         [sinks.records]\ntype = \"file\"\ndirectory = {}\nview = \"{view}\"\n",
        text(&out.join("state")),
        tenant.tenant_id,
        tenant.client_id,
        text(&secret),
        tenant.domain,
        text(&records),
        origin = running.base_url(),
    );
    let mut file = File::create(&path).map_err(broken)?;
    file.write_all(toml.as_bytes()).map_err(broken)?;
    let config = crate::config::load(Some(&path)).map_err(Failure::problem)?;
    Ok((config, records))
}

/// What is in the files.
#[derive(Default)]
struct Arrived {
    lines: u64,
    bytes: u64,
    ids: HashMap<String, u64>,
    findings: Findings,
}

impl Arrived {
    fn read(records: &Path, view: DemoView) -> Result<Self, Failure> {
        let mut arrived = Self::default();
        let broken =
            |error: io::Error| Failure::Problem(format!("cannot read {}: {error}", records.display()));
        for entry in fs::read_dir(records).map_err(broken)? {
            let path = entry.map_err(broken)?.path();
            for line in BufReader::new(File::open(&path).map_err(broken)?).split(b'\n') {
                let line = line.map_err(broken)?;
                let event: Value = serde_json::from_slice(&line).map_err(|error| {
                    Failure::Problem(format!("{} holds a line that is not JSON: {error}", path.display()))
                })?;
                arrived.lines += 1;
                arrived.bytes += line.len() as u64 + 1;
                let id = match view {
                    DemoView::Ocsf => event.pointer("/metadata/uid"),
                    DemoView::Raw => event.get("Id"),
                };
                if let Some(id) = id.and_then(Value::as_str) {
                    *arrived.ids.entry(id.to_owned()).or_default() += 1;
                }
                if view == DemoView::Ocsf {
                    arrived.findings.look_at(&event);
                }
            }
        }
        Ok(arrived)
    }
}
