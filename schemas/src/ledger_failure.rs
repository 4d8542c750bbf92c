//! What the ledger answers when it could not do what it was asked for.

/// The ledger did not take or give something; it has not happened and can be asked for again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct LedgerFailure {
    /// What went wrong and what to do, for people.
    pub message: String,
    /// Whether waiting can help (a full disk, a full spool); otherwise the process has to stop.
    pub passing: bool,
}
