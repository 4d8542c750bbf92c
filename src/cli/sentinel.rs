//! The command that sets up Microsoft Sentinel.

use clap::{Args, Subcommand, ValueEnum};

use crate::sentinel::Target;

pub(super) const SENTINEL_HELP: &str = "\
Example:
  mailtrail sentinel template         # save what it prints as mailtrail.json
  az deployment group create --resource-group soc --template-file mailtrail.json \\
      --parameters workspaceName=soc principalId=OBJECT_ID

Exit status: 0 ok, 2 wrong usage.";

const TEMPLATE_HELP: &str = "\
Examples:
  mailtrail sentinel template         # save what it prints as mailtrail.json
  mailtrail sentinel template --view officeactivity --format bicep

It has the table with its columns, a data collection endpoint and rule, the role assignment of the application, and for \
--view asim the functions that join the table to the ASIM parsers. Nothing is asked and nothing is sent.

Exit status: 0 ok, 2 wrong usage.";

/// `mailtrail sentinel`.
#[derive(Debug, Args)]
pub(crate) struct SentinelArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: SentinelCommand,
}

/// The commands of `mailtrail sentinel`.
#[derive(Debug, Subcommand)]
pub(crate) enum SentinelCommand {
    /// Print what has to be deployed before a sentinel sink can deliver
    #[command(after_help = TEMPLATE_HELP)]
    Template(TemplateArgs),
}

/// `mailtrail sentinel template`.
#[derive(Debug, Args)]
pub(crate) struct TemplateArgs {
    /// For which view
    #[arg(long, value_enum, default_value_t)]
    pub(crate) view: SentinelView,
    /// As what it is printed
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: TemplateFormat,
}

/// A view that a table can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SentinelView {
    /// ASIM: AuditEvent and Authentication
    #[default]
    Asim,
    /// The columns of Sentinel's own OfficeActivity
    #[value(name = "officeactivity")]
    OfficeActivity,
    /// The records as they came
    Raw,
}

/// What a template is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum TemplateFormat {
    /// An ARM template, JSON
    #[default]
    Arm,
    /// Bicep
    Bicep,
}

impl SentinelView {
    /// The table for it.
    pub(crate) fn target(self) -> Target {
        match self {
            Self::Asim => Target::Asim,
            Self::OfficeActivity => Target::OfficeActivity,
            Self::Raw => Target::Raw,
        }
    }
}
