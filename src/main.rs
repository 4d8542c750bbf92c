//! mailtrail collects the audit records of Microsoft 365 tenants and delivers them, so that every record arrives, none
//! is silently doubled, and both can be proved.
//!
//! | module | what it holds |
//! |---|---|
//! | `cli` | what can be typed |
//! | `config` | the configuration file |
//! | `commands` | one module per command |
//! | `pipeline` | the wiring: the only place that knows ingest, transform and sinks |
//! | `operate`, `control` | changes to the ledger, and how to ask a running process for them |
//! | `sentinel` | tables of Microsoft Sentinel, and what deploys them |
//! | `reload` | SIGHUP: another configuration while everything runs |
//! | `http` | `/metrics`, `/healthz`, `/readyz` |
//! | `idle` | when `run --until-idle` is done, and when it has to give up |
//! | `live` | how a running process is doing, as only it knows |
//! | `progress`, `summary`, `table`, `units`, `logging` | what people see |

mod cli;
mod commands;
mod config;
mod control;
mod http;
mod idle;
mod live;
mod logging;
mod operate;
mod pipeline;
mod progress;
mod reload;
mod restoring;
mod sentinel;
mod summary;
mod table;
mod units;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let shown = match logging::init(cli.log.log_format, cli.log.log_level.as_deref()) {
        Ok(shown) => shown,
        Err(error) => return commands::Failure::Usage(error.to_string()).report(),
    };
    match commands::run(cli.command, shown) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
