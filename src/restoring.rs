//! How records of an archive get into the ledger: through the process that has it, or, when none does, by taking it.
//!
//! The command that restores reads the archive; whoever has the ledger takes a few records at a time, durably, together with how
//! far the command is. So either may end anywhere, and the same command goes on where it was.

use ledger::{BegunRestore, Ledger, LedgerError, RestoreAsk, RestoreId, RestorePosition, RestoreStep};
use schemas::ContentId;
use serde::{Deserialize, Serialize};

/// So many bytes of records are put back at once, if there is no record that is larger.
pub(crate) const PORTION: usize = 1 << 20;

/// No portion is larger: a record of this size is no audit record.
pub(crate) const LARGEST: u64 = 64 << 20;

/// What a restore asks of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// To begin, or go on.
    Begin(RestoreAsk),
    /// How far it is in an object, and whether there is room.
    Position {
        /// Which restore.
        restore: RestoreId,
        /// The object's name.
        object: ContentId,
    },
    /// To take records: so many bytes of lines follow.
    Records {
        /// Where they are from, and how far the object is dealt with then.
        step: RestoreStep,
        /// How many bytes follow.
        bytes: u64,
    },
    /// To end: all that was asked for was taken.
    End(RestoreId),
}

impl Ask {
    /// How many bytes follow.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Records { bytes, .. } => *bytes,
            Self::Begin(_) | Self::Position { .. } | Self::End(_) => 0,
        }
    }
}

/// What the ledger answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It has begun or goes on.
    Begun(BegunRestore),
    /// So far it is.
    Position(RestorePosition),
    /// It is done.
    Done,
}

/// Does what is asked.
pub(crate) async fn serve(ledger: &Ledger, ask: Ask, lines: Vec<u8>) -> Result<Answer, LedgerError> {
    match ask {
        Ask::Begin(ask) => {
            let sink = ask.sink.clone();
            let begun = ledger.begin_restore(ask).await?;
            let (since, until) = (begun.since, begun.until);
            let what = if begun.goes_on { "a restore goes on" } else { "a restore begins" };
            tracing::info!(restore = begun.id.0, %sink, %since, %until, "{what}");
            Ok(Answer::Begun(begun))
        }
        Ask::Position { restore, object } => {
            ledger.restore_position(restore, object).await.map(Answer::Position)
        }
        Ask::Records { step, .. } => ledger.restore_records(step, lines).await.map(|_| Answer::Done),
        Ask::End(restore) => {
            ledger.end_restore(restore).await?;
            tracing::info!(restore = restore.0, "a restore is complete: what is pending of it is delivered");
            Ok(Answer::Done)
        }
    }
}
