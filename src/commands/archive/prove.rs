//! `mailtrail archive prove`.

use std::process::ExitCode;

use archive::{Search, verify::all_cores};
use chrono::Utc;
use indicatif::MultiProgress;

use super::{Failure, bar, open, print, public_keys, runtime, write_new};
use crate::cli::{ConfigArgs, ProveArgs};

/// Finds a record and writes its proof.
pub(super) fn run(config: &ConfigArgs, args: ProveArgs, shown: &MultiProgress) -> Result<ExitCode, Failure> {
    let now = Utc::now();
    let search = Search {
        id: args.id,
        keys: public_keys(&args.public_keys)?,
        since: args.since.map(|when| when.resolve(now)),
        until: args.until.map(|when| when.resolve(now)),
        jobs: all_cores(),
    };
    let bar = bar(shown);
    let found = runtime()?.block_on(async {
        let store = open(config, &args.place).await?;
        let mut searched = |bytes| {
            bar.inc(bytes);
            bar.set_length(bar.position());
        };
        search.run(&store, &mut searched).await.map_err(Failure::problem)
    })?;
    bar.finish_and_clear();
    let Some(found) = found else {
        let hint = if search.since.is_some() || search.until.is_some() { " of that time" } else { "" };
        return Err(Failure::Problem(format!("no object{hint} holds a record with the Id {}", search.id)));
    };
    let bytes = found.proof.to_bytes();
    match &args.out {
        None => print(&String::from_utf8_lossy(&bytes))?,
        Some(path) => {
            write_new(path, 0o644, &bytes)?;
            let (what, number) = (if found.format.is_ndjson() { "line" } else { "row" }, found.index + 1);
            print(&format!(
                "The record is {what} {number} of {}; {} names it.\nThe proof is {}; it is checked with the public key {}.\n",
                found.path,
                found.entry,
                path.display(),
                found.signer.id()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
