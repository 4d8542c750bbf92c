//! The collector against a simulated tenant and a ledger in memory: whatever goes wrong on the way, every blob that
//! can be had arrives exactly once, the token goes nowhere else, and no feed disturbs another.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bodies;
mod clock;
mod faults;
mod harness;
mod isolation;
mod listing;
mod memory_ledger;
mod proxy;
mod refused;
mod scripted;
mod secrecy;
mod tls;
