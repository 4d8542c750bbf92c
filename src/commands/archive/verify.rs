//! `mailtrail archive verify`: an archive, or a proof.

use std::{path::Path, process::ExitCode};

use archive::{
    Finding, Proof, PublicKey, Verified, Verify,
    verify::{Step, all_cores},
};
use indicatif::MultiProgress;
use serde::Serialize;

use super::{Failure, bar, found, open, print, print_json, printable, public_keys, read, runtime};
use crate::{
    cli::{ConfigArgs, PlaceArgs, VerifyArgs},
    table::{Align, Table},
    units::{format_bytes, format_count, format_time},
};

/// The most findings that are shown. A folder that is no archive of this key has millions.
const SHOWN: usize = 10_000;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    verified: Verified,
    /// The first of them.
    shown: Vec<Finding>,
}

/// Verifies.
pub(super) fn run(config: &ConfigArgs, args: VerifyArgs, shown: &MultiProgress) -> Result<ExitCode, Failure> {
    let keys = public_keys(&args.public_keys)?;
    if let Some(proof) = &args.proof {
        return check_proof(proof, &keys, args.json);
    }
    let verify = Verify { keys, heads: args.heads, jobs: all_cores() };
    let bar = bar(shown);
    let mut findings = Vec::new();
    let verified = runtime()?.block_on(async {
        let store = open(config, &PlaceArgs { sink: args.sink, directory: args.directory }).await?;
        let mut entries = 0u64;
        let mut step = |step: Step<'_>| match step {
            Step::Listed { bytes, .. } => bar.set_length(bytes),
            Step::Entry => {
                entries += 1;
                bar.set_message(format!("{} entries", format_count(entries)));
            }
            Step::Read { bytes } => bar.inc(bytes),
            Step::File => {}
            Step::Finding(finding) if findings.len() < SHOWN => {
                // Whoever watches a long run wants to know at once.
                if !args.json {
                    let line = printable(&finding.to_string());
                    bar.suspend(|| print(&format!("{line}\n"))).unwrap_or_default();
                }
                findings.push(finding.clone());
            }
            Step::Finding(_) => {}
        };
        verify.run(&store, &mut step).await.map_err(Failure::problem)
    })?;
    bar.finish_and_clear();
    let failed = verified.findings > 0;
    if args.json {
        print_json(&Report { verified, shown: findings })?;
    } else {
        print(&summary(&verified))?;
    }
    Ok(found(failed))
}

fn summary(verified: &Verified) -> String {
    use Align::{Left, Right};
    let mut table = Table::new([
        ("tenant", Left),
        ("ledger", Left),
        ("entries", Right),
        ("records", Right),
        ("until", Left),
        ("head", Left),
    ]);
    for chain in &verified.chains {
        table.row([
            chain.tenant.to_string(),
            chain.ledger.to_string(),
            format_count(chain.entries),
            format_count(chain.records),
            chain.to.map(format_time).unwrap_or_default(),
            chain.head.map(|head| head.to_string()).unwrap_or_default(),
        ]);
    }
    let Verified { files, bytes, records, not_yet_covered, findings, .. } = verified;
    let mut text = if verified.chains.is_empty() { String::new() } else { format!("{table}\n") };
    let (files, records) = (format_count(*files), format_count(*records));
    text += &format!("{files} files, {}, {records} records were verified", format_bytes(*bytes));
    text += &match not_yet_covered {
        0 => ".\n".to_owned(),
        count => format!("; {} newer files are not covered by an entry yet.\n", format_count(*count)),
    };
    for chain in &verified.chains {
        if let Some(stamped) = &chain.stamped {
            text += &format!(
                "Entry {} of {} has a time-stamp of {}; `openssl ts -verify` tells who made it.\n",
                stamped.number,
                chain.tenant,
                format_time(stamped.time)
            );
        }
    }
    text += &match findings {
        0 => "Everything is as the entries say.\n".to_owned(),
        1 => "1 thing is wrong.\n".to_owned(),
        count if *count as usize > SHOWN => {
            format!(
                "{} things are wrong; the first {} were shown.\n",
                format_count(*count),
                format_count(SHOWN as u64)
            )
        }
        count => format!("{} things are wrong.\n", format_count(*count)),
    };
    text
}

/// What a proof says.
#[derive(Debug, Serialize)]
struct ProofReport {
    tenant: String,
    content_type: String,
    ledger: String,
    entry: u64,
    from: chrono::DateTime<chrono::Utc>,
    to: chrono::DateTime<chrono::Utc>,
    key: String,
    record: String,
}

fn check_proof(path: &Path, keys: &[PublicKey], json: bool) -> Result<ExitCode, Failure> {
    let named = |error: &dyn std::fmt::Display| Failure::Problem(format!("{}: {error}", path.display()));
    let proof = Proof::parse(&read(path)?).map_err(|error| named(&error))?;
    let proved = proof.check(keys).map_err(|error| named(&error))?;
    let entry = &proved.entry;
    let report = ProofReport {
        tenant: entry.tenant.to_string(),
        content_type: entry.objects[proved.object].content_type.to_string(),
        ledger: entry.ledger.to_string(),
        entry: entry.number,
        from: entry.from,
        to: entry.to,
        key: entry.key.to_string(),
        record: String::from_utf8_lossy(&proved.record).into_owned(),
    };
    if json {
        print_json(&report)?;
    } else {
        print(&format!(
            "The record was archived as {} of the tenant {}: it is in entry {} of the ledger {}, made at {} and signed by the \
             key {}.\n{}\n",
            report.content_type,
            report.tenant,
            report.entry,
            report.ledger,
            report.to,
            report.key,
            report.record
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
