//! From the ledger to the destinations: the sink trait, the delivery loop, and one module per sink.
//!
//! A sink is a destination that takes batches of rendered records and proves that it did. It knows nothing of leases,
//! retries, rates or shutdown: the [delivery loop](delivery) does all that, the same for every sink, and obeys the
//! [`Disposition`](sink::Disposition) that a sink answers with when a delivery fails.
//!
//! | module | what it holds |
//! |---|---|
//! | [`sink`] | [`Sink`](sink::Sink), batches, receipts, errors and what is to be done about them |
//! | [`delivery_ledger`] | [`DeliveryLedger`](delivery_ledger::DeliveryLedger): what is needed of the ledger, joined to it in the binary |
//! | [`delivery`] | [`DeliveryLoop`](delivery::DeliveryLoop): one for each sink |
//! | `batching`, `account`, `partial` | its pure parts: forming batches, adding up records, what is left of a work |
//! | [`holding`] | [`Holding`](holding::Holding): what is asked of a sink that takes works long before it is done with them |
//! | [`memory`], [`rate`], [`health`] | bytes that may be held, the pace, what can be seen from outside |
//! | [`measure`] | what one kind of sink counts beyond what all do |
//! | [`positions`] | positions of records as runs |
//! | `shorten` | cutting JSON until it fits |
//! | `http_answer` | what is taken from an answer over HTTP |
//! | `blocking` | work that blocks, off the reactor's threads |
//! | [`turn`] | whose turn it is at files that only one sink may write to |
//! | [`versioned`] | JSON that another version of the program may have written |
//! | [`template`] | texts with placeholders, for whatever a destination wants to be named |
//! | [`mod@file`] | the `file` sink: NDJSON, exactly once |
//! | [`splunk_hec`] | the `splunk_hec` sink: Splunk's HTTP Event Collector, at least once |
//! | [`sentinel`] | the `sentinel` sink: Microsoft Sentinel by the Logs Ingestion API, at least once |
//! | [`mod@archive`] | the `archive` sink: objects that are written once, exactly once |
//! | [`kafka`] | the `kafka` sink: Apache Kafka, exactly once with transactions, otherwise at least once |
//!
//! # Adding a sink
//!
//! One new file with a type that implements [`Sink`](sink::Sink) and its configuration, one variant in the binary's
//! configuration, and one page of documentation. Decide four things:
//!
//! 1. What proves delivery: make the [`Receipt`](sink::Receipt) there and nowhere else.
//! 2. Which [`Limits`](sink::Limits) the destination has. `in_flight: 1` and `ordered` keep order; thousands are fine for one that
//!    acknowledges late: drop the batch once it is sent, the loop keeps ranges of the spool, not bytes.
//! 3. Which errors are `Retry`, and of these which are ambiguous; which are `Split`, `Reject` and `Halt`. When in
//!    doubt between `Reject` and anything else, it is anything else: a refused record is never sent again.
//! 4. What an earlier run leaves at the destination. A sink that can recognise it is `exactly_once`: it keeps its
//!    [state](sink::Sink::state) in the commit before a batch leaves, and says in [`open`](sink::Sink::open) which
//!    work has to come first.

mod account;
pub mod age;
pub mod archive;
mod batching;
mod blocking;
pub mod delivery;
pub mod delivery_ledger;
pub mod file;
pub mod health;
pub mod holding;
mod http_answer;
pub mod kafka;
mod line;
pub mod measure;
pub mod memory;
mod partial;
pub mod positions;
pub mod rate;
pub mod sentinel;
mod shorten;
pub mod sink;
pub mod splunk_hec;
pub mod template;
#[cfg(test)]
mod test_ledger;
#[cfg(test)]
mod testing;
pub mod turn;
pub mod versioned;
