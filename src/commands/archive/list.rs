//! `mailtrail archive list`.

use std::process::ExitCode;

use archive::{Entry, Hash, Place, chains, read_entry};
use chrono::Utc;
use serde::Serialize;

use super::{Failure, found, open, print, runtime};
use crate::{
    cli::{ConfigArgs, ListArchiveArgs},
    table::{Align, Table},
    units::{format_bytes, format_count, format_time},
};

/// An entry as `--json` prints it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    path: String,
    sha256: Hash,
    entry: &'a Entry,
}

/// Lists entries, or their objects.
pub(super) fn run(config: &ConfigArgs, args: &ListArchiveArgs) -> Result<ExitCode, Failure> {
    runtime()?.block_on(list(config, args))
}

async fn list(config: &ConfigArgs, args: &ListArchiveArgs) -> Result<ExitCode, Failure> {
    let now = Utc::now();
    let (since, until) = (args.since.map(|when| when.resolve(now)), args.until.map(|when| when.resolve(now)));
    let store = open(config, &args.place).await?;
    let mut table = if args.objects { objects_table() } else { entries_table() };
    let mut unread = Vec::new();
    for (chain, numbers) in chains(&store).await.map_err(Failure::problem)? {
        for place in numbers.places() {
            let (Place::Entry(number) | Place::Missing { first: number, .. }) = place;
            let path = chain.entry(number);
            let (envelope, entry) = match read_entry(&store, &chain, number).await {
                Ok(read) => read,
                Err(error) => {
                    unread.push(format!("{path}: {error}"));
                    continue;
                }
            };
            if since.is_some_and(|since| entry.to <= since) || until.is_some_and(|until| entry.from >= until)
            {
                continue;
            }
            if args.json {
                let line = Line { path: path.to_string(), sha256: envelope.hash(), entry: &entry };
                let line = serde_json::to_string(&line).map_err(Failure::problem)?;
                print(&format!("{line}\n"))?;
            } else if args.objects {
                objects_rows(&mut table, &entry);
            } else {
                entry_row(&mut table, &entry);
            }
        }
    }
    print(&table.to_string())?;
    if unread.is_empty() {
        return Ok(found(false));
    }
    Err(Failure::Problem(format!("{}\n`mailtrail archive verify` tells more", unread.join("\n"))))
}

fn entries_table() -> Table {
    use Align::{Left, Right};
    Table::new([
        ("tenant", Left),
        ("entry", Right),
        ("from", Left),
        ("to", Left),
        ("seqs", Left),
        ("objects", Right),
        ("records", Right),
        ("bytes", Right),
        ("lost", Right),
        ("key", Left),
    ])
}

fn entry_row(table: &mut Table, entry: &Entry) {
    let files = || entry.objects.iter().flat_map(|object| &object.files);
    let lost: u64 = entry.accounts.values().map(|accounts| accounts.gaps + accounts.holes).sum();
    let seqs = if entry.after_seq == entry.last_seq {
        "none".to_owned()
    } else {
        format!("{}..{}", entry.after_seq.next(), entry.last_seq)
    };
    table.row([
        entry.tenant.to_string(),
        entry.number.to_string(),
        format_time(entry.from),
        format_time(entry.to),
        seqs,
        format_count(entry.objects.len() as u64),
        format_count(entry.objects.iter().map(|object| object.records).sum()),
        format_bytes(files().map(|file| file.bytes).sum()),
        format_count(lost),
        entry.key.to_string(),
    ]);
}

fn objects_table() -> Table {
    use Align::{Left, Right};
    Table::new([
        ("entry", Right),
        ("content type", Left),
        ("seqs", Left),
        ("first record", Left),
        ("last record", Left),
        ("records", Right),
        ("bytes", Right),
        ("path", Left),
    ])
}

fn objects_rows(table: &mut Table, entry: &Entry) {
    for object in &entry.objects {
        for file in &object.files {
            table.row([
                entry.number.to_string(),
                object.content_type.to_string(),
                format!("{}..{}", object.first_seq, object.last_seq),
                object.first_creation_time.map(format_time).unwrap_or_default(),
                object.last_creation_time.map(format_time).unwrap_or_default(),
                format_count(file.records),
                format_bytes(file.bytes),
                file.path.to_string(),
            ]);
        }
    }
}
