//! `mailtrail sinks`: telling the ledger about sinks.

use std::process::ExitCode;

use super::{Failure, change, load, print};
use crate::{
    cli::{SinksArgs, SinksCommand},
    operate::Change,
};

/// Runs the command.
pub(super) fn run(args: SinksArgs) -> Result<ExitCode, Failure> {
    let config = load(&args.config)?;
    let SinksCommand::Forget { name } = args.command;
    let done = change(&config, Change::ForgetSink { name })?;
    print(&format!("{done}\n"))?;
    Ok(ExitCode::SUCCESS)
}
