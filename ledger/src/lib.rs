//! ledger

// Public for the benchmark alone; the ledger is the index's only user.
#[doc(hidden)]
pub mod ids;
