//! `mailtrail sentinel template`: what has to be deployed for a table of Microsoft Sentinel.

use std::process::ExitCode;

use super::{Failure, print};
use crate::{
    cli::{SentinelArgs, SentinelCommand, TemplateFormat},
    sentinel,
};

/// Runs the command.
pub(super) fn run(args: &SentinelArgs) -> Result<ExitCode, Failure> {
    let SentinelCommand::Template(template) = &args.command;
    let target = template.view.target();
    print(&match template.format {
        TemplateFormat::Arm => sentinel::arm(target),
        TemplateFormat::Bicep => sentinel::bicep(target),
    })?;
    Ok(ExitCode::SUCCESS)
}
