//! The commands. Each prints to stdout what was asked for; why it could not goes to stderr.

mod archive;
mod check;
mod dead_letters;
mod demo;
mod reconcile;
mod run;
mod sentinel;
mod simulate;
mod sinks;
mod status;

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use indicatif::MultiProgress;
use ledger::Inspector;

use crate::{
    cli::{Command, ConfigArgs, ReconcileCommand},
    config::Config,
    control::{self, Answer},
    operate::{self, Change},
};

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or the configuration is wrong: exit status 2.
    Usage(String),
    /// Something else is: exit status 1.
    Problem(String),
}

impl Failure {
    pub(crate) fn problem(error: impl fmt::Display) -> Self {
        Self::Problem(error.to_string())
    }

    /// Says so on stderr and gives the exit status.
    pub(crate) fn report(self) -> ExitCode {
        let (text, code) = match self {
            Self::Usage(text) => (text, 2),
            Self::Problem(text) => (text, 1),
        };
        let mut stderr = io::stderr().lock();
        // Nobody is left to be told when stderr is closed.
        let _ = text.lines().try_for_each(|line| writeln!(stderr, "mailtrail: {}", printable(line)));
        ExitCode::from(code)
    }
}

/// A name may be of somebody else's choosing, as in an archive, and must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect()
}

/// The exit status of a command that looked for problems.
fn found(problem: bool) -> ExitCode {
    ExitCode::from(u8::from(problem))
}

/// Runs a command.
pub(crate) fn run(command: Command, shown: MultiProgress) -> Result<ExitCode, Failure> {
    match command {
        Command::Demo(args) => demo::run(args, shown),
        Command::Run(args) => run::run(args, shown),
        Command::Check(args) => check::run(args),
        Command::Status(args) => status::run(args),
        Command::Reconcile(args) => match args.command {
            Some(ReconcileCommand::Acknowledge(acknowledge)) => {
                reconcile::acknowledge(&args.config, acknowledge)
            }
            None => reconcile::run(args),
        },
        Command::DeadLetters(args) => dead_letters::run(args),
        Command::Sinks(args) => sinks::run(args),
        Command::Sentinel(args) => sentinel::run(&args),
        Command::Archive(args) => archive::run(args, shown),
        Command::Simulate(args) => simulate::run(args),
    }
}

/// Reads the configuration.
fn load(args: &ConfigArgs) -> Result<Config, Failure> {
    crate::config::load(args.config.as_deref()).map_err(|error| Failure::Usage(error.to_string()))
}

/// Looks into the ledger beside whoever uses it.
fn inspect(config: &Config) -> Result<Inspector, Failure> {
    Inspector::open(&config.state.directory).map_err(Failure::problem)
}

/// The runtime that a command needs.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Problem(format!("cannot start the runtime: {error}")))
}

/// Changes the ledger: through the process that has it, or, when none does, by taking it.
fn change(config: &Config, change: Change) -> Result<String, Failure> {
    let directory: &Path = &config.state.directory;
    match control::ask(directory, &change).map_err(Failure::problem)? {
        Some(Answer::Done(done)) => return Ok(done),
        Some(Answer::Refused(why)) => return Err(Failure::Problem(why)),
        Some(Answer::Live(_) | Answer::Restore(_)) => {
            return Err(Failure::Problem("the running mailtrail answered something else".into()));
        }
        None => {}
    }
    // Opening would make a ledger where there is none.
    Inspector::open(directory).map_err(Failure::problem)?;
    let (ledger, _) = ledger::Ledger::open(directory, crate::pipeline::ledger_settings(config))
        .map_err(Failure::problem)?;
    let done = runtime()?.block_on(async {
        if let Change::ForgetSink { name } = &change {
            // The ledger remembers the sinks of the last run; the configuration says which there are now.
            if config.sinks.iter().any(|sink| sink.name == *name) {
                return Err(Failure::Problem(format!(
                    "sink {name} is still configured; take it out of {} before it is forgotten",
                    config.path.display()
                )));
            }
            ledger.remove_sink(name).await.map_err(Failure::problem)?;
        }
        operate::apply(&ledger, change).await.map_err(Failure::problem)
    });
    ledger.close();
    done
}

/// Prints to stdout. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Problem(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints as indented JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::problem)?;
    print(&format!("{text}\n"))
}
