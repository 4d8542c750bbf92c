//! `mailtrail dead-letters`: what a sink refused for good, or nobody could read.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    process::ExitCode,
};

use chrono::{DateTime, Utc};
use ledger::{DeadLetter, Inspector, LetterFilter};
use schemas::SinkName;
use serde::Serialize;

use super::{Failure, change, inspect, load, print, print_json};
use crate::{
    cli::{DeadLettersArgs, DeadLettersCommand, ExportArgs, ListArgs},
    operate::{Change, WhichDeadLetters},
    table::{Align, Table},
    units::{format_count, format_time},
};

/// A dead letter as it is shown and exported.
#[derive(Debug, Serialize)]
struct Letter {
    id: i64,
    at: DateTime<Utc>,
    sink: Option<String>,
    tenant: String,
    content_type: String,
    content_id: String,
    position: Option<u32>,
    records: u32,
    reason: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
}

impl Letter {
    fn new(letter: &DeadLetter, record: Option<&[u8]>) -> Self {
        Self {
            id: letter.id,
            at: letter.at,
            sink: letter.sink.as_ref().map(SinkName::to_string),
            tenant: letter.feed.tenant.to_string(),
            content_type: letter.feed.content_type.to_string(),
            content_id: letter.content_id.to_string(),
            position: letter.position,
            records: letter.records,
            reason: letter.reason.clone(),
            state: match (&letter.done_at, &letter.retry, &letter.acknowledged) {
                (Some(_), ..) => "retried",
                (None, Some(_), _) => "being retried",
                (None, None, Some(_)) => "acknowledged",
                (None, None, None) => "open",
            },
            record: record.map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
        }
    }
}

/// Runs the command.
pub(super) fn run(args: DeadLettersArgs) -> Result<ExitCode, Failure> {
    let config = load(&args.config)?;
    match args.command {
        DeadLettersCommand::List(list) => show_list(&inspect(&config)?, &list),
        DeadLettersCommand::Show { id } => show_one(&inspect(&config)?, id),
        DeadLettersCommand::Export(export) => write_out(&inspect(&config)?, &export),
        DeadLettersCommand::Retry(retry) => {
            let which = match (retry.sink, retry.all) {
                (Some(sink), _) => WhichDeadLetters::Sink(sink),
                (None, true) => WhichDeadLetters::All,
                (None, false) => WhichDeadLetters::Ids(retry.ids),
            };
            let done = change(&config, Change::RetryDeadLetters { which })?;
            print(&format!("{done}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show_list(ledger: &Inspector, args: &ListArgs) -> Result<ExitCode, Failure> {
    let mut letters = Vec::new();
    let filter = LetterFilter { sink: args.sink.clone(), ..LetterFilter::default() };
    let limit = args.limit as usize;
    let mut after = 0;
    // The newest are wanted and they come by their numbers: what is before them is passed over.
    loop {
        let some =
            ledger.dead_letters(&LetterFilter { after, ..filter.clone() }).map_err(Failure::problem)?;
        let Some(last) = some.last() else { break };
        after = last.id;
        letters.extend(some);
        let surplus = letters.len().saturating_sub(limit);
        letters.drain(..surplus);
    }
    let letters: Vec<_> = letters.iter().map(|letter| Letter::new(letter, None)).collect();
    if args.json {
        print_json(&letters)?;
        return Ok(ExitCode::SUCCESS);
    }
    use Align::{Left, Right};
    let mut table = Table::new([
        ("id", Right),
        ("since", Left),
        ("sink", Left),
        ("tenant", Left),
        ("content type", Left),
        ("records", Right),
        ("state", Left),
        ("reason", Left),
    ]);
    for letter in &letters {
        table.row([
            letter.id.to_string(),
            format_time(letter.at),
            letter.sink.clone().unwrap_or_else(|| "all".to_owned()),
            letter.tenant.clone(),
            letter.content_type.clone(),
            format_count(u64::from(letter.records)),
            letter.state.to_owned(),
            letter.reason.clone(),
        ]);
    }
    if table.is_empty() {
        print("there are no dead letters\n")?
    } else {
        print(&table.to_string())?
    }
    Ok(ExitCode::SUCCESS)
}

fn show_one(ledger: &Inspector, id: u64) -> Result<ExitCode, Failure> {
    let found =
        i64::try_from(id).ok().map(|id| ledger.dead_letter(id)).transpose().map_err(Failure::problem)?;
    let Some((letter, bytes)) = found.flatten() else {
        return Err(Failure::Problem(format!(
            "there is no dead letter {id}; `mailtrail dead-letters list` shows them"
        )));
    };
    print_json(&Letter::new(&letter, bytes.as_deref()))?;
    Ok(ExitCode::SUCCESS)
}

fn write_out(ledger: &Inspector, args: &ExportArgs) -> Result<ExitCode, Failure> {
    let filter = LetterFilter { sink: args.sink.clone(), ..LetterFilter::default() };
    let mut out: Box<dyn Write> = match &args.out {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            // Records are evidence: nobody else reads them, and nothing is written over.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let file =
                file.map_err(|error| Failure::Problem(format!("cannot make {}: {error}", path.display())))?;
            Box::new(BufWriter::new(file))
        }
    };
    let count = ledger
        .export_dead_letters(&filter, &mut |letter, bytes| {
            serde_json::to_writer(&mut out, &Letter::new(letter, Some(bytes)))?;
            out.write_all(b"\n")
        })
        .map_err(Failure::problem)?;
    out.flush().map_err(|error| Failure::Problem(format!("cannot write the export: {error}")))?;
    if let Some(path) = &args.out {
        print(&format!("wrote {} dead letters to {}\n", format_count(count), path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
