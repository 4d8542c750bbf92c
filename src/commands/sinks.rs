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
    let asked = match args.command {
        SinksCommand::Forget { name } => Change::ForgetSink { name },
        SinksCommand::Adopt { name } => {
            let sink = config.sinks.iter().find(|sink| sink.name == name);
            if !sink.is_some_and(|sink| sink.kind.remembers_its_ledger()) {
                let text =
                    format!("sink {name} is not configured, or it is no kafka sink with transactions = true");
                return Err(Failure::problem(text));
            }
            Change::AdoptSink { name }
        }
    };
    let done = change(&config, asked)?;
    print(&format!("{done}\n"))?;
    Ok(ExitCode::SUCCESS)
}
