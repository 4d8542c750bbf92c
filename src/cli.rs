//! What can be typed: commands, options, and the help that shows them at work.
//!
//! Exit status, for every command: 0 ok, 1 found a problem, 2 wrong usage or configuration. `clap` ends the process
//! with 2 by itself when the usage is wrong.

mod archive;
mod ledger;
mod sentinel;
mod simulation;
#[cfg(test)]
mod tests;
mod when;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::logging::LogFormat;

pub(crate) use self::archive::{
    ArchiveArgs, ArchiveCommand, KeygenArgs, ListArchiveArgs, PlaceArgs, ProveArgs, RestoreArgs, VerifyArgs,
};
pub(crate) use ledger::{
    AcknowledgeArgs, DeadLettersArgs, DeadLettersCommand, ExportArgs, ListArgs, ReconcileArgs, ReconcileBy,
    ReconcileCommand, SinksArgs, SinksCommand, StatusArgs,
};
pub(crate) use sentinel::{SentinelArgs, SentinelCommand, TemplateFormat};
pub(crate) use simulation::{DemoArgs, DemoView, SimulateArgs};
pub(crate) use when::When;

const ABOUT: &str = "Collects Office 365 audit records and delivers them, so that every record arrives and it can be \
                     proved";

const AFTER_HELP: &str = "\
Try it without a Microsoft 365 tenant:
  mailtrail demo

Then for real:
  mailtrail check --config mailtrail.toml
  mailtrail run --config mailtrail.toml

Exit status: 0 ok, 1 found a problem, 2 wrong usage or configuration.";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "mailtrail", version, about = ABOUT, after_help = AFTER_HELP, max_term_width = 120)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// How the log looks.
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The log goes to stderr.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogArgs {
    /// How log lines on stderr look
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = "Log")]
    pub(crate) log_format: LogFormat,
    /// error, warn, info, debug or trace, or directives such as info,ingest=debug [default: $MAILTRAIL_LOG, or info]
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Log")]
    pub(crate) log_level: Option<String>,
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration [default: $MAILTRAIL_CONFIG, ./mailtrail.toml or /etc/mailtrail/mailtrail.toml]
    #[arg(long, short, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Collect a simulated tenant on this machine, and prove the sums
    #[command(after_help = simulation::DEMO_HELP)]
    Demo(DemoArgs),
    /// Collect and deliver
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Check the configuration, then try each credential, subscription and sink
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Show how far each feed and each sink is
    #[command(after_help = ledger::STATUS_HELP)]
    Status(StatusArgs),
    /// Prove that everything listed was fetched and delivered, or show what was not
    #[command(after_help = ledger::RECONCILE_HELP)]
    Reconcile(ReconcileArgs),
    /// Look at what a sink refused for good, and try it again
    #[command(after_help = ledger::DEAD_LETTERS_HELP)]
    DeadLetters(DeadLettersArgs),
    /// Tell the ledger about sinks
    #[command(after_help = ledger::SINKS_HELP)]
    Sinks(SinksArgs),
    /// Set up a table of Microsoft Sentinel
    #[command(after_help = sentinel::SENTINEL_HELP)]
    Sentinel(SentinelArgs),
    /// Make keys for archives, verify them, prove what they hold, put records back
    #[command(after_help = archive::ARCHIVE_HELP)]
    Archive(ArchiveArgs),
    /// Serve a simulated tenant: token endpoint and Management Activity API
    #[command(after_help = simulation::simulate_help())]
    Simulate(SimulateArgs),
}

const RUN_HELP: &str = "\
Examples:
  mailtrail run --config /etc/mailtrail/mailtrail.toml
  mailtrail run --until-idle          # for cron and backfills: stops when everything is delivered

SIGTERM and Ctrl-C finish what is in flight and stop within 10 seconds; nothing is lost by a kill either.

Exit status: 0 stopped as asked (with --until-idle: everything listed is settled for every sink), 1 something keeps \
failing, 2 wrong usage or configuration.";

/// `mailtrail run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Stop when everything listed is settled for every sink
    #[arg(long)]
    pub(crate) until_idle: bool,
}

const CHECK_HELP: &str = "\
Examples:
  mailtrail check --config mailtrail.toml
  mailtrail check --offline           # only the file and the secrets that it refers to
  mailtrail check --send-test-event   # also whether Splunk or Sentinel takes an event

No subscription is started and no record is sent, except for test events with --send-test-event. \
A file sink's directory is made when it is missing.

Exit status: 0 everything works, 1 something does not, 2 wrong usage or configuration.";

/// `mailtrail check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Which configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Only read the configuration and its secrets; ask nobody
    #[arg(long)]
    pub(crate) offline: bool,
    /// Also deliver an event that is marked as a test, for what cannot be found out otherwise, such as whether the token
    /// may write to the index, or whether rows fit the rule
    #[arg(long, conflicts_with = "offline")]
    pub(crate) send_test_event: bool,
}
