//! The ledger as a sink sees it that is only tried: what an earlier run has kept, and nothing to be written.

use ledger::Inspector;
use schemas::SinkName;
use sinks::{
    delivery_ledger::{LedgerFailure, SinkStates},
    sink::BoxFuture,
};

/// A ledger that is looked at, if there is one.
pub(super) struct Probing(pub(super) Option<Inspector>);

impl SinkStates for Probing {
    fn sink_state<'a>(&'a self, sink: &'a SinkName) -> BoxFuture<'a, Result<Option<Vec<u8>>, LedgerFailure>> {
        Box::pin(async move {
            let Some(ledger) = &self.0 else { return Ok(None) };
            ledger
                .sink_state(sink)
                .map_err(|error| LedgerFailure { message: error.to_string(), passing: false })
        })
    }

    fn set_sink_state<'a>(&'a self, _: &'a SinkName, _: Vec<u8>) -> BoxFuture<'a, Result<(), LedgerFailure>> {
        Box::pin(async {
            Err(LedgerFailure {
                message: "a sink that is only tried keeps nothing".to_owned(),
                passing: false,
            })
        })
    }
}
