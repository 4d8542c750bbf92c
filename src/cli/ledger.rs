//! The commands that look into the ledger or change it.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use schemas::SinkName;

use super::{ConfigArgs, When};

pub(super) const STATUS_HELP: &str = "\
Examples:
  mailtrail status
  mailtrail status --json | jq '.sinks[] | {name, pending}'
  mailtrail status --alive            # for health checks: only the exit status

It reads the ledger beside a running process, and works while none runs.

Exit status: 0 ok, 1 something is halted, paused or failing, or a changed configuration was refused, 2 wrong usage or \
configuration.";

/// `mailtrail status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Only exit with 0 when a running mailtrail answers, and with 1 when none does
    #[arg(long, conflicts_with = "json")]
    pub(crate) alive: bool,
}

pub(super) const RECONCILE_HELP: &str = "\
Examples:
  mailtrail reconcile --since 24h
  mailtrail reconcile --since 2026-11-01 --until 2026-11-08 --by day --tenant contoso
  mailtrail reconcile acknowledge hole-3 --reason 'planned downtime, CHG-4711'

Per feed and hour it prints the blobs listed, fetched and lost, the records that came in, the duplicates, and per sink \
what was filtered, delivered and refused; and whether the sums agree.

Exit status: 0 the sums agree and nothing is unacknowledged, 1 they do not, or there is a gap, hole, quarantined blob or \
dead letter that nobody acknowledged, 2 wrong usage or configuration.";

/// `mailtrail reconcile`.
#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// From when: a day, a time in UTC, or how long ago [default: everything that is known]
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub(crate) since: Option<When>,
    /// Until when [default: now]
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub(crate) until: Option<When>,
    /// Only this tenant, by name or id; can be repeated
    #[arg(long = "tenant", value_name = "TENANT")]
    pub(crate) tenants: Vec<String>,
    /// What makes a row
    #[arg(long, value_enum, default_value_t, value_name = "SPAN")]
    pub(crate) by: ReconcileBy,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Something else than the report.
    #[command(subcommand)]
    pub(crate) command: Option<ReconcileCommand>,
}

/// What makes a row of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum ReconcileBy {
    /// An hour of a feed
    #[default]
    Hour,
    /// A day of a feed, in UTC
    Day,
    /// A feed
    Feed,
}

/// Beside the report.
#[derive(Debug, Subcommand)]
pub(crate) enum ReconcileCommand {
    /// Take note of losses, so that they no longer make the exit status 1
    #[command(after_help = ACKNOWLEDGE_HELP)]
    Acknowledge(AcknowledgeArgs),
}

const ACKNOWLEDGE_HELP: &str = "\
Example:
  mailtrail reconcile acknowledge gap-17 hole-3 --reason 'planned downtime, CHG-4711'

The report names the ids. The reason is kept with your name and the time; nothing is deleted.";

/// `mailtrail reconcile acknowledge`.
#[derive(Debug, Args)]
pub(crate) struct AcknowledgeArgs {
    /// What is acknowledged, as the report names it
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Why it is all right
    #[arg(long, value_name = "TEXT", value_parser = not_blank)]
    pub(crate) reason: String,
    /// Who says so [default: the login name]
    #[arg(long, value_name = "NAME", value_parser = not_blank)]
    pub(crate) name: Option<String>,
}

pub(super) const DEAD_LETTERS_HELP: &str = "\
Examples:
  mailtrail dead-letters list --sink soc
  mailtrail dead-letters show 17
  mailtrail dead-letters retry --sink soc
  mailtrail dead-letters export --out refused.ndjson

A dead letter is a record that a sink refuses for good, or that cannot be read at all. It is kept with its bytes and \
the reason until a retry delivers it.

Exit status: 0 ok, 1 there is no such dead letter, 2 wrong usage or configuration.";

/// `mailtrail dead-letters`.
#[derive(Debug, Args)]
pub(crate) struct DeadLettersArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// What to do with them.
    #[command(subcommand)]
    pub(crate) command: DeadLettersCommand,
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List them
    #[command(after_help = "Example:\n  mailtrail dead-letters list --sink soc --limit 20")]
    List(ListArgs),
    /// Show one, with its record as it came
    #[command(after_help = "Example:\n  mailtrail dead-letters show 17")]
    Show {
        /// Its number, as `list` shows it
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// Deliver them again
    #[command(
        after_help = "Examples:\n  mailtrail dead-letters retry 17 18\n  mailtrail dead-letters retry --all"
    )]
    Retry(RetryArgs),
    /// Write them out, one JSON object a line
    #[command(after_help = "Example:\n  mailtrail dead-letters export --sink soc --out refused.ndjson")]
    Export(ExportArgs),
}

/// `mailtrail dead-letters list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those of this sink
    #[arg(long, value_name = "NAME")]
    pub(crate) sink: Option<SinkName>,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `mailtrail dead-letters retry`.
#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false)]
pub(crate) struct RetryArgs {
    /// These, as `list` numbers them
    #[arg(value_name = "ID", group = "which")]
    pub(crate) ids: Vec<u64>,
    /// All of this sink
    #[arg(long, value_name = "NAME", group = "which")]
    pub(crate) sink: Option<SinkName>,
    /// All
    #[arg(long, group = "which")]
    pub(crate) all: bool,
}

/// `mailtrail dead-letters export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Only those of this sink
    #[arg(long, value_name = "NAME")]
    pub(crate) sink: Option<SinkName>,
    /// The file to write, which must not exist [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

pub(super) const SINKS_HELP: &str = "\
Examples:
  mailtrail sinks forget old-archive
  mailtrail sinks adopt stream

Exit status: 0 ok, 1 there is no such sink, or not of that kind, 2 wrong usage or configuration.";

/// `mailtrail sinks`.
#[derive(Debug, Args)]
pub(crate) struct SinksArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// What to tell.
    #[command(subcommand)]
    pub(crate) command: SinksCommand,
}

/// What can be told about sinks.
#[derive(Debug, Subcommand)]
pub(crate) enum SinksCommand {
    /// Give up what a sink that is no longer configured has not got yet, so that the spool can let go of it
    #[command(after_help = "Example:\n  mailtrail sinks forget old-archive\n\n\
                            What was pending for it is counted as dead (forgotten) and shown by reconcile.")]
    Forget {
        /// The sink
        #[arg(value_name = "NAME")]
        name: SinkName,
    },
    /// Let a kafka sink with transactions go on that halted because another ledger, or a newer copy of this one, has
    /// delivered before
    #[command(after_help = "Example:\n  mailtrail sinks adopt stream\n\n\
                            Do this when the state directory was lost or is an older copy, and the other mailtrail is \
                            gone. What it has delivered, and Microsoft still has, comes again.")]
    Adopt {
        /// The sink
        #[arg(value_name = "NAME")]
        name: SinkName,
    },
}

fn not_blank(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say something".to_owned()) } else { Ok(text.to_owned()) }
}
