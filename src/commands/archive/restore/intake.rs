//! Whoever has the ledger, as the command that restores sees it.

use std::path::PathBuf;

use ledger::{
    BegunRestore, Inspector, Ledger, LedgerError, RestoreAsk, RestoreId, RestorePosition, RestoreStep,
};
use schemas::ContentId;

use super::Failure;
use crate::{
    config::Config,
    control, pipeline,
    restoring::{self, Answer, Ask},
};

/// Whoever has the ledger.
pub(super) enum Intake {
    /// A process that runs with this state directory.
    Live(PathBuf),
    /// This one, because none does.
    Own(Ledger),
}

impl Intake {
    /// Finds out who has it, and takes it when nobody does.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let state = config.state.directory.clone();
        if control::ask_live(&state).map_err(Failure::problem)?.is_some() {
            return Ok(Self::Live(state));
        }
        // Opening would make a ledger where there is none.
        Inspector::open(&state).map_err(Failure::problem)?;
        let (ledger, _) =
            Ledger::open(&state, pipeline::ledger_settings(config)).map_err(Failure::problem)?;
        Ok(Self::Own(ledger))
    }

    /// Whether a process runs that delivers.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Live(_))
    }

    /// Begins a restore, or goes on with one.
    pub(super) async fn begin(&self, ask: RestoreAsk) -> Result<BegunRestore, Failure> {
        match self.ask(Ask::Begin(ask), Vec::new()).await? {
            Answer::Begun(begun) => Ok(begun),
            other => Err(unusable(&other)),
        }
    }

    /// How far a restore is in an object.
    pub(super) async fn position(
        &self,
        restore: RestoreId,
        object: ContentId,
    ) -> Result<RestorePosition, Failure> {
        match self.ask(Ask::Position { restore, object }, Vec::new()).await? {
            Answer::Position(position) => Ok(position),
            other => Err(unusable(&other)),
        }
    }

    /// Puts lines back.
    pub(super) async fn records(&self, step: RestoreStep, lines: Vec<u8>) -> Result<(), Failure> {
        let bytes = lines.len() as u64;
        self.done(Ask::Records { step, bytes }, lines).await
    }

    /// Ends a restore.
    pub(super) async fn end(&self, restore: RestoreId) -> Result<(), Failure> {
        self.done(Ask::End(restore), Vec::new()).await
    }

    async fn done(&self, ask: Ask, lines: Vec<u8>) -> Result<(), Failure> {
        match self.ask(ask, lines).await? {
            Answer::Done => Ok(()),
            other => Err(unusable(&other)),
        }
    }

    async fn ask(&self, ask: Ask, lines: Vec<u8>) -> Result<Answer, Failure> {
        match self {
            Self::Own(ledger) => restoring::serve(ledger, ask, lines).await.map_err(refused),
            Self::Live(state) => {
                let state = state.clone();
                let asked = tokio::task::spawn_blocking(move || control::ask_restore(&state, ask, &lines));
                match asked.await.map_err(Failure::problem)?.map_err(Failure::problem)? {
                    Some(Ok(answer)) => Ok(answer),
                    Some(Err(why)) => Err(Failure::Problem(why)),
                    None => Err(Failure::Problem("the mailtrail that ran has ended".to_owned())),
                }
            }
        }
    }

    /// Lets go of the ledger.
    pub(super) async fn close(self) {
        if let Self::Own(ledger) = self {
            // Closing waits for the ledger's thread; one that panicked has said so.
            let _ = tokio::task::spawn_blocking(move || ledger.close()).await;
        }
    }
}

fn refused(error: LedgerError) -> Failure {
    match error {
        LedgerError::UnknownSink { name } => Failure::Problem(format!(
            "the ledger does not know sink {name} yet: the first `mailtrail run` with it makes them acquainted"
        )),
        error => Failure::problem(error),
    }
}

fn unusable(answer: &Answer) -> Failure {
    Failure::Problem(format!(
        "the running mailtrail answered something else ({answer:?}); is it another version?"
    ))
}
