//! What the ledger promises, one promise a test. The model test runs them all against each other, with crashes.

mod delivering;
mod listing;
mod losses;
mod model;
mod opening;
mod proving;
mod restoring;
mod retrying;
mod space;
mod spooling;
mod stating;
