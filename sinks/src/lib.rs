//! From the ledger to the destinations: the sink trait, the delivery loop, and one module per sink.

pub mod delivery_ledger;
pub mod sink;
